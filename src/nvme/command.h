// Submission and completion queue entries: NVMe base 2.0 sections 3.3.3 and 6, NVM command set 1.0 section 3.
// Wire structures: alignment 1, little-endian, no padding. Nothing here validates; validate.h does.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "base/endian.h"

namespace fairlead::nvme {

enum class AdminOpcode : uint8_t {
  kDeleteIoSubmissionQueue = 0x00,
  kCreateIoSubmissionQueue = 0x01,
  kGetLogPage = 0x02,
  kDeleteIoCompletionQueue = 0x04,
  kCreateIoCompletionQueue = 0x05,
  kIdentify = 0x06,
  kAbort = 0x08,
  kSetFeatures = 0x09,
  kGetFeatures = 0x0a,
  kAsyncEventRequest = 0x0c,
  kNamespaceManagement = 0x0d,
  kFirmwareCommit = 0x10,
  kFirmwareDownload = 0x11,
  kDeviceSelfTest = 0x14,
  kNamespaceAttachment = 0x15,
  kKeepAlive = 0x18,
  kDirectiveSend = 0x19,
  kDirectiveReceive = 0x1a,
  kFabrics = 0x7f,
  kFormatNvm = 0x80,
  kSecuritySend = 0x81,
  kSecurityReceive = 0x82,
  kSanitize = 0x84,
  kGetLbaStatus = 0x86,
  // Vendor specific (0xc0 to 0xff): docs/internals/target.md.
  kReplicationSend = 0xc1,
  kReplicationReceive = 0xc2,
};

enum class NvmOpcode : uint8_t {
  kFlush = 0x00,
  kWrite = 0x01,
  kRead = 0x02,
  kWriteUncorrectable = 0x04,
  kCompare = 0x05,
  kWriteZeroes = 0x08,
  kDatasetManagement = 0x09,
  kVerify = 0x0c,
  kReservationRegister = 0x0d,
  kReservationReport = 0x0e,
  kReservationAcquire = 0x11,
  kReservationRelease = 0x15,
  kCopy = 0x19,
  kFabrics = 0x7f,
};
inline constexpr uint8_t kFabricsOpcode = 0x7f;

enum class FabricsType : uint8_t {
  kPropertySet = 0x00,
  kConnect = 0x01,
  kPropertyGet = 0x04,
  kAuthenticationSend = 0x05,
  kAuthenticationReceive = 0x06,
  kDisconnect = 0x08,
};

// Bits 1:0 of an opcode (of a fabrics type likewise) tell which way its data goes.
enum class DataTransfer : uint8_t { kNone = 0, kHostToController = 1, kControllerToHost = 2, kBidirectional = 3 };
constexpr DataTransfer data_transfer(uint8_t opcode_or_fabrics_type) {
  return static_cast<DataTransfer>(opcode_or_fabrics_type & 0x3);
}

inline constexpr uint32_t kBroadcastNamespace = 0xffffffff;
inline constexpr uint16_t kDynamicControllerId = 0xffff;
inline constexpr uint16_t kAnyControllerId = 0xfffe;  // of a static controller
inline constexpr uint16_t kMaxControllerId = 0xffef;

// An SGL descriptor, base 2.0 section 4.1.2.
enum class SglType : uint8_t {
  kDataBlock = 0x0,
  kBitBucket = 0x1,
  kSegment = 0x2,
  kLastSegment = 0x3,
  kKeyedDataBlock = 0x4,
  kTransportDataBlock = 0x5,
};
enum class SglSubtype : uint8_t {
  kAddress = 0x0,
  kOffset = 0x1,     // the address counts from the capsule's in-capsule data
  kTransport = 0xa,  // "NVMe transport specific": with kTransportDataBlock the transport moves the data
};
struct SglDescriptor {
  Le64 address;
  Le32 length;  // bytes
  uint8_t reserved[3] = {};
  uint8_t identifier = 0;  // type 7:4, subtype 3:0

  constexpr SglType type() const { return static_cast<SglType>(identifier >> 4); }
  constexpr SglSubtype subtype() const { return static_cast<SglSubtype>(identifier & 0xf); }
  static constexpr SglDescriptor in_capsule(uint64_t offset, uint32_t length) { return make(offset, length, 0x01); }
  static constexpr SglDescriptor transport(uint32_t length) { return make(0, length, 0x5a); }

