#include "sim/disk_content.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/fault.h"

namespace fairlead::sim {

void DiskContent::read_stable(uint64_t sector, std::span<std::byte> out) const {
  uint64_t at = sector * sector_bytes_;
  while (!out.empty()) {
    const uint64_t in_page = at % kPageBytes;
    const auto piece = static_cast<size_t>(std::min<uint64_t>(kPageBytes - in_page, out.size()));
    const auto page = pages_.find(at / kPageBytes);
    if (page == pages_.end()) {
      std::memset(out.data(), 0, piece);
    } else {
      std::memcpy(out.data(), page->second.data() + in_page, piece);
    }
    out = out.subspan(piece);
    at += piece;
  }
}

void DiskContent::read(uint64_t sector, std::span<std::byte> out) const {
  read_stable(sector, out);
  const uint64_t end = sector + out.size() / sector_bytes_;
  for (auto cached = cached_.lower_bound(sector); cached != cached_.end() && cached->first < end; ++cached) {
    std::byte* const to = out.data() + (cached->first - sector) * sector_bytes_;
    const std::vector<std::byte>& bytes = cached->second.back().bytes;
    if (bytes.empty()) {
      std::memset(to, 0, sector_bytes_);
    } else {
      std::memcpy(to, bytes.data(), sector_bytes_);
    }
  }
}

void DiskContent::write_stable(uint64_t sector, std::span<const std::byte> bytes) {
  const uint64_t at = sector * sector_bytes_;
  const uint64_t index = at / kPageBytes;
  auto page = pages_.find(index);
  if (bytes.empty()) {
    if (page == pages_.end()) return;
    std::memset(page->second.data() + at % kPageBytes, 0, sector_bytes_);
    if (std::ranges::all_of(page->second, [](std::byte b) { return b == std::byte{0}; })) pages_.erase(page);
    return;
  }
  if (page == pages_.end()) page = pages_.emplace(index, std::vector<std::byte>(kPageBytes)).first;
  std::memcpy(page->second.data() + at % kPageBytes, bytes.data(), sector_bytes_);
}

void DiskContent::write(uint64_t number, uint64_t sector, const std::byte* bytes, Reach reach) {
  FL_CHECK(number <= newest_);
  const std::span<const std::byte> span =
      bytes == nullptr ? std::span<const std::byte>{} : std::span(bytes, sector_bytes_);
  if (cache_ == Cache::kNone || reach == Reach::kStable) {
    cached_.erase(sector);
    write_stable(sector, span);
    return;
  }
  cached_[sector].push_back({number, {span.begin(), span.end()}});
}

void DiskContent::flush(uint64_t number) {
  for (auto cached = cached_.begin(); cached != cached_.end();) {
    std::vector<Version>& versions = cached->second;
    const auto first_kept = std::ranges::find_if(versions, [&](const Version& v) { return v.number > number; });
    if (first_kept != versions.begin()) write_stable(cached->first, std::prev(first_kept)->bytes);
    versions.erase(versions.begin(), first_kept);
    cached = versions.empty() ? cached_.erase(cached) : std::next(cached);
  }
}

DiskContent::CrashOutcome DiskContent::crash(Prng& random) {
  // Chance alone would nearly never lose all, keep all, or cut off at one moment: so each is a way of its own.
  enum class Way : uint8_t { kEachSector, kLoseAll, kKeepAll, kUpToOneMoment };
  const uint64_t draw = random.below(8);
  const Way way = draw < 5 ? Way::kEachSector : static_cast<Way>(draw - 4);
  const uint64_t moment = random.between(0, newest_);
  CrashOutcome outcome;
  struct Fate {
    bool kept = false;
    bool lost = false;
  };
  std::map<uint64_t, Fate> fates;  // of writes, by the sectors of which they were the newest
  for (const auto& [sector, versions] : cached_) {
    size_t left = 0;  // how many of the versions came to pass: the last of them is what the sector holds
    switch (way) {
      case Way::kEachSector:
        left = random.below(versions.size() + 1);
        break;
      case Way::kLoseAll:
        break;
      case Way::kKeepAll:
        left = versions.size();
        break;
      case Way::kUpToOneMoment:
        left =
            static_cast<size_t>(std::ranges::count_if(versions, [&](const Version& v) { return v.number <= moment; }));
        break;
    }
    if (left > 0) write_stable(sector, versions[left - 1].bytes);
    const bool kept = left == versions.size();
    ++(kept ? outcome.kept : outcome.lost);
    Fate& fate = fates[versions.back().number];
    (kept ? fate.kept : fate.lost) = true;
  }
  cached_.clear();
  for (const auto& [number, fate] : fates) {
    if (fate.kept && fate.lost) ++outcome.torn;
  }
  if (outcome.lost > 0) probe(Probe::kCrashDroppedWrite);
  if (outcome.torn > 0) probe(Probe::kCrashTornWrite);
  return outcome;
}

void DiskContent::flip_bit(uint64_t sector, uint32_t bit) {
  std::vector<std::byte> bytes(sector_bytes_);
  const auto mask = static_cast<std::byte>(1U << (bit % 8));
  read_stable(sector, bytes);
  bytes[bit / 8] ^= mask;
  write_stable(sector, bytes);
  const auto cached = cached_.find(sector);
  if (cached == cached_.end()) return;
  std::vector<std::byte>& newest = cached->second.back().bytes;
  newest.resize(sector_bytes_);
  newest[bit / 8] ^= mask;
}

bool DiskContent::is_allocated(uint64_t sector) const {
  return cached_.contains(sector) || pages_.contains(sector * sector_bytes_ / kPageBytes);
}

}  // namespace fairlead::sim
