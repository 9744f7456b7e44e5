#include "cli/cluster_run.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fmt/format.h>
#include <map>
#include <unistd.h>

#include "cli/attach.h"
#include "cli/cluster_wait.h"

namespace fairlead::cli {

using control::EventSink;
using control::percent_encoded;
namespace {

constexpr Duration kTopInterval = std::chrono::seconds(2);
constexpr Duration kFollowSilence = std::chrono::seconds(45);  // the server says something each 15 s
constexpr Duration kFollowPause = std::chrono::seconds(1);
constexpr const char* kHome = "\x1b[H\x1b[2J";

void print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

std::string watch_path(const std::string& list_path) {
  // "/v1/volumes?label=a%3Db" to "/v1/watch?kind=volumes&label=a%3Db".
  const size_t query = std::min(list_path.find('?'), list_path.size());
  const std::string kind = list_path.substr(4, query - 4);
  return fmt::format("/v1/watch?kind={}{}", kind, query < list_path.size() ? "&" + list_path.substr(query + 1) : "");
}

class Run {
 public:
  Run(const ClusterCommandPlan& plan, Timekeeper& time, const Console& console)
      : plan_(plan), time_(time), console_(console), client_(plan.servers), begun_(time.now()) {}

  Outcome<int> run() {
    switch (plan_.verb) {
      case ClusterVerb::kList:
        return plan_.watch ? watch("") : list();
      case ClusterVerb::kShow:
        return plan_.watch ? watch(plan_.name) : show();
      case ClusterVerb::kEvents:
        return events();
      case ClusterVerb::kStatus:
        return status();
      case ClusterVerb::kWhy:
        return why();
      case ClusterVerb::kRecover:
        return recover();
      case ClusterVerb::kTop:
        return top();
      case ClusterVerb::kNames:
        return names();
      case ClusterVerb::kAttach:
        return attach();
      case ClusterVerb::kDetach:
        return detach();
      case ClusterVerb::kWait:
        return finish();
      default:
        return change();
    }
  }

 private:
  Look look() const { return {.output = plan_.output, .has_colours = console_.has_colours, .now_ms = time_.wall_ms()}; }
  bool is_over() const { return plan_.limit && time_.now() - begun_ >= *plan_.limit; }

  Outcome<int> list() {
    FL_TRY(const std::vector<Json> all, client_.list(plan_.path));
    print(render_list(plan_.kind, all, look()));
    return 0;
  }
  Outcome<int> show() {
    FL_TRY(const Json one, client_.get(plan_.path));
    print(render_one(plan_.kind, one, look()));
    return 0;
  }
  Outcome<int> status() {
    FL_TRY(const Json overview, client_.get(plan_.path));
    print(render_status(overview, look()));
    return truth_of(overview, "well") ? 0 : 1;
  }
  Outcome<int> why() {
    FL_TRY(const Json lines, client_.get(plan_.path + "/why"));
    print(render_why(lines, look()));
    return 0;
  }
  Outcome<int> recover();
  Outcome<int> events();
  Outcome<int> top();
  Outcome<int> names();
  Outcome<int> watch(const std::string& only);
  Outcome<int> change();
  Outcome<int> finish();
  Outcome<Json> reach_goal();
  Outcome<int> attach();
  Outcome<int> detach();
  Outcome<int> run_or_print(const std::vector<CommandLine>& commands);
  // Follows again and again, until the time is over or the sink has enough.
  template <typename Sink, typename Path>
  Outcome<int> follow(Sink& sink, Path path);

  const ClusterCommandPlan& plan_;
  Timekeeper& time_;
  const Console console_;
  RestClient client_;
  const Instant begun_;
};

template <typename Sink, typename Path>
Outcome<int> Run::follow(Sink& sink, Path path) {
  bool was_there = false;
  while (!is_over()) {
    const Outcome<void> followed = client_.follow(path(), sink, kFollowSilence);
    if (sink.is_over) return 0;
    const bool is_away = !followed && followed.error().error.code == Code::kUnreachable;
    if (!followed && (!is_away || !was_there)) return std::unexpected(followed.error());
    if (is_away) fmt::print(stderr, "{}; it is asked again\n", to_string(followed.error()));
    was_there = true;
    time_.pause(kFollowPause);
  }
  return 0;
}

// ---- What changes

// Keeps the documents of a kind as a watch tells of them, and shows them.
class Shown final : public EventSink {
 public:
  Shown(const ClusterCommandPlan& plan, std::string only, bool redraws, Look (*look)(void*), void* of)
      : plan_(plan), only_(std::move(only)), redraws_(redraws), look_(look), of_(of) {}

