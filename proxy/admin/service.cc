#include "proxy/admin/service.h"

#include <fmt/format.h>

#include <algorithm>

#include "metering/base/ascii.h"
#include "metering/base/json_text.h"
#include "proxy/admin/changes.h"
#include "proxy/admin/grant_reasons.h"
#include "proxy/admin/licenses.h"
#include "proxy/admin/quota_reply.h"
#include "proxy/admin/replies.h"
#include "proxy/admin/users.h"
#include "proxy/admin/watching.h"
#include "proxy/flow/reply.h"

namespace tollgate::admin {
namespace {

constexpr std::size_t kAuditShown = 50, kAuditMost = 10'000;
constexpr std::uint64_t kSeatsShown = 1'000, kSeatsMost = 10'000, kSeatOffsetMost = 100'000'000;

// Compares in a time that does not tell how much of the token was right.
bool same_secret(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned char difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned char>(a[i] ^ b[i]);
  return difference == 0;
}

bool is_get(const Request& request) {
  return request.method == "GET" || request.method == "HEAD";
}

Error not_given(std::string_view what) {
  return Error{
      .message = fmt::format("This proxy cannot {}.", what), .origin = Origin::self, .may_retry = false};
}

std::string audit_json(const std::vector<usage::AuditEntry>& entries) {
  std::string body;
  JsonWriter json(body);
  json.array([&] {
    for (const usage::AuditEntry& entry : entries)
      json.object([&] {
        json.field("time", format_moment(Milliseconds(entry.time_ms)));
        json.field("actor", entry.actor);
        json.field("action", entry.action);
        json.field("subject", entry.subject);
        json.field("detail", entry.detail);
        json.field("reason", entry.reason);
      });
  });
  return body;
}

// Fills in what a program without store or journal leaves open.
Sources completed(Sources sources) {
  if (!sources.get_override)
    sources.get_override = [](quota::AccountKey, Sources::OverrideRead done) {
      done(std::unexpected(not_given("read limits")));
    };
  if (!sources.set_override)
    sources.set_override = [](quota::AccountKey, Sources::Override, Sources::Changed done) {
      done(std::unexpected(not_given("change limits")));
    };
  if (!sources.reset)
    sources.reset = [](std::vector<quota::AccountKey>, Sources::Changed done) {
      done(std::unexpected(not_given("reset counts")));
    };
  if (!sources.list_seats)
    sources.list_seats = [](seats::Pool, std::uint64_t, std::uint64_t, auto done) {
      done(std::unexpected(not_given("read seats")));
    };
  if (!sources.release_seat)
    sources.release_seat = [](seats::Pool, std::string, std::string, auto done) {
      done(std::unexpected(not_given("release seats")));
    };
  if (!sources.assign_seat)
    sources.assign_seat = [](seats::Pool, std::string, std::string, auto done) {
      done(std::unexpected(not_given("assign seats")));
    };
  if (!sources.settle)
    sources.settle = [](Sources::Changed done) { done(std::unexpected(not_given("settle"))); };
  if (!sources.audit)
    sources.audit = [](usage::AuditEntry) -> Result<void> {
      return std::unexpected(not_given("record changes"));
    };
  if (!sources.audit_log)
    sources.audit_log = [](std::size_t) -> Result<std::vector<usage::AuditEntry>> {
      return std::unexpected(not_given("read the audit"));
    };
  if (!sources.follow) sources.follow = [](std::optional<flow::TrailOrder>, std::string_view) {};
  if (!sources.followed) sources.followed = [] { return std::optional<Sources::Followed>(); };
  if (!sources.upstreams) sources.upstreams = [] { return std::vector<Sources::UpstreamServer>(); };
  if (!sources.user_sync) sources.user_sync = [] { return std::optional<Sources::UserSync>(); };
  if (!sources.sync_users)
    sources.sync_users = [](Sources::Changed done) { done(std::unexpected(not_given("ask for users"))); };
  if (!sources.clock)
    sources.clock = [] {
      return UnixTime(
          std::chrono::duration_cast<Duration>(std::chrono::system_clock::now().time_since_epoch()));
    };
  return sources;
}

}  // namespace

class Service::Core : public std::enable_shared_from_this<Service::Core> {
 public:
  explicit Core(Sources sources)
      : sources_(completed(std::move(sources))),
        changes_(std::make_shared<ChangeQueue>(sources_.get_override, sources_.set_override)) {
    if (auto entries = sources_.audit_log(GrantReasons::kMost)) reasons_.restore(*entries);
  }

