// Deliberate defects of the protocol, one at a time: the simulator has to find each (tests/sim/mirror_mutant_test.cc).
// They exist in builds with FAIRLEAD_MUTANTS alone; in all others is_mutant() is a constant false.
#pragma once

#include <cstdint>

namespace fairlead::mirror {

enum class Mutant : uint8_t {
  kNone,
  kAcknowledgesEarly,  // rule 2: a write that one member has is answered
  kReadsInFlight,      // hole H5: a read does not wait for the write that it may have seen
  kReadsWithoutLease,  // rule 6
  kForgetsLeases,      // rule 6, the replica's side: a prepare waits for none
  kForgetsPrior,       // hole H1: a majority of the members is enough
  kCopiesFromCold,     // hole H3
  kDoesNotLevel,       // rule 1b
  kFaultsAlone,        // rule 3: what is lost is needed no more, before a record says so
  kComparesOneSide,    // rule 4: what the returning replica wrote itself is not copied
  kNotesWithoutFlush,  // rule 5
  // Hole H16: a snapshot is taken while hosts write; not flushed before; what came to nothing stays; a replica that
  // returns gets the newest bytes and no snapshot.
  kCutsWithoutHold,
  kCutsWithoutFlush,
  kKeepsFailedSnapshots,
  kReturnsWithoutSnapshots,
};
inline constexpr Mutant kLastMutant = Mutant::kReturnsWithoutSnapshots;

#ifdef FAIRLEAD_MUTANTS
inline Mutant active_mutant = Mutant::kNone;
inline bool is_mutant(Mutant mutant) { return active_mutant == mutant; }
#else
constexpr bool is_mutant(Mutant) { return false; }
#endif

}  // namespace fairlead::mirror
