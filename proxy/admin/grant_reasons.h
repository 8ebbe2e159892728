// Why each temporary grant was given, as far as this proxy's audit knows: the store keeps amount and end only, so a grant
// made through another proxy is shown without its reason there.
// Threads: any.
#pragma once
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "metering/quota/store_model.h"
#include "metering/usage/journal_record.h"

namespace tollgate::admin {

class GrantReasons {
 public:
  static constexpr std::size_t kMost = 10'000;  // the oldest go first

  // Latest first, as an audit log is read.
  void restore(const std::vector<usage::AuditEntry>& entries);
  void note(const usage::AuditEntry& entry);  // any action; grants are remembered
  std::string find(const std::string& subject,
                   const quota::LimitOverride::Grant& grant) const;  // "": not known

 private:
  using Key = std::pair<std::string, std::string>;  // subject, grant_detail
  struct Known {
    std::string reason;
    std::int64_t time_ms = 0;
  };
  mutable std::mutex mutex_;
  std::map<Key, Known> known_;
};

}  // namespace tollgate::admin
