#include "gateway/rest.h"

#include <algorithm>
#include <charconv>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "async/alarm.h"
#include "base/uuid.h"
#include "control/freeze.h"
#include "gateway/metrics.h"

namespace fairlead::gateway {
namespace {

using control::Json;

constexpr size_t kDepthMax = 32;
constexpr uint64_t kLimitMax = 1000;
constexpr Duration kLeaderPatience = std::chrono::seconds(5);
constexpr Duration kLeaderLook = std::chrono::milliseconds(200);

template <typename... Arguments>
std::unexpected<Problem> refuse(Code code, fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  return problem(code, fmt::format(format, std::forward<Arguments>(arguments)...));
}

HttpResponse json_response(const Json& json, int status = 200) {
  HttpResponse response;
  response.status = status;
  response.body = control::to_text(json) + "\n";
  const auto revision = json.find("revision");
  if (revision != json.end()) response.headers.emplace_back("ETag", fmt::format("\"{}\"", revision->get<uint64_t>()));
  return response;
}

HttpResponse text_response(std::string text) {
  HttpResponse response;
  response.content_type = "text/plain; charset=utf-8";
  response.body = std::move(text);
  return response;
}

std::vector<std::string_view> segments_of(std::string_view path) {
  std::vector<std::string_view> segments;
  while (!path.empty()) {
    const size_t end = std::min(path.find('/', 1), path.size());
    segments.push_back(path.substr(1, end - 1));
    path.remove_prefix(end);
  }
  return segments;
}

// Whether the path is of the form that the template has; sets what stands for {name}.
bool matches(std::string_view form, std::string_view path, std::string& name) {
  if (!path.starts_with('/')) return false;
  const auto wanted = segments_of(form);
  const auto given = segments_of(path);
  if (wanted.size() != given.size()) return false;
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (wanted[i] == "{name}" && !given[i].empty()) {
      name = given[i];
    } else if (wanted[i] != given[i]) {
      return false;
    }
  }
  return true;
}

Outcome<uint64_t> parse_number(std::string_view what, std::string_view text) {
  uint64_t number = 0;
  const auto parsed = std::from_chars(text.begin(), text.end(), number);
  if (parsed.ec != std::errc{} || parsed.ptr != text.end()) {
    return refuse(Code::kInvalidArgument, "{}: expected a number, not '{}'", what, text);
  }
  return number;
}

const std::string* find_parameter(const HttpRequest& request, const std::string& name) {
  const auto found = request.query.find(name);
  return found == request.query.end() ? nullptr : &found->second;
}
std::string parameter(const HttpRequest& request, const std::string& name) {
  const std::string* const found = find_parameter(request, name);
  return found == nullptr ? "" : *found;
}

// By If-Match: "REVISION", or ?revision=. None: whatever it has.
Outcome<std::optional<uint64_t>> revision_of(const HttpRequest& request) {
  const std::string_view match = request.header("if-match");
  std::optional<uint64_t> revision;
  if (!match.empty() && match != "*") {
    if (match.size() < 3 || match.front() != '"' || match.back() != '"') {
      return refuse(Code::kInvalidArgument, "If-Match: expected the ETag of the document, such as \"17\", not '{}'",
                    match);
    }
    FL_TRY(revision, parse_number("If-Match", match.substr(1, match.size() - 2)));
  }
  const std::string* const asked = find_parameter(request, "revision");
  if (asked == nullptr) return revision;
  FL_TRY(const uint64_t number, parse_number("revision", *asked));
  if (revision && *revision != number) {
    return refuse(Code::kInvalidArgument, "revision: is another than that of If-Match");
  }
  return number;
}

Outcome<control::Selection> selection_of(const HttpRequest& request) {
  control::Selection selection;
  selection.volume = parameter(request, "volume");
  selection.node = parameter(request, "node");
  const auto labels = request.query.equal_range("label");
  for (auto label = labels.first; label != labels.second; ++label) {
    const size_t equals = label->second.find('=');
    if (equals == std::string::npos || equals == 0) {
      return refuse(Code::kInvalidArgument, "label: expected KEY=VALUE, not '{}'", label->second);
    }
    selection.labels[label->second.substr(0, equals)] = label->second.substr(equals + 1);
  }
  return selection;
}

// Those who work with documents follow them as deep as they go.
bool is_too_deep(std::string_view text) {
  size_t depth = 0;
  bool is_quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') is_quoted = !is_quoted;
    if (is_quoted && c == '\\') ++i;
    if (is_quoted) continue;
    if ((c == '{' || c == '[') && ++depth > kDepthMax) return true;
    if ((c == '}' || c == ']') && depth > 0) --depth;
  }
  return false;
}

