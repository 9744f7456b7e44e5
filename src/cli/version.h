// The version of this build, from CMake's project().
#pragma once

namespace fairlead::cli {

inline constexpr const char* kVersion = FAIRLEAD_VERSION;

}  // namespace fairlead::cli
