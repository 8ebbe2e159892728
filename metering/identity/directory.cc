#include "metering/identity/directory.h"

#include <fmt/format.h>

#include <algorithm>

#include "metering/base/ascii.h"
#include "metering/identity/csv.h"
#include "metering/identity/session.h"

namespace tollgate::identity {
namespace {

enum Column : std::size_t { kUser, kOrganization, kLicense, kUserType };

// One row into the entry of its user.
Result<void> merge(Directory::Entry& entry, const CsvTable& row) {
  std::string_view organization = row.cell(kOrganization), license = row.cell(kLicense),
                   type_text = row.cell(kUserType);
  if (!organization.empty()) {
    if (!entry.organization.empty() && entry.organization != organization)
      return row.wrong(fmt::format("the user was in organization \"{}\" before", entry.organization));
    entry.organization = organization;
  }
  if (!license.empty() &&
      std::find(entry.licenses.begin(), entry.licenses.end(), license) == entry.licenses.end())
    entry.licenses.emplace_back(license);
  if (!type_text.empty()) {
    UserType type = parse_user_type(type_text);
    if (type == UserType::unknown)
      return row.wrong(fmt::format("user_type \"{}\" is neither portal nor staff", type_text));
    if (entry.user_type != UserType::unknown && entry.user_type != type)
      return row.wrong("the user had the other user_type before");
    entry.user_type = type;
  }
  return {};
}

}  // namespace

Result<Directory> Directory::parse(std::string_view csv) {
  auto table = CsvTable::open(csv, {"user", "organization", "license", "user_type"});
  if (!table) return std::unexpected(table.error());
  Directory out;
  while (true) {
    auto row = table->next();
    if (!row) return std::unexpected(row.error());
    if (!*row) break;
    const std::string_view user = table->cell(kUser);
    if (user.empty()) return table->wrong("no user");
    if (auto merged = merge(out.entries_[std::string(user)], *table); !merged)
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
