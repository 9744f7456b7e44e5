#include "tests/support/memory_link.h"

#include <utility>

#include "async/call.h"
#include "async/cancel.h"

namespace fairlead::test {

using mirror::Reply;
using mirror::Request;

// A call, until it has an answer.
struct MemoryLink::Exchange {
  struct Alarm : Timer {
    Alarm() : Timer([](Runnable& self) { static_cast<Alarm&>(self).on_time(); }) {}
    void on_time() {
      exchange->end(fail(Code::kTimedOut, "no answer from the replica"));
      exchange->link.drop();
    }
    Exchange* exchange = nullptr;
  };
  Exchange(MemoryLink& owner, uint64_t number) : link(owner), connection(number), ended(owner.home_.reactor) {
    alarm.exchange = this;
    link.home_.reactor.arm(alarm, link.options_.timeout);
  }
  void end(Result<Reply> with) {
    if (result) return;
    result = std::move(with);
    link.home_.reactor.disarm(alarm);
    ended.set();
  }

  MemoryLink& link;
  const uint64_t connection;
  Event ended;
  std::optional<Result<Reply>> result;
  Alarm alarm;
};

// A request for data, until it has an answer.
struct MemoryLink::Transfer {
  void end(Result<void> with) {
    IoRequest* const waiting = std::exchange(request, nullptr);
    if (waiting == nullptr) return;
    if (with && waiting->op == IoOp::kRead) copy_to_buffers(waiting->buffers, 0, operation.bytes);
    waiting->complete(with);
  }

  IoRequest* request = nullptr;  // null: it was answered
  uint64_t connection = 0;
  MemoryOperation operation;
};

struct MemoryLink::Lane {
  explicit Lane(Shard& its) : shard(its), scope(its.reactor) {}
  Shard& shard;
  Scope scope;
  std::vector<std::shared_ptr<Transfer>> transfers;  // shared: with the messages on their way
};

class MemoryLink::Device final : public BlockDevice {
 public:
  // `snapshot`: nil for the replica as it is.
  Device(MemoryLink& link, Lane& lane, const BlockGeometry& geometry, Uuid snapshot)
      : BlockDevice(geometry), link_(link), lane_(lane), connection_(link.connection_), snapshot_(snapshot) {
    takes_writes_at_once_ = true;
  }

  Result<uint64_t> refresh_size() override {
    if (snapshot_.is_nil()) geometry_.size_bytes = link_.replica_.medium().size_bytes();
    return geometry_.size_bytes;
  }

 private:
  void execute(IoRequest& request) override {
    const uint64_t connection = link_.options_.keeps_devices ? link_.connection_ : connection_;
    if (connection == 0 || connection != link_.connection_) {
      return request.complete(fail(Code::kConnectionLost, "it has gone"));
    }
    auto transfer = std::make_shared<Transfer>();
    transfer->request = &request;
    transfer->connection = connection;
    transfer->operation = {.op = request.op,
                           .durability = request.durability,
                           .offset = request.offset.value,
                           .length = request.length,
                           .bytes = {},
                           .snapshot = snapshot_};
    if (request.op == IoOp::kWrite) {
      transfer->operation.bytes.resize(request.length);
      copy_from_buffers(request.buffers, 0, transfer->operation.bytes);
    }
    lane_.transfers.push_back(transfer);
    lane_.scope.spawn(link_.carry(lane_, std::move(transfer)));
  }

