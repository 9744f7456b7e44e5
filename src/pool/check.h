// The offline checker: reads everything that a pool's disks say of it, in every copy, by the rules of import, and tells
// in words what is wrong. It writes nothing. `fairlead offline pool check` and `inspect` print what it returns.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "async/task.h"
#include "io/shard.h"
#include "pool/format.h"
#include "pool/pool.h"

namespace fairlead::pool {

enum class Severity : uint8_t {
  kDamage,  // data is lost, or the pool cannot be imported as it is
  kRepair,  // a copy is bad and another is whole: import writes it anew
  kOddity,  // nothing is lost; it should not be so
};
// "damage", "repair", "oddity".
const char* severity_name(Severity severity);

struct Finding {
  Severity severity = Severity::kDamage;
  std::string text;  // a sentence without its full stop
};

// One page of one disk.
struct SuperblockCopy {
  uint64_t offset = 0;
  std::optional<Superblock> superblock;  // none: error says why
  Error error;
};

struct CheckedDisk {
  std::string path;
  uint64_t size_bytes = 0;
  std::vector<SuperblockCopy> copies;  // kCopies, and the spare one where it is not blank
  std::optional<uint16_t> index;       // in the superblock's list; none: it is no disk of this pool
};

struct CheckedJournal {
  bool is_same_boot = false;     // as the last import's: batches that were not flushed are there too
  uint64_t batches = 0;          // that import applies
  uint64_t records = 0;          // in them
  uint64_t dropped = 0;          // batches that import drops, as the power was cut before they were safe
  std::optional<Sequence> last;  // batch that import applies
};

struct CheckedLayer {
  LayerId id;
  LayerId parent;
  uint64_t extents = 0;        // that it has a place for
  uint64_t entries = 0;        // those, and holes and stamps without a place
  std::optional<Uuid> object;  // whose map it is; none: of a deleted one, gone as soon as the pool is imported or later
};

struct ExtentCounts {
  uint64_t total = 0;
  uint64_t data = 0;       // in maps
  uint64_t pages = 0;      // hold map pages, both copies
  uint64_t directory = 0;  // hold the directory, both copies
  uint64_t free() const { return total - std::min(total, data + pages + directory); }
};

struct CheckReport {
  std::vector<Finding> findings;
  uint64_t findings_left_out = 0;  // beyond kFindingsMax

  std::vector<CheckedDisk> disks;  // as they were given
  std::optional<Superblock>
      superblock;  // the newest one, which counts; none: no copy is whole, and nothing below is known
  CheckedJournal journal;
  bool is_state_known = false;           // the rest: from the directory and the journal
  std::vector<PageExtent> page_extents;  // as of the checkpoint
  uint64_t map_pages = 0;                // that hold entries
  std::vector<CheckedLayer> layers;      // ascending ids
  std::vector<ObjectState> objects;      // ascending ids
  std::vector<StampRecord> stamps;       // ascending ordinals
  ExtentCounts extents;

  bool is_clean() const { return findings.empty(); }
  uint64_t count(Severity severity) const;
};
inline constexpr size_t kFindingsMax = 1000;

// `boot_id`: of the kernel that runs now. Bytes are never the reason for an error but for these: kNotFound (no disk is
// of a pool, or the pool was destroyed), kNotSupported (a newer format). kInvalidArgument: no disks.
Task<Result<CheckReport>> check_pool(Shard& shard, std::vector<PoolDisk> disks, Uuid boot_id);
// What one disk's superblocks say, whatever pool it is of. `index` stays empty.
Task<CheckedDisk> read_superblocks(Shard& shard, PoolDisk disk);
// The newer one of those that are whole; null: none.
const Superblock* newest_superblock(const CheckedDisk& disk);

}  // namespace fairlead::pool
