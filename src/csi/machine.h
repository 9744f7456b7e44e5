// Machine: all that the node plugin does to the machine that it runs on. One shard; calls may be under way side by
// side. Two kinds: LinuxMachine does it, the tests' one plays it and may be killed between any two calls.
//
// Errors carry the system's words. What was done when a call failed is found out by looking again.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "async/task.h"
#include "base/problem.h"

namespace fairlead::csi {

// One controller of the kernel: a way to a volume.
struct Connection {
  std::string controller;  // "nvme3"
  std::string address;     // "10.0.0.1:4420", "[fd00::1]:4420"
  bool is_live = false;    // else it is being made, or made again
};
// A volume as the kernel knows it.
struct Attachment {
  std::vector<Connection> connections;
  std::string device;  // "/dev/nvme0n1", one for all connections; empty: not there yet
};
struct ConnectRequest {
  std::string nqn;
  std::string address;
  std::string host_nqn;
  std::string host_id;     // a UUID
  uint32_t io_queues = 0;  // 0: as many as the kernel likes
};

enum class Access : uint8_t { kReadWrite, kReadOnly };

struct DeviceContent {
  enum class Kind : uint8_t {
    kBlank,       // no signature, and zeroes in its first and last MiB
    kFileSystem,  // one; `what` is its type
    kOther,       // something; `what` says what is known of it
  };
  Kind kind = Kind::kBlank;
  std::string what = {};
};

struct Mounted {
  std::string target;
  std::string source;  // "/dev/nvme0n1"; of a raw device the device itself
  bool is_read_only = false;
};
struct MountRequest {
  std::string source;
  std::string target;
  std::string fs_type;
  std::vector<std::string> options = {};
};
struct Usage {
  uint64_t total_bytes = 0;
  uint64_t used_bytes = 0;
  uint64_t available_bytes = 0;
  uint64_t total_inodes = 0;
  uint64_t used_inodes = 0;
  uint64_t available_inodes = 0;
};

class Machine {
 public:
  virtual ~Machine() = default;  // Requires: no call is under way.

  // Whether it can be a host at all: NVMe over TCP, and one device for all paths. Error kNotSupported, with what to do.
  virtual Task<Outcome<void>> check_host() = 0;
  // Nothing attached: no connections.
  virtual Task<Outcome<Attachment>> find(std::string nqn) = 0;
  // One that is there already: done.
  virtual Task<Outcome<void>> connect(ConnectRequest request) = 0;
  // `controller` of a Connection. One that is gone: done.
  virtual Task<Outcome<void>> disconnect(std::string controller) = 0;
  // How long I/O may take on each of its connections until the kernel acts: at least a second.
  virtual Task<Outcome<void>> set_io_timeout(std::string device, uint32_t seconds) = 0;

  // For all who have it open, under whatever name: a mount that is read-only does not keep anybody from writing to a
  // device that is seen through it.
  virtual Task<Outcome<void>> set_access(std::string device, Access access) = 0;

  virtual Task<Outcome<DeviceContent>> look_into(std::string device) = 0;
  virtual Task<Outcome<uint64_t>> size_of(std::string device) = 0;
  // `fs_type`: ext4, xfs or btrfs. What was there is lost.
  virtual Task<Outcome<void>> format(std::string device, std::string fs_type, std::vector<std::string> options) = 0;
  // Repairs what can be repaired without asking, before it is mounted.
  virtual Task<Outcome<void>> repair(std::string device, std::string fs_type) = 0;
  // To the size of its device. It is mounted at `target`.
  virtual Task<Outcome<void>> grow(std::string device, std::string fs_type, std::string target) = 0;
  // The file system at `target` writes out all that it has, and lets who would write on wait. It stays so when this
  // process ends. Error kBusy: it is so already.
  virtual Task<Outcome<void>> freeze(std::string target) = 0;
  // One that is not frozen: done.
  virtual Task<Outcome<void>> thaw(std::string target) = 0;

  virtual Task<Outcome<std::vector<Mounted>>> mounts() = 0;
  // The uppermost there, by whatever way the path leads there. None: nothing is mounted there.
  virtual Task<Outcome<std::optional<Mounted>>> mounted_at(std::string target) = 0;
  virtual Task<Outcome<void>> mount(MountRequest request) = 0;
  // What is at `source` appears at `target` too: a folder, or a device as a file.
  virtual Task<Outcome<void>> bind(std::string source, std::string target, Access access) = 0;
  // The uppermost there.
  virtual Task<Outcome<void>> unmount(std::string target) = 0;
  virtual Task<Outcome<void>> make_folder(std::string path) = 0;
  virtual Task<Outcome<void>> make_file(std::string path) = 0;
  // An empty folder or a file; none: done.
  virtual Task<Outcome<void>> remove(std::string path) = 0;
  // Error kNotFound: there is no such path.
  virtual Task<Outcome<Usage>> usage(std::string path) = 0;
};

}  // namespace fairlead::csi
