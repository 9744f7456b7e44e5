// A volume that three engines may serve, and a host with a path to each: the target moves, and dies, and the host goes
// on.
#include <gtest/gtest.h>

#include "engine/test_bed.h"
#include "engine/volume.h"
#include "host/remote_device.h"
#include "host/subsystem.h"
#include "tests/support/memory_witness.h"

namespace fairlead::engine {
namespace {

using mirror::TargetStatus;
using std::chrono::milliseconds;
using std::chrono::seconds;

class Links final : public LinkFactory {
 public:
  Links(EngineBed& bed, size_t engine, const std::vector<bool>& is_left_out)
      : bed_(bed), engine_(engine), is_left_out_(is_left_out) {}
  std::vector<std::unique_ptr<mirror::ReplicaLink>> make() override {
    std::vector<std::unique_ptr<mirror::ReplicaLink>> links;
    for (size_t i = 0; i < bed_.engines.size(); ++i) {
      if (is_left_out_[i]) continue;
      if (i == engine_) {
        auto link = std::make_unique<LocalLink>(bed_.engines[i]->replica());
        link->start();
        links.push_back(std::move(link));
      } else {
        RemoteLinkOptions options = bed_.link_options(i);
        options.host.identity = host::identity_from_id(test_uuid(static_cast<uint8_t>(60 + engine_)));
        auto link = std::make_unique<RemoteLink>(bed_.engines[engine_]->shards(), options);
        link->start();
        links.push_back(std::move(link));
      }
    }
    return links;
  }

 private:
  EngineBed& bed_;
  const size_t engine_;
  const std::vector<bool>& is_left_out_;
};

// Each engine shows the volume for as long as its node is up.
class VolumeBed : public EngineBed {
 public:
  VolumeBed() : EngineBed({.engines = 3, .shards = 2, .seed = 1, .settings = sim::SimSettings::calm()}) {
    for (size_t i = 0; i < engines.size(); ++i) show(i);
  }
  void show(size_t engine) {
    world.spawn(engines[engine]->node(), 0, have_volume(*this, engine));
    EXPECT_EQ(world.run_until([&] { return volumes[engine] != nullptr; }, seconds(60)), sim::RunResult::kDone);
  }
  void serve(size_t engine) { world.spawn(engines[engine]->node(), 0, serve_on(*this, engine)); }
  void stand_by(size_t engine) { world.spawn(engines[engine]->node(), 0, stand_by_on(*this, engine)); }
  void renew(size_t engine, bool& is_done) {
    is_done = false;
    world.spawn(engines[engine]->node(), 0, renew_on(*this, engine, is_done));
  }
  bool serves(size_t engine, size_t members) const {
    if (volumes[engine] == nullptr || !volumes[engine]->is_target()) return false;
    const TargetStatus status = volumes[engine]->status();
    return status.state == TargetStatus::State::kServing && status.record.members.size() == members &&
           status.record.is_settled();
  }
  template <typename Predicate>
  void await(Predicate predicate) {
    ASSERT_EQ(world.run_until(predicate, seconds(120)), sim::RunResult::kDone) << world.report();
  }

  std::array<Volume*, 3> volumes{};
  std::vector<bool> is_left_out = std::vector<bool>(3);  // of what the links lead to

 private:
  static Task<void> have_volume(VolumeBed& bed, size_t index) {
    TestEngine& engine = *bed.engines[index];
    const TestEngine::Use use(engine);
    Links links(bed, index, bed.is_left_out);
    test::MemoryWitness witness(engine.reactor());
    witness.set_cut(test::MemoryWitness::Cut::kRequests);  // of three nobody needs it
    VolumeOptions options;
    options.mirror.volume = test_volume();
    options.mirror.size_bytes = kReplicaBytes;
    options.mirror.logical_block = kBlock;
    options.mirror.retry_max = seconds(2);
    options.nqn = volume_nqn(test_volume());
    options.ports = {0};
    mirror::CopyBudget copies(engine.reactor(), 4);
    Volume volume(engine.shards(), engine.target(), witness, links, copies, options);
    EXPECT_TRUE(co_await volume.open());
    bed.volumes[index] = &volume;
    co_await engine.node().stopping(0).wait();
    bed.volumes[index] = nullptr;
    co_await volume.close();
  }
  static Task<void> serve_on(VolumeBed& bed, size_t index) {
    bed.volumes[index]->serve();
    co_return;
  }
  static Task<void> renew_on(VolumeBed& bed, size_t index, bool& is_done) {
    co_await bed.volumes[index]->renew();
    is_done = true;
  }
  static Task<void> stand_by_on(VolumeBed& bed, size_t index) { return bed.volumes[index]->stand_by(); }
};

// Workers that write, and read back what they wrote, until told to end.
struct HostLoad {
  bool is_ending = false;
  bool is_ended = false;
  uint64_t writes = 0;
  uint64_t reads = 0;
  const host::RemoteDevice* device = nullptr;

