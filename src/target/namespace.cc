#include "target/namespace.h"

#include <utility>

#include "base/check.h"
#include "base/fault.h"

namespace fairlead::target {

IoCounters& IoCounters::operator+=(const IoCounters& other) {
  reads += other.reads;
  writes += other.writes;
  bytes_read += other.bytes_read;
  bytes_written += other.bytes_written;
  errors += other.errors;
  return *this;
}

bool WriteGate::overlaps_lock(const GatedWrite& write) const {
  return is_locked_ && write.offset < lock_offset_ + lock_length_ && lock_offset_ < write.offset + write.length;
}

void WriteGate::enter(GatedWrite& write) {
  if (overlaps_lock(write)) [[unlikely]] {
    probe(Probe::kRangeConflict);
    waiting_.push_back(write);
    return;
  }
  running_.push_back(write);
  write.admitted(write);
}

void WriteGate::leave(GatedWrite& write) {
  running_.remove(write);
  if (is_locked_) left_.release_waiters();
}

bool WriteGate::withdraw(GatedWrite& write) {
  for (GatedWrite& each : waiting_) {
    if (&each != &write) continue;
    waiting_.remove(write);
    return true;
  }
  return false;
}

Task<void> WriteGate::lock(ByteOffset offset, uint64_t length) {
  FL_CHECK(!is_locked_);
  is_locked_ = true;
  lock_offset_ = offset.value;
  lock_length_ = length;
  while (true) {
    bool blocked = false;
    for (GatedWrite& write : running_) blocked = blocked || overlaps_lock(write);
    if (!blocked) co_return;
    co_await left_.wait();
  }
}

void WriteGate::unlock() {
  FL_CHECK(is_locked_);
  is_locked_ = false;
  while (!waiting_.empty()) enter(waiting_.pop_front());
}

Namespace::Namespace(Reactor& reactor, const NamespaceIdentity& identity, std::unique_ptr<BlockDevice> device)
    : identity_(identity),
      device_(std::move(device)),
      gate_(reactor),
      fence_mask_(identity.is_fenced ? ~CallerId{0} : CallerId{0}),
      idle_(reactor) {}

void Namespace::admit(CallerId caller) {
  FL_CHECK(is_fenced());
  admitted_ = caller;
}

void Namespace::end_command() {
  FL_CHECK(in_flight_ > 0);
  if (--in_flight_ == 0) idle_.release_waiters();
}

Task<void> Namespace::drain() {
  while (in_flight_ > 0) co_await idle_.wait();
}

}  // namespace fairlead::target
