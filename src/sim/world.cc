#include "sim/world.h"

#include <cstdio>
#include <fmt/format.h>

namespace fairlead::sim {
namespace {

constexpr uint64_t kWallStartMs = 1'767'225'600'000;  // 2026-01-01 UTC
// A program that still runs after so many turns of its own, when its node died, never ends.
constexpr uint64_t kDrainTurnsMax = 20'000'000;

Prng stream(uint64_t seed, uint64_t which) { return Prng(mix_hash(mix_hash(0x776f726c64U, seed), which)); }

}  // namespace

std::string_view run_result_name(RunResult result) noexcept {
  switch (result) {
    case RunResult::kDone:
      return "done";
    case RunResult::kTimedOut:
      return "timed_out";
    case RunResult::kIdle:
      return "idle";
  }
  return "?";
}

SimWorld::SimWorld(uint64_t seed) : SimWorld(seed, SimSettings::drawn(seed)) {}

SimWorld::SimWorld(uint64_t seed, const SimSettings& settings)
    : seed_(seed),
      core_(seed, settings),
      schedule_random_(stream(seed, 1)),
      fault_random_(stream(seed, 2)),
      boot_random_(stream(seed, 3)),
      device_random_(stream(seed, 4)),
      test_random_(stream(seed, 5)),
      fabric_(core_, stream(seed, 6)) {}

SimWorld::~SimWorld() {
  for (const std::unique_ptr<SimNode>& node : nodes_) {
    if (node->is_up()) crash(*node);
  }
}

// ---- Building

SimNode& SimWorld::add_node(std::string_view ip, SimNodeOptions options) {
  FL_CHECK(options.shards > 0);
  std::vector<SocketAddress> addresses;
  const Result<SocketAddress> first = parse_socket_address(ip, 0);
  FL_CHECK(first.has_value());
  addresses.push_back(*first);
  for (const std::string& more : options.more_addresses) {
    const Result<SocketAddress> address = parse_socket_address(more, 0);
    FL_CHECK(address.has_value());
    addresses.push_back(*address);
  }
  const auto index = static_cast<uint32_t>(nodes_.size());
  fabric_.add_host(index, addresses);
  nodes_.push_back(std::unique_ptr<SimNode>(new SimNode(index, std::move(options), std::move(addresses))));
  const Installed installed(*this);
  boot(*nodes_.back());
  return *nodes_.back();
}

SimDevice& SimWorld::create_disk(const SimNode& node, std::string_view path, uint64_t size_bytes,
                                 SimDiskOptions options) {
  auto device = std::make_unique<SimDevice>(core_, static_cast<uint32_t>(devices_.size()), node.index(), size_bytes,
                                            std::move(options), device_random_.fork());
  const auto [at, is_new] = devices_.emplace(std::pair(node.index(), std::string(path)), std::move(device));
  FL_CHECK(is_new);
  return *at->second;
}

SimDevice* SimWorld::find_device(uint32_t node, std::string_view path) {
  const auto at = devices_.find({node, std::string(path)});
  return at == devices_.end() ? nullptr : at->second.get();
}

SimDevice& SimWorld::make_file(uint32_t node, std::string_view path, uint64_t size_bytes) {
  const SimDiskOptions options;
  return create_disk(*nodes_.at(node), path, align_up(size_bytes, options.logical_block), options);
}

void SimWorld::spawn(SimNode& node, size_t shard, Task<void> task) { node.at(shard).scope().spawn(std::move(task)); }

void SimWorld::boot(SimNode& node) {
  FL_CHECK(node.shards_.empty());
  const auto drift_max = static_cast<uint64_t>(core_.settings().clock_drift_ppm_max);
  node.clock_.drift_ppm =
      static_cast<int64_t>(boot_random_.between(0, 2 * drift_max)) - static_cast<int64_t>(drift_max);
  node.clock_.offset_ns = static_cast<int64_t>(boot_random_.between(1'000'000'000, 1'000'000'000'000)) - core_.now().ns;
  node.clock_.wall_offset_ms = kWallStartMs + boot_random_.below(2'000);
  const uint64_t kernel = mix_hash(mix_hash(seed_, node.index()), node.power_losses_);
  node.boot_ = std::make_shared<Boot>(
      Boot{.node = node.index(), .number = ++node.boots_, .kernel = uuid_from_random(kernel, mix_hash(kernel, 1))});
  core_.record({.kind = TraceKind::kBoot, .place = {.node = node.index()}, .a = node.boots_});
  for (size_t i = 0; i < node.options_.shards; ++i) {
    node.shards_.push_back(std::make_unique<SimShard>(core_, static_cast<DeviceTable&>(*this), fabric_, node.clock_,
                                                      node.boot_, ShardId(static_cast<uint16_t>(i)), boot_random_));
  }
  fabric_.booted(node.index());
  for (Action<SimNode&>& action : node.at_boot_) action(node);
}

// ---- Running

void SimWorld::collect_due() {
  due_.clear();
  const Instant now = core_.now();
  if (const std::optional<Instant> event = core_.next_event(); event && *event <= now) due_.push_back({});
  for (const std::unique_ptr<SimNode>& node : nodes_) {
    if (!node->is_up()) continue;
    const Instant local = node->clock_.local(now);
    for (size_t i = 0; i < node->shards_.size(); ++i) {
      if (node->shards_[i]->stalled_until() > now) continue;
      Reactor& reactor = node->shards_[i]->reactor();
      reactor.set_now(local);
      reactor.expire_timers();
      if (reactor.has_ready() || reactor.has_mail()) due_.push_back({node.get(), i});
    }
  }
}

std::optional<Instant> SimWorld::next_instant() const {
  std::optional<Instant> next = core_.next_event();
  for (const std::unique_ptr<SimNode>& node : nodes_) {
    if (!node->is_up()) continue;
    for (const std::unique_ptr<SimShard>& shard : node->shards_) {
      const std::optional<Instant> deadline = shard->reactor().next_deadline();
      // What has no turn now may be ready when its stall ends.
      const bool is_stalled = shard->stalled_until() > core_.now();
      if (!deadline && !is_stalled) continue;
      const Instant at = is_stalled ? shard->stalled_until() : node->clock_.world(*deadline);
      if (!next || at < *next) next = at;
    }
  }
  return next;
}

bool SimWorld::step_before(Instant end) {
  collect_due();
  if (due_.empty()) {
    const std::optional<Instant> next = next_instant();
    if (!next) return false;
    core_.advance_to(std::max(core_.now(), std::min(*next, end)));
    return true;
  }
  const Candidate chosen = due_[due_.size() > 1 ? schedule_random_.below(due_.size()) : 0];
  if (chosen.node == nullptr) {
    core_.run_next_event();
  } else {
    run_turn(*chosen.node, chosen.shard);
    core_.advance_to(core_.now() + Duration(schedule_random_.between(1, core_.settings().turn_cost_ns_max)));
  }
  return true;
}

bool SimWorld::step() {
  const Installed installed(*this);
  return step_before(Instant{INT64_MAX});
}

void SimWorld::run_for(Duration span) {
  const Instant end = now() + span;
  const Installed installed(*this);
  while (now() < end) {
    if (!step_before(end)) core_.advance_to(end);
  }
}

void SimWorld::run_turn(SimNode& node, size_t shard) {
  const Place outer = std::exchange(current_, Place{node.index(), static_cast<uint32_t>(shard)});
  ++turns_;
  core_.record({.kind = TraceKind::kTurn, .place = current_});
  node.at(shard).reactor().run_ready(1);
  current_ = outer;
}

// ---- Death and life

void SimWorld::begin_stop(SimNode& node) {
  for (const std::unique_ptr<SimShard>& shard : node.shards_) {
    shard->stopping().set();
    shard->cancel().cancel();
  }
}

bool SimWorld::is_drained(const SimNode& node) const {
  for (const std::unique_ptr<SimShard>& shard : node.shards_) {
    if (shard->scope().running() != 0 || shard->reactor().has_ready() || shard->reactor().has_mail()) return false;
  }
  return true;
}

void SimWorld::drain(SimNode& node) {
  Instant local = node.clock_.local(core_.now());
  std::vector<size_t> ready;
  for (uint64_t turns = 0; !is_drained(node); ++turns) {
    FL_CHECK(turns < kDrainTurnsMax);
    ready.clear();
    std::optional<Instant> next;
    for (size_t i = 0; i < node.shards_.size(); ++i) {
      Reactor& reactor = node.shards_[i]->reactor();
      reactor.set_now(local);
      reactor.expire_timers();
      if (reactor.has_ready() || reactor.has_mail()) ready.push_back(i);
      const std::optional<Instant> deadline = reactor.next_deadline();
      if (deadline && (!next || *deadline < *next)) next = deadline;
    }
    if (!ready.empty()) {
      run_turn(node, ready[schedule_random_.below(ready.size())]);
      local = local + Duration(1);
    } else if (next) {
      local = *next;
    } else {
      std::fputs(report().c_str(), stderr);
      FL_UNREACHABLE("a program of a crashed node waits for ever: it must end once stopping() is set");
    }
  }
}

void SimWorld::crash(SimNode& node, CrashKind kind) {
  FL_CHECK(node.is_up() && current_.node != node.index());
  const Installed installed(*this);
  core_.injected(SimFault::kCrash, node.index());
  core_.record({.kind = TraceKind::kCrash, .place = {.node = node.index()}, .a = static_cast<uint64_t>(kind)});
  node.boot_->alive = false;
  if (kind == CrashKind::kPowerLost) ++node.power_losses_;
  for (const auto& [key, device] : devices_) {
    if (key.first == node.index()) device->crash(kind);
  }
  fabric_.crash(*node.boot_, kind);
  const bool outer = std::exchange(dying_, true);
  begin_stop(node);
  drain(node);
  node.shards_.clear();
  dying_ = outer;
}

bool SimWorld::stop(SimNode& node, Duration limit) {
  FL_CHECK(node.is_up() && current_.node != node.index());
  const Installed installed(*this);
  begin_stop(node);
  if (run_until([&] { return is_drained(node); }, limit) != RunResult::kDone) return false;
  core_.record({.kind = TraceKind::kStop, .place = {.node = node.index()}});
  node.shards_.clear();
  node.boot_->alive = false;
  return true;
}

void SimWorld::restart(SimNode& node) {
  const Installed installed(*this);
  boot(node);
}

void SimWorld::stall(SimNode& node, size_t shard, Duration span) {
  core_.injected(SimFault::kStall, node.index());
  SimShard& stalled = node.at(shard);
  stalled.stall(std::max(stalled.stalled_until(), now() + span));
}

void SimWorld::heal() {
  fabric_.heal_all();
  for (const std::unique_ptr<SimNode>& node : nodes_) {
    for (const std::unique_ptr<SimShard>& shard : node->shards_) shard->stall({});
  }
  core_.settings().network.reset_ppm = 0;
  core_.settings().network.accept_exhausted_ppm = 0;
  core_.settings().fault_point_ppm = {};
  for (const auto& [key, device] : devices_) device->heal();
}

// ---- Oracles

SimWorld::Installed::~Installed() {
  for (int i = 0; i < kProbeCount; ++i) {
    world_.probes_[static_cast<size_t>(i)] += count_of(static_cast<Probe>(i));
  }
}

void SimWorld::Installed::write(LogLevel level, std::string_view event, std::string_view line) {
  world_.on_log(level, event, line);
}

bool SimWorld::draw_fault(FaultPoint point) {
  if (dying_) return false;
  const auto index = static_cast<size_t>(point);
  if (!fault_random_.chance(core_.settings().fault_point_ppm[index])) return false;
  ++fired_[index];
  core_.record({.kind = TraceKind::kFaultPoint, .place = current_, .a = index});
  return true;
}

void SimWorld::on_log(LogLevel level, std::string_view event, std::string_view line) {
  core_.note(current_, line);
  if (level != LogLevel::kError) return;
  core_.record({.kind = TraceKind::kError,
                .place = current_,
                .digest = hash_bytes(std::as_bytes(std::span(event.data(), event.size())))});
  const bool explained = dying_ || allowed_errors_.contains(event) || core_.had_hard_fault(current_.node);
  if (!explained) ++unexplained_errors_;
}

void SimWorld::mark(std::string_view what, uint64_t value) {
  core_.note(current_, what);
  core_.record({.kind = TraceKind::kMark,
                .place = current_,
                .a = value,
                .digest = hash_bytes(std::as_bytes(std::span(what.data(), what.size())))});
}

uint64_t SimWorld::trace_hash() const {
  uint64_t hash = mix_hash(core_.trace().hash(), core_.peek_random());
  for (Prng random : {schedule_random_, fault_random_, boot_random_, device_random_, test_random_}) {
    hash = mix_hash(hash, random.next());
  }
  for (const std::unique_ptr<SimNode>& node : nodes_) {
    for (const std::unique_ptr<SimShard>& shard : node->shards_) hash = mix_hash(hash, shard->peek_random());
  }
  return hash;
}

std::string SimWorld::report() const {
  std::string text = core_.trace().tail();
  text += fmt::format("seed={} virtual_s={:.3f} turns={} trace={:016x} unexplained_errors={} violations={}\n", seed_,
                      static_cast<double>(core_.now().ns) / 1e9, turns_, trace_hash(), unexplained_errors_,
                      core_.violations());
  text += "settings: " + to_string(core_.settings()) + "\ninjected:";
  for (int i = 0; i < kSimFaultCount; ++i) {
    const auto fault = static_cast<SimFault>(i);
    if (core_.injected_count(fault) != 0)
      text += fmt::format(" {}={}", sim_fault_name(fault), core_.injected_count(fault));
  }
  for (int i = 0; i < kFaultPointCount; ++i) {
    if (const uint64_t count = fired_[static_cast<size_t>(i)]; count != 0) {
      text += fmt::format(" {}={}", fault_point_name(static_cast<FaultPoint>(i)), count);
    }
  }
  return text + "\n";
}

}  // namespace fairlead::sim
