// A replica, its keeper and both ways to it: over NVMe/TCP between simulated nodes, and in its own process.
#include "engine/replica.h"

#include <gtest/gtest.h>

#include "async/cancel.h"
#include "engine/test_bed.h"

namespace fairlead::engine {
namespace {

using mirror::Done;
using mirror::Failed;
using mirror::Fenced;
using mirror::Prepared;
using mirror::Reply;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint64_t kExtent = mirror::kExtentBytes;

template <typename Kind>
bool is(const Reply& reply) {
  return std::holds_alternative<Kind>(reply);
}
std::optional<Code> failure(const Reply& reply) {
  const Failed* const failed = std::get_if<Failed>(&reply);
  return failed == nullptr ? std::nullopt : std::optional(failed->code);
}

// Links, each a host of its own, and devices of theirs, which go before them.
class Links {
 public:
  explicit Links(EngineBed& bed) : bed_(bed) {}
  Task<RemoteLink*> connect(RemoteLinkOptions options) {
    options.host.identity = host::identity_from_id(test_uuid(static_cast<uint8_t>(100 + links_.size())));
    links_.push_back(std::make_unique<RemoteLink>(bed_.client_shards(), std::move(options)));
    links_.back()->start();
    EXPECT_TRUE(co_await await_connection(bed_.reactor(), *links_.back()));
    co_return links_.back().get();
  }
  Task<RemoteLink*> connect() { return connect(bed_.link_options()); }
  Task<void> close() {
    for (const auto& link : links_) co_await link->stop();
    links_.clear();
  }

