// Commands that a process takes while it runs: lines of standard input, each answered by one line that begins with "ok"
// or "error".
#pragma once

#include <algorithm>
#include <cstdio>
#include <fmt/format.h>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "async/task.h"
#include "cli/arguments.h"
#include "io/line_input.h"
#include "io/signals.h"

namespace fairlead::cli {

// Of a line, without the blanks between them.
using Words = std::vector<std::string>;
Words words_of(std::string_view line);

// What follows "ok", or "error".
using Answer = std::expected<std::string, Complaint>;
// "NAME does not exist".
std::unexpected<Complaint> about(std::string_view name, const Error& error);

// One command of a service. `name` is one word, or two.
template <typename Service>
struct Verb {
  std::string_view name;
  size_t arguments = 0;                       // that it needs
  size_t more = 0;                            // that it may have besides
  std::string_view usage;                     // "delete NAME"
  Task<Answer> (Service::*run)(Words words);  // words[0] is the name, what follows are the arguments
};

// "delete NAME; list; quit"
template <typename Service>
std::string usage_of(std::span<const Verb<Service>> verbs) {
  std::string text;
  for (const Verb<Service>& verb : verbs) text += fmt::format("{}; ", verb.usage);
  return text + "quit";
}

// Does what a line says and returns the answer to it.
template <typename Service>
Task<std::string> execute_line(Service& service, std::span<const Verb<Service>> verbs, std::string line) {
  Words words = words_of(line);
  if (words.empty()) co_return "error an empty line; help tells what there is";
  const std::string first_two = words.size() > 1 ? words[0] + " " + words[1] : std::string();
  auto verb = std::ranges::find(verbs, std::string_view(first_two), &Verb<Service>::name);
  if (verb != verbs.end() && !first_two.empty()) {
    words.erase(words.begin());
    words[0] = first_two;
  } else {
    verb = std::ranges::find(verbs, std::string_view(words.front()), &Verb<Service>::name);
  }
  if (verb == verbs.end()) co_return fmt::format("error {}: no such command; help tells what there is", words.front());
  const size_t given = words.size() - 1;
  if (given < verb->arguments || given > verb->arguments + verb->more) {
    co_return fmt::format("error expected {}", verb->usage);
  }
  const Answer answer = co_await (service.*verb->run)(std::move(words));
  if (!answer) co_return "error " + answer.error();
  co_return answer->empty() ? "ok" : "ok " + *answer;
}

// A line on standard output, where whoever reads along reads line by line.
void say_line(std::string_view line);
template <typename... Arguments>
void say(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  say_line(fmt::format(format, std::forward<Arguments>(arguments)...));
}
// "fairlead COMMAND: …" on standard error.
template <typename... Arguments>
void complain_of(std::string_view command, fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  fmt::print(stderr, "fairlead {}: {}\n", command, fmt::format(format, std::forward<Arguments>(arguments)...));
}

// Answers each line by service.execute(), a Task<std::string>. At the end of the input the process goes on; `quit` ends
// both, by closing `signals`.
template <typename Service>
Task<void> take_commands(std::string_view command, LineInput& input, SignalWatch& signals, Service& service) {
  while (true) {
    const Result<std::optional<std::string>> line = co_await input.next();
    if (!line && line.error().code != Code::kCancelled) {
      complain_of(command, "standard input {}", to_string(line.error()));
    }
    if (!line || !*line) co_return;
    if (**line == "quit") {
      say("ok");
      signals.close();
      co_return;
    }
    say("{}", co_await service.execute(**line));
  }
}

}  // namespace fairlead::cli
