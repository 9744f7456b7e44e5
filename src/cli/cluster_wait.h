// Waiting for what was asked of a cluster, and telling meanwhile how far it is.
#pragma once

#include <optional>
#include <string>

#include "cli/cluster_arguments.h"
#include "cli/timekeeper.h"

namespace fairlead::cli {

// How far a resource is from its goal. `left_at_first`, `elapsed`: of a goal that counts down (kEmpty), how much there
// was, and since when.
Progress progress_of(const std::string& resource, const Goal& goal, const Json& document, uint64_t left_at_first,
                     Duration elapsed);
// Targets and replicas on a node, replicas in a pool.
uint64_t left_of(const Json& document);

// Where progress goes: a bar that is drawn anew on a terminal, else lines that tell what has changed.
class ProgressOutput {
 public:
  explicit ProgressOutput(bool is_terminal) : is_terminal_(is_terminal) {}
  ~ProgressOutput() { clear(); }
  ProgressOutput(const ProgressOutput&) = delete;
  ProgressOutput& operator=(const ProgressOutput&) = delete;

  void show(const Progress& progress);
  // Takes the bar away.
  void clear();

 private:
  const bool is_terminal_;
  bool has_bar_ = false;
  std::string last_;
};

struct Waiting {
  std::string kind;
  std::string name;
  Goal goal;
  std::optional<Duration> limit;
};
// Returns the document as it is then; null: it is gone. A server that cannot be reached meanwhile is asked again.
// Errors: kTimedOut (says what is in the way), kNotFound, kUnreachable (from the beginning, or up to the limit).
Outcome<Json> wait_for(RestClient& client, Timekeeper& time, const Waiting& waiting, ProgressOutput& output);

}  // namespace fairlead::cli
