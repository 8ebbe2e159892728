// EDGE: the roll-ups of one or several journals in SQLite, and the export files with their manifest.
//
//   journal segments ──reader──> RollupBuilder ──one transaction──> usage.sqlite: rows, seats, watermarks
//                                                          └──> export: CSV | NDJSON, licences, manifest
//
// Rows, watermark (last entry read of each stream) and the calls begun and not ended by then change in one transaction: a
// crash at any moment neither loses nor repeats an entry. Running it twice, or on two machines, gives the same rows.
// A begin is kept in the book until its end comes, so the journal is never read twice and its segments may go.
//
// Closing. An hour is open until a period that contains it is exported after its end; then its rows never change. What is
// learned later of a closed hour is a correction: a row that waits, and stands in the file of the next period that closes
// any hour (filed under the last hour it closes). So every unit stands in exactly one row, every row under exactly one
// filed hour, and the files of any periods that do not overlap add up to the truth. docs/billing.md has the whole of it.
//
// Threads: a Book belongs to one thread; several processes may open the same file (WAL, busy time-out). Only one absorbs
// at a time, batch by batch: the second waits, then goes on where the first stopped.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "metering/base/error.h"
#include "metering/base/time.h"
#include "metering/licence/price.h"
#include "metering/usage/entry_source.h"
#include "metering/usage/export_row.h"
#include "metering/usage/rollup.h"

namespace tollgate::billing {

struct Watermark {
  std::string journal;  // incarnation in hexadecimal
  std::string stream;
  std::uint64_t entry = 0;  // everything up to here is in the rows, or kept as a call under way
};

// The name of a journal in books and files.
std::string journal_name(std::uint32_t incarnation);

class Book {
 public:
  // Makes the file if it is missing; its directory must exist. A file of a later version is refused.
  static Result<std::unique_ptr<Book>> open(const std::string& file,
                                            Milliseconds busy_timeout = Milliseconds(60'000));
  ~Book();

  // ---- in
  using Progress = std::function<void(std::uint64_t done, std::uint64_t total)>;
  // Makes every entry that the journal holds now durable (Journal::commit, or fdatasync of its segments). Without it, an
  // entry could be absorbed that a power loss takes from the journal, and its number used again for another one.
  using MakeDurable = std::function<Result<void>()>;
  // Takes in everything a journal (journal::Reader of a directory) has beyond the watermark. Returns entries read.
  // An error (damage, an older copy of the journal) leaves out what it names; everything that could be read has been
  // absorbed all the same, and missing() says what was not. `progress` and `make_durable` may be empty.
  Result<std::uint64_t> absorb(const usage::EntrySource& journal, const Progress& progress = {},
                               const MakeDurable& make_durable = {});
  Result<std::vector<Watermark>> watermarks() const;
  // Entries that no row contains: deleted before they were absorbed, damaged, not understood.
  using Missing = usage::Manifest::Missing;
  Result<std::vector<Missing>> missing() const;

  // ---- export
  enum class Format : std::uint8_t { csv, ndjson };
  struct Period {
    std::int64_t first_hour = 0, end_hour = 0;  // [first, end)
    std::string name;                           // "2026-11", "2026-11-22", "2026-11-22T08"
  };
  static Result<Period> parse_period(std::string_view text);  // month, day or hour, UTC
  struct Exported {
    std::string file, manifest;
    std::uint64_t rows = 0, corrections = 0;
    std::string sha256;
    bool final_period = false;  // every hour of it is closed
    std::uint64_t calls = 0;    // billable units in the file
    std::uint64_t missing = 0;  // places in the journals where entries are missing, by the manifest
    std::string licences;       // the file of licences
  };
  // Writes <name>.<csv|ndjson>, <name>.licences.<csv|ndjson> and <file>.manifest.json into `directory`, each by
  // an atomic rename, the manifest last: a file counts once the manifest names its sha256. The first export of a
  // period that is over closes it: what comes later is a correction in the export of a later period. A repeated
  // export of a closed period writes the same bytes; its file of licences has the prices of the first one.
  Result<Exported> export_period(const Period& period, Format format, const std::string& directory,
                                 UnixTime now, const std::vector<licence::Price>& prices = {});
  // Renders every final file again, without writing: one sentence for each whose bytes are not those of its first
  // export, or whose file in `directory` ("": not looked at) is not.
  Result<std::vector<std::string>> check_exports(const std::string& directory) const;

  // Rows by the hour of the calls, corrections added in, for reconciliation. `journals`: of these only; empty: of all.
  // `marks`: the watermarks of the same moment.
  Result<usage::Rollup> rows(std::int64_t first_hour, std::int64_t end_hour,
                             const std::vector<std::string>& journals = {},
                             std::vector<Watermark>* marks = nullptr) const;

  // Called at every step that a crash could fall on, with its name. For tests.
  void on_step(std::function<void(std::string_view step)> hook);
  // Entries absorbed in one transaction. For tests.
  void set_batch(std::uint64_t entries);

  struct Impl;

 private:
  explicit Book(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// "csv", "ndjson"
std::string_view name(Book::Format format);

}  // namespace tollgate::billing