  const Sources& sources() const { return sources_; }
  Reply ready(bool verbose) const;
  void handle_api(const Request& request, Done done);

 private:
  // The account of one rule for one caller, with the names that the audit uses.
  struct Target {
    std::shared_ptr<const flow::Snapshot> snapshot;
    quota::AccountCharge account;
    std::string subject;  // "acme/ann daily"
  };

  Milliseconds now() const { return std::chrono::floor<Milliseconds>(sources_.clock().time_since_epoch()); }
  void handle_user(const Request& request, std::vector<std::string> path, Done done);
  void handle_quota(const Request& request, Target target, std::string_view what, Done done);
  void handle_licenses(const Request& request, const std::vector<std::string>& path, Done done);
  void reply_licenses(std::shared_ptr<const flow::Snapshot> snapshot, std::size_t next,
                      std::map<std::string, std::uint64_t> used, Done done);
  void change_seat(const Request& request, const seats::Pool& pool, std::string tenant, std::string user,
                   Done done);
  void handle_audit(const Request& request, const Done& done) const;
  void handle_reload(const Request& request, const Done& done) const;
  void handle_trace(const Request& request, const Done& done) const;
  void handle_directory(const Request& request, const std::vector<std::string>& path, Done done) const;
  void sync_users(const Request& request, Done done) const;
  void reply_quotas(std::shared_ptr<const flow::Snapshot> snapshot,
                    std::vector<quota::AccountCharge> accounts, std::vector<std::string> subjects,
                    bool single, Done done);
  void make(const Request& request, Target target, std::expected<Change, Reply> change, Done done);
  void reset(const Request& request, Target target, std::expected<Change, Reply> change, Done done);

  usage::AuditEntry entry_of(const Request& request, std::string subject, const Change& change) const {
    return {.time_ms = now().count(),
            .actor = fmt::format("{} token admin", request.peer.empty() ? "-" : request.peer),
            .action = change.action,
            .subject = std::move(subject),
            .detail = change.detail,
            .reason = change.reason};
  }
  static Reply not_recorded(const Error& error) {
    return problem(503, "The change cannot be recorded",
                   fmt::format("Nothing was changed: {}", error.message));
  }
  void note_failure(usage::AuditEntry entry, std::string_view why) const {
    entry.time_ms = now().count();
    entry.action += ".failed";
    entry.detail += fmt::format(": {}", why);
    // Nothing more can be done when this is lost too; the reply names the failure all the same.
    static_cast<void>(sources_.audit(std::move(entry)));
  }

