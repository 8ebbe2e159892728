// The quota store as the control plane sees it: one ledger a worker, asked from other threads by posting to the worker
// that owns it. Also knows whether each worker's connection is up, for readiness and metrics.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "metering/redis/redis_ledger.h"
#include "proxy/admin/service.h"
#include "proxy/net/server.h"
#include "proxy/telemetry/metrics.h"

namespace tollgate::cli {

class StoreOperations {
 public:
  StoreOperations(redis::RedisLedgerOptions options, unsigned workers, telemetry::Metrics& metrics,
                  std::function<void(std::string_view level, std::string_view text)> log);

  // For Server::Options::make_ledger: on the worker's thread.
  std::unique_ptr<quota::Ledger> make_ledger(event_base* base, unsigned worker);

  // For Server::Options::on_tick: takes over what the worker's ledger knows; on the worker's thread.
  void tick(unsigned worker);

  // How many workers reach the store: connected, and not waiting for an overdue reply. Any thread; at most a second old.
  unsigned workers_connected() const;
  std::vector<telemetry::Family> metrics() const;

  // Fills in the parts of the admin service's sources that need the store. `server` must outlive their use.
  void connect(net::Server& server, admin::Sources& sources) const;

 private:
  class WorkerLedger;
  struct PerWorker {
    redis::RedisLedger* ledger = nullptr;  // on the worker's thread only
    std::atomic<bool> up{false};
    std::atomic<std::uint64_t> losses{0}, unavailable{0}, timeouts{0}, give_backs{0}, give_back_failures{0};
  };
  redis::RedisLedgerOptions options_;
  telemetry::Metrics& metrics_;
  std::function<void(std::string_view, std::string_view)> log_;
  std::vector<std::unique_ptr<PerWorker>> workers_;
};

}  // namespace tollgate::cli
