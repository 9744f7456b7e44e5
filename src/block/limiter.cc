#include "block/limiter.h"

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "block/slot_pool.h"
#include "block/spec.h"

namespace fairlead {
namespace {

// Time in 1/16 ns, so that the cost of one request is exact enough for 10 million a second.
using Ticks = int64_t;
constexpr Ticks kTicksPerNs = 16;
constexpr Ticks ticks(Instant at) { return at.ns * kTicksPerNs; }
constexpr Instant instant_after(Ticks at) { return Instant{(at + kTicksPerNs - 1) / kTicksPerNs}; }

constexpr Ticks kLot = 20'000 * kTicksPerNs;  // what a shard books at once, or one request if that is longer
constexpr int kTurnBudget = 256;              // requests started or completed before others get a turn

// When the disk that we play is free again. Thread-safe.
class Timeline {
 public:
  // What book() would return, or earlier: others may book meanwhile.
  Ticks first_free(Ticks earliest) const { return std::max(free_.load(std::memory_order_relaxed), earliest); }

  // Books `length` from the first moment that is free and not before `earliest`; returns it.
  Ticks book(Ticks earliest, Ticks length) {
    if (length == 0) return first_free(earliest);
    Ticks free = free_.load(std::memory_order_relaxed);
    Ticks start = 0;
    do {
      start = std::max(free, earliest);
    } while (!free_.compare_exchange_weak(free, start + length, std::memory_order_relaxed));
    return start;
  }

 private:
  alignas(64) std::atomic<Ticks> free_{0};
};

class LimiterDevice final : public BlockDevice {
 public:
  LimiterDevice(Shard& shard, std::unique_ptr<BlockDevice> inner, const LimiterOptions& options,
                std::shared_ptr<Timeline> timeline)
      : BlockDevice(inner->geometry()),
        options_(options),
        reactor_(shard.reactor),
        random_(shard.random),
        inner_(std::move(inner)),
        timeline_(std::move(timeline)),
        alarm_(*this) {}
  ~LimiterDevice() override {
    FL_CHECK(waiting_.empty() && late_.empty());
    reactor_.disarm(alarm_);
  }

  Result<uint64_t> refresh_size() override {
    Result<uint64_t> size = inner_->refresh_size();
    geometry_.size_bytes = inner_->geometry().size_bytes;
    return size;
  }

 private:
  // What the device below gets in place of the original.
  struct Slot : IoRequest {
    LimiterDevice* device = nullptr;
    IoRequest* original = nullptr;
    Ticks cost = 0;
    Ticks arrival = 0;
    Instant due;
    uint64_t sequence = 0;  // of equal ones the first started is completed first
  };
  struct Alarm : Timer {
    explicit Alarm(LimiterDevice& limiter)
        : Timer([](Runnable& self) { static_cast<Alarm&>(self).device.on_alarm(); }), device(limiter) {}
    LimiterDevice& device;
  };
  struct DueLater {
    bool operator()(const Slot* a, const Slot* b) const {
      return std::pair(a->due, a->sequence) > std::pair(b->due, b->sequence);
    }
  };

  void execute(IoRequest& request) override;
  Ticks cost_of(const IoRequest& request) const;
  Duration draw_latency();
  void on_alarm() {
    wake_at_.reset();
    turn();
  }
  void turn();
  void book_lot();
  bool start_one();
  void on_done(Slot& slot);
  bool complete_one();
  void arm();

