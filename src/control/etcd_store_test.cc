// What only the store in etcd can suffer: a server that dies, pauses or is none, a lease that goes.
#include "control/etcd_store.h"

#include <array>
#include <atomic>
#include <fmt/format.h>
#include <httplib.h>
#include <netinet/in.h>
#include <nlohmann/json.hpp>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

#include "async/scope.h"
#include "tests/support/store_bed.h"

namespace fairlead::control {
namespace {

std::vector<Write> one(std::string key, std::string value) {
  std::vector<Write> writes;
  writes.push_back({.key = std::move(key), .value = std::move(value)});
  return writes;
}

// Accepts connections on loopback, and answers each request with the same bytes, or not at all, and a close.
class FakeServer {
 public:
  explicit FakeServer(std::string answer) : answer_(std::move(answer)) {
    socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    FL_CHECK(::bind(socket_, reinterpret_cast<sockaddr*>(&address), length) == 0);
    FL_CHECK(::getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &length) == 0);
    FL_CHECK(::listen(socket_, 8) == 0);
    url_ = "http://127.0.0.1:" + std::to_string(ntohs(address.sin_port));
    thread_ = std::thread([this] { main(); });
  }
  ~FakeServer() {
    ::shutdown(socket_, SHUT_RDWR);
    thread_.join();
    ::close(socket_);
  }
  const std::string& url() const { return url_; }
  int requests() const { return requests_; }

 private:
  void main() {
    while (true) {
      const int connection = ::accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC);
      if (connection < 0) return;
      std::array<char, 65536> bytes;
      if (::recv(connection, bytes.data(), bytes.size(), 0) > 0) ++requests_;
      if (!answer_.empty()) ::send(connection, answer_.data(), answer_.size(), MSG_NOSIGNAL);
      // Its body may still be under way: a close with unread bytes would reset what was answered.
      ::shutdown(connection, SHUT_WR);
      while (::recv(connection, bytes.data(), bytes.size(), 0) > 0) {
      }
      ::close(connection);
    }
  }
  const std::string answer_;
  int socket_ = -1;
  std::string url_;
  std::atomic<int> requests_ = 0;
  std::thread thread_;
};

std::string answer_of(std::string_view status, std::string_view body) {
  return fmt::format("HTTP/1.1 {}\r\nContent-Length: {}\r\n\r\n{}", status, body.size(), body);
}

// The port was free a moment ago: nobody listens there.
std::string dead_url() { return FakeServer("").url(); }

std::unique_ptr<EtcdClient> client_of(std::vector<std::string> endpoints) {
  auto client = EtcdClient::make({.endpoints = std::move(endpoints)});
  FL_CHECK(client.has_value());
  return std::move(*client);
}
template <typename T>
std::optional<Code> code_of(const Outcome<T>& outcome) {
  return outcome ? std::nullopt : std::optional(outcome.error().error.code);
}

TEST(EtcdClientTest, RefusesOptionsThatMakeNoSense) {
  for (const char* endpoint : {"", "127.0.0.1:2379", "http://127.0.0.1", "http://", "http://host:", "ftp://host:1",
                               "http://host:12a", "http://host:1/path"}) {
    EXPECT_EQ(code_of(EtcdClient::make({.endpoints = {endpoint}})), Code::kInvalidArgument) << endpoint;
  }
  EXPECT_EQ(code_of(EtcdClient::make({})), Code::kInvalidArgument);
  EXPECT_EQ(code_of(EtcdClient::make({.endpoints = {"http://h:1"}, .key_file = "k"})), Code::kInvalidArgument);
  const auto lost =
      EtcdClient::make({.endpoints = {"https://h:1"}, .certificate_file = "/no/such/file", .key_file = "/no/such/key"});
  EXPECT_EQ(code_of(lost), Code::kInvalidArgument);
  EXPECT_TRUE(EtcdClient::make({.endpoints = {"http://h:1", "https://[::1]:2379"}}).has_value());
}

