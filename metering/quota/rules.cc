#include "metering/quota/rules.h"

#include <algorithm>
#include <array>
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

void write_field(const Rule& rule, const CountedOperation& operation, std::string& field) {
  field = rule.name;
  auto append = [&](Dimension dimension, std::string_view value) {
    if (names(rule, dimension)) append_escaped(field.append("|"), value);
  };
  append(Dimension::product, operation.product);
  // CRM servers compare names without case: another spelling of an object is no second account.
  append(Dimension::object, to_lower(operation.object));
  append(Dimension::operation, operation.operation);
}

std::uint64_t limit_for(const Rule& rule, const Caller& caller) {
  if (rule.overrides.empty()) return rule.limit;
  const std::string_view who = names(rule, Dimension::user)           ? caller.user
                               : names(rule, Dimension::organization) ? caller.organization
                                                                      : caller.tenant;
  auto found = rule.overrides.find(std::string(who));
  return found == rule.overrides.end() ? rule.limit : found->second;
}

// Makes the charges of one call one after the other, in memory of earlier ones.
class ChargeList {
 public:
  ChargeList(const Caller& caller, std::vector<AccountCharge>& out) : caller_(caller), out_(out) {}
  ~ChargeList() { out_.resize(size_); }
  ChargeList(const ChargeList&) = delete;
  ChargeList& operator=(const ChargeList&) = delete;

  std::size_t size() const { return size_; }
  AccountCharge& operator[](std::size_t i) { return out_[i]; }

  // The next charge, of one unit, with its subject; the field is still to be written. Each subject key is made once.
  AccountCharge& add(bool organization, bool user) {
    if (size_ == out_.size()) out_.emplace_back();
    std::optional<std::size_t>& first = first_of_[(organization ? 2 : 0) + (user ? 1 : 0)];
    AccountCharge& charge = out_[size_];
    if (first) {
      charge.key.subject_key = out_[*first].key.subject_key;
    } else {
      Subject subject{caller_.tenant, std::nullopt, std::nullopt};
      if (organization) subject.organization = caller_.organization;
      if (user) subject.user = caller_.user;
      write_subject_key(subject, charge.key.subject_key);
      first = size_;
    }
    charge.key.field.clear();
    charge.units = 1;
    ++size_;
    return charge;
  }
  // The last charge goes into the entry of the same account from `from` on, if there is one.
  void merge_last(std::size_t from) {
    for (std::size_t i = from; i + 1 < size_; ++i)
      if (out_[i].key == out_[size_ - 1].key) {
        out_[i].units += out_[size_ - 1].units;
        --size_;
        return;
      }
  }

 private:
  const Caller& caller_;
  std::vector<AccountCharge>& out_;
  std::size_t size_ = 0;
  std::array<std::optional<std::size_t>, 4> first_of_;  // by organization and user: a charge that has the key
};

AccountCharge& add_charge(ChargeList& charges, const Rule& rule, std::uint32_t number, const Caller& caller) {
  AccountCharge& charge = charges.add(names(rule, Dimension::organization), names(rule, Dimension::user));
  charge.limit = limit_for(rule, caller);
  charge.window = rule.window;
  charge.bucket = rule.bucket;
  charge.rule = number;
  charge.shadow = rule.shadow;
  return charge;
}

void charge_rule(ChargeList& charges, const Rule& rule, std::uint32_t number, const Caller& caller,
                 std::span<const CountedOperation> operations) {
  if (!per_operation(rule)) {
    AccountCharge& charge = add_charge(charges, rule, number, caller);
    charge.units = rule.on == Scope::all       ? 1
                   : rule.on == Scope::credits ? caller.credits
                                               : static_cast<std::uint32_t>(operations.size());
    charge.key.field = rule.name;
    return;
  }
  static constexpr CountedOperation kNone{};  // on: all, nothing licensed was touched
  const std::size_t from = charges.size();
  for (const CountedOperation& operation : operations.empty() ? std::span(&kNone, 1) : operations) {
    write_field(rule, operation, add_charge(charges, rule, number, caller).key.field);
    charges.merge_last(from);
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
  auto rule = std::ranges::find_if(rules_, [](const Rule& r) { return names(r, Dimension::user); });
  observed_window_ = rule != rules_.end() ? rule->window : kObservationWindow;
  observed_bucket_ = rule != rules_.end() ? rule->bucket : default_bucket(kObservationWindow);
}

void Rules::list_charges(const Caller& caller, std::span<const CountedOperation> licensed_operations,
                         std::vector<AccountCharge>& out) const {
  out.reserve(rules_.size() + (count_by_object_ ? licensed_operations.size() : 0));
  ChargeList charges(caller, out);
  for (std::uint32_t number = 0; number < rules_.size(); ++number) {
    const Rule& rule = rules_[number];
    if (caller.staff && !rule.applies_to_staff) continue;
    if (rule.on == Scope::licensed && licensed_operations.empty()) continue;
    if (rule.on == Scope::credits && caller.credits == 0) continue;
    charge_rule(charges, rule, number, caller, licensed_operations);
  }
  if (!count_by_object_ || caller.staff) return;
  const std::size_t from = charges.size();
  for (const CountedOperation& operation : licensed_operations) {
    AccountCharge& charge = charges.add(false, true);
    charge.limit = kUnlimited;
    charge.window = observed_window_;
    charge.bucket = observed_bucket_;
    charge.rule = kObservation;
    charge.shadow = false;
    charge.key.field.append(kObservationField).push_back('|');
    append_escaped(charge.key.field, operation.object);
    append_escaped(charge.key.field.append("|"), operation.operation);
    charges.merge_last(from);
  }
}

Rules::Observation Rules::observation(const Caller& caller) const {
  Observation out;
  if (!count_by_object_) return out;
  out.subject_key = subject_key({caller.tenant, std::nullopt, caller.user});
  out.prefix = std::string(kObservationField) + "|";
  out.window = observed_window_;
  out.bucket = observed_bucket_;
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
