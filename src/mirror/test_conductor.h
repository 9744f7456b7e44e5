// For the model test of the data path: replicas that work at random speeds and fail at random, and a conductor that
// does by the rules what a target does, with records that come into force by themselves.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <vector>

#include "async/call.h"
#include "async/cancel.h"
#include "async/mutex.h"
#include "mirror/mirror_device.h"
#include "mirror/test_oracle.h"
#include "sim/world.h"

namespace fairlead::mirror::test {

inline constexpr uint64_t kModelBlock = 4096;

// What a replica is to do wrong, each so many times.
struct Faults {
  uint32_t writes_failed = 0;  // kIo, half done
  uint32_t refusals = 0;       // kNoSpace, half done
  uint32_t reads_failed = 0;   // kCorrupt
  uint32_t lost = 0;           // kConnectionLost, though the link stays
  bool is_stalled = false;     // until the link is dropped
};

struct ModelReplica {
  explicit ModelReplica(uint64_t bytes) : content(bytes) {}
  std::span<std::byte> block(uint64_t number) { return std::span(content).subspan(number * kModelBlock, kModelBlock); }
  void drop() {
    session = 0;
    faults.is_stalled = false;
  }
  std::vector<std::byte> content;
  uint64_t session = 0;  // whose I/O is let through; 0: nobody's
  Faults faults;
};

class ModelDevice final : public BlockDevice {
 public:
  ModelDevice(ModelReplica& replica, uint64_t session, Shard& shard, sim::Prng& random)
      : BlockDevice({.size_bytes = replica.content.size(), .logical_block = kModelBlock}),
        replica_(replica),
        session_(session),
        shard_(shard),
        random_(random) {}
  ~ModelDevice() override { EXPECT_EQ(under_way_, 0U); }

