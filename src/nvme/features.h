// Feature identifiers and the layout of their values: NVMe base 2.0 section 5.27.1. No state.
#pragma once

#include <cstdint>

namespace fairlead::nvme {

enum class Feature : uint8_t {
  kArbitration = 0x01,
  kPowerManagement = 0x02,
  kLbaRangeType = 0x03,
  kTemperatureThreshold = 0x04,
  kErrorRecovery = 0x05,
  kVolatileWriteCache = 0x06,
  kNumberOfQueues = 0x07,
  kInterruptCoalescing = 0x08,  // not over fabrics
  kInterruptVector = 0x09,      // not over fabrics
  kWriteAtomicity = 0x0a,
  kAsyncEvents = 0x0b,
  kAutonomousPowerState = 0x0c,
  kHostMemoryBuffer = 0x0d,
  kTimestamp = 0x0e,
  kKeepAlive = 0x0f,
  kThermalManagement = 0x10,
  kNonOperationalPowerState = 0x11,
  kReadRecoveryLevel = 0x12,
  kHostBehavior = 0x16,
  kSanitize = 0x17,
  kCommandSetProfile = 0x19,
  kSoftwareProgress = 0x80,
  kHostIdentifier = 0x81,
  kReservationMask = 0x82,
  kReservationPersistence = 0x83,
  kNamespaceWriteProtection = 0x84,
};

// cdw10 bits 10:8 of Get Features.
enum class FeatureSelect : uint8_t { kCurrent = 0, kDefault = 1, kSaved = 2, kSupported = 3 };
// The result of Get Features with kSupported.
inline constexpr uint32_t kFeatureSaveable = 1U << 0;
inline constexpr uint32_t kFeatureNamespaceSpecific = 1U << 1;
inline constexpr uint32_t kFeatureChangeable = 1U << 2;

inline constexpr uint32_t kSetFeaturesSave = 1U << 31;  // cdw10 of Set Features

// kArbitration: burst 2:0 (log2, 111b is no limit), weights 0's based.
inline constexpr uint32_t kArbitrationNoBurstLimit = 0x7;
// kTemperatureThreshold: threshold 15:0 in kelvin, sensor 19:16, type 21:20.
constexpr uint16_t temperature_threshold(uint32_t value) { return static_cast<uint16_t>(value); }
constexpr uint8_t temperature_sensor(uint32_t value) { return static_cast<uint8_t>((value >> 16) & 0xf); }
constexpr uint8_t temperature_threshold_type(uint32_t value) { return static_cast<uint8_t>((value >> 20) & 0x3); }
// kErrorRecovery: time-limited recovery 15:0 in 100 ms; bit 16 reports errors for deallocated blocks.
inline constexpr uint32_t kErrorRecoveryDeallocatedError = 1U << 16;
// kVolatileWriteCache.
inline constexpr uint32_t kWriteCacheEnable = 1U << 0;
// kWriteAtomicity.
inline constexpr uint32_t kWriteAtomicityDisableNormal = 1U << 0;
// kHostIdentifier.
inline constexpr uint32_t kHostIdentifierExtended = 1U << 0;  // 16 bytes, else 8
// kReservationMask: bits 1 to 3 mask registration preempted, reservation released, reservation preempted.
// kReservationPersistence.
inline constexpr uint32_t kReservationPersist = 1U << 0;

// kNumberOfQueues: submission 15:0, completion 31:16, both 0's based without the admin queue.
struct QueueCounts {
  uint32_t submission = 1;  // real numbers, 1 to 65536 (65536 itself is invalid on the wire)
  uint32_t completion = 1;
  friend constexpr bool operator==(const QueueCounts&, const QueueCounts&) = default;
};
constexpr QueueCounts decode_queue_counts(uint32_t value) { return {(value & 0xffff) + 1, (value >> 16) + 1}; }
// Requires: both 1 to 65536.
constexpr uint32_t encode_queue_counts(QueueCounts counts) {
  return ((counts.submission - 1) & 0xffff) | (((counts.completion - 1) & 0xffff) << 16);
}

// kAsyncEvents: bits 7:0 as the critical warnings of the health log.
inline constexpr uint32_t kAsyncEventHealthMask = 0xff;
inline constexpr uint32_t kAsyncEventNamespaceAttribute = 1U << 8;
inline constexpr uint32_t kAsyncEventFirmwareActivation = 1U << 9;
inline constexpr uint32_t kAsyncEventTelemetry = 1U << 10;
inline constexpr uint32_t kAsyncEventAnaChange = 1U << 11;
inline constexpr uint32_t kAsyncEventDiscoveryChange = 1U << 31;

}  // namespace fairlead::nvme
