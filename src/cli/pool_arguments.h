// What `fairlead pool`, `fairlead replica` and `fairlead snapshot` are given, and what becomes of it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/arguments.h"
#include "io/disk.h"
#include "pool/pool.h"

namespace fairlead::cli {

enum class PoolAction : uint8_t { kCreate, kDestroy, kList, kShow, kInspect, kCheck, kGrow, kAccept };
// "offline pool create".
std::string_view command_name(PoolAction action);

// The arguments, as given. check() turns them into what can be run.
struct PoolArguments {
  PoolAction action = PoolAction::kShow;
  std::string name = {};
  std::vector<std::string> disks = {};
  std::string size = {};    // of files that are made
  std::string extent = {};  // empty: the default
  std::string unit = {};    // likewise
  std::vector<std::string> add = {};
  std::string state_directory = {};
  bool force = false;
  bool json = false;
};

struct PoolPlan {
  PoolAction action = PoolAction::kShow;
  std::vector<OpenDisk> disks;
  std::vector<OpenDisk> add;
  pool::CreateOptions create;
  std::string state_directory;
  bool force = false;
  bool json = false;
};
std::expected<PoolPlan, Complaint> check(const PoolArguments& arguments);
// Returns the process's exit code.
int run(const PoolPlan& plan);

enum class ObjectAction : uint8_t {
  kCreateReplica,
  kResizeReplica,
  kSetReplica,
  kDeleteReplica,
  kListReplicas,
  kChecksumReplica,
  kCreateSnapshot,
  kDeleteSnapshot,
  kListSnapshots
};
// "offline replica create".
std::string_view command_name(ObjectAction action);

struct ObjectArguments {
  ObjectAction action = ObjectAction::kListReplicas;
  std::vector<std::string> pool = {};  // its disks
  std::string name = {};
  std::string origin = {};  // of a snapshot its replica; of a clone its snapshot
  std::string size = {};
  bool thick = false;
  bool lose_data = false;
  std::vector<std::string> labels = {};  // KEY=VALUE
  std::string volume_id = {};
  bool json = false;
};

struct ObjectPlan {
  ObjectAction action = ObjectAction::kListReplicas;
  std::vector<OpenDisk> disks;
  std::string name;
  std::string origin;
  uint64_t size_bytes = 0;
  bool is_thick = false;
  pool::Pool::Shrink shrink = pool::Pool::Shrink::kRefuse;
  std::vector<pool::Label> labels;
  std::optional<Uuid> volume_id;
  bool json = false;
};
std::expected<ObjectPlan, Complaint> check(const ObjectArguments& arguments);
// Returns the process's exit code.
int run(const ObjectPlan& plan);

}  // namespace fairlead::cli
