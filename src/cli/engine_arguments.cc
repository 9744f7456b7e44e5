#include <charconv>
#include <fmt/format.h>

#include "base/units.h"
#include "block/spec.h"
#include "cli/engine.h"
#include "cli/version.h"

namespace fairlead::cli {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint32_t kCopiesMax = 1024;          // each has an extent in memory
constexpr uint16_t kControllerIdMax = 0xffef;  // NVMe over fabrics: those above mean something else

// A span of time between two others, both named in the complaint.
struct Bounds {
  Duration min;
  Duration max;
  const char* text;
};
std::expected<Duration, Complaint> parse_span(std::string_view option, std::string_view text, const Bounds& bounds) {
  const std::string argument = fmt::format("{} {}", option, text);
  const Result<Duration> parsed = parse_duration(text);
  if (!parsed) return complain_about(argument, parsed.error());
  if (*parsed < bounds.min || *parsed > bounds.max) {
    return std::unexpected(fmt::format("{}: expected {}", argument, bounds.text));
  }
  return *parsed;
}

std::expected<engine::ControllerIds, Complaint> parse_controller_ids(std::string_view text) {
  engine::ControllerIds ids;
  const char* const end = text.data() + text.size();
  const auto first = std::from_chars(text.data(), end, ids.first);
  const bool has_first = first.ec == std::errc{} && first.ptr != end && *first.ptr == '-';
  const auto last = has_first ? std::from_chars(first.ptr + 1, end, ids.last) : first;
  if (!has_first || last.ec != std::errc{} || last.ptr != end || ids.first == 0 || ids.last < ids.first ||
      ids.last > kControllerIdMax) {
    return std::unexpected(
        fmt::format("--controller-ids {}: expected FIRST-LAST, from 1 to {}", text, kControllerIdMax));
  }
  return ids;
}

std::expected<void, Complaint> check_pool(const EngineArguments& arguments, EnginePlan& plan) {
  constexpr std::string_view kMemory = "memory:";
  constexpr std::string_view kResident = "resident-memory:";
  for (const std::string& path : arguments.pool) {
    const bool is_resident = path.starts_with(kResident);
    if (!is_resident && !path.starts_with(kMemory)) {
      plan.pool.push_back({.path = path});
      continue;
    }
    const Result<uint64_t> size = parse_size(std::string_view(path).substr((is_resident ? kResident : kMemory).size()));
    if (!size) return complain_about(fmt::format("--pool {}", path), size.error());
    if (arguments.pool.size() > 1) return std::unexpected(fmt::format("--pool {}: is a pool by itself", path));
    using Backing = MemoryOptions::Backing;
    plan.memory = {.size_bytes = *size, .backing = is_resident ? Backing::kResident : Backing::kSparse};
  }
  if (arguments.limit.empty()) return {};
  const Result<LimiterOptions> limits = parse_limits(arguments.limit);
  if (!limits) return complain_about(fmt::format("--limit {}", arguments.limit), limits.error());
  plan.limits = *limits;
  return {};
}

std::expected<void, Complaint> check_times(const EngineArguments& arguments, mirror::MirrorOptions& mirror) {
  const auto lease = parse_span("--lease", arguments.lease, {milliseconds(10), seconds(60), "10ms to 60s"});
  if (!lease) return std::unexpected(lease.error());
  mirror.lease = *lease;
  const auto checkpoint = parse_span("--checkpoint-interval", arguments.checkpoint_interval,
                                     {milliseconds(100), seconds(86'400), "100ms to 86400s"});
  if (!checkpoint) return std::unexpected(checkpoint.error());
  mirror.checkpoint_interval = *checkpoint;
  const auto stall =
      parse_span("--stall-limit", arguments.stall_limit, {milliseconds(100), seconds(600), "100ms to 600s"});
  if (!stall) return std::unexpected(stall.error());
  mirror.stall_limit = *stall;
  return {};
}

}  // namespace

std::expected<EnginePlan, Complaint> check(const EngineArguments& arguments) {
  EnginePlan plan;
  if (arguments.pool.empty()) return std::unexpected("give the pool's disks: --pool DISK[,DISK…]");
  if (const auto pool = check_pool(arguments, plan); !pool) return std::unexpected(pool.error());
  const auto listeners = parse_listeners(arguments.listen);
  if (!listeners) return std::unexpected(listeners.error());
  plan.listeners = *listeners;
  plan.takes_commands = arguments.commands;
  plan.has_faulty_disks = arguments.faulty;
  if (const auto times = check_times(arguments, plan.engine.mirror); !times) return std::unexpected(times.error());
  if (arguments.copy_share < 1 || arguments.copy_share > 100) {
    return std::unexpected(fmt::format("--copy-share {}: expected 1 to 100 percent", arguments.copy_share));
  }
  plan.engine.mirror.copy_share_percent = arguments.copy_share;
  if (arguments.copies < 1 || arguments.copies > kCopiesMax) {
    return std::unexpected(fmt::format("--copies {}: expected 1 to {}", arguments.copies, kCopiesMax));
  }
  plan.engine.copies_max = arguments.copies;
  if (!arguments.controller_ids.empty()) {
    const auto ids = parse_controller_ids(arguments.controller_ids);
    if (!ids) return std::unexpected(ids.error());
    plan.engine.controller_ids = *ids;
  }
  plan.engine.target.firmware = kVersion;
  const auto runtime = parse_runtime(arguments.shards, arguments.poll);
  if (!runtime) return std::unexpected(runtime.error());
  plan.runtime = *runtime;
  return plan;
}

}  // namespace fairlead::cli
