#include "control/sqlite_database.h"

#include <algorithm>
#include <cerrno>
#include <fmt/format.h>
#include <sqlite3.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace fairlead::control {
namespace {

// How often, and how long apart, a change of the journal's mode is tried that others are in the way of.
constexpr int kModeTries = 100;
constexpr int kModePauseMs = 10;

constexpr int kApplication = 0x464c4344;  // "FLCD" in the file's head: control's data
constexpr int kVersion = 1;

Code code_of(sqlite3* handle, int extended) {
  switch (extended & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return Code::kTimedOut;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return Code::kCorrupt;
    case SQLITE_FULL:
      return Code::kNoSpace;
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_AUTH:
      return Code::kPermissionDenied;
    case SQLITE_CANTOPEN:
    case SQLITE_IOERR: {
      const int os_errno = sqlite3_system_errno(handle);
      if (os_errno == ENOSPC || os_errno == EDQUOT) return Code::kNoSpace;
      if (os_errno == EACCES || os_errno == EPERM || os_errno == EROFS) return Code::kPermissionDenied;
      if ((os_errno == ENOENT || os_errno == ENOTDIR) && (extended & 0xff) == SQLITE_CANTOPEN) return Code::kNotFound;
      return Code::kIo;
    }
    default:
      return Code::kInternal;
  }
}

const char* advice(Code code) {
  switch (code) {
    case Code::kTimedOut:
      return ": another process keeps it busy";
    case Code::kCorrupt:
      return ": it is no database or is damaged; put a backup in its place, or rebuild it from the engines' pools";
    case Code::kNoSpace:
      return ": make room on its disk";
    case Code::kPermissionDenied:
      return ": this process may not write the file or its folder; change their owner or mode, or name another file";
    case Code::kNotFound:
      return ": make its folder, or name another file";
    case Code::kIo:
      return ": its disk fails; see the system's log";
    default:
      return "";
  }
}

// A file that it may not make SQLite looks for once more, to read it, and then says that there is none.
bool has_folder(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  return ::access(folder.c_str(), F_OK) == 0;
}

std::unexpected<Problem> failed(sqlite3* handle, const std::string& path) {
  Code code = code_of(handle, sqlite3_extended_errcode(handle));
  int os_errno = sqlite3_system_errno(handle);
  if (code == Code::kNotFound && has_folder(path)) {
    code = Code::kPermissionDenied;
    os_errno = EACCES;
  }
  std::string reason = sqlite3_errmsg(handle);
  if (code != Code::kCorrupt && code != Code::kTimedOut && os_errno != 0) {
    reason = std::generic_category().message(os_errno);
  }
  return problem(code, fmt::format("the store {}: {}{}", path, reason, advice(code)));
}

class Statement {
 public:
  Statement(sqlite3* handle, std::string_view sql) {
    sqlite3_prepare_v2(handle, sql.data(), static_cast<int>(sql.size()), &statement_, nullptr);
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  // Borrows until the statement dies.
  Statement& text(int index, std::string_view value) {
    sqlite3_bind_text64(statement_, index, value.data(), value.size(), SQLITE_STATIC, SQLITE_UTF8);
    return *this;
  }
  Statement& number(int index, uint64_t value) {
    sqlite3_bind_int64(statement_, index, static_cast<sqlite3_int64>(value));
    return *this;
  }
  // SQLITE_ROW, SQLITE_DONE or an error. A statement that could not be prepared is an error too.
  int step() { return sqlite3_step(statement_); }
  std::string text_at(int column) {
    const auto* const bytes = static_cast<const char*>(sqlite3_column_blob(statement_, column));
    return bytes == nullptr ? std::string()
                            : std::string(bytes, static_cast<size_t>(sqlite3_column_bytes(statement_, column)));
  }
  uint64_t number_at(int column) { return static_cast<uint64_t>(sqlite3_column_int64(statement_, column)); }

 private:
  sqlite3_stmt* statement_ = nullptr;
};

}  // namespace

void SqliteDatabase::Closer::operator()(sqlite3* handle) const { sqlite3_close(handle); }

Outcome<SqliteDatabase::Handle> SqliteDatabase::open_handle(const std::string& path) const {
  sqlite3* raw = nullptr;
  const int opened = sqlite3_open_v2(
      path.c_str(), &raw, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
      nullptr);
  Handle handle(raw);
  if (raw == nullptr) return problem(Code::kResourceExhausted, fmt::format("the store {}: no memory", path));
  if (opened != SQLITE_OK) return failed(raw, path);
  // SQLite opens what it may only read without a word.
  if (sqlite3_db_readonly(raw, "main") == 1) {
    return problem(Code::kPermissionDenied,
                   fmt::format("the store {} is read-only{}", path, advice(Code::kPermissionDenied)));
  }
  sqlite3_busy_timeout(
      raw, static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(options_.busy_max).count()));
  return handle;
}

Outcome<void> SqliteDatabase::execute(const char* sql) {
  Statement statement(handle_.get(), sql);
  int result = SQLITE_ROW;
  while (result == SQLITE_ROW) result = statement.step();
  if (result != SQLITE_DONE) return failed(handle_.get(), options_.path);
  return {};
}

