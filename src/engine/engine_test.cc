// What an engine is told about replicas and volumes, and what it refuses.
#include "engine/engine.h"

#include <array>
#include <gtest/gtest.h>

#include "block/disk.h"
#include "engine/no_witness.h"
#include "engine/test_bed.h"
#include "host/subsystem.h"
#include "tests/support/memory_witness.h"
#include "tests/support/nvme_client.h"

namespace fairlead::engine {
namespace {

using mirror::TargetStatus;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint64_t kSize = 8 * kMiB;
const mirror::ReplicaId kOne = test_uuid(10);
const mirror::ReplicaId kOther = test_uuid(11);

// A node with a disk and a pool on it.
class Node {
 public:
  Node(sim::SimWorld& world, const char* address)
      : world_(world), node_(world.add_node(address, {.shards = 2, .more_addresses = {}})) {
    world.create_disk(node_, "/disk", 96 * kMiB);
    world.create_disk(node_, "/other", 96 * kMiB);
  }
  Shard& home() { return node_.shard(0); }
  Reactor& reactor() { return home().reactor; }
  SocketAddress address() const { return node_.address(4420); }
  Task<void> format(std::string name = "tank", std::string path = "/disk") {
    pool::CreateOptions options;
    options.name = name;
    options.extent_bytes = 256 * kKiB;
    options.journal_bytes = pool::kJournalBytesMin;
    EXPECT_TRUE((co_await pool::Pool::create(node_.shard(0), disks(path), options)).has_value());
  }
  // Listens, with the replicas offered.
  Task<std::unique_ptr<Engine>> start(EngineOptions options = {}, mirror::Witness* witness = nullptr) {
    const std::vector<Shard*> shards = {&node_.shard(0), &node_.shard(1)};
    auto engine =
        std::make_unique<Engine>(shards, test_uuid(200), witness != nullptr ? *witness : no_witness_, options);
    co_await add_pool(*engine, "/disk");
    EXPECT_TRUE((co_await engine->listen({.bind = address(), .advertise = {}})).has_value());
    co_return engine;
  }
  Task<void> add_pool(Engine& engine, std::string path) {
    auto pool = co_await pool::Pool::import({&node_.shard(0), &node_.shard(1)}, disks(path), {});
    EXPECT_TRUE(pool.has_value());
    if (pool) EXPECT_TRUE(co_await engine.add_pool(std::move(*pool)));
  }
  // Runs the body there, to its end.
  void run(Task<void> body) {
    bool is_done = false;
    world_.spawn(node_, 0, run_and_tell(std::move(body), is_done));
    const sim::RunResult result = world_.run_until([&] { return is_done; }, seconds(600));
    FL_CHECK(result == sim::RunResult::kDone);
  }
  std::vector<pool::PoolDisk> disks(const std::string& path = "/disk") {
    auto source = open_disk_source(node_.shard(0), {.path = path});
    EXPECT_TRUE(source.has_value()) << to_string(source.error());
    return {{path, *source}};
  }

