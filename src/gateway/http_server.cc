#include "gateway/http_server.h"

#include <algorithm>
#include <atomic>
#include <fmt/format.h>
#include <future>
#include <httplib.h>
#include <map>
#include <thread>

#include "async/scope.h"
#include "base/check.h"
#include "base/log.h"
#include "io/outside_thread.h"
#include "io/worker.h"

namespace fairlead::gateway {
namespace {

constexpr size_t kTargetBytesMax = 4096;
constexpr size_t kPathBytesMax = 1024;
constexpr size_t kRequestsOfAConnectionMax = 1000;
constexpr size_t kThreadsSpare = 4;  // fewer are free: connections are not kept
constexpr Duration kLingering = std::chrono::seconds(2);

// What one thread knows of the request that it reads.
struct Reading {
  std::optional<HttpResponse> refusal;
  bool has_head = false;
  size_t head_bytes = 0;
};

class ConnectionStream final : public httplib::Stream {
 public:
  ConnectionStream(Connection& connection, Reading& reading, size_t head_bytes_max)
      : connection_(connection), reading_(reading), head_bytes_max_(head_bytes_max) {}

  bool is_readable() const override { return true; }
  bool is_writable() const override { return true; }
  ssize_t read(char* into, size_t size) override {
    if (!reading_.has_head && ++reading_.head_bytes > head_bytes_max_) return -1;
    return connection_.read({into, size});
  }
  ssize_t write(const char* bytes, size_t size) override {
    return connection_.write({bytes, size}) ? static_cast<ssize_t>(size) : -1;
  }
  void get_remote_ip_and_port(std::string&, int&) const override {}
  void get_local_ip_and_port(std::string&, int&) const override {}
  socket_t socket() const override { return INVALID_SOCKET; }

 private:
  Connection& connection_;
  Reading& reading_;
  const size_t head_bytes_max_;
};

std::string lower_case(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

HttpRequest to_request(const httplib::Request& from) {
  HttpRequest request{.method = from.method, .path = from.path};
  for (const auto& [name, value] : from.params) request.query.emplace(name, value);
  for (const auto& [name, value] : from.headers) request.headers.emplace(lower_case(name), value);
  return request;
}

// Why a request is not even read to its end.
std::optional<HttpResponse> refuse(const HttpRequest& request, size_t target_bytes, const HttpServerOptions& options) {
  if (target_bytes > kTargetBytesMax || request.path.size() > kPathBytesMax) {
    return problem_response(414, Code::kInvalidArgument, "the address is too long");
  }
  if (std::optional<HttpResponse> refusal = options.access.refuse(request)) return refusal;
  if (!request.header("transfer-encoding").empty()) {
    return problem_response(411, Code::kNotSupported, "send the body in one piece, with a Content-Length");
  }
  if (!request.header("content-encoding").empty()) {
    return problem_response(415, Code::kNotSupported, "send the body as it is, without a Content-Encoding");
  }
  const bool takes_body =
      request.method == "POST" || request.method == "PATCH" || request.method == "PUT" || request.method == "DELETE";
  if (!takes_body && request.method != "GET" && request.method != "HEAD") {
    return problem_response(405, Code::kNotSupported, "nothing here takes " + request.method);
  }
  const std::string_view length = request.header("content-length");
  if (!takes_body && !length.empty() && length != "0") {
    return problem_response(400, Code::kInvalidArgument, request.method + " has no body");
  }
  const bool is_number = length.find_first_not_of("0123456789") == std::string_view::npos;
  if (!is_number) return problem_response(400, Code::kInvalidArgument, "the Content-Length is no number");
  if (length.size() > 18 || (!length.empty() && std::stoull(std::string(length)) > options.body_bytes_max)) {
    return problem_response(413, Code::kResourceExhausted,
                            fmt::format("the body is too long: {} bytes are the most", options.body_bytes_max));
  }
  const std::string_view type = request.header("content-type");
  if (!length.empty() && length != "0" && !type.starts_with("application/json") &&
      !type.starts_with("application/merge-patch+json")) {
    return problem_response(415, Code::kInvalidArgument,
                            "send the body as JSON, with the header 'Content-Type: application/json'");
  }
  return {};
}

void fill(httplib::Response& to, HttpResponse& from) {
  to.status = from.status;
  to.reason = status_phrase(from.status);
  for (const auto& [name, value] : from.headers) to.set_header(name, value);
  if (!from.body.empty()) to.set_content(from.body, from.content_type);
}

}  // namespace

// Made and destroyed on home; its threads are elsewhere.
class HttpServer::State final : public httplib::Server {
 public:
  State(Reactor& home, HttpHandler& handler, const HttpServerOptions& options, std::unique_ptr<Listener> listener)
      : handler_(handler), options_(options), listener_(std::move(listener)), scope_(home) {
    define();
  }
  void start();
  Task<void> stop();