TEST(EtcdClientTest, TellsWhoAnswersThere) {
  EXPECT_EQ(code_of(client_of({dead_url()})->range({.key = "k"})), Code::kUnreachable);
  for (const char* body : {"hi", "[]", "{}", "{\"kvs\":7}", "{\"header\":{\"revision\":\"x\"}}",
                           "{\"header\":{\"revision\":\"5\"},\"kvs\":[{\"key\":\"!\"}]}"}) {
    const FakeServer server(answer_of("200 OK", body));
    EXPECT_EQ(code_of(client_of({server.url()})->range({.key = "k"})), Code::kProtocol) << body;
    EXPECT_EQ(code_of(client_of({server.url()})->grant(3)), Code::kProtocol) << body;
  }
  const FakeServer missing(answer_of("404 Not Found", "none"));
  EXPECT_EQ(code_of(client_of({missing.url()})->range({.key = "k"})), Code::kProtocol);
  const FakeServer full(
      answer_of("429 Too Many Requests", "{\"message\":\"etcdserver: mvcc: database space exceeded\",\"code\":8}"));
  EXPECT_EQ(code_of(client_of({full.url()})->range({.key = "k"})), Code::kNoSpace);
}

// What may have been done is not sent again, to nobody.
TEST(EtcdClientTest, SendsATransactionOnce) {
  const FakeServer silent("");
  const FakeServer other("");
  EXPECT_EQ(code_of(client_of({silent.url(), other.url()})->commit({.writes = {{.key = "k", .value = "v"}}})),
            Code::kTimedOut);
  EXPECT_EQ(silent.requests(), 1);
  EXPECT_EQ(other.requests(), 0);
  EXPECT_EQ(code_of(client_of({silent.url(), other.url()})->range({.key = "k"})), Code::kTimedOut);
  EXPECT_EQ(silent.requests(), 2);
  EXPECT_EQ(other.requests(), 1);
}

class EtcdStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!test::EtcdServer::is_installed()) GTEST_SKIP() << "etcd is not installed (Debian: etcd-server)";
    auto server = test::EtcdServer::start();
    ASSERT_TRUE(server.has_value()) << to_string(server.error());
    server_ = std::move(*server);
  }
  void TearDown() override { server_.reset(); }
  // Endpoints before the real one.
  void run(StoreBed::Test test, std::vector<std::string> before = {}) {
    before.push_back(server_->url());
    EtcdBed({.endpoints = std::move(before)}, "store").run(test);
  }
  static inline std::unique_ptr<test::EtcdServer> server_;
};

TEST_F(EtcdStoreTest, RefusesOptionsThatMakeNoSense) {
  run([](StoreBed& bed) -> Task<void> {
    EtcdStoreOptions options = static_cast<EtcdBed&>(bed).options("a");
    options.prefix = "fairlead";
    EXPECT_EQ(code_of(EtcdStore::make(bed.shard(), options)), Code::kInvalidArgument);
    options = static_cast<EtcdBed&>(bed).options("a");
    options.lease_seconds = 1;
    EXPECT_EQ(code_of(EtcdStore::make(bed.shard(), options)), Code::kInvalidArgument);
    co_return;
  });
}

// Leads anew as often as it takes. The leader's key may have to run out first.
Task<void> lead_again(StoreBed& bed, Store& store) {
  const Instant end = bed.reactor().now() + seconds(60);
  while (!store.leads() && bed.reactor().now() < end) {
    if (!co_await store.lead()) (void)co_await sleep(bed.reactor(), milliseconds(20));
  }
  EXPECT_TRUE(store.leads());
}

