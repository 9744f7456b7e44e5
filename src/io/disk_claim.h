// Who else uses a file or block device: what the kernel's claims do not tell, or tell without a reason.
#pragma once

#include <sys/stat.h>

namespace fairlead {

// Why another uses the thing that `status` describes (mounted, swap, backing a loop device, held by the device mapper
// or a RAID), as a text for Error::what that lives for ever; null: no reason to be seen. Blocks briefly.
const char* reason_in_use(const struct stat& status);

}  // namespace fairlead
