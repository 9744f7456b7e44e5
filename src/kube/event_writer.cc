#include "kube/event_writer.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/log.h"
#include "base/uuid.h"
#include "control/resources.h"
#include "kube/disk_pool.h"
#include "kube/words.h"

namespace fairlead::kube {

using control::field;
using control::number_of;
using control::percent_encoded;
using control::text_of;

namespace {

constexpr const char* kCounted = "fairlead.dev/event";  // the annotation: which was counted last
constexpr const char* kController = "fairlead.dev/operator";
constexpr size_t kMessageMax = 1024;
constexpr size_t kReasonMax = 128;
constexpr size_t kNameMax = 200;  // of the object's, in the Event's
constexpr size_t kVolumesKept = 4096;

std::string order_of(const Json& event) {
  return fmt::format("{:016}-{:012}", number_of(event, "at_ms"), number_of(event, "number"));
}

// Nobody who asks again would get another answer.
bool is_final(Code code) {
  return code == Code::kNotFound || code == Code::kPermissionDenied || code == Code::kInvalidArgument;
}

}  // namespace

EventWriter::EventWriter(Shard& home, Api& kube, Api& control, EventWriterOptions options)
    : home_(home), kube_(kube), control_(control), options_(std::move(options)) {}

void EventWriter::forget() {
  number_ = 0;
  at_ms_ = 0;
  names_.clear();
}

Task<Outcome<std::vector<Json>>> EventWriter::news() {
  const uint64_t known = number_;
  const uint64_t after = known == 0 ? 0 : known - 1;
  FL_CO_TRY(Json page, co_await control_.get(fmt::format("/v1/events?after={}", after)));
  const Json& items = field(page, "items");
  const bool goes_on =
      known != 0 && !items.empty() && number_of(items[0], "number") == known && number_of(items[0], "at_ms") == at_ms_;
  if (!goes_on && after != 0) {
    // Another process leads the cluster, and counts from 1.
    log_info("operator.events_anew", {{"after", known}});
    FL_CO_TRY(page, co_await control_.get("/v1/events?after=0"));
  }
  std::vector<Json> events;
  for (const Json& each : field(page, "items")) {
    if (!goes_on || number_of(each, "number") > known) events.push_back(each);
  }
  co_return events;
}

Task<Outcome<void>> EventWriter::act() {
  FL_CO_TRY(const std::vector<Json> events, co_await news());
  const uint64_t now = home_.clock.wall_ms();
  const auto age_max =
      static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(options_.age_max).count());
  size_t count = 0;
  for (const Json& event : events) {
    if (number_of(event, "at_ms") + age_max >= now) {
      if (++count > options_.at_once) break;
      FL_CO_TRY_VOID(co_await write(event));
    }
    number_ = number_of(event, "number");
    at_ms_ = number_of(event, "at_ms");
  }
  co_return Outcome<void>();
}

// ---- What it is about

Task<Outcome<void>> EventWriter::add(std::string path, Subject subject, std::vector<Subject>& subjects) {
  const Outcome<Json> found = co_await kube_.get(std::move(path));
  if (!found && !is_final(found.error().error.code)) co_return std::unexpected(found.error());
  if (!found) co_return Outcome<void>();
  subject.uid = text_of(*found, "metadata.uid");
  subjects.push_back(std::move(subject));
  co_return Outcome<void>();
}

Task<Outcome<std::vector<EventWriter::Subject>>> EventWriter::subjects_of_volume(std::string name) {
  const Outcome<Json> volume = co_await control_.get("/v1/volumes/" + percent_encoded(name));
  if (!volume && volume.error().error.code != Code::kNotFound) co_return std::unexpected(volume.error());
  if (volume) {
    const Json& labels = field(*volume, "labels");
    const auto label = [&](const char* key) { return labels.is_object() ? labels.value(key, "") : std::string(); };
    if (claims_.size() >= kVolumesKept) claims_.clear();
    claims_[name] = {label(control::kLabelClaim), label(control::kLabelClaimNamespace),
                     label(control::kLabelPersistentVolume)};
  }
  std::vector<Subject> subjects;
  const auto kept = claims_.find(name);
  if (kept == claims_.end()) co_return subjects;
  const std::vector<std::string> labels = kept->second;
  if (!labels[0].empty() && !labels[1].empty()) {
    FL_CO_TRY_VOID(co_await add(
        fmt::format("/api/v1/namespaces/{}/persistentvolumeclaims/{}", percent_encoded(labels[1]),
                    percent_encoded(labels[0])),
        {.api_version = "v1", .kind = "PersistentVolumeClaim", .name_space = labels[1], .name = labels[0], .uid = ""},
        subjects));
  }
  if (!labels[2].empty()) {
    FL_CO_TRY_VOID(co_await add(
        "/api/v1/persistentvolumes/" + percent_encoded(labels[2]),
        {.api_version = "v1", .kind = "PersistentVolume", .name_space = "", .name = labels[2], .uid = ""}, subjects));
  }
  co_return subjects;
}

