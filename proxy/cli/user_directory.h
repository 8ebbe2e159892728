// The users of the CRM in a running proxy (identity.directory.sync): asked for by net::DirectorySync, put
// under the operator's file, kept in a file for a start while the CRM is away.
//
//   kept copy ──> first snapshot      DirectorySync ──> changed? ──> Swap: a snapshot with them ──> workers
//                                              └──────────────────> copy, journal.directory/crm-users.json, 0600
//
// Threads: configure and stop on the control thread (the caller serialises them); metrics, status and
// sync_now from any. Swap is called on the sync's thread.
#pragma once
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "config/load/load.h"
#include "proxy/admin/service.h"
#include "proxy/cli/assembly.h"
#include "proxy/net/directory_sync.h"
#include "proxy/telemetry/metrics.h"

namespace tollgate::cli {

// As identity.directory.sync has them; url "" when it is off.
net::DirectorySource directory_source(const config::LoadedConfig& loaded);
// What the last good sync of this source left in the folder of the journal; nullptr: nothing, or it cannot be
// read.
std::shared_ptr<const CrmUsers> kept_crm_users(const config::LoadedConfig& loaded);

class UserDirectory {
 public:
  // The users are to count from now on. What they replace, or nullptr: it is let go here, once nobody else
  // has it, since a worker would spend milliseconds on that. nullopt: not now; asked again in a moment.
  using Swap =
      std::function<std::optional<std::shared_ptr<const void>>(const std::shared_ptr<const CrmUsers>& users)>;

  UserDirectory(Swap swap, Log log) : swap_(std::move(swap)), log_(std::move(log)) {}

  // At the start and after a reload. users: those that count now, or nullptr: then up to first_wait is waited
  // for the first answer. What goes on unchanged is left alone.
  void configure(const config::LoadedConfig& loaded, std::shared_ptr<const CrmUsers> users,
                 Milliseconds first_wait);
  void stop();

  std::vector<telemetry::Family> metrics() const;
  void connect(admin::Sources& sources);

 private:
  // What the thread of one sync owns.
  struct Kept {
    std::string file, url;
    std::shared_ptr<const CrmUsers> users;
    std::vector<std::shared_ptr<const void>> replaced;
  };
  bool take(Kept& kept, const std::shared_ptr<const CrmUsers>& users) const;
  void keep(const Kept& kept) const;
  std::optional<admin::Sources::UserSync> status() const;
  std::shared_ptr<net::DirectorySync> current() const;  // any thread

  const Swap swap_;
  const Log log_;
  mutable std::mutex mutex_;                  // held for a moment only
  std::shared_ptr<net::DirectorySync> sync_;  // guarded by mutex_; nullptr: the CRM is not asked
};

}  // namespace tollgate::cli
