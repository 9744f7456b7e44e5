// For the tests of engines: simulated nodes, each with a disk, a pool on it, a replica in the pool and a target that
// offers it, which come back after crashes; and what is asked of them in a line each.
#pragma once

#include <algorithm>
#include <gtest/gtest.h>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "async/call.h"
#include "block/disk.h"
#include "engine/local_link.h"
#include "engine/remote_link.h"
#include "engine/replica.h"
#include "sim/world.h"

// As ASSERT_TRUE, in a coroutine that returns nothing.
#define CO_ASSERT_TRUE(...)                    \
  if (const bool fl_ok{__VA_ARGS__}; !fl_ok) { \
    ADD_FAILURE() << #__VA_ARGS__;             \
    co_return;                                 \
  }

namespace fairlead::engine {

inline constexpr uint64_t kReplicaBytes = 16 * kMiB;
inline constexpr uint32_t kBlock = 4096;
inline constexpr Duration kLease = std::chrono::milliseconds(500);

inline Uuid test_uuid(uint8_t number) {
  Uuid id;
  id.bytes[0] = 7;
  id.bytes[15] = number;
  return id;
}
inline Uuid test_volume() { return test_uuid(1); }

inline std::vector<std::byte> pattern(size_t bytes, uint8_t seed) {
  std::vector<std::byte> out(bytes);
  for (size_t i = 0; i < bytes; ++i) out[i] = static_cast<std::byte>(seed + i / 512 * 7 + i % 251);
  return out;
}
inline Task<Result<void>> put(Reactor& reactor, BlockDevice& device, uint64_t offset, std::vector<std::byte> bytes) {
  iovec piece{bytes.data(), bytes.size()};
  co_return co_await block_write(reactor, device, ByteOffset(offset), {&piece, 1});
}
inline Task<Result<std::vector<std::byte>>> get(Reactor& reactor, BlockDevice& device, uint64_t offset, size_t length) {
  std::vector<std::byte> bytes(length, std::byte{0xee});
  iovec piece{bytes.data(), bytes.size()};
  FL_CO_TRY_VOID(co_await block_read(reactor, device, ByteOffset(offset), {&piece, 1}));
  co_return bytes;
}
// None: it was done.
inline Task<std::optional<Code>> put_code(Reactor& reactor, BlockDevice& device, uint64_t offset,
                                          std::vector<std::byte> bytes) {
  const Result<void> done = co_await put(reactor, device, offset, std::move(bytes));
  co_return done ? std::nullopt : std::optional(done.error().code);
}

// One engine, life after life. What it has is there while is_ready().
class TestEngine {
 public:
  TestEngine(sim::SimWorld& world, sim::SimNode& node, mirror::ReplicaId id, mirror::Record first)
      : world_(world), node_(node), id_(id), first_(std::move(first)) {
    world_.create_disk(node_, "/disk", 96 * kMiB);
  }
  TestEngine(const TestEngine&) = delete;
  TestEngine& operator=(const TestEngine&) = delete;

  sim::SimNode& node() { return node_; }
  Shard& home() { return node_.shard(0); }
  Reactor& reactor() { return home().reactor; }
  std::vector<Shard*> shards() {
    std::vector<Shard*> list;
    for (size_t i = 0; i < node_.shard_count(); ++i) list.push_back(&node_.shard(i));
    return list;
  }
  const mirror::ReplicaId& id() const { return id_; }
  SocketAddress address() const { return node_.address(4420); }
  std::string name() const { return to_string(id_); }
  bool is_ready() const { return is_ready_; }
  pool::Pool& pool() { return *pool_; }
  target::Target& target() { return *target_; }
  Replica& replica() { return *replica_; }
  // What leans on the replica: it stays until that has gone.
  class Use {
   public:
    explicit Use(TestEngine& engine) : users_(engine.users_) { ++users_; }
    ~Use() { --users_; }
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

   private:
    uint32_t& users_;
  };