  MemoryLink& link_;
  Lane& lane_;
  const uint64_t connection_;
  const Uuid snapshot_;
};

namespace {

BlockGeometry geometry_of(uint64_t size_bytes) {
  constexpr uint32_t kBlock = MemoryMedium::kBlockBytes;
  return {.size_bytes = size_bytes,
          .logical_block = kBlock,
          .physical_block = kBlock,
          .optimal_io = 0,
          .discard_granularity = kBlock,
          .discard_zeroes = true,
          .volatile_cache = true,
          .read_only = false};
}

}  // namespace

MemoryLink::MemoryLink(MemoryReplica& replica, MemoryLinkOptions options)
    : home_(replica.home()),
      replica_(replica),
      options_(options),
      changed_(home_.reactor),
      scope_(home_.reactor),
      alarm_(*this) {
  replica_.add(*this);
  connect();
}

MemoryLink::~MemoryLink() { FL_CHECK(is_closed_); }

Task<void> MemoryLink::stop() {
  if (is_closed_) co_return;
  is_reachable_ = false;
  drop();
  home_.reactor.disarm(alarm_);
  co_await scope_.close();
  for (auto& [number, lane] : lanes_) {
    co_await call_on(home_.reactor, lane->shard.reactor, lane->scope.close());
  }
  FL_CHECK(exchanges_.empty());
  replica_.remove(*this);
  is_closed_ = true;
}

// ---- The connection.

void MemoryLink::set_reachable(bool is_reachable) {
  is_reachable_ = is_reachable;
  if (is_reachable) return look_for_replica();
  drop();
}

void MemoryLink::set_cut(Cut cut) {
  cut_ = cut;
  if (cut == Cut::kNothing) look_for_replica();
}

void MemoryLink::look_for_replica() {
  if (connection_ == 0 && is_reachable_) home_.reactor.arm(alarm_, options_.reconnect_delay);
}

void MemoryLink::connect() {
  if (connection_ != 0 || !is_reachable_ || cut_ != Cut::kNothing || !replica_.is_up()) return;
  connection_ = replica_.connect();
  changed_.release_waiters();
}

void MemoryLink::drop() {
  if (connection_ == 0) return;
  const uint64_t lost = std::exchange(connection_, 0);
  const std::vector<std::shared_ptr<Exchange>> exchanges = exchanges_;
  for (const auto& exchange : exchanges) exchange->end(fail(Code::kConnectionLost, "the connection has gone"));
  for (auto& [number, lane] : lanes_) scope_.spawn(tell_lost(*lane, lost));
  scope_.spawn(tell_replica(lost));
  changed_.release_waiters();
  look_for_replica();
}

Task<void> MemoryLink::tell_lost(Lane& lane, uint64_t connection) {
  co_await MoveTo(home_.reactor, lane.shard.reactor);
  std::vector<std::shared_ptr<Transfer>> lost;
  for (const auto& transfer : lane.transfers) {
    if (transfer->connection == connection) lost.push_back(transfer);
  }
  for (const auto& transfer : lost) transfer->end(fail(Code::kConnectionLost, "the connection has gone"));
  co_await MoveTo(lane.shard.reactor, home_.reactor);
}

Task<void> MemoryLink::tell_replica(mirror::CallerId caller) {
  if (options_.notice_delay > Duration(0)) (void)co_await sleep(home_.reactor, options_.notice_delay);
  co_await replica_.forget(caller);
}

// ---- Messages.

Duration MemoryLink::draw_delay() {
  const auto span = static_cast<uint64_t>((options_.delay_max - options_.delay_min).count());
  return options_.delay_min + Duration(static_cast<int64_t>(home_.random.below(span + 1)));
}

Task<Result<Reply>> MemoryLink::call(Request request) {
  ++calls_[request.body.index()];
  if (connection_ == 0) co_return fail(Code::kUnreachable, "no connection to the replica");
  auto exchange = std::make_shared<Exchange>(*this, connection_);
  exchanges_.push_back(exchange);
  scope_.spawn(carry(exchange, mirror::encode(request)));
  while (!exchange->result) co_await exchange->ended.wait();
  std::erase(exchanges_, exchange);
  co_return *exchange->result;
}

Task<void> MemoryLink::carry(std::shared_ptr<Exchange> exchange, std::vector<std::byte> request) {
  (void)co_await sleep(home_.reactor, draw_delay());
  if (loses_requests()) co_return;
  const Result<Request> arrived = mirror::decode_request(request);
  FL_CHECK(arrived.has_value());
  const std::optional<Reply> reply = co_await replica_.ask(exchange->connection, *arrived);
  if (!reply) co_return;
  const std::vector<std::byte> answer = mirror::encode(*reply);
  (void)co_await sleep(home_.reactor, draw_delay());
  if (!loses_replies()) exchange->end(mirror::decode_reply(answer));
}

Result<std::unique_ptr<BlockDevice>> MemoryLink::open(Shard& shard) {
  if (connection_ == 0) return fail(Code::kUnreachable, "no connection to the replica");
  return std::make_unique<Device>(*this, lane_of(shard), geometry_of(replica_.medium().size_bytes()), Uuid());
}

Task<Result<std::unique_ptr<BlockDevice>>> MemoryLink::open_snapshot(Uuid snapshot) {
  (void)co_await sleep(home_.reactor, draw_delay());
  const MemoryMedium::Frozen* const frozen = replica_.medium().find_snapshot(snapshot);
  if (connection_ == 0 || frozen == nullptr) co_return fail(Code::kUnreachable, "no way to the snapshot");
  co_return std::make_unique<Device>(*this, lane_of(home_), geometry_of(frozen->snapshot.size_bytes), snapshot);
}

MemoryLink::Lane& MemoryLink::lane_of(Shard& shard) {
  std::unique_ptr<Lane>& lane = lanes_[shard.id.value];
  if (lane == nullptr) lane = std::make_unique<Lane>(shard);
  return *lane;
}

Task<void> MemoryLink::carry(Lane& lane, std::shared_ptr<Transfer> transfer) {
  Reactor& reactor = lane.shard.reactor;
  (void)co_await sleep(reactor, draw_delay());
  co_await MoveTo(reactor, home_.reactor);
  std::optional<Result<void>> result;
  if (!loses_requests()) result = co_await replica_.execute(transfer->connection, transfer->operation);
  (void)co_await sleep(home_.reactor, draw_delay());
  if (loses_replies()) result.reset();
  co_await MoveTo(home_.reactor, reactor);
  if (!result) co_await give_up(lane, transfer->connection);
  transfer->end(result.value_or(fail(Code::kConnectionLost, "the connection has gone")));
  std::erase(lane.transfers, transfer);
}

// No answer will come: after the time-out the connection is taken for lost.
Task<void> MemoryLink::give_up(Lane& lane, uint64_t connection) {
  co_await MoveTo(lane.shard.reactor, home_.reactor);
  (void)co_await sleep(home_.reactor, options_.timeout);
  if (connection == connection_) drop();
  co_await MoveTo(home_.reactor, lane.shard.reactor);
}

}  // namespace fairlead::test
