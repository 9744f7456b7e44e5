#include "control_cluster.h"

#include <algorithm>
#include <fmt/format.h>

#include "engine/control_witness.h"
#include "engine/management.h"
#include "engine/reporter.h"
#include "engines_user.h"
#include "host/remote_device.h"

namespace fairlead::sim_test {

using sim::SimNode;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr uint16_t kDataPort = 4420;
constexpr size_t kWorkers = 3;

}  // namespace

// ---- Control

ControlProcess::ControlProcess(ControlCluster& cluster, size_t index)
    : cluster_(cluster),
      node_(cluster.world->add_node(fmt::format("10.0.2.{}", index + 1), {.shards = 1, .more_addresses = {}})),
      address_(fmt::format("10.0.2.{}:7401", index + 1)) {
  cluster.control_addresses.push_back(address_);
}

void ControlProcess::run() {
  node_.run_at_boot([this](SimNode& up) { cluster_.world->spawn(up, 0, live()); });
}

Task<void> ControlProcess::live() {
  Shard& home = node_.shard(0);
  test::MemoryStore store(home, *cluster_.store, address_);
  const std::unique_ptr<rpc::Dialer> dialer = cluster_.rpc.dialer(node_);
  control::Control control(home, store, *dialer, cluster_.settings);
  test::SimRpcServer server(cluster_.rpc, node_, address_, control.service());
  Scope scope(home.reactor);
  scope.spawn(control.run());
  control_ = &control;
  co_await node_.stopping(0).wait();
  control_ = nullptr;
  if (!node_.is_up()) store.kill();
  co_await control.stop();
  co_await server.close();
  co_await scope.close();
}

// ---- Engines

EngineProcess::EngineProcess(ControlCluster& cluster, size_t index)
    : cluster_(cluster),
      node_(cluster.world->add_node(fmt::format("10.0.0.{}", index + 1), {.shards = 1, .more_addresses = {}})),
      name_(std::string(1, static_cast<char>('a' + index))),
      management_address_(fmt::format("10.0.0.{}:7420", index + 1)) {
  cluster.engine_addresses.push_back(to_string(node_.address(kDataPort)));
}

void EngineProcess::run() {
  node_.run_at_boot([this](SimNode& up) { cluster_.world->spawn(up, 0, live()); });
}

Task<void> EngineProcess::live() {
  const std::vector<Shard*> shards = {&node_.shard(0)};
  auto directory = co_await engine::StateDirectory::open(*shards[0], files_);
  if (!directory) co_return;
  const std::unique_ptr<rpc::Dialer> dialer = cluster_.rpc.dialer(node_);
  engine::ControlClient control(*shards[0], *dialer, cluster_.control_addresses);
  engine::ControlWitness witness(control);
  engine::Engine engine(shards, (*directory)->node(), witness, cluster_.engine);
  (void)co_await engine.listen({.bind = node_.address(kDataPort), .advertise = {}});
  engine::ManagementOptions options{.node = name_,
                                    .data_address = to_string(node_.address(kDataPort)),
                                    .management_address = management_address_,
                                    .version = "1",
                                    .labels = {},
                                    .create = {},
                                    .import = {},
                                    .note_interval = milliseconds(500)};
  options.create.extent_bytes = 256 * kKiB;
  options.create.journal_bytes = pool::kJournalBytesMin;
  engine::Management management(shards, engine, **directory, options);
  rpc::Service service;
  management.add_to(service);
  test::SimRpcServer server(cluster_.rpc, node_, management_address_, service);
  engine::Reporter reporter(*shards[0], management, control);
  co_await management.start();
  reporter.start();
  if (!node_.stopping(0).is_set()) {
    engine_ = &engine;
    directory_ = directory->get();
  }
  co_await node_.stopping(0).wait();
  engine_ = nullptr;
  directory_ = nullptr;
  management.begin_stop();
  co_await server.close();
  co_await reporter.stop();
  co_await management.stop();
  (void)co_await engine.stop();
}

std::vector<Uuid> EngineProcess::replicas() const {
  std::vector<Uuid> ids;
  if (engine_ == nullptr) return ids;
  for (const engine::ReplicaInfo& replica : engine_->replicas()) ids.push_back(replica.id);
  return ids;
}

uint64_t EngineProcess::progress() const {
  return engine_ == nullptr || engine_->pools().empty() ? 0 : engine_->pools().front()->progress().batch;
}

pool::Pool* EngineProcess::pool() const {
  return engine_ == nullptr || engine_->pools().empty() ? nullptr
                                                        : engine_->find_pool(engine_->pools().front()->name());
}

uint64_t EngineProcess::noted() const {
  return directory_ == nullptr || directory_->seen().empty() ? 0 : directory_->seen().front().batch;
}

// ---- Hosts

ControlHost::ControlHost(ControlCluster& cluster, size_t index, Uuid volume, uint64_t size_bytes, uint64_t seed)
    : cluster_(cluster),
      node_(cluster.world->add_node(fmt::format("10.0.1.{}", index + 1), {.shards = 1, .more_addresses = {}})),
      volume_(volume),
      seed_(seed),
      history_(clock_, size_bytes / kBlock) {}

void ControlHost::run() { cluster_.world->spawn(node_, 0, live()); }

