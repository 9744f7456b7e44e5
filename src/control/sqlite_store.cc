#include "control/sqlite_store.h"

#include <utility>

namespace fairlead::control {
namespace {

std::unexpected<Problem> shutting_down() { return problem(Code::kShuttingDown, "the store is shutting down"); }

}  // namespace

SqliteStore::SqliteStore(Shard& shard, SqliteStoreOptions options)
    : reactor_(shard.reactor),
      poll_(options.poll),
      gate_(shard.reactor),
      lost_(shard.reactor),
      committed_(shard.reactor),
      scope_(shard.reactor),
      database_({.path = std::move(options.path),
                 .address = std::move(options.address),
                 .now_seconds = options.now_seconds,
                 .busy_max = options.busy_max}),
      worker_(shard.reactor, "store") {}

SqliteStore::~SqliteStore() { FL_CHECK(gate_.is_closed()); }

Task<Outcome<std::unique_ptr<SqliteStore>>> SqliteStore::open(Shard& shard, SqliteStoreOptions options) {
  std::unique_ptr<SqliteStore> store(new SqliteStore(shard, std::move(options)));
  SqliteDatabase& database = store->database_;
  const Outcome<void> opened = co_await store->worker_.run([&database] { return database.open(); });
  if (!opened) {
    co_await store->stop();
    co_return std::unexpected(opened.error());
  }
  co_return store;
}

void SqliteStore::lose() {
  leads_ = false;
  lost_.set();
}

Task<Outcome<Leadership>> SqliteStore::lead() {
  FL_CHECK(!leads_);
  const auto pass = gate_.enter();
  if (!pass) co_return shutting_down();
  while (true) {
    const Outcome<std::optional<Leadership>> taken = co_await worker_.run([this] { return database_.try_to_lead(); });
    if (gate_.is_closed()) co_return shutting_down();
    if (!taken) co_return std::unexpected(taken.error());
    if (taken->has_value()) {
      leads_ = true;
      lost_.reset();
      co_return **taken;
    }
    (void)co_await sleep(reactor_, poll_, gate_.closing());
    if (gate_.is_closed()) co_return shutting_down();
  }
}

Task<Outcome<std::string>> SqliteStore::leader_address() {
  const auto pass = gate_.enter();
  if (!pass) co_return shutting_down();
  co_return co_await worker_.run([this] { return database_.leader_address(); });
}

Task<Outcome<std::vector<Entry>>> SqliteStore::list(std::string prefix) {
  const auto pass = gate_.enter();
  if (!pass) co_return shutting_down();
  co_return co_await worker_.run([this, &prefix] { return database_.list(prefix); });
}

Task<Outcome<uint64_t>> SqliteStore::commit(std::vector<Write> writes) {
  const auto pass = gate_.enter();
  if (!pass) co_return shutting_down();
  FL_CO_TRY_VOID(check(writes));
  if (!leads_) co_return problem(Code::kFenced, "this process does not lead");
  Waiting own{.writes = &writes};
  waiting_.push_back(&own);
  if (!std::exchange(is_committing_, true)) scope_.spawn(commit_waiting());
  while (!own.outcome) co_await committed_.wait();
  if (!*own.outcome && own.outcome->error().error.code == Code::kFenced) lose();
  co_return std::move(*own.outcome);
}

Task<void> SqliteStore::commit_waiting() {
  while (!waiting_.empty()) {
    const std::vector<Waiting*> those = std::exchange(waiting_, {});
    std::vector<const std::vector<Write>*> changes;
    for (const Waiting* const each : those) changes.push_back(each->writes);
    auto outcomes = co_await worker_.run([this, &changes] { return database_.commit(changes); });
    for (size_t i = 0; i < those.size(); ++i) those[i]->outcome = std::move(outcomes[i]);
    committed_.release_waiters();
  }
  is_committing_ = false;
}

Task<void> SqliteStore::stop() {
  lose();
  if (gate_.is_closed()) co_return;
  co_await gate_.close();
  co_await scope_.close();
  co_await worker_.run([this] { database_.close(); });
}

}  // namespace fairlead::control
