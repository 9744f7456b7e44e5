#include "gateway/http_server.h"

#include <algorithm>
#include <arpa/inet.h>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <openssl/bio.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

#include "async/cancel.h"
#include "async/event.h"
#include "async/scope.h"
#include "base/check.h"
#include "io/runtime.h"
#include "io/worker.h"

namespace fairlead::gateway {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Pieces as they are given to it, then the end.
class TestFeed final : public HttpFeed {
 public:
  explicit TestFeed(size_t& alive, size_t pieces) : alive_(alive), pieces_(pieces) { ++alive_; }
  ~TestFeed() override { --alive_; }
  Task<std::optional<std::string>> next() override {
    if (given_ == pieces_) co_return std::nullopt;
    co_return fmt::format("data: {} {}\n\n", given_++, std::string(pieces_ > 1000 ? 64 * 1024 : 0, 'x'));
  }

 private:
  size_t& alive_;
  const size_t pieces_;
  size_t given_ = 0;
};

class TestHandler final : public HttpHandler {
 public:
  explicit TestHandler(Reactor& home) : released(home) {}
  Task<HttpResponse> handle(HttpRequest request) override {
    ++requests;
    HttpResponse response;
    if (request.path == "/hold") co_await released.wait();
    if (request.path == "/feed" || request.path == "/flood") {
      response.content_type = "text/event-stream";
      response.feed = std::make_unique<TestFeed>(feeds, request.path == "/feed" ? 3 : 1'000'000);
      co_return response;
    }
    if (request.path == "/problem") co_return problem_response(404, Code::kNotFound, "not here");
    if (request.path == "/empty") {
      response.status = 204;
      co_return response;
    }
    response.body = fmt::format("{} {} {} {}", request.method, request.path,
                                request.query.empty() ? "" : request.query.begin()->second,
                                request.body.size() > 100 ? std::to_string(request.body.size()) : request.body);
    response.headers.emplace_back("ETag", "\"7\"");
    co_return response;
  }
  Event released;
  size_t requests = 0;
  size_t feeds = 0;
};

// A client on a thread that may block.
class Client {
 public:
  explicit Client(uint16_t port) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    FL_CHECK(::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
    const timeval limit = {.tv_sec = 60, .tv_usec = 0};
    FL_CHECK(::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0);
  }
  ~Client() { ::close(socket_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void send(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t count = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (count < 0) return;  // the server has had enough
      bytes.remove_prefix(static_cast<size_t>(count));
    }
  }
  void end_sending() const { ::shutdown(socket_, SHUT_WR); }
  // Up to the end, or until the text is there. Empty: neither came.
  std::string read_until(std::string_view text) {
    while (text.empty() || received_.find(text) == std::string::npos) {
      char bytes[4096];
      const ssize_t count = ::recv(socket_, bytes, sizeof(bytes), 0);
      if (count < 0) return is_reset() ? received_ : "";
      if (count == 0) return text.empty() ? received_ : "";
      received_.append(bytes, static_cast<size_t>(count));
    }
    return received_;
  }
  std::string read_all() { return read_until(""); }
  void forget() { received_.clear(); }
  bool was_closed() {
    char byte;
    const ssize_t count = ::recv(socket_, &byte, 1, 0);
    return count == 0 || (count < 0 && is_reset());
  }

 private:
  static bool is_reset() { return errno == ECONNRESET; }
  const int socket_;
  std::string received_;
};

std::string get(std::string_view path, std::string_view more = "") {
  return fmt::format("GET {} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", path, more);
}
std::string post(std::string_view body, std::string_view type = "application/json", std::string_view more = "") {
  return fmt::format("POST /thing HTTP/1.1\r\nHost: localhost\r\nContent-Type: {}\r\nContent-Length: {}\r\n{}\r\n{}",
                     type, body.size(), more, body);
}
// Its whole answer to what is asked last on a connection.
std::string ask(uint16_t port, std::string_view request) {
  Client client(port);
  client.send(request);
  client.end_sending();
  return client.read_all();
}
int status_of(std::string_view answer) {
  return answer.starts_with("HTTP/1.1 ") ? std::stoi(std::string(answer.substr(9, 3))) : 0;
}

using Scenario = void (*)(uint16_t port);
struct Served {
  size_t requests = 0;
  size_t feeds = 0;
};

Task<void> serve_scenario(Runtime& runtime, HttpServerOptions options, Scenario scenario, Served& served) {
  Reactor& home = runtime.shard(0).reactor;
  TestHandler handler(home);
  options.address = "127.0.0.1:0";
  HttpServer server(home, handler, options);
  const Outcome<uint16_t> port = server.start();
  EXPECT_TRUE(port) << to_string(port.error());
  if (!port) co_return;
  {
    Worker worker(home, "client");
    co_await worker.run([&] { scenario(*port); });
  }
  handler.released.set();
  co_await server.stop();
  served = {.requests = handler.requests, .feeds = handler.feeds};
}

Served run_scenario(Scenario scenario, HttpServerOptions options = {}) {
  Runtime runtime({.shards = 1, .poll = PollMode::kNever, .pinning = Pinning::kNone});
  FL_CHECK(runtime.start().has_value());
  Served served;
  runtime.run_on(0, serve_scenario(runtime, std::move(options), scenario, served));
  runtime.stop();
  EXPECT_EQ(served.feeds, 0U);
  return served;
}

TEST(HttpServerTest, AnswersOverOneConnectionAgainAndAgain) {
  const Served served = run_scenario([](uint16_t port) {
    Client client(port);
    for (int i = 0; i < 20; ++i) {
      client.send(get(fmt::format("/a%20b?x={}", i)));
      const std::string answer = client.read_until(fmt::format("GET /a b {} ", i));
      EXPECT_EQ(status_of(answer), 200) << answer;
      EXPECT_NE(answer.find("ETag: \"7\""), std::string::npos);
      EXPECT_NE(answer.find("X-Content-Type-Options: nosniff"), std::string::npos);
      client.forget();
    }
    client.send(post("{\"a\":1}") + get("/next"));  // two at once
    client.read_until("POST /thing  {\"a\":1}");
    EXPECT_NE(client.read_until("GET /next"), "");
    client.forget();
    client.send("DELETE /gone HTTP/1.1\r\nHost: localhost\r\n\r\n");  // without a length
    EXPECT_NE(client.read_until("DELETE /gone"), "");
    client.forget();
    client.send(
        "DELETE /x HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}");
    EXPECT_NE(client.read_until("DELETE /x  {}"), "");
    client.send(get("/last"));
    EXPECT_NE(client.read_until("GET /last"), "");
  });
  EXPECT_EQ(served.requests, 25U);
}

TEST(HttpServerTest, ProblemsAndEmptyAnswers) {
  run_scenario([](uint16_t port) {
    const std::string problem = ask(port, get("/problem", "Connection: close\r\n"));
    EXPECT_EQ(status_of(problem), 404);
    EXPECT_NE(problem.find("application/problem+json"), std::string::npos);
    EXPECT_NE(problem.find("not here"), std::string::npos);
    EXPECT_EQ(status_of(ask(port, get("/empty", "Connection: close\r\n"))), 204);
    const std::string head = ask(port, "HEAD /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    EXPECT_EQ(status_of(head), 200);
    EXPECT_EQ(head.find("HEAD /x"), std::string::npos);
  });
}

TEST(HttpServerTest, WhatIsTooMuchIsRefusedUnread) {
  const Served served = run_scenario([](uint16_t port) {
    EXPECT_EQ(status_of(ask(port, post(std::string(1024 * 1024 + 1, ' ')))), 413);
    EXPECT_EQ(status_of(ask(port, post(std::string(4 * 1024 * 1024, ' ')))), 413);
    EXPECT_EQ(status_of(ask(port, post("{}", "text/plain"))), 415);
    EXPECT_EQ(status_of(ask(port, post("{}", "application/json", "Content-Encoding: gzip\r\n"))), 415);
    EXPECT_EQ(
        status_of(ask(port, "POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        411);
    EXPECT_EQ(status_of(ask(port, "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n")), 400);
    EXPECT_EQ(status_of(ask(port, get("/" + std::string(2000, 'x')))), 414);
    EXPECT_EQ(status_of(ask(port, get("/" + std::string(20'000, 'x')))), 414);
    EXPECT_EQ(status_of(ask(port, "BREW /x HTTP/1.1\r\nHost: localhost\r\n\r\n")), 400);
    EXPECT_EQ(status_of(ask(port, "OPTIONS /x HTTP/1.1\r\nHost: localhost\r\n\r\n")), 405);
    EXPECT_EQ(status_of(ask(port, get("/", "Content-Length: 5\r\n") + "GET /")), 400);
    EXPECT_EQ(status_of(ask(port, "\r\n\r\n")), 400);
    EXPECT_EQ(status_of(ask(port, get("/", "Host: evil.example\r\nOrigin: http://evil.example\r\n"))), 403);
    EXPECT_EQ(status_of(ask(port, "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")), 421);
    std::string headers;
    for (int i = 0; i < 2000; ++i) headers += fmt::format("X-{}: {}\r\n", i, std::string(30, 'x'));
    EXPECT_NE(status_of(ask(port, get("/", headers))), 200);
  });
  EXPECT_EQ(served.requests, 0U);
}

TEST(HttpServerTest, ABodyOfTheSizeThatIsAllowedArrives) {
  const Served served = run_scenario([](uint16_t port) {
    const std::string answer =
        ask(port, post(std::string(1024 * 1024, ' '), "application/json", "Connection: close\r\n"));
    EXPECT_EQ(status_of(answer), 200);
    EXPECT_NE(answer.find("POST /thing  1048576"), std::string::npos) << answer;
  });
  EXPECT_EQ(served.requests, 1U);
}

TEST(HttpServerTest, TokensAreAskedFor) {
  constexpr const char* kAdmin = "abcdefghijklmnopqrstuvwxyz";
  constexpr const char* kViewer = "0123456789abcdef0123456789";
  const auto tokens = Tokens::parse(fmt::format("{} admin\n{} viewer\n", kAdmin, kViewer));
  const Served served = run_scenario(
      [](uint16_t port) {
        const auto bearer = [](const char* token) {
          return fmt::format("Connection: close\r\nAuthorization: Bearer {}\r\n", token);
        };
        const std::string refused = ask(port, get("/v1"));
        EXPECT_EQ(status_of(refused), 401);
        EXPECT_NE(refused.find("WWW-Authenticate: Bearer"), std::string::npos);
        EXPECT_EQ(status_of(ask(port, get("/v1", bearer("nobody")))), 401);
        EXPECT_EQ(status_of(ask(port, get("/v1", bearer(kViewer)))), 200);
        EXPECT_EQ(status_of(ask(port, post("{}", "application/json", bearer(kViewer)))), 403);
        EXPECT_EQ(status_of(ask(port, post("{}", "application/json", bearer(kAdmin)))), 200);
      },
      {.address = {}, .access = Access(*tokens)});
  EXPECT_EQ(served.requests, 2U);
}

// One whose bytes dribble in has no more time for it than another.
TEST(HttpServerTest, SlowClientsAreDropped) {
  HttpServerOptions options;
  options.receive_limit = milliseconds(300);
  options.idle_limit = milliseconds(200);
  const Served served = run_scenario(
      [](uint16_t port) {
        Client silent(port);
        Client half(port);
        half.send("GET / HTTP/1.1\r\nHost: loc");
        Client bodiless(port);
        bodiless.send(
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{");
        Client idle(port);
        idle.send(get("/"));
        EXPECT_NE(idle.read_until("GET / "), "");
        EXPECT_TRUE(silent.was_closed());
        EXPECT_NE(status_of(half.read_all()), 200);
        EXPECT_NE(status_of(bodiless.read_all()), 200);
        EXPECT_TRUE(idle.was_closed());
      },
      options);
  EXPECT_EQ(served.requests, 1U);
}

TEST(HttpServerTest, AnAnswerThatTakesTooLongIsGivenUp) {
  HttpServerOptions options;
  options.answer_limit = milliseconds(100);
  run_scenario(
      [](uint16_t port) {
        const std::string answer = ask(port, get("/hold", "Connection: close\r\n"));
        EXPECT_EQ(status_of(answer), 504);
        EXPECT_NE(answer.find("may have been done"), std::string::npos) << answer;
      },
      options);
}

TEST(HttpServerTest, FeedsFlowAndEnd) {
  run_scenario([](uint16_t port) {
    Client client(port);
    client.send(get("/feed", "Connection: close\r\n"));
    const std::string answer = client.read_all();
    EXPECT_EQ(status_of(answer), 200);
    EXPECT_NE(answer.find("Content-Type: text/event-stream"), std::string::npos);
    for (const char* piece : {"data: 0", "data: 1", "data: 2"}) {
      EXPECT_NE(answer.find(piece), std::string::npos) << answer;
    }
  });
}

Task<void> flood_a_silent_client(Runtime& runtime) {
  Reactor& home = runtime.shard(0).reactor;
  TestHandler handler(home);
  HttpServer server(home, handler, {.address = "127.0.0.1:0", .send_limit = milliseconds(100)});
  const uint16_t port = server.start().value();
  Client client(port);
  client.send(get("/flood"));
  while (handler.feeds == 0) (void)co_await sleep(home, milliseconds(1));
  while (handler.feeds == 1) (void)co_await sleep(home, milliseconds(1));
  co_await server.stop();
}

TEST(HttpServerTest, AFeedThatNobodyReadsIsDropped) {
  Runtime runtime({.shards = 1, .poll = PollMode::kNever, .pinning = Pinning::kNone});
  FL_CHECK(runtime.start().has_value());
  runtime.run_on(0, flood_a_silent_client(runtime));
  runtime.stop();
}

TEST(HttpServerTest, FeedsAreCounted) {
  HttpServerOptions options;
  options.feeds_max = 1;
  run_scenario(
      [](uint16_t port) {
        Client first(port);
        first.send(get("/flood"));
        EXPECT_NE(first.read_until("data: 0"), "");
        EXPECT_EQ(status_of(ask(port, get("/feed", "Connection: close\r\n"))), 503);
      },
      options);
}

Task<void> stop_amid_requests(Runtime& runtime) {
  Reactor& home = runtime.shard(0).reactor;
  TestHandler handler(home);
  HttpServer server(home, handler, {.address = "127.0.0.1:0"});
  const uint16_t port = server.start().value();
  Client idle(port);
  Client held(port);
  held.send(get("/hold"));
  while (handler.requests == 0) (void)co_await sleep(home, milliseconds(1));
  Scope scope(home);
  Event stopped(home);
  scope.spawn([](HttpServer& s, Event& e) -> Task<void> {
    co_await s.stop();
    e.set();
  }(server, stopped));
  // Whoever only listens is let go at once, whoever was promised an answer gets it.
  EXPECT_FALSE(stopped.is_set());
  handler.released.set();
  co_await stopped.wait();
  co_await scope.close();
  EXPECT_EQ(status_of(held.read_all()), 200);
  EXPECT_TRUE(idle.was_closed());
  // The address is free again.
  HttpServer next(home, handler, {.address = fmt::format("127.0.0.1:{}", port)});
  EXPECT_TRUE(next.start());
  HttpServer second(home, handler, {.address = fmt::format("127.0.0.1:{}", port)});
  EXPECT_EQ(second.start().error().error.code, Code::kBusy);
  co_await next.stop();
}

TEST(HttpServerTest, StopsInOrder) {
  Runtime runtime({.shards = 1, .poll = PollMode::kNever, .pinning = Pinning::kNone});
  FL_CHECK(runtime.start().has_value());
  runtime.run_on(0, stop_amid_requests(runtime));
  runtime.stop();
}

// ---- TLS

struct CertificateFiles {
  CertificateFiles() {
    folder = (std::filesystem::temp_directory_path() / "fairlead-http-XXXXXX").string();
    FL_CHECK(::mkdtemp(folder.data()) != nullptr);
    files = {.certificate = folder + "/own.pem", .key = folder + "/own.key"};
  }
  ~CertificateFiles() { std::filesystem::remove_all(folder); }
  void make(const std::string& name) const {
    const std::string command = fmt::format(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={} -keyout {} -out {} "
        "2>/dev/null",
        name, files.key, files.certificate);
    FL_CHECK(std::system(command.c_str()) == 0);
  }
  std::string folder;
  ServerCertificate files;
};

// The name in the server's certificate, when it answers a request by TLS.
std::string ask_by_tls(uint16_t port) {
  const TlsContext context(SSL_CTX_new(TLS_client_method()));
  const std::unique_ptr<BIO, decltype(&BIO_free_all)> connection(BIO_new_ssl_connect(context.get()), BIO_free_all);
  BIO_set_conn_hostname(connection.get(), fmt::format("127.0.0.1:{}", port).c_str());
  const std::string request = get("/secret", "Connection: close\r\n");
  if (BIO_do_connect(connection.get()) != 1 ||
      BIO_write(connection.get(), request.data(), static_cast<int>(request.size())) <= 0) {
    return "";
  }
  std::string answer;
  char bytes[4096];
  for (int count = 1; count > 0; answer.append(bytes, static_cast<size_t>(std::max(count, 0)))) {
    count = BIO_read(connection.get(), bytes, sizeof(bytes));
  }
  if (answer.find("GET /secret") == std::string::npos) return "";
  SSL* ssl = nullptr;
  BIO_get_ssl(connection.get(), &ssl);
  const std::unique_ptr<X509, decltype(&X509_free)> shown(SSL_get1_peer_certificate(ssl), X509_free);
  char name[100] = "";
  X509_NAME_get_text_by_NID(X509_get_subject_name(shown.get()), NID_commonName, name, sizeof(name));
  return name;
}

TEST(HttpServerTest, NewCertificatesAreTaken) {
  static const CertificateFiles certificate;
  certificate.make("first");
  HttpServerOptions options;
  options.certificate = certificate.files;
  options.certificate_age_max = {};
  options.receive_limit = milliseconds(500);
  run_scenario(
      [](uint16_t port) {
        EXPECT_EQ(ask_by_tls(port), "first");
        certificate.make("second");
        EXPECT_EQ(ask_by_tls(port), "second");
        // While they are no good the old one serves on; one of its threads may have none yet and serves nobody.
        std::filesystem::remove(certificate.files.key);
        const std::string name = ask_by_tls(port);
        EXPECT_TRUE(name.empty() || name == "first" || name == "second") << name;
        // In the clear there is no answer, whatever the files are.
        EXPECT_EQ(ask(port, get("/secret")).find("GET /secret"), std::string::npos);
        Client silent(port);
        EXPECT_TRUE(silent.was_closed());
      },
      options);
}

TEST(HttpServerTest, SaysWhyItCannotStart) {
  Reactor reactor({});
  TestHandler handler(reactor);
  const auto code_of = [&](HttpServerOptions options) {
    HttpServer server(reactor, handler, std::move(options));
    const auto started = server.start();
    EXPECT_FALSE(started);
    return started ? Code::kInternal : started.error().error.code;
  };
  EXPECT_EQ(code_of({.address = "nowhere:80"}), Code::kInvalidArgument);
  EXPECT_EQ(code_of({.address = "192.0.2.1:0"}), Code::kInvalidArgument);
  EXPECT_EQ(code_of({.address = "127.0.0.1:0", .certificate = ServerCertificate{"/none/a.pem", "/none/b.pem"}}),
            Code::kNotFound);
}

}  // namespace
}  // namespace fairlead::gateway
