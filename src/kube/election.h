// Election: which of several operators acts, by a Lease (coordination.k8s.io/v1) that its holder renews. Lives on one
// shard.
//
// The holder takes itself for the leader for `deadline` from the moment on at which it asked for a renewal that was
// granted; others take the lease when it has not changed before their eyes for `duration`, which is longer. So no two
// lead at once, whatever the machines' clocks say.
#pragma once

#include <cstdint>
#include <string>

#include "async/cancel.h"
#include "async/event.h"
#include "async/time.h"
#include "io/shard.h"
#include "kube/api.h"

namespace fairlead::kube {

struct ElectionOptions {
  std::string name_space;
  std::string name = "fairlead-operator";
  std::string identity;  // of this process alone
  Duration duration = std::chrono::seconds(15);
  Duration deadline = std::chrono::seconds(10);
  Duration retry = std::chrono::seconds(2);
};

class Election {
 public:
  // Borrowed for life. An answer of `api` that takes longer than duration - deadline makes others wait, no more.
  Election(Shard& home, Api& api, ElectionOptions options);

  // Until stop().
  Task<void> run();
  void stop() { stopping_.cancel(); }
  // Lets another one lead at once. Requires: run() has returned, and nothing acts any more.
  Task<void> release();

  // At this moment.
  bool leads() const { return is_holder_ && home_.clock.now() < held_until_; }
  // How often it began to.
  uint64_t terms() const { return terms_; }
  // Rings when it begins to lead.
  Event& began() { return began_; }
  // When the API server last answered; nothing: not yet.
  const std::optional<Instant>& answered() const { return answered_; }

 private:
  // Whether it is ours now.
  Task<Outcome<bool>> attempt();
  Task<Outcome<void>> look();
  Json document(const Json& before) const;
  bool is_free() const;

  Shard& home_;
  Api& api_;
  const ElectionOptions options_;
  const std::string path_;
  CancelSource stopping_;
  Event began_;
  Json lease_;               // as last seen; null: it is not there, or not known
  Instant seen_;             // since when it is so
  bool is_current_ = false;  // nobody else changed it, as far as is known
  bool is_holder_ = false;
  Instant held_until_;
  uint64_t terms_ = 0;
  std::optional<Instant> answered_;
};

}  // namespace fairlead::kube
