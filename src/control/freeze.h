// Freezing: while a snapshot is taken of a volume that a host has mounted, that host keeps its file system still. Who
// takes the snapshot asks by a label of the volume, and the host answers by another:
//
//   asks      freeze = REQUEST         another one for each attempt
//   answers   frozen = REQUEST         from before this on, nothing is written
//   asks      freeze = REQUEST.taken   the snapshot is there
//   answers   frozen = REQUEST.thawed  until after that, nothing was written
//
// Only the second answer makes the snapshot a good one. A host that could not keep still all the time does not give it:
// one that waited too long, that started anew, or that others asked something else. No clocks are compared. Plain
// functions; any thread.
#pragma once

#include <string>
#include <string_view>

#include "base/problem.h"
#include "control/json.h"

namespace fairlead::control {

inline constexpr const char* kLabelFreeze = "fairlead.dev/freeze";
inline constexpr const char* kLabelFrozen = "fairlead.dev/frozen";

enum class FreezeAnswer : uint8_t { kFrozen, kThawed };
// "frozen", "thawed".
std::string_view name_of(FreezeAnswer answer);
// The values of the labels for this request: of `frozen`, answered so; of `freeze`, when the snapshot is there.
std::string frozen_label(const std::string& request, FreezeAnswer answer);
std::string taken_label(const std::string& request);
// The value of the label `freeze`; empty: nothing is asked for.
std::string freeze_label_of(const Json& volume);
// Of that value: what is to be frozen for; empty: nothing.
std::string freeze_request_of(const std::string& freeze_label);

// The merge patch of the volume by which its host answers. Each answer is taken once, and in their order. Error
// kMiscompare: nobody asks for that now.
Outcome<Json> freeze_answer_patch(const Json& volume, const std::string& request, FreezeAnswer answer);

}  // namespace fairlead::control
