// What the process that started this one, systemd for example, wants to be told: sd_notify(3)'s protocol.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"

namespace fairlead {

// Sends `state` ("READY=1", "STOPPING=1") to the datagram socket of that path, "@name" for an abstract one. Never
// blocks. Errors: kInvalidArgument (no such path can be), kNotFound, kIo and what else the system says.
Result<void> tell_service_manager(const std::string& socket, std::string_view state);

}  // namespace fairlead
