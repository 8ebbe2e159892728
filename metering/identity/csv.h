// Tables that an operator writes as CSV (RFC 4180), row by row.
//
//   user,organization,license          the first row names the columns, in any order and case
//   ann,"Acme, Ltd",customer portal    comma, double quotes, line breaks inside quotes; CRLF or LF
//
// A UTF-8 byte order mark and empty lines are skipped. Errors (origin config) name the line on which the row
// starts, e.g. "line 7: a quote is never closed". Whoever goes on after one finds the row that begins on the
// next line.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/error.h"

namespace tollgate::identity {

class CsvTable {
 public:
  // columns: the names that are known, in the caller's order, lower case; the first is required, others than
  // these are errors. The text outlives the table.
  static Result<CsvTable> open(std::string_view text, std::vector<std::string_view> columns);

  // Goes to the next row; false: there is none. A row with another number of cells than the first is an
  // error.
  Result<bool> next();
  // Of the row that next() went to: without blanks around it; "" when the table has no such column.
  std::string_view cell(std::size_t column) const;
  std::unexpected<Error> wrong(std::string_view what) const;

 private:
  explicit CsvTable(std::string_view text) : text_(text) {}
  Result<bool> read_row();
  Result<void> read_columns(const std::vector<std::string_view>& columns);
  bool quoted() const { return at_ < text_.size() && text_[at_] == '"'; }
  bool end_of_line() const;
  void skip_line_end();
  Result<std::string> plain_cell();
  Result<std::string> quoted_cell();

  std::string_view text_;
  std::size_t at_ = 0, line_ = 1;
  std::vector<std::optional<std::size_t>> places_;  // of the columns in a row
  std::size_t width_ = 0;
  std::size_t row_line_ = 1;  // where the row starts, from 1
  std::vector<std::string> cells_;
};

}  // namespace tollgate::identity