Outcome<Json> body_of(const HttpRequest& request) {
  if (request.body.empty()) return refuse(Code::kInvalidArgument, "the body is empty; send a JSON document");
  if (is_too_deep(request.body)) {
    return refuse(Code::kInvalidArgument, "the body has more than {} levels", kDepthMax);
  }
  FL_TRY(Json json, control::parse_json(request.body));
  if (!json.is_object()) return refuse(Code::kInvalidArgument, "the body is no JSON object");
  return json;
}

// What cannot even be asked, unlike what cannot be done.
HttpResponse bad_request(const Problem& problem) {
  return problem_response(400, problem.error.code, to_string(problem));
}

}  // namespace

// FL_CO_TRY for what the request itself has wrong.
#define FL_CO_PARSE(declaration, ...)                                                                   \
  auto FL_CONCAT(fl_parsed_, __LINE__) = (__VA_ARGS__);                                                 \
  if (!FL_CONCAT(fl_parsed_, __LINE__)) co_return bad_request(FL_CONCAT(fl_parsed_, __LINE__).error()); \
  declaration = std::move(*FL_CONCAT(fl_parsed_, __LINE__))

Rest::Rest(Shard& home, control::Control& control, control::Store& store, RestOptions options)
    : home_(home), control_(control), store_(store), options_(std::move(options)), watches_(home, control) {
  define();
}

// ---- Routes

void Rest::define() {
  routes_.push_back({"GET", "/livez", "", {}, &Rest::live});
  routes_.push_back({"GET", "/readyz", "", {}, &Rest::ready});
  routes_.push_back({"GET", "/metrics", "", {}, &Rest::metrics});
  routes_.push_back({"GET", "/v1", "", {}, &Rest::index});
  routes_.push_back({"GET", "/v1/overview", "", {}, &Rest::overview});
  routes_.push_back({"POST", "/v1/recover", "", {}, &Rest::recover});
  routes_.push_back({"GET", "/v1/events", "", {"after", "resource"}, &Rest::events});
  routes_.push_back({"GET", "/v1/watch", "", {"kind", "label", "volume", "node", "after"}, &Rest::watch});
  routes_.push_back({"GET", "/v1/settings", "settings", {}, &Rest::settings});
  routes_.push_back({"PATCH", "/v1/settings", "settings", {"revision"}, &Rest::change_settings});
  for (const std::string_view kind : kKinds) define_kind(kind);
  routes_.push_back({"POST", "/v1/volumes/{name}/force", "volumes", {}, &Rest::force});
  routes_.push_back({"POST", "/v1/volumes/{name}/frozen", "volumes", {}, &Rest::frozen});
}

void Rest::define_kind(std::string_view kind) {
  const std::string all = fmt::format("/v1/{}", kind);
  const std::string one = all + "/{name}";
  routes_.push_back({"GET", all, kind, {"label", "volume", "node", "limit", "continue"}, &Rest::list});
  routes_.push_back({"GET", one, kind, {}, &Rest::get});
  routes_.push_back({"GET", one + "/why", kind, {}, &Rest::why});
  if (kind == "replicas") return;
  if (kind != control::SnapshotGroup::kKind) routes_.push_back({"PATCH", one, kind, {"revision"}, &Rest::update});
  routes_.push_back({"DELETE", one, kind, {"revision"}, &Rest::remove});
  // Nodes join by themselves.
  if (kind != "nodes") routes_.push_back({"POST", all, kind, {}, &Rest::create});
}

std::vector<std::string> Rest::routes() const {
  std::vector<std::string> routes;
  for (const Route& route : routes_) routes.push_back(fmt::format("{} {}", route.method, route.path));
  return routes;
}

