// DiskContent: the bytes of a simulated disk: stable storage, and over it the volatile cache as versions of sectors
// that were written and not flushed. No time, no chance but the one passed in: a plain data structure.
//
// Invariant: what a sector holds after a crash is its stable bytes or one of its versions; a flush leaves stable the
// newest version that it covers, so flushed and forced bytes always survive.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "sim/prng.h"

namespace fairlead::sim {

enum class Cache : uint8_t { kVolatile, kNone };

class DiskContent {
 public:
  DiskContent(uint32_t sector_bytes, Cache cache) : sector_bytes_(sector_bytes), cache_(cache) {}

  uint32_t sector_bytes() const { return sector_bytes_; }

  // The newest bytes. `out` is whole sectors.
  void read(uint64_t sector, std::span<std::byte> out) const;
  // What would be left if every un-flushed write were lost.
  void read_stable(uint64_t sector, std::span<std::byte> out) const;

  // Gives the number of a write; all sectors of one write carry the same. Numbers grow.
  uint64_t begin_write() { return ++newest_; }
  uint64_t newest() const { return newest_; }
  // One sector. `bytes` null: zeroes. kStable: at once stable, over whatever was cached for it.
  enum class Reach : uint8_t { kCache, kStable };
  void write(uint64_t number, uint64_t sector, const std::byte* bytes, Reach reach);
  // Writes up to `number` become stable.
  void flush(uint64_t number);

  struct CrashOutcome {
    uint32_t kept = 0;  // versions' sectors that came out as their newest
    uint32_t lost = 0;
    uint32_t torn = 0;  // writes of which some sectors are left and some not
  };
  // Each sector keeps its stable bytes or any of its versions, as `random` has it; the cache is empty then.
  CrashOutcome crash(Prng& random);

  // Inverts one bit of stable storage, and of the newest version.
  void flip_bit(uint64_t sector, uint32_t bit);
  // Room that stable storage and cache take, roughly: by page.
  uint64_t allocated_bytes() const { return pages_.size() * kPageBytes + cached_.size() * sector_bytes_; }
  bool is_allocated(uint64_t sector) const;
  size_t cached_sectors() const { return cached_.size(); }

 private:
  static constexpr uint64_t kPageBytes = 4096;
  struct Version {
    uint64_t number = 0;
    std::vector<std::byte> bytes;  // empty: zeroes
  };
  void write_stable(uint64_t sector, std::span<const std::byte> bytes);

  uint32_t sector_bytes_;
  Cache cache_;
  uint64_t newest_ = 0;
  std::map<uint64_t, std::vector<std::byte>> pages_;  // absent: zeroes
  std::map<uint64_t, std::vector<Version>> cached_;   // by sector, oldest first, never empty lists
};

}  // namespace fairlead::sim