template <typename Work>
auto SqliteDatabase::in_transaction(Work work) -> decltype(work()) {
  FL_TRY_VOID(execute("BEGIN IMMEDIATE"));
  auto result = work();
  if (result) {
    if (const Outcome<void> committed = execute("COMMIT"); !committed) result = std::unexpected(committed.error());
  }
  // Some failures have taken it back already.
  if (!result && sqlite3_get_autocommit(handle_.get()) == 0) (void)execute("ROLLBACK");
  return result;
}

Outcome<void> SqliteDatabase::open() {
  Outcome<Handle> handle = open_handle(options_.path);
  if (!handle) return std::unexpected(handle.error());
  handle_ = std::move(*handle);
  Outcome<void> prepared = prepare();
  if (!prepared) handle_.reset();
  return prepared;
}

Outcome<bool> SqliteDatabase::is_new() {
  Statement statement(handle_.get(),
                      "SELECT (SELECT * FROM pragma_application_id), (SELECT * FROM pragma_user_version),"
                      " (SELECT count(*) FROM sqlite_schema)");
  if (statement.step() != SQLITE_ROW) return failed(handle_.get(), options_.path);
  const uint64_t application = statement.number_at(0);
  const uint64_t version = statement.number_at(1);
  if (application == 0 && version == 0 && statement.number_at(2) == 0) return true;
  if (application != kApplication) {
    return problem(Code::kNotSupported,
                   fmt::format("the store {}: it is a database of another program; name another file", options_.path));
  }
  if (version > kVersion) {
    return problem(Code::kNotSupported,
                   fmt::format("the store {}: it has version {}, this program knows {} at most; use a newer one",
                               options_.path, version, kVersion));
  }
  return false;
}

// Looks before it changes anything: another program's file stays as it is.
Outcome<void> SqliteDatabase::prepare() {
  FL_TRY(const bool is_made_now, is_new());
  // SQLite itself waits for nobody here: of several that begin at once all but one are refused.
  Outcome<void> is_wal = execute("PRAGMA journal_mode = WAL");
  for (int i = 0; i < kModeTries && !is_wal && sqlite3_errcode(handle_.get()) == SQLITE_BUSY; ++i) {
    sqlite3_sleep(kModePauseMs);
    is_wal = execute("PRAGMA journal_mode = WAL");
  }
  FL_TRY_VOID(is_wal);
  FL_TRY_VOID(execute("PRAGMA synchronous = FULL"));
  if (!is_made_now) return {};
  return in_transaction([this]() -> Outcome<void> {
    // Another process may have been quicker.
    FL_TRY(const bool is_still_new, is_new());
    return is_still_new ? make_tables() : Outcome<void>();
  });
}

Outcome<void> SqliteDatabase::make_tables() {
  FL_TRY_VOID(
      execute("CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 0), epoch INTEGER NOT NULL,"
              " leaders INTEGER NOT NULL, revision INTEGER NOT NULL, address TEXT NOT NULL)"));
  FL_TRY_VOID(
      execute("CREATE TABLE entries (key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL, revision INTEGER NOT NULL)"));
  Statement insert(handle_.get(), "INSERT INTO meta VALUES (0, ?, 0, 0, '')");
  if (insert.number(1, options_.now_seconds).step() != SQLITE_DONE) return failed(handle_.get(), options_.path);
  FL_TRY_VOID(execute(fmt::format("PRAGMA application_id = {}", kApplication).c_str()));
  return execute(fmt::format("PRAGMA user_version = {}", kVersion).c_str());
}

void SqliteDatabase::close() {
  if (handle_ && lock_) {
    Statement forget(handle_.get(), "UPDATE meta SET address = '' WHERE leaders = ?");
    (void)forget.number(1, leader_).step();
  }
  handle_.reset();
  lock_.reset();
}

Outcome<SqliteDatabase::Meta> SqliteDatabase::read_meta() {
  Statement statement(handle_.get(), "SELECT epoch, leaders, revision FROM meta");
  const int result = statement.step();
  if (result == SQLITE_ROW) {
    return Meta{.epoch = static_cast<uint32_t>(statement.number_at(0)),
                .leaders = static_cast<uint32_t>(statement.number_at(1)),
                .revision = statement.number_at(2)};
  }
  if (result != SQLITE_DONE) return failed(handle_.get(), options_.path);
  return problem(Code::kCorrupt,
                 fmt::format("the store {}: its line in `meta` is missing{}", options_.path, advice(Code::kCorrupt)));
}

Outcome<std::optional<Leadership>> SqliteDatabase::try_to_lead() {
  const std::string path = options_.path + ".lock";
  Outcome<Handle> lock = open_handle(path);
  if (!lock) return std::unexpected(lock.error());
  // Whoever has it keeps it: waiting is the caller's.
  sqlite3_busy_timeout(lock->get(), 0);
  const int locked = Statement(lock->get(), "BEGIN EXCLUSIVE").step();
  if ((locked & 0xff) == SQLITE_BUSY) return std::nullopt;
  if (locked != SQLITE_DONE) return failed(lock->get(), path);
  const Outcome<Leadership> counted = in_transaction([this] { return count_leader(); });
  if (!counted) return std::unexpected(counted.error());
  lock_ = std::move(*lock);
  leader_ = static_cast<uint32_t>(counted->number);
  return *counted;
}

