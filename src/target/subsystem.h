// Subsystem: one shard's side of an NVM subsystem: who may use it, its namespaces here, and their ANA states by port.
// Lives on one shard. Changes come from Target, which makes the same ones on each shard.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "target/namespace.h"
#include "target/options.h"

namespace fairlead::target {

// Index of a listener in its target; hosts see it plus one.
using PortIndex = uint16_t;

class Subsystem {
 public:
  explicit Subsystem(SubsystemOptions options);

  const SubsystemOptions& options() const { return options_; }
  const std::string& nqn() const { return options_.nqn; }
  bool allows(std::string_view host_nqn) const;
  void set_allowed_hosts(std::vector<std::string> hosts) { options_.allowed_hosts = std::move(hosts); }

  // Null: there is none of that id.
  Namespace* find(uint32_t nsid) const { return nsid < namespaces_.size() ? namespaces_[nsid].get() : nullptr; }
  // Requires: the id is free and in [1, kNamespacesMax].
  void add(std::unique_ptr<Namespace> added);
  // From now on find() does not see it; the caller drains and destroys it.
  std::unique_ptr<Namespace> remove(uint32_t nsid);
  // Calls step(Namespace&) in the order of ids.
  template <typename Step>
  void for_each_namespace(Step step) const {
    for (const auto& each : namespaces_) {
      if (each != nullptr) step(*each);
    }
  }
  uint32_t namespace_count() const;

  AnaState ana_state(PortIndex port, uint32_t group) const;
  void set_ana_state(PortIndex port, uint32_t group, AnaState state);
  uint64_t ana_change_count() const { return ana_change_count_; }

  // Another number after each change of what a command is checked against: namespaces, their sizes, ANA states.
  uint64_t version() const { return version_; }
  void note_resized() { ++version_; }

 private:
  SubsystemOptions options_;
  std::vector<std::unique_ptr<Namespace>> namespaces_;        // by id; grows, so that the common case stays small
  std::vector<std::array<AnaState, kAnaGroupsMax + 1>> ana_;  // by port, for ports whose states were ever set
  uint64_t ana_change_count_ = 0;
  uint64_t version_ = 1;
};

}  // namespace fairlead::target
