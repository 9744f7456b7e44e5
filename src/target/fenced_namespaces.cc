#include "target/fenced_namespaces.h"

#include "async/call.h"
#include "base/check.h"
#include "target/shard_target.h"

namespace fairlead::target {

using nvme::StatusCode;

FencedNamespaces::FencedNamespaces(Reactor& home, const std::vector<std::unique_ptr<ShardTarget>>& shards)
    : home_(home), shards_(shards), scope_(home) {}

FencedNamespaces::~FencedNamespaces() { FL_CHECK(entries_.empty() && accounts_.empty()); }

// Namespaces.

FencedNamespaces::Entry* FencedNamespaces::find(const Key& key) const {
  const auto at = entries_.find(key);
  return at == entries_.end() || at->second->is_leaving ? nullptr : at->second.get();
}

void FencedNamespaces::add(const std::string& nqn, uint32_t nsid, std::shared_ptr<ControlHandler> handler) {
  const bool added = entries_.try_emplace({nqn, nsid}, std::make_unique<Entry>(home_, std::move(handler))).second;
  FL_CHECK(added);
}

void FencedNamespaces::leave(Entry& entry) {
  FL_CHECK(entry.users > 0);
  --entry.users;
  entry.changed.release_waiters();
}

Task<void> FencedNamespaces::remove(std::string nqn, uint32_t nsid) {
  const Key key{std::move(nqn), nsid};
  if (find(key) != nullptr) co_await remove_entry(key);
}

Task<void> FencedNamespaces::remove_entry(Key key) {
  Entry& entry = *entries_.at(key);
  entry.is_leaving = true;
  while (entry.users > 0) co_await entry.changed.wait();
  entries_.erase(key);
}

Task<void> FencedNamespaces::remove_all_of(std::string nqn) {
  std::vector<Key> keys;
  for (const auto& [key, entry] : entries_) {
    if (key.first == nqn) keys.push_back(key);
  }
  for (const Key& key : keys) co_await remove_entry(key);
}

Task<void> FencedNamespaces::close() {
  while (!entries_.empty()) co_await remove_entry(entries_.begin()->first);
  co_await scope_.close();
}

// Fences.

Task<void> FencedNamespaces::begin_change(Entry& entry) {
  ++entry.users;
  while (entry.is_changing) co_await entry.changed.wait();
  entry.is_changing = true;
}

void FencedNamespaces::end_change(Entry& entry) {
  entry.is_changing = false;
  leave(entry);
}

Task<void> FencedNamespaces::set_caller(const Key& key, CallerId caller) {
  for (const auto& shard : shards_) {
    co_await call_on(home_, shard->reactor(), shard->set_caller(key.first, key.second, caller));
  }
}

Task<Result<void>> FencedNamespaces::fence(std::string nqn, uint32_t nsid) {
  const Key key{std::move(nqn), nsid};
  Entry* const entry = find(key);
  if (entry == nullptr) co_return fail(Code::kNotFound, "fence a namespace");
  co_await begin_change(*entry);
  // First nobody comes in anywhere, then who is in goes: the slow part.
  co_await set_caller(key, kNobody);
  for (const auto& shard : shards_) {
    co_await call_on(home_, shard->reactor(), shard->drain_namespace(key.first, key.second));
  }
  entry->admitted = kNobody;
  end_change(*entry);
  co_return Result<void>();
}

Task<Result<void>> FencedNamespaces::admit(std::string nqn, uint32_t nsid, CallerId caller) {
  FL_CHECK(caller != kNobody);
  const Key key{std::move(nqn), nsid};
  Entry* const entry = find(key);
  if (entry == nullptr) co_return fail(Code::kNotFound, "admit a caller to a namespace");
  co_await begin_change(*entry);
  Result<void> outcome;
  if (entry->admitted != kNobody && entry->admitted != caller) {
    outcome = fail(Code::kBusy, "another caller is admitted to the namespace");
  } else {
    entry->admitted = caller;
    co_await set_caller(key, caller);
  }
  end_change(*entry);
  co_return outcome;
}

// Calls.

FencedNamespaces::Account& FencedNamespaces::account_of(CallerId caller) {
  std::shared_ptr<Account>& account = accounts_[caller];
  if (account == nullptr) account = std::make_shared<Account>(home_);
  return *account;
}

Task<nvme::StatusOr<nvme::ReplicationSent>> FencedNamespaces::send(Send command) {
  Entry* const entry = find({command.nqn, command.nsid});
  if (entry == nullptr) co_return nvme::reject(StatusCode::kInvalidNamespaceOrFormat);
  const CallerId caller = command.caller;
  if (account_of(caller).is_released) co_return std::unexpected(nvme::transient(StatusCode::kAbortedQueueDeleted));
  const std::shared_ptr<Account> account = accounts_.at(caller);
  if (account->calls >= kCallsMax || account->answers.size() >= kAnswersMax) {
    co_return std::unexpected(nvme::status_from_error({Code::kBusy, 0, ""}));
  }
  const auto call = std::make_shared<Call>();
  ++account->calls;
  ++entry->users;
  scope_.spawn(run(*entry, account, call, std::move(command)));
  while (!call->has_ended && !account->is_released) co_await account->changed.wait();
  if (!call->has_ended) co_return std::unexpected(nvme::transient(StatusCode::kAbortedQueueDeleted));
  co_return call->sent;
}

// The call itself, whoever waits for it. An answer that finds no room waits until one of those before it was fetched:
// what was executed is not to be refused afterwards.
Task<void> FencedNamespaces::run(Entry& entry, std::shared_ptr<Account> account, std::shared_ptr<Call> call,
                                 Send command) {
  const uint32_t nsid = command.nsid;
  std::vector<std::byte> answer = co_await entry.handler->call(command.caller, std::move(command.request));
  leave(entry);
  FL_CHECK(answer.size() <= nvme::kReplicationReceiveBytesMax);
  while (account->answers.size() >= kAnswersMax && !answer.empty() && !account->is_released) {
    co_await account->changed.wait();
  }
  if (!answer.empty() && !account->is_released) {
    do {
      ++account->last_call;
    } while (account->last_call == 0 || account->answers.contains(account->last_call));
    call->sent = {account->last_call, static_cast<uint32_t>(answer.size())};
    account->answers.emplace(account->last_call, Answer{nsid, std::move(answer)});
  }
  --account->calls;
  call->has_ended = true;
  account->changed.release_waiters();
}

Task<nvme::StatusOr<std::vector<std::byte>>> FencedNamespaces::receive(Receive command) {
  const auto account = accounts_.find(command.caller);
  if (account == accounts_.end()) co_return nvme::reject(StatusCode::kInvalidField);
  auto& answers = account->second->answers;
  const auto answer = answers.find(command.call);
  if (answer == answers.end() || answer->second.nsid != command.nsid) co_return nvme::reject(StatusCode::kInvalidField);
  if (answer->second.bytes.size() > command.room) co_return nvme::reject(StatusCode::kDataSglLengthInvalid);
  std::vector<std::byte> bytes = std::move(answer->second.bytes);
  answers.erase(answer);
  account->second->changed.release_waiters();
  co_return bytes;
}

Task<void> FencedNamespaces::release(CallerId caller) {
  Account& account = account_of(caller);
  account.is_released = true;
  account.answers.clear();
  account.changed.release_waiters();
  co_return;
}

void FencedNamespaces::end(CallerId caller, std::string_view nqn) {
  // Calls that still run have it in their hands.
  if (const auto at = accounts_.find(caller); at != accounts_.end()) {
    at->second->is_released = true;
    at->second->answers.clear();
    at->second->changed.release_waiters();
    accounts_.erase(at);
  }
  for (const auto& [key, entry] : entries_) {
    if (key.first == nqn) entry->handler->gone(caller);
  }
}

}  // namespace fairlead::target
