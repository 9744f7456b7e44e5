// Targets on engines, and the workers that use them and check each block. See engines_node.h.
#include <algorithm>
#include <fmt/format.h>

#include "async/call.h"
#include "engines_serving.h"

namespace fairlead::sim_test {

using mirror::TargetStatus;
using sim::Prng;
using std::chrono::milliseconds;
using test::BlockHistory;
using test::BlockRange;

namespace {

BlockRange draw_range(const EngineVolume& volume, Prng& random) {
  constexpr uint64_t kBlocks = kEngineUnit / kEngineBlock;
  const uint64_t units = volume.plan.blocks / kBlocks;
  const uint64_t count = std::min(random.skewed(1, volume.plan.unit_max), units);
  // Some places are liked by all.
  const uint64_t first =
      random.coin() ? random.below(units - count + 1) : random.below(std::min<uint64_t>(8, units - count + 1));
  return {first * kBlocks, count * kBlocks};
}

// Of a host's memory behind a page.
size_t draw_shift(Prng& random) { return std::array<size_t, 3>{0, 512, 16}[random.below(3)]; }

}  // namespace

// ---- Targets

void EngineNode::start_target(EngineVolume& volume, uint64_t seed) {
  if (!is_ready_ || node_.stopping(0).is_set()) return;
  ++users_;
  ++engines_.counts.targets;
  const auto serving = std::make_shared<Serving>(volume, reactor(), seed);
  servings_.push_back(serving);
  engines_.world->spawn(node_, 0, serve(serving));
}

void EngineNode::end_targets() {
  for (const auto& serving : servings_) {
    serving->is_ending = true;
    serving->ending.set();
  }
}

void EngineNode::end_a_target(size_t number) {
  if (servings_.empty()) return;
  Serving& serving = *servings_[number % servings_.size()];
  serving.is_ending = true;
  serving.ending.set();
}

const mirror::VolumeTarget* EngineNode::target_of(const EngineVolume& volume) const {
  for (const auto& serving : servings_) {
    if (&serving->volume == &volume && serving->target != nullptr && !serving->is_ending) return serving->target.get();
  }
  return nullptr;
}

void EngineNode::add_link(Serving& serving, size_t replica, std::vector<std::unique_ptr<mirror::ReplicaLink>>& links) {
  const size_t at = serving.volume.plan.engines[replica];
  if (at == index_) {
    auto link = std::make_unique<engine::LocalLink>(*find(serving.volume)->replica);
    link->start();
    serving.local.push_back(link.get());
    links.push_back(std::move(link));
    return;
  }
  engine::RemoteLinkOptions options;
  options.replica = serving.volume.replicas[replica];
  options.address = engines_.nodes[at]->address();
  options.host = engines_.plan.host;
  options.host.identity = host::identity_from_id(uuid_from_random(engines_.world->seed(), 50 + index_));
  options.call_limit = engines_.plan.call_limit;
  auto link = std::make_unique<engine::RemoteLink>(shards(), options);
  link->start();
  serving.remote.push_back(link.get());
  links.push_back(std::move(link));
}

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
  std::vector<std::unique_ptr<mirror::ReplicaLink>> links;
  serving.witness = control_.connect(index_);
  for (size_t i = 0; i < serving.volume.replicas.size(); ++i) add_link(serving, i, links);
  serving.target =
      std::make_unique<mirror::VolumeTarget>(shards(), std::move(links), *serving.witness, serving.volume.plan.options);
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
      ++engines_.working;
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
    for (engine::RemoteLink* const link : serving->remote) co_await link->stop();
    for (engine::LocalLink* const link : serving->local) co_await link->stop();
    serving->target.reset();
  }
  std::erase(servings_, serving);
  --users_;
}

// Counts what the run reports.
Task<void> EngineNode::watch(std::shared_ptr<Serving> serving) {
  mirror::Term served;
  size_t members = 0;
  while (!serving->is_gone) {
    const TargetStatus status = serving->target->status();
    if (status.state == TargetStatus::State::kServing) {
      if (status.term != served) {
        ++engines_.counts.take_overs;
      } else if (status.record.members.size() > members) {
        ++engines_.counts.returns;
      }
      served = status.term;
      members = status.record.members.size();
    }
    co_await serving->target->changed().wait();
  }
  --serving->users;
}

// ---- Workers

