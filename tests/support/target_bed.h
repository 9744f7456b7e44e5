// TargetBed: a target on one simulated machine, and hosts on another, for the tests of src/target and of what spans it.
//
//   Task<void> reads_zeroes(TargetBed& bed) { NvmeHost& host = co_await bed.open_host(); … }
//   TEST(Io, ReadsZeroes) { TargetBed({.seed = 7}).run(reads_zeroes); }
//
// A test body runs on the hosts' only shard. Everything that it made is closed when it ends: connections first, then
// the target, in virtual time. Then the world is asked whether any contract was broken.
#pragma once

#include <gtest/gtest.h>
#include <memory>
#include <string>
#include <vector>

#include "async/call.h"
#include "async/cancel.h"
#include "async/scope.h"
#include "block/memory.h"
#include "sim/world.h"
#include "target/target.h"
#include "tests/support/nvme_client.h"

// ASSERT_… returns, which a coroutine cannot.
#define CO_ASSERT_TRUE(...)                   \
  if (!(__VA_ARGS__)) {                       \
    ADD_FAILURE() << "not so: " #__VA_ARGS__; \
    co_return;                                \
  }                                           \
  static_assert(true, "")
#define CO_ASSERT_OK(...) CO_ASSERT_TRUE(::fairlead::testing::succeeded(__VA_ARGS__))

namespace fairlead::testing {

inline constexpr const char* kNqn = "nqn.2024-01.example.fairlead:disk";
// What code_of() says of a command whose connection was lost.
inline constexpr auto kLost = static_cast<nvme::StatusCode>(0x7fff);

inline bool succeeded(const Result<Completion>& completion) { return completion && completion->ok(); }
inline nvme::StatusCode code_of(const Result<Completion>& completion) {
  return completion ? completion->status.code : kLost;
}

struct BedOptions {
  uint64_t seed = 1;
  sim::SimSettings settings = sim::SimSettings::calm();
  size_t shards = 1;         // of the target
  size_t client_shards = 1;  // of the hosts' machine; bodies run on the first
  target::TargetOptions target = {};
  uint64_t memory_bytes = 16 * kMiB;  // of namespace 1 of the subsystem kNqn; 0: neither is made
  uint32_t block = 4096;
};

struct TargetObservation final : target::TargetObserver {
  void host_connected(const target::HostSession& session) override { connected.push_back(session); }
  void host_disconnected(const target::HostSession& session, std::string_view reason) override {
    disconnected.push_back(session);
    reasons.emplace_back(reason);
  }
  std::vector<target::HostSession> connected;
  std::vector<target::HostSession> disconnected;
  std::vector<std::string> reasons;
};

class TargetBed {
 public:
  using Body = Task<void> (*)(TargetBed&);

  explicit TargetBed(BedOptions options = {});
  ~TargetBed();
  TargetBed(const TargetBed&) = delete;
  TargetBed& operator=(const TargetBed&) = delete;

  // Runs the body to its end; a failure of the test if it has none within `limit` of virtual time.
  void run(Body body, Duration limit = std::chrono::seconds(600)) { run_task(body(*this), limit); }
  void run_task(Task<void> body, Duration limit = std::chrono::seconds(600));

  // For bodies. Calls of the target are made on its own machine: co_await bed.at_target(bed.target().…).
  target::Target& target() { return *target_; }
  template <typename T>
  Task<T> at_target(Task<T> task) {
    return call_on(reactor(), server.shard(0).reactor, std::move(task));
  }
  Reactor& reactor() { return client.shard(0).reactor; }
  Shard& shard() { return client.shard(0); }
  std::vector<Shard*> client_shards();
  Sleep sleep(Duration span) { return fairlead::sleep(reactor(), span); }
  // Owned by the bed and closed by it.
  NvmeConnection& make_connection();
  NvmeHost& make_host();
  static HostOptions io_options(uint16_t io_queues = 1);
  static QueueOptions admin_options();
  // A host of the subsystem kNqn with I/O queues.
  Task<Result<NvmeHost*>> open_host(HostOptions options = io_options());

  // Adds a subsystem, or a namespace in memory; ends the test with a failure when that does not work.
  Task<void> add_subsystem(target::SubsystemOptions options);
  Task<uint32_t> add_memory(std::string nqn, uint64_t bytes, uint32_t block, uint32_t nsid = 0);
  Task<uint32_t> add_source(std::string nqn, std::shared_ptr<BlockSource> source, uint32_t nsid = 0);

  const BedOptions options;
  TargetObservation observed;  // outlives the target
  sim::SimWorld world;
  sim::SimNode& server;
  sim::SimNode& client;
  SocketAddress address;  // of the first listener
  bool tolerates_complaints = false;

 private:
  Task<void> set_up();
  Task<void> close_hosts();
  Task<void> stop_target();
  void run_on(sim::SimNode& node, Task<void> task, Duration limit);

  std::unique_ptr<target::Target> target_;
  std::vector<std::unique_ptr<NvmeConnection>> connections_;
  std::vector<std::unique_ptr<NvmeHost>> hosts_;
};

// A world in which everything is cut up and out of order, but nothing is lost.
sim::SimSettings rough_settings(sim::Chop chop);

// Runs the body in a calm world of one shard, a rough one of two, and one of three whose streams come byte by byte.
void run_in_worlds(TargetBed::Body body, const BedOptions& options = {});

// Bytes that depend on the seed alone.
std::vector<std::byte> pattern(size_t length, uint64_t seed);

// Sets a flag when the task ends.
Task<void> note_end(Task<void> task, bool& ended);
// Keeps the completion.
Task<void> keep(Task<Result<Completion>> task, std::optional<Result<Completion>>& out);

}  // namespace fairlead::testing

namespace fairlead::nvme {
// For gtest's messages.
inline void PrintTo(StatusCode code, std::ostream* out) { *out << status_name(code); }
}  // namespace fairlead::nvme
