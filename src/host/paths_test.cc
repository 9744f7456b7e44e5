// Paths that come, go and change, against Fairlead's target in a simulated world.
#include <gmock/gmock.h>

#include "block/disk.h"
#include "block/faulty.h"
#include "host/remote_device.h"
#include "host/subsystem.h"
#include "tests/support/host_session.h"
#include "tests/support/target_bed.h"

namespace fairlead::host {
namespace {

using nvme::AnaState;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::BedOptions;
using testing::HostSession;
using testing::kNqn;
using testing::pattern;
using testing::TargetBed;
using Way = sim::SimFabric::Way;

constexpr uint64_t kBlock = 4096;

// A request under way, and how and when it ended.
struct Outstanding {
  explicit Outstanding(uint64_t seed = 0) : bytes(pattern(kBlock, seed)), piece{bytes.data(), bytes.size()} {}
  std::vector<std::byte> bytes;
  iovec piece;
  std::optional<Result<void>> result;
  Instant ended;
};

Task<void> write_to(Reactor& reactor, BlockDevice& device, uint64_t block, Outstanding& out) {
  out.result = co_await block_write(reactor, device, ByteOffset{block * kBlock}, {&out.piece, 1});
  out.ended = reactor.now();
}
Task<void> read_from(Reactor& reactor, BlockDevice& device, uint64_t block, Outstanding& out) {
  out.result = co_await block_read(reactor, device, ByteOffset{block * kBlock}, {&out.piece, 1});
  out.ended = reactor.now();
}

// What a block holds at the end of a test.
Task<std::vector<std::byte>> content(TargetBed& bed, BlockDevice& device, uint64_t block) {
  Outstanding out;
  co_await read_from(bed.reactor(), device, block, out);
  EXPECT_TRUE(out.result && *out.result);
  co_return out.bytes;
}

// Another listener of the target.
Task<SocketAddress> listen_also(TargetBed& bed) {
  target::ListenerOptions options;
  options.bind = bed.server.address(4421);
  const auto listening = co_await bed.at_target(bed.target().start_listener(options));
  FL_CHECK(listening.has_value());
  co_return listening->bound;
}

// A namespace that fails and dawdles by rule, alone in its subsystem. For beds without memory.
Task<std::shared_ptr<FaultySource>> add_faulty(TargetBed& bed) {
  auto memory = make_memory_source({.size_bytes = 1 * kMiB, .logical_block = kBlock});
  FL_CHECK(memory.has_value());
  std::shared_ptr<FaultySource> source = make_faulty_source(std::move(*memory), {});
  co_await bed.add_subsystem({.nqn = kNqn, .serial = "", .allowed_hosts = {}});
  co_await bed.add_source(kNqn, source, 1);
  co_return source;
}

FaultRule slow_once(IoOp op, uint64_t block, Duration delay) {
  return {.operations = op_set(op),
          .from = ByteOffset{block * kBlock},
          .to = ByteOffset{(block + 1) * kBlock},
          .count = 1,
          .error = {},
          .delay = delay};
}

Task<void> set_ana(TargetBed& bed, target::PortIndex port, AnaState state) {
  EXPECT_TRUE(co_await bed.at_target(bed.target().set_ana_state(kNqn, port, 1, state)));
}

// Waits until the path is live or not. False: that took longer than the limit.
Task<bool> path_becomes(HostSession& session, TargetBed& bed, size_t path, ControllerState state, Duration limit) {
  const Instant end = bed.reactor().now() + limit;
  while (session.subsystem().controllers()[path].state != state) {
    if (bed.reactor().now() >= end) co_return false;
    (void)co_await bed.sleep(milliseconds(1));
  }
  co_return true;
}
Task<bool> all_live(HostSession& session, TargetBed& bed, Duration limit) {
  bool live = true;
  for (size_t path = 0; path < session.subsystem().controllers().size(); ++path) {
    if (!co_await path_becomes(session, bed, path, ControllerState::kLive, limit)) live = false;
  }
  co_return live;
}

// ANA.

Task<void> ana_moves_io(TargetBed& bed) {
  HostSession session(bed, {.addresses = {bed.address, co_await listen_also(bed)}});
  CO_ASSERT_TRUE(co_await session.open());
  CO_ASSERT_TRUE(co_await all_live(session, bed, seconds(5)));
  std::vector<std::unique_ptr<Outstanding>> writes;
  Scope scope(bed.reactor());
  for (uint64_t i = 0; i < 60; ++i) {
    writes.push_back(std::make_unique<Outstanding>(i));
    scope.spawn(write_to(bed.reactor(), session.device(), i, *writes.back()));
    // In the middle of it, one way and the other.
    if (i == 20) co_await set_ana(bed, 0, AnaState::kInaccessible);
    if (i == 40) {
      co_await set_ana(bed, 0, AnaState::kOptimized);
      co_await set_ana(bed, 1, AnaState::kChange);
    }
  }
  co_await scope.close();
  for (const auto& write : writes) EXPECT_TRUE(write->result && *write->result);
  for (uint64_t i = 0; i < writes.size(); ++i) {
    EXPECT_TRUE(co_await content(bed, session.device(), i) == writes[i]->bytes);
  }
  (void)co_await bed.sleep(seconds(1));
  EXPECT_EQ(session.subsystem().controllers()[0].namespaces[0].state, PathState::kOptimized);
  EXPECT_EQ(session.subsystem().controllers()[1].namespaces[0].state, PathState::kUnusable);
  co_await session.close();
}
TEST(PathsTest, AnaMovesIoWithoutAnError) { run_in_worlds(ana_moves_io); }

Task<void> no_accessible_path(TargetBed& bed) {
  HostSession session(bed, {.no_path_timeout = seconds(3)});
  CO_ASSERT_TRUE(co_await session.open());
  co_await set_ana(bed, 0, AnaState::kInaccessible);
  Scope scope(bed.reactor());
  Outstanding held(1);
  scope.spawn(write_to(bed.reactor(), session.device(), 0, held));
  (void)co_await bed.sleep(seconds(2));
  EXPECT_FALSE(held.result.has_value());
  co_await set_ana(bed, 0, AnaState::kOptimized);
  co_await scope.close();
  EXPECT_TRUE(held.result && *held.result);
  // For longer than it is to be held.
  co_await set_ana(bed, 0, AnaState::kInaccessible);
  const Instant begin = bed.reactor().now();
  Outstanding failed(2);
  co_await write_to(bed.reactor(), session.device(), 0, failed);
  EXPECT_EQ(failed.result->error().code, Code::kUnreachable);
  EXPECT_GE(failed.ended - begin, milliseconds(2900));
  EXPECT_LE(failed.ended - begin, milliseconds(3200));
  co_await set_ana(bed, 0, AnaState::kOptimized);
  (void)co_await bed.sleep(seconds(1));
  Outstanding again(3);
  co_await write_to(bed.reactor(), session.device(), 0, again);
  EXPECT_TRUE(*again.result);
  co_await session.close();
}
TEST(PathsTest, IoIsHeldWhileNoPathIsAccessible) { TargetBed().run(no_accessible_path); }

// Loss of a path under load. The first path is the only optimized one; a write of block 0 and a read of block 2 are
// slow there when it is lost. Then another write of block 0, from the last shard, and one of block 3.

struct Loss {
  Outstanding slow_write{1};
  Outstanding slow_read;
  Outstanding later_write{2};
  Outstanding other_write{3};
  Instant lost;
  std::vector<std::byte> found;
};

Task<void> write_on(Shard& shard, std::shared_ptr<BlockSource> source, uint64_t block, Outstanding& out) {
  const Result<std::unique_ptr<BlockDevice>> device = source->open(shard);
  FL_CHECK(device.has_value());
  co_await write_to(shard.reactor, **device, block, out);
}

Task<void> lose_under_load(TargetBed& bed, Duration quiesce, Loss& loss) {
  const std::shared_ptr<FaultySource> faulty = co_await add_faulty(bed);
  const SocketAddress other = co_await listen_also(bed);
  co_await set_ana(bed, 1, AnaState::kNonOptimized);
  HostSession session(bed, {.addresses = {bed.address, other}, .quiesce = quiesce});
  CO_ASSERT_TRUE(co_await session.open());
  CO_ASSERT_TRUE(co_await all_live(session, bed, seconds(5)));
  Result<std::shared_ptr<BlockSource>> source = session.subsystem().source(1);
  CO_ASSERT_TRUE(source.has_value());
  faulty->set_rules({slow_once(IoOp::kWrite, 0, milliseconds(300)), slow_once(IoOp::kRead, 2, milliseconds(1500))});
  Reactor& reactor = bed.reactor();
  Shard& last = *bed.client_shards().back();
  Scope scope(reactor);
  scope.spawn(write_to(reactor, session.device(), 0, loss.slow_write));
  scope.spawn(read_from(reactor, session.device(), 2, loss.slow_read));
  (void)co_await bed.sleep(milliseconds(20));
  EXPECT_FALSE(loss.slow_write.result || loss.slow_read.result);
  bed.world.network().reset_connections(bed.address);
  loss.lost = reactor.now();
  while (!loss.slow_write.result) (void)co_await bed.sleep(milliseconds(1));
  scope.spawn(call_on(reactor, last.reactor, write_on(last, *source, 0, loss.later_write)));
  scope.spawn(call_on(reactor, last.reactor, write_on(last, *source, 3, loss.other_write)));
  co_await scope.close();
  (void)co_await bed.sleep(seconds(1));
  loss.found = co_await content(bed, session.device(), 0);
  EXPECT_EQ(faulty->fired(), 2U);
  EXPECT_EQ(session.device().statistics().resent, 2U);
  EXPECT_TRUE(co_await all_live(session, bed, seconds(10)));
  co_await session.close();
}

class PathLossTest : public ::testing::TestWithParam<size_t> {
 protected:
  void run(Duration quiesce, Loss& loss) {
    TargetBed bed({.client_shards = GetParam(), .memory_bytes = 0});  // one shard: rules count by shard
    bed.run_task(lose_under_load(bed, quiesce, loss));
    for (const Outstanding* each : {&loss.slow_write, &loss.slow_read, &loss.later_write, &loss.other_write}) {
      EXPECT_TRUE(each->result && *each->result);
    }
    // What was under way goes on elsewhere at once, and so does what overlaps none of it.
    for (const Outstanding* each : {&loss.slow_write, &loss.slow_read, &loss.other_write}) {
      EXPECT_LT(each->ended - loss.lost, milliseconds(50));
    }
  }
};

TEST_P(PathLossTest, WhatOverlapsWaitsForWhatMayYetBeExecuted) {
  Loss loss;
  run(seconds(2), loss);
  EXPECT_GE(loss.later_write.ended - loss.lost, milliseconds(1999));
  EXPECT_LT(loss.later_write.ended - loss.lost, milliseconds(2100));
  EXPECT_TRUE(loss.found == loss.later_write.bytes);
}

// What the wait is for: the controller executes what the lost connection brought, 280 ms later.
TEST_P(PathLossTest, WithoutTheWaitTheOldOverwritesTheNew) {
  Loss loss;
  run({}, loss);
  EXPECT_LT(loss.later_write.ended - loss.lost, milliseconds(50));
  EXPECT_TRUE(loss.found == loss.slow_write.bytes);
}
INSTANTIATE_TEST_SUITE_P(Shards, PathLossTest, ::testing::Values(1, 2));

// A write is held on its way to the controller, which hears nothing any more. Its timer is traffic based: it looks
// every keep-alive time-out, and ends the association when it saw nothing between two looks. The wait must cover both.
Task<void> waits_for_timer(TargetBed& bed) {
  const SocketAddress other = co_await listen_also(bed);
  co_await set_ana(bed, 1, AnaState::kNonOptimized);
  HostSession session(bed, {.addresses = {bed.address, other},
                            .keep_alive = seconds(1),
                            .connect_timeout = milliseconds(200),
                            .command_timeout = milliseconds(100),
                            .abort_timeout = milliseconds(50)});
  CO_ASSERT_TRUE(co_await session.open());
  CO_ASSERT_TRUE(co_await all_live(session, bed, seconds(5)));
  // Traffic right behind a look of the timer, and then silence.
  (void)co_await bed.sleep(milliseconds(1100));
  (void)co_await content(bed, session.device(), 5);
  bed.world.network().cut_endpoint(bed.address, Way::kTo);
  const Instant begin = bed.reactor().now();
  Scope scope(bed.reactor());
  Outstanding first(1);
  Outstanding second(2);
  co_await write_to(bed.reactor(), session.device(), 0, first);
  EXPECT_TRUE(*first.result);
  scope.spawn(write_to(bed.reactor(), session.device(), 0, second));
  (void)co_await bed.sleep(milliseconds(1500) - (bed.reactor().now() - begin));
  bed.world.network().heal_endpoint(bed.address);
  co_await scope.close();
  EXPECT_TRUE(*second.result);
  (void)co_await bed.sleep(seconds(5));
  EXPECT_TRUE(co_await content(bed, session.device(), 0) == second.bytes);
  co_await session.close();
}
TEST(PathsTest, TheWaitCoversATimerThatIsTrafficBased) { TargetBed().run(waits_for_timer); }

// No path at all.

Task<void> holds_while_cut(TargetBed& bed) {
  HostSession session(bed, {.keep_alive = milliseconds(400),
                            .connect_timeout = milliseconds(300),
                            .reconnect_max = milliseconds(500),
                            .no_path_timeout = seconds(3)});
  CO_ASSERT_TRUE(co_await session.open());
  Reactor& reactor = bed.reactor();
  Scope scope(reactor);
  bed.world.network().cut_endpoint(bed.address, Way::kBoth);
  Outstanding held(1);
  scope.spawn(write_to(reactor, session.device(), 0, held));
  CO_ASSERT_TRUE(co_await path_becomes(session, bed, 0, ControllerState::kConnecting, seconds(2)));
  (void)co_await bed.sleep(seconds(1));
  EXPECT_FALSE(held.result.has_value());
  bed.world.network().heal_endpoint(bed.address);
  co_await scope.close();
  EXPECT_TRUE(*held.result);
  // For longer than it is to be held; later requests wait for nothing.
  bed.world.network().cut_endpoint(bed.address, Way::kBoth);
  Outstanding failed(2);
  co_await write_to(reactor, session.device(), 0, failed);
  EXPECT_EQ(failed.result->error().code, Code::kUnreachable);
  const Instant begin = reactor.now();
  Outstanding refused(3);
  co_await read_from(reactor, session.device(), 0, refused);
  EXPECT_EQ(refused.result->error().code, Code::kUnreachable);
  EXPECT_LT(reactor.now() - begin, milliseconds(1));
  bed.world.network().heal_endpoint(bed.address);
  CO_ASSERT_TRUE(co_await all_live(session, bed, seconds(2)));
  Outstanding again(4);
  co_await write_to(reactor, session.device(), 0, again);
  EXPECT_TRUE(*again.result);
  EXPECT_TRUE(co_await content(bed, session.device(), 0) == again.bytes);
  co_await session.close();
}
TEST(PathsTest, IoIsHeldWhileThereIsNoPathAndFailsThen) { TargetBed().run(holds_while_cut); }

// Its answers do not come any more, though it hears us.
Task<void> notices_silence(TargetBed& bed) {
  HostSession session(bed, {.keep_alive = seconds(1), .connect_timeout = milliseconds(200)});
  CO_ASSERT_TRUE(co_await session.open());
  const Instant begin = bed.reactor().now();
  bed.world.network().cut_endpoint(bed.address, Way::kFrom);
  CO_ASSERT_TRUE(co_await path_becomes(session, bed, 0, ControllerState::kConnecting, seconds(5)));
  EXPECT_GE(bed.reactor().now() - begin, milliseconds(990));
  EXPECT_LE(bed.reactor().now() - begin, milliseconds(1800));
  EXPECT_THAT(session.subsystem().controllers()[0].last_error.what, ::testing::HasSubstr("keep-alive"));
  bed.world.network().heal_endpoint(bed.address);
  EXPECT_TRUE(co_await all_live(session, bed, seconds(10)));
  co_await session.close();
}
TEST(PathsTest, AControllerThatDoesNotAnswerIsLost) { TargetBed().run(notices_silence); }

// A cluster has another target by then: what is asked of the silent one must not wait for longer.
Task<void> notices_silence_by_default(TargetBed& bed) {
  HostSession session(bed, {.connect_timeout = milliseconds(200)});
  CO_ASSERT_TRUE(co_await session.open());
  for (int times = 0; times < 5; ++times) {
    CO_ASSERT_TRUE(co_await all_live(session, bed, seconds(10)));
    (void)co_await bed.sleep(milliseconds(700 * times));
    bed.world.network().cut_endpoint(bed.address, Way::kFrom);
    const Instant begin = bed.reactor().now();
    while (session.subsystem().controllers()[0].state == ControllerState::kLive)
      (void)co_await bed.sleep(milliseconds(1));
    EXPECT_LE(bed.reactor().now() - begin, milliseconds(3100));
    bed.world.network().heal_endpoint(bed.address);
  }
  co_await session.close();
}
TEST(PathsTest, ByDefaultASilentControllerIsLostInThreeSeconds) { TargetBed().run(notices_silence_by_default); }

// Commands that take too long.

// The write waits for a compare-and-write of another host, and is withdrawn and sent again until that has ended.
Task<void> aborts(TargetBed& bed) {
  const std::shared_ptr<FaultySource> faulty = co_await add_faulty(bed);
  HostSession session(bed, {.command_timeout = milliseconds(200), .abort_timeout = seconds(20)});
  CO_ASSERT_TRUE(co_await session.open());
  const auto other = co_await bed.open_host();
  CO_ASSERT_TRUE(other.has_value());
  faulty->set_rules({slow_once(IoOp::kRead, 0, milliseconds(500))});
  const std::vector<std::byte> zeroes(kBlock);
  const std::vector<std::byte> theirs = pattern(kBlock, 9);
  Scope scope(bed.reactor());
  const auto exchange = [](testing::NvmeHost& host, const std::vector<std::byte>& expected,
                           const std::vector<std::byte>& bytes) -> Task<void> {
    const auto done = co_await host.io().compare_and_write(1, 0, 1, expected, bytes);
    EXPECT_TRUE(done && done->write.ok());
  };
  scope.spawn(exchange(**other, zeroes, theirs));
  (void)co_await bed.sleep(milliseconds(50));
  Outstanding ours(1);
  co_await write_to(bed.reactor(), session.device(), 0, ours);
  EXPECT_TRUE(*ours.result);
  EXPECT_GE(session.device().statistics().retried, 1U);
  EXPECT_EQ(session.subsystem().controllers()[0].connects, 1U);
  co_await scope.close();
  EXPECT_TRUE(co_await content(bed, session.device(), 0) == ours.bytes);
  co_await session.close();
}
TEST(PathsTest, ACommandThatTakesTooLongIsAborted) { TargetBed({.memory_bytes = 0}).run(aborts); }

Task<void> reconnects_after_abort(TargetBed& bed) {
  const std::shared_ptr<FaultySource> faulty = co_await add_faulty(bed);
  HostSession session(bed, {.command_timeout = milliseconds(200), .abort_timeout = milliseconds(300)});
  CO_ASSERT_TRUE(co_await session.open());
  faulty->set_rules({slow_once(IoOp::kWrite, 0, seconds(20))});
  const Instant begin = bed.reactor().now();
  Outstanding write(1);
  co_await write_to(bed.reactor(), session.device(), 0, write);
  EXPECT_TRUE(*write.result);
  EXPECT_GE(write.ended - begin, milliseconds(500));
  EXPECT_LT(write.ended - begin, milliseconds(800));
  EXPECT_EQ(session.subsystem().controllers()[0].connects, 2U);
  co_await session.close();
}
TEST(PathsTest, ACommandThatDoesNotEndThoughAbortedCostsThePath) {
  TargetBed({.memory_bytes = 0}).run(reconnects_after_abort);
}

// Namespaces that change.

Task<void> follows_size(TargetBed& bed) {
  sim::SimDevice& disk = bed.world.create_disk(bed.server, "/disk", 1 * kMiB);
  Shard& shard = bed.server.shard(0);
  const Result<std::shared_ptr<BlockSource>> source = open_disk_source(shard, {.path = "/disk"});
  CO_ASSERT_TRUE(source.has_value());
  co_await bed.add_source(kNqn, *source, 2);
  HostSession session(bed);
  CO_ASSERT_TRUE(co_await session.open(2));
  EXPECT_EQ(session.device().geometry().size_bytes, 1 * kMiB);
  disk.resize(3 * kMiB);
  EXPECT_TRUE(co_await bed.at_target(bed.target().rescan_namespace(kNqn, 2)));
  (void)co_await bed.sleep(milliseconds(100));
  EXPECT_EQ(session.device().geometry().size_bytes, 3 * kMiB);
  EXPECT_EQ(session.subsystem().namespaces()[1].geometry.size_bytes, 3 * kMiB);
  Outstanding write(1);
  co_await write_to(bed.reactor(), session.device(), 2 * kMiB / kBlock, write);
  EXPECT_TRUE(*write.result);
  co_await session.close();
}
TEST(PathsTest, TheGeometryFollowsTheSize) { TargetBed().run(follows_size); }

// One path has told of the growth, the other has not yet.
Task<void> follows_latest_size(TargetBed& bed, size_t slow) {
  sim::SimDevice& disk = bed.world.create_disk(bed.server, "/disk", 1 * kMiB);
  const Result<std::shared_ptr<BlockSource>> source = open_disk_source(bed.server.shard(0), {.path = "/disk"});
  CO_ASSERT_TRUE(source.has_value());
  co_await bed.add_source(kNqn, *source, 2);
  const std::vector<SocketAddress> addresses{bed.address, co_await listen_also(bed)};
  HostSession session(bed, {.addresses = addresses});
  CO_ASSERT_TRUE(co_await session.open(2));
  CO_ASSERT_TRUE(co_await all_live(session, bed, seconds(5)));
  bed.world.network().cut_endpoint(addresses[slow], Way::kFrom);
  disk.resize(3 * kMiB);
  EXPECT_TRUE(co_await bed.at_target(bed.target().rescan_namespace(kNqn, 2)));
  (void)co_await bed.sleep(milliseconds(100));
  const auto size_by = [&](size_t path) {
    return session.subsystem().controllers()[path].namespaces[1].info.geometry.size_bytes;
  };
  EXPECT_EQ(size_by(slow), 1 * kMiB);
  EXPECT_EQ(size_by(1 - slow), 3 * kMiB);
  EXPECT_EQ(session.device().geometry().size_bytes, 3 * kMiB);
  EXPECT_EQ(session.subsystem().namespaces()[1].geometry.size_bytes, 3 * kMiB);
  bed.world.network().heal_endpoint(addresses[slow]);
  Outstanding write(1);
  co_await write_to(bed.reactor(), session.device(), 2 * kMiB / kBlock, write);
  EXPECT_TRUE(*write.result);
  (void)co_await bed.sleep(milliseconds(100));
  EXPECT_EQ(size_by(slow), 3 * kMiB);
  EXPECT_EQ(session.device().geometry().size_bytes, 3 * kMiB);
  co_await session.close();
}
TEST(PathsTest, TheGeometryIsThatOfThePathThatAskedLast) {
  TargetBed().run([](TargetBed& bed) { return follows_latest_size(bed, 0); });
  TargetBed().run([](TargetBed& bed) { return follows_latest_size(bed, 1); });
}

Task<void> add_with_uuid(TargetBed& bed, uint64_t uuid) {
  auto memory = make_memory_source({.size_bytes = 1 * kMiB, .logical_block = kBlock});
  FL_CHECK(memory.has_value());
  target::NamespaceOptions wanted{.nsid = 2, .source = std::move(*memory), .uuid = uuid_from_random(3, uuid)};
  EXPECT_TRUE(co_await bed.at_target(bed.target().add_namespace(kNqn, wanted)));
}

Task<void> comes_and_goes(TargetBed& bed) {
  co_await add_with_uuid(bed, 1);
  HostSession session(bed);
  CO_ASSERT_TRUE(co_await session.open(2));
  const auto write_ends_with = [](TargetBed& where, HostSession& with) -> Task<std::optional<Code>> {
    (void)co_await where.sleep(milliseconds(100));
    Outstanding write(1);
    co_await write_to(where.reactor(), with.device(), 0, write);
    co_return *write.result ? std::nullopt : std::optional(write.result->error().code);
  };
  EXPECT_EQ(co_await write_ends_with(bed, session), std::nullopt);
  EXPECT_TRUE(co_await bed.at_target(bed.target().remove_namespace(kNqn, 2)));
  EXPECT_EQ(co_await write_ends_with(bed, session), Code::kNotFound);
  EXPECT_EQ(session.subsystem().namespaces().size(), 1U);
  // Another one of the same number is not it.
  co_await add_with_uuid(bed, 2);
  EXPECT_EQ(co_await write_ends_with(bed, session), Code::kNotFound);
  EXPECT_EQ(session.subsystem().namespaces().size(), 2U);
  EXPECT_TRUE(co_await bed.at_target(bed.target().remove_namespace(kNqn, 2)));
  co_await add_with_uuid(bed, 1);
  EXPECT_EQ(co_await write_ends_with(bed, session), std::nullopt);
  co_await session.close();
}
TEST(PathsTest, ANamespaceThatWentIsGoneUntilTheSameIsBack) { TargetBed().run(comes_and_goes); }

// A target of its own, on the same machine, that shows the same namespace and takes 16 KiB at a time.
Task<void> open_small_target(TargetBed& bed, std::unique_ptr<target::Target>& other) {
  target::TargetOptions options;
  options.transfer_shift = 2;
  options.controller_id_min = 1000;
  other = std::make_unique<target::Target>(std::vector<Shard*>{&bed.server.shard(0)}, options);
  EXPECT_TRUE(co_await other->add_subsystem({.nqn = kNqn, .serial = "", .allowed_hosts = {}}));
  auto memory = make_memory_source({.size_bytes = bed.options.memory_bytes, .logical_block = kBlock});
  FL_CHECK(memory.has_value());
  EXPECT_TRUE(co_await other->add_namespace(kNqn, {.nsid = 1, .source = std::move(*memory), .uuid = {}}));
  EXPECT_TRUE(co_await other->start_listener({.bind = bed.server.address(4421), .advertise = {}}));
}
Task<void> close_small_target(std::unique_ptr<target::Target>& other) {
  EXPECT_TRUE(co_await other->stop());
  other.reset();
}

// What was cut for one controller has to fit one that came later.
Task<void> moves_to_smaller(TargetBed& bed) {
  HostSession session(bed, {.addresses = {bed.address, bed.server.address(4421)}});
  CO_ASSERT_TRUE(co_await session.open());
  co_await set_ana(bed, 0, AnaState::kInaccessible);
  (void)co_await bed.sleep(milliseconds(10));
  Outstanding large(5);
  large.bytes = pattern(256 * kKiB, 5);
  large.piece = {large.bytes.data(), large.bytes.size()};
  Scope scope(bed.reactor());
  scope.spawn(write_to(bed.reactor(), session.device(), 3, large));
  (void)co_await bed.sleep(milliseconds(10));
  EXPECT_FALSE(large.result.has_value());
  std::unique_ptr<target::Target> other;
  co_await bed.at_target(open_small_target(bed, other));
  co_await scope.close();
  EXPECT_TRUE(*large.result);
  Outstanding back;
  back.bytes.assign(256 * kKiB, std::byte{0});
  back.piece = {back.bytes.data(), back.bytes.size()};
  co_await read_from(bed.reactor(), session.device(), 3, back);
  EXPECT_TRUE(*back.result);
  EXPECT_TRUE(back.bytes == large.bytes);
  co_await session.close();
  co_await bed.at_target(close_small_target(other));
}
TEST(PathsTest, WhatIsTooLongForALaterControllerIsCutAnew) { TargetBed().run(moves_to_smaller); }

// Connecting and stopping.

Task<void> backs_off(TargetBed& bed) {
  HostSession session(bed, {.addresses = {bed.address, bed.server.address(4499)},
                            .reconnect_min = milliseconds(100),
                            .reconnect_max = seconds(2)});
  CO_ASSERT_TRUE(co_await session.open());
  (void)co_await bed.sleep(milliseconds(1000));
  const auto early = session.subsystem().controllers()[1];
  EXPECT_EQ(early.last_error.code, Code::kUnreachable);
  EXPECT_THAT(early.attempts, ::testing::AllOf(::testing::Ge(3U), ::testing::Le(6U)));
  (void)co_await bed.sleep(seconds(40));
  const uint64_t more = session.subsystem().controllers()[1].attempts - early.attempts;
  EXPECT_THAT(more, ::testing::AllOf(::testing::Ge(20U), ::testing::Le(32U)));
  EXPECT_EQ(session.subsystem().controllers()[0].attempts, 1U);
  co_await session.close();
}
TEST(PathsTest, AttemptsToConnectBecomeRarer) { TargetBed().run(backs_off); }

Task<void> start_and_note(Subsystem& subsystem, std::optional<Result<void>>& out) { out = co_await subsystem.start(); }

// stop() ends start(), at any moment of it.
Task<void> stops_while_connecting(TargetBed& bed) {
  bed.world.network().cut_endpoint(bed.address, Way::kFrom);
  for (const auto moment : {Duration{}, Duration{1}, Duration(milliseconds(1)), Duration(milliseconds(250))}) {
    SCOPED_TRACE(moment.count());
    SubsystemOptions options{.nqn = kNqn, .addresses = {bed.address}, .connect_timeout = milliseconds(500)};
    options.identity = identity_from_id(uuid_from_random(1, 2));
    Subsystem subsystem(bed.client_shards(), options);
    std::optional<Result<void>> started;
    Scope scope(bed.reactor());
    scope.spawn(start_and_note(subsystem, started));
    (void)co_await bed.sleep(moment);
    const Instant begin = bed.reactor().now();
    co_await subsystem.stop();
    EXPECT_LE(bed.reactor().now() - begin, milliseconds(510));
    co_await scope.close();
    EXPECT_FALSE(*started);
  }
  bed.world.network().heal_endpoint(bed.address);
}
TEST(PathsTest, StoppingEndsConnecting) { TargetBed().run(stops_while_connecting); }

Task<void> stops_with_io_held(TargetBed& bed) {
  HostSession session(bed, {.keep_alive = milliseconds(400), .connect_timeout = milliseconds(500)});
  CO_ASSERT_TRUE(co_await session.open());
  bed.world.network().cut_endpoint(bed.address, Way::kBoth);
  Scope scope(bed.reactor());
  Outstanding sent(1);
  scope.spawn(write_to(bed.reactor(), session.device(), 0, sent));
  CO_ASSERT_TRUE(co_await path_becomes(session, bed, 0, ControllerState::kConnecting, seconds(2)));
  Outstanding held(2);
  scope.spawn(write_to(bed.reactor(), session.device(), 1, held));
  (void)co_await bed.sleep(milliseconds(10));
  const Instant begin = bed.reactor().now();
  co_await session.subsystem().stop();
  EXPECT_LE(bed.reactor().now() - begin, milliseconds(510));
  co_await scope.close();
  EXPECT_EQ(sent.result->error().code, Code::kShuttingDown);
  EXPECT_EQ(held.result->error().code, Code::kShuttingDown);
  bed.world.network().heal_endpoint(bed.address);
  co_await session.close();
}
TEST(PathsTest, StoppingEndsWhatIsHeld) { TargetBed().run(stops_with_io_held); }

// The keep-alive timer runs from Connect on, and the I/O queues take several slow round trips each.
Task<void> keeps_alive_while_connecting(TargetBed& bed) {
  HostSession session(bed, {.keep_alive = milliseconds(600)});
  CO_ASSERT_TRUE(co_await session.open());
  EXPECT_EQ(session.subsystem().controllers()[0].attempts, 1U);
  (void)co_await bed.sleep(seconds(5));
  EXPECT_EQ(session.subsystem().controllers()[0].connects, 1U);
  co_await session.close();
}
TEST(PathsTest, KeepAlivesGoOutWhileItConnects) {
  sim::SimSettings settings = sim::SimSettings::calm();
  settings.network.latency_min = settings.network.latency_max = milliseconds(100);
  TargetBed({.settings = settings, .client_shards = 3}).run(keeps_alive_while_connecting);
}

// All connections are reset at some moment of connecting, on two shards: the home shard may think that the path is live
// when the other shard has never had it. A device there must know the limits of the controller nevertheless.
Task<void> writes_from_second_shard(TargetBed& bed, Duration reset_after, Duration& took) {
  const Instant begin = bed.reactor().now();
  if (reset_after > Duration{}) {
    bed.world.after(reset_after, [&bed] { bed.world.network().reset_connections(bed.address); });
  }
  HostSession session(bed, {.reconnect_min = milliseconds(1)});
  if (!co_await session.open()) co_return co_await session.close();  // it had no path yet
  took = bed.reactor().now() - begin;
  Result<std::shared_ptr<BlockSource>> source = session.subsystem().source(1);
  if (source) {
    Shard& second = *bed.client_shards().back();
    Outstanding write(1);
    co_await call_on(bed.reactor(), second.reactor, write_on(second, *source, 0, write));
    EXPECT_TRUE(*write.result);
  }
  co_await session.close();
}
TEST(PathsTest, ADeviceKnowsTheLimitsThoughItsShardHadNoPathYet) {
  BedOptions options{.client_shards = 2};
  options.settings.turn_cost_ns_max = 5'000;  // so that there is time between two turns
  options.settings.order = sim::Order::kRandom;
  Duration took{};
  TargetBed first(options);
  first.run_task(writes_from_second_shard(first, {}, took));
  for (Duration moment = took - std::chrono::microseconds(400); moment < took; moment += Duration(1'000)) {
    SCOPED_TRACE(moment.count());
    ++options.seed;
    TargetBed bed(options);
    Duration ignored{};
    bed.run_task(writes_from_second_shard(bed, moment, ignored));
  }
}

Task<void> two_subsystems(TargetBed& bed) {
  constexpr const char* kOtherNqn = "nqn.2024-01.example.fairlead:other";
  co_await bed.add_subsystem({.nqn = kOtherNqn, .serial = "", .allowed_hosts = {}});
  co_await bed.add_memory(kOtherNqn, 1 * kMiB, kBlock, 1);
  HostSession first(bed);
  HostSession second(bed, {.nqn = kOtherNqn});
  CO_ASSERT_TRUE(co_await first.open());
  CO_ASSERT_TRUE(co_await second.open());
  Outstanding one(1);
  Outstanding two(2);
  co_await write_to(bed.reactor(), first.device(), 0, one);
  co_await write_to(bed.reactor(), second.device(), 0, two);
  EXPECT_TRUE(co_await content(bed, first.device(), 0) == one.bytes);
  EXPECT_TRUE(co_await content(bed, second.device(), 0) == two.bytes);
  co_await first.close();
  EXPECT_TRUE(co_await content(bed, second.device(), 0) == two.bytes);
  co_await second.close();
}
TEST(PathsTest, TwoSubsystemsOfOneTarget) { TargetBed({.shards = 2, .client_shards = 2}).run(two_subsystems); }

}  // namespace
}  // namespace fairlead::host
