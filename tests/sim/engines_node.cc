#include "engines_node.h"

#include <algorithm>
#include <fmt/format.h>

#include "block/disk.h"
#include "engines_host.h"
#include "engines_serving.h"
#include "engines_user.h"

namespace fairlead::sim_test {

using mirror::Record;
using mirror::Term;
using mirror::WitnessAnswer;
using pool::PoolDisk;
using sim::SimNode;
using std::chrono::milliseconds;

EngineVolume::EngineVolume(const EngineVolumePlan& p, size_t i, uint64_t seed)
    : plan(p), index(i), history(clock, p.blocks), requests_left(p.requests) {
  first.at.term.number = 1;
  for (size_t r = 0; r < plan.engines.size(); ++r) {
    replicas.push_back(uuid_from_random(seed, 1000 * (i + 1) + r));
    first.members.add(replicas.back());
  }
  first.prior = first.members;
}

uint64_t EngineVolume::begin_write(test::BlockRange range, bool is_zeroes) {
  const uint64_t id = ++last_id_;
  const test::Content content = is_zeroes ? test::kZeroContent : id;
  writes_[id] = {.range = range, .content = content, .id = id, .was_interrupted = false};
  history.begin_write(range, content, id);
  return id;
}

void EngineVolume::end_write(uint64_t request, const Result<void>& result, test::BlockHistory::Surely surely,
                             bool is_durable) {
  const auto at = writes_.find(request);
  const Write write = at->second;
  writes_.erase(at);
  using Surely = test::BlockHistory::Surely;
  if (result) {
    // An answer that was on its way when power was lost is of what may have been lost.
    if (write.was_interrupted && !is_durable) surely = Surely::kPerhaps;
    history.write_done(write.range, write.id, surely, is_durable);
  } else if (result.error().code != Code::kIo && (!plan.has_host || result.error().code != Code::kCancelled)) {
    history.write_failed(write.range, write.id);
  }
  // A host that gave up a write knows nothing of it: it may happen at any time. So may one that the medium of the only
  // member failed: its pool's journal may have taken it, which shows when it is opened anew.
}

bool EngineVolume::is_being_written(test::BlockRange range) const {
  return std::ranges::any_of(writes_, [&](const auto& each) {
    const test::BlockRange& other = each.second.range;
    return other.first < range.end() && range.first < other.end();
  });
}

std::string EngineVolume::describe_writes() const {
  std::string text;
  for (const auto& [request, write] : writes_) {
    text += fmt::format(" {}: {}+{}", request, write.range.first, write.range.count);
  }
  return text;
}

// What hosts have under way goes on.
void EngineVolume::power_lost() {
  history.power_lost();
  for (auto& [request, write] : writes_) {
    write.id = ++last_id_;
    write.was_interrupted = true;
    history.begin_write(write.range, write.content, write.id);
  }
}

Duration draw_pause(sim::Prng& random, Duration share) {
  return Duration(static_cast<int64_t>(random.below(static_cast<uint64_t>(share.count()) * 4 + 1)));
}

Engines::Engines(const EnginesPlan& p) : plan(p) {}
Engines::~Engines() = default;

// ---- The control node

// A call under way, for as long as a message of it is.
template <typename T>
struct ControlNode::Message {
  std::optional<Result<T>> answer;
  Event* arrived = nullptr;  // null: nobody waits any more
};

// On an engine's home shard. The witness is asked on its own node; both ways take a while, or for ever.
class ControlNode::Proxy final : public mirror::Witness {
 public:
  Proxy(ControlNode& control, size_t engine) : control_(control), engine_(engine) {}

  Task<Result<uint64_t>> next_term(Uuid volume) override {
    return call<uint64_t>([volume](mirror::Witness& witness) { return witness.next_term(volume); });
  }
  Task<Result<WitnessAnswer>> prepare(Uuid volume, Term term) override {
    return call<WitnessAnswer>([volume, term](mirror::Witness& witness) { return witness.prepare(volume, term); });
  }
  Task<Result<WitnessAnswer>> keep(Uuid volume, Record record, Standing standing) override {
    return call<WitnessAnswer>(
        [volume, record, standing](mirror::Witness& witness) { return witness.keep(volume, record, standing); });
  }

