#include "pool/check.h"

#include <algorithm>
#include <memory>
#include <set>

#include "base/crc32c.h"
#include "pool/check_state.h"
#include "pool/journal_reader.h"
#include "pool/layout.h"

namespace fairlead::pool {
namespace {

constexpr uint64_t kReadBytes = 1 * kMiB;

constexpr std::array<const char*, kCopies + 1> kCopyNames = {"first", "second", "spare"};

Task<Result<void>> read_bytes(Reactor& reactor, BlockDevice& device, uint64_t offset, std::span<std::byte> bytes) {
  const uint64_t size = device.geometry().size_bytes;
  if (bytes.size() > size || offset > size - bytes.size()) co_return fail(Code::kOutOfRange, "behind the disk's end");
  // Where the heap puts vectors must not decide which way a read goes: a simulated run is to be repeated exactly.
  const AlignedBytes memory = make_aligned_bytes(std::min<uint64_t>(bytes.size(), kReadBytes));
  while (!bytes.empty()) {
    const std::span<std::byte> piece = bytes.first(std::min<uint64_t>(bytes.size(), kReadBytes));
    iovec buffer{memory.get(), piece.size()};
    FL_CO_TRY_VOID(co_await block_read(reactor, device, ByteOffset(offset), {&buffer, 1}));
    std::ranges::copy_n(memory.get(), static_cast<ptrdiff_t>(piece.size()), piece.begin());
    offset += piece.size();
    bytes = bytes.subspan(piece.size());
  }
  co_return Result<void>();
}

// `device` is null when it could not be opened, and `error` says why.
Task<void> read_superblocks_of(Reactor& reactor, BlockDevice* device, Error error, CheckedDisk& disk) {
  for (const uint64_t offset : {kSuperblockOffsets[0], kSuperblockOffsets[1], kSpareSuperblockOffset}) {
    disk.copies.push_back({.offset = offset, .superblock = std::nullopt, .error = error});
  }
  if (device == nullptr) co_return;
  disk.size_bytes = device->geometry().size_bytes;
  for (SuperblockCopy& copy : disk.copies) {
    Page page;
    const Result<void> read = co_await read_bytes(reactor, *device, copy.offset, page);
    Result<Superblock> superblock = read ? decode_superblock(page) : std::unexpected(read.error());
    if (superblock) {
      copy.superblock = std::move(*superblock);
    } else {
      copy.error = superblock.error();
    }
  }
  const SuperblockCopy& spare = disk.copies.back();
  if (!spare.superblock && spare.error.code == Code::kNotFound) disk.copies.pop_back();
}

class Checker {
 public:
  Checker(Shard& shard, std::vector<PoolDisk> disks, Uuid boot_id)
      : shard_(shard), given_(std::move(disks)), boot_id_(boot_id), findings_(report_) {}

  Task<Result<CheckReport>> run();

 private:
  struct Given {
    std::unique_ptr<BlockDevice> device;  // null: it could not be opened
    const Superblock* best = nullptr;     // its newest; in the report
  };

  Task<void> read_disk(size_t index);
  Task<Result<void>> read_place(Place place, uint64_t offset, std::span<std::byte> bytes);
  Result<void> choose_superblock();
  void check_copies(const CheckedDisk& disk);
  void compare_copies(const CheckedDisk& disk, const SuperblockCopy& a, const SuperblockCopy& b);
  void check_members();
  void check_member(size_t given);
  void compare_with_newest(const CheckedDisk& disk, const Superblock& best);
  Task<std::optional<Directory>> read_directory();
  Task<std::optional<std::vector<std::byte>>> read_directory_copy(size_t copy);
  Task<void> read_pages(const Directory& directory, CheckedState& state);
  Task<void> read_page(const Directory& directory, const LayerState& layer, const LeafRef& leaf, CheckedState& state);
  Task<Result<void>> read_page_copy(const PageExtent& extent, const LeafRef& leaf, size_t copy, MapBytes& page);
  Task<void> replay(CheckedState& state);
  Task<std::vector<JournalBatch>> read_journal(std::array<size_t, kCopies> copies, bool is_told);
  Task<void> compare_journal_copies(const std::vector<JournalBatch>& batches);
  JournalAreas areas_of(std::array<size_t, kCopies> copies) const;
  void apply(const std::vector<JournalBatch>& batches, CheckedState& state);
  const char* path_of(uint16_t disk) const { return members_[disk] == nullptr ? "a missing disk" : paths_[disk]; }
  std::string where(Place place) const;

