// NodeRecords: what the node plugin has begun, kept for its next start: one record for each volume that may be
// attached. A record is there before the first connection is made, and until the last is gone. Lives on one shard.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "async/mutex.h"
#include "async/task.h"
#include "base/problem.h"
#include "io/small_files.h"

namespace fairlead::csi {

struct NodeRecord {
  std::string nqn;
  std::string staging_path;  // empty: it is gone from here, and only what it was like is known
  std::string fs_type;       // empty: a raw device
  // A file system is being made: nothing but that has been written to the device.
  bool is_formatting = false;
  bool is_frozen = false;                           // or may be: by this plugin
  uint32_t io_queues = 0;                           // of a connection; 0: as the plugin is set
  uint32_t io_timeout_seconds = 0;                  // 0: the kernel's
  std::map<std::string, std::string> targets = {};  // paths where it was published, and how

  template <typename Io, typename Self>
  static void describe(Io& io, Self& self) {
    io("nqn", self.nqn);
    io("staging_path", self.staging_path);
    io("fs_type", self.fs_type);
    io("formatting", self.is_formatting);
    io("frozen", self.is_frozen);
    io("io_queues", self.io_queues);
    io("io_timeout_seconds", self.io_timeout_seconds);
    io("targets", self.targets);
  }
  friend bool operator==(const NodeRecord&, const NodeRecord&) = default;
};

class NodeRecords {
 public:
  // `files` is borrowed for life.
  NodeRecords(Reactor& home, SmallFiles& files) : files_(files), writing_(home) {}

  // What was kept by an earlier one. Blocks briefly. Errors: kCorrupt, those of the files.
  Outcome<void> load();
  // None: null. Valid until the next change.
  const NodeRecord* find(const std::string& volume) const;
  std::vector<std::string> volumes() const;
  // The volume, but for this one, that is staged or published at that path. Empty: none.
  std::string other_at(const std::string& path, const std::string& volume) const;
  // On stable storage when it returns.
  Task<Outcome<void>> put(std::string volume, NodeRecord record);
  Task<Outcome<void>> drop(std::string volume);

 private:
  Task<Outcome<void>> write();

  SmallFiles& files_;
  Mutex writing_;
  std::map<std::string, NodeRecord> records_;
};

}  // namespace fairlead::csi
