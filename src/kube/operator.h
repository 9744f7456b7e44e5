// Operator: what Kubernetes and the control plane have to know of each other, while this process leads. Lives on one
// shard.
#pragma once

#include <cstdint>
#include <string>

#include "async/cancel.h"
#include "async/scope.h"
#include "async/time.h"
#include "io/shard.h"
#include "kube/api.h"
#include "kube/election.h"
#include "kube/event_writer.h"
#include "kube/pool_keeper.h"

namespace fairlead::kube {

struct OperatorOptions {
  ElectionOptions election;
  PoolKeeperOptions pools;
  EventWriterOptions events;
  Duration interval = std::chrono::seconds(2);       // between two looks, when nothing changes
  Duration back_off_max = std::chrono::seconds(30);  // for who does not answer
};

class Operator {
 public:
  struct Apis {
    Api& lease;  // of Kubernetes, for nothing but the election
    Api& kube;
    WatchApi& watch;
    Api& control;
  };
  // Borrowed for life.
  Operator(Shard& home, Apis apis, OperatorOptions options);

  // Until stop().
  Task<void> run();
  void stop();

  bool leads() const { return election_.leads(); }
  // Whether the API server answered lately, and, of a leader, whether it knows all DiskPools.
  bool is_ready() const;
  // In Prometheus' form.
  std::string metrics() const;

 private:
  // Ends calls with kFenced when this process does not lead.
  class Fence final : public Api {
   public:
    Fence(const Election& election, Api& api) : election_(election), api_(api) {}
    Task<Outcome<Json>> call(RestRequest request) override;

   private:
    const Election& election_;
    Api& api_;
  };

  Task<void> follow();
  Task<void> act();
  // Waits for it to lead; what is known is forgotten when that is a new term. False: it is to stop.
  Task<bool> lead();
  Duration next_back_off(Duration now) const;
  Task<void> pause(Event& news, Duration span);

  Shard& home_;
  WatchApi& watch_;
  const OperatorOptions options_;
  Election election_;
  Fence kube_;
  Fence control_;
  PoolKeeper pools_;
  EventWriter events_;
  CancelSource stopping_;
  uint64_t term_ = 0;  // that what is known is of
  uint64_t failures_ = 0;
  Scope scope_;
};

}  // namespace fairlead::kube
