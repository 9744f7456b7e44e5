#include "block/block_device.h"

namespace fairlead {
namespace {

// Whether the pieces sum up to `length` exactly, without a sum that could wrap.
bool sums_up(std::span<const iovec> buffers, uint64_t length) {
  for (const iovec& buffer : buffers) {
    if (buffer.iov_len > length) return false;
    length -= buffer.iov_len;
  }
  return length == 0;
}

bool changes(IoOp op) { return op == IoOp::kWrite || op == IoOp::kDiscard || op == IoOp::kWriteZeroes; }

}  // namespace

Result<void> check_request(const IoRequest& request, const BlockGeometry& geometry) {
  if (request.op == IoOp::kFlush) {
    if (request.length != 0) return fail(Code::kInvalidArgument, "a flush has no length");
    return {};
  }
  if (changes(request.op) && geometry.read_only) return fail(Code::kReadOnly);
  const uint64_t offset = request.offset.value;
  if (!is_aligned(offset | request.length, geometry.logical_block)) {
    return fail(Code::kInvalidArgument, "not a multiple of the logical block");
  }
  if (request.length > geometry.size_bytes || offset > geometry.size_bytes - request.length) {
    return fail(Code::kOutOfRange);
  }
  const bool moves_data = request.op == IoOp::kRead || request.op == IoOp::kWrite;
  if (moves_data && !sums_up(request.buffers, request.length)) {
    return fail(Code::kInvalidArgument, "the buffers do not sum up to the length");
  }
  return {};
}

void BlockDevice::submit(IoRequest& request) {
  Result<void> checked = check_request(request, geometry_);
  const bool nothing_to_do = request.length == 0 && request.op != IoOp::kFlush;
  if (!checked || nothing_to_do) [[unlikely]] {
    request.complete(checked);
    return;
  }
  execute(request);
}

Result<void> check_geometry(const BlockGeometry& geometry) {
  if (geometry.logical_block != 512 && geometry.logical_block != 4096) {
    return fail(Code::kInvalidArgument, "a logical block has 512 or 4096 bytes");
  }
  if (geometry.size_bytes == 0 || !is_aligned(geometry.size_bytes, geometry.logical_block)) {
    return fail(Code::kInvalidArgument, "the size must be a multiple of the logical block, and not 0");
  }
  return {};
}

}  // namespace fairlead
