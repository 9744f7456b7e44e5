// Events: what happened, for people: the last of them, oldest first. One shard; not kept over a restart.
#pragma once

#include <cstdint>
#include <deque>
#include <string>

#include "async/event.h"
#include "io/shard.h"

namespace fairlead::control {

struct EventRecord {
  uint64_t number = 0;   // one more each
  uint64_t at_ms = 0;    // since 1970
  std::string severity;  // "normal", "warning"
  std::string resource;  // "volumes/db"
  std::string reason;    // one word
  std::string message;

  template <typename Io, typename Self>
  static void describe(Io& io, Self& self) {
    io("number", self.number);
    io("at_ms", self.at_ms);
    io("severity", self.severity);
    io("resource", self.resource);
    io("reason", self.reason);
    io("message", self.message);
  }
};

class Events {
 public:
  static constexpr size_t kKept = 2000;
  explicit Events(Shard& home) : home_(home), changed_(home.reactor) {}

  enum class Severity : uint8_t { kNormal, kWarning };
  // To the log too.
  void add(Severity severity, std::string resource, std::string reason, std::string message);
  const std::deque<EventRecord>& list() const { return list_; }
  Event& changed() { return changed_; }

 private:
  Shard& home_;
  Event changed_;
  std::deque<EventRecord> list_;
  uint64_t last_ = 0;
};

}  // namespace fairlead::control