  const LimiterOptions options_;
  Reactor& reactor_;
  Random& random_;
  std::unique_ptr<BlockDevice> inner_;
  std::shared_ptr<Timeline> timeline_;  // shared by the devices of all shards
  SlotPool<Slot> slots_;
  IntrusiveList<IoRequest> waiting_;  // Slots, in order of arrival
  size_t booked_ = 0;                 // how many of them have their time
  Ticks next_start_ = 0;              // of the first that waits, when booked
  std::vector<Slot*> late_;           // heap: done below, or not due yet
  uint64_t sequence_ = 0;
  bool in_turn_ = false;
  std::optional<Instant> wake_at_;
  Alarm alarm_;
};

Ticks LimiterDevice::cost_of(const IoRequest& request) const {
  constexpr unsigned __int128 kSecond = 1'000'000'000 * static_cast<unsigned __int128>(kTicksPerNs);
  constexpr unsigned __int128 kDay = 86'400 * kSecond;
  unsigned __int128 cost = 0;
  if (options_.iops_max > 0) cost = kSecond / options_.iops_max;
  const bool moves_data = request.op == IoOp::kRead || request.op == IoOp::kWrite;
  if (options_.bandwidth_max > 0 && moves_data) {
    cost = std::max(cost, kSecond * request.length / options_.bandwidth_max);
  }
  return static_cast<Ticks>(std::min(cost, kDay));  // whatever the options, sums of it do not overflow
}

Duration LimiterDevice::draw_latency() {
  if (options_.jitter == Duration::zero()) return options_.latency;
  const auto spread = static_cast<uint64_t>(2 * options_.jitter.count() + 1);
  return options_.latency - options_.jitter + Duration(static_cast<int64_t>(random_.below(spread)));
}

void LimiterDevice::execute(IoRequest& request) {
  Slot& slot = slots_.take();
  slot.device = this;
  slot.original = &request;
  slot.arguments() = request.arguments();
  slot.done = [](IoRequest& self) {
    auto& done = static_cast<Slot&>(self);
    done.device->on_done(done);
  };
  slot.cost = cost_of(request);
  slot.arrival = ticks(reactor_.now());
  waiting_.push_back(slot);
  turn();
}

// Starts and completes whatever has its time, then sleeps until the next. Completions may submit more from within.
void LimiterDevice::turn() {
  if (in_turn_) return;
  in_turn_ = true;
  int budget = kTurnBudget;
  while (budget > 0 && (complete_one() || start_one())) --budget;
  in_turn_ = false;
  arm();
}

// Books for those that wait now, up to a lot, one behind the other without a gap; none may begin before it came.
void LimiterDevice::book_lot() {
  const Ticks arrival = static_cast<Slot&>(waiting_.front()).arrival;
  const Ticks start_min = timeline_->first_free(arrival);
  Ticks length = 0;
  booked_ = 0;
  for (IoRequest& request : waiting_) {
    const auto& slot = static_cast<Slot&>(request);
    const bool ends_lot = length + slot.cost > kLot || slot.arrival > start_min + length;
    if (booked_ > 0 && ends_lot) break;
    length += slot.cost;
    ++booked_;
  }
  next_start_ = timeline_->book(arrival, length);
}

bool LimiterDevice::start_one() {
  if (waiting_.empty()) return false;
  if (booked_ == 0) book_lot();
  if (next_start_ > ticks(reactor_.now())) return false;
  auto& slot = static_cast<Slot&>(waiting_.pop_front());
  --booked_;
  slot.due = instant_after(next_start_) + draw_latency();
  slot.sequence = ++sequence_;
  next_start_ += slot.cost;
  inner_->submit(slot);
  return true;
}

void LimiterDevice::on_done(Slot& slot) {
  late_.push_back(&slot);
  std::ranges::push_heap(late_, DueLater{});
  turn();
}

bool LimiterDevice::complete_one() {
  if (late_.empty() || late_.front()->due > reactor_.now()) return false;
  std::ranges::pop_heap(late_, DueLater{});
  Slot& slot = *late_.back();
  late_.pop_back();
  IoRequest& original = *slot.original;
  const Result<void> outcome = slot.result;
  slots_.give_back(slot);
  original.complete(outcome);
  return true;
}

void LimiterDevice::arm() {
  std::optional<Instant> next;
  if (!late_.empty()) next = late_.front()->due;
  if (!waiting_.empty()) {
    // Not booked: the budget was spent.
    const Instant start = booked_ > 0 ? instant_after(next_start_) : reactor_.now();
    next = next ? std::min(*next, start) : start;
  }
  if (next == wake_at_) return;
  wake_at_ = next;
  if (next) {
    reactor_.arm(alarm_, *next);
  } else {
    reactor_.disarm(alarm_);
  }
}

class LimiterSource final : public BlockSource {
 public:
  LimiterSource(std::shared_ptr<BlockSource> inner, const LimiterOptions& options)
      : inner_(std::move(inner)), options_(options), timeline_(std::make_shared<Timeline>()) {}
  Result<std::unique_ptr<BlockDevice>> open(Shard& shard) override {
    FL_TRY(std::unique_ptr<BlockDevice> inner, inner_->open(shard));
    return std::make_unique<LimiterDevice>(shard, std::move(inner), options_, timeline_);
  }

 private:
  const std::shared_ptr<BlockSource> inner_;  // shared with whoever made it
  const LimiterOptions options_;
  const std::shared_ptr<Timeline> timeline_;  // shared by the devices of all shards
};

}  // namespace

std::shared_ptr<BlockSource> make_limiter_source(std::shared_ptr<BlockSource> inner, LimiterOptions options) {
  FL_CHECK(options.jitter >= Duration::zero() && options.jitter <= options.latency);
  return std::make_shared<LimiterSource>(std::move(inner), options);
}

Result<LimiterOptions> parse_limits(std::string_view text) {
  LimiterOptions limits;
  FL_TRY(const std::vector<SpecOption> options, split_options(text));
  for (const auto& [key, value] : options) {
    if (key == "iops") {
      FL_TRY(limits.iops_max, parse_count(value));
    } else if (key == "bandwidth") {
      FL_TRY(limits.bandwidth_max, parse_size(value));
    } else if (key == "latency") {
      FL_TRY(limits.latency, parse_duration(value));
    } else if (key == "jitter") {
      FL_TRY(limits.jitter, parse_duration(value));
    } else {
      return fail(Code::kInvalidArgument, "limits are iops, bandwidth, latency, jitter");
    }
  }
  if (limits.jitter > limits.latency) return fail(Code::kInvalidArgument, "jitter is at most the latency");
  return limits;
}

}  // namespace fairlead
