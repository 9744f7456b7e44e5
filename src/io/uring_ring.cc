#include "io/uring_ring.h"

#include <cerrno>
#include <fcntl.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"

namespace fairlead {
namespace {

// kernel.io_uring_disabled: 1 allows only a group and CAP_SYS_ADMIN, 2 nobody.
bool is_switched_off_by_sysctl() {
  const int descriptor = ::open("/proc/sys/kernel/io_uring_disabled", O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return false;
  char value = '0';
  const ssize_t length = ::read(descriptor, &value, 1);
  ::close(descriptor);
  return length == 1 && value != '0';
}

Error explain_setup_failure(int os_errno) {
  switch (os_errno) {
    case EPERM:
      if (is_switched_off_by_sysctl()) {
        return {Code::kPermissionDenied, os_errno,
                "io_uring is switched off: set the sysctl kernel.io_uring_disabled=0"};
      }
      return {Code::kPermissionDenied, os_errno,
              "io_uring is refused, most likely by a seccomp profile: allow io_uring_setup, io_uring_enter and "
              "io_uring_register"};
    case ENOSYS:
      return {Code::kNotSupported, os_errno,
              "the kernel has no io_uring or a seccomp profile hides it: Linux 6.1 or newer is needed"};
    case EINVAL:
      return {Code::kNotSupported, os_errno, "the kernel's io_uring is too old: Linux 6.1 or newer is needed"};
    default:
      return error_from_errno(os_errno, "set up io_uring");
  }
}

// What may pass by itself: a signal, memory pressure, completions that must be reaped first.
bool is_transient(int result) { return result == -EINTR || result == -EAGAIN || result == -EBUSY || result == -ETIME; }

}  // namespace

Result<std::unique_ptr<UringRing>> UringRing::create(Options options) {
  std::unique_ptr<UringRing> ring(new UringRing);
  io_uring_params parameters{};
  parameters.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
                     IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
  parameters.cq_entries = options.completion_entries;
  if (const int result = io_uring_queue_init_params(options.entries, &ring->ring_, &parameters); result < 0) {
    ring->ring_.ring_fd = -1;
    return std::unexpected(explain_setup_failure(-result));
  }
  constexpr unsigned kNeeded = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_SUBMIT_STABLE;
  FL_CHECK((parameters.features & kNeeded) == kNeeded);  // older than the flags above
  ring->register_tables(options);
  return ring;
}

// All three only make things quicker; each may be refused.
void UringRing::register_tables(const Options& options) {
  (void)io_uring_register_ring_fd(&ring_);
  if (options.files > 0 && io_uring_register_files_sparse(&ring_, options.files) == 0) {
    for (int slot = static_cast<int>(options.files) - 1; slot >= 0; --slot) free_files_.push_back(slot);
  }
  if (options.buffers > 0 && io_uring_register_buffers_sparse(&ring_, options.buffers) == 0) {
    buffer_registered_.resize(options.buffers);
  }
}

UringRing::~UringRing() {
  if (ring_.ring_fd < 0) return;
  FL_CHECK(in_flight_ == 0);
  io_uring_queue_exit(&ring_);
}

io_uring_sqe* UringRing::prepare(UringOp* op) {
  ++in_flight_;
  io_uring_sqe* entry = backlog_first_ == backlog_.size() ? io_uring_get_sqe(&ring_) : nullptr;
  if (entry == nullptr) entry = &backlog_.emplace_back();
  io_uring_sqe_set_data(entry, op);
  return entry;
}

void UringRing::cancel(UringOp& op) { io_uring_prep_cancel(prepare(nullptr), &op, 0); }

void UringRing::move_backlog() {
  while (backlog_first_ != backlog_.size()) {
    io_uring_sqe* const entry = io_uring_get_sqe(&ring_);
    if (entry == nullptr) return;
    *entry = backlog_[backlog_first_++];
  }
  backlog_.clear();
  backlog_first_ = 0;
}

void UringRing::submit() {
  do {
    move_backlog();
    const unsigned flags = IO_URING_READ_ONCE(*ring_.sq.kflags);
    if (io_uring_sq_ready(&ring_) == 0 && (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) == 0) return;
    const int result = io_uring_submit_and_get_events(&ring_);
    if (result < 0) {
      FL_CHECK(is_transient(result));
      return;  // what was not taken stays in the ring for the next turn
    }
  } while (backlog_first_ != backlog_.size());
}

void UringRing::wait(std::optional<Duration> limit) {
  if (backlog_first_ != backlog_.size()) submit();
  __kernel_timespec span{};
  if (limit.has_value()) {
    span.tv_sec = limit->count() / 1'000'000'000;
    span.tv_nsec = limit->count() % 1'000'000'000;
  }
  io_uring_cqe* first = nullptr;
  const int result = io_uring_submit_and_wait_timeout(&ring_, &first, 1, limit.has_value() ? &span : nullptr, nullptr);
  FL_CHECK(result >= 0 || is_transient(result));
}

size_t UringRing::reap(size_t budget) {
  size_t count = 0;
  for (; count < budget; ++count) {
    unsigned head = 0;
    io_uring_cqe* entry = nullptr;
    io_uring_for_each_cqe(&ring_, head, entry) break;
    if (entry == nullptr) break;
    auto* const op = static_cast<UringOp*>(io_uring_cqe_get_data(entry));
    const int result = entry->res;
    const uint32_t flags = entry->flags;
    io_uring_cq_advance(&ring_, 1);
    if ((flags & IORING_CQE_F_MORE) == 0) {
      FL_CHECK(in_flight_ > 0);
      --in_flight_;
    }
    if (op != nullptr) op->complete(*op, result, flags);
  }
  return count;
}

bool UringRing::has_events() const {
  return io_uring_cq_ready(&ring_) != 0 ||
         (IO_URING_READ_ONCE(*ring_.sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

std::optional<int> UringRing::register_file(int descriptor) {
  if (free_files_.empty()) return std::nullopt;
  const int slot = free_files_.back();
  if (io_uring_register_files_update(&ring_, static_cast<unsigned>(slot), &descriptor, 1) != 1) return std::nullopt;
  free_files_.pop_back();
  return slot;
}

void UringRing::unregister_file(int slot) {
  const int none = -1;
  const int result = io_uring_register_files_update(&ring_, static_cast<unsigned>(slot), &none, 1);
  if (result == 1) free_files_.push_back(slot);  // else the slot is lost until the ring ends, and nothing more
}

bool UringRing::register_buffer(size_t index, std::span<std::byte> memory) {
  if (index >= buffer_registered_.size()) return false;
  const iovec range{memory.data(), memory.size()};
  const __u64 no_tag = 0;
  const int result = io_uring_register_buffers_update_tag(&ring_, static_cast<unsigned>(index), &range, &no_tag, 1);
  if (result < 0) {
    if (!registration_failure_told_) {
      log_info("io.buffers_not_registered", {{"reason", to_string(error_from_errno(-result, "pin memory"))},
                                             {"hint", "raise the limit of locked memory (LimitMEMLOCK)"}});
    }
    registration_failure_told_ = true;
    return false;
  }
  buffer_registered_[index] = true;
  return true;
}

}  // namespace fairlead
