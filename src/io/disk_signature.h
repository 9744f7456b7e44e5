// What a disk holds, as far as its first bytes tell: so that a refusal to overwrite it can say what would be lost.
#pragma once

#include <optional>
#include <string>

#include "base/error.h"

namespace fairlead {

// As libblkid has it; what is not known is empty.
struct Signature {
  std::string table = {};     // of partitions: "gpt"; what else is said is then of a part of the disk
  std::string type = {};      // "ext4", "linux_raid_member"
  std::string usage = {};     // "filesystem", "raid", "crypto", "other"
  std::string label = {};     // of a file system
  bool is_ambiguous = false;  // there are several, and nothing above
};
// None: nothing that is known. Reads the file or device beside whoever has it open; blocks. Errors of reading it.
Result<std::optional<Signature>> look_for_signature(const std::string& path);

// "an ext4 file system (label data)", "a gpt partition table"; empty: nothing that is known, or it cannot be read.
std::string signature_of(const std::string& path);

}  // namespace fairlead
