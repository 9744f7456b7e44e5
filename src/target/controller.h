// Controller: the state behind one admin queue: properties, features, events, logs. Lives on the admin queue's shard,
// owned by its Queue, from Connect to the end of the connection.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "async/scope.h"
#include "base/intrusive_list.h"
#include "nvme/features.h"
#include "nvme/log_page.h"
#include "nvme/properties.h"
#include "nvme/validate.h"
#include "target/association.h"
#include "target/request.h"

namespace fairlead::target {

class ShardTarget;

// Things that a host may want to hear of: NVMe base 2.0 section 5.2, notices.
enum class Notice : uint8_t { kNamespaceChanged, kAnaChanged, kDiscoveryChanged };
inline constexpr size_t kNoticeCount = 3;

class Controller : public ListNode<Controller> {
 public:
  // `subsystem` is null for a discovery controller.
  Controller(ShardTarget& shard_target, Queue& admin_queue, std::shared_ptr<Association> association,
             Subsystem* subsystem, uint32_t keep_alive_ms);
  ~Controller();

  // Admin commands, Fabrics left out. See Queue::prepare() and Queue::execute().
  nvme::StatusOr<DataNeed> prepare(const nvme::SubmissionEntry& command, uint32_t data_length) const;
  void execute(Request& request);
  // Takes back an Asynchronous Event Request that waits, or a Replication Send. False: it is none.
  bool try_abort(Request& request, nvme::StatusCode code);

  uint64_t get_property(nvme::Property property) const;
  void set_property(const nvme::PropertyAccess& access);

  void raise(Notice notice, uint32_t nsid = 0);
  void note_error(const Request& request);
  // Gives all waiting event requests back.
  void release_events();
  Task<void> close();

  const Association& association() const { return *association_; }
  bool is_discovery() const { return subsystem_ == nullptr; }
  Subsystem* subsystem() const { return subsystem_; }

 private:
  static constexpr size_t kAsyncEventsMax = 4;  // AERL + 1
  static constexpr size_t kErrorLogMax = 64;    // ELPE + 1

  void enable(nvme::ControllerConfiguration wanted);
  void disable();
  void forget_settings();
  void set_keep_alive(uint32_t wanted_ms);
  void restart_keep_alive();
  void on_keep_alive_timer();

  // identify.cc
  nvme::Status identify(Request& request);
  nvme::Status fill_identify(const nvme::IdentifyRequest& wanted, std::span<std::byte> out) const;
  void identify_controller(std::span<std::byte> out) const;
  nvme::Status identify_namespace(uint32_t nsid, std::span<std::byte> out) const;
  nvme::Status identify_active_list(uint32_t after, std::span<std::byte> out) const;
  nvme::Status identify_descriptors(uint32_t nsid, std::span<std::byte> out) const;
  nvme::Status identify_independent(uint32_t nsid, std::span<std::byte> out) const;
  nvme::Status identify_for_command_set(const nvme::IdentifyRequest& wanted, std::span<std::byte> out) const;

  // log_pages.cc
  nvme::StatusOr<DataNeed> prepare_log_page(const nvme::SubmissionEntry& command, uint32_t data_length) const;
  void get_log_page(Request& request);
  Task<void> health_log(Request& request, uint64_t offset);
  void finish_log(Request& request, uint64_t offset, std::span<const std::byte> page);
  std::vector<std::byte> supported_pages_log() const;
  std::vector<std::byte> error_log() const;
  std::vector<std::byte> firmware_log() const;
  std::vector<std::byte> changed_namespaces_log() const;
  std::vector<std::byte> effects_log() const;
  std::vector<std::byte> ana_log(bool groups_only) const;
  std::vector<std::byte> discovery_log() const;
  void acknowledge(Notice notice);

  // features.cc
  bool has_feature(nvme::Feature feature) const;
  nvme::StatusOr<DataNeed> prepare_feature(const nvme::SubmissionEntry& command) const;
  nvme::StatusOr<uint64_t> set_feature(const nvme::SetFeaturesRequest& wanted);
  nvme::StatusOr<uint64_t> get_feature(Request& request);

  // control_commands.cc
  bool has_control() const;
  nvme::StatusOr<DataNeed> prepare_control(const nvme::SubmissionEntry& command, uint32_t data_length) const;
  void begin_send(Request& request);
  Task<void> send(uint64_t number, nvme::ReplicationSend command, std::vector<std::byte> bytes);
  Task<void> receive(Request& request);
  Task<void> release_sends();

  Task<void> abort(Request& request);
  void request_event(Request& request);
  bool deliver(Notice notice);

  ShardTarget& shard_target_;
  Queue& admin_queue_;
  std::shared_ptr<Association> association_;
  Subsystem* subsystem_;
  Scope scope_;

  nvme::ControllerConfiguration configuration_;
  nvme::ControllerStatus status_;

  uint32_t keep_alive_ms_ = 0;
  struct KeepAliveTimer : Timer {
    explicit KeepAliveTimer(Controller& c)
        : Timer([](Runnable& self) { static_cast<KeepAliveTimer&>(self).controller.on_keep_alive_timer(); }),
          controller(c) {}
    Controller& controller;
  } keep_alive_timer_;

  // A controller reset makes them new.
  struct Features {
    uint32_t arbitration = 0;
    uint32_t power_state = 0;
    uint32_t temperature_threshold = 0;
    uint32_t error_recovery = 0;
    uint32_t write_atomicity = 0;
    uint32_t event_configuration = 0;
  } features_;

  IntrusiveList<Request> event_requests_;
  size_t event_request_count_ = 0;
  std::array<bool, kNoticeCount> pending_{};  // to be told as soon as there is a request for it
  std::array<bool, kNoticeCount> masked_{};   // told; silent until the host reads the log
  std::set<uint32_t> changed_namespaces_;

  // Replication Sends that run. One that is taken back leaves the list, and runs to its end.
  std::map<uint64_t, Request*> sends_;
  uint64_t last_send_ = 0;
  uint32_t sends_running_ = 0;

  std::vector<nvme::ErrorInformation> errors_;  // ring, newest at error_count_ - 1
  uint64_t error_count_ = 0;
};

}  // namespace fairlead::target
