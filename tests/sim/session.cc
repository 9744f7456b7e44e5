// A client's connections, and the host that keeps to nothing. See load.h.
#include <algorithm>

#include "load.h"
#include "nvme/features.h"

namespace fairlead::sim_test {

using testing::NvmeConnection;
using testing::QueueOptions;

Task<Result<void>> Session::open(const TargetSite& site, uint64_t client) {
  QueueOptions options;
  options.subsystem_nqn = site.nqn;
  options.host_id = {static_cast<uint8_t>(client + 1), 7};
  options.keep_alive_ms = plan_.keep_alive_ms;
  options.header_digest = plan_.header_digest;
  options.data_digest = plan_.data_digest;
  options.disable_sq_flow_control = plan_.disable_flow_control;
  options.in_capsule_max = plan_.in_capsule_max;
  const SocketAddress address = site.node->address(kPort);
  admin_ = std::make_unique<NvmeConnection>(shard_);
  FL_CO_TRY_VOID(co_await admin_->open_and_connect(address, options));
  progressed();
  FL_CO_TRY(const testing::Completion enabled, co_await admin_->enable());
  if (!nvme::ControllerStatus{static_cast<uint32_t>(enabled.result)}.ready()) co_return fail(Code::kProtocol, "enable");
  const uint32_t wanted = nvme::encode_queue_counts({plan_.queues, plan_.queues});
  FL_CO_TRY(const testing::Completion counts, co_await admin_->set_features(nvme::Feature::kNumberOfQueues, wanted));
  if (!counts.ok()) co_return fail(Code::kProtocol, "queues");
  if (!plan_.write_cache) {
    FL_CO_TRY(const testing::Completion through, co_await admin_->set_features(nvme::Feature::kVolatileWriteCache, 0));
    writes_through_ = through.ok();
  }
  const uint32_t events = nvme::kAsyncEventNamespaceAttribute | nvme::kAsyncEventAnaChange;
  FL_CO_TRY([[maybe_unused]] const testing::Completion asked,
            co_await admin_->set_features(nvme::Feature::kAsyncEvents, events));
  options.controller_id = admin_->controller_id();
  options.keep_alive_ms = 0;
  for (uint16_t i = 0; i < plan_.queues; ++i) {
    options.qid = static_cast<uint16_t>(i + 1);
    options.entries = static_cast<uint16_t>(plan_.workers * 2 + 2);  // a fused pair takes two
    queues_.push_back(std::make_unique<NvmeConnection>(shard_));
    FL_CO_TRY_VOID(co_await queues_.back()->open_and_connect(address, options));
    progressed();
  }
  co_return Result<void>{};
}

Task<void> Session::close() {
  for (const auto& queue : queues_) co_await queue->close();
  if (admin_ != nullptr) co_await admin_->close();
}

void Session::cut() {
  for (const auto& queue : queues_) queue->cut();
  if (admin_ != nullptr) admin_->cut();
}

bool Session::is_lost() const {
  return admin_->is_lost() || std::ranges::any_of(queues_, [](const auto& queue) { return queue->is_lost(); });
}

size_t Session::in_flight() const {
  size_t sum = 0;
  for (const auto& queue : queues_) sum += queue->in_flight();
  return sum;
}

std::string Session::complaint() const {
  if (admin_ != nullptr && !admin_->complaint().empty()) return admin_->complaint();
  for (const auto& queue : queues_) {
    if (!queue->complaint().empty()) return queue->complaint();
  }
  return {};
}

// ---- The hostile host

namespace {

std::vector<std::byte> noise(sim::Prng& random, size_t length) {
  std::vector<std::byte> bytes(length);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.below(256));
  return bytes;
}

// A command of the right form with some fields of no sense.
nvme::SubmissionEntry odd_command(sim::Prng& random) {
  nvme::SubmissionEntry entry;
  std::vector<std::byte> bytes = noise(random, sizeof entry);
  std::memcpy(static_cast<void*>(&entry), bytes.data(), sizeof entry);
  if (random.coin()) entry.opcode = static_cast<uint8_t>(random.below(16));
  if (random.coin()) entry.nsid = 1;
  if (random.coin()) entry.flags = nvme::kFlagsSgl;
  if (random.coin()) entry.sgl = nvme::SglDescriptor::transport(static_cast<uint32_t>(random.skewed(1, 1 << 20)));
  if (random.coin()) entry.cdw12 = static_cast<uint32_t>(random.below(256));
  if (random.coin()) entry.set_slba(random.below(256));
  return entry;
}

Task<void> submit_and_forget(NvmeConnection& connection, nvme::SubmissionEntry entry, std::vector<std::byte> capsule) {
  (void)co_await connection.submit(entry, {.keep_sgl = true, .capsule = capsule});
}

// The target may never answer, which is its right.
Task<void> cut_after(NvmeConnection& connection, Duration span, CancelSource& cancel) {
  if (co_await sleep(connection.shard().reactor, span, cancel)) connection.cut();
}

Task<void> abuse(Cluster& cluster, TargetSite& site, sim::Prng& random) {
  sim::SimNode& node = cluster.hostile_node();
  Shard& shard = node.shard(0);
  NvmeConnection connection(shard);
  Scope commands(shard.reactor);
  CancelSource finished;
  commands.spawn(cut_after(connection, std::chrono::seconds(10), finished));
  const SocketAddress address = site.node->address(kPort);
  const auto pause = [&random] { return Duration(static_cast<int64_t>(random.skewed(1'000, 300'000'000))); };
  if (random.one_in(3)) {
    if (co_await connection.open_stream(address)) connection.send_raw(noise(random, random.skewed(1, 4096)));
    (void)co_await sleep(shard.reactor, pause(), node.cancel(0));
  } else {
    QueueOptions options;
    options.subsystem_nqn = random.one_in(8) ? std::string(nvme::kDiscoveryNqn) : std::string(kHostileNqn);
    options.header_digest = random.coin();
    options.data_digest = random.coin();
    options.keep_alive_ms = 1'000;
    const bool open = (co_await connection.open(address, options)).has_value();
    if (open && random.coin()) (void)co_await connection.connect();
    if (open && random.coin() && !connection.is_lost()) (void)co_await connection.enable();
    for (uint64_t count = random.below(12); count > 0 && !connection.is_lost(); --count) {
      if (random.one_in(4)) connection.pause_reading(random.coin());
      if (options.header_digest && random.one_in(8)) connection.damage_next(testing::Damage::kHeaderDigest);
      if (options.data_digest && random.one_in(8)) connection.damage_next(testing::Damage::kDataDigest);
      if (random.one_in(16)) connection.send_raw(noise(random, random.skewed(1, 256)));
      commands.spawn(submit_and_forget(connection, odd_command(random),
                                       noise(random, random.coin() ? 0 : random.skewed(1, 8192))));
      (void)co_await sleep(shard.reactor, pause(), node.cancel(0));
    }
  }
  finished.cancel();
  co_await connection.close();
  co_await commands.close();
}

Task<void> abuse_for_ever(Cluster& cluster, sim::Prng random, const bool* until, bool* done) {
  sim::SimNode& node = cluster.hostile_node();
  while (!*until && !node.stopping(0).is_set()) {
    auto& targets = cluster.targets();
    co_await abuse(cluster, *targets[random.below(targets.size())], random);
    const Duration pause(static_cast<int64_t>(random.skewed(1'000'000, 500'000'000)));
    (void)co_await sleep(node.shard(0).reactor, pause, node.cancel(0));
  }
  *done = true;
}

}  // namespace

Task<void> run_hostile(Cluster& cluster, uint64_t seed, const bool* until, bool* done) {
  return abuse_for_ever(cluster, sim::Prng(seed), until, done);
}

}  // namespace fairlead::sim_test
