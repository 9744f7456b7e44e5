#include "nvme/validate.h"

#include <bit>
#include <cstring>

#include "base/check.h"
#include "nvme/nqn.h"

namespace fairlead::nvme {
namespace {

NvmRange range_of(const SubmissionEntry& command) { return {Lba(command.slba()), (command.cdw12 & kRwBlocksMask) + 1}; }

uint64_t bytes_of(const NvmRange& range, const NamespaceLimits& limits) {
  FL_CHECK(limits.block_shift >= 9 && limits.block_shift <= 16);
  return uint64_t{range.blocks} << limits.block_shift;
}

// Of replication control.
bool names_one_namespace(const SubmissionEntry& command) {
  return command.nsid != 0 && command.nsid != kBroadcastNamespace;
}
bool is_reserved_clear(const SubmissionEntry& command) {
  return (command.cdw2 | command.cdw3 | command.cdw11 | command.cdw12 | command.cdw13 | command.cdw14 |
          command.cdw15) == 0;
}

// The size in bytes of a property, 0 for one that we do not know.
uint32_t property_size(Property property) {
  switch (property) {
    case Property::kCapabilities:
      return 8;
    case Property::kVersion:
    case Property::kConfiguration:
    case Property::kStatus:
    case Property::kSubsystemReset:
      return 4;
  }
  return 0;
}

StatusOr<PropertyAccess> decode_property(const PropertyCommand& command) {
  const auto property = static_cast<Property>(command.offset.get());
  const uint32_t size = property_size(property);
  const uint32_t attribute = command.attrib & 0x7;
  if (size == 0 || attribute > 1 || size != (attribute == 1 ? 8U : 4U)) return reject(StatusCode::kInvalidField);
  return PropertyAccess{property, size == 8 ? command.value.get() : command.value.get() & 0xffffffff};
}

std::unexpected<ConnectError> connect_failed(ConnectFieldIn where, size_t offset) {
  return std::unexpected(ConnectError{permanent(StatusCode::kConnectInvalidParameters),
                                      connect_invalid_field(where, static_cast<uint16_t>(offset))});
}

}  // namespace

Status check_flags(const SubmissionEntry& command) {
  const bool good = command.data_pointer_kind() == DataPointerKind::kSglContiguousMetadata &&  //
                    command.fuse() != Fuse::kReserved;
  return good ? kOk : permanent(StatusCode::kInvalidField);
}

StatusOr<DataPointer> decode_data_pointer(const SubmissionEntry& command, uint32_t capsule_data_length) {
  const SglDescriptor& sgl = command.sgl;
  const uint32_t length = sgl.length;
  if (sgl.type() == SglType::kTransportDataBlock && sgl.subtype() == SglSubtype::kTransport) {
    return length == 0 ? DataPointer{} : DataPointer{DataPlace::kTransport, 0, length};
  }
  if (sgl.type() != SglType::kDataBlock) return reject(StatusCode::kSglTypeInvalid);
  // A descriptor of zeroes: some hosts leave it so on commands without data.
  if (sgl.subtype() == SglSubtype::kAddress && length == 0) return DataPointer{};
  if (sgl.subtype() != SglSubtype::kOffset) return reject(StatusCode::kSglTypeInvalid);
  if (sgl.address > capsule_data_length) return reject(StatusCode::kSglOffsetInvalid);
  const auto offset = static_cast<uint32_t>(sgl.address.get());
  if (length > capsule_data_length - offset) return reject(StatusCode::kDataSglLengthInvalid);
  return length == 0 ? DataPointer{} : DataPointer{DataPlace::kInCapsule, offset, length};
}

Status check_range(const NvmRange& range, uint64_t capacity) {
  const bool inside = range.first.value <= capacity && range.blocks <= capacity - range.first.value;
  return inside ? kOk : permanent(StatusCode::kLbaOutOfRange);
}

StatusOr<NvmTransfer> decode_transfer(const SubmissionEntry& command, const NamespaceLimits& limits,
                                      uint64_t data_length) {
  const NvmRange range = range_of(command);
  const uint64_t bytes = bytes_of(range, limits);
  if (limits.max_transfer_bytes != 0 && bytes > limits.max_transfer_bytes) return reject(StatusCode::kInvalidField);
  if (const Status status = check_range(range, limits.blocks); !status.ok()) return std::unexpected(status);
  if (bytes != data_length) return reject(StatusCode::kDataSglLengthInvalid);
  return NvmTransfer{range, bytes, (command.cdw12 & kRwFua) != 0};
}

StatusOr<NvmRange> decode_verify(const SubmissionEntry& command, const NamespaceLimits& limits) {
  const NvmRange range = range_of(command);
  if (limits.max_transfer_bytes != 0 && bytes_of(range, limits) > limits.max_transfer_bytes) {
    return reject(StatusCode::kInvalidField);
  }
  if (const Status status = check_range(range, limits.blocks); !status.ok()) return std::unexpected(status);
  return range;
}

StatusOr<NvmWriteZeroes> decode_write_zeroes(const SubmissionEntry& command, const NamespaceLimits& limits) {
  const NvmRange range = range_of(command);
  if (limits.max_zero_blocks != 0 && range.blocks > limits.max_zero_blocks) return reject(StatusCode::kInvalidField);
  if (const Status status = check_range(range, limits.blocks); !status.ok()) return std::unexpected(status);
  return NvmWriteZeroes{range, (command.cdw12 & kRwDeallocate) != 0, (command.cdw12 & kRwFua) != 0};
}

StatusOr<DatasetManagement> decode_dataset_management(const SubmissionEntry& command, uint64_t data_length) {
  const uint32_t ranges = (command.cdw10 & 0xff) + 1;
  static_assert(kDsmRangesMax == 256);
  if (data_length < ranges * sizeof(DsmRange) || data_length > kDsmRangesMax * sizeof(DsmRange)) {
    return reject(StatusCode::kDataSglLengthInvalid);
  }
  return DatasetManagement{ranges, (command.cdw11 & kDsmDeallocate) != 0};
}

StatusOr<NvmRange> decode_dsm_range(std::span<const std::byte> data, uint32_t index, uint64_t capacity) {
  FL_CHECK(index < data.size() / sizeof(DsmRange));
  DsmRange wire;
  std::memcpy(static_cast<void*>(&wire), data.data() + index * sizeof(DsmRange), sizeof(wire));
  const NvmRange range{Lba(wire.slba), wire.blocks};
  if (const Status status = check_range(range, capacity); !status.ok()) return std::unexpected(status);
  return range;
}

Status check_fused_pair(const SubmissionEntry& first, const SubmissionEntry& second) {
  const bool pair = first.fuse() == Fuse::kFirst && second.fuse() == Fuse::kSecond &&
                    first.opcode == static_cast<uint8_t>(NvmOpcode::kCompare) &&
                    second.opcode == static_cast<uint8_t>(NvmOpcode::kWrite);
  const bool same = first.nsid == second.nsid && range_of(first) == range_of(second);
  return pair && same ? kOk : permanent(StatusCode::kInvalidField);
}

StatusOr<IdentifyRequest> decode_identify(const SubmissionEntry& command, uint64_t data_length) {
  if (data_length == 0) return reject(StatusCode::kDataSglLengthInvalid);
  IdentifyRequest request;
  request.cns = static_cast<Cns>(command.cdw10 & 0xff);
  request.controller_id = static_cast<uint16_t>(command.cdw10 >> 16);
  request.nsid = command.nsid;
  request.command_set = static_cast<CommandSet>(command.cdw11 >> 24);
  return request;
}

StatusOr<LogPageRequest> decode_get_log_page(const SubmissionEntry& command, uint64_t data_length) {
  LogPageRequest request;
  request.page = static_cast<LogPage>(command.cdw10 & 0xff);
  request.specific = static_cast<uint8_t>((command.cdw10 >> 8) & 0x7f);
  request.retain_event = (command.cdw10 & 0x8000) != 0;
  request.specific_id = static_cast<uint16_t>(command.cdw11 >> 16);
  request.offset = command.cdw12 | (uint64_t{command.cdw13} << 32);
  request.nsid = command.nsid;
  const uint64_t dwords = ((command.cdw10 >> 16) | (uint64_t{command.cdw11 & 0xffff} << 16)) + 1;
  const uint64_t length = dwords * 4;
  const bool offset_counts_entries = (command.cdw14 & (1U << 23)) != 0;
  if (length > UINT32_MAX || request.offset % 4 != 0 || offset_counts_entries) {
    return reject(StatusCode::kInvalidField);
  }
  if (data_length < length) return reject(StatusCode::kDataSglLengthInvalid);
  request.length = static_cast<uint32_t>(length);
  return request;
}

StatusOr<GetFeaturesRequest> decode_get_features(const SubmissionEntry& command) {
  const uint32_t select = (command.cdw10 >> 8) & 0x7;
  if (select > static_cast<uint32_t>(FeatureSelect::kSupported)) return reject(StatusCode::kInvalidField);
  GetFeaturesRequest request;
  request.feature = static_cast<Feature>(command.cdw10 & 0xff);
  request.select = static_cast<FeatureSelect>(select);
  request.nsid = command.nsid;
  request.value = command.cdw11;
  return request;
}

SetFeaturesRequest decode_set_features(const SubmissionEntry& command) {
  SetFeaturesRequest request;
  request.feature = static_cast<Feature>(command.cdw10 & 0xff);
  request.save = (command.cdw10 & kSetFeaturesSave) != 0;
  request.nsid = command.nsid;
  request.value = command.cdw11;
  return request;
}

AbortRequest decode_abort(const SubmissionEntry& command) {
  return {static_cast<uint16_t>(command.cdw10 & 0xffff), static_cast<uint16_t>(command.cdw10 >> 16)};
}

StatusOr<ReplicationSend> decode_replication_send(const SubmissionEntry& command, uint64_t data_length) {
  if (!names_one_namespace(command)) return reject(StatusCode::kInvalidNamespaceOrFormat);
  if (command.cdw10 != 0 || !is_reserved_clear(command)) return reject(StatusCode::kInvalidField);
  if (data_length == 0 || data_length > kReplicationSendBytesMax) return reject(StatusCode::kDataSglLengthInvalid);
  return ReplicationSend{command.nsid, static_cast<uint32_t>(data_length)};
}

StatusOr<ReplicationReceive> decode_replication_receive(const SubmissionEntry& command, uint64_t data_length) {
  if (!names_one_namespace(command)) return reject(StatusCode::kInvalidNamespaceOrFormat);
  if (command.cdw10 == 0 || !is_reserved_clear(command)) return reject(StatusCode::kInvalidField);
  if (data_length == 0 || data_length > kReplicationReceiveBytesMax) return reject(StatusCode::kDataSglLengthInvalid);
  return ReplicationReceive{command.nsid, command.cdw10, static_cast<uint32_t>(data_length)};
}

std::optional<ReplicationSent> decode_replication_sent(uint64_t result) {
  const ReplicationSent sent{static_cast<uint32_t>(result), static_cast<uint32_t>(result >> 32)};
  const bool good = (sent.call == 0) == (sent.bytes == 0) && sent.bytes <= kReplicationReceiveBytesMax;
  return good ? std::optional(sent) : std::nullopt;
}

StatusOr<PropertyAccess> decode_property_get(const SubmissionEntry& command) {
  auto access = decode_property(fabrics_view<PropertyCommand>(command));
  if (access) access->value = 0;
  return access;
}

StatusOr<PropertyAccess> decode_property_set(const SubmissionEntry& command) {
  auto access = decode_property(fabrics_view<PropertyCommand>(command));
  if (!access) return access;
  const bool writable = access->property == Property::kConfiguration || access->property == Property::kSubsystemReset;
  if (!writable) return reject(StatusCode::kInvalidField);
  return access;
}

Status check_disconnect(const SubmissionEntry& command) {
  const auto view = fabrics_view<DisconnectCommand>(command);
  return view.recfmt == 0 ? kOk : permanent(StatusCode::kConnectIncompatibleFormat);
}

std::expected<ConnectRequest, ConnectError> decode_connect(const SubmissionEntry& command,
                                                           std::span<const std::byte> data) {
  const auto view = fabrics_view<ConnectCommand>(command);
  if (view.recfmt != 0) return std::unexpected(ConnectError{permanent(StatusCode::kConnectIncompatibleFormat)});
  if (data.size() != sizeof(ConnectData)) {
    return std::unexpected(ConnectError{permanent(StatusCode::kDataSglLengthInvalid)});
  }
  if (view.sqsize == 0) return connect_failed(ConnectFieldIn::kCommand, offsetof(ConnectCommand, sqsize));

  const auto* text = reinterpret_cast<const char*>(data.data());
  const auto field = [text](size_t offset) { return read_zero_terminated(std::span(text + offset, 256)); };
  constexpr size_t kSubnqn = offsetof(ConnectData, subnqn);
  constexpr size_t kHostnqn = offsetof(ConnectData, hostnqn);
  const auto subsystem_nqn = field(kSubnqn);
  if (!subsystem_nqn || !is_acceptable_nqn(*subsystem_nqn)) return connect_failed(ConnectFieldIn::kData, kSubnqn);
  const auto host_nqn = field(kHostnqn);
  if (!host_nqn || !is_acceptable_nqn(*host_nqn)) return connect_failed(ConnectFieldIn::kData, kHostnqn);

  Le16 cntlid;
  std::memcpy(static_cast<void*>(&cntlid), data.data() + offsetof(ConnectData, cntlid), sizeof(cntlid));
  // The admin queue makes a controller, the others join the one that it made.
  const bool cntlid_good = view.qid == 0 ? cntlid == kDynamicControllerId : cntlid <= kMaxControllerId;
  if (!cntlid_good) return connect_failed(ConnectFieldIn::kData, offsetof(ConnectData, cntlid));

  ConnectRequest request;
  request.qid = view.qid;
  request.queue_entries = view.sqsize + 1U;
  request.controller_id = cntlid;
  request.disable_sq_flow_control = (view.cattr & kConnectDisableSqFlowControl) != 0;
  request.keep_alive_ms = view.kato;
  std::memcpy(request.host_id.data(), data.data(), request.host_id.size());
  request.subsystem_nqn = *subsystem_nqn;
  request.host_nqn = *host_nqn;
  return request;
}

}  // namespace fairlead::nvme
