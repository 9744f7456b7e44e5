// MemoryLink: a target's way to a MemoryReplica, as over a network that delays, loses, and parts. Calls and data are
// encoded, or copied, on their way; what was sent before the connection was lost may still arrive. Simulated worlds
// only; home shard, the replica's, but for the devices.
//
// Life-cycle: made; connects by itself whenever it can; stop(), when no call is under way and no device is left;
// destroy, before the replica.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "async/scope.h"
#include "mirror/link.h"
#include "tests/support/memory_replica.h"

namespace fairlead::test {

struct MemoryLinkOptions {
  bool is_local = false;
  // Each way of each message, drawn anew: they overtake each other.
  Duration delay_min{};
  Duration delay_max{};
  Duration timeout = std::chrono::seconds(5);  // of a call, and of a request whose way was cut: the connection drops
  Duration reconnect_delay = std::chrono::milliseconds(10);
  Duration notice_delay{};     // the replica notes a lost connection so much later
  bool keeps_devices = false;  // devices go on with the next connection
};

class MemoryLink final : public mirror::ReplicaLink {
 public:
  MemoryLink(MemoryReplica& replica, MemoryLinkOptions options);
  ~MemoryLink() override;
  MemoryLink(const MemoryLink&) = delete;
  MemoryLink& operator=(const MemoryLink&) = delete;

  // ---- For the test.
  // False: drops, and does not connect until it is true again.
  void set_reachable(bool is_reachable);
  // What is lost without a word. Nothing connects meanwhile.
  enum class Cut : uint8_t { kNothing, kRequests, kReplies, kBoth };
  void set_cut(Cut cut);
  void keep_devices() { options_.keeps_devices = true; }
  void set_delay(Duration min, Duration max) {
    options_.delay_min = min;
    options_.delay_max = max;
  }
  // All calls that were sent, of this kind of body (an index of mirror::RequestBody), answered or not.
  uint64_t calls(size_t kind) const { return calls_[kind]; }
  Task<void> stop() override;

  const mirror::ReplicaId& replica() const override { return replica_.options().id; }
  bool is_local() const override { return options_.is_local; }
  uint64_t connection() const override { return connection_; }
  bool is_away() const override { return connection_ == 0; }
  Event& changed() override { return changed_; }
  void drop() override;
  Task<Result<mirror::Reply>> call(mirror::Request request) override;
  Result<std::unique_ptr<BlockDevice>> open(Shard& shard) override;
  Task<Result<std::unique_ptr<BlockDevice>>> open_snapshot(Uuid snapshot) override;

  // ---- For the replica.
  void look_for_replica();

 private:
  struct Exchange;
  struct Transfer;
  struct Lane;  // one shard's requests
  class Device;
  struct Alarm : Timer {
    explicit Alarm(MemoryLink& owner)
        : Timer([](Runnable& self) { static_cast<Alarm&>(self).link.connect(); }), link(owner) {}
    MemoryLink& link;
  };

  bool loses_requests() const { return cut_ == Cut::kRequests || cut_ == Cut::kBoth; }
  bool loses_replies() const { return cut_ == Cut::kReplies || cut_ == Cut::kBoth; }
  Duration draw_delay();
  Lane& lane_of(Shard& shard);
  void connect();
  Task<void> carry(std::shared_ptr<Exchange> exchange, std::vector<std::byte> request);
  Task<void> carry(Lane& lane, std::shared_ptr<Transfer> transfer);
  Task<void> give_up(Lane& lane, uint64_t connection);
  Task<void> tell_lost(Lane& lane, uint64_t connection);
  Task<void> tell_replica(mirror::CallerId caller);

  Shard& home_;
  MemoryReplica& replica_;
  MemoryLinkOptions options_;
  Event changed_;
  Scope scope_;
  Alarm alarm_;
  uint64_t connection_ = 0;
  bool is_reachable_ = true;
  bool is_closed_ = false;
  Cut cut_ = Cut::kNothing;
  std::vector<std::shared_ptr<Exchange>> exchanges_;  // shared: with the messages on their way
  std::map<uint32_t, std::unique_ptr<Lane>> lanes_;
  std::array<uint64_t, std::variant_size_v<mirror::RequestBody>> calls_{};
};

}  // namespace fairlead::test