 private:
  struct Answer {
    HttpResponse response;
    uint64_t feed = 0;                 // 0: it has none
    std::optional<std::string> piece;  // of a feed; none: that is over
  };
  // What a thread asks of home. shared_ptr: a thread may give it up before home has answered.
  struct Exchange : Runnable {
    explicit Exchange(State& owner) : Runnable(on_arrival), state(owner) {}
    static void on_arrival(Runnable& self);

    State& state;
    HttpRequest request;
    uint64_t feed = 0;  // instead of the request
    bool ends_feed = false;
    std::promise<Answer> answer;
    std::shared_ptr<Exchange> self;  // until it arrives
  };

  void define();
  void serve_clients();
  void serve(Connection& connection);
  void handle(const httplib::Request& request, httplib::Response& response);
  std::optional<Answer> ask(std::shared_ptr<Exchange> exchange);
  bool feed(uint64_t number, httplib::DataSink& sink);
  void end_feed(uint64_t number);
  Task<void> answer(std::shared_ptr<Exchange> exchange);

  HttpHandler& handler_;
  const HttpServerOptions& options_;
  const std::unique_ptr<Listener> listener_;
  std::vector<std::thread> threads_;
  std::atomic<size_t> busy_ = 0;
  std::atomic<size_t> feeding_ = 0;
  // Of this thread: what its connection reads, and whom it serves.
  static thread_local Reading* reading;
  static thread_local Connection* client;
  // Home's.
  Scope scope_;
  std::map<uint64_t, std::shared_ptr<HttpFeed>> feeds_;  // shared with a next() that is under way
  uint64_t last_feed_ = 0;
};

thread_local Reading* HttpServer::State::reading = nullptr;
thread_local Connection* HttpServer::State::client = nullptr;

// ---- On home

void HttpServer::State::Exchange::on_arrival(Runnable& self) {
  auto& exchange = static_cast<Exchange&>(self);
  exchange.state.scope_.spawn(exchange.state.answer(std::move(exchange.self)));
}

Task<void> HttpServer::State::answer(std::shared_ptr<Exchange> exchange) {
  Answer answer;
  if (exchange->ends_feed) {
    feeds_.erase(exchange->feed);
  } else if (exchange->feed != 0) {
    const auto found = feeds_.find(exchange->feed);
    const std::shared_ptr<HttpFeed> feed = found == feeds_.end() ? nullptr : found->second;
    if (feed != nullptr) answer.piece = co_await feed->next();
  } else {
    answer.response = co_await handler_.handle(std::move(exchange->request));
    if (answer.response.feed != nullptr) {
      answer.feed = ++last_feed_;
      feeds_[answer.feed] = std::move(answer.response.feed);
    }
  }
  exchange->answer.set_value(std::move(answer));
}

// ---- On the threads

std::optional<HttpServer::State::Answer> HttpServer::State::ask(std::shared_ptr<Exchange> exchange) {
  std::future<Answer> answer = exchange->answer.get_future();
  exchange->self = exchange;
  deliver(scope_.reactor(), *exchange);
  if (answer.wait_for(options_.answer_limit) != std::future_status::ready) return {};
  return answer.get();
}

void HttpServer::State::handle(const httplib::Request& request, httplib::Response& response) {
  auto exchange = std::make_shared<Exchange>(*this);
  exchange->request = to_request(request);
  exchange->request.body = request.body;
  std::optional<Answer> answer = ask(exchange);
  if (!answer) {
    HttpResponse late = problem_response(
        504, Code::kTimedOut,
        fmt::format("there is no answer after {} s; it may have been done nevertheless: look before you ask again",
                    options_.answer_limit / std::chrono::seconds(1)));
    return fill(response, late);
  }
  const uint64_t number = answer->feed;
  if (number == 0) return fill(response, answer->response);
  if (++feeding_ > options_.feeds_max) {
    end_feed(number);
    HttpResponse refusal = problem_response(
        503, Code::kResourceExhausted,
        fmt::format("{} clients watch already, which is the limit: ask again later", options_.feeds_max));
    return fill(response, refusal);
  }
  fill(response, answer->response);
  response.set_chunked_content_provider(
      answer->response.content_type, [this, number](size_t, httplib::DataSink& sink) { return feed(number, sink); },
      [this, number](bool) { end_feed(number); });
}

bool HttpServer::State::feed(uint64_t number, httplib::DataSink& sink) {
  if (client->is_gone()) return false;
  auto exchange = std::make_shared<Exchange>(*this);
  exchange->feed = number;
  const std::optional<Answer> answer = ask(exchange);
  if (!answer) return false;
  if (!answer->piece || listener_->is_shut_down()) {
    sink.done();
    return true;
  }
  return answer->piece->empty() || sink.write(answer->piece->data(), answer->piece->size());
}

void HttpServer::State::end_feed(uint64_t number) {
  --feeding_;
  auto exchange = std::make_shared<Exchange>(*this);
  exchange->feed = number;
  exchange->ends_feed = true;
  (void)ask(exchange);
}

void HttpServer::State::define() {
  set_pre_routing_handler([](const httplib::Request&, httplib::Response& response) {
    if (!reading->refusal) return HandlerResponse::Unhandled;
    fill(response, *reading->refusal);
    return HandlerResponse::Handled;
  });
  const auto handler = [this](const httplib::Request& request, httplib::Response& response) {
    handle(request, response);
  };
  Get(".*", handler).Post(".*", handler).Put(".*", handler).Patch(".*", handler).Delete(".*", handler);
  // What is no request that the above would see.
  set_error_handler(HandlerWithResponse([](const httplib::Request&, httplib::Response& response) {
    if (!response.body.empty()) return HandlerResponse::Unhandled;
    const int status = response.status;
    HttpResponse problem = problem_response(
        status, status == 404 ? Code::kNotFound : Code::kInvalidArgument,
        status == 404 ? "there is no such address; GET /v1 tells what there is" : "the request cannot be understood");
    fill(response, problem);
    return HandlerResponse::Handled;
  }));
  set_exception_handler([](const httplib::Request&, httplib::Response& response, std::exception_ptr) {
    HttpResponse problem = problem_response(500, Code::kInternal, "a defect of Fairlead: see its log");
    log_error("http.exception");
    fill(response, problem);
  });
  set_default_headers({{"Cache-Control", "no-store"}, {"X-Content-Type-Options", "nosniff"}});
  set_payload_max_length(options_.body_bytes_max);
  svr_sock_ = listener_->descriptor();
}

void HttpServer::State::serve(Connection& connection) {
  Reading now;
  reading = &now;
  client = &connection;
  ConnectionStream stream(connection, now, options_.head_bytes_max);
  const auto after_head = [this](httplib::Request& request) {
    reading->has_head = true;
    if (!request.has_header("Content-Length")) request.set_header("Content-Length", "0");
    request.ranges.clear();
    reading->refusal = refuse(to_request(request), request.target.size(), options_);
    if (!reading->refusal) return;
    request.headers.erase("Connection");
    request.set_header("Connection", "close");
  };
  Duration limit = options_.receive_limit;
  for (size_t requests = 0; requests < kRequestsOfAConnectionMax; ++requests) {
    if (!connection.wait_for_request(limit)) return;
    now = {};
    connection.limit_reading(options_.receive_limit);
    const bool is_last = listener_->is_shut_down() || busy_ + kThreadsSpare > options_.threads ||
                         requests + 1 == kRequestsOfAConnectionMax;
    bool is_closed = false;
    const bool is_done = process_request(stream, is_last, is_closed, after_head);
    if (now.refusal || !is_done || !now.has_head) return connection.linger(kLingering);
    if (is_last || is_closed) return;
    limit = options_.idle_limit;
  }
}

void HttpServer::State::serve_clients() {
  TlsKeeper tls(options_.certificate, options_.certificate_age_max);
  for (int socket = listener_->accept(); socket >= 0; socket = listener_->accept()) {
    ++busy_;
    {
      SSL_CTX* const context = tls.context();
      Connection connection(socket, *listener_, context, options_.send_limit);
      const bool is_safe = !options_.certificate || context != nullptr;
      if (is_safe && connection.open(options_.receive_limit)) serve(connection);
    }
    --busy_;
  }
}

void HttpServer::State::start() {
  const SignalsBlocked blocked;
  for (size_t i = 0; i < options_.threads; ++i) threads_.emplace_back([this] { serve_clients(); });
}

Task<void> HttpServer::State::stop() {
  listener_->shut_down();
  Worker worker(scope_.reactor(), "http-stop");
  co_await worker.run([this] {
    for (std::thread& thread : threads_) thread.join();
  });
  co_await scope_.close();
}

HttpServer::HttpServer(Reactor& home, HttpHandler& handler, HttpServerOptions options)
    : home_(home), handler_(handler), options_(std::move(options)) {}

HttpServer::~HttpServer() { FL_CHECK(state_ == nullptr); }

Outcome<uint16_t> HttpServer::start() {
  FL_CHECK(state_ == nullptr);
  if (options_.certificate) {
    FL_TRY(const TlsContext good, make_tls_context(*options_.certificate));
  }
  FL_TRY(std::unique_ptr<Listener> listener, Listener::open(options_.address));
  const uint16_t port = listener->port();
  state_ = std::make_unique<State>(home_, handler_, options_, std::move(listener));
  state_->start();
  log_info("http.serves", {{"address", options_.address}, {"port", port}, {"tls", options_.certificate.has_value()}});
  return port;
}

Task<void> HttpServer::stop() {
  if (state_ == nullptr) co_return;
  co_await state_->stop();
  state_.reset();
  log_info("http.stopped");
}

}  // namespace fairlead::gateway
