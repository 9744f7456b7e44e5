// A keeper behind links, with data beside it: what a target meets at one replica.
#include <gtest/gtest.h>

#include "async/call.h"
#include "async/cancel.h"
#include "sim/world.h"
#include "tests/support/memory_link.h"

namespace fairlead::mirror {
namespace {

using std::chrono::milliseconds;
using test::MemoryLink;
using test::MemoryReplica;

constexpr uint64_t kBlock = test::MemoryMedium::kBlockBytes;
Uuid uuid(uint8_t number) {
  Uuid id;
  id.bytes[15] = number;
  return id;
}
Term term(uint64_t number) { return {.number = number, .writer = uuid(100)}; }

// A target as simple as can be: one link, one session.
struct Client {
  Client(MemoryReplica& to, test::MemoryLinkOptions options) : replica(to), link(to, options) {}

  Task<Result<Reply>> ask(RequestBody body) {
    co_return co_await link.call({.volume = replica.options().volume,
                                  .replica = replica.options().id,
                                  .term = current,
                                  .session = session,
                                  .body = std::move(body)});
  }
  Task<bool> is_done(RequestBody body) {
    const Result<Reply> reply = co_await ask(std::move(body));
    co_return reply&& std::holds_alternative<Done>(*reply);
  }
  // With a generation of its number.
  Task<std::optional<Prepared>> prepare(Term with) {
    const Result<Reply> reply = co_await ask(PrepareRequest{with});
    if (!reply || !std::holds_alternative<Prepared>(*reply)) co_return std::nullopt;
    current = with;
    session = std::get<Prepared>(*reply).session.number;
    EXPECT_TRUE(co_await is_done(GenerationRequest{with.number}));
    co_return std::get<Prepared>(*reply);
  }

  MemoryReplica& replica;
  MemoryLink link;
  Term current;
  uint64_t session = 0;
};

struct Write {
  std::optional<Result<void>> result;
};

struct Bed {
  explicit Bed(test::MemoryLinkOptions options = {})
      : world(1, sim::SimSettings::calm()),
        node(world.add_node("10.0.0.1", {.shards = 2, .more_addresses = {}})),
        link_options(options) {}

  // Runs a test, Task<void>(Bed&), to its end, with two clients and the start's lease over.
  template <typename Test>
  void run(Test test) {
    bool is_over = false;
    world.spawn(node, 0, live(test, is_over));
    ASSERT_EQ(world.run_until([&] { return is_over; }, std::chrono::seconds(3600)), sim::RunResult::kDone)
        << world.report();
  }
  template <typename Test>
  Task<void> live(Test test, bool& is_over) {
    Scope writes(home().reactor);
    scope = &writes;
    replica = std::make_unique<MemoryReplica>(
        home(), test::MemoryReplicaOptions{.volume = uuid(1), .id = uuid(2), .size_bytes = 4 * kExtentBytes});
    first = std::make_unique<Client>(*replica, link_options);
    second = std::make_unique<Client>(*replica, link_options);
    co_await pass(std::chrono::seconds(1));
    co_await test(*this);
    replica->release();
    co_await first->link.stop();
    co_await second->link.stop();
    co_await writes.close();
    EXPECT_EQ(replica->medium().unstamped, 0U);
    EXPECT_EQ(replica->misstamped(), 0U);
    if (replica->is_up()) co_await replica->stop();
    is_over = true;
  }
  Task<void> pass(Duration span) { (void)co_await sleep(home().reactor, span); }
  Shard& home() { return node.shard(0); }

