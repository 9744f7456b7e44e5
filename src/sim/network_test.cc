#include "sim/network.h"

#include <gtest/gtest.h>

#include "sim/world.h"

namespace fairlead::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// What both sides of one connection saw.
struct Record {
  std::vector<std::byte> received;
  std::optional<Error> error;
  bool ended = false;
  size_t sent = 0;
  std::optional<Error> send_error;
};

Task<void> receive_all(Stream& stream, Record& record) {
  std::array<std::byte, 97> a{};
  std::array<std::byte, 300> b{};
  while (!record.ended && !record.error) {
    const std::array<iovec, 2> list = {iovec{a.data(), a.size()}, iovec{b.data(), b.size()}};
    const Result<size_t> got = co_await receive(stream, list);
    if (!got) {
      record.error = got.error();
    } else if (*got == 0) {
      record.ended = true;
    } else {
      std::vector<std::byte> flat(*got);
      copy_from_buffers(list, 0, flat);
      record.received.insert(record.received.end(), flat.begin(), flat.end());
    }
  }
}

Task<void> send_all(Stream& stream, const std::vector<std::byte>& bytes, Record& record) {
  while (record.sent < bytes.size()) {
    // iovec takes no const; a send only reads.
    auto* const from = const_cast<std::byte*>(bytes.data()) + record.sent;
    const size_t count = std::min<size_t>(bytes.size() - record.sent, 5000);
    const std::array<iovec, 1> list = {iovec{from, count}};
    const Result<size_t> sent = co_await send(stream, list);
    if (!sent) {
      record.send_error = sent.error();
      co_return;
    }
    record.sent += *sent;
  }
}

Task<void> accept_one(Shard& shard, Listener& listener, std::unique_ptr<Stream>& out) {
  while (out == nullptr) {
    Result<std::unique_ptr<Accepted>> accepted = co_await listener.accept();
    if (accepted) {
      Result<std::unique_ptr<Stream>> stream = shard.network.adopt(std::move(*accepted));
      if (stream) out = std::move(*stream);
    } else if (accepted.error().code != Code::kResourceExhausted) {
      co_return;
    }
  }
}

Task<void> connect_to(Shard& shard, SocketAddress address, std::optional<Result<std::unique_ptr<Stream>>>& out) {
  out = co_await shard.network.connect(address, kConnectTimeout);
}

// Two nodes and one connection between them.
class Pair {
 public:
  explicit Pair(uint64_t seed, const SimSettings& settings = SimSettings::calm())
      : world(seed, settings), a(world.add_node("10.0.0.1")), b(world.add_node("fd00::2")) {
    listener = *b.shard(0).network.listen(b.address(4420));
  }
  ~Pair() { drop(); }
  void drop() {
    for (SimNode* node : {&a, &b}) {
      if (!node->is_up()) continue;
      if (client) client->shutdown();
      if (server) server->shutdown();
    }
    if (listener) listener->close();
    world.run_for(milliseconds(1));
    client.reset();
    server.reset();
    listener.reset();
    EXPECT_EQ(world.network().connection_count(), 0U);
  }
  RunResult connect() {
    std::optional<Result<std::unique_ptr<Stream>>> out;
    world.spawn(b, 0, accept_one(b.shard(0), *listener, server));
    world.spawn(a, 0, connect_to(a.shard(0), b.address(4420), out));
    const RunResult result = world.run_until([&] { return out && server; }, seconds(60));
    if (result == RunResult::kDone) client = std::move(**out);
    return result;
  }

  SimWorld world;
  SimNode& a;
  SimNode& b;
  std::unique_ptr<Listener> listener;
  std::unique_ptr<Stream> client;
  std::unique_ptr<Stream> server;
};

std::vector<std::byte> noise(size_t count, uint64_t seed) {
  Prng random(seed);
  std::vector<std::byte> bytes(count);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random.next());
  return bytes;
}

struct ChopCase {
  const char* name;
  Chop chop;
  uint32_t window;
  size_t bytes;
};
class ChopTest : public testing::TestWithParam<ChopCase> {};

