#include "control/freeze.h"

#include <fmt/format.h>

#include "control/rest_client.h"

namespace fairlead::control {
namespace {

constexpr const char* kTaken = ".taken";

std::string label_of(const Json& volume, const char* key) {
  const Json& labels = field(volume, "labels");
  const auto found = labels.is_object() ? labels.find(key) : labels.end();
  return labels.is_object() && found != labels.end() && found->is_string() ? found->get<std::string>() : "";
}

}  // namespace

std::string_view name_of(FreezeAnswer answer) { return answer == FreezeAnswer::kFrozen ? "frozen" : "thawed"; }

std::string frozen_label(const std::string& request, FreezeAnswer answer) {
  return answer == FreezeAnswer::kFrozen ? request : fmt::format("{}.thawed", request);
}

std::string taken_label(const std::string& request) { return request + kTaken; }

std::string freeze_label_of(const Json& volume) { return label_of(volume, kLabelFreeze); }

std::string freeze_request_of(const std::string& freeze_label) {
  return freeze_label.ends_with(kTaken) ? "" : freeze_label;
}

Outcome<Json> freeze_answer_patch(const Json& volume, const std::string& request, FreezeAnswer answer) {
  const std::string asked = freeze_label_of(volume);
  const std::string said = label_of(volume, kLabelFrozen);
  const std::string frozen = frozen_label(request, FreezeAnswer::kFrozen);
  const std::string thawed = frozen_label(request, FreezeAnswer::kThawed);
  const bool is_in_order = answer == FreezeAnswer::kFrozen ? asked == request && said != frozen && said != thawed
                                                           : asked == taken_label(request) && said == frozen;
  if (request.empty() || !is_in_order) {
    return problem(Code::kMiscompare, fmt::format("nobody waits for '{}' to be {}", request, name_of(answer)));
  }
  Json patch;
  patch["labels"][kLabelFrozen] = frozen_label(request, answer);
  return patch;
}

}  // namespace fairlead::control