  bool take(std::string_view name, const Json& data) override {
    const std::string key = resource_name(plan_.kind, data);
    const std::string id = key.substr(key.find('/') + 1);
    const bool is_wanted = only_.empty() || id == only_;
    if (name == "resource" && is_wanted) {
      documents_[id] = data;
      if (is_synced_) draw(&data);
    } else if (name == "gone" && is_wanted && documents_.erase(text_of(data, "name")) > 0) {
      if (is_synced_) draw(nullptr);
      if (!redraws_) fmt::print(stderr, "{} is gone\n", printable(key));
      if (!only_.empty()) is_over = true;
    } else if (name == "synced") {
      is_synced_ = true;
      draw_all();
    }
    return !is_over;
  }
  // It is told everything anew.
  void restart() {
    is_synced_ = false;
    documents_.clear();
  }
  bool is_over = false;

 private:
  void draw_all() const {
    std::vector<Json> all;
    for (const auto& [id, document] : documents_) all.push_back(document);
    const Look now = look_(of_);
    const std::string text =
        only_.empty() || all.empty() ? render_list(plan_.kind, all, now) : render_one(plan_.kind, all.front(), now);
    print((redraws_ ? kHome : "") + text);
  }
  void draw(const Json* changed) const {
    if (redraws_) return draw_all();
    if (changed == nullptr) return;
    print(only_.empty() ? render_rows(plan_.kind, {*changed}, look_(of_))
                        : render_one(plan_.kind, *changed, look_(of_)));
  }

