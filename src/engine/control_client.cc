#include "engine/control_client.h"

#include "base/check.h"

namespace fairlead::engine {

ControlClient::ControlClient(Shard& home, rpc::Dialer& dialer, const std::vector<std::string>& addresses)
    : home_(home) {
  FL_CHECK(!addresses.empty());
  for (const std::string& address : addresses) channels_.push_back(dialer.dial(address));
}

ControlClient::~ControlClient() = default;

Task<Outcome<std::string>> ControlClient::send(std::string method, std::string request, Duration limit) {
  const Instant until = home_.clock.now() + limit;
  const Duration each = channels_.size() == 1 ? limit : limit / 2;
  const size_t first = first_;
  bool may_be_done = false;
  for (size_t i = 0; i < channels_.size(); ++i) {
    const Duration left = until - home_.clock.now();
    if (left <= Duration(0)) break;
    const size_t index = (first + i) % channels_.size();
    Outcome<std::string> reply = co_await channels_[index]->call(method, request, std::min(each, left));
    const Code code = reply ? Code::kInternal : reply.error().error.code;
    const bool is_answer = code != Code::kUnreachable && code != Code::kTimedOut && code != Code::kConnectionLost;
    if (is_answer) {
      first_ = index;
      co_return reply;
    }
    may_be_done |= code != Code::kUnreachable;
  }
  // Whoever asks next begins with another: this one may keep everybody waiting.
  first_ = (first + 1) % channels_.size();
  if (may_be_done) co_return problem(Code::kTimedOut, "the control plane does not answer");
  co_return problem(Code::kUnreachable, "no process of the control plane can be reached, or none leads");
}

}  // namespace fairlead::engine
