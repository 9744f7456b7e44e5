#include "cli/serve.h"

#include <algorithm>
#include <cstdio>
#include <fmt/format.h>
#include <unistd.h>

#include "async/cancel.h"
#include "async/scope.h"
#include "base/uuid.h"
#include "block/disk.h"
#include "block/memory.h"
#include "block/null.h"
#include "cli/announcer.h"
#include "cli/process.h"
#include "cli/serve_pool.h"
#include "cli/version.h"
#include "io/line_input.h"
#include "io/signals.h"
#include "nvme/nqn.h"
#include "target/target.h"

namespace fairlead::cli {
namespace {

constexpr const char* kCommandName = "serve";

template <typename... Arguments>
void complain(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  complain_of(kCommandName, format, std::forward<Arguments>(arguments)...);
}

// A file or device that may grow while it is served.
struct ServedDisk {
  std::shared_ptr<DiskFile> file;
  std::string path;
  uint32_t nsid = 0;
  uint64_t size_bytes = 0;
};

bool is_wildcard(const SocketAddress& address) {
  return std::ranges::all_of(address.ip, [](uint8_t byte) { return byte == 0; });
}

// One run of the command; lives on shard 0, inside main().
class Server {
 public:
  static constexpr const char* kCommand = kCommandName;

  Server(Runtime& runtime, const ServePlan& plan)
      : plan_(plan),
        home_(runtime.shard(0)),
        subsystem_(plan.subsystem),
        watching_(home_.reactor),
        target_(all_shards(runtime), options(), &announcer_),
        pool_(all_shards(runtime), target_),
        input_(runtime.uring_shard(0), STDIN_FILENO) {}

  Task<int> run(SignalWatch& signals) {
    const bool started = co_await start();
    if (started) {
      watching_.spawn(watch_sizes());
      say("ready");
      if (plan_.takes_commands) watching_.spawn(take_commands(kCommand, input_, signals, pool_));
      (void)co_await signals.next();
      say("stopping: draining and flushing");
    }
    stopping_.cancel();
    input_.close();
    co_await watching_.close();
    const Result<void> stopped = co_await target_.stop();
    if (!stopped) complain("flush at the end {}", to_string(stopped.error()));
    const auto closed = co_await pool_.close();
    if (!closed) complain("{}", closed.error());
    if (started) say("stopped");
    co_return started&& stopped&& closed ? 0 : 1;
  }

 private:
  static target::TargetOptions options() {
    target::TargetOptions options;
    options.firmware = kVersion;
    return options;
  }

  Task<bool> start() {
    if (!plan_.pool.empty() && !co_await open_pool()) co_return false;
    if (const Result<void> added = co_await target_.add_subsystem(subsystem_); !added) {
      complain("{} {}", subsystem_.nqn, to_string(added.error()));
      co_return false;
    }
    if (!plan_.pool.empty() && !co_await export_pool()) co_return false;
    for (const OpenDisk& disk : plan_.disks) {
      if (!co_await export_disk(disk)) co_return false;
    }
    for (const uint64_t size : plan_.memory_bytes) {
      Result<std::shared_ptr<BlockSource>> source = make_memory_source({.size_bytes = size});
      if (!source) {
        complain("--memory {} {}", format_size(size), to_string(source.error()));
        co_return false;
      }
      if (!co_await export_source("memory", std::move(*source), size, 4096)) co_return false;
    }
    for (const uint64_t size : plan_.null_bytes) {
      Result<std::shared_ptr<BlockSource>> source = make_null_source({.size_bytes = size});
      if (!source) {
        complain("--null {} {}", format_size(size), to_string(source.error()));
        co_return false;
      }
      if (!co_await export_source("null", std::move(*source), size, 4096)) co_return false;
    }
    for (const target::ListenerOptions& listener : plan_.listeners) {
      if (!co_await listen(listener)) co_return false;
    }
    co_return true;
  }

