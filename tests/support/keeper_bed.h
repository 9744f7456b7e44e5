// For the tests of keepers: one on a simulated shard, with its store and gate, and what is asked of it in a line each.
#pragma once

#include <gtest/gtest.h>
#include <memory>
#include <optional>
#include <string>

#include "async/cancel.h"
#include "mirror/keeper.h"
#include "sim/world.h"
#include "tests/support/memory_replica.h"

namespace fairlead::mirror {

using test::MemoryGate;
using test::MemoryMedium;
using test::MemoryReplicaStore;

inline constexpr Duration kLeaseMax = std::chrono::milliseconds(500);

inline Uuid uuid(uint8_t number) {
  Uuid id;
  id.bytes[15] = number;
  return id;
}
inline const Uuid kVolume = uuid(1);
inline const ReplicaId kReplica = uuid(2);
inline Term term(uint64_t number, uint8_t writer = 100) { return {.number = number, .writer = uuid(writer)}; }

// What an answer is, in a word.
inline std::string name(const std::optional<Reply>& reply) {
  if (!reply) return "nothing";
  if (std::holds_alternative<Done>(*reply)) return "done";
  if (const auto* fenced = std::get_if<Fenced>(&*reply)) return "fenced " + std::to_string(fenced->promise.number);
  if (std::holds_alternative<Prepared>(*reply)) return "prepared";
  if (std::holds_alternative<Ranges>(*reply)) return "ranges";
  return std::string(code_info(std::get<Failed>(*reply).code).name);
}

// A request under way.
struct Call {
  std::optional<Reply> reply;
  Instant at;
  std::string name() const { return mirror::name(reply); }
};

struct KeeperBed {
  KeeperBed() : KeeperBed(1, sim::SimSettings::calm()) {}
  explicit KeeperBed(uint64_t seed) : KeeperBed(seed, sim::SimSettings::drawn(seed)) {}
  KeeperBed(uint64_t seed, const sim::SimSettings& settings)
      : world(seed, settings), node(world.add_node("10.0.0.1")), medium(8 * kExtentBytes, uuid(50)) {}

  // Runs a test, Task<void>(KeeperBed&, …), to its end.
  template <typename Test, typename... Arguments>
  void run(Test test, Arguments... arguments) {
    bool is_done = false;
    world.spawn(node, 0, live(test, is_done, arguments...));
    ASSERT_EQ(world.run_until([&] { return is_done; }, std::chrono::seconds(3600)), sim::RunResult::kDone)
        << world.report();
  }
  // Has run longer than a lease already.
  template <typename Test, typename... Arguments>
  Task<void> live(Test test, bool& is_done, Arguments... arguments) {
    Scope calls(reactor());
    scope = &calls;
    start();
    co_await pass(kLeaseMax);
    co_await test(*this, arguments...);
    co_await stop();
    co_await calls.close();
    is_done = true;
  }
  void start() {
    store = std::make_unique<MemoryReplicaStore>(node.shard(0), medium);
    gate = std::make_unique<MemoryGate>(reactor());
    keeper = std::make_unique<Keeper>(node.shard(0), *store, *gate,
                                      KeeperOptions{.volume = kVolume, .replica = kReplica, .lease_max = kLeaseMax});
  }
  Task<void> stop() {
    co_await keeper->close();
    keeper.reset();
    gate.reset();
    store.reset();
  }
  enum class Boot : uint8_t { kSame, kAnother };
  // Returns at once: its first half second has not passed.
  Task<void> restart(Boot boot = Boot::kSame) {
    co_await stop();
    if (boot == Boot::kAnother) medium.boot_id = uuid(static_cast<uint8_t>(medium.boot_id.bytes[15] + 1));
    start();
  }

  Reactor& reactor() { return node.shard(0).reactor; }
  Instant now() { return node.shard(0).clock.now(); }
  Task<void> pass(Duration span) { (void)co_await sleep(reactor(), span); }
  // Until all that can happen by itself has.
  Task<void> settle() { co_await pass(std::chrono::milliseconds(1)); }

  Request request(RequestBody body) {
    return {.volume = kVolume, .replica = kReplica, .term = current, .session = number, .body = std::move(body)};
  }
  Task<Reply> ask(CallerId caller, RequestBody body) { co_return co_await keeper->handle(caller, request(body)); }
  // As the caller of the session now.
  Task<Reply> ask(RequestBody body) { co_return co_await ask(caller_now, std::move(body)); }
  // The session that is asked in from now on.
  Task<Prepared> prepare(CallerId caller, Term with) {
    const Reply reply = co_await ask(caller, PrepareRequest{with});
    const auto* prepared = std::get_if<Prepared>(&reply);
    EXPECT_NE(prepared, nullptr) << name(reply);
    if (prepared == nullptr) co_return Prepared{};
    current = with;
    number = prepared->session.number;
    caller_now = caller;
    co_return *prepared;
  }
  void begin(Call& call, CallerId caller, RequestBody body) { scope->spawn(finish(call, caller, std::move(body))); }
  Task<void> finish(Call& call, CallerId caller, RequestBody body) {
    call.reply = co_await ask(caller, std::move(body));
    call.at = now();
  }
  static Task<void> forget(Keeper& keeper, CallerId caller, bool& is_done) {
    co_await keeper.forget(caller);
    is_done = true;
  }
  Record record(uint64_t generation) {
    return {.at = {current, generation}, .members = {kReplica, uuid(3)}, .prior = {kReplica}};
  }

  sim::SimWorld world;
  sim::SimNode& node;
  MemoryMedium medium;
  std::unique_ptr<MemoryReplicaStore> store;
  std::unique_ptr<MemoryGate> gate;
  std::unique_ptr<Keeper> keeper;
  Scope* scope = nullptr;
  Term current;
  uint64_t number = 0;
  CallerId caller_now = 0;
};

}  // namespace fairlead::mirror
