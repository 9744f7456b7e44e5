#include "sim/connection.h"

#include <algorithm>

#include "base/fault.h"
#include "io/request.h"

namespace fairlead::sim {

Connection::Connection(SimCore& core, const Reachability& reachability, uint64_t id, Party client, Party server,
                       Prng random)
    : core_(core), reachability_(reachability), id_(id), random_(random) {
  ends_[0].party = std::move(client);
  ends_[1].party = std::move(server);
  const NetworkSettings& settings = core_.settings().network;
  for (Pipe& pipe : pipes_) pipe.window = random_.skewed(settings.window_min, settings.window_max);
}

Connection::~Connection() {
  for (const End& each : ends_) FL_CHECK(each.receiving == nullptr && each.sending == nullptr);
}

bool Connection::touches(uint32_t which) const { return node(Side::kClient) == which || node(Side::kServer) == which; }

bool Connection::touches(const SocketAddress& endpoint) const {
  return std::ranges::any_of(ends_, [&](const End& each) { return each.party.address == endpoint; });
}

void Connection::trace(TraceKind kind, Side side, uint64_t b, uint64_t digest) {
  core_.record({.kind = kind,
                .place = {.node = node(side)},
                .a = id_ << 1 | static_cast<uint64_t>(side),
                .b = b,
                .digest = digest});
}

void Connection::adopt(Side side, Reactor& reactor) { end(side).reactor = &reactor; }

void Connection::complete(Side side, StreamOp*& slot, Result<size_t> result) {
  StreamOp& op = *std::exchange(slot, nullptr);
  op.result = result;
  end(side).reactor->post(op);
}

void Connection::fail_operations(Side side, Code code, const char* what) {
  End& mine = end(side);
  if (mine.receiving != nullptr) complete(side, mine.receiving, fail(code, what));
  if (mine.sending != nullptr) complete(side, mine.sending, fail(code, what));
}

// ---- Sending

void Connection::start_send(Side side, StreamOp& op) {
  End& mine = end(side);
  FL_CHECK(mine.open && mine.sending == nullptr && mine.reactor != nullptr);
  FL_CHECK(total_length(op.buffers) > 0 && op.buffers.size() <= 1024);
  mine.sending = &op;
  wake_sender(side);
}

void Connection::wake_sender(Side side) {
  End& mine = end(side);
  if (mine.sending == nullptr) return;
  if (!mine.party.boot->alive || mine.lost) {
    complete(side, mine.sending, fail(Code::kConnectionLost, "send"));
  } else if (mine.shut) {
    complete(side, mine.sending, fail(Code::kCancelled, "send"));
  } else {
    (void)try_send(side, *mine.sending);
  }
}

bool Connection::try_send(Side side, StreamOp& op) {
  Pipe& pipe = pipe_from(side);
  const Chop chop = core_.settings().network.chop;
  if (pipe.outstanding >= pipe.window) return false;
  size_t count = std::min(pipe.window - pipe.outstanding, total_length(op.buffers));
  if (chop != Chop::kWhole && random_.coin()) count = 1 + random_.below(count);
  if (count > 1 && fault(FaultPoint::kShortSend)) count = 1 + random_.below(count);
  std::vector<std::byte> bytes(count);
  copy_from_buffers(op.buffers, 0, bytes);
  trace(TraceKind::kSend, side, count, hash_bytes(bytes));
  pipe.outstanding += count;
  if (chop != Chop::kWhole && count > 1 && random_.coin()) {
    const auto cut = static_cast<ptrdiff_t>(random_.between(1, count - 1));
    put_on_wire(side, Item::kData, {bytes.begin(), bytes.begin() + cut});
    put_on_wire(side, Item::kData, {bytes.begin() + cut, bytes.end()});
  } else {
    put_on_wire(side, Item::kData, std::move(bytes));
  }
  complete(side, end(side).sending, count);
  return true;
}

Duration Connection::draw_latency() {
  const NetworkSettings& settings = core_.settings().network;
  Duration latency = random_.between(settings.latency_min, settings.latency_max);
  if (random_.chance(settings.spike_ppm)) latency += random_.between(Duration(0), settings.spike_max);
  return latency;
}

void Connection::put_on_wire(Side from, Item item, std::vector<std::byte> bytes) {
  Pipe& pipe = pipe_from(from);
  const auto transfer =
      Duration(static_cast<int64_t>(bytes.size() * 1'000'000'000 / core_.settings().network.bytes_per_second));
  const Instant due = std::max(pipe.last_due, core_.now() + draw_latency()) + transfer;
  pipe.last_due = due;
  pipe.wire.push_back({item, std::move(bytes), due});
  schedule_delivery(from, due);
}

void Connection::schedule_delivery(Side from, Instant when) {
  core_.at(when, [weak = weak_from_this(), from] {
    if (const std::shared_ptr<Connection> self = weak.lock()) self->deliver(from);
  });
}

// ---- Arriving

void Connection::deliver(Side from) {
  Pipe& pipe = pipe_from(from);
  const Side to = other(from);
  while (!pipe.wire.empty() && pipe.wire.front().due <= core_.now()) {
    if (is_cut(from)) return;  // heal() comes back to it
    Segment segment = std::move(pipe.wire.front());
    pipe.wire.pop_front();
    End& receiver = end(to);
    if (receiver.gone) {
      // Nobody hears it, until the node runs again and disowns the connection.
      if (receiver.forgotten) answer_with_reset(to);
      continue;
    }
    switch (segment.item) {
      case Item::kData:
        deliver_data(from, std::move(segment.bytes));
        break;
      case Item::kEnd:
        trace(TraceKind::kEnd, to, 0, 0);
        pipe.end_arrived = true;
        wake_receiver(to);
        break;
      case Item::kReset:
        lose(to);
        break;
    }
  }
}

void Connection::deliver_data(Side from, std::vector<std::byte> bytes) {
  const Side to = other(from);
  Pipe& pipe = pipe_from(from);
  if (random_.chance(core_.settings().network.reset_ppm)) {
    core_.injected(SimFault::kReset, node(to));
    reset();
    return;
  }
  End& receiver = end(to);
  if (receiver.lost) return;
  if (receiver.shut || !receiver.open) {
    answer_with_reset(to);
    return;
  }
  if (pipe.inbox_read > 0 && pipe.inbox_read * 2 >= pipe.inbox.size()) {
    pipe.inbox.erase(pipe.inbox.begin(), pipe.inbox.begin() + static_cast<ptrdiff_t>(pipe.inbox_read));
    pipe.inbox_read = 0;
  }
  pipe.inbox.insert(pipe.inbox.end(), bytes.begin(), bytes.end());
  wake_receiver(to);
}

// What arrives where nobody listens any more makes that side's kernel say so; in order, after what it sent before.
void Connection::answer_with_reset(Side side) {
  End& mine = end(side);
  if (mine.lost) return;
  mine.lost = true;
  put_on_wire(side, Item::kReset, {});
}

void Connection::lose(Side side) {
  End& mine = end(side);
  if (mine.lost) return;
  mine.lost = true;
  trace(TraceKind::kReset, side, 0, 0);
  // A receiver may still read what had arrived; the operations under way have seen all of it.
  fail_operations(side, mine.shut ? Code::kCancelled : Code::kConnectionLost, "the peer reset the connection");
}

// ---- Receiving

void Connection::start_receive(Side side, StreamOp& op) {
  End& mine = end(side);
  FL_CHECK(mine.open && mine.receiving == nullptr && mine.reactor != nullptr);
  FL_CHECK(total_length(op.buffers) > 0 && op.buffers.size() <= 1024);
  mine.receiving = &op;
  wake_receiver(side);
}

void Connection::wake_receiver(Side side) {
  End& mine = end(side);
  if (mine.receiving == nullptr) return;
  if (!mine.party.boot->alive) {
    complete(side, mine.receiving, fail(Code::kConnectionLost, "receive"));
  } else if (mine.shut) {
    complete(side, mine.receiving, fail(Code::kCancelled, "receive"));
  } else if (try_receive(side, *mine.receiving)) {
    return;
  } else if (mine.lost) {
    complete(side, mine.receiving, fail(Code::kConnectionLost, "receive"));
  } else if (pipe_from(other(side)).end_arrived) {
    complete(side, mine.receiving, 0);
  }
}

bool Connection::try_receive(Side side, StreamOp& op) {
  Pipe& pipe = pipe_from(other(side));
  if (pipe.unread() == 0) return false;
  const Chop chop = core_.settings().network.chop;
  size_t count = std::min(pipe.unread(), total_length(op.buffers));
  if (chop == Chop::kSingleBytes) count = 1;
  if (chop == Chop::kRandom && random_.coin()) count = 1 + random_.below(count);
  if (count > 1 && fault(FaultPoint::kShortReceive)) count = 1 + random_.below(count);
  const auto bytes = std::span<const std::byte>(pipe.inbox).subspan(pipe.inbox_read, count);
  copy_to_buffers(op.buffers, 0, bytes);
  trace(TraceKind::kReceive, side, count, hash_bytes(bytes));
  pipe.inbox_read += count;
  complete(side, end(side).receiving, count);
  return_credit(side, count);
  return true;
}

void Connection::return_credit(Side reader, size_t bytes) {
  const Side sender = other(reader);
  Pipe& pipe = pipe_from(sender);
  pipe.held_credit += bytes;
  if (is_cut(reader)) return;
  pipe.outstanding -= std::exchange(pipe.held_credit, 0);
  wake_sender(sender);
}

// ---- Ending

void Connection::shutdown(Side side) {
  End& mine = end(side);
  if (mine.shut) return;
  mine.shut = true;
  fail_operations(side, Code::kCancelled, "the stream was shut down");
  if (!mine.party.boot->alive || mine.lost) return;
  pipe_from(side).end_sent = true;
  put_on_wire(side, Item::kEnd, {});
}

void Connection::close(Side side) {
  End& mine = end(side);
  FL_CHECK(mine.open && mine.receiving == nullptr && mine.sending == nullptr);
  mine.open = false;
  if (!mine.party.boot->alive || mine.lost) return;
  // As TCP does: who closes with bytes unread resets.
  if (pipe_from(other(side)).unread() > 0) {
    answer_with_reset(side);
  } else if (!pipe_from(side).end_sent) {
    pipe_from(side).end_sent = true;
    put_on_wire(side, Item::kEnd, {});
  }
}

void Connection::refuse(Side side) {
  End& mine = end(side);
  FL_CHECK(mine.open && mine.reactor == nullptr);
  mine.open = false;
  if (mine.party.boot->alive) answer_with_reset(side);
}

void Connection::reset() {
  const Side first = random_.coin() ? Side::kClient : Side::kServer;
  for (const Side side : {first, other(first)}) {
    Pipe& pipe = pipe_from(side);
    pipe.wire.clear();
    if (random_.coin()) {
      pipe.inbox.clear();
      pipe.inbox_read = 0;
    }
  }
  lose(first);
  pipe_from(first).last_due = core_.now();
  put_on_wire(first, Item::kReset, {});
}

void Connection::crash(Side side, CrashKind kind) {
  End& mine = end(side);
  FL_CHECK(!mine.party.boot->alive);
  fail_operations(side, Code::kConnectionLost, "the node crashed");
  if (mine.gone || mine.lost) return;
  if (kind == CrashKind::kProcessKilled) {
    // The system closes for it: what it had sent still arrives.
    const bool unread = pipe_from(other(side)).unread() > 0;
    if (unread || random_.coin()) {
      answer_with_reset(side);
    } else {
      mine.shut = true;
      if (!std::exchange(pipe_from(side).end_sent, true)) put_on_wire(side, Item::kEnd, {});
    }
    return;
  }
  mine.gone = true;
  std::deque<Segment>& wire = pipe_from(side).wire;
  if (!wire.empty()) wire.resize(random_.below(wire.size() + 1));
}

void Connection::revived(Side side) {
  End& mine = end(side);
  if (!mine.gone || mine.forgotten) return;
  mine.forgotten = true;
  // The peer sends again what nobody acknowledged, and hears then.
  if (pipe_from(other(side)).outstanding > 0 || pipe_from(other(side)).end_sent) answer_with_reset(side);
}

void Connection::heal() {
  for (const Side side : {Side::kClient, Side::kServer}) {
    if (is_cut(side)) continue;
    if (!pipe_from(side).wire.empty()) {
      Segment& front = pipe_from(side).wire.front();
      schedule_delivery(side, std::max(front.due, core_.now() + draw_latency()));
    }
    Pipe& incoming = pipe_from(other(side));
    if (incoming.held_credit > 0) {
      incoming.outstanding -= std::exchange(incoming.held_credit, 0);
      wake_sender(other(side));
    }
  }
}

}  // namespace fairlead::sim
