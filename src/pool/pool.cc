#include "pool/pool.h"

#include <algorithm>
#include <fmt/format.h>

#include "async/call.h"
#include "base/log.h"
#include "pool/core.h"

namespace fairlead::pool {
namespace {

constexpr uint64_t kBlankCheckBytes = 1 * kMiB;  // at each end of a disk
constexpr uint64_t kJournalBytesDefaultMin = 1 * kMiB;
constexpr uint64_t kJournalBytesDefaultMax = 64 * kMiB;

std::unexpected<Problem> problem(Code code, const char* what, std::string detail) {
  return problem_of({code, 0, what}, std::move(detail));
}
std::unexpected<Problem> problem(const Error& error, std::string detail) {
  return problem_of(error, std::move(detail));
}
#define FL_POOL_TRY_VOID(detail, ...) \
  if (const Result<void> fl_outcome = (__VA_ARGS__); !fl_outcome) co_return problem(fl_outcome.error(), detail)

Task<Result<bool>> is_blank(Shard& shard, BlockDevice& device) {
  const AlignedBytes memory = make_aligned_bytes(kBlankCheckBytes);
  const uint64_t size = device.geometry().size_bytes;
  const uint64_t length = std::min(size, kBlankCheckBytes);
  for (const uint64_t offset : {uint64_t{0}, size - length}) {
    iovec piece{memory.get(), length};
    FL_CO_TRY_VOID(co_await block_read(shard.reactor, device, ByteOffset(offset), {&piece, 1}));
    if (!std::ranges::all_of(std::span(memory.get(), length), [](std::byte b) { return b == std::byte{0}; })) {
      co_return false;
    }
  }
  co_return true;
}

// As is_blank() has it.
Task<Result<void>> make_blank(Shard& shard, BlockDevice& device) {
  FL_CO_TRY_VOID(co_await SuperblockPlaces::erase(shard.reactor, device));
  const uint64_t size = device.geometry().size_bytes;
  const uint64_t length = std::min(size, kBlankCheckBytes);
  for (const uint64_t offset : {uint64_t{0}, size - length}) {
    FL_CO_TRY_VOID(co_await block_write_zeroes(shard.reactor, device, ByteOffset(offset), length));
  }
  co_return co_await block_flush(shard.reactor, device);
}

// Refuses a disk that holds what nobody said could go.
Task<Outcome<void>> check_disk_may_go(Shard& shard, BlockDevice& device, std::string path, Blank blank) {
  if (device.geometry().read_only) co_return problem(Code::kReadOnly, "a pool writes to its disks", path);
  if (blank == Blank::kNotRequired) co_return Outcome<void>();
  const Result<FoundSuperblock> found = co_await SuperblockPlaces::read(shard.reactor, device);
  if (found && !found->newest.is_destroyed) {
    co_return problem(Code::kAlreadyExists, "a pool is on it", fmt::format("{}: pool {}", path, found->newest.name));
  }
  const Result<bool> blank_found = co_await is_blank(shard, device);
  if (!blank_found) co_return problem(blank_found.error(), path);
  if (!*blank_found && !found) co_return problem(Code::kAlreadyExists, "it is not blank", path);
  co_return Outcome<void>();
}

uint32_t unit_bytes(const CreateOptions& options) {
  if (options.unit_bytes != 0) return options.unit_bytes;
  return std::max<uint32_t>(kUnitBytesDefault, options.extent_bytes / kUnitsMax);
}

Outcome<void> check_options(const CreateOptions& options, uint32_t logical_block) {
  if (!is_valid_name(options.name)) {
    return problem(Code::kInvalidArgument,
                   "a name has 1 to 63 letters, digits, '.', '_' or '-', and begins with a letter or digit",
                   options.name);
  }
  if (!is_power_of_two(options.extent_bytes) || options.extent_bytes < kExtentBytesMin ||
      options.extent_bytes > kExtentBytesMax) {
    return problem(Code::kInvalidArgument, "an extent is a power of two from 64 KiB to 16 MiB",
                   format_size(options.extent_bytes));
  }
  const uint32_t unit = unit_bytes(options);
  if (!is_power_of_two(unit) || unit < logical_block || unit > options.extent_bytes ||
      unit < options.extent_bytes / kUnitsMax) {
    return problem(Code::kInvalidArgument,
                   "a unit is a power of two from a logical block, or a 256th of an extent, to an extent",
                   format_size(unit));
  }
  return {};
}

Outcome<void> lay_out(Superblock& superblock, const CreateOptions& options, std::span<const uint64_t> sizes) {
  uint64_t journal = options.journal_bytes;
  if (journal == 0) journal = std::clamp(sizes.front() / 1024, kJournalBytesDefaultMin, kJournalBytesDefaultMax);
  journal = align_down(journal, kPageBytes);
  if (journal < kJournalBytesMin)
    return problem(Code::kInvalidArgument, "the journal is too small", format_size(journal));
  superblock.journal_bytes = journal;
  const uint64_t head = align_up(kHeadBytes, superblock.extent_bytes);
  superblock.journal[0] = {.disk = 0, .offset = head};
  superblock.journal[1] =
      sizes.size() > 1 ? JournalArea{.disk = 1, .offset = head} : JournalArea{.disk = 0, .offset = head + journal};
  for (uint16_t disk = 0; disk < sizes.size(); ++disk) {
    const Result<uint32_t> extents = add_segment(superblock, disk, sizes[disk]);
    if (!extents) return problem(extents.error(), superblock.name);
    if (*extents == 0)
      return problem(Code::kNoSpace, "a disk is too small",
                     fmt::format("disk {} has {}", disk, format_size(sizes[disk])));
  }
  const Layout layout(superblock);
  if (layout.extents() < 8) return problem(Code::kNoSpace, "the disks are too small", superblock.name);
  return {};
}

// A disk that was opened, and what is on it.
struct FoundDisk {
  PoolDisk disk;
  std::unique_ptr<BlockDevice> device;
  Superblock superblock;
  SuperblockPlaces places;
};

Task<Outcome<std::vector<FoundDisk>>> find_disks(Shard& shard, std::vector<PoolDisk> disks) {
  std::vector<FoundDisk> found;
  for (PoolDisk& disk : disks) {
    Result<std::unique_ptr<BlockDevice>> device = disk.source->open(shard);
    if (!device) co_return problem(device.error(), disk.path);
    Result<FoundSuperblock> newest = co_await SuperblockPlaces::read(shard.reactor, **device);
    if (!newest) co_return problem(newest.error(), disk.path);
    if (newest->newest.is_destroyed) {
      co_return problem(Code::kNotFound, "the pool on it was destroyed", disk.path);
    }
    found.push_back({std::move(disk), std::move(*device), std::move(newest->newest), newest->places});
  }
  if (found.empty()) co_return problem(Code::kInvalidArgument, "no disk is named", "");
  co_return found;
}

// In the order of their indices; all of one pool, none missing, none of another time; returns the newest superblock.
Outcome<Superblock> check_set(std::vector<FoundDisk>& found) {
  const auto newest =
      std::ranges::max_element(found, {}, [](const FoundDisk& each) { return each.superblock.generation; });
  const Superblock superblock = newest->superblock;
  // A crash while superblocks are written leaves disks one generation apart; but no disk gets its second copy before
  // all have the first.
  const bool is_on_all =
      std::ranges::any_of(found, [&](const FoundDisk& each) { return each.places.is_complete(superblock.generation); });
  const uint64_t oldest = superblock.generation - (is_on_all ? 0 : 1);
  for (const FoundDisk& each : found) {
    if (each.superblock.pool_id != superblock.pool_id) {
      return problem(Code::kInvalidArgument, "the disks are of different pools",
                     fmt::format("{} is of pool {}, {} of pool {}", each.disk.path, each.superblock.name,
                                 newest->disk.path, superblock.name));
    }
    if (each.superblock.generation < oldest) {
      return problem(Code::kInvalidArgument, "an older copy of a disk",
                     fmt::format("{} was left at generation {}, {} is at {}", each.disk.path,
                                 each.superblock.generation, newest->disk.path, superblock.generation));
    }
  }
  std::vector<FoundDisk> ordered;
  for (const DiskMember& member : superblock.disks) {
    const auto disk = std::ranges::find_if(found, [&](const FoundDisk& each) {
      return each.superblock.disks[each.superblock.disk_index].id == member.id;
    });
    if (disk == found.end()) {
      return problem(Code::kNotFound, "a disk of the pool is missing",
                     fmt::format("disk {} of {} of pool {} (id {}, {})", ordered.size() + 1, superblock.disks.size(),
                                 superblock.name, to_string(member.id), format_size(member.size_bytes)));
    }
    if (disk->device->geometry().size_bytes < member.size_bytes) {
      return problem(Code::kInvalidArgument, "a disk is smaller than it was", disk->disk.path);
    }
    ordered.push_back(std::move(*disk));
    found.erase(disk);
  }
  if (!found.empty()) {
    return problem(Code::kInvalidArgument, "a disk that the pool does not have, or the same disk twice",
                   found.front().disk.path);
  }
  found = std::move(ordered);
  return superblock;
}

std::vector<std::unique_ptr<ShardSide>> make_sides(std::span<Shard* const> shards, const Superblock& superblock) {
  std::vector<std::unique_ptr<ShardSide>> sides;
  for (Shard* const shard : shards) {
    sides.push_back(std::make_unique<ShardSide>(*shard));
    sides.back()->layout = Layout(superblock);
  }
  return sides;
}

}  // namespace

Task<Outcome<void>> Pool::create(Shard& shard, std::vector<PoolDisk> disks, CreateOptions options) {
  if (disks.empty() || disks.size() > kDisksMax) {
    co_return problem(Code::kInvalidArgument, "a pool has 1 to 32 disks", options.name);
  }
  Shard* const shards[] = {&shard};
  Superblock superblock;
  superblock.pool_id = shard.random.uuid();
  superblock.name = options.name;
  superblock.created_ms = shard.clock.wall_ms();
  superblock.extent_bytes = options.extent_bytes;
  superblock.unit_bytes = unit_bytes(options);
  superblock.incarnation = shard.random.next();
  superblock.boot_id = shard.storage.boot_id();
  superblock.is_exported = true;
  std::vector<uint64_t> sizes;
  std::vector<std::unique_ptr<BlockDevice>> devices;
  for (const PoolDisk& disk : disks) {
    Result<std::unique_ptr<BlockDevice>> opened = disk.source->open(shard);
    if (!opened) co_return problem(opened.error(), disk.path);
    BlockDevice& device = **opened;
    if (const auto may_go = co_await check_disk_may_go(shard, device, disk.path, options.blank); !may_go) {
      co_return may_go;
    }
    superblock.logical_block = std::max(superblock.logical_block, device.geometry().logical_block);
    superblock.disks.push_back({.id = shard.random.uuid(), .size_bytes = 0});
    sizes.push_back(device.geometry().size_bytes);
    devices.push_back(std::move(*opened));
  }
  if (const auto valid = check_options(options, superblock.logical_block); !valid) co_return valid;
  if (const auto placed = lay_out(superblock, options, sizes); !placed) co_return placed;
  for (size_t i = 0; i < devices.size(); ++i) {
    FL_POOL_TRY_VOID(disks[i].path, co_await SuperblockPlaces::erase(shard.reactor, *devices[i]));
  }
  auto sides = make_sides(shards, superblock);
  sides.front()->disks = std::move(devices);
  PoolCore core(std::move(sides), superblock, std::vector<SuperblockPlaces>(disks.size()), {});
  FL_POOL_TRY_VOID(options.name, co_await core.format());
  co_return Outcome<void>();
}

Task<Outcome<std::unique_ptr<Pool>>> Pool::import(std::vector<Shard*> shards, std::vector<PoolDisk> disks,
                                                  ImportOptions options) {
  auto found = co_await find_disks(*shards.front(), std::move(disks));
  if (!found) co_return std::unexpected(found.error());
  const Outcome<Superblock> newest = check_set(*found);
  if (!newest) co_return std::unexpected(newest.error());
  const Superblock& superblock = *newest;
  auto sides = make_sides(shards, superblock);
  std::vector<SuperblockPlaces> places;
  for (FoundDisk& disk : *found) {
    if (disk.device->geometry().read_only)
      co_return problem(Code::kReadOnly, "a pool writes to its disks", disk.disk.path);
    sides.front()->disks.push_back(std::move(disk.device));
    places.push_back(disk.places);
  }
  auto core = std::make_unique<PoolCore>(std::move(sides), superblock, std::move(places), options);
  Result<void> outcome;
  for (const FoundDisk& disk : *found) {
    if (outcome) outcome = co_await core->open_on_others(disk.disk.source);
  }
  if (outcome) outcome = co_await core->load(shards.front()->storage.boot_id(), options.seen);
  if (!outcome) {
    co_await core->abandon();
    co_return problem(outcome.error(), superblock.name);
  }
  log_info("pool.imported", {{"pool", superblock.name}, {"disks", superblock.disks.size()}});
  co_return std::unique_ptr<Pool>(new Pool(std::move(core)));
}

Task<Outcome<void>> Pool::destroy(Shard& shard, std::vector<PoolDisk> disks) {
  auto found = co_await find_disks(shard, std::move(disks));
  if (!found) co_return std::unexpected(found.error());
  if (const auto complete = check_set(*found); !complete) co_return std::unexpected(complete.error());
  for (const FoundDisk& disk : *found) {
    FL_POOL_TRY_VOID(disk.disk.path, co_await make_blank(shard, *disk.device));
  }
  co_return Outcome<void>();
}

Pool::Pool(std::unique_ptr<PoolCore> core) : core_(std::move(core)) {}
Pool::~Pool() = default;

Task<Result<void>> Pool::close() { return core_->close(); }
const std::string& Pool::name() const { return core_->superblock().name; }
const Uuid& Pool::id() const { return core_->superblock().pool_id; }
Progress Pool::progress() const { return core_->progress(); }
PoolStatistics Pool::statistics() const { return core_->statistics(); }
Task<Result<uint64_t>> Pool::grow() { return core_->grow(); }

Task<Outcome<void>> Pool::add_disk(PoolDisk disk, Blank blank) {
  Shard& home = core_->home().shard;
  Result<std::unique_ptr<BlockDevice>> opened = disk.source->open(home);
  if (!opened) co_return problem(opened.error(), disk.path);
  BlockDevice& device = **opened;
  if (const auto may_go = co_await check_disk_may_go(home, device, disk.path, blank); !may_go) co_return may_go;
  if (device.geometry().logical_block > core_->superblock().logical_block) {
    co_return problem(Code::kInvalidArgument, "its logical blocks are larger than those of the pool", disk.path);
  }
  FL_POOL_TRY_VOID(disk.path, co_await SuperblockPlaces::erase(home.reactor, device));
  FL_POOL_TRY_VOID(disk.path, co_await core_->add_disk(disk.source, std::move(*opened)));
  co_return Outcome<void>();
}

std::vector<ObjectInfo> Pool::list() const { return core_->list(); }
Result<ObjectInfo> Pool::find(std::string_view name) const { return core_->info(name); }
Task<Result<Uuid>> Pool::create_replica(ReplicaOptions options) { return core_->create_replica(std::move(options)); }
Task<Result<Uuid>> Pool::snapshot(std::string replica, SnapshotOptions options) {
  return core_->snapshot(std::move(replica), std::move(options));
}
Task<Result<Uuid>> Pool::clone(std::string snapshot, ReplicaOptions options) {
  return core_->clone(std::move(snapshot), std::move(options));
}
Task<Result<void>> Pool::remove(std::string name) { return core_->remove(std::move(name)); }
Task<Result<void>> Pool::resize(std::string replica, uint64_t size_bytes, Shrink shrink) {
  return core_->resize(std::move(replica), size_bytes, shrink);
}
Task<Result<void>> Pool::change(std::string name, Changes changes) {
  return core_->change(std::move(name), std::move(changes));
}
Task<Result<std::shared_ptr<BlockSource>>> Pool::source(std::string name) { return core_->source(std::move(name)); }
Task<Result<void>> Pool::begin_generation(std::string replica, Stamp stamp) {
  return core_->begin_generation(std::move(replica), stamp);
}
Task<Result<void>> Pool::restamp(std::string replica, std::vector<ByteRange> extents) {
  return core_->restamp(std::move(replica), std::move(extents));
}
std::optional<Stamp> Pool::generation(std::string_view name) const { return core_->generation(name); }
Task<Result<std::vector<ByteRange>>> Pool::mapped(std::string name, ByteRange within) {
  return core_->mapped(std::move(name), within);
}
Task<Result<std::vector<ByteRange>>> Pool::changed_since(std::string name, Stamp stamp, ByteRange within) {
  return core_->changed_since(std::move(name), stamp, within);
}
Task<Result<std::vector<ByteRange>>> Pool::changed_between(std::string older, std::string newer, ByteRange within) {
  return core_->changed_between(std::move(older), std::move(newer), within);
}
Task<Result<uint64_t>> Pool::unique_bytes(std::string name) { return core_->unique_bytes(std::move(name)); }
Task<Result<void>> Pool::settle() { return core_->settle(); }
Task<Result<void>> Pool::checkpoint() { return core_->checkpoint(); }

}  // namespace fairlead::pool
