// The nodes of scenario `engines`: engines with a pool, a target and replicas each, and the control node with the
// witness. Everything lives on the one thread of the world.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/local_link.h"
#include "engine/remote_link.h"
#include "engine/replica.h"
#include "engines_plan.h"
#include "host/remote_device.h"
#include "mirror/volume_target.h"
#include "pool/check.h"
#include "scenario.h"
#include "sim/world.h"
#include "tests/support/block_history.h"
#include "tests/support/memory_witness.h"

namespace fairlead::sim_test {

// A volume as those know it who use it: what was asked for, and answered.
struct EngineVolume {
  EngineVolume(const EngineVolumePlan& p, size_t i, uint64_t seed);

  const EngineVolumePlan& plan;
  const size_t index;
  std::vector<mirror::ReplicaId> replicas;  // as plan.engines
  mirror::Record first;
  test::HistoryClock clock;
  test::BlockHistory history;
  uint64_t requests_left = 0;
  size_t working = 0;  // workers
  // Un-flushed writes may have been lost, and no member has remembered everything since.
  bool is_excused = false;

  // Of a write or, `is_zeroes`, of zeroes. Returns its number, which is its content too.
  uint64_t begin_write(test::BlockRange range, bool is_zeroes);
  void end_write(uint64_t request, const Result<void>& result, test::BlockHistory::Surely surely, bool is_durable);
  // A snapshot that somebody asked for.
  struct Taken {
    Uuid id;
    std::optional<test::BlockHistory> holds = {};  // it was taken, and may be so
    bool is_deleting = false;                      // somebody asked for that
  };
  std::vector<std::unique_ptr<Taken>> taken;  // unique_ptr: tasks refer to them

  // Whether a part of it is.
  bool is_being_written(test::BlockRange range) const;
  std::string describe_writes() const;
  // All engines at once lose power.
  void power_lost();

 private:
  struct Write {
    test::BlockRange range;
    test::Content content = 0;
    uint64_t id = 0;               // in the history
    bool was_interrupted = false;  // by a loss of power: it may have been done before
  };
  uint64_t last_id_ = 0;
  std::map<uint64_t, Write> writes_;  // under way, by request
};

class EngineHost;
class EngineNode;

// What nodes share. Owned by the run.
struct Engines {
  explicit Engines(const EnginesPlan& p);
  ~Engines();
  Engines(const Engines&) = delete;
  Engines& operator=(const Engines&) = delete;
  void fail(std::string text) {
    if (failure.empty()) failure = std::move(text);
  }
  // Of the time of all troubles, what one of its workers has for a request.
  Duration share_of(const EngineVolumePlan& volume) const {
    return plan.trouble_every * plan.troubles * static_cast<int64_t>(volume.workers) / volume.requests;
  }

  const EnginesPlan& plan;
  sim::SimWorld* world = nullptr;
  std::vector<std::unique_ptr<EngineVolume>> volumes;
  std::vector<std::unique_ptr<EngineNode>> nodes;
  std::vector<std::unique_ptr<EngineHost>> hosts;  // of the volumes that have one
  std::string failure;
  bool has_been_sick = false;  // the disks of plan.sick failed
  bool is_over = false;        // workers begin nothing
  bool is_healing = false;     // nothing fails any more
  bool is_checking = false;    // nodes that boot keep off their disks
  EngineCounts counts;
  host::RemoteDevice::Statistics statistics;  // of hosts
};
// Requests come in bursts, spread over the troubles.
Duration draw_pause(sim::Prng& random, Duration share);

// The node that has the witness. It never dies; messages to it and back may be late or lost.
class ControlNode {
 public:
  explicit ControlNode(Engines& engines);

  test::MemoryWitness& witness() { return *witness_; }
  // For good, or until it is said again.
  void set_away(bool is_away) { is_away_ = is_away; }
  void set_cut(size_t engine, bool is_cut) { is_cut_[engine] = is_cut; }
  void heal();
  sim::SimNode& node() { return node_; }

  // What an engine asks with.
  std::unique_ptr<mirror::Witness> connect(size_t engine);

 private:
  class Proxy;
  template <typename T>
  struct Message;
  bool is_reachable(size_t engine) const { return !is_away_ && !is_cut_[engine]; }
  Duration draw_delay();

  Engines& engines_;
  sim::SimNode& node_;
  std::unique_ptr<test::MemoryWitness> witness_;
  bool is_away_ = false;
  std::vector<bool> is_cut_;
};

// What is known of a replica, whether its engine is up or not.
struct ReplicaView {
  mirror::ReplicaId id;
  mirror::Record record;
  bool is_warm = false;  // it has what it was asked to write
};

// One engine, life after life.
class EngineNode {
 public:
  EngineNode(Engines& engines, ControlNode& control, size_t index);
  ~EngineNode();
  EngineNode(const EngineNode&) = delete;
  EngineNode& operator=(const EngineNode&) = delete;

