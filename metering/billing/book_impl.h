// What a Book keeps, and the tables of its file. NEVER CHANGE a column: books are opened by later versions, which may add
// tables and columns under a higher user_version.
//
//   watermarks   journal, stream -> last entry absorbed, and its fingerprint (is it still the same journal?)
//   open_calls   journal, stream, call -> number and bytes of its call_begin; its end has not been read yet
//   rows         filed hour, key, journal -> sums. filed = hour: as billed first. filed = a later hour: a correction in
//                that hour's file. filed = -1: a correction that waits for a period to be closed
//   closings     periods exported after their end: their hours are closed. With the watermarks and gaps of that moment
//   missing      entries that could not be absorbed, and why
//   exports      hash of each final file
//   users        tenant, user -> organization, in the latest hour with a row of theirs
//   seats        who took and left a seat, as the journals say (usage::SeatEntry)
//   licences     rows of the file of licences of each closed period; nothing changes them later
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "metering/billing/billing.h"
#include "metering/billing/database.h"
#include "metering/usage/licence_row.h"

namespace tollgate::billing {

inline constexpr std::int64_t kWaiting = -1;  // rows.filed

// Columns of the sums, in the order in which they are read and bound.
#define TOLLGATE_SUM_COLUMNS                                                                             \
  "calls, interrupted, degraded, errors, free, given_back, void_charged, void_maybe, denied, bytes_in, " \
  "bytes_out, backend_us, latency"

usage::RollupSums read_sums(const Statement& row, int first_column);

struct Book::Impl {
  std::unique_ptr<Database> database;
  std::function<void(std::string_view)> step_hook;
  std::uint64_t batch = 100'000;

  void step(std::string_view name) const {
    if (step_hook) step_hook(name);
  }

  // ---- book.cc
  struct Mark {
    std::uint64_t entry = 0;
    std::uint32_t fingerprint = 0;
  };
  Mark mark(std::string_view journal, std::string_view stream);
  void note_missing(std::string_view journal, std::string_view stream, std::uint64_t first,
                    std::uint64_t last, std::string_view why);
  struct Hours {
    std::int64_t first = 0, end = 0;
  };
  std::vector<Hours> closed_hours();
  void add_rows(const std::string& journal, const usage::Rollup& rollup);

  // ---- absorb.cc
  struct Stream;
  Result<void> absorb_stream(const usage::EntrySource& source, const std::string& journal,
                             const usage::EntrySource::StreamInfo& info,
                             const std::function<void(std::uint64_t entries)>& read);

  // ---- book_export.cc
  struct Rendering;
  void close(const Period& period, std::int64_t now_ms);
  bool closed(const std::string& name);
  // Remembers the hash of a final file; an error when it was another one before.
  Result<void> as_exported_first(const usage::Manifest& manifest);
  Result<void> as_exported_first(const std::string& period, const std::string& format,
                                 const std::string& file, const std::string& sha256, std::uint64_t rows);
  // Within a transaction. Hands out the bytes of the file, piece by piece; the manifest lacks file, bytes and hash.
  usage::Manifest render(const Period& period, Format format, bool final_period,
                         const std::function<void(std::string_view)>& sink);

  // ---- book_licences.cc
  // The rows of a period as the book has them now.
  std::vector<usage::LicenceRow> count_licences(const Period& period,
                                                const std::vector<licence::Price>& prices);
  // Counts those of a closed period, unless that was done: its first export says it once and for all.
  void keep_licences(const Period& period, const std::vector<licence::Price>& prices);
  std::vector<usage::LicenceRow> kept_licences(const std::string& name);
};

}  // namespace tollgate::billing
