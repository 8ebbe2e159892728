#include "metering/identity/directory.h"

#include <fmt/format.h>

#include <algorithm>

#include "metering/base/ascii.h"
#include "metering/base/guid.h"
#include "metering/identity/csv.h"
#include "metering/identity/session.h"

namespace tollgate::identity {
namespace {

enum Column : std::size_t {
  kUser,
  kOrganization,
  kLicense,
  kUserType,
  kCertificate,
  kCustomer,
  kAccount,
  kSecurityRight,
  kConsumeLicense,
  kActive
};

// A fingerprint as certificates are asked for; any other text as it is.
std::string certificate_name(std::string_view text) {
  std::string hex;
  for (char c : text)
    if (c != ':') hex.push_back(ascii_lower(c));
  const bool fingerprint =
      hex.size() == 64 && std::all_of(hex.begin(), hex.end(), [](char c) { return hex_value(c) >= 0; });
  return fingerprint ? hex : std::string(text);
}

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
  if (std::string_view customer = row.cell(kCustomer); !customer.empty()) {
    if (!entry.customer.empty() && entry.customer != customer)
      return row.wrong(fmt::format("the user was customer \"{}\" before", entry.customer));
    entry.customer = customer;
  }
  if (std::string_view text = row.cell(kAccount); !text.empty()) {
    auto account = read_guid(text);
    if (!account) return row.wrong(fmt::format("account \"{}\" is no id of an account (a GUID)", text));
    if (!entry.account.empty() && entry.account != *account)
      return row.wrong(fmt::format("the user was of account {} before", entry.account));
    entry.account = *std::move(account);
  }
  struct Flag {
    Column column;
    std::string_view name;
    std::optional<bool>* value;
  };
  for (const Flag& flag : {Flag{kSecurityRight, "security_right", &entry.security_right},
                           Flag{kConsumeLicense, "consume_license", &entry.consume_license},
                           Flag{kActive, "active", &entry.active}}) {
    std::string_view text = row.cell(flag.column);
    if (text.empty()) continue;
    std::optional<bool> said = parse_flag(text);
    if (!said) return row.wrong(fmt::format("{} \"{}\" is neither yes nor no", flag.name, text));
    if (*flag.value && **flag.value != *said)
      return row.wrong(fmt::format("the user's {} was the other before", flag.name));
    *flag.value = said;
  }
  return {};
}

// What the file leaves open of a user, as the CRM has it.
Directory::Entry completed(Directory::Entry entry, const Directory::Entry& crm) {
  if (entry.organization.empty()) entry.organization = crm.organization;
  if (entry.user_type == UserType::unknown) entry.user_type = crm.user_type;
  if (entry.licenses.empty()) {
    entry.licenses = crm.licenses;
    entry.says_licenses = crm.says_licenses;
  }
  if (entry.account.empty()) entry.account = crm.account;
  if (!entry.active) entry.active = crm.active;
  return entry;
}

}  // namespace

Result<Directory> Directory::parse(std::string_view csv) {
  auto table = CsvTable::open(csv, {"user", "organization", "license", "user_type", "certificate", "customer",
                                    "account", "security_right", "consume_license", "active"});
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
    if (const std::string_view certificate = table->cell(kCertificate); !certificate.empty()) {
      auto [at, added] = out.certificates_.emplace(certificate_name(certificate), user);
      if (!added && at->second != user) return table->wrong("this certificate is another user's already");
    }
  }
  for (const auto& [user, entry] : out.entries_)
    if (auto folded = session_user(user); folded)
      if (auto [at, added] = out.spellings_.emplace(*folded, user); !added) at->second.clear();
  return out;
}

Directory Directory::combine(const Directory& file, std::shared_ptr<const CrmUsers> crm) {
  Directory out = file;
  out.crm_ = std::move(crm);
  out.as_listed_ = file.entries_;
  for (auto& [user, entry] : out.entries_)
    if (const Entry* known = out.in_crm(user)) entry = completed(std::move(entry), *known);
  return out;
}

const Directory::Entry* Directory::find(std::string_view user) const {
  auto at = entries_.find(user);
  return at == entries_.end() ? in_crm(user) : &at->second;
}

const Directory::Entry* Directory::in_file(std::string_view user) const {
  const Entries& entries = crm_ == nullptr ? entries_ : as_listed_;
  auto at = entries.find(user);
  return at == entries.end() ? nullptr : &at->second;
}

const Directory::Entry* Directory::in_crm(std::string_view user) const {
  if (crm_ == nullptr) return nullptr;
  const auto name = session_user(user);
  if (!name) return nullptr;
  auto at = crm_->find(*name);
  return at == crm_->end() ? nullptr : &at->second;
}

const std::string* Directory::find_certificate(std::string_view name) const {
  auto at = certificates_.find(name);
  return at == certificates_.end() ? nullptr : &at->second;
}

Principal Directory::apply(Principal principal) const {
  const Entry* entry = find(principal.user);
  if (entry == nullptr) return principal;
  principal.active = entry->active.value_or(true);
  if (entry->says_licenses) principal.licenses = entry->licenses;
  if (!entry->organization.empty()) principal.organization = entry->organization;
  if (entry->user_type != UserType::unknown) principal.user_type = entry->user_type;
  if (!entry->customer.empty()) principal.customer = entry->customer;
  if (!entry->account.empty()) principal.account = entry->account;
  if (entry->security_right) principal.security_right = entry->security_right;
  if (entry->consume_license) principal.consume_license = entry->consume_license;
  return principal;
}

Principal Directory::apply_folded(Principal principal) const {
  if (auto spelling = spellings_.find(principal.user);
      spelling != spellings_.end() && !spelling->second.empty())
    principal.user = spelling->second;
  return apply(std::move(principal));
}

TokenRefusal inactive_user() {
  return {Reason::token_invalid, "The user is not active."};
}

std::optional<bool> parse_flag(std::string_view text) {
  if (equals_ignore_case(text, "yes") || equals_ignore_case(text, "true")) return true;
  if (equals_ignore_case(text, "no") || equals_ignore_case(text, "false")) return false;
  return std::nullopt;
}

UserType parse_user_type(std::string_view text) {
  if (equals_ignore_case(text, "portal") || equals_ignore_case(text, "SSP")) return UserType::portal;
  if (equals_ignore_case(text, "staff") || equals_ignore_case(text, "General")) return UserType::staff;
  return UserType::unknown;
}

}  // namespace tollgate::identity
