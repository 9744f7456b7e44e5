#include <csignal>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <gtest/gtest.h>
#include <set>
#include <thread>

#include "async/cancel.h"
#include "base/units.h"
#include "tests/support/rpc_service.h"

namespace fairlead::rpc {
namespace {

using std::chrono::milliseconds;
using test::CreatePoolRequest;
using test::kEcho;
using test::kFail;
using test::kGrow;
using test::kHold;
using test::kLong;
using test::PoolState;
using test::request_of;
using test::run_test;
using test::TestMethods;
using test::TestServer;

// ---- Service, carried by nothing

Task<void> handle_by_hand(Reactor& reactor) {
  TestMethods methods(reactor);
  Service service;
  methods.add_to(service);
  const auto echoed = co_await service.handle(kEcho, request_of("a", 7).SerializeAsString());
  PoolState reply;
  EXPECT_TRUE(echoed && reply.ParseFromString(*echoed));
  EXPECT_EQ(reply.name(), "a");
  EXPECT_EQ(reply.capacity_bytes(), 7U);
  const auto unknown = co_await service.handle("/test.Test/None", "");
  EXPECT_EQ(unknown.error().error.code, Code::kNotSupported);
  EXPECT_EQ(to_string(unknown.error()), "there is no method /test.Test/None");
  const auto garbled = co_await service.handle(kEcho, "\xff\xff\xff");
  EXPECT_EQ(garbled.error().error.code, Code::kProtocol);
  const auto failed =
      co_await service.handle(kFail, request_of("no room", static_cast<uint64_t>(Code::kNoSpace)).SerializeAsString());
  EXPECT_EQ(failed.error().error.code, Code::kNoSpace);
  EXPECT_EQ(to_string(failed.error()), "no room");
}

TEST(ServiceTest, FindsDecodesAndAnswers) { run_test(handle_by_hand); }

// ---- Over gRPC

// A server, and a channel to it.
struct Pair {
  explicit Pair(Reactor& home, Duration grace = std::chrono::seconds(5))
      : server(home, {.address = "127.0.0.1:0", .tls = {}, .name = "test", .grace = grace}),
        dialer(home, std::nullopt),
        address(server.start()),
        channel(dialer.dial(address)) {}