  // Until the node stops. Format the disk before the first.
  Task<void> live() {
    if (co_await open()) {
      is_ready_ = true;
      co_await node_.stopping(0).wait();
    }
    is_ready_ = false;
    while (users_ > 0) (void)co_await sleep(reactor(), std::chrono::milliseconds(1));
    if (replica_ != nullptr) co_await replica_->close();
    replica_.reset();
    if (target_ != nullptr) (void)co_await target_->stop();
    target_.reset();
    if (pool_ != nullptr) (void)co_await pool_->close();
    pool_.reset();
  }
  Task<void> format() {
    pool::CreateOptions options;
    options.name = "tank";
    options.extent_bytes = 256 * kKiB;
    options.journal_bytes = pool::kJournalBytesMin;
    EXPECT_TRUE((co_await pool::Pool::create(home(), disks(), options)).has_value());
    auto pool = co_await pool::Pool::import(shards(), disks(), {});
    CO_ASSERT_TRUE(pool.has_value());
    const pool::ReplicaOptions replica = {
        .name = "db", .size_bytes = kReplicaBytes, .id = id_, .volume_id = test_volume()};
    EXPECT_TRUE((co_await (*pool)->create_replica(replica)).has_value());
    pool::Changes changes;
    mirror::ReplicaState state;
    state.record = first_;
    changes.properties = {{kReplicaStateProperty, mirror::encode(state)}};
    EXPECT_TRUE(co_await (*pool)->change("db", changes));
    EXPECT_TRUE(co_await (*pool)->close());
  }

 private:
  std::vector<pool::PoolDisk> disks() {
    auto source = open_disk_source(home(), {.path = "/disk"});
    EXPECT_TRUE(source.has_value());
    return {{"/disk", *source}};
  }
  Task<bool> open() {
    auto pool = co_await pool::Pool::import(shards(), disks(), {});
    if (!pool) co_return node_.stopping(0).is_set();
    pool_ = std::move(*pool);
    target_ = std::make_unique<target::Target>(shards(), target::TargetOptions{});
    if (!co_await target_->start_listener({.bind = address(), .advertise = {}})) co_return false;
    auto replica = co_await Replica::open(shards(), *pool_, target_.get(), {.id = id_, .lease_max = kLease});
    EXPECT_TRUE(replica.has_value() || node_.stopping(0).is_set());
    if (!replica) co_return false;
    replica_ = std::move(*replica);
    co_return true;
  }

  sim::SimWorld& world_;
  sim::SimNode& node_;
  const mirror::ReplicaId id_;
  const mirror::Record first_;
  std::unique_ptr<pool::Pool> pool_;
  std::unique_ptr<target::Target> target_;
  std::unique_ptr<Replica> replica_;
  bool is_ready_ = false;
  uint32_t users_ = 0;
};

struct BedOptions {
  size_t engines = 1;
  size_t shards = 2;
  uint64_t seed = 1;
  sim::SimSettings settings = sim::SimSettings::calm();
};

// Engines, all up and ready; and a node without one, for those who use them.
class EngineBed {
 public:
  explicit EngineBed(const BedOptions& options = {})
      : world(options.seed, options.settings),
        client(world.add_node("10.0.0.100", {.shards = options.shards, .more_addresses = {}})) {
    first.at.term.number = 1;
    for (size_t i = 0; i < options.engines; ++i) first.members.add(replica_id(i));
    first.prior = first.members;
    for (size_t i = 0; i < options.engines; ++i) {
      sim::SimNode& node =
          world.add_node("10.0.0." + std::to_string(i + 1), {.shards = options.shards, .more_addresses = {}});
      engines.push_back(std::make_unique<TestEngine>(world, node, replica_id(i), first));
      TestEngine& engine = *engines.back();
      run_on(node, engine.format());
      node.run_at_boot([this, &engine](sim::SimNode& up) { world.spawn(up, 0, engine.live()); });
      await_ready(i);
    }
  }
  ~EngineBed() {
    for (const auto& engine : engines) {
      if (engine->node().is_up()) EXPECT_TRUE(world.stop(engine->node(), std::chrono::seconds(60))) << world.report();
    }
    EXPECT_EQ(world.unexplained_errors(), 0U) << world.report();
    EXPECT_EQ(world.violations(), 0U) << world.report();
  }
  static mirror::ReplicaId replica_id(size_t index) { return test_uuid(static_cast<uint8_t>(10 + index)); }

  // Runs a body on the client's home shard, or on that of an engine, to its end.
  template <typename Body, typename... Arguments>
  void run(Body body, Arguments&... arguments) {
    run_on(client, body(*this, arguments...));
  }
  template <typename Body, typename... Arguments>
  void run_at(size_t engine, Body body, Arguments&... arguments) {
    run_on(engines[engine]->node(), body(*this, arguments...));
  }
  void crash(size_t engine, sim::CrashKind kind) { world.crash(engines[engine]->node(), kind); }
  void restart(size_t engine) {
    world.restart(engines[engine]->node());
    await_ready(engine);
  }

