#include "kube/http_api.h"

#include <atomic>
#include <fmt/format.h>
#include <fstream>
#include <httplib.h>

#include "io/worker.h"

namespace fairlead::kube {

using control::text_of;

Problem problem_of_status(int status, const Json& document) {
  const std::string reason = text_of(document, "reason");
  Code code = Code::kUnreachable;
  if (status == 400 || status == 422) code = Code::kInvalidArgument;
  if (status == 401 || status == 403) code = Code::kPermissionDenied;
  if (status == 404) code = Code::kNotFound;
  if (status == 409) code = reason == "AlreadyExists" ? Code::kAlreadyExists : Code::kMiscompare;
  if (status == 410) code = Code::kOutOfRange;
  if (status == 504) code = Code::kTimedOut;
  const std::string message = text_of(document, "message");
  return problem(code, fmt::format("the API server answers: {}",
                                   message.empty() ? fmt::format("status {}", status) : message))
      .error();
}

namespace {

// One connection to the API server. Lives on a worker's thread, but for interrupt().
class KubeConnection {
 public:
  explicit KubeConnection(KubeServer server);

  Outcome<Json> call(const RestRequest& request);
  Outcome<std::vector<Json>> watch(const std::string& path);
  // From any thread, for good.
  void interrupt();

 private:
  Outcome<httplib::Headers> headers() const;
  httplib::Result send(const RestRequest& request, const httplib::Headers& headers);
  Problem problem_of(httplib::Error error) const;

  const KubeServer server_;
  httplib::Client client_;
  std::atomic<bool> is_interrupted_ = false;  // by the shard, for the worker
};

KubeConnection::KubeConnection(KubeServer server) : server_(std::move(server)), client_(server_.url) {
  client_.set_keep_alive(true);
  client_.set_tcp_nodelay(true);
  client_.set_connection_timeout(server_.connect_limit);
  client_.set_read_timeout(server_.answer_limit);
  client_.set_write_timeout(server_.answer_limit);
  if (!server_.ca_file.empty()) client_.set_ca_cert_path(server_.ca_file);
}

void KubeConnection::interrupt() {
  is_interrupted_ = true;
  client_.stop();
}

Outcome<httplib::Headers> KubeConnection::headers() const {
  httplib::Headers headers = {{"Accept", "application/json"}};
  if (server_.token_file.empty()) return headers;
  std::ifstream file(server_.token_file);
  std::string token;
  if (!(file >> token)) {
    return problem(Code::kPermissionDenied, fmt::format("{}: no token can be read", server_.token_file));
  }
  headers.emplace("Authorization", "Bearer " + token);
  return headers;
}

Problem KubeConnection::problem_of(httplib::Error error) const {
  const bool is_late = error == httplib::Error::Read || error == httplib::Error::Write;
  return problem(is_late ? Code::kTimedOut : Code::kUnreachable,
                 fmt::format("the API server at {}: {}", server_.url, httplib::to_string(error)))
      .error();
}

httplib::Result KubeConnection::send(const RestRequest& request, const httplib::Headers& headers) {
  switch (request.method) {
    case RestMethod::kPost:
      return client_.Post(request.path, headers, control::to_text(request.body), "application/json");
    case RestMethod::kPatch:
      return client_.Patch(request.path, headers, control::to_text(request.body), "application/merge-patch+json");
    case RestMethod::kDelete:
      return client_.Delete(request.path, headers);
    default:
      return client_.Get(request.path, headers);
  }
}

Outcome<Json> KubeConnection::call(const RestRequest& request) {
  FL_TRY(const httplib::Headers sent, headers());
  httplib::Result result = send(request, sent);
  // A connection that was kept may have been closed there meanwhile. Whatever is asked for may be asked for twice.
  if (!result && (result.error() == httplib::Error::Read || result.error() == httplib::Error::Write)) {
    result = send(request, sent);
  }
  if (!result) return std::unexpected(problem_of(result.error()));
  Json document = result->body.empty() ? Json() : control::parse_json(result->body).value_or(Json());
  if (result->status >= 200 && result->status < 300) return document;
  return std::unexpected(problem_of_status(result->status, document));
}

Outcome<std::vector<Json>> KubeConnection::watch(const std::string& path) {
  FL_TRY(const httplib::Headers sent, headers());
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(server_.watch_limit).count();
  client_.set_read_timeout(server_.watch_limit + server_.answer_limit);
  std::vector<Json> events;
  std::string rest;
  int status = 0;
  bool is_enough = false;
  const httplib::Result result = client_.Get(
      fmt::format("{}&timeoutSeconds={}", path, seconds), sent,
      [&](const httplib::Response& response) {
        status = response.status;
        return !is_interrupted_;
      },
      [&](const char* bytes, size_t size) {
        rest.append(bytes, size);
        if (status != 200) return true;
        size_t begin = 0;
        for (size_t end = rest.find('\n'); end != std::string::npos; end = rest.find('\n', begin)) {
          events.push_back(control::parse_json(std::string_view(rest).substr(begin, end - begin)).value_or(Json()));
          begin = end + 1;
        }
        rest.erase(0, begin);
        // What follows is read from there on.
        is_enough = !events.empty();
        return !is_enough && !is_interrupted_;
      });
  if (status != 0 && status != 200) {
    return std::unexpected(problem_of_status(status, control::parse_json(rest).value_or(Json())));
  }
  if (!result && !is_enough) return std::unexpected(problem_of(result.error()));
  for (const Json& event : events) {
    const Json& object = control::field(event, "object");
    if (text_of(event, "type") != "ERROR") continue;
    return std::unexpected(problem_of_status(static_cast<int>(control::number_of(object, "code")), object));
  }
  return events;
}

class HttpKubeApi final : public Api {
 public:
  HttpKubeApi(Reactor& home, KubeServer server, const char* thread)
      : connection_(std::move(server)), worker_(home, thread) {}
  Task<Outcome<Json>> call(RestRequest request) override {
    co_return co_await worker_.run([this, &request] { return connection_.call(request); });
  }

 private:
  KubeConnection connection_;
  Worker worker_;
};

class HttpWatchApi final : public WatchApi {
 public:
  HttpWatchApi(Reactor& home, KubeServer server) : connection_(std::move(server)), worker_(home, "kube-watch") {}
  Task<Outcome<std::vector<Json>>> watch(std::string path) override {
    co_return co_await worker_.run([this, &path] { return connection_.watch(path); });
  }
  void interrupt() override { connection_.interrupt(); }

 private:
  KubeConnection connection_;
  Worker worker_;
};

class HttpControlApi final : public Api {
 public:
  HttpControlApi(Reactor& home, control::ServerOptions options)
      : client_(std::move(options)), worker_(home, "control-rest") {}
  Task<Outcome<Json>> call(RestRequest request) override {
    co_return co_await worker_.run([this, &request] { return client_.call(request); });
  }

 private:
  control::RestClient client_;
  Worker worker_;
};

}  // namespace

std::unique_ptr<Api> make_kube_api(Reactor& home, KubeServer server, const char* thread) {
  return std::make_unique<HttpKubeApi>(home, std::move(server), thread);
}
std::unique_ptr<WatchApi> make_watch_api(Reactor& home, KubeServer server) {
  return std::make_unique<HttpWatchApi>(home, std::move(server));
}
std::unique_ptr<Api> make_control_api(Reactor& home, control::ServerOptions options) {
  return std::make_unique<HttpControlApi>(home, std::move(options));
}

}  // namespace fairlead::kube
