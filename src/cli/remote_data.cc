#include "cli/remote_data.h"

#include <algorithm>
#include <fmt/format.h>
#include <memory>

#include "base/check.h"
#include "host/admin.h"
#include "nvme/nqn.h"

namespace fairlead::cli {
namespace {

constexpr uint16_t kQueuesWanted = UINT16_MAX;

// No control character of a controller reaches a terminal.
std::string printable(std::string_view text) {
  std::string clean(text);
  std::ranges::replace_if(clean, [](char c) { return c < ' ' || c > '~'; }, '?');
  return clean;
}

template <size_t kSize>
std::string hexadecimal(const std::array<uint8_t, kSize>& bytes) {
  if (std::ranges::all_of(bytes, [](uint8_t byte) { return byte == 0; })) return {};
  return fmt::format("{:02x}", fmt::join(bytes, ""));
}

template <typename T>
std::span<std::byte> bytes_of(T& structure) {
  return std::as_writable_bytes(std::span(&structure, 1));
}

struct BitName {
  uint32_t bit;
  std::string_view name;
};
std::vector<std::string_view> names_of(uint32_t bits, std::span<const BitName> names) {
  std::vector<std::string_view> list;
  for (const auto& [bit, name] : names) {
    if ((bits & bit) != 0) list.push_back(name);
  }
  return list;
}

std::vector<std::string_view> read_commands(const nvme::IdentifyController& data) {
  constexpr BitName kOptional[] = {{nvme::kOncsCompare, "compare"},
                                   {nvme::kOncsWriteUncorrectable, "write_uncorrectable"},
                                   {nvme::kOncsDatasetManagement, "dataset_management"},
                                   {nvme::kOncsWriteZeroes, "write_zeroes"},
                                   {nvme::kOncsReservations, "reservations"},
                                   {nvme::kOncsTimestamp, "timestamp"},
                                   {nvme::kOncsVerify, "verify"},
                                   {nvme::kOncsCopy, "copy"}};
  std::vector<std::string_view> commands = names_of(data.oncs, kOptional);
  if ((data.fuses & nvme::kFusesCompareAndWrite) != 0) commands.emplace_back("compare_and_write");
  constexpr BitName kAdmin[] = {{nvme::kOacsSecurity, "security"},
                                {nvme::kOacsFormat, "format"},
                                {nvme::kOacsFirmware, "firmware"},
                                {nvme::kOacsNamespaceManagement, "namespace_management"}};
  for (const std::string_view name : names_of(data.oacs, kAdmin)) commands.push_back(name);
  return commands;
}

std::string read_version(uint32_t raw) {
  std::string text = fmt::format("{}.{}", raw >> 16, (raw >> 8) & 0xff);
  if ((raw & 0xff) != 0) text += fmt::format(".{}", raw & 0xff);
  return text;
}

std::string_view type_name(uint8_t type) {
  switch (static_cast<nvme::ControllerType>(type)) {
    case nvme::ControllerType::kNotReported:
      return "not reported";
    case nvme::ControllerType::kIo:
      return "I/O";
    case nvme::ControllerType::kDiscovery:
      return "discovery";
    case nvme::ControllerType::kAdministrative:
      return "administrative";
  }
  return "unknown";
}

// One question to one controller. Lives on its shard, as long as the question takes.
class Inquiry {
 public:
  Inquiry(Shard& shard, const RemoteQuestion& question)
      : question_(question), queue_(shard, queue_options(question)), admin_(shard.reactor, queue_) {}

  Task<Result<RemoteController>> run() {
    Result<RemoteController> controller = co_await ask();
    if (queue_.is_live()) co_await admin_.shut_down();
    queue_.close("the question was answered");
    co_await queue_.closed();
    co_return controller;
  }

 private:
  static host::QueueOptions queue_options(const RemoteQuestion& question) {
    host::QueueOptions options;
    options.address = question.address;
    options.subsystem_nqn = question.nqn;
    options.host_nqn = question.identity.nqn;
    options.host_id = question.identity.id.bytes;
    options.header_digest = question.header_digest;
    options.data_digest = question.data_digest;
    options.connect_timeout = question.timeout;
    options.command_timeout = question.timeout;
    options.abort_timeout = question.timeout;
    return options;
  }