  // On the other shard; all through one device that lives as long.
  static Task<Result<void>> transfer(Shard& shard, MemoryLink& link, IoOp op, uint64_t offset, std::byte* bytes,
                                     Durability durability) {
    Result<std::unique_ptr<BlockDevice>> device = link.open(shard);
    if (!device) co_return std::unexpected(device.error());
    iovec piece{bytes, kBlock};
    const std::span<const iovec> buffers(&piece, 1);
    if (op == IoOp::kFlush) co_return co_await block_flush(shard.reactor, **device);
    if (op == IoOp::kDiscard)
      co_return co_await block_discard(shard.reactor, **device, ByteOffset(offset), kExtentBytes);
    if (op == IoOp::kRead) co_return co_await block_read(shard.reactor, **device, ByteOffset(offset), buffers);
    co_return co_await block_write(shard.reactor, **device, ByteOffset(offset), buffers, durability);
  }
  Task<Result<void>> write(Client& client, uint64_t offset, uint8_t value,
                           Durability durability = Durability::kVolatile) {
    std::vector<std::byte> bytes(kBlock, std::byte{value});
    Shard& away = node.shard(1);
    co_return co_await call_on(home().reactor, away.reactor,
                               transfer(away, client.link, IoOp::kWrite, offset, bytes.data(), durability));
  }
  Task<Result<void>> flush(Client& client) {
    Shard& away = node.shard(1);
    co_return co_await call_on(home().reactor, away.reactor,
                               transfer(away, client.link, IoOp::kFlush, 0, nullptr, Durability::kVolatile));
  }
  Task<Result<void>> discard(Client& client, uint64_t offset) {
    Shard& away = node.shard(1);
    co_return co_await call_on(home().reactor, away.reactor,
                               transfer(away, client.link, IoOp::kDiscard, offset, nullptr, Durability::kVolatile));
  }
  // The block's first byte; -1: it failed.
  Task<int> read(Client& client, uint64_t offset) {
    std::vector<std::byte> bytes(kBlock, std::byte{0xee});
    Shard& away = node.shard(1);
    const Result<void> done =
        co_await call_on(home().reactor, away.reactor,
                         transfer(away, client.link, IoOp::kRead, offset, bytes.data(), Durability::kVolatile));
    co_return done ? static_cast<int>(bytes[0]) : -1;
  }
  int on_disk(uint64_t offset) const {
    std::byte byte{};
    replica->medium().read(offset, {&byte, 1});
    return static_cast<int>(byte);
  }
  void begin(Write& write_under_way, Client& client, uint64_t offset, uint8_t value) {
    scope->spawn(finish(write_under_way, client, offset, value));
  }
  Task<void> finish(Write& write_under_way, Client& client, uint64_t offset, uint8_t value) {
    write_under_way.result = co_await write(client, offset, value);
  }

