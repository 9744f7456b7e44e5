// The options of `fairlead engine`, as the command line, a file and the environment give them; and what other commands
// that take theirs so need.
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace fairlead::cli {

struct EngineArguments;

// `arguments` is borrowed until the command line was parsed.
void define_engine(CLI::App& engine, EngineArguments& arguments);

// One value for each time an option is given, so that what has no name may stand behind it.
void take_one_value_at_a_time(CLI::App& command);

// What neither command line nor file say comes from variables: "--tls-key" from PREFIX_TLS_KEY. To be called after all
// options were defined. `prefix` ends with '_'.
void take_environment(CLI::App& command, const std::string& prefix);

}  // namespace fairlead::cli