Task<std::unique_ptr<host::Subsystem>> connect_host(ControlCluster& cluster, SimNode& node, Uuid volume) {
  host::SubsystemOptions options;
  options.nqn = engine::volume_nqn(volume);
  options.identity = host::identity_from_id(volume);
  options.reconnect_min = milliseconds(20);
  options.reconnect_max = milliseconds(500);
  options.command_timeout = options.no_path_timeout = std::chrono::hours(24);
  for (const std::string& address : cluster.engine_addresses) {
    options.addresses.push_back(parse_socket_address(address, kDataPort).value());
  }
  Reactor& home = node.shard(0).reactor;
  while (!node.stopping(0).is_set()) {
    auto subsystem = std::make_unique<host::Subsystem>(std::vector<Shard*>{&node.shard(0)}, options);
    if (co_await subsystem->start()) {
      while (!node.stopping(0).is_set() && !subsystem->source(1)) {
        (void)co_await sleep(home, milliseconds(1), node.cancel(0));
      }
      if (!node.stopping(0).is_set()) co_return std::move(subsystem);
    }
    co_await subsystem->stop();
    (void)co_await sleep(home, milliseconds(20), node.cancel(0));
  }
  co_return nullptr;
}

Task<void> ControlHost::live() {
  Reactor& home = node_.shard(0).reactor;
  subsystem_ = co_await connect_host(cluster_, node_, volume_);
  if (subsystem_ == nullptr) co_return;
  auto device = (*subsystem_->source(1))->open(node_.shard(0));
  FL_CHECK(device.has_value());
  device_ = std::move(*device);
  Scope workers(home);
  for (size_t i = 0; i < kWorkers; ++i) workers.spawn(work(sim::mix_hash(seed_, i)));
  co_await node_.stopping(0).wait();
  co_await subsystem_->stop();
  co_await workers.close();
  device_.reset();
  subsystem_.reset();
}

Task<void> ControlHost::work(uint64_t seed) {
  sim::Prng random(seed);
  while (!cluster_.is_over && !node_.stopping(0).is_set() && cluster_.failure.empty()) {
    ++working_;
    const uint64_t count = random.skewed(1, 8);
    const test::BlockRange range{random.below(history_.blocks() - count + 1), count};
    const uint64_t what = random.below(10);
    if (what == 0) {
      co_await flush();
    } else if (what < 5) {
      (void)co_await read(range);
    } else {
      co_await write(range, what == 5);
    }
    --working_;
    (void)co_await sleep(node_.shard(0).reactor, random.between(milliseconds(1), milliseconds(60)), node_.cancel(0));
  }
}

Task<Result<void>> ControlHost::read(test::BlockRange range) {
  PlacedBytes memory(range.count * kBlock, 0);
  iovec piece{memory.bytes().data(), memory.bytes().size()};
  const uint64_t began = clock_.begin_read();
  const Result<void> done =
      co_await block_read(node_.shard(0).reactor, *device_, ByteOffset(range.first * kBlock), {&piece, 1});
  if (done) {
    ++cluster_.reads;
    const std::string wrong = history_.check_read(began, range, memory.bytes(), kBlock);
    if (!wrong.empty()) cluster_.fail(fmt::format("volume {}: {}", to_string(volume_), wrong));
  } else if (!node_.stopping(0).is_set()) {
    cluster_.fail(fmt::format("volume {}: read: {}", to_string(volume_), to_string(done.error())));
  }
  clock_.end_read(began);
  co_return done;
}

// A host keeps what it writes apart: its NVMe driver orders nothing.
Task<void> ControlHost::write(test::BlockRange range, bool is_forced) {
  const auto overlaps = [&](const test::BlockRange& other) {
    return other.first < range.end() && range.first < other.end();
  };
  if (std::ranges::any_of(writing_, overlaps)) co_return;
  writing_.push_back(range);
  const uint64_t number = ++last_write_;
  PlacedBytes memory(range.count * kBlock, 0);
  for (uint64_t i = 0; i < range.count; ++i) {
    test::fill_block(memory.bytes().subspan(i * kBlock, kBlock), range.first + i, number);
  }
  iovec piece{memory.bytes().data(), memory.bytes().size()};
  history_.begin_write(range, number, number);
  const Result<void> done = co_await block_write(node_.shard(0).reactor, *device_, ByteOffset(range.first * kBlock),
                                                 {&piece, 1}, is_forced ? Durability::kForced : Durability::kVolatile);
  if (done) {
    ++cluster_.acknowledged;
    history_.write_done(range, number, test::BlockHistory::Surely::kYes, is_forced);
  } else if (!node_.stopping(0).is_set()) {
    cluster_.fail(fmt::format("volume {}: write: {}", to_string(volume_), to_string(done.error())));
  }
  std::erase_if(writing_, [&](const test::BlockRange& each) { return each.first == range.first; });
}

Task<void> ControlHost::flush() {
  const uint64_t began = clock_.tick();
  const Result<void> done = co_await block_flush(node_.shard(0).reactor, *device_);
  if (done) {
    history_.flushed(began);
  } else if (!node_.stopping(0).is_set()) {
    cluster_.fail(fmt::format("volume {}: flush: {}", to_string(volume_), to_string(done.error())));
  }
}

Task<void> ControlHost::read_all(bool* is_done) {
  constexpr uint64_t kPiece = 16;
  for (uint64_t block = 0; block < history_.blocks() && cluster_.failure.empty(); block += kPiece) {
    (void)co_await read({block, std::min(kPiece, history_.blocks() - block)});
  }
  *is_done = true;
}

}  // namespace fairlead::sim_test
