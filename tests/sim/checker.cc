#include "checker.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <optional>

#include "base/check.h"
#include "sim/prng.h"

namespace fairlead::sim_test {
namespace {

constexpr uint64_t kMagic = 0x6c7420666169726cU;
constexpr size_t kHeadWords = 3;

uint64_t word_of(std::span<const std::byte> block, size_t index) {
  uint64_t word = 0;
  std::memcpy(&word, block.data() + index * sizeof word, sizeof word);
  return word;
}

}  // namespace

void fill_block(std::span<std::byte> block, uint32_t volume, uint64_t lba, VersionId version) {
  if (version == kZeroes) {
    std::ranges::fill(block, std::byte{0});
    return;
  }
  uint64_t word = 0;
  for (size_t i = 0; i < block.size() / sizeof word; ++i) {
    switch (i) {
      case 0:
        word = kMagic ^ volume;
        break;
      case 1:
        word = lba;
        break;
      case 2:
        word = version;
        break;
      default:
        word = sim::mix_hash(word, lba);
    }
    std::memcpy(block.data() + i * sizeof word, &word, sizeof word);
  }
}

std::optional<VersionId> read_block(std::span<const std::byte> block, uint32_t volume, uint64_t lba) {
  if (word_of(block, 0) == 0) {
    const bool all = std::ranges::all_of(block, [](std::byte b) { return b == std::byte{0}; });
    return all ? std::optional(kZeroes) : std::nullopt;
  }
  static_assert(kHeadWords == 3);
  if (word_of(block, 0) != (kMagic ^ volume) || word_of(block, 1) != lba || word_of(block, 2) == kZeroes)
    return std::nullopt;
  std::vector<std::byte> expected(block.size());
  fill_block(expected, volume, lba, word_of(block, 2));
  if (!std::ranges::equal(expected, block)) return std::nullopt;
  return word_of(block, 2);
}

Checker::Checker(uint32_t volume, uint32_t block_bytes, uint64_t blocks)
    : volume_(volume), block_bytes_(block_bytes), blocks_(blocks) {}

Checker::Version* Checker::find(uint64_t lba, VersionId id) {
  for (Version& version : versions_of(lba)) {
    if (version.id == id) return &version;
  }
  return nullptr;
}

// Whether `later` surely overwrote `earlier`.
bool Checker::follows(const Version& later, const Version& earlier) {
  return later.sure && earlier.open == 0 && earlier.ended < later.began;
}

bool Checker::readable(const Versions& versions, const Version& version, uint64_t began) {
  if (version.dead_after < began) return false;
  return std::ranges::none_of(versions,
                              [&](const Version& other) { return other.ended < began && follows(other, version); });
}

// Takes away what no read, begun or to come, and no crash can bring back.
void Checker::prune(Versions& versions) const {
  if (versions.size() < 2) return;
  const uint64_t oldest_read = reads_.empty() ? kNever : *reads_.begin();
  std::erase_if(versions, [&](const Version& version) {
    return version.open == 0 && std::ranges::any_of(versions, [&](const Version& other) {
             return other.durable && other.ended < oldest_read && follows(other, version);
           });
  });
}

// ---- Writes

WriteTicket Checker::begin_write(BlockSpan span, WriteKind kind) {
  const WriteTicket ticket{
      .id = next_id_++, .span = span, .epoch = epoch_, .power_epoch = power_epoch_, .of_host = false};
  const uint64_t now = clock_++;
  for (uint64_t lba = span.lba; lba < span.lba + span.blocks; ++lba) {
    Versions& versions = versions_of(lba);
    if (versions.empty()) {
      versions.push_back({.zeroes = true, .sure = true, .durable = true, .began = 0, .ended = 0, .quiet = 0});
      unsettled_.insert(lba);
    }
    Version version;
    version.id = ticket.id;
    version.zeroes = kind != WriteKind::kData;
    version.open = 1;
    version.began = now;
    versions.push_back(version);
  }
  return ticket;
}

WriteTicket Checker::begin_host_write(BlockSpan span, WriteKind kind) {
  WriteTicket ticket = begin_write(span, kind);
  ticket.of_host = true;
  for (uint64_t lba = span.lba; lba < span.lba + span.blocks; ++lba) versions_of(lba).back().of_host = true;
  return ticket;
}

WriteTicket Checker::again_write(const WriteTicket& before) {
  WriteTicket ticket = before;
  ticket.epoch = epoch_;
  for (uint64_t lba = ticket.span.lba; lba < ticket.span.lba + ticket.span.blocks; ++lba) {
    Versions& versions = versions_of(lba);
    Version* version = find(lba, ticket.id);
    if (version == nullptr) {
      // The first try is of the past for good; so this one is a write of its own that has the same bytes.
      versions.push_back({.id = ticket.id, .began = clock_});
      version = &versions.back();
      unsettled_.insert(lba);
    }
    ++version->open;
    version->ended = version->quiet = kNever;
    version->dead_after = kNever;
    version->after_crash = false;
  }
  ++clock_;
  return ticket;
}

void Checker::end_try(const WriteTicket& ticket, bool sure, Forced forced) {
  const uint64_t now = clock_++;
  for (uint64_t lba = ticket.span.lba; lba < ticket.span.lba + ticket.span.blocks; ++lba) {
    Version* const version = find(lba, ticket.id);
    if (version == nullptr) continue;
    // The target died meanwhile: what it did before may be lost, and target_died() has closed the try.
    if (ticket.epoch != epoch_) continue;
    FL_CHECK(version->open > 0);
    --version->open;
    if (sure) {
      version->sure = true;
      version->durable = version->durable || forced == Forced::kYes;
    }
    if (version->open == 0 || sure) version->ended = version->quiet = now;
    prune(versions_of(lba));
  }
}

// Only one that was not forced can be gone after its end: the part of it that was answered before power was lost.
void Checker::end_host_write(const WriteTicket& ticket, bool sure, Forced forced) {
  const uint64_t now = clock_++;
  const bool is_there = sure && (forced == Forced::kYes || ticket.power_epoch == power_epoch_);
  for (uint64_t lba = ticket.span.lba; lba < ticket.span.lba + ticket.span.blocks; ++lba) {
    Version* const version = find(lba, ticket.id);
    FL_CHECK(version != nullptr && version->open == 1);
    version->open = 0;
    version->ended = now;
    if (is_there) {
      version->sure = true;
      version->durable = forced == Forced::kYes;
      version->quiet = now;
      // Whatever power left of the others was there before it.
      if (ticket.power_epoch != power_epoch_) version->began = std::max(version->began, power_lost_at_ + 1);
    }
    prune(versions_of(lba));
  }
}

void Checker::write_done(const WriteTicket& ticket, Forced forced) {
  if (ticket.of_host) return end_host_write(ticket, true, forced);
  end_try(ticket, true, forced);
}
void Checker::write_given_up(const WriteTicket& ticket) { end_host_write(ticket, false, Forced::kNo); }
void Checker::write_failed(const WriteTicket& ticket) { end_try(ticket, false, Forced::kNo); }
// It stays open: nothing is known of it until settled().
void Checker::write_lost(const WriteTicket&) { ++clock_; }

void Checker::write_refused(const WriteTicket& ticket) {
  for (uint64_t lba = ticket.span.lba; lba < ticket.span.lba + ticket.span.blocks; ++lba) {
    if (ticket.epoch != epoch_) continue;
    std::erase_if(versions_of(lba), [&](const Version& version) { return version.id == ticket.id; });
  }
}

// ---- Reads

ReadTicket Checker::begin_read() {
  reads_.insert(clock_);
  return {clock_++};
}

void Checker::read_abandoned(const ReadTicket& ticket) {
  if (const auto at = reads_.find(ticket.began); at != reads_.end()) reads_.erase(at);
}

std::string Checker::describe(uint64_t lba, const std::string& what) const {
  std::string text = fmt::format("volume {} block {}: {}; possible:", volume_, lba, what);
  for (const Version& version : blocks_.at(lba)) {
    text += fmt::format(" [{}{} {}..{}{}{}{}]", version.id, version.zeroes ? "z" : "", version.began,
                        version.ended == kNever ? std::string("?") : std::to_string(version.ended),
                        version.sure ? " sure" : "", version.durable ? " durable" : "",
                        version.open > 0          ? " open"
                        : version.quiet == kNever ? " given up"
                                                  : "");
  }
  return text;
}

// A read that began at `began` and ends now saw this content: what had ended before is not there any more.
void Checker::observe(Versions& versions, VersionId content, uint64_t began) {
  const uint64_t now = clock_ - 1;
  size_t alike = 0;
  for (const Version& version : versions) alike += version.content() == content ? 1 : 0;
  for (Version& version : versions) {
    if (version.content() != content && version.open == 0 && version.quiet < began) {
      version.dead_after = std::min(version.dead_after, now);
    }
    // The crash left exactly this, and it is stable; unless the answer is from before it.
    if (version.content() == content && alike == 1 && version.after_crash && version.ended < began) {
      version.after_crash = false;
      version.sure = version.durable = true;
      const VersionId found = version.id;
      std::erase_if(versions, [&](const Version& other) { return other.after_crash && other.id != found; });
      return;
    }
  }
}

std::string Checker::read_done(const ReadTicket& ticket, BlockSpan span, std::span<const std::byte> bytes) {
  FL_CHECK(bytes.size() == size_t{span.blocks} * block_bytes_);
  read_abandoned(ticket);
  ++clock_;
  for (uint32_t i = 0; i < span.blocks; ++i) {
    const uint64_t lba = span.lba + i;
    const std::optional<VersionId> content =
        read_block(bytes.subspan(size_t{i} * block_bytes_, block_bytes_), volume_, lba);
    if (!content) return describe(lba, "bytes that nobody wrote there");
    Versions& versions = versions_of(lba);
    if (versions.empty() && *content == kZeroes) continue;
    const bool allowed = std::ranges::any_of(versions, [&](const Version& version) {
      return version.content() == *content && readable(versions, version, ticket.began);
    });
    if (!allowed) return describe(lba, fmt::format("read (begun {}) gave {}", ticket.began, *content));
    observe(versions, *content, ticket.began);
  }
  return {};
}

std::string Checker::compare_done(const ReadTicket& ticket, BlockSpan span, std::span<const std::byte> bytes,
                                  bool equal) {
  if (equal) return read_done(ticket, span, bytes);
  read_abandoned(ticket);
  ++clock_;
  for (uint32_t i = 0; i < span.blocks; ++i) {
    const uint64_t lba = span.lba + i;
    const std::optional<VersionId> content =
        read_block(bytes.subspan(size_t{i} * block_bytes_, block_bytes_), volume_, lba);
    const Versions& versions = versions_of(lba);
    if (versions.empty() && content == kZeroes) continue;
    const bool could_differ = std::ranges::any_of(versions, [&](const Version& version) {
      return version.content() != content && readable(versions, version, ticket.began);
    });
    if (could_differ || versions.empty()) return {};
  }
  return describe(span.lba, fmt::format("compare (begun {}) with what is there failed", ticket.began));
}

VersionId Checker::guess(uint64_t lba) const {
  const Versions& versions = blocks_.at(lba);
  for (auto at = versions.rbegin(); at != versions.rend(); ++at) {
    if (readable(versions, *at, clock_)) return at->content();
  }
  return kZeroes;
}

// ---- What makes things last, and what does not

FlushTicket Checker::begin_flush() { return {clock_++, epoch_}; }

void Checker::flush_done(const FlushTicket& ticket) {
  ++clock_;
  if (ticket.epoch != epoch_) return;
  for (const uint64_t lba : unsettled_) {
    Versions& versions = versions_of(lba);
    for (Version& version : versions) {
      if (version.sure && version.ended < ticket.began) version.durable = true;
    }
    prune(versions);
  }
}

void Checker::lose_power(Versions& versions, uint64_t now) {
  const bool is_certain = versions.size() == 1;
  for (Version& version : versions) {
    version.sure = version.durable = is_certain;
    version.dead_after = kNever;
    if (version.open > 0) continue;  // its host will send it again
    version.after_crash = !is_certain;
    version.ended = version.quiet = now;
  }
}

void Checker::target_died(bool power_lost) {
  ++epoch_;
  power_epoch_ += power_lost ? 1 : 0;
  const uint64_t now = clock_++;
  for (const uint64_t lba : unsettled_) {
    Versions& versions = versions_of(lba);
    for (Version& version : versions) {
      if (version.open > 0 && version.of_host) continue;
      // A lost try may have happened until this very moment, though another one ended well long ago.
      if (version.open > 0) version.ended = now;
      if (version.open > 0 || version.quiet == kNever) version.quiet = now;
      version.open = 0;
    }
    prune(versions);
    if (power_lost) lose_power(versions, now);
  }
  if (power_lost) power_lost_at_ = now;
}

void Checker::settled() {
  const uint64_t now = clock_++;
  for (const uint64_t lba : unsettled_) {
    for (Version& version : versions_of(lba)) {
      if (version.open == 0 && version.quiet != kNever) continue;
      if (version.open > 0) version.ended = now;
      version.open = 0;
      version.quiet = now;
    }
    prune(versions_of(lba));
  }
}

}  // namespace fairlead::sim_test
