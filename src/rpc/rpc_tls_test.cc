// Mutual TLS: who is let in, and whom a caller believes.
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <future>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>
#include <sstream>

#include "async/cancel.h"
#include "tests/support/rpc_service.h"

namespace fairlead::rpc {
namespace {

using test::kEcho;
using test::kLong;
using test::PoolState;
using test::request_of;
using test::TestServer;

// Two clusters' certificates, in a folder of their own.
class RpcTlsTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::string pattern = (std::filesystem::temp_directory_path() / "rpc_tls_test.XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder = pattern;
    make_ca("ca");
    make_ca("other_ca");
    make("member", "ca", "IP:127.0.0.1");
    make("elsewhere", "ca", "IP:127.0.0.2");
    make("stranger", "other_ca", "IP:127.0.0.1");
  }
  static void TearDownTestSuite() { std::filesystem::remove_all(folder); }

  static std::string path(const std::string& name) { return (folder / name).string(); }
  // What `name`, who trusts `ca`, shows.
  static TlsFiles files(const std::string& name, const std::string& ca) {
    return {.ca = path(ca + ".pem"),
            .certificate = path(name + ".pem"),
            .key = path(name + ".key"),
            .reread = std::chrono::seconds(1)};
  }
  static std::string text(const std::string& name) {
    std::ostringstream content;
    content << std::ifstream(path(name)).rdbuf();
    return content.str();
  }

  static void copy(const std::string& from, const std::string& to) {
    for (const char* const kind : {".pem", ".key"}) {
      std::filesystem::copy_file(path(from + kind), path(to + kind), std::filesystem::copy_options::overwrite_existing);
    }
  }

 private:
  static void openssl(const std::string& name, const std::string& arguments) {
    const std::string command = fmt::format(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={0} "
        "-keyout {1}.key -out {1}.pem {2} 2> {1}.log",
        name, path(name), arguments);
    ASSERT_EQ(std::system(command.c_str()), 0) << text(name + ".log");
  }
  static void make_ca(const std::string& name) { openssl(name, ""); }
  static void make(const std::string& name, const std::string& ca, const std::string& named) {
    openssl(name, fmt::format("-CA {0}.pem -CAkey {0}.key -addext basicConstraints=CA:FALSE -addext subjectAltName={1}",
                              path(ca), named));
  }

