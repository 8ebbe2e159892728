// The admin port: what probes, Prometheus and operators ask. Requests in, replies out; sockets are the net room's.
//
//   open to all       GET /livez /healthz       the process alone: never a dependency, so a Redis blip restarts nothing
//                     GET /readyz[?verbose]     config, listeners, store (or a policy that does without), not draining
//                     GET /metrics  GET /version
//   bearer token      GET    /api/v1/users/{tenant}/{user}/usage
//                     GET    /api/v1/users/{tenant}/{user}/quotas            every rule with its limit and count
//                     GET    /api/v1/users/{tenant}/{user}/quotas/{rule}
//                     PUT    /api/v1/users/{tenant}/{user}/quotas/{rule}     {"limit": n}: acts on the next call, everywhere
//                     DELETE /api/v1/users/{tenant}/{user}/quotas/{rule}     back to the configured limit
//                     POST   /api/v1/users/{tenant}/{user}/quotas/{rule}/reset   forgets what was counted
//                     POST   /api/v1/config/reload                           as SIGHUP
// {tenant} "-" is the empty tenant; names are percent-encoded. ?organization= names the organization for rules per
// organization. Without a token file the /api is closed.
//
// Threads: handle() may be called from any one thread; sources are called on it and may answer from another.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/error.h"
#include "metering/quota/ledger.h"
#include "proxy/flow/snapshot.h"

namespace tollgate::admin {

struct Request {
  std::string_view method, path, query;
  std::string_view authorization;  // value of the field, "" when absent
  std::string_view body;
};

struct Reply {
  int status = 200;
  std::string content_type = "application/json";
  std::string fields;  // further complete lines, each ending in CRLF
  std::string body;
};
using Done = std::function<void(Reply)>;

// One line of /readyz.
struct Check {
  std::string name;
  bool ok = true;
  std::string detail;
};

struct Sources {
  using States = Result<std::vector<quota::AccountState>>;
  using Listed = Result<std::vector<quota::Ledger::Listed>>;
  using Changed = std::function<void(Result<void>)>;

  std::function<std::shared_ptr<const flow::Snapshot>()> snapshot;
  std::function<std::string()> metrics;
  std::string metrics_content_type;
  std::function<std::vector<Check>()> readiness;
  std::function<Result<void>()> reload;  // blocks until the new configuration is in force, or refused
  std::function<void(std::vector<quota::AccountCharge>, quota::Rules::Observation,
                     std::function<void(States, Listed)>)>
      read_usage;
  std::function<void(quota::AccountKey, std::optional<std::uint64_t>, Changed)> set_override;
  std::function<void(std::vector<quota::AccountKey>, Changed)> reset;
  std::function<void(std::string_view text)>
      audit;  // one sentence a change: who asked is not known, what changed is
  std::string version, revision;
};

class Service {
 public:
  // token: what `Authorization: Bearer` must carry for /api; "" closes /api.
  Service(Sources sources, std::string token);

  // Answers exactly once, perhaps later and from another thread.
  void handle(const Request& request, Done done) const;

 private:
  void handle_api(const Request& request, std::string_view path, Done done) const;
  void handle_user(const Request& request, std::vector<std::string> path, Done done) const;
  void reply_quotas(std::vector<quota::AccountCharge> accounts, bool single, Done done) const;
  void change_quota(const Request& request, quota::AccountCharge account, std::string name, Done done) const;
  Reply ready(bool verbose) const;

  Sources sources_;
  std::string token_;
};

}  // namespace tollgate::admin