 private:
  EngineBed& bed_;
  std::vector<std::unique_ptr<RemoteLink>> links_;
};

Task<void> serves_whom_it_promised(EngineBed& bed) {
  Links links(bed);
  RemoteLink& one = *co_await links.connect();
  RemoteLink& other = *co_await links.connect();
  EXPECT_FALSE(one.is_local());
  {
    auto by_one = co_await open_on(one, bed.home());
    auto by_other = co_await open_on(other, bed.home());
    CO_ASSERT_TRUE(by_one != nullptr && by_other != nullptr);
    EXPECT_EQ(by_one->geometry().size_bytes, kReplicaBytes);
    EXPECT_EQ(co_await put_code(bed.reactor(), *by_one, 0, pattern(kBlock, 1)), Code::kFenced);
    Session first{one};
    const Reply reply = co_await first.prepare(term(2));
    CO_ASSERT_TRUE(is<Prepared>(reply));
    const Prepared& prepared = std::get<Prepared>(reply);
    EXPECT_EQ(prepared.record, bed.first);
    EXPECT_EQ(prepared.size_bytes, kReplicaBytes);
    EXPECT_FALSE(prepared.is_cold);
    EXPECT_EQ(prepared.session.boot_id, bed.engines[0]->home().storage.boot_id());
    EXPECT_TRUE(is<Done>(co_await first.ask(mirror::GenerationRequest{1})));
    EXPECT_EQ(co_await put_code(bed.reactor(), *by_one, 0, pattern(kBlock, 1)), std::nullopt);
    EXPECT_EQ(co_await put_code(bed.reactor(), *by_other, 0, pattern(kBlock, 2)), Code::kFenced);
    const auto read = co_await get(bed.reactor(), *by_other, 0, kBlock);
    EXPECT_TRUE(!read && read.error().code == Code::kFenced);
    Session second{other};
    EXPECT_TRUE(is<Fenced>(co_await second.prepare(term(1))));
    CO_ASSERT_TRUE(co_await second.begin(term(3), 2));
    EXPECT_EQ(co_await put_code(bed.reactor(), *by_one, 0, pattern(kBlock, 3)), Code::kFenced);
    EXPECT_TRUE(is<Fenced>(co_await first.ask(mirror::GenerationRequest{9})));
    EXPECT_EQ(co_await get(bed.reactor(), *by_other, 0, kBlock), pattern(kBlock, 1));
    // The way back, for the same caller: another session, the device is the same.
    CO_ASSERT_TRUE(co_await first.begin(term(4), 3));
    EXPECT_EQ(first.session.number, 3U);
    EXPECT_EQ(co_await put_code(bed.reactor(), *by_one, 0, pattern(kBlock, 4)), std::nullopt);
    EXPECT_EQ(co_await put_code(bed.reactor(), *by_other, 0, pattern(kBlock, 5)), Code::kFenced);
  }
  co_await links.close();
}
TEST(ReplicaTest, WhoeverIsNotPreparedIsFenced) { EngineBed().run(serves_whom_it_promised); }

Task<void> speaks_to_all(EngineBed& bed) {
  Links links(bed);
  RemoteLink& link = *co_await links.connect();
  Session session{link};
  CO_ASSERT_TRUE(co_await session.begin(term(2), 1));
  mirror::Record record = bed.first;
  record.at = {.term = term(2), .generation = 5};
  EXPECT_TRUE(is<Done>(co_await session.ask(mirror::RecordRequest{record})));
  EXPECT_TRUE(is<Done>(co_await session.ask(mirror::NoteRequest{{.term = term(2), .generation = 1}})));
  EXPECT_TRUE(is<Done>(co_await session.ask(mirror::LeaseRequest{1'000'000})));
  EXPECT_TRUE(is<Done>(co_await session.ask(mirror::LevelledRequest{})));
  EXPECT_TRUE(is<Done>(co_await session.ask(mirror::GenerationRequest{2})));
  EXPECT_TRUE(is<Done>(co_await session.ask(mirror::StampRequest{{3, 4, 9}})));
  const Reply changed =
      co_await session.ask(mirror::ChangedRequest{.since = mirror::Stamp{.term = term(2), .generation = 1}});
  CO_ASSERT_TRUE(is<mirror::Ranges>(changed));
  EXPECT_EQ(std::get<mirror::Ranges>(changed).ranges,
            (std::vector<mirror::ByteSpan>{{3 * kExtent, 5 * kExtent}, {9 * kExtent, 10 * kExtent}}));
  EXPECT_EQ(bed.engines[0]->replica().store().state().record, record);
  // Another volume's, another replica's.
  mirror::Request request{
      .volume = test_uuid(2), .replica = link.replica(), .term = {}, .body = mirror::LevelledRequest{}};
  const auto wrong_volume = co_await link.call(request);
  EXPECT_TRUE(wrong_volume && failure(*wrong_volume) == Code::kNotFound);
  co_await links.close();

  // Bytes that are no request.
  host::SubsystemOptions options = bed.link_options().host;
  options.nqn = replica_nqn(bed.replica_id(0));
  options.addresses = {bed.engines[0]->address()};
  host::Subsystem subsystem(bed.client_shards(), options);
  CO_ASSERT_TRUE(co_await subsystem.start());
  EXPECT_EQ(subsystem.namespaces().size(), 1U);
  EXPECT_EQ(subsystem.namespaces().front().identity.uuid, bed.replica_id(0));
  const std::vector<std::byte> good = mirror::encode(request);
  for (std::vector<std::byte> bytes : {pattern(1, 1), pattern(4096, 3), good}) {
    if (bytes.size() == good.size()) bytes.pop_back();
    const auto answer = co_await subsystem.call(kReplicaNsid, bytes);
    CO_ASSERT_TRUE(answer.has_value());
    const auto reply = mirror::decode_reply(*answer);
    EXPECT_TRUE(reply && failure(*reply) == Code::kProtocol);
  }
  co_await subsystem.stop();
}
TEST(ReplicaTest, EveryRequestGoesThere) { EngineBed().run(speaks_to_all); }

// Writes on and on, from each shard, until it is fenced.
struct Writers {
  EngineBed& bed;
  mirror::ReplicaLink& link;
  std::vector<Shard*> shards;
  bool is_ending = false;
  uint64_t acknowledged = 0;
  uint64_t fenced = 0;
  uint64_t others = 0;

