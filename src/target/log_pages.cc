// Get Log Page: NVMe base 2.0 section 5.16. A page is built whole and the window asked for is cut from it.
#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <map>

#include "base/check.h"
#include "nvme/log_page.h"
#include "nvme/nqn.h"
#include "target/controller.h"
#include "target/queue.h"
#include "target/shard_target.h"

namespace fairlead::target {

using nvme::LogPage;
using nvme::StatusCode;

namespace {

template <typename T>
void append(std::vector<std::byte>& page, const T& value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  page.insert(page.end(), bytes.begin(), bytes.end());
}

template <typename T>
std::vector<std::byte> page_of(const T& value) {
  std::vector<std::byte> page;
  append(page, value);
  return page;
}

constexpr LogPage kIoPages[] = {
    LogPage::kSupportedPages,    LogPage::kErrorInformation, LogPage::kHealth, LogPage::kFirmwareSlot,
    LogPage::kChangedNamespaces, LogPage::kCommandEffects,   LogPage::kAna};
constexpr LogPage kDiscoveryPages[] = {LogPage::kSupportedPages, LogPage::kErrorInformation, LogPage::kHealth,
                                       LogPage::kDiscovery};

std::span<const LogPage> pages_of(bool discovery) {
  return discovery ? std::span<const LogPage>(kDiscoveryPages) : std::span<const LogPage>(kIoPages);
}

// A listener on every address is told as the address by which this host came, when that is of its family.
std::optional<SocketAddress> reachable(const SocketAddress& advertised, const SocketAddress& local) {
  const bool wildcard = std::ranges::all_of(advertised.ip, [](uint8_t byte) { return byte == 0; });
  if (!wildcard) return advertised;
  if (local.family != advertised.family) return std::nullopt;
  SocketAddress address = local;
  address.port = advertised.port;
  return address;
}

}  // namespace

nvme::StatusOr<DataNeed> Controller::prepare_log_page(const nvme::SubmissionEntry& command,
                                                      uint32_t data_length) const {
  const auto wanted = nvme::decode_get_log_page(command, data_length);
  if (!wanted) return std::unexpected(wanted.error());
  const std::span<const LogPage> pages = pages_of(is_discovery());
  if (std::ranges::find(pages, wanted->page) == pages.end()) return nvme::reject(StatusCode::kInvalidLogPage);
  if (wanted->length > shard_target_.transfer_bytes_max()) return nvme::reject(StatusCode::kInvalidField);
  return DataNeed{nvme::DataTransfer::kControllerToHost, wanted->length};
}

void Controller::get_log_page(Request& request) {
  const auto wanted = nvme::decode_get_log_page(request.command, request.pointer.length);
  if (!wanted) return admin_queue_.complete(request, wanted.error());
  const auto acknowledge_unless_retained = [&](Notice notice) {
    if (!wanted->retain_event) acknowledge(notice);
  };
  std::vector<std::byte> page;
  switch (wanted->page) {
    case LogPage::kSupportedPages:
      page = supported_pages_log();
      break;
    case LogPage::kErrorInformation:
      page = error_log();
      break;
    case LogPage::kHealth:
      return scope_.spawn(health_log(request, wanted->offset));
    case LogPage::kFirmwareSlot:
      page = firmware_log();
      break;
    case LogPage::kChangedNamespaces:
      page = changed_namespaces_log();
      acknowledge_unless_retained(Notice::kNamespaceChanged);
      break;
    case LogPage::kCommandEffects:
      page = effects_log();
      break;
    case LogPage::kAna:
      page = ana_log((wanted->specific & nvme::kAnaLogGroupsOnly) != 0);
      acknowledge_unless_retained(Notice::kAnaChanged);
      break;
    case LogPage::kDiscovery:
      page = discovery_log();
      acknowledge_unless_retained(Notice::kDiscoveryChanged);
      break;
    default:
      FL_UNREACHABLE("prepare_log_page() lets no other page through");
  }
  finish_log(request, wanted->offset, page);
}

// What lies behind the end of a page reads as zeroes; an offset behind it is an error.
void Controller::finish_log(Request& request, uint64_t offset, std::span<const std::byte> page) {
  if (offset > page.size()) return admin_queue_.complete(request, nvme::permanent(StatusCode::kInvalidField));
  const std::span<std::byte> out = request.data_bytes();
  const std::span<const std::byte> rest = page.subspan(static_cast<size_t>(offset));
  const size_t length = std::min(out.size(), rest.size());
  std::ranges::copy(rest.first(length), out.begin());
  std::ranges::fill(out.subspan(length), std::byte{0});
  admin_queue_.complete(request, nvme::kOk);
}

std::vector<std::byte> Controller::supported_pages_log() const {
  nvme::SupportedLogPages pages;
  for (const LogPage page : pages_of(is_discovery())) pages.page[static_cast<uint8_t>(page)] = nvme::kLogPageSupported;
  return page_of(pages);
}

std::vector<std::byte> Controller::error_log() const {
  std::vector<std::byte> page;
  for (uint64_t number = error_count_; number > 0 && error_count_ - number < kErrorLogMax; --number) {
    append(page, errors_[(number - 1) % kErrorLogMax]);
  }
  page.resize(kErrorLogMax * sizeof(nvme::ErrorInformation));
  return page;
}

Task<void> Controller::health_log(Request& request, uint64_t offset) {
  nvme::HealthInformation health;
  health.temperature = 273 + 25;  // no sensor: room temperature, so that no host warns
  health.available_spare = 100;
  health.available_spare_threshold = 10;
  health.error_log_entries.low = error_count_;
  if (!is_discovery()) {
    const IoCounters sum = co_await shard_target_.at_home(shard_target_.directory().counters_of(subsystem_->nqn()));
    const auto data_units = [](uint64_t bytes) { return (bytes + 511'999) / 512'000; };
    health.data_units_read.low = data_units(sum.bytes_read);
    health.data_units_written.low = data_units(sum.bytes_written);
    health.host_read_commands.low = sum.reads;
    health.host_write_commands.low = sum.writes;
    health.media_errors.low = sum.errors;
  }
  finish_log(request, offset, page_of(health));
}

std::vector<std::byte> Controller::firmware_log() const {
  nvme::FirmwareSlots slots;
  slots.active = 1;
  nvme::write_space_padded(slots.revision[0], shard_target_.options().firmware);
  return page_of(slots);
}

std::vector<std::byte> Controller::changed_namespaces_log() const {
  nvme::ChangedNamespaces list;
  if (changed_namespaces_.size() > std::size(list.nsid)) {
    list.nsid[0] = nvme::kChangedNamespacesOverflow;
  } else {
    std::ranges::copy(changed_namespaces_, list.nsid);
  }
  return page_of(list);
}

std::vector<std::byte> Controller::effects_log() const {
  nvme::CommandEffects effects;
  for (const auto opcode : {nvme::AdminOpcode::kGetLogPage, nvme::AdminOpcode::kIdentify, nvme::AdminOpcode::kAbort,
                            nvme::AdminOpcode::kSetFeatures, nvme::AdminOpcode::kGetFeatures,
                            nvme::AdminOpcode::kAsyncEventRequest, nvme::AdminOpcode::kKeepAlive}) {
    effects.admin[static_cast<uint8_t>(opcode)] = nvme::kEffectSupported;
  }
  if (has_control()) {
    for (const auto opcode : {nvme::AdminOpcode::kReplicationSend, nvme::AdminOpcode::kReplicationReceive}) {
      effects.admin[static_cast<uint8_t>(opcode)] = nvme::kEffectSupported;
    }
  }
  for (const auto opcode :
       {nvme::NvmOpcode::kFlush, nvme::NvmOpcode::kRead, nvme::NvmOpcode::kCompare, nvme::NvmOpcode::kVerify}) {
    effects.io[static_cast<uint8_t>(opcode)] = nvme::kEffectSupported;
  }
  for (const auto opcode :
       {nvme::NvmOpcode::kWrite, nvme::NvmOpcode::kWriteZeroes, nvme::NvmOpcode::kDatasetManagement}) {
    effects.io[static_cast<uint8_t>(opcode)] = nvme::kEffectSupported | nvme::kEffectBlockContentChange;
  }
  return page_of(effects);
}

std::vector<std::byte> Controller::ana_log(bool groups_only) const {
  std::map<uint32_t, std::vector<uint32_t>> groups;
  subsystem_->for_each_namespace(
      [&](Namespace& nspace) { groups[nspace.identity().ana_group].push_back(nspace.identity().nsid); });
  nvme::AnaHeader header;
  header.change_count = subsystem_->ana_change_count();
  header.groups = static_cast<uint16_t>(groups.size());
  std::vector<std::byte> page = page_of(header);
  for (const auto& [group, ids] : groups) {
    nvme::AnaGroupDescriptor descriptor;
    descriptor.group = group;
    descriptor.namespaces = groups_only ? 0 : static_cast<uint32_t>(ids.size());
    descriptor.change_count = subsystem_->ana_change_count();
    descriptor.state = static_cast<uint8_t>(subsystem_->ana_state(association_->port, group));
    append(page, descriptor);
    if (groups_only) continue;
    for (const uint32_t nsid : ids) append(page, Le32(nsid));
  }
  // As large as hosts reckon from Identify (NANAGRPID, NN), since some read all of that, in pieces: see finish_log().
  page.resize(sizeof(nvme::AnaHeader) + kAnaGroupsMax * sizeof(nvme::AnaGroupDescriptor) +
              kNamespacesMax * sizeof(Le32));
  return page;
}

std::vector<std::byte> Controller::discovery_log() const {
  std::vector<std::byte> entries;
  uint64_t records = 0;
  shard_target_.for_each_subsystem([&](const Subsystem& subsystem) {
    if (!subsystem.allows(association_->host_nqn)) return;
    for (size_t port = 0; port < shard_target_.ports().size(); ++port) {
      const auto address = reachable(shard_target_.ports()[port].advertised, admin_queue_.transport().local_address());
      if (!address) continue;
      nvme::DiscoveryEntry entry;
      entry.trtype = static_cast<uint8_t>(nvme::TransportType::kTcp);
      entry.adrfam = static_cast<uint8_t>(address->family == AddressFamily::kIpv4 ? nvme::AddressFamily::kIpv4
                                                                                  : nvme::AddressFamily::kIpv6);
      entry.subtype = static_cast<uint8_t>(nvme::SubsystemType::kNvm);
      entry.treq = nvme::kTreqSqFlowControlDisable;
      entry.portid = static_cast<uint16_t>(port + 1);
      entry.cntlid = nvme::kDynamicControllerId;
      entry.asqsz = 32;
      nvme::write_space_padded(entry.trsvcid, std::to_string(address->port));
      nvme::write_space_padded(entry.traddr, address->ip_text());
      nvme::write_zero_terminated(entry.subnqn, subsystem.nqn());
      append(entries, entry);
      ++records;
    }
  });
  nvme::DiscoveryHeader header;
  header.generation = shard_target_.discovery_generation();
  header.records = records;
  std::vector<std::byte> page = page_of(header);
  page.insert(page.end(), entries.begin(), entries.end());
  return page;
}

}  // namespace fairlead::target
