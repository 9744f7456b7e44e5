// What a client's workers do, and the final reading back. See load.h.
#include <algorithm>
#include <fmt/format.h>

#include "base/check.h"
#include "load.h"

namespace fairlead::sim_test {

using nvme::StatusCode;
using testing::Completion;
using testing::NvmeConnection;

// One command of one worker: draws it, does it, tells the checker.
class CommandRun {
 public:
  CommandRun(Client& client, Session& session, size_t queue, Worker& worker)
      : client_(client), session_(session), queue_(session.queue(queue)), worker_(worker), random_(client.random_) {}

  Task<void> run();

 private:
  Volume& draw_volume();
  BlockSpan draw_span(const Volume& volume, uint32_t blocks_max);
  std::vector<std::byte> filled(const Volume& volume, const WriteTicket& ticket) const;
  std::vector<std::byte> guessed(const Volume& volume, BlockSpan span) const;
  Checker::Forced forced(const Volume& volume, bool fua) const;
  // Whether such a status may be, in this run.
  void judge(const Volume& volume, std::string_view what, const nvme::Status& status);
  void end_write(Volume& volume, WriteKind kind, const WriteTicket& ticket, const Result<Completion>& done, bool fua);
  void report(std::string wrong);

  Task<void> read();
  Task<void> write();
  Task<void> again();
  Task<void> flush();
  Task<void> zeroes();
  Task<void> deallocate();
  Task<void> compare();
  Task<void> fused();
  Task<void> count();
  Task<void> verify();
  Task<void> abort();

