// What the control plane asks of an engine, by calls between simulated nodes: repeated, refused, and over restarts.
#include "engine/management.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <set>

#include "engine/control_witness.h"
#include "engine/reporter.h"
#include "engine/wire.h"
#include "tests/support/memory_witness.h"
#include "tests/support/sim_rpc.h"

namespace fairlead::engine {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

constexpr const char* kEngineAddress = "10.0.0.1:7420";
constexpr uint64_t kSize = 8 * kMiB;
constexpr uint64_t kFileBytes = 64 * kMiB;
const std::vector<std::string> kControl = {"10.0.0.2:7430", "10.0.0.3:7430"};

std::string id_of(uint8_t number) {
  Uuid id;
  id.bytes[0] = 7;
  id.bytes[15] = number;
  return to_string(id);
}

template <typename Items>
std::set<std::string> texts(const Items& items) {
  std::set<std::string> all;
  for (const auto& item : items) all.insert(item.ShortDebugString());
  return all;
}

// The control plane: what it hears, and the witness. Two processes, of which one leads.
class Control {
 public:
  explicit Control(sim::SimNode& node) : node_(node), witness_(node.shard(0).reactor) {}

  Task<Outcome<v1::ReportReply>> report(v1::ReportRequest request) {
    FL_CO_TRY_VOID(lead());
    ++reports;
    if (request.has_state()) {
      take_state(request);
      known_ = request.sequence();
      state_at = node_.shard(0).clock.now();
    }
    v1::ReportReply reply;
    reply.set_interval_ms(300);
    reply.set_wants_state(known_ != request.sequence());
    co_return reply;
  }
  Task<Outcome<v1::NextTermReply>> next_term(v1::NextTermRequest request) {
    FL_CO_TRY_VOID(lead());
    const auto number = co_await witness_.next_term(*parse_uuid(request.volume()));
    v1::NextTermReply reply;
    reply.set_number(*number);
    co_return reply;
  }
  Task<Outcome<v1::WitnessReply>> prepare(v1::PrepareRequest request) {
    FL_CO_TRY_VOID(lead());
    co_return to_reply(co_await witness_.prepare(*parse_uuid(request.volume()), *from_wire(request.term())));
  }
  Task<Outcome<v1::WitnessReply>> keep(v1::KeepRequest request) {
    FL_CO_TRY_VOID(lead());
    using Standing = mirror::Witness::Standing;
    co_return to_reply(co_await witness_.keep(*parse_uuid(request.volume()), *from_wire(request.record()),
                                              request.is_in_force() ? Standing::kInForce : Standing::kProposed));
  }
  Task<void> serve(test::SimRpc& rpc, std::string address) {
    rpc::Service service;
    service.add("/fairlead.engine.v1.Control/Report", *this, &Control::report);
    service.add("/fairlead.engine.v1.Control/NextTerm", *this, &Control::next_term);
    service.add("/fairlead.engine.v1.Control/Prepare", *this, &Control::prepare);
    service.add("/fairlead.engine.v1.Control/Keep", *this, &Control::keep);
    test::SimRpcServer server(rpc, node_, std::move(address), service);
    co_await node_.stopping(0).wait();
    co_await server.close();
  }
  // Of the last report with a state.
  std::vector<std::string> told;
  // Has forgotten what it was told.
  void forget() { known_ = 0; }

  bool leads = true;
  uint64_t reports = 0;
  v1::NodeState state;
  Instant state_at;