  // Commands that went to another path, again, or not at once.
  uint64_t disturbed() const {
    const host::RemoteDevice::Statistics& statistics = device->statistics();
    return statistics.resent + statistics.held + statistics.retried;
  }

  static constexpr uint64_t kWorkers = 4;
  static constexpr uint64_t kBlocksEach = 64;

  static Task<void> run(VolumeBed& bed, HostLoad& load) {
    host::SubsystemOptions options;
    options.nqn = volume_nqn(test_volume());
    for (const auto& engine : bed.engines) options.addresses.push_back(engine->address());
    options.identity = host::identity_from_id(test_uuid(99));
    options.keep_alive = seconds(1);
    options.reconnect_max = seconds(1);
    options.quiesce = Duration(0);  // the replicas' own fences are at work
    options.no_path_timeout = seconds(60);
    host::Subsystem subsystem(bed.client_shards(), options);
    CO_ASSERT_TRUE(co_await subsystem.start());
    while (subsystem.namespaces().empty()) co_await sleep(bed.reactor(), milliseconds(1));
    auto source = subsystem.source(1);
    CO_ASSERT_TRUE(source.has_value());
    auto device = (*source)->open(bed.home());
    CO_ASSERT_TRUE(device.has_value());
    load.device = static_cast<host::RemoteDevice*>(device->get());
    Scope scope(bed.reactor());
    for (uint64_t worker = 0; worker < kWorkers; ++worker) scope.spawn(work(bed, load, **device, worker));
    co_await scope.close();
    device->reset();
    co_await subsystem.stop();
    load.is_ended = true;
  }

