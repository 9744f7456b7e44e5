// Targets on engines, and the workers that use them and check each block. See engines_node.h.
#include <algorithm>
#include <fmt/format.h>

#include "async/call.h"
#include "engines_serving.h"
#include "engines_user.h"

namespace fairlead::sim_test {

using mirror::TargetStatus;
using sim::Prng;
using std::chrono::milliseconds;
// ---- Targets

std::vector<std::unique_ptr<mirror::ReplicaLink>> EngineNode::make_links(const EngineVolume& volume) {
  std::vector<std::unique_ptr<mirror::ReplicaLink>> links;
  for (size_t i = 0; i < volume.replicas.size(); ++i) {
    const size_t at = volume.plan.engines[i];
    if (at == index_) {
      auto link = std::make_unique<engine::LocalLink>(*find(volume)->replica);
      link->start();
      links.push_back(std::move(link));
      continue;
    }
    engine::RemoteLinkOptions options;
    options.replica = volume.replicas[i];
    options.address = engines_.nodes[at]->address();
    options.host = engines_.plan.host;
    options.host.identity = host::identity_from_id(uuid_from_random(engines_.world->seed(), 50 + index_));
    options.call_limit = engines_.plan.call_limit;
    auto link = std::make_unique<engine::RemoteLink>(shards(), options);
    link->start();
    links.push_back(std::move(link));
  }
  return links;
}

void EngineNode::start_target(EngineVolume& volume, uint64_t seed) {
  if (!is_ready_ || node_.stopping(0).is_set()) return;
  ++engines_.counts.targets;
  if (volume.plan.has_host) {
    const auto at = std::ranges::find(shown_, &volume, [](const auto& shown) { return &shown->volume; });
    if (!(*at)->is_ending) (*at)->shown->serve();
    return;
  }
  ++users_;
  const auto serving = std::make_shared<Serving>(volume, reactor(), seed);
  servings_.push_back(serving);
  engines_.world->spawn(node_, 0, serve(serving));
}

size_t EngineNode::targets() const {
  const auto shown =
      std::ranges::count_if(shown_, [](const auto& each) { return each->is_ending || each->shown->is_target(); });
  return servings_.size() + static_cast<size_t>(shown);
}

void EngineNode::end(Serving& serving) {
  serving.is_ending = true;
  serving.ending.set();
}

void EngineNode::end(Shown& shown) {
  if (shown.is_ending || !shown.shown->is_target()) return;
  shown.is_ending = true;
  ++shown.users;
  engines_.world->spawn(node_, 0, end_shown(shown));
}

void EngineNode::end_targets() {
  for (const auto& serving : servings_) end(*serving);
  for (const auto& shown : shown_) end(*shown);
}

void EngineNode::end_a_target(size_t number) {
  if (servings_.empty() && shown_.empty()) return;
  number %= servings_.size() + shown_.size();
  if (number < servings_.size()) return end(*servings_[number]);
  end(*shown_[number - servings_.size()]);
}

void EngineNode::end_target_of(const EngineVolume& volume) {
  for (const auto& serving : servings_) {
    if (&serving->volume == &volume) end(*serving);
  }
  for (const auto& shown : shown_) {
    if (&shown->volume == &volume) end(*shown);
  }
}

std::optional<TargetStatus> EngineNode::status_of(const EngineVolume& volume) const {
  for (const auto& serving : servings_) {
    if (&serving->volume != &volume || serving->target == nullptr || serving->is_ending) continue;
    return serving->target->status();
  }
  for (const auto& shown : shown_) {
    if (&shown->volume == &volume && shown->shown->is_target() && !shown->is_ending) return shown->shown->status();
  }
  return std::nullopt;
}

// ---- Volumes that hosts have paths to

Task<bool> EngineNode::show(EngineVolume& volume) {
  auto shown = std::make_unique<Shown>(*this, volume);
  shown->witness = control_.connect(index_);
  shown->shown =
      std::make_unique<engine::Volume>(shards(), *target_, *shown->witness, *shown, *copies_,
                                       engine::VolumeOptions{.mirror = volume.plan.options,
                                                             .nqn = engine::volume_nqn(volume.plan.options.volume),
                                                             .allowed_hosts = {},
                                                             .ports = ports_});
  const Result<void> opened = co_await shown->shown->open();
  if (!opened) co_return false;
  ++shown->users;
  engines_.world->spawn(node_, 0, watch_shown(*shown));
  shown_.push_back(std::move(shown));
  co_return true;
}

Task<void> EngineNode::hide_all() {
  while (!shown_.empty()) {
    Shown& shown = *shown_.back();
    shown.is_gone = true;
    shown.shown->changed().release_waiters();
    while (shown.users > 0) (void)co_await sleep(reactor(), milliseconds(1));
    co_await shown.shown->close();
    shown_.pop_back();
  }
}

Task<void> EngineNode::end_shown(Shown& shown) {
  co_await shown.shown->stand_by();
  shown.is_ending = false;
  --shown.users;
}

Task<void> EngineNode::watch_shown(Shown& shown) {
  mirror::Term served;
  size_t members = 0;
  while (!shown.is_gone) {
    if (shown.shown->is_target()) count(served, members, shown.shown->status());
    co_await shown.shown->changed().wait();
  }
  --shown.users;
}

// ---- Targets whose devices are used here

Task<void> EngineNode::open_device(Serving& serving, Shard& shard) {
  auto device = serving.target->source()->open(shard);
  FL_CHECK(device.has_value());
  serving.devices.push_back(std::move(*device));
  co_return;
}

Task<void> EngineNode::close_device(Serving& serving, size_t shard) {
  serving.devices[shard].reset();
  co_return;
}

Task<void> EngineNode::open_target(Serving& serving) {
  std::vector<std::unique_ptr<mirror::ReplicaLink>> links = make_links(serving.volume);
  serving.witness = control_.connect(index_);
  serving.target = std::make_unique<mirror::VolumeTarget>(shards(), std::move(links), *serving.witness,
                                                          serving.volume.plan.options, copies_.get());
  co_await serving.target->start();
  for (Shard* const shard : shards()) {
    co_await call_on(reactor(), shard->reactor, open_device(serving, *shard));
  }
}

Task<void> EngineNode::serve(std::shared_ptr<Serving> serving) {
  // The engine may have begun to end since it was asked.
  if (is_ready_) {
    co_await open_target(*serving);
    ++serving->users;
    engines_.world->spawn(node_, 0, watch(serving));
    Prng random(serving->seed);
    for (size_t i = 0; i < serving->volume.plan.workers; ++i) {
      ++serving->users;
      ++serving->volume.working;
      const size_t shard = i % node_.shard_count();
      engines_.world->spawn(node_, shard, work(serving, shard, random.next()));
    }
    co_await serving->ending.wait();
    // Devices are closed before the target stops, and what is asked of them ends before: by force when it must.
    co_await serving->target->stop_serving();
    serving->is_gone = true;
    serving->target->changed().release_waiters();
    while (serving->users > 0) (void)co_await sleep(reactor(), milliseconds(1));
    for (size_t i = 0; i < serving->devices.size(); ++i) {
      co_await call_on(reactor(), node_.shard(i).reactor, close_device(*serving, i));
    }
    co_await serving->target->stop();
    serving->target.reset();
  }
  std::erase(servings_, serving);
  --users_;
}

// For the report.
void EngineNode::count(mirror::Term& served, size_t& members, const TargetStatus& status) {
  if (status.state != TargetStatus::State::kServing) return;
  if (status.term != served) {
    ++engines_.counts.take_overs;
  } else if (status.record.members.size() > members) {
    ++engines_.counts.returns;
  }
  served = status.term;
  members = status.record.members.size();
}

Task<void> EngineNode::watch(std::shared_ptr<Serving> serving) {
  mirror::Term served;
  size_t members = 0;
  while (!serving->is_gone) {
    count(served, members, serving->target->status());
    co_await serving->target->changed().wait();
  }
  --serving->users;
}

// ---- Workers

Task<void> EngineNode::work(std::shared_ptr<Serving> serving, size_t shard, uint64_t seed) {
  Prng random(seed);
  Reactor& there = node_.shard(shard).reactor;
  EngineVolume& volume = serving->volume;
  EngineUser user(engines_, volume, node_, shard, *serving->devices[shard], fmt::format("by engine {}", index_));
  const auto goes_on = [&] {
    return volume.requests_left > 0 && !engines_.is_over && !serving->is_ending && engines_.failure.empty() &&
           !node_.stopping(shard).is_set();
  };
  while (goes_on()) {
    if (random.one_in(4)) {
      (void)co_await sleep(there, draw_pause(random, engines_.share_of(volume.plan)), node_.cancel(shard));
      continue;
    }
    --volume.requests_left;
    co_await user.do_one(random);
  }
  --volume.working;
  --serving->users;
}

Task<void> EngineNode::read_all(EngineVolume& volume, bool* is_done) {
  const auto at = std::ranges::find(servings_, &volume, [](const auto& serving) { return &serving->volume; });
  if (at == servings_.end()) {
    engines_.fail("the target is not there to be read");
  } else {
    const std::shared_ptr<Serving> serving = *at;
    ++serving->users;
    EngineUser user(engines_, volume, node_, 0, *serving->devices.front(), fmt::format("by engine {}", index_));
    co_await user.read_all();
    --serving->users;
  }
  *is_done = true;
}

}  // namespace fairlead::sim_test