Task<Outcome<std::vector<EventWriter::Subject>>> EventWriter::subjects_of(std::string resource) {
  const size_t slash = std::min(resource.find('/'), resource.size());
  const std::string kind = resource.substr(0, slash);
  const std::string name = resource.substr(std::min(slash + 1, resource.size()));
  std::vector<Subject> subjects;
  if (kind == "volumes") co_return co_await subjects_of_volume(name);
  if (kind == "pools") {
    FL_CO_TRY_VOID(co_await add(
        path_of_disk_pool(name),
        {.api_version = "fairlead.dev/v1", .kind = "DiskPool", .name_space = "", .name = name, .uid = ""}, subjects));
  } else if (kind == "nodes") {
    FL_CO_TRY_VOID(co_await add("/api/v1/nodes/" + percent_encoded(name),
                                {.api_version = "v1", .kind = "Node", .name_space = "", .name = name, .uid = ""},
                                subjects));
  }
  co_return subjects;
}

// ---- Events

Task<Outcome<void>> EventWriter::write(Json event) {
  FL_CO_TRY(const std::vector<Subject> subjects, co_await subjects_of(text_of(event, "resource")));
  for (const Subject& subject : subjects) {
    const Outcome<void> written = co_await write_about(subject, event);
    if (written) continue;
    if (!is_final(written.error().error.code)) co_return written;
    log_warn("operator.event_refused",
             {{"kind", subject.kind}, {"name", subject.name}, {"error", to_string(written.error())}});
  }
  co_return Outcome<void>();
}

bool EventWriter::has_room(const Subject& subject, const std::string& name, uint64_t spell) {
  if (std::exchange(spell_, spell) != spell) names_.clear();
  std::vector<std::string>& names = names_[subject.uid];
  if (std::ranges::find(names, name) != names.end()) return true;
  if (names.size() >= options_.events_max) {
    ++dropped_;
    return false;
  }
  names.push_back(name);
  return true;
}

Task<Outcome<void>> EventWriter::write_about(const Subject& subject, const Json& event) {
  const uint64_t at_ms = number_of(event, "at_ms");
  const uint64_t spell =
      at_ms / static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(options_.spell).count());
  const std::string reason = text_of(event, "reason").substr(0, kReasonMax);
  const std::string message = text_of(event, "message").substr(0, kMessageMax);
  const std::string same =
      to_string(uuid_from_name(kFairleadNamespace, fmt::format("event/{}/{}/{}/{}/{}", subject.uid, reason, message,
                                                               spell, text_of(event, "severity"))));
  const std::string name = fmt::format("{}.{}", subject.name.substr(0, kNameMax), same.substr(0, 18));
  if (!has_room(subject, name, spell)) co_return Outcome<void>();
  const std::string name_space = subject.name_space.empty() ? "default" : subject.name_space;
  const std::string path = fmt::format("/api/v1/namespaces/{}/events", percent_encoded(name_space));
  Json about = {
      {"apiVersion", subject.api_version}, {"kind", subject.kind}, {"name", subject.name}, {"uid", subject.uid}};
  if (!subject.name_space.empty()) about["namespace"] = subject.name_space;
  const std::string time = to_time(at_ms);
  Json document = {
      {"apiVersion", "v1"},
      {"kind", "Event"},
      {"metadata", {{"name", name}, {"namespace", name_space}, {"annotations", {{kCounted, order_of(event)}}}}},
      {"involvedObject", std::move(about)},
      {"reason", reason},
      {"message", message},
      {"type", text_of(event, "severity") == "warning" ? "Warning" : "Normal"},
      {"source", {{"component", kController}}},
      {"firstTimestamp", time},
      {"lastTimestamp", time},
      {"count", 1},
      {"reportingComponent", kController},
      {"reportingInstance", options_.identity.substr(0, kReasonMax)}};
  const Outcome<Json> made =
      co_await kube_.call({.method = RestMethod::kPost, .path = path, .body = std::move(document)});
  if (made) ++written_;
  if (made || made.error().error.code != Code::kAlreadyExists)
    co_return made ? Outcome<void>() : std::unexpected(made.error());
  co_return co_await count_up(path + "/" + percent_encoded(name), event);
}

Task<Outcome<void>> EventWriter::count_up(std::string path, const Json& event) {
  FL_CO_TRY(const Json there, co_await kube_.get(path));
  const Json& annotations = field(there, "metadata.annotations");
  const std::string counted = annotations.is_object() ? annotations.value(kCounted, "") : "";
  if (counted >= order_of(event)) co_return Outcome<void>();
  Json patch = {
      {"metadata",
       {{"resourceVersion", field(there, "metadata.resourceVersion")}, {"annotations", {{kCounted, order_of(event)}}}}},
      {"count", number_of(there, "count") + 1},
      {"lastTimestamp", to_time(number_of(event, "at_ms"))}};
  FL_CO_TRY_VOID(
      co_await kube_.call({.method = RestMethod::kPatch, .path = std::move(path), .body = std::move(patch)}));
  ++written_;
  co_return Outcome<void>();
}

}  // namespace fairlead::kube