 private:
  static Task<void> work(VolumeBed& bed, HostLoad& load, BlockDevice& device, uint64_t worker) {
    std::vector<uint8_t> versions(kBlocksEach);
    for (uint64_t i = 0; !load.is_ending; ++i) {
      const uint64_t block = i * 7 % versions.size();
      const uint64_t first = worker * kBlocksEach * kBlock;
      const auto version = static_cast<uint8_t>(versions[block] + 1);
      const Result<void> written =
          co_await put(bed.reactor(), device, first + block * kBlock, pattern(kBlock, version));
      EXPECT_TRUE(written) << to_string(written.error());
      if (!written) break;
      versions[block] = version;
      ++load.writes;
      if (i % 16 == 0) EXPECT_TRUE(co_await block_flush(bed.reactor(), device));
      const uint64_t other = i * 13 % versions.size();
      if (versions[other] == 0) continue;
      const auto read = co_await get(bed.reactor(), device, first + other * kBlock, kBlock);
      EXPECT_TRUE(read.has_value());
      if (!read) break;
      EXPECT_EQ(*read, pattern(kBlock, versions[other]));
      ++load.reads;
    }
  }
};

TEST(VolumePathsTest, TheTargetDiesAndAnotherEngineServesItsHost) {
  VolumeBed bed;
  bed.serve(0);
  ASSERT_NO_FATAL_FAILURE(bed.await([&] { return bed.serves(0, 3); }));
  HostLoad load;
  bed.world.spawn(bed.client, 0, HostLoad::run(bed, load));
  ASSERT_NO_FATAL_FAILURE(bed.await([&] { return load.writes > 300; }));
  bed.crash(0, sim::CrashKind::kPowerLost);
  const Instant died = bed.world.now();
  bed.serve(1);
  const uint64_t before = load.writes;
  ASSERT_NO_FATAL_FAILURE(bed.await([&] { return load.writes > before; }));
  EXPECT_LT(bed.world.now() - died, seconds(2));  // virtual: a lease, a prepare, an ANA change
  ASSERT_NO_FATAL_FAILURE(bed.await([&] { return bed.serves(1, 2); }));
  bed.restart(0);
  bed.show(0);
  ASSERT_NO_FATAL_FAILURE(bed.await([&] { return bed.serves(1, 3); }));
  load.is_ending = true;
  ASSERT_NO_FATAL_FAILURE(bed.await([&] { return load.is_ended; }));
  EXPECT_GT(load.reads, 0U);
}

TEST(VolumePathsTest, APlannedMoveFailsNothing) {
  VolumeBed bed;
  bed.serve(0);
  ASSERT_NO_FATAL_FAILURE(bed.await([&] { return bed.serves(0, 3); }));
  HostLoad load;
  bed.world.spawn(bed.client, 0, HostLoad::run(bed, load));
  for (size_t move = 1; move <= 6; ++move) {
    const uint64_t before = load.writes;
    ASSERT_NO_FATAL_FAILURE(bed.await([&] { return load.writes > before + 50; }));
    bed.stand_by((move - 1) % 3);
    ASSERT_NO_FATAL_FAILURE(bed.await([&] { return !bed.volumes[(move - 1) % 3]->is_target(); }));
    bed.serve(move % 3);
    ASSERT_NO_FATAL_FAILURE(bed.await([&] { return bed.serves(move % 3, 3); }));
  }
  load.is_ending = true;
  ASSERT_NO_FATAL_FAILURE(bed.await([&] { return load.is_ended; }));
}

// The set of replicas changes again and again, under a host that is never told to go elsewhere.
TEST(VolumePathsTest, AnotherSetOfReplicasFailsNothing) {
  VolumeBed bed;
  bed.serve(0);
  ASSERT_NO_FATAL_FAILURE(bed.await([&] { return bed.serves(0, 3); }));
  HostLoad load;
  bed.world.spawn(bed.client, 0, HostLoad::run(bed, load));
  ASSERT_NO_FATAL_FAILURE(bed.await([&] { return load.writes > 50; }));
  const uint64_t disturbed = load.disturbed();
  bool is_done = true;
  for (size_t round = 0; round < 8; ++round) {
    const uint64_t before = load.writes;
    ASSERT_NO_FATAL_FAILURE(bed.await([&] { return load.writes > before + 50; }));
    const size_t left_out = round / 2 % 3;  // the target's own replica too
    const bool is_left_out = round % 2 == 0;
    const mirror::Term term = bed.volumes[0]->status().term;
    bed.is_left_out[left_out] = is_left_out;
    bed.renew(0, is_done);
    ASSERT_NO_FATAL_FAILURE(bed.await([&] { return is_done && bed.serves(0, is_left_out ? 2 : 3); }));
    EXPECT_GT(bed.volumes[0]->status().term, term);
  }
  EXPECT_EQ(load.disturbed(), disturbed) << "the host learns nothing of it";
  load.is_ending = true;
  ASSERT_NO_FATAL_FAILURE(bed.await([&] { return load.is_ended; }));
}

// It can't be served when it is told, and hosts wait for it: what they asked for is done by the target that comes then.
TEST(VolumePathsTest, WhatWaitsIsTakenOnByTheNextTarget) {
  VolumeBed bed;
  bed.serve(0);
  ASSERT_NO_FATAL_FAILURE(bed.await([&] { return bed.serves(0, 3); }));
  HostLoad load;
  bed.world.spawn(bed.client, 0, HostLoad::run(bed, load));
  ASSERT_NO_FATAL_FAILURE(bed.await([&] { return load.writes > 50; }));
  const uint64_t disturbed = load.disturbed();
  bed.crash(1, sim::CrashKind::kProcessKilled);
  bed.crash(2, sim::CrashKind::kProcessKilled);
  ASSERT_NO_FATAL_FAILURE(bed.await([&] { return bed.volumes[0]->status().state == TargetStatus::State::kSuspended; }));
  const uint64_t before = load.writes;
  bool is_done = false;
  bed.renew(0, is_done);
  ASSERT_NO_FATAL_FAILURE(bed.await([&] { return is_done; }));
  bed.world.run_for(seconds(3));
  EXPECT_LE(load.writes, before + HostLoad::kWorkers);
  EXPECT_FALSE(load.is_ended);
  bed.restart(1);
  bed.restart(2);
  ASSERT_NO_FATAL_FAILURE(bed.await([&] { return bed.serves(0, 3) && load.writes > before + 50; }));
  EXPECT_EQ(load.disturbed(), disturbed);
  load.is_ending = true;
  ASSERT_NO_FATAL_FAILURE(bed.await([&] { return load.is_ended; }));
  bed.show(1);
  bed.show(2);
}

TEST(VolumePathsTest, OneThatIsSupersededShowsItselfInaccessible) {
  VolumeBed bed;
  bed.serve(0);
  ASSERT_NO_FATAL_FAILURE(bed.await([&] { return bed.serves(0, 3); }));
  HostLoad load;
  bed.world.spawn(bed.client, 0, HostLoad::run(bed, load));
  ASSERT_NO_FATAL_FAILURE(bed.await([&] { return load.writes > 100; }));
  bed.serve(2);  // nobody told the first
  ASSERT_NO_FATAL_FAILURE(bed.await([&] { return bed.serves(2, 3) && !bed.volumes[0]->is_target(); }));
  const uint64_t before = load.writes;
  ASSERT_NO_FATAL_FAILURE(bed.await([&] { return load.writes > before + 100; }));
  load.is_ending = true;
  ASSERT_NO_FATAL_FAILURE(bed.await([&] { return load.is_ended; }));
}

}  // namespace
}  // namespace fairlead::engine