 private:
  struct Alarm : Timer {
    explicit Alarm(Event& event)
        : Timer([](Runnable& self) { static_cast<Alarm&>(self).rings.release_waiters(); }), rings(event) {}
    Event& rings;
  };

  template <typename T, typename Ask>
  Task<Result<T>> call(Ask ask) {
    SimNode& here = control_.engines_.nodes[engine_]->node();
    Reactor& reactor = here.shard(0).reactor;
    // shared_ptr: with messages under way; who waits may leave before they come, or die.
    const auto message = std::make_shared<Message<T>>();
    Event arrived(reactor);
    message->arrived = &arrived;
    ControlNode& control = control_;
    const size_t engine = engine_;
    control.engines_.world->after(control.draw_delay(), [&control, engine, ask, message] {
      if (!control.is_reachable(engine)) return;
      control.engines_.world->spawn(control.node_, 0, serve<T>(control, engine, ask, message));
    });
    Alarm alarm(arrived);
    const Instant until = reactor.now() + control.engines_.plan.witness_limit;
    reactor.arm(alarm, until);
    while (!message->answer && reactor.now() < until) co_await arrived.wait();
    reactor.disarm(alarm);
    message->arrived = nullptr;
    if (!message->answer) co_return fail(Code::kTimedOut, "the witness does not answer");
    co_return *message->answer;
  }
  template <typename T, typename Ask>
  static Task<void> serve(ControlNode& control, size_t engine, Ask ask, std::shared_ptr<Message<T>> message) {
    const Result<T> answer = co_await ask(*control.witness_);
    control.engines_.world->after(control.draw_delay(), [&control, engine, answer, message] {
      if (!control.is_reachable(engine) || message->arrived == nullptr) return;
      message->answer = answer;
      message->arrived->release_waiters();
    });
  }

