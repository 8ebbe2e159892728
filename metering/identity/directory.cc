#include "metering/identity/directory.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "metering/base/ascii.h"
#include "metering/identity/session.h"

namespace tollgate::identity {
namespace {

std::unexpected<Error> wrong(std::size_t line, std::string what) {
  return fail(Origin::config, fmt::format("line {}: {}", line, what));
}

// Rows of a CSV text (RFC 4180), one at a time.
class CsvReader {
 public:
  explicit CsvReader(std::string_view text) : text_(text) {
    if (text_.starts_with("\xEF\xBB\xBF")) text_.remove_prefix(3);
  }

  struct Row {
    std::size_t line = 0;  // where it starts, from 1
    std::vector<std::string> cells;
  };

  // nullopt at the end. Empty lines are skipped.
  Result<std::optional<Row>> next() {
    while (at_ < text_.size() && end_of_line()) skip_line_end();
    if (at_ >= text_.size()) return std::nullopt;
    Row row{line_, {}};
    while (true) {
      auto cell = quoted() ? quoted_cell(row.line) : plain_cell(row.line);
      if (!cell) return std::unexpected(cell.error());
      row.cells.push_back(*std::move(cell));
      if (at_ < text_.size() && text_[at_] == ',') {
        ++at_;
        continue;
      }
      if (at_ < text_.size()) skip_line_end();
      return row;
    }
  }

 private:
  bool quoted() const { return at_ < text_.size() && text_[at_] == '"'; }
  bool end_of_line() const {
    return text_[at_] == '\n' || (text_[at_] == '\r' && (at_ + 1 == text_.size() || text_[at_ + 1] == '\n'));
  }
  void skip_line_end() {
    at_ = std::min(text_.size(), at_ + (text_[at_] == '\r' ? 2 : 1));
    ++line_;
  }

  Result<std::string> plain_cell(std::size_t row_line) {
    std::size_t start = at_;
    while (at_ < text_.size() && text_[at_] != ',' && !end_of_line()) {
      if (text_[at_] == '"') return wrong(row_line, "a quote inside a cell that does not start with one");
      ++at_;
    }
    return std::string(text_.substr(start, at_ - start));
  }

  Result<std::string> quoted_cell(std::size_t row_line) {
    std::string out;
    ++at_;
    while (at_ < text_.size()) {
      char c = text_[at_++];
      if (c == '\n') ++line_;
      if (c != '"') {
        out.push_back(c);
      } else if (quoted()) {
        out.push_back('"');
        ++at_;
      } else {
        if (at_ < text_.size() && text_[at_] != ',' && !end_of_line())
          return wrong(row_line, "text after the closing quote of a cell");
        return out;
      }
    }
    return wrong(row_line, "a quote is never closed");
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::size_t line_ = 1;
};

enum Column : std::size_t { kUser, kOrganization, kLicense, kUserType, kColumns };
constexpr std::array<std::string_view, kColumns> kColumnNames{"user", "organization", "license", "user_type"};
using Layout = std::array<std::optional<std::size_t>, kColumns>;  // column -> position in the row

Result<Layout> read_header(const CsvReader::Row& row) {
  Layout layout;
  for (std::size_t i = 0; i < row.cells.size(); ++i) {
    std::string cell = to_lower(trim(row.cells[i]));
    auto known = std::find(kColumnNames.begin(), kColumnNames.end(), cell);
    if (known == kColumnNames.end())
      return wrong(
          row.line,
          fmt::format("unknown column \"{}\" (user, organization, license, user_type are known)", cell));
    auto& position = layout[static_cast<std::size_t>(known - kColumnNames.begin())];
    if (position) return wrong(row.line, fmt::format("column \"{}\" twice", cell));
    position = i;
  }
  if (!layout[kUser]) return wrong(row.line, "the first row must name the columns, among them \"user\"");
  return layout;
}

// One row into the entry of its user.
Result<void> merge(Directory::Entry& entry, const CsvReader::Row& row, const Layout& layout) {
  auto cell = [&](Column column) {
    return layout[column] ? trim(row.cells[*layout[column]]) : std::string_view();
  };
  std::string_view organization = cell(kOrganization), license = cell(kLicense), type_text = cell(kUserType);
  if (!organization.empty()) {
    if (!entry.organization.empty() && entry.organization != organization)
      return wrong(row.line, fmt::format("the user was in organization \"{}\" before", entry.organization));
    entry.organization = organization;
  }
  if (!license.empty() &&
      std::find(entry.licenses.begin(), entry.licenses.end(), license) == entry.licenses.end())
    entry.licenses.emplace_back(license);
  if (!type_text.empty()) {
    UserType type = parse_user_type(type_text);
    if (type == UserType::unknown)
      return wrong(row.line, fmt::format("user_type \"{}\" is neither portal nor staff", type_text));
    if (entry.user_type != UserType::unknown && entry.user_type != type)
      return wrong(row.line, "the user had the other user_type before");
    entry.user_type = type;
  }
  return {};
}

}  // namespace

Result<Directory> Directory::parse(std::string_view csv) {
  CsvReader reader(csv);
  auto header = reader.next();
  if (!header) return std::unexpected(header.error());
  if (!*header) return wrong(1, "the file is empty: its first row must name the columns");
  auto layout = read_header(**header);
  if (!layout) return std::unexpected(layout.error());

  Directory out;
  while (true) {
    auto row = reader.next();
    if (!row) return std::unexpected(row.error());
    if (!*row) break;
    if ((*row)->cells.size() != (*header)->cells.size())
      return wrong((*row)->line, fmt::format("{} cells, but the first row names {} columns",
                                             (*row)->cells.size(), (*header)->cells.size()));
    std::string_view user = trim((*row)->cells[*(*layout)[kUser]]);
    if (user.empty()) return wrong((*row)->line, "no user");
    if (auto merged = merge(out.entries_[std::string(user)], **row, *layout); !merged)
      return std::unexpected(merged.error());
  }
  for (const auto& [user, entry] : out.entries_)
    if (auto folded = session_user(user); folded)
      if (auto [at, added] = out.spellings_.emplace(*folded, user); !added) at->second.clear();
  return out;
}

const Directory::Entry* Directory::find(std::string_view user) const {
  auto at = entries_.find(user);
  return at == entries_.end() ? nullptr : &at->second;
}

Principal Directory::apply(Principal principal) const {
  const Entry* entry = find(principal.user);
  if (entry == nullptr) return principal;
  principal.licenses = entry->licenses;
  if (!entry->organization.empty()) principal.organization = entry->organization;
  if (entry->user_type != UserType::unknown) principal.user_type = entry->user_type;
  return principal;
}

Principal Directory::apply_folded(Principal principal) const {
  if (auto spelling = spellings_.find(principal.user);
      spelling != spellings_.end() && !spelling->second.empty())
    principal.user = spelling->second;
  return apply(std::move(principal));
}

UserType parse_user_type(std::string_view text) {
  if (equals_ignore_case(text, "portal") || equals_ignore_case(text, "SSP")) return UserType::portal;
  if (equals_ignore_case(text, "staff") || equals_ignore_case(text, "General")) return UserType::staff;
  return UserType::unknown;
}

}  // namespace tollgate::identity
