// A namespace of a Fairlead target by way of src/host, in simulated worlds.
#include "host/subsystem.h"

#include <gmock/gmock.h>

#include "host/remote_device.h"
#include "tests/support/host_session.h"
#include "tests/support/target_bed.h"

namespace fairlead::host {
namespace {

using testing::BedOptions;
using testing::HostSession;
using testing::kNqn;
using testing::pattern;
using testing::TargetBed;

Task<void> describes_what_is_there(TargetBed& bed) {
  HostSession session(bed);
  CO_ASSERT_TRUE(co_await session.open());
  const auto namespaces = session.subsystem().namespaces();
  CO_ASSERT_TRUE(namespaces.size() == 1);
  EXPECT_EQ(namespaces[0].identity.nsid, 1U);
  EXPECT_FALSE(namespaces[0].identity.uuid.is_nil());
  const BlockGeometry& geometry = session.device().geometry();
  EXPECT_EQ(geometry.size_bytes, 16 * kMiB);
  EXPECT_EQ(geometry.logical_block, 4096U);
  EXPECT_FALSE(geometry.read_only);
  const auto controllers = session.subsystem().controllers();
  CO_ASSERT_TRUE(controllers.size() == 1);
  EXPECT_EQ(controllers[0].state, ControllerState::kLive);
  EXPECT_EQ(controllers[0].info.subsystem_nqn, kNqn);
  EXPECT_EQ(controllers[0].info.io_queues, bed.options.client_shards);
  EXPECT_FALSE(session.subsystem().source(2).has_value());
  co_await session.close();
}
TEST(SubsystemTest, DescribesWhatIsThere) { run_in_worlds(describes_what_is_there); }

// Every kind of request, of sizes below, at and above what goes in a capsule and what one command moves (MDTS).
Task<void> moves_data(TargetBed& bed) {
  HostSession session(bed);
  CO_ASSERT_TRUE(co_await session.open());
  BlockDevice& device = session.device();
  Reactor& reactor = bed.reactor();
  const uint64_t mdts = session.subsystem().controllers()[0].info.transfer_max;
  for (const uint64_t length : {4 * kKiB, 16 * kKiB, 20 * kKiB, mdts, 3 * mdts + 8 * kKiB}) {
    SCOPED_TRACE(length);
    const ByteOffset offset{length == 4 * kKiB ? 0 : 2 * kMiB};
    std::vector<std::byte> data = pattern(length, length);
    // In pieces of odd sizes: the list is the caller's affair.
    std::vector<iovec> pieces;
    for (size_t at = 0, step = 1; at < length; at += step, step = step * 3 % 70001) {
      pieces.push_back({data.data() + at, std::min<size_t>(step, length - at)});
      step = pieces.back().iov_len;
    }
    EXPECT_TRUE(co_await block_write(reactor, device, offset, pieces, Durability::kForced));
    std::vector<std::byte> back(length);
    const iovec whole{back.data(), back.size()};
    EXPECT_TRUE(co_await block_read(reactor, device, offset, {&whole, 1}));
    EXPECT_TRUE(back == data);
    EXPECT_TRUE(co_await session.device().compare(offset, pieces));
    data[length / 2] ^= std::byte{1};
    const Result<void> differs = co_await session.device().compare(offset, pieces);
    EXPECT_FALSE(differs);
    if (!differs) EXPECT_EQ(differs.error().code, Code::kMiscompare);
    EXPECT_TRUE(co_await block_flush(reactor, device));
    EXPECT_TRUE(co_await block_write_zeroes(reactor, device, offset, length));
    EXPECT_TRUE(co_await block_read(reactor, device, offset, {&whole, 1}));
    EXPECT_TRUE(std::ranges::all_of(back, [](std::byte byte) { return byte == std::byte{0}; }));
    EXPECT_TRUE(co_await block_discard(reactor, device, offset, length));
  }
  co_await session.close();
}
TEST(SubsystemTest, MovesData) { run_in_worlds(moves_data, {.target = {.transfer_shift = 3}}); }
TEST(SubsystemTest, MovesDataInLargePieces) { TargetBed().run(moves_data); }

}  // namespace
}  // namespace fairlead::host