 private:
  static constexpr SglDescriptor make(uint64_t address, uint32_t length, uint8_t identifier) {
    SglDescriptor sgl;
    sgl.address = address;
    sgl.length = length;
    sgl.identifier = identifier;
    return sgl;
  }
};
static_assert(sizeof(SglDescriptor) == 16);

enum class Fuse : uint8_t { kNone = 0, kFirst = 1, kSecond = 2, kReserved = 3 };
// What the data pointer holds. Fabrics: kSglContiguousMetadata, always.
enum class DataPointerKind : uint8_t { kPrp = 0, kSglContiguousMetadata = 1, kSglSegmentMetadata = 2, kReserved = 3 };
inline constexpr uint8_t kFlagsSgl = 0x40;  // flags of a fabrics command: PSDT 01b, not fused

struct SubmissionEntry {
  uint8_t opcode = 0;
  uint8_t flags = 0;  // FUSE 1:0, PSDT 7:6
  Le16 cid;
  Le32 nsid;  // of a Fabrics command: byte 0 is its FabricsType
  Le32 cdw2;
  Le32 cdw3;
  Le64 mptr;
  SglDescriptor sgl;
  Le32 cdw10;
  Le32 cdw11;
  Le32 cdw12;
  Le32 cdw13;
  Le32 cdw14;
  Le32 cdw15;

