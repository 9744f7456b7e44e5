// Checker: what each block of a volume may hold, from what its clients asked for and were told. The oracle of the
// simulated campaigns: every read is held against it. Plain data; one thread.
//
// A version is one write of one block. Rules, with times from invocation to end as the client sees them:
//  1. A read may return a version unless another one surely came after it, and ended, before the read began; and unless
//     a read that began after the version had ended saw another one.
//  2. A write that failed, or whose connection was lost, may or may not have happened. A lost one may even happen
//  later:
//     until the target process dies or settled() says that nothing is under way any more.
//     Writes of a host of ours (begin_host_write()) are stricter: the host sends them again by itself, through deaths
//     of the target too, and lets nothing that it begins after the end of a write be overwritten by it, however it
//     ended. Requires: those that are under way together do not overlap, and no other host writes there.
//  3. A crash with loss of power leaves of each block any version, unless one that surely came after it is durable: it
//     was forced, or a flush that began after its end succeeded. What the first read then finds is what there is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "async/time.h"

namespace fairlead::sim_test {

using VersionId = uint64_t;
inline constexpr VersionId kZeroes = 0;  // content of fresh, zeroed and deallocated blocks

// The bytes of a version of a block: no two are alike.
void fill_block(std::span<std::byte> block, uint32_t volume, uint64_t lba, VersionId version);
// Which version these bytes are. Empty: bytes that nobody wrote there.
std::optional<VersionId> read_block(std::span<const std::byte> block, uint32_t volume, uint64_t lba);

struct BlockSpan {
  uint64_t lba = 0;
  uint32_t blocks = 0;
};

enum class WriteKind : uint8_t {
  kData,
  kZeroes,      // Write Zeroes
  kDeallocate,  // may leave the old bytes
};

// A write that a client began.
struct WriteTicket {
  VersionId id = 0;
  BlockSpan span;
  uint64_t epoch = 0;
  uint64_t power_epoch = 0;
  bool of_host = false;
};
struct ReadTicket {
  uint64_t began = 0;
};
struct FlushTicket {
  uint64_t began = 0;
  uint64_t epoch = 0;
};

class Checker {
 public:
  Checker(uint32_t volume, uint32_t block_bytes, uint64_t blocks);

  uint32_t volume() const { return volume_; }
  uint32_t block_bytes() const { return block_bytes_; }
  uint64_t blocks() const { return blocks_.size(); }
  void grow(uint64_t blocks) { blocks_.resize(blocks); }

  // Each begin_write() makes a new version, and again_write() is another try of one. Each try ends by one of the three
  // below.
  WriteTicket begin_write(BlockSpan span, WriteKind kind);
  WriteTicket again_write(const WriteTicket& before);
  // A write of a host of ours: see rule 2. Ends by write_done() or write_given_up().
  WriteTicket begin_host_write(BlockSpan span, WriteKind kind);
  // It ended with an error, or its success says nothing: it may happen until the target dies or settled().
  void write_given_up(const WriteTicket& ticket);
  enum class Forced : uint8_t { kNo, kYes };
  void write_done(const WriteTicket& ticket, Forced forced);
  void write_failed(const WriteTicket& ticket);
  void write_lost(const WriteTicket& ticket);
  // It is certain that it never happened and never will.
  void write_refused(const WriteTicket& ticket);

  // Each read ends by one of the three below.
  ReadTicket begin_read();
  void read_abandoned(const ReadTicket& ticket);
  // Empty, or what is wrong with these bytes.
  std::string read_done(const ReadTicket& ticket, BlockSpan span, std::span<const std::byte> bytes);
  // A Compare with these bytes succeeded, or failed.
  std::string compare_done(const ReadTicket& ticket, BlockSpan span, std::span<const std::byte> bytes, bool equal);
  // What a block most likely holds: for Compare.
  VersionId guess(uint64_t lba) const;

  FlushTicket begin_flush();
  void flush_done(const FlushTicket& ticket);

  void target_died(bool power_lost);
  // Nothing of any client is under way anywhere.
  void settled();

 private:
  static constexpr uint64_t kNever = ~uint64_t{0};
  struct Version {
    VersionId id = 0;
    bool zeroes = false;       // its content is kZeroes
    bool sure = false;         // it happened, between `began` and `ended`
    bool durable = false;      // no crash takes it away
    bool after_crash = false;  // one of those that a crash left to choose from
    bool of_host = false;      // sent again by its host, until it ends
    uint32_t open = 0;         // tries that may still happen
    uint64_t began = 0;
    uint64_t ended = kNever;       // what begins later comes after it
    uint64_t quiet = kNever;       // it does not happen later; `ended`, but for what was given up
    uint64_t dead_after = kNever;  // reads that begin later cannot see it
    VersionId content() const { return zeroes ? kZeroes : id; }
  };
  using Versions = std::vector<Version>;

  Version* find(uint64_t lba, VersionId id);
  static bool follows(const Version& later, const Version& earlier);
  static bool readable(const Versions& versions, const Version& version, uint64_t began);
  void prune(Versions& versions) const;
  void end_try(const WriteTicket& ticket, bool sure, Forced forced);
  void end_host_write(const WriteTicket& ticket, bool sure, Forced forced);
  void lose_power(Versions& versions, uint64_t now);
  void observe(Versions& versions, VersionId content, uint64_t began);
  std::string describe(uint64_t lba, const std::string& what) const;
  Versions& versions_of(uint64_t lba) { return blocks_.at(lba); }

  const uint32_t volume_;
  const uint32_t block_bytes_;
  std::vector<Versions> blocks_;   // an empty list: zeroes, durable
  std::set<uint64_t> unsettled_;   // blocks with a list
  std::multiset<uint64_t> reads_;  // under way: when they began
  uint64_t clock_ = 1;
  VersionId next_id_ = 1;
  uint64_t epoch_ = 0;
  uint64_t power_epoch_ = 0;
  uint64_t power_lost_at_ = 0;
};

}  // namespace fairlead::sim_test
