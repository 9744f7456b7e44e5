#include "sim/trace.h"

#include <fmt/format.h>

#include "base/crc32c.h"
#include "sim/prng.h"

namespace fairlead::sim {

uint64_t hash_bytes(std::span<const std::byte> bytes) noexcept { return mix_hash(bytes.size(), crc32c(bytes)); }

std::string_view trace_kind_name(TraceKind kind) noexcept {
  static constexpr std::array<std::string_view, kTraceKindCount> kNames = {
      "turn",    "boot",  "crash", "stop",      "disk.submit", "disk.done",   "disk.crash", "connect", "send",
      "receive", "reset", "end",   "partition", "fault",       "fault_point", "error",      "mark"};
  return kNames[static_cast<size_t>(kind)];
}

void Trace::record(Instant at, const TraceRecord& record) {
  hash_ = mix_hash(hash_, static_cast<uint64_t>(at.ns));
  hash_ = mix_hash(hash_, static_cast<uint64_t>(record.kind));
  hash_ = mix_hash(hash_, (uint64_t{record.place.node} << 32) | record.place.shard);
  hash_ = mix_hash(hash_, record.a);
  hash_ = mix_hash(hash_, record.b);
  hash_ = mix_hash(hash_, record.digest);
  if (record.kind != TraceKind::kTurn) keep({at, record, {}});
}

void Trace::note(Instant at, Place place, std::string_view text) { keep({at, {.place = place}, std::string(text)}); }

void Trace::keep(Kept kept) {
  if (listener_ != nullptr) listener_->line(format(kept));
  ring_.push_back(std::move(kept));
  if (ring_.size() > kRingLines) ring_.pop_front();
}

std::string Trace::format(const Kept& kept) {
  const Place place = kept.record.place;
  std::string line = fmt::format("{:>5}.{:09}", kept.at.ns / 1'000'000'000, kept.at.ns % 1'000'000'000);
  if (place.node == Place::kNone) {
    line += " world";
  } else if (place.shard == Place::kNone) {
    line += fmt::format(" n{}   ", place.node);
  } else {
    line += fmt::format(" n{}.s{}", place.node, place.shard);
  }
  if (!kept.text.empty()) return line + " " + kept.text;
  return line + fmt::format(" {} a={:#x} b={:#x} digest={:016x}", trace_kind_name(kept.record.kind), kept.record.a,
                            kept.record.b, kept.record.digest);
}

std::string Trace::tail() const {
  std::string text;
  for (const Kept& kept : ring_) {
    text += format(kept);
    text += '\n';
  }
  return text;
}

}  // namespace fairlead::sim
