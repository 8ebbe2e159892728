#include "metering/quota/rules.h"

#include <algorithm>
#include <optional>

#include "metering/base/ascii.h"
#include "metering/base/check.h"
#include "metering/quota/keys.h"
#include "metering/quota/record.h"

namespace tollgate::quota {
namespace {

constexpr Milliseconds kObservationWindow{86'400'000};

bool names(const Rule& rule, Dimension dimension) {
  return std::ranges::find(rule.per, dimension) != rule.per.end();
}

Subject subject_of(const Rule& rule, const Caller& caller) {
  Subject subject{caller.tenant, std::nullopt, std::nullopt};
  if (names(rule, Dimension::organization)) subject.organization = caller.organization;
  if (names(rule, Dimension::user)) subject.user = caller.user;
  return subject;
}

bool per_operation(const Rule& rule) {
  return names(rule, Dimension::product) || names(rule, Dimension::object) ||
         names(rule, Dimension::operation);
}

std::string field_of(const Rule& rule, const CountedOperation& operation) {
  std::string field = rule.name;
  auto append = [&](Dimension dimension, std::string_view value) {
    if (names(rule, dimension)) append_escaped(field.append("|"), value);
  };
  append(Dimension::product, operation.product);
  // CRM servers compare names without case: another spelling of an object is no second account.
  append(Dimension::object, to_lower(operation.object));
  append(Dimension::operation, operation.operation);
  return field;
}

std::uint64_t limit_for(const Rule& rule, const Caller& caller) {
  if (rule.overrides.empty()) return rule.limit;
  const std::string_view who = names(rule, Dimension::user)           ? caller.user
                               : names(rule, Dimension::organization) ? caller.organization
                                                                      : caller.tenant;
  auto found = rule.overrides.find(std::string(who));
  return found == rule.overrides.end() ? rule.limit : found->second;
}

// Adds one account's units to the list, or to the entry that is already there.
void merge(std::vector<AccountCharge>& charges, std::size_t from, AccountCharge&& charge) {
  for (std::size_t i = from; i < charges.size(); ++i)
    if (charges[i].key == charge.key) {
      charges[i].units += charge.units;
      return;
    }
  charges.push_back(std::move(charge));
}

void charge_rule(std::vector<AccountCharge>& charges, const Rule& rule, std::uint32_t number,
                 const Caller& caller, std::span<const CountedOperation> operations) {
  AccountCharge charge;
  charge.limit = limit_for(rule, caller);
  charge.window = rule.window;
  charge.bucket = rule.bucket;
  charge.rule = number;
  charge.shadow = rule.shadow;
  charge.key.subject_key = subject_key(subject_of(rule, caller));
  if (!per_operation(rule)) {
    charge.units = rule.on == Scope::all ? 1 : static_cast<std::uint32_t>(operations.size());
    charge.key.field = rule.name;
    charges.push_back(std::move(charge));
    return;
  }
  static constexpr CountedOperation kNone{};  // on: all, nothing licensed was touched
  const std::size_t from = charges.size();
  for (const CountedOperation& operation : operations.empty() ? std::span(&kNone, 1) : operations) {
    AccountCharge one = charge;
    one.units = 1;
    one.key.field = field_of(rule, operation);
    merge(charges, from, std::move(one));
  }
  // Every call is one unit of each account it touches, however many of its operations meet there.
  if (rule.on == Scope::all)
    for (std::size_t i = from; i < charges.size(); ++i) charges[i].units = 1;
}

}  // namespace

Rules::Rules(std::vector<Rule> rules, bool count_by_object)
    : rules_(std::move(rules)), count_by_object_(count_by_object) {
  for (Rule& rule : rules_) {
    CHECK(!rule.name.empty() && rule.window.count() > 0, "rules are checked when the configuration is read");
    if (rule.bucket.count() <= 0) rule.bucket = default_bucket(rule.window);
  }
}

std::vector<AccountCharge> Rules::charges(const Caller& caller,
                                          std::span<const CountedOperation> licensed_operations) const {
  std::vector<AccountCharge> charges;
  charges.reserve(rules_.size() + (count_by_object_ ? licensed_operations.size() : 0));
  for (std::uint32_t number = 0; number < rules_.size(); ++number) {
    const Rule& rule = rules_[number];
    if (caller.staff && !rule.applies_to_staff) continue;
    if (rule.on == Scope::licensed && licensed_operations.empty()) continue;
    charge_rule(charges, rule, number, caller, licensed_operations);
  }
  if (!count_by_object_ || caller.staff || licensed_operations.empty()) return charges;
  const Observation where = observation(caller);
  const std::size_t from = charges.size();
  for (const CountedOperation& operation : licensed_operations) {
    AccountCharge charge;
    charge.limit = kUnlimited;
    charge.window = where.window;
    charge.bucket = where.bucket;
    charge.units = 1;
    charge.rule = kObservation;
    charge.key.subject_key = where.subject_key;
    charge.key.field = where.prefix;
    append_escaped(charge.key.field, operation.object);
    append_escaped(charge.key.field.append("|"), operation.operation);
    merge(charges, from, std::move(charge));
  }
  return charges;
}

Rules::Observation Rules::observation(const Caller& caller) const {
  Observation out;
  if (!count_by_object_) return out;
  out.subject_key = subject_key({caller.tenant, std::nullopt, caller.user});
  out.prefix = std::string(kObservationField) + "|";
  out.window = kObservationWindow;
  out.bucket = default_bucket(kObservationWindow);
  auto rule = std::ranges::find_if(rules_, [](const Rule& r) { return names(r, Dimension::user); });
  if (rule != rules_.end()) {
    out.window = rule->window;
    out.bucket = rule->bucket;
  }
  return out;
}

std::optional<CountedOperation> Rules::parse_observation(std::string_view field) {
  if (!field.starts_with(kObservationField) || field.substr(kObservationField.size(), 1) != "|")
    return std::nullopt;
  field.remove_prefix(kObservationField.size() + 1);
  const std::size_t bar = field.find('|');
  if (bar == std::string_view::npos || field.find('|', bar + 1) != std::string_view::npos)
    return std::nullopt;
  CountedOperation out;
  out.object = field.substr(0, bar);
  out.operation = field.substr(bar + 1);
  return out;
}

std::vector<AccountCharge> Rules::accounts(const Caller& caller) const {
  std::vector<AccountCharge> accounts;
  for (std::uint32_t number = 0; number < rules_.size(); ++number) {
    const Rule& rule = rules_[number];
    if (per_operation(rule) || (caller.staff && !rule.applies_to_staff)) continue;
    AccountCharge account;
    account.key = {subject_key(subject_of(rule, caller)), rule.name};
    account.limit = limit_for(rule, caller);
    account.window = rule.window;
    account.bucket = rule.bucket;
    account.rule = number;
    account.shadow = rule.shadow;
    accounts.push_back(std::move(account));
  }
  return accounts;
}

}  // namespace tollgate::quota
