#include "csi/linux_machine.h"

#include "csi/linux_files.h"
#include "io/worker.h"

namespace fairlead::csi {
namespace {

namespace host = linux_host;

class LinuxMachine final : public Machine {
 public:
  LinuxMachine(Reactor& home, std::string host_nqn) : home_(home), host_nqn_(std::move(host_nqn)) {}

  Task<Outcome<void>> check_host() override {
    Worker worker(home_, "csi-machine");
    co_return co_await worker.run([] { return host::check(); });
  }
  Task<Outcome<Attachment>> find(std::string nqn) override {
    Worker worker(home_, "csi-machine");
    co_return co_await worker.run([&] { return host::find(nqn, host_nqn_); });
  }
  Task<Outcome<void>> connect(ConnectRequest request) override {
    Worker worker(home_, "csi-machine");
    co_return co_await worker.run([&] { return host::connect(request); });
  }
  Task<Outcome<void>> disconnect(std::string controller) override {
    Worker worker(home_, "csi-machine");
    co_return co_await worker.run([&] { return host::disconnect(controller); });
  }
  Task<Outcome<void>> set_io_timeout(std::string device, uint32_t seconds) override {
    Worker worker(home_, "csi-machine");
    co_return co_await worker.run([&] { return host::set_io_timeout(device, seconds); });
  }
  Task<Outcome<void>> set_access(std::string device, Access access) override {
    Worker worker(home_, "csi-machine");
    co_return co_await worker.run([&] { return host::set_access(device, access); });
  }

  Task<Outcome<DeviceContent>> look_into(std::string device) override {
    Worker worker(home_, "csi-machine");
    co_return co_await worker.run([&] { return host::look_into(device); });
  }
  Task<Outcome<uint64_t>> size_of(std::string device) override {
    Worker worker(home_, "csi-machine");
    co_return co_await worker.run([&] { return host::size_of(device); });
  }
  Task<Outcome<void>> format(std::string device, std::string fs_type, std::vector<std::string> options) override {
    co_return co_await run(host::format_command(device, fs_type, options));
  }
  Task<Outcome<void>> repair(std::string device, std::string fs_type) override {
    // The others repair themselves when they are mounted.
    if (fs_type != "ext4") co_return Outcome<void>();
    co_return co_await run({"e2fsck", "-p", std::move(device)});
  }
  Task<Outcome<void>> grow(std::string device, std::string fs_type, std::string target) override {
    if (fs_type == "ext4") co_return co_await run({"resize2fs", std::move(device)});
    if (fs_type == "xfs") co_return co_await run({"xfs_growfs", std::move(target)});
    co_return co_await run({"btrfs", "filesystem", "resize", "max", std::move(target)});
  }
  Task<Outcome<void>> freeze(std::string target) override {
    Worker worker(home_, "csi-machine");
    co_return co_await worker.run([&] { return host::freeze(target); });
  }
  Task<Outcome<void>> thaw(std::string target) override {
    Worker worker(home_, "csi-machine");
    co_return co_await worker.run([&] { return host::thaw(target); });
  }

  Task<Outcome<std::vector<Mounted>>> mounts() override {
    Worker worker(home_, "csi-machine");
    co_return co_await worker.run([] { return host::mounts(); });
  }
  Task<Outcome<std::optional<Mounted>>> mounted_at(std::string target) override {
    Worker worker(home_, "csi-machine");
    co_return co_await worker.run([&] { return host::mounted_at(target); });
  }
  Task<Outcome<void>> mount(MountRequest request) override {
    Worker worker(home_, "csi-machine");
    co_return co_await worker.run([&] { return host::mount(request); });
  }
  Task<Outcome<void>> bind(std::string source, std::string target, Access access) override {
    Worker worker(home_, "csi-machine");
    co_return co_await worker.run([&] { return host::bind(source, target, access); });
  }
  Task<Outcome<void>> unmount(std::string target) override {
    Worker worker(home_, "csi-machine");
    co_return co_await worker.run([&] { return host::unmount(target); });
  }
  Task<Outcome<void>> make_folder(std::string path) override {
    Worker worker(home_, "csi-machine");
    co_return co_await worker.run([&] { return host::make_folder(path); });
  }
  Task<Outcome<void>> make_file(std::string path) override {
    Worker worker(home_, "csi-machine");
    co_return co_await worker.run([&] { return host::make_file(path); });
  }
  Task<Outcome<void>> remove(std::string path) override {
    Worker worker(home_, "csi-machine");
    co_return co_await worker.run([&] { return host::remove(path); });
  }
  Task<Outcome<Usage>> usage(std::string path) override {
    Worker worker(home_, "csi-machine");
    co_return co_await worker.run([&] { return host::usage(path); });
  }

 private:
  Task<Outcome<void>> run(host::CommandLine command) {
    Worker worker(home_, "csi-machine");
    FL_CO_TRY_VOID(co_await worker.run([&] { return host::run(command); }));
    co_return Outcome<void>();
  }

  Reactor& home_;
  const std::string host_nqn_;
};

}  // namespace

std::unique_ptr<Machine> make_linux_machine(Reactor& home, std::string host_nqn) {
  return std::make_unique<LinuxMachine>(home, std::move(host_nqn));
}

}  // namespace fairlead::csi
