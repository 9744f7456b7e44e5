// ShardPaths: what one shard knows of a subsystem: an I/O queue for each path that is connected, the state of each
// namespace there, the devices that use them. Lives on its shard; made and commanded by the Subsystem on the home
// shard, by calls between shards, and commands nobody itself.
#pragma once

#include <memory>
#include <vector>

#include "base/intrusive_list.h"
#include "host/namespace_info.h"
#include "host/options.h"
#include "host/queue.h"

namespace fairlead::host {

class RemoteDevice;

// What a path is to one namespace.
enum class PathState : uint8_t {
  kNone,          // not connected, or the namespace is not there
  kOptimized,     // ANA optimized, or the controller knows no ANA
  kNonOptimized,  // used when there is no optimized one
  kUnusable,      // ANA inaccessible, persistent loss or change
  kSuspect,       // a command said so; until the ANA log has been read again
};

struct NamespaceView {
  NamespaceInfo info;
  Instant asked;  // when `info` was asked for: of several paths the one that asked last knows the size
  PathState state = PathState::kNone;
};

// A command that its lost connection may have left to be executed, at any time until then: what overlaps it must wait,
// or it could be overwritten by it. The operation that it belongs to need not wait: it writes the same.
struct Fence {
  uint32_t nsid = 0;
  uint64_t operation = 0;
  uint64_t offset = 0;  // bytes
  uint64_t length = 0;
  Instant until;
};

class ShardPaths {
 public:
  // `index`: of the shard among those of the subsystem. Options are borrowed for life.
  ShardPaths(Shard& shard, uint16_t index, const SubsystemOptions& options);
  ~ShardPaths();  // Requires: shut_down() was called, no device is open.
  ShardPaths(const ShardPaths&) = delete;
  ShardPaths& operator=(const ShardPaths&) = delete;

  // For the home shard, on this shard.

  // Connects an I/O queue. No I/O goes there before publish(). Requires: the path has none.
  Task<Result<void>> connect(size_t path, QueueOptions options, ControllerInfo controller);
  void publish(size_t path, const std::vector<NamespaceView>& namespaces);
  // Something that the home shard must see to.
  struct Event {
    enum class Kind : uint8_t { kLost, kExpired, kSuspect } kind = Kind::kLost;
    uint16_t cid = 0;         // kExpired: of the command to abort
    const char* reason = "";  // kLost
  };
  // Waits for it. Requires: connect() succeeded; one at a time; after kLost no more, and it has returned before
  // resume().
  Task<Event> next_event(size_t path);
  // Closes the queue and waits for its end. Returns the commands that may yet be executed, for all shards to fence.
  Task<std::vector<Fence>> disconnect(size_t path, const char* reason);
  // Keeps what overlaps from being sent.
  void fence(const std::vector<Fence>& fences);
  // Destroys the queue and goes on with the operations that it left open. Requires: every shard has the fences.
  void resume(size_t path);
  // No path will come again: what is held ends with kShuttingDown, and whatever is submitted from now on.
  void shut_down();

  // For devices.

  Shard& shard() const { return shard_; }
  const SubsystemOptions& options() const { return options_; }
  size_t path_count() const { return paths_.size(); }
  // Null: no commands go there.
  Queue* queue(size_t path) const { return paths_[path].published ? paths_[path].queue.get() : nullptr; }
  const ControllerInfo& controller(size_t path) const { return paths_[path].controller; }
  // The number of the path's connection on this shard, another one for each; 0: no commands go there.
  uint64_t connection(size_t path) const {
    const Queue* const here = queue(path);
    return here != nullptr && here->is_live() ? paths_[path].connects : 0;
  }
  // Limits that hold on every path known so far.
  const ControllerInfo& limits() const { return limits_; }
  // One more path, seen on this shard or on another. Devices need one before their first request.
  void narrow_limits(const ControllerInfo& controller);
  void suspect(size_t path);
  void join(RemoteDevice& device);
  void leave(RemoteDevice& device);
  // Whether something that may yet be executed overlaps.
  bool is_fenced(uint32_t nsid, uint64_t operation, uint64_t offset, uint64_t length) const;
  uint64_t next_operation() { return ++operations_ | (uint64_t{index_} << 48); }
  bool is_shut_down() const { return is_shut_down_; }
  // A namespace as a path shows it, or as the first path that has it; null: not there, or no commands go there.
  const NamespaceView* find(size_t path, uint32_t nsid) const;
  const NamespaceView* find(uint32_t nsid) const;

 private:
  struct Path {
    std::unique_ptr<Queue> queue;
    uint64_t connects = 0;
    ControllerInfo controller;
    std::vector<NamespaceView> namespaces;
    bool published = false;
    bool suspect = false;
  };
  struct Alarm : Timer {
    explicit Alarm(ShardPaths& p)
        : Timer([](Runnable& self) { static_cast<Alarm&>(self).paths.on_alarm(); }), paths(p) {}
    ShardPaths& paths;
  };
  void on_alarm();
  void tell_devices();

  Shard& shard_;
  const uint16_t index_;
  const SubsystemOptions& options_;
  std::vector<Path> paths_;
  ControllerInfo limits_;
  bool has_limits_ = false;
  std::vector<RemoteDevice*> devices_;
  std::vector<Fence> fences_;
  Alarm alarm_{*this};  // the first fence falls
  uint64_t operations_ = 0;
  bool is_shut_down_ = false;
};

}  // namespace fairlead::host
