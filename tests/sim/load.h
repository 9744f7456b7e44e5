// Load: the hosts of one run. Each client node keeps a controller of its target connected, however often it is lost,
// and drives random commands through every queue; each answer goes to the checker of the volume. One thread.
//
// A write whose connection was lost is tried again with the same bytes, or given up. The counter of a volume is one
// block that only fused compare-and-writes change, from n to n + 1: two that both set the same number were not atomic.
#pragma once

#include <memory>
#include <vector>

#include "async/scope.h"
#include "cluster.h"
#include "tests/support/nvme_client.h"

namespace fairlead::sim_test {

// One client node's connections of one try, and what its workers share.
class Session {
 public:
  Session(Shard& shard, const ClientPlan& plan) : shard_(shard), plan_(plan) {}

  // Error: any step failed.
  Task<Result<void>> open(const TargetSite& site, uint64_t client);
  Task<void> close();
  void cut();
  bool is_lost() const;
  size_t in_flight() const;
  testing::NvmeConnection& admin() { return *admin_; }
  testing::NvmeConnection& queue(size_t index) { return *queues_.at(index); }
  size_t queues() const { return queues_.size(); }
  Shard& shard() const { return shard_; }
  const ClientPlan& plan() const { return plan_; }
  // The target obeyed: writes are forced.
  bool writes_through() const { return writes_through_; }
  void progressed() { ++progress_; }
  // The event request that waits.
  void set_event_cid(uint16_t cid) { event_cid_ = cid; }
  uint16_t event_cid() const { return event_cid_; }
  uint64_t progress() const { return progress_; }
  // What a connection did not like about the target's PDUs.
  std::string complaint() const;

 private:
  Task<Result<void>> open_queue(const TargetSite& site, testing::QueueOptions options);

  Shard& shard_;
  const ClientPlan& plan_;
  std::unique_ptr<testing::NvmeConnection> admin_;
  std::vector<std::unique_ptr<testing::NvmeConnection>> queues_;
  bool writes_through_ = false;
  uint64_t progress_ = 0;
  uint16_t event_cid_ = 0;
};

struct Worker {
  uint32_t left = 0;  // commands of this round
  // A write that may or may not have happened, to be tried again.
  struct Retry {
    WriteTicket ticket;
    Volume* volume = nullptr;
    WriteKind kind = WriteKind::kData;
  };
  std::optional<Retry> retry;
};

class Client {
 public:
  Client(Cluster& cluster, size_t index, uint64_t seed);
  void start_round();
  // Connects, does the round's commands, disconnects. Ends, unfinished, with its node.
  Task<void> run(bool* done);
  // Reads every block of its target's volumes back, mends what cannot be read, and flushes. Without faults.
  Task<void> verify(TargetSite* site, bool* done);

 private:
  friend class CommandRun;
  Task<void> work(Session& session, size_t queue, Worker& worker);
  Task<void> watch(Session& session, CancelSource& cancel);
  Task<void> listen(Session& session);
  Task<void> keep_alive(Session& session, CancelSource& cancel);
  Task<void> serve_session(Session& session, CancelSource& cancel);
  Task<void> verify_volume(Session& session, Volume& volume);
  Task<void> verify_block(Session& session, Volume& volume, uint64_t lba);
  Task<void> mend(Session& session, Volume& volume, uint64_t lba);
  bool is_finished() const;

  Cluster& cluster_;
  const size_t index_;
  const ClientPlan& plan_;
  TargetSite& site_;
  sim::SimNode& node_;
  sim::Prng random_;
  std::vector<std::vector<Worker>> workers_;  // by queue
};

// A host that keeps to nothing: bytes of no sense, half of a connection, commands that never get their data, answers
// that it does not read. Until `until` is set or its node ends.
Task<void> run_hostile(Cluster& cluster, uint64_t seed, const bool* until, bool* done);

}  // namespace fairlead::sim_test
