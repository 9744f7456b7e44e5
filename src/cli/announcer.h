// What a process that serves tells on standard output: who comes and goes, and where it listens.
#pragma once

#include "cli/commands.h"
#include "target/target.h"

namespace fairlead::cli {

class Announcer final : public target::TargetObserver {
 public:
  void host_connected(const target::HostSession& session) override {
    say("host {} connected ({} I/O queue{})", session.host_nqn, session.io_queues, session.io_queues == 1 ? "" : "s");
  }
  void host_disconnected(const target::HostSession& session, std::string_view reason) override {
    say("host {} disconnected: {}", session.host_nqn, reason);
  }
};

inline void say_listening(const target::Target::Listening& listening) {
  if (listening.bound == listening.advertised) {
    say("listening on {}", to_string(listening.bound));
  } else {
    say("listening on {} (advertised as {})", to_string(listening.bound), to_string(listening.advertised));
  }
}

}  // namespace fairlead::cli
