// The connections of one worker to one upstream: idle ones are reused last in, first out, per server. Which
// server a call goes to is the Balancer's choice among those that are well (health.h). At most
// max_connections; beyond it requests wait in order, up to queue_timeout, and take whatever becomes free.
//
// Host names are resolved off the loop; requests that come before the first answer wait for it
// (connect_timeout). All addresses of a name take turns (address_turns.h); a server cannot be reached when none of them
// can. Idle connections to addresses that are no longer its own are closed.
//
// Threads: the worker's. Lives as long as something of it is in use (shared_ptr); retire() before it is
// replaced.
#pragma once
#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "config/settings.h"
#include "proxy/http/message.h"
#include "proxy/net/address_turns.h"
#include "proxy/net/balancer.h"
#include "proxy/net/health.h"
#include "proxy/net/health_checker.h"
#include "proxy/net/resolver.h"
#include "proxy/net/tls.h"
#include "proxy/net/upstream_connection.h"

namespace tollgate::net {

// Written by the worker, read by any thread.
struct PoolCounters {
  std::atomic<std::uint64_t> active{0}, idle{0}, connecting{0}, waiting{0};
  std::atomic<std::uint64_t> connects_total{0}, connect_failures_total{0};
  std::atomic<std::uint64_t> retries_total{0},
      retries_refused_total{0};  // of calls a server may have received
};
// One server as one worker sees it.
struct ServerHealth {
  std::string upstream, server;
  std::atomic<bool> reachable{true};           // the last attempt to connect did not fail
  std::atomic<std::int64_t> ejected_until{0};  // nanoseconds of MonotonicTime
  std::atomic<std::uint64_t> idle{0};          // connections
  std::atomic<std::uint64_t> waiting{0};  // requests, for whatever server of the pool: told by its first one
  std::atomic<std::uint64_t> in_flight{0}, calls_total{0}, failures_total{0}, ejections_total{0};
  std::shared_ptr<CheckedServer> checked;  // nullptr: no health checks
};

class UpstreamPool : public std::enable_shared_from_this<UpstreamPool> {
 public:
  struct Surroundings {
    EventLoop& loop;
    Resolver& resolver;
    PoolCounters& counters;
    std::function<void(std::string_view level, std::string_view text)> log;
    std::vector<std::shared_ptr<CheckedServer>> checked;  // one a server, or none: no health checks
    bool checks = false;                                  // this worker is the one that checks
  };
  static std::shared_ptr<UpstreamPool> create(Surroundings around, const config::Upstream& settings,
                                              std::shared_ptr<const ClientTls> tls, http::HeadLimits limits);
  ~UpstreamPool();

  const config::Upstream& settings() const { return settings_; }
  void set_tls(std::shared_ptr<const ClientTls> tls) {
    tls_ = std::move(tls);
  }  // for connections from now on

  // A connection in use by `user`, or nullptr: upstream_ready or upstream_failed follows, never from within
  // this call. For a call that cannot be sent again an idle one is looked at before it is taken (one recv);
  // for others what the loop has told of it will do. The hash key stays in place until then.
  UpstreamConnection* acquire(UpstreamUser& user, const flow::ExchangePort::Wanted& wanted);
  bool may_repeat();                 // a call that a server may have received: takes it from the budget
  void give_up(UpstreamUser& user);  // while it waits
  void release(UpstreamConnection& connection, bool reusable);

  // Closes idle connections and keeps none from now on.
  void retire();
  const std::vector<std::shared_ptr<ServerHealth>>& health() const { return health_; }

  // ---- for UpstreamConnection
  void connected(UpstreamConnection& connection);
  void connect_failed(UpstreamConnection& connection);
  void address_failed(const UpstreamConnection& connection);  // peer(); others may be left to try
  void discard(UpstreamConnection& connection);               // an idle one ended
  bool owns(UpstreamConnection& connection) const { return connections_.contains(&connection); }
  void answered(const UpstreamConnection& connection, int status);  // with the head of a reply
  void completed(const UpstreamConnection& connection,
                 int status);  // with the whole of it: no failure, unless by status
  void failed(const UpstreamConnection& connection, std::string_view how);

  // ---- for HealthChecker: a fresh connection, then upstream_ready or upstream_failed
  void open_check(UpstreamUser& user, std::size_t server);
  void close_check(UpstreamUser& user, UpstreamConnection* connection);  // nullptr: it is still connecting

 private:
  bool is_failure(int status) const;  // outlier.statuses
  struct Server {
    ServerUrl url;
    AddressTurns addresses;    // empty until resolved
    std::string lookup_error;  // of the last look-up that failed; empty until then
    Resolver::Handle lookup;
    std::vector<UpstreamConnection*> idle;  // the last is taken first
  };

  UpstreamPool(Surroundings around, const config::Upstream& settings, std::shared_ptr<const ClientTls> tls,
               http::HeadLimits limits);
  void start_lookups();
  void resolved(std::size_t server, Result<std::vector<Endpoint>> answer);
  void answer_those_that_wait_for_address(std::size_t server);  // they connect, or fail when there is none
  std::size_t choose_server(const UpstreamUser& user);
  bool weigh(MonotonicTime now, std::size_t avoid);
  bool is_down(std::size_t server) const;
  bool all_down() const;
  bool has_room() const { return connections_.size() - checks_open_ < settings_.max_connections; }
  bool still_its_own(const UpstreamConnection& connection) const;
  void begin_use(UpstreamConnection& connection, UpstreamUser& user);
  void count_call(std::size_t server, int change);
  UpstreamConnection* take_any_idle(bool look);
  UpstreamConnection* take_idle(std::size_t server, bool look);
  void open(UpstreamUser& user, std::size_t server);
  void start_connecting(UpstreamConnection& connection);
  void enqueue(UpstreamUser& user, Milliseconds patience, flow::UpstreamFailure failure);
  void serve_queue();
  void remove_idle(UpstreamConnection& connection);
  void tell_idle(std::size_t server);
  void destroy(UpstreamConnection& connection);
  static void on_queue_timeout(void* user);

  Surroundings around_;
  const config::Upstream settings_;
  std::shared_ptr<const ClientTls> tls_;
  http::HeadLimits limits_;
  std::vector<Server> servers_;
  std::vector<Balancer::Candidate> candidates_;  // of the servers, in their order
  Balancer balancer_;
  PassiveHealth suspicions_;
  RetryBudget budget_;
  std::vector<bool> failure_statuses_;  // by status
  std::vector<std::shared_ptr<ServerHealth>> health_;
  std::unordered_map<UpstreamConnection*, std::unique_ptr<UpstreamConnection>> connections_;
  std::deque<UpstreamUser*> queue_;
  std::size_t idle_count_ = 0;
  std::size_t checks_open_ = 0;  // of the connections
  std::unique_ptr<HealthChecker> checker_;
  bool retired_ = false;
};

}  // namespace tollgate::net
