// A machine for the tests of the node plugin: connections, one device a volume, file systems and mounts, in memory. It
// is killed by letting every step from the n-th on fail; what was done before stays. Lives on one shard.
#pragma once

#include <algorithm>
#include <gtest/gtest.h>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "async/event.h"
#include "csi/machine.h"
#include "io/small_files.h"

namespace fairlead::csi {

class TestMachine final : public Machine, public SmallFiles {
 public:
  struct Device {
    std::string path;
    DeviceContent content = {};
    uint64_t bytes = 64 << 20;
    uint64_t fs_bytes = 0;
    uint32_t io_timeout = 0;
    Access access = Access::kReadWrite;
    int formats = 0;
    bool is_frozen = false;
  };

  // One more step, unless it is dead by now.
  Outcome<void> step() {
    if (++steps > steps_max) return problem(Code::kCancelled, "killed");
    return {};
  }
  void revive(size_t after) {
    steps = 0;
    steps_max = after;
  }

  Task<Outcome<void>> check_host() override {
    if (!is_host) co_return problem(Code::kNotSupported, "nvme-tcp is not there");
    co_return step();
  }
  Task<Outcome<Attachment>> find(std::string nqn) override {
    FL_CO_TRY_VOID(step());
    Attachment attachment;
    for (const auto& [controller, request] : connections) {
      if (request.nqn != nqn) continue;
      attachment.connections.push_back(
          {.controller = controller, .address = request.address, .is_live = !dead.contains(request.address)});
    }
    if (!attachment.connections.empty() && !hidden) attachment.device = devices[nqn].path;
    co_return attachment;
  }
  Task<Outcome<void>> connect(ConnectRequest request) override {
    FL_CO_TRY_VOID(step());
    if (held != nullptr) {
      is_held = true;
      co_await held->wait();
    }
    if (dead.contains(request.address)) co_return problem(Code::kUnreachable, request.address + " is not there");
    for (const auto& [controller, other] : connections) {
      EXPECT_FALSE(other.nqn == request.nqn && other.address == request.address) << request.address;
    }
    Device& device = devices[request.nqn];
    if (device.path.empty()) device.path = "/dev/nvme" + std::to_string(devices.size()) + "n1";
    connections["nvme" + std::to_string(++controllers)] = std::move(request);
    co_return Outcome<void>();
  }
  Task<Outcome<void>> disconnect(std::string controller) override {
    FL_CO_TRY_VOID(step());
    EXPECT_TRUE(connections.contains(controller));
    const std::string nqn = connections[controller].nqn;
    connections.erase(controller);
    if (count_of(nqn) != 0) co_return Outcome<void>();
    for (const Mounted& mounted : all_mounts) EXPECT_NE(mounted.source, devices[nqn].path) << "is mounted";
    co_return Outcome<void>();
  }
  Task<Outcome<void>> set_io_timeout(std::string device, uint32_t seconds) override {
    FL_CO_TRY_VOID(step());
    at(device).io_timeout = seconds;
    co_return Outcome<void>();
  }
  Task<Outcome<void>> set_access(std::string device, Access access) override {
    FL_CO_TRY_VOID(step());
    at(device).access = access;
    co_return Outcome<void>();
  }

  Task<Outcome<DeviceContent>> look_into(std::string device) override {
    FL_CO_TRY_VOID(step());
    co_return at(device).content;
  }
  Task<Outcome<uint64_t>> size_of(std::string device) override {
    FL_CO_TRY_VOID(step());
    co_return at(device).bytes;
  }
  // Two steps: one that is killed between them leaves bytes that are no file system.
  Task<Outcome<void>> format(std::string device, std::string fs_type, std::vector<std::string>) override {
    FL_CO_TRY_VOID(step());
    Device& into = at(device);
    EXPECT_NE(into.content.kind, DeviceContent::Kind::kFileSystem) << "data is lost";
    ++into.formats;
    into.content = {.kind = DeviceContent::Kind::kOther, .what = "bytes"};
    FL_CO_TRY_VOID(step());
    into.content = {.kind = DeviceContent::Kind::kFileSystem, .what = fs_type};
    into.fs_bytes = into.bytes;
    co_return Outcome<void>();
  }
  Task<Outcome<void>> repair(std::string, std::string) override { co_return step(); }
  Task<Outcome<void>> grow(std::string device, std::string, std::string target) override {
    FL_CO_TRY_VOID(step());
    EXPECT_EQ(source_at(target), device);
    at(device).fs_bytes = at(device).bytes;
    co_return Outcome<void>();
  }
  Task<Outcome<void>> freeze(std::string target) override {
    FL_CO_TRY_VOID(step());
    if (at(source_at(target)).is_frozen) co_return problem(Code::kBusy, "it is frozen");
    at(source_at(target)).is_frozen = true;
    co_return Outcome<void>();
  }
  Task<Outcome<void>> thaw(std::string target) override {
    FL_CO_TRY_VOID(step());
    at(source_at(target)).is_frozen = false;
    co_return Outcome<void>();
  }

