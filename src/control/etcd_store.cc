#include "control/etcd_store.h"

#include <algorithm>
#include <charconv>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/log.h"

namespace fairlead::control {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kMargin = milliseconds(500);
constexpr Duration kRetry = milliseconds(200);
constexpr size_t kPage = 500;
constexpr int kListAttempts = 3;

std::unexpected<Problem> shutting_down() { return problem(Code::kShuttingDown, "the store is shutting down"); }

std::optional<uint32_t> parse_number(std::string_view text) {
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

Outcome<std::unique_ptr<EtcdStore>> EtcdStore::make(Shard& shard, EtcdStoreOptions options) {
  if (options.prefix.empty() || !options.prefix.ends_with('/')) {
    return problem(Code::kInvalidArgument, "the prefix of the keys in etcd ends with a slash");
  }
  if (options.lease_seconds < 2) {
    return problem(Code::kInvalidArgument, "a leader's lease in etcd has 2 seconds at least");
  }
  FL_TRY(auto data, EtcdClient::make(options.client));
  // Quick to try the next endpoint: the lease runs.
  EtcdClientOptions quick = options.client;
  quick.connect_max = std::min<Duration>(quick.connect_max, milliseconds(500));
  quick.answer_max = std::min<Duration>(quick.answer_max, milliseconds(700));
  FL_TRY(auto keeper, EtcdClient::make(quick));
  return std::unique_ptr<EtcdStore>(new EtcdStore(shard, std::move(options), std::move(data), std::move(keeper)));
}

EtcdStore::EtcdStore(Shard& shard, EtcdStoreOptions options, std::unique_ptr<EtcdClient> data,
                     std::unique_ptr<EtcdClient> keeper)
    : reactor_(shard.reactor),
      clock_(shard.clock),
      options_(std::move(options)),
      entries_prefix_(options_.prefix + "entries/"),
      leader_key_(options_.prefix + "meta/leader"),
      leaders_key_(options_.prefix + "meta/leaders"),
      epoch_key_(options_.prefix + "meta/epoch"),
      gate_(shard.reactor),
      lease_(shard),
      keeping_(shard.reactor),
      data_client_(std::move(data)),
      keeper_client_(std::move(keeper)),
      data_(shard.reactor, "store"),
      keeper_(shard.reactor, "store-lease") {}

EtcdStore::~EtcdStore() { FL_CHECK(gate_.is_closed()); }

Instant EtcdStore::sure_until(Instant asked, uint32_t lease_seconds) const {
  return asked + seconds(std::min(lease_seconds, options_.lease_seconds)) - kMargin;
}

// ---- Leading.

Task<Outcome<Leadership>> EtcdStore::lead() {
  FL_CHECK(!leads());
  const auto pass = gate_.enter();
  if (!pass) co_return shutting_down();
  while (true) {
    const Instant asked = clock_.now();
    const uint64_t old_lease = std::exchange(reign_.lease, 0);
    const Outcome<std::optional<Reign>> taken =
        co_await data_.run([this, old_lease] { return try_to_lead(old_lease); });
    if (taken && taken->has_value()) reign_ = **taken;
    if (gate_.is_closed()) co_return shutting_down();
    if (!taken) co_return std::unexpected(taken.error());
    // When all of that took too long, the next turn gives it back.
    if (taken->has_value() && clock_.now() < sure_until(asked, reign_.seconds)) {
      lease_.begin(sure_until(asked, reign_.seconds));
      keeping_.spawn(keep(reign_));
      co_return reign_.leadership;
    }
    (void)co_await sleep(reactor_, options_.poll, gate_.closing());
    if (gate_.is_closed()) co_return shutting_down();
  }
}

// Until this reign has ended.
Task<void> EtcdStore::keep(Reign reign) {
  const Duration third = Duration(seconds(std::min(reign.seconds, options_.lease_seconds))) / 3;
  Duration pause = third;
  while (true) {
    (void)co_await sleep(reactor_, pause, gate_.closing());
    if (!leads() || reign_.lease != reign.lease) co_return;
    const Instant asked = clock_.now();
    const Outcome<uint32_t> kept =
        co_await keeper_.run([this, &reign] { return keeper_client_->keep_alive(reign.lease); });
    if (reign_.lease != reign.lease) co_return;
    pause = kept ? third : kRetry;
    if (!kept) {
      log_warn("store.lease_not_kept", {{"reason", to_string(kept.error())}});
    } else if (*kept == 0) {
      lease_.end();
    } else {
      lease_.extend(sure_until(asked, *kept));
    }
  }
}

Outcome<EtcdStore::Meta> EtcdStore::read_meta() {
  const std::string prefix = options_.prefix + "meta/";
  FL_TRY(const EtcdRangeAnswer answer, data_client_->range({.key = prefix, .end = end_of_prefix(prefix)}));
  Meta meta;
  for (const EtcdEntry& entry : answer.entries) {
    if (entry.key == leader_key_) meta.is_led = true;
    const bool is_leaders = entry.key == leaders_key_;
    if (!is_leaders && entry.key != epoch_key_) continue;
    const std::optional<uint32_t> value = parse_number(entry.value);
    if (!value) {
      return problem(Code::kCorrupt, fmt::format("the key {} in etcd is no number: restore etcd from a backup, or name "
                                                 "another prefix and rebuild the store from the engines' pools",
                                                 entry.key));
    }
    (is_leaders ? meta.leaders : meta.epoch) = *value;
    (is_leaders ? meta.leaders_revision : meta.epoch_revision) = entry.mod_revision;
  }
  return meta;
}

// The number rises with the key's creation, or neither happens.
EtcdTransaction EtcdStore::leader_transaction(const Meta& meta, const Reign& reign) const {
  using What = EtcdCompare::What;
  const nlohmann::json leader = {{"number", std::to_string(reign.leadership.number)}, {"address", options_.address}};
  EtcdTransaction transaction;
  transaction.compares = {
      {.key = leader_key_, .what = What::kCreateRevision, .revision = 0},
      {.key = leaders_key_, .what = What::kModRevision, .revision = meta.leaders_revision},
      {.key = epoch_key_, .what = What::kModRevision, .revision = meta.epoch_revision},
  };
  transaction.writes = {
      {.key = leader_key_,
       .value = leader.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace),
       .lease = reign.lease},
      {.key = leaders_key_, .value = std::to_string(meta.leaders + 1)},
  };
  if (meta.epoch_revision == 0) {
    transaction.writes.push_back({.key = epoch_key_, .value = std::to_string(reign.leadership.epoch)});
  }
  return transaction;
}

Outcome<std::optional<EtcdStore::Reign>> EtcdStore::try_to_lead(uint64_t old_lease) {
  if (old_lease != 0) (void)data_client_->revoke(old_lease);
  FL_TRY(const Meta meta, read_meta());
  if (meta.is_led) return std::nullopt;
  FL_TRY(const EtcdLease lease, data_client_->grant(options_.lease_seconds));
  Reign reign;
  reign.lease = lease.id;
  reign.seconds = lease.seconds;
  reign.leadership.epoch = meta.epoch_revision == 0 ? options_.now_seconds : meta.epoch;
  reign.leadership.number = (uint64_t{reign.leadership.epoch} << 32) + meta.leaders + 1;
  const Outcome<EtcdTransactionAnswer> answer = data_client_->commit(leader_transaction(meta, reign));
  if (answer && answer->is_done) {
    reign.create_revision = answer->revision;
    return reign;
  }
  // Also when nobody knows whether it was done: then it leads no more.
  (void)data_client_->revoke(lease.id);
  if (!answer) return std::unexpected(answer.error());
  return std::nullopt;
}

Task<Outcome<std::string>> EtcdStore::leader_address() {
  const auto pass = gate_.enter();
  if (!pass) co_return shutting_down();
  co_return co_await data_.run([this] { return read_leader_address(); });
}

Outcome<std::string> EtcdStore::read_leader_address() {
  FL_TRY(const EtcdRangeAnswer answer, data_client_->range({.key = leader_key_}));
  if (answer.entries.empty()) return "";
  const nlohmann::json leader = nlohmann::json::parse(answer.entries[0].value, nullptr, false);
  if (!leader.is_object() || !leader.contains("address") || !leader["address"].is_string()) return "";
  return leader["address"].get<std::string>();
}

Task<void> EtcdStore::stop() {
  if (gate_.is_closed()) co_return;
  lease_.end();
  co_await gate_.close();
  co_await keeping_.close();
  // When that fails it runs out.
  const uint64_t lease = std::exchange(reign_.lease, 0);
  if (lease != 0) co_await keeper_.run([this, lease] { (void)keeper_client_->revoke(lease); });
}

// ---- Reading and writing.

Task<Outcome<std::vector<Entry>>> EtcdStore::list(std::string prefix) {
  const auto pass = gate_.enter();
  if (!pass) co_return shutting_down();
  for (int attempt = 1;; ++attempt) {
    Outcome<std::vector<Entry>> entries = co_await data_.run([this, &prefix] { return read_all(prefix); });
    if (entries || entries.error().error.code != Code::kOutOfRange) co_return entries;
    // What was being read was compacted meanwhile.
    if (attempt == kListAttempts) co_return problem(Code::kTimedOut, "etcd compacts quicker than it can be read");
  }
}

Outcome<std::vector<Entry>> EtcdStore::read_all(const std::string& prefix) {
  EtcdRange range{.key = entries_prefix_ + prefix, .end = end_of_prefix(entries_prefix_ + prefix), .limit = kPage};
  std::vector<Entry> entries;
  while (true) {
    FL_TRY(EtcdRangeAnswer answer, data_client_->range(range));
    for (EtcdEntry& entry : answer.entries) {
      entries.push_back({.key = entry.key.substr(entries_prefix_.size()),
                         .value = std::move(entry.value),
                         .revision = entry.mod_revision});
    }
    if (!answer.has_more || answer.entries.empty()) return entries;
    range.key = answer.entries.back().key + '\0';
    range.revision = answer.revision;
  }
}

Task<Outcome<uint64_t>> EtcdStore::commit(std::vector<Write> writes) {
  const auto pass = gate_.enter();
  if (!pass) co_return shutting_down();
  FL_CO_TRY_VOID(check(writes));
  if (!leads()) co_return problem(Code::kFenced, "this process does not lead");
  const uint64_t lease = reign_.lease;
  const uint64_t create_revision = reign_.create_revision;
  const Outcome<uint64_t> revision =
      co_await data_.run([this, &writes, create_revision] { return commit_now(std::move(writes), create_revision); });
  if (!revision && revision.error().error.code == Code::kFenced && reign_.lease == lease) lease_.end();
  co_return revision;
}

Outcome<uint64_t> EtcdStore::commit_now(std::vector<Write> writes, uint64_t create_revision) {
  using What = EtcdCompare::What;
  EtcdTransaction transaction;
  transaction.compares.push_back({.key = leader_key_, .what = What::kCreateRevision, .revision = create_revision});
  for (Write& write : writes) {
    const std::string key = entries_prefix_ + write.key;
    if (write.expected) {
      transaction.compares.push_back({.key = key, .what = What::kModRevision, .revision = *write.expected});
    }
    transaction.writes.push_back({.key = key, .value = std::move(write.value)});
  }
  for (const EtcdCompare& compare : transaction.compares) transaction.otherwise.push_back(compare.key);
  FL_TRY(const EtcdTransactionAnswer answer, data_client_->commit(transaction));
  if (answer.is_done) return answer.revision;
  if (!answer.otherwise[0] || answer.otherwise[0]->create_revision != create_revision) {
    return problem(Code::kFenced, "another process leads now");
  }
  for (size_t i = 1; i < answer.otherwise.size(); ++i) {
    const uint64_t found = answer.otherwise[i] ? answer.otherwise[i]->mod_revision : 0;
    if (found == transaction.compares[i].revision) continue;
    return problem_of({.code = Code::kMiscompare}, transaction.compares[i].key.substr(entries_prefix_.size()));
  }
  return problem(Code::kProtocol, "etcd refused a transaction all of whose conditions hold");
}

}  // namespace fairlead::control
