// Management: what the control plane asks of an engine: service Engine of api/engine/v1, whatever carries it. Lives on
// the home shard.
//
// Every call may be repeated: what is done already is answered as done. Calls that change something run one at a time
// for each volume and each pool; one that takes long keeps no others waiting but those. Each names the leader that it
// comes from; after a later leader was heard of, also before the engine's last start, nobody obeys an earlier one.
//
// Life-cycle: make, start(), add_to() a service, stop(), destroy; the engine is stopped after it.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "api/engine/v1/engine.pb.h"
#include "async/cancel.h"
#include "async/event.h"
#include "async/mutex.h"
#include "async/scope.h"
#include "base/problem.h"
#include "engine/engine.h"
#include "engine/state_directory.h"
#include "rpc/service.h"

namespace fairlead::engine {

struct ManagementOptions {
  std::string node;                // its name
  std::string data_address;        // "ADDR:PORT", as hosts and other engines reach the engine
  std::string management_address;  // "ADDR:PORT", of this service
  std::string version;
  std::map<std::string, std::string> labels;
  pool::CreateOptions create;  // of pools that are made here; the name is the request's
  pool::ImportOptions import;
  // How often it is noted in the state directory how far the pools have come, when they have: disks that hold an older
  // state than the last note says are refused at the next start.
  Duration note_interval = std::chrono::seconds(10);
};

class Management {
 public:
  // `shards` are the engine's. All borrowed for life.
  Management(std::vector<Shard*> shards, Engine& engine, StateDirectory& directory, ManagementOptions options);
  ~Management();  // Requires: stop() returned.
  Management(const Management&) = delete;
  Management& operator=(const Management&) = delete;

  // Imports the pools that the state directory names. One that cannot be is reported in the state.
  Task<void> start();
  // Adds all methods of service Engine.
  void add_to(rpc::Service& service);
  // Where the service is called, once it is known.
  void set_management_address(std::string address) { options_.management_address = std::move(address); }
  // From now on changes are refused with kShuttingDown, and the state says so.
  void begin_stop();
  // Returns when nothing is under way.
  Task<void> stop();

  v1::NodeState state() const;
  // What there is to tell whoever knows the state with the sequence `known`; 0: nothing of it. The sequence is another
  // one whenever the state differs from what it was at the last call.
  v1::ReportRequest report(uint64_t known);
  // That there is nothing else to tell.
  v1::ReportRequest sign_of_life() const;
  // Told when something in the state changed that is more than a figure on the move.
  Changes& changes() { return engine_.changes(); }
  const Uuid& run_id() const { return run_id_; }
  const std::string& node() const { return options_.node; }

  // ---- Service Engine.
  Task<Outcome<v1::NodeState>> get_state(v1::GetStateRequest request);
  Task<Outcome<v1::Done>> create_pool(v1::CreatePoolRequest request);
  Task<Outcome<v1::Done>> import_pool(v1::ImportPoolRequest request);
  Task<Outcome<v1::Done>> grow_pool(v1::GrowPoolRequest request);
  Task<Outcome<v1::Done>> destroy_pool(v1::DestroyPoolRequest request);
  Task<Outcome<v1::Done>> create_replica(v1::CreateReplicaRequest request);
  Task<Outcome<v1::Done>> set_annotations(v1::SetAnnotationsRequest request);
  Task<Outcome<v1::Done>> delete_replica(v1::DeleteReplicaRequest request);
  Task<Outcome<v1::Done>> open_volume(v1::OpenVolumeRequest request);
  Task<Outcome<v1::Done>> close_volume(v1::VolumeRequest request);
  Task<Outcome<v1::Done>> serve_volume(v1::VolumeRequest request);
  Task<Outcome<v1::Done>> stand_by(v1::VolumeRequest request);
  Task<Outcome<v1::Done>> renew_term(v1::VolumeRequest request);
  Task<Outcome<v1::Done>> take_snapshot(v1::SnapshotRequest request);
  Task<Outcome<v1::Done>> hold_for_snapshot(v1::HoldForSnapshotRequest request);
  Task<Outcome<v1::Done>> take_held_snapshot(v1::SnapshotRequest request);
  Task<Outcome<v1::Done>> delete_snapshot(v1::SnapshotRequest request);
  Task<Outcome<v1::Done>> change_snapshot(v1::SnapshotRequest request,
                                          Task<Result<void>> (Engine::*change)(Uuid, Uuid, Duration));
  Task<Outcome<v1::Done>> grow_volume(v1::GrowVolumeRequest request);
  Task<Outcome<v1::Done>> force_volume(v1::ForceVolumeRequest request);

 private:
  // Counts a call that stop() waits for.
  class Entered {
   public:
    explicit Entered(Management& management) : management_(&management) { ++management.under_way_; }
    Entered(Entered&& other) noexcept : management_(std::exchange(other.management_, nullptr)) {}
    Entered& operator=(Entered&&) = delete;
    ~Entered() {
      if (management_ != nullptr && --management_->under_way_ == 0) management_->idle_.release_waiters();
    }

   private:
    Management* management_;
  };
  // The right to change one thing.
  struct Turn {
    Entered entered;
    std::shared_ptr<Mutex> mutex;  // shared with those that wait for it
    Mutex::Guard guard;
  };
  Task<Outcome<Turn>> take_turn(v1::Leader leader, std::string thing);
  Task<Outcome<void>> admit(const v1::Leader& leader);
  std::optional<ReplicaInfo> find_replica(const mirror::ReplicaId& id) const;
  Task<Outcome<v1::Done>> make_replica(NewReplica replica);

  // management_pools.cc
  using Paths = std::vector<std::string>;
  Outcome<std::vector<pool::PoolDisk>> open(const Paths& paths, uint64_t file_size_bytes);
  Task<Outcome<std::unique_ptr<pool::Pool>>> make_pool(std::string name, Paths paths, uint64_t file_size_bytes);
  Task<Outcome<std::unique_ptr<pool::Pool>>> import(Paths paths);
  Task<Outcome<void>> add(PoolRecord record, std::unique_ptr<pool::Pool> pool);
  Task<Outcome<void>> bring_in(PoolRecord record);
  Task<Outcome<void>> add_disks(PoolRecord record, Paths paths, uint64_t file_size_bytes);
  Task<Outcome<void>> destroy(PoolRecord record);
  Task<void> note_progress();
  std::string disks_of(const std::string& pool) const;

  // management_state.cc
  struct EncodedState {
    std::string head;  // all but those
    std::map<std::string, std::string> replicas;
    std::map<std::string, std::string> volumes;
    friend bool operator==(const EncodedState&, const EncodedState&) = default;
  };
  static EncodedState encode(v1::NodeState& state);
  v1::PoolState describe(const pool::Pool& pool) const;
  v1::VolumeState describe(const Uuid& id, const Volume& volume, size_t controllers) const;

  const std::vector<Shard*> shards_;
  Engine& engine_;
  StateDirectory& directory_;
  ManagementOptions options_;
  const Uuid run_id_;
  std::map<std::string, std::weak_ptr<Mutex>> mutexes_;  // by what may be changed; those that are in use
  std::map<std::string, std::string> troubles_;          // of pools that are not imported, by name
  bool is_stopping_ = false;
  size_t under_way_ = 0;
  Event idle_;
  uint64_t sequence_ = 0;
  EncodedState last_;  // that was reported
  CancelSource ending_;
  Scope scope_;
};

}  // namespace fairlead::engine