  Task<Result<RemoteController>> ask() {
    FL_CO_TRY_VOID(co_await queue_.connect());
    FL_CO_TRY(info_, co_await admin_.bring_up());
    FL_CO_TRY(const uint64_t capabilities, co_await admin_.get(nvme::Property::kCapabilities));
    auto data = std::make_unique<nvme::IdentifyController>();
    FL_CO_TRY_VOID(co_await admin_.identify(nvme::Cns::kController, 0, bytes_of(*data)));
    RemoteController controller = read_remote(*data, capabilities);
    controller.address = question_.address;
    if (info_.is_discovery) co_return controller;
    FL_CO_TRY(controller.io_queues, co_await admin_.set_queue_count(kQueuesWanted));
    if (info_.has_ana) {
      FL_CO_TRY(controller.ana_groups, co_await admin_.ana_states(info_));
    }
    FL_CO_TRY(const std::vector<uint32_t> nsids, co_await list());
    for (const uint32_t nsid : nsids) {
      FL_CO_TRY(RemoteNamespace found, co_await describe(nsid));
      const auto state = controller.ana_groups.find(found.ana_group);
      if (state != controller.ana_groups.end()) found.ana = state->second;
      controller.namespaces.push_back(std::move(found));
    }
    co_return controller;
  }

  Task<Result<std::vector<uint32_t>>> list() {
    std::vector<uint32_t> nsids;
    auto page = std::make_unique<nvme::NamespaceList>();
    // Of one that is asked for, only whether it is there.
    const uint32_t after = question_.nsid ? *question_.nsid - 1 : 0;
    FL_CO_TRY_VOID(co_await admin_.identify(nvme::Cns::kActiveNamespaces, after, bytes_of(*page)));
    for (const Le32& nsid : page->nsid) {
      if (nsid == 0 || nsids.size() == kRemoteNamespacesMax) break;
      nsids.push_back(nsid);
    }
    if (!question_.nsid) co_return nsids;
    if (nsids.empty() || nsids.front() != *question_.nsid) {
      co_return fail(Code::kNotFound, "the subsystem has no namespace of this id");
    }
    co_return std::vector{nsids.front()};
  }

  Task<Result<RemoteNamespace>> describe(uint32_t nsid) {
    auto data = std::make_unique<nvme::IdentifyNamespace>();
    FL_CO_TRY_VOID(co_await admin_.identify(nvme::Cns::kNamespace, nsid, bytes_of(*data)));
    auto descriptors = std::make_unique<std::array<std::byte, nvme::kIdentifySize>>();
    FL_CO_TRY_VOID(co_await admin_.identify(nvme::Cns::kNamespaceDescriptors, nsid, *descriptors));
    RemoteNamespace found = read_remote_namespace(nsid, *data);
    const Result<host::NamespaceInfo> info = host::read_namespace(nsid, *data, *descriptors, info_);
    if (!info) {
      found.unusable = to_string(info.error());
      co_return found;
    }
    if (!info->identity.uuid.is_nil()) found.uuid = to_string(info->identity.uuid);
    found.nguid = hexadecimal(info->identity.nguid);
    found.eui64 = hexadecimal(info->identity.eui64);
    co_return found;
  }

