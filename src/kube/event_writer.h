// EventWriter: what happened in the cluster, as Events of Kubernetes: on the claim and the PersistentVolume that a
// volume is of, on DiskPools and on Nodes. Lives on one shard.
//
// It keeps nothing that matters: an Event's name follows from what it is about, its reason, its message and its quarter
// of an hour, so that the same happening again is counted up in it; and it says which was counted last, so that none
// counts twice, whoever looks again.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "io/shard.h"
#include "kube/api.h"

namespace fairlead::kube {

struct EventWriterOptions {
  std::string identity;                         // of this process
  Duration age_max = std::chrono::minutes(10);  // older ones are left; Kubernetes keeps Events for longer
  Duration spell = std::chrono::minutes(15);    // in which the same is one Event
  size_t events_max = 25;                       // different ones about one object in a spell
  size_t at_once = 50;                          // of the control plane's, in one act()
};

class EventWriter {
 public:
  // Borrowed for life. Calls end with kFenced when this process is not to act.
  EventWriter(Shard& home, Api& kube, Api& control, EventWriterOptions options);

  // Writes what is new. Error: somebody does not answer; it goes on from there.
  Task<Outcome<void>> act();
  // What was written may be old.
  void forget();

  uint64_t written() const { return written_; }
  uint64_t dropped() const { return dropped_; }

 private:
  // An object of Kubernetes.
  struct Subject {
    std::string api_version;
    std::string kind;
    std::string name_space;  // empty: it is in none
    std::string name;
    std::string uid;
  };
  Task<Outcome<std::vector<Json>>> news();
  Task<Outcome<void>> write(Json event);
  Task<Outcome<std::vector<Subject>>> subjects_of(std::string resource);
  Task<Outcome<std::vector<Subject>>> subjects_of_volume(std::string name);
  Task<Outcome<void>> add(std::string path, Subject subject, std::vector<Subject>& subjects);
  Task<Outcome<void>> write_about(const Subject& subject, const Json& event);
  Task<Outcome<void>> count_up(std::string path, const Json& event);
  bool has_room(const Subject& subject, const std::string& name, uint64_t spell);

  Shard& home_;
  Api& kube_;
  Api& control_;
  const EventWriterOptions options_;
  // The last one that was written, by which a control plane that has begun to count anew is known.
  uint64_t number_ = 0;
  uint64_t at_ms_ = 0;
  std::map<std::string, std::vector<std::string>> claims_;  // of volumes that may be gone when their last event is read
  uint64_t spell_ = 0;
  std::map<std::string, std::vector<std::string>> names_;  // of Events in this spell, by the object's uid
  uint64_t written_ = 0;
  uint64_t dropped_ = 0;
};

}  // namespace fairlead::kube