  Client& client_;
  Session& session_;
  NvmeConnection& queue_;
  Worker& worker_;
  sim::Prng& random_;
};

Volume& CommandRun::draw_volume() {
  auto& volumes = client_.site_.volumes;
  return *volumes[random_.below(volumes.size())];
}

// Never the counter.
BlockSpan CommandRun::draw_span(const Volume& volume, uint32_t blocks_max) {
  const uint64_t first = 1 + random_.below(volume.blocks - 1);
  const uint64_t most = std::min<uint64_t>(blocks_max, volume.blocks - first);
  return {first, static_cast<uint32_t>(random_.skewed(1, most))};
}

std::vector<std::byte> CommandRun::filled(const Volume& volume, const WriteTicket& ticket) const {
  const size_t block = volume.plan.block_bytes;
  std::vector<std::byte> bytes(ticket.span.blocks * block);
  for (uint32_t i = 0; i < ticket.span.blocks; ++i) {
    fill_block(std::span(bytes).subspan(i * block, block), volume.index, ticket.span.lba + i, ticket.id);
  }
  return bytes;
}

std::vector<std::byte> CommandRun::guessed(const Volume& volume, BlockSpan span) const {
  const size_t block = volume.plan.block_bytes;
  std::vector<std::byte> bytes(span.blocks * block);
  for (uint32_t i = 0; i < span.blocks; ++i) {
    const uint64_t lba = span.lba + i;
    fill_block(std::span(bytes).subspan(i * block, block), volume.index, lba, volume.checker->guess(lba));
  }
  return bytes;
}

Checker::Forced CommandRun::forced(const Volume& volume, bool fua) const {
  return fua || session_.writes_through() || !volume.plan.volatile_cache ? Checker::Forced::kYes : Checker::Forced::kNo;
}

void CommandRun::report(std::string wrong) {
  if (!wrong.empty()) client_.cluster_.fail(std::move(wrong));
}

void CommandRun::judge(const Volume& volume, std::string_view what, const nvme::Status& status) {
  const ChaosPlan& chaos = client_.cluster_.plan().chaos;
  const sim::SimWorld& world = client_.cluster_.world();
  bool plausible = false;
  switch (status.code) {
    case StatusCode::kSuccess:
    case StatusCode::kCompareFailure:
      plausible = true;
      break;
    case StatusCode::kAbortRequested:
    case StatusCode::kAbortedQueueDeleted:
    case StatusCode::kTransientTransportError:
      plausible = !status.do_not_retry;
      break;
    case StatusCode::kInvalidNamespaceOrFormat:
      plausible = chaos.namespace_changes;
      break;
    case StatusCode::kAnaInaccessible:
    case StatusCode::kAnaPersistentLoss:
    case StatusCode::kAnaTransition:
      plausible = chaos.ana_changes && !status.do_not_retry;
      break;
    case StatusCode::kCapacityExceeded:
      plausible = chaos.no_room;
      break;
    case StatusCode::kInternalError:
    case StatusCode::kWriteFault:
    case StatusCode::kUnrecoveredReadError:
      plausible = world.injected_count(sim::SimFault::kReadError) + world.injected_count(sim::SimFault::kWriteError) +
                      world.injected_count(sim::SimFault::kFlushError) >
                  0;
      break;
    default:
      break;
  }
  if (!plausible) report(fmt::format("{} of volume {} ended with {}", what, volume.index, nvme::to_string(status)));
}

void CommandRun::end_write(Volume& volume, WriteKind kind, const WriteTicket& ticket, const Result<Completion>& done,
                           bool fua) {
  if (!done) {
    volume.checker->write_lost(ticket);
    if (!random_.one_in(3)) worker_.retry = Worker::Retry{ticket, &volume, kind};
    return;
  }
  session_.progressed();
  judge(volume, kind == WriteKind::kData ? "write" : "write of zeroes", done->status);
  // Deallocation is a hint: done or not, the old bytes may still be there.
  if (done->ok() && kind != WriteKind::kDeallocate) {
    volume.checker->write_done(ticket, forced(volume, fua));
  } else {
    volume.checker->write_failed(ticket);
  }
}

Task<void> CommandRun::read() {
  Volume& volume = draw_volume();
  const BlockSpan span = draw_span(volume, client_.cluster_.plan().blocks_max);
  std::vector<std::byte> bytes(size_t{span.blocks} * volume.plan.block_bytes);
  const ReadTicket ticket = volume.checker->begin_read();
  const Result<Completion> done = co_await queue_.read(volume.nsid, span.lba, span.blocks, bytes);
  if (!done || !done->ok()) volume.checker->read_abandoned(ticket);
  if (!done) co_return;
  session_.progressed();
  judge(volume, "read", done->status);
  if (done->ok()) report(volume.checker->read_done(ticket, span, bytes));
}

Task<void> CommandRun::write() {
  Volume& volume = draw_volume();
  // Now and then one that needs several rounds of data.
  const bool large = random_.one_in(16);
  const WriteTicket ticket = volume.checker->begin_write(
      draw_span(volume, large ? client_.cluster_.plan().blocks_large : client_.cluster_.plan().blocks_max),
      WriteKind::kData);
  const bool fua = random_.one_in(4);
  const std::vector<std::byte> bytes = filled(volume, ticket);
  const Result<Completion> done =
      co_await queue_.write(volume.nsid, ticket.span.lba, ticket.span.blocks, bytes, {.fua = fua});
  end_write(volume, WriteKind::kData, ticket, done, fua);
}

Task<void> CommandRun::again() {
  const Worker::Retry retry = *std::exchange(worker_.retry, std::nullopt);
  Volume& volume = *retry.volume;
  if (retry.kind != WriteKind::kData) co_return;
  const WriteTicket ticket = volume.checker->again_write(retry.ticket);
  const std::vector<std::byte> bytes = filled(volume, ticket);
  const Result<Completion> done = co_await queue_.write(volume.nsid, ticket.span.lba, ticket.span.blocks, bytes);
  end_write(volume, WriteKind::kData, ticket, done, false);
}

Task<void> CommandRun::flush() {
  Volume& one = draw_volume();
  const bool every = random_.one_in(4);
  std::vector<std::pair<Volume*, FlushTicket>> tickets;
  for (const auto& volume : client_.site_.volumes) {
    // Of all: those that are attached now, for all that we know.
    if (every ? volume->attached : volume.get() == &one) {
      tickets.emplace_back(volume.get(), volume->checker->begin_flush());
    }
  }
  const Result<Completion> done = co_await queue_.flush(every ? nvme::kBroadcastNamespace : one.nsid);
  if (!done) co_return;
  session_.progressed();
  judge(one, "flush", done->status);
  if (!done->ok()) co_return;
  // A namespace that went meanwhile was not flushed, and a volume may have gone and come back.
  if (every && client_.cluster_.plan().chaos.namespace_changes) co_return;
  for (const auto& [volume, ticket] : tickets) volume->checker->flush_done(ticket);
}

Task<void> CommandRun::zeroes() {
  Volume& volume = draw_volume();
  const WriteTicket ticket = volume.checker->begin_write(draw_span(volume, 32), WriteKind::kZeroes);
  const bool fua = random_.one_in(4);
  const Result<Completion> done = co_await queue_.write_zeroes(volume.nsid, ticket.span.lba, ticket.span.blocks,
                                                               {.fua = fua, .deallocate = random_.coin()});
  end_write(volume, WriteKind::kZeroes, ticket, done, fua);
}

Task<void> CommandRun::deallocate() {
  Volume& volume = draw_volume();
  std::vector<nvme::DsmRange> ranges(random_.between(1, 3));
  std::vector<WriteTicket> tickets;
  for (nvme::DsmRange& range : ranges) {
    const BlockSpan span = draw_span(volume, 16);
    range.slba = span.lba;
    range.blocks = span.blocks;
    tickets.push_back(volume.checker->begin_write(span, WriteKind::kDeallocate));
  }
  const Result<Completion> done = co_await queue_.deallocate(volume.nsid, ranges);
  for (const WriteTicket& ticket : tickets) end_write(volume, WriteKind::kDeallocate, ticket, done, false);
}

Task<void> CommandRun::compare() {
  Volume& volume = draw_volume();
  const BlockSpan span = draw_span(volume, client_.cluster_.plan().blocks_max);
  const std::vector<std::byte> bytes = guessed(volume, span);
  const ReadTicket ticket = volume.checker->begin_read();
  const Result<Completion> done = co_await queue_.compare(volume.nsid, span.lba, span.blocks, bytes);
  const bool failed = done && done->status.code == StatusCode::kCompareFailure;
  if (!done || !(done->ok() || failed)) volume.checker->read_abandoned(ticket);
  if (!done) co_return;
  session_.progressed();
  judge(volume, "compare", done->status);
  if (done->ok() || failed) report(volume.checker->compare_done(ticket, span, bytes, !failed));
}

Task<void> CommandRun::fused() {
  Volume& volume = draw_volume();
  const BlockSpan span = draw_span(volume, std::min(client_.cluster_.plan().blocks_max, 4U));
  const std::vector<std::byte> expected = guessed(volume, span);
  const ReadTicket read = volume.checker->begin_read();
  const WriteTicket ticket = volume.checker->begin_write(span, WriteKind::kData);
  const std::vector<std::byte> bytes = filled(volume, ticket);
  const auto done = co_await queue_.compare_and_write(volume.nsid, span.lba, span.blocks, expected, bytes);
  if (!done) {
    volume.checker->read_abandoned(read);
    volume.checker->write_lost(ticket);
    co_return;
  }
  session_.progressed();
  const nvme::Status compared = done->compare.status;
  const nvme::Status written = done->write.status;
  judge(volume, "fused compare", compared.code == StatusCode::kAbortedFailedFused ? nvme::kOk : compared);
  const bool not_tried = written.code == StatusCode::kAbortedFailedFused;
  judge(volume, "fused write", not_tried ? nvme::kOk : written);
  if (written.ok() && !compared.ok()) report("a fused write happened without its compare");
  const bool failed = compared.code == StatusCode::kCompareFailure;
  if (failed || not_tried) volume.checker->write_refused(ticket);
  if (compared.ok() || failed) {
    report(volume.checker->compare_done(read, span, expected, compared.ok()));
  } else {
    volume.checker->read_abandoned(read);
  }
  if (written.ok()) {
    volume.checker->write_done(ticket, forced(volume, false));
  } else if (!failed && !not_tried) {
    volume.checker->write_failed(ticket);
  }
}

// Reads the counter and tries to set the next number.
Task<void> CommandRun::count() {
  Volume& volume = draw_volume();
  const uint64_t lba = volume.counter_lba();
  std::vector<std::byte> bytes(volume.plan.block_bytes);
  const uint64_t epoch = client_.site_.epoch;
  const uint64_t least = volume.counted.empty() ? 0 : *volume.counted.rbegin();
  const Result<Completion> got = co_await queue_.read(volume.nsid, lba, 1, bytes);
  if (!got) co_return;
  session_.progressed();
  judge(volume, "read of the counter", got->status);
  if (!got->ok()) co_return;
  const std::optional<VersionId> number = read_block(bytes, volume.index, lba);
  if (!number) co_return report(fmt::format("volume {}: the counter holds bytes that nobody wrote", volume.index));
  if (epoch == client_.site_.epoch && *number < least) {
    report(fmt::format("volume {}: the counter went back from {} to {}", volume.index, least, *number));
  }
  std::vector<std::byte> next(bytes.size());
  fill_block(next, volume.index, lba, *number + 1);
  const auto done = co_await queue_.compare_and_write(volume.nsid, lba, 1, bytes, next);
  if (!done) co_return;
  session_.progressed();
  judge(volume, "counting",
        done->write.status.code == StatusCode::kAbortedFailedFused ? nvme::kOk : done->write.status);
  if (!done->write.ok() || epoch != client_.site_.epoch) co_return;
  if (!volume.counted.insert(*number + 1).second) {
    report(fmt::format("volume {}: two hosts set the counter to {}", volume.index, *number + 1));
  }
}

Task<void> CommandRun::verify() {
  Volume& volume = draw_volume();
  const BlockSpan span = draw_span(volume, 64);
  const Result<Completion> done = co_await queue_.verify(volume.nsid, span.lba, span.blocks);
  if (!done) co_return;
  session_.progressed();
  judge(volume, "verify", done->status);
}

Task<void> CommandRun::abort() {
  // The latest command of this queue, if it is still there; or the event request.
  const bool event = random_.one_in(3);
  const auto cid = static_cast<uint16_t>(event ? session_.event_cid() : queue_.next_cid() - 1);
  const Result<Completion> done = co_await session_.admin().abort(event ? 0 : queue_.options().qid, cid);
  if (done && !done->ok()) report("abort ended with " + nvme::to_string(done->status));
}

Task<void> CommandRun::run() {
  if (worker_.retry) co_return co_await again();
  if (session_.plan().data_digest && random_.one_in(64)) queue_.damage_next(testing::Damage::kDataDigest);
  const uint64_t kind = random_.below(100);
  if (kind < 28) co_return co_await read();
  if (kind < 58) co_return co_await write();
  if (kind < 65) co_return co_await flush();
  if (kind < 70) co_return co_await zeroes();
  if (kind < 75) co_return co_await deallocate();
  if (kind < 81) co_return co_await compare();
  if (kind < 87) co_return co_await fused();
  if (kind < 94) co_return co_await count();
  if (kind < 97) co_return co_await verify();
  co_await abort();
}

// ---- Client

Client::Client(Cluster& cluster, size_t index, uint64_t seed)
    : cluster_(cluster),
      index_(index),
      plan_(cluster.plan().clients.at(index)),
      site_(*cluster.targets().at(plan_.target)),
      node_(cluster.client_node(index)),
      random_(seed),
      workers_(plan_.queues, std::vector<Worker>(plan_.workers)) {}

void Client::start_round() {
  for (auto& queue : workers_) {
    for (Worker& worker : queue) worker.left = cluster_.plan().commands;
  }
}

bool Client::is_finished() const {
  if (cluster_.has_failed()) return true;
  return std::ranges::all_of(workers_, [](const auto& queue) {
    return std::ranges::all_of(queue, [](const Worker& worker) { return worker.left == 0 && !worker.retry; });
  });
}

Task<void> Client::work(Session& session, size_t queue, Worker& worker) {
  while ((worker.left > 0 || worker.retry) && !session.is_lost() && !cluster_.has_failed()) {
    if (!worker.retry) --worker.left;
    CommandRun command(*this, session, queue, worker);
    co_await command.run();
    if (random_.one_in(8)) {
      const Duration pause(static_cast<int64_t>(random_.skewed(1'000, 50'000'000)));
      (void)co_await sleep(session.shard().reactor, pause, node_.cancel(0));
    }
  }
}

// Drops the connections when nothing comes any more.
Task<void> Client::watch(Session& session, CancelSource& cancel) {
  uint64_t before = session.progress();
  const auto patience = std::chrono::milliseconds(plan_.patience_ms);
  while (co_await sleep(session.shard().reactor, patience, cancel)) {
    if (session.progress() == before) session.cut();
    before = session.progress();
  }
}

Task<void> Client::keep_alive(Session& session, CancelSource& cancel) {
  const auto span = std::chrono::milliseconds(std::max(1U, plan_.keep_alive_ms / 3));
  while (co_await sleep(session.shard().reactor, span, cancel)) {
    if (session.is_lost()) co_return;
    if (!co_await session.admin().keep_alive()) co_return;
  }
}

// Asks for events, and for the log that each is about.
Task<void> Client::listen(Session& session) {
  while (!session.is_lost()) {
    session.set_event_cid(session.admin().next_cid());
    const Result<Completion> event = co_await session.admin().async_event();
    if (!event) co_return;
    if (event->status.code == StatusCode::kAbortRequested) continue;
    if (!event->ok()) co_return;
    std::vector<std::byte> log(4096);
    const auto page = static_cast<nvme::LogPage>((event->result >> 16) & 0xff);
    const Result<Completion> read = co_await session.admin().get_log_page(page, log);
    if (read && !read->ok()) cluster_.fail("the log of an event: " + nvme::to_string(read->status));
  }
}

Task<void> Client::serve_session(Session& session, CancelSource& cancel) {
  Reactor& reactor = session.shard().reactor;
  Scope background(reactor);
  background.spawn(listen(session));
  background.spawn(keep_alive(session, cancel));
  Scope workers(reactor);
  for (size_t queue = 0; queue < session.queues(); ++queue) {
    for (Worker& worker : workers_[queue]) workers.spawn(work(session, queue, worker));
  }
  co_await workers.close();
  if (random_.coin() && !session.is_lost()) (void)co_await session.queue(0).disconnect();
  cancel.cancel();
  session.cut();
  co_await background.close();
}

Task<void> Client::run(bool* done) {
  Reactor& reactor = node_.shard(0).reactor;
  while (!is_finished() && !node_.stopping(0).is_set()) {
    Session session(node_.shard(0), plan_);
    CancelSource cancel;
    Scope watching(reactor);
    watching.spawn(watch(session, cancel));
    const Result<void> opened = co_await session.open(site_, index_);
    if (opened) co_await serve_session(session, cancel);
    cancel.cancel();
    co_await session.close();
    co_await watching.close();
    if (!session.complaint().empty()) cluster_.fail("a host complains: " + session.complaint());
    if (is_finished()) break;
    const Duration pause(static_cast<int64_t>(random_.skewed(1'000'000, 500'000'000)));
    (void)co_await sleep(reactor, pause, node_.cancel(0));
  }
  *done = is_finished();
}

// ---- Reading back

Task<void> Client::mend(Session& session, Volume& volume, uint64_t lba) {
  // A sector that was unreadable is readable again once it was written.
  std::vector<std::byte> bytes(volume.plan.block_bytes);
  Result<Completion> done = fail(Code::kInternal);
  if (lba == volume.counter_lba()) {
    volume.counted.clear();
    done = co_await session.queue(0).write(volume.nsid, lba, 1, bytes);
  } else {
    const WriteTicket ticket = volume.checker->begin_write({lba, 1}, WriteKind::kData);
    fill_block(bytes, volume.index, lba, ticket.id);
    done = co_await session.queue(0).write(volume.nsid, lba, 1, bytes);
    if (done && done->ok()) volume.checker->write_done(ticket, Checker::Forced::kNo);
  }
  session.progressed();
  if (!done || !done->ok()) cluster_.fail(fmt::format("volume {} block {} cannot be mended", volume.index, lba));
}

Task<void> Client::verify_block(Session& session, Volume& volume, uint64_t lba) {
  std::vector<std::byte> bytes(volume.plan.block_bytes);
  for (int tries = 0; tries < 2; ++tries) {
    const ReadTicket ticket = volume.checker->begin_read();
    const Result<Completion> done = co_await session.queue(0).read(volume.nsid, lba, 1, bytes);
    session.progressed();
    if (!done || !done->ok()) volume.checker->read_abandoned(ticket);
    if (!done) co_return cluster_.fail("the connection was lost although nothing is wrong");
    if (done->ok()) {
      std::string wrong;
      if (lba != volume.counter_lba()) {
        wrong = volume.checker->read_done(ticket, {lba, 1}, bytes);
      } else {
        volume.checker->read_abandoned(ticket);
      }
      if (lba == volume.counter_lba() && !read_block(bytes, volume.index, lba)) {
        wrong = fmt::format("volume {}: the counter holds bytes that nobody wrote", volume.index);
      }
      if (!wrong.empty()) cluster_.fail("at rest: " + wrong);
      co_return;
    }
    const bool unreadable =
        done->status.type() == nvme::StatusCodeType::kMedia || done->status.code == StatusCode::kInternalError;
    if (!unreadable || cluster_.world().injected_count(sim::SimFault::kReadError) == 0) {
      co_return cluster_.fail("reading back: " + nvme::to_string(done->status));
    }
    co_await mend(session, volume, lba);
  }
  cluster_.fail(fmt::format("volume {} block {} stays unreadable", volume.index, lba));
}

Task<void> Client::verify_volume(Session& session, Volume& volume) {
  for (uint64_t lba = 0; lba < volume.blocks && !cluster_.has_failed(); ++lba) {
    co_await verify_block(session, volume, lba);
  }
  const FlushTicket ticket = volume.checker->begin_flush();
  const Result<Completion> flushed = co_await session.queue(0).flush(volume.nsid);
  if (!flushed || !flushed->ok()) co_return cluster_.fail("the last flush failed");
  volume.checker->flush_done(ticket);
}

Task<void> Client::verify(TargetSite* site, bool* done) {
  // One command at a time may take longer than a keep-alive that was meant to run out.
  ClientPlan patient = plan_;
  patient.keep_alive_ms = 120'000;
  Session session(node_.shard(0), patient);
  const Result<void> opened = co_await session.open(*site, 100 + index_);
  if (!opened) {
    cluster_.fail("no connection although nothing is wrong: " + to_string(opened.error()));
  } else {
    for (const auto& volume : site->volumes) co_await verify_volume(session, *volume);
  }
  co_await session.close();
  *done = true;
}

}  // namespace fairlead::sim_test
