#include "target/subsystem.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace fairlead::target {

Subsystem::Subsystem(SubsystemOptions options) : options_(std::move(options)) {}

bool Subsystem::allows(std::string_view host_nqn) const {
  return options_.allowed_hosts.empty() ||
         std::ranges::find(options_.allowed_hosts, host_nqn) != options_.allowed_hosts.end();
}

void Subsystem::add(std::unique_ptr<Namespace> added) {
  const uint32_t nsid = added->identity().nsid;
  FL_CHECK(nsid >= 1 && nsid <= kNamespacesMax && find(nsid) == nullptr);
  if (nsid >= namespaces_.size()) namespaces_.resize(nsid + 1);
  namespaces_[nsid] = std::move(added);
  ++version_;
}

std::unique_ptr<Namespace> Subsystem::remove(uint32_t nsid) {
  FL_CHECK(find(nsid) != nullptr);
  ++version_;
  return std::move(namespaces_[nsid]);
}

uint32_t Subsystem::namespace_count() const {
  uint32_t count = 0;
  for_each_namespace([&](Namespace&) { ++count; });
  return count;
}

AnaState Subsystem::ana_state(PortIndex port, uint32_t group) const {
  FL_CHECK(group >= 1 && group <= kAnaGroupsMax);
  return port < ana_.size() ? ana_[port][group] : AnaState::kOptimized;
}

void Subsystem::set_ana_state(PortIndex port, uint32_t group, AnaState state) {
  FL_CHECK(port < kListenersMax && group >= 1 && group <= kAnaGroupsMax);
  while (port >= ana_.size()) ana_.emplace_back().fill(AnaState::kOptimized);
  ana_[port][group] = state;
  ++ana_change_count_;
  ++version_;
}

}  // namespace fairlead::target
