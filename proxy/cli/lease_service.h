// The quota store of the whole process: the leases all workers share, and what the control plane asks of them (admin API,
// readiness, metrics, shutdown).
//
// Threads: make_ledger and tick on the workers' threads; connect, drain and the rest from the control thread, metrics
// and workers_connected from any.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "config/settings.h"
#include "proxy/admin/service.h"
#include "proxy/cli/lease_worker.h"
#include "proxy/cli/session_worker.h"
#include "proxy/telemetry/metrics.h"

namespace tollgate::cli {

class LeaseService {
 public:
  using Log = std::function<void(std::string_view level, std::string_view text)>;

  // `connection` is where the store is (cli::store_connection). The journal outlives the service.
  LeaseService(const config::Store& settings, redis::ConnectionOptions connection, journal::Journal& journal,
               std::string journal_directory, unsigned workers, telemetry::Metrics& metrics, Log log);
  ~LeaseService();

  // For Server::Options::make_ledger and make_call_journal: on the worker's thread.
  std::unique_ptr<quota::Ledger> make_ledger(event_base* base, unsigned worker);
  seats::SeatLedger* seats(unsigned worker);  // Server::Options::seats; of the ledger made last
  std::unique_ptr<usage::CallJournal> make_call_journal(unsigned worker);
  // For Server::Options::make_sessions: on the worker's thread, after make_ledger, and gone before the ledger is.
  std::unique_ptr<flow::SessionStore> make_sessions(unsigned worker);
  void tick(unsigned worker);  // Server::Options::on_tick

  // What a running proxy can change: on_outage, and the pools of seats, which are told before the first ledger is made too.
  void reload(const config::Store& settings);
  void set_pools(const std::vector<flow::SeatPool>& pools);

  // Every lease is settled and handed back; true when the store has confirmed. For shutdown, before the server ends.
  bool drain(Milliseconds limit);

  unsigned workers_connected() const;  // those that reach the store for all they own
  std::vector<telemetry::Family> metrics() const;
  // Fills in the parts of the admin service's sources that need the store or the journal.
  void connect(admin::Sources& sources);

 private:
  // What a worker's thread last told the others.
  struct Shown {
    std::atomic<bool> up{false};
    std::atomic<std::uint64_t> losses{0};
    std::atomic<std::uint64_t> ops{0}, blocking{0}, pings{0}, replays{0}, refills{0}, denials{0}, recalls{0},
        lapses{0}, gaps{0}, fenced{0}, clock_off{0}, over{0}, resent{0}, log_failures{0};
    std::atomic<std::uint64_t> local{0}, waited{0}, unavailable{0}, timeouts{0}, degraded{0}, table_full{0},
        given_back{0};
    std::atomic<std::uint64_t> commands{0}, wait_misses{0}, redirections{0};
    std::atomic<std::int64_t> fence_wait_ms{0}, clock_disagreement_ms{0};
  };
  // Runs `task` on every worker; `done(all said true)` on the thread of the last one to answer.
  void on_every_worker(std::function<void(LeaseWorker&, std::function<void(bool)>)> task,
                       std::function<void(bool)> done);
  LeaseWorkerOptions worker_options(unsigned worker) const;

  config::Store settings_;
  redis::ConnectionOptions connection_;
  std::string directory_;
  telemetry::Metrics& metrics_;
  Log log_;
  std::atomic<quota::OutagePolicy> on_outage_;
  LeaseShared shared_;
  std::vector<std::unique_ptr<Shown>> shown_;
  SessionCounters session_counters_;
  mutable std::mutex seats_mutex_;  // held for a moment only
  std::vector<seats::Pool> pools_;
  std::vector<seats::SeatLedger::Status> seats_shown_;  // of the first worker
};

}  // namespace tollgate::cli