// No route has this path, or none with this method.
HttpResponse Rest::refuse_address(const HttpRequest& request) const {
  std::vector<std::string_view> methods;
  std::string name;
  for (const Route& route : routes_) {
    if (matches(route.path, request.path, name)) methods.push_back(route.method);
  }
  if (methods.empty()) {
    return problem_response(404, Code::kNotFound,
                            fmt::format("there is no {}; GET /v1 tells what there is", request.path));
  }
  HttpResponse response =
      problem_response(405, Code::kNotSupported,
                       fmt::format("{} takes {}, not {}", request.path, fmt::join(methods, ", "), request.method));
  response.headers.emplace_back("Allow", fmt::format("{}", fmt::join(methods, ", ")));
  return response;
}

Task<HttpResponse> Rest::handle(HttpRequest request) {
  const std::string_view method = request.method == "HEAD" ? std::string_view("GET") : request.method;
  std::string name;
  const auto route = std::ranges::find_if(
      routes_, [&](const Route& each) { return each.method == method && matches(each.path, request.path, name); });
  if (route == routes_.end()) co_return refuse_address(request);
  for (const auto& [parameter, value] : request.query) {
    if (std::ranges::find(route->parameters, parameter) != route->parameters.end()) continue;
    co_return problem_response(
        400, Code::kInvalidArgument,
        route->parameters.empty()
            ? fmt::format("{}: {} takes no parameters", parameter, route->path)
            : fmt::format("{}: {} takes only {}", parameter, route->path, fmt::join(route->parameters, ", ")));
  }
  if (route->path.starts_with("/v1/")) co_await await_leader();
  Outcome<HttpResponse> response =
      co_await (this->*route->run)(Call{.request = std::move(request), .kind = route->kind, .name = std::move(name)});
  if (response) co_return std::move(*response);
  co_return co_await explain(std::move(response.error()));
}

// Between two leaders, or while this one begins, a request is held for a moment: nobody has to ask again who asks right
// after a restart.
Task<void> Rest::await_leader() {
  const Instant until = home_.reactor.now() + kLeaderPatience;
  while (!control_.is_leading() && !is_closing_ && home_.reactor.now() < until) {
    const Outcome<std::string> leader = co_await store_.leader_address();
    if (leader && !leader->empty() && *leader != options_.address) co_return;
    const Alarm alarm(home_.reactor, control_.changed(), home_.reactor.now() + kLeaderLook);
    if (!control_.is_leading()) co_await control_.changed().wait();
  }
}

// Where another one is that leads. Error kUnreachable: there is none, or it is not known.
Task<Outcome<std::string>> Rest::find_leader() {
  Outcome<std::string> leader = co_await store_.leader_address();
  if (!leader || leader->empty()) {
    co_return problem(Code::kUnreachable, "no control process leads the cluster now; ask again in a few seconds");
  }
  if (*leader == options_.address) {
    co_return problem(Code::kUnreachable, "this control process begins to lead the cluster; ask again in a second");
  }
  co_return leader;
}

// Whoever does not lead says who does.
Task<HttpResponse> Rest::explain(Problem problem) {
  HttpResponse response = problem_response(problem);
  if (response.status != 503 || control_.is_leading()) co_return response;
  const Outcome<std::string> leader = co_await find_leader();
  if (!leader) co_return problem_response(leader.error());
  response = problem_response(
      503, problem.error.code,
      fmt::format("this control process does not lead the cluster; ask the one that does: {}", *leader));
  Json json = Json::parse(response.body);
  json["leader"] = *leader;
  response.body = control::to_text(json) + "\n";
  co_return response;
}

// ---- The process

Rest::Answer Rest::live(Call) { co_return text_response("alive\n"); }

Rest::Answer Rest::ready(Call) {
  if (control_.is_leading()) co_return text_response("leads\n");
  FL_CO_TRY(const std::string leader, co_await find_leader());
  co_return text_response(fmt::format("stands by for {}\n", leader));
}

Rest::Answer Rest::metrics(Call) {
  MetricsSource source;
  source.is_leading = control_.is_leading();
  if (source.is_leading) {
    const auto& events = control_.events().list();
    source.events = events.empty() ? 0 : events.back().number;
    FL_CO_TRY(source.nodes, control_.api().list("nodes", {}));
    FL_CO_TRY(source.pools, control_.api().list("pools", {}));
    FL_CO_TRY(source.volumes, control_.api().list("volumes", {}));
  }
  HttpResponse response = text_response(metrics_of(source));
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  co_return response;
}

