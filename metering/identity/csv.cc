#include "metering/identity/csv.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "metering/base/ascii.h"

namespace tollgate::identity {

std::unexpected<Error> CsvTable::wrong(std::string_view what) const {
  return fail(Origin::config, fmt::format("line {}: {}", row_line_, what));
}

Result<CsvTable> CsvTable::open(std::string_view text, std::vector<std::string_view> columns) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  CsvTable table(text);
  auto row = table.read_row();
  if (!row) return std::unexpected(row.error());
  if (!*row) return table.wrong("the file is empty: its first row must name the columns");
  if (auto read = table.read_columns(columns); !read) return std::unexpected(read.error());
  return table;
}

Result<void> CsvTable::read_columns(const std::vector<std::string_view>& columns) {
  width_ = cells_.size();
  places_.resize(columns.size());
  for (std::size_t i = 0; i < cells_.size(); ++i) {
    const std::string name = to_lower(trim(cells_[i]));
    const auto known = std::find(columns.begin(), columns.end(), name);
    if (known == columns.end())
      return wrong(fmt::format("unknown column \"{}\" ({} are known)", name, fmt::join(columns, ", ")));
    auto& place = places_[static_cast<std::size_t>(known - columns.begin())];
    if (place) return wrong(fmt::format("column \"{}\" twice", name));
    place = i;
  }
  if (!places_.front())
    return wrong(fmt::format("the first row must name the columns, among them \"{}\"", columns.front()));
  return {};
}

Result<bool> CsvTable::next() {
  auto row = read_row();
  if (!row || !*row) return row;
  if (cells_.size() != width_)
    return wrong(fmt::format("{} cells, but the first row names {} columns", cells_.size(), width_));
  return true;
}

std::string_view CsvTable::cell(std::size_t column) const {
  return places_[column] ? trim(cells_[*places_[column]]) : std::string_view();
}

Result<bool> CsvTable::read_row() {
  cells_.clear();
  while (at_ < text_.size() && end_of_line()) skip_line_end();
  if (at_ >= text_.size()) return false;
  row_line_ = line_;
  while (true) {
    auto cell = quoted() ? quoted_cell() : plain_cell();
    if (!cell) {
      while (at_ < text_.size() && !end_of_line()) ++at_;
      return std::unexpected(cell.error());
    }
    cells_.push_back(*std::move(cell));
    if (at_ < text_.size() && text_[at_] == ',') {
      ++at_;
      continue;
    }
    if (at_ < text_.size()) skip_line_end();
    return true;
  }
}

bool CsvTable::end_of_line() const {
  return text_[at_] == '\n' || (text_[at_] == '\r' && (at_ + 1 == text_.size() || text_[at_ + 1] == '\n'));
}

void CsvTable::skip_line_end() {
  at_ = std::min(text_.size(), at_ + (text_[at_] == '\r' ? 2 : 1));
  ++line_;
}

Result<std::string> CsvTable::plain_cell() {
  const std::size_t start = at_;
  while (at_ < text_.size() && text_[at_] != ',' && !end_of_line()) {
    if (text_[at_] == '"') return wrong("a quote inside a cell that does not start with one");
    ++at_;
  }
  return std::string(text_.substr(start, at_ - start));
}

Result<std::string> CsvTable::quoted_cell() {
  std::string out;
  ++at_;
  while (at_ < text_.size()) {
    const char c = text_[at_++];
    if (c == '\n') ++line_;
    if (c != '"') {
      out.push_back(c);
    } else if (quoted()) {
      out.push_back('"');
      ++at_;
    } else {
      if (at_ < text_.size() && text_[at_] != ',' && !end_of_line())
        return wrong("text after the closing quote of a cell");
      return out;
    }
  }
  return wrong("a quote is never closed");
}

}  // namespace tollgate::identity
