// Deliberate defects of pools and of the engine, one at a time: simulated clusters have to find each
// (tests/sim/engines_defect_test.cc). They exist in builds with FAIRLEAD_DEFECTS alone; in all others has_defect() is a
// constant false. Those of the protocol are in mirror/mutant.h.
#pragma once

#include <cstdint>

namespace fairlead {

enum class Defect : uint8_t {
  kNone,
  kWritesUnstamped,      // pool: a write to an extent that is there does not tell of itself
  kAnswersBeforeRecord,  // pool: a first write is answered before its record is in the journal
  kKeepsNothing,         // engine: promise, record and session are in memory alone
};
inline constexpr Defect kLastDefect = Defect::kKeepsNothing;

#ifdef FAIRLEAD_DEFECTS
inline Defect active_defect = Defect::kNone;
inline bool has_defect(Defect defect) { return active_defect == defect; }
#else
constexpr bool has_defect(Defect) { return false; }
#endif

}  // namespace fairlead
