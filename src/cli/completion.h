// `fairlead completion SHELL`: scripts that complete commands and options, made from the command line's own definition.
#pragma once

#include <expected>
#include <string>
#include <string_view>

namespace CLI {
class App;
}

namespace fairlead::cli {

// For "bash", "zsh" or "fish"; otherwise what is wrong, for people.
std::expected<std::string, std::string> completion_script(const CLI::App& app, std::string_view shell);

}  // namespace fairlead::cli
