#include "metering/billing/database.h"

#include <fmt/format.h>
#include <sqlite3.h>

#include "metering/base/check.h"

namespace tollgate::billing {
namespace {

// Trying again helps when another process holds the file, or there is no room just now.
bool passing(int code) {
  const int primary = code & 0xff;
  return primary == SQLITE_BUSY || primary == SQLITE_LOCKED || primary == SQLITE_FULL ||
         primary == SQLITE_IOERR;
}

}  // namespace

Statement::~Statement() {
  sqlite3_finalize(statement_);
}

void Statement::check(int code) {
  if (code != SQLITE_OK) database_.failed(code);
}

Statement& Statement::bind(std::int64_t value) {
  if (statement_ != nullptr) check(sqlite3_bind_int64(statement_, next_++, value));
  return *this;
}

Statement& Statement::bind(std::string_view text) {
  if (statement_ != nullptr)
    check(sqlite3_bind_text64(statement_, next_++, text.data() == nullptr ? "" : text.data(), text.size(),
                              SQLITE_STATIC, SQLITE_UTF8));
  return *this;
}

Statement& Statement::bind_blob(std::string_view bytes) {
  if (statement_ != nullptr)
    check(sqlite3_bind_blob64(statement_, next_++, bytes.data() == nullptr ? "" : bytes.data(), bytes.size(),
                              SQLITE_STATIC));
  return *this;
}

bool Statement::step() {
  if (!database_.ok_ || statement_ == nullptr) return false;
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code != SQLITE_DONE) database_.failed(code);
  sqlite3_reset(statement_);
  return false;
}

std::int64_t Statement::integer(int column) const {
  return sqlite3_column_int64(statement_, column);
}

std::string Statement::text(int column) const {
  const void* bytes = sqlite3_column_blob(statement_, column);
  const auto size = static_cast<std::size_t>(sqlite3_column_bytes(statement_, column));
  return bytes == nullptr ? std::string() : std::string(static_cast<const char*>(bytes), size);
}

Result<std::unique_ptr<Database>> Database::open(const std::string& file, Milliseconds busy_timeout) {
  sqlite3* handle = nullptr;
  const int code = sqlite3_open_v2(file.c_str(), &handle,
                                   SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  std::unique_ptr<Database> database(new Database(handle, file));
  if (code != SQLITE_OK)
    return fail(Origin::self,
                fmt::format("{}: {}", file, handle == nullptr ? "no memory" : sqlite3_errmsg(handle)));
  sqlite3_extended_result_codes(handle, 1);
  sqlite3_busy_timeout(handle, static_cast<int>(busy_timeout.count()));
  // Asking is free; changing wants the file for oneself, which only its first opener can be sure of.
  Statement& mode = database->statement("PRAGMA journal_mode");
  const bool ready = mode.step() && mode.text(0) == "wal";
  mode.run();
  if (!ready) database->run("PRAGMA journal_mode=WAL");
  database->run("PRAGMA synchronous=FULL");
  database->run("PRAGMA temp_store=MEMORY");
  if (auto status = database->status(); !status) return std::unexpected(status.error());
  return database;
}

Database::~Database() {
  statements_.clear();
  sqlite3_close(handle_);
}

Statement& Database::statement(const char* sql) {
  auto& slot = statements_[sql];
  if (slot == nullptr || slot->statement_ == nullptr) {
    sqlite3_stmt* prepared = nullptr;
    const int code = sqlite3_prepare_v3(handle_, sql, -1, SQLITE_PREPARE_PERSISTENT, &prepared, nullptr);
    if (code != SQLITE_OK) failed(code);
    slot.reset(new Statement(*this, prepared));
  }
  if (slot->statement_ != nullptr) {
    sqlite3_reset(slot->statement_);
    sqlite3_clear_bindings(slot->statement_);
  }
  slot->next_ = 1;
  return *slot;
}

void Database::failed(int code) {
  if (!ok_) return;
  ok_ = false;
  error_ = Error{fmt::format("{}: {}", file_, sqlite3_errmsg(handle_)), Origin::self, passing(code)};
  if ((code & 0xff) == SQLITE_BUSY)
    error_.message = fmt::format("{}: another process is writing it and did not finish in time", file_);
}

Result<void> Database::status() const {
  if (ok_) return {};
  return std::unexpected(error_);
}

Database::Transaction::Transaction(Database& database, Kind kind) : database_(database) {
  CHECK(sqlite3_get_autocommit(database.handle_) != 0, "a transaction within a transaction");
  database_.ok_ = true;
  database_.run(kind == Kind::write ? "BEGIN IMMEDIATE" : "BEGIN");
}

Result<void> Database::Transaction::commit() {
  database_.run("COMMIT");
  if (database_.ok_) {
    open_ = false;
    return {};
  }
  return database_.status();
}

Database::Transaction::~Transaction() {
  if (!open_) return;
  // Statements that still read would keep the transaction alive.
  for (auto& [sql, statement] : database_.statements_)
    if (statement->statement_ != nullptr) sqlite3_reset(statement->statement_);
  if (sqlite3_get_autocommit(database_.handle_) == 0)
    sqlite3_exec(database_.handle_, "ROLLBACK", nullptr, nullptr, nullptr);
}

}  // namespace tollgate::billing
