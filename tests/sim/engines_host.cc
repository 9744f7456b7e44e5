#include "engines_host.h"

#include <fmt/format.h>

#include "async/call.h"
#include "engine/volume.h"
#include "engines_user.h"

namespace fairlead::sim_test {

using std::chrono::milliseconds;

EngineHost::EngineHost(Engines& engines, EngineVolume& volume)
    : engines_(engines),
      volume_(volume),
      node_(engines.world->add_node(fmt::format("10.0.1.{}", volume.index + 1),
                                    {.shards = volume.plan.host_shards, .more_addresses = {}})),
      devices_(volume.plan.host_shards) {}

std::vector<Shard*> EngineHost::shards() {
  std::vector<Shard*> list;
  for (size_t i = 0; i < node_.shard_count(); ++i) list.push_back(&node_.shard(i));
  return list;
}

void EngineHost::run() { engines_.world->spawn(node_, 0, live()); }

Task<bool> EngineHost::connect() {
  host::SubsystemOptions options = engines_.plan.user;
  options.nqn = engine::volume_nqn(volume_.plan.options.volume);
  options.identity = host::identity_from_id(uuid_from_random(engines_.world->seed(), 90 + volume_.index));
  for (const auto& node : engines_.nodes) {
    for (size_t i = 0; i < node->plan().listeners; ++i) options.addresses.push_back(node->address(i));
  }
  subsystem_ = std::make_unique<host::Subsystem>(shards(), options);
  if (co_await subsystem_->start()) {
    while (!node_.stopping(0).is_set() && !subsystem_->source(1)) {
      (void)co_await sleep(node_.shard(0).reactor, milliseconds(1), node_.cancel(0));
    }
    if (!node_.stopping(0).is_set()) co_return true;
  }
  co_await subsystem_->stop();
  subsystem_.reset();
  co_return false;
}

Task<void> EngineHost::open_device(size_t shard) {
  const auto source = subsystem_->source(1);
  FL_CHECK(source.has_value());
  auto device = (*source)->open(node_.shard(shard));
  FL_CHECK(device.has_value());
  devices_[shard] = std::move(*device);
  co_return;
}

Task<void> EngineHost::close_device(size_t shard) {
  const auto& statistics = static_cast<host::RemoteDevice&>(*devices_[shard]).statistics();
  engines_.statistics.resent += statistics.resent;
  engines_.statistics.held += statistics.held;
  engines_.statistics.fenced += statistics.fenced;
  engines_.statistics.retried += statistics.retried;
  devices_[shard].reset();
  co_return;
}

Task<void> EngineHost::live() {
  Reactor& home = node_.shard(0).reactor;
  while (!node_.stopping(0).is_set() && !co_await connect()) {
  }
  if (subsystem_ == nullptr) co_return;
  for (size_t i = 0; i < devices_.size(); ++i) co_await call_on(home, node_.shard(i).reactor, open_device(i));
  sim::Prng random(sim::mix_hash(engines_.world->seed(), volume_.index));
  for (size_t i = 0; i < volume_.plan.workers; ++i) {
    ++users_;
    ++volume_.working;
    const size_t shard = i % devices_.size();
    engines_.world->spawn(node_, shard, work(shard, random.next()));
  }
  is_connected_ = true;
  co_await node_.stopping(0).wait();
  is_connected_ = false;
  co_await subsystem_->stop();
  while (users_ > 0) (void)co_await sleep(home, milliseconds(1));
  for (size_t i = 0; i < devices_.size(); ++i) co_await call_on(home, node_.shard(i).reactor, close_device(i));
  subsystem_.reset();
}

Task<void> EngineHost::work(size_t shard, uint64_t seed) {
  sim::Prng random(seed);
  Reactor& there = node_.shard(shard).reactor;
  EngineUser user(engines_, volume_, node_, shard, *devices_[shard], "by its host");
  while (!engines_.is_over && engines_.failure.empty() && !node_.stopping(shard).is_set()) {
    if (volume_.requests_left == 0) {
      (void)co_await sleep(there, milliseconds(100), node_.cancel(shard));
      continue;
    }
    if (random.one_in(4)) {
      (void)co_await sleep(there, draw_pause(random, engines_.share_of(volume_.plan)), node_.cancel(shard));
      continue;
    }
    --volume_.requests_left;
    co_await user.do_one(random);
  }
  --volume_.working;
  --users_;
}

Task<void> EngineHost::read_all(bool* is_done) {
  ++users_;
  EngineUser user(engines_, volume_, node_, 0, *devices_.front(), "by its host");
  co_await user.read_all();
  --users_;
  *is_done = true;
}

std::string EngineHost::describe() const {
  std::string text = fmt::format("host of volume {}:", volume_.index);
  if (subsystem_ == nullptr) return text + " no subsystem";
  for (const host::ControllerStatus& each : subsystem_->controllers()) {
    text += fmt::format(" {} {} ({})", to_string(each.address), host::state_name(each.state), each.last_error.what);
  }
  return text + fmt::format("; {} tasks", users_);
}

}  // namespace fairlead::sim_test