  const Sources sources_;
  const std::shared_ptr<ChangeQueue> changes_;
  GrantReasons reasons_;
};

Reply Service::Core::ready(bool verbose) const {
  const std::vector<Check> checks = sources_.readiness();
  const bool ok = std::all_of(checks.begin(), checks.end(), [](const Check& check) { return check.ok; });
  Reply reply{
      .status = ok ? 200 : 503, .content_type = "text/plain; charset=utf-8", .fields = {}, .body = {}};
  if (verbose)
    for (const Check& check : checks)
      reply.body += fmt::format("[{}]{} {}{}{}\n", check.ok ? '+' : '-', check.name,
                                check.ok ? "ok" : "failed", check.detail.empty() ? "" : ": ", check.detail);
  reply.body += ok ? "ready\n" : "not ready\n";
  return reply;
}

void Service::Core::handle_api(const Request& request, Done done) {
  std::vector<std::string> parts = segments(request.path);
  if (request.path == "/api/v1/config/reload") return handle_reload(request, done);
  if (request.path == "/api/v1/audit") return handle_audit(request, done);
  if (request.path == "/api/v1/trace") return handle_trace(request, done);
  if (request.path == "/api/v1/upstreams")
    return done(is_get(request) ? json_reply(upstreams_json(sources_.upstreams()))
                                : method_not_allowed("GET, HEAD"));
  if (request.path == "/api/v1/settle") {
    if (request.method != "POST") return done(method_not_allowed("POST"));
    return sources_.settle([done = std::move(done)](Result<void> settled) {
      done(settled ? json_reply(R"({"settled":true})") : store_failed(settled.error()));
    });
  }
  if (parts.size() >= 3 && parts[1] == "v1" && parts[2] == "directory")
    return handle_directory(request, parts, std::move(done));
  if (parts.size() >= 3 && parts[1] == "v1" && parts[2] == "licenses")
    return handle_licenses(request, parts, std::move(done));
  if (parts.size() >= 6 && parts[1] == "v1" && parts[2] == "users")
    return handle_user(request, std::move(parts), std::move(done));
  done(not_found(request.path));
}

void Service::Core::handle_reload(const Request& request, const Done& done) const {
  if (request.method != "POST") return done(method_not_allowed("POST"));
  const Change change{
      .action = "config.reload", .detail = {}, .reason = query_value(request.query, "reason")};
  usage::AuditEntry entry = entry_of(request, "configuration", change);
  if (auto recorded = sources_.audit(entry); !recorded) return done(not_recorded(recorded.error()));
  auto reloaded = sources_.reload();
  if (!reloaded) {
    note_failure(std::move(entry), "not accepted");
    return done(problem(422, "The configuration was not accepted", reloaded.error().message));
  }
  done(json_reply(R"({"reloaded":true})"));
}

void Service::Core::handle_trace(const Request& request, const Done& done) const {
  const std::string_view who = request.peer.empty() ? "-" : request.peer;
  if (request.method == "PUT") {
    auto order = parse_trail(request.body);
    if (!order) return done(std::move(order.error()));
    sources_.follow(*std::move(order), who);
  } else if (request.method == "DELETE") {
    sources_.follow(std::nullopt, who);
  } else if (!is_get(request)) {
    return done(method_not_allowed("GET, HEAD, PUT, DELETE"));
  }
  done(json_reply(trail_json(sources_.followed(), now())));
}

// parts: api v1 directory [sync | users USER]
void Service::Core::handle_directory(const Request& request, const std::vector<std::string>& parts,
                                     Done done) const {
  if (parts.size() == 4 && parts[3] == "sync") return sync_users(request, std::move(done));
  const bool one = parts.size() == 5 && parts[3] == "users";
  if (parts.size() != 3 && !one) return done(not_found(request.path));
  if (!is_get(request)) return done(method_not_allowed("GET, HEAD"));
  const auto snapshot = sources_.snapshot();
  if (!one) return done(json_reply(directory_json(snapshot->directory.get(), sources_.user_sync())));
  auto body = directory_user_json(snapshot->directory.get(), parts[4]);
  done(body ? json_reply(*std::move(body))
            : problem(404, "No such user", "Neither the directory file nor the CRM lists this user."));
}

void Service::Core::sync_users(const Request& request, Done done) const {
  if (request.method != "POST") return done(method_not_allowed("POST"));
  const auto sync = sources_.user_sync();
  if (!sync)
    return done(
        problem(409, "The CRM is not asked", "identity.directory.sync has no url in the configuration."));
  const Change change{
      .action = "directory.sync", .detail = sync->url, .reason = query_value(request.query, "reason")};
  usage::AuditEntry entry = entry_of(request, "directory", change);
  if (auto recorded = sources_.audit(entry); !recorded) return done(not_recorded(recorded.error()));
  sources_.sync_users(
      [self = shared_from_this(), entry = std::move(entry), done = std::move(done)](Result<void> outcome) {
        if (!outcome) {
          self->note_failure(entry, outcome.error().message);
          return done(problem(502, "The users could not be read", outcome.error().message));
        }
        const auto now = self->sources_.snapshot();
        done(json_reply(directory_json(now->directory.get(), self->sources_.user_sync())));
      });
}

void Service::Core::handle_audit(const Request& request, const Done& done) const {
  if (!is_get(request)) return done(method_not_allowed("GET, HEAD"));
  std::size_t most = kAuditShown;
  if (const std::string text = query_value(request.query, "limit"); !text.empty()) {
    const auto number = parse_decimal(text);
    if (!number || *number == 0 || *number > kAuditMost)
      return done(
          problem(400, "Bad request", fmt::format("limit must be a number from 1 to {}.", kAuditMost)));
    most = static_cast<std::size_t>(*number);
  }
  auto entries = sources_.audit_log(most);
  if (!entries) return done(problem(503, "The audit cannot be read", entries.error().message));
  done(json_reply(audit_json(*entries)));
}

// parts: api v1 licenses [POOL seats [TENANT USER]]
void Service::Core::handle_licenses(const Request& request, const std::vector<std::string>& parts,
                                    Done done) {
  auto snapshot = sources_.snapshot();
  if (parts.size() == 3) {
    if (!is_get(request)) return done(method_not_allowed("GET, HEAD"));
    return reply_licenses(std::move(snapshot), 0, {}, std::move(done));
  }
  if ((parts.size() != 5 && parts.size() != 7) || parts[4] != "seats") return done(not_found(request.path));
  const flow::SeatPool* found = find_pool(*snapshot, parts[3]);
  if (found == nullptr)
    return done(problem(
        404, "No such pool",
        fmt::format("Nothing called '{}' has seats; GET /api/v1/licenses lists what has.", parts[3])));
  const seats::Pool pool = found->pool;
  if (parts.size() == 7)
    return change_seat(request, pool, parts[5] == "-" ? "" : parts[5], parts[6], std::move(done));
  if (!is_get(request)) return done(method_not_allowed("GET, HEAD"));
  std::uint64_t offset = 0, limit = kSeatsShown;
  for (auto [name, value, most] :
       {std::tuple("offset", &offset, kSeatOffsetMost), std::tuple("limit", &limit, kSeatsMost)}) {
    const std::string text = query_value(request.query, name);
    if (text.empty()) continue;
    const auto number = parse_decimal(text);
    if (!number || *number > most)
      return done(problem(400, "Bad request", fmt::format("{} must be a number from 0 to {}.", name, most)));
    *value = *number;
  }
  sources_.list_seats(pool, offset, limit, [pool, done = std::move(done)](Result<seats::Page> page) {
    done(page ? json_reply(seats_json(pool, *page)) : store_failed(page.error()));
  });
}

// Asks for one pool after the other.
void Service::Core::reply_licenses(std::shared_ptr<const flow::Snapshot> snapshot, std::size_t next,
                                   std::map<std::string, std::uint64_t> used, Done done) {
  if (next == snapshot->seat_pools.size()) return done(json_reply(licenses_json(*snapshot, used)));
  const seats::Pool& pool = snapshot->seat_pools[next].pool;
  auto answer = [self = shared_from_this(), snapshot, next, used = std::move(used),
                 done = std::move(done)](Result<seats::Page> page) mutable {
    if (!page) return done(store_failed(page.error()));
    used[snapshot->seat_pools[next].pool.id] = page->used;
    self->reply_licenses(snapshot, next + 1, std::move(used), std::move(done));
  };
  sources_.list_seats(pool, 0, 0, std::move(answer));
}

void Service::Core::change_seat(const Request& request, const seats::Pool& pool, std::string tenant,
                                std::string user, Done done) {
  const bool assigns = request.method == "PUT";
  if (!assigns && request.method != "DELETE") return done(method_not_allowed("PUT, DELETE"));
  if (assigns && pool.kind == seats::Kind::concurrent)
    return done(
        problem(409, "Not a named seat",
                fmt::format("Seats of '{}' are held by who is active; they cannot be assigned.", pool.id)));
  auto change =
      assigns ? parse_assign(request.body, request.query) : parse_release(request.body, request.query);
  if (!change) return done(std::move(change.error()));
  usage::AuditEntry entry =
      entry_of(request, fmt::format("{}/{} {}", tenant.empty() ? "-" : tenant, user, pool.id), *change);
  if (auto recorded = sources_.audit(entry); !recorded) return done(not_recorded(recorded.error()));
  // `why` none: done as wanted.
  auto finish = [self = shared_from_this(), entry = std::move(entry), done = std::move(done)](
                    std::string_view why, Reply reply) {
    if (!why.empty()) self->note_failure(entry, why);
    done(std::move(reply));
  };
  if (!assigns)
    return sources_.release_seat(
        pool, std::move(tenant), std::move(user), [finish, pool](Result<bool> released) {
          if (!released) return finish(released.error().message, store_failed(released.error()));
          if (*released) return finish("", json_reply(R"({"released":true})"));
          finish("there was none",
                 problem(404, "No such seat", fmt::format("The user holds no seat of '{}'.", pool.id)));
        });
  sources_.assign_seat(
      pool, std::move(tenant), std::move(user), [finish, pool](Result<seats::TakeReply> reply) {
        using Status = seats::TakeReply::Status;
        if (!reply) return finish(reply.error().message, store_failed(reply.error()));
        if (reply->status == Status::taken) return finish("", json_reply(R"({"assigned":true,"new":true})"));
        if (reply->status == Status::held) return finish("", json_reply(R"({"assigned":true,"new":false})"));
        finish("none is free",
               problem(409, "No seat is free",
                       fmt::format("All {} seats of '{}' are taken.", pool.capacity, pool.id)));
      });
}

// parts: api v1 users TENANT USER usage | quotas [RULE [grants | reset]]
void Service::Core::handle_user(const Request& request, std::vector<std::string> parts, Done done) {
  auto snapshot = sources_.snapshot();
  identity::Principal principal;
  principal.tenant = parts[3] == "-" ? "" : parts[3];
  principal.user = parts[4];
  principal.organization = query_value(request.query, "organization");
  const quota::Caller caller{.tenant = principal.tenant,
                             .organization = principal.organization,
                             .user = principal.user,
                             .staff = false};
  std::vector<quota::AccountCharge> accounts = snapshot->rules.accounts(caller);

  if (parts[5] == "usage" && parts.size() == 6) {
    if (!is_get(request)) return done(method_not_allowed("GET, HEAD"));
    auto answer = [snapshot, principal, accounts, done = std::move(done)](Sources::States states,
                                                                          Sources::Listed listed) {
      if (!states) return done(store_failed(states.error()));
      if (!listed) return done(store_failed(listed.error()));
      done(json_reply(flow::usage_json(*snapshot, principal, accounts, *states, *listed)));
    };
    return sources_.read_usage(accounts, snapshot->rules.observation(caller), std::move(answer));
  }
  if (parts[5] != "quotas" || parts.size() > 8) return done(not_found(request.path));
  auto subject_of = [&](const quota::AccountCharge& account) {
    const quota::Rule& rule = snapshot->rules.rules()[account.rule];
    return account_subject(rule, caller);
  };
  if (parts.size() == 6) {
    if (!is_get(request)) return done(method_not_allowed("GET, HEAD"));
    std::vector<std::string> subjects;
    for (const quota::AccountCharge& account : accounts) subjects.push_back(subject_of(account));
    return reply_quotas(snapshot, std::move(accounts), std::move(subjects), false, std::move(done));
  }
  auto wanted = std::find_if(accounts.begin(), accounts.end(), [&](const quota::AccountCharge& account) {
    return snapshot->rules.rules()[account.rule].name == parts[6];
  });
  if (wanted == accounts.end())
    return done(
        problem(404, "No such quota",
                fmt::format("There is no quota '{}' that can be set for one user; GET .../quotas lists them.",
                            parts[6])));
  Target target{.snapshot = snapshot, .account = *wanted, .subject = subject_of(*wanted)};
  handle_quota(request, std::move(target), parts.size() == 8 ? parts[7] : "", std::move(done));
}

void Service::Core::handle_quota(const Request& request, Target target, std::string_view what, Done done) {
  if (what == "reset") {
    if (request.method != "POST") return done(method_not_allowed("POST"));
    return reset(request, std::move(target), parse_reset(request.body, request.query), std::move(done));
  }
  if (what == "grants") {
    if (request.method == "POST")
      return make(request, std::move(target), parse_grant(request.body, now()), std::move(done));
    if (request.method == "DELETE")
      return make(request, std::move(target), parse_withdraw(request.body, request.query), std::move(done));
    return done(method_not_allowed("POST, DELETE"));
  }
  if (!what.empty()) return done(not_found(request.path));
  if (is_get(request))
    return reply_quotas(target.snapshot, {target.account}, {target.subject}, true, std::move(done));
  if (request.method == "PUT")
    return make(request, std::move(target), parse_set(request.body, request.query), std::move(done));
  if (request.method == "DELETE")
    return make(request, std::move(target), parse_unset(request.body, request.query), std::move(done));
  done(method_not_allowed("GET, HEAD, PUT, DELETE"));
}

void Service::Core::make(const Request& request, Target target, std::expected<Change, Reply> change,
                         Done done) {
  if (!change) return done(std::move(change.error()));
  usage::AuditEntry entry = entry_of(request, target.subject, *change);
  if (auto recorded = sources_.audit(entry); !recorded) return done(not_recorded(recorded.error()));
  auto answer = [self = shared_from_this(), entry = std::move(entry), target,
                 done = std::move(done)](ChangeQueue::Outcome outcome) mutable {
    if (!outcome.stored) {
      self->note_failure(std::move(entry), outcome.stored.error().message);
      return done(store_failed(outcome.stored.error()));
    }
    if (outcome.refusal) {
      self->note_failure(std::move(entry), "refused");
      return done(std::move(*outcome.refusal));
    }
    self->reasons_.note(entry);
    self->reply_quotas(target.snapshot, {target.account}, {target.subject}, true, std::move(done));
  };
  changes_->run(target.account.key, now(), std::move(change->apply), std::move(answer));
}

void Service::Core::reset(const Request& request, Target target, std::expected<Change, Reply> change,
                          Done done) {
  if (!change) return done(std::move(change.error()));
  usage::AuditEntry entry = entry_of(request, target.subject, *change);
  if (auto recorded = sources_.audit(entry); !recorded) return done(not_recorded(recorded.error()));
  auto answer = [self = shared_from_this(), entry = std::move(entry),
                 done = std::move(done)](Result<void> changed) {
    if (changed) return done(json_reply(R"({"reset":true})"));
    self->note_failure(entry, changed.error().message);
    done(store_failed(changed.error()));
  };
  sources_.reset({target.account.key}, std::move(answer));
}

void Service::Core::reply_quotas(std::shared_ptr<const flow::Snapshot> snapshot,
                                 std::vector<quota::AccountCharge> accounts,
                                 std::vector<std::string> subjects, bool single, Done done) {
  // Counts, then the override of one account after the other: an administrator's page, not the hot path.
  auto work = std::make_shared<QuotaPage>(std::move(snapshot), std::move(accounts), std::move(subjects),
                                          single, now());
  auto with_states = [self = shared_from_this(), work, done = std::move(done)](Sources::States states,
                                                                               Sources::Listed) mutable {
    if (!states) return done(store_failed(states.error()));
    work->states = std::move(*states);
    read_overrides(self->sources_.get_override, work,
                   [self, work, done = std::move(done)](Result<void> read) {
                     if (!read) return done(store_failed(read.error()));
                     done(json_reply(work->json(self->reasons_)));
                   });
  };
  sources_.read_usage(work->accounts, {}, std::move(with_states));
}

Service::Service(Sources sources, std::string token)
    : core_(std::make_shared<Core>(std::move(sources))), token_(std::move(token)) {}
Service::~Service() = default;

void Service::handle(const Request& request, Done done) const {
  const std::string_view path = request.path;
  if (path.starts_with("/api/")) {
    if (token_.empty())
      return done(problem(403, "Closed",
                          "The admin API is closed: admin.token_file is not set in the configuration."));
    std::string_view given = request.authorization;
    given = starts_with_ignore_case(given, "Bearer ") ? trim(given.substr(7)) : std::string_view();
    if (given.empty() || !same_secret(given, token_)) {
      Reply reply = problem(401, "Not authorised",
                            "Send the admin token: Authorization: Bearer <content of admin.token_file>.");
      reply.fields = "WWW-Authenticate: Bearer realm=\"tollgate-admin\"\r\n";
      return done(std::move(reply));
    }
    return core_->handle_api(request, std::move(done));
  }
  const Sources& sources = core_->sources();
  if (path == "/livez" || path == "/healthz" || path == "/readyz" || path == "/metrics" ||
      path == "/version" || path == "/") {
    if (!is_get(request)) return done(method_not_allowed("GET, HEAD"));
  }
  auto text = [&](std::string body) {
    done({.status = 200, .content_type = "text/plain; charset=utf-8", .fields = {}, .body = std::move(body)});
  };
  if (path == "/livez" || path == "/healthz") return text("ok\n");
  if (path == "/readyz")
    return done(core_->ready(request.query == "verbose" || request.query.starts_with("verbose=")));
  if (path == "/metrics")
    return done({.status = 200,
                 .content_type = sources.metrics_content_type,
                 .fields = {},
                 .body = sources.metrics()});
  if (path == "/version") {
    std::string body;
    JsonWriter json(body);
    json.object([&] {
      json.field("version", sources.version);
      json.field("revision", sources.revision);
    });
    return done(json_reply(std::move(body)));
  }
  if (path == "/")
    return text(
        "Tollgate admin port\n/livez /readyz?verbose /metrics /version\n"
        "/api/v1/users/{tenant}/{user}/usage and /quotas, /api/v1/licenses, /directory, /audit, /upstreams, "
        "/trace "
        "(bearer token)\n");
  done(not_found(path));
}

}  // namespace tollgate::admin