Rest::Answer Rest::index(Call) {
  Json json = {{"name", "fairlead"}, {"version", options_.version}, {"leading", control_.is_leading()}};
  json["routes"] = routes();
  co_return json_response(json);
}

// ---- Everything at once

Rest::Answer Rest::overview(Call) {
  FL_CO_TRY(const Json json, control_.api().overview());
  co_return json_response(json);
}

Rest::Answer Rest::recover(Call) {
  FL_CO_TRY(const Json json, co_await control_.api().recover());
  co_return json_response(json);
}

// There is one document.
Rest::Answer Rest::settings(Call call) {
  call.name = control::Settings::kName;
  co_return co_await get(std::move(call));
}

Rest::Answer Rest::change_settings(Call call) {
  call.name = control::Settings::kName;
  co_return co_await update(std::move(call));
}

Rest::Answer Rest::events(Call call) {
  uint64_t after = 0;
  if (const std::string* const text = find_parameter(call.request, "after")) {
    FL_CO_PARSE(after, parse_number("after", *text));
  }
  if (!control_.is_leading()) co_return problem(Code::kUnreachable, "");
  Json items = control_.api().events(after, parameter(call.request, "resource"));
  co_return json_response({{"items", std::move(items)}});
}

Rest::Answer Rest::watch(Call call) {
  WatchOptions options;
  const auto kinds = call.request.query.equal_range("kind");
  for (auto kind = kinds.first; kind != kinds.second; ++kind) {
    if (kind->second != "events" && std::ranges::find(kKinds, kind->second) == std::end(kKinds)) {
      co_return problem_response(
          400, Code::kInvalidArgument,
          fmt::format("kind: there are no {}; there are {} and events", kind->second, fmt::join(kKinds, ", ")));
    }
    options.kinds.insert(kind->second);
  }
  FL_CO_PARSE(options.selection, selection_of(call.request));
  // What browsers send when they connect anew.
  std::string after(call.request.header("last-event-id"));
  if (const std::string* const text = find_parameter(call.request, "after")) after = *text;
  if (!after.empty()) {
    FL_CO_PARSE(options.after_event, parse_number("after", after));
  }
  if (!control_.is_leading()) co_return problem(Code::kUnreachable, "");
  HttpResponse response;
  response.content_type = "text/event-stream";
  response.feed = watches_.open(std::move(options));
  co_return response;
}

// ---- Resources

Rest::Answer Rest::list(Call call) {
  FL_CO_PARSE(const control::Selection selection, selection_of(call.request));
  uint64_t limit = 0;
  if (const std::string* const text = find_parameter(call.request, "limit")) {
    FL_CO_PARSE(limit, parse_number("limit", *text));
    if (limit == 0 || limit > kLimitMax) {
      co_return problem_response(400, Code::kInvalidArgument, fmt::format("limit: expected 1 to {}", kLimitMax));
    }
  }
  const std::string after = parameter(call.request, "continue");
  FL_CO_TRY(std::vector<Json> all, control_.api().list(call.kind, selection));
  const auto name_of = [&](const Json& each) -> const std::string& {
    return each[call.kind == "replicas" ? "id" : "name"].get_ref<const std::string&>();
  };
  std::ranges::sort(all, {}, name_of);
  Json items = Json::array();
  std::string last;
  bool is_cut = false;
  for (Json& each : all) {
    // Replicas have no labels.
    if (call.kind == "replicas" && !selection.labels.empty()) break;
    if (!after.empty() && name_of(each) <= after) continue;
    is_cut = limit != 0 && items.size() == limit;
    if (is_cut) break;
    last = name_of(each);
    items.push_back(with_name(call.kind, std::move(each)));
  }
  Json json = {{"items", std::move(items)}};
  if (is_cut) json["continue"] = last;
  co_return json_response(json);
}

Rest::Answer Rest::get(Call call) {
  FL_CO_TRY(Json json, control_.api().get(call.kind, call.name));
  co_return json_response(with_name(call.kind, std::move(json)));
}

