// ExtentLocks: who changes which units of which extent of a layer, on the pool's home shard. What is under way with one
// extent is remembered here until it is in the map: its place, and the entry as it will be.
#pragma once

#include <memory>
#include <optional>
#include <unordered_map>

#include "async/event.h"
#include "async/task.h"
#include "pool/allocator.h"
#include "pool/format.h"

namespace fairlead::pool {

class ExtentLocks {
 public:
  // With an allocator, what nobody put into a map goes back to it as soon as nobody holds or awaits the extent.
  explicit ExtentLocks(Reactor& reactor, Allocator* allocator = nullptr) : reactor_(reactor), allocator_(allocator) {}
  ~ExtentLocks() { FL_CHECK(states_.empty()); }
  ExtentLocks(const ExtentLocks&) = delete;
  ExtentLocks& operator=(const ExtentLocks&) = delete;

  struct State {
    explicit State(Reactor& reactor) : unlocked(reactor) {}
    UnitSet locked;
    uint32_t users = 0;          // who holds a lock or waits for one
    Place place;                 // allocated for the extent and in no map yet
    std::optional<Entry> entry;  // what was appended to the journal last
    Event unlocked;
  };

  // Holds the units until it is released or dies.
  class Lock {
   public:
    Lock() = default;
    Lock(ExtentLocks& owner, uint64_t key, State& state, const UnitSet& units)
        : owner_(&owner), key_(key), state_(&state), units_(units) {}
    Lock(Lock&& other) noexcept { *this = std::move(other); }
    Lock& operator=(Lock&& other) noexcept {
      release();
      owner_ = std::exchange(other.owner_, nullptr);
      key_ = other.key_;
      state_ = other.state_;
      units_ = other.units_;
      return *this;
    }
    ~Lock() { release(); }
    void release() {
      if (owner_ != nullptr) std::exchange(owner_, nullptr)->unlock(key_, *state_, units_);
    }
    State& operator*() const { return *state_; }
    State* operator->() const { return state_; }
    // Nobody else holds units of the extent, or waits for some.
    bool is_last() const { return state_->users == 1; }
    // Nobody else holds units of it.
    bool is_alone() const { return state_->locked == units_; }

   private:
    ExtentLocks* owner_ = nullptr;
    uint64_t key_ = 0;
    State* state_ = nullptr;
    UnitSet units_;
  };

  Task<Lock> lock(LayerId layer, ExtentIndex extent, UnitSet units) {
    const uint64_t key = uint64_t{layer.value} << 32 | extent.value;
    State& state = states_.try_emplace(key, reactor_).first->second;  // stays where it is while it has users
    ++state.users;
    while ((state.locked & units).any()) co_await state.unlocked.wait();
    state.locked |= units;
    co_return Lock(*this, key, state, units);
  }

  // All units of an extent that nobody uses. Requires: !is_used().
  Lock lock_unused(LayerId layer, ExtentIndex extent) {
    const uint64_t key = uint64_t{layer.value} << 32 | extent.value;
    const auto [state, is_new] = states_.try_emplace(key, reactor_);
    FL_CHECK(is_new);
    state->second.users = 1;
    state->second.locked = UnitSet::all();
    return Lock(*this, key, state->second, UnitSet::all());
  }

  bool is_used(LayerId layer, ExtentIndex extent) const {
    return states_.contains(uint64_t{layer.value} << 32 | extent.value);
  }

 private:
  void unlock(uint64_t key, State& state, const UnitSet& units) {
    state.locked -= units;
    if (--state.users > 0) {
      state.unlocked.release_waiters();
      return;
    }
    if (state.place.value != 0) {
      FL_CHECK(allocator_ != nullptr);
      allocator_->release(state.place);
    }
    states_.erase(key);
  }

  Reactor& reactor_;
  Allocator* const allocator_;
  std::unordered_map<uint64_t, State> states_;  // looked up, never walked
};

}  // namespace fairlead::pool
