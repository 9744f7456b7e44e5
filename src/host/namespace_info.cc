#include "host/namespace_info.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "nvme/nqn.h"
#include "nvme/properties.h"

namespace fairlead::host {
namespace {

constexpr uint64_t kZeroesBlocksMax = 1U << 16;  // of the command's field
constexpr uint64_t kDeviceBytesMax = uint64_t{1} << 62;

// 2^shift pages of CAP.MPSMIN; 0: no limit.
uint64_t limit_in_bytes(uint8_t shift, uint8_t page_shift) {
  if (shift == 0) return std::numeric_limits<uint64_t>::max();
  return shift + page_shift >= 62 ? uint64_t{1} << 62 : uint64_t{1} << (shift + page_shift);
}

// Older ones do not report their type.
bool is_discovery(const nvme::IdentifyController& data) {
  return data.cntrltype == static_cast<uint8_t>(nvme::ControllerType::kDiscovery) ||
         nvme::read_zero_terminated(data.subnqn) == nvme::kDiscoveryNqn;
}

Result<void> check_usable(const nvme::IdentifyController& data) {
  if (data.cntrltype > static_cast<uint8_t>(nvme::ControllerType::kAdministrative)) {
    return fail(Code::kProtocol, "an unknown type of controller");
  }
  if (data.cntrltype == static_cast<uint8_t>(nvme::ControllerType::kAdministrative)) {
    return fail(Code::kNotSupported, "an administrative controller has no namespaces to use");
  }
  if (is_discovery(data)) return {};
  if (data.kas == 0) return fail(Code::kNotSupported, "the controller does no keep-alive");
  if ((data.sgls & 0x3) == 0) return fail(Code::kNotSupported, "the controller does not take SGLs");
  if (data.ioccsz < 4) return fail(Code::kProtocol, "IOCCSZ has no room for a command");
  if (data.icdoff != 0) return fail(Code::kNotSupported, "the controller wants in-capsule data at an offset");
  return {};
}

// A text of the controller's, which ends in logs and on terminals.
std::string printable(std::string_view text) {
  std::string copy(text);
  std::ranges::replace_if(copy, [](char c) { return c < ' ' || c > '~'; }, '?');
  return copy;
}

// A copy: descriptors come one after another, until one of type 0 or the end.
Result<void> read_descriptors(std::span<const std::byte, nvme::kIdentifySize> bytes, NamespaceIdentity& identity) {
  size_t at = 0;
  while (at + sizeof(nvme::NamespaceIdDescriptor) <= bytes.size()) {
    nvme::NamespaceIdDescriptor head;
    std::memcpy(static_cast<void*>(&head), bytes.data() + at, sizeof head);
    at += sizeof head;
    if (head.type == static_cast<uint8_t>(nvme::NamespaceIdType::kEnd)) return {};
    if (head.length > bytes.size() - at) return fail(Code::kProtocol, "a namespace descriptor passes the end");
    const std::byte* const value = bytes.data() + at;
    switch (static_cast<nvme::NamespaceIdType>(head.type)) {
      case nvme::NamespaceIdType::kUuid:
        if (head.length != identity.uuid.bytes.size()) return fail(Code::kProtocol, "a UUID of another length");
        std::memcpy(identity.uuid.bytes.data(), value, head.length);
        break;
      case nvme::NamespaceIdType::kNguid:
        if (head.length != identity.nguid.size()) return fail(Code::kProtocol, "an NGUID of another length");
        std::memcpy(identity.nguid.data(), value, head.length);
        break;
      case nvme::NamespaceIdType::kEui64:
        if (head.length != identity.eui64.size()) return fail(Code::kProtocol, "an EUI-64 of another length");
        std::memcpy(identity.eui64.data(), value, head.length);
        break;
      case nvme::NamespaceIdType::kCommandSet:
        if (head.length != 1) return fail(Code::kProtocol, "a command set of another length");
        if (*value != std::byte{static_cast<uint8_t>(nvme::CommandSet::kNvm)}) {
          return fail(Code::kNotSupported, "a namespace of another command set");
        }
        break;
      default:
        break;  // newer than we are
    }
    at += head.length;
  }
  return {};
}

}  // namespace

Result<ControllerInfo> read_controller(const nvme::IdentifyController& data, uint64_t capabilities) {
  FL_TRY_VOID(check_usable(data));
  const nvme::Capabilities cap = nvme::decode_capabilities(capabilities);
  const std::optional<std::string_view> nqn = nvme::read_zero_terminated(data.subnqn);
  if (!nqn) return fail(Code::kProtocol, "the subsystem's NQN has no end");
  ControllerInfo info;
  info.controller_id = data.cntlid;
  info.serial = printable(nvme::read_space_padded(data.sn));
  info.model = printable(nvme::read_space_padded(data.mn));
  info.firmware = printable(nvme::read_space_padded(data.fr));
  info.subsystem_nqn = *nqn;
  info.version = data.ver;
  info.transfer_max =
      static_cast<uint32_t>(std::min<uint64_t>(kTransferMax, limit_in_bytes(data.mdts, cap.page_shift_min)));
  // Units of 16 bytes, the 64 of the command among them.
  info.in_capsule_max =
      static_cast<uint32_t>(std::min<uint64_t>(kTransferMax, data.ioccsz < 4 ? 0 : uint64_t{data.ioccsz} * 16 - 64));
  info.queue_entries_max = cap.max_queue_entries;
  info.keep_alive_unit_ms = uint32_t{data.kas} * 100;
  info.has_compare = (data.oncs & nvme::kOncsCompare) != 0;
  if ((data.oncs & nvme::kOncsWriteZeroes) != 0) info.zeroes_max = kZeroesBlocksMax * 512;
  if ((data.oncs & nvme::kOncsDatasetManagement) != 0) info.deallocate_max = uint64_t{1} << 40;
  info.has_ana = (data.cmic & nvme::kCmicAnaReporting) != 0;
  info.has_stable_ana_groups = (data.anacap & nvme::kAnacapGroupIdStable) != 0;
  info.ana_groups_max = data.nanagrpid;
  info.has_volatile_cache = (data.vwc & nvme::kVwcPresent) != 0;
  info.is_discovery = is_discovery(data);
  info.async_events = data.oaes;
  return info;
}

Result<NamespaceInfo> read_namespace(uint32_t nsid, const nvme::IdentifyNamespace& data,
                                     std::span<const std::byte, nvme::kIdentifySize> descriptors,
                                     const ControllerInfo& controller) {
  NamespaceInfo info;
  info.identity.nsid = nsid;
  std::ranges::copy(data.nguid, info.identity.nguid.begin());
  std::ranges::copy(data.eui64, info.identity.eui64.begin());
  FL_TRY_VOID(read_descriptors(descriptors, info.identity));
  // FLBAS: bits 3:0 the low, 6:5 the high bits of the format's index.
  const size_t index = (data.flbas & 0xfU) | ((data.flbas & 0x60U) >> 1);
  if (index > data.nlbaf) return fail(Code::kProtocol, "a namespace in a format that it does not have");
  const nvme::LbaFormat& format = data.lbaf[index];
  if (format.ms != 0) return fail(Code::kNotSupported, "a namespace with metadata");
  if (format.lbads != 9 && format.lbads != 12) {
    return fail(Code::kNotSupported, "a namespace with blocks of neither 512 nor 4096 bytes");
  }
  if (data.nsze == 0 || data.nsze > kDeviceBytesMax >> format.lbads) {
    return fail(Code::kProtocol, "a namespace of an impossible size");
  }
  BlockGeometry& geometry = info.geometry;
  geometry.logical_block = 1U << format.lbads;
  geometry.physical_block = geometry.logical_block;
  geometry.size_bytes = uint64_t{data.nsze} << format.lbads;
  if (controller.deallocate_max > 0) geometry.discard_granularity = geometry.logical_block;
  if ((data.nsfeat & nvme::kNsfeatOptimalSizes) != 0) {
    const auto in_bytes = [&](const Le16& zeroes_based) {
      return (uint32_t{zeroes_based} + 1) << format.lbads;  // at most 2^28
    };
    if (is_power_of_two(in_bytes(data.npwg))) geometry.physical_block = in_bytes(data.npwg);
    geometry.optimal_io = in_bytes(data.nows);
    if (controller.deallocate_max > 0) geometry.discard_granularity = in_bytes(data.npdg);
  }
  geometry.discard_zeroes = (data.dlfeat & 0x7) == nvme::kDlfeatReadsZeroes;
  geometry.volatile_cache = controller.has_volatile_cache;
  geometry.read_only = (data.nsattr & nvme::kNsattrWriteProtected) != 0;
  info.ana_group = data.anagrpid;
  return info;
}

Result<AnaStates> read_ana_groups(std::span<const std::byte> log) {
  nvme::AnaHeader header;
  if (log.size() < sizeof header) return fail(Code::kProtocol, "an ANA log without a header");
  std::memcpy(static_cast<void*>(&header), log.data(), sizeof header);
  if ((log.size() - sizeof header) / sizeof(nvme::AnaGroupDescriptor) < header.groups) {
    return fail(Code::kProtocol, "an ANA log with more groups than it has room for");
  }
  AnaStates states;
  for (uint32_t i = 0; i < header.groups; ++i) {
    nvme::AnaGroupDescriptor group;
    std::memcpy(static_cast<void*>(&group), log.data() + sizeof header + i * sizeof group, sizeof group);
    if (group.namespaces != 0) return fail(Code::kProtocol, "an ANA log with namespaces that were not asked for");
    const auto state = static_cast<nvme::AnaState>(group.state & 0xf);
    switch (state) {
      case nvme::AnaState::kOptimized:
      case nvme::AnaState::kNonOptimized:
      case nvme::AnaState::kInaccessible:
      case nvme::AnaState::kPersistentLoss:
      case nvme::AnaState::kChange:
        break;
      default:
        return fail(Code::kProtocol, "an unknown ANA state");
    }
    if (group.group == 0 || !states.emplace(group.group, state).second) {
      return fail(Code::kProtocol, "an ANA log with a group of no number or of another's");
    }
  }
  return states;
}

}  // namespace fairlead::host