 private:
  void take_state(const v1::ReportRequest& request) {
    const v1::NodeState before = std::exchange(state, request.state());
    told.clear();
    for (const auto& replica : state.replicas()) told.push_back("replica " + replica.id());
    for (const auto& volume : state.volumes()) told.push_back("volume " + volume.id());
    for (const auto& id : request.gone_replicas()) told.push_back("no replica " + id);
    for (const auto& id : request.gone_volumes()) told.push_back("no volume " + id);
    if (request.since() == 0) return;
    EXPECT_EQ(request.since(), known_);
    const auto is_told = [&](const std::string& what) {
      return std::ranges::any_of(told, [&](const std::string& each) { return each == what || each == "no " + what; });
    };
    for (const auto& replica : before.replicas()) {
      if (!is_told("replica " + replica.id())) *state.add_replicas() = replica;
    }
    for (const auto& volume : before.volumes()) {
      if (!is_told("volume " + volume.id())) *state.add_volumes() = volume;
    }
  }
  Outcome<void> lead() const {
    if (!leads) return problem(Code::kUnreachable, "this process does not lead: ask another");
    return {};
  }
  static v1::WitnessReply to_reply(const Result<mirror::WitnessAnswer>& answer) {
    v1::WitnessReply reply;
    *reply.mutable_promise() = to_wire(answer->promise);
    *reply.mutable_record() = to_wire(answer->record);
    reply.set_abstains(answer->abstains);
    return reply;
  }
  sim::SimNode& node_;
  test::MemoryWitness witness_;
  uint64_t known_ = 0;
};

class ManagementTest : public testing::Test {
 protected:
  ManagementTest() {
    rpc_.join(world_);
    world_.spawn(first_, 0, controls_[0].serve(rpc_, kControl[0]));
    world_.spawn(second_, 0, controls_[1].serve(rpc_, kControl[1]));
    controls_[1].leads = false;
    node_.run_at_boot([this](sim::SimNode& up) { world_.spawn(up, 0, live()); });
    await([&] { return is_ready_; });
  }

  // One life of the engine.
  Task<void> live() {
    std::vector<Shard*> shards = {&node_.shard(0), &node_.shard(1)};
    auto directory = co_await StateDirectory::open(*shards[0], files_);
    EXPECT_TRUE(directory.has_value()) << to_string(directory.error());
    if (!directory) co_return;
    const std::unique_ptr<rpc::Dialer> dialer = rpc_.dialer(node_);
    ControlClient control(*shards[0], *dialer, kControl);
    ControlWitness witness(control);
    Engine engine(shards, (*directory)->node(), witness, {});
    EXPECT_TRUE((co_await engine.listen({.bind = node_.address(4420), .advertise = {}})).has_value());
    ManagementOptions options{.node = "a",
                              .data_address = to_string(node_.address(4420)),
                              .management_address = kEngineAddress,
                              .version = "1",
                              .labels = {{"rack", "1"}},
                              .create = {},
                              .import = {}};
    options.create.extent_bytes = 256 * kKiB;
    options.create.journal_bytes = pool::kJournalBytesMin;
    Management management(shards, engine, **directory, options);
    rpc::Service service;
    management.add_to(service);
    test::SimRpcServer server(rpc_, node_, kEngineAddress, service);
    Reporter reporter(*shards[0], management, control);
    reporter.start();
    co_await management.start();
    is_ready_ = true;
    co_await node_.stopping(0).wait();
    is_ready_ = false;
    management.begin_stop();
    co_await server.close();
    co_await reporter.stop();
    co_await management.stop();
    (void)co_await engine.stop();
  }
  void restart() {
    world_.crash(node_, sim::CrashKind::kProcessKilled);
    world_.restart(node_);
    await([&] { return is_ready_; });
  }
  // The state directory has `to` instead of `from` then.
  void restart_with_pools(const std::string& from, const std::string& to) {
    std::string pools = **files_.read("pools.json");
    ASSERT_NE(pools.find(from), std::string::npos) << pools;
    pools.replace(pools.find(from), from.size(), to);
    world_.crash(node_, sim::CrashKind::kProcessKilled);
    bool is_written = false;
    world_.spawn(first_, 0, write(pools, is_written));
    await([&] { return is_written; });
    world_.restart(node_);
    await([&] { return is_ready_; });
  }
  template <typename Predicate>
  void await(Predicate predicate) {
    ASSERT_EQ(world_.run_until(predicate, seconds(60)), sim::RunResult::kDone) << world_.report();
  }

