#include "io/uring_disk.h"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <linux/falloc.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/check.h"
#include "base/intrusive_list.h"
#include "io/disk_file.h"

// In the headers since Linux 6.12; bound here to the numbers of the kernel's interface.
#ifndef BLOCK_URING_CMD_DISCARD
#define BLOCK_URING_CMD_DISCARD _IO(0x12, 0)
#endif
#ifndef FALLOC_FL_NO_HIDE_STALE
#define FALLOC_FL_NO_HIDE_STALE 0x04
#endif

namespace fairlead {
namespace {

constexpr int kRetriesMax = 16;             // of a request that the kernel asks to repeat
constexpr uint64_t kTransferMax = 1 << 30;  // bytes an operation; the kernel's own limit is a little below 2 GiB

bool is_unsupported(int os_errno) { return os_errno == EOPNOTSUPP || os_errno == ENOSYS || os_errno == ENOTTY; }

class UringDisk final : public Disk {
 public:
  UringDisk(UringRing& ring, BufferPool& buffers, std::shared_ptr<NativeDiskFile> file)
      : ring_(ring), buffers_(buffers), file_(std::move(file)), logical_block_(file_->geometry().logical_block) {
    use_slot();
  }
  ~UringDisk() override {
    FL_CHECK(free_count_ == jobs_.size());
    if (slot_.has_value()) ring_.unregister_file(*slot_);
  }

  void submit(IoRequest& request) override {
    if (request.op != IoOp::kFlush && request.length == 0) return request.complete({});
    const std::optional<DiskStep> step = first_step(request);
    if (!step.has_value()) return request.complete(fail(Code::kNotSupported));
    Job& job = take_job();
    job.request = &request;
    job.moved = 0;
    job.retries = 0;
    run(job, *step);
  }

 private:
  // A request under way. Kept for the next one when it ends.
  struct Job : UringOp {
    explicit Job(UringDisk& owner) : UringOp(on_complete), disk(owner) {}
    static void on_complete(UringOp& op, int result, uint32_t) {
      Job& job = static_cast<Job&>(op);
      job.disk.on_result(job, result);
    }
    UringDisk& disk;
    IoRequest* request = nullptr;
    DiskStep step = DiskStep::kTransfer;
    uint64_t moved = 0;  // bytes of a transfer that are done
    int retries = 0;
    std::vector<iovec> rest;  // the buffers of what is not, after a short transfer
    Job* next_free = nullptr;
  };

  Job& take_job() {
    if (free_ == nullptr) {
      jobs_.push_back(std::make_unique<Job>(*this));
      ++free_count_;
      free_ = jobs_.back().get();
    }
    Job& job = *free_;
    free_ = std::exchange(job.next_free, nullptr);
    --free_count_;
    return job;
  }

  void finish(Job& job, Result<void> outcome) {
    IoRequest& request = *std::exchange(job.request, nullptr);
    job.rest.clear();
    job.next_free = std::exchange(free_, &job);
    ++free_count_;
    request.complete(outcome);
  }

  // The slot holds another open file than the one with the claim: the kernel may keep it a little longer than we do.
  void use_slot() {
    const int again = file_->open_again();
    if (again < 0) return;
    slot_ = ring_.register_file(again);
    ::close(again);
  }

  bool is_usable(DiskStep step) const {
    const bool for_devices = step == DiskStep::kDiscardCommand || step == DiskStep::kDiscardRange;
    return !(for_devices && file_->kind() == DiskKind::kFile) && !file_->is_missing(step);
  }

  // The ways of an operation, best first. Empty: the medium has none (left).
  std::optional<DiskStep> first_step(const IoRequest& request) const {
    switch (request.op) {
      case IoOp::kRead:
      case IoOp::kWrite:
        return DiskStep::kTransfer;
      case IoOp::kFlush:
        return DiskStep::kSync;
      case IoOp::kDiscard:
        return first_usable({DiskStep::kDiscardCommand, DiskStep::kDiscardRange, DiskStep::kPunchHole});
      case IoOp::kWriteZeroes:
        if (request.zero_mode == ZeroMode::kKeepAllocated) return first_usable({DiskStep::kZeroRange});
        return first_usable({DiskStep::kPunchHole, DiskStep::kZeroRange});
    }
    FL_UNREACHABLE("an IoOp");
  }
  std::optional<DiskStep> first_usable(std::initializer_list<DiskStep> steps) const {
    for (const DiskStep step : steps) {
      if (is_usable(step)) return step;
    }
    return std::nullopt;
  }

