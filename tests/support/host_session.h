// HostSession: a subsystem of a TargetBed by way of src/host, with a device for namespace 1 on the first shard.
#pragma once

#include <memory>

#include "host/remote_device.h"
#include "host/subsystem.h"
#include "tests/support/target_bed.h"

namespace fairlead::testing {

class HostSession {
 public:
  explicit HostSession(TargetBed& bed, host::SubsystemOptions options = {}) : bed_(bed), options_(std::move(options)) {
    if (options_.nqn.empty()) options_.nqn = kNqn;
    if (options_.addresses.empty()) options_.addresses = {bed.address};
    if (options_.identity.nqn.empty()) options_.identity = host::identity_from_id(uuid_from_random(1, 2));
  }

  // Connects and opens namespace `nsid`.
  Task<Result<void>> open(uint32_t nsid = 1) {
    subsystem_ = std::make_unique<host::Subsystem>(bed_.client_shards(), options_);
    FL_CO_TRY_VOID(co_await subsystem_->start());
    FL_CO_TRY(const std::shared_ptr<BlockSource> source, subsystem_->source(nsid));
    FL_CO_TRY(std::unique_ptr<BlockDevice> device, source->open(bed_.shard()));
    device_.reset(static_cast<host::RemoteDevice*>(device.release()));
    co_return Result<void>();
  }
  // Requires: no request is under way.
  Task<void> close() {
    device_.reset();
    if (subsystem_) co_await subsystem_->stop();
    subsystem_.reset();
  }

  host::Subsystem& subsystem() { return *subsystem_; }
  host::RemoteDevice& device() { return *device_; }

 private:
  TargetBed& bed_;
  host::SubsystemOptions options_;
  std::unique_ptr<host::Subsystem> subsystem_;
  std::unique_ptr<host::RemoteDevice> device_;
};

}  // namespace fairlead::testing
