#include "engines_user.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace fairlead::sim_test {

using sim::Prng;
using test::BlockHistory;
using test::BlockRange;
using Surely = BlockHistory::Surely;

namespace {

// Of a host's memory behind a page.
size_t draw_shift(Prng& random) { return std::array<size_t, 3>{0, 512, 16}[random.below(3)]; }

}  // namespace

EngineUser::EngineUser(Engines& engines, EngineVolume& volume, sim::SimNode& node, size_t shard, BlockDevice& device,
                       std::string who)
    : engines_(engines), volume_(volume), node_(node), shard_(shard), device_(device), who_(std::move(who)) {}

BlockRange EngineUser::draw_range(Prng& random) const {
  constexpr uint64_t kBlocks = kEngineUnit / kEngineBlock;
  const uint64_t units = volume_.plan.blocks / kBlocks;
  const uint64_t count = std::min(random.skewed(1, volume_.plan.unit_max), units);
  // Some places are liked by all.
  const uint64_t first =
      random.coin() ? random.below(units - count + 1) : random.below(std::min<uint64_t>(8, units - count + 1));
  return {first * kBlocks, count * kBlocks};
}

// Hosts have patience: they wait for a path for ever. One that waits for its commands for a while only gives them up
// when the volume is suspended for longer, again and again. Of a medium that fails they are told when the others that
// have the bytes are away.
void EngineUser::judge(std::string_view what, const Result<void>& result) {
  if (result || !volume_.plan.has_host || node_.stopping(0).is_set()) return;
  ++engines_.counts.host_errors;
  const bool may_give_up = engines_.plan.user.command_timeout < kPatience;
  const bool is_sick = engines_.has_been_sick &&
                       std::ranges::find(volume_.plan.engines, *engines_.plan.sick) != volume_.plan.engines.end();
  const bool may_fail = is_sick || engines_.plan.disk.transient_read_error_ppm > 0;
  const Code code = result.error().code;
  if ((code == Code::kCancelled && may_give_up) || (code == Code::kIo && may_fail)) return;
  engines_.fail(fmt::format("volume {}, {}: {}: {}", volume_.index, who_, what, to_string(result.error())));
}

Task<Result<void>> EngineUser::read(BlockRange range, size_t shift) {
  PlacedBytes memory(range.count * kEngineBlock, shift);
  const std::span<std::byte> bytes = memory.bytes();
  iovec piece{bytes.data(), bytes.size()};
  const uint64_t began = volume_.clock.begin_read();
  const Result<void> result =
      co_await block_read(reactor(), device_, ByteOffset(range.first * kEngineBlock), {&piece, 1});
  judge("read", result);
  if (result) {
    ++engines_.counts.reads;
    const std::string wrong = volume_.history.check_read(began, range, bytes, kEngineBlock);
    if (!wrong.empty()) engines_.fail(fmt::format("volume {}, {}: {}", volume_.index, who_, wrong));
  }
  volume_.clock.end_read(began);
  co_return result;
}

Task<Result<void>> EngineUser::write_data(BlockRange range, test::Content content, Durability durability,
                                          size_t shift) {
  PlacedBytes memory(range.count * kEngineBlock, shift);
  const std::span<std::byte> bytes = memory.bytes();
  for (uint64_t i = 0; i < range.count; ++i) {
    test::fill_block(bytes.subspan(i * kEngineBlock, kEngineBlock), range.first + i, content);
  }
  iovec piece{bytes.data(), bytes.size()};
  co_return co_await block_write(reactor(), device_, ByteOffset(range.first * kEngineBlock), {&piece, 1}, durability);
}

Task<void> EngineUser::change(BlockRange range, Prng& random) {
  // A host keeps what it writes apart: its NVMe driver orders nothing.
  if (volume_.plan.has_host && volume_.is_being_written(range)) co_return;
  const auto offset = ByteOffset(range.first * kEngineBlock);
  const uint64_t length = range.count * kEngineBlock;
  bool is_durable = false;
  Surely surely = Surely::kYes;
  uint64_t request = 0;
  Result<void> result;
  if (random.one_in(4)) {
    request = volume_.begin_write(range, true);
    if (random.coin()) {
      result = co_await block_write_zeroes(reactor(), device_, offset, length);
    } else {
      result = co_await block_discard(reactor(), device_, offset, length);
      if (!device_.geometry().discard_zeroes) surely = Surely::kPerhaps;
    }
  } else {
    is_durable = random.one_in(5);
    request = volume_.begin_write(range, false);
    result = co_await write_data(range, request, is_durable ? Durability::kForced : Durability::kVolatile,
                                 draw_shift(random));
  }
  judge("write", result);
  if (result) ++engines_.counts.acknowledged;
  volume_.end_write(request, result, surely, is_durable);
}

Task<void> EngineUser::flush() {
  const uint64_t began = volume_.clock.tick();
  const Result<void> result = co_await block_flush(reactor(), device_);
  judge("flush", result);
  if (!result) co_return;
  ++engines_.counts.flushes;
  volume_.history.flushed(began);
}

Task<void> EngineUser::do_one(Prng& random) {
  const uint64_t what = random.below(20);
  if (what == 0) {
    co_await flush();
  } else if (what < 9) {
    const BlockRange range = draw_range(random);
    (void)co_await read(range, draw_shift(random));
  } else {
    co_await change(draw_range(random), random);
  }
}

Task<void> EngineUser::read_all() {
  constexpr uint64_t kPiece = 64 * kKiB / kEngineBlock;
  for (uint64_t block = 0; block < volume_.plan.blocks && engines_.failure.empty(); block += kPiece) {
    const Result<void> result = co_await read({block, std::min(kPiece, volume_.plan.blocks - block)}, 0);
    if (!result) engines_.fail(fmt::format("volume {}, healed: {}", volume_.index, to_string(result.error())));
  }
}

}  // namespace fairlead::sim_test
