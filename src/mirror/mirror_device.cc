#include "mirror/mirror_device.h"

#include <utility>

namespace fairlead::mirror {
namespace {

BlockGeometry geometry_of(const MirrorShared& shared) {
  return {.size_bytes = shared.size_bytes.load(),
          .logical_block = shared.logical_block,
          .physical_block = 4096,
          .optimal_io = 0,
          .discard_granularity = 4096,
          .discard_zeroes = shared.logical_block == 4096,  // smaller ones may be left over at the ends
          .volatile_cache = true,
          .read_only = false};
}

class MirrorDevice final : public BlockDevice {
 public:
  explicit MirrorDevice(MirrorSide& side) : BlockDevice(geometry_of(*side.shared())), side_(side) {
    side_.device_opened();
  }
  ~MirrorDevice() override { side_.device_closed(); }

  Result<uint64_t> refresh_size() override { return geometry_.size_bytes = side_.refresh_size(); }

 private:
  void execute(IoRequest& request) override { side_.submit(request); }

  MirrorSide& side_;
};

class MirrorSource final : public BlockSource {
 public:
  explicit MirrorSource(std::vector<MirrorSide*> sides) : sides_(std::move(sides)) {}
  Result<std::unique_ptr<BlockDevice>> open(Shard& shard) override {
    for (MirrorSide* const side : sides_) {
      if (&side->shard() == &shard) return std::make_unique<MirrorDevice>(*side);
    }
    return fail(Code::kInvalidArgument, "the volume is not served on this shard");
  }

 private:
  const std::vector<MirrorSide*> sides_;
};

}  // namespace

std::shared_ptr<BlockSource> make_mirror_source(std::vector<MirrorSide*> sides) {
  return std::make_shared<MirrorSource>(std::move(sides));
}

}  // namespace fairlead::mirror
