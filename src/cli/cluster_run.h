// Runs the commands that speak to a cluster.
#pragma once

#include <string>

#include "cli/cluster_arguments.h"
#include "cli/timekeeper.h"

namespace fairlead::cli {

// What the output goes to.
struct Console {
  bool is_terminal = false;       // standard output
  bool has_progress_bar = false;  // standard error is a terminal
  bool has_colours = false;
};
// A terminal has colours unless NO_COLOR is set.
Console console_of_process();

// `name`: of the command, for complaints. Returns the exit code.
int run_cluster_command(const ClusterCommandPlan& plan, const std::string& name);
int run_cluster_command(const ClusterCommandPlan& plan, const std::string& name, Timekeeper& time,
                        const Console& console);

// kExitCodesText says what they mean.
int exit_code_of(Code code);

}  // namespace fairlead::cli
