#include <algorithm>
#include <cstdio>
#include <fmt/format.h>

#include "base/crc32c.h"
#include "base/log.h"
#include "cli/pool_arguments.h"
#include "cli/pool_disks.h"
#include "cli/pool_report.h"
#include "engine/pool_disks.h"
#include "engine/state_directory.h"
#include "io/aligned_bytes.h"
#include "io/runtime.h"
#include "io/small_files.h"

namespace fairlead::cli {
namespace {

using pool::Pool;

constexpr int kExitFindings = 1;
constexpr int kExitCannot = 2;  // of pool check

void print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

// What a command tells when it has failed.
using Outcome = std::expected<void, Complaint>;

template <typename... Arguments>
std::unexpected<Complaint> complaint(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  return std::unexpected(fmt::format(format, std::forward<Arguments>(arguments)...));
}

// "db does not exist" and so on.
std::unexpected<Complaint> about_object(std::string_view name, const Error& error) {
  return complaint("{} {}", name, to_string(error));
}

Task<std::vector<ObjectLine>> objects_of(Pool& pool) {
  std::vector<ObjectLine> lines;
  for (pool::ObjectInfo& info : pool.list())
    lines.push_back({.info = std::move(info), .unique_bytes = {}, .origin = {}});
  for (ObjectLine& line : lines) {
    const Result<uint64_t> unique = co_await pool.unique_bytes(line.info.state.name);
    if (unique) line.unique_bytes = *unique;
    const Uuid& origin = line.info.state.origin;
    const auto found = std::ranges::find(lines, origin, [](const ObjectLine& one) { return one.info.state.id; });
    if (found != lines.end()) line.origin = found->info.state.name;
  }
  co_return lines;
}

// Ends what a command did in order. What the command itself says comes first.
Task<Outcome> close_pool(Pool& pool, Outcome outcome) {
  const Result<void> closed = co_await pool.close();
  if (outcome && !closed)
    co_return complaint("pool {} could not be closed: {}", pool.name(), to_string(closed.error()));
  co_return outcome;
}

// ---- The pool

// Before a disk is overwritten: what would be lost.
Outcome check_blank(Shard& shard, const std::vector<OpenDisk>& disks, bool is_forced) {
  if (is_forced) return {};
  if (const std::string found = engine::what_is_on(shard, disks); !found.empty())
    return complaint("{}; --force overwrites it", found);
  return {};
}

Complaint of_create(const Problem& problem, bool is_forced) {
  std::string text = to_string(problem);
  if (problem.error.code == Code::kAlreadyExists && !is_forced) text += "; --force overwrites it";
  return text;
}

std::vector<std::string> paths_of(const std::vector<OpenDisk>& disks) {
  std::vector<std::string> paths;
  for (const OpenDisk& disk : disks) paths.push_back(disk.path);
  return paths;
}

Task<Outcome> show(Shard& shard, const PoolPlan& plan) {
  auto pool = co_await import_pool({&shard}, plan.disks);
  if (!pool) co_return std::unexpected(pool.error());
  PoolView view;
  view.name = (*pool)->name();
  view.id = (*pool)->id();
  view.disks = paths_of(plan.disks);
  view.objects = co_await objects_of(**pool);
  view.statistics = (*pool)->statistics();
  print(plan.json ? to_json(view) : to_text(view));
  co_return co_await close_pool(**pool, {});
}

Task<Outcome> create(Shard& shard, const PoolPlan& plan) {
  auto disks = open_disks(shard, plan.disks);
  if (!disks) {
    const bool may_be_made =
        std::ranges::none_of(plan.disks, [](const OpenDisk& disk) { return disk.size_bytes.has_value(); });
    co_return complaint("{}{}", disks.error(), may_be_made ? "; --size SIZE makes a file that is not there" : "");
  }
  if (auto blank = check_blank(shard, plan.disks, plan.force); !blank) co_return blank;
  const auto created = co_await Pool::create(shard, std::move(*disks), plan.create);
  if (!created) co_return std::unexpected(of_create(created.error(), plan.force));
  // By a first import: what was written is what can be read, and the figures are the pool's own.
  auto pool = co_await import_pool({&shard}, plan.disks);
  if (!pool) co_return complaint("the new pool cannot be opened: {}", pool.error());
  print(fmt::format("created pool {}: {} in extents of {} on {}\n", plan.create.name,
                    about((*pool)->statistics().capacity_bytes), format_size(plan.create.extent_bytes),
                    fmt::join(paths_of(plan.disks), ", ")));
  co_return co_await close_pool(**pool, {});
}

// What pool destroy would lose; empty: nothing.
std::string what_is_in(const Result<pool::CheckReport>& report) {
  if (!report) return {};
  if (!report->is_state_known) {
    return fmt::format("what the pool{} holds cannot be read (see fairlead offline pool check)",
                       report->superblock ? " " + report->superblock->name : "");
  }
  if (report->objects.empty()) return {};
  std::vector<std::string> names;
  for (const pool::ObjectState& object : report->objects) {
    if (names.size() == 5) {
      names.emplace_back("…");
      break;
    }
    names.push_back(object.name);
  }
  return fmt::format("pool {} holds {} replicas and snapshots: {}", report->superblock->name, report->objects.size(),
                     fmt::join(names, ", "));
}

Task<Outcome> destroy(Shard& shard, const PoolPlan& plan) {
  auto disks = open_disks(shard, plan.disks);
  if (!disks) co_return std::unexpected(disks.error());
  if (!plan.force) {
    const auto report = co_await pool::check_pool(shard, *disks, shard.storage.boot_id());
    if (const std::string held = what_is_in(report); !held.empty()) {
      co_return complaint("{}; --force destroys it all", held);
    }
  }
  const auto destroyed = co_await Pool::destroy(shard, std::move(*disks));
  if (!destroyed) co_return std::unexpected(to_string(destroyed.error()));
  print(fmt::format("destroyed; {} blank\n", plan.disks.size() == 1 ? "its disk is" : "its disks are"));
  co_return Outcome();
}

Task<Outcome> list(Shard& shard, const PoolPlan& plan) {
  std::vector<DiskLine> lines;
  for (const OpenDisk& disk : plan.disks) {
    DiskLine line{.path = disk.path, .superblock = {}, .trouble = {}};
    auto opened = open_disks(shard, {disk});
    if (!opened) {
      line.trouble = opened.error().substr(std::min(opened.error().size(), disk.path.size() + 1));
    } else {
      const pool::CheckedDisk read = co_await pool::read_superblocks(shard, opened->front());
      if (const pool::Superblock* const newest = pool::newest_superblock(read)) {
        line.superblock = *newest;
      } else if (read.copies.front().error.code == Code::kNotFound) {
        const std::string signature = shard.storage.signature(disk.path);
        line.trouble = signature.empty() ? "no disk of a pool" : fmt::format("no disk of a pool: {}", signature);
      } else {
        line.trouble = to_string(read.copies.front().error);
      }
    }
    lines.push_back(std::move(line));
  }
  print(plan.json ? to_json(lines) : to_text(lines));
  co_return Outcome();
}

Task<Outcome> accept(Shard& shard, const PoolPlan& plan) {
  auto disks = open_disks(shard, plan.disks);
  if (!disks) co_return std::unexpected(disks.error());
  const auto report = co_await pool::check_pool(shard, std::move(*disks), shard.storage.boot_id());
  if (!report || !report->superblock) co_return complaint("{}: no pool", fmt::join(paths_of(plan.disks), ", "));
  const std::string& name = report->superblock->name;
  auto files = open_small_files(shard.reactor, plan.state_directory);
  if (!files) co_return complaint("--state-dir {}", to_string(files.error()));
  auto state = co_await engine::StateDirectory::open(shard, **files);
  if (!state) co_return std::unexpected(to_string(state.error()));
  const auto forgotten = co_await (*state)->forget_seen(report->superblock->pool_id);
  if (!forgotten) co_return std::unexpected(to_string(forgotten.error()));
  print(*forgotten ? fmt::format("pool {}: the engine takes it as it is\n", name)
                   : fmt::format("pool {}: the engine has not seen a newer state of it\n", name));
  co_return Outcome();
}

Task<Outcome> grow(Shard& shard, const PoolPlan& plan) {
  auto pool = co_await import_pool({&shard}, plan.disks);
  if (!pool) co_return std::unexpected(pool.error());
  Outcome outcome;
  const uint64_t before = (*pool)->statistics().capacity_bytes;
  if (const Result<uint64_t> grown = co_await (*pool)->grow(); !grown) {
    outcome = complaint("pool {} {}", (*pool)->name(), to_string(grown.error()));
  }
  if (auto blank = check_blank(shard, plan.add, plan.force); outcome && !blank) outcome = blank;
  auto added = outcome ? open_disks(shard, plan.add) : std::vector<pool::PoolDisk>();
  if (!added) outcome = std::unexpected(added.error());
  for (size_t i = 0; outcome && i < added->size(); ++i) {
    const auto blank = plan.force ? pool::Blank::kNotRequired : pool::Blank::kRequired;
    const auto done = co_await (*pool)->add_disk((*added)[i], blank);
    if (!done) outcome = std::unexpected(of_create(done.error(), plan.force));
  }
  const uint64_t after = (*pool)->statistics().capacity_bytes;
  if (outcome && after == before) print(fmt::format("pool {}: no more room than before\n", (*pool)->name()));
  if (after != before) {
    print(fmt::format("pool {}: {}, {} more\n", (*pool)->name(), about(after), about(after - before)));
  }
  co_return co_await close_pool(**pool, outcome);
}

// pool check and pool inspect: neither writes.
Task<int> look(Shard& shard, const PoolPlan& plan) {
  const auto complain = [&](std::string_view what) {
    fmt::print(stderr, "fairlead {}: {}\n", command_name(plan.action), what);
    return kExitCannot;
  };
  auto disks = open_disks(shard, plan.disks);
  if (!disks) co_return complain(disks.error());
  const auto report = co_await pool::check_pool(shard, std::move(*disks), shard.storage.boot_id());
  if (!report) {
    const bool is_none = report.error().code == Code::kNotFound;
    const std::string found = is_none ? engine::what_is_on(shard, plan.disks) : "";
    co_return complain(fmt::format("{}: {}{}", fmt::join(paths_of(plan.disks), ", "),
                                   is_none ? report.error().what : to_string(report.error()),
                                   found.empty() ? "" : fmt::format(" ({})", found)));
  }
  if (plan.action == PoolAction::kInspect) {
    print(plan.json ? inspection_to_json(*report) : inspection_to_text(*report));
    co_return 0;
  }
  print(plan.json ? check_to_json(*report) : check_to_text(*report));
  co_return report->is_clean() ? 0 : kExitFindings;
}

Task<int> finish(std::string_view command, Task<Outcome> task) {
  const Outcome outcome = co_await std::move(task);
  if (outcome) co_return 0;
  fmt::print(stderr, "fairlead {}: {}\n", command, outcome.error());
  co_return 1;
}

Task<int> act(Shard& shard, const PoolPlan& plan) {
  const std::string_view command = command_name(plan.action);
  switch (plan.action) {
    case PoolAction::kCreate:
      return finish(command, create(shard, plan));
    case PoolAction::kDestroy:
      return finish(command, destroy(shard, plan));
    case PoolAction::kList:
      return finish(command, list(shard, plan));
    case PoolAction::kShow:
      return finish(command, show(shard, plan));
    case PoolAction::kGrow:
      return finish(command, grow(shard, plan));
    case PoolAction::kAccept:
      return finish(command, accept(shard, plan));
    case PoolAction::kInspect:
    case PoolAction::kCheck:
      return look(shard, plan);
  }
  FL_UNREACHABLE("no such command");
}

// ---- Its objects

Task<Outcome> create_replica(Pool& pool, const ObjectPlan& plan) {
  pool::ReplicaOptions options;
  options.name = plan.name;
  options.size_bytes = plan.size_bytes;
  options.is_thick = plan.is_thick;
  options.labels = plan.labels;
  options.volume_id = plan.volume_id.value_or(Uuid{});
  if (!plan.origin.empty() && plan.size_bytes == 0) {
    const Result<pool::ObjectInfo> origin = pool.find(plan.origin);
    if (!origin) co_return about_object(plan.origin, origin.error());
    options.size_bytes = origin->state.size_bytes;
  }
  const Result<Uuid> created =
      plan.origin.empty() ? co_await pool.create_replica(options) : co_await pool.clone(plan.origin, options);
  if (!created) co_return about_object(plan.name, created.error());
  print(fmt::format("created replica {} ({}), {}{}\n", plan.name, to_string(*created), format_size(options.size_bytes),
                    plan.origin.empty() ? "" : fmt::format(", from {}", plan.origin)));
  co_return Outcome();
}

Task<Outcome> resize_replica(Pool& pool, const ObjectPlan& plan) {
  const Result<pool::ObjectInfo> before = pool.find(plan.name);
  if (!before) co_return about_object(plan.name, before.error());
  const uint64_t old_size = before->state.size_bytes;
  if (plan.size_bytes < old_size && plan.shrink == Pool::Shrink::kRefuse) {
    co_return complaint("{} has {}: to make it smaller loses what lies behind {}; --lose-data allows that", plan.name,
                        format_size(old_size), format_size(plan.size_bytes));
  }
  const Result<void> resized = co_await pool.resize(plan.name, plan.size_bytes, plan.shrink);
  if (!resized) co_return about_object(plan.name, resized.error());
  print(fmt::format("resized replica {} from {} to {}\n", plan.name, format_size(old_size),
                    format_size(plan.size_bytes)));
  co_return Outcome();
}

Task<Outcome> delete_object(Pool& pool, const ObjectPlan& plan, pool::ObjectKind kind) {
  const Result<pool::ObjectInfo> found = pool.find(plan.name);
  if (!found) co_return about_object(plan.name, found.error());
  const bool is_snapshot = found->state.kind == pool::ObjectKind::kSnapshot;
  if (found->state.kind != kind) {
    co_return complaint("{} is a {}: fairlead {} delete {} deletes it", plan.name, is_snapshot ? "snapshot" : "replica",
                        is_snapshot ? "snapshot" : "replica", plan.name);
  }
  const Result<void> removed = co_await pool.remove(plan.name);
  if (!removed) co_return about_object(plan.name, removed.error());
  // What it held comes back before the command ends, as nothing goes on behind it.
  if (const Result<void> settled = co_await pool.settle(); !settled) co_return about_object(plan.name, settled.error());
  print(fmt::format("deleted {} {}; free now: {}\n", is_snapshot ? "snapshot" : "replica", plan.name,
                    about(pool.statistics().free_bytes)));
  co_return Outcome();
}

Task<Outcome> list_objects(Pool& pool, const ObjectPlan& plan, pool::ObjectKind kind) {
  std::vector<ObjectLine> lines = co_await objects_of(pool);
  std::erase_if(lines, [&](const ObjectLine& line) { return line.info.state.kind != kind; });
  if (lines.empty() && !plan.json) {
    print(fmt::format("no {}\n", kind == pool::ObjectKind::kSnapshot ? "snapshots" : "replicas"));
  } else {
    print(plan.json ? objects_to_json(lines) : objects_to_text(lines));
  }
  co_return Outcome();
}

// Of all that it shows, zeroes of what was never written too.
Task<Outcome> print_checksum(Shard& shard, Pool& pool, const ObjectPlan& plan) {
  const auto source = co_await pool.source(plan.name);
  if (!source) co_return about_object(plan.name, source.error());
  const auto device = (*source)->open(shard);
  if (!device) co_return about_object(plan.name, device.error());
  Crc32c crc;
  const AlignedBytes memory = make_aligned_bytes(kMiB);
  for (uint64_t at = 0, end = (*device)->geometry().size_bytes; at < end; at += kMiB) {
    iovec piece{memory.get(), std::min<uint64_t>(kMiB, end - at)};
    const Result<void> read = co_await block_read(shard.reactor, **device, ByteOffset(at), {&piece, 1});
    if (!read) co_return about_object(plan.name, read.error());
    crc.update({memory.get(), piece.iov_len});
  }
  print(fmt::format("{:08x}\n", crc.value()));
  co_return Outcome();
}

Task<Outcome> set_replica(Pool& pool, const ObjectPlan& plan) {
  pool::Changes changes;
  changes.labels = plan.labels;
  changes.volume_id = plan.volume_id;
  const Result<void> changed = co_await pool.change(plan.name, std::move(changes));
  if (!changed) co_return about_object(plan.name, changed.error());
  co_return Outcome();
}

Task<Outcome> create_snapshot(Pool& pool, const ObjectPlan& plan) {
  const Result<Uuid> created = co_await pool.snapshot(plan.origin, plan.name);
  if (!created) {
    const bool is_about_origin = created.error().code != Code::kAlreadyExists;
    co_return about_object(is_about_origin ? plan.origin : plan.name, created.error());
  }
  print(fmt::format("created snapshot {} ({}) of {}\n", plan.name, to_string(*created), plan.origin));
  co_return Outcome();
}

Task<Outcome> act(Shard& shard, Pool& pool, const ObjectPlan& plan) {
  switch (plan.action) {
    case ObjectAction::kCreateReplica:
      return create_replica(pool, plan);
    case ObjectAction::kResizeReplica:
      return resize_replica(pool, plan);
    case ObjectAction::kSetReplica:
      return set_replica(pool, plan);
    case ObjectAction::kDeleteReplica:
      return delete_object(pool, plan, pool::ObjectKind::kReplica);
    case ObjectAction::kListReplicas:
      return list_objects(pool, plan, pool::ObjectKind::kReplica);
    case ObjectAction::kChecksumReplica:
      return print_checksum(shard, pool, plan);
    case ObjectAction::kCreateSnapshot:
      return create_snapshot(pool, plan);
    case ObjectAction::kDeleteSnapshot:
      return delete_object(pool, plan, pool::ObjectKind::kSnapshot);
    case ObjectAction::kListSnapshots:
      return list_objects(pool, plan, pool::ObjectKind::kSnapshot);
  }
  FL_UNREACHABLE("no such command");
}

Task<Outcome> act_in_pool(Shard& shard, const ObjectPlan& plan) {
  auto pool = co_await import_pool({&shard}, plan.disks);
  if (!pool) co_return std::unexpected(pool.error());
  co_return co_await close_pool(**pool, co_await act(shard, **pool, plan));
}

Task<int> act(Shard& shard, const ObjectPlan& plan) {
  return finish(command_name(plan.action), act_in_pool(shard, plan));
}

template <typename Plan>
int run_on_a_shard(const Plan& plan) {
  set_log_level(LogLevel::kWarn);  // what is mended at import is worth a line
  Runtime runtime({.pinning = Pinning::kNone, .signals = RuntimeOptions::Signals::kDefault});
  if (const Result<void> started = runtime.start(); !started) {
    fmt::print(stderr, "fairlead {}: cannot start: {}\n", command_name(plan.action), to_string(started.error()));
    return kExitCannot;
  }
  return runtime.run(act(runtime.shard(0), plan));
}

}  // namespace

int run(const PoolPlan& plan) { return run_on_a_shard(plan); }
int run(const ObjectPlan& plan) { return run_on_a_shard(plan); }

}  // namespace fairlead::cli
