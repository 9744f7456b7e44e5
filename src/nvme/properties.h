// Controller properties: NVMe base 2.0 section 3.1.3. Raw values with typed readings; no state.
#pragma once

#include <cstdint>

namespace fairlead::nvme {

enum class Property : uint32_t {
  kCapabilities = 0x00,   // CAP, 8 bytes, read only
  kVersion = 0x08,        // VS, 4 bytes, read only
  kConfiguration = 0x14,  // CC, 4 bytes
  kStatus = 0x1c,         // CSTS, 4 bytes, read only
  kSubsystemReset = 0x20  // NSSR, 4 bytes, write
};

inline constexpr uint32_t kVersion_1_3 = 0x00010300;
inline constexpr uint32_t kVersion_1_4 = 0x00010400;
inline constexpr uint32_t kVersion_2_0 = 0x00020000;
inline constexpr uint32_t kSubsystemResetMagic = 0x4e564d65;  // "NVMe"

// CAP.
struct Capabilities {
  uint16_t max_queue_entries = 1;  // real number; MQES is 0's based. 2 to 65536 - 1
  bool contiguous_queues = true;   // CQR: shall be 1
  uint32_t ready_timeout_ms = 0;   // TO: units of 500 ms, rounded up, at most 127.5 s
  bool subsystem_reset = false;    // NSSRS
  bool nvm_command_set = true;     // CSS bit 0
  bool command_sets = false;       // CSS bit 6: Identify CNS 1Ch and CC.CSS 110b
  uint8_t page_shift_min = 12;     // MPSMIN + 12
  uint8_t page_shift_max = 12;     // MPSMAX + 12
  uint8_t ready_modes = 0;         // CRMS: bit 0 with media, bit 1 independent of media

  friend constexpr bool operator==(const Capabilities&, const Capabilities&) = default;
};
constexpr uint64_t encode_capabilities(const Capabilities& cap) {
  uint64_t units = (uint64_t{cap.ready_timeout_ms} + 499) / 500;
  if (units > 255) units = 255;
  return uint64_t{static_cast<uint16_t>(cap.max_queue_entries - 1)} | (uint64_t{cap.contiguous_queues} << 16) |
         (units << 24) | (uint64_t{cap.subsystem_reset} << 36) | (uint64_t{cap.nvm_command_set} << 37) |
         (uint64_t{cap.command_sets} << 43) | (uint64_t{(cap.page_shift_min - 12U) & 0xf} << 48) |
         (uint64_t{(cap.page_shift_max - 12U) & 0xf} << 52) | (uint64_t{cap.ready_modes & 0x3U} << 59);
}
constexpr Capabilities decode_capabilities(uint64_t raw) {
  Capabilities cap;
  const auto mqes = static_cast<uint16_t>(raw);
  cap.max_queue_entries = mqes == 0xffff ? mqes : static_cast<uint16_t>(mqes + 1);  // 65536 does not fit: one fewer
  cap.contiguous_queues = ((raw >> 16) & 1) != 0;
  cap.ready_timeout_ms = static_cast<uint32_t>((raw >> 24) & 0xff) * 500;
  cap.subsystem_reset = ((raw >> 36) & 1) != 0;
  cap.nvm_command_set = ((raw >> 37) & 1) != 0;
  cap.command_sets = ((raw >> 43) & 1) != 0;
  cap.page_shift_min = static_cast<uint8_t>(((raw >> 48) & 0xf) + 12);
  cap.page_shift_max = static_cast<uint8_t>(((raw >> 52) & 0xf) + 12);
  cap.ready_modes = static_cast<uint8_t>((raw >> 59) & 0x3);
  return cap;
}

enum class ShutdownNotice : uint8_t { kNone = 0, kNormal = 1, kAbrupt = 2, kReserved = 3 };
enum class CommandSetSelect : uint8_t { kNvm = 0, kAll = 6, kAdminOnly = 7 };

// CC.
struct ControllerConfiguration {
  uint32_t raw = 0;

  constexpr bool enable() const { return (raw & 1U) != 0; }
  constexpr CommandSetSelect command_set() const { return static_cast<CommandSetSelect>((raw >> 4) & 0x7); }
  constexpr uint8_t page_shift() const { return static_cast<uint8_t>(((raw >> 7) & 0xf) + 12); }
  constexpr uint8_t arbitration() const { return static_cast<uint8_t>((raw >> 11) & 0x7); }
  constexpr ShutdownNotice shutdown() const { return static_cast<ShutdownNotice>((raw >> 14) & 0x3); }
  constexpr uint8_t io_submission_entry_shift() const { return static_cast<uint8_t>((raw >> 16) & 0xf); }
  constexpr uint8_t io_completion_entry_shift() const { return static_cast<uint8_t>((raw >> 20) & 0xf); }

  // What a host writes to enable: 64- and 16-byte entries, 4 KiB pages.
  static constexpr ControllerConfiguration enabled(CommandSetSelect css) {
    return {1U | (static_cast<uint32_t>(css) << 4) | (6U << 16) | (4U << 20)};
  }
  constexpr ControllerConfiguration with_shutdown(ShutdownNotice notice) const {
    return {(raw & ~0xc000U) | (static_cast<uint32_t>(notice) << 14)};
  }
};

enum class ShutdownStatus : uint8_t { kNormal = 0, kInProgress = 1, kComplete = 2 };

// CSTS.
struct ControllerStatus {
  uint32_t raw = 0;

  constexpr bool ready() const { return (raw & 1U) != 0; }
  constexpr bool fatal() const { return (raw & 2U) != 0; }
  constexpr ShutdownStatus shutdown() const { return static_cast<ShutdownStatus>((raw >> 2) & 0x3); }
  constexpr void set_ready(bool on) { raw = (raw & ~1U) | (on ? 1U : 0U); }
  constexpr void set_fatal(bool on) { raw = (raw & ~2U) | (on ? 2U : 0U); }
  constexpr void set_shutdown(ShutdownStatus status) { raw = (raw & ~0xcU) | (static_cast<uint32_t>(status) << 2); }
};

}  // namespace fairlead::nvme
