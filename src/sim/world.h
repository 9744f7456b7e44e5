// SimWorld: a whole cluster under a seed, on one thread, in virtual time. See docs/internals/simulation.md.
//
//   SimWorld world(seed);
//   SimNode& node = world.add_node("10.0.0.1", {.shards = 2});
//   world.create_disk(node, "/disk", 1 * kGiB);
//   world.spawn(node, 0, my_program(node));
//   ASSERT_EQ(world.run_until([&] { return done; }, std::chrono::seconds(60)), RunResult::kDone) << world.report();
//
// Life-cycle: what spawned programs refer to must outlive the world or end before; the destructor crashes the nodes
// that are up. Several worlds may be alive at once, and do not touch each other.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/fault.h"
#include "base/log.h"
#include "sim/core.h"
#include "sim/disk.h"
#include "sim/network.h"
#include "sim/node.h"

namespace fairlead::sim {

enum class RunResult : uint8_t {
  kDone,      // the predicate holds
  kTimedOut,  // the virtual time limit passed
  kIdle,      // nothing can ever happen any more
};
std::string_view run_result_name(RunResult result) noexcept;

class SimWorld final : private DeviceTable {
 public:
  // Settings drawn from the seed.
  explicit SimWorld(uint64_t seed);
  SimWorld(uint64_t seed, const SimSettings& settings);
  ~SimWorld() override;
  SimWorld(const SimWorld&) = delete;
  SimWorld& operator=(const SimWorld&) = delete;

  // ---- Building. Nodes are up at once, and live as long as the world.
  SimNode& add_node(std::string_view ip, SimNodeOptions options = {});
  SimDevice& create_disk(const SimNode& node, std::string_view path, uint64_t size_bytes, SimDiskOptions options = {});
  SimDevice* find_disk(const SimNode& node, std::string_view path) { return find_device(node.index(), path); }
  // Starts a task on a shard; it ends by itself, or after node.stopping() was set. Requires: the node is up.
  void spawn(SimNode& node, size_t shard, Task<void> task);
  // Runs `action` between two turns; it may use everything here, crash() too.
  void at(Instant when, Action<> action) { core_.at(when, std::move(action)); }
  void after(Duration span, Action<> action) { core_.after(span, std::move(action)); }

  // ---- Running.
  Instant now() const { return core_.now(); }
  // One turn of one reactor, or one event, drawn from those that are due; moves time on when none is. False: nothing
  // can ever happen any more.
  bool step();
  // Steps until `predicate()` holds; looks before each step.
  template <typename Predicate>
  RunResult run_until(Predicate predicate, Duration limit) {
    const Instant end = now() + limit;
    const Installed installed(*this);
    while (!predicate()) {
      if (now() >= end) return RunResult::kTimedOut;
      if (!step_before(end)) return RunResult::kIdle;
    }
    return RunResult::kDone;
  }
  // Lets that much virtual time pass.
  void run_for(Duration span);

  // ---- Faults.
  // The node dies at this instant. What it had under way with disk and network is decided now and nothing that it still
  // does has an effect; its operations end with kCancelled and kConnectionLost, stopping() is set, and its programs run
  // to their end in no time (its own clock runs ahead to its timers). Then its shards are destroyed. A program that
  // does not end then is a defect and aborts. Requires: the node is up and is not the one that calls.
  void crash(SimNode& node, CrashKind kind = CrashKind::kPowerLost);
  // Sets stopping() and lets the world run until the node's programs have ended, then destroys its shards. False: they
  // did not within `limit`; the node stays up.
  bool stop(SimNode& node, Duration limit);
  // Makes the shards anew and runs run_at_boot(). Requires: the node is down.
  void restart(SimNode& node);
  SimFabric& network() { return fabric_; }
  // The shard has no turn for so long, as a thread that the system does not run: its timers are late too.
  void stall(SimNode& node, size_t shard, Duration span);
  // No faults from now on: partitions lifted, rates of all disks, resets and fault points zero. Damage done stays.
  void heal();

  // ---- Chance and settings.
  uint64_t seed() const { return seed_; }
  Prng& random() { return test_random_; }  // for the test's own choices
  SimSettings& settings() { return core_.settings(); }

  // ---- Oracles.
  // Order-sensitive over everything that happened, with one more number of each generator: equal for equal seeds.
  uint64_t trace_hash() const;
  void mark(std::string_view what, uint64_t value = 0);  // the test's own events, in the hash
  Trace& trace() { return core_.trace(); }
  // Why the run failed: seed, settings, counts, the last lines of the trace.
  std::string report() const;
  // ERROR lines that nothing explains: their node had no hard disk fault before, was not dying, and their event was not
  // allowed. Any is a failure.
  uint64_t unexplained_errors() const { return unexplained_errors_; }
  void allow_error(std::string_view event) { allowed_errors_.emplace(event); }
  // Contracts of the seams that were broken, such as a buffer changed while it was being written. Any is a failure.
  uint64_t violations() const { return core_.violations(); }
  uint64_t probe_count(Probe probe) const { return probes_[static_cast<size_t>(probe)]; }
  uint64_t fault_point_count(FaultPoint point) const { return fired_[static_cast<size_t>(point)]; }
  uint64_t injected_count(SimFault fault) const { return core_.injected_count(fault); }
  uint64_t turns() const { return turns_; }

 private:
  // While it lives, fault points, probes and log lines of this thread belong to this world.
  class Installed final : FaultPlan, LogSink {
   public:
    explicit Installed(SimWorld& world) : world_(world) {}
    ~Installed() override;
    bool fires(FaultPoint point) override { return world_.draw_fault(point); }
    void write(LogLevel level, std::string_view event, std::string_view line) override;

   private:
    SimWorld& world_;
  };
  struct Candidate {
    SimNode* node = nullptr;  // null: the event queue
    size_t shard = 0;
  };

  SimDevice* find_device(uint32_t node, std::string_view path) override;
  SimDevice& make_file(uint32_t node, std::string_view path, uint64_t size_bytes) override;
  bool draw_fault(FaultPoint point);
  void on_log(LogLevel level, std::string_view event, std::string_view line);
  void boot(SimNode& node);
  bool step_before(Instant end);
  void collect_due();
  std::optional<Instant> next_instant() const;
  void run_turn(SimNode& node, size_t shard);
  bool is_drained(const SimNode& node) const;
  void drain(SimNode& node);
  void begin_stop(SimNode& node);

  const uint64_t seed_;
  SimCore core_;
  Prng schedule_random_;
  Prng fault_random_;
  Prng boot_random_;
  Prng device_random_;
  Prng test_random_;
  SimFabric fabric_;
  std::map<std::pair<uint32_t, std::string>, std::unique_ptr<SimDevice>> devices_;
  std::vector<std::unique_ptr<SimNode>> nodes_;
  std::vector<Candidate> due_;
  Place current_;
  bool dying_ = false;
  uint64_t turns_ = 0;
  uint64_t unexplained_errors_ = 0;
  std::set<std::string, std::less<>> allowed_errors_;
  std::array<uint64_t, kProbeCount> probes_{};
  std::array<uint64_t, kFaultPointCount> fired_{};
};

}  // namespace fairlead::sim
