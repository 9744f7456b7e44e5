// What a StorageClass, and a VolumeAttributesClass, may say of volumes. Plain functions; any thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/problem.h"

namespace fairlead::csi {

using Texts = std::map<std::string, std::string>;

// What may be changed while a volume is there.
struct MutableParameters {
  std::optional<uint32_t> replicas = {};
  std::optional<uint32_t> snapshot_limit = {};
  std::optional<uint32_t> resync_share = {};  // percent
};

struct VolumeParameters {
  MutableParameters changing = {};
  std::optional<bool> is_thin = {};
  std::vector<std::string> spread_over = {};  // labels of nodes
  Texts affinity = {};
  Texts anti_affinity = {};
  std::string group = {};  // volumes of one group keep apart
  // What the machines that use it are told: fsType, formatOptions, ioQueues, ioTimeout.
  Texts context = {};
  std::string claim = {};  // the PersistentVolumeClaim that it is for, when the orchestrator tells
  std::string claim_namespace = {};
  std::string persistent_volume = {};
};

inline constexpr const char* kContextFsType = "fsType";
inline constexpr const char* kContextFormatOptions = "formatOptions";
inline constexpr const char* kContextIoQueues = "ioQueues";
inline constexpr const char* kContextIoTimeout = "ioTimeout";  // seconds

// ext4, xfs, btrfs. Error kInvalidArgument.
Outcome<void> check_fs_type(const std::string& fs_type);

// The smallest volume that can have one: mkfs.xfs makes no smaller one, and the kernel sets no smaller size of btrfs.
// 0: any.
uint64_t least_bytes_of(const std::string& fs_type);

// Errors kInvalidArgument: names the parameter that is not known, or what its value should be.
Outcome<VolumeParameters> parse_parameters(const Texts& parameters);
Outcome<MutableParameters> parse_mutable_parameters(const Texts& parameters);
// What becomes of the mounted file system of a volume while a snapshot is taken of it.
enum class Quiesce : uint8_t {
  kNone,    // what it has written is in the snapshot, as after a loss of power
  kFreeze,  // it is kept still, and all that programs have written is in it; else there is no snapshot
};
// Of a VolumeSnapshotClass.
Outcome<Quiesce> parse_snapshot_parameters(const Texts& parameters);
// Of a VolumeGroupSnapshotClass, which has none.
Outcome<void> check_group_parameters(const Texts& parameters);

}  // namespace fairlead::csi
