#include "cli/bench_ledger.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/endian.h"
#include "base/xoshiro.h"

namespace fairlead::cli {
namespace {

constexpr uint64_t kMagic = 0x6863'6e65'622d'6c66;  // "fl-bench" on the medium

// At the start of each logical block; all behind it is filler.
struct Stamp {
  Le64 magic;
  Le64 seed;
  Le64 address;  // bytes
  Le64 generation;
  Le32 crc;  // CRC32C of the logical block but for this field
  Le32 reserved;
};
static_assert(sizeof(Stamp) == 40 && alignof(Stamp) == 1);

uint32_t crc_of(std::span<const std::byte> unit) {
  Crc32c crc;
  crc.update(unit.first(offsetof(Stamp, crc)));
  crc.update(unit.subspan(offsetof(Stamp, crc) + sizeof(Stamp::crc)));
  return crc.value();
}

void fill(std::span<std::byte> unit, uint64_t seed, uint64_t address, uint64_t generation) {
  Xoshiro filler(seed ^ (address * 0x9e37'79b9'7f4a'7c15) ^ (generation << 32));
  for (size_t at = sizeof(Stamp); at < unit.size(); at += sizeof(Le64)) {
    const Le64 word(filler.next());
    std::memcpy(unit.data() + at, &word, sizeof word);
  }
  Stamp stamp{.magic = kMagic, .seed = seed, .address = address, .generation = generation, .crc = 0, .reserved = 0};
  std::memcpy(unit.data(), &stamp, sizeof stamp);
  stamp.crc = crc_of(unit);
  std::memcpy(unit.data(), &stamp, sizeof stamp);
}

}  // namespace

BenchLedger::BenchLedger(const Options& options) : options_(options), entries_(options.region.blocks) {
  FL_CHECK(options_.region.blocks <= kVerifiedBlocksMax);
  FL_CHECK(options_.logical_block >= 512 && options_.block_bytes % options_.logical_block == 0);
  written_.reserve(options_.region.blocks);
}

void BenchLedger::begin_write(uint64_t block, std::span<std::byte> bytes) {
  Entry& entry = entries_[block];
  FL_CHECK(!entry.writing && bytes.size() == options_.block_bytes);
  ++entry.generation;
  entry.writing = 1;
  const uint64_t offset = options_.region.offset + block * options_.block_bytes;
  for (size_t at = 0; at < bytes.size(); at += options_.logical_block) {
    fill(bytes.subspan(at, options_.logical_block), options_.seed, offset + at, entry.generation);
  }
}

void BenchLedger::end_write(uint64_t block, const Result<void>& outcome) {
  Entry& entry = entries_[block];
  FL_CHECK(entry.writing);
  entry.writing = 0;
  entry.unsure = outcome ? 0 : 1;
  if (!outcome) ++failed_writes_;
  if (entry.generation == 1) written_.push_back(static_cast<uint32_t>(block));
}

BenchLedger::Reading BenchLedger::begin_read(uint64_t block) const {
  const Entry& entry = entries_[block];
  if (entry.unsure) return {.generation = 0, .failed_writes = failed_writes_};
  return {.generation = entry.generation - entry.writing, .failed_writes = failed_writes_};
}

BenchLedger::Verdict BenchLedger::end_read(uint64_t block, const Reading& reading,
                                           std::span<const std::byte> bytes) const {
  // A write that failed while the read was under way may have left a mixture.
  if (reading.generation == 0 || reading.failed_writes != failed_writes_) return {};
  const uint64_t offset = options_.region.offset + block * options_.block_bytes;
  Torn torn = Torn::kNo;
  for (size_t at = 0; at < bytes.size(); at += options_.logical_block) {
    const Expected expected = {
        .address = offset + at, .generation_min = reading.generation, .generation_max = entries_[block].generation};
    if (auto fault = find_fault(expected, bytes.subspan(at, options_.logical_block), torn)) {
      return {Verdict::Kind::kBad, std::move(*fault)};
    }
  }
  return {torn == Torn::kNo ? Verdict::Kind::kGood : Verdict::Kind::kUnknown, {}};
}

std::optional<std::string> BenchLedger::find_fault(const Expected& expected, std::span<const std::byte> unit,
                                                   Torn& torn) const {
  Stamp stamp;
  std::memcpy(&stamp, unit.data(), sizeof stamp);
  std::string found;
  if (stamp.magic != kMagic) {
    const bool zeroes = std::ranges::all_of(unit, [](std::byte byte) { return byte == std::byte{0}; });
    found = zeroes ? "zeroes" : fmt::format("bytes that were never written here ({:#x} …)", stamp.magic.get());
  } else if (stamp.crc != crc_of(unit)) {
    // Not every file or cache reads a block whole while it is written; when the write is over it must be.
    if (expected.generation_min != expected.generation_max) {
      torn = Torn::kPerhaps;
      return std::nullopt;
    }
    found = describe_damage(expected, unit);
  } else if (stamp.seed != options_.seed) {
    found = "what an earlier run wrote";
  } else if (stamp.address != expected.address) {
    found = fmt::format("the block of offset {}, generation {}", stamp.address.get(), stamp.generation.get());
  } else if (stamp.generation < expected.generation_min) {
    found = fmt::format("generation {}, which was overwritten", stamp.generation.get());
  } else if (stamp.generation > expected.generation_max) {
    found = fmt::format("generation {}, which was never written", stamp.generation.get());
  } else {
    return std::nullopt;
  }
  const std::string wanted = expected.generation_min == expected.generation_max
                                 ? fmt::format("generation {}", expected.generation_min)
                                 : fmt::format("generation {} to {}", expected.generation_min, expected.generation_max);
  return fmt::format("offset {}: expected {}, found {}", expected.address, wanted, found);
}

std::string BenchLedger::describe_damage(const Expected& expected, std::span<const std::byte> unit) const {
  std::vector<std::byte> original(unit.size());
  fill(original, options_.seed, expected.address, expected.generation_max);
  const auto [found, wanted] = std::ranges::mismatch(unit, original);
  FL_CHECK(found != unit.end());
  return fmt::format("damaged bytes, the first at offset {}: {:#04x} instead of {:#04x}",
                     expected.address + static_cast<uint64_t>(found - unit.begin()), static_cast<unsigned>(*found),
                     static_cast<unsigned>(*wanted));
}

}  // namespace fairlead::cli
