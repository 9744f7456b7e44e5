// Names of commands for logs. No state; any thread.
#pragma once

#include <cstdint>
#include <string_view>

#include "nvme/command.h"

namespace fairlead::nvme {

enum class QueueKind : uint8_t { kAdmin, kIo };

// "read", "identify", "connect"; "unknown" for what is none.
std::string_view opcode_name(QueueKind queue, uint8_t opcode) noexcept;
std::string_view fabrics_name(FabricsType type) noexcept;
// As above, looking into Fabrics commands.
std::string_view command_name(QueueKind queue, const SubmissionEntry& command) noexcept;

}  // namespace fairlead::nvme