Task<Result<void>> EngineNode::read(Serving& serving, size_t shard, BlockRange range, size_t shift) {
  EngineVolume& volume = serving.volume;
  PlacedBytes memory(range.count * kEngineBlock, shift);
  const std::span<std::byte> bytes = memory.bytes();
  iovec piece{bytes.data(), bytes.size()};
  const uint64_t began = volume.clock.begin_read();
  const Result<void> result = co_await block_read(node_.shard(shard).reactor, *serving.devices[shard],
                                                  ByteOffset(range.first * kEngineBlock), {&piece, 1});
  if (result) {
    ++engines_.counts.reads;
    const std::string wrong = volume.history.check_read(began, range, bytes, kEngineBlock);
    if (!wrong.empty()) engines_.fail(fmt::format("volume {}, by engine {}: {}", volume.index, index_, wrong));
  }
  volume.clock.end_read(began);
  co_return result;
}

Task<void> EngineNode::change(Serving& serving, size_t shard, BlockRange range, Prng& random) {
  EngineVolume& volume = serving.volume;
  BlockHistory& history = volume.history;
  Reactor& there = node_.shard(shard).reactor;
  BlockDevice& device = *serving.devices[shard];
  const uint64_t id = ++volume.last_id;
  const auto offset = ByteOffset(range.first * kEngineBlock);
  const uint64_t length = range.count * kEngineBlock;
  bool is_durable = false;
  Result<void> result;
  if (random.one_in(4)) {
    history.begin_write(range, test::kZeroContent, id);
    if (random.coin()) {
      result = co_await block_write_zeroes(there, device, offset, length);
    } else {
      result = co_await block_discard(there, device, offset, length);
    }
  } else {
    PlacedBytes memory(length, draw_shift(random));
    const std::span<std::byte> bytes = memory.bytes();
    for (uint64_t i = 0; i < range.count; ++i) {
      test::fill_block(bytes.subspan(i * kEngineBlock, kEngineBlock), range.first + i, id);
    }
    is_durable = random.one_in(5);
    history.begin_write(range, id, id);
    iovec piece{bytes.data(), bytes.size()};
    result = co_await block_write(there, device, offset, {&piece, 1},
                                  is_durable ? Durability::kForced : Durability::kVolatile);
  }
  if (result) {
    ++engines_.counts.acknowledged;
    history.write_done(range, id, BlockHistory::Surely::kYes, is_durable);
  } else {
    history.write_failed(range, id);
  }
}

Task<void> EngineNode::flush(Serving& serving, size_t shard) {
  const uint64_t began = serving.volume.clock.tick();
  const Result<void> result = co_await block_flush(node_.shard(shard).reactor, *serving.devices[shard]);
  if (!result) co_return;
  ++engines_.counts.flushes;
  serving.volume.history.flushed(began);
}

Task<void> EngineNode::do_one(Serving& serving, size_t shard, Prng& random) {
  const uint64_t what = random.below(20);
  if (what == 0) {
    co_await flush(serving, shard);
  } else if (what < 9) {
    const BlockRange range = draw_range(serving.volume, random);
    (void)co_await read(serving, shard, range, draw_shift(random));
  } else {
    co_await change(serving, shard, draw_range(serving.volume, random), random);
  }
}

Task<void> EngineNode::work(std::shared_ptr<Serving> serving, size_t shard, uint64_t seed) {
  Prng random(seed);
  Reactor& there = node_.shard(shard).reactor;
  EngineVolume& volume = serving->volume;
  // Spread over the troubles, in bursts.
  const Duration share = engines_.plan.trouble_every * engines_.plan.troubles *
                         static_cast<int64_t>(volume.plan.workers) / volume.plan.requests;
  const auto goes_on = [&] {
    return volume.requests_left > 0 && !engines_.is_over && !serving->is_ending && engines_.failure.empty() &&
           !node_.stopping(shard).is_set();
  };
  while (goes_on()) {
    if (random.one_in(4)) {
      const auto most = static_cast<uint64_t>(share.count()) * 4 + 1;
      (void)co_await sleep(there, Duration(static_cast<int64_t>(random.below(most))), node_.cancel(shard));
      continue;
    }
    --volume.requests_left;
    co_await do_one(*serving, shard, random);
  }
  --engines_.working;
  --serving->users;
}

Task<void> EngineNode::read_all(EngineVolume& volume, bool* is_done) {
  constexpr uint64_t kPiece = 64 * kKiB / kEngineBlock;
  const auto at = std::ranges::find(servings_, &volume, [](const auto& serving) { return &serving->volume; });
  if (at == servings_.end()) {
    engines_.fail("the target is not there to be read");
  } else {
    const std::shared_ptr<Serving> serving = *at;
    ++serving->users;
    for (uint64_t block = 0; block < volume.plan.blocks && engines_.failure.empty(); block += kPiece) {
      const Result<void> result = co_await read(*serving, 0, {block, std::min(kPiece, volume.plan.blocks - block)}, 0);
      if (!result) engines_.fail(fmt::format("volume {}, healed: {}", volume.index, to_string(result.error())));
    }
    --serving->users;
  }
  *is_done = true;
}

}  // namespace fairlead::sim_test
