// EDGE: the roll-ups of one or several journals in SQLite, and the export files with their manifest.
//
//   journal segments ──reader──> RollupBuilder ──one transaction──> usage.sqlite: rows + watermark per stream
//                                                                        └──> export: CSV | NDJSON + manifest
//
// Rows and watermark (last entry read of each stream) change in one transaction: a crash at any moment neither loses nor
// repeats an entry. Running it twice, or on two machines, gives the same rows.
//
// Threads: a Book belongs to one thread; several processes may open the same file (WAL, busy time-out). Only one absorbs
// at a time: the second waits.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "metering/base/error.h"
#include "metering/base/time.h"
#include "metering/usage/entry_source.h"
#include "metering/usage/rollup.h"

namespace tollgate::billing {

struct Watermark {
  std::string journal;       // incarnation in hexadecimal
  std::string stream;
  std::uint64_t entry = 0;   // everything up to here is in the rows
};

class Book {
 public:
  static Result<std::unique_ptr<Book>> open(const std::string& file);
  ~Book();

  // Takes in everything a journal (journal::Reader of a directory) has beyond the watermark. Returns entries read. `progress` may be empty.
  Result<std::uint64_t> absorb(const usage::EntrySource& journal,
                               const std::function<void(std::uint64_t done, std::uint64_t total)>& progress);
  Result<std::vector<Watermark>> watermarks() const;

  // ---- export
  enum class Format : std::uint8_t { csv, ndjson };
  struct Period {
    std::int64_t first_hour = 0, end_hour = 0;   // [first, end)
    std::string name;                            // "2026-11", "2026-11-22", "2026-11-22T08"
  };
  static Result<Period> parse_period(std::string_view text);  // month, day or hour, UTC
  struct Exported {
    std::string file, manifest;
    std::uint64_t rows = 0, corrections = 0;
    std::string sha256;
    bool final_period = false;                   // every hour of it is closed
  };
  // Writes <name>.<csv|ndjson> and <file>.manifest.json into `directory`, each by an atomic rename. The first export of a period
  // that is over closes it: what comes later is a correction in the export of a later period. A repeated export of a closed
  // period writes the same bytes.
  Result<Exported> export_period(const Period& period, Format format, const std::string& directory, UnixTime now);

  // Billable units per (tenant, user, ...) for reconciliation.
  Result<usage::Rollup> rows(std::int64_t first_hour, std::int64_t end_hour) const;

 private:
  struct Impl;
  explicit Book(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tollgate::billing
