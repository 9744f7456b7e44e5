#include "host/remote_device.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "host/pieces.h"
#include "nvme/status.h"

namespace fairlead::host {

using nvme::NvmOpcode;
using nvme::StatusCode;

namespace {

constexpr uint32_t kPiecesMax = 32;  // of one request in flight at a time
constexpr uint8_t kRetriesMax = 5;
constexpr auto kRetryDelay = std::chrono::milliseconds(20);
constexpr size_t kZeroesBytes = 64 * kKiB;

// What is written where a controller has no Write Zeroes. Only ever read.
alignas(4096) constexpr std::array<std::byte, kZeroesBytes> kZeroes{};

bool changes_data(NvmOpcode opcode) {
  return opcode == NvmOpcode::kWrite || opcode == NvmOpcode::kWriteZeroes || opcode == NvmOpcode::kDatasetManagement;
}

}  // namespace

// A request under way, in pieces.
struct RemoteDevice::Job {
  IoRequest* request = nullptr;
  Kind kind = Kind::kRead;
  uint64_t connection = 0;  // of OnLoss::kFail: the one that it was begun on; 0: there was none
  uint64_t issued = 0;      // bytes of it
  uint32_t in_flight = 0;   // pieces; one more while pump() runs
  Result<void> result;
};

// A piece: one command, perhaps several times. More than one, one after the other, when controllers that were connected
// since it was cut take less at a time, and when zeroes are written as data.
struct RemoteDevice::Operation : Command, ListNode<Operation> {
  RemoteDevice* device = nullptr;
  Job* job = nullptr;
  uint64_t id = 0;
  uint64_t offset = 0;  // on the device, bytes
  uint64_t bytes = 0;
  size_t path = 0;
  uint8_t retries = 0;
  std::optional<Instant> refused_since;  // by paths
  bool by_writes = false;                // zeroes are written as data
  uint64_t finished = 0;                 // bytes of it, by the commands before this one
  uint64_t covered = 0;                  // bytes of it, by this one
  iovec piece{};
  std::vector<iovec> list;
  nvme::DsmRange range;

