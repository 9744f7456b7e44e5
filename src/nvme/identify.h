// Identify data structures: NVMe base 2.0 section 5.17, NVM command set 1.0 section 4.1.5.
// Wire structures: alignment 1, little-endian, exact sizes; what is reserved is zero in a fresh object.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/endian.h"

namespace fairlead::nvme {

inline constexpr size_t kIdentifySize = 4096;

// Controller or Namespace Structure: what an Identify command asks for (cdw10 bits 7:0).
enum class Cns : uint8_t {
  kNamespace = 0x00,
  kController = 0x01,
  kActiveNamespaces = 0x02,
  kNamespaceDescriptors = 0x03,
  kNvmSetList = 0x04,
  kCommandSetNamespace = 0x05,
  kCommandSetController = 0x06,
  kCommandSetActiveNamespaces = 0x07,
  kIndependentNamespace = 0x08,
  kAllocatedNamespaces = 0x10,
  kAllocatedNamespace = 0x11,
  kNamespaceControllers = 0x12,
  kControllers = 0x13,
  kPrimaryController = 0x14,
  kSecondaryControllers = 0x15,
  kNamespaceGranularity = 0x16,
  kUuidList = 0x17,
  kDomainList = 0x18,
  kEnduranceGroupList = 0x19,
  kCommandSetAllocatedNamespaces = 0x1a,
  kCommandSetAllocatedNamespace = 0x1b,
  kCommandSets = 0x1c,
};

enum class CommandSet : uint8_t { kNvm = 0x00, kKeyValue = 0x01, kZoned = 0x02 };

// A 128-bit counter.
struct Le128 {
  Le64 low;
  Le64 high;
};

struct PowerState {
  Le16 max_power;  // mp: centiwatts
  uint8_t reserved1 = 0;
  uint8_t flags = 0;
  Le32 entry_latency_us;
  Le32 exit_latency_us;
  uint8_t relative_read_throughput = 0;
  uint8_t relative_read_latency = 0;
  uint8_t relative_write_throughput = 0;
  uint8_t relative_write_latency = 0;
  Le16 idle_power;
  uint8_t idle_power_scale = 0;
  uint8_t reserved2 = 0;
  Le16 active_power;
  uint8_t active_power_scale = 0;
  uint8_t reserved3[9] = {};
};
static_assert(sizeof(PowerState) == 32);

enum class ControllerType : uint8_t { kNotReported = 0, kIo = 1, kDiscovery = 2, kAdministrative = 3 };

// CNS 01h. Field names are the specification's.
struct IdentifyController {
  Le16 vid;
  Le16 ssvid;
  char sn[20] = {};  // ASCII, padded with spaces
  char mn[40] = {};
  char fr[8] = {};
  uint8_t rab = 0;
  uint8_t ieee[3] = {};
  uint8_t cmic = 0;
  uint8_t mdts = 0;  // log2 of pages of CAP.MPSMIN, 0: no limit
  Le16 cntlid;
  Le32 ver;
  Le32 rtd3r;
  Le32 rtd3e;
  Le32 oaes;
  Le32 ctratt;
  Le16 rrls;
  uint8_t reserved102[9] = {};
  uint8_t cntrltype = 0;
  uint8_t fguid[16] = {};
  Le16 crdt1;
  Le16 crdt2;
  Le16 crdt3;
  uint8_t reserved134[119] = {};
  uint8_t nvmsr = 0;
  uint8_t vwci = 0;
  uint8_t mec = 0;
  Le16 oacs;
  uint8_t acl = 0;
  uint8_t aerl = 0;
  uint8_t frmw = 0;
  uint8_t lpa = 0;
  uint8_t elpe = 0;
  uint8_t npss = 0;
  uint8_t avscc = 0;
  uint8_t apsta = 0;
  Le16 wctemp;  // kelvin
  Le16 cctemp;
  Le16 mtfa;
  Le32 hmpre;
  Le32 hmmin;
  Le128 tnvmcap;
  Le128 unvmcap;
  Le32 rpmbs;
  Le16 edstt;
  uint8_t dsto = 0;
  uint8_t fwug = 0;
  Le16 kas;  // granularity of keep-alive, units of 100 ms, 0: not supported
  Le16 hctma;
  Le16 mntmt;
  Le16 mxtmt;
  Le32 sanicap;
  Le32 hmminds;
  Le16 hmmaxd;
  Le16 nsetidmax;
  Le16 endgidmax;
  uint8_t anatt = 0;  // seconds
  uint8_t anacap = 0;
  Le32 anagrpmax;
  Le32 nanagrpid;
  Le32 pels;
  Le16 domainid;
  uint8_t reserved358[10] = {};
  Le128 megcap;
  uint8_t reserved384[128] = {};
  uint8_t sqes = 0;
  uint8_t cqes = 0;
  Le16 maxcmd;
  Le32 nn;
  Le16 oncs;
  Le16 fuses;
  uint8_t fna = 0;
  uint8_t vwc = 0;
  Le16 awun;   // 0's based
  Le16 awupf;  // 0's based
  uint8_t icsvscc = 0;
  uint8_t nwpc = 0;
  Le16 acwu;  // 0's based
  Le16 cdfs;
  Le32 sgls;
  Le32 mnan;
  Le128 maxdna;
  Le32 maxcna;
  uint8_t reserved564[204] = {};
  char subnqn[256] = {};  // UTF-8, ends with a zero
  uint8_t reserved1024[768] = {};
  Le32 ioccsz;  // I/O capsule command size, units of 16 bytes
  Le32 iorcsz;
  Le16 icdoff;  // units of 16 bytes
  uint8_t fcatt = 0;
  uint8_t msdbd = 0;
  Le16 ofcs;
  uint8_t dctype = 0;
  uint8_t reserved1807[241] = {};
  PowerState psd[32];
  uint8_t vendor[1024] = {};
};
static_assert(sizeof(IdentifyController) == kIdentifySize && alignof(IdentifyController) == 1);
static_assert(offsetof(IdentifyController, mdts) == 77 && offsetof(IdentifyController, ver) == 80);
static_assert(offsetof(IdentifyController, oaes) == 92 && offsetof(IdentifyController, cntrltype) == 111);
static_assert(offsetof(IdentifyController, fguid) == 112 && offsetof(IdentifyController, nvmsr) == 253);
static_assert(offsetof(IdentifyController, oacs) == 256 && offsetof(IdentifyController, wctemp) == 266);
static_assert(offsetof(IdentifyController, tnvmcap) == 280 && offsetof(IdentifyController, kas) == 320);
static_assert(offsetof(IdentifyController, sanicap) == 328 && offsetof(IdentifyController, anatt) == 342);
static_assert(offsetof(IdentifyController, nanagrpid) == 348 && offsetof(IdentifyController, megcap) == 368);
static_assert(offsetof(IdentifyController, sqes) == 512 && offsetof(IdentifyController, oncs) == 520);
static_assert(offsetof(IdentifyController, vwc) == 525 && offsetof(IdentifyController, sgls) == 536);
static_assert(offsetof(IdentifyController, mnan) == 540 && offsetof(IdentifyController, subnqn) == 768);
static_assert(offsetof(IdentifyController, ioccsz) == 1792 && offsetof(IdentifyController, icdoff) == 1800);
static_assert(offsetof(IdentifyController, msdbd) == 1803 && offsetof(IdentifyController, dctype) == 1806);
static_assert(offsetof(IdentifyController, psd) == 2048 && offsetof(IdentifyController, vendor) == 3072);

// Bits of the controller's fields.
inline constexpr uint8_t kCmicMultiplePorts = 1U << 0;
inline constexpr uint8_t kCmicMultipleControllers = 1U << 1;
inline constexpr uint8_t kCmicAnaReporting = 1U << 3;
inline constexpr uint32_t kOaesNamespaceAttribute = 1U << 8;
inline constexpr uint32_t kOaesFirmwareActivation = 1U << 9;
inline constexpr uint32_t kOaesAnaChange = 1U << 11;
inline constexpr uint32_t kOaesDiscoveryChange = 1U << 31;
inline constexpr uint32_t kCtratt128BitHostId = 1U << 0;
inline constexpr uint32_t kCtrattTrafficBasedKeepAlive = 1U << 6;
inline constexpr uint16_t kOacsSecurity = 1U << 0;
inline constexpr uint16_t kOacsFormat = 1U << 1;
inline constexpr uint16_t kOacsFirmware = 1U << 2;
inline constexpr uint16_t kOacsNamespaceManagement = 1U << 3;
inline constexpr uint8_t kFrmwSlot1ReadOnly = 1U << 0;
inline constexpr uint8_t kFrmwSlotsShift = 1;  // bits 3:1
inline constexpr uint8_t kLpaSmartPerNamespace = 1U << 0;
inline constexpr uint8_t kLpaCommandEffects = 1U << 1;
inline constexpr uint8_t kLpaExtendedData = 1U << 2;  // offsets and lengths above 64 KiB in Get Log Page
inline constexpr uint8_t kLpaSupportedPages = 1U << 5;
inline constexpr uint8_t kAnacapOptimized = 1U << 0;
inline constexpr uint8_t kAnacapNonOptimized = 1U << 1;
inline constexpr uint8_t kAnacapInaccessible = 1U << 2;
inline constexpr uint8_t kAnacapPersistentLoss = 1U << 3;
inline constexpr uint8_t kAnacapChange = 1U << 4;
inline constexpr uint8_t kAnacapGroupIdStable = 1U << 6;
inline constexpr uint8_t kAnacapGroupIdNonZero = 1U << 7;
inline constexpr uint16_t kOncsCompare = 1U << 0;
inline constexpr uint16_t kOncsWriteUncorrectable = 1U << 1;
inline constexpr uint16_t kOncsDatasetManagement = 1U << 2;
inline constexpr uint16_t kOncsWriteZeroes = 1U << 3;
inline constexpr uint16_t kOncsSaveFeatures = 1U << 4;
inline constexpr uint16_t kOncsReservations = 1U << 5;
inline constexpr uint16_t kOncsTimestamp = 1U << 6;
inline constexpr uint16_t kOncsVerify = 1U << 7;
inline constexpr uint16_t kOncsCopy = 1U << 8;
inline constexpr uint16_t kFusesCompareAndWrite = 1U << 0;
inline constexpr uint8_t kVwcPresent = 1U << 0;
inline constexpr uint8_t kVwcFlushBroadcastNotSupported = 2U << 1;  // bits 2:1, 10b
inline constexpr uint8_t kVwcFlushBroadcastSupported = 3U << 1;     // bits 2:1, 11b
inline constexpr uint32_t kSglsSupported = 1U << 0;                 // bits 1:0, 01b: no alignment required
inline constexpr uint32_t kSglsKeyed = 1U << 2;
inline constexpr uint32_t kSglsAddressAsOffset = 1U << 20;  // in-capsule data
inline constexpr uint32_t kSglsTransportDataBlock = 1U << 21;
inline constexpr uint16_t kOfcsDisconnect = 1U << 0;  // I/O queue deletion by Disconnect
inline constexpr uint8_t kSqesFabrics = 0x66;         // 64 bytes, required and maximum
inline constexpr uint8_t kCqesFabrics = 0x44;         // 16 bytes

struct LbaFormat {
  Le16 ms;            // metadata bytes
  uint8_t lbads = 0;  // log2 of the block size
  uint8_t rp = 0;     // relative performance, 0 is best
};
static_assert(sizeof(LbaFormat) == 4);

// CNS 00h for the NVM command set.
struct IdentifyNamespace {
  Le64 nsze;  // blocks
  Le64 ncap;
  Le64 nuse;
  uint8_t nsfeat = 0;
  uint8_t nlbaf = 0;  // 0's based
  uint8_t flbas = 0;
  uint8_t mc = 0;
  uint8_t dpc = 0;
  uint8_t dps = 0;
  uint8_t nmic = 0;
  uint8_t rescap = 0;
  uint8_t fpi = 0;
  uint8_t dlfeat = 0;
  Le16 nawun;  // 0's based, as all atomic and preferred sizes
  Le16 nawupf;
  Le16 nacwu;
  Le16 nabsn;
  Le16 nabo;
  Le16 nabspf;
  Le16 noiob;  // blocks, 0: none
  Le128 nvmcap;
  Le16 npwg;
  Le16 npwa;
  Le16 npdg;
  Le16 npda;
  Le16 nows;
  Le16 mssrl;
  Le32 mcl;
  uint8_t msrc = 0;
  uint8_t reserved81[11] = {};
  Le32 anagrpid;
  uint8_t reserved96[3] = {};
  uint8_t nsattr = 0;
  Le16 nvmsetid;
  Le16 endgid;
  uint8_t nguid[16] = {};
  uint8_t eui64[8] = {};
  LbaFormat lbaf[64];
  uint8_t vendor[3712] = {};
};
static_assert(sizeof(IdentifyNamespace) == kIdentifySize && alignof(IdentifyNamespace) == 1);
static_assert(offsetof(IdentifyNamespace, nsfeat) == 24 && offsetof(IdentifyNamespace, nmic) == 30);
static_assert(offsetof(IdentifyNamespace, nawun) == 34 && offsetof(IdentifyNamespace, nvmcap) == 48);
static_assert(offsetof(IdentifyNamespace, npwg) == 64 && offsetof(IdentifyNamespace, nows) == 72);
static_assert(offsetof(IdentifyNamespace, anagrpid) == 92 && offsetof(IdentifyNamespace, nsattr) == 99);
static_assert(offsetof(IdentifyNamespace, nguid) == 104 && offsetof(IdentifyNamespace, eui64) == 120);
static_assert(offsetof(IdentifyNamespace, lbaf) == 128 && offsetof(IdentifyNamespace, vendor) == 384);

inline constexpr uint8_t kNsfeatThinProvisioning = 1U << 0;
inline constexpr uint8_t kNsfeatAtomics = 1U << 1;  // NAWUN, NAWUPF, NACWU hold
inline constexpr uint8_t kNsfeatDeallocateError = 1U << 2;
inline constexpr uint8_t kNsfeatOptimalSizes = 1U << 4;  // NPWG, NPWA, NPDG, NPDA, NOWS hold
inline constexpr uint8_t kNmicShared = 1U << 0;
inline constexpr uint8_t kDlfeatReadsZeroes = 0x1;  // bits 2:0: deallocated blocks read as zeroes
inline constexpr uint8_t kDlfeatWriteZeroesDeallocates = 1U << 3;
inline constexpr uint8_t kNsattrWriteProtected = 1U << 0;
inline constexpr uint8_t kRescapPersistThroughPowerLoss = 1U << 0;

// CNS 03h: a list of these, each followed by `length` bytes; a type of 0 ends the list.
enum class NamespaceIdType : uint8_t { kEnd = 0, kEui64 = 1, kNguid = 2, kUuid = 3, kCommandSet = 4 };
struct NamespaceIdDescriptor {
  uint8_t type = 0;
  uint8_t length = 0;  // 8, 16, 16, 1
  uint8_t reserved[2] = {};
};
static_assert(sizeof(NamespaceIdDescriptor) == 4);

// CNS 05h, NVM command set.
struct IdentifyNvmNamespace {
  Le64 lbstm;
  uint8_t pic = 0;
  uint8_t reserved9[3] = {};
  Le32 elbaf[64];
  uint8_t reserved268[3828] = {};
};
static_assert(sizeof(IdentifyNvmNamespace) == kIdentifySize && offsetof(IdentifyNvmNamespace, elbaf) == 12);

// CNS 06h, NVM command set. The size limits are log2 of pages of CAP.MPSMIN, 0: no limit.
struct IdentifyNvmController {
  uint8_t vsl = 0;   // Verify
  uint8_t wzsl = 0;  // Write Zeroes
  uint8_t wusl = 0;  // Write Uncorrectable
  uint8_t dmrl = 0;  // Dataset Management: ranges
  Le32 dmrsl;        // blocks a range
  Le64 dmsl;         // blocks a command
  uint8_t reserved16[4080] = {};
};
static_assert(sizeof(IdentifyNvmController) == kIdentifySize && offsetof(IdentifyNvmController, dmsl) == 8);

// CNS 08h.
struct IdentifyIndependentNamespace {
  uint8_t nsfeat = 0;
  uint8_t nmic = 0;
  uint8_t rescap = 0;
  uint8_t fpi = 0;
  Le32 anagrpid;
  uint8_t nsattr = 0;
  uint8_t reserved9 = 0;
  Le16 nvmsetid;
  Le16 endgid;
  uint8_t nstat = 0;  // bit 0: ready
  uint8_t reserved15[4081] = {};
};
static_assert(sizeof(IdentifyIndependentNamespace) == kIdentifySize);
static_assert(offsetof(IdentifyIndependentNamespace, nstat) == 14);
inline constexpr uint8_t kNstatReady = 1U << 0;

// CNS 02h, 07h, 10h, 1Ah: ascending NSIDs above the one asked for, zero ends the list.
struct NamespaceList {
  Le32 nsid[1024];
};
static_assert(sizeof(NamespaceList) == kIdentifySize);

// CNS 12h, 13h.
struct ControllerList {
  Le16 count;
  Le16 cntlid[2047];
};
static_assert(sizeof(ControllerList) == kIdentifySize);

// CNS 1Ch: combinations of command sets; bit n of a combination is CommandSet n.
struct CommandSetVector {
  Le64 combination[512];
};
static_assert(sizeof(CommandSetVector) == kIdentifySize);

}  // namespace fairlead::nvme
