#include "target/target.h"

#include <algorithm>
#include <fmt/format.h>
#include <utility>

#include "async/call.h"
#include "base/check.h"
#include "base/log.h"
#include "nvme/nqn.h"
#include "target/connection.h"

namespace fairlead::target {
namespace {

bool is_printable_ascii(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c >= 0x20 && c <= 0x7e; });
}

Result<void> check(const SubsystemOptions& options) {
  if (options.nqn == nvme::kDiscoveryNqn) {
    return fail(Code::kInvalidArgument, "the discovery subsystem is there by itself");
  }
  FL_TRY_VOID(nvme::validate_nqn(options.nqn));
  if (options.serial.size() > 20 || !is_printable_ascii(options.serial)) {
    return fail(Code::kInvalidArgument, "a serial number is at most 20 printable ASCII characters");
  }
  if (options.model.empty() || options.model.size() > 40 || !is_printable_ascii(options.model)) {
    return fail(Code::kInvalidArgument, "a model is 1 to 40 printable ASCII characters");
  }
  for (const std::string& host : options.allowed_hosts) FL_TRY_VOID(nvme::validate_nqn(host));
  return {};
}

void check(const TargetOptions& options) {
  FL_CHECK(options.queue_entries_max >= 2 && options.io_queues_max >= 1);
  FL_CHECK(options.in_capsule_bytes % 16 == 0 && options.transfer_shift >= 1 && options.transfer_shift <= 8);
  FL_CHECK(options.controller_id_min >= 1 && options.controller_id_min <= options.controller_id_max);
  FL_CHECK(options.controller_id_max <= nvme::kMaxControllerId);
  FL_CHECK(options.keep_alive_min_ms >= 1 && options.turn_budget >= 1);
}

}  // namespace

Target::Target(std::vector<Shard*> shards, TargetOptions options, TargetObserver* observer)
    : shards_(std::move(shards)),
      options_(std::move(options)),
      directory_(home(), options_, observer, shard_targets_),
      accepting_(home()),
      serving_(home()),
      turn_ended_(home()) {
  check(options_);
  for (Shard* const shard : shards_) {
    shard_targets_.push_back(std::make_unique<ShardTarget>(*shard, home(), options_, directory_));
  }
}

Target::~Target() { FL_CHECK(listeners_.empty() && connections_ == 0); }

Task<void> Target::take_turn() {
  while (changing_) co_await turn_ended_.wait();
  changing_ = true;
}

void Target::end_turn() {
  changing_ = false;
  turn_ended_.release_waiters();
}

Task<Result<void>> Target::add_subsystem(SubsystemOptions options) {
  FL_CO_TRY_VOID(check(options));
  if (options.serial.empty()) {
    options.serial = to_string(uuid_from_name(kFairleadNamespace, options.nqn)).substr(0, 18);
    std::erase(options.serial, '-');
  }
  co_await take_turn();
  Result<void> outcome;
  for (const auto& shard_target : shard_targets_) {
    outcome = co_await call_on(home(), shard_target->reactor(), shard_target->add_subsystem(options));
    if (!outcome) break;  // it exists, on the first shard as on all
  }
  if (outcome) directory_.note_added(options.nqn);
  end_turn();
  co_return outcome;
}

Task<Result<void>> Target::remove_subsystem(std::string nqn) {
  co_await take_turn();
  Result<void> outcome = co_await remove_subsystem_now(std::move(nqn));
  end_turn();
  co_return outcome;
}

Task<Result<void>> Target::remove_subsystem_now(std::string nqn) {
  if (find(nqn) == nullptr) co_return fail(Code::kNotFound, "remove a subsystem");
  if (!stopping_.is_cancelled()) directory_.note_removed(nqn);
  co_await directory_.fenced().remove_all_of(nqn);
  for (const auto& shard_target : shard_targets_) {
    co_await call_on(home(), shard_target->reactor(), shard_target->remove_subsystem(nqn));
  }
  co_return Result<void>{};
}

Task<Result<void>> Target::set_allowed_hosts(std::string nqn, std::vector<std::string> hosts) {
  for (const std::string& host : hosts) FL_CO_TRY_VOID(nvme::validate_nqn(host));
  co_await take_turn();
  Result<void> outcome;
  if (find(nqn) == nullptr) outcome = fail(Code::kNotFound, "set the hosts of a subsystem");
  for (const auto& shard_target : shard_targets_) {
    if (!outcome) break;
    co_await call_on(home(), shard_target->reactor(), shard_target->set_allowed_hosts(nqn, hosts));
  }
  end_turn();
  co_return outcome;
}

