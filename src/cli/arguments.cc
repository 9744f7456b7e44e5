#include "cli/arguments.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <fmt/format.h>
#include <fstream>
#include <sched.h>
#include <unistd.h>

#include "base/uuid.h"
#include "block/spec.h"
#include "cli/transport_url.h"
#include "nvme/nqn.h"

namespace fairlead::cli {
namespace {

constexpr int kProcessorsMax = 256;
constexpr uint16_t kShardsMax = 256;

// A number at the start of the text, which then is what follows it.
bool take_number(std::string_view& text, int& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || number < 0) return false;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return true;
}

std::expected<target::ListenerOptions, Complaint> parse_listener(std::string_view text) {
  constexpr std::string_view kAdvertise = ",advertise=";
  target::ListenerOptions options;
  std::string_view bind = text;
  if (const size_t comma = text.find(','); comma != std::string_view::npos) {
    if (!text.substr(comma).starts_with(kAdvertise)) {
      return std::unexpected(fmt::format("--listen {}: expected ADDR[:PORT][,advertise=ADDR[:PORT]]", text));
    }
    const Result<SocketAddress> advertise = parse_socket_address(text.substr(comma + kAdvertise.size()), 0);
    if (!advertise) return complain_about(fmt::format("--listen {}", text), advertise.error());
    options.advertise = *advertise;
    bind = text.substr(0, comma);
  }
  const Result<SocketAddress> address = parse_socket_address(bind, kNvmePort);
  if (!address) return complain_about(fmt::format("--listen {}", text), address.error());
  options.bind = *address;
  return options;
}

}  // namespace

std::unexpected<Complaint> complain_about(std::string_view argument, const Error& error) {
  return std::unexpected(fmt::format("{}: {}", argument, to_string(error)));
}

std::expected<Duration, Complaint> parse_span(std::string_view option, std::string_view text,
                                              const SpanBounds& bounds) {
  const std::string argument = fmt::format("{} {}", option, text);
  const Result<Duration> parsed = parse_duration(text);
  if (!parsed) return complain_about(argument, parsed.error());
  if (*parsed < bounds.min || *parsed > bounds.max) {
    return std::unexpected(fmt::format("{}: expected {}", argument, bounds.text));
  }
  return *parsed;
}

std::expected<PollMode, Complaint> parse_poll(std::string_view text) {
  if (text == "auto") return PollMode::kAuto;
  if (text == "always") return PollMode::kAlways;
  if (text == "never") return PollMode::kNever;
  return std::unexpected(fmt::format("--poll {}: expected auto, always or never", text));
}

std::expected<std::vector<target::ListenerOptions>, Complaint> parse_listeners(const std::vector<std::string>& texts) {
  std::vector<target::ListenerOptions> listeners;
  for (const std::string& text : texts) {
    auto listener = parse_listener(text);
    if (!listener) return std::unexpected(listener.error());
    listeners.push_back(std::move(*listener));
  }
  if (!listeners.empty()) return listeners;
  auto here = parse_listener("127.0.0.1");
  if (!here) return std::unexpected(here.error());
  return std::vector{*std::move(here)};
}

std::expected<RuntimeOptions, Complaint> parse_runtime(uint16_t shards, std::string_view poll) {
  RuntimeOptions options;
  if (shards > kShardsMax) return std::unexpected(fmt::format("--shards {}: at most {}", shards, kShardsMax));
  options.shards = shards == 0 ? processor_count() : shards;
  const auto mode = parse_poll(poll);
  if (!mode) return std::unexpected(mode.error());
  options.poll = *mode;
  return options;
}

std::expected<std::vector<int>, Complaint> parse_processors(std::string_view text) {
  constexpr const char* kForm = "expected processors such as 1 or 0,2 or 0-3";
  std::vector<int> processors;
  while (true) {
    int first = 0;
    if (!take_number(text, first)) return std::unexpected(kForm);
    int last = first;
    if (text.starts_with('-')) {
      text.remove_prefix(1);
      if (!take_number(text, last) || last < first) return std::unexpected(kForm);
    }
    if (last - first >= kProcessorsMax - static_cast<int>(processors.size())) {
      return std::unexpected(fmt::format("at most {} processors", kProcessorsMax));
    }
    for (int processor = first; processor <= last; ++processor) processors.push_back(processor);
    if (text.empty()) return processors;
    if (!text.starts_with(',')) return std::unexpected(kForm);
    text.remove_prefix(1);
  }
}

std::expected<host::HostIdentity, Complaint> host_identity(const std::string& nqn) {
  if (nqn.empty()) return host::identity_from_id(uuid_from_name(kFairleadNamespace, machine_name() + ":host"));
  if (const auto valid = nvme::validate_nqn(nqn); !valid) {
    return complain_about(fmt::format("--host {}", nqn), valid.error());
  }
  return host::HostIdentity{.nqn = nqn, .id = uuid_from_name(kFairleadNamespace, nqn)};
}

std::string machine_name() {
  std::string machine;
  std::ifstream("/etc/machine-id") >> machine;
  return machine.empty() ? host_name() : machine;
}

std::string host_name() {
  std::array<char, 256> host{};
  return ::gethostname(host.data(), host.size() - 1) == 0 ? host.data() : "";
}

uint16_t processor_count() {
  cpu_set_t set;
  CPU_ZERO(&set);
  const long count = ::sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : ::sysconf(_SC_NPROCESSORS_ONLN);
  return static_cast<uint16_t>(std::clamp<long>(count, 1, kProcessorsMax));
}

}  // namespace fairlead::cli
