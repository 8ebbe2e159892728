#include "proxy/cli/lease_service.h"

#include <fmt/format.h>
#include <random>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>

#include "metering/journal/call_journal.h"

namespace tollgate::cli {
namespace {

quota::OutagePolicy policy_of(config::OnOutage on_outage) {
  switch (on_outage) {
    case config::OnOutage::lease:
      return quota::OutagePolicy::lease;
    case config::OnOutage::allow:
      return quota::OutagePolicy::allow;
    case config::OnOutage::deny:
      break;
  }
  return quota::OutagePolicy::deny;
}

}  // namespace

LeaseService::LeaseService(const config::Store& settings, redis::ConnectionOptions connection,
                           journal::Journal& journal, std::string journal_directory, unsigned workers,
                           telemetry::Metrics& metrics, Log log)
    : settings_(settings),
      connection_(std::move(connection)),
      directory_(std::move(journal_directory)),
      metrics_(metrics),
      log_(std::move(log)),
      on_outage_(policy_of(settings.on_outage)),
      shared_(journal, workers) {
  for (unsigned i = 0; i < workers; ++i) shown_.push_back(std::make_unique<Shown>());
}

LeaseService::~LeaseService() = default;

LeaseWorkerOptions LeaseService::worker_options(unsigned worker) const {
  LeaseWorkerOptions options;
  options.index = worker;
  options.store.connection = connection_;
  options.store.connection.seed += worker;
  options.store.durability =
      settings_.durability == config::Durability::wait ? redis::Durability::wait : redis::Durability::replay;
  options.store.min_replicas = settings_.min_replicas;
  options.store.wait_timeout = settings_.wait_timeout;
  options.store.timeout = settings_.timeout;
  options.store.subscribe = worker == 0;
  options.store.incarnation = shared_.journal.incarnation();
  options.engine.incarnation = shared_.journal.incarnation();
  options.engine.engines = static_cast<unsigned>(shared_.places.size());
  options.engine.index = worker;
  options.engine.session_ttl = settings_.session;
  options.engine.ping_interval = settings_.ping_interval;
  options.engine.flush_interval = settings_.flush_interval;
  options.engine.lease_max = settings_.lease_max;
  options.engine.fence_wait = settings_.fence_wait;
  // A refusal must be known before the call's patience ends, recalls included.
  options.engine.recall_pause = std::min(options.engine.recall_pause, settings_.timeout / 5);
  options.engine.seed = connection_.seed + worker;
  options.ledger.worker = worker;
  std::random_device device;
  options.ledger.hash_seed = std::uint64_t{device()} << 32 | device();
  options.ledger.timeout = settings_.timeout;
  options.ledger.on_outage = on_outage_;
  options.seats.hash_seed = std::uint64_t{device()} << 32 | device();
  {
    std::lock_guard lock(seats_mutex_);
    options.pools = pools_;
  }
  options.log = [this, worker](std::string_view level, std::string_view text) {
    log_(level, fmt::format("worker {}: {}", worker, text));
  };
  options.observe_round_trip = [this, worker](Duration duration) {
    metrics_.observe_store_roundtrip(worker, duration);
  };
  return options;
}

std::unique_ptr<quota::Ledger> LeaseService::make_ledger(event_base* base, unsigned worker) {
  return std::make_unique<LeaseWorker>(base, shared_, worker_options(worker));
}

std::unique_ptr<flow::SessionStore> LeaseService::make_sessions(unsigned worker) {
  return std::make_unique<SessionWorker>(shared_.places[worker]->worker->store(), session_counters_,
                                         settings_.timeout);
}

seats::SeatLedger* LeaseService::seats(unsigned worker) {
  LeaseWorker* own = shared_.places[worker]->worker;
  return own == nullptr ? nullptr : &own->seats();
}

void LeaseService::set_pools(const std::vector<flow::SeatPool>& pools) {
  std::vector<seats::Pool> now;
  for (const flow::SeatPool& pool : pools) now.push_back(pool.pool);
  {
    std::lock_guard lock(seats_mutex_);
    pools_ = now;
  }
  for (unsigned i = 0; i < shared_.places.size(); ++i)
    shared_.post(i, [now](LeaseWorker& worker) { worker.set_pools(now); });
}

std::unique_ptr<usage::CallJournal> LeaseService::make_call_journal(unsigned worker) {
  return std::make_unique<journal::StreamCallJournal>(shared_.journal, worker);
}

void LeaseService::tick(unsigned worker) {
  LeaseWorker* own = shared_.places[worker]->worker;
  Shown& shown = *shown_[worker];
  if (own == nullptr) {
    shown.up = false;
    return;
  }
  own->tick();
  const bool up = own->store().all_up();
  if (shown.up.exchange(up) != up) {
    if (!up) shown.losses.fetch_add(1);
    if (up)
      log_("info", fmt::format("worker {}: connected to the quota store", worker));
    else
      log_("warning",
           fmt::format("worker {}: the quota store is away: {}", worker, own->store().last_error()));
  }
  shown.fence_wait_ms =
      own->fence_wait().count();  // before the replays: who reads them finds why they were made
  const quota::LeaseCounters& engine = own->engine().counters();
  shown.ops = engine.ops;
  shown.blocking = engine.blocking_ops;
  shown.pings = engine.pings;
  shown.replays = engine.replays;
  shown.refills = engine.refills;
  shown.denials = engine.denials;
  shown.recalls = engine.recalls;
  shown.lapses = engine.lapses;
  shown.gaps = engine.gaps;
  shown.fenced = engine.fenced;
  shown.clock_off = engine.clock_off;
  shown.over = engine.over;
  shown.resent = engine.resent;
  shown.log_failures = engine.log_failures;
  const quota::LeaseLedger::Counters& ledger = own->ledger().counters();
  shown.local = ledger.local;
  shown.waited = ledger.waited;
  shown.unavailable = ledger.unavailable;
  shown.timeouts = ledger.timeouts;
  shown.degraded = ledger.degraded;
  shown.table_full = ledger.table_full;
  shown.given_back = ledger.given_back;
  const redis::RedisStore::Counters& store = own->store().counters();
  shown.commands = store.commands;
  shown.wait_misses = store.wait_misses;
  shown.redirections = store.redirections;
  if (worker == 0) {
    std::lock_guard lock(seats_mutex_);
    seats_shown_ = own->seats().status();
  }
  const std::int64_t disagreement = own->clock_disagreement().count();
  if ((shown.clock_disagreement_ms.exchange(disagreement) == 0) != (disagreement == 0)) {
    if (disagreement != 0)
      log_("error",
           fmt::format("worker {}: the store's clock has jumped by {} ms against this machine's: leases are "
                       "served, nothing new is granted until they agree again",
                       worker, disagreement));
    else
      log_("info", fmt::format("worker {}: the store's clock agrees again", worker));
  }
}

void LeaseService::reload(const config::Store& settings) {
  on_outage_ = policy_of(settings.on_outage);
  for (unsigned i = 0; i < shared_.places.size(); ++i)
    shared_.post(
        i, [policy = on_outage_.load()](LeaseWorker& worker) { worker.ledger().set_outage_policy(policy); });
}

void LeaseService::on_every_worker(std::function<void(LeaseWorker&, std::function<void(bool)>)> task,
                                   std::function<void(bool)> done) {
  struct Round {
    std::mutex mutex;
    std::size_t left;
    bool all = true;
    std::function<void(bool)> done;
  };
  auto round = std::make_shared<Round>();
  round->left = shared_.places.size();
  round->done = std::move(done);
  auto answered = [round](bool ok) {
    std::unique_lock lock(round->mutex);
    round->all = round->all && ok;
    if (--round->left > 0) return;
    const bool all = round->all;
    lock.unlock();
    round->done(all);
  };
  for (unsigned i = 0; i < shared_.places.size(); ++i)
    if (!shared_.post(i, [task, answered](LeaseWorker& worker) { task(worker, answered); })) answered(false);
}

bool LeaseService::drain(Milliseconds limit) {
  struct Wait {
    std::mutex mutex;
    std::condition_variable changed;
    std::optional<bool> settled;
  };
  auto wait = std::make_shared<Wait>();
  on_every_worker(
      [](LeaseWorker& worker, std::function<void(bool)> done) { worker.settle_all(true, std::move(done)); },
      [wait](bool settled) {
        std::lock_guard lock(wait->mutex);
        wait->settled = settled;
        wait->changed.notify_all();
      });
  std::unique_lock lock(wait->mutex);
  return wait->changed.wait_for(lock, limit, [&] { return wait->settled.has_value(); }) && *wait->settled;
}

unsigned LeaseService::workers_connected() const {
  unsigned connected = 0;
  const auto workers = static_cast<unsigned>(shared_.places.size());
  for (unsigned worker = 0; worker < workers; ++worker) {
    bool up = true;
    for (unsigned p = worker; p < quota::kPartitions && up; p += workers) up = shared_.agreed[p].load();
    connected += up ? 1 : 0;
  }
  return connected;
}

std::vector<telemetry::Family> LeaseService::metrics() const {
  using Type = telemetry::Family::Type;
  std::vector<telemetry::Family> families;
  auto one = [&](std::string name, std::string help, Type type, double value) {
    families.push_back({.name = std::move(name),
                        .help = std::move(help),
                        .type = type,
                        .samples = {{.labels = {}, .value = value}}});
  };
  auto total = [&](std::string name, std::string help, std::atomic<std::uint64_t> Shown::* member) {
    std::uint64_t sum = 0;
    for (const auto& shown : shown_) sum += ((*shown).*member).load();
    one(std::move(name), std::move(help), Type::counter, static_cast<double>(sum));
  };
  auto greatest = [&](std::atomic<std::int64_t> Shown::* member) {
    std::int64_t worst = 0;
    for (const auto& shown : shown_) {
      const std::int64_t here = ((*shown).*member).load();
      if (std::abs(here) > std::abs(worst)) worst = here;
    }
    return static_cast<double>(worst) / 1'000;
  };
  one("tollgate_store_up", "1 when every worker reaches the quota store.", Type::gauge,
      workers_connected() == shown_.size() ? 1 : 0);
  total("tollgate_store_connection_losses_total", "Times a worker lost the quota store.", &Shown::losses);
  total("tollgate_store_commands_total", "Commands sent to the quota store.", &Shown::commands);
  total("tollgate_store_redirections_total", "MOVED and ASK answers of a cluster.", &Shown::redirections);
  total("tollgate_store_wait_misses_total",
        "Grants not used because too few replicas confirmed them in time.", &Shown::wait_misses);
  total("tollgate_store_unavailable_total", "Charges that got no decision from the store.",
        &Shown::unavailable);
  total("tollgate_store_timeouts_total", "Of these, charges without an answer within store.timeout.",
        &Shown::timeouts);
  total("tollgate_charges_local_total",
        "Charges decided from leases or remembered denials, without the store.", &Shown::local);
  total("tollgate_charges_waited_total", "Charges that waited for the store.", &Shown::waited);
  total("tollgate_charges_degraded_total", "Calls let through without a token while the store was away.",
        &Shown::degraded);
  total("tollgate_give_backs_total", "Charges given back because the upstream never received the call.",
        &Shown::given_back);
  one("tollgate_leases", "Tokens held by this proxy and not yet used.", Type::gauge,
      static_cast<double>(shared_.table.tokens_held()));
  one("tollgate_accounts", "Quota accounts in the table of leases.", Type::gauge,
      static_cast<double>(shared_.table.accounts()));
  one("tollgate_accounts_max", "Places in the table of leases (journal.accounts).", Type::gauge,
      static_cast<double>(shared_.table.capacity()));
  total("tollgate_accounts_full_total", "Charges refused because the table of leases was full.",
        &Shown::table_full);
  total("tollgate_lease_refills_total", "Grants received.", &Shown::refills);
  total("tollgate_lease_ops_total", "Settlements and requests sent to the store.", &Shown::ops);
  total("tollgate_lease_blocking_ops_total", "Of these, with a call waiting.", &Shown::blocking);
  total("tollgate_lease_pings_total", "Session keep-alives sent.", &Shown::pings);
  total("tollgate_lease_denials_total", "Refusals of the store.", &Shown::denials);
  total("tollgate_lease_recalls_total", "Leases handed back because another proxy lacked tokens.",
        &Shown::recalls);
  total("tollgate_lease_lapses_total", "Sessions that ended because the store was away too long.",
        &Shown::lapses);
  total("tollgate_lease_gaps_total", "Times the store had forgotten acknowledged ops.", &Shown::gaps);
  total("tollgate_lease_replays_total", "Ops sent again from the journal.", &Shown::replays);
  total("tollgate_lease_resent_total", "Ops sent again because their answer was lost.", &Shown::resent);
  total("tollgate_lease_fenced_total", "Ops without a grant because a server has not been agreed on yet.",
        &Shown::fenced);
  total("tollgate_lease_clock_off_total", "Ops without a grant because clocks disagree.", &Shown::clock_off);
  total("tollgate_lease_over_total", "Accounts with more use than had been lent: a double failure.",
        &Shown::over);
  const auto sessions = [&](std::string name, std::string help, const std::atomic<std::uint64_t>& value) {
    one(std::move(name), std::move(help), Type::counter, static_cast<double>(value.load()));
  };
  sessions("tollgate_session_logins_total",
           "Sessions of the CRM's own log-in, and cookies set anew, that were learnt.",
           session_counters_.binds);
  sessions("tollgate_session_ends_total", "Sessions seen to end: log-outs, and 401 of the CRM.",
           session_counters_.ends);
  sessions("tollgate_session_lookups_total", "Times the store was asked whose a session is.",
           session_counters_.lookups);
  sessions("tollgate_session_unknown_total", "Of these, sessions that nobody knows.",
           session_counters_.unknown);
  sessions("tollgate_session_failures_total", "Of these, without an answer of the store.",
           session_counters_.failures);
  one("tollgate_sessions_unpublished", "Log-ins and log-outs that the store could not be told yet.",
      Type::gauge, static_cast<double>(session_counters_.unpublished.load()));
  one("tollgate_fence_wait_seconds", "How long grants have been waiting behind a fence.", Type::gauge,
      greatest(&Shown::fence_wait_ms));
  one("tollgate_clock_disagreement_seconds", "How far the store's clock has jumped against this machine's.",
      Type::gauge, greatest(&Shown::clock_disagreement_ms));
  telemetry::Family used{.name = "tollgate_seats_used",
                         .help = "Seats that are taken, on all proxies.",
                         .type = Type::gauge,
                         .samples = {}};
  telemetry::Family cap{
      .name = "tollgate_seats_cap", .help = "Seats that there are.", .type = Type::gauge, .samples = {}};
  {
    std::lock_guard lock(seats_mutex_);
    for (const seats::SeatLedger::Status& pool : seats_shown_) {
      if (pool.known)
        used.samples.push_back(
            {.labels = {{"product", pool.pool.id}}, .value = static_cast<double>(pool.used)});
      cap.samples.push_back(
          {.labels = {{"product", pool.pool.id}}, .value = static_cast<double>(pool.pool.capacity)});
    }
  }
  families.push_back(std::move(used));
  families.push_back(std::move(cap));
  const journal::Journal& journal = shared_.journal;
  one("tollgate_journal_writable", "1 when calls and ops can be recorded.", Type::gauge,
      journal.writable() ? 1 : 0);
  one("tollgate_journal_pending_records", "Entries written and not yet durable against power loss.",
      Type::gauge, static_cast<double>(journal.pending_records()));
  one("tollgate_journal_flush_lag_seconds", "Age of the oldest of these.", Type::gauge,
      static_cast<double>(journal.flush_lag().count()) / 1'000);
  one("tollgate_journal_bytes", "Size of the journal's segments on disk.", Type::gauge,
      static_cast<double>(journal.bytes_on_disk()));
  one("tollgate_journal_lost_entries_total",
      "Entries deleted before they were rolled up, to keep journal.max_size.", Type::counter,
      static_cast<double>(journal.lost_entries()));
  total("tollgate_journal_failures_total", "Ops not made because the journal could not take them.",
        &Shown::log_failures);
  return families;
}

namespace {

Error stopping() {
  return Error{.message = "The proxy is stopping.", .origin = Origin::self, .may_retry = true};
}

// Two answers that belong together; the second to arrive passes both on.
struct Usage {
  std::optional<admin::Sources::States> states;
  std::optional<admin::Sources::Listed> listed;
  std::function<void(admin::Sources::States, admin::Sources::Listed)> done;
  void pass_on() {
    if (states && listed) done(std::move(*states), std::move(*listed));
  }
};

Result<std::vector<usage::AuditEntry>> latest_audits(const std::string& directory, std::size_t most) {
  std::deque<usage::AuditEntry> latest;
  const auto read = journal::Reader(directory).read(
      "control", 0, [&](const usage::EntrySource::Position&, const usage::EntryView& entry) {
        if (entry.kind != usage::EntryKind::audit) return true;
        if (auto audit = usage::decode_audit(entry.body)) latest.push_front(std::move(*audit));
        if (latest.size() > most) latest.pop_back();
        return true;
      });
  if (!read && latest.empty()) return std::unexpected(read.error());
  return std::vector<usage::AuditEntry>(std::make_move_iterator(latest.begin()),
                                        std::make_move_iterator(latest.end()));
}

}  // namespace

// The admin thread asks the first worker: any worker's store reads and changes every account.
void LeaseService::connect(admin::Sources& sources) {
  sources.read_usage = [this](std::vector<quota::AccountCharge> accounts,
                              quota::Rules::Observation observation,
                              std::function<void(admin::Sources::States, admin::Sources::Listed)> done) {
    const bool posted = shared_.post(0, [accounts, observation, done](LeaseWorker& worker) {
      auto usage = std::make_shared<Usage>();
      usage->done = done;
      if (observation.subject_key.empty()) {
        usage->listed.emplace();
      } else {
        worker.list(observation.subject_key, observation.prefix, observation.window, observation.bucket,
                    [usage](admin::Sources::Listed&& listed) {
                      usage->listed = std::move(listed);
                      usage->pass_on();
                    });
      }
      worker.read(accounts, [usage](admin::Sources::States&& states) {
        usage->states = std::move(states);
        usage->pass_on();
      });
    });
    if (!posted) done(std::unexpected(stopping()), std::unexpected(stopping()));
  };
  sources.get_override = [this](quota::AccountKey account, admin::Sources::OverrideRead done) {
    if (!shared_.post(0,
                      [account, done](LeaseWorker& worker) { worker.store().get_override(account, done); }))
      done(std::unexpected(stopping()));
  };
  sources.set_override = [this](quota::AccountKey account, admin::Sources::Override value,
                                admin::Sources::Changed done) {
    if (!shared_.post(0, [account, value, done](LeaseWorker& worker) {
          worker.store().set_override(account, value, done);
        }))
      done(std::unexpected(stopping()));
  };
  // What this proxy has not settled yet belongs to what is forgotten.
  sources.reset = [this](std::vector<quota::AccountKey> accounts, admin::Sources::Changed done) {
    on_every_worker([](LeaseWorker& worker,
                       std::function<void(bool)> settled) { worker.settle_all(false, std::move(settled)); },
                    [this, accounts, done](bool) {
                      if (!shared_.post(0, [accounts, done](LeaseWorker& worker) {
                            worker.store().reset(accounts, done);
                          }))
                        done(std::unexpected(stopping()));
                    });
  };
  sources.settle = [this](admin::Sources::Changed done) {
    on_every_worker(
        [](LeaseWorker& worker, std::function<void(bool)> settled) {
          worker.settle_all(false, std::move(settled));
        },
        [done](bool settled) {
          if (settled) return done({});
          done(fail(Origin::store, "The store is away: not everything could be settled. Try again.", true));
        });
  };
  sources.list_seats = [this](seats::Pool pool, std::uint64_t offset, std::uint64_t count,
                              std::function<void(Result<seats::Page>)> done) {
    if (!shared_.post(0, [pool, offset, count, done](LeaseWorker& worker) {
          worker.seat_store().list(pool, offset, count, "", done);
        }))
      done(std::unexpected(stopping()));
  };
  // Who believed in the seat here asks the store again, before it is said that the seat is free.
  sources.release_seat = [this](seats::Pool pool, std::string tenant, std::string user,
                                std::function<void(Result<bool>)> done) {
    auto forget = [this, pool, tenant, user, done](Result<bool>&& released) {
      if (!released) return done(std::move(released));
      on_every_worker(
          [pool, tenant, user](LeaseWorker& worker, std::function<void(bool)> forgotten) {
            worker.seats().forget(pool, {tenant, user});
            forgotten(true);
          },
          [done, had = *released](bool) { done(had); });
    };
    if (!shared_.post(0, [pool, tenant, user, forget](LeaseWorker& worker) {
          worker.seat_store().release(pool, seats::member_of({tenant, user}), forget);
        }))
      done(std::unexpected(stopping()));
  };
  sources.assign_seat = [this](seats::Pool pool, std::string tenant, std::string user,
                               std::function<void(Result<seats::TakeReply>)> done) {
    if (!shared_.post(0, [pool, tenant, user, done](LeaseWorker& worker) {
          worker.seat_store().take(pool, seats::member_of({tenant, user}), "", done);
        }))
      done(std::unexpected(stopping()));
  };
  sources.audit = [this](usage::AuditEntry entry) -> Result<void> {
    log_("info", fmt::format("admin: {} {} {} {}{}{}", entry.actor, entry.action, entry.subject, entry.detail,
                             entry.reason.empty() ? "" : ": ", entry.reason));
    return shared_.journal.audit(std::move(entry));
  };
  sources.audit_log = [directory = directory_](std::size_t most) { return latest_audits(directory, most); };
}

}  // namespace tollgate::cli