  // Asks, from another node. The answer's words; "": done.
  template <typename Request>
  std::string tell(const char* method, Request request, uint64_t leader = 1) {
    request.mutable_leader()->set_number(leader);
    Outcome<v1::Done> answer = problem(Code::kInternal, "no answer at all");
    bool is_done = false;
    world_.spawn(first_, 0, ask<v1::Done>(method, std::move(request), answer, is_done));
    EXPECT_EQ(world_.run_until([&] { return is_done; }, seconds(60)), sim::RunResult::kDone);
    return answer ? "" : to_string(answer.error());
  }
  // The same, and does not wait for the answer, which is in answers_ then.
  template <typename Request>
  void begin(const char* method, Request request) {
    request.mutable_leader()->set_number(1);
    world_.spawn(first_, 0, ask_aside(method, std::move(request)));
  }
  v1::NodeState state() {
    Outcome<v1::NodeState> answer = problem(Code::kInternal, "no answer at all");
    bool is_done = false;
    world_.spawn(first_, 0, ask<v1::NodeState>("GetState", v1::GetStateRequest(), answer, is_done));
    EXPECT_EQ(world_.run_until([&] { return is_done; }, seconds(60)), sim::RunResult::kDone);
    EXPECT_TRUE(answer.has_value()) << to_string(answer.error());
    return answer.value_or(v1::NodeState());
  }
  v1::VolumeState::Role role() {
    const v1::NodeState now = state();
    return now.volumes().empty() ? v1::VolumeState::STOPPED : now.volumes(0).role();
  }

  template <typename Reply, typename Request>
  Task<void> ask(std::string method, Request request, Outcome<Reply>& answer, bool& is_done) {
    const std::unique_ptr<rpc::Dialer> dialer = rpc_.dialer(first_);
    const std::unique_ptr<rpc::Channel> channel = dialer->dial(kEngineAddress);
    answer =
        co_await rpc::call<Reply>(*channel, "/fairlead.engine.v1.Engine/" + method, std::move(request), seconds(20));
    is_done = true;
  }
  Task<void> write(std::string pools, bool& is_done) {
    EXPECT_TRUE(co_await files_.replace("pools.json", std::move(pools)));
    is_done = true;
  }
  Task<void> forget_seen(bool& is_done) {
    auto directory = co_await StateDirectory::open(node_.shard(0), files_);
    const auto forgotten = co_await (*directory)->forget_seen((*directory)->seen().at(0).pool);
    EXPECT_TRUE(forgotten && *forgotten);
    is_done = true;
  }
  template <typename Request>
  Task<void> ask_aside(std::string method, Request request) {
    Outcome<v1::Done> answer = problem(Code::kInternal, "no answer at all");
    bool is_done = false;
    co_await ask(std::move(method), std::move(request), answer, is_done);
    answers_.push_back(answer ? "" : to_string(answer.error()));
  }

  static v1::CreatePoolRequest pool(const char* name = "tank", const char* disk = "/pool/a") {
    v1::CreatePoolRequest request;
    request.set_name(name);
    request.add_disks(disk);
    request.set_file_size_bytes(kFileBytes);
    (*request.mutable_labels())["media"] = "ssd";
    return request;
  }
  // Of volume `volume`, which begins with it and with others that are nowhere.
  static v1::CreateReplicaRequest replica(uint8_t volume, uint8_t id, std::vector<uint8_t> others = {}) {
    v1::CreateReplicaRequest request;
    request.set_id(id_of(id));
    request.set_volume(id_of(volume));
    request.set_pool("tank");
    request.set_size_bytes(kSize);
    request.add_members(id_of(id));
    for (const uint8_t other : others) request.add_members(id_of(other));
    (*request.mutable_annotations())["name"] = "db";
    return request;
  }
  static v1::OpenVolumeRequest open(uint8_t volume, uint8_t id) {
    v1::OpenVolumeRequest request;
    request.set_id(id_of(volume));
    request.set_size_bytes(kSize);
    request.add_places()->set_replica(id_of(id));
    return request;
  }
  static v1::VolumeRequest volume(uint8_t number) {
    v1::VolumeRequest request;
    request.set_id(id_of(number));
    return request;
  }
  static v1::DeleteReplicaRequest deletion(uint8_t id) {
    v1::DeleteReplicaRequest request;
    request.set_id(id_of(id));
    return request;
  }

