// Connection: one simulated TCP connection: two ends, and a pipe of bytes each way. Delays, windows, chopping, held
// bytes.
//
// In each pipe bytes arrive in order, complete and once, or the connection is lost. Bytes that were sent count against
// the pipe's window until the receiver's program has read them and the word of it could travel back, so a receiver that
// does not read, and a partition, stop the sender. All on the world's thread.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "io/network.h"
#include "sim/core.h"

namespace fairlead::sim {

// Who can hear whom. The network's table of partitions.
class Reachability {
 public:
  virtual ~Reachability() = default;
  virtual bool is_cut(uint32_t from_node, uint32_t to_node) const = 0;
  virtual bool is_cut(const SocketAddress& from, const SocketAddress& to) const = 0;
};

enum class Side : uint8_t { kClient = 0, kServer = 1 };
constexpr Side other(Side side) { return side == Side::kClient ? Side::kServer : Side::kClient; }

// shared_ptr: both ends' streams, the network's table and events in flight hold it.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  struct Party {
    std::shared_ptr<const Boot> boot;
    SocketAddress address;
  };
  Connection(SimCore& core, const Reachability& reachability, uint64_t id, Party client, Party server, Prng random);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  uint64_t id() const { return id_; }
  const Party& party(Side side) const { return end(side).party; }
  bool touches(uint32_t node) const;
  bool touches(const SocketAddress& endpoint) const;
  bool is_finished() const { return !ends_[0].open && !ends_[1].open; }

  // Stream's contract, for one side.
  void adopt(Side side, Reactor& reactor);
  void start_receive(Side side, StreamOp& op);
  void start_send(Side side, StreamOp& op);
  void shutdown(Side side);
  void close(Side side);   // Requires: nothing under way. The side's owner is gone.
  void refuse(Side side);  // the same, for one that was never accepted: the peer sees a reset
  bool is_lost(Side side) const { return end(side).lost || !end(side).party.boot->alive; }

  // Both sides lose it: one now, the other as soon as it can hear. Bytes under way are lost.
  void reset();
  // The side's node died: its operations end, with kConnectionLost.
  void crash(Side side, CrashKind kind);
  // The node of `side` runs again and knows nothing of the connection: the other side hears so once it has sent.
  void revived(Side side);
  // A partition was lifted: what was held moves on.
  void heal();

 private:
  enum class Item : uint8_t { kData, kEnd, kReset };
  struct Segment {
    Item item = Item::kData;
    std::vector<std::byte> bytes;
    Instant due;
  };
  // From one end to the other.
  struct Pipe {
    std::deque<Segment> wire;
    std::vector<std::byte> inbox;  // arrived, from inbox_read on
    size_t inbox_read = 0;
    size_t window = 0;
    size_t outstanding = 0;  // bytes sent, less those read
    size_t held_credit = 0;  // read, but a partition keeps the sender from knowing
    Instant last_due;
    bool end_sent = false;
    bool end_arrived = false;
    size_t unread() const { return inbox.size() - inbox_read; }
  };
  struct End {
    Party party;
    Reactor* reactor = nullptr;
    StreamOp* receiving = nullptr;
    StreamOp* sending = nullptr;
    bool open = true;
    bool shut = false;
    bool lost = false;
    bool gone = false;       // its node crashed without a word
    bool forgotten = false;  // and runs again
  };

  End& end(Side side) { return ends_[static_cast<size_t>(side)]; }
  const End& end(Side side) const { return ends_[static_cast<size_t>(side)]; }
  Pipe& pipe_from(Side side) { return pipes_[static_cast<size_t>(side)]; }
  uint32_t node(Side side) const { return end(side).party.boot->node; }
  bool is_cut(Side from) const {
    return reachability_.is_cut(node(from), node(other(from))) ||
           reachability_.is_cut(party(from).address, party(other(from)).address);
  }

  Duration draw_latency();
  void put_on_wire(Side from, Item item, std::vector<std::byte> bytes);
  void schedule_delivery(Side from, Instant when);
  void deliver(Side from);
  void deliver_data(Side from, std::vector<std::byte> bytes);
  bool try_receive(Side side, StreamOp& op);
  bool try_send(Side side, StreamOp& op);
  void return_credit(Side reader, size_t bytes);
  void wake_receiver(Side side);
  void wake_sender(Side side);
  void lose(Side side);
  void answer_with_reset(Side side);
  void fail_operations(Side side, Code code, const char* what);
  void complete(Side side, StreamOp*& slot, Result<size_t> result);
  void trace(TraceKind kind, Side side, uint64_t b, uint64_t digest);

  SimCore& core_;
  const Reachability& reachability_;
  const uint64_t id_;
  std::array<End, 2> ends_;
  std::array<Pipe, 2> pipes_;
  Prng random_;
};

}  // namespace fairlead::sim