  void run(Job& job, DiskStep step) {
    job.step = step;
    io_uring_sqe* const entry = ring_.prepare(&job);
    const IoRequest& request = *job.request;
    switch (step) {
      case DiskStep::kTransfer:
        prepare_transfer(job, entry);
        break;
      case DiskStep::kDiscardCommand:
        io_uring_prep_rw(IORING_OP_URING_CMD, entry, file_->descriptor(), nullptr, 0, 0);
        entry->cmd_op = BLOCK_URING_CMD_DISCARD;
        entry->addr = request.offset.value;
        entry->addr3 = request.length;
        break;
      case DiskStep::kDiscardRange:
        prepare_fallocate(entry, request, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE | FALLOC_FL_NO_HIDE_STALE);
        break;
      case DiskStep::kPunchHole:
        prepare_fallocate(entry, request, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
        break;
      case DiskStep::kZeroRange:
        prepare_fallocate(entry, request, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE);
        break;
      case DiskStep::kSync:
        io_uring_prep_fsync(entry, file_->descriptor(), IORING_FSYNC_DATASYNC);
        break;
    }
    if (slot_.has_value()) {
      entry->fd = *slot_;
      entry->flags |= IOSQE_FIXED_FILE;
    }
  }

  void prepare_fallocate(io_uring_sqe* entry, const IoRequest& request, int mode) const {
    io_uring_prep_fallocate(entry, file_->descriptor(), mode, static_cast<off_t>(request.offset.value),
                            static_cast<off_t>(request.length));
  }

  void prepare_transfer(Job& job, io_uring_sqe* entry) const {
    const IoRequest& request = *job.request;
    const bool is_read = request.op == IoOp::kRead;
    const std::span<const iovec> list = buffers_left(job);
    const uint64_t offset = request.offset.value + job.moved;
    if (list.size() == 1) {
      const iovec& only = list.front();
      const auto length = static_cast<unsigned>(std::min<uint64_t>(only.iov_len, kTransferMax));
      const BufferPool::Place place = buffers_.find(only.iov_base);
      const bool is_fixed = place.slab >= 0 && place.offset + length <= BufferPool::kSlabBytes &&
                            ring_.is_registered(static_cast<size_t>(place.slab));
      const int fixed = is_read ? IORING_OP_READ_FIXED : IORING_OP_WRITE_FIXED;
      const int plain = is_read ? IORING_OP_READ : IORING_OP_WRITE;
      io_uring_prep_rw(is_fixed ? fixed : plain, entry, file_->descriptor(), only.iov_base, length, offset);
      if (is_fixed) entry->buf_index = static_cast<uint16_t>(place.slab);
    } else {
      io_uring_prep_rw(is_read ? IORING_OP_READV : IORING_OP_WRITEV, entry, file_->descriptor(), list.data(),
                       static_cast<unsigned>(list.size()), offset);
    }
    if (!is_read && request.durability == Durability::kForced) entry->rw_flags = RWF_DSYNC;
  }

  // The buffers of the next operation: the caller's own list as long as nothing was moved and the kernel takes it.
  static std::span<const iovec> buffers_left(Job& job) {
    const std::span<const iovec> all = job.request->buffers;
    if (job.moved == 0 && all.size() <= IOV_MAX) return all;
    job.rest.clear();
    uint64_t skip = job.moved;
    for (const iovec& buffer : all) {
      if (job.rest.size() == IOV_MAX) break;
      if (skip >= buffer.iov_len) {
        skip -= buffer.iov_len;
        continue;
      }
      job.rest.push_back({static_cast<std::byte*>(buffer.iov_base) + skip, buffer.iov_len - skip});
      skip = 0;
    }
    return job.rest;
  }

  void on_result(Job& job, int result) {
    if (result == -EINTR || result == -EAGAIN) {
      if (++job.retries <= kRetriesMax) return run(job, job.step);
      return finish(job, fail_errno(EIO, "the kernel asked again and again to repeat the request"));
    }
    switch (job.step) {
      case DiskStep::kTransfer:
        return on_transferred(job, result);
      case DiskStep::kSync:
        return finish(job, result < 0 ? Result<void>(fail_medium(-result, "flush")) : Result<void>());
      case DiskStep::kDiscardCommand:
      case DiskStep::kDiscardRange:
      case DiskStep::kPunchHole:
      case DiskStep::kZeroRange:
        return on_range_done(job, result);
    }
  }

  void on_transferred(Job& job, int result) {
    const char* const what = job.request->op == IoOp::kRead ? "read" : "write";
    if (result < 0) return finish(job, fail_medium(-result, what));
    // Direct I/O goes on at whole blocks only.
    const uint64_t moved = align_down(static_cast<uint64_t>(result), logical_block_);
    if (moved == 0) return finish(job, fail(Code::kIo, "the file or device ends before its size"));
    job.moved += moved;
    job.retries = 0;
    if (job.moved < job.request->length) return run(job, DiskStep::kTransfer);
    finish(job, {});
  }

  void on_range_done(Job& job, int result) {
    const IoRequest& request = *job.request;
    if (result < 0 && is_unsupported(-result)) {
      file_->note_missing(job.step);
      const std::optional<DiskStep> other = first_step(request);
      return other.has_value() ? run(job, *other) : finish(job, fail(Code::kNotSupported));
    }
    if (result < 0) return finish(job, fail_medium(-result, request.op == IoOp::kDiscard ? "discard" : "write zeroes"));
    const bool must_sync = request.op == IoOp::kWriteZeroes && request.durability == Durability::kForced;
    return must_sync ? run(job, DiskStep::kSync) : finish(job, {});
  }

  // What a medium may say for itself; everything else is an I/O error to the layers above.
  static std::unexpected<Error> fail_medium(int os_errno, const char* what) {
    Error error = error_from_errno(os_errno, what);
    const bool is_plain = error.code == Code::kNoSpace || error.code == Code::kReadOnly;
    if (!is_plain) error.code = Code::kIo;
    return std::unexpected(error);
  }

  UringRing& ring_;
  BufferPool& buffers_;
  const std::shared_ptr<NativeDiskFile> file_;
  const uint64_t logical_block_;
  std::optional<int> slot_;
  std::vector<std::unique_ptr<Job>> jobs_;
  size_t free_count_ = 0;
  Job* free_ = nullptr;
};

}  // namespace

Result<std::shared_ptr<DiskFile>> UringStorage::open(const OpenDisk& options) { return open_disk_file(options); }

Result<std::unique_ptr<Disk>> UringStorage::attach(std::shared_ptr<DiskFile> file) {
  auto ours = std::dynamic_pointer_cast<NativeDiskFile>(std::move(file));
  FL_CHECK(ours != nullptr);
  return std::make_unique<UringDisk>(ring_, buffers_, std::move(ours));
}

}  // namespace fairlead
