// The Storage seam over SimDevice: opening, claims, and the way of a request to its device and back.
#include <algorithm>

#include "base/fault.h"
#include "sim/disk.h"

namespace fairlead::sim {

Result<std::shared_ptr<DiskFile>> SimStorage::open(const OpenDisk& options) {
  if (!boot_->alive) return fail(Code::kShuttingDown, "the node is down");
  SimDevice* device = devices_.find_device(boot_->node, options.path);
  if (device == nullptr) {
    if (!options.size_bytes) return fail(Code::kNotFound, "open");
    device = &devices_.make_file(boot_->node, options.path, *options.size_bytes);
  }
  if (options.access == Access::kReadWrite && device->options().read_only) return fail(Code::kReadOnly, "open");
  FL_TRY(const uint64_t token, device->claim());
  if (options.size_bytes && *options.size_bytes != device->size_bytes()) {
    if (*options.size_bytes < device->size_bytes() || !device->options().is_file) {
      device->release(token);
      return fail(Code::kInvalidArgument, "it has another size");
    }
    device->resize(align_up(*options.size_bytes, device->options().logical_block));
  }
  return std::make_shared<SimDiskFile>(*device, token, options.access, boot_);
}

Result<std::unique_ptr<Disk>> SimStorage::attach(std::shared_ptr<DiskFile> file) {
  if (!boot_->alive) return fail(Code::kShuttingDown, "the node is down");
  return std::make_unique<SimDisk>(std::static_pointer_cast<SimDiskFile>(std::move(file)), reactor_, boot_);
}

SimDiskFile::SimDiskFile(SimDevice& device, uint64_t token, Access access, std::shared_ptr<const Boot> boot)
    : device_(device), token_(token), boot_(std::move(boot)) {
  const SimDiskOptions& options = device.options();
  geometry_ = {.size_bytes = device.size_bytes(),
               .logical_block = options.logical_block,
               .physical_block = options.physical_block,
               .optimal_io = 0,
               .discard_granularity = options.discard_granularity,
               .discard_zeroes = options.discard_granularity != 0 && options.discard_reads == DiscardReads::kZeroes,
               .volatile_cache = options.cache == Cache::kVolatile,
               .read_only = options.read_only || access == Access::kReadOnly};
}

SimDiskFile::~SimDiskFile() { device_.release(token_); }

Result<uint64_t> SimDiskFile::refresh_size() {
  if (!boot_->alive) return fail(Code::kShuttingDown, "the node is down");
  geometry_.size_bytes = device_.size_bytes();
  return geometry_.size_bytes;
}

DiskOp::DiskOp() : Runnable([](Runnable& self) { SimDisk::deliver(static_cast<DiskOp&>(self)); }) {}

SimDisk::SimDisk(std::shared_ptr<SimDiskFile> file, Reactor& reactor, std::shared_ptr<const Boot> boot)
    : file_(std::move(file)), reactor_(reactor), boot_(std::move(boot)) {}

SimDisk::~SimDisk() { FL_CHECK(under_way_ == 0); }

// What the kernel would refuse with O_DIRECT is a defect of the caller.
void SimDisk::check_request(const IoRequest& request) const {
  const uint64_t block = file_->device().options().logical_block;
  FL_CHECK(is_aligned(request.offset.value, block) && is_aligned(request.length, block));
  FL_CHECK(request.offset.value + request.length <= file_->geometry().size_bytes);
  if (request.op == IoOp::kFlush) return;
  FL_CHECK(request.length > 0);
  if (request.op != IoOp::kRead && request.op != IoOp::kWrite) return;
  FL_CHECK(total_length(request.buffers) == request.length);
  for (const iovec& buffer : request.buffers) {
    FL_CHECK(is_aligned(reinterpret_cast<uintptr_t>(buffer.iov_base), block) && is_aligned(buffer.iov_len, block));
  }
}

void SimDisk::submit(IoRequest& request) {
  check_request(request);
  auto op = std::make_unique<DiskOp>();
  op->request = &request;
  op->disk = this;
  ++under_way_;
  if (!boot_->alive) {
    op->outcome = fail(Code::kCancelled, "the node crashed");
    finished(std::move(op));
    return;
  }
  const bool changes = request.op != IoOp::kRead && request.op != IoOp::kFlush;
  if (changes && file_->geometry().read_only) {
    op->outcome = fail(Code::kReadOnly, "the disk was opened for reading");
    finished(std::move(op));
    return;
  }
  file_->device().submit(std::move(op));
}

void SimDisk::finished(std::unique_ptr<DiskOp> op) {
  reactor_.post(*op);
  finished_.emplace(op.get(), std::move(op));
}

void SimDisk::deliver(DiskOp& op) {
  SimDisk& disk = *op.disk;
  if (fault(FaultPoint::kDelayCompletion)) {
    disk.reactor_.post(op);
    return;
  }
  IoRequest& request = *op.request;
  const Result<void> outcome = op.outcome;
  disk.finished_.erase(&op);  // frees the operation
  --disk.under_way_;
  request.complete(outcome);  // may end the disk
}

}  // namespace fairlead::sim
