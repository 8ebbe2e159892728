#include "proxy/cli/store_operations.h"

#include <fmt/format.h>

#include <optional>

namespace tollgate::cli {
namespace {

redis::RedisLedger* ledger_of(net::Server& server) {
  // make_ledger below is the only factory.
  return static_cast<redis::RedisLedger*>(server.ledger(0));
}

Error no_ledger() {
  return Error{.message = "The proxy is stopping.", .origin = Origin::self, .may_retry = true};
}

// Two answers that belong together; the second to arrive passes both on.
struct Pending {
  std::optional<admin::Sources::States> states;
  std::optional<admin::Sources::Listed> listed;
  std::function<void(admin::Sources::States, admin::Sources::Listed)> done;
  void pass_on() {
    if (states && listed) done(std::move(*states), std::move(*listed));
  }
};

}  // namespace

StoreOperations::StoreOperations(redis::RedisLedgerOptions options, unsigned workers,
                                 telemetry::Metrics& metrics,
                                 std::function<void(std::string_view, std::string_view)> log)
    : options_(std::move(options)), metrics_(metrics), log_(std::move(log)) {
  for (unsigned i = 0; i < workers; ++i) workers_.push_back(std::make_unique<PerWorker>());
}

// The worker's ticks go on for a moment after its ledger has ended.
class StoreOperations::WorkerLedger final : public redis::RedisLedger {
 public:
  WorkerLedger(event_base* base, redis::RedisLedgerOptions options, PerWorker& state)
      : RedisLedger(base, std::move(options)), state_(state) {
    state_.ledger = this;
  }
  ~WorkerLedger() override { state_.ledger = nullptr; }

 private:
  PerWorker& state_;
};

void StoreOperations::tick(unsigned worker) {
  PerWorker& state = *workers_[worker];
  if (state.ledger == nullptr) return;
  state.up = state.ledger->store_up();
  const redis::RedisLedger::Counters& counters = state.ledger->counters();
  state.unavailable = counters.unavailable;
  state.timeouts = counters.timeouts;
  state.give_backs = counters.give_backs;
  state.give_back_failures = counters.give_back_failures;
}

std::unique_ptr<quota::Ledger> StoreOperations::make_ledger(event_base* base, unsigned worker) {
  redis::RedisLedgerOptions options = options_;
  options.connection.seed += worker;
  auto ledger = std::make_unique<WorkerLedger>(base, std::move(options), *workers_[worker]);
  ledger->observe_round_trips(
      [this, worker](Duration duration) { metrics_.observe_store_roundtrip(worker, duration); });
  PerWorker* state = workers_[worker].get();
  ledger->observe_state([this, state, worker, ledger = ledger.get()](bool up) {
    const bool was = state->up.exchange(up);
    if (was == up) return;
    if (!up) state->losses.fetch_add(1);
    if (up)
      log_("info", fmt::format("worker {}: connected to the quota store", worker));
    else
      log_("warning", fmt::format("worker {}: lost the quota store: {}", worker, ledger->last_error()));
  });
  ledger->start();
  return ledger;
}

unsigned StoreOperations::workers_connected() const {
  unsigned count = 0;
  for (const auto& worker : workers_) count += worker->up.load() ? 1 : 0;
  return count;
}

std::vector<telemetry::Family> StoreOperations::metrics() const {
  using Type = telemetry::Family::Type;
  auto one = [](std::string name, std::string help, Type type, double value) {
    return telemetry::Family{.name = std::move(name),
                             .help = std::move(help),
                             .type = type,
                             .samples = {{.labels = {}, .value = value}}};
  };
  auto total = [&](std::string name, std::string help, std::atomic<std::uint64_t> PerWorker::* member) {
    std::uint64_t sum = 0;
    for (const auto& worker : workers_) sum += ((*worker).*member).load();
    return one(std::move(name), std::move(help), Type::counter, static_cast<double>(sum));
  };
  return {
      one("tollgate_store_up", "1 when every worker reaches the quota store.", Type::gauge,
          workers_connected() == workers_.size() ? 1 : 0),
      total("tollgate_store_connection_losses_total", "Connections to the quota store that were lost.",
            &PerWorker::losses),
      total("tollgate_store_unavailable_total", "Charges that got no decision from the store.",
            &PerWorker::unavailable),
      total("tollgate_store_timeouts_total", "Of these, charges without a reply within store.timeout.",
            &PerWorker::timeouts),
      total("tollgate_store_give_backs_total", "Charges given back, late replies included.",
            &PerWorker::give_backs),
      total("tollgate_store_give_back_failures_total",
            "Give-backs that were not confirmed: the units may stay charged until they leave the window.",
            &PerWorker::give_back_failures),
  };
}

void StoreOperations::connect(net::Server& server, admin::Sources& sources) const {
  sources.read_usage = [&server](std::vector<quota::AccountCharge> accounts,
                                 quota::Rules::Observation observation,
                                 std::function<void(admin::Sources::States, admin::Sources::Listed)> done) {
    server.post(0, [&server, accounts = std::move(accounts), observation = std::move(observation),
                    done = std::move(done)]() mutable {
      redis::RedisLedger* ledger = ledger_of(server);
      if (ledger == nullptr) return done(std::unexpected(no_ledger()), std::unexpected(no_ledger()));
      auto pending = std::make_shared<Pending>();
      pending->done = std::move(done);
      ledger->read(std::move(accounts), [pending](admin::Sources::States&& states) {
        pending->states = std::move(states);
        pending->pass_on();
      });
      if (observation.subject_key.empty()) {
        pending->listed.emplace();
        return pending->pass_on();
      }
      ledger->list(observation.subject_key, observation.prefix, observation.window, observation.bucket,
                   [pending](admin::Sources::Listed&& listed) {
                     pending->listed = std::move(listed);
                     pending->pass_on();
                   });
    });
  };
  sources.set_override = [&server](quota::AccountKey account, std::optional<std::uint64_t> limit,
                                   admin::Sources::Changed done) {
    server.post(0, [&server, account = std::move(account), limit, done = std::move(done)]() mutable {
      redis::RedisLedger* ledger = ledger_of(server);
      if (ledger == nullptr) return done(std::unexpected(no_ledger()));
      ledger->set_override(account, limit, std::move(done));
    });
  };
  sources.reset = [&server](std::vector<quota::AccountKey> accounts, admin::Sources::Changed done) {
    server.post(0, [&server, accounts = std::move(accounts), done = std::move(done)]() mutable {
      redis::RedisLedger* ledger = ledger_of(server);
      if (ledger == nullptr) return done(std::unexpected(no_ledger()));
      ledger->reset(std::move(accounts), std::move(done));
    });
  };
}

}  // namespace tollgate::cli