  ControlNode& control_;
  const size_t engine_;
};

ControlNode::ControlNode(Engines& engines)
    : engines_(engines),
      node_(engines.world->add_node("10.0.0.200", {.shards = 1, .more_addresses = {}})),
      witness_(std::make_unique<test::MemoryWitness>(node_.shard(0).reactor)),
      is_cut_(engines.plan.engines.size()) {
  for (const auto& volume : engines.volumes) witness_->set_record(volume->plan.options.volume, volume->first);
}

void ControlNode::heal() {
  is_away_ = false;
  is_cut_.assign(is_cut_.size(), false);
}

Duration ControlNode::draw_delay() {
  const auto longest = static_cast<uint64_t>(engines_.plan.witness_delay_max.count());
  return Duration(static_cast<int64_t>(engines_.world->random().below(longest) + 1));
}

std::unique_ptr<mirror::Witness> ControlNode::connect(size_t engine) { return std::make_unique<Proxy>(*this, engine); }

// ---- Engines

EngineNode::EngineNode(Engines& engines, ControlNode& control, size_t index)
    : engines_(engines),
      control_(control),
      index_(index),
      plan_(engines.plan.engines[index]),
      node_(engines.world->add_node(fmt::format("10.0.0.{}", index + 1),
                                    {.shards = plan_.shards, .more_addresses = {}})) {
  for (size_t i = 0; i < plan_.disks.size(); ++i) {
    paths_.push_back(fmt::format("/disk{}", i));
    engines_.world->create_disk(node_, paths_[i], engines_.plan.disk_bytes, plan_.disks[i]);
  }
  for (const auto& volume : engines_.volumes) {
    const auto at = std::ranges::find(volume->plan.engines, index);
    if (at == volume->plan.engines.end()) continue;
    Held held;
    held.volume = volume.get();
    held.id = volume->replicas[static_cast<size_t>(at - volume->plan.engines.begin())];
    held.state.record = volume->first;
    held_.push_back(std::move(held));
  }
}

EngineNode::~EngineNode() = default;

std::vector<Shard*> EngineNode::shards() {
  std::vector<Shard*> list;
  for (size_t i = 0; i < node_.shard_count(); ++i) list.push_back(&node_.shard(i));
  return list;
}

Result<std::vector<PoolDisk>> EngineNode::disks() {
  std::vector<PoolDisk> list;
  for (const std::string& path : paths_) {
    FL_TRY(std::shared_ptr<BlockSource> source, open_disk_source(node_.shard(0), {.path = path}));
    list.push_back({path, std::move(source)});
  }
  return list;
}

EngineNode::Held* EngineNode::find(const EngineVolume& volume) {
  const auto at = std::ranges::find(held_, &volume, &Held::volume);
  return at == held_.end() ? nullptr : &*at;
}

void EngineNode::look_at(Held& held) {
  if (held.replica == nullptr) return;
  held.state = held.replica->store().state();
  held.boot_id = held.replica->store().boot_id();
  held.has_lost_power = false;
}

std::optional<ReplicaView> EngineNode::view(const EngineVolume& volume) {
  Held* const held = find(volume);
  if (held == nullptr) return std::nullopt;
  look_at(*held);
  const mirror::ReplicaState& state = held->state;
  const bool is_session_of_now = state.session.number == 0 || state.session.boot_id == held->boot_id;
  return ReplicaView{
      .id = held->id, .record = state.record, .is_warm = !state.is_cold && is_session_of_now && !held->has_lost_power};
}

Task<Result<void>> EngineNode::create() {
  pool::CreateOptions options;
  options.name = "tank";
  options.extent_bytes = engines_.plan.pool_extent_bytes;
  options.journal_bytes = pool::kJournalBytesMin;
  FL_CO_TRY(std::vector<PoolDisk> blank, disks());
  if (const auto made = co_await pool::Pool::create(node_.shard(0), std::move(blank), options); !made) {
    co_return std::unexpected(made.error().error);
  }
  FL_CO_TRY(std::vector<PoolDisk> made, disks());
  auto pool = co_await pool::Pool::import(shards(), std::move(made), {});
  if (!pool) co_return std::unexpected(pool.error().error);
  Result<void> result;
  for (const Held& held : held_) {
    const pool::ReplicaOptions replica = {.name = fmt::format("volume{}", held.volume->index),
                                          .size_bytes = held.volume->plan.options.size_bytes,
                                          .id = held.id,
                                          .volume_id = held.volume->plan.options.volume};
    if (const auto id = co_await (*pool)->create_replica(replica); !id) result = std::unexpected(id.error());
    pool::Changes changes;
    changes.properties = {{engine::kReplicaStateProperty, mirror::encode(held.state)}};
    if (result) result = co_await (*pool)->change(replica.name, changes);
  }
  const Result<void> closed = co_await (*pool)->close();
  co_return result ? closed : result;
}

Task<void> EngineNode::format(bool* is_done) {
  if (const Result<void> made = co_await create(); !made) {
    engines_.fail(fmt::format("engine {}: making a pool: {}", index_, to_string(made.error())));
  }
  *is_done = true;
}

void EngineNode::run() {
  node_.run_at_boot([this](SimNode& up) {
    if (!engines_.is_checking) engines_.world->spawn(up, 0, live());
  });
}

Task<void> EngineNode::live() {
  while (!node_.stopping(0).is_set() && !co_await open()) {
    co_await close();
    (void)co_await sleep(reactor(), milliseconds(50), node_.cancel(0));
  }
  is_ready_ = !node_.stopping(0).is_set();
  co_await node_.stopping(0).wait();
  is_ready_ = false;
  end_targets();
  while (users_ > 0) (void)co_await sleep(reactor(), milliseconds(1));
  co_await close();
}

// A pool that cannot be imported now may be later: disks have errors that pass.
Task<bool> EngineNode::open() {
  auto sources = disks();
  if (!sources) co_return false;
  auto pool = co_await pool::Pool::import(
      shards(), std::move(*sources),
      {.cache_bytes = engines_.plan.cache_bytes, .sync_interval = engines_.plan.sync_interval});
  if (!pool) {
    if (pool.error().error.code == Code::kCorrupt) {
      engines_.fail(
          fmt::format("engine {}: import: {} {}", index_, to_string(pool.error().error), pool.error().detail));
    }
    co_return false;
  }
  pool_ = std::move(*pool);
  target_ = std::make_unique<target::Target>(shards(), plan_.target);
  copies_ = std::make_unique<mirror::CopyBudget>(reactor(), engine::EngineOptions{}.copies_max);
  for (Held& held : held_) {
    auto replica =
        co_await engine::Replica::open(shards(), *pool_, target_.get(), {.id = held.id, .lease_max = kEngineLeaseMax});
    if (!replica) co_return false;
    held.replica = std::move(*replica);
    look_at(held);
  }
  ports_.clear();
  for (size_t i = 0; i < plan_.listeners; ++i) {
    const auto listening = co_await target_->start_listener({.bind = address(i), .advertise = {}});
    if (!listening) co_return false;
    ports_.push_back(listening->port);
  }
  for (const auto& volume : engines_.volumes) {
    if (volume->plan.has_host && !co_await show(*volume)) co_return false;
  }
  co_return true;
}

Task<void> EngineNode::close() {
  co_await hide_all();
  for (Held& held : held_) {
    if (held.replica == nullptr) continue;
    co_await held.replica->close();
    if (node_.is_up()) look_at(held);
    held.replica.reset();
  }
  if (target_ != nullptr) (void)co_await target_->stop();
  copies_.reset();
  target_.reset();
  if (pool_ != nullptr) {
    const Result<void> closed = co_await pool_->close();
    if (!closed && closed.error().code == Code::kBusy) engines_.fail("a pool was busy when it was closed");
  }
  pool_.reset();
}

std::vector<sim::SimDevice*> EngineNode::devices() const {
  std::vector<sim::SimDevice*> list;
  for (const std::string& path : paths_) list.push_back(engines_.world->find_disk(node_, path));
  return list;
}

void EngineNode::crash(sim::CrashKind kind) {
  for (Held& held : held_) look_at(held);
  // What the dying say of their replicas is of no account.
  std::vector<mirror::ReplicaState> states;
  for (const Held& held : held_) states.push_back(held.state);
  engines_.world->crash(node_, kind);
  for (size_t i = 0; i < held_.size(); ++i) {
    held_[i].state = states[i];
    held_[i].has_lost_power |= kind == sim::CrashKind::kPowerLost;
  }
}

Task<void> EngineNode::check_disks(std::optional<Result<pool::CheckReport>>* report) {
  auto sources = disks();
  if (!sources) {
    report->emplace(std::unexpected(sources.error()));
    co_return;
  }
  Shard& shard = node_.shard(0);
  report->emplace(co_await pool::check_pool(shard, std::move(*sources), shard.storage.boot_id()));
}

// Empty: it cannot be read.
Task<std::vector<std::byte>> EngineNode::read_object(std::string name, uint64_t size) {
  const auto source = co_await pool_->source(std::move(name));
  if (!source) co_return std::vector<std::byte>();
  auto device = (*source)->open(node_.shard(0));
  FL_CHECK(device.has_value());
  PlacedBytes memory(size, 0);
  const std::span<std::byte> bytes = memory.bytes();
  constexpr uint64_t kPiece = 256 * kKiB;
  for (uint64_t at = 0; at < size; at += kPiece) {
    iovec piece{bytes.data() + at, std::min(kPiece, size - at)};
    const Result<void> read = co_await block_read(reactor(), **device, ByteOffset(at), {&piece, 1});
    if (!read) co_return std::vector<std::byte>();
  }
  co_return std::vector<std::byte>(bytes.begin(), bytes.end());
}

Task<void> EngineNode::read_replica(EngineVolume& volume, std::vector<std::byte>* out, bool* is_done) {
  ++users_;
  *out = co_await read_object(to_string(find(volume)->id), volume.plan.options.size_bytes);
  --users_;
  *is_done = true;
}

}  // namespace fairlead::sim_test
