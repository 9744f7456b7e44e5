#include "cli/commands.h"

namespace fairlead::cli {

Words words_of(std::string_view line) {
  Words words;
  while (true) {
    const size_t begin = line.find_first_not_of(" \t\r");
    if (begin == std::string_view::npos) return words;
    line.remove_prefix(begin);
    const size_t end = std::min(line.find_first_of(" \t\r"), line.size());
    words.emplace_back(line.substr(0, end));
    line.remove_prefix(end);
  }
}

std::unexpected<Complaint> about(std::string_view name, const Error& error) {
  return std::unexpected(fmt::format("{} {}", name, to_string(error)));
}

void say_line(std::string_view line) {
  fmt::print("{}\n", line);
  std::fflush(stdout);
}

}  // namespace fairlead::cli
