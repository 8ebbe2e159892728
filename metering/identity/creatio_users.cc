#include "metering/identity/creatio_users.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <functional>

#include "metering/base/ascii.h"
#include "metering/base/guid.h"
#include "metering/base/json_text.h"
#include "metering/identity/session.h"

namespace tollgate::identity {
namespace {

using simdjson::dom::element;
using Kind = SyncFailure::Kind;

std::unexpected<SyncFailure> failed(Kind kind, std::string text) {
  return std::unexpected(SyncFailure{kind, std::move(text)});
}

// What of an entity is asked for: its columns, and those of what its look-ups lead to.
struct Wanted {
  std::set<std::string_view> columns;
  std::map<std::string_view, Wanted> lookups;

  void add(std::string_view path) {
    if (path.empty()) return;
    const std::size_t slash = path.find('/');
    if (slash == path.npos)
      columns.insert(path);
    else
      lookups[path.substr(0, slash)].add(path.substr(slash + 1));
  }
  std::string options(std::string_view between) const {
    std::string out;
    for (std::string_view column : columns)
      out += fmt::format("{}{}", out.empty() ? "$select=" : ",", column);
    std::string expand;
    for (const auto& [name, lookup] : lookups)
      expand += fmt::format("{}{}({})", expand.empty() ? "$expand=" : ",", name, lookup.options(";"));
    if (!expand.empty()) out += (out.empty() ? "" : std::string(between)) + expand;
    return out;
  }
};

// RFC 3986: what may not stand in a query is written as %XX.
std::string query_text(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (is_alpha(c) || is_digit(c) || std::string_view("-._~!$'()*,;:@/=").find(c) != std::string_view::npos)
      out.push_back(c);
    else
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

// What stands at the end of the way; an error: a look-up is empty, or there is no such column.
simdjson::simdjson_result<element> at(element row, std::string_view path) {
  for (;;) {
    const std::size_t slash = path.find('/');
    simdjson::simdjson_result<element> found = row[path.substr(0, slash)];
    if (slash == path.npos || found.error() != simdjson::SUCCESS) return found;
    row = found.value_unsafe();
    path.remove_prefix(slash + 1);
  }
}

std::optional<std::string_view> text_at(element row, std::string_view path) {
  std::string_view text;
  if (at(row, path).get(text) != simdjson::SUCCESS) return std::nullopt;
  text = trim(text);
  if (text.empty() || text.size() > CreatioUserReader::kTextMax) return std::nullopt;
  return text;
}

std::optional<bool> flag_at(element row, std::string_view path) {
  bool flag = false;
  if (at(row, path).get(flag) != simdjson::SUCCESS) return std::nullopt;
  return flag;
}

UserType type_at(element row, std::string_view path) {
  std::int64_t number = -1;
  if (at(row, path).get(number) != simdjson::SUCCESS) return UserType::unknown;
  return number == 0 ? UserType::staff : number == 1 ? UserType::portal : UserType::unknown;
}

}  // namespace

std::string_view name(SyncFailure::Kind kind) {
  static constexpr std::string_view kNames[SyncFailure::kKinds] = {"unreachable", "log_in", "status", "reply",
                                                                   "too_large",   "paging", "empty"};
  return kNames[static_cast<std::size_t>(kind)];
}

CreatioUserReader::CreatioUserReader(CreatioNames names, std::string root, CreatioLimits limits)
    : names_(std::move(names)), root_(std::move(root)), limits_(limits) {
  begin(Part::users);
}

void CreatioUserReader::begin(Part part) {
  part_ = part == Part::licenses && names_.licenses.empty() ? Part::done : part;
  part_rows_ = last_body_ = 0;
  next_ = part_ == Part::done ? "" : address(0);
  asked_.insert(next_);
}

std::string CreatioUserReader::address(std::size_t skip) const {
  Wanted wanted;
  const bool users = part_ == Part::users;
  const auto columns = users
                           ? std::vector{&names_.user_id,   &names_.user_name,         &names_.user_active,
                                         &names_.user_type, &names_.user_organization, &names_.user_account}
                           : std::vector{&names_.license_user, &names_.license_name, &names_.license_active};
  for (const std::string* column : columns) wanted.add(*column);
  std::string filter;
  if (users && !names_.user_filter.empty()) filter = "&$filter=" + query_text(names_.user_filter);
  return fmt::format("{}/odata/{}?{}{}&$orderby={}&$count=true&$top={}&$skip={}", root_,
                     users ? names_.users : names_.licenses, wanted.options("&"), filter,
                     users ? names_.user_id : "Id", limits_.page_rows, skip);
}

void CreatioUserReader::leave_out(std::string why) {
  if (++out_.left_out == 1) out_.why = std::move(why);
}

std::string_view CreatioUserReader::add_user(const element& row) {
  const auto id = text_at(row, names_.user_id), typed = text_at(row, names_.user_name);
  const auto active = flag_at(row, names_.user_active);
  auto name = typed ? session_user(*typed) : std::nullopt;
  if (!id) return names_.user_id;
  if (!name) return names_.user_name;
  if (!active) return names_.user_active;
  User& user = by_id_[std::string(*id)];
  user.name = *std::move(name);
  user.entry.active = *active;
  user.entry.user_type = type_at(row, names_.user_type);
  user.entry.says_licenses = !names_.licenses.empty();
  if (!names_.user_organization.empty())
    user.entry.organization = text_at(row, names_.user_organization).value_or("");
  if (!names_.user_account.empty())
    user.entry.account = read_guid(text_at(row, names_.user_account).value_or("")).value_or("");
  return {};
}

std::string_view CreatioUserReader::add_license(const element& row) {
  const auto id = text_at(row, names_.license_user), name = text_at(row, names_.license_name);
  const auto active = flag_at(row, names_.license_active);
  if (!id) return names_.license_user;
  if (!name) return names_.license_name;
  if (!active) return names_.license_active;
  const auto user = by_id_.find(std::string(*id));
  if (!*active || user == by_id_.end()) return {};
  auto& licenses = user->second.entry.licenses;
  if (std::find(licenses.begin(), licenses.end(), *name) != licenses.end()) return {};
  licenses.emplace_back(*name);
  ++out_.licenses;
  return {};
}

std::expected<void, SyncFailure> CreatioUserReader::take(std::string_view body) {
  const std::string& entity = part_ == Part::users ? names_.users : names_.licenses;
  simdjson::dom::parser parser;
  element page;
  simdjson::dom::array rows;
  if (body.empty() || parser.parse(body.data(), body.size()).get(page) != simdjson::SUCCESS ||
      page["value"].get(rows) != simdjson::SUCCESS)
    return failed(Kind::reply, fmt::format("{}: the reply is no page of rows", entity));
  const std::size_t hash = std::hash<std::string_view>()(body);
  last_rows_ = rows.size();
  if (last_rows_ > 0 && hash == last_body_)
    return failed(Kind::paging, fmt::format("{}: the same page came twice", entity));
  last_body_ = hash;
  all_rows_ += last_rows_;
  if (all_rows_ > limits_.rows_max)
    return failed(Kind::too_large, fmt::format("{}: more than {} rows", entity, limits_.rows_max));
  for (const element row : rows) {
    const std::string_view wrong = part_ == Part::users ? add_user(row) : add_license(row);
    if (!wrong.empty()) leave_out(fmt::format("{}: {} is missing or wrong", entity, wrong));
  }
  std::string_view next_link;
  if (page["@odata.nextLink"].get(next_link) != simdjson::SUCCESS) next_link = {};
  std::uint64_t count = 0;
  const bool counted = page["@odata.count"].get(count) == simdjson::SUCCESS;
  return go_on(last_rows_, next_link, counted ? std::optional(count) : std::nullopt);
}

std::expected<void, SyncFailure> CreatioUserReader::go_on(std::size_t rows, std::string_view next_link,
                                                          std::optional<std::uint64_t> count) {
  const std::string& entity = part_ == Part::users ? names_.users : names_.licenses;
  part_rows_ += rows;
  std::string next;
  if (!next_link.empty()) {
    const std::size_t question = next_link.find('?');
    if (question == next_link.npos || next_link.find_first_of("\r\n\t ") != next_link.npos)
      return failed(Kind::paging, fmt::format("{}: the address of the next page is none", entity));
    next = fmt::format("{}/odata/{}{}", root_, entity, next_link.substr(question));
  } else if (count ? part_rows_ < *count : rows >= limits_.page_rows) {
    if (rows == 0)
      return failed(Kind::paging, fmt::format("{}: {} rows announced, {} came", entity, *count, part_rows_));
    next = address(part_rows_);
  } else {
    begin(part_ == Part::users ? Part::licenses : Part::done);
    return {};
  }
  if (asked_.size() >= kPagesMax || !asked_.insert(next).second)
    return failed(Kind::paging, fmt::format("{}: the pages have no end", entity));
  next_ = std::move(next);
  return {};
}

std::expected<CreatioUsers, SyncFailure> CreatioUserReader::finish() {
  std::set<std::string_view> twice;
  for (auto& [id, user] : by_id_) {
    auto [place, added] = out_.users.try_emplace(user.name, std::move(user.entry));
    if (!added) twice.insert(user.name);
  }
  // Which of them is meant nobody can tell.
  for (std::string_view name : twice) {
    out_.users.erase(out_.users.find(name));
    leave_out(names_.users + ": two users of one name");
  }
  const std::string of =
      out_.why.empty() ? "" : fmt::format(" ({} rows left out, first: {})", out_.left_out, out_.why);
  if (out_.users.empty())
    return failed(Kind::empty, fmt::format("{}: no user came; may the account read it?{}", names_.users, of));
  if (!names_.licenses.empty() && out_.licenses == 0)
    return failed(Kind::empty, fmt::format("{}: no licence of a user came; may the account read it?{}",
                                           names_.licenses, of));
  return std::move(out_);
}

std::string write_crm_users(const Directory::CrmUsers& users, std::string_view source) {
  std::string out;
  JsonWriter json(out);
  json.object([&] {
    json.field("source", source);
    json.field_array("users", [&] {
      for (const auto& [name, entry] : users)
        json.object([&] {
          json.field("user", name);
          if (!entry.organization.empty()) json.field("organization", entry.organization);
          if (!entry.account.empty()) json.field("account", entry.account);
          if (entry.user_type != UserType::unknown)
            json.field("user_type", entry.user_type == UserType::staff ? "staff" : "portal");
          json.field("active", entry.active.value_or(true));
          if (!entry.says_licenses) return;
          json.field_array("licenses", [&] {
            for (const std::string& license : entry.licenses) json.value(license);
          });
        });
    });
  });
  return out + "\n";
}

std::optional<Directory::CrmUsers> read_crm_users(std::string_view text, std::string_view source) {
  simdjson::dom::parser parser;
  element file;
  std::string_view from;
  simdjson::dom::array users;
  if (text.empty() || parser.parse(text.data(), text.size()).get(file) != simdjson::SUCCESS ||
      file["source"].get(from) != simdjson::SUCCESS || from != source ||
      file["users"].get(users) != simdjson::SUCCESS)
    return std::nullopt;
  Directory::CrmUsers out;
  for (const element row : users) {
    const auto user = text_at(row, "user");
    const auto active = flag_at(row, "active");
    if (!user || !active || session_user(*user) != *user) return std::nullopt;
    Directory::Entry& entry = out[std::string(*user)];
    entry.active = *active;
    entry.organization = text_at(row, "organization").value_or("");
    entry.account = read_guid(text_at(row, "account").value_or("")).value_or("");
    entry.user_type = parse_user_type(text_at(row, "user_type").value_or(""));
    simdjson::dom::array licenses;
    entry.says_licenses = row["licenses"].get(licenses) == simdjson::SUCCESS;
    if (!entry.says_licenses) continue;  // and there is no array
    for (const element license : licenses) {
      std::string_view name;
      if (license.get(name) != simdjson::SUCCESS) return std::nullopt;
      entry.licenses.emplace_back(name);
    }
  }
  return out;
}

}  // namespace tollgate::identity
