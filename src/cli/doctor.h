// `fairlead doctor`: looks whether a machine can be a node and a host of volumes, and says how to mend what is wrong.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "cli/arguments.h"
#include "io/address.h"

namespace fairlead::cli {

struct DoctorArguments {
  std::vector<std::string> disks = {};
  std::vector<uint16_t> ports = {};
  std::vector<std::string> reach = {};
  bool json = false;
};
struct DoctorPlan {
  std::vector<std::string> disks;
  std::vector<uint16_t> ports;
  std::vector<SocketAddress> reach;
  bool json = false;
};
std::expected<DoctorPlan, Complaint> check(const DoctorArguments& arguments);
// Exit code 0: nothing is wrong that would keep it from working; 1: something is.
int doctor(const DoctorPlan& plan);

// ---- What there is on a machine

struct DiskFacts {
  enum class Kind : uint8_t { kMissing, kFile, kBlockDevice, kOther };
  Kind kind = Kind::kMissing;
  bool can_write = false;
  std::string holds = {};  // of what is there already; empty: nothing that is known
};
struct MachineFacts {
  std::string kernel = {};                // "6.1.0-18-amd64"
  bool has_nvme_tcp = false;              // loaded, or built in
  bool can_load_nvme_tcp = false;         // it is among the kernel's modules
  std::optional<bool> is_multipath = {};  // of nvme_core; none: it is not loaded
  bool has_nvme_cli = false;
  std::string host_nqn = {};
  std::string host_id = {};
  std::optional<bool> is_clock_in_sync = {};       // none: the kernel does not say
  std::optional<uint64_t> io_uring_disabled = {};  // kernel.io_uring_disabled; none: the kernel has no such switch
  uint64_t locked_bytes_max = 0;                   // RLIMIT_MEMLOCK; ~0: no limit
  uint64_t files_max = 0;                          // RLIMIT_NOFILE
  std::set<uint16_t> listening = {};               // ports of TCP
  std::map<std::string, DiskFacts> disks = {};
  std::map<std::string, std::string> unreachable = {};  // addresses: why
};
MachineFacts look_at_machine(const DoctorPlan& plan);

// Ports on which somebody listens, of /proc/net/tcp or tcp6.
std::set<uint16_t> listening_ports(std::string_view proc_net_tcp);
// Whether a kernel's modules.dep or modules.builtin has the module.
bool has_module(std::string_view list, std::string_view module);

// ---- What that means

struct Finding {
  enum class Level : uint8_t { kGood, kWarning, kBad };
  Level level = Level::kGood;
  std::string what;  // a sentence
  std::string mend;  // what to do; empty: nothing
};
std::vector<Finding> findings_of(const MachineFacts& facts, const DoctorPlan& plan);
enum class Paint : uint8_t { kNo, kYes };
std::string to_text(const std::vector<Finding>& findings, Paint paint);
std::string to_json(const std::vector<Finding>& findings);

}  // namespace fairlead::cli
