// What the running parts know and the metrics show: connections, upstream health, reloads, certificates, the store's
// child process. Asked for at each scrape.
#pragma once
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "metering/redis/embedded.h"
#include "proxy/admin/service.h"
#include "proxy/flow/snapshot.h"
#include "proxy/net/key_set_fetcher.h"
#include "proxy/net/server.h"
#include "proxy/telemetry/access_log.h"
#include "proxy/telemetry/metrics.h"

namespace tollgate::cli {

// tollgate_config_last_reload_successful and ..._success_timestamp_seconds, with Prometheus' own meaning: back to 1
// with the next reload that works.
class ReloadStatus {
 public:
  void succeeded();
  void failed() { successful_ = false; }
  bool successful() const { return successful_; }
  std::int64_t success_timestamp() const { return timestamp_; }

 private:
  std::atomic<bool> successful_{false};
  std::atomic<std::int64_t> timestamp_{0};
};

telemetry::Metrics::Options metrics_options(const flow::Snapshot& snapshot, unsigned workers);

// Failures to fetch or read key sets, one sample an issuer; in the order of settings.identity.jwt.
telemetry::Family key_set_failures(const config::Settings& settings, const net::KeySetFetcher& keys);

// access_log and embedded may be nullptr.
std::vector<telemetry::Family> gauges(const net::Server& server, std::uint64_t log_lost_lines,
                                      const telemetry::AccessLog* access_log,
                                      const redis::EmbeddedRedis* embedded, const ReloadStatus& reload);

// What the admin API shows of the running server.
std::optional<admin::Sources::Followed> followed(const net::Server& server);
std::vector<admin::Sources::UpstreamServer> upstream_servers(const net::Server& server);

// One sentence for each setting that differs and that only a restart changes.
std::vector<std::string> needs_restart(const config::Settings& now, const config::Settings& next);

}  // namespace tollgate::cli
