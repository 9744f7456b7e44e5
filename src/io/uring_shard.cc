#include "io/uring_shard.h"

#include <cerrno>
#include <ctime>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/check.h"

namespace fairlead {
namespace {

constexpr size_t kReadyBudget = 256;       // runnables a turn, so that completions and timers are seen between
constexpr size_t kReapBudget = 1024;       // completions a turn
constexpr int kLooksBetweenClocks = 32;    // while spinning
constexpr int64_t kDrainLimitSeconds = 5;  // longer: an operation was left behind, a defect

Instant read_clock(clockid_t id) {
  timespec at{};
  FL_CHECK(::clock_gettime(id, &at) == 0);
  return Instant{int64_t{at.tv_sec} * 1'000'000'000 + at.tv_nsec};
}

void relax_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

Instant UringClock::now() const { return read_clock(CLOCK_MONOTONIC); }
uint64_t UringClock::wall_ms() const { return static_cast<uint64_t>(read_clock(CLOCK_REALTIME).ns) / 1'000'000; }

namespace {

Xoshiro::State seed_from_kernel() {
  Xoshiro::State state{};
  FL_CHECK(::getrandom(state.data(), sizeof state, 0) == static_cast<ssize_t>(sizeof state));
  state[0] |= 1;  // all zeroes would stay so
  return state;
}

}  // namespace

UringRandom::UringRandom() : generator_(seed_from_kernel()) {}

Result<std::unique_ptr<UringShard>> UringShard::create(const Options& options) {
  FL_TRY(auto ring, UringRing::create(options.ring));
  const int wake_descriptor = ::eventfd(0, EFD_CLOEXEC);
  if (wake_descriptor < 0) return fail_errno(errno, "make an eventfd");
  return std::unique_ptr<UringShard>(new UringShard(options, std::move(ring), wake_descriptor));
}

UringShard::UringShard(const Options& options, std::unique_ptr<UringRing> ring, int wake_descriptor)
    : options_(options),
      ring_(std::move(ring)),
      wake_descriptor_(wake_descriptor),
      reactor_({.mailbox_capacity = options.mailbox_capacity, .waker = this}),
      buffers_(reactor_, {.account_reserve = options.buffers_account_reserve,
                          .shared_max = options.buffers_shared_max,
                          .observer = this}),
      storage_(*ring_, buffers_),
      network_(*ring_, reactor_, options.poll == PollMode::kNever ? nullptr : &receives_),
      shard_{options.id, reactor_, clock_, random_, storage_, network_, buffers_} {
  reactor_.set_now(clock_.now());
  arm_wake();
}

UringShard::~UringShard() {
  drain();
  ::close(wake_descriptor_);
}

// The kernel may still write to the memory of what is in flight: all of it ends before the shard does.
void UringShard::drain() {
  closing_ = true;
  const uint64_t one = 1;
  FL_CHECK(::write(wake_descriptor_, &one, sizeof one) == static_cast<ssize_t>(sizeof one));
  const Instant limit = clock_.now() + std::chrono::seconds(kDrainLimitSeconds);
  while (ring_->in_flight() > 0) {
    FL_CHECK(clock_.now() < limit);
    ring_->wait(limit - clock_.now());
    ring_->reap(kReapBudget);
  }
}

void UringShard::arm_wake() {
  io_uring_prep_read(ring_->prepare(&wake_op_), wake_descriptor_, &wake_op_.count, sizeof wake_op_.count, 0);
}

void UringShard::WakeOp::on_complete(UringOp& op, int, uint32_t) {
  UringShard& shard = static_cast<WakeOp&>(op).shard;
  if (!shard.closing_) shard.arm_wake();
}

// Against sleep(): here "put into the mailbox, fence, read sleeping_", there "set sleeping_, fence, read the mailbox".
// One of the two sees the other.
void UringShard::wake() noexcept {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (!sleeping_.load(std::memory_order_relaxed)) return;
  if (!sleeping_.exchange(false, std::memory_order_relaxed)) return;  // another sender wakes it
  const uint64_t one = 1;
  FL_CHECK(::write(wake_descriptor_, &one, sizeof one) == static_cast<ssize_t>(sizeof one));
}

void UringShard::slab_added(size_t index, std::span<std::byte> slab) { (void)ring_->register_buffer(index, slab); }

void UringShard::request_stop() {
  stop_.store(true, std::memory_order_release);
  wake();
}

void UringShard::run() {
  run_delay_.emplace();
  while (!stop_.load(std::memory_order_acquire) || reactor_.has_ready() || reactor_.has_mail()) turn();
  run_delay_.reset();
}

void UringShard::turn() {
  ++statistics_.turns;
  const Instant now = clock_.now();
  if (worked_) spin_until_ = now + options_.spin;
  if (options_.poll == PollMode::kAuto && crowding_.is_due(now)) crowding_.look(now, run_delay_->read());
  reactor_.set_now(now);
  reactor_.expire_timers();
  const size_t ran = reactor_.run_ready(kReadyBudget);
  if (reactor_.has_ready() || reactor_.has_mail()) {
    ring_->submit();
    receives_.try_all();
  } else if (options_.poll != PollMode::kNever && (may_spin(now) || ran > 0)) {
    // What was just submitted is often done at once; look before anything else.
    ring_->submit();
    if (!must_look() && may_spin(now)) {
      spin(now);
      ring_->submit();  // what the kernel deferred is reaped on this very turn
    }
  } else {
    sleep();
  }
  const size_t reaped = ring_->reap(kReapBudget);
  worked_ = ran + reaped > 0;
}

// Something happened that a turn of the loop takes up.
bool UringShard::must_look() const {
  return ring_->has_events() || reactor_.has_mail() || stop_.load(std::memory_order_relaxed);
}

bool UringShard::may_spin(Instant now) const {
  switch (options_.poll) {
    case PollMode::kAlways:
      return true;
    case PollMode::kNever:
      return false;
    case PollMode::kAuto:
      return now < spin_until_ && !crowding_.is_crowded();
  }
  return false;
}

void UringShard::spin(Instant now) {
  ++statistics_.spins;
  const std::optional<Instant> deadline = reactor_.next_deadline();
  do {
    for (int look = 0; look < kLooksBetweenClocks; ++look) {
      if (must_look() || receives_.try_all()) return;
      relax_cpu();
    }
    now = clock_.now();
  } while (may_spin(now) && (!deadline.has_value() || now < *deadline));
}

void UringShard::sleep() {
  receives_.hand_over();
  std::optional<Duration> limit;
  if (const std::optional<Instant> deadline = reactor_.next_deadline(); deadline.has_value()) {
    limit = std::max(*deadline - clock_.now(), Duration(0));
  }
  sleeping_.store(true, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (reactor_.has_mail() || stop_.load(std::memory_order_relaxed)) {
    sleeping_.store(false, std::memory_order_relaxed);
    ring_->submit();
    return;
  }
  ++statistics_.sleeps;
  ring_->wait(limit);
  sleeping_.store(false, std::memory_order_relaxed);
}

}  // namespace fairlead
