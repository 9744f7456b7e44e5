// YAML of JSON values: block style, strings quoted when they could be read as something else.
#pragma once

#include <string>

#include "control/json.h"

namespace fairlead::cli {

// Ends with a line feed.
std::string to_yaml(const control::Json& json);

}  // namespace fairlead::cli