  static inline std::filesystem::path folder;
};

Task<void> call_once(Reactor& reactor, std::optional<TlsFiles> theirs, std::optional<TlsFiles> ours,
                     Outcome<PoolState>& outcome, size_t& calls) {
  TestServer server(reactor, {.address = "127.0.0.1:0", .tls = std::move(theirs)});
  GrpcDialer dialer(reactor, ours);
  auto channel = dialer.dial(server.start());
  outcome = co_await call<PoolState>(*channel, kEcho, request_of("a"), kLong);
  channel.reset();
  co_await server.server.stop();
  calls = server.methods.calls;
}

// A call of ours to a server of theirs.
Outcome<PoolState> outcome_of(std::optional<TlsFiles> theirs, std::optional<TlsFiles> ours) {
  Runtime runtime({});
  EXPECT_TRUE(runtime.start());
  Outcome<PoolState> outcome;
  size_t calls = 0;
  runtime.run_on(0, call_once(runtime.shard(0).reactor, std::move(theirs), std::move(ours), outcome, calls));
  EXPECT_EQ(calls, outcome ? 1U : 0U);
  return outcome;
}

// Never connected, whichever side refused: nothing was done.
void expect_refused(const Outcome<PoolState>& outcome, std::string_view words) {
  EXPECT_FALSE(outcome) << words;
  if (outcome) return;
  EXPECT_EQ(outcome.error().error.code, Code::kUnreachable) << to_string(outcome.error());
  EXPECT_NE(to_string(outcome.error()).find(words), std::string::npos) << to_string(outcome.error());
}

TEST_F(RpcTlsTest, MembersReachEachOther) {
  const auto outcome = outcome_of(files("member", "ca"), files("member", "ca"));
  EXPECT_TRUE(outcome) << to_string(outcome.error());
  // A caller's certificate names no address that counts.
  EXPECT_TRUE(outcome_of(files("member", "ca"), files("elsewhere", "ca")));
}

TEST_F(RpcTlsTest, StrangersAreRefused) {
  // The server says nothing to those whom it does not know.
  expect_refused(outcome_of(files("member", "ca"), files("stranger", "ca")), "Socket closed");
  expect_refused(outcome_of(files("member", "ca"), files("stranger", "other_ca")), "certificate verify failed");
  expect_refused(outcome_of(files("member", "ca"), std::nullopt), "Socket closed");
}

TEST_F(RpcTlsTest, ServersThatAreNotWhatTheySayAreRefused) {
  expect_refused(outcome_of(files("stranger", "ca"), files("member", "ca")), "certificate verify failed");
  expect_refused(outcome_of(files("elsewhere", "ca"), files("member", "ca")), "Hostname Verification Check failed");
  expect_refused(outcome_of(std::nullopt, files("member", "ca")), "wrong version number");
}

// By gRPC itself: our own dialer has no way to show none.
grpc::Status call_without_certificate(const std::string& address, const std::string& ca) {
  const auto channel = grpc::CreateChannel(
      address, grpc::SslCredentials({.pem_root_certs = ca, .pem_private_key = "", .pem_cert_chain = ""}));
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  const grpc::Slice nothing("");
  const grpc::ByteBuffer request(&nothing, 1);
  grpc::ByteBuffer reply;
  std::promise<grpc::Status> status;
  stub.UnaryCall(&context, kEcho, {}, &request, &reply, [&status](grpc::Status got) { status.set_value(got); });
  return status.get_future().get();
}

Task<void> serve_until(Reactor& reactor, TlsFiles files, std::promise<std::string>& address,
                       std::shared_future<void> over, size_t& calls) {
  TestServer server(reactor, {.address = "127.0.0.1:0", .tls = std::move(files)});
  address.set_value(server.start());
  while (over.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
    (void)co_await sleep(reactor, std::chrono::milliseconds(1));
  }
  co_await server.server.stop();
  calls = server.methods.calls;
}

TEST_F(RpcTlsTest, CallersWithoutACertificateAreRefused) {
  std::promise<std::string> address;
  std::promise<void> over;
  size_t calls = 0;
  std::thread server([&] {
    Runtime runtime({});
    ASSERT_TRUE(runtime.start());
    runtime.run_on(0, serve_until(runtime.shard(0).reactor, files("member", "ca"), address, over.get_future(), calls));
  });
  const grpc::Status status = call_without_certificate(address.get_future().get(), text("ca.pem"));
  over.set_value();
  server.join();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
  EXPECT_EQ(calls, 0U);
}

TEST_F(RpcTlsTest, SaysWhatIsWrongWithTheFiles) {
  EXPECT_TRUE(check_tls_files(files("member", "ca")));
  TlsFiles wrong = files("member", "ca");
  wrong.ca = path("none.pem");
  EXPECT_EQ(to_string(check_tls_files(wrong).error()),
            wrong.ca + " does not exist (read the file: No such file or directory)");
  wrong = files("nobody", "ca");
  EXPECT_EQ(check_tls_files(wrong).error().error.code, Code::kNotFound);
  wrong = files("member", "ca");
  wrong.key = path("stranger.key");
  EXPECT_EQ(
      to_string(check_tls_files(wrong).error()),
      fmt::format("{} holds no key in PEM form that fits {} (key values mismatch)", wrong.key, wrong.certificate));
  wrong = files("member", "ca");
  wrong.certificate = wrong.key;
  const auto outcome = check_tls_files(wrong);
  EXPECT_EQ(outcome.error().error.code, Code::kInvalidArgument);
  EXPECT_NE(to_string(outcome.error()).find("holds no certificate"), std::string::npos);
}

// One call on a new connection.
Task<Outcome<PoolState>> call_anew(GrpcDialer& dialer, std::string address) {
  const auto channel = dialer.dial(std::move(address));
  co_return co_await call<PoolState>(*channel, kEcho, request_of("a"), kLong);
}

Task<void> renew(Reactor& reactor, TlsFiles theirs, TlsFiles ours, void (*change)(), Outcome<PoolState>& before,
                 Outcome<PoolState>& after) {
  TestServer server(reactor, {.address = "127.0.0.1:0", .tls = std::move(theirs)});
  GrpcDialer dialer(reactor, ours);
  const std::string address = server.start();
  before = co_await call_anew(dialer, address);
  change();
  do {
    after = co_await call_anew(dialer, address);
    (void)co_await sleep(reactor, std::chrono::milliseconds(100));
  } while (!after);
  co_await server.server.stop();
}

TEST_F(RpcTlsTest, NewCertificatesTakeEffectOnNewConnections) {
  copy("elsewhere", "renewed");
  Runtime runtime({});
  ASSERT_TRUE(runtime.start());
  Outcome<PoolState> before;
  Outcome<PoolState> after;
  runtime.run_on(0, renew(
                        runtime.shard(0).reactor, files("renewed", "ca"), files("member", "ca"),
                        [] { copy("member", "renewed"); }, before, after));
  expect_refused(before, "Hostname Verification Check failed");
  EXPECT_TRUE(after);
}

Task<void> start_with(Reactor& reactor, TlsFiles files, Outcome<uint16_t>& outcome) {
  TestServer server(reactor, {.address = "127.0.0.1:0", .tls = std::move(files)});
  outcome = server.server.start();
  co_await server.server.stop();
}

TEST_F(RpcTlsTest, AServerWithoutItsFilesDoesNotStart) {
  Runtime runtime({});
  ASSERT_TRUE(runtime.start());
  Outcome<uint16_t> outcome;
  runtime.run_on(0, start_with(runtime.shard(0).reactor, files("nobody", "ca"), outcome));
  EXPECT_EQ(outcome.error().error.code, Code::kNotFound);
  EXPECT_NE(to_string(outcome.error()).find("nobody.pem"), std::string::npos) << to_string(outcome.error());
}

}  // namespace
}  // namespace fairlead::rpc