Task<Result<uint32_t>> Target::add_namespace(std::string nqn, NamespaceOptions options) {
  co_await take_turn();
  Result<uint32_t> outcome = co_await add_namespace_now(std::move(nqn), std::move(options));
  end_turn();
  co_return outcome;
}

Task<Result<uint32_t>> Target::add_namespace_now(std::string nqn, NamespaceOptions options) {
  FL_CHECK(options.source != nullptr);
  const Subsystem* const subsystem = find(nqn);
  if (subsystem == nullptr) co_return fail(Code::kNotFound, "add a namespace to a subsystem");
  if (options.ana_group < 1 || options.ana_group > kAnaGroupsMax) {
    co_return fail(Code::kInvalidArgument, "an ANA group is a number from 1 to 128");
  }
  uint32_t nsid = options.nsid;
  if (nsid == 0) {
    for (nsid = 1; nsid <= kNamespacesMax && subsystem->find(nsid) != nullptr; ++nsid) {
    }
    if (nsid > kNamespacesMax) co_return fail(Code::kResourceExhausted, "a subsystem has at most 1024 namespaces");
  }
  if (nsid > kNamespacesMax) co_return fail(Code::kInvalidArgument, "a namespace id is a number from 1 to 1024");
  if (subsystem->find(nsid) != nullptr) co_return fail(Code::kAlreadyExists, "add a namespace of this id");
  NamespaceIdentity identity{nsid, options.uuid, options.ana_group, options.control != nullptr};
  // Derived from names, so that a host finds the same namespace after the target was started again.
  if (identity.uuid.is_nil()) identity.uuid = uuid_from_name(kFairleadNamespace, fmt::format("{}#{}", nqn, nsid));
  for (size_t i = 0; i < shard_targets_.size(); ++i) {
    ShardTarget& shard_target = *shard_targets_[i];
    const Result<void> added =
        co_await call_on(home(), shard_target.reactor(), shard_target.add_namespace(nqn, identity, options.source));
    if (added) continue;
    for (size_t undo = 0; undo < i; ++undo) {
      ShardTarget& done = *shard_targets_[undo];
      co_await call_on(home(), done.reactor(), done.remove_namespace(nqn, nsid));
    }
    co_return std::unexpected(added.error());
  }
  if (options.control != nullptr) directory_.fenced().add(nqn, nsid, std::move(options.control));
  co_await announce(nqn, Notice::kNamespaceChanged, nsid);
  co_return nsid;
}

Task<void> Target::announce(std::string nqn, Notice notice, uint32_t nsid) {
  for (const auto& shard_target : shard_targets_) {
    co_await call_on(home(), shard_target->reactor(), shard_target->announce(nqn, notice, nsid));
  }
}

Task<Result<void>> Target::remove_namespace(std::string nqn, uint32_t nsid) {
  co_await take_turn();
  const Subsystem* const subsystem = find(nqn);
  Result<void> outcome;
  if (subsystem == nullptr || subsystem->find(nsid) == nullptr) {
    outcome = fail(Code::kNotFound, "remove a namespace");
  } else {
    co_await directory_.fenced().remove(nqn, nsid);
    for (const auto& shard_target : shard_targets_) {
      co_await call_on(home(), shard_target->reactor(), shard_target->remove_namespace(nqn, nsid));
    }
  }
  end_turn();
  co_return outcome;
}

Task<Result<uint64_t>> Target::rescan_namespace(std::string nqn, uint32_t nsid) {
  co_await take_turn();
  Result<uint64_t> outcome;
  bool changed = false;
  for (const auto& shard_target : shard_targets_) {
    const auto rescanned = co_await call_on(home(), shard_target->reactor(), shard_target->rescan_namespace(nqn, nsid));
    if (!rescanned) {
      outcome = std::unexpected(rescanned.error());
      break;
    }
    outcome = rescanned->size_bytes;
    changed = changed || rescanned->changed;
  }
  if (changed) co_await announce(nqn, Notice::kNamespaceChanged, nsid);
  end_turn();
  co_return outcome;
}

