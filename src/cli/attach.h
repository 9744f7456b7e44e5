// How a host connects to a volume: the nvme-cli commands, one for each path.
#pragma once

#include <string>
#include <vector>

#include "base/problem.h"
#include "control/json.h"

namespace fairlead::cli {

using CommandLine = std::vector<std::string>;  // a program and its arguments

// Of the volume's document; the path that serves comes first. Error kBusy: it has no path yet.
Outcome<std::vector<CommandLine>> attach_commands(const control::Json& volume);
CommandLine detach_command(const control::Json& volume);

// As a person would type it.
std::string shell_line(const CommandLine& command);

// Runs it, with this process's standard streams; returns its exit code. Error kNotFound: there is no such program.
Outcome<int> execute(const CommandLine& command);

}  // namespace fairlead::cli