  Shard& home() { return client.shard(0); }
  Reactor& reactor() { return home().reactor; }
  std::vector<Shard*> client_shards() {
    std::vector<Shard*> list;
    for (size_t i = 0; i < client.shard_count(); ++i) list.push_back(&client.shard(i));
    return list;
  }
  RemoteLinkOptions link_options(size_t engine = 0) {
    RemoteLinkOptions options;
    options.replica = replica_id(engine);
    options.address = engines[engine]->address();
    options.host.identity = host::identity_from_id(test_uuid(200));
    options.host.keep_alive = std::chrono::seconds(1);
    options.host.reconnect_max = std::chrono::seconds(1);
    return options;
  }

  sim::SimWorld world;
  mirror::Record first;
  sim::SimNode& client;
  std::vector<std::unique_ptr<TestEngine>> engines;

 private:
  static Task<void> run_and_tell(Task<void> body, bool& is_done) {
    co_await std::move(body);
    is_done = true;
  }
  void run_on(sim::SimNode& node, Task<void> body) {
    bool is_done = false;
    world.spawn(node, 0, run_and_tell(std::move(body), is_done));
    const sim::RunResult result = world.run_until([&] { return is_done; }, std::chrono::seconds(3600));
    // What hangs refers to this object: there is no way on from here.
    if (result != sim::RunResult::kDone) ADD_FAILURE() << sim::run_result_name(result) << '\n' << world.report();
    FL_CHECK(result == sim::RunResult::kDone);
  }
  void await_ready(size_t engine) {
    const sim::RunResult result =
        world.run_until([&] { return engines[engine]->is_ready(); }, std::chrono::seconds(60));
    EXPECT_EQ(result, sim::RunResult::kDone) << world.report();
  }
};

// ---- What a target would ask.

inline mirror::Term term(uint64_t number, uint8_t writer = 1) {
  return {.number = number, .writer = test_uuid(writer)};
}

// A session of one link: the requests that a target makes in it.
struct Session {
  mirror::ReplicaLink& link;
  mirror::Session session = {};

  Task<mirror::Reply> ask(mirror::RequestBody body) {
    mirror::Request request{.volume = test_volume(),
                            .replica = link.replica(),
                            .term = session.term,
                            .session = session.number,
                            .body = std::move(body)};
    const Result<mirror::Reply> reply = co_await link.call(std::move(request));
    co_return reply ? *reply : mirror::Reply(mirror::Failed{reply.error().code});
  }
  Task<mirror::Reply> prepare(mirror::Term of) {
    session = {.term = of, .number = 0, .boot_id = {}};
    const mirror::Reply reply = co_await ask(mirror::PrepareRequest{of});
    if (const auto* const prepared = std::get_if<mirror::Prepared>(&reply)) session = prepared->session;
    co_return reply;
  }
  // Prepared, and writes have that generation.
  Task<bool> begin(mirror::Term of, uint64_t generation) {
    if (!std::holds_alternative<mirror::Prepared>(co_await prepare(of))) co_return false;
    co_return std::holds_alternative<mirror::Done>(co_await ask(mirror::GenerationRequest{generation}));
  }
};

inline Task<bool> await_connection(Reactor& reactor, mirror::ReplicaLink& link, uint64_t not_this = 0,
                                   Duration limit = std::chrono::seconds(60)) {
  const Instant until = reactor.now() + limit;
  while ((link.connection() == 0 || link.connection() == not_this) && reactor.now() < until) {
    (void)co_await sleep(reactor, std::chrono::milliseconds(1));
  }
  co_return link.connection() != 0 && link.connection() != not_this;
}

// A device of another shard than the one that asks for it: opened, and destroyed, there.
inline Task<std::unique_ptr<BlockDevice>> open_on(mirror::ReplicaLink& link, Shard& shard) {
  auto device = link.open(shard);
  EXPECT_TRUE(device.has_value());
  co_return device ? std::move(*device) : nullptr;
}
inline Task<void> destroy_on(std::unique_ptr<BlockDevice>& device) {
  device.reset();
  co_return;
}

}  // namespace fairlead::engine
