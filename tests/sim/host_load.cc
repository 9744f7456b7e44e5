#include "host_load.h"

#include <algorithm>
#include <fmt/format.h>

#include "async/call.h"
#include "base/check.h"

namespace fairlead::sim_test {

using host::RemoteDevice;

struct HostLoad::Session {
  explicit Session(sim::SimNode& node) {
    for (size_t i = 0; i < node.shard_count(); ++i) ends.push_back(std::make_unique<Event>(node.shard(i).reactor));
  }
  std::unique_ptr<host::Subsystem> subsystem;
  std::vector<std::shared_ptr<BlockSource>> sources;                // by volume
  std::vector<std::vector<std::unique_ptr<RemoteDevice>>> devices;  // by shard, then by volume
  std::vector<std::unique_ptr<Event>> ends;                         // by shard: no request begins any more
  bool is_ending() const { return ends.front()->is_set(); }
};

// ---- One request of one worker: draws it, does it, tells the checker.

class HostRequest {
 public:
  HostRequest(HostLoad& load, HostLoad::Session& session, size_t shard)
      : load_(load),
        session_(session),
        reactor_(load.node_.shard(shard).reactor),
        random_(load.random_),
        volume_(*load.site_.volumes[load.random_.below(load.site_.volumes.size())]),
        device_(*session.devices[shard][volume_.nsid - 1]) {}

  Task<void> run();

 private:
  uint64_t blocks() const {
    return std::min(device_.geometry().size_bytes / volume_.plan.block_bytes, volume_.checker->blocks());
  }
  BlockSpan draw_span(uint32_t blocks_max);
  std::optional<BlockSpan> draw_region(uint32_t blocks_max);
  std::vector<iovec> cut(std::span<std::byte> bytes);
  void begin(const BlockSpan& span) { load_.busy_[volume_.nsid - 1].push_back(span); }
  void end_write(WriteKind kind, const WriteTicket& ticket, const Result<void>& done, Durability durability);
  void judge(std::string_view what, const Result<void>& done, const BlockSpan& span = {});

  Task<void> read();
  Task<void> compare();
  Task<void> flush();
  Task<void> write(uint32_t blocks_max);
  Task<void> clear(WriteKind kind);