 private:
  // Done on the medium at one time, answered at another.
  struct Job : Timer {
    Job(ModelDevice& d, IoRequest& r)
        : Timer([](Runnable& self) { static_cast<Job&>(self).device.advance(static_cast<Job&>(self)); }),
          device(d),
          request(r) {}
    ModelDevice& device;
    IoRequest& request;
    std::optional<Result<void>> outcome;
  };
  void execute(IoRequest& request) override;
  void advance(Job& job);
  Result<void> perform(const IoRequest& request);
  void change(const IoRequest& request, uint64_t length);
  void end(Job& job, Result<void> outcome);
  Duration draw_delay() { return Duration(static_cast<int64_t>(random_.below(200'000))); }

  ModelReplica& replica_;
  const uint64_t session_;
  Shard& shard_;
  sim::Prng& random_;
  size_t under_way_ = 0;
};

class Conductor {
 public:
  Conductor(sim::SimWorld& world, sim::SimNode& node, size_t replicas, uint64_t bytes);
  ~Conductor();

  // ---- On the home shard, shard 0 of the node.
  Task<void> start();
  // No more faults; returns when every slot is a readable member.
  Task<void> heal();
  // Requires: healed, and no device is open.
  Task<void> stop();

  // Whether a write that is answered now must be on that slot.
  bool owes(Slot slot) const {
    const SlotConfiguration& wanted = configuration_.slots[slot];
    const SlotConfiguration& known = published_.slots[slot];
    return is_member_[slot] && wanted.use == SlotUse::kNeeded && known.use == SlotUse::kNeeded && !wanted.is_broken &&
           !known.is_broken && wanted.incarnation == known.incarnation;
  }
  ModelReplica& replica(Slot slot) { return *replicas_[slot]; }
  size_t replica_count() const { return replicas_.size(); }
  BlockSource& source() { return *source_; }

  struct Counts {
    uint64_t failures = 0;  // that sides reported
    uint64_t drops = 0;     // members that went
    uint64_t renewals = 0;  // members that came back as such
    uint64_t returns = 0;
    uint64_t suspensions = 0;
    uint64_t repairs = 0;
  };
  const Counts& counts() const { return counts_; }
  // Where it stands, for a failed test.
  std::string report() const;

 private:
  class Reporter final : public SideObserver {
   public:
    Reporter(Conductor& conductor, Shard& shard) : conductor_(conductor), shard_(shard), scope_(shard.reactor) {}
    void slot_failed(ShardId, Slot slot, uint64_t incarnation, Error) override {
      scope_.spawn(tell_failure(slot, incarnation));
    }
    void lease_wanted(ShardId) override { scope_.spawn(tell_lease()); }
    void level_wanted(ShardId, uint64_t) override {}  // it is under way
    void repair_wanted(ShardId, Slot, ByteRange) override { ++conductor_.counts_.repairs; }
    void ranges_changed(ShardId) override {
      if (!std::exchange(is_telling_ranges_, true)) scope_.spawn(tell_ranges());
    }
    Task<void> close() { return scope_.close(); }

   private:
    Task<void> tell_failure(Slot slot, uint64_t incarnation);
    Task<void> tell_lease();
    Task<void> tell_ranges();
    Conductor& conductor_;
    Shard& shard_;
    bool is_telling_ranges_ = false;
    Scope scope_;
  };
  struct Failure {
    Slot slot;
    uint64_t incarnation;
  };

  Shard& home() { return node_.shard(0); }
  template <typename Work>  // Task<void>(size_t shard)
  Task<void> on_all(Work work) {
    for (size_t i = 0; i < sides_.size(); ++i) {
      co_await call_on(home().reactor, node_.shard(i).reactor, work(i));
    }
  }
  Task<void> make_on(size_t shard);
  Task<void> end_on(size_t shard);
  Task<void> configure_on(size_t shard, SideConfiguration configuration);
  Task<void> attach_on(size_t shard, Slot slot, uint64_t session);
  Task<void> fail_on(size_t shard);
  Task<void> look_on(size_t shard);
  Task<void> note_lack_on(size_t shard, Slot slot, bool& lacks);
  Task<void> publish();
  Task<void> attach(Slot slot);
  Task<void> detach(Slot slot);
  Task<void> drain();
  Task<void> look_again();
  Task<bool> lock(ByteRange range);
  Task<void> unlock(ByteRange range);

  Task<void> conduct();
  Task<void> break_things();
  Task<void> on_failure(Failure failure);
  Task<void> renew(Slot slot);
  Task<void> read_again(Slot slot, uint64_t incarnation);
  Task<void> bring_back(Slot slot);
  Task<bool> copy_all(Slot slot, uint64_t incarnation);
  Task<void> suspend();
  Task<void> level(Slot source);
  Task<void> lend();
  bool is_as(Slot slot, uint64_t incarnation, SlotUse use) const;
  std::optional<Slot> good_member(std::optional<Slot> but = std::nullopt) const;
  Task<void> pause(uint64_t microseconds_max);

  sim::SimNode& node_;
  sim::Prng& random_;
  std::vector<std::unique_ptr<ModelReplica>> replicas_;
  std::shared_ptr<MirrorShared> shared_;  // as the sides have it
  std::vector<std::unique_ptr<Reporter>> reporters_;
  std::vector<std::unique_ptr<MirrorSide>> sides_;
  std::shared_ptr<BlockSource> source_;  // given to the workers
  SideConfiguration configuration_;
  SideConfiguration published_;  // what every side had at least once
  Mutex publishing_;
  Event ranges_changed_;
  Scope scope_;
  std::deque<Failure> failures_;
  uint64_t incarnations_ = 0;
  std::array<bool, kMembersMax> is_member_{};
  std::array<bool, kMembersMax> is_returning_{};
  bool is_levelling_ = false;
  bool is_suspending_ = false;
  bool is_failing_ = false;
  bool is_healed_ = false;
  bool is_stopping_ = false;
  bool is_conducting_ = false;
  Counts counts_;
};

}  // namespace fairlead::mirror::test