  Task<Outcome<std::vector<Mounted>>> mounts() override {
    FL_CO_TRY_VOID(step());
    co_return all_mounts;
  }
  Task<Outcome<std::optional<Mounted>>> mounted_at(std::string target) override {
    FL_CO_TRY_VOID(step());
    std::optional<Mounted> found;
    for (const Mounted& each : all_mounts) {
      if (each.target == target) found = each;
    }
    co_return found;
  }
  Task<Outcome<void>> mount(MountRequest request) override {
    FL_CO_TRY_VOID(step());
    EXPECT_TRUE(paths.contains(request.target));
    EXPECT_EQ(at(request.source).content.what, request.fs_type);
    EXPECT_EQ(source_at(request.target), "") << "twice";
    const bool is_read_only = std::ranges::find(request.options, "ro") != request.options.end();
    all_mounts.push_back({.target = request.target, .source = request.source, .is_read_only = is_read_only});
    co_return Outcome<void>();
  }
  // Two steps when it is read-only, as the system has it.
  Task<Outcome<void>> bind(std::string source, std::string target, Access access) override {
    FL_CO_TRY_VOID(step());
    EXPECT_TRUE(paths.contains(target));
    EXPECT_EQ(source_at(target), "") << "twice";
    const std::string from = source.starts_with("/dev/") ? source : source_at(source);
    all_mounts.push_back({.target = target, .source = from});
    if (access == Access::kReadWrite) co_return Outcome<void>();
    FL_CO_TRY_VOID(step());
    all_mounts.back().is_read_only = true;
    co_return Outcome<void>();
  }
  Task<Outcome<void>> unmount(std::string target) override {
    FL_CO_TRY_VOID(step());
    const auto found = std::ranges::find(all_mounts, target, &Mounted::target);
    EXPECT_NE(found, all_mounts.end());
    EXPECT_FALSE(at(source_at(target)).is_frozen) << "it could not be thawed any more";
    if (found != all_mounts.end()) all_mounts.erase(found);
    co_return Outcome<void>();
  }
  Task<Outcome<void>> make_folder(std::string path) override { co_return make(std::move(path)); }
  Task<Outcome<void>> make_file(std::string path) override { co_return make(std::move(path)); }
  Task<Outcome<void>> remove(std::string path) override {
    FL_CO_TRY_VOID(step());
    EXPECT_EQ(source_at(path), "") << "is mounted";
    paths.erase(path);
    co_return Outcome<void>();
  }
  Task<Outcome<Usage>> usage(std::string path) override {
    FL_CO_TRY_VOID(step());
    co_return Usage{.total_bytes = at(source_at(path)).fs_bytes};
  }

  // What the plugin keeps: a step too.
  Outcome<std::optional<std::string>> read(const std::string& name) override { return files.read(name); }
  Task<Outcome<void>> replace(std::string name, std::string bytes) override {
    FL_CO_TRY_VOID(step());
    co_return co_await files.replace(std::move(name), std::move(bytes));
  }

  size_t count_of(const std::string& nqn) const {
    return static_cast<size_t>(
        std::ranges::count_if(connections, [&](const auto& each) { return each.second.nqn == nqn; }));
  }
  // The device that is mounted there; empty: none.
  std::string source_at(const std::string& target) const {
    for (const Mounted& each : all_mounts) {
      if (each.target == target) return each.source;
    }
    return {};
  }
  bool is_clean() const { return connections.empty() && all_mounts.empty(); }

  size_t steps = 0;
  size_t steps_max = ~size_t{0};
  bool is_host = true;
  bool hidden = false;                                // devices do not appear
  Event* held = nullptr;                              // what connecting waits for
  bool is_held = false;                               // it did
  std::map<std::string, ConnectRequest> connections;  // by controller
  std::set<std::string> dead;                         // addresses where nobody answers
  std::map<std::string, Device> devices;              // by NQN; what is on them stays
  std::vector<Mounted> all_mounts;
  std::set<std::string> paths;
  size_t controllers = 0;
  MemoryFiles files;

 private:
  Outcome<void> make(std::string path) {
    FL_TRY_VOID(step());
    paths.insert(std::move(path));
    return {};
  }
  Device& at(const std::string& path) {
    for (auto& [nqn, device] : devices) {
      if (device.path == path) return device;
    }
    ADD_FAILURE() << "no device " << path;
    return devices["none"];
  }
};

}  // namespace fairlead::csi
