// StreamSender: the outgoing half of a connection: what is queued goes out in order, as many pieces at once as there
// are. Lives on one shard.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/intrusive_list.h"
#include "io/network.h"

namespace fairlead {

// Something to send: up to four pieces of memory, or a longer list of its owner's, that stay until `sent` is called or
// the sender has stopped.
struct SendItem : ListNode<SendItem> {
  static constexpr size_t kPiecesMax = 4;  // header, data, digest, second header
  using Function = void (*)(SendItem&);
  explicit SendItem(Function function) : sent(function) {}

  void clear() {
    count = 0;
    list = {};
  }
  void add(std::span<const std::byte> piece) {
    FL_CHECK(count < kPiecesMax && !piece.empty());
    pieces[count++] = {const_cast<std::byte*>(piece.data()), piece.size()};
  }

  std::span<const iovec> all() const { return list.empty() ? std::span(pieces).first(count) : list; }

  std::array<iovec, kPiecesMax> pieces;
  size_t count = 0;
  std::span<const iovec> list;  // instead of `pieces` unless it is empty; none of it empty
  bool started = false;         // some of it was handed to the stream: it may have arrived
  Function sent;
};

class StreamSender {
 public:
  // `on_idle` is called whenever nothing is left to send, and after a failure; `context` is passed to it.
  using OnIdle = void (*)(void* context);
  StreamSender(Reactor& reactor, Stream& stream, OnIdle on_idle, void* context);
  ~StreamSender();

  // Requires: not stopped; the item stands in no queue. It goes out with everything else of this turn of the reactor.
  void enqueue(SendItem& item);
  // Fewer items than this wait for more, as long as receives of this turn bring some: a deep queue goes in few large
  // pieces instead of many small ones.
  void set_batch_min(size_t items) { batch_min_ = items; }
  // Drops what waits (without calling `sent`); what is under way ends when the stream does.
  void stop();

  bool is_idle() const { return !under_way_ && (queue_.empty() || failed_); }
  bool has_failed() const { return failed_; }

 private:
  static constexpr size_t kBatchPieces = 256;
  static constexpr int kDeferralsMax = 2;
  static constexpr size_t kBatchBytes = 1 << 20;  // others on the shard want their turn

  struct Operation : StreamOp {
    explicit Operation(StreamSender& s)
        : StreamOp([](Runnable& self) { static_cast<Operation&>(self).sender.on_sent(); }), sender(s) {}
    StreamSender& sender;
  };
  struct Flush : Runnable {
    explicit Flush(StreamSender& s)
        : Runnable([](Runnable& self) { static_cast<Flush&>(self).sender.flush(); }), sender(s) {}
    StreamSender& sender;
  };

  void flush();
  void on_sent();
  void drop_queue();

  Reactor& reactor_;
  Stream& stream_;
  OnIdle on_idle_;
  void* context_;
  IntrusiveList<SendItem> queue_;
  size_t queued_ = 0;  // items
  size_t batch_min_ = 0;
  int deferrals_ = 0;
  size_t first_sent_ = 0;  // bytes of the first item that went out already
  bool under_way_ = false;
  bool failed_ = false;
  Operation operation_{*this};
  Flush flush_{*this};
  std::array<iovec, kBatchPieces> batch_;
};

}  // namespace fairlead
