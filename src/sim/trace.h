// Trace: what happened in a simulated world, as one order-sensitive 64-bit hash, as a ring of the last lines, and line
// by line for whoever listens. Two runs of one seed have the same hash, or something in them was not deterministic.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include "async/time.h"

namespace fairlead::sim {

// Where something happens: a shard of a node, or nowhere in particular.
struct Place {
  static constexpr uint32_t kNone = 0xffff'ffff;
  uint32_t node = kNone;
  uint32_t shard = kNone;
  friend bool operator==(const Place&, const Place&) = default;
};

// Keep in step with trace_kind_name().
enum class TraceKind : uint8_t {
  kTurn,        // one runnable ran; hashed, not kept in the ring
  kBoot,        // a node started: a = its boots so far
  kCrash,       // a = CrashKind
  kStop,        // a node stopped in good order
  kDiskSubmit,  // a = device << 8 | op, b = offset, digest = written bytes
  kDiskDone,    // a = device << 8 | op, b = error code + 1, digest = read bytes
  kDiskCrash,   // a = device, b = sectors kept << 32 | lost
  kConnect,     // a = connection, b = error code + 1
  kSend,        // a = connection << 1 | side, b = bytes, digest
  kReceive,     // likewise
  kReset,       // a = connection << 1 | side that sees it
  kEnd,         // a = connection << 1 | side that sees the end of the stream
  kPartition,   // a = from, b = to; to + 1 << 32: healed
  kFault,       // a = SimFault
  kFaultPoint,  // a = FaultPoint
  kError,       // an ERROR line: digest of its event name
  kMark,        // SimWorld::mark()
};
inline constexpr int kTraceKindCount = static_cast<int>(TraceKind::kMark) + 1;
std::string_view trace_kind_name(TraceKind kind) noexcept;

struct TraceRecord {
  TraceKind kind = TraceKind::kTurn;
  Place place = {};
  uint64_t a = 0;
  uint64_t b = 0;
  uint64_t digest = 0;
};

class TraceListener {
 public:
  virtual ~TraceListener() = default;
  virtual void line(std::string_view text) = 0;  // no newline; valid during the call
};

class Trace {
 public:
  static constexpr size_t kRingLines = 400;

  void record(Instant at, const TraceRecord& record);
  // A line for people: in the ring, not in the hash.
  void note(Instant at, Place place, std::string_view text);
  uint64_t hash() const { return hash_; }
  // The last lines, each with a newline.
  std::string tail() const;
  void set_listener(TraceListener* listener) { listener_ = listener; }  // borrowed until set to null

 private:
  struct Kept {
    Instant at;
    TraceRecord record;
    std::string text;  // of a note; else empty
  };
  static std::string format(const Kept& kept);
  void keep(Kept kept);

  uint64_t hash_ = 0x6661697275736421U;
  std::deque<Kept> ring_;
  TraceListener* listener_ = nullptr;
};

}  // namespace fairlead::sim