  sim::SimWorld world;
  sim::SimNode& node;
  const test::MemoryLinkOptions link_options;
  std::unique_ptr<MemoryReplica> replica;
  std::unique_ptr<Client> first;
  std::unique_ptr<Client> second;
  Scope* scope = nullptr;
};

Task<void> prepare_and_tell(Client& client, Term with, bool& is_prepared) {
  is_prepared = (co_await client.prepare(with)).has_value();
}

const test::MemoryLinkOptions kFar = [] {
  test::MemoryLinkOptions options;
  options.delay_min = milliseconds(5);
  options.delay_max = milliseconds(5);
  return options;
}();

TEST(ReplicaTest, WhatASessionWritesIsStampedAndReadBack) {
  Bed(kFar).run([](Bed& bed) -> Task<void> {
    EXPECT_TRUE(co_await bed.first->prepare(term(5)));
    EXPECT_TRUE(co_await bed.write(*bed.first, kExtentBytes, 7));
    EXPECT_EQ(co_await bed.read(*bed.first, kExtentBytes), 7);
    EXPECT_EQ(bed.replica->medium().stamp(1), (Stamp{term(5), 5}));
    EXPECT_EQ(bed.replica->medium().stamp(0), std::nullopt);
    EXPECT_TRUE(co_await bed.first->is_done(GenerationRequest{6}));
    EXPECT_TRUE(co_await bed.discard(*bed.first, kExtentBytes));
    EXPECT_EQ(co_await bed.read(*bed.first, kExtentBytes), 0);
    EXPECT_FALSE(bed.replica->medium().is_mapped(1));
    EXPECT_EQ(bed.replica->medium().stamp(1), (Stamp{term(5), 6})) << "what was unmapped is stamped too";
  });
}

TEST(ReplicaTest, OnlyTheConnectionThatWasPreparedIsLetThrough) {
  Bed(kFar).run([](Bed& bed) -> Task<void> {
    EXPECT_EQ((co_await bed.write(*bed.first, 0, 1)).error().code, Code::kFenced) << "nobody was prepared";
    EXPECT_TRUE(co_await bed.first->prepare(term(5)));
    EXPECT_EQ((co_await bed.write(*bed.second, 0, 2)).error().code, Code::kFenced);
    EXPECT_EQ((co_await bed.flush(*bed.second)).error().code, Code::kFenced);
    EXPECT_EQ(co_await bed.read(*bed.second, 0), -1);
    EXPECT_TRUE(co_await bed.second->prepare(term(6)));
    EXPECT_EQ((co_await bed.write(*bed.first, 0, 3)).error().code, Code::kFenced);
    EXPECT_TRUE(co_await bed.write(*bed.second, 0, 4));
    EXPECT_EQ(co_await bed.read(*bed.second, 0), 4);
  });
}

TEST(ReplicaTest, AWriteUnderWayEndsBeforeAnotherTargetIsPrepared) {
  Bed(kFar).run([](Bed& bed) -> Task<void> {
    EXPECT_TRUE(co_await bed.first->prepare(term(5)));
    bed.replica->hold(IoOp::kWrite);
    Write write;
    bed.begin(write, *bed.first, 0, 1);
    co_await bed.pass(milliseconds(50));
    EXPECT_EQ(bed.replica->held(), 1U);
    bool is_prepared = false;
    bed.scope->spawn(prepare_and_tell(*bed.second, term(6), is_prepared));
    co_await bed.pass(milliseconds(500));
    EXPECT_FALSE(is_prepared);
    EXPECT_EQ(bed.on_disk(0), 0);
    bed.replica->release();
    co_await bed.pass(milliseconds(50));
    EXPECT_TRUE(is_prepared);
    EXPECT_TRUE(write.result && *write.result) << "it took effect before";
    EXPECT_EQ(bed.on_disk(0), 1);
  });
}

TEST(ReplicaTest, AStragglerOfALostConnectionDoesNotLandInTheNextSession) {
  Bed(kFar).run([](Bed& bed) -> Task<void> {
    EXPECT_TRUE(co_await bed.first->prepare(term(5)));
    bed.first->link.set_delay(milliseconds(100), milliseconds(100));
    Write write;
    bed.begin(write, *bed.first, 0, 1);
    co_await bed.pass(milliseconds(10));
    const uint64_t before = bed.first->link.connection();
    bed.first->link.drop();
    EXPECT_EQ(bed.first->link.connection(), 0U);
    bed.first->link.set_delay(milliseconds(1), milliseconds(1));
    co_await bed.pass(milliseconds(20));
    EXPECT_EQ(write.result.value().error().code, Code::kConnectionLost) << "at once";
    EXPECT_GT(bed.first->link.connection(), before);
    EXPECT_TRUE(co_await bed.first->prepare(term(5)));
    EXPECT_TRUE(co_await bed.write(*bed.first, 0, 2));
    co_await bed.pass(milliseconds(500));
    EXPECT_EQ(bed.on_disk(0), 2);
  });
}

TEST(ReplicaTest, ALostConnectionsRequestsMayStillTakeEffectUntilTheReplicaNotesIt) {
  test::MemoryLinkOptions late = kFar;
  late.notice_delay = milliseconds(100);
  Bed(late).run([](Bed& bed) -> Task<void> {
    EXPECT_TRUE(co_await bed.first->prepare(term(5)));
    Write write;
    bed.begin(write, *bed.first, 0, 1);
    co_await bed.pass(milliseconds(2));
    bed.first->link.drop();
    co_await bed.pass(milliseconds(20));
    EXPECT_EQ(write.result.value().error().code, Code::kConnectionLost);
    EXPECT_EQ(bed.on_disk(0), 1) << "perhaps done";
    co_await bed.pass(milliseconds(200));
    EXPECT_EQ(bed.replica->gate().open_for(), 0U);
  });
}

TEST(ReplicaTest, APowerCutLosesWhatWasNotFlushedAndTheReplicaIsColdThen) {
  Bed(kFar).run([](Bed& bed) -> Task<void> {
    EXPECT_TRUE(co_await bed.first->prepare(term(5)));
    EXPECT_TRUE(co_await bed.write(*bed.first, 0, 1));
    EXPECT_TRUE(co_await bed.flush(*bed.first));
    EXPECT_TRUE(co_await bed.write(*bed.first, kExtentBytes, 2, Durability::kForced));
    for (uint64_t i = 0; i < 64; ++i) EXPECT_TRUE(co_await bed.write(*bed.first, 2 * kExtentBytes + i * kBlock, 3));
    co_await bed.replica->stop();
    EXPECT_EQ(bed.on_disk(2 * kExtentBytes), 3) << "the end of the process alone loses nothing";
    bed.replica->start();
    co_await bed.pass(milliseconds(50));
    EXPECT_FALSE((co_await bed.first->prepare(term(6))).value().is_cold);
    co_await bed.replica->stop(MemoryReplica::Loses::kCache);
    bed.replica->start();
    co_await bed.pass(milliseconds(50));
    EXPECT_TRUE((co_await bed.first->prepare(term(7))).value().is_cold);
    EXPECT_EQ(bed.on_disk(0), 1);
    EXPECT_EQ(bed.on_disk(kExtentBytes), 2);
    int lost = 0;
    for (uint64_t i = 0; i < 64; ++i) lost += bed.on_disk(2 * kExtentBytes + i * kBlock) == 0 ? 1 : 0;
    EXPECT_GT(lost, 0);
    EXPECT_LT(lost, 64) << "some, as is drawn";
    EXPECT_TRUE(co_await bed.first->is_done(LevelledRequest{}));
  });
}

TEST(ReplicaTest, ACallWhoseAnswerIsLostTimesOutThoughItWasDone) {
  Bed(kFar).run([](Bed& bed) -> Task<void> {
    EXPECT_TRUE(co_await bed.first->prepare(term(5)));
    bed.first->link.set_cut(MemoryLink::Cut::kReplies);
    const Record record{.at = {term(5), 1}, .members = {uuid(2)}, .prior = {uuid(2)}};
    EXPECT_EQ((co_await bed.first->ask(RecordRequest{record})).error().code, Code::kTimedOut);
    EXPECT_EQ(bed.replica->medium().state.record, record);
    EXPECT_EQ(bed.first->link.connection(), 0U);
    EXPECT_EQ((co_await bed.first->ask(LevelledRequest{})).error().code, Code::kUnreachable);
    bed.first->link.set_cut(MemoryLink::Cut::kNothing);
    co_await bed.first->link.changed().wait();
    const Prepared prepared = (co_await bed.first->prepare(term(5))).value_or(Prepared{});
    EXPECT_EQ(prepared.record, record);
  });
}

TEST(ReplicaTest, AWriteWhoseAnswerIsLostEndsWithTheConnection) {
  Bed(kFar).run([](Bed& bed) -> Task<void> {
    EXPECT_TRUE(co_await bed.first->prepare(term(5)));
    bed.first->link.set_cut(MemoryLink::Cut::kReplies);
    EXPECT_EQ((co_await bed.write(*bed.first, 0, 1)).error().code, Code::kConnectionLost);
    EXPECT_EQ(bed.on_disk(0), 1);
    bed.first->link.set_cut(MemoryLink::Cut::kRequests);
    EXPECT_EQ((co_await bed.write(*bed.first, 0, 2)).error().code, Code::kUnreachable);
  });
}

TEST(ReplicaTest, LinksComeBackWithTheReplicaAsOtherConnections) {
  Bed(kFar).run([](Bed& bed) -> Task<void> {
    EXPECT_TRUE(co_await bed.first->prepare(term(5)));
    const uint64_t before = bed.first->link.connection();
    co_await bed.replica->stop();
    EXPECT_EQ(bed.first->link.connection(), 0U);
    EXPECT_EQ((co_await bed.write(*bed.first, 0, 1)).error().code, Code::kUnreachable);
    bed.replica->start();
    co_await bed.pass(milliseconds(50));
    EXPECT_GT(bed.first->link.connection(), before);
    EXPECT_EQ((co_await bed.write(*bed.first, 0, 1)).error().code, Code::kFenced) << "not prepared since";
    bed.first->link.set_reachable(false);
    co_await bed.pass(std::chrono::seconds(1));
    EXPECT_EQ(bed.first->link.connection(), 0U);
    bed.first->link.set_reachable(true);
    co_await bed.pass(milliseconds(50));
    EXPECT_TRUE(co_await bed.first->prepare(term(5)));
    EXPECT_TRUE(co_await bed.write(*bed.first, 0, 1));
  });
}

TEST(ReplicaTest, AMediumsErrorReachesTheTarget) {
  Bed(kFar).run([](Bed& bed) -> Task<void> {
    EXPECT_TRUE(co_await bed.first->prepare(term(5)));
    bed.replica->set_error(IoOp::kWrite, Code::kNoSpace);
    EXPECT_EQ((co_await bed.write(*bed.first, 0, 1)).error().code, Code::kNoSpace);
    EXPECT_EQ(co_await bed.read(*bed.first, 0), 0);
    bed.replica->set_error(IoOp::kWrite, std::nullopt);
    EXPECT_TRUE(co_await bed.write(*bed.first, 0, 1));
    EXPECT_EQ(bed.replica->count(IoOp::kWrite), 1U);
  });
}

}  // namespace
}  // namespace fairlead::mirror
