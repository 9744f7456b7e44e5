#include "mirror/mirror_device.h"

#include "mirror/test_slots.h"

namespace fairlead::mirror {
namespace {

using test::Asked;
using test::SideBed;

TEST(MirrorDeviceTest, IsAsLargeAsTheVolume) {
  SideBed bed(1);
  BlockDevice& device = *bed.devices[0];
  EXPECT_EQ(device.geometry().size_bytes, 4 * kMiB);
  EXPECT_EQ(device.geometry().logical_block, 512U);
  EXPECT_FALSE(device.geometry().discard_zeroes) << "less than 4 KiB is left as it is";
  EXPECT_TRUE(device.geometry().volatile_cache);
  EXPECT_TRUE(bed.read(4 * kMiB, 512).has_failed(Code::kOutOfRange));
  bed.shared->size_bytes = 8 * kMiB;
  EXPECT_TRUE(bed.read(4 * kMiB, 512).has_failed(Code::kOutOfRange)) << "until it looks";
  bed.replicas[0]->content.resize(8 * kMiB);
  EXPECT_EQ(device.refresh_size(), Result<uint64_t>(8 * kMiB));
  Asked& read = bed.read(4 * kMiB, 512);
  EXPECT_TRUE(read.is_answered());
}

TEST(MirrorDeviceTest, OpensOnTheShardsOfTheSidesAlone) {
  SideBed bed(1, 2);
  const auto another = bed.source->open(bed.node.shard(1));
  EXPECT_TRUE(another.has_value()) << "any number of them";
  sim::SimNode& elsewhere = bed.world.add_node("10.0.0.2");
  const auto none = bed.source->open(elsewhere.shard(0));
  ASSERT_FALSE(none.has_value());
  EXPECT_EQ(none.error().code, Code::kInvalidArgument);
}

TEST(MirrorDeviceTest, RefusesWhatNoDeviceTakes) {
  SideBed bed(1, 1, 4 * kMiB);
  EXPECT_TRUE(bed.read(100, 512).has_failed(Code::kInvalidArgument));
  EXPECT_TRUE(bed.write(0, 0, std::byte{1}).is_done());
  EXPECT_TRUE(bed.replicas[0]->asked.empty());
}

}  // namespace
}  // namespace fairlead::mirror
