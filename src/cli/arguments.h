// What the commands' arguments have in common: complaints about them, and the forms that several commands take.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <vector>

#include "async/time.h"
#include "base/error.h"
#include "host/options.h"
#include "io/runtime.h"
#include "io/uring_shard.h"
#include "target/options.h"

namespace fairlead::cli {

// What is wrong with an argument, for people: "--size 12x: is not valid (…)".
using Complaint = std::string;

// "--size 12x: is not valid (…)"
std::unexpected<Complaint> complain_about(std::string_view argument, const Error& error);

// A span of time between two others, both named in the complaint.
struct SpanBounds {
  Duration min;
  Duration max;
  const char* text;
};
std::expected<Duration, Complaint> parse_span(std::string_view option, std::string_view text, const SpanBounds& bounds);

// "auto", "always", "never".
std::expected<PollMode, Complaint> parse_poll(std::string_view text);

// ADDR[:PORT][,advertise=ADDR[:PORT]] each; none given: this machine only. The complaint is about --listen.
std::expected<std::vector<target::ListenerOptions>, Complaint> parse_listeners(const std::vector<std::string>& texts);

// Of a process that serves, from --shards (0: one for each processor) and --poll, which complaints are about.
std::expected<RuntimeOptions, Complaint> parse_runtime(uint16_t shards, std::string_view poll);

// Processors as taskset takes them: "1", "0,2", "0-3,6". The complaint does not name the option.
std::expected<std::vector<int>, Complaint> parse_processors(std::string_view text);

// Who we are to targets: `nqn`, or when it is empty one that is the same on this machine each time. The complaint is
// about --host.
std::expected<host::HostIdentity, Complaint> host_identity(const std::string& nqn);

// What tells this machine from others, from one boot to the next.
std::string machine_name();

// As people know this machine.
std::string host_name();

// How many processors this process may use.
uint16_t processor_count();

}  // namespace fairlead::cli