  Shard& shard_;
  std::vector<PoolDisk> given_;
  const Uuid boot_id_;
  CheckReport report_;
  FindingList findings_;
  std::vector<Given> opened_;
  const Superblock* newest_ = nullptr;
  std::vector<BlockDevice*> members_;  // by index in the superblock; null: missing
  std::vector<const char*> paths_;     // likewise
  Layout layout_;
};

Task<Result<CheckReport>> Checker::run() {
  if (given_.empty()) co_return fail(Code::kInvalidArgument, "no disks");
  opened_.resize(given_.size());
  report_.disks.resize(given_.size());
  for (size_t i = 0; i < given_.size(); ++i) co_await read_disk(i);
  FL_CO_TRY_VOID(choose_superblock());
  for (const CheckedDisk& disk : report_.disks) check_copies(disk);
  if (newest_ == nullptr) co_return std::move(report_);
  check_members();
  layout_ = Layout(*newest_);

  CheckedState state(*newest_, layout_, findings_);
  const std::optional<Directory> directory = co_await read_directory();
  if (!directory) co_return std::move(report_);
  state.load(*directory);
  co_await read_pages(*directory, state);
  co_await replay(state);
  report_.page_extents = directory->page_extents;
  report_.is_state_known = true;
  state.verify(report_);
  co_return std::move(report_);
}

// ---- Bytes

// Requires: the layout contains it; the range lies in an extent.
Task<Result<void>> Checker::read_place(Place place, uint64_t offset, std::span<std::byte> bytes) {
  const Layout::Location at = layout_.locate(place);
  BlockDevice* const device = members_[at.disk];
  if (device == nullptr) co_return fail(Code::kNotFound, "its disk is missing");
  co_return co_await read_bytes(shard_.reactor, *device, at.offset + offset, bytes);
}

std::string Checker::where(Place place) const {
  const Layout::Location at = layout_.locate(place);
  return fmt::format("{}, byte {}", path_of(at.disk), at.offset);
}

// ---- Superblocks

Task<void> Checker::read_disk(size_t index) {
  CheckedDisk& disk = report_.disks[index];
  Result<std::unique_ptr<BlockDevice>> device = given_[index].source->open(shard_);
  if (device) opened_[index].device = std::move(*device);
  disk.path = given_[index].path;
  co_await read_superblocks_of(shard_.reactor, opened_[index].device.get(), device ? Error{} : device.error(), disk);
}

Result<void> Checker::choose_superblock() {
  // Of several reasons why there is none: rather that it cannot be read than that it never was.
  Error error{Code::kNotFound, 0, ""};
  Uuid pool_id;
  for (size_t i = 0; i < opened_.size(); ++i) {
    for (const SuperblockCopy& copy : report_.disks[i].copies) {
      if (!copy.superblock && copy.error.code != Code::kNotFound && error.code != Code::kNotSupported) {
        error = copy.error;
      }
    }
    const Superblock* const best = newest_superblock(report_.disks[i]);
    opened_[i].best = best;
    if (best == nullptr || best->is_destroyed) continue;
    if (pool_id.is_nil()) pool_id = best->pool_id;
    if (best->pool_id != pool_id) continue;
    if (newest_ == nullptr || best->generation > newest_->generation) newest_ = best;
  }
  if (newest_ == nullptr) {
    const bool was_destroyed = std::ranges::any_of(opened_, [](const Given& given) { return given.best != nullptr; });
    if (was_destroyed) return fail(Code::kNotFound, "the pool that was here was destroyed");
    if (error.code == Code::kNotFound) return fail(Code::kNotFound, "no pool is here");
    if (error.code == Code::kNotSupported) return std::unexpected(error);
    return {};
  }
  report_.superblock = *newest_;
  return {};
}

void Checker::check_copies(const CheckedDisk& disk) {
  const auto is_whole = [](const SuperblockCopy& copy) { return copy.superblock.has_value(); };
  if (std::ranges::none_of(disk.copies, is_whole)) {
    findings_.damage("{} has no superblock that can be used ({}; {})", disk.path, to_string(disk.copies[0].error),
                     to_string(disk.copies[1].error));
    return;
  }
  for (size_t i = 0; i < disk.copies.size(); ++i) {
    const SuperblockCopy& copy = disk.copies[i];
    if (!is_whole(copy)) {
      findings_.repair("the {} superblock of {}, at byte {}, is bad: {}", kCopyNames[i], disk.path, copy.offset,
                       to_string(copy.error));
    } else if (i == kCopies) {
      findings_.repair("the spare superblock of {}, at byte {}, is in use, as another could not be written", disk.path,
                       copy.offset);
    }
    for (size_t other = 0; other < i; ++other) compare_copies(disk, disk.copies[other], copy);
  }
}

void Checker::compare_copies(const CheckedDisk& disk, const SuperblockCopy& a, const SuperblockCopy& b) {
  if (!a.superblock || !b.superblock || *a.superblock == *b.superblock) return;
  if (a.superblock->generation == b.superblock->generation) {
    findings_.damage("two superblocks of {} are of one generation, {}, and differ", disk.path,
                     a.superblock->generation);
  } else {
    findings_.repair("two superblocks of {} are of generation {} and {}: the newer counts", disk.path,
                     a.superblock->generation, b.superblock->generation);
  }
}

void Checker::check_members() {
  members_.assign(newest_->disks.size(), nullptr);
  paths_.assign(newest_->disks.size(), "");
  for (size_t i = 0; i < opened_.size(); ++i) {
    if (opened_[i].best != nullptr) check_member(i);
  }
  for (size_t index = 0; index < members_.size(); ++index) {
    if (members_[index] != nullptr) continue;
    findings_.damage("disk {} of the pool, {}, of {}, is missing", index, to_string(newest_->disks[index].id),
                     format_size(newest_->disks[index].size_bytes));
  }
}

void Checker::check_member(size_t given) {
  const Superblock& best = *opened_[given].best;
  CheckedDisk& disk = report_.disks[given];
  if (best.is_destroyed) {
    findings_.damage("{} was of pool {}, which was destroyed there", disk.path, best.name);
    return;
  }
  if (best.pool_id != newest_->pool_id) {
    findings_.damage("{} belongs to another pool, {}", disk.path, best.name);
    return;
  }
  const Uuid id = best.disks[best.disk_index].id;
  const auto member = std::ranges::find(newest_->disks, id, &DiskMember::id);
  if (member == newest_->disks.end()) {
    findings_.damage("{} is a disk that the pool no longer has", disk.path);
    return;
  }
  const auto index = static_cast<uint16_t>(member - newest_->disks.begin());
  if (members_[index] != nullptr) {
    findings_.damage("{} and {} are both disk {} of the pool: one is a copy", paths_[index], disk.path, index);
    return;
  }
  // Superblocks are written on all disks once before any gets its second copy.
  const bool is_on_all = std::ranges::any_of(report_.disks, [&](const CheckedDisk& each) {
    return each.copies.size() == kCopies && std::ranges::all_of(each.copies, [&](const SuperblockCopy& copy) {
             return copy.superblock && copy.superblock->pool_id == newest_->pool_id &&
                    copy.superblock->generation == newest_->generation;
           });
  });
  if (best.generation + (is_on_all ? 0 : 1) < newest_->generation) {
    findings_.damage("{} is an older copy of disk {}: of generation {}, and the pool is at {}", disk.path, index,
                     best.generation, newest_->generation);
    return;
  }
  if (disk.size_bytes < member->size_bytes) {
    findings_.damage("{} has {} B, less than the {} B that the pool uses it with", disk.path, disk.size_bytes,
                     member->size_bytes);
  }
  disk.index = index;
  members_[index] = opened_[given].device.get();
  paths_[index] = disk.path.c_str();
  compare_with_newest(disk, best);
}

void Checker::compare_with_newest(const CheckedDisk& disk, const Superblock& best) {
  if (best.generation < newest_->generation) {
    findings_.repair("the superblocks of {} are one generation behind", disk.path);
    return;
  }
  Superblock expected = *newest_;
  expected.disk_index = best.disk_index;
  if (best != expected) findings_.damage("the superblocks of {} say something else than another disk's", disk.path);
}

// ---- Directory

Task<std::optional<std::vector<std::byte>>> Checker::read_directory_copy(size_t copy) {
  std::vector<std::byte> bytes(align_up(newest_->directory_bytes, kPageBytes));
  uint64_t done = 0;
  for (const Place place : newest_->directory[copy]) {
    const uint64_t length = std::min<uint64_t>(bytes.size() - done, newest_->extent_bytes);
    if (length == 0) break;
    const Result<void> read = co_await read_place(place, 0, std::span(bytes).subspan(done, length));
    if (!read) {
      findings_.repair("the {} copy of the directory cannot be read ({}): {}", kCopyNames[copy], where(place),
                       to_string(read.error()));
      co_return std::nullopt;
    }
    done += length;
  }
  bytes.resize(newest_->directory_bytes);
  if (crc32c(bytes) != newest_->directory_crc) {
    findings_.repair("the {} copy of the directory ({}) is bad: its checksum is wrong", kCopyNames[copy],
                     where(newest_->directory[copy].front()));
    co_return std::nullopt;
  }
  co_return bytes;
}

Task<std::optional<Directory>> Checker::read_directory() {
  if (newest_->directory_bytes == 0) {
    Directory none;
    none.pool_id = newest_->pool_id;
    none.sequence = Sequence(newest_->next_sequence.value - 1);
    co_return none;
  }
  std::optional<std::vector<std::byte>> whole;
  for (size_t copy = 0; copy < kCopies; ++copy) {
    std::optional<std::vector<std::byte>> bytes = co_await read_directory_copy(copy);
    if (bytes && !whole) whole = std::move(bytes);
  }
  if (!whole) {
    findings_.damage("the directory cannot be read from either copy: what the pool holds is not known");
    co_return std::nullopt;
  }
  Result<Directory> directory = decode_directory(*whole);
  if (!directory) {
    findings_.damage("the directory cannot be used: {}", to_string(directory.error()));
    co_return std::nullopt;
  }
  if (directory->pool_id != newest_->pool_id) {
    findings_.damage("the directory is of another pool, {}", to_string(directory->pool_id));
    co_return std::nullopt;
  }
  if (directory->sequence.value + 1 != newest_->next_sequence.value) {
    findings_.damage("the directory ends with batch {}, and the superblock goes on with batch {}",
                     directory->sequence.value, newest_->next_sequence.value);
  }
  co_return std::move(*directory);
}

// ---- Map pages

Task<void> Checker::read_pages(const Directory& directory, CheckedState& state) {
  for (const LayerState& layer : directory.layers) {
    for (const LeafRef& leaf : layer.leaves) {
      ++report_.map_pages;
      co_await read_page(directory, layer, leaf, state);
    }
  }
}

Task<void> Checker::read_page(const Directory& directory, const LayerState& layer, const LeafRef& leaf,
                              CheckedState& state) {
  const size_t number = leaf.address / layout_.pages_per_extent();
  const std::string name = fmt::format("page {} of the map of {}", leaf.leaf, state.name_of(layer.id));
  if (number >= directory.page_extents.size() || directory.page_extents[number] == PageExtent{}) {
    findings_.damage("{} is said to be in page extent {}, which is not there", name, number);
    co_return;
  }
  const PageExtent& extent = directory.page_extents[number];
  std::array<MapBytes, kCopies> pages;
  std::array<Result<void>, kCopies> outcomes;
  for (size_t copy = 0; copy < kCopies; ++copy) {
    outcomes[copy] = co_await read_page_copy(extent, leaf, copy, pages[copy]);
  }
  if (!outcomes[0] && !outcomes[1]) {
    findings_.damage("{} cannot be read from either copy: where extents {} to {} are is not known", name,
                     uint64_t{leaf.leaf} * kEntriesPerPage,
                     uint64_t{leaf.leaf} * kEntriesPerPage + kEntriesPerPage - 1);
    co_return;
  }
  for (size_t copy = 0; copy < kCopies; ++copy) {
    if (outcomes[copy]) continue;
    const std::string at = layout_.contains(extent.places[copy]) ? where(extent.places[copy]) : "outside of the pool";
    findings_.repair("the {} copy of {} (in the extent at {}) is bad: {}", kCopyNames[copy], name, at,
                     to_string(outcomes[copy].error()));
  }
  state.load_page(layer.id, leaf, pages[outcomes[0] ? 0 : 1]);
}

Task<Result<void>> Checker::read_page_copy(const PageExtent& extent, const LeafRef& leaf, size_t copy, MapBytes& page) {
  const Place place = extent.places[copy];
  if (!layout_.contains(place)) co_return fail(Code::kCorrupt, "there is no such place");
  const uint64_t offset = uint64_t{leaf.address % layout_.pages_per_extent()} * kMapPageBytes;
  FL_CO_TRY_VOID(co_await read_place(place, offset, page));
  if (crc32c(page) != leaf.crc) co_return fail(Code::kCorrupt, "its checksum is wrong");
  co_return Result<void>();
}

// ---- Journal

JournalAreas Checker::areas_of(std::array<size_t, kCopies> copies) const {
  JournalAreas areas;
  for (size_t i = 0; i < kCopies; ++i) {
    areas.devices[i] = members_[newest_->journal[copies[i]].disk];
    areas.offsets[i] = newest_->journal[copies[i]].offset;
  }
  areas.bytes = newest_->journal_bytes;
  return areas;
}

// `is_told`: what is wrong becomes a finding.
Task<std::vector<JournalBatch>> Checker::read_journal(std::array<size_t, kCopies> copies, bool is_told) {
  const JournalMark start{newest_->next_sequence, newest_->journal_position, newest_->chain};
  JournalReader reader(shard_.reactor, areas_of(copies), start, newest_->incarnation);
  std::vector<JournalBatch> batches;
  while (true) {
    Result<std::optional<JournalBatch>> batch = co_await reader.next();
    if (!batch && is_told) {
      findings_.damage("the journal cannot be read behind batch {}: {}",
                       newest_->next_sequence.value + batches.size() - 1, to_string(batch.error()));
    }
    if (!batch || !*batch) co_return batches;
    batches.push_back(std::move(**batch));
  }
}

// Batches that one copy does not have. The reader tells that there are such, not in which copy.
Task<void> Checker::compare_journal_copies(const std::vector<JournalBatch>& batches) {
  for (size_t copy = 0; copy < kCopies; ++copy) {
    const JournalArea& area = newest_->journal[copy];
    if (members_[area.disk] == nullptr) continue;
    const size_t found = (co_await read_journal({copy, copy}, false)).size();
    if (found >= batches.size()) continue;
    findings_.repair("the {} copy of the journal, on {} from byte {} on, lacks batch {}", kCopyNames[copy],
                     path_of(area.disk), area.offset, batches[found].header.sequence.value);
  }
}

Task<void> Checker::replay(CheckedState& state) {
  std::array<size_t, kCopies> copies = {0, 1};
  for (size_t copy = 0; copy < kCopies; ++copy) {
    if (members_[newest_->journal[copy].disk] == nullptr) copies[copy] = 1 - copy;
  }
  if (members_[newest_->journal[copies[0]].disk] == nullptr) {
    findings_.damage("the journal is on missing disks: what changed since the last checkpoint is not known");
    co_return;
  }
  const std::vector<JournalBatch> batches = co_await read_journal(copies, true);
  co_await compare_journal_copies(batches);
  if (newest_->is_exported) {
    if (!batches.empty()) {
      findings_.oddity("the pool was exported, and its journal has {} batches, which import ignores", batches.size());
    }
    co_return;
  }
  apply(batches, state);
}

void Checker::apply(const std::vector<JournalBatch>& batches, CheckedState& state) {
  report_.journal.is_same_boot = newest_->boot_id == boot_id_;
  Sequence durable(newest_->next_sequence.value - 1);
  for (const JournalBatch& batch : batches) durable = std::max(durable, batch.header.durable);
  for (const JournalBatch& batch : batches) {
    if (!report_.journal.is_same_boot && batch.header.sequence > durable) {
      ++report_.journal.dropped;
      continue;
    }
    ++report_.journal.batches;
    report_.journal.records += batch.records.size();
    report_.journal.last = batch.header.sequence;
    for (const Record& record : batch.records) state.apply(batch.header.sequence, record);
  }
}

}  // namespace

const char* severity_name(Severity severity) {
  switch (severity) {
    case Severity::kDamage:
      return "damage";
    case Severity::kRepair:
      return "repair";
    case Severity::kOddity:
      return "oddity";
  }
  FL_UNREACHABLE("no such severity");
}

uint64_t CheckReport::count(Severity severity) const {
  return static_cast<uint64_t>(std::ranges::count(findings, severity, &Finding::severity));
}

const Superblock* newest_superblock(const CheckedDisk& disk) {
  const Superblock* newest = nullptr;
  for (const SuperblockCopy& copy : disk.copies) {
    if (copy.superblock && (newest == nullptr || copy.superblock->generation > newest->generation)) {
      newest = &*copy.superblock;
    }
  }
  return newest;
}

Task<CheckedDisk> read_superblocks(Shard& shard, PoolDisk disk) {
  CheckedDisk read;
  read.path = disk.path;
  const Result<std::unique_ptr<BlockDevice>> device = disk.source->open(shard);
  co_await read_superblocks_of(shard.reactor, device ? device->get() : nullptr, device ? Error{} : device.error(),
                               read);
  co_return read;
}

Task<Result<CheckReport>> check_pool(Shard& shard, std::vector<PoolDisk> disks, Uuid boot_id) {
  Checker checker(shard, std::move(disks), boot_id);
  co_return co_await checker.run();
}

}  // namespace fairlead::pool
