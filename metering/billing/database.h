// SQLite for this room: one connection, its statements, and errors that are looked at once, at the end.
//
//   Database::Transaction change(database);            // BEGIN IMMEDIATE: waits for another writer, at most busy_timeout
//   Statement& put = database.statement("INSERT INTO t VALUES (?, ?)");
//   put.bind("ann").bind(3).run();
//   auto done = change.commit();                       // an error of any statement since the beginning, else durable
//
// The first error sticks until the next Transaction: every later step does nothing, commit() returns it and nothing was
// changed. A Transaction that is not committed rolls back.
// WAL with synchronous=FULL: a commit that returned survives power loss; readers never wait for the writer.
// One thread. Statements live as long as the database; a statement is reset when it is asked for.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "metering/base/error.h"
#include "metering/base/time.h"

struct sqlite3;
struct sqlite3_stmt;

namespace tollgate::billing {

class Database;

class Statement {
 public:
  ~Statement();
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  // Parameters from left to right. Texts and blobs must live until the next step().
  Statement& bind(std::int64_t value);
  Statement& bind(std::uint64_t value) { return bind(static_cast<std::int64_t>(value)); }
  Statement& bind(std::string_view text);
  Statement& bind_blob(std::string_view bytes);
  bool step();  // true: a row stands ready; false: the end, or an error
  void run() {
    while (step()) continue;
  }

  std::int64_t integer(int column) const;
  std::uint64_t number(int column) const { return static_cast<std::uint64_t>(integer(column)); }
  std::string text(int column) const;  // or blob

 private:
  friend class Database;
  Statement(Database& database, sqlite3_stmt* statement) : database_(database), statement_(statement) {}
  void check(int code);
  Database& database_;
  sqlite3_stmt* statement_;
  int next_ = 1;
};

class Database {
 public:
  static Result<std::unique_ptr<Database>> open(const std::string& file, Milliseconds busy_timeout);
  ~Database();

  Statement& statement(const char* sql);  // prepared once; `sql` must be a literal
  void run(const char* sql) { statement(sql).run(); }
  Result<void> status() const;  // the error that sticks

  class Transaction {
   public:
    enum class Kind : std::uint8_t { write, read };  // read: one unchanging view of everything
    explicit Transaction(Database& database, Kind kind = Kind::write);
    ~Transaction();
    Transaction(const Transaction&) = delete;
    Transaction& operator=(const Transaction&) = delete;
    Result<void> commit();

   private:
    Database& database_;
    bool open_ = true;
  };

 private:
  friend class Statement;
  Database(sqlite3* handle, std::string file) : handle_(handle), file_(std::move(file)) {}
  void failed(int code);
  sqlite3* handle_;
  std::string file_;
  std::unordered_map<const char*, std::unique_ptr<Statement>> statements_;
  bool ok_ = true;
  Error error_;
};

}  // namespace tollgate::billing
