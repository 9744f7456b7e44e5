// What is wrong with volumes (CSI 1.13).
#include <api/csi/v1/csi.pb.h>

#include "control/rest_client.h"
#include "csi/controller.h"
#include "csi/documents.h"
#include "csi/names.h"

namespace fairlead::csi {
namespace {

using control::field;
using control::text_of;

constexpr uint64_t kPageMax = 1000;

}  // namespace

void Controller::add_health_to(rpc::Service& service) {
  service.add("/csi.v1.Controller/ControllerListVolumeHealth", *this, &Controller::list_volume_health);
  service.add("/csi.v1.Controller/ControllerGetVolumeHealth", *this, &Controller::get_volume_health);
}

Task<Outcome<std::set<std::string>>> Controller::failed_pools() {
  FL_CO_TRY(const Json pools, co_await cluster_.list("pools", {}));
  std::set<std::string> failed;
  for (const Json& pool : field(pools, "items")) {
    if (text_of(pool, "status.state") == "failed") failed.insert(text_of(pool, "name"));
  }
  co_return failed;
}

Controller::Answer<wire::ControllerGetVolumeHealthResponse> Controller::get_volume_health(
    wire::ControllerGetVolumeHealthRequest request) {
  FL_CO_TRY(const Json volume, co_await find("volumes", request.volume_id()));
  FL_CO_TRY(const std::set<std::string> failed, co_await failed_pools());
  wire::ControllerGetVolumeHealthResponse reply;
  fill(volume, failed, *reply.mutable_volume_health());
  co_return reply;
}

Controller::Answer<wire::ControllerListVolumeHealthResponse> Controller::list_volume_health(
    wire::ControllerListVolumeHealthRequest request) {
  if (request.max_entries() < 0) co_return problem(Code::kInvalidArgument, "max_entries: is negative");
  FL_CO_TRY(std::string after, last_of_page(request.starting_token()));
  FL_CO_TRY(const std::set<std::string> failed, co_await failed_pools());
  wire::ControllerListVolumeHealthResponse reply;
  // Pages of volumes are looked through until a page of those is full that something is wrong with.
  for (bool is_more = true; is_more;) {
    FL_CO_TRY(const Json page, co_await cluster_.list("volumes", {.after = after, .limit = kPageMax}));
    for (const Json& volume : field(page, "items")) {
      wire::VolumeHealth health;
      if (!is_deleting(volume)) fill(volume, failed, health);
      if (health.health_statuses().empty()) continue;
      if (request.max_entries() != 0 && reply.entries_size() == request.max_entries()) {
        reply.set_next_token(page_token(reply.entries().rbegin()->volume_id()));
        co_return reply;
      }
      *reply.add_entries() = std::move(health);
    }
    after = text_of(page, "continue");
    is_more = !after.empty();
  }
  co_return reply;
}

}  // namespace fairlead::csi
