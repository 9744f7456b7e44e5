#include "io/uring_network.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <random>
#include <sys/socket.h>
#include <unistd.h>

#include "async/call.h"
#include "async/cancel.h"
#include "async/scope.h"
#include "base/fault.h"
#include "io/runtime.h"

namespace fairlead {
namespace {

using std::chrono::milliseconds;

class NetworkTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { ASSERT_TRUE(runtime_.start()); }
  SocketAddress any_port() const { return *parse_socket_address(GetParam(), 0); }
  Runtime runtime_{RuntimeOptions{}};
};
INSTANTIATE_TEST_SUITE_P(Families, NetworkTest, testing::Values("127.0.0.1", "::1"), [](const auto& given) {
  return std::string(given.param).find(':') == std::string::npos ? "Ipv4" : "Ipv6";
});

iovec piece(std::span<std::byte> bytes) { return {bytes.data(), bytes.size()}; }

struct Pair {
  std::unique_ptr<Stream> client;
  std::unique_ptr<Stream> server;
};

Task<void> accept_one(Shard& shard, Listener& listener, std::unique_ptr<Stream>& stream) {
  auto accepted = co_await listener.accept();
  EXPECT_TRUE(accepted);
  if (!accepted) co_return;
  auto adopted = shard.network.adopt(std::move(*accepted));
  EXPECT_TRUE(adopted);
  if (adopted) stream = std::move(*adopted);
}

Task<Pair> make_pair(Shard& shard, SocketAddress any) {
  Pair pair;
  auto listener = shard.network.listen(any);
  EXPECT_TRUE(listener) << to_string(listener.error());
  Scope scope(shard.reactor);
  scope.spawn(accept_one(shard, **listener, pair.server));
  auto client = co_await shard.network.connect((*listener)->address(), kConnectTimeout);
  EXPECT_TRUE(client) << to_string(client.error());
  co_await scope.close();
  (*listener)->close();
  if (client) pair.client = std::move(*client);
  co_return pair;
}

// Cuts `bytes` into pieces, now and then many.
std::vector<iovec> cut(std::span<std::byte> bytes, std::mt19937& random) {
  std::vector<iovec> list;
  const size_t longest = random() % 3 == 0 ? bytes.size() : 1 + random() % bytes.size();
  for (size_t at = 0; at < bytes.size() && list.size() < 1024;) {
    const size_t length = std::min(bytes.size() - at, 1 + random() % longest);
    list.push_back(piece(bytes.subspan(at, length)));
    at += length;
  }
  return list;
}

Task<void> send_all(Stream& stream, std::span<std::byte> bytes, uint32_t seed) {
  std::mt19937 random(seed);
  for (size_t at = 0; at < bytes.size();) {
    const std::vector<iovec> list = cut(bytes.subspan(at, std::min<size_t>(bytes.size() - at, 200'000)), random);
    const Result<size_t> sent = co_await send(stream, list);
    EXPECT_TRUE(sent) << to_string(sent.error());
    if (!sent) co_return;
    EXPECT_GT(*sent, 0U);
    at += *sent;
  }
}

Task<void> receive_all(Stream& stream, std::span<std::byte> bytes, uint32_t seed) {
  std::mt19937 random(seed);
  for (size_t at = 0; at < bytes.size();) {
    const std::vector<iovec> list = cut(bytes.subspan(at, std::min<size_t>(bytes.size() - at, 200'000)), random);
    const Result<size_t> got = co_await receive(stream, list);
    EXPECT_TRUE(got) << to_string(got.error());
    if (!got) co_return;
    EXPECT_GT(*got, 0U);
    if (*got == 0) co_return;
    at += *got;
  }
}

// Both ways at once, in pieces of random sizes.
Task<void> exchange_bytes(Shard& shard, SocketAddress any, size_t bytes) {
  const auto seed = static_cast<uint32_t>(shard.random.next());
  Pair pair = co_await make_pair(shard, any);
  if (!pair.client || !pair.server) co_return;
  EXPECT_EQ(pair.client->peer(), pair.server->local());
  EXPECT_EQ(pair.client->local(), pair.server->peer());
  std::mt19937 random(seed);
  std::vector<std::byte> out(bytes);
  std::vector<std::byte> back(bytes);
  for (size_t i = 0; i < bytes; ++i) out[i] = static_cast<std::byte>(random());
  for (size_t i = 0; i < bytes; ++i) back[i] = static_cast<std::byte>(random());
  std::vector<std::byte> out_seen(bytes);
  std::vector<std::byte> back_seen(bytes);
  Scope scope(shard.reactor);
  scope.spawn(send_all(*pair.client, out, seed + 1));
  scope.spawn(send_all(*pair.server, back, seed + 2));
  scope.spawn(receive_all(*pair.server, out_seen, seed + 3));
  scope.spawn(receive_all(*pair.client, back_seen, seed + 4));
  co_await scope.close();
  EXPECT_TRUE(out == out_seen) << "seed " << seed;
  EXPECT_TRUE(back == back_seen) << "seed " << seed;
}

TEST_P(NetworkTest, BytesArriveInOrderBothWays) {
  runtime_.run_on(0, exchange_bytes(runtime_.shard(0), any_port(), 8 * kMiB));
}

// Every other operation moves one byte.
class Chopper final : public FaultPlan {
 public:
  bool fires(FaultPoint) override { return ++calls_ % 2 == 0; }

 private:
  int calls_ = 0;
};
Task<void> exchange_chopped(Shard& shard, SocketAddress any) {
  Chopper chopper;
  co_await exchange_bytes(shard, any, 64 * kKiB);
}
TEST_P(NetworkTest, FaultPointsCutShort) { runtime_.run_on(0, exchange_chopped(runtime_.shard(0), any_port())); }

Task<void> keep_receive(Stream& stream, Result<size_t>& result) {
  std::array<std::byte, 100> bytes;
  const iovec list = piece(bytes);
  result = co_await receive(stream, std::span(&list, 1));
}

Task<void> keep_sending(Stream& stream, Result<size_t>& result) {
  std::vector<std::byte> bytes(kMiB);
  const iovec list = piece(bytes);
  do {
    result = co_await send(stream, std::span(&list, 1));
  } while (result);
}

Task<void> shut_down_under_way(Shard& shard, SocketAddress any) {
  Pair pair = co_await make_pair(shard, any);
  Result<size_t> received = 77;
  Result<size_t> sent = 77;
  Scope scope(shard.reactor);
  scope.spawn(keep_receive(*pair.client, received));
  scope.spawn(keep_sending(*pair.client, sent));
  (void)co_await sleep(shard.reactor, milliseconds(20));
  EXPECT_EQ(scope.running(), 2U);  // nothing comes, and the peer takes no more
  pair.client->shutdown();
  pair.client->shutdown();
  co_await scope.close();
  EXPECT_EQ(received.error().code, Code::kCancelled);
  EXPECT_EQ(sent.error().code, Code::kCancelled);
  co_await keep_receive(*pair.client, received);
  EXPECT_EQ(received.error().code, Code::kCancelled);
}

TEST_P(NetworkTest, ShutdownEndsWhatIsUnderWay) {
  runtime_.run_on(0, shut_down_under_way(runtime_.shard(0), any_port()));
}

// Before the ring has handed them to the kernel, even.
Task<void> shut_down_at_once(Shard& shard, SocketAddress any) {
  Pair pair = co_await make_pair(shard, any);
  Result<size_t> received = 77;
  Scope scope(shard.reactor);
  scope.spawn(keep_receive(*pair.client, received));
  co_await yield(shard.reactor);
  pair.client->shutdown();
  co_await scope.close();
  EXPECT_EQ(received.error().code, Code::kCancelled);
}

TEST_P(NetworkTest, ShutdownEndsWhatHasHardlyBegun) {
  runtime_.run_on(0, shut_down_at_once(runtime_.shard(0), any_port()));
}

Task<void> see_the_end(Shard& shard, SocketAddress any) {
  Pair pair = co_await make_pair(shard, any);
  Result<size_t> received = 77;
  pair.server->shutdown();
  co_await keep_receive(*pair.client, received);
  EXPECT_EQ(received, Result<size_t>(0));
  pair.server.reset();
  Result<size_t> sent = 0;
  co_await keep_sending(*pair.client, sent);
  EXPECT_EQ(sent.error().code, Code::kConnectionLost);
}

TEST_P(NetworkTest, ThePeersEndIsSeen) { runtime_.run_on(0, see_the_end(runtime_.shard(0), any_port())); }

Task<void> serve_echo(Shard& shard, Listener& listener, int connections) {
  std::vector<std::unique_ptr<Stream>> streams;
  for (int i = 0; i < connections; ++i) {
    std::unique_ptr<Stream> stream;
    co_await accept_one(shard, listener, stream);
    std::array<std::byte, 4> bytes;
    co_await receive_all(*stream, bytes, 1);
    co_await send_all(*stream, bytes, 2);
    streams.push_back(std::move(stream));
  }
}

Task<void> ask_echo(Shard& shard, SocketAddress address, int number, int& right) {
  auto stream = co_await shard.network.connect(address, kConnectTimeout);
  EXPECT_TRUE(stream) << to_string(stream.error());
  if (!stream) co_return;
  std::array<std::byte, 4> out;
  std::array<std::byte, 4> back{};
  std::memcpy(out.data(), &number, sizeof number);
  co_await send_all(**stream, out, 3);
  co_await receive_all(**stream, back, 4);
  if (out == back) ++right;
}

Task<void> many_connections(Shard& shard, SocketAddress any, int connections) {
  auto listener = shard.network.listen(any);
  EXPECT_TRUE(listener);
  int right = 0;
  Scope scope(shard.reactor);
  scope.spawn(serve_echo(shard, **listener, connections));
  for (int i = 0; i < connections; ++i) scope.spawn(ask_echo(shard, (*listener)->address(), i, right));
  co_await scope.close();
  EXPECT_EQ(right, connections);
}

TEST_P(NetworkTest, ManyConnectionsAtOnce) { runtime_.run_on(0, many_connections(runtime_.shard(0), any_port(), 400)); }

Task<void> connect_errors(Shard& shard, SocketAddress any) {
  auto listener = shard.network.listen(any);
  const SocketAddress address = (*listener)->address();
  EXPECT_NE(address.port, 0);
  const auto second = shard.network.listen(address);
  EXPECT_EQ(second.error().code, Code::kBusy);
  (*listener)->close();
  const auto refused = co_await shard.network.connect(address, kConnectTimeout);
  EXPECT_FALSE(refused);
  if (!refused) EXPECT_EQ(refused.error().code, Code::kUnreachable);
  const auto again = shard.network.listen(address);  // while the first object is still there
  EXPECT_TRUE(again);
}

TEST_P(NetworkTest, RefusedAndInUse) { runtime_.run_on(0, connect_errors(runtime_.shard(0), any_port())); }

// A socket that listens and accepts nobody: whom its backlog of one has no room for gets no answer.
Task<void> connect_to_nobody(Shard& shard) {
  const int full = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof name;
  EXPECT_EQ(::bind(full, reinterpret_cast<sockaddr*>(&name), length), 0);
  EXPECT_EQ(::listen(full, 0), 0);
  EXPECT_EQ(::getsockname(full, reinterpret_cast<sockaddr*>(&name), &length), 0);
  const SocketAddress address = *parse_socket_address("127.0.0.1", ntohs(name.sin_port));
  std::vector<std::unique_ptr<Stream>> waiting;
  Code code = Code::kInternal;
  while (waiting.size() < 10) {
    auto stream = co_await shard.network.connect(address, std::chrono::milliseconds(100));
    if (!stream) {
      code = stream.error().code;
      break;
    }
    waiting.push_back(std::move(*stream));
  }
  EXPECT_EQ(code, Code::kTimedOut);
  ::close(full);
}

TEST_P(NetworkTest, ConnectGivesUp) { runtime_.run_on(0, connect_to_nobody(runtime_.shard(0))); }

Task<void> keep_accept(Listener& listener, Result<void>& result) {
  const auto accepted = co_await listener.accept();
  if (!accepted) result = std::unexpected(accepted.error());
}

Task<void> close_listener(Shard& shard, SocketAddress any) {
  auto listener = shard.network.listen(any);
  Result<void> result;
  Scope scope(shard.reactor);
  scope.spawn(keep_accept(**listener, result));
  (void)co_await sleep(shard.reactor, milliseconds(2));
  EXPECT_EQ(scope.running(), 1U);
  (*listener)->close();
  co_await scope.close();
  EXPECT_EQ(result.error().code, Code::kCancelled);
  result = {};
  co_await keep_accept(**listener, result);
  EXPECT_EQ(result.error().code, Code::kCancelled);
}

TEST_P(NetworkTest, CloseEndsAccept) { runtime_.run_on(0, close_listener(runtime_.shard(0), any_port())); }

Task<void> both_families(Shard& shard) {
  auto four = shard.network.listen(*parse_socket_address("0.0.0.0:0", 0));
  EXPECT_TRUE(four);
  SocketAddress six = *parse_socket_address("[::]:0", 0);
  six.port = (*four)->address().port;
  const auto beside = shard.network.listen(six);
  EXPECT_TRUE(beside) << to_string(beside.error());
  const auto foreign = shard.network.listen(*parse_socket_address("192.0.2.1:0", 0));
  EXPECT_EQ(foreign.error().code, Code::kUnreachable);
  co_return;
}

TEST(NetworkFamilyTest, BothFamiliesShareAPort) {
  Runtime runtime({});
  ASSERT_TRUE(runtime.start());
  runtime.run_on(0, both_families(runtime.shard(0)));
}

Task<void> drop_accepted(Shard& shard, SocketAddress any) {
  auto listener = shard.network.listen(any);
  auto client = co_await shard.network.connect((*listener)->address(), kConnectTimeout);
  EXPECT_TRUE(client);
  {
    const auto accepted = co_await (*listener)->accept();
    EXPECT_TRUE(accepted);
  }
  Result<size_t> received = 77;
  co_await keep_receive(**client, received);
  EXPECT_EQ(received, Result<size_t>(0));
}

TEST_P(NetworkTest, WhatNobodyAdoptsIsClosed) { runtime_.run_on(0, drop_accepted(runtime_.shard(0), any_port())); }

Task<std::unique_ptr<Stream>> adopt_here(Shard& shard, std::unique_ptr<Accepted> accepted) {
  auto stream = shard.network.adopt(std::move(accepted));
  EXPECT_TRUE(stream);
  co_return stream ? std::move(*stream) : nullptr;
}

Task<void> echo_once(Shard& shard, std::unique_ptr<Accepted> accepted) {
  const std::unique_ptr<Stream> stream = co_await adopt_here(shard, std::move(accepted));
  std::array<std::byte, 4> bytes;
  co_await receive_all(*stream, bytes, 1);
  co_await send_all(*stream, bytes, 2);
}

// Accepted on shard 0, served on shard 1.
Task<void> serve_elsewhere(Runtime& runtime) {
  Shard& here = runtime.shard(0);
  Shard& there = runtime.shard(1);
  auto listener = here.network.listen(*parse_socket_address("127.0.0.1:0", 0));
  EXPECT_TRUE(listener);
  int right = 0;
  for (int i = 0; i < 50; ++i) {
    Scope scope(here.reactor);
    scope.spawn(ask_echo(here, (*listener)->address(), i, right));
    auto accepted = co_await (*listener)->accept();
    EXPECT_TRUE(accepted);
    if (accepted) co_await call_on(here.reactor, there.reactor, echo_once(there, std::move(*accepted)));
    co_await scope.close();
  }
  EXPECT_EQ(right, 50);
}

TEST(NetworkShardTest, AnAcceptedConnectionGoesToAnotherShard) {
  Runtime runtime({.shards = 2});
  ASSERT_TRUE(runtime.start());
  runtime.run_on(0, serve_elsewhere(runtime));
}

}  // namespace
}  // namespace fairlead
