// Watches: what changes, for those who watch, as server-sent events. Documents are made at most every 100 ms for all of
// them together, and not at all while nobody watches. One shard.
//
//   event: resource   data: the document of a resource, at the beginning and whenever it is another
//   event: gone       data: {"kind": "volume", "name": "db"}
//   event: event      data: an event as /v1/events has it, from the beginning of the watch on; id: its number
//   event: synced     data: {}: all that there was at the beginning has been sent
//
// A client that is slow is told of fewer states in between, never of a backlog.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "async/cancel.h"
#include "async/event.h"
#include "async/scope.h"
#include "control/control.h"
#include "gateway/http.h"

namespace fairlead::gateway {

inline constexpr std::string_view kKinds[] = {"nodes", "pools", "volumes", "replicas", "snapshots", "snapshot-groups"};

// As the Api has it, with a kind and a name for replicas too.
control::Json with_name(std::string_view kind, control::Json document);

struct WatchOptions {
  std::set<std::string> kinds = {};       // and "events"; empty: all
  control::Selection selection = {};      // of resources
  std::optional<uint64_t> after_event{};  // begins with the events after this one
};

class Watches {
 public:
  // Borrowed for life.
  Watches(Shard& home, control::Control& control);
  ~Watches();  // Requires: close() has returned, or open() was never called; all feeds are gone.

  std::unique_ptr<HttpFeed> open(WatchOptions options);
  // Ends all feeds. Idempotent.
  Task<void> close();

 private:
  class Feed;
  struct Kept {
    uint64_t version = 0;
    std::string_view kind;
    std::string name;
    control::Json document;
  };

  Task<void> take_note(Event& of);
  Task<void> keep_fresh();
  void refresh();
  bool is_over() const { return stopping_.is_cancelled() || !control_.is_leading(); }

  Shard& home_;
  control::Control& control_;
  CancelSource stopping_;
  Event dirty_;
  Event refreshed_;
  std::map<std::string, Kept> kept_;  // by "kind/name"
  uint64_t version_ = 0;
  size_t feeds_ = 0;
  bool is_watching_ = false;
  bool is_fresh_ = false;
  Scope scope_;
};

}  // namespace fairlead::gateway