TEST_P(ChopTest, BytesArriveInOrderCompleteAndOnceBothWays) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    SimSettings settings = SimSettings::calm();
    settings.order = Order::kRandom;
    settings.network.chop = GetParam().chop;
    settings.network.window_min = settings.network.window_max = GetParam().window;
    settings.network.spike_ppm = 20'000;
    settings.network.spike_max = milliseconds(20);
    settings.network.accept_exhausted_ppm = 300'000;
    settings.fault_point_ppm[static_cast<size_t>(FaultPoint::kShortSend)] = 100'000;
    settings.fault_point_ppm[static_cast<size_t>(FaultPoint::kShortReceive)] = 100'000;
    const std::vector<std::byte> there = noise(GetParam().bytes, seed);
    const std::vector<std::byte> back = noise(GetParam().bytes / 2, seed + 100);
    Record client;
    Record server;
    Pair pair(seed, settings);
    ASSERT_EQ(pair.connect(), RunResult::kDone);
    EXPECT_EQ(pair.client->peer(), pair.b.address(4420));
    EXPECT_EQ(pair.server->local(), pair.b.address(4420));
    EXPECT_EQ(pair.server->peer(), pair.client->local());
    pair.world.spawn(pair.a, 0, send_all(*pair.client, there, client));
    pair.world.spawn(pair.a, 0, receive_all(*pair.client, client));
    pair.world.spawn(pair.b, 0, send_all(*pair.server, back, server));
    pair.world.spawn(pair.b, 0, receive_all(*pair.server, server));
    ASSERT_EQ(pair.world.run_until(
                  [&] { return server.received.size() == there.size() && client.received.size() == back.size(); },
                  seconds(600)),
              RunResult::kDone)
        << pair.world.report();
    EXPECT_EQ(server.received, there);
    EXPECT_EQ(client.received, back);
    if (GetParam().bytes > 100'000) {
      EXPECT_GT(pair.world.fault_point_count(FaultPoint::kShortSend), 0U);
    }
    // The end comes after the data, and the one who ends sees it at once.
    pair.client->shutdown();
    ASSERT_EQ(pair.world.run_until([&] { return server.ended && client.error; }, seconds(10)), RunResult::kDone);
    EXPECT_EQ(client.error->code, Code::kCancelled);
    EXPECT_EQ(server.received, there);
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, ChopTest,
                         testing::Values(ChopCase{"Whole", Chop::kWhole, 1 << 16, 200'000},
                                         ChopCase{"Random", Chop::kRandom, 1 << 14, 200'000},
                                         ChopCase{"SingleBytes", Chop::kSingleBytes, 1 << 14, 5'000},
                                         ChopCase{"WindowOfOne", Chop::kRandom, 1, 1'500}),
                         [](const auto& info) { return info.param.name; });

TEST(SimNetworkTest, SingleBytesMeansSingleBytes) {
  SimSettings settings = SimSettings::calm();
  settings.network.chop = Chop::kSingleBytes;
  const std::vector<std::byte> bytes = noise(100, 1);
  Record record;
  Pair pair(4, settings);
  ASSERT_EQ(pair.connect(), RunResult::kDone);
  pair.world.spawn(pair.a, 0, send_all(*pair.client, bytes, record));
  pair.world.spawn(pair.b, 0, receive_all(*pair.server, record));
  const uint64_t before = pair.world.turns();
  ASSERT_EQ(pair.world.run_until([&] { return record.received.size() == 100; }, seconds(1)), RunResult::kDone);
  EXPECT_GE(pair.world.turns() - before, 100U);
}

TEST(SimNetworkTest, ASenderWaitsForAReceiverThatDoesNotRead) {
  SimSettings settings = SimSettings::calm();
  settings.network.window_min = settings.network.window_max = 1000;
  const std::vector<std::byte> bytes = noise(10'000, 1);
  Record record;
  Pair pair(5, settings);
  ASSERT_EQ(pair.connect(), RunResult::kDone);
  pair.world.spawn(pair.a, 0, send_all(*pair.client, bytes, record));
  pair.world.run_for(seconds(10));
  EXPECT_EQ(record.sent, 1000U);
  pair.world.spawn(pair.b, 0, receive_all(*pair.server, record));
  EXPECT_EQ(pair.world.run_until([&] { return record.received == bytes; }, seconds(10)), RunResult::kDone);
}

TEST(SimNetworkTest, DataSentBeforeShutdownArrivesBeforeTheEnd) {
  const std::vector<std::byte> bytes = noise(50'000, 1);
  Record record;
  Pair pair(6);
  ASSERT_EQ(pair.connect(), RunResult::kDone);
  pair.world.spawn(pair.a, 0, send_all(*pair.client, bytes, record));
  ASSERT_EQ(pair.world.run_until([&] { return record.sent == bytes.size(); }, seconds(1)), RunResult::kDone);
  pair.client->shutdown();
  pair.client->shutdown();
  pair.client.reset();
  pair.world.spawn(pair.b, 0, receive_all(*pair.server, record));
  ASSERT_EQ(pair.world.run_until([&] { return record.ended; }, seconds(1)), RunResult::kDone);
  EXPECT_EQ(record.received, bytes);
}

TEST(SimNetworkTest, AResetEndsBothSides) {
  Record client;
  Record server;
  const std::vector<std::byte> bytes = noise(10, 1);
  Pair pair(7);
  ASSERT_EQ(pair.connect(), RunResult::kDone);
  pair.world.spawn(pair.a, 0, receive_all(*pair.client, client));
  pair.world.spawn(pair.b, 0, receive_all(*pair.server, server));
  pair.world.run_for(milliseconds(10));
  EXPECT_EQ(pair.world.network().reset_connections(pair.a.index(), pair.b.index()), 1U);
  ASSERT_EQ(pair.world.run_until([&] { return client.error && server.error; }, seconds(1)), RunResult::kDone);
  EXPECT_EQ(client.error->code, Code::kConnectionLost);
  EXPECT_EQ(server.error->code, Code::kConnectionLost);
  pair.world.spawn(pair.a, 0, send_all(*pair.client, bytes, client));
  ASSERT_EQ(pair.world.run_until([&] { return client.send_error.has_value(); }, seconds(1)), RunResult::kDone);
  EXPECT_EQ(client.send_error->code, Code::kConnectionLost);
}

TEST(SimNetworkTest, ResetsAtRandomCutAPrefix) {
  SimSettings settings = SimSettings::calm();
  settings.network.chop = Chop::kRandom;
  settings.network.reset_ppm = 20'000;
  int lost = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const std::vector<std::byte> bytes = noise(100'000, seed);
    Record record;
    Pair pair(seed, settings);
    ASSERT_EQ(pair.connect(), RunResult::kDone);
    pair.world.spawn(pair.a, 0, send_all(*pair.client, bytes, record));
    pair.world.spawn(pair.b, 0, receive_all(*pair.server, record));
    ASSERT_EQ(pair.world.run_until([&] { return record.error || record.received.size() == bytes.size(); }, seconds(60)),
              RunResult::kDone);
    lost += record.error ? 1 : 0;
    ASSERT_TRUE(std::equal(record.received.begin(), record.received.end(), bytes.begin()));
    pair.drop();
  }
  EXPECT_GT(lost, 5);
}

TEST(SimNetworkTest, APartitionHoldsBytesAndWordOfThemUntilItHeals) {
  for (const bool data_way : {true, false}) {
    SimSettings settings = SimSettings::calm();
    settings.network.window_min = settings.network.window_max = 1000;
    const std::vector<std::byte> bytes = noise(10'000, 1);
    Record record;
    Pair pair(8, settings);
    ASSERT_EQ(pair.connect(), RunResult::kDone);
    // One way: either the data or the receipts do not pass; the sender stops at its window in both cases.
    pair.world.network().partition_one_way(data_way ? 0 : 1, data_way ? 1 : 0);
    pair.world.spawn(pair.a, 0, send_all(*pair.client, bytes, record));
    pair.world.spawn(pair.b, 0, receive_all(*pair.server, record));
    pair.world.run_for(seconds(30));
    EXPECT_EQ(record.sent, 1000U);
    EXPECT_EQ(record.received.size(), data_way ? 0U : 1000U);
    EXPECT_FALSE(record.error);
    pair.world.network().heal_all();
    EXPECT_EQ(pair.world.run_until([&] { return record.received == bytes; }, seconds(10)), RunResult::kDone);
  }
}

Code connect_error(SimWorld& world, SimNode& from, const SocketAddress& to) {
  std::optional<Result<std::unique_ptr<Stream>>> out;
  world.spawn(from, 0, connect_to(from.shard(0), to, out));
  EXPECT_EQ(world.run_until([&] { return out.has_value(); }, seconds(60)), RunResult::kDone);
  EXPECT_FALSE(out->has_value());
  return out->has_value() ? Code::kInternal : out->error().code;
}

TEST(SimNetworkTest, ConnectsThatCannotBeMadeSayWhy) {
  Pair pair(9);
  SimWorld& world = pair.world;
  EXPECT_EQ(connect_error(world, pair.a, pair.b.address(1)), Code::kUnreachable);
  EXPECT_EQ(connect_error(world, pair.a, *parse_socket_address("10.9.9.9:1", 0)), Code::kUnreachable);
  for (const auto& [from, to] : {std::pair<uint32_t, uint32_t>{0, 1}, {1, 0}}) {
    world.network().partition_one_way(from, to);
    EXPECT_EQ(connect_error(world, pair.a, pair.b.address(4420)), Code::kTimedOut);
    world.network().heal_all();
  }
  EXPECT_EQ(pair.connect(), RunResult::kDone);
  pair.listener->close();
  EXPECT_EQ(connect_error(world, pair.a, pair.b.address(4420)), Code::kUnreachable);
}

TEST(SimNetworkTest, ListenersTakeTheirAddressAlone) {
  SimWorld world(10, SimSettings::calm());
  SimNode& node = world.add_node("10.0.0.1", {.shards = 1, .more_addresses = {"fd00::1"}});
  Network& network = node.shard(0).network;
  auto any = network.listen(*parse_socket_address("0.0.0.0:4420", 0));
  ASSERT_TRUE(any);
  EXPECT_EQ(network.listen(node.address(4420)).error().code, Code::kBusy);
  auto six = network.listen(*parse_socket_address("[fd00::1]:4420", 0));
  EXPECT_TRUE(six);
  EXPECT_EQ(network.listen(*parse_socket_address("10.0.0.2:4420", 0)).error().code, Code::kUnreachable);
  auto chosen = network.listen(node.address(0));
  ASSERT_TRUE(chosen);
  EXPECT_NE((*chosen)->address().port, 0);
  auto loopback = network.listen(*parse_socket_address("127.0.0.1:4421", 0));
  ASSERT_TRUE(loopback);
  std::unique_ptr<Stream> server;
  std::optional<Result<std::unique_ptr<Stream>>> client;
  world.spawn(node, 0, accept_one(node.shard(0), **loopback, server));
  world.spawn(node, 0, connect_to(node.shard(0), *parse_socket_address("127.0.0.1:4421", 0), client));
  EXPECT_EQ(world.run_until([&] { return server && client; }, seconds(1)), RunResult::kDone);
  EXPECT_TRUE(client->has_value());
}

// What the peer of a node that dies sees.
struct DeathCase {
  const char* name;
  CrashKind kind;
};
class DeathTest : public testing::TestWithParam<DeathCase> {};

Task<void> hold(SimNode& node, std::unique_ptr<Stream> stream, Record& record) {
  co_await receive_all(*stream, record);
  co_await node.stopping(0).wait();
}

TEST_P(DeathTest, ThePeerHearsOfItWhenItCan) {
  int ended = 0;
  int reset = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Record client;
    Record server;
    const std::vector<std::byte> bytes = noise(10, 1);
    Pair pair(seed);
    SimWorld& world = pair.world;
    ASSERT_EQ(pair.connect(), RunResult::kDone);
    world.spawn(pair.b, 0, hold(pair.b, std::move(pair.server), server));
    world.spawn(pair.a, 0, receive_all(*pair.client, client));
    world.run_for(milliseconds(5));
    pair.listener->close();
    pair.listener.reset();
    world.crash(pair.b, GetParam().kind);
    ASSERT_TRUE(server.error);
    EXPECT_EQ(server.error->code, Code::kConnectionLost);
    world.run_for(seconds(30));
    if (GetParam().kind == CrashKind::kProcessKilled) {
      EXPECT_TRUE(client.error || client.ended);
      EXPECT_EQ(connect_error(world, pair.a, pair.b.address(4420)), Code::kUnreachable);
    } else {
      EXPECT_FALSE(client.error || client.ended) << "nobody said anything";
      EXPECT_EQ(connect_error(world, pair.a, pair.b.address(4420)), Code::kTimedOut);
      world.restart(pair.b);
      world.run_for(seconds(1));
      EXPECT_FALSE(client.error || client.ended) << "it has sent nothing that could be refused";
      world.spawn(pair.a, 0, send_all(*pair.client, bytes, client));
      EXPECT_EQ(world.run_until([&] { return client.error.has_value(); }, seconds(10)), RunResult::kDone);
    }
    ended += client.ended ? 1 : 0;
    reset += client.error ? 1 : 0;
    pair.drop();
  }
  EXPECT_GT(reset, 0);
  EXPECT_EQ(ended > 0, GetParam().kind == CrashKind::kProcessKilled);
}

INSTANTIATE_TEST_SUITE_P(Kinds, DeathTest,
                         testing::Values(DeathCase{"PowerLost", CrashKind::kPowerLost},
                                         DeathCase{"ProcessKilled", CrashKind::kProcessKilled}),
                         [](const auto& info) { return info.param.name; });

TEST(SimNetworkTest, AListenerThatClosesRefusesThoseWhoWait) {
  Record record;
  Pair pair(13);
  std::optional<Result<std::unique_ptr<Stream>>> out;
  pair.world.spawn(pair.a, 0, connect_to(pair.a.shard(0), pair.b.address(4420), out));
  ASSERT_EQ(pair.world.run_until([&] { return out.has_value(); }, seconds(1)), RunResult::kDone);
  pair.client = std::move(**out);
  pair.world.spawn(pair.a, 0, receive_all(*pair.client, record));
  pair.listener->close();
  ASSERT_EQ(pair.world.run_until([&] { return record.error.has_value(); }, seconds(1)), RunResult::kDone);
  EXPECT_EQ(record.error->code, Code::kConnectionLost);
}

TEST(SimNetworkTest, AConnectionThatWasLostCannotBeAdopted) {
  Pair pair(14);
  std::optional<Result<std::unique_ptr<Stream>>> out;
  pair.world.spawn(pair.a, 0, connect_to(pair.a.shard(0), pair.b.address(4420), out));
  ASSERT_EQ(pair.world.run_until([&] { return out.has_value(); }, seconds(1)), RunResult::kDone);
  pair.client = std::move(**out);
  pair.world.network().reset_connections(0, 1);
  pair.world.run_for(milliseconds(10));
  pair.world.spawn(pair.b, 0, accept_one(pair.b.shard(0), *pair.listener, pair.server));
  pair.world.run_for(milliseconds(10));
  EXPECT_EQ(pair.server, nullptr);
  EXPECT_EQ(pair.world.network().connection_count(), 1U) << "the client's end is still open";
}

TEST(SimNetworkTest, BytesToACloserMakeItReset) {
  const std::vector<std::byte> bytes = noise(1000, 1);
  Record record;
  Pair pair(12);
  ASSERT_EQ(pair.connect(), RunResult::kDone);
  pair.server.reset();
  pair.world.spawn(pair.a, 0, receive_all(*pair.client, record));
  ASSERT_EQ(pair.world.run_until([&] { return record.ended; }, seconds(1)), RunResult::kDone);
  pair.world.spawn(pair.a, 0, send_all(*pair.client, bytes, record));
  pair.world.run_for(milliseconds(10));
  record.ended = false;
  pair.world.spawn(pair.a, 0, receive_all(*pair.client, record));
  ASSERT_EQ(pair.world.run_until([&] { return record.error.has_value(); }, seconds(1)), RunResult::kDone);
  EXPECT_EQ(record.error->code, Code::kConnectionLost);
}

// One listener's link is cut, one way: what goes the other way arrives, and what was held does once it heals.
TEST(SimNetworkTest, ACutEndpointHoldsWhatGoesThere) {
  const std::vector<std::byte> bytes = noise(1000, 1);
  Record client;
  Record server;
  Pair pair(15);
  ASSERT_EQ(pair.connect(), RunResult::kDone);
  const SocketAddress endpoint = pair.b.address(4420);
  pair.world.network().cut_endpoint(pair.b.address(4421), SimFabric::Way::kBoth);  // another one
  pair.world.network().cut_endpoint(endpoint, SimFabric::Way::kTo);
  pair.world.spawn(pair.a, 0, receive_all(*pair.client, client));
  pair.world.spawn(pair.b, 0, receive_all(*pair.server, server));
  pair.world.spawn(pair.a, 0, send_all(*pair.client, bytes, client));
  pair.world.spawn(pair.b, 0, send_all(*pair.server, bytes, server));
  pair.world.run_for(milliseconds(100));
  EXPECT_EQ(client.received, bytes);
  EXPECT_TRUE(server.received.empty());
  EXPECT_EQ(connect_error(pair.world, pair.a, endpoint), Code::kTimedOut);
  pair.world.network().heal_endpoint(endpoint);
  pair.world.run_for(milliseconds(100));
  EXPECT_EQ(server.received, bytes);
  EXPECT_EQ(pair.world.network().reset_connections(pair.b.address(4421)), 0U);
  EXPECT_EQ(pair.world.network().reset_connections(endpoint), 1U);
  pair.world.run_for(milliseconds(100));
  EXPECT_TRUE(client.error.has_value() && server.error.has_value());
}

}  // namespace
}  // namespace fairlead::sim
