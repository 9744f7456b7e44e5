// The snapshots.
#include <algorithm>
#include <api/csi/v1/csi.pb.h>
#include <fmt/format.h>

#include "control/resources.h"
#include "control/rest_client.h"
#include "csi/controller.h"
#include "csi/documents.h"
#include "csi/names.h"

namespace fairlead::csi {
namespace {

using control::field;
using control::text_of;

constexpr uint64_t kPageMax = 1000;

template <typename... Arguments>
std::unexpected<Problem> refuse(Code code, fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  return problem(code, fmt::format(format, std::forward<Arguments>(arguments)...));
}

bool is_taken(const Json& snapshot, uint64_t) { return text_of(snapshot, "status.state") == "ready"; }

}  // namespace

Controller::Answer<wire::CreateSnapshotResponse> Controller::create_snapshot(wire::CreateSnapshotRequest request) {
  FL_CO_TRY(const std::string name, resource_name(request.name()));
  const std::string& volume = request.source_volume_id();
  if (volume.empty()) co_return refuse(Code::kInvalidArgument, "source_volume_id: is missing");
  FL_CO_TRY(const Quiesce quiesce,
            parse_snapshot_parameters({request.parameters().begin(), request.parameters().end()}));
  const auto turn = busy_.begin("snapshots/" + name);
  if (!turn) co_return try_again(fmt::format("snapshot {} is being worked on already", name));
  Outcome<Json> there = co_await cluster_.get("snapshots", name);
  // An attempt that nobody brought to its end.
  if (there && is_unsettled(*there) && !is_deleting(*there) && text_of(*there, "spec.volume") == volume) {
    FL_CO_TRY_VOID(co_await drop_unsettled(name, still_label(*there)));
    there = co_await cluster_.get("snapshots", name);
  }
  if (there) {
    if (is_deleting(*there)) co_return try_again(fmt::format("snapshot {} is being deleted", name));
    if (text_of(*there, "spec.volume") != volume) {
      co_return refuse(Code::kAlreadyExists, "there is a snapshot {} already, of volume {}", name,
                       text_of(*there, "spec.volume"));
    }
  } else if (there.error().error.code != Code::kNotFound) {
    co_return std::unexpected(there.error());
  } else {
    FL_CO_TRY_VOID(co_await take(name, volume, quiesce));
  }
  FL_CO_TRY(const Json snapshot, co_await settle("snapshots", name, is_taken, 0));
  wire::CreateSnapshotResponse reply;
  fill(snapshot, *reply.mutable_snapshot());
  co_return reply;
}

Controller::Answer<wire::DeleteSnapshotResponse> Controller::delete_snapshot(wire::DeleteSnapshotRequest request) {
  const std::string& id = request.snapshot_id();
  if (id.empty()) co_return refuse(Code::kInvalidArgument, "snapshot_id: is missing");
  const auto turn = busy_.begin("snapshots/" + id);
  if (!turn) co_return try_again(fmt::format("snapshot {} is being worked on already", id));
  const Outcome<Json> snapshot = co_await find("snapshots", id);
  if (snapshot && !text_of(*snapshot, "spec.group").empty()) {
    co_return refuse(Code::kInvalidArgument, "snapshot {} is one of group {}, and is deleted with it", id,
                     text_of(*snapshot, "spec.group"));
  }
  if (control::check_name("id", id)) FL_CO_TRY_VOID(co_await remove("snapshots", id));
  co_return wire::DeleteSnapshotResponse();
}

Controller::Answer<wire::GetSnapshotResponse> Controller::get_snapshot(wire::GetSnapshotRequest request) {
  FL_CO_TRY(const Json snapshot, co_await find("snapshots", request.snapshot_id()));
  wire::GetSnapshotResponse reply;
  fill(snapshot, *reply.mutable_snapshot());
  co_return reply;
}

Controller::Answer<wire::ListSnapshotsResponse> Controller::list_snapshots(wire::ListSnapshotsRequest request) {
  if (request.max_entries() < 0) co_return refuse(Code::kInvalidArgument, "max_entries: is negative");
  FL_CO_TRY(std::string after, last_of_page(request.starting_token()));
  wire::ListSnapshotsResponse reply;
  if (!request.snapshot_id().empty()) {
    const Outcome<Json> snapshot = co_await find("snapshots", request.snapshot_id());
    const std::string& volume = request.source_volume_id();
    if (snapshot && (volume.empty() || text_of(*snapshot, "spec.volume") == volume)) {
      fill(*snapshot, *reply.add_entries()->mutable_snapshot());
    }
    if (snapshot || snapshot.error().error.code == Code::kNotFound) co_return reply;
    co_return std::unexpected(snapshot.error());
  }
  const uint64_t limit = std::min(static_cast<uint64_t>(request.max_entries()), kPageMax);
  FL_CO_TRY(const Json page,
            co_await cluster_.list("snapshots",
                                   {.volume = request.source_volume_id(), .after = std::move(after), .limit = limit}));
  for (const Json& snapshot : field(page, "items")) {
    // Those that clones are made through are nobody's.
    if (is_deleting(snapshot) || field(snapshot, "labels").contains(kLabelCloneFor)) continue;
    fill(snapshot, *reply.add_entries()->mutable_snapshot());
  }
  if (const std::string more = text_of(page, "continue"); !more.empty()) reply.set_next_token(page_token(more));
  co_return reply;
}

}  // namespace fairlead::csi
