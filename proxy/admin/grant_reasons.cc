#include "proxy/admin/grant_reasons.h"

#include <algorithm>

#include "proxy/admin/changes.h"

namespace tollgate::admin {

void GrantReasons::restore(const std::vector<usage::AuditEntry>& entries) {
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) note(*entry);
}

void GrantReasons::note(const usage::AuditEntry& entry) {
  if (entry.action != "quota.grant") return;
  std::lock_guard lock(mutex_);
  known_[{entry.subject, entry.detail}] = {entry.reason, entry.time_ms};
  if (known_.size() <= kMost) return;
  known_.erase(std::ranges::min_element(known_, {}, [](const auto& one) { return one.second.time_ms; }));
}

std::string GrantReasons::find(const std::string& subject, const quota::LimitOverride::Grant& grant) const {
  std::lock_guard lock(mutex_);
  auto found = known_.find({subject, grant_detail(grant)});
  return found == known_.end() ? "" : found->second.reason;
}

}  // namespace tollgate::admin
