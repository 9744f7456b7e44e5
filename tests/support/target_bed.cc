#include "tests/support/target_bed.h"

#include <utility>

#include "sim/prng.h"

namespace fairlead::testing {

TargetBed::TargetBed(BedOptions bed_options)
    : options(std::move(bed_options)),
      world(options.seed, options.settings),
      server(world.add_node("10.0.0.1", {.shards = options.shards, .more_addresses = {"fd00::1"}})),
      client(world.add_node("10.0.0.2", {.shards = options.client_shards, .more_addresses = {"fd00::2"}})) {
  run_on(server, set_up(), std::chrono::seconds(60));
}

TargetBed::~TargetBed() {
  run_on(client, close_hosts(), std::chrono::seconds(600));
  run_on(server, stop_target(), std::chrono::seconds(600));
  for (const auto& connection : connections_) {
    if (!tolerates_complaints) EXPECT_EQ(connection->complaint(), "");
  }
  for (const auto& host : hosts_) {
    if (!tolerates_complaints) EXPECT_EQ(host->complaint(), "");
  }
  EXPECT_EQ(world.violations(), 0U) << world.report();
  EXPECT_EQ(world.unexplained_errors(), 0U) << world.report();
}

Task<void> note_end(Task<void> task, bool& ended) {
  co_await std::move(task);
  ended = true;
}

Task<void> keep(Task<Result<Completion>> task, std::optional<Result<Completion>>& out) {
  out = co_await std::move(task);
}

void TargetBed::run_on(sim::SimNode& node, Task<void> task, Duration limit) {
  bool ended = false;
  world.spawn(node, 0, note_end(std::move(task), ended));
  const sim::RunResult result = world.run_until([&] { return ended; }, limit);
  if (result == sim::RunResult::kDone) return;
  // What hangs refers to this object: there is no way on from here.
  ADD_FAILURE() << sim::run_result_name(result) << '\n' << world.report();
  FL_CHECK(result == sim::RunResult::kDone);
}

void TargetBed::run_task(Task<void> body, Duration limit) { run_on(client, std::move(body), limit); }

Task<void> TargetBed::set_up() {
  std::vector<Shard*> shards;
  for (size_t i = 0; i < options.shards; ++i) shards.push_back(&server.shard(i));
  target_ = std::make_unique<target::Target>(std::move(shards), options.target, &observed);
  const auto listening = co_await target_->start_listener({.bind = server.address(4420), .advertise = {}});
  FL_CHECK(listening.has_value());
  address = listening->bound;
  if (options.memory_bytes == 0) co_return;
  const auto subsystem = co_await target_->add_subsystem({.nqn = kNqn, .serial = "", .allowed_hosts = {}});
  FL_CHECK(subsystem.has_value());
  auto source = make_memory_source({.size_bytes = options.memory_bytes, .logical_block = options.block});
  FL_CHECK(source.has_value());
  const auto nsid = co_await target_->add_namespace(kNqn, {.source = std::move(*source), .uuid = {}});
  FL_CHECK(nsid == 1U);
}

std::vector<Shard*> TargetBed::client_shards() {
  std::vector<Shard*> shards;
  for (size_t i = 0; i < options.client_shards; ++i) shards.push_back(&client.shard(i));
  return shards;
}

Task<void> TargetBed::close_hosts() {
  for (const auto& connection : connections_) co_await connection->close();
  for (const auto& host : hosts_) co_await host->close();
}

Task<void> TargetBed::stop_target() {
  const Result<void> stopped = co_await target_->stop();
  EXPECT_TRUE(stopped);
  EXPECT_EQ(target_->controller_count(), 0U);
  target_.reset();
}

NvmeConnection& TargetBed::make_connection() {
  return *connections_.emplace_back(std::make_unique<NvmeConnection>(shard()));
}
NvmeHost& TargetBed::make_host() { return *hosts_.emplace_back(std::make_unique<NvmeHost>(shard())); }

QueueOptions TargetBed::admin_options() {
  QueueOptions queue;
  queue.subsystem_nqn = kNqn;
  return queue;
}

HostOptions TargetBed::io_options(uint16_t io_queues) {
  return {.queue = admin_options(), .io_queues = io_queues, .io_entries = 128};
}

Task<Result<NvmeHost*>> TargetBed::open_host(HostOptions host_options) {
  NvmeHost& host = make_host();
  FL_CO_TRY_VOID(co_await host.open(address, std::move(host_options)));
  co_return &host;
}

Task<void> TargetBed::add_subsystem(target::SubsystemOptions subsystem) {
  const auto added = co_await at_target(target_->add_subsystem(std::move(subsystem)));
  FL_CHECK(added.has_value());
}

Task<uint32_t> TargetBed::add_memory(std::string nqn, uint64_t bytes, uint32_t block, uint32_t nsid) {
  auto source = make_memory_source({.size_bytes = bytes, .logical_block = block});
  FL_CHECK(source.has_value());
  return add_source(std::move(nqn), std::move(*source), nsid);
}

Task<uint32_t> TargetBed::add_source(std::string nqn, std::shared_ptr<BlockSource> source, uint32_t nsid) {
  target::NamespaceOptions wanted{.nsid = nsid, .source = std::move(source), .uuid = {}};
  const auto added = co_await at_target(target_->add_namespace(std::move(nqn), std::move(wanted)));
  FL_CHECK(added.has_value());
  co_return *added;
}

sim::SimSettings rough_settings(sim::Chop chop) {
  sim::SimSettings settings = sim::SimSettings::calm();
  settings.order = sim::Order::kRandom;
  settings.turn_cost_ns_max = 2000;
  settings.mailbox_capacity = 2;
  settings.buffers_shared_max = 0;
  settings.network.chop = chop;
  settings.network.window_min = 64;
  settings.network.window_max = 64 * kKiB;
  settings.network.spike_ppm = 1000;
  settings.network.spike_max = std::chrono::milliseconds(5);
  settings.fault_point_ppm.fill(50'000);
  return settings;
}

void run_in_worlds(TargetBed::Body body, const BedOptions& options) {
  for (uint64_t i = 0; i < 3; ++i) {
    BedOptions each = options;
    each.seed = options.seed + i;
    each.shards = i + 1;
    if (i == 1) each.settings = rough_settings(sim::Chop::kRandom);
    if (i == 2) each.settings = rough_settings(sim::Chop::kSingleBytes);
    SCOPED_TRACE("world " + std::to_string(i));
    TargetBed(each).run(body);
  }
}

std::vector<std::byte> pattern(size_t length, uint64_t seed) {
  sim::Prng random(seed);
  std::vector<std::byte> bytes(length);
  size_t at = 0;
  for (; at + 8 <= length; at += 8) {
    const uint64_t word = random.next();
    std::memcpy(bytes.data() + at, &word, 8);
  }
  for (; at < length; ++at) bytes[at] = static_cast<std::byte>(random.next());
  return bytes;
}

}  // namespace fairlead::testing