  TestServer server;
  GrpcDialer dialer;
  const std::string address;
  std::unique_ptr<Channel> channel;
};

Task<void> call_and_reply(Reactor& reactor) {
  Pair pair(reactor);
  for (uint64_t i = 0; i < 100; ++i) {
    const auto reply = co_await call<PoolState>(*pair.channel, kEcho, request_of("pool", i), kLong);
    EXPECT_TRUE(reply) << to_string(reply.error());
    if (!reply) break;
    EXPECT_EQ(reply->name(), "pool");
    EXPECT_EQ(reply->capacity_bytes(), i);
  }
  EXPECT_EQ(pair.server.methods.calls, 100U);
  co_await pair.server.server.stop();
}

TEST(GrpcTest, CallsAreAnswered) { run_test(call_and_reply); }

Task<void> let_every_code_travel(Reactor& reactor) {
  Pair pair(reactor);
  for (int number = 0; number < kCodeCount; ++number) {
    const auto code = static_cast<Code>(number);
    const std::string words = fmt::format("größer als {}, 100 %", code_info(code).name);
    const auto reply =
        co_await call<PoolState>(*pair.channel, kFail, request_of(words, static_cast<uint64_t>(number)), kLong);
    EXPECT_FALSE(reply);
    if (reply) continue;
    EXPECT_EQ(code_info(reply.error().error.code).name, code_info(code).name);
    EXPECT_EQ(to_string(reply.error()), words);
  }
  co_await pair.server.server.stop();
}

TEST(GrpcTest, EveryCodeTravelsWithItsWords) { run_test(let_every_code_travel); }

Task<void> expect_failure(Channel& channel, std::string method, std::string request, Code code, std::string words) {
  const auto reply = co_await channel.call(std::move(method), std::move(request), kLong);
  EXPECT_FALSE(reply);
  if (reply) co_return;
  EXPECT_EQ(code_info(reply.error().error.code).name, code_info(code).name);
  EXPECT_NE(to_string(reply.error()).find(words), std::string::npos) << to_string(reply.error());
}

Task<void> call_wrongly(Reactor& reactor) {
  Pair pair(reactor);
  Channel& channel = *pair.channel;
  co_await expect_failure(channel, "/test.Test/None", "", Code::kNotSupported, "there is no method /test.Test/None");
  co_await expect_failure(channel, kEcho, "\xff\xff\xff", Code::kProtocol, "the request cannot be decoded");
  // The name that comes back stands where this message has another one.
  const auto other = co_await call<engine::v1::ImportPoolRequest>(channel, kEcho, request_of("\x08"), kLong);
  EXPECT_EQ(other.error().error.code, Code::kProtocol);
  co_await expect_failure(channel, kFail, request_of(std::string(20'000, 'w'), 1).SerializeAsString(), Code::kNotFound,
                          "www…");
  co_await pair.server.server.stop();
}

TEST(GrpcTest, WrongCallsGetErrors) { run_test(call_wrongly); }

Task<void> send_much(Reactor& reactor) {
  Pair pair(reactor);
  const std::string big(20 * kMiB, 'b');
  const auto reply = co_await call<PoolState>(*pair.channel, kEcho, request_of(big), kLong);
  EXPECT_TRUE(reply && reply->name() == big);
  co_await expect_failure(*pair.channel, kEcho, std::string(65 * kMiB, '\0'), Code::kResourceExhausted, "larger than");
  co_await expect_failure(*pair.channel, kGrow, request_of("", 65 * kMiB).SerializeAsString(), Code::kResourceExhausted,
                          "too long");
  EXPECT_EQ(pair.server.methods.calls, 1U);
  co_await pair.server.server.stop();
}

TEST(GrpcTest, BigMessagesTravelAndTooBigOnesAreRefused) { run_test(send_much); }

Task<void> pass_a_limit(Reactor& reactor) {
  Pair pair(reactor);
  const auto reply = co_await call<PoolState>(*pair.channel, kHold, request_of("a"), milliseconds(50));
  EXPECT_EQ(reply.error().error.code, Code::kTimedOut);
  EXPECT_EQ(to_string(reply.error()), pair.address + " gave no answer within 50 ms");
  // The caller has gone altogether while the method runs on.
  pair.channel.reset();
  pair.server.methods.released.set();
  co_await pair.server.server.stop();
  EXPECT_EQ(pair.server.methods.held, 0U);
}

TEST(GrpcTest, ATimeLimitEndsTheCallAndNotTheMethod) { run_test(pass_a_limit); }

Task<void> keep_outcome(Channel& channel, const char* method, uint64_t number, Outcome<PoolState>& outcome) {
  outcome = co_await call<PoolState>(channel, method, request_of("", number), kLong);
}

Task<void> stop_server(GrpcServer& server, bool& stopped) {
  co_await server.stop();
  stopped = true;
}

Task<void> call_many_at_once(Reactor& reactor) {
  constexpr size_t kCount = 200;
  Pair pair(reactor);
  std::vector<Outcome<PoolState>> outcomes(kCount);
  Scope scope(reactor);
  for (size_t i = 0; i < kCount; ++i) scope.spawn(keep_outcome(*pair.channel, kHold, i, outcomes[i]));
  co_await pair.server.methods.wait_for_held(kCount);
  pair.server.methods.released.set();
  co_await scope.close();
  for (size_t i = 0; i < kCount; ++i) {
    EXPECT_TRUE(outcomes[i] && outcomes[i]->capacity_bytes() == i) << i;
  }
  co_await pair.server.server.stop();
}

TEST(GrpcTest, ManyCallsAtOnce) { run_test(call_many_at_once); }

Task<void> stop_gracefully(Reactor& reactor) {
  Pair pair(reactor, kLong);
  Scope scope(reactor);
  Outcome<PoolState> outcome;
  bool stopped = false;
  scope.spawn(keep_outcome(*pair.channel, kHold, 5, outcome));
  co_await pair.server.methods.wait_for_held(1);
  scope.spawn(stop_server(pair.server.server, stopped));
  // Once it is stopping, others are turned away; the one that is there may end.
  Outcome<PoolState> other;
  do {
    other = co_await call<PoolState>(*pair.channel, kEcho, request_of("b"), kLong);
  } while (other);
  EXPECT_TRUE(other.error().error.code == Code::kUnreachable || other.error().error.code == Code::kConnectionLost)
      << to_string(other.error());
  EXPECT_FALSE(stopped);
  pair.server.methods.released.set();
  co_await scope.close();
  EXPECT_TRUE(stopped);
  EXPECT_TRUE(outcome && outcome->capacity_bytes() == 5) << to_string(outcome.error());
}

TEST(GrpcTest, AStopLetsCallsEndWithinTheGrace) { run_test(stop_gracefully); }

Task<void> stop_at_once(Reactor& reactor) {
  Pair pair(reactor, Duration(0));
  Scope scope(reactor);
  Scope stopping(reactor);
  std::vector<Outcome<PoolState>> outcomes(20);
  bool stopped = false;
  for (auto& outcome : outcomes) scope.spawn(keep_outcome(*pair.channel, kHold, 0, outcome));
  co_await pair.server.methods.wait_for_held(outcomes.size());
  stopping.spawn(stop_server(pair.server.server, stopped));
  co_await scope.close();
  EXPECT_FALSE(stopped);
  for (const auto& outcome : outcomes) {
    EXPECT_FALSE(outcome);
    if (!outcome) EXPECT_EQ(outcome.error().error.code, Code::kConnectionLost) << to_string(outcome.error());
  }
  pair.server.methods.released.set();
  co_await stopping.close();
  EXPECT_EQ(pair.server.methods.calls, outcomes.size());
}

TEST(GrpcTest, AStopCutsOffWhoIsStillThereAfterTheGrace) { run_test(stop_at_once); }

Task<void> come_and_go(Reactor& reactor) {
  Pair pair(reactor);
  EXPECT_TRUE(co_await call<PoolState>(*pair.channel, kEcho, request_of("a"), kLong));
  co_await pair.server.server.stop();
  // The connection may not know yet.
  Outcome<PoolState> outcome = co_await call<PoolState>(*pair.channel, kEcho, request_of("a"), kLong);
  if (!outcome && outcome.error().error.code == Code::kConnectionLost) {
    outcome = co_await call<PoolState>(*pair.channel, kEcho, request_of("a"), kLong);
  }
  EXPECT_FALSE(outcome);
  if (!outcome) EXPECT_EQ(outcome.error().error.code, Code::kUnreachable) << to_string(outcome.error());
  if (!outcome)
    EXPECT_TRUE(to_string(outcome.error()).starts_with(pair.address + " cannot be reached: Failed to connect"))
        << to_string(outcome.error());

  // Back at its address it is found again by the same channel, and each failure until then is quick.
  TestServer again(reactor, {.address = pair.address});
  again.start();
  while (!outcome) {
    outcome = co_await call<PoolState>(*pair.channel, kEcho, request_of("a"), kLong);
    EXPECT_TRUE(outcome || outcome.error().error.code == Code::kUnreachable) << to_string(outcome.error());
    (void)co_await sleep(reactor, milliseconds(2));
  }
  co_await again.server.stop();
}

TEST(GrpcTest, AServerThatIsNotThereIsUnreachableUntilItIs) { run_test(come_and_go); }

Task<void> fail_to_start(Reactor& reactor) {
  Pair pair(reactor);
  TestServer second(reactor, {.address = pair.address});
  const auto in_use = second.server.start();
  EXPECT_EQ(in_use.error().error.code, Code::kBusy) << to_string(in_use.error());
  EXPECT_EQ(to_string(in_use.error()), pair.address + " is in use (listen: Address already in use)");
  for (const char* const address : {"192.0.2.1:0", "localhost:0", "127.0.0.1:123456"}) {
    TestServer server(reactor, {.address = address});
    const auto outcome = server.server.start();
    EXPECT_FALSE(outcome) << address;
    if (outcome) continue;
    EXPECT_EQ(outcome.error().error.code, Code::kInvalidArgument) << to_string(outcome.error());
    EXPECT_NE(to_string(outcome.error()).find(address), std::string::npos) << to_string(outcome.error());
  }
  co_await pair.server.server.stop();
  EXPECT_TRUE(second.server.start());
  co_await second.server.stop();
}

Task<void> listen_on_a_socket_of_this_machine(Reactor& reactor) {
  std::string folder = (std::filesystem::temp_directory_path() / "fairlead-rpc-XXXXXX").string();
  EXPECT_NE(::mkdtemp(folder.data()), nullptr);
  const std::string address = "unix://" + folder + "/rpc.sock";
  for (int i = 0; i < 2; ++i) {
    TestServer server(reactor, {.address = address});
    const auto port = server.server.start();
    EXPECT_TRUE(port && *port == 0);
    EXPECT_TRUE(std::filesystem::is_socket(folder + "/rpc.sock"));
    const auto channel = GrpcDialer(reactor, std::nullopt).dial(address);
    EXPECT_TRUE(co_await call<PoolState>(*channel, kEcho, request_of("a"), kLong));
    co_await server.server.stop();
  }
  TestServer nowhere(reactor, {.address = "unix://" + folder + "/none/rpc.sock"});
  EXPECT_EQ(nowhere.server.start().error().error.code, Code::kNotFound);
  std::filesystem::remove_all(folder);
}

TEST(GrpcTest, ListensOnASocketOfThisMachine) { run_test(listen_on_a_socket_of_this_machine); }

TEST(GrpcTest, SaysWhyItCannotListen) { run_test(fail_to_start); }

// ---- gRPC's threads

std::set<std::string> threads() {
  std::set<std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) found.insert(entry.path());
  return found;
}

uint64_t signals_blocked_in(const std::string& thread) {
  std::ifstream status(thread + "/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("SigBlk:")) return std::stoull(line.substr(7), nullptr, 16);
  }
  return ~uint64_t{0};  // it has ended
}

Task<void> look_at_threads(Reactor& reactor) {
  const std::set<std::string> before = threads();
  Pair pair(reactor);
  EXPECT_TRUE(co_await call<PoolState>(*pair.channel, kEcho, request_of("a"), kLong));
  size_t made = 0;
  for (const std::string& thread : threads()) {
    if (before.contains(thread)) continue;
    ++made;
    constexpr uint64_t kWanted = uint64_t{1} << (SIGINT - 1) | uint64_t{1} << (SIGTERM - 1);
    EXPECT_EQ(signals_blocked_in(thread) & kWanted, kWanted) << thread;
  }
  EXPECT_GT(made, 0U);
  co_await pair.server.server.stop();
}

// In a thread of its own: another test's Runtime may have blocked them in this one.
TEST(GrpcTest, SignalsAreForOthers) {
  std::thread thread([] {
    sigset_t none;
    sigemptyset(&none);
    ::pthread_sigmask(SIG_SETMASK, &none, nullptr);
    Runtime runtime({.signals = RuntimeOptions::Signals::kDefault});
    ASSERT_TRUE(runtime.start());
    runtime.run_on(0, look_at_threads(runtime.shard(0).reactor));
  });
  thread.join();
}

}  // namespace
}  // namespace fairlead::rpc