  sim::SimNode& node() { return node_; }
  const EnginePlan& plan() const { return plan_; }
  SocketAddress address(size_t listener = 0) const { return node_.address(static_cast<uint16_t>(4420 + listener)); }
  bool is_up() const { return node_.is_up(); }
  bool is_ready() const { return is_ready_; }

  // Once, before run(). Sets *is_done.
  Task<void> format(bool* is_done);
  // At this boot and every later one.
  void run();

  // A target of the volume, until it is told to end or the node stops. Does nothing while the engine is not ready.
  void start_target(EngineVolume& volume, uint64_t seed);
  size_t targets() const;
  void end_targets();
  void end_a_target(size_t number);
  void end_target_of(const EngineVolume& volume);
  // Of the volume's target; none: it is not here, or is to end.
  std::optional<mirror::TargetStatus> status_of(const EngineVolume& volume) const;
  bool has_target(const EngineVolume& volume) const { return status_of(volume).has_value(); }

  std::vector<sim::SimDevice*> devices() const;
  void crash(sim::CrashKind kind);
  // Every block of a volume without a host, by the target that is here.
  Task<void> read_all(EngineVolume& volume, bool* is_done);
  // The replica's bytes, past its keeper; empty when they cannot be read.
  Task<void> read_replica(EngineVolume& volume, std::vector<std::byte>* out, bool* is_done);
  // engines_snapshots.cc. Of the target that is here; nothing when it is gone.
  Task<void> take_snapshot(EngineVolume& volume, EngineVolume::Taken& taken, Duration limit);
  // Sets *is_done when it was done, and leaves it otherwise.
  Task<void> delete_snapshot(EngineVolume& volume, Uuid id, Duration limit, bool* is_done);
  // What the replica has of snapshots, past its keeper: their ids, and bytes.
  struct FoundSnapshot {
    Uuid id;
    std::vector<std::byte> bytes;  // empty: they cannot be read
    friend bool operator==(const FoundSnapshot&, const FoundSnapshot&) = default;
  };
  Task<void> read_snapshots(EngineVolume& volume, std::vector<FoundSnapshot>* out, bool* is_done);
  Task<void> check_disks(std::optional<Result<pool::CheckReport>>* report);

  // None: it holds no replica of it.
  std::optional<ReplicaView> view(const EngineVolume& volume);

 private:
  struct Serving;
  struct Shown;
  struct Held {
    EngineVolume* volume = nullptr;
    mirror::ReplicaId id;
    std::unique_ptr<engine::Replica> replica;  // null: closed
    mirror::ReplicaState state;                // last seen
    Uuid boot_id;                              // then
    bool has_lost_power = false;               // since
  };

  std::vector<Shard*> shards();
  Reactor& reactor() { return node_.shard(0).reactor; }
  Result<std::vector<pool::PoolDisk>> disks();
  Held* find(const EngineVolume& volume);
  Task<Result<void>> tell(const EngineVolume& volume, mirror::VolumeJob job, Duration limit);
  Task<std::vector<std::byte>> read_object(std::string name, uint64_t size_bytes);
  void look_at(Held& held);
  Task<void> live();
  Task<bool> open();
  Task<void> close();
  Task<Result<void>> create();

  // engines_load.cc
  std::vector<std::unique_ptr<mirror::ReplicaLink>> make_links(const EngineVolume& volume);
  Task<bool> show(EngineVolume& volume);
  Task<void> hide_all();
  void end(Serving& serving);
  void end(Shown& shown);
  Task<void> end_shown(Shown& shown);
  Task<void> watch_shown(Shown& shown);
  Task<void> serve(std::shared_ptr<Serving> serving);
  Task<void> open_target(Serving& serving);
  static Task<void> open_device(Serving& serving, Shard& shard);
  static Task<void> close_device(Serving& serving, size_t shard);
  Task<void> watch(std::shared_ptr<Serving> serving);
  void count(mirror::Term& served, size_t& members, const mirror::TargetStatus& status);
  Task<void> work(std::shared_ptr<Serving> serving, size_t shard, uint64_t seed);

  Engines& engines_;
  ControlNode& control_;
  const size_t index_;
  const EnginePlan& plan_;
  sim::SimNode& node_;
  std::vector<std::string> paths_;
  std::vector<Held> held_;
  std::unique_ptr<pool::Pool> pool_;
  std::unique_ptr<target::Target> target_;
  std::unique_ptr<mirror::CopyBudget> copies_;  // of all volumes here
  std::vector<target::PortIndex> ports_;
  std::vector<std::shared_ptr<Serving>> servings_;  // shared with their tasks
  std::vector<std::unique_ptr<Shown>> shown_;       // volumes with a host
  bool is_ready_ = false;
  size_t users_ = 0;  // tasks that lean on the pool
};

}  // namespace fairlead::sim_test
