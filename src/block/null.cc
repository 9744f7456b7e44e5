#include "block/null.h"

#include <cstring>

#include "block/inline_completion.h"

namespace fairlead {
namespace {

class NullDevice final : public BlockDevice {
 public:
  NullDevice(Shard& shard, const BlockGeometry& geometry) : BlockDevice(geometry), completion_(shard.reactor) {
    takes_writes_at_once_ = true;
  }

 private:
  void execute(IoRequest& request) override {
    if (request.op == IoOp::kRead && request.may_say_zeroes) {
      request.says_zeroes = true;
    } else if (request.op == IoOp::kRead) {
      for (const iovec& buffer : request.buffers) {
        if (buffer.iov_len > 0) std::memset(buffer.iov_base, 0, buffer.iov_len);
      }
    }
    completion_.complete(request);
  }
  InlineCompletion completion_;
};

class NullSource final : public BlockSource {
 public:
  explicit NullSource(const BlockGeometry& geometry) : geometry_(geometry) {}
  Result<std::unique_ptr<BlockDevice>> open(Shard& shard) override {
    return std::make_unique<NullDevice>(shard, geometry_);
  }

 private:
  const BlockGeometry geometry_;
};

}  // namespace

Result<std::shared_ptr<BlockSource>> make_null_source(NullOptions options) {
  const BlockGeometry geometry = {.size_bytes = options.size_bytes,
                                  .logical_block = options.logical_block,
                                  .physical_block = options.logical_block,
                                  .optimal_io = 0,
                                  .discard_granularity = options.logical_block,
                                  .discard_zeroes = true,
                                  .volatile_cache = false,
                                  .read_only = false};
  FL_TRY_VOID(check_geometry(geometry));
  return std::make_shared<NullSource>(geometry);
}

}  // namespace fairlead
