// Snapshots of volumes whose file systems are kept still meanwhile (control/freeze.h).
#include <algorithm>
#include <fmt/format.h>

#include "async/cancel.h"
#include "control/freeze.h"
#include "control/rest_client.h"
#include "csi/controller.h"
#include "csi/documents.h"
#include "csi/names.h"

namespace fairlead::csi {
namespace {

using control::field;
using control::FreezeAnswer;
using control::number_of;
using control::text_of;

constexpr Duration kLook = std::chrono::milliseconds(50);
constexpr int kTriesMax = 8;  // when others change the same document

bool is_taken(const Json& snapshot, uint64_t) { return text_of(snapshot, "status.state") == "ready"; }

// The host that writes to its file system; empty: none.
std::string writing_host(const Json& volume) {
  for (const std::string& host : published_hosts(volume)) {
    if (is_mounted_to_write(publication_of(volume, host))) return host;
  }
  return {};
}

Json label_patch(const char* key, Json value) {
  Json patch;
  patch["labels"][key] = std::move(value);
  return patch;
}

}  // namespace

Task<Outcome<void>> Controller::await_frozen(std::string volume, std::string label) {
  const Instant deadline = home_.now() + options_.freeze_limit;
  while (true) {
    FL_CO_TRY(const Json document, co_await cluster_.get("volumes", volume));
    if (field(document, "labels").value(control::kLabelFrozen, "") == label) co_return Outcome<void>();
    if (home_.now() >= deadline) co_return problem(Code::kTimedOut, "its host does not answer");
    (void)co_await sleep(home_, kLook);
  }
}

Task<Outcome<std::string>> Controller::freeze(std::string volume, std::string snapshot) {
  for (int i = 0; i < kTriesMax; ++i) {
    FL_CO_TRY(const Json document, co_await find("volumes", volume));
    const std::string host = writing_host(document);
    if (host.empty()) co_return std::string();
    const uint64_t revision = number_of(document, "revision");
    const std::string request = freeze_request(snapshot, revision);
    const Outcome<Json> asked =
        co_await cluster_.update("volumes", volume, label_patch(control::kLabelFreeze, request), revision);
    if (!asked && asked.error().error.code == Code::kMiscompare) continue;
    if (!asked) co_return std::unexpected(asked.error());
    const Outcome<void> frozen = co_await await_frozen(volume, control::frozen_label(request, FreezeAnswer::kFrozen));
    if (frozen) co_return request;
    (void)co_await cluster_.update("volumes", volume, label_patch(control::kLabelFreeze, Json()), 0);
    co_return problem(frozen.error().error.code,
                      fmt::format("{} has not frozen the file system of volume {}: {}; look at its csi node plugin, "
                                  "or use a class with quiesceFs: none",
                                  host, volume, to_string(frozen.error())));
  }
  co_return try_again(fmt::format("volume {} is being changed by others", volume));
}

Task<Outcome<void>> Controller::thaw(std::string volume, std::string request) {
  FL_CO_TRY_VOID(co_await cluster_.update("volumes", volume,
                                          label_patch(control::kLabelFreeze, control::taken_label(request)), 0));
  const Outcome<void> thawed = co_await await_frozen(volume, control::frozen_label(request, FreezeAnswer::kThawed));
  Json patch = label_patch(control::kLabelFreeze, Json());
  patch["labels"][control::kLabelFrozen] = Json();
  (void)co_await cluster_.update("volumes", volume, std::move(patch), 0);
  co_return thawed;
}

Task<Outcome<void>> Controller::take_still(std::string name, std::string volume, std::string request) {
  Json document = {{"name", name}, {"spec", {{"volume", volume}}}};
  document["labels"] = {{kLabelOrigin, kOrigin}, {kLabelStill, request}};
  Outcome<Json> taken = co_await cluster_.create("snapshots", std::move(document));
  if (taken) taken = co_await settle("snapshots", name, is_taken, 0);
  // However that went, its host is not to wait for longer.
  const Outcome<void> thawed = co_await thaw(volume, request);
  if (!taken) co_return std::unexpected(taken.error());
  if (!thawed) {
    co_return try_again(fmt::format("the file system of volume {} was not kept still while snapshot {} was taken ({})",
                                    volume, name, to_string(thawed.error())));
  }
  // The one that is there may be another's by now.
  if (still_label(*taken) != request) co_return try_again(fmt::format("snapshot {} is another's", name));
  FL_CO_TRY_VOID(
      co_await cluster_.update("snapshots", name, label_patch(kLabelStill, kStill), number_of(*taken, "revision")));
  co_return Outcome<void>();
}

Task<Outcome<void>> Controller::drop_unsettled(std::string name, std::string request) {
  const Outcome<Json> left = co_await cluster_.get("snapshots", name);
  if (!left && left.error().error.code == Code::kNotFound) co_return Outcome<void>();
  if (!left) co_return std::unexpected(left.error());
  if (still_label(*left) != request) co_return Outcome<void>();
  co_return co_await remove("snapshots", name);
}

Task<Outcome<void>> Controller::take(std::string name, std::string volume, Quiesce quiesce) {
  FL_CO_TRY_VOID(co_await find("volumes", volume));
  if (quiesce == Quiesce::kFreeze) {
    const auto turn = busy_.begin("volumes/" + volume);
    if (!turn) co_return try_again(fmt::format("volume {} is being worked on already", volume));
    FL_CO_TRY(const std::string request, co_await freeze(volume, name));
    if (!request.empty()) {
      Outcome<void> taken = co_await take_still(name, volume, request);
      // One that cannot even be deleted now says by its label that it is none.
      if (!taken) (void)co_await drop_unsettled(name, request);
      co_return taken;
    }
  }
  Json document = {{"name", name}, {"labels", {{kLabelOrigin, kOrigin}}}, {"spec", {{"volume", volume}}}};
  FL_CO_TRY_VOID(co_await cluster_.create("snapshots", std::move(document)));
  co_return Outcome<void>();
}

}  // namespace fairlead::csi