  bool changes() const { return changes_data(static_cast<NvmOpcode>(entry.opcode)); }
};

RemoteDevice::RemoteDevice(ShardPaths& paths, const NamespaceInfo& info)
    : BlockDevice(info.geometry),
      paths_(paths),
      reactor_(paths.shard().reactor),
      identity_(info.identity),
      fails_on_loss_(paths.options().on_loss == OnLoss::kFail),
      states_(paths.path_count(), PathState::kNone) {
  paths_.join(*this);
  read_states();
}

RemoteDevice::~RemoteDevice() {
  paths_.leave(*this);
  reactor_.disarm(hold_alarm_);
  reactor_.disarm(retry_alarm_);
}

// Requests.

void RemoteDevice::execute(IoRequest& request) {
  switch (request.op) {
    case IoOp::kRead:
      return start(request, Kind::kRead);
    case IoOp::kWrite:
      return start(request, Kind::kWrite);
    case IoOp::kFlush:
      return start(request, Kind::kFlush);
    case IoOp::kDiscard:
      // A hint: where nobody takes it, it is taken already.
      if (paths_.limits().deallocate_max == 0) return request.complete({});
      return start(request, Kind::kDiscard);
    case IoOp::kWriteZeroes:
      return start(request, Kind::kWriteZeroes);
  }
  FL_UNREACHABLE("an IoOp");
}

Task<Result<void>> RemoteDevice::compare(ByteOffset offset, std::span<const iovec> buffers) {
  struct Comparison : IoRequest {
    Comparison(Reactor& reactor) : ended(reactor) {}
    Event ended;
  } request(reactor_);
  request.offset = offset;
  request.length = total_length(buffers);
  request.buffers = buffers;
  request.done = [](IoRequest& done) { static_cast<Comparison&>(done).ended.set(); };
  FL_CO_TRY_VOID(check_request(request, geometry_));
  if (!paths_.limits().has_compare) co_return fail(Code::kNotSupported, "a controller without Compare");
  if (request.length == 0) co_return Result<void>();
  start(request, Kind::kCompare);
  co_await request.ended.wait();
  co_return request.result;
}

void RemoteDevice::start(IoRequest& request, Kind kind) {
  Job& job = jobs_.take();
  job.request = &request;
  job.kind = kind;
  job.connection = fails_on_loss_ ? paths_.connection(0) : 0;
  job.issued = 0;
  job.in_flight = 0;
  job.result = {};
  if (kind == Kind::kFlush) {
    ++job.in_flight;
    issue(job);
    return;
  }
  pump(job);
}

// Sends pieces as long as there are some and not too many are out; ends the request when the last one has ended.
void RemoteDevice::pump(Job& job) {
  ++job.in_flight;  // so that it does not end under us
  while (job.result && job.issued < job.request->length && job.in_flight <= kPiecesMax) {
    ++job.in_flight;
    issue(job);
  }
  if (--job.in_flight > 0) return;
  IoRequest& request = *job.request;
  const Result<void> result = job.result;
  jobs_.give_back(job);
  request.complete(result);
}

// Whether Write Zeroes is worth a try.
bool RemoteDevice::takes_zeroes() const { return paths_.limits().zeroes_max > 0 && !refuses_zeroes_; }

// Of one command.
uint64_t RemoteDevice::bytes_max(const Operation& operation) const {
  return operation.by_writes ? paths_.limits().transfer_max : piece_max(operation.job->kind);
}

uint64_t RemoteDevice::piece_max(Kind kind) const {
  const ControllerInfo& limits = paths_.limits();
  switch (kind) {
    case Kind::kDiscard:
      return limits.deallocate_max;
    case Kind::kWriteZeroes:
      return takes_zeroes() ? limits.zeroes_max : limits.transfer_max;
    default:
      return limits.transfer_max;
  }
}

void RemoteDevice::issue(Job& job) {
  Operation& operation = operations_.take();
  operation.device = this;
  operation.job = &job;
  operation.id = paths_.next_operation();
  operation.retries = 0;
  operation.refused_since.reset();
  operation.by_writes = job.kind == Kind::kWriteZeroes && !takes_zeroes();
  operation.finished = 0;
  operation.done = on_done;
  operation.offset = job.request->offset.value + job.issued;
  operation.bytes = std::min(job.request->length - job.issued, piece_max(job.kind));
  prepare(operation);
  job.issued += operation.bytes;
  dispatch(operation);
}

// The next command of the operation. NVM command set 1.0 section 3.2.
void RemoteDevice::prepare(Operation& operation) {
  const Job& job = *operation.job;
  operation.covered = std::min(operation.bytes - operation.finished, bytes_max(operation));
  const uint64_t offset = operation.offset + operation.finished;
  const IoRequest& request = *job.request;
  const uint32_t block = geometry_.logical_block;
  nvme::SubmissionEntry& entry = operation.entry;
  entry = {};
  entry.nsid = identity_.nsid;
  operation.data = {};
  operation.length = 0;
  operation.direction = nvme::DataTransfer::kNone;
  if (job.kind == Kind::kFlush) {
    entry.opcode = static_cast<uint8_t>(NvmOpcode::kFlush);
    return;
  }
  if (job.kind == Kind::kDiscard) {
    entry.opcode = static_cast<uint8_t>(NvmOpcode::kDatasetManagement);
    entry.cdw11 = nvme::kDsmDeallocate;
    operation.range.slba = offset / block;
    operation.range.blocks = static_cast<uint32_t>(operation.covered / block);
    operation.piece = {&operation.range, sizeof operation.range};
    operation.data = {&operation.piece, 1};
    operation.length = sizeof operation.range;
    operation.direction = nvme::DataTransfer::kHostToController;
    return;
  }
  entry.set_slba(offset / block);
  uint32_t cdw12 = static_cast<uint32_t>(operation.covered / block - 1) & nvme::kRwBlocksMask;
  if (request.durability == Durability::kForced && job.kind != Kind::kRead) cdw12 |= nvme::kRwFua;
  if (job.kind == Kind::kWriteZeroes && !operation.by_writes) {
    entry.opcode = static_cast<uint8_t>(NvmOpcode::kWriteZeroes);
    if (request.zero_mode == ZeroMode::kMayDeallocate) cdw12 |= nvme::kRwDeallocate;
  } else {
    prepare_data(operation);
  }
  entry.cdw12 = cdw12;
}

void RemoteDevice::prepare_data(Operation& operation) {
  const Job& job = *operation.job;
  operation.length = static_cast<uint32_t>(operation.covered);
  operation.direction = nvme::DataTransfer::kHostToController;
  operation.list.clear();
  const auto add = [&](std::span<const std::byte> part) {
    operation.list.push_back({const_cast<std::byte*>(part.data()), part.size()});
  };
  switch (job.kind) {
    case Kind::kRead:
      operation.entry.opcode = static_cast<uint8_t>(NvmOpcode::kRead);
      operation.direction = nvme::DataTransfer::kControllerToHost;
      break;
    case Kind::kCompare:
      operation.entry.opcode = static_cast<uint8_t>(NvmOpcode::kCompare);
      break;
    default:
      operation.entry.opcode = static_cast<uint8_t>(NvmOpcode::kWrite);
      break;
  }
  if (job.kind == Kind::kWriteZeroes) {
    for (uint64_t left = operation.covered; left > 0; left -= std::min<uint64_t>(left, kZeroesBytes)) {
      add(std::span(kZeroes).first(std::min<uint64_t>(left, kZeroesBytes)));
    }
  } else {
    const uint64_t begin = operation.offset - job.request->offset.value + operation.finished;
    for_each_part(job.request->buffers, {begin, operation.length}, add);
  }
  operation.data = operation.list;
}

// Operations.

void RemoteDevice::dispatch(Operation& operation) {
  if (is_gone_) return end(operation, fail(Code::kNotFound, "the controller has this namespace no more"));
  if (paths_.is_shut_down()) return end(operation, fail(Code::kShuttingDown));
  if (operation.changes() && paths_.is_fenced(identity_.nsid, operation.id, operation.offset, operation.bytes))
      [[unlikely]] {
    ++statistics_.fenced;
    fenced_.push_back(operation);
    return;
  }
  if (fails_on_loss_) {
    if (operation.job->connection == 0) return hold(operation);
    if (operation.job->connection != paths_.connection(0)) return lose(operation);
  }
  if (operation.covered > bytes_max(operation)) [[unlikely]]
    prepare(operation);
  const std::optional<size_t> path = choose(operation);
  if (!path) return hold(operation);
  operation.path = *path;
  paths_.queue(*path)->submit(operation);
}

// The best path, after the last one in turn among equals. None: there is none of use.
std::optional<size_t> RemoteDevice::choose(const Operation& operation) {
  std::optional<size_t> best;
  PathState best_state = PathState::kNone;
  uint32_t best_in_flight = 0;
  for (size_t i = 1; i <= states_.size(); ++i) {
    const size_t path = (last_path_ + i) % states_.size();
    const PathState state = states_[path];
    if (state != PathState::kOptimized && state != PathState::kNonOptimized) continue;
    const Queue* const queue = paths_.queue(path);
    if (queue == nullptr || !queue->is_live()) continue;
    if (operation.length > paths_.controller(path).transfer_max) continue;
    const bool is_better = !best || (state == PathState::kOptimized && best_state == PathState::kNonOptimized) ||
                           (state == best_state && queue->in_flight() < best_in_flight);
    if (!is_better) continue;
    best = path;
    best_state = state;
    best_in_flight = queue->in_flight();
  }
  if (best) last_path_ = *best;
  return best;
}

void RemoteDevice::lose(Operation& operation) {
  end(operation, fail(Code::kConnectionLost, "the connection to the namespace was lost"));
}

void RemoteDevice::hold(Operation& operation) {
  if (fails_on_loss_) return end(operation, fail(Code::kUnreachable, "no path to the namespace"));
  if (!stuck_since_) stuck_since_ = reactor_.now();
  if (is_stuck_too_long()) return end(operation, fail(Code::kUnreachable, "no path to the namespace"));
  ++statistics_.held;
  held_.push_back(operation);
  if (!hold_alarm_.is_armed()) reactor_.arm(hold_alarm_, *stuck_since_ + paths_.options().no_path_timeout);
}

bool RemoteDevice::is_stuck_too_long() const {
  return stuck_since_ && reactor_.now() >= *stuck_since_ + paths_.options().no_path_timeout;
}

void RemoteDevice::on_hold_over() {
  if (!is_stuck_too_long()) return paths_changed();  // a path came and went: the time counts anew
  while (!held_.empty()) end(held_.pop_front(), fail(Code::kUnreachable, "no path to the namespace"));
}

void RemoteDevice::on_done(Command& command) {
  auto& operation = static_cast<Operation&>(command);
  RemoteDevice& device = *operation.device;
  switch (operation.outcome) {
    case Outcome::kAnswered:
      return device.on_answer(operation);
    case Outcome::kNotSent:
      if (device.fails_on_loss_) return device.lose(operation);
      ++device.statistics_.resent;
      return device.dispatch(operation);
    case Outcome::kLost:
      if (device.fails_on_loss_) return device.lose(operation);
      ++device.statistics_.resent;
      if (!operation.changes()) return device.dispatch(operation);
      device.open_.push_back(operation);
      return;
  }
}

void RemoteDevice::on_answer(Operation& operation) {
  const nvme::Status status = operation.status;
  if (status.ok()) [[likely]] {
    operation.finished += operation.covered;
    if (operation.finished == operation.bytes) [[likely]]
      return end(operation, {});
    prepare(operation);
    return dispatch(operation);
  }
  // That a controller has a command does not mean that the medium behind each namespace takes it.
  if (nvme::error_from_status(status, "").code == Code::kNotSupported) {
    const auto opcode = static_cast<NvmOpcode>(operation.entry.opcode);
    if (opcode == NvmOpcode::kDatasetManagement) return end(operation, {});  // a hint, as ever
    if (opcode == NvmOpcode::kWriteZeroes) {
      refuses_zeroes_ = true;
      operation.by_writes = true;
      prepare(operation);
      return dispatch(operation);
    }
  }
  // What a fence says holds on every path, DNR or not.
  if (!status.do_not_retry && status.code != StatusCode::kFenced) {
    // The queue goes: the path is lost in a moment, and the controller has not executed it.
    const bool queue_goes = status.code == StatusCode::kAbortedQueueDeleted;
    if (queue_goes && fails_on_loss_) return lose(operation);
    const bool is_path_error = queue_goes || status.type() == nvme::StatusCodeType::kPath;
    if (is_path_error && !fails_on_loss_) return on_path_error(operation);
    if (!is_path_error && operation.retries < kRetriesMax) {
      ++operation.retries;
      ++statistics_.retried;
      delayed_.push_back(operation);
      if (!retry_alarm_.is_armed()) reactor_.arm(retry_alarm_, kRetryDelay);
      return;
    }
  }
  end(operation, std::unexpected(nvme::error_from_status(status, "the controller refused the command")));
}

// The path is of no use for this namespace, whatever the ANA log said when it was read last.
void RemoteDevice::on_path_error(Operation& operation) {
  if (!operation.refused_since) operation.refused_since = reactor_.now();
  if (reactor_.now() - *operation.refused_since >= paths_.options().no_path_timeout) {
    return end(operation, std::unexpected(nvme::error_from_status(operation.status, "every path refuses the command")));
  }
  ++statistics_.resent;
  PathState& state = states_[operation.path];
  if (state == PathState::kOptimized || state == PathState::kNonOptimized) {
    state = PathState::kSuspect;
    paths_.suspect(operation.path);
  }
  dispatch(operation);
}

void RemoteDevice::end(Operation& operation, Result<void> result) {
  Job& job = *operation.job;
  if (!result && job.result) job.result = result;
  operations_.give_back(operation);
  --job.in_flight;
  pump(job);
}

void RemoteDevice::on_retry() {
  IntrusiveList<Operation> ready;
  while (!delayed_.empty()) ready.push_back(delayed_.pop_front());
  while (!ready.empty()) dispatch(ready.pop_front());
}

// Paths.

void RemoteDevice::read_states() {
  bool is_shown = false;
  bool is_anywhere = false;
  const NamespaceView* latest = nullptr;
  for (size_t path = 0; path < states_.size(); ++path) {
    const bool is_up = paths_.queue(path) != nullptr;
    const NamespaceView* const view = paths_.find(path, identity_.nsid);
    is_anywhere = is_anywhere || is_up;
    const bool is_same = view != nullptr && view->info.identity == identity_ &&
                         view->info.geometry.logical_block == geometry_.logical_block;
    if (view != nullptr && !is_same) {
      log_warn("host.namespace_differs", {{"nqn", paths_.options().nqn},
                                          {"nsid", identity_.nsid},
                                          {"address", to_string(paths_.options().addresses[path])}});
    }
    states_[path] = is_same ? view->state : PathState::kNone;
    if (!is_same) continue;
    is_shown = true;
    if (latest == nullptr || latest->asked < view->asked) latest = view;
  }
  is_gone_ = is_anywhere && !is_shown;
  if (latest != nullptr) geometry_.size_bytes = latest->info.geometry.size_bytes;
  const bool is_usable = std::ranges::any_of(
      states_, [](PathState state) { return state == PathState::kOptimized || state == PathState::kNonOptimized; });
  if (is_usable) {
    stuck_since_.reset();
  } else if (!stuck_since_) {
    stuck_since_ = reactor_.now();
  }
}

void RemoteDevice::paths_changed() {
  read_states();
  IntrusiveList<Operation> ready;
  while (!held_.empty()) ready.push_back(held_.pop_front());
  while (!fenced_.empty()) ready.push_back(fenced_.pop_front());
  reactor_.disarm(hold_alarm_);
  while (!ready.empty()) dispatch(ready.pop_front());
  if (fails_on_loss_ && paths_.connection(0) == 0) on_retry();  // they end here, and at once
}

void RemoteDevice::list_open(size_t path, std::vector<Fence>& out) {
  for (const Operation& operation : open_) {
    if (operation.path != path) continue;
    out.push_back({.nsid = identity_.nsid,
                   .operation = operation.id,
                   .offset = operation.offset,
                   .length = operation.bytes,
                   .until = {}});
  }
}

void RemoteDevice::resume(size_t path) {
  IntrusiveList<Operation> ready;
  IntrusiveList<Operation> others;
  while (!open_.empty()) {
    Operation& operation = open_.pop_front();
    (operation.path == path ? ready : others).push_back(operation);
  }
  while (!others.empty()) open_.push_back(others.pop_front());
  while (!ready.empty()) dispatch(ready.pop_front());
}

}  // namespace fairlead::host
