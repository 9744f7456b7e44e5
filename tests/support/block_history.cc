#include "tests/support/block_history.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>

#include "base/check.h"

namespace fairlead::test {
namespace {

constexpr uint64_t kMagic = 0x6b636f6c622e6c66U;

uint64_t word_at(std::span<const std::byte> block, size_t index) {
  uint64_t word = 0;
  std::memcpy(&word, block.data() + index * sizeof word, sizeof word);
  return word;
}

uint64_t filler(uint64_t index, Content content, size_t word) {
  const uint64_t mixed = (content * 0x9e3779b97f4a7c15U) ^ (index * 0xc2b2ae3d27d4eb4fU) ^ (word * 0x165667b19e3779f9U);
  return mixed ^ (mixed >> 31);
}

}  // namespace

void fill_block(std::span<std::byte> block, uint64_t index, Content content) {
  if (content == kZeroContent) {
    std::ranges::fill(block, std::byte{0});
    return;
  }
  for (size_t i = 0; i < block.size() / sizeof(uint64_t); ++i) {
    const uint64_t word = i == 0 ? kMagic : i == 1 ? index : i == 2 ? content : filler(index, content, i);
    std::memcpy(block.data() + i * sizeof word, &word, sizeof word);
  }
}

bool is_filled(std::span<const std::byte> bytes) { return word_at(bytes, 0) == kMagic; }

std::optional<Content> read_block(std::span<const std::byte> block, uint64_t index) {
  if (word_at(block, 0) == 0) {
    const bool all = std::ranges::all_of(block, [](std::byte b) { return b == std::byte{0}; });
    return all ? std::optional(kZeroContent) : std::nullopt;
  }
  const Content content = word_at(block, 2);
  if (word_at(block, 0) != kMagic || word_at(block, 1) != index || content == kZeroContent) return std::nullopt;
  for (size_t i = 3; i < block.size() / sizeof(uint64_t); ++i) {
    if (word_at(block, i) != filler(index, content, i)) return std::nullopt;
  }
  return content;
}

BlockHistory::Version* BlockHistory::find(uint64_t index, uint64_t id) {
  if (index >= blocks_.size()) return nullptr;
  for (Version& version : blocks_[index]) {
    if (version.id == id) return &version;
  }
  return nullptr;
}

// Whether `later` surely overwrote `earlier`.
bool BlockHistory::follows(const Version& later, const Version& earlier) {
  return later.sure && earlier.ended < later.began;
}

bool BlockHistory::readable(const Versions& versions, const Version& version, uint64_t began) {
  if (version.dead_after < began) return false;
  return std::ranges::none_of(versions,
                              [&](const Version& other) { return other.ended < began && follows(other, version); });
}

bool BlockHistory::may_read(const Versions& versions, Content content, uint64_t began) {
  if (versions.empty()) return content == kZeroContent;
  return std::ranges::any_of(versions, [&](const Version& version) {
    return version.content == content && readable(versions, version, began);
  });
}

// Takes away what no read, begun or to come, and no crash can bring back.
void BlockHistory::prune(Versions& versions) const {
  if (versions.size() < 2) return;
  const uint64_t oldest = clock_.oldest_read();
  std::erase_if(versions, [&](const Version& version) {
    return version.ended != kNever && std::ranges::any_of(versions, [&](const Version& other) {
             return other.durable && other.ended < oldest && follows(other, version);
           });
  });
}

void BlockHistory::begin_write(BlockRange range, Content content, uint64_t id) {
  const uint64_t now = clock_.tick();
  for (uint64_t i = range.first; i < range.end(); ++i) {
    Versions& versions = blocks_.at(i);
    if (versions.empty()) versions.push_back({.sure = true, .durable = true, .ended = 0});
    versions.push_back({.id = id, .content = content, .began = now});
  }
}

void BlockHistory::write_done(BlockRange range, uint64_t id, Surely surely, bool is_durable) {
  const uint64_t now = clock_.tick();
  for (uint64_t i = range.first; i < range.end(); ++i) {
    Version* const version = find(i, id);
    if (version == nullptr) continue;
    version->ended = now;
    version->sure = version->sure || surely == Surely::kYes;
    version->durable = version->sure && is_durable;
    prune(blocks_[i]);
  }
}

void BlockHistory::write_failed(BlockRange range, uint64_t id) {
  const uint64_t now = clock_.tick();
  for (uint64_t i = range.first; i < range.end(); ++i) {
    if (Version* const version = find(i, id)) version->ended = now;
  }
}

void BlockHistory::flushed(uint64_t began) {
  for (Versions& versions : blocks_) {
    for (Version& version : versions) {
      if (version.sure && version.ended < began) version.durable = true;
    }
    prune(versions);
  }
}

// A read that began then and ends now saw this content: what had ended before is not there any more.
void BlockHistory::observe(Versions& versions, Content content, uint64_t began) {
  const uint64_t now = clock_.now();
  const auto alike = std::ranges::count(versions, content, &Version::content);
  // What was under way together with one that still is may come after it yet: of overlapping requests, a discard among
  // them, nothing says which is last.
  uint64_t under_way_since = kNever;
  for (const Version& version : versions) {
    if (version.ended >= began) under_way_since = std::min(under_way_since, version.began);
  }
  for (Version& version : versions) {
    if (version.content != content && version.ended < began && version.ended < under_way_since) {
      version.dead_after = std::min(version.dead_after, now);
      continue;
    }
    if (version.content != content || alike != 1) continue;
    version.sure = true;
    // One that began earlier, before the crash even, may give what was there then.
    if (!version.after_crash || version.ended >= began || clock_.oldest_read() < began) continue;
    // The crash left exactly this, and it is stable.
    version.after_crash = false;
    version.durable = true;
    const uint64_t found = version.id;
    std::erase_if(versions, [&](const Version& other) { return other.after_crash && other.id != found; });
    return;
  }
}

std::string BlockHistory::describe(uint64_t index, const std::string& what) const {
  std::string text = fmt::format("block {}: {}; possible:", index, what);
  if (blocks_[index].empty()) text += " zeroes";
  for (const Version& version : blocks_[index]) {
    text += fmt::format(" [{} {}..{}{}{}{}{}]", version.content, version.began,
                        version.ended == kNever ? std::string("?") : std::to_string(version.ended),
                        version.sure ? " sure" : "", version.durable ? " durable" : "",
                        version.after_crash ? " crash" : "", version.dead_after != kNever ? " dead" : "");
  }
  return text;
}

std::string BlockHistory::check_read(uint64_t began, BlockRange range, std::span<const std::byte> bytes,
                                     uint32_t block_bytes) {
  FL_CHECK(bytes.size() == range.count * block_bytes);
  for (uint64_t i = range.first; i < range.end(); ++i) {
    const auto block = bytes.subspan((i - range.first) * block_bytes, block_bytes);
    const std::optional<Content> content = read_block(block, i);
    if (!content) {
      return describe(i, fmt::format("bytes that nobody wrote there ({:x} {} {})", word_at(block, 0), word_at(block, 1),
                                     word_at(block, 2)));
    }
    Versions& versions = blocks_.at(i);
    if (!may_read(versions, *content, began))
      return describe(i, fmt::format("read (begun {}) gave {}", began, *content));
    observe(versions, *content, began);
  }
  return {};
}

void BlockHistory::process_killed() {
  const uint64_t now = clock_.tick();
  for (Versions& versions : blocks_) {
    for (Version& version : versions) {
      if (version.ended == kNever) version.ended = now;
    }
  }
}

void BlockHistory::power_lost() {
  process_killed();
  const uint64_t now = clock_.tick();
  for (Versions& versions : blocks_) {
    prune(versions);
    if (versions.size() < 2) continue;
    for (Version& version : versions) {
      version.sure = version.durable = false;
      version.after_crash = true;
      version.ended = now;
      version.dead_after = kNever;
    }
  }
}

BlockHistory BlockHistory::frozen(uint64_t began) const {
  BlockHistory copy(clock_, blocks_.size());
  for (size_t i = 0; i < blocks_.size(); ++i) {
    Versions& to = copy.blocks_[i];
    for (const Version& version : blocks_[i]) {
      if (!readable(blocks_[i], version, began)) continue;
      const bool is_new = std::ranges::find(to, version.content, &Version::content) == to.end();
      if (is_new) to.push_back({.id = version.id, .content = version.content, .began = 0, .ended = clock_.now()});
    }
    for (Version& version : to) {
      version.sure = version.durable = to.size() == 1;
      version.after_crash = to.size() > 1;
    }
  }
  return copy;
}

std::optional<Content> BlockHistory::certain(uint64_t index) const {
  const Versions& versions = blocks_.at(index);
  if (versions.empty()) return kZeroContent;
  std::optional<Content> only;
  for (const Version& version : versions) {
    if (!readable(versions, version, clock_.now())) continue;
    if (only && *only != version.content) return std::nullopt;
    only = version.content;
  }
  return only;
}

bool BlockHistory::may_hold(uint64_t index, Content content) const {
  return may_read(blocks_.at(index), content, clock_.now());
}

}  // namespace fairlead::test