Rest::Answer Rest::why(Call call) {
  FL_CO_TRY(const std::vector<std::string> lines, control_.api().why(call.kind, call.name));
  co_return json_response({{"resource", control::key_of(call.kind, call.name)}, {"lines", lines}});
}

bool Rest::is_there(std::string_view kind, const std::string& name) const {
  const control::Cluster& cluster = control_.cluster();
  if (kind == control::Pool::kKind) return cluster.find<control::Pool>(name) != nullptr;
  if (kind == control::Volume::kKind) return cluster.find<control::Volume>(name) != nullptr;
  if (kind == control::Snapshot::kKind) return cluster.find<control::Snapshot>(name) != nullptr;
  return control_.api().get(kind, name).has_value();
}

Rest::Answer Rest::create(Call call) {
  FL_CO_PARSE(Json document, body_of(call.request));
  const bool was_there = document.contains("name") && document["name"].is_string() &&
                         is_there(call.kind, document["name"].get<std::string>());
  const Outcome<Json> made = co_await control_.api().create(std::string(call.kind), std::move(document));
  if (made) {
    HttpResponse response = json_response(*made, was_there ? 200 : 201);
    if (!was_there) {
      response.headers.emplace_back("Location",
                                    fmt::format("/v1/{}/{}", call.kind, (*made)["name"].get<std::string>()));
    }
    co_return response;
  }
  // It is not the address that is not there.
  if (made.error().error.code != Code::kNotFound) co_return std::unexpected(made.error());
  co_return problem_response(422, Code::kNotFound, to_string(made.error()));
}

Rest::Answer Rest::update(Call call) {
  FL_CO_PARSE(Json patch, body_of(call.request));
  FL_CO_PARSE(const std::optional<uint64_t> revision, revision_of(call.request));
  FL_CO_TRY(const Json json,
            co_await control_.api().update(std::string(call.kind), call.name, std::move(patch), revision));
  co_return json_response(json);
}

Rest::Answer Rest::remove(Call call) {
  FL_CO_PARSE(const std::optional<uint64_t> revision, revision_of(call.request));
  FL_CO_TRY_VOID(co_await control_.api().remove(std::string(call.kind), call.name, revision));
  const Outcome<Json> left = control_.api().get(call.kind, call.name);
  if (left) co_return json_response(*left, 202);
  if (left.error().error.code != Code::kNotFound) co_return std::unexpected(left.error());
  HttpResponse response;
  response.status = 204;
  co_return response;
}

Rest::Answer Rest::force(Call call) {
  FL_CO_PARSE(const Json json, body_of(call.request));
  const std::string replica = json.value("replica", Json()).is_string() ? json["replica"].get<std::string>() : "";
  if (!parse_uuid(replica) || json.size() != 1) {
    co_return problem_response(422, Code::kInvalidArgument,
                               "replica: expected the id of the replica to trust, and nothing else");
  }
  FL_CO_TRY_VOID(co_await control_.api().force(call.name, replica));
  FL_CO_TRY(const Json volume, control_.api().get(call.kind, call.name));
  co_return json_response(volume);
}

Rest::Answer Rest::frozen(Call call) {
  FL_CO_PARSE(const Json json, body_of(call.request));
  const std::string request = json.value("request", Json()).is_string() ? json["request"].get<std::string>() : "";
  const std::string state = json.value("state", Json()).is_string() ? json["state"].get<std::string>() : "";
  using control::FreezeAnswer;
  const FreezeAnswer answer = state == "thawed" ? FreezeAnswer::kThawed : FreezeAnswer::kFrozen;
  if (request.empty() || state != control::name_of(answer) || json.size() != 2) {
    co_return problem_response(422, Code::kInvalidArgument,
                               "expected the request that is answered, the state frozen or thawed, and nothing else");
  }
  FL_CO_TRY(const Json volume, control_.api().get(call.kind, call.name));
  FL_CO_TRY(Json patch, control::freeze_answer_patch(volume, request, answer));
  FL_CO_TRY(const Json changed, co_await control_.api().update(std::string(call.kind), call.name, std::move(patch),
                                                               volume["revision"].get<uint64_t>()));
  co_return json_response(changed);
}

}  // namespace fairlead::gateway
