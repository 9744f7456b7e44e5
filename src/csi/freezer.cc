#include "csi/freezer.h"

#include <algorithm>

#include "base/log.h"
#include "control/freeze.h"
#include "csi/documents.h"

namespace fairlead::csi {
namespace {

using control::FreezeAnswer;

constexpr Duration kLook = std::chrono::milliseconds(50);
constexpr Duration kAgain = std::chrono::seconds(1);

}  // namespace

Freezer::Freezer(Reactor& home, Machine& machine, ClusterApi& cluster, NodeRecords& records, FreezerOptions options)
    : home_(home),
      machine_(machine),
      cluster_(cluster),
      records_(records),
      options_(std::move(options)),
      scope_(home) {}

Freezer::Hold* Freezer::find(const std::string& volume, const std::string& request) {
  const auto found = holds_.find(volume);
  return found == holds_.end() || found->second.request != request ? nullptr : &found->second;
}

void Freezer::look(const std::string& volume, const Json& document, Busy::Turn turn) {
  const std::string request = control::freeze_request_of(control::freeze_label_of(document));
  if (request.empty() || stopping_.is_cancelled() || handled_[volume] == request) return;
  if (!is_mounted_to_write(publication_of(document, options_.host_nqn))) return;
  handled_[volume] = request;
  scope_.spawn(hold(volume, request, std::move(turn)));
}

Task<Outcome<void>> Freezer::thaw_left(std::string volume) {
  const NodeRecord* const found = records_.find(volume);
  if (found == nullptr || !found->is_frozen) co_return Outcome<void>();
  NodeRecord record = *found;
  FL_CO_TRY(const std::optional<Mounted> mounted, co_await machine_.mounted_at(record.staging_path));
  if (mounted) FL_CO_TRY_VOID(co_await machine_.thaw(record.staging_path));
  log_warn("csi.thawed_late", {{"volume", volume}, {"path", record.staging_path}});
  record.is_frozen = false;
  co_return co_await records_.put(volume, std::move(record));
}

Task<Outcome<void>> Freezer::freeze(std::string volume, std::string request) {
  const NodeRecord* const found = records_.find(volume);
  if (found == nullptr) co_return problem(Code::kNotFound, "it is not here");
  NodeRecord record = *found;
  if (record.fs_type.empty()) co_return problem(Code::kNotSupported, "it is a raw device");
  FL_CO_TRY(const std::optional<Mounted> mounted, co_await machine_.mounted_at(record.staging_path));
  // What is not mounted is still, and stays so: mounting it needs its turn.
  if (!mounted) co_return Outcome<void>();
  record.is_frozen = true;
  FL_CO_TRY_VOID(co_await records_.put(volume, record));
  Outcome<void> frozen = co_await machine_.freeze(record.staging_path);
  if (!frozen && frozen.error().error.code == Code::kBusy) {
    // Somebody else froze it, and is to thaw it.
    record.is_frozen = false;
    (void)co_await records_.put(volume, record);
  }
  if (!frozen) co_return frozen;
  log_info("csi.frozen", {{"volume", volume}, {"request", request}});
  co_return Outcome<void>();
}

Task<void> Freezer::hold(std::string volume, std::string request, Busy::Turn given) {
  std::optional<Busy::Turn> turn(std::move(given));
  const Instant deadline = home_.now() + options_.limit;
  const Outcome<void> frozen = co_await freeze(volume, request);
  bool is_good = false;
  if (frozen && home_.now() < deadline) {
    holds_[volume] = {.request = request};
    // Of its own, since a control plane that is silent must not keep what is frozen here.
    scope_.spawn(attend(volume, request));
    const auto is_over = [&] { return holds_[volume].is_released || holds_[volume].is_lost; };
    while (!is_over() && home_.now() < deadline && co_await sleep(home_, kLook, stopping_)) {
    }
    is_good = holds_[volume].is_released;
    holds_.erase(volume);
  }
  if (!is_good) {
    log_warn("csi.freeze_failed", {{"volume", volume},
                                   {"request", request},
                                   {"why", frozen ? "its snapshot was not taken in time" : to_string(frozen.error())}});
  }
  Outcome<void> thawed = co_await thaw_left(volume);
  while (!thawed && !stopping_.is_cancelled()) {
    log_error("csi.thaw_failed", {{"volume", volume}, {"why", to_string(thawed.error())}});
    (void)co_await sleep(home_, kAgain, stopping_);
    thawed = co_await thaw_left(volume);
  }
  turn.reset();
  if (!is_good || !thawed) co_return;
  const Outcome<void> told = co_await cluster_.answer_freeze(volume, request, FreezeAnswer::kThawed);
  if (!told)
    log_warn("csi.freeze_failed", {{"volume", volume}, {"request", request}, {"why", to_string(told.error())}});
}

Task<void> Freezer::attend(std::string volume, std::string request) {
  const Outcome<void> told = co_await cluster_.answer_freeze(volume, request, FreezeAnswer::kFrozen);
  if (Hold* const hold = find(volume, request); hold != nullptr && !told) hold->is_lost = true;
  while (told && find(volume, request) != nullptr) {
    const Outcome<Json> document = co_await cluster_.get("volumes", volume);
    Hold* const hold = find(volume, request);
    if (hold == nullptr) co_return;
    const std::string label = document ? control::freeze_label_of(*document) : request;
    hold->is_released = label == control::taken_label(request);
    hold->is_lost = !hold->is_released && label != request;
    if (label != request) co_return;
    (void)co_await sleep(home_, kLook, stopping_);
    if (stopping_.is_cancelled()) co_return;
  }
}

}  // namespace fairlead::csi
