// WitnessService: the control plane's vote in the replication protocol, one a volume, kept in the store; and who gives
// out the terms. docs/internals/replication.md says what the votes are for. One shard, of the process that leads.
//
// Invariants:
//   - What is answered is on stable storage before, in one transaction of the leader's.
//   - A number of a term is given out once; those of a store that was made anew are above all of an older one.
//   - A store that has forgotten what it voted abstains, until a target whose term it gave out tells it of a record
//   that
//     is in force (hole H12).
#pragma once

#include <api/engine/v1/engine.pb.h>
#include <map>
#include <memory>
#include <string>

#include "async/mutex.h"
#include "control/store.h"
#include "io/shard.h"

namespace fairlead::control {

namespace api = fairlead::engine::v1;

class WitnessService {
 public:
  static constexpr std::string_view kKind = "witness";

  // Borrows the store for life.
  WitnessService(Shard& home, Store& store) : home_(home), store_(store) {}

  // As the store has it. Errors: those of the store, kCorrupt.
  Task<Outcome<void>> load(uint32_t epoch);

  // What is to be written for a volume that is made now, together with what makes it: it knows the record that the
  // volume begins with.
  static Write first_vote(const Uuid& volume, const api::Record& record);
  // And for one that a store which lost its witness has found again: it abstains.
  static Write abstention(const Uuid& volume);
  static Write removal(const Uuid& volume);

  // Errors: kNotFound (no such volume), kInvalidArgument, those of the store.
  Task<Outcome<api::NextTermReply>> next_term(api::NextTermRequest request);
  Task<Outcome<api::WitnessReply>> prepare(api::PrepareRequest request);
  Task<Outcome<api::WitnessReply>> keep(api::KeepRequest request);

 private:
  struct Vote;
  struct Held;
  Task<Outcome<Held*>> find(std::string volume);
  Task<Outcome<void>> save(Held& held, std::string volume, Vote next);

  Shard& home_;
  Store& store_;
  uint64_t epoch_ = 0;
  std::map<std::string, std::shared_ptr<Held>> votes_;  // by volume; shared with those who wait for one
};

}  // namespace fairlead::control
