#include "control/events.h"

#include "base/log.h"

namespace fairlead::control {

void Events::add(Severity severity, std::string resource, std::string reason, std::string message) {
  log(severity == Severity::kWarning ? LogLevel::kWarn : LogLevel::kInfo, "control.event",
      {{"resource", resource}, {"reason", reason}, {"message", message}});
  list_.push_back({.number = ++last_,
                   .at_ms = home_.clock.wall_ms(),
                   .severity = severity == Severity::kWarning ? "warning" : "normal",
                   .resource = std::move(resource),
                   .reason = std::move(reason),
                   .message = std::move(message)});
  if (list_.size() > kKept) list_.pop_front();
  changed_.release_waiters();
}

}  // namespace fairlead::control
