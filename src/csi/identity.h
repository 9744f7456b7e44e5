// Identity: who the plugin is, and whether it can work. Lives on one shard.
#pragma once

#include <string>

#include "async/task.h"
#include "base/problem.h"
#include "csi/messages.h"
#include "rpc/service.h"

namespace fairlead::csi {

class Identity {
 public:
  enum class Role : uint8_t { kController, kNode };
  Identity(Role role, std::string version) : role_(role), version_(std::move(version)) {}

  // Requires: this outlives `service`.
  void add_to(rpc::Service& service);

 private:
  Task<Outcome<wire::GetPluginInfoResponse>> info(wire::GetPluginInfoRequest request);
  Task<Outcome<wire::GetPluginCapabilitiesResponse>> capabilities(wire::GetPluginCapabilitiesRequest request);
  Task<Outcome<wire::ProbeResponse>> probe(wire::ProbeRequest request);

  const Role role_;
  const std::string version_;
};

}  // namespace fairlead::csi