Task<Result<void>> Target::set_ana_state(std::string nqn, PortIndex port, uint32_t group, AnaState state) {
  co_await take_turn();
  Result<void> outcome;
  const bool known_state = state == AnaState::kOptimized || state == AnaState::kNonOptimized ||
                           state == AnaState::kInaccessible || state == AnaState::kPersistentLoss ||
                           state == AnaState::kChange;
  if (find(nqn) == nullptr) {
    outcome = fail(Code::kNotFound, "set the ANA state of a subsystem");
  } else if (port >= listeners_.size() || group < 1 || group > kAnaGroupsMax || !known_state) {
    outcome = fail(Code::kInvalidArgument, "a port is one that listens, a group 1 to 128, a state one of ANA's");
  } else {
    for (const auto& shard_target : shard_targets_) {
      co_await call_on(home(), shard_target->reactor(), shard_target->set_ana_state(nqn, port, group, state));
    }
    co_await announce(nqn, Notice::kAnaChanged);
  }
  end_turn();
  co_return outcome;
}

Task<Result<void>> Target::fence(std::string nqn, uint32_t nsid) {
  return directory_.fenced().fence(std::move(nqn), nsid);
}

Task<Result<void>> Target::admit(std::string nqn, uint32_t nsid, CallerId caller) {
  return directory_.fenced().admit(std::move(nqn), nsid, caller);
}

CallerId Target::new_caller() { return directory_.fenced().new_caller(); }

Task<Result<Target::Listening>> Target::start_listener(ListenerOptions options) {
  co_await take_turn();
  Result<Listening> outcome;
  Result<std::unique_ptr<Listener>> listener = fail(Code::kResourceExhausted, "a target has at most 64 listeners");
  if (listeners_.size() < kListenersMax) listener = shards_.front()->network.listen(options.bind);
  if (!listener) {
    outcome = std::unexpected(listener.error());
  } else {
    Listening listening;
    listening.port = static_cast<PortIndex>(listeners_.size());
    listening.bound = (*listener)->address();
    listening.advertised = options.advertise.value_or(listening.bound);
    if (listening.advertised.port == 0) listening.advertised.port = listening.bound.port;
    listeners_.push_back(std::move(*listener));
    for (const auto& shard_target : shard_targets_) {
      co_await call_on(home(), shard_target->reactor(), shard_target->add_port({listening.advertised}));
    }
    accepting_.spawn(accept_loop(*listeners_.back(), listening.port));
    outcome = listening;
  }
  end_turn();
  co_return outcome;
}

Task<void> Target::accept_loop(Listener& listener, PortIndex port) {
  while (true) {
    Result<std::unique_ptr<Accepted>> accepted = co_await listener.accept();
    if (stopping_.is_cancelled()) co_return;
    if (!accepted) {
      if (accepted.error().code != Code::kResourceExhausted) co_return;  // the listener is gone
      log_warn("target.accept_failed", {{"port", listener.address().port}, {"error", to_string(accepted.error())}});
      // Out of descriptors, most likely: room comes when somebody leaves.
      if (!co_await sleep(home(), std::chrono::milliseconds(100), stopping_)) co_return;
      continue;
    }
    if (connections_ >= options_.connections_max) {
      log_warn("target.connection_refused", {{"reason", "too many connections"}, {"max", options_.connections_max}});
      continue;  // closed as it goes out of scope
    }
    ++connections_;
    // Round and round: a host's queues spread over the shards in the order in which they connect.
    ShardTarget& shard_target = *shard_targets_[next_shard_++ % shard_targets_.size()];
    serving_.spawn(serve(std::move(*accepted), shard_target, port));
  }
}

Task<void> Target::serve(std::unique_ptr<Accepted> accepted, ShardTarget& shard_target, PortIndex port) {
  co_await call_on(home(), shard_target.reactor(), shard_target.serve(std::move(accepted), port));
  --connections_;
}

Task<void> Target::stop_accepting() {
  stopping_.cancel();
  co_await take_turn();
  for (const auto& listener : listeners_) listener->close();
  co_await accepting_.close();
  end_turn();
}

Task<Result<void>> Target::stop() {
  co_await stop_accepting();
  co_await take_turn();
  listeners_.clear();
  directory_.begin_close();
  for (const auto& shard_target : shard_targets_) {
    co_await call_on(home(), shard_target->reactor(), shard_target->begin_close("the target stops"));
  }
  for (const auto& shard_target : shard_targets_) {
    co_await call_on(home(), shard_target->reactor(), shard_target->close());
  }
  co_await serving_.close();
  co_await directory_.close();
  co_await directory_.fenced().close();
  Result<void> outcome;
  for (const auto& shard_target : shard_targets_) {
    const Result<void> flushed = co_await call_on(home(), shard_target->reactor(), shard_target->flush_all());
    if (!flushed) outcome = flushed;
    co_await call_on(home(), shard_target->reactor(), shard_target->remove_everything());
  }
  end_turn();
  co_return outcome;
}

}  // namespace fairlead::target
