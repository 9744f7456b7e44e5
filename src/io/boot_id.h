// The kernel's boot id: see Storage::boot_id(). Any thread.
#pragma once

#include "base/uuid.h"

namespace fairlead {

// The UUID that is the file's first line; a random one when there is none to be read, or the nil one.
Uuid read_boot_id(const char* path);
// Read once a process.
const Uuid& kernel_boot_id();

}  // namespace fairlead
