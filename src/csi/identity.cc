#include "csi/identity.h"

#include <api/csi/v1/csi.pb.h>

#include "csi/names.h"

namespace fairlead::csi {

void Identity::add_to(rpc::Service& service) {
  service.add("/csi.v1.Identity/GetPluginInfo", *this, &Identity::info);
  service.add("/csi.v1.Identity/GetPluginCapabilities", *this, &Identity::capabilities);
  service.add("/csi.v1.Identity/Probe", *this, &Identity::probe);
}

Task<Outcome<wire::GetPluginInfoResponse>> Identity::info(wire::GetPluginInfoRequest) {
  wire::GetPluginInfoResponse reply;
  reply.set_name(kPluginName);
  reply.set_vendor_version(version_);
  (*reply.mutable_manifest())["role"] = role_ == Role::kNode ? "node" : "controller";
  co_return reply;
}

Task<Outcome<wire::GetPluginCapabilitiesResponse>> Identity::capabilities(wire::GetPluginCapabilitiesRequest) {
  using Service = wire::PluginCapability::Service;
  wire::GetPluginCapabilitiesResponse reply;
  for (const auto type :
       {Service::CONTROLLER_SERVICE, Service::VOLUME_ACCESSIBILITY_CONSTRAINTS, Service::GROUP_CONTROLLER_SERVICE}) {
    reply.add_capabilities()->mutable_service()->set_type(type);
  }
  reply.add_capabilities()->mutable_volume_expansion()->set_type(wire::PluginCapability::VolumeExpansion::ONLINE);
  co_return reply;
}

// Calls say by themselves when the cluster is not there: restarting a plugin brings no cluster back.
Task<Outcome<wire::ProbeResponse>> Identity::probe(wire::ProbeRequest) {
  wire::ProbeResponse reply;
  reply.mutable_ready()->set_value(true);
  co_return reply;
}

}  // namespace fairlead::csi