TEST_F(EtcdStoreTest, GoesOnWhenEtcdWasKilled) {
  run([](StoreBed& bed) -> Task<void> {
    auto store = co_await bed.make_leader("a");
    EXPECT_NE(co_await bed.put(*store, "k", "1"), 0U);
    for (int round = 0; round < 3; ++round) {
      server_->kill();
      const auto refused = co_await bed.code_of_commit(*store, one("lost", "1"));
      EXPECT_TRUE(refused == Code::kUnreachable || refused == Code::kTimedOut || refused == Code::kFenced);
      const auto listed = co_await store->list("");
      EXPECT_TRUE(!listed &&
                  (listed.error().error.code == Code::kUnreachable || listed.error().error.code == Code::kTimedOut));
      const Outcome<void> restarted = server_->restart();
      CO_ASSERT_TRUE(restarted.has_value());
      co_await lead_again(bed, *store);
      EXPECT_EQ(co_await bed.content(*store), "k=" + std::to_string(round + 1));
      EXPECT_NE(co_await bed.put(*store, "k", std::to_string(round + 2)), 0U);
    }
    co_await store->stop();
  });
}

// By its own clock, for nobody tells it.
TEST_F(EtcdStoreTest, ALeaderThatEtcdDoesNotAnswerLeadsNoMore) {
  run([](StoreBed& bed) -> Task<void> {
    Leadership first;
    auto store = co_await bed.make_leader("a", &first);
    server_->pause();
    co_await store->lost().wait();
    EXPECT_FALSE(store->leads());
    EXPECT_EQ(co_await bed.code_of_commit(*store, one("k", "1")), Code::kFenced);
    server_->resume();
    Leadership second;
    auto other = co_await bed.make_leader("b", &second);
    EXPECT_GT(second.number, first.number);
    EXPECT_EQ(co_await bed.content(*other), "");
    co_await store->stop();
    EXPECT_TRUE(other->leads());
    EXPECT_NE(co_await bed.put(*other, "k", "2"), 0U);
    co_await other->stop();
  });
}

TEST_F(EtcdStoreTest, NoticesThatItsLeaseIsGone) {
  run([](StoreBed& bed) -> Task<void> {
    auto store = co_await bed.make_leader("a");
    bed.depose();
    co_await store->lost().wait();
    EXPECT_FALSE(store->leads());
    co_await store->stop();
  });
}

TEST_F(EtcdStoreTest, LeadsWhenADeadLeadersLeaseRanOut) {
  run([](StoreBed& bed) -> Task<void> {
    const auto client = client_of({server_->url()});
    const auto lease = client->grant(2);
    CO_ASSERT_TRUE(lease.has_value());
    EXPECT_TRUE(
        client
            ->commit({.compares = {},
                      .writes = {{.key = "/store/meta/leader", .value = "{\"address\":\"z\"}", .lease = lease->id}},
                      .otherwise = {}})
            .has_value());
    auto store = co_await bed.make("a");
    EXPECT_EQ(co_await store->leader_address(), "z");
    EXPECT_TRUE((co_await store->lead()).has_value());
    EXPECT_EQ(co_await store->leader_address(), "a");
    co_await store->stop();
  });
}

TEST_F(EtcdStoreTest, TriesTheNextEndpoint) {
  const FakeServer silent("");
  run(
      [](StoreBed& bed) -> Task<void> {
        auto store = co_await bed.make_leader("a");
        EXPECT_NE(co_await bed.put(*store, "k", "1"), 0U);
        EXPECT_EQ(co_await bed.content(*store), "k=1");
        co_await store->stop();
      },
      {dead_url(), silent.url()});
}

// Another cluster's keys, and what is not ours, stay out of sight.
TEST_F(EtcdStoreTest, KeepsToItsPrefix) {
  run([](StoreBed& bed) -> Task<void> {
    const auto client = client_of({server_->url()});
    EXPECT_TRUE(
        client->commit({.writes = {{.key = "/store2/entries/k", .value = "x"}, {.key = "/other", .value = "y"}}})
            .has_value());
    auto store = co_await bed.make_leader("a");
    EXPECT_NE(co_await bed.put(*store, "k", "1"), 0U);
    EXPECT_EQ(co_await bed.content(*store), "k=1");
    co_await store->stop();
    const auto all = client->range({.key = "/store/", .end = "/store0"});
    CO_ASSERT_TRUE(all.has_value());
    EXPECT_EQ(all->entries.size(), 3U);  // k, the count of leaders, the epoch
  });
}

