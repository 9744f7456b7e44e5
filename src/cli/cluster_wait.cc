#include "cli/cluster_wait.h"

#include <algorithm>
#include <cstdio>
#include <fmt/format.h>

namespace fairlead::cli {
namespace {

constexpr Duration kPauseFirst = std::chrono::milliseconds(20);
constexpr Duration kPauseLast = std::chrono::milliseconds(500);
// How long a server may be away while something is waited for that has no limit: a new leader is there long before.
constexpr Duration kAwayMax = std::chrono::seconds(60);

uint64_t milliseconds_of(Duration span) {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(span).count());
}

// The first condition that is not met: what there is to say of a volume.
std::string trouble_of(const Json& document) {
  for (const Json& each : field(document, "status.conditions")) {
    if (!truth_of(each, "met")) return text_of(each, "message");
  }
  return text_of(document, "status.why");
}

}  // namespace

uint64_t left_of(const Json& document) {
  return number_of(document, "status.targets") + number_of(document, "status.replicas");
}

Progress progress_of(const std::string& resource, const Goal& goal, const Json& document, uint64_t left_at_first,
                     Duration elapsed) {
  const std::string state = text_of(document, "status.state");
  Progress progress;
  if (goal.kind == Goal::Kind::kEmpty) {
    const uint64_t left = left_of(document);
    const uint64_t done = left_at_first > left ? left_at_first - left : 0;
    progress.text = fmt::format("{}: {} of {} still to move", resource, left, std::max(left, left_at_first));
    if (const std::string why = text_of(document, "status.why"); !why.empty()) progress.text += "; " + why;
    if (left_at_first > 0) progress.share = static_cast<double>(done) / static_cast<double>(left_at_first);
    if (done > 0) progress.eta_ms = milliseconds_of(elapsed) * left / done;
    return progress;
  }
  const Resync resync = resync_of(document);
  if (resync.replicas > 0) {
    progress.text =
        fmt::format("{}: resync of {} replica{}", resource, resync.replicas, resync.replicas == 1 ? "" : "s");
    if (resync.to_copy_bytes > 0) {
      progress.share = static_cast<double>(resync.copied_bytes) / static_cast<double>(resync.to_copy_bytes);
    }
    progress.eta_ms = resync.eta_ms;
    return progress;
  }
  const std::string trouble = trouble_of(document);
  progress.text = fmt::format("{}: {}{}{}", resource, state, trouble.empty() ? "" : ": ", trouble);
  return progress;
}

// ---- Output

void ProgressOutput::show(const Progress& progress) {
  if (is_terminal_) {
    fmt::print(stderr, "\r\x1b[K{}", render_bar(progress));
    has_bar_ = true;
    std::fflush(stderr);
    return;
  }
  // A line for each tenth.
  const std::string share =
      progress.share ? fmt::format(" ({} %)", static_cast<int>(std::clamp(*progress.share, 0.0, 1.0) * 10) * 10) : "";
  std::string line = printable(progress.text) + share;
  if (line == last_) return;
  fmt::print(stderr, "{}{}\n", line, progress.eta_ms ? fmt::format(", {} left", span_text(*progress.eta_ms)) : "");
  last_ = std::move(line);
}

void ProgressOutput::clear() {
  if (has_bar_) fmt::print(stderr, "\r\x1b[K");
  has_bar_ = false;
}

// ---- Waiting

namespace {

class Wait {
 public:
  Wait(RestClient& client, Timekeeper& time, const Waiting& waiting, ProgressOutput& output)
      : client_(client),
        time_(time),
        waiting_(waiting),
        output_(output),
        begun_(time.now()),
        answered_(begun_),
        resource_(fmt::format("{}/{}", waiting.kind.substr(0, waiting.kind.size() - 1), waiting.name)) {}

  Outcome<Json> run() {
    Duration pause = kPauseFirst;
    while (true) {
      Outcome<Json> found = look();
      if (found && is_met(waiting_.goal, *found)) return found;
      if (!found && !can_go_on(found.error())) return found;
      if (found) show(*found);
      const Duration elapsed = time_.now() - begun_;
      if (waiting_.limit && elapsed >= *waiting_.limit) return timed_out(found);
      time_.pause(waiting_.limit ? std::min(pause, *waiting_.limit - elapsed) : pause);
      pause = std::min(pause * 3 / 2, kPauseLast);
    }
  }

 private:
  // Null: there is none, as was wished.
  Outcome<Json> look() {
    Outcome<Json> found = client_.get(fmt::format("/v1/{}/{}", waiting_.kind, control::percent_encoded(waiting_.name)));
    const bool is_gone = !found && found.error().error.code == Code::kNotFound;
    if (found || is_gone) {
      answered_ = time_.now();
      has_answered_ = true;
    }
    if (is_gone && waiting_.goal.kind == Goal::Kind::kGone) return Json();
    return found;
  }

  bool can_go_on(const Problem& problem) {
    if (problem.error.code != Code::kUnreachable) return false;
    if (!has_answered_ || time_.now() - answered_ >= kAwayMax) return false;
    output_.show({.text = fmt::format("{}: no server answers; it is asked again", resource_)});
    return true;
  }

  void show(const Json& document) {
    first_left_ = std::max(first_left_, left_of(document));
    // What is done at once needs no words.
    if (time_.now() - begun_ < kPauseLast) return;
    output_.show(progress_of(resource_, waiting_.goal, document, first_left_, time_.now() - begun_));
  }

  Outcome<Json> timed_out(const Outcome<Json>& found) {
    std::string why = found ? trouble_of(*found) : to_string(found.error());
    if (why.empty() && found) why = "it is " + text_of(*found, "status.state");
    return problem(Code::kTimedOut,
                   fmt::format("after {} it is not yet so that {} {}: {}", span_text(milliseconds_of(*waiting_.limit)),
                               resource_, to_text(waiting_.goal), why));
  }

  RestClient& client_;
  Timekeeper& time_;
  const Waiting& waiting_;
  ProgressOutput& output_;
  const Instant begun_;
  Instant answered_;
  bool has_answered_ = false;
  uint64_t first_left_ = 0;
  const std::string resource_;
};

}  // namespace

Outcome<Json> wait_for(RestClient& client, Timekeeper& time, const Waiting& waiting, ProgressOutput& output) {
  Outcome<Json> found = Wait(client, time, waiting, output).run();
  output.clear();
  return found;
}

}  // namespace fairlead::cli