  const RemoteQuestion& question_;
  host::Queue queue_;
  host::Admin admin_;
  host::ControllerInfo info_;
};

}  // namespace

std::string_view ana_state_name(nvme::AnaState state) {
  switch (state) {
    case nvme::AnaState::kOptimized:
      return "optimized";
    case nvme::AnaState::kNonOptimized:
      return "non-optimized";
    case nvme::AnaState::kInaccessible:
      return "inaccessible";
    case nvme::AnaState::kPersistentLoss:
      return "persistent loss";
    case nvme::AnaState::kChange:
      return "change";
  }
  FL_UNREACHABLE("ANA states are checked when they are read");
}

RemoteController read_remote(const nvme::IdentifyController& data, uint64_t capabilities) {
  const nvme::Capabilities cap = nvme::decode_capabilities(capabilities);
  RemoteController controller;
  controller.id = data.cntlid;
  controller.type = type_name(data.cntrltype);
  controller.subsystem_nqn = printable(nvme::read_zero_terminated(data.subnqn).value_or(""));
  controller.model = printable(nvme::read_space_padded(data.mn));
  controller.serial = printable(nvme::read_space_padded(data.sn));
  controller.firmware = printable(nvme::read_space_padded(data.fr));
  controller.version = read_version(data.ver);
  controller.vendor = data.vid;
  const unsigned shift = unsigned{data.mdts} + cap.page_shift_min;
  controller.transfer_max = data.mdts == 0 || shift > 62 ? 0 : uint64_t{1} << shift;
  controller.in_capsule_max =
      data.ioccsz < 4 ? 0 : static_cast<uint32_t>(std::min<uint64_t>(uint64_t{data.ioccsz} * 16 - 64, UINT32_MAX));
  controller.namespaces_max = data.nn;
  controller.queue_entries_max = cap.max_queue_entries;
  controller.keep_alive_unit_ms = uint32_t{data.kas} * 100;
  controller.has_volatile_cache = (data.vwc & nvme::kVwcPresent) != 0;
  controller.commands = read_commands(data);
  constexpr BitName kEvents[] = {{nvme::kOaesNamespaceAttribute, "namespace_attribute"},
                                 {nvme::kOaesFirmwareActivation, "firmware_activation"},
                                 {nvme::kOaesAnaChange, "ana_change"},
                                 {nvme::kOaesDiscoveryChange, "discovery_change"}};
  controller.events = names_of(data.oaes, kEvents);
  controller.has_ana = (data.cmic & nvme::kCmicAnaReporting) != 0;
  return controller;
}

RemoteNamespace read_remote_namespace(uint32_t nsid, const nvme::IdentifyNamespace& data) {
  RemoteNamespace found;
  found.nsid = nsid;
  // FLBAS: bits 3:0 the low, 6:5 the high bits of the format's index.
  const size_t used = (data.flbas & 0xfU) | ((data.flbas & 0x60U) >> 1);
  const size_t count = std::min<size_t>(size_t{data.nlbaf} + 1, std::size(data.lbaf));
  for (size_t i = 0; i < count; ++i) {
    const nvme::LbaFormat& format = data.lbaf[i];
    const bool is_possible = format.lbads >= 9 && format.lbads < 32;
    found.formats.push_back({.block_bytes = is_possible ? uint64_t{1} << format.lbads : 0,
                             .metadata_bytes = format.ms,
                             .in_use = i == used});
  }
  const uint64_t block = used < found.formats.size() ? found.formats[used].block_bytes : 0;
  const auto in_bytes = [block](uint64_t blocks) {
    return block == 0 || blocks > UINT64_MAX / block ? 0 : blocks * block;
  };
  found.size_bytes = in_bytes(data.nsze);
  found.used_bytes = in_bytes(data.nuse);
  found.ana_group = data.anagrpid;
  if ((data.nsfeat & nvme::kNsfeatThinProvisioning) != 0) found.traits.emplace_back("thin");
  if ((data.nmic & nvme::kNmicShared) != 0) found.traits.emplace_back("shared");
  if ((data.nsattr & nvme::kNsattrWriteProtected) != 0) found.traits.emplace_back("write_protected");
  if ((data.dlfeat & 0x7) == nvme::kDlfeatReadsZeroes) found.traits.emplace_back("deallocated_reads_zeroes");
  if (data.rescap != 0) found.traits.emplace_back("reservations");
  if ((data.nsfeat & nvme::kNsfeatOptimalSizes) != 0) {
    found.write_granularity_bytes = in_bytes(uint64_t{data.npwg} + 1);
    found.optimal_write_bytes = in_bytes(uint64_t{data.nows} + 1);
    found.discard_granularity_bytes = in_bytes(uint64_t{data.npdg} + 1);
  }
  return found;
}

Task<Result<RemoteController>> describe_remote(Shard& shard, RemoteQuestion question) {
  Inquiry inquiry(shard, question);
  co_return co_await inquiry.run();
}

}  // namespace fairlead::cli