TEST_F(EtcdStoreTest, TellsThatTheStoreWasRuined) {
  run([](StoreBed& bed) -> Task<void> {
    const auto client = client_of({server_->url()});
    EXPECT_TRUE(client->commit({.writes = {{.key = "/store/meta/leaders", .value = "many"}}}).has_value());
    auto store = co_await bed.make("a");
    EXPECT_EQ(code_of(co_await store->lead()), Code::kCorrupt);
    co_await store->stop();
  });
}

// ---- TLS, both ways.

// Makes NAME.pem and NAME.key; without an issuer an authority.
void make_certificate(const TestFolder& folder, const std::string& name, const std::string& issuer) {
  const std::string signing = issuer.empty() ? ""
                                             : fmt::format(
                                                   "-CA {0}.pem -CAkey {0}.key -addext basicConstraints=CA:FALSE "
                                                   "-addext subjectAltName=IP:127.0.0.1",
                                                   folder.file(issuer));
  const std::string command = fmt::format(
      "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={0} -keyout {1}.key "
      "-out {1}.pem {2} 2>/dev/null",
      name, folder.file(name), signing);
  ASSERT_EQ(std::system(command.c_str()), 0) << command;
}

TEST(EtcdTlsTest, BothSidesShowCertificates) {
  if (!test::EtcdServer::is_installed()) GTEST_SKIP() << "etcd is not installed (Debian: etcd-server)";
  const TestFolder folder;
  make_certificate(folder, "ca", "");
  make_certificate(folder, "other_ca", "");
  make_certificate(folder, "member", "ca");
  make_certificate(folder, "stranger", "other_ca");
  const auto file = [&](const std::string& name) { return folder.file(name); };
  auto server = test::EtcdServer::start(test::EtcdServerTls{
      .authority_file = file("ca.pem"), .certificate_file = file("member.pem"), .key_file = file("member.key")});
  ASSERT_TRUE(server.has_value()) << to_string(server.error());
  const auto read = [&](const EtcdClientOptions& options) {
    const auto client = EtcdClient::make(options);
    return client ? code_of((*client)->range({.key = "k"})) : std::optional(client.error().error.code);
  };
  const EtcdClientOptions good = {.endpoints = {(*server)->url()},
                                  .authority_file = file("ca.pem"),
                                  .certificate_file = file("member.pem"),
                                  .key_file = file("member.key")};
  EXPECT_EQ(read(good), std::nullopt);
  EtcdClientOptions bad = good;
  bad.authority_file = file("other_ca.pem");
  EXPECT_EQ(read(bad), Code::kUnreachable);
  bad = good;
  bad.authority_file = file("missing.pem");
  EXPECT_EQ(read(bad), Code::kUnreachable);
  bad = good;
  bad.certificate_file = file("stranger.pem");
  EXPECT_EQ(read(bad), Code::kInvalidArgument);  // the key is another's
  bad.key_file = file("stranger.key");
  EXPECT_TRUE(read(bad).has_value());
  bad.certificate_file = bad.key_file = "";
  EXPECT_TRUE(read(bad).has_value());
  bad = good;
  bad.endpoints = {"http" + (*server)->url().substr(5)};
  EXPECT_TRUE(read(bad).has_value());

  EtcdBed(good, "store").run([](StoreBed& bed) -> Task<void> {
    auto store = co_await bed.make_leader("a");
    EXPECT_NE(co_await bed.put(*store, "k", "1"), 0U);
    EXPECT_EQ(co_await bed.content(*store), "k=1");
    co_await store->stop();
  });
}

