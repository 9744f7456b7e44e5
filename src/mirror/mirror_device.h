// The device that a mirrored volume is served by.
#pragma once

#include <memory>
#include <vector>

#include "block/block_device.h"
#include "mirror/side.h"

namespace fairlead::mirror {

// Opens any number of devices on the shards of the sides; kInvalidArgument on others. Their size and logical block are
// MirrorShared's. Requires: the sides outlive the source's last open() and the devices.
std::shared_ptr<BlockSource> make_mirror_source(std::vector<MirrorSide*> sides);

}  // namespace fairlead::mirror