  constexpr Fuse fuse() const { return static_cast<Fuse>(flags & 0x3); }
  constexpr DataPointerKind data_pointer_kind() const { return static_cast<DataPointerKind>(flags >> 6); }
  constexpr bool is_fabrics() const { return opcode == kFabricsOpcode; }
  // Requires: is_fabrics().
  constexpr FabricsType fabrics_type() const { return static_cast<FabricsType>(nsid.get() & 0xff); }
  // NVM commands: the starting LBA in cdw10 and cdw11.
  constexpr uint64_t slba() const { return cdw10.get() | (uint64_t{cdw11.get()} << 32); }
  constexpr void set_slba(uint64_t lba) {
    cdw10 = static_cast<uint32_t>(lba);
    cdw11 = static_cast<uint32_t>(lba >> 32);
  }
};
static_assert(sizeof(SubmissionEntry) == 64 && alignof(SubmissionEntry) == 1);
static_assert(offsetof(SubmissionEntry, mptr) == 16 && offsetof(SubmissionEntry, sgl) == 24);
static_assert(offsetof(SubmissionEntry, cdw10) == 40 && offsetof(SubmissionEntry, cdw15) == 60);

// cdw12 of Read, Write, Compare, Verify, Write Zeroes.
inline constexpr uint32_t kRwBlocksMask = 0xffff;    // number of blocks, 0's based
inline constexpr uint32_t kRwDeallocate = 1U << 25;  // Write Zeroes
inline constexpr uint32_t kRwFua = 1U << 30;
inline constexpr uint32_t kRwLimitedRetry = 1U << 31;
// cdw11 of Dataset Management.
inline constexpr uint32_t kDsmDeallocate = 1U << 2;
inline constexpr uint32_t kDsmRangesMax = 256;

// One range of Dataset Management.
struct DsmRange {
  Le32 context_attributes;
  Le32 blocks;  // not 0's based
  Le64 slba;
};
static_assert(sizeof(DsmRange) == 16);

// Replication Send and Receive: the most bytes that one moves, whatever MDTS says.
inline constexpr uint32_t kReplicationSendBytesMax = 8 * 1024;
inline constexpr uint32_t kReplicationReceiveBytesMax = 64 * 1024;

// Fabrics commands (base 2.0 section 6). Each is another reading of the same 64 bytes:
// fabrics_view<ConnectCommand>(sqe).
struct FabricsPrefix {
  uint8_t opcode = kFabricsOpcode;
  uint8_t flags = kFlagsSgl;
  Le16 cid;
  uint8_t fctype = 0;
  uint8_t reserved[19] = {};
  SglDescriptor sgl;
};
static_assert(sizeof(FabricsPrefix) == 40);

struct ConnectCommand {
  FabricsPrefix prefix;
  Le16 recfmt;
  Le16 qid;
  Le16 sqsize;  // 0's based
  uint8_t cattr = 0;
  uint8_t reserved1 = 0;
  Le32 kato;  // milliseconds, 0: none
  uint8_t reserved2[12] = {};
};
static_assert(sizeof(ConnectCommand) == 64);
static_assert(offsetof(ConnectCommand, recfmt) == 40 && offsetof(ConnectCommand, sqsize) == 44);
static_assert(offsetof(ConnectCommand, cattr) == 46 && offsetof(ConnectCommand, kato) == 48);
inline constexpr uint8_t kConnectDisableSqFlowControl = 1U << 2;
inline constexpr uint8_t kConnectIndividualQueueDeletion = 1U << 3;

struct PropertyCommand {  // get and set
  FabricsPrefix prefix;
  uint8_t attrib = 0;  // bits 2:0: 0 is 4 bytes, 1 is 8 bytes
  uint8_t reserved1[3] = {};
  Le32 offset;
  Le64 value;  // set only
  uint8_t reserved2[8] = {};
};
static_assert(sizeof(PropertyCommand) == 64);
static_assert(offsetof(PropertyCommand, offset) == 44 && offsetof(PropertyCommand, value) == 48);

struct DisconnectCommand {
  FabricsPrefix prefix;
  Le16 recfmt;
  uint8_t reserved[22] = {};
};
static_assert(sizeof(DisconnectCommand) == 64);

struct AuthenticationCommand {  // send and receive
  FabricsPrefix prefix;
  uint8_t reserved1 = 0;
  uint8_t spsp0 = 0;
  uint8_t spsp1 = 0;
  uint8_t secp = 0;
  Le32 length;  // transfer length (send) or allocation length (receive), bytes
  uint8_t reserved2[16] = {};
};
static_assert(sizeof(AuthenticationCommand) == 64 && offsetof(AuthenticationCommand, length) == 44);

template <typename View>
constexpr View fabrics_view(const SubmissionEntry& entry) {
  static_assert(sizeof(View) == sizeof(SubmissionEntry));
  return std::bit_cast<View>(entry);
}
template <typename View>
constexpr SubmissionEntry to_submission_entry(const View& view) {
  static_assert(sizeof(View) == sizeof(SubmissionEntry));
  return std::bit_cast<SubmissionEntry>(view);
}

// The data of Connect.
struct ConnectData {
  uint8_t host_id[16] = {};
  Le16 cntlid;
  uint8_t reserved1[238] = {};
  char subnqn[256] = {};
  char hostnqn[256] = {};
  uint8_t reserved2[256] = {};
};
static_assert(sizeof(ConnectData) == 1024 && offsetof(ConnectData, cntlid) == 16);
static_assert(offsetof(ConnectData, subnqn) == 256 && offsetof(ConnectData, hostnqn) == 512);

struct CompletionEntry {
  Le32 dw0;
  Le32 dw1;
  Le16 sqhd;
  Le16 sqid;  // reserved over fabrics
  Le16 cid;
  Le16 status;  // see to_status_field()

  // The 64-bit result of Property Get.
  constexpr uint64_t result() const { return dw0.get() | (uint64_t{dw1.get()} << 32); }
  constexpr void set_result(uint64_t value) {
    dw0 = static_cast<uint32_t>(value);
    dw1 = static_cast<uint32_t>(value >> 32);
  }
};
static_assert(sizeof(CompletionEntry) == 16 && alignof(CompletionEntry) == 1);
static_assert(offsetof(CompletionEntry, sqhd) == 8 && offsetof(CompletionEntry, status) == 14);

// dw0 of a successful Connect.
inline constexpr uint32_t kConnectAuthenticationRequired = 1U << 17;  // ATR: DH-HMAC-CHAP
// dw0 of a Connect that failed with kConnectInvalidParameters: which field.
enum class ConnectFieldIn : uint8_t { kCommand = 0, kData = 1 };
constexpr uint32_t connect_invalid_field(ConnectFieldIn where, uint16_t offset) {
  return offset | (static_cast<uint32_t>(where) << 16);
}

}  // namespace fairlead::nvme