// Before etcd, on loopback: hands requests on, and compacts everything before each of the first `compactions` that ask
// for a second page.
class Compactor {
 public:
  Compactor(std::string etcd, int compactions) : etcd_(std::move(etcd)), left_(compactions) {
    server_.Post("/v3/.*", [this](const httplib::Request& request, httplib::Response& response) {
      const bool is_first = request.body.find("\"revision\":\"0\"") != std::string::npos;
      if (request.path == "/v3/kv/range" && !is_first && left_-- > 0) compact();
      std::tie(response.status, response.body) = ask(request.path, request.body);
      response.set_header("Content-Type", "application/json");
    });
    port_ = server_.bind_to_any_port("127.0.0.1");
    thread_ = std::thread([this] { server_.listen_after_bind(); });
  }
  ~Compactor() {
    server_.stop();
    thread_.join();
  }
  std::string url() const { return fmt::format("http://127.0.0.1:{}", port_); }

 private:
  // Trailers end what it refuses, and httplib's client does not know them.
  std::pair<int, std::string> ask(const std::string& path, const std::string& body) {
    std::pair<int, std::string> answer{503, ""};
    httplib::Request request;
    request.method = "POST";
    request.path = path;
    request.body = body;
    request.response_handler = [&](const httplib::Response& response) {
      answer.first = response.status;
      return true;
    };
    request.content_receiver = [&](const char* data, size_t length, uint64_t, uint64_t) {
      answer.second.append(data, length);
      return true;
    };
    (void)httplib::Client(etcd_).send(request);
    return answer;
  }
  void compact() {
    const auto [written, text] = ask("/v3/kv/put", R"({"key":"eA==","value":"eA=="})");
    FL_CHECK(written == 200);
    const std::string revision = nlohmann::json::parse(text)["header"]["revision"];
    FL_CHECK(ask("/v3/kv/compaction", fmt::format(R"({{"revision":"{}"}})", revision)).first == 200);
  }

  const std::string etcd_;
  std::atomic<int> left_;
  httplib::Server server_;
  int port_ = 0;
  std::thread thread_;
};

// As a leader would have done it.
void fill(const std::string& etcd, size_t keys) {
  const auto client = client_of({etcd});
  for (size_t i = 0; i < keys;) {
    EtcdTransaction transaction;
    for (; i < keys && transaction.writes.size() < kWritesMax; ++i) {
      transaction.writes.push_back({.key = fmt::format("/store/entries/k{:04}", i), .value = "v"});
    }
    ASSERT_TRUE(client->commit(transaction).has_value());
  }
}

// The pages of a list are of one revision, which may be gone before the last is read.
TEST_F(EtcdStoreTest, ListsAnewWhatWasCompactedMeanwhile) {
  fill(server_->url(), 1100);
  const Compactor once(server_->url(), 1);
  EtcdBed({.endpoints = {once.url()}}, "store").run([](StoreBed& bed) -> Task<void> {
    auto store = co_await bed.make("b");
    const auto all = co_await store->list("");
    EXPECT_TRUE(all.has_value()) << to_string(all.error());
    if (all) EXPECT_EQ(all->size(), 1100U);
    if (all) EXPECT_EQ(all->back().key, "k1099");
    co_await store->stop();
  });
}

TEST_F(EtcdStoreTest, TellsThatItCannotBeReadSoQuickly) {
  fill(server_->url(), 501);
  const Compactor always(server_->url(), 1000);
  EtcdBed({.endpoints = {always.url()}}, "store").run([](StoreBed& bed) -> Task<void> {
    auto store = co_await bed.make("b");
    const auto all = co_await store->list("");
    CO_ASSERT_TRUE(!all.has_value());
    EXPECT_EQ(all.error().error.code, Code::kTimedOut) << to_string(all.error());
    EXPECT_NE(to_string(all.error()).find("compacts quicker"), std::string::npos) << to_string(all.error());
    EXPECT_TRUE((co_await store->list("k0001")).has_value()) << "what fits into a page";
    co_await store->stop();
  });
}

}  // namespace
}  // namespace fairlead::control