 private:
  static Task<void> run_and_tell(Task<void> body, bool& is_done) {
    co_await std::move(body);
    is_done = true;
  }
  sim::SimWorld& world_;
  sim::SimNode& node_;
  NoWitness no_witness_;
};

class EngineTest : public ::testing::Test {
 protected:
  sim::SimWorld world{1, sim::SimSettings::calm()};
};

NewReplica new_replica(const char* name, const mirror::ReplicaId& id, mirror::MemberSet members) {
  return {.name = name, .size_bytes = kSize, .volume = test_volume(), .id = id, .members = members};
}
NewVolume new_volume(std::vector<ReplicaPlace> replicas, Uuid id = test_volume()) {
  return {.id = id, .size_bytes = kSize, .replicas = std::move(replicas)};
}
std::optional<Code> code_of(const Result<void>& done) { return done ? std::nullopt : std::optional(done.error().code); }

Task<bool> await_serving(Reactor& reactor, const Engine& engine, Uuid id = test_volume()) {
  const Instant until = reactor.now() + seconds(30);
  while (reactor.now() < until) {
    const Volume& volume = *engine.find_volume(id);
    if (volume.is_target() && volume.status().state == TargetStatus::State::kServing) co_return true;
    (void)co_await sleep(reactor, milliseconds(1));
  }
  co_return false;
}

Task<void> keeps_what_it_was_told(Node& node) {
  co_await node.format();
  auto engine = co_await node.start();
  EXPECT_TRUE(co_await engine->create_replica(new_replica("db", kOne, {kOne, kOther, test_uuid(12)})));
  EXPECT_TRUE(co_await engine->create_replica(new_replica("late", test_uuid(13), {})));
  EXPECT_TRUE(co_await engine->stop());
  engine.reset();
  engine = co_await node.start();
  const std::vector<ReplicaInfo> replicas = engine->replicas();
  CO_ASSERT_TRUE(replicas.size() == 2);
  EXPECT_EQ(replicas[0].name, "db");
  EXPECT_EQ(replicas[0].id, kOne);
  EXPECT_EQ(replicas[0].volume, test_volume());
  EXPECT_EQ(replicas[0].size_bytes, kSize);
  EXPECT_FALSE(replicas[0].trouble);
  EXPECT_EQ(replicas[0].state.record.members, (mirror::MemberSet{kOne, kOther, test_uuid(12)}));
  EXPECT_TRUE(replicas[0].state.record.is_settled());
  EXPECT_GT(replicas[0].state.record.at.term.number, 0U);
  EXPECT_EQ(replicas[1].state, mirror::ReplicaState{}) << "it knows of no members until a target tells";
  EXPECT_TRUE(co_await engine->stop());
}
TEST_F(EngineTest, ReplicasHaveTheirRecordsAgainAfterARestart) {
  Node node(world, "10.0.0.1");
  node.run(keeps_what_it_was_told(node));
}

Task<void> tells_what_it_cannot_offer(Node& node) {
  co_await node.format();
  auto engine = co_await node.start();
  EXPECT_TRUE(co_await engine->create_replica(new_replica("bad", kOne, {kOne})));
  EXPECT_TRUE(co_await engine->create_replica(new_replica("good", kOther, {kOther})));
  EXPECT_TRUE(co_await engine->stop());
  engine.reset();
  auto pool = co_await pool::Pool::import({&node.home()}, node.disks(), {});
  pool::Changes changes;
  changes.properties = {{kReplicaStateProperty, std::vector(3, std::byte{1})}};
  EXPECT_TRUE(co_await (*pool)->change("bad", changes));
  // As a crash leaves it between its making and its record: nobody's.
  EXPECT_TRUE((co_await (*pool)->create_replica({.name = "half", .size_bytes = kSize})).has_value());
  EXPECT_TRUE(co_await (*pool)->close());
  pool->reset();
  engine = co_await node.start();
  const std::vector<ReplicaInfo> replicas = engine->replicas();
  CO_ASSERT_TRUE(replicas.size() == 2);
  CO_ASSERT_TRUE(replicas[0].trouble.has_value());
  EXPECT_EQ(replicas[0].trouble->code, Code::kCorrupt);
  EXPECT_FALSE(replicas[1].trouble) << "the other is offered all the same";
  EXPECT_EQ(code_of(co_await engine->open_volume(new_volume({{kOne, {}}}))), Code::kNotFound);
  EXPECT_TRUE(co_await engine->delete_replica("bad"));
  EXPECT_TRUE(co_await engine->delete_replica("half"));
  EXPECT_EQ(engine->replicas().size(), 1U);
  EXPECT_TRUE(co_await engine->stop());
}

TEST_F(EngineTest, WhatCannotBeOfferedKeepsNothingElseFromIt) {
  Node node(world, "10.0.0.1");
  node.run(tells_what_it_cannot_offer(node));
  EXPECT_GT(world.unexplained_errors(), 0U) << "a person is told";
}

Task<void> refuses(Node& node) {
  co_await node.format();
  auto engine = co_await node.start();
  EXPECT_EQ(code_of(co_await engine->create_replica(new_replica("db", {}, {}))), Code::kInvalidArgument);
  EXPECT_EQ(code_of(co_await engine->create_replica(new_replica("db", kOne, {kOther}))), Code::kInvalidArgument);
  EXPECT_TRUE(engine->replicas().empty());
  EXPECT_TRUE(co_await engine->create_replica(new_replica("db", kOne, {kOne})));
  EXPECT_EQ(code_of(co_await engine->create_replica(new_replica("db", kOther, {kOther}))), Code::kAlreadyExists);
  EXPECT_EQ(code_of(co_await engine->create_replica(new_replica("two", kOne, {kOne}))), Code::kAlreadyExists);
  EXPECT_EQ(engine->replicas().size(), 1U);
  EXPECT_EQ(code_of(co_await engine->delete_replica("nobody")), Code::kNotFound);

  EXPECT_EQ(code_of(co_await engine->open_volume(new_volume({}))), Code::kInvalidArgument);
  EXPECT_EQ(code_of(co_await engine->open_volume(new_volume({{kOther, {}}}))), Code::kNotFound);
  EXPECT_EQ(code_of(co_await engine->open_volume(new_volume({{kOne, {}}, {kOne, node.address()}}))),
            Code::kInvalidArgument);
  NewVolume volume = new_volume({{kOne, {}}});
  volume.id = test_uuid(2);
  EXPECT_EQ(code_of(co_await engine->open_volume(volume)), Code::kInvalidArgument) << "the replica is another volume's";
  EXPECT_TRUE(engine->volumes().empty());

  EXPECT_EQ(code_of(co_await engine->serve_volume(test_volume())), Code::kNotFound);
  EXPECT_EQ(code_of(co_await engine->stand_by(test_volume())), Code::kNotFound);
  EXPECT_EQ(code_of(co_await engine->close_volume(test_volume())), Code::kNotFound);
  EXPECT_EQ(code_of(engine->force(test_volume(), kOne)), Code::kNotFound);
  EXPECT_EQ(engine->find_volume(test_volume()), nullptr);
  EXPECT_TRUE(co_await engine->stop());
}
TEST_F(EngineTest, RefusesWhatCannotBe) {
  Node node(world, "10.0.0.1");
  node.run(refuses(node));
}

Task<void> serves_and_stands_by(Node& node) {
  co_await node.format();
  auto engine = co_await node.start();
  EXPECT_TRUE(co_await engine->create_replica(new_replica("db", kOne, {kOne})));
  EXPECT_TRUE(co_await engine->open_volume(new_volume({{kOne, {}}})));
  EXPECT_TRUE(co_await engine->open_volume(new_volume({{kOne, {}}}))) << "it is, as it is to be";
  EXPECT_EQ(code_of(engine->force(test_volume(), kOne)), Code::kInvalidArgument) << "it is not the target";
  const auto listening = co_await engine->listen({.bind = node.address(), .advertise = {}});
  EXPECT_FALSE(listening) << "the volume would not be shown there";
  for (int round = 0; round < 2; ++round) {
    EXPECT_TRUE(co_await engine->serve_volume(test_volume()));
    CO_ASSERT_TRUE(co_await await_serving(node.reactor(), *engine));
    EXPECT_EQ(code_of(co_await engine->delete_replica("db")), Code::kBusy);
    EXPECT_TRUE(co_await engine->stand_by(test_volume()));
    EXPECT_FALSE(engine->find_volume(test_volume())->is_target());
  }
  EXPECT_TRUE(co_await engine->close_volume(test_volume()));
  EXPECT_TRUE(co_await engine->delete_replica("db"));
  EXPECT_TRUE(engine->replicas().empty());
  EXPECT_EQ(engine->find_pool("tank")->list().size(), 0U);
  EXPECT_TRUE(co_await engine->stop());
}
TEST_F(EngineTest, AVolumeOfOneReplicaIsServedAndStandsBy) {
  Node node(world, "10.0.0.1");
  node.run(serves_and_stands_by(node));
}

// What an engine showed before its restart it is told to show again: a host that comes before that must not give the
// path up for good.
Task<bool> may_come_again(Node& node) {
  testing::QueueOptions queue;
  queue.subsystem_nqn = volume_nqn(test_volume());
  testing::NvmeConnection connection(node.home());
  EXPECT_TRUE(co_await connection.open(node.address(), queue));
  const auto refused = co_await connection.connect();
  co_await connection.close();
  EXPECT_TRUE(refused && refused->status.code == nvme::StatusCode::kConnectInvalidParameters);
  co_return refused && !refused->status.do_not_retry;
}
Task<void> asks_hosts_to_come_again(Node& node) {
  co_await node.format();
  auto engine = co_await node.start();
  EXPECT_TRUE(co_await may_come_again(node));
  EXPECT_TRUE(co_await engine->create_replica(new_replica("db", kOne, {kOne})));
  EXPECT_TRUE(co_await engine->open_volume(new_volume({{kOne, {}}})));
  EXPECT_TRUE(co_await engine->close_volume(test_volume()));
  EXPECT_FALSE(co_await may_come_again(node)) << "it is not to be here any more";
  EXPECT_TRUE(co_await engine->stop());
  engine = co_await node.start();
  EXPECT_TRUE(co_await may_come_again(node));
  EXPECT_TRUE(co_await engine->stop());
}
TEST_F(EngineTest, AHostMayComeAgainForAVolumeThatIsNotShownYet) {
  Node node(world, "10.0.0.1");
  node.run(asks_hosts_to_come_again(node));
}

// ---- Pools

Task<void> has_several_pools(Node& node) {
  co_await node.format();
  co_await node.format("other", "/other");
  auto engine = co_await node.start();
  co_await node.add_pool(*engine, "/other");
  CO_ASSERT_TRUE(engine->pools().size() == 2);
  NewReplica replica = new_replica("db", kOne, {kOne});
  EXPECT_EQ(code_of(co_await engine->create_replica(replica)), Code::kInvalidArgument) << "in which pool?";
  replica.pool = "none";
  EXPECT_EQ(code_of(co_await engine->create_replica(replica)), Code::kNotFound);
  replica.pool = "other";
  replica.annotations = {{"volume-name", "db"}, {"size", "8MiB"}};
  EXPECT_TRUE(co_await engine->create_replica(replica));
  replica.name = "again";
  replica.pool = "tank";
  EXPECT_EQ(code_of(co_await engine->create_replica(replica)), Code::kAlreadyExists);
  CO_ASSERT_TRUE(engine->replicas().size() == 1);
  EXPECT_EQ(engine->replicas()[0].pool, "other");

  EXPECT_TRUE(co_await engine->open_volume(new_volume({{kOne, {}}})));
  EXPECT_EQ(code_of(co_await engine->remove_pool("other")), Code::kBusy);
  EXPECT_TRUE(co_await engine->remove_pool("tank")) << "nobody uses anything in it";
  EXPECT_TRUE(co_await engine->close_volume(test_volume()));
  EXPECT_TRUE(co_await engine->remove_pool("other"));
  EXPECT_EQ(code_of(co_await engine->remove_pool("other")), Code::kNotFound);
  EXPECT_TRUE(engine->replicas().empty());
  co_await node.add_pool(*engine, "/other");
  CO_ASSERT_TRUE(engine->replicas().size() == 1);
  EXPECT_EQ(engine->replicas()[0].annotations, replica.annotations);
  EXPECT_TRUE(co_await engine->set_annotations(to_string(kOne), {{"size", "9MiB"}}));
  EXPECT_EQ(engine->replicas()[0].annotations, (Annotations{{"size", "9MiB"}}));
  EXPECT_EQ(code_of(co_await engine->set_annotations("db", {{"", "empty"}})), Code::kInvalidArgument);
  EXPECT_EQ(code_of(co_await engine->set_annotations("db", {{"long", std::string(3000, 'x')}})),
            Code::kInvalidArgument);
  EXPECT_TRUE(co_await engine->set_annotations("db", {}));
  EXPECT_EQ(engine->replicas()[0].annotations, Annotations{});
  EXPECT_TRUE(co_await engine->stop());
}
TEST_F(EngineTest, ReplicasAreInThePoolThatWasNamed) {
  Node node(world, "10.0.0.1");
  node.run(has_several_pools(node));
}

// ---- What it tells of itself

Task<void> tells_who_has_a_replica(Node& node) {
  co_await node.format();
  auto engine = co_await node.start();
  EXPECT_TRUE(co_await engine->create_replica(new_replica("db", kOne, {kOne})));
  EXPECT_FALSE(engine->replicas()[0].holder);
  EXPECT_TRUE(co_await engine->open_volume(new_volume({{kOne, {}}})));
  const uint64_t before = engine->changes().count();
  EXPECT_TRUE(co_await engine->serve_volume(test_volume()));
  CO_ASSERT_TRUE(co_await await_serving(node.reactor(), *engine));
  EXPECT_EQ(engine->replicas()[0].holder, engine->find_volume(test_volume())->status().term);
  EXPECT_GT(engine->changes().count(), before);
  (void)co_await sleep(node.reactor(), seconds(20));
  const uint64_t at_rest = engine->changes().count();
  (void)co_await sleep(node.reactor(), seconds(20));
  EXPECT_EQ(engine->changes().count(), at_rest) << "nothing happens, nothing is told";
  EXPECT_TRUE(co_await engine->stand_by(test_volume()));
  EXPECT_FALSE(engine->replicas()[0].holder);
  EXPECT_GT(engine->changes().count(), at_rest);
  EXPECT_TRUE(co_await engine->stop());
}
TEST_F(EngineTest, ItTellsWhoHasAReplica) {
  Node node(world, "10.0.0.1");
  node.run(tells_who_has_a_replica(node));
}

// ---- Snapshots, clones, growth: as a host sees them

class Host {
 public:
  Host(Node& node, const Uuid& volume) : node_(node), volume_(volume) {}
  Task<bool> connect() {
    host::SubsystemOptions options;
    options.nqn = volume_nqn(volume_);
    options.addresses = {node_.address()};
    options.identity = host::identity_from_id(test_uuid(99));
    subsystem_ = std::make_unique<host::Subsystem>(std::vector<Shard*>{&node_.home()}, options);
    if (!co_await subsystem_->start()) co_return false;
    const auto source = subsystem_->source(1);
    auto device = source ? (*source)->open(node_.home()) : std::unexpected(source.error());
    if (device) device_ = std::move(*device);
    co_return device_ != nullptr;
  }
  BlockDevice& device() { return *device_; }
  Task<void> write(uint64_t block, uint8_t value) {
    EXPECT_TRUE(co_await put(node_.reactor(), *device_, block * kBlock, pattern(kBlock, value)));
  }
  Task<bool> reads(uint64_t block, uint8_t value) {
    const auto bytes = co_await get(node_.reactor(), *device_, block * kBlock, kBlock);
    co_return bytes && *bytes == pattern(kBlock, value);
  }
  Task<void> disconnect() {
    device_.reset();
    co_await subsystem_->stop();
  }

