#include "kube/election.h"

#include <fmt/format.h>

#include "base/check.h"
#include "base/log.h"
#include "kube/words.h"

namespace fairlead::kube {

using control::field;
using control::number_of;
using control::text_of;

Election::Election(Shard& home, Api& api, ElectionOptions options)
    : home_(home),
      api_(api),
      options_(std::move(options)),
      path_(fmt::format("/apis/coordination.k8s.io/v1/namespaces/{}/leases", options_.name_space)),
      began_(home.reactor) {
  FL_CHECK(options_.retry < options_.deadline && options_.deadline < options_.duration);
}

Task<void> Election::run() {
  while (!stopping_.is_cancelled()) {
    const bool led = leads();
    const Instant asked = home_.clock.now();
    const Outcome<bool> ours = co_await attempt();
    if (ours) answered_ = home_.clock.now();
    if (ours && *ours) {
      is_holder_ = true;
      held_until_ = asked + options_.deadline;
    } else if (ours) {
      is_holder_ = false;
    }
    if (!led && leads()) {
      ++terms_;
      log_info("operator.leads", {{"lease", options_.name}, {"identity", options_.identity}});
      began_.release_waiters();
    } else if (led && !leads()) {
      log_warn("operator.leads_no_more", {{"holder", text_of(lease_, "spec.holderIdentity")}});
    }
    if (!ours) log_warn("operator.lease_not_renewed", {{"error", to_string(ours.error())}});
    (void)co_await sleep(home_.reactor, options_.retry, stopping_);
  }
}

bool Election::is_free() const {
  const std::string holder = text_of(lease_, "spec.holderIdentity");
  if (holder.empty() || holder == options_.identity) return true;
  const uint64_t seconds = number_of(lease_, "spec.leaseDurationSeconds");
  return home_.clock.now() - seen_ > std::chrono::seconds(seconds);
}

Json Election::document(const Json& before) const {
  const std::string now = to_micro_time(home_.clock.wall_ms());
  const bool was_ours = text_of(before, "spec.holderIdentity") == options_.identity;
  Json spec = {{"holderIdentity", options_.identity},
               {"leaseDurationSeconds", std::chrono::duration_cast<std::chrono::seconds>(options_.duration).count()},
               {"renewTime", now}};
  if (!was_ours) {
    spec["acquireTime"] = now;
    spec["leaseTransitions"] = before.is_null() ? 0 : number_of(before, "spec.leaseTransitions") + 1;
  }
  return {{"spec", std::move(spec)}};
}

Task<Outcome<void>> Election::look() {
  Outcome<Json> found = co_await api_.get(fmt::format("{}/{}", path_, options_.name));
  if (!found && found.error().error.code != Code::kNotFound) co_return std::unexpected(found.error());
  Json lease = found ? std::move(*found) : Json();
  if (text_of(lease, "metadata.resourceVersion") != text_of(lease_, "metadata.resourceVersion")) {
    seen_ = home_.clock.now();
  }
  lease_ = std::move(lease);
  co_return Outcome<void>();
}

Task<Outcome<bool>> Election::attempt() {
  if (!is_current_) {
    FL_CO_TRY_VOID(co_await look());
    if (!lease_.is_null() && !is_free()) co_return false;
  }
  Json asked = document(lease_);
  RestRequest request;
  if (lease_.is_null()) {
    asked["apiVersion"] = "coordination.k8s.io/v1";
    asked["kind"] = "Lease";
    asked["metadata"] = {{"name", options_.name}, {"namespace", options_.name_space}};
    request = {.method = RestMethod::kPost, .path = path_, .body = std::move(asked)};
  } else {
    asked["metadata"] = {{"resourceVersion", field(lease_, "metadata.resourceVersion")}};
    request = {
        .method = RestMethod::kPatch, .path = fmt::format("{}/{}", path_, options_.name), .body = std::move(asked)};
  }
  is_current_ = false;
  Outcome<Json> given = co_await api_.call(std::move(request));
  if (!given) {
    const Code code = given.error().error.code;
    // Somebody else was there first: look who.
    if (code == Code::kMiscompare || code == Code::kAlreadyExists || code == Code::kNotFound) {
      FL_CO_TRY_VOID(co_await look());
      const bool is_ours = text_of(lease_, "spec.holderIdentity") == options_.identity;
      // Ours by a request whose answer was lost, granted before this one was sent or not: ask again.
      if (is_ours) co_return problem(Code::kTimedOut, "the lease has changed meanwhile");
      co_return false;
    }
    co_return std::unexpected(given.error());
  }
  lease_ = std::move(*given);
  seen_ = home_.clock.now();
  is_current_ = true;
  co_return true;
}

Task<void> Election::release() {
  FL_CHECK(stopping_.is_cancelled());
  if (!std::exchange(is_holder_, false) || !is_current_) co_return;
  const std::string now = to_micro_time(home_.clock.wall_ms());
  Json patch = {{"metadata", {{"resourceVersion", field(lease_, "metadata.resourceVersion")}}},
                {"spec", {{"holderIdentity", ""}, {"leaseDurationSeconds", 1}, {"renewTime", now}}}};
  (void)co_await api_.call(
      {.method = RestMethod::kPatch, .path = fmt::format("{}/{}", path_, options_.name), .body = std::move(patch)});
}

}  // namespace fairlead::kube