  HostLoad& load_;
  HostLoad::Session& session_;
  Reactor& reactor_;
  sim::Prng& random_;
  Volume& volume_;
  RemoteDevice& device_;
};

BlockSpan HostRequest::draw_span(uint32_t blocks_max) {
  const uint64_t first = random_.below(blocks());
  return {first, static_cast<uint32_t>(random_.skewed(1, std::min<uint64_t>(blocks_max, blocks() - first)))};
}

// A part of this host's region where it writes nothing now. The last host has what the volume grew by.
std::optional<BlockSpan> HostRequest::draw_region(uint32_t blocks_max) {
  const uint64_t hosts = load_.cluster_.plan().hosts.size();
  const uint64_t low = volume_.plan.blocks * load_.index_ / hosts;
  const uint64_t high = load_.index_ + 1 == hosts ? blocks() : volume_.plan.blocks * (load_.index_ + 1) / hosts;
  for (int tries = 0; tries < 4; ++tries) {
    const uint64_t first = random_.between(low, high - 1);
    const BlockSpan span{first, static_cast<uint32_t>(random_.skewed(1, std::min<uint64_t>(blocks_max, high - first)))};
    const bool is_free = std::ranges::none_of(load_.busy_[volume_.nsid - 1], [&](const BlockSpan& other) {
      return span.lba < other.lba + other.blocks && other.lba < span.lba + span.blocks;
    });
    if (is_free) return span;
  }
  return std::nullopt;
}

// In pieces that have nothing to do with blocks.
std::vector<iovec> HostRequest::cut(std::span<std::byte> bytes) {
  std::vector<iovec> pieces;
  while (!bytes.empty()) {
    const size_t length = random_.coin() ? bytes.size() : random_.between(1, bytes.size());
    pieces.push_back({bytes.data(), length});
    bytes = bytes.subspan(length);
  }
  return pieces;
}

// Whether such an end may be, in this run.
void HostRequest::judge(std::string_view what, const Result<void>& done, const BlockSpan& span) {
  if (done || load_.node_.stopping(0).is_set()) return;
  const ChaosPlan& chaos = load_.cluster_.plan().chaos;
  const sim::SimWorld& world = load_.cluster_.world();
  const auto count = [&](sim::SimFault fault) { return world.injected_count(fault); };
  bool plausible = false;
  switch (done.error().code) {
    case Code::kShuttingDown:
      plausible = session_.is_ending();
      break;
    case Code::kNotFound:
      plausible = chaos.namespace_changes;
      break;
    case Code::kUnreachable:
      plausible = chaos.actions > 0 && load_.plan_.no_path_timeout_ms != kPatientMs;
      break;
    case Code::kIo:
    case Code::kCorrupt:
      plausible =
          count(sim::SimFault::kReadError) + count(sim::SimFault::kWriteError) + count(sim::SimFault::kFlushError) > 0;
      break;
    case Code::kCancelled:  // it took too long again and again
      plausible = count(sim::SimFault::kSlowDisk) + count(sim::SimFault::kStall) > 0;
      break;
    default:
      break;
  }
  if (plausible) return;
  load_.cluster_.fail(fmt::format("host {}: {} of volume {} (blocks {}+{}) ended with {}", load_.index_, what,
                                  volume_.index, span.lba, span.blocks, to_string(done.error())));
}

void HostRequest::end_write(WriteKind kind, const WriteTicket& ticket, const Result<void>& done,
                            Durability durability) {
  std::erase_if(load_.busy_[volume_.nsid - 1], [&](const BlockSpan& each) { return each.lba == ticket.span.lba; });
  judge(kind == WriteKind::kData     ? "write"
        : kind == WriteKind::kZeroes ? "write of zeroes"
                                     : "discard",
        done, ticket.span);
  const bool forced = durability == Durability::kForced || !volume_.plan.volatile_cache;
  // Discard is a hint: done or not, the old bytes may still be there.
  if (done && kind != WriteKind::kDeallocate) {
    volume_.checker->write_done(ticket, forced ? Checker::Forced::kYes : Checker::Forced::kNo);
  } else {
    volume_.checker->write_given_up(ticket);
  }
}

Task<void> HostRequest::read() {
  const BlockSpan span = draw_span(load_.cluster_.plan().blocks_max * 2);
  std::vector<std::byte> bytes(size_t{span.blocks} * volume_.plan.block_bytes);
  const std::vector<iovec> pieces = cut(bytes);
  const ReadTicket ticket = volume_.checker->begin_read();
  const Result<void> done =
      co_await block_read(reactor_, device_, ByteOffset{span.lba * volume_.plan.block_bytes}, pieces);
  judge("read", done, span);
  if (!done) {
    volume_.checker->read_abandoned(ticket);
    co_return;
  }
  const std::string wrong = volume_.checker->read_done(ticket, span, bytes);
  if (!wrong.empty()) load_.cluster_.fail(fmt::format("host {}: {}", load_.index_, wrong));
}

Task<void> HostRequest::compare() {
  const BlockSpan span = draw_span(load_.cluster_.plan().blocks_max);
  const size_t block = volume_.plan.block_bytes;
  std::vector<std::byte> bytes(span.blocks * block);
  for (uint32_t i = 0; i < span.blocks; ++i) {
    fill_block(std::span(bytes).subspan(i * block, block), volume_.index, span.lba + i,
               volume_.checker->guess(span.lba + i));
  }
  const std::vector<iovec> pieces = cut(bytes);
  const ReadTicket ticket = volume_.checker->begin_read();
  const Result<void> done = co_await device_.compare(ByteOffset{span.lba * block}, pieces);
  const bool differs = !done && done.error().code == Code::kMiscompare;
  if (!differs) judge("compare", done, span);
  if (!done && !differs) {
    volume_.checker->read_abandoned(ticket);
    co_return;
  }
  const std::string wrong = volume_.checker->compare_done(ticket, span, bytes, !differs);
  if (!wrong.empty()) load_.cluster_.fail(fmt::format("host {}: {}", load_.index_, wrong));
}

Task<void> HostRequest::flush() {
  const FlushTicket ticket = volume_.checker->begin_flush();
  const Result<void> done = co_await block_flush(reactor_, device_);
  judge("flush", done);
  if (done) volume_.checker->flush_done(ticket);
}

Task<void> HostRequest::write(uint32_t blocks_max) {
  const std::optional<BlockSpan> span = draw_region(blocks_max);
  if (!span) co_return;
  begin(*span);
  const WriteTicket ticket = volume_.checker->begin_host_write(*span, WriteKind::kData);
  const size_t block = volume_.plan.block_bytes;
  std::vector<std::byte> bytes(span->blocks * block);
  for (uint32_t i = 0; i < span->blocks; ++i) {
    fill_block(std::span(bytes).subspan(i * block, block), volume_.index, span->lba + i, ticket.id);
  }
  const std::vector<iovec> pieces = cut(bytes);
  const Durability durability = random_.one_in(4) ? Durability::kForced : Durability::kVolatile;
  const Result<void> done = co_await block_write(reactor_, device_, ByteOffset{span->lba * block}, pieces, durability);
  end_write(WriteKind::kData, ticket, done, durability);
}

Task<void> HostRequest::clear(WriteKind kind) {
  const std::optional<BlockSpan> span = draw_region(32);
  if (!span) co_return;
  begin(*span);
  const WriteTicket ticket = volume_.checker->begin_host_write(*span, kind);
  const ByteOffset offset{span->lba * volume_.plan.block_bytes};
  const uint64_t length = uint64_t{span->blocks} * volume_.plan.block_bytes;
  const ZeroMode mode = random_.coin() ? ZeroMode::kMayDeallocate : ZeroMode::kKeepAllocated;
  Result<void> done;
  if (kind == WriteKind::kZeroes) {
    done = co_await block_write_zeroes(reactor_, device_, offset, length, mode);
  } else {
    done = co_await block_discard(reactor_, device_, offset, length);
  }
  end_write(kind, ticket, done, Durability::kVolatile);
}

Task<void> HostRequest::run() {
  const Plan& plan = load_.cluster_.plan();
  const uint64_t kind = random_.below(100);
  if (kind < 30) co_return co_await read();
  if (kind < 66) co_return co_await write(plan.blocks_max);
  if (kind < 72) co_return co_await write(plan.blocks_large);
  if (kind < 80) co_return co_await flush();
  if (kind < 87) co_return co_await clear(WriteKind::kZeroes);
  if (kind < 92) co_return co_await clear(WriteKind::kDeallocate);
  co_await compare();
}

// ---- The host

HostLoad::HostLoad(Cluster& cluster, size_t index, uint64_t seed)
    : cluster_(cluster),
      index_(index),
      plan_(cluster.plan().hosts.at(index)),
      site_(*cluster.targets().front()),
      node_(cluster.host_node(index)),
      random_(seed),
      workers_(plan_.shards, std::vector<Worker>(plan_.workers)),
      busy_(site_.volumes.size()) {}

HostLoad::~HostLoad() = default;

host::SubsystemOptions HostLoad::options() const {
  using std::chrono::milliseconds;
  host::SubsystemOptions options;
  options.nqn = site_.nqn;
  for (const size_t path : plan_.paths) options.addresses.push_back(site_.paths.at(path).address);
  options.identity = host::identity_from_id(uuid_from_random(7, index_ + 1));
  options.queue_depth = plan_.queue_depth;
  options.header_digest = plan_.header_digest;
  options.data_digest = plan_.data_digest;
  options.keep_alive = milliseconds(plan_.keep_alive_ms);
  options.connect_timeout = milliseconds(plan_.connect_timeout_ms);
  options.admin_timeout = milliseconds(plan_.admin_timeout_ms);
  options.command_timeout = milliseconds(plan_.command_timeout_ms);
  options.abort_timeout = milliseconds(plan_.abort_timeout_ms);
  options.reconnect_min = milliseconds(plan_.reconnect_min_ms);
  options.reconnect_max = milliseconds(plan_.reconnect_max_ms);
  options.no_path_timeout = milliseconds(plan_.no_path_timeout_ms);
  options.quiesce = milliseconds(plan_.quiesce_ms);
  return options;
}

void HostLoad::start_round() {
  released_ = false;
  for (auto& shard : workers_) {
    for (Worker& worker : shard) worker.left = cluster_.plan().commands;
  }
}

bool HostLoad::is_done() const {
  if (cluster_.has_failed()) return true;
  return in_flight_ == 0 && std::ranges::all_of(workers_, [](const auto& shard) {
           return std::ranges::all_of(shard, [](const Worker& worker) { return worker.left == 0; });
         });
}

bool HostLoad::is_whole() const {
  if (session_ == nullptr || session_->subsystem == nullptr || session_->devices.empty()) return false;
  for (const host::ControllerStatus& each : session_->subsystem->controllers()) {
    if (each.state != host::ControllerState::kLive) return false;
  }
  for (const auto& shard : session_->devices) {
    if (shard.size() != site_.volumes.size()) return false;
    for (const auto& volume : site_.volumes) {
      if (shard[volume->nsid - 1]->geometry().size_bytes != volume->device->size_bytes()) return false;
    }
  }
  return true;
}

std::string HostLoad::describe() const {
  std::string text = fmt::format("host {}: {} requests in flight", index_, in_flight_);
  if (session_ == nullptr || session_->subsystem == nullptr) return text + ", no subsystem";
  for (const host::ControllerStatus& each : session_->subsystem->controllers()) {
    text += fmt::format(", {} {} ({})", to_string(each.address), host::state_name(each.state), each.last_error.what);
  }
  for (const auto& shard : session_->devices) {
    for (const auto& device : shard) text += fmt::format(", {} bytes", device->geometry().size_bytes);
  }
  return text;
}

void HostLoad::end() {
  if (session_ == nullptr) return;
  for (const auto& each : session_->ends) each->set();
}

void HostLoad::release() {
  released_ = true;
  end();
}

void HostLoad::restart() { end(); }

Duration HostLoad::stop_limit() const {
  // What it waits for: connections that are being made, its last words to the controller.
  return std::chrono::milliseconds(plan_.connect_timeout_ms + 2 * plan_.admin_timeout_ms) + std::chrono::seconds(15);
}

// Stops the subsystem when the session is to end, wherever it is.
Task<void> HostLoad::end_session(Session& session) {
  co_await session.ends.front()->wait();
  const Instant begin = node_.shard(0).reactor.now();
  co_await session.subsystem->stop();
  const Duration took = node_.shard(0).reactor.now() - begin;
  if (took > stop_limit() && !node_.stopping(0).is_set()) {
    cluster_.fail(fmt::format("host {}: a stop took {} ms", index_, took.count() / 1'000'000));
  }
}

Task<void> HostLoad::work(Session& session, size_t shard, Worker& worker) {
  Reactor& reactor = node_.shard(shard).reactor;
  while (worker.left > 0 && !session.is_ending() && !cluster_.has_failed()) {
    --worker.left;
    ++in_flight_;
    HostRequest request(*this, session, shard);
    co_await request.run();
    --in_flight_;
    const bool is_long = random_.one_in(16);
    const Duration pause(static_cast<int64_t>(random_.skewed(1'000, is_long ? 1'000'000'000 : 30'000'000)));
    if (random_.one_in(2)) (void)co_await sleep(reactor, pause, node_.cancel(shard));
  }
}

Task<void> HostLoad::serve_shard(Session& session, size_t shard) {
  auto& devices = session.devices[shard];
  for (const auto& source : session.sources) {
    Result<std::unique_ptr<BlockDevice>> device = source->open(node_.shard(shard));
    FL_CHECK(device.has_value());
    devices.emplace_back(static_cast<RemoteDevice*>(device->release()));
  }
  Scope workers(node_.shard(shard).reactor);
  for (Worker& worker : workers_[shard]) workers.spawn(work(session, shard, worker));
  co_await workers.close();
  co_await session.ends[shard]->wait();
  for (const auto& device : devices) {
    statistics_.resent += device->statistics().resent;
    statistics_.held += device->statistics().held;
    statistics_.fenced += device->statistics().fenced;
    statistics_.retried += device->statistics().retried;
  }
  devices.clear();
}

// Waits until every namespace is there. False: the session ends.
Task<bool> HostLoad::collect(Session& session) {
  session.sources.resize(site_.volumes.size());
  while (!session.is_ending()) {
    bool complete = true;
    for (const auto& volume : site_.volumes) {
      std::shared_ptr<BlockSource>& source = session.sources[volume->nsid - 1];
      if (source != nullptr) continue;
      Result<std::shared_ptr<BlockSource>> found = session.subsystem->source(volume->nsid);
      if (found) source = std::move(*found);
      complete = complete && source != nullptr;
    }
    if (complete) co_return true;
    co_await session.subsystem->changed().wait();
  }
  co_return false;
}

Task<void> HostLoad::connect_and_serve(Session& session) {
  Reactor& home = node_.shard(0).reactor;
  const Result<void> started = co_await session.subsystem->start();
  if (!started && cluster_.plan().chaos.actions == 0) cluster_.fail("no connection: " + to_string(started.error()));
  if (!started || !co_await collect(session)) co_return;
  session.devices.resize(plan_.shards);
  Scope shards(home);
  for (size_t i = 0; i < plan_.shards; ++i) {
    shards.spawn(call_on(home, node_.shard(i).reactor, serve_shard(session, i)));
  }
  co_await shards.close();
}

Task<void> HostLoad::run_session() {
  Session session(node_);
  session_ = &session;
  session.subsystem = std::make_unique<host::Subsystem>(
      [this] {
        std::vector<Shard*> shards;
        for (size_t i = 0; i < plan_.shards; ++i) shards.push_back(&node_.shard(i));
        return shards;
      }(),
      options());
  if (node_.stopping(0).is_set()) end();
  Scope ending(node_.shard(0).reactor);
  ending.spawn(end_session(session));
  co_await connect_and_serve(session);
  end();
  co_await ending.close();
  session.sources.clear();
  session.subsystem.reset();
  session_ = nullptr;
}

// Ends the session with its node.
namespace {
Task<void> watch_node(sim::SimNode& node, HostLoad& load) {
  co_await node.stopping(0).wait();
  load.restart();
}
}  // namespace

Task<void> HostLoad::run(bool* ended) {
  Reactor& home = node_.shard(0).reactor;
  cluster_.world().spawn(node_, 0, watch_node(node_, *this));
  // What its last life left behind must be gone: no fence tells this one of it.
  const auto quiesce = std::chrono::milliseconds(plan_.quiesce_ms);
  if (node_.boots() > 1) (void)co_await sleep(home, quiesce, node_.cancel(0));
  while (!node_.stopping(0).is_set()) {
    co_await run_session();
    if ((released_ && is_done()) || cluster_.has_failed() || node_.stopping(0).is_set()) break;
    (void)co_await sleep(home, quiesce, node_.cancel(0));
  }
  *ended = released_ && is_done();
}

// ---- Reading back

Task<void> HostLoad::verify_block(RemoteDevice& device, Volume& volume, uint64_t lba) {
  Reactor& home = node_.shard(0).reactor;
  std::vector<std::byte> bytes(volume.plan.block_bytes);
  const iovec piece{bytes.data(), bytes.size()};
  const ByteOffset offset{lba * volume.plan.block_bytes};
  for (int tries = 0; tries < 2; ++tries) {
    const ReadTicket ticket = volume.checker->begin_read();
    const Result<void> done = co_await block_read(home, device, offset, {&piece, 1});
    if (done) {
      const std::string wrong = volume.checker->read_done(ticket, {lba, 1}, bytes);
      if (!wrong.empty()) cluster_.fail("at rest: " + wrong);
      co_return;
    }
    volume.checker->read_abandoned(ticket);
    const bool is_unreadable = done.error().code == Code::kCorrupt || done.error().code == Code::kIo;
    if (!is_unreadable || cluster_.world().injected_count(sim::SimFault::kReadError) == 0) {
      co_return cluster_.fail("reading back: " + to_string(done.error()));
    }
    // A sector that was unreadable is readable again once it was written.
    const WriteTicket written = volume.checker->begin_host_write({lba, 1}, WriteKind::kData);
    fill_block(bytes, volume.index, lba, written.id);
    const Result<void> mended = co_await block_write(home, device, offset, {&piece, 1});
    if (!mended) co_return cluster_.fail("mending: " + to_string(mended.error()));
    volume.checker->write_done(written, Checker::Forced::kNo);
  }
  cluster_.fail(fmt::format("volume {} block {} stays unreadable", volume.index, lba));
}

Task<void> HostLoad::verify_volume(RemoteDevice& device, Volume& volume) {
  for (uint64_t lba = 0; lba < volume.checker->blocks() && !cluster_.has_failed(); ++lba) {
    co_await verify_block(device, volume, lba);
  }
  const FlushTicket ticket = volume.checker->begin_flush();
  const Result<void> flushed = co_await block_flush(node_.shard(0).reactor, device);
  if (!flushed) co_return cluster_.fail("the last flush failed: " + to_string(flushed.error()));
  volume.checker->flush_done(ticket);
}

Task<void> HostLoad::verify(bool* ended) {
  host::SubsystemOptions patient = options();
  patient.command_timeout = patient.admin_timeout = patient.connect_timeout = std::chrono::seconds(60);
  patient.keep_alive = std::chrono::seconds(60);
  std::vector<Shard*> shards{&node_.shard(0)};
  host::Subsystem subsystem(shards, patient);
  const Result<void> started = co_await subsystem.start();
  if (!started) {
    cluster_.fail("no connection although nothing is wrong: " + to_string(started.error()));
  } else {
    for (const auto& volume : site_.volumes) {
      const Result<std::shared_ptr<BlockSource>> source = subsystem.source(volume->nsid);
      if (!source) {
        cluster_.fail("a namespace is not there although nothing is wrong");
        continue;
      }
      Result<std::unique_ptr<BlockDevice>> device = (*source)->open(node_.shard(0));
      FL_CHECK(device.has_value());
      co_await verify_volume(static_cast<RemoteDevice&>(**device), *volume);
    }
  }
  co_await subsystem.stop();
  *ended = true;
}

}  // namespace fairlead::sim_test