 private:
  Node& node_;
  const Uuid volume_;
  std::unique_ptr<host::Subsystem> subsystem_;
  std::unique_ptr<BlockDevice> device_;
};

Task<void> clones(Node& node) {
  constexpr Duration kLimit = seconds(10);
  const Uuid volume = test_uuid(2);
  co_await node.format();
  auto engine = co_await node.start();
  EXPECT_TRUE(co_await engine->create_replica(new_replica("db", kOne, {kOne})));
  EXPECT_TRUE(co_await engine->open_volume(new_volume({{kOne, {}}})));
  EXPECT_EQ(code_of(co_await engine->take_snapshot(test_volume(), test_uuid(40), kLimit)), Code::kInvalidArgument)
      << "it is not the target";
  EXPECT_TRUE(co_await engine->serve_volume(test_volume()));
  CO_ASSERT_TRUE(co_await await_serving(node.reactor(), *engine));
  Host host(node, test_volume());
  CO_ASSERT_TRUE(co_await host.connect());
  co_await host.write(3, 1);
  EXPECT_TRUE(co_await engine->take_snapshot(test_volume(), test_uuid(40), kLimit));
  co_await host.write(3, 2);

  NewReplica clone = new_replica("copy", kOther, {});
  clone.volume = volume;
  clone.clone_of = SnapshotPlace{.replica = kOne, .snapshot = test_uuid(40)};
  EXPECT_EQ(code_of(co_await engine->create_replica(clone)), Code::kInvalidArgument) << "it has no members";
  clone.members = {kOther};
  clone.clone_of->snapshot = test_uuid(41);
  EXPECT_EQ(code_of(co_await engine->create_replica(clone)), Code::kNotFound);
  clone.clone_of->snapshot = test_uuid(40);
  EXPECT_TRUE(co_await engine->create_replica(clone));
  EXPECT_TRUE(co_await engine->open_volume({.id = volume, .size_bytes = kSize, .replicas = {{kOther, {}}}}));
  EXPECT_TRUE(co_await engine->serve_volume(volume));
  Host other(node, volume);
  CO_ASSERT_TRUE(co_await other.connect());
  EXPECT_TRUE(co_await other.reads(3, 1));
  co_await other.write(3, 9);
  EXPECT_TRUE(co_await host.reads(3, 2));
  EXPECT_EQ(engine->find_volume(volume)->status().unlevel_bytes, 0U);

  // It outlives what it came from.
  co_await host.disconnect();
  EXPECT_TRUE(co_await engine->close_volume(test_volume()));
  EXPECT_TRUE(co_await engine->delete_replica("db"));
  EXPECT_EQ(engine->find_pool("tank")->list().size(), 1U) << "its snapshot has gone with it";
  EXPECT_TRUE(co_await other.reads(3, 9));

  EXPECT_TRUE(co_await engine->grow_volume(volume, 2 * kSize, kLimit));
  while (other.device().refresh_size() != 2 * kSize) (void)co_await sleep(node.reactor(), milliseconds(1));
  co_await other.write(2 * kSize / kBlock - 1, 7);
  EXPECT_TRUE(co_await other.reads(2 * kSize / kBlock - 1, 7));
  EXPECT_EQ(code_of(co_await engine->grow_volume(volume, kSize, kLimit)), Code::kInvalidArgument);
  EXPECT_TRUE(co_await engine->stand_by(volume));
  EXPECT_TRUE(co_await engine->grow_volume(volume, 3 * kSize, kLimit));
  EXPECT_TRUE(co_await engine->serve_volume(volume));
  while (other.device().refresh_size() != 3 * kSize) (void)co_await sleep(node.reactor(), milliseconds(1));
  co_await other.write(3 * kSize / kBlock - 1, 8);
  EXPECT_TRUE(co_await other.reads(3 * kSize / kBlock - 1, 8));
  EXPECT_EQ(engine->replicas().front().size_bytes, 3 * kSize);
  co_await other.disconnect();
  EXPECT_TRUE(co_await engine->stop());
}
TEST_F(EngineTest, ACloneIsAVolumeOfItsOwnAndGrows) {
  Node node(world, "10.0.0.1");
  node.run(clones(node));
}

// The replica is on the second engine. Whoever is told last has the volume.
struct Both {
  Node& near;
  Node& far;
  std::unique_ptr<Engine> engines[2];
};
Task<void> begin(Both& both, bool is_far) {
  Node& node = is_far ? both.far : both.near;
  co_await node.format();
  auto engine = co_await node.start();
  if (is_far) EXPECT_TRUE(co_await engine->create_replica(new_replica("db", kOne, {kOne})));
  const std::optional<SocketAddress> address = is_far ? std::nullopt : std::optional(both.far.address());
  EXPECT_TRUE(co_await engine->open_volume(new_volume({{kOne, address}})));
  both.engines[is_far] = std::move(engine);
}
Task<void> take(Both& both, bool is_far) {
  Node& node = is_far ? both.far : both.near;
  Engine& engine = *both.engines[is_far];
  EXPECT_TRUE(co_await engine.serve_volume(test_volume()));
  EXPECT_TRUE(co_await await_serving(node.reactor(), engine));
}
// What is asked of it when it has lost the volume, which it learns from that.
Task<void> write_once(Both& both) {
  Host host(both.near, test_volume());
  CO_ASSERT_TRUE(co_await host.connect());
  co_await host.write(0, 1);  // it waits until the volume is served again
  co_await host.disconnect();
}
Task<void> take_back_as_soon_as_it_is_lost(Both& both) {
  Scope scope(both.near.reactor());
  scope.spawn(write_once(both));
  Engine& engine = *both.engines[0];
  const auto is_superseded = [&] {
    const Volume& volume = *engine.find_volume(test_volume());
    return !volume.is_target() || volume.status().state == TargetStatus::State::kSuperseded;
  };
  while (!is_superseded()) (void)co_await sleep(both.near.reactor(), std::chrono::microseconds(5));
  co_await take(both, false);
  co_await scope.close();
}
Task<void> end(Both& both, bool is_far) { EXPECT_TRUE(co_await both.engines[is_far]->stop()); }

TEST_F(EngineTest, OneThatLostItsVolumeTakesItBackWhenTold) {
  Node near(world, "10.0.0.1");
  Node far(world, "10.0.0.2");
  Both both{near, far, {}};
  far.run(begin(both, true));
  near.run(begin(both, false));
  near.run(take(both, false));
  far.run(take(both, true));
  near.run(take_back_as_soon_as_it_is_lost(both));
  near.run(end(both, false));
  far.run(end(both, true));
}

// The volume moves from one replica to another, while it is served, and the first is deleted.
Task<void> takes_other_places(Node& node) {
  const mirror::ReplicaId late = test_uuid(14);
  test::MemoryWitness witness(node.reactor());
  co_await node.format();
  auto engine = co_await node.start({}, &witness);
  EXPECT_TRUE(co_await engine->create_replica(new_replica("db", kOne, {kOne})));
  EXPECT_TRUE(co_await engine->open_volume(new_volume({{kOne, {}}})));
  EXPECT_TRUE(co_await engine->serve_volume(test_volume()));
  CO_ASSERT_TRUE(co_await await_serving(node.reactor(), *engine));
  Host host(node, test_volume());
  CO_ASSERT_TRUE(co_await host.connect());
  co_await host.write(3, 1);
  EXPECT_TRUE(co_await engine->create_replica(new_replica("late", late, {})));
  EXPECT_EQ(code_of(co_await engine->open_volume(new_volume({{kOne, {}}, {test_uuid(15), {}}}))), Code::kNotFound);
  EXPECT_TRUE(co_await engine->open_volume(new_volume({{kOne, {}}, {late, {}}})));
  co_await host.write(4, 2);
  while (engine->find_volume(test_volume())->status().record.members.size() < 2) {
    (void)co_await sleep(node.reactor(), milliseconds(1));
  }
  EXPECT_EQ(code_of(co_await engine->delete_replica("db")), Code::kBusy);
  NewVolume left = new_volume({{late, {}}});
  left.size_bytes = 2 * kSize;
  EXPECT_TRUE(co_await engine->open_volume(left));
  EXPECT_EQ(engine->places_of(test_volume()), left.replicas);
  EXPECT_TRUE(co_await engine->delete_replica("db"));
  EXPECT_TRUE(co_await host.reads(3, 1));
  EXPECT_TRUE(co_await host.reads(4, 2));
  while (host.device().refresh_size() != 2 * kSize) (void)co_await sleep(node.reactor(), milliseconds(1));
  left.allowed_hosts = {"nqn.2024-01.example:friend"};
  EXPECT_EQ(engine->controllers().at(volume_nqn(test_volume())), 1U);
  EXPECT_TRUE(co_await engine->open_volume(left));
  while (engine->controllers().contains(volume_nqn(test_volume()))) {
    (void)co_await sleep(node.reactor(), milliseconds(1));
  }
  co_await host.disconnect();
  EXPECT_TRUE(co_await engine->stop());
}
TEST_F(EngineTest, AVolumeTakesOtherPlacesWhileItIsServed) {
  Node node(world, "10.0.0.1");
  node.run(takes_other_places(node));
}

// Two volumes with a replica on the first engine each, and another on the second, which joins.
struct VolumeIds {
  Uuid volume;
  mirror::ReplicaId near;
  mirror::ReplicaId far;
};
const std::array<VolumeIds, 2> kVolumes = {VolumeIds{test_uuid(1), test_uuid(20), test_uuid(21)},
                                           VolumeIds{test_uuid(2), test_uuid(22), test_uuid(23)}};

// To be copied for longer than it takes to find the other.
constexpr uint64_t kLarge = 4 * kSize;

// Something in each extent.
Task<void> fill(Node& node, const Uuid& volume) {
  host::SubsystemOptions options;
  options.nqn = volume_nqn(volume);
  options.addresses = {node.address()};
  options.identity = host::identity_from_id(test_uuid(99));
  host::Subsystem subsystem({&node.home()}, options);
  CO_ASSERT_TRUE(co_await subsystem.start());
  const auto source = subsystem.source(1);
  CO_ASSERT_TRUE(source.has_value());
  auto device = (*source)->open(node.home());
  CO_ASSERT_TRUE(device.has_value());
  for (uint64_t at = 0; at < kLarge; at += mirror::kExtentBytes) {
    EXPECT_TRUE(co_await put(node.reactor(), **device, at, pattern(kBlock, 1)));
  }
  device->reset();
  co_await subsystem.stop();
}
Task<void> serve_two(Both& both) {
  co_await both.near.format();
  EngineOptions options;
  options.copies_max = 1;
  both.engines[0] = co_await both.near.start(options);
  Engine& engine = *both.engines[0];
  for (const VolumeIds& ids : kVolumes) {
    EXPECT_TRUE(co_await engine.create_replica({.name = to_string(ids.near),
                                                .size_bytes = kLarge,
                                                .volume = ids.volume,
                                                .id = ids.near,
                                                .members = {ids.near}}));
    NewVolume volume = new_volume({{ids.near, {}}, {ids.far, both.far.address()}}, ids.volume);
    volume.size_bytes = kLarge;
    EXPECT_TRUE(co_await engine.open_volume(std::move(volume)));
    EXPECT_TRUE(co_await engine.serve_volume(ids.volume));
    CO_ASSERT_TRUE(co_await await_serving(both.near.reactor(), engine, ids.volume));
    co_await fill(both.near, ids.volume);
  }
}
Task<void> offer_two(Both& both) {
  co_await both.far.format();
  both.engines[1] = co_await both.far.start();
  for (const VolumeIds& ids : kVolumes) {
    EXPECT_TRUE(co_await both.engines[1]->create_replica(
        {.name = to_string(ids.far), .size_bytes = kLarge, .volume = ids.volume, .id = ids.far, .members = {}}));
  }
  // From now on who finds one finds the other.
  EXPECT_TRUE(co_await both.engines[1]->stop());
  both.engines[1] = co_await both.far.start();
}
// Both get on, never more than one extent at a time.
Task<void> both_are_copied(Both& both) {
  const Engine& engine = *both.engines[0];
  const auto status = [&](size_t i) { return engine.find_volume(kVolumes[i].volume)->status(); };
  size_t most = 0;
  bool are_both_under_way = false;
  const Instant until = both.near.reactor().now() + seconds(60);
  while (status(0).record.members.size() + status(1).record.members.size() < 4) {
    CO_ASSERT_TRUE(both.near.reactor().now() < until);
    most = std::max(most, engine.copies_under_way());
    const auto is_under_way = [&](size_t i) {
      const mirror::ReplicaStatus replica = status(i).replicas[1];
      return replica.copied_bytes > 0 && replica.copied_bytes < replica.to_copy_bytes;
    };
    are_both_under_way |= is_under_way(0) && is_under_way(1);
    (void)co_await sleep(both.near.reactor(), std::chrono::microseconds(10));
  }
  EXPECT_EQ(most, 1U);
  EXPECT_TRUE(are_both_under_way);
}

TEST_F(EngineTest, VolumesShareABudgetOfCopies) {
  Node near(world, "10.0.0.1");
  Node far(world, "10.0.0.2");
  Both both{near, far, {}};
  near.run(serve_two(both));
  far.run(offer_two(both));
  near.run(both_are_copied(both));
  near.run(end(both, false));
  far.run(end(both, true));
}

TEST(ControllerIdsTest, APoolHasTheSameRangeEachTimeAndMostHaveOthers) {
  std::map<uint16_t, int> ranges;
  for (uint8_t i = 0; i < 100; ++i) {
    const ControllerIds ids = controller_ids_of(test_uuid(i));
    EXPECT_EQ(ids, controller_ids_of(test_uuid(i)));
    EXPECT_GE(ids.first, 1);
    EXPECT_EQ(ids.last - ids.first, 255);
    EXPECT_LE(ids.last, 0xffef);
    EXPECT_EQ(ids.first % 256, 1) << "ranges are the same or apart";
    ++ranges[ids.first];
  }
  EXPECT_GT(ranges.size(), 60U);
}

}  // namespace
}  // namespace fairlead::engine
