// BlockHistory: what each block of a replica or snapshot may hold, from what was asked for and what was answered. The
// oracle of the pool's tests. Plain data; one thread.
//
// A write gives each of its blocks a content, a number that no other write has (0: zeroes). Times count invocations and
// ends as their caller sees them. Rules:
//  1. A read may give a content unless another one surely came after it, and ended, before the read began; and unless a
//     read saw another one that began after the former, and all that was under way together with it, had ended.
//  2. A write that failed, or that a crash cut off, may or may not have happened, block by block.
//  3. A loss of power leaves of each block any content, unless one that surely came after it is durable: it was forced,
//     or a flush that began after its end succeeded. What the first read then finds is what there is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

namespace fairlead::test {

using Content = uint64_t;
inline constexpr Content kZeroContent = 0;

// The bytes of a content of a block: no two are alike, at no two places.
void fill_block(std::span<std::byte> block, uint64_t index, Content content);
// Whether these are the beginning of a block of a content that is not zero.
bool is_filled(std::span<const std::byte> bytes);
// Empty: bytes that were never written at that place.
std::optional<Content> read_block(std::span<const std::byte> block, uint64_t index);

// Blocks [first, first + count).
struct BlockRange {
  uint64_t first = 0;
  uint64_t count = 0;
  uint64_t end() const { return first + count; }
};

// What all histories of a model share: the time, and who looks at them just now.
class HistoryClock {
 public:
  uint64_t tick() { return ++now_; }
  uint64_t begin_read() {
    readers_.insert(++now_);
    return now_;
  }
  void end_read(uint64_t began) {
    if (const auto at = readers_.find(began); at != readers_.end()) readers_.erase(at);
    ++now_;
  }
  void forget_readers() { readers_.clear(); }
  uint64_t now() const { return now_; }
  // Nothing under way began before this.
  uint64_t oldest_read() const { return readers_.empty() ? ~uint64_t{0} : *readers_.begin(); }

 private:
  uint64_t now_ = 1;
  std::multiset<uint64_t> readers_;
};

class BlockHistory {
 public:
  // All zeroes, for good.
  BlockHistory(HistoryClock& clock, uint64_t blocks) : clock_(clock), blocks_(blocks) {}

  uint64_t blocks() const { return blocks_.size(); }
  // What is new is zeroes.
  void resize(uint64_t blocks) { blocks_.resize(blocks); }

  enum class Surely : uint8_t { kYes, kPerhaps };
  void begin_write(BlockRange range, Content content, uint64_t id);
  // It succeeded. kPerhaps: which says nothing about the content (a discard that is a hint).
  void write_done(BlockRange range, uint64_t id, Surely surely, bool is_durable);
  // It failed, and happens no more.
  void write_failed(BlockRange range, uint64_t id);
  // A flush that began then succeeded.
  void flushed(uint64_t began);

  // Empty, or what is wrong with these bytes, which a read that began then gave just now.
  std::string check_read(uint64_t began, BlockRange range, std::span<const std::byte> bytes, uint32_t block_bytes);

  // Everything under way ends.
  void process_killed();
  void power_lost();

  // What a snapshot may hold that was begun then and ends now: one content for each block, which never changes.
  BlockHistory frozen(uint64_t began) const;
  // What a clone of this one starts with. Requires: this is frozen.
  BlockHistory clone() const { return *this; }

  // What the block holds, when that is certain and nothing is under way.
  std::optional<Content> certain(uint64_t index) const;
  // Whether that content may be there now.
  bool may_hold(uint64_t index, Content content) const;

  BlockHistory(const BlockHistory&) = default;
  BlockHistory(BlockHistory&&) = default;
  // Of the same model.
  BlockHistory& operator=(const BlockHistory& other) {
    blocks_ = other.blocks_;
    return *this;
  }

 private:
  static constexpr uint64_t kNever = ~uint64_t{0};
  struct Version {
    uint64_t id = 0;  // of the write
    Content content = kZeroContent;
    bool sure = false;         // it happened, between `began` and `ended`
    bool durable = false;      // no loss of power takes it away
    bool after_crash = false;  // one of those of which one is there
    uint64_t began = 0;
    uint64_t ended = kNever;
    uint64_t dead_after = kNever;  // reads that begin later cannot see it
  };
  using Versions = std::vector<Version>;  // empty: zeroes, durable

  static bool follows(const Version& later, const Version& earlier);
  static bool readable(const Versions& versions, const Version& version, uint64_t began);
  static bool may_read(const Versions& versions, Content content, uint64_t began);
  void prune(Versions& versions) const;
  void observe(Versions& versions, Content content, uint64_t began);
  Version* find(uint64_t index, uint64_t id);
  std::string describe(uint64_t index, const std::string& what) const;

  HistoryClock& clock_;
  std::vector<Versions> blocks_;
};

}  // namespace fairlead::test