  const ClusterCommandPlan& plan_;
  const std::string only_;
  const bool redraws_;
  Look (*const look_)(void*);
  void* const of_;
  bool is_synced_ = false;
  std::map<std::string, Json> documents_;
};

Outcome<int> Run::watch(const std::string& only) {
  // What is not there is said at once.
  if (!only.empty()) FL_TRY_VOID(client_.get(plan_.path));
  const bool redraws = console_.is_terminal && (plan_.output == Output::kTable || plan_.output == Output::kWide);
  Shown shown(plan_, only, redraws, [](void* run) { return static_cast<Run*>(run)->look(); }, this);
  return follow(shown, [&] {
    shown.restart();
    return watch_path(only.empty() ? plan_.path : "/v1/" + plan_.kind);
  });
}

struct EventsShown final : EventSink {
  explicit EventsShown(const Look& how) : look(how) {}
  bool take(std::string_view name, const Json& data) override {
    if (name != "event") return true;
    after = std::max(after, number_of(data, "number"));
    print(render_events({data}, look));
    return true;
  }
  Look look;
  uint64_t after = 0;
  bool is_over = false;
};

Outcome<int> Run::events() {
  FL_TRY(const std::vector<Json> all, client_.list(plan_.path));
  if (all.empty() && !plan_.watch && plan_.output == Output::kTable) {
    print("there are no events\n");
  } else if (!plan_.watch || !all.empty()) {
    print(render_events(all, look()));
  }
  if (!plan_.watch) return 0;
  EventsShown shown(look());
  for (const Json& each : all) shown.after = std::max(shown.after, number_of(each, "number"));
  return follow(shown, [&] { return fmt::format("/v1/watch?kind=events&after={}", shown.after); });
}

Outcome<int> Run::top() {
  const bool goes_on = plan_.watch || console_.is_terminal;
  while (true) {
    TopView view;
    FL_TRY(view.nodes, client_.list("/v1/nodes"));
    FL_TRY(view.pools, client_.list("/v1/pools"));
    FL_TRY(view.volumes, client_.list("/v1/volumes"));
    if (plan_.output == Output::kJson || plan_.output == Output::kYaml) {
      Json all = {{"nodes", view.nodes}, {"pools", view.pools}, {"volumes", view.volumes}};
      print(render_one("nodes", all, look()));
    } else {
      print((console_.is_terminal ? kHome : "") + render_top(view, look()));
    }
    if (!goes_on || is_over()) return 0;
    time_.pause(kTopInterval);
  }
}

Outcome<int> Run::names() {
  Look names;
  names.output = Output::kName;
  std::string text;
  if (plan_.kind == "resources") {
    for (const char* const kind : {"volumes", "nodes", "pools", "snapshots"}) {
      FL_TRY(const std::vector<Json> all, client_.list(fmt::format("/v1/{}", kind)));
      if (!all.empty()) text += render_list(kind, all, names);
    }
  } else {
    FL_TRY(const std::vector<Json> all, client_.list(plan_.path));
    for (const Json& each : all) text += text_of(each, plan_.kind == "replicas" ? "id" : "name") + "\n";
  }
  print(text);
  return 0;
}

// ---- Changes

Outcome<Json> Run::reach_goal() {
  ProgressOutput progress(console_.has_progress_bar);
  return wait_for(client_, time_, {.kind = plan_.kind, .name = plan_.name, .goal = plan_.goal, .limit = plan_.limit},
                  progress);
}

Outcome<int> Run::change() {
  RestRequest request = *plan_.change;
  if (plan_.copies_replica_count) {
    const std::string snapshot = text_of(request.body, "spec.source");
    FL_TRY(const Json source, client_.get("/v1/snapshots/" + percent_encoded(snapshot)));
    const auto volume = client_.get("/v1/volumes/" + percent_encoded(text_of(source, "spec.volume")));
    if (volume) request.body["spec"]["replicas"] = number_of(*volume, "spec.replicas");
  }
  FL_TRY(const Json answer, client_.call(request));
  if (plan_.goal.kind != Goal::Kind::kNothing) return finish();
  if (plan_.output != Output::kTable && !answer.is_null()) {
    print(render_one(plan_.kind, answer, look()));
    return 0;
  }
  const std::string resource = resource_name(plan_.kind, {{plan_.kind == "replicas" ? "id" : "name", plan_.name}});
  const bool is_asked = request.method == RestMethod::kDelete || plan_.verb == ClusterVerb::kCreate;
  print(fmt::format("{} {}\n", resource, is_asked ? "is asked for" : "is changed"));
  return 0;
}

Outcome<int> Run::recover() {
  FL_TRY(const Json found, client_.call({.method = RestMethod::kPost, .path = plan_.path, .body = Json::object()}));
  std::string text;
  for (const char* const kind : {"volumes", "snapshots"}) {
    for (const Json& name : field(found, kind)) {
      text += fmt::format("{}/{} was found\n", std::string(kind).substr(0, std::string(kind).size() - 1),
                          name.get<std::string>());
    }
  }
  const Json& missing = field(found, "missing");
  if (!missing.empty())
    text += fmt::format("{} of their replicas are on engines that have not reported\n", missing.size());
  print(text.empty() ? "engines hold nothing that is not known already\n" : text);
  return 0;
}

Outcome<int> Run::finish() {
  FL_TRY(const Json document, reach_goal());
  if (plan_.output != Output::kTable && !document.is_null()) {
    print(render_one(plan_.kind, document, look()));
  } else {
    print(fmt::format("{}/{} {}\n", plan_.kind.substr(0, plan_.kind.size() - 1), plan_.name, to_text(plan_.goal)));
  }
  return 0;
}

// ---- This host

Outcome<int> Run::run_or_print(const std::vector<CommandLine>& commands) {
  if (!plan_.execute) {
    for (const CommandLine& command : commands) print(shell_line(command) + "\n");
    return 0;
  }
  size_t failed = 0;
  for (const CommandLine& command : commands) {
    FL_TRY(const int code, execute(command));
    if (code != 0) {
      fmt::print(stderr, "exit code {}: {}\n", code, shell_line(command));
      ++failed;
    }
  }
  // A path that is away now is worth a word, not a failure of the others.
  if (failed == 0) return 0;
  return problem(Code::kIo, fmt::format("{} of {} commands failed; are you root, and is the module nvme-tcp there? "
                                        "'fairlead doctor' looks",
                                        failed, commands.size()));
}

Outcome<int> Run::attach() {
  Json volume;
  if (plan_.goal.kind == Goal::Kind::kNothing) {
    FL_TRY(volume, client_.get(plan_.path));
  } else {
    FL_TRY(volume, reach_goal());
  }
  FL_TRY(const std::vector<CommandLine> commands, attach_commands(volume));
  return run_or_print(commands);
}

Outcome<int> Run::detach() {
  FL_TRY(const Json volume, client_.get(plan_.path));
  return run_or_print({detach_command(volume)});
}

}  // namespace

int exit_code_of(Code code) {
  switch (code) {
    case Code::kInvalidArgument:
    case Code::kNotSupported:
      return 2;
    case Code::kNotFound:
      return 3;
    case Code::kBusy:
    case Code::kAlreadyExists:
    case Code::kMiscompare:
    case Code::kFenced:
      return 4;
    case Code::kUnreachable:
    case Code::kConnectionLost:
    case Code::kShuttingDown:
      return 5;
    case Code::kTimedOut:
      return 6;
    default:
      return 1;
  }
}

Console console_of_process() {
  const bool has_colours = std::getenv("NO_COLOR") == nullptr;
  const bool is_terminal = isatty(STDOUT_FILENO) == 1;
  return {.is_terminal = is_terminal,
          .has_progress_bar = isatty(STDERR_FILENO) == 1,
          .has_colours = is_terminal && has_colours};
}

int run_cluster_command(const ClusterCommandPlan& plan, const std::string& name) {
  RealTime time;
  return run_cluster_command(plan, name, time, console_of_process());
}

int run_cluster_command(const ClusterCommandPlan& plan, const std::string& name, Timekeeper& time,
                        const Console& console) {
  const Outcome<int> done = Run(plan, time, console).run();
  if (done) return *done;
  // Completion is quiet.
  if (plan.verb != ClusterVerb::kNames) fmt::print(stderr, "fairlead {}: {}\n", name, to_string(done.error()));
  return exit_code_of(done.error().error.code);
}

}  // namespace fairlead::cli
