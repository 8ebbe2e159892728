// Asks the servers of one upstream, each on a connection of its own every health_check.interval, whether they
// are well, and tells all workers through CheckedServer. One worker of the proxy does so; the servers' checks
// are spread over the interval.
//
// A check is a `GET` over the same resolver, TLS and parser as calls; it passes when a status of
// health_check.statuses comes within health_check.timeout. It counts neither as a call nor against
// max_connections.
//
// Threads: the worker's. Ends with its destructor.
#pragma once
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "proxy/net/health.h"
#include "proxy/net/upstream_connection.h"

namespace tollgate::net {

class HealthChecker {
 public:
  using Log = std::function<void(std::string_view level, std::string_view text)>;
  // All outlive it. checked: one a server.
  HealthChecker(EventLoop& loop, UpstreamPool& pool,
                const std::vector<std::shared_ptr<CheckedServer>>& checked, Log log);
  ~HealthChecker();

 private:
  class Check;
  std::vector<std::unique_ptr<Check>> checks_;
};

}  // namespace tollgate::net
