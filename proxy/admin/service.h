// The admin port: what probes, Prometheus and operators ask. Requests in, replies out; sockets are the net room's.
//
//   open to all       GET /livez /healthz       the process alone: never a dependency, so a Redis blip restarts nothing
//                     GET /readyz[?verbose]     config, listeners, store (or a policy that does without), not draining
//                     GET /metrics  GET /version
//   bearer token      GET    /api/v1/users/{tenant}/{user}/usage
//                     GET    /api/v1/users/{tenant}/{user}/quotas            every rule with its limit, grants and count
//                     GET    /api/v1/users/{tenant}/{user}/quotas/{rule}
//                     PUT    /api/v1/users/{tenant}/{user}/quotas/{rule}     {"limit": n | null, "reason": "..."}
//                     DELETE /api/v1/users/{tenant}/{user}/quotas/{rule}     back to the configured limit; grants stay
//                     POST   /api/v1/users/{tenant}/{user}/quotas/{rule}/grants
//                                 {"extra": 200, "for": "24h" | "until": "2026-11-23T18:00:00Z", "reason": "..."}
//                     DELETE /api/v1/users/{tenant}/{user}/quotas/{rule}/grants   takes all of them away
//                     POST   /api/v1/users/{tenant}/{user}/quotas/{rule}/reset    forgets what was counted
//                     GET    /api/v1/licenses                                products, their seats and how many are taken
//                     GET    /api/v1/licenses/{pool}/seats[?offset=n&limit=n]  who holds them
//                     PUT    /api/v1/licenses/{pool}/seats/{tenant}/{user}   a named seat ahead of the first call
//                     DELETE /api/v1/licenses/{pool}/seats/{tenant}/{user}   free for another at once
//                     POST   /api/v1/settle                                  this proxy hands in what it has counted
//                     GET    /api/v1/audit[?limit=n]                         latest changes made through this proxy
//                     POST   /api/v1/config/reload                           as SIGHUP
//                     GET    /api/v1/directory                               users of file and CRM, and how the last sync went
//                     GET    /api/v1/directory/users/{user}                  what each says of one, and what counts
//                     POST   /api/v1/directory/sync                          asks the CRM now
//                     GET    /api/v1/upstreams                               health and connections of every server
//                     PUT    /api/v1/trace                                   follow requests in the log (flow::Trail)
//                     GET    /api/v1/trace  DELETE /api/v1/trace             what is followed; follow nothing more
// {tenant} "-" is the empty tenant; names are percent-encoded. ?organization= names the organization for rules per
// organization. Without a token file the /api is closed.
//
// Changes act on the next call, on every proxy of the store. Each is written down BEFORE it is made (Sources::audit): who,
// what, why; what cannot be written down is not done. A change that then fails is followed by "<action>.failed". A reason
// is required for a grant, and may be given for the rest: in the body, or as ?reason=.
//
// A change of a limit keeps the grants and a grant keeps the limit: both stand in one value that is read and written back
// (changes.h). Changes through one proxy wait for each other; of two made at the same moment through two proxies the
// later may undo the earlier. The audit names both.
//
// Following requests changes nothing that is counted, and is wanted above all when something is broken: it is said in the
// log with the address it came from, not in the audit.
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
#include "metering/base/time.h"
#include "metering/quota/ledger.h"
#include "metering/quota/store_model.h"
#include "metering/seats/store.h"
#include "metering/usage/journal_record.h"
#include "proxy/flow/life.h"
#include "proxy/flow/snapshot.h"

namespace tollgate::admin {

struct Request {
  std::string_view method, path, query;
  std::string_view authorization;  // value of the field, "" when absent
  std::string_view body;
  std::string_view peer{};  // address of the client, for the audit
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
  using Override = std::optional<quota::LimitOverride>;
  using OverrideRead = std::function<void(Result<Override>)>;

  std::function<std::shared_ptr<const flow::Snapshot>()> snapshot;
  std::function<std::string()> metrics;
  std::string metrics_content_type;
  std::function<std::vector<Check>()> readiness;
  std::function<Result<void>()> reload;  // blocks until the new configuration is in force, or refused
  std::function<void(std::vector<quota::AccountCharge>, quota::Rules::Observation,
                     std::function<void(States, Listed)>)>
      read_usage;
  // What is not given answers 503. A function that is dropped uncalled is an error of the store.
  std::function<void(quota::AccountKey, OverrideRead)> get_override{};
  std::function<void(quota::AccountKey, Override, Changed)> set_override{};
  std::function<void(std::vector<quota::AccountKey>, Changed)> reset{};
  std::function<void(Changed)>
      settle{};  // every unsettled use goes to the store; an error when it did not get there
  // Seats, of pools of the snapshot. `count` of them from the one numbered `offset` on.
  std::function<void(seats::Pool, std::uint64_t offset, std::uint64_t count,
                     std::function<void(Result<seats::Page>)>)>
      list_seats{};
  // True: the user had one.
  std::function<void(seats::Pool, std::string tenant, std::string user, std::function<void(Result<bool>)>)>
      release_seat{};
  std::function<void(seats::Pool, std::string tenant, std::string user,
                     std::function<void(Result<seats::TakeReply>)>)>
      assign_seat{};
  // Durable when it returns; an error: the change is not made. Called on the thread of handle(); after a change that
  // failed, on the thread that said so. time_ms is set.
  std::function<Result<void>(usage::AuditEntry)> audit{};
  std::function<Result<std::vector<usage::AuditEntry>>(std::size_t most)> audit_log{};  // latest first
  // Without these nothing is followed, and no server is known. nullopt: nothing more; `who` asked for it, for the log.
  std::function<void(std::optional<flow::TrailOrder>, std::string_view who)> follow{};
  struct Followed {
    flow::TrailOrder order;
    Milliseconds left{0};
    std::uint32_t lines_left = 0;
  };
  std::function<std::optional<Followed>()> followed{};
  struct UpstreamServer {
    std::string upstream, server;
    bool down = false, unreachable = false, ejected = false;  // on any worker; none of them: healthy
    std::uint64_t in_flight = 0, idle = 0;                    // calls at it; connections kept for the next
    // Requests, for a connection to whatever server: told by the upstream's first one.
    std::uint64_t waiting = 0;
    std::uint64_t requests = 0, failures = 0;  // since the start
  };
  std::function<std::vector<UpstreamServer>()> upstreams{};
  // Users as the CRM lists them (identity.directory.sync).
  struct UserSync {
    std::string url;
    std::size_t users = 0, licenses = 0, left_out = 0;  // of the last good sync
    UnixTime last_success{}, last_failure{};            // 0: none since the start
    std::string failure;                                // why the last one failed; "" when it did not
  };
  std::function<std::optional<UserSync>()> user_sync{};  // nullopt, or not given: the CRM is not asked
  std::function<void(Changed)> sync_users{};  // asks now; may answer from another thread, in minutes
  std::function<UnixTime()> clock{};          // the store's where it is known; not given: this machine's
  std::string version, revision;
};

class Service {
 public:
  // token: what `Authorization: Bearer` must carry for /api; "" closes /api.
  Service(Sources sources, std::string token);
  ~Service();

  // Answers exactly once, perhaps later and from another thread.
  void handle(const Request& request, Done done) const;

 private:
  class Core;  // shared with answers that are still to come
  std::shared_ptr<Core> core_;
  std::string token_;
};

}  // namespace tollgate::admin
