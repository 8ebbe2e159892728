// The billing files as text: one row in CSV or NDJSON, and the manifest beside each file. Pure: rows in, bytes out. The
// same rows give the same bytes: fixed column order, fixed number formats, no locale. docs/billing.md is the manual of
// the columns; its table is checked against columns() by a test.
//
// CSV is RFC 4180: comma, CRLF, a header line, text always in double quotes, numbers bare. A text that a spreadsheet would
// take for a formula (it begins with = + - @ TAB CR LF), or that begins with an apostrophe, gets one apostrophe in
// front: names come from tokens and paths, and the file is opened by people. A program takes one leading apostrophe off.
// NDJSON carries every text as it is (RFC 8259; bytes that are not UTF-8 become U+FFFD), one object a line, LF.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "metering/usage/rollup.h"

namespace tollgate::usage {

struct ExportRow {
  std::string id;  // what sinks recognise a repeat by: hash of identity()
  RollupKey key;
  std::int64_t filed_hour =
      0;  // hour in whose file the row stands: key.hour, or for a correction a later one
  RollupSums sums;
  bool correction() const { return filed_hour != key.hour; }
};

struct Column {
  std::string_view name;
  std::string_view meaning;
};
// In the order of the file. Columns are only ever added, at the end.
const std::vector<Column>& columns();

// The bytes whose hash is the id: what the row covers, and the journals (sorted) it was summed from, so that the rows of
// two proxies which are exported by themselves are never taken for repeats. NEVER CHANGE: sinks compare ids.
std::string identity(const RollupKey& key, std::int64_t filed_hour, const std::vector<std::string>& journals);

std::string csv_header();
// A text as CSV writes it, with its quotes and the guard against formulas.
void append_csv_text(std::string& out, std::string_view text);
void append_csv(std::string& out, const ExportRow& row);
void append_ndjson(std::string& out, const ExportRow& row);

// 1234567 -> "1.234567"
std::string seconds_text(std::uint64_t us);
// "2026-11-22T08:00:00Z"
std::string hour_text(std::int64_t hour);
std::string time_text(std::int64_t time_ms);  // "2026-11-22T08:00:00.000Z"

struct Manifest {
  std::string period;
  std::int64_t first_hour = 0, end_hour = 0;
  std::string format, file, sha256;
  std::uint64_t bytes = 0, rows = 0, corrections = 0;
  RollupSums sums;  // of all rows of the file
  bool final_period = false;
  std::int64_t closed_at_ms = 0;             // final: when the first export closed the period
  std::vector<std::int64_t> corrections_of;  // hours that the corrections are about, ascending
  struct Watermark {
    std::string journal, stream;
    std::uint64_t entry = 0;       // everything up to here is in the rows, or still under way
    std::uint64_t open_calls = 0;  // begun and not ended by then
  };
  std::vector<Watermark> watermarks;
  struct Missing {
    std::string journal, stream;
    std::uint64_t first = 0, last = 0;  // entries that could not be read
    std::string why;
  };
  std::vector<Missing> missing;
  // The file of licences beside it (licence_row.h).
  struct Licences {
    std::string file, sha256;
    std::uint64_t bytes = 0, rows = 0;
  } licences;
};
std::string manifest_json(const Manifest& manifest);

}  // namespace tollgate::usage
