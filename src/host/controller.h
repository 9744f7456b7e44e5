// Controller: one path to a subsystem: an admin queue on the home shard and an I/O queue on each shard, connected again
// whenever they are lost (base 2.0 section 3.5 and 3.6). Lives on the home shard, owned by its Subsystem.
//
// The controller lives and dies as a whole: a queue that is lost, a keep-alive or another admin command without an
// answer, an I/O command that does not end though it was aborted, all lead to: every queue is closed, every shard is
// told which commands may yet be executed, then I/O goes on elsewhere and the controller is connected again.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "async/cancel.h"
#include "host/admin.h"
#include "host/options.h"
#include "host/shard_paths.h"

namespace fairlead::host {

enum class ControllerState : uint8_t { kConnecting, kLive, kWaiting, kStopped };
std::string_view state_name(ControllerState state);

// For people and for those who choose.
struct ControllerStatus {
  SocketAddress address;
  ControllerState state = ControllerState::kConnecting;
  ControllerInfo info;                    // as of the last time that it was live
  std::vector<NamespaceView> namespaces;  // likewise
  uint64_t attempts = 0;                  // to connect that have ended, well or not
  uint64_t connects = 0;                  // times that it became live
  Error last_error;                       // of the last attempt that failed, or why it was lost
};

class Controller {
 public:
  // `sides`: of every shard, the home shard's first. `changed` is released whenever status() is another. All borrowed
  // for life.
  Controller(Shard& home, const SubsystemOptions& options, size_t path, std::vector<ShardPaths*> sides, Event& changed);

  // Connects, serves, connects again; returns some time after stop().
  Task<void> run();
  // Ends it in good order: the controller is told. Idempotent.
  void stop();

  // See Subsystem.
  Task<Result<std::vector<std::byte>>> call(uint32_t nsid, std::vector<std::byte> request);
  uint64_t connection() const { return is_live() ? status_.connects : 0; }
  void drop(const char* reason);
  void retry();

  const ControllerStatus& status() const { return status_; }

 private:
  struct Silence : Timer {
    explicit Silence(Controller& c)
        : Timer([](Runnable& self) {
            static_cast<Silence&>(self).controller.lose(Code::kTimedOut, "the controller does not answer keep-alives");
          }),
          controller(c) {}
    Controller& controller;
  };
  // stop() waits for the controller no longer than this; then the connection just ends.
  struct Patience : Timer {
    explicit Patience(Controller& c)
        : Timer([](Runnable& self) { static_cast<Patience&>(self).controller.cut_short("the host stops"); }),
          controller(c) {}
    Controller& controller;
  };
  struct Abort {
    uint16_t qid = 0;
    uint16_t cid = 0;
  };

  bool is_live() const { return status_.state == ControllerState::kLive && !is_lost_; }
  QueueOptions queue_options(uint16_t qid, const ControllerInfo* info) const;
  Task<Result<void>> connect();
  Task<Result<void>> connect_io_queues(const ControllerInfo& info);
  Task<void> serve();
  Task<void> disconnect();
  Task<void> wait_to_retry(Duration span);
  Duration quiesce() const;
  Task<Result<void>> scan();
  Task<Result<void>> read_ana();
  void apply_ana(const AnaStates& states);
  Task<void> publish();
  void lose(Code code, const char* reason);
  // Whatever is asked of the controller ends soon.
  void cut_short(const char* reason);
  void become(ControllerState state);

  // While it is live, in scope_.
  Task<void> keep_alive_loop();
  Task<void> event_loop();
  Task<void> watch_admin();
  Task<void> watch_shard(size_t index);

  Shard& home_;
  Reactor& reactor_;
  const SubsystemOptions& options_;
  const size_t path_;
  const std::vector<ShardPaths*> sides_;
  Event& changed_;
  ControllerStatus status_;
  std::vector<NamespaceView> namespaces_;  // as last read; in status_ once every shard has it

  std::unique_ptr<Queue> admin_queue_;
  std::unique_ptr<Admin> admin_;
  Scope scope_;
  std::unique_ptr<CancelSource> ending_;  // of this connection
  CancelSource stopping_;
  std::unique_ptr<CancelSource> waiting_;  // to connect again; null: it does not
  Event wake_;
  Silence silence_{*this};
  Patience patience_{*this};
  bool is_lost_ = false;
  bool must_scan_ = false;
  bool must_read_ana_ = false;
  bool is_suspect_ = false;
  std::vector<Abort> aborts_;
  uint32_t calls_ = 0;  // call()s that wait in line or for the controller
  uint32_t calls_sent_ = 0;
  Event call_ended_;
};

}  // namespace fairlead::host