Outcome<Leadership> SqliteDatabase::count_leader() {
  FL_TRY(const Meta meta, read_meta());
  const uint64_t leaders = uint64_t{meta.leaders} + 1;
  Statement update(handle_.get(), "UPDATE meta SET leaders = ?, address = ?");
  if (update.number(1, leaders).text(2, options_.address).step() != SQLITE_DONE) {
    return failed(handle_.get(), options_.path);
  }
  return Leadership{.number = (uint64_t{meta.epoch} << 32) + leaders, .epoch = meta.epoch};
}

Outcome<std::string> SqliteDatabase::leader_address() {
  Statement statement(handle_.get(), "SELECT address FROM meta");
  if (statement.step() != SQLITE_ROW) return failed(handle_.get(), options_.path);
  return statement.text_at(0);
}

Outcome<std::vector<Entry>> SqliteDatabase::list(const std::string& prefix) {
  const std::string end = end_of_prefix(prefix);
  Statement statement(handle_.get(),
                      end.empty() ? "SELECT key, value, revision FROM entries WHERE key >= ? ORDER BY key"
                                  : "SELECT key, value, revision FROM entries WHERE key >= ? AND key < ? ORDER BY key");
  statement.text(1, prefix);
  if (!end.empty()) statement.text(2, end);
  std::vector<Entry> entries;
  int result = statement.step();
  for (; result == SQLITE_ROW; result = statement.step()) {
    entries.push_back({.key = statement.text_at(0), .value = statement.text_at(1), .revision = statement.number_at(2)});
  }
  if (result != SQLITE_DONE) return failed(handle_.get(), options_.path);
  return entries;
}

std::vector<Outcome<uint64_t>> SqliteDatabase::commit(std::span<const std::vector<Write>* const> changes) {
  std::vector<Outcome<uint64_t>> outcomes;
  const Outcome<void> committed = in_transaction([&]() -> Outcome<void> {
    for (const std::vector<Write>* const writes : changes) {
      outcomes.push_back(commit_one(*writes));
      // Some failures, of the disk for example, end the transaction.
      if (sqlite3_get_autocommit(handle_.get()) != 0) return std::unexpected(outcomes.back().error());
    }
    return {};
  });
  if (!committed) outcomes.assign(changes.size(), std::unexpected(committed.error()));
  const auto is_fenced = [](const auto& outcome) { return !outcome && outcome.error().error.code == Code::kFenced; };
  if (std::ranges::any_of(outcomes, is_fenced)) lock_.reset();
  return outcomes;
}

Outcome<uint64_t> SqliteDatabase::commit_one(const std::vector<Write>& writes) {
  FL_TRY_VOID(execute("SAVEPOINT change"));
  Outcome<uint64_t> revision = commit_locked(writes);
  if (!revision) (void)execute("ROLLBACK TO change");
  if (const Outcome<void> released = execute("RELEASE change"); revision && !released) {
    return std::unexpected(released.error());
  }
  return revision;
}

Outcome<uint64_t> SqliteDatabase::commit_locked(const std::vector<Write>& writes) {
  FL_TRY(const Meta meta, read_meta());
  if (!lock_ || meta.leaders != leader_) {
    return problem(Code::kFenced, fmt::format("the store {}: another process leads now", options_.path));
  }
  for (const Write& write : writes) FL_TRY_VOID(check_expectation(write));
  const uint64_t revision = meta.revision + 1;
  for (const Write& write : writes) FL_TRY_VOID(apply(write, revision));
  Statement update(handle_.get(), "UPDATE meta SET revision = ?");
  if (update.number(1, revision).step() != SQLITE_DONE) return failed(handle_.get(), options_.path);
  return revision;
}

Outcome<void> SqliteDatabase::check_expectation(const Write& write) {
  if (!write.expected) return {};
  Statement statement(handle_.get(), "SELECT revision FROM entries WHERE key = ?");
  const int result = statement.text(1, write.key).step();
  if (result != SQLITE_ROW && result != SQLITE_DONE) return failed(handle_.get(), options_.path);
  const uint64_t revision = result == SQLITE_ROW ? statement.number_at(0) : 0;
  if (revision == *write.expected) return {};
  return problem_of({.code = Code::kMiscompare}, write.key);
}

Outcome<void> SqliteDatabase::apply(const Write& write, uint64_t revision) {
  Statement statement(handle_.get(), write.value ? "INSERT INTO entries VALUES (?1, ?2, ?3) ON CONFLICT (key)"
                                                   " DO UPDATE SET value = excluded.value, revision = excluded.revision"
                                                 : "DELETE FROM entries WHERE key = ?1");
  statement.text(1, write.key);
  if (write.value) statement.text(2, *write.value).number(3, revision);
  if (statement.step() != SQLITE_DONE) return failed(handle_.get(), options_.path);
  return {};
}

}  // namespace fairlead::control
