// Get and Set Features: NVMe base 2.0 sections 5.15 and 5.27. Nothing is saved across resets, and the target says so.
#include <algorithm>
#include <cstring>

#include "target/controller.h"
#include "target/queue.h"
#include "target/shard_target.h"

namespace fairlead::target {

using nvme::AdminOpcode;
using nvme::Feature;
using nvme::StatusCode;

namespace {

constexpr bool is_known(Feature feature) {
  switch (feature) {
    case Feature::kArbitration:
    case Feature::kPowerManagement:
    case Feature::kTemperatureThreshold:
    case Feature::kErrorRecovery:
    case Feature::kVolatileWriteCache:
    case Feature::kNumberOfQueues:
    case Feature::kWriteAtomicity:
    case Feature::kAsyncEvents:
    case Feature::kKeepAlive:
    case Feature::kHostIdentifier:
      return true;
    default:
      return false;
  }
}

}  // namespace

bool Controller::has_feature(Feature feature) const {
  const bool of_discovery =
      feature == Feature::kAsyncEvents || feature == Feature::kKeepAlive || feature == Feature::kHostIdentifier;
  return is_discovery() ? of_discovery : is_known(feature);
}

nvme::StatusOr<DataNeed> Controller::prepare_feature(const nvme::SubmissionEntry& command) const {
  if (static_cast<AdminOpcode>(command.opcode) == AdminOpcode::kSetFeatures) {
    const nvme::SetFeaturesRequest wanted = nvme::decode_set_features(command);
    if (!has_feature(wanted.feature)) return nvme::reject(StatusCode::kInvalidField);
    if (wanted.save) return nvme::reject(StatusCode::kFeatureNotSaveable);
    // Over fabrics the host identifier comes with Connect and stays.
    if (wanted.feature == Feature::kHostIdentifier) return nvme::reject(StatusCode::kCommandSequenceError);
    return DataNeed{};
  }
  const auto wanted = nvme::decode_get_features(command);
  if (!wanted) return std::unexpected(wanted.error());
  // Only current values: the controller does not claim the support of saved and default ones (ONCS bit 4).
  if (!has_feature(wanted->feature) || wanted->select != nvme::FeatureSelect::kCurrent) {
    return nvme::reject(StatusCode::kInvalidField);
  }
  if (wanted->feature != Feature::kHostIdentifier) return DataNeed{};
  if ((wanted->value & nvme::kHostIdentifierExtended) == 0) return nvme::reject(StatusCode::kInvalidField);
  return DataNeed{nvme::DataTransfer::kControllerToHost, sizeof(HostId)};
}

nvme::StatusOr<uint64_t> Controller::set_feature(const nvme::SetFeaturesRequest& wanted) {
  const uint32_t value = wanted.value;
  switch (wanted.feature) {
    case Feature::kArbitration:
      features_.arbitration = value;
      break;
    case Feature::kPowerManagement:
      if ((value & 0x1f) != 0) return nvme::reject(StatusCode::kInvalidField);  // there is one power state
      features_.power_state = value;
      break;
    case Feature::kTemperatureThreshold:
      features_.temperature_threshold = value & 0xffff;
      break;
    case Feature::kErrorRecovery:
      features_.error_recovery = value;
      break;
    case Feature::kVolatileWriteCache:
      association_->write_cache.store((value & nvme::kWriteCacheEnable) != 0);
      break;
    case Feature::kNumberOfQueues: {
      if ((value & 0xffff) == 0xffff || (value >> 16) == 0xffff) return nvme::reject(StatusCode::kInvalidField);
      if (association_->connected_queues.load() > 0) return nvme::reject(StatusCode::kCommandSequenceError);
      const nvme::QueueCounts counts = nvme::decode_queue_counts(value);
      const uint32_t granted =
          std::min({counts.submission, counts.completion, uint32_t{shard_target_.options().io_queues_max}});
      association_->io_queues.store(static_cast<uint16_t>(granted));
      return uint64_t{nvme::encode_queue_counts({granted, granted})};
    }
    case Feature::kWriteAtomicity:
      features_.write_atomicity = value & nvme::kWriteAtomicityDisableNormal;
      break;
    case Feature::kAsyncEvents:
      features_.event_configuration = value;
      break;
    case Feature::kKeepAlive:
      set_keep_alive(value);
      break;
    default:
      return nvme::reject(StatusCode::kFeatureNotChangeable);
  }
  return uint64_t{0};
}

nvme::StatusOr<uint64_t> Controller::get_feature(Request& request) {
  const auto wanted = nvme::decode_get_features(request.command);
  if (!wanted) return std::unexpected(wanted.error());
  switch (wanted->feature) {
    case Feature::kArbitration:
      return features_.arbitration;
    case Feature::kPowerManagement:
      return features_.power_state;
    case Feature::kTemperatureThreshold:
      return features_.temperature_threshold;
    case Feature::kErrorRecovery:
      return features_.error_recovery;
    case Feature::kVolatileWriteCache:
      return association_->write_cache.load() ? nvme::kWriteCacheEnable : 0;
    case Feature::kNumberOfQueues: {
      const uint32_t granted = std::max<uint32_t>(association_->io_queues.load(), 1);
      return nvme::encode_queue_counts({granted, granted});
    }
    case Feature::kWriteAtomicity:
      return features_.write_atomicity;
    case Feature::kAsyncEvents:
      return features_.event_configuration;
    case Feature::kKeepAlive:
      return keep_alive_ms_;
    case Feature::kHostIdentifier:
      std::memcpy(request.data.data(), association_->host_id.data(), association_->host_id.size());
      return 0;
    default:
      return nvme::reject(StatusCode::kInvalidField);
  }
}

}  // namespace fairlead::target
