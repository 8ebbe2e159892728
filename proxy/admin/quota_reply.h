// GET .../quotas: the limits of a user with what is counted, the override and the grants of each.
//
//   {"name":"daily","limit":1200,"used":37,"remaining":1163,"configured_limit":1000,"overridden":false,
//    "grants":[{"extra":200,"until":"2026-11-23T18:00:00Z","reason":"month-end"}]}
//
// `limit` is the effective one: override (`override`, where there is one) or configured limit, plus the grants in force.
// null: no limit. Candidate limits carry "mode":"shadow". Plain values.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "proxy/admin/grant_reasons.h"
#include "proxy/admin/service.h"

namespace tollgate::admin {

// The audit's name of an account: "acme/ann daily", "acme/organization Big daily", "acme daily"; the empty tenant is "-".
std::string account_subject(const quota::Rule& rule, const quota::Caller& caller);

struct QuotaPage {
  QuotaPage(std::shared_ptr<const flow::Snapshot> s, std::vector<quota::AccountCharge> a,
            std::vector<std::string> names, bool one, Milliseconds at)
      : snapshot(std::move(s)), accounts(std::move(a)), subjects(std::move(names)), single(one), now(at) {}

  std::shared_ptr<const flow::Snapshot> snapshot;
  std::vector<quota::AccountCharge> accounts;
  std::vector<std::string> subjects;  // of the accounts
  bool single;                        // one object instead of a list
  Milliseconds now;                   // the store's clock
  std::vector<quota::AccountState> states;
  std::vector<Sources::Override> overrides;  // of the accounts

  std::string json(const GrantReasons& reasons) const;
};

// Fills page->overrides, one account after the other.
void read_overrides(const std::function<void(quota::AccountKey, Sources::OverrideRead)>& get,
                    std::shared_ptr<QuotaPage> page, std::function<void(Result<void>)> done);

}  // namespace tollgate::admin
