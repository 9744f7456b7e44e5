// EtcdStore: the Store in etcd v3, for several control processes on several machines.
//
// One shard, and two threads of its own, one of them for the lease alone, so that a slow transaction costs no
// leadership. Whoever leads holds the key PREFIXmeta/leader under a lease; each commit compares, in its own
// transaction, that this key is still the one that it made. So a leader that was paused changes nothing; by its own
// clock it knows half a second before etcd could give its lease away. See docs/design/2026-11-22-stores.md.
//
// The revisions are etcd's. What etcd keeps of the past is etcd's matter: give it --auto-compaction-retention.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "async/scope.h"
#include "control/etcd_client.h"
#include "control/lease.h"
#include "control/store.h"
#include "control/store_gate.h"
#include "io/shard.h"
#include "io/worker.h"

namespace fairlead::control {

struct EtcdStoreOptions {
  EtcdClientOptions client = {};
  std::string prefix = "/fairlead/";               // of all keys; ends with a slash
  std::string address = {};                        // where others reach this process while it leads
  uint32_t now_seconds = 0;                        // since 1970: the epoch of a store that is made
  uint32_t lease_seconds = 3;                      // at least 2
  Duration poll = std::chrono::milliseconds(250);  // how often one that stands by looks
};

class EtcdStore final : public Store {
 public:
  // Contacts nobody. Errors: kInvalidArgument.
  static Outcome<std::unique_ptr<EtcdStore>> make(Shard& shard, EtcdStoreOptions options);
  ~EtcdStore() override;

  // Stands by as long as another process leads: never kBusy. Besides the Store's errors: kPermissionDenied, kProtocol.
  Task<Outcome<Leadership>> lead() override;
  bool leads() const override { return lease_.is_held(); }
  Event& lost() override { return lease_.lost(); }
  Task<Outcome<std::string>> leader_address() override;
  Task<Outcome<std::vector<Entry>>> list(std::string prefix) override;
  Task<Outcome<uint64_t>> commit(std::vector<Write> writes) override;
  // Takes as long as what is under way, by the client's limits, and two seconds when etcd does not answer.
  Task<void> stop() override;

 private:
  struct Reign {
    Leadership leadership = {};
    uint64_t lease = 0;            // 0: none
    uint64_t create_revision = 0;  // of the leader's key
    uint32_t seconds = 0;
  };
  struct Meta {
    bool is_led = false;
    uint32_t leaders = 0;
    uint64_t leaders_revision = 0;  // 0: not there
    uint32_t epoch = 0;
    uint64_t epoch_revision = 0;
  };

  EtcdStore(Shard& shard, EtcdStoreOptions options, std::unique_ptr<EtcdClient> data,
            std::unique_ptr<EtcdClient> keeper);
  Instant sure_until(Instant asked, uint32_t seconds) const;
  Task<void> keep(Reign reign);

  // On the data thread.
  Outcome<std::optional<Reign>> try_to_lead(uint64_t old_lease);
  Outcome<Meta> read_meta();
  EtcdTransaction leader_transaction(const Meta& meta, const Reign& reign) const;
  Outcome<std::string> read_leader_address();
  Outcome<std::vector<Entry>> read_all(const std::string& prefix);
  Outcome<uint64_t> commit_now(std::vector<Write> writes, uint64_t create_revision);

  Reactor& reactor_;
  Clock& clock_;
  const EtcdStoreOptions options_;
  const std::string entries_prefix_;
  const std::string leader_key_;
  const std::string leaders_key_;
  const std::string epoch_key_;
  StoreGate gate_;
  Lease lease_;
  Scope keeping_;
  Reign reign_;  // the last one
  std::unique_ptr<EtcdClient> data_client_;
  std::unique_ptr<EtcdClient> keeper_client_;
  Worker data_;
  Worker keeper_;
};

}  // namespace fairlead::control
