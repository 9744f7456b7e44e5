#include <algorithm>
#include <fmt/format.h>
#include <sys/stat.h>

#include "base/units.h"
#include "block/spec.h"
#include "cli/bench.h"
#include "cli/cpu_time.h"
#include "cli/transport_url.h"

namespace fairlead::cli {
namespace {

constexpr uint32_t kBlockBytesMin = 512;
constexpr uint64_t kBlockBytesMax = BufferPool::kSizeMax;
constexpr uint32_t kDepthMax = 65536;
constexpr uint32_t kQueuesMax = 256;
constexpr uint32_t kShardsMax = 256;
constexpr uint64_t kMemoryMax = 4 * kGiB;  // of the requests
constexpr uint64_t kRateMax = 1'000'000'000;
constexpr std::string_view kPool = "pool:";

using Checked = std::expected<void, Complaint>;

template <typename... Arguments>
std::unexpected<Complaint> refuse(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  return std::unexpected(fmt::format(format, std::forward<Arguments>(arguments)...));
}

Checked check_pattern(const BenchArguments& arguments, BenchLoad& load) {
  const struct {
    std::string_view name;
    BenchOrder order;
    uint32_t read_percent;
  } kPatterns[] = {{"randread", BenchOrder::kRandom, 100},
                   {"randwrite", BenchOrder::kRandom, 0},
                   {"randrw", BenchOrder::kRandom, 70},
                   {"read", BenchOrder::kSequential, 100},
                   {"write", BenchOrder::kSequential, 0}};
  const auto* const pattern =
      std::ranges::find(kPatterns, std::string_view(arguments.rw), [](const auto& entry) { return entry.name; });
  if (pattern == std::end(kPatterns)) {
    return refuse("--rw {}: expected randread, randwrite, randrw, read or write", arguments.rw);
  }
  load.order = pattern->order;
  load.read_percent = pattern->read_percent;
  if (!arguments.mix) return {};
  if (arguments.rw != "randrw") return refuse("--mix {}: is for --rw randrw", *arguments.mix);
  if (*arguments.mix < 1 || *arguments.mix > 99) {
    return refuse("--mix {}: expected the percentage of reads, 1 to 99", *arguments.mix);
  }
  load.read_percent = *arguments.mix;
  return {};
}

Checked check_sizes(const BenchArguments& arguments, BenchLoad& load) {
  const Result<uint64_t> block = parse_size(arguments.bs);
  if (!block) return complain_about(fmt::format("--bs {}", arguments.bs), block.error());
  if (*block < kBlockBytesMin || *block > kBlockBytesMax || *block % kBlockBytesMin != 0) {
    return refuse("--bs {}: expected a multiple of 512, at most 2 MiB", arguments.bs);
  }
  load.block_bytes = static_cast<uint32_t>(*block);
  if (!arguments.offset.empty()) {
    const Result<uint64_t> offset = parse_size(arguments.offset);
    if (!offset) return complain_about(fmt::format("--offset {}", arguments.offset), offset.error());
    load.offset = *offset;
  }
  if (!arguments.size.empty()) {
    const Result<uint64_t> size = parse_size(arguments.size);
    if (!size) return complain_about(fmt::format("--size {}", arguments.size), size.error());
    if (*size < *block) return refuse("--size {}: must have room for a block of --bs {}", arguments.size, arguments.bs);
    load.size = *size;
  }
  return {};
}

Checked check_depth(const BenchArguments& arguments, BenchLoad& load) {
  if (arguments.queues < 1 || arguments.queues > kQueuesMax) {
    return refuse("--queues {}: expected 1 to {}", arguments.queues, kQueuesMax);
  }
  if (arguments.qd < 1 || arguments.qd > kDepthMax) return refuse("--qd {}: expected 1 to {}", arguments.qd, kDepthMax);
  if (arguments.qd < arguments.queues) {
    return refuse("--qd {}: is the sum over all queues, so {} queues need {} at least", arguments.qd, arguments.queues,
                  arguments.queues);
  }
  if (uint64_t{arguments.qd} * load.block_bytes > kMemoryMax) {
    return refuse("--qd {}: with --bs {} these are more than {} in flight", arguments.qd, arguments.bs,
                  format_size(kMemoryMax));
  }
  load.depth = arguments.qd;
  load.queues = arguments.queues;
  return {};
}

Checked check_time(const BenchArguments& arguments, BenchLoad& load) {
  const Result<Duration> runtime = parse_duration(arguments.runtime);
  if (!runtime) return complain_about(fmt::format("--runtime {}", arguments.runtime), runtime.error());
  if (*runtime <= Duration::zero()) return refuse("--runtime {}: must be more than nothing", arguments.runtime);
  load.runtime = *runtime;
  if (arguments.rate.empty()) return {};
  const Result<uint64_t> rate = parse_count(arguments.rate);
  if (!rate) return complain_about(fmt::format("--rate {}", arguments.rate), rate.error());
  if (*rate < 1 || *rate > kRateMax) {
    return refuse("--rate {}: expected requests a second, at least 1", arguments.rate);
  }
  load.rate = *rate;
  return {};
}

Checked check_threads(const BenchArguments& arguments, BenchPlan& plan) {
  const auto poll = parse_poll(arguments.poll);
  if (!poll) return std::unexpected(poll.error());
  plan.runtime.poll = *poll;
  // Where nothing else is said the system spreads the threads: a target on the same machine may sit on any processor.
  plan.runtime.pinning = Pinning::kNone;
  uint32_t processors = processor_count();
  if (!arguments.cpus.empty()) {
    const auto list = parse_processors(arguments.cpus);
    if (!list) return refuse("--cpus {}: {}", arguments.cpus, list.error());
    plan.runtime.processors = *list;
    processors = static_cast<uint32_t>(list->size());
  }
  if (arguments.shards > kShardsMax) return refuse("--shards {}: at most {}", arguments.shards, kShardsMax);
  if (arguments.shards > arguments.queues) {
    return refuse("--shards {}: there are {} queues only, see --queues", arguments.shards, arguments.queues);
  }
  if (!arguments.cpus.empty() && arguments.shards > processors) {
    return refuse("--shards {}: --cpus names {} processors only", arguments.shards, processors);
  }
  plan.runtime.shards =
      static_cast<uint16_t>(arguments.shards > 0 ? arguments.shards : std::min(arguments.queues, processors));
  // Each request has a buffer of its own for good; what is beyond serves the devices.
  const uint64_t buffer = std::max<uint64_t>(std::bit_ceil(plan.load.block_bytes), BufferPool::kSizeMin);
  plan.runtime.buffers_shared_max += plan.load.depth * buffer;
  return {};
}

Checked check_fabric(const BenchArguments& arguments, BenchPlan& plan) {
  const Result<TransportUrl> url = parse_transport_url(arguments.target);
  if (!url) return complain_about(arguments.target, url.error());
  FabricTarget target;
  target.nsid = url->nsid.value_or(1);
  target.subsystem.nqn = url->nqn;
  std::vector<SocketAddress>& addresses = target.subsystem.addresses;
  addresses.push_back(url->address);
  for (const std::string& text : arguments.paths) {
    const Result<SocketAddress> path = parse_host_address(text, url->address.port);
    if (!path) return complain_about(fmt::format("--path {}", text), path.error());
    if (std::ranges::find(addresses, *path) != addresses.end()) return refuse("--path {}: is given twice", text);
    addresses.push_back(*path);
  }
  const auto identity = host_identity(arguments.host);
  if (!identity) return std::unexpected(identity.error());
  target.subsystem.identity = *identity;
  if (!arguments.quiesce.empty()) {
    const Result<Duration> quiesce = parse_duration(arguments.quiesce);
    if (!quiesce) return complain_about(fmt::format("--quiesce {}", arguments.quiesce), quiesce.error());
    target.subsystem.quiesce = *quiesce;
  }
  target.subsystem.header_digest = arguments.hdgst;
  target.subsystem.data_digest = arguments.ddgst;
  if (const Result<void> valid = host::check(target.subsystem); !valid) {
    return complain_about(arguments.target, valid.error());
  }
  if (plan.load.writes() && !arguments.overwrite) {
    return refuse("--rw {}: destroys what namespace {} holds; say --overwrite if it may", arguments.rw, target.nsid);
  }
  plan.target = std::move(target);
  return {};
}

// A file that is not there, or empty, is made when there is something to write and a size.
Checked check_path(const BenchArguments& arguments, BenchPlan& plan) {
  const std::string& path = arguments.target;
  OpenDisk disk{.path = path, .access = plan.load.writes() ? Access::kReadWrite : Access::kReadOnly};
  struct stat status{};
  const bool is_there = ::stat(path.c_str(), &status) == 0;
  if (!is_there && errno != ENOENT) {
    return complain_about(path, error_from_errno(errno, "look at it"));
  }
  if (!is_there || (S_ISREG(status.st_mode) && status.st_size == 0)) {
    const char* const state = is_there ? "is empty" : "does not exist";
    if (!plan.load.writes()) return refuse("{}: {}, so there is nothing to read: try --rw randwrite", path, state);
    if (plan.load.size == 0) return refuse("{}: {}: give --size SIZE to make a file", path, state);
    disk.size_bytes = align_up(plan.load.offset + plan.load.size, 4096);
  } else if (plan.load.writes() && !arguments.overwrite) {
    return refuse("--rw {}: destroys what {} holds; say --overwrite if it may", arguments.rw, path);
  }
  plan.target = std::move(disk);
  return {};
}

// A pool is imported to be looked at, too, so its disks are opened for writing whatever the load does.
Checked check_pool(const BenchArguments& arguments, BenchPlan& plan) {
  const std::string_view text = std::string_view(arguments.target).substr(kPool.size());
  const size_t slash = text.rfind('/');
  if (slash == std::string_view::npos || slash == 0 || slash + 1 == text.size()) {
    return refuse("{}: expected pool:DISK[,DISK…]/REPLICA", arguments.target);
  }
  PoolTarget target{.disks = {}, .object = std::string(text.substr(slash + 1))};
  std::string_view disks = text.substr(0, slash);
  while (true) {
    const size_t end = std::min(disks.find(','), disks.size());
    if (end == 0) return refuse("{}: a disk has no name", arguments.target);
    target.disks.push_back({.path = std::string(disks.substr(0, end))});
    if (end == disks.size()) break;
    disks.remove_prefix(end + 1);
  }
  if (plan.load.writes() && !arguments.overwrite) {
    return refuse("--rw {}: destroys what {} holds; say --overwrite if it may", arguments.rw, target.object);
  }
  plan.target = std::move(target);
  return {};
}

Checked check_target(const BenchArguments& arguments, BenchPlan& plan) {
  constexpr std::string_view kMemory = "memory:";
  constexpr std::string_view kNull = "null:";
  const std::string_view text = arguments.target;
  plan.name = arguments.target;
  plan.logical_block = plan.load.block_bytes % 4096 == 0 && plan.load.offset % 4096 == 0 ? 4096 : 512;
  const bool is_fabric = is_transport_url(text);
  if (!is_fabric) {
    for (const auto& [given, option] : {std::pair(!arguments.paths.empty(), "--path"),
                                        {!arguments.quiesce.empty(), "--quiesce"},
                                        {!arguments.host.empty(), "--host"},
                                        {arguments.hdgst, "--hdgst"},
                                        {arguments.ddgst, "--ddgst"}}) {
      if (given) return refuse("{}: is for a target nvme+tcp://…", option);
    }
  }
  if (text.empty())
    return refuse("give a TARGET to measure: a PATH, memory:SIZE, null:SIZE, pool:DISK/REPLICA or nvme+tcp://…");
  if (!arguments.limit.empty()) {
    if (is_fabric || text.starts_with(kPool)) return refuse("--limit: is for a PATH, memory:SIZE or null:SIZE");
    const Result<LimiterOptions> limits = parse_limits(arguments.limit);
    if (!limits) return complain_about(fmt::format("--limit {}", arguments.limit), limits.error());
    plan.limits = *limits;
  }
  if (is_fabric) return check_fabric(arguments, plan);
  if (text.starts_with(kPool)) return check_pool(arguments, plan);
  const bool is_memory = text.starts_with(kMemory);
  if (!is_memory && !text.starts_with(kNull)) return check_path(arguments, plan);
  const Result<uint64_t> size = parse_size(text.substr(is_memory ? kMemory.size() : kNull.size()));
  if (!size) return complain_about(text, size.error());
  if (*size == 0 || *size % 4096 != 0) return refuse("{}: must be a multiple of 4 KiB, and not 0", text);
  if (is_memory) {
    plan.target = MemoryTarget{*size};
    return {};
  }
  if (arguments.verify) return refuse("--verify: null keeps nothing; use memory:SIZE, a PATH or nvme+tcp://…");
  plan.target = NullTarget{*size};
  return {};
}

Checked check_rest(const BenchArguments& arguments, BenchPlan& plan) {
  if (arguments.verify) {
    if (!plan.load.writes()) {
      return refuse(
          "--verify: checks what this run has written, and --rw {} writes nothing: use --rw randrw, or --rw randwrite, "
          "which reads everything back at the end",
          arguments.rw);
    }
    plan.load.verify = BenchVerify::kOn;
  }
  plan.json = arguments.json;
  plan.target_pid = arguments.target_pid;
  if (arguments.target_pid < 0) return refuse("--target-pid {}: is no process", arguments.target_pid);
  if (arguments.target_pid > 0) {
    const Result<ThreadTimes> times = thread_times(arguments.target_pid);
    if (!times) return complain_about(fmt::format("--target-pid {}", arguments.target_pid), times.error());
  }
  return {};
}

}  // namespace

std::expected<BenchPlan, Complaint> check(const BenchArguments& arguments) {
  BenchPlan plan;
  if (const Checked checked = check_pattern(arguments, plan.load); !checked) return std::unexpected(checked.error());
  if (const Checked checked = check_sizes(arguments, plan.load); !checked) return std::unexpected(checked.error());
  if (const Checked checked = check_depth(arguments, plan.load); !checked) return std::unexpected(checked.error());
  if (const Checked checked = check_time(arguments, plan.load); !checked) return std::unexpected(checked.error());
  if (const Checked checked = check_threads(arguments, plan); !checked) return std::unexpected(checked.error());
  if (const Checked checked = check_rest(arguments, plan); !checked) return std::unexpected(checked.error());
  if (const Checked checked = check_target(arguments, plan); !checked) return std::unexpected(checked.error());
  return plan;
}

}  // namespace fairlead::cli
