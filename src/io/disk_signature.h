// What a disk holds, as far as its first bytes tell: so that a refusal to overwrite it can say what would be lost.
#pragma once

#include <string>

namespace fairlead {

// "an ext4 file system (label data)", "a gpt partition table"; empty: nothing that is known. Reads the file or device
// beside whoever has it open.
std::string signature_of(const std::string& path);

}  // namespace fairlead
