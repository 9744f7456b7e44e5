// Identify: NVMe base 2.0 section 5.17, NVM command set 1.0 section 4.1.5.
#include "nvme/identify.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/check.h"
#include "base/uuid.h"
#include "nvme/nqn.h"
#include "target/controller.h"
#include "target/shard_target.h"

namespace fairlead::target {

using nvme::Cns;
using nvme::StatusCode;

namespace {

template <typename T>
void put(std::span<std::byte> out, const T& value) {
  FL_CHECK(sizeof value <= out.size());
  std::memcpy(out.data(), &value, sizeof value);
}

// log2 of a size in units of 4 KiB, rounded down.
uint8_t page_shift(uint64_t bytes) { return static_cast<uint8_t>(std::bit_width(bytes / 4096) - 1); }

// The number of blocks in `bytes`, 0's based as NPWG and its kin are, for a field of 16 bits.
uint16_t blocks_minus_one(uint64_t bytes, uint32_t block) {
  const uint64_t blocks = std::clamp<uint64_t>(bytes / block, 1, 65536);
  return static_cast<uint16_t>(blocks - 1);
}

}  // namespace

nvme::Status Controller::identify(Request& request) {
  const auto wanted = nvme::decode_identify(request.command, request.pointer.length);
  if (!wanted) return wanted.error();
  // The whole structure is made, and as much of it sent as the host has room for.
  std::vector<std::byte> structure(nvme::kIdentifySize);
  const nvme::Status status = fill_identify(*wanted, structure);
  std::ranges::copy(std::span(structure).first(request.need.length), request.data.data());
  return status;
}

nvme::Status Controller::fill_identify(const nvme::IdentifyRequest& wanted, std::span<std::byte> out) const {
  if (wanted.cns == Cns::kController) {
    identify_controller(out);
    return nvme::kOk;
  }
  if (is_discovery()) return nvme::permanent(StatusCode::kInvalidField);
  switch (wanted.cns) {
    case Cns::kNamespace:
      return identify_namespace(wanted.nsid, out);
    case Cns::kActiveNamespaces:
      return identify_active_list(wanted.nsid, out);
    case Cns::kNamespaceDescriptors:
      return identify_descriptors(wanted.nsid, out);
    case Cns::kIndependentNamespace:
      return identify_independent(wanted.nsid, out);
    case Cns::kCommandSetNamespace:
    case Cns::kCommandSetController:
    case Cns::kCommandSetActiveNamespaces:
      return identify_for_command_set(wanted, out);
    case Cns::kCommandSets: {
      nvme::CommandSetVector sets;
      sets.combination[0] = 1U << static_cast<unsigned>(nvme::CommandSet::kNvm);
      put(out, sets);
      return nvme::kOk;
    }
    default:
      return nvme::permanent(StatusCode::kInvalidField);
  }
}

void Controller::identify_controller(std::span<std::byte> out) const {
  const TargetOptions& options = shard_target_.options();
  nvme::IdentifyController id;
  const std::string nqn = is_discovery() ? std::string(nvme::kDiscoveryNqn) : subsystem_->nqn();
  const std::string serial = is_discovery() ? "0" : subsystem_->options().serial;
  const std::string model = is_discovery() ? "Fairlead discovery" : subsystem_->options().model;
  nvme::write_space_padded(id.sn, serial);
  nvme::write_space_padded(id.mn, model);
  nvme::write_space_padded(id.fr, options.firmware);
  nvme::write_zero_terminated(id.subnqn, nqn);
  id.mdts = options.transfer_shift;
  id.cntlid = association_->controller_id;
  id.ver = nvme::kVersion_2_0;
  id.cntrltype = static_cast<uint8_t>(is_discovery() ? nvme::ControllerType::kDiscovery : nvme::ControllerType::kIo);
  id.ctratt = nvme::kCtratt128BitHostId | nvme::kCtrattTrafficBasedKeepAlive;
  id.aerl = kAsyncEventsMax - 1;
  id.elpe = kErrorLogMax - 1;
  id.kas = static_cast<uint16_t>(std::max(1U, options.keep_alive_min_ms / 100));
  id.lpa = nvme::kLpaExtendedData | nvme::kLpaSupportedPages;
  id.sgls = nvme::kSglsSupported | nvme::kSglsAddressAsOffset | nvme::kSglsTransportDataBlock;
  id.maxcmd = options.queue_entries_max;
  if (is_discovery()) {
    id.oaes = nvme::kOaesDiscoveryChange;
    put(out, id);
    return;
  }
  id.oaes = nvme::kOaesNamespaceAttribute | nvme::kOaesAnaChange;
  id.lpa |= nvme::kLpaCommandEffects;
  id.cmic = nvme::kCmicMultiplePorts | nvme::kCmicMultipleControllers | nvme::kCmicAnaReporting;
  id.acl = 3;
  id.frmw = nvme::kFrmwSlot1ReadOnly | (1U << nvme::kFrmwSlotsShift);
  id.anatt = 10;
  id.anacap = nvme::kAnacapOptimized | nvme::kAnacapNonOptimized | nvme::kAnacapInaccessible |
              nvme::kAnacapPersistentLoss | nvme::kAnacapChange | nvme::kAnacapGroupIdStable |
              nvme::kAnacapGroupIdNonZero;
  id.anagrpmax = kAnaGroupsMax;
  id.nanagrpid = kAnaGroupsMax;
  id.sqes = nvme::kSqesFabrics;
  id.cqes = nvme::kCqesFabrics;
  id.nn = kNamespacesMax;
  id.mnan = kNamespacesMax;
  id.oncs = nvme::kOncsCompare | nvme::kOncsDatasetManagement | nvme::kOncsWriteZeroes | nvme::kOncsVerify;
  id.fuses = nvme::kFusesCompareAndWrite;
  id.acwu = kFusedBytesMax / 4096 - 1;  // in blocks of whichever size: the larger
  id.vwc = nvme::kVwcPresent | nvme::kVwcFlushBroadcastSupported;
  id.ioccsz = static_cast<uint32_t>((sizeof(nvme::SubmissionEntry) + options.in_capsule_bytes) / 16);
  id.iorcsz = sizeof(nvme::CompletionEntry) / 16;
  id.msdbd = 1;
  id.ofcs = nvme::kOfcsDisconnect;
  put(out, id);
}

nvme::Status Controller::identify_namespace(uint32_t nsid, std::span<std::byte> out) const {
  nvme::IdentifyNamespace id;
  const Namespace* const nspace = subsystem_->find(nsid);
  if (nspace == nullptr) {
    // An id in range that no namespace has reads as all zeroes; one that none can have is an error. The broadcast id
    // stands for what all namespaces share, of which there is nothing.
    if (nsid == 0 || (nsid > kNamespacesMax && nsid != nvme::kBroadcastNamespace)) {
      return nvme::permanent(StatusCode::kInvalidNamespaceOrFormat);
    }
    return nvme::kOk;
  }
  const BlockGeometry& geometry = nspace->device().geometry();
  const uint32_t block = nspace->block_bytes();
  id.nsze = id.ncap = id.nuse = nspace->blocks();
  id.nsfeat = nvme::kNsfeatThinProvisioning | nvme::kNsfeatOptimalSizes;
  id.nmic = nvme::kNmicShared;
  id.dlfeat = nvme::kDlfeatWriteZeroesDeallocates;
  if (geometry.discard_zeroes) id.dlfeat |= nvme::kDlfeatReadsZeroes;
  const uint32_t write_unit = std::max(geometry.physical_block, block);
  id.npwg = id.npwa = blocks_minus_one(write_unit, block);
  id.npdg = id.npda = blocks_minus_one(std::max(geometry.discard_granularity, block), block);
  id.nows = blocks_minus_one(std::max(geometry.optimal_io, write_unit), block);
  id.anagrpid = nspace->identity().ana_group;
  id.nsattr = geometry.read_only ? nvme::kNsattrWriteProtected : 0;
  std::ranges::copy(nspace->identity().uuid.bytes, id.nguid);
  id.lbaf[0].lbads = static_cast<uint8_t>(std::countr_zero(block));
  put(out, id);
  return nvme::kOk;
}

nvme::Status Controller::identify_active_list(uint32_t after, std::span<std::byte> out) const {
  if (after >= 0xfffffffe) return nvme::permanent(StatusCode::kInvalidNamespaceOrFormat);
  nvme::NamespaceList list;
  size_t count = 0;
  subsystem_->for_each_namespace([&](Namespace& nspace) {
    if (nspace.identity().nsid > after && count < std::size(list.nsid)) list.nsid[count++] = nspace.identity().nsid;
  });
  put(out, list);
  return nvme::kOk;
}

nvme::Status Controller::identify_descriptors(uint32_t nsid, std::span<std::byte> out) const {
  const Namespace* const nspace = subsystem_->find(nsid);
  if (nspace == nullptr) return nvme::permanent(StatusCode::kInvalidNamespaceOrFormat);
  size_t at = 0;
  const auto append = [&](nvme::NamespaceIdType type, std::span<const uint8_t> value) {
    nvme::NamespaceIdDescriptor descriptor;
    descriptor.type = static_cast<uint8_t>(type);
    descriptor.length = static_cast<uint8_t>(value.size());
    put(out.subspan(at), descriptor);
    at += sizeof descriptor;
    std::memcpy(out.data() + at, value.data(), value.size());
    at += value.size();
  };
  const auto& uuid = nspace->identity().uuid.bytes;
  append(nvme::NamespaceIdType::kNguid, uuid);
  append(nvme::NamespaceIdType::kUuid, uuid);
  const auto nvm = static_cast<uint8_t>(nvme::CommandSet::kNvm);
  append(nvme::NamespaceIdType::kCommandSet, {&nvm, 1});
  return nvme::kOk;
}

nvme::Status Controller::identify_independent(uint32_t nsid, std::span<std::byte> out) const {
  const Namespace* const nspace = subsystem_->find(nsid);
  if (nspace == nullptr) return nvme::permanent(StatusCode::kInvalidNamespaceOrFormat);
  nvme::IdentifyIndependentNamespace id;
  id.nmic = nvme::kNmicShared;
  id.anagrpid = nspace->identity().ana_group;
  id.nsattr = nspace->device().geometry().read_only ? nvme::kNsattrWriteProtected : 0;
  id.nstat = nvme::kNstatReady;
  put(out, id);
  return nvme::kOk;
}

nvme::Status Controller::identify_for_command_set(const nvme::IdentifyRequest& wanted, std::span<std::byte> out) const {
  if (wanted.command_set != nvme::CommandSet::kNvm) return nvme::permanent(StatusCode::kInvalidField);
  switch (wanted.cns) {
    case Cns::kCommandSetActiveNamespaces:
      return identify_active_list(wanted.nsid, out);
    case Cns::kCommandSetNamespace:
      if (subsystem_->find(wanted.nsid) == nullptr) return nvme::permanent(StatusCode::kInvalidNamespaceOrFormat);
      put(out, nvme::IdentifyNvmNamespace{});
      return nvme::kOk;
    case Cns::kCommandSetController: {
      nvme::IdentifyNvmController id;
      // Write Zeroes moves no data: as much as its 16-bit count of 512-byte blocks can say. Verify reads: MDTS holds.
      id.wzsl = page_shift(65536ULL * 512);
      put(out, id);
      return nvme::kOk;
    }
    default:
      FL_UNREACHABLE("fill_identify() sends no other structure here");
  }
}

}  // namespace fairlead::target