  // The same name on each machine that the pool comes to: there too it is the same data.
  Task<bool> open_pool() {
    const auto opened = co_await pool_.open(plan_.pool);
    if (!opened) {
      complain("{}", opened.error());
      co_return false;
    }
    if (subsystem_.nqn.empty()) {
      subsystem_.nqn = nvme::nqn_from_uuid(uuid_from_name(kFairleadNamespace, "pool:" + to_string(pool_.pool().id())));
    }
    co_return true;
  }

  Task<bool> export_pool() {
    pool_.set_subsystem(subsystem_.nqn);
    const std::vector<std::string> names = plan_.replicas.empty() ? pool_.names() : plan_.replicas;
    if (names.empty()) say("pool {} has no replicas yet", pool_.pool().name());
    for (const std::string& name : names) {
      const auto served = co_await pool_.serve(name);
      if (!served) {
        complain("{}", served.error());
        co_return false;
      }
      say("serving {} as {} nsid {}, {}", served->what, subsystem_.nqn, served->nsid, format_size(served->size_bytes));
    }
    co_return true;
  }

  Task<bool> export_disk(OpenDisk disk) {
    Result<std::shared_ptr<DiskFile>> file = home_.storage.open(disk);
    if (!file) {
      complain("{} {}", disk.path, to_string(file.error()));
      co_return false;
    }
    const DiskGeometry geometry = (*file)->geometry();
    if (geometry.size_bytes == 0) {
      complain("{} is empty: give --size SIZE to make room in it", disk.path);
      co_return false;
    }
    const auto nsid =
        co_await export_source(disk.path, make_disk_source(*file), geometry.size_bytes, geometry.logical_block);
    if (nsid) disks_.push_back({std::move(*file), disk.path, *nsid, geometry.size_bytes});
    co_return nsid.has_value();
  }

  Task<std::optional<uint32_t>> export_source(std::string name, std::shared_ptr<BlockSource> source, uint64_t size,
                                              uint32_t block) {
    const Result<uint32_t> nsid =
        co_await target_.add_namespace(subsystem_.nqn, {.source = std::move(source), .uuid = {}});
    if (!nsid) {
      complain("{} {}", name, to_string(nsid.error()));
      co_return std::nullopt;
    }
    say("serving {} as {} nsid {}, {}, {} B blocks", name, subsystem_.nqn, *nsid, format_size(size), block);
    co_return *nsid;
  }

  Task<bool> listen(target::ListenerOptions listener) {
    const Result<target::Target::Listening> listening = co_await target_.start_listener(listener);
    if (!listening) {
      complain("--listen {} {}", to_string(listener.bind), to_string(listening.error()));
      co_return false;
    }
    say_listening(*listening);
    SocketAddress advertised = listening->advertised;
    std::string remark;
    if (is_wildcard(advertised)) {
      advertised =
          *parse_socket_address(advertised.family == AddressFamily::kIpv4 ? "127.0.0.1" : "::1", advertised.port);
      remark = "   (or any address of this machine)";
    }
    say("nvme connect -t tcp -a {} -s {} -n {}{}", advertised.ip_text(), advertised.port, subsystem_.nqn, remark);
    co_return true;
  }

  // Files and devices tell nobody that they have grown; a look once a second costs a system call each.
  Task<void> watch_sizes() {
    while (co_await sleep(home_.reactor, std::chrono::seconds(1), stopping_)) {
      for (ServedDisk& disk : disks_) {
        const Result<uint64_t> size = disk.file->refresh_size();
        if (!size || *size == disk.size_bytes) continue;
        const Result<uint64_t> told = co_await target_.rescan_namespace(subsystem_.nqn, disk.nsid);
        if (!told) continue;
        say("{} changed its size from {} to {}", disk.path, format_size(disk.size_bytes), format_size(*told));
        disk.size_bytes = *size;
      }
    }
  }

  const ServePlan& plan_;
  Shard& home_;
  target::SubsystemOptions subsystem_;
  CancelSource stopping_;
  Scope watching_;
  Announcer announcer_;
  target::Target target_;
  PoolService pool_;
  LineInput input_;
  std::vector<ServedDisk> disks_;
};

}  // namespace

int serve(const ServePlan& plan) { return start_process<Server>(plan); }

}  // namespace fairlead::cli
