#include "control_groups.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>

#include "base/check.h"
#include "engines_user.h"

namespace fairlead::sim_test {

using std::chrono::milliseconds;

namespace {

constexpr size_t kBlock = ControlHost::kBlock;
constexpr size_t kPiece = 128 << 10;

Task<Result<void>> write_count(Shard& shard, BlockDevice& device, uint64_t at, uint64_t count) {
  PlacedBytes memory(kBlock, 0);
  std::memcpy(memory.bytes().data(), &count, sizeof count);
  iovec piece{memory.bytes().data(), memory.bytes().size()};
  co_return co_await block_write(shard.reactor, device, ByteOffset(at), {&piece, 1}, Durability::kVolatile);
}

}  // namespace

ControlCounter::ControlCounter(ControlCluster& cluster, std::array<Uuid, 2> volumes, uint64_t at)
    : cluster_(cluster),
      node_(cluster.world->add_node("10.0.1.250", {.shards = 1, .more_addresses = {}})),
      volumes_(volumes),
      at_(at) {}

Task<void> ControlCounter::live() {
  Shard& home = node_.shard(0);
  std::array<std::unique_ptr<host::Subsystem>, 2> subsystems;
  for (size_t i = 0; i < 2; ++i) {
    subsystems[i] = co_await connect_host(cluster_, node_, volumes_[i]);
    if (subsystems[i] == nullptr) continue;
    auto device = (*subsystems[i]->source(1))->open(home);
    FL_CHECK(device.has_value());
    devices_[i] = std::move(*device);
  }
  Scope working(home.reactor);
  if (devices_[0] != nullptr && devices_[1] != nullptr) working.spawn(work());
  co_await node_.stopping(0).wait();
  for (const auto& subsystem : subsystems) {
    if (subsystem != nullptr) co_await subsystem->stop();
  }
  co_await working.close();
  devices_ = {};
}

Task<void> ControlCounter::work() {
  while (!cluster_.is_over && !node_.stopping(0).is_set() && cluster_.failure.empty()) {
    const uint64_t next = count_ + 1;
    for (const auto& device : devices_) {
      const Result<void> done = co_await write_count(node_.shard(0), *device, at_, next);
      if (!done && !node_.stopping(0).is_set()) cluster_.fail("counting: " + to_string(done.error()));
      if (!done) co_return;
    }
    count_ = next;
    (void)co_await sleep(node_.shard(0).reactor, milliseconds(4), node_.cancel(0));
  }
}

Task<void> read_object(EngineProcess& engine, Uuid id, uint64_t bytes, Content* content, bool* is_done) {
  pool::Pool* const pool = engine.pool();
  const std::string begin = to_string(id);
  std::string name;
  if (pool != nullptr) {
    for (const pool::ObjectInfo& object : pool->list()) {
      if (object.state.name.starts_with(begin)) name = object.state.name;
    }
  }
  if (!name.empty()) {
    const auto source = co_await pool->source(name);
    FL_CHECK(source.has_value());
    const auto device = (*source)->open(engine.node().shard(0));
    FL_CHECK(device.has_value());
    content->emplace();
    PlacedBytes memory(kPiece, 0);
    while ((*content)->size() < bytes) {
      const uint64_t at = (*content)->size();
      iovec piece{memory.bytes().data(), std::min<uint64_t>(kPiece, bytes - at)};
      const Result<void> done =
          co_await block_read(engine.node().shard(0).reactor, **device, ByteOffset(at), {&piece, 1});
      FL_CHECK(done.has_value());
      (*content)->insert((*content)->end(), memory.bytes().begin(),
                         memory.bytes().begin() + static_cast<std::ptrdiff_t>(piece.iov_len));
    }
  }
  *is_done = true;
}

uint64_t count_in(const std::vector<std::byte>& content, uint64_t at) {
  uint64_t number = 0;
  FL_CHECK(at + sizeof number <= content.size());
  std::memcpy(&number, content.data() + at, sizeof number);
  return number;
}

}  // namespace fairlead::sim_test
