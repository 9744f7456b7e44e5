#include "sim/core.h"

namespace fairlead::sim {

std::string_view sim_fault_name(SimFault fault) noexcept {
  static constexpr std::array<std::string_view, kSimFaultCount> kNames = {"read_error",
                                                                          "write_error",
                                                                          "flush_error",
                                                                          "rot",
                                                                          "misdirected_read",
                                                                          "misdirected_write",
                                                                          "lost_write",
                                                                          "no_space",
                                                                          "slow_disk",
                                                                          "hung_disk",
                                                                          "reset",
                                                                          "partition",
                                                                          "stall",
                                                                          "crash"};
  return kNames[static_cast<size_t>(fault)];
}

void SimCore::advance_to(Instant when) {
  FL_CHECK(when >= now_);
  if (when == now_) return;
  now_ = when;
}

void SimCore::at(Instant when, Action<> action) {
  const Instant not_before = when < now_ ? now_ : when;
  events_.emplace(std::tuple(not_before, ties_.next(), sequence_++), std::move(action));
}

std::optional<Instant> SimCore::next_event() const {
  if (events_.empty()) return std::nullopt;
  return std::get<Instant>(events_.begin()->first);
}

void SimCore::run_next_event() {
  FL_CHECK(!events_.empty() && std::get<Instant>(events_.begin()->first) <= now_);
  auto event = events_.extract(events_.begin());
  event.mapped()();
}

void SimCore::injected(SimFault fault, uint32_t node) {
  ++injected_[static_cast<size_t>(fault)];
  if (is_hard(fault)) hard_.insert(node);
  record({.kind = TraceKind::kFault, .place = {.node = node}, .a = static_cast<uint64_t>(fault)});
}

void SimCore::violation(Place place, std::string_view what) {
  ++violations_;
  note(place, what);
}

}  // namespace fairlead::sim
