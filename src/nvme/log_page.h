// Log pages and asynchronous events: NVMe base 2.0 sections 5.16 and 5.2.
// Wire structures: alignment 1, little-endian, exact sizes; what is reserved is zero in a fresh object.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/endian.h"
#include "nvme/identify.h"

namespace fairlead::nvme {

enum class LogPage : uint8_t {
  kSupportedPages = 0x00,
  kErrorInformation = 0x01,
  kHealth = 0x02,
  kFirmwareSlot = 0x03,
  kChangedNamespaces = 0x04,
  kCommandEffects = 0x05,
  kDeviceSelfTest = 0x06,
  kTelemetryHost = 0x07,
  kTelemetryController = 0x08,
  kEnduranceGroup = 0x09,
  kAna = 0x0c,
  kPersistentEvent = 0x0d,
  kFeatureEffects = 0x12,
  kDiscovery = 0x70,
  kReservationNotification = 0x80,
  kSanitizeStatus = 0x81,
};

// Log 00h. Bit 0 of an entry: supported.
struct SupportedLogPages {
  Le32 page[256];
};
static_assert(sizeof(SupportedLogPages) == 1024);
inline constexpr uint32_t kLogPageSupported = 1U << 0;

// Log 01h: newest first.
struct ErrorInformation {
  Le64 error_count;  // 0: no entry
  Le16 sqid;
  Le16 cid;
  Le16 status_field;
  Le16 parameter_location;  // byte 7:0, bit 10:8
  Le64 lba;
  Le32 nsid;
  uint8_t vendor_log_page = 0;
  uint8_t trtype = 0;
  uint8_t reserved30[2] = {};
  Le64 command_specific;
  Le16 transport_specific;
  uint8_t reserved42[22] = {};
};
static_assert(sizeof(ErrorInformation) == 64 && offsetof(ErrorInformation, lba) == 16);
static_assert(offsetof(ErrorInformation, command_specific) == 32);

// Log 02h.
struct HealthInformation {
  uint8_t critical_warning = 0;
  Le16 temperature;  // kelvin
  uint8_t available_spare = 0;
  uint8_t available_spare_threshold = 0;
  uint8_t percentage_used = 0;
  uint8_t endurance_critical_warning = 0;
  uint8_t reserved7[25] = {};
  Le128 data_units_read;  // thousands of 512 bytes, rounded up
  Le128 data_units_written;
  Le128 host_read_commands;
  Le128 host_write_commands;
  Le128 controller_busy_minutes;
  Le128 power_cycles;
  Le128 power_on_hours;
  Le128 unsafe_shutdowns;
  Le128 media_errors;
  Le128 error_log_entries;
  Le32 warning_temperature_minutes;
  Le32 critical_temperature_minutes;
  Le16 temperature_sensor[8];
  Le32 thermal1_transitions;
  Le32 thermal2_transitions;
  Le32 thermal1_seconds;
  Le32 thermal2_seconds;
  uint8_t reserved232[280] = {};
};
static_assert(sizeof(HealthInformation) == 512 && offsetof(HealthInformation, data_units_read) == 32);
static_assert(offsetof(HealthInformation, error_log_entries) == 176);
static_assert(offsetof(HealthInformation, temperature_sensor) == 200);

// Log 03h.
struct FirmwareSlots {
  uint8_t active = 0;  // bits 2:0: the slot in use, 1 to 7
  uint8_t reserved1[7] = {};
  char revision[7][8] = {};
  uint8_t reserved64[448] = {};
};
static_assert(sizeof(FirmwareSlots) == 512 && offsetof(FirmwareSlots, revision) == 8);

// Log 04h: changed NSIDs, ascending, zero ends the list; all ones in the first entry: more than 1024.
using ChangedNamespaces = NamespaceList;
inline constexpr uint32_t kChangedNamespacesOverflow = 0xffffffff;

// Log 05h.
struct CommandEffects {
  Le32 admin[256];
  Le32 io[256];
  uint8_t reserved2048[2048] = {};
};
static_assert(sizeof(CommandEffects) == 4096 && offsetof(CommandEffects, io) == 1024);
inline constexpr uint32_t kEffectSupported = 1U << 0;
inline constexpr uint32_t kEffectBlockContentChange = 1U << 1;
inline constexpr uint32_t kEffectNamespaceChange = 1U << 2;

// Log 0Ch: the header, then for each group a descriptor followed by its NSIDs (Le32).
struct AnaHeader {
  Le64 change_count;
  Le16 groups;
  uint8_t reserved10[6] = {};
};
static_assert(sizeof(AnaHeader) == 16);
enum class AnaState : uint8_t {
  kOptimized = 0x1,
  kNonOptimized = 0x2,
  kInaccessible = 0x3,
  kPersistentLoss = 0x4,
  kChange = 0xf,
};
struct AnaGroupDescriptor {
  Le32 group;
  Le32 namespaces;  // number of NSIDs that follow
  Le64 change_count;
  uint8_t state = 0;  // bits 3:0
  uint8_t reserved17[15] = {};
};
static_assert(sizeof(AnaGroupDescriptor) == 32 && offsetof(AnaGroupDescriptor, state) == 16);
inline constexpr uint8_t kAnaLogGroupsOnly = 1U << 0;  // log specific parameter: leave the NSIDs out

// Log 70h.
enum class TransportType : uint8_t { kRdma = 1, kFibreChannel = 2, kTcp = 3, kLoop = 254 };
enum class AddressFamily : uint8_t { kUnspecified = 0, kIpv4 = 1, kIpv6 = 2, kInfiniband = 3, kFibreChannel = 4 };
enum class SubsystemType : uint8_t { kReferral = 1, kNvm = 2, kCurrentDiscovery = 3 };
enum class SecureChannel : uint8_t { kNotSpecified = 0, kRequired = 1, kNotRequired = 2 };  // TREQ bits 1:0
inline constexpr uint8_t kTreqSqFlowControlDisable = 1U << 2;
inline constexpr uint16_t kDiscoveryDuplicateInformation = 1U << 0;  // EFLAGS
inline constexpr uint16_t kDiscoveryExplicitPersistent = 1U << 1;
enum class TcpSecurity : uint8_t { kNone = 0, kTls12 = 1, kTls13 = 2 };  // TSAS byte 0
struct DiscoveryHeader {
  Le64 generation;
  Le64 records;
  Le16 record_format;  // 0
  uint8_t reserved18[1006] = {};
};
static_assert(sizeof(DiscoveryHeader) == 1024 && offsetof(DiscoveryHeader, record_format) == 16);
struct DiscoveryEntry {
  uint8_t trtype = 0;
  uint8_t adrfam = 0;
  uint8_t subtype = 0;
  uint8_t treq = 0;
  Le16 portid;
  Le16 cntlid;
  Le16 asqsz;
  Le16 eflags;
  uint8_t reserved12[20] = {};
  char trsvcid[32] = {};  // ASCII, padded with spaces
  uint8_t reserved64[192] = {};
  char subnqn[256] = {};   // ends with a zero
  char traddr[256] = {};   // ASCII, padded with spaces
  uint8_t tsas[256] = {};  // byte 0: TcpSecurity
};
static_assert(sizeof(DiscoveryEntry) == 1024 && alignof(DiscoveryEntry) == 1);
static_assert(offsetof(DiscoveryEntry, asqsz) == 8 && offsetof(DiscoveryEntry, trsvcid) == 32);
static_assert(offsetof(DiscoveryEntry, subnqn) == 256 && offsetof(DiscoveryEntry, traddr) == 512);
static_assert(offsetof(DiscoveryEntry, tsas) == 768);

// Log 80h.
struct ReservationNotification {
  Le64 count;        // 0: empty
  uint8_t type = 0;  // 1 registration preempted, 2 reservation released, 3 reservation preempted
  uint8_t available = 0;
  uint8_t reserved10[2] = {};
  Le32 nsid;
  uint8_t reserved16[48] = {};
};
static_assert(sizeof(ReservationNotification) == 64 && offsetof(ReservationNotification, nsid) == 12);

// The result (dw0) of an Asynchronous Event Request: type 2:0, information 15:8, log page 23:16.
enum class AsyncEventType : uint8_t { kError = 0, kHealth = 1, kNotice = 2, kCommandSet = 6, kVendor = 7 };
enum class NoticeInfo : uint8_t {
  kNamespaceAttributeChanged = 0x00,
  kFirmwareActivation = 0x01,
  kTelemetryChanged = 0x02,
  kAnaChange = 0x03,
  kDiscoveryChange = 0xf0,
};
inline constexpr uint8_t kCommandSetInfoReservation = 0x00;

struct AsyncEvent {
  AsyncEventType type = AsyncEventType::kNotice;
  uint8_t info = 0;
  uint8_t log_page = 0;

  static constexpr AsyncEvent notice(NoticeInfo info, LogPage page) {
    return {AsyncEventType::kNotice, static_cast<uint8_t>(info), static_cast<uint8_t>(page)};
  }
  constexpr uint32_t to_dw0() const {
    return static_cast<uint32_t>(type) | (uint32_t{info} << 8) | (uint32_t{log_page} << 16);
  }
  static constexpr AsyncEvent from_dw0(uint32_t dw0) {
    return {static_cast<AsyncEventType>(dw0 & 0x7), static_cast<uint8_t>(dw0 >> 8), static_cast<uint8_t>(dw0 >> 16)};
  }
  friend constexpr bool operator==(const AsyncEvent&, const AsyncEvent&) = default;
};

}  // namespace fairlead::nvme
