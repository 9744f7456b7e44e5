// Execute: a command that a coroutine waits for: co_await Execute(reactor, queue, entry, data).
#pragma once

#include <coroutine>

#include "base/error.h"
#include "host/queue.h"

namespace fairlead::host {

// What the controller said; the status may be an error.
struct Answer {
  nvme::Status status;
  uint64_t result = 0;
};

// Data of a command in one piece, borrowed until the answer.
struct CommandData {
  nvme::DataTransfer direction = nvme::DataTransfer::kNone;
  iovec piece{};

  static CommandData none() { return {}; }
  static CommandData to_controller(std::span<const std::byte> bytes) {
    return {nvme::DataTransfer::kHostToController, {const_cast<std::byte*>(bytes.data()), bytes.size()}};
  }
  static CommandData from_controller(std::span<std::byte> bytes) {
    return {nvme::DataTransfer::kControllerToHost, {bytes.data(), bytes.size()}};
  }
};

// Errors: kConnectionLost when no answer came.
class Execute : private Command {
 public:
  Execute(Reactor& reactor, Queue& queue, const nvme::SubmissionEntry& sqe, const CommandData& bytes)
      : reactor_(reactor), queue_(queue), piece_(bytes.piece) {
    entry = sqe;
    direction = bytes.direction;
    if (piece_.iov_len > 0) data = {&piece_, 1};
    length = static_cast<uint32_t>(piece_.iov_len);
    done = [](Command& command) {
      auto& self = static_cast<Execute&>(command);
      self.reactor_.post(self.resumption_);
    };
  }
  Execute(const Execute&) = delete;
  Execute& operator=(const Execute&) = delete;

  void without_deadline() { has_deadline = false; }

  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> caller) {
    resumption_.handle = caller;
    queue_.submit(*this);
  }
  Result<Answer> await_resume() const {
    if (outcome != Outcome::kAnswered) return fail(Code::kConnectionLost, queue_.reason());
    return Answer{status, result};
  }

 private:
  Reactor& reactor_;
  Queue& queue_;
  iovec piece_;
  Resumption resumption_;
};

}  // namespace fairlead::host