  Task<void> run(size_t index) {
    Shard& home = *shards.front();
    Shard& here = *shards[index % shards.size()];
    auto device = co_await call_on(home.reactor, here.reactor, open_on(link, here));
    if (device == nullptr) co_return;
    for (uint8_t round = 0; !is_ending; ++round) {
      const uint64_t offset = (index * 16 + round % 16) * kBlock * 3;
      const auto code = co_await call_on(home.reactor, here.reactor,
                                         put_code(here.reactor, *device, offset, pattern(2 * kBlock, round)));
      if (!code) {
        ++acknowledged;
      } else if (code == Code::kFenced) {
        ++fenced;
        break;
      } else {
        ++others;
        break;
      }
    }
    co_await call_on(home.reactor, here.reactor, destroy_on(device));
  }
};

// Some I/O takes much longer than a prepare does without it.
void slow_down(EngineBed& bed) {
  sim::DiskFaults faults;
  faults.elsewhere.slow_ppm = 30'000;
  bed.world.find_disk(bed.engines[0]->node(), "/disk")->set_faults(faults);
}

Task<void> sees_no_straggler(EngineBed& bed, mirror::ReplicaLink& old, mirror::ReplicaLink& next, Shard& home,
                             std::vector<Shard*> shards) {
  slow_down(bed);
  Session first{old};
  CO_ASSERT_TRUE(co_await first.begin(term(2), 1));
  Writers writers{.bed = bed, .link = old, .shards = shards};
  Scope scope(home.reactor);
  constexpr size_t kWriters = 12;
  for (size_t i = 0; i < kWriters; ++i) scope.spawn(writers.run(i));
  Session second{next};
  auto reader = co_await open_on(next, home);
  for (uint64_t round = 3; round < 8; ++round) {
    while (writers.acknowledged < 40) (void)co_await sleep(home.reactor, std::chrono::microseconds(50));
    CO_ASSERT_TRUE(is<Prepared>(co_await second.prepare(term(round))));
    // Nothing that the old one sent lands from here on.
    const auto before = co_await get(home.reactor, *reader, 0, kExtent);
    (void)co_await sleep(home.reactor, milliseconds(60));
    EXPECT_TRUE(before && before == co_await get(home.reactor, *reader, 0, kExtent));
    co_await scope.close();
    EXPECT_EQ(writers.fenced, kWriters);
    if (round == 7) break;
    writers.acknowledged = writers.fenced = 0;
    ++round;
    CO_ASSERT_TRUE(co_await first.begin(term(round), round));
    for (size_t i = 0; i < kWriters; ++i) scope.spawn(writers.run(i));
  }
  EXPECT_EQ(writers.others, 0U);
}

Task<void> drains_remote(EngineBed& bed) {
  Links links(bed);
  RemoteLink& one = *co_await links.connect();
  RemoteLink& other = *co_await links.connect();
  co_await sees_no_straggler(bed, one, other, bed.home(), bed.client_shards());
  co_await links.close();
}
sim::SimSettings rough(uint64_t seed) {
  sim::SimSettings settings = sim::SimSettings::calm();
  settings.order = sim::Order::kRandom;
  settings.mailbox_capacity = 2;
  settings.turn_cost_ns_max = 2000;
  settings.disk.split_ppm = 300'000;
  settings.disk.latency_max = milliseconds(2);
  settings.disk.slow_max = milliseconds(40);
  settings.network.spike_ppm = 20'000;
  settings.network.spike_max = milliseconds(5);
  if (seed % 2 == 1) settings.network.chop = sim::Chop::kRandom;
  return settings;
}
TEST(ReplicaTest, WhatWasLetThroughHasEndedWhenThePrepareIsAnswered) {
  for (uint64_t seed = 1; seed <= 6 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    EngineBed({.shards = 1 + seed % 3, .seed = seed, .settings = rough(seed)}).run(drains_remote);
  }
}

// ---- In the same process

Task<void> drains_local(EngineBed& bed) {
  TestEngine& engine = *bed.engines[0];
  LocalLink one(engine.replica());
  LocalLink other(engine.replica());
  one.start();
  other.start();
  EXPECT_TRUE(one.is_local());
  EXPECT_NE(one.connection(), other.connection());
  co_await sees_no_straggler(bed, one, other, engine.home(), engine.shards());
  co_await one.stop();
  co_await other.stop();
}
TEST(ReplicaTest, LocalCallersAreDrainedOnEveryShard) {
  for (uint64_t seed = 1; seed <= 6 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    EngineBed({.shards = 1 + seed % 3, .seed = seed, .settings = rough(seed)}).run_at(0, drains_local);
  }
}

// The local target and one elsewhere in turn. Run on the engine; the link of the other is on the client.
Task<Reply> prepare_from(Session& session, mirror::Term of) { co_return co_await session.prepare(of); }

Task<void> excludes_each_other(EngineBed& bed) {
  Links links(bed);
  RemoteLink& remote = *co_await links.connect();
  TestEngine& engine = *bed.engines[0];
  Reactor& there = engine.reactor();
  co_await MoveTo(bed.reactor(), there);
  LocalLink local(engine.replica());
  local.start();
  Session here{local};
  auto near = co_await open_on(local, engine.home());
  CO_ASSERT_TRUE(near != nullptr);
  EXPECT_EQ(co_await put_code(there, *near, 0, pattern(kBlock, 1)), Code::kFenced);
  CO_ASSERT_TRUE(co_await here.begin(term(2), 1));
  EXPECT_EQ(co_await put_code(there, *near, 0, pattern(kBlock, 1)), std::nullopt);
  co_await MoveTo(there, bed.reactor());

  auto far = co_await open_on(remote, bed.home());
  EXPECT_EQ(co_await put_code(bed.reactor(), *far, 0, pattern(kBlock, 2)), Code::kFenced);
  Session elsewhere{remote};
  CO_ASSERT_TRUE(is<Prepared>(co_await prepare_from(elsewhere, term(3))));
  EXPECT_EQ(co_await get(bed.reactor(), *far, 0, kBlock), pattern(kBlock, 1));
  co_await MoveTo(bed.reactor(), there);
  EXPECT_EQ(co_await put_code(there, *near, 0, pattern(kBlock, 3)), Code::kFenced);
  EXPECT_TRUE(is<Fenced>(co_await here.ask(mirror::GenerationRequest{7})));
  // Back again; and when its connection goes, nobody has a session.
  CO_ASSERT_TRUE(co_await here.begin(term(4), 2));
  EXPECT_EQ(co_await put_code(there, *near, 0, pattern(kBlock, 4)), std::nullopt);
  const uint64_t connection = local.connection();
  local.drop();
  EXPECT_NE(local.connection(), 0U);
  EXPECT_NE(local.connection(), connection);
  EXPECT_TRUE(is<Fenced>(co_await here.ask(mirror::LevelledRequest{})));
  EXPECT_EQ(co_await put_code(there, *near, 0, pattern(kBlock, 5)), Code::kFenced);
  // A device of the old connection is of no use to the session of the new one.
  CO_ASSERT_TRUE(co_await here.begin(term(4), 3));
  EXPECT_EQ(co_await put_code(there, *near, 0, pattern(kBlock, 6)), Code::kFenced);
  near = co_await open_on(local, engine.home());
  EXPECT_EQ(co_await get(there, *near, 0, kBlock), pattern(kBlock, 4));
  co_await MoveTo(there, bed.reactor());
  EXPECT_EQ(co_await put_code(bed.reactor(), *far, 0, pattern(kBlock, 7)), Code::kFenced);
  far.reset();
  co_await MoveTo(bed.reactor(), there);
  near.reset();
  co_await local.stop();
  EXPECT_EQ(local.connection(), 0U);
  co_await MoveTo(there, bed.reactor());
  co_await links.close();
}
TEST(ReplicaTest, LocalAndRemoteCallersExcludeEachOther) { EngineBed().run(excludes_each_other); }

Task<void> closes_under_links(EngineBed& bed) {
  TestEngine& engine = *bed.engines[0];
  // One without any target, beside the one that the engine serves.
  const auto made = co_await engine.pool().create_replica({.name = "other", .size_bytes = kMiB});
  CO_ASSERT_TRUE(made.has_value());
  auto opened = co_await Replica::open(engine.shards(), engine.pool(), nullptr, {.id = *made, .lease_max = kLease});
  CO_ASSERT_TRUE(opened.has_value());
  {
    LocalLink link(**opened);
    EXPECT_EQ(link.connection(), 0U);
    link.start();
    auto device = link.open(engine.home());
    CO_ASSERT_TRUE(device.has_value());
    // A prepare waits for the lease that there may be; the replica closes meanwhile.
    mirror::Request request{.volume = {}, .replica = *made, .term = term(2), .body = mirror::PrepareRequest{term(2)}};
    std::optional<Result<Reply>> reply;
    Scope scope(engine.reactor());
    const auto ask = [](LocalLink& by, mirror::Request what, std::optional<Result<Reply>>& out) -> Task<void> {
      out = co_await by.call(std::move(what));
    };
    scope.spawn(ask(link, request, reply));
    (void)co_await sleep(engine.reactor(), milliseconds(1));
    EXPECT_FALSE(reply.has_value());
    co_await (*opened)->close();
    co_await scope.close();
    CO_ASSERT_TRUE(reply.has_value());
    EXPECT_TRUE(!*reply && reply->error().code == Code::kConnectionLost);
    EXPECT_EQ(link.connection(), 0U);
    const auto late = co_await link.call(request);
    EXPECT_TRUE(!late && late.error().code == Code::kUnreachable);
    EXPECT_FALSE(link.open(engine.home()).has_value());
    EXPECT_EQ(co_await put_code(engine.reactor(), **device, 0, pattern(kBlock, 1)), Code::kFenced);
    link.drop();
    co_await link.stop();
  }
}
TEST(ReplicaTest, AReplicaThatClosesLosesItsLinks) { EngineBed().run_at(0, closes_under_links); }

// ---- Connections

Task<void> loses_connections(EngineBed& bed) {
  Links links(bed);
  RemoteLink& link = *co_await links.connect();
  auto device = co_await open_on(link, bed.home());
  Session session{link};
  CO_ASSERT_TRUE(co_await session.begin(term(2), 1));
  EXPECT_EQ(co_await put_code(bed.reactor(), *device, 0, pattern(kBlock, 1)), std::nullopt);
  for (const bool is_cut : {false, true}) {
    SCOPED_TRACE(is_cut);
    const uint64_t connection = link.connection();
    if (is_cut) {
      bed.world.network().isolate(bed.client.index());
      while (link.connection() == connection) (void)co_await sleep(bed.reactor(), milliseconds(10));
      EXPECT_EQ(link.connection(), 0U);
      EXPECT_EQ(co_await put_code(bed.reactor(), *device, 0, pattern(kBlock, 9)), Code::kUnreachable);
      EXPECT_EQ(failure(co_await session.ask(mirror::LevelledRequest{})), Code::kUnreachable);
      bed.world.heal();
    } else {
      link.drop();
      EXPECT_EQ(link.connection(), 0U);
      EXPECT_EQ(failure(co_await session.ask(mirror::LevelledRequest{})), Code::kUnreachable);
    }
    CO_ASSERT_TRUE(co_await await_connection(bed.reactor(), link, connection));
    // The same device, and nobody has prepared it on this connection.
    EXPECT_EQ(co_await put_code(bed.reactor(), *device, 0, pattern(kBlock, 2)), Code::kFenced);
    EXPECT_TRUE(is<Fenced>(co_await session.ask(mirror::LevelledRequest{})));
    const mirror::Session before = session.session;
    CO_ASSERT_TRUE(co_await session.begin(term(2), is_cut ? 3 : 2));
    EXPECT_GT(session.session.number, before.number);
    EXPECT_EQ(co_await put_code(bed.reactor(), *device, 0, pattern(kBlock, 3)), std::nullopt);
  }
  device.reset();
  co_await links.close();
}
TEST(ReplicaTest, ASessionEndsWithItsConnection) { EngineBed().run(loses_connections); }

Task<void> waits_no_longer(EngineBed& bed) {
  Links links(bed);
  RemoteLinkOptions options = bed.link_options();
  options.call_limit = milliseconds(50);
  RemoteLink& hasty = *co_await links.connect(options);
  RemoteLink& other = *co_await links.connect();
  Session patient{other};
  CO_ASSERT_TRUE(co_await patient.begin(term(2), 1));
  EXPECT_TRUE(is<Done>(co_await patient.ask(mirror::LeaseRequest{400'000'000})));
  Session session{hasty};
  const Instant begin = bed.reactor().now();
  EXPECT_EQ(failure(co_await session.prepare(term(3))), Code::kTimedOut);
  EXPECT_GE(bed.reactor().now() - begin, milliseconds(50));
  EXPECT_LT(bed.reactor().now() - begin, milliseconds(60));
  // Though nobody waits for it any more, it was promised.
  EXPECT_TRUE(is<Fenced>(co_await patient.ask(mirror::LevelledRequest{})));
  (void)co_await sleep(bed.reactor(), milliseconds(500));
  EXPECT_EQ(bed.engines[0]->replica().store().state().session.term, term(3));
  co_await links.close();
}
TEST(ReplicaTest, ACallHasATimeLimit) { EngineBed().run(waits_no_longer); }

Task<void> connects_when_it_comes(EngineBed& bed) {
  bed.crash(0, sim::CrashKind::kProcessKilled);
  RemoteLink link(bed.client_shards(), bed.link_options());
  EXPECT_FALSE(link.open(bed.home()).has_value());
  link.start();
  (void)co_await sleep(bed.reactor(), seconds(5));
  EXPECT_EQ(link.connection(), 0U);
  EXPECT_EQ(link.open(bed.home()).error().code, Code::kUnreachable);
  bed.world.restart(bed.engines[0]->node());
  EXPECT_TRUE(co_await await_connection(bed.reactor(), link));
  Session session{link};
  EXPECT_TRUE(co_await session.begin(term(2), 1));
  co_await link.stop();
  EXPECT_EQ(link.connection(), 0U);
  EXPECT_EQ(failure(co_await session.ask(mirror::LevelledRequest{})), Code::kUnreachable);
  // One that is stopped while nobody is there.
  bed.crash(0, sim::CrashKind::kProcessKilled);
  RemoteLink lonely(bed.client_shards(), bed.link_options());
  lonely.start();
  (void)co_await sleep(bed.reactor(), milliseconds(1));
  co_await lonely.stop();
}
TEST(ReplicaTest, ALinkWaitsForAnEngineThatIsDown) { EngineBed().run(connects_when_it_comes); }

// One that was there before and one that never was wait long; a third finds it back.
Task<void> hurries_neighbours(EngineBed& bed) {
  Neighbours neighbours;
  RemoteLinkOptions options = bed.link_options();
  options.neighbours = &neighbours;
  options.host.reconnect_max = std::chrono::hours(1);
  Links links(bed);
  RemoteLink& was_there = *co_await links.connect(options);
  bed.crash(0, sim::CrashKind::kProcessKilled);
  RemoteLink never_was(bed.client_shards(), options);
  never_was.start();
  (void)co_await sleep(bed.reactor(), std::chrono::minutes(20));
  bed.world.restart(bed.engines[0]->node());
  (void)co_await sleep(bed.reactor(), seconds(5));
  EXPECT_EQ(was_there.connection(), 0U);
  EXPECT_EQ(never_was.connection(), 0U);
  (void)co_await links.connect(options);
  const Instant found = bed.reactor().now();
  EXPECT_TRUE(co_await await_connection(bed.reactor(), was_there));
  EXPECT_TRUE(co_await await_connection(bed.reactor(), never_was));
  EXPECT_LE(bed.reactor().now() - found, seconds(1));
  co_await never_was.stop();
  co_await links.close();
}
TEST(ReplicaTest, ALinkThatConnectsHurriesItsNeighbours) { EngineBed().run(hurries_neighbours); }

// ---- Crashes

enum class Then : uint8_t { kNothing, kNoted, kNotedAndBegun, kOverwrites, kUnmaps };

// A session, writes that are not flushed (or are, and noted), and whatever comes after the note.
Task<void> writes_in_session(EngineBed& bed, Then& then) {
  Links links(bed);
  RemoteLink& link = *co_await links.connect();
  auto device = co_await open_on(link, bed.home());
  Session session{link};
  CO_ASSERT_TRUE(co_await session.begin(term(2), 1));
  EXPECT_EQ(co_await put_code(bed.reactor(), *device, 0, pattern(2 * kExtent, 1)), std::nullopt);
  if (then != Then::kNothing) {
    EXPECT_TRUE(is<Done>(co_await session.ask(mirror::GenerationRequest{2})));
    EXPECT_TRUE(co_await block_flush(bed.reactor(), *device));
    EXPECT_TRUE(is<Done>(co_await session.ask(mirror::NoteRequest{{.term = term(2), .generation = 1}})));
  }
  if (then == Then::kNotedAndBegun) EXPECT_TRUE(is<Done>(co_await session.ask(mirror::GenerationRequest{3})));
  if (then == Then::kOverwrites) {
    EXPECT_EQ(co_await put_code(bed.reactor(), *device, kBlock, pattern(kBlock, 2)), std::nullopt);
  }
  if (then == Then::kUnmaps) {
    EXPECT_TRUE(co_await block_write_zeroes(bed.reactor(), *device, ByteOffset(kExtent), kExtent));
  }
  device.reset();
  co_await links.close();
}
Task<void> prepares_again(EngineBed& bed, bool& is_cold) {
  Links links(bed);
  RemoteLink& link = *co_await links.connect();
  Session session{link};
  const Reply lower = co_await session.prepare(term(1));
  EXPECT_TRUE(is<Fenced>(lower)) << "the promise was kept";
  const Reply reply = co_await session.prepare(term(3));
  CO_ASSERT_TRUE(is<Prepared>(reply));
  is_cold = std::get<Prepared>(reply).is_cold;
  EXPECT_EQ(std::get<Prepared>(reply).session.number, 2U);
  EXPECT_EQ(std::get<Prepared>(reply).newest.term, term(2));
  // It stays so, until it is told otherwise; another session alone does not warm it.
  const Reply again = co_await session.prepare(term(4));
  CO_ASSERT_TRUE(is<Prepared>(again));
  EXPECT_EQ(std::get<Prepared>(again).is_cold, is_cold);
  EXPECT_TRUE(is<Done>(co_await session.ask(mirror::LevelledRequest{})));
  const Reply warm = co_await session.prepare(term(5));
  EXPECT_TRUE(is<Prepared>(warm) && !std::get<Prepared>(warm).is_cold);
  co_await links.close();
}
bool is_cold_after(sim::CrashKind kind, Then then, uint64_t seed) {
  EngineBed bed({.seed = seed});
  bed.run(writes_in_session, then);
  bed.crash(0, kind);
  bed.restart(0);
  bool is_cold = false;
  bed.run(prepares_again, is_cold);
  return is_cold;
}
TEST(ReplicaTest, AReplicaKnowsWhetherItLostItsCache) {
  for (uint64_t seed = 1; seed <= 2; ++seed) {
    SCOPED_TRACE(seed);
    EXPECT_TRUE(is_cold_after(sim::CrashKind::kPowerLost, Then::kNothing, seed));
    EXPECT_FALSE(is_cold_after(sim::CrashKind::kPowerLost, Then::kNoted, seed));
    EXPECT_FALSE(is_cold_after(sim::CrashKind::kPowerLost, Then::kNotedAndBegun, seed));
    EXPECT_TRUE(is_cold_after(sim::CrashKind::kPowerLost, Then::kOverwrites, seed));
    EXPECT_TRUE(is_cold_after(sim::CrashKind::kPowerLost, Then::kUnmaps, seed));
    EXPECT_FALSE(is_cold_after(sim::CrashKind::kProcessKilled, Then::kNothing, seed));
    EXPECT_FALSE(is_cold_after(sim::CrashKind::kProcessKilled, Then::kOverwrites, seed));
  }
}

Task<void> count_changes(RemoteLink& link, const bool& is_ending, uint64_t& changes) {
  while (!is_ending) {
    co_await link.changed().wait();
    ++changes;
  }
}
Task<void> tries_less_and_less_often(EngineBed& bed) {
  RemoteLinkOptions options = bed.link_options();
  options.address = bed.client.address(4999);  // nobody listens there
  RemoteLink link(bed.client_shards(), options);
  link.start();
  Scope counting(bed.reactor());
  bool is_ending = false;
  uint64_t attempts = 0;
  counting.spawn(count_changes(link, is_ending, attempts));
  co_await sleep(bed.reactor(), std::chrono::seconds(10));
  EXPECT_TRUE(link.is_away());
  EXPECT_GE(attempts, 10U) << "once a second at least";
  EXPECT_LE(attempts, 18U);
  is_ending = true;
  co_await link.stop();
  co_await counting.close();
}
TEST(RemoteLinkTest, WhoWasNeverThereIsTriedLessAndLessOften) {
  EngineBed bed;
  bed.run(tries_less_and_less_often);
}

}  // namespace
}  // namespace fairlead::engine