  test::SimRpc rpc_;
  MemoryFiles files_;
  bool is_ready_ = false;
  std::vector<std::string> answers_;
  sim::SimWorld world_{1, sim::SimSettings::calm()};
  sim::SimNode& node_ = world_.add_node("10.0.0.1", {.shards = 2, .more_addresses = {}});
  sim::SimNode& first_ = world_.add_node("10.0.0.2");
  sim::SimNode& second_ = world_.add_node("10.0.0.3");
  std::array<Control, 2> controls_{Control(first_), Control(second_)};
};

TEST_F(ManagementTest, PoolsAreMadeOnceAndFoundAgain) {
  EXPECT_EQ(tell("CreatePool", pool()), "");
  EXPECT_EQ(tell("CreatePool", pool()), "") << "it is there";
  EXPECT_THAT(tell("CreatePool", pool("tank", "/pool/b")), HasSubstr("pool tank is there already, on /pool/a"));
  EXPECT_THAT(tell("CreatePool", pool("other", "/pool/a")), HasSubstr("/pool/a is in use"));
  ASSERT_EQ(state().pools().size(), 1);
  const std::string node_id = state().node_id();
  const std::string run_id = state().run_id();
  const uint64_t capacity = state().pools(0).capacity_bytes();
  EXPECT_GT(capacity, 0U);
  EXPECT_EQ(state().pools(0).labels().at("media"), "ssd");

  restart();
  ASSERT_EQ(state().pools().size(), 1);
  EXPECT_EQ(state().pools(0).trouble(), "");
  EXPECT_EQ(state().pools(0).capacity_bytes(), capacity);
  EXPECT_EQ(state().pools(0).labels().at("media"), "ssd");
  EXPECT_EQ(state().node_id(), node_id);
  EXPECT_NE(state().run_id(), run_id);

  v1::GrowPoolRequest grow;
  grow.set_name("tank");
  grow.add_disks("/pool/a");
  grow.add_disks("/pool/c");
  EXPECT_THAT(tell("GrowPool", grow), HasSubstr("/pool/c does not exist"));
  grow.set_file_size_bytes(kFileBytes);
  EXPECT_EQ(tell("GrowPool", grow), "");
  EXPECT_EQ(tell("GrowPool", grow), "");
  EXPECT_GT(state().pools(0).capacity_bytes(), capacity * 3 / 2);
  EXPECT_EQ(state().pools(0).disks().size(), 2);
  restart();
  EXPECT_EQ(state().pools(0).trouble(), "");
  EXPECT_GT(state().pools(0).capacity_bytes(), capacity * 3 / 2);

  EXPECT_EQ(tell("CreateReplica", replica(1, 10)), "");
  v1::DestroyPoolRequest destroy;
  destroy.set_name("tank");
  EXPECT_THAT(tell("DestroyPool", destroy), HasSubstr("pool tank holds 1 replicas and snapshots: delete them first"));
  EXPECT_EQ(tell("DeleteReplica", deletion(10)), "");
  EXPECT_EQ(tell("DestroyPool", destroy), "");
  EXPECT_EQ(tell("DestroyPool", destroy), "");
  EXPECT_TRUE(state().pools().empty());
  EXPECT_EQ(tell("CreatePool", pool("other", "/pool/a")), "") << "its disks are free";
}

// As if somebody had put the disks of one pool where another's were.
TEST_F(ManagementTest, APoolWhoseDisksHoldAnotherIsNotDestroyed) {
  EXPECT_EQ(tell("CreatePool", pool("other", "/pool/b")), "");
  restart_with_pools("\"other\"", "\"gone\"");
  world_.allow_error("engine.pool_not_imported");
  ASSERT_EQ(state().pools().size(), 1);
  EXPECT_EQ(state().pools(0).name(), "gone");
  EXPECT_THAT(state().pools(0).trouble(), HasSubstr("its disks hold pool other"));
  v1::DestroyPoolRequest destroy;
  destroy.set_name("gone");
  EXPECT_THAT(tell("DestroyPool", destroy), HasSubstr("hold pool other"));
  restart_with_pools("\"gone\"", "\"other\"");
  EXPECT_EQ(state().pools(0).trouble(), "") << "it is there still";
}

TEST_F(ManagementTest, APoolThatCannotBeImportedIsReported) {
  EXPECT_EQ(tell("CreatePool", pool()), "");
  EXPECT_EQ(tell("CreatePool", pool("away", "/pool/b")), "");
  EXPECT_EQ(tell("CreateReplica", replica(1, 10)), "");
  // As if somebody had pulled a disk out.
  restart_with_pools("/pool/b", "/pool/x");
  const v1::NodeState now = state();
  ASSERT_EQ(now.pools().size(), 2);
  EXPECT_EQ(now.pools(0).name(), "tank");
  EXPECT_EQ(now.pools(0).trouble(), "");
  EXPECT_EQ(now.pools(1).name(), "away");
  EXPECT_THAT(now.pools(1).trouble(), HasSubstr("/pool/x does not exist"));
  EXPECT_EQ(now.replicas().size(), 1) << "the other serves";
  world_.allow_error("engine.pool_not_imported");

  v1::ImportPoolRequest import;
  import.add_disks("/pool/b");
  EXPECT_EQ(tell("ImportPool", import), "") << "it has another path now";
  EXPECT_EQ(tell("ImportPool", import), "");
  ASSERT_EQ(state().pools().size(), 2);
  for (const v1::PoolState& each : state().pools()) EXPECT_EQ(each.trouble(), "");
  restart();
  for (const v1::PoolState& each : state().pools()) EXPECT_EQ(each.trouble(), "");
}

// As a machine that is rolled back to a snapshot of its disk: replicas would count that lack what was acknowledged.
TEST_F(ManagementTest, AnOlderStateOfAPoolIsNotTaken) {
  EXPECT_EQ(tell("CreatePool", pool()), "");
  world_.run_for(seconds(20));
  const sim::DiskContent older = world_.find_disk(node_, "/pool/a")->content();
  EXPECT_EQ(tell("CreateReplica", replica(1, 10)), "");
  world_.run_for(seconds(20));
  const auto swap = [&](const sim::DiskContent& content) {
    world_.crash(node_, sim::CrashKind::kProcessKilled);
    const sim::DiskContent before = world_.find_disk(node_, "/pool/a")->content();
    world_.find_disk(node_, "/pool/a")->replace(content);
    world_.restart(node_);
    await([&] { return is_ready_; });
    return before;
  };
  const sim::DiskContent newer = swap(older);
  world_.allow_error("engine.pool_not_imported");
  EXPECT_THAT(state().pools(0).trouble(), HasSubstr("an older state than it was seen in"));
  v1::ImportPoolRequest import;
  import.add_disks("/pool/a");
  EXPECT_THAT(tell("ImportPool", import), HasSubstr("an older state"));
  v1::DestroyPoolRequest destroy;
  destroy.set_name("tank");
  EXPECT_THAT(tell("DestroyPool", destroy), HasSubstr("an older state"));
  swap(newer);
  EXPECT_EQ(state().pools(0).trouble(), "");
  EXPECT_EQ(state().replicas().size(), 1);

  // Somebody wants it so.
  (void)swap(older);
  std::string pools = **files_.read("pools.json");
  EXPECT_THAT(pools, HasSubstr("\"seen\""));
  bool is_forgotten = false;
  world_.spawn(node_, 0, forget_seen(is_forgotten));
  await([&] { return is_forgotten; });
  restart();
  EXPECT_EQ(state().pools(0).trouble(), "");
  EXPECT_TRUE(state().replicas().empty());
}

TEST_F(ManagementTest, ALeaderThatWasFollowedIsRefused) {
  EXPECT_EQ(tell("CreatePool", pool(), 5), "");
  EXPECT_THAT(tell("CreateReplica", replica(1, 10), 4), HasSubstr("leader 4 was followed by leader 5"));
  restart();
  EXPECT_THAT(tell("CreateReplica", replica(1, 10), 4), HasSubstr("leader 4 was followed by leader 5"));
  EXPECT_TRUE(state().replicas().empty());
  EXPECT_EQ(tell("CreateReplica", replica(1, 10), 5), "");
  EXPECT_EQ(tell("DeleteReplica", deletion(10), 6), "");
  EXPECT_THAT(tell("CreateReplica", replica(1, 10), 5), HasSubstr("leader 5 was followed by leader 6"));
}

TEST_F(ManagementTest, AVolumeFromItsBeginningToItsEnd) {
  EXPECT_EQ(tell("CreatePool", pool()), "");
  for (int i = 0; i < 2; ++i) EXPECT_EQ(tell("CreateReplica", replica(1, 10)), "");
  EXPECT_THAT(tell("CreateReplica", replica(2, 10)), HasSubstr("is there already, of volume " + id_of(1)));
  EXPECT_THAT(tell("ServeVolume", volume(1)), HasSubstr("no such volume is open"));
  for (int i = 0; i < 2; ++i) EXPECT_EQ(tell("OpenVolume", open(1, 10)), "");
  EXPECT_EQ(role(), v1::VolumeState::STANDING_BY);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(tell("ServeVolume", volume(1)), "");
  await([&] { return role() == v1::VolumeState::SERVING; });
  v1::NodeState now = state();
  EXPECT_EQ(now.replicas(0).session().number(), now.volumes(0).term().number());
  EXPECT_EQ(now.replicas(0).annotations().at("name"), "db");
  EXPECT_EQ(now.volumes(0).record().members().size(), 1);
  EXPECT_EQ(now.volumes(0).places(0).replica(), id_of(10));
  EXPECT_EQ(now.volumes(0).resync_share(), 0U);
  v1::OpenVolumeRequest modest = open(1, 10);
  modest.set_resync_share(20);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(tell("OpenVolume", modest), "");
  EXPECT_EQ(state().volumes(0).resync_share(), 20U);
  EXPECT_EQ(role(), v1::VolumeState::SERVING);

  v1::SnapshotRequest snapshot;
  snapshot.set_volume(id_of(1));
  snapshot.set_snapshot(id_of(40));
  for (int i = 0; i < 2; ++i) EXPECT_EQ(tell("TakeSnapshot", snapshot), "");
  EXPECT_EQ(state().volumes(0).snapshots().size(), 1);
  v1::CreateReplicaRequest clone = replica(2, 11);
  clone.set_size_bytes(0);
  clone.set_origin_replica(id_of(10));
  EXPECT_THAT(tell("CreateReplica", clone), HasSubstr("a clone names both"));
  clone.set_origin_snapshot(id_of(40));
  for (int i = 0; i < 2; ++i) EXPECT_EQ(tell("CreateReplica", clone), "");
  for (int i = 0; i < 2; ++i) EXPECT_EQ(tell("DeleteSnapshot", snapshot), "");
  v1::GrowVolumeRequest grow;
  grow.set_id(id_of(1));
  grow.set_size_bytes(2 * kSize);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(tell("GrowVolume", grow), "");
  EXPECT_EQ(state().volumes(0).size_bytes(), 2 * kSize);
  v1::SetAnnotationsRequest note;
  note.set_replica(id_of(10));
  (*note.mutable_annotations())["name"] = "other";
  EXPECT_EQ(tell("SetAnnotations", note), "");

  EXPECT_THAT(tell("DeleteReplica", deletion(10)), HasSubstr("a volume that is open here has it: close that first"));
  for (int i = 0; i < 2; ++i) EXPECT_EQ(tell("StandBy", volume(1)), "");
  EXPECT_EQ(role(), v1::VolumeState::STANDING_BY);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(tell("CloseVolume", volume(1)), "");
  restart();
  now = state();
  ASSERT_EQ(now.replicas().size(), 2);
  EXPECT_EQ(now.replicas(0).annotations().at("name"), "other");
  EXPECT_EQ(now.replicas(0).size_bytes(), 2 * kSize);
  EXPECT_TRUE(now.volumes().empty()) << "it waits to be told";
  for (int i = 0; i < 2; ++i) EXPECT_EQ(tell("DeleteReplica", deletion(10)), "");
  EXPECT_EQ(tell("DeleteReplica", deletion(11)), "");
  EXPECT_EQ(state().pools(0).promised_bytes(), 0U);
}

TEST_F(ManagementTest, WhatCannotBeIsSaidInASentence) {
  EXPECT_THAT(tell("CreatePool", pool("a b")), HasSubstr("\"a b\" is no name of a pool"));
  EXPECT_THAT(tell("CreatePool", pool("tank", "relative")), HasSubstr("disk \"relative\": give an absolute path"));
  v1::CreatePoolRequest odd = pool();
  odd.set_file_size_bytes(5000);
  EXPECT_THAT(tell("CreatePool", odd), HasSubstr("file_size_bytes is 5000: give a multiple of 4 KiB"));
  odd.clear_disks();
  odd.set_file_size_bytes(0);
  EXPECT_THAT(tell("CreatePool", odd), HasSubstr("a pool has one disk or more"));
  EXPECT_THAT(tell("CreateReplica", replica(1, 10)), HasSubstr("the engine has no pool tank"));
  v1::CreateReplicaRequest bad = replica(1, 10);
  bad.set_size_bytes(1000);
  EXPECT_THAT(tell("CreateReplica", bad), HasSubstr("a replica cannot have 1000 bytes: give a multiple of 4 KiB"));
  bad.set_id("db");
  EXPECT_THAT(tell("CreateReplica", bad), HasSubstr("\"db\" is no id of a replica"));
  v1::OpenVolumeRequest nowhere = open(1, 10);
  nowhere.mutable_places(0)->set_address("somewhere");
  EXPECT_THAT(tell("OpenVolume", nowhere), HasSubstr("the address \"somewhere\""));
  nowhere.clear_places();
  EXPECT_THAT(tell("OpenVolume", nowhere), HasSubstr("has 0 replicas"));
  v1::OpenVolumeRequest greedy = open(1, 10);
  greedy.set_resync_share(101);
  EXPECT_THAT(tell("OpenVolume", greedy), HasSubstr("a share of 101 percent"));
  v1::SnapshotRequest slow;
  slow.set_volume(id_of(1));
  slow.set_snapshot(id_of(2));
  slow.set_limit_ms(3'600'000);
  EXPECT_THAT(tell("TakeSnapshot", slow), HasSubstr("limit_ms is 3600000"));
}

// A snapshot that waits for a volume that cannot be served keeps nobody waiting.
TEST_F(ManagementTest, WhatTakesLongKeepsNobodyWaiting) {
  EXPECT_EQ(tell("CreatePool", pool()), "");
  EXPECT_EQ(tell("CreateReplica", replica(1, 10, {11, 12})), "");  // of three members two are nowhere
  EXPECT_EQ(tell("CreateReplica", replica(2, 20)), "");
  v1::OpenVolumeRequest three = open(1, 10);
  for (const uint8_t other : {uint8_t{11}, uint8_t{12}}) {
    v1::ReplicaPlace& place = *three.add_places();
    place.set_replica(id_of(other));
    place.set_address("10.0.0.99:4420");
  }
  EXPECT_EQ(tell("OpenVolume", three), "");
  EXPECT_EQ(tell("ServeVolume", volume(1)), "");
  await([&] { return role() == v1::VolumeState::SUSPENDED; });
  v1::SnapshotRequest snapshot;
  snapshot.set_volume(id_of(1));
  snapshot.set_snapshot(id_of(40));
  snapshot.set_limit_ms(15'000);
  begin("TakeSnapshot", snapshot);
  const Instant began = world_.now();
  EXPECT_EQ(tell("OpenVolume", open(2, 20)), "");
  EXPECT_EQ(tell("ServeVolume", volume(2)), "");
  EXPECT_EQ(tell("DeleteReplica", deletion(30)), "");
  EXPECT_TRUE(answers_.empty());
  EXPECT_EQ(tell("CloseVolume", volume(1)), "");
  EXPECT_LT(world_.now() - began, seconds(10));
  await([&] { return !answers_.empty(); });
  EXPECT_THAT(answers_.front(), HasSubstr("the volume is given up"));
}

TEST_F(ManagementTest, LostAnswersChangeNothing) {
  rpc_.set({.lost_requests = 20, .lost_replies = 30});
  const auto insist = [&](const char* method, const auto& request) {
    std::string answer;
    for (int i = 0; i < 20; ++i) {
      answer = tell(method, request);
      if (answer != std::string(kEngineAddress) + " does not answer") break;
    }
    EXPECT_EQ(answer, "") << method;
  };
  insist("CreatePool", pool());
  insist("CreateReplica", replica(1, 10));
  insist("OpenVolume", open(1, 10));
  insist("ServeVolume", volume(1));
  insist("StandBy", volume(1));
  insist("CloseVolume", volume(1));
  insist("DeleteReplica", deletion(10));
  v1::DestroyPoolRequest destroy;
  destroy.set_name("tank");
  insist("DestroyPool", destroy);
  rpc_.heal();
  EXPECT_TRUE(state().pools().empty());
}

// ---- Reports, and the witness

TEST_F(ManagementTest, ControlHearsOfChangesAtOnceAndOfLifeNowAndThen) {
  Control& leader = controls_[0];
  await([&] { return leader.state.node() == "a"; });
  EXPECT_EQ(leader.state.labels().at("rack"), "1");
  EXPECT_EQ(tell("CreatePool", pool()), "");
  EXPECT_EQ(tell("CreateReplica", replica(1, 10)), "");
  EXPECT_EQ(tell("OpenVolume", open(1, 10)), "");
  EXPECT_EQ(tell("ServeVolume", volume(1)), "");
  await([&] { return role() == v1::VolumeState::SERVING; });
  const Instant serving = world_.now();
  await([&] { return !leader.state.volumes().empty() && leader.state.volumes(0).role() == v1::VolumeState::SERVING; });
  EXPECT_LT(world_.now() - serving, milliseconds(50));
  world_.run_for(seconds(3));
  const uint64_t before = leader.reports;
  const Instant last = leader.state_at;
  world_.run_for(seconds(30));
  EXPECT_NEAR(static_cast<double>(leader.reports - before), 100, 10) << "as often as it was asked to";
  EXPECT_EQ(leader.state_at, last) << "and without the state, which is the same";
  leader.forget();
  await([&] { return leader.state_at > last; });

  // Another leads now.
  leader.leads = false;
  controls_[1].leads = true;
  await([&] { return controls_[1].state.volumes().size() == 1; });
  // Nobody can be reached for a while.
  world_.network().isolate(node_.index());
  world_.run_for(seconds(20));
  world_.heal();
  const uint64_t heard = controls_[1].reports;
  await([&] { return controls_[1].reports > heard; });
}

TEST_F(ManagementTest, ControlIsToldOfWhatChanged) {
  Control& leader = controls_[0];
  EXPECT_EQ(tell("CreatePool", pool()), "");
  for (uint8_t each = 1; each <= 3; ++each) {
    EXPECT_EQ(tell("CreateReplica", replica(each, 10 + each)), "");
    EXPECT_EQ(tell("OpenVolume", open(each, 10 + each)), "");
  }
  const auto settle = [&] { world_.run_for(seconds(6)); };
  settle();
  EXPECT_EQ(tell("CreateReplica", replica(4, 14)), "");
  settle();
  EXPECT_THAT(leader.told, ElementsAre("replica " + id_of(14)));
  EXPECT_EQ(tell("CloseVolume", volume(2)), "");
  settle();
  EXPECT_THAT(leader.told, ElementsAre("no volume " + id_of(2)));
  EXPECT_EQ(tell("DeleteReplica", deletion(12)), "");
  settle();
  EXPECT_THAT(leader.told, ElementsAre("no replica " + id_of(12)));

  const v1::NodeState now = state();
  EXPECT_EQ(texts(leader.state.replicas()), texts(now.replicas()));
  EXPECT_EQ(texts(leader.state.volumes()), texts(now.volumes()));
  leader.forget();
  settle();
  EXPECT_THAT(leader.told, SizeIs(5)) << "all there is, for who knows nothing";
}

// Of two members one is nowhere: the witness decides.
TEST_F(ManagementTest, ControlIsTheWitness) {
  EXPECT_EQ(tell("CreatePool", pool()), "");
  EXPECT_EQ(tell("CreateReplica", replica(1, 10, {11})), "");
  v1::OpenVolumeRequest two = open(1, 10);
  v1::ReplicaPlace& place = *two.add_places();
  place.set_replica(id_of(11));
  place.set_address("10.0.0.99:4420");
  EXPECT_EQ(tell("OpenVolume", two), "");
  controls_[0].leads = false;
  EXPECT_EQ(tell("ServeVolume", volume(1)), "");
  await([&] { return role() == v1::VolumeState::SUSPENDED; });
  world_.run_for(seconds(5));
  EXPECT_EQ(role(), v1::VolumeState::SUSPENDED);
  controls_[1].leads = true;
  await([&] { return role() == v1::VolumeState::SERVING; });
  EXPECT_EQ(state().volumes(0).record().members().size(), 1);
}

}  // namespace
}  // namespace fairlead::engine
