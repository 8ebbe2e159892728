// The connections of one worker to one upstream: idle ones are reused last in, first out, per server; servers
// take turns. A server that could not be connected to is left out for a while (1 s, doubling to 10 s) while
// another one is there. At most max_connections; beyond it requests wait in order, up to queue_timeout.
//
// Host names are resolved off the loop; requests that come before the first answer wait for it
// (connect_timeout).
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
#include "proxy/net/resolver.h"
#include "proxy/net/tls.h"
#include "proxy/net/upstream_connection.h"

namespace tollgate::net {

// Written by the worker, read by any thread.
struct PoolCounters {
  std::atomic<std::uint64_t> active{0}, idle{0}, connecting{0}, waiting{0};
  std::atomic<std::uint64_t> connects_total{0}, connect_failures_total{0};
};
struct ServerHealth {
  std::string upstream, server;
  std::atomic<bool> healthy{true};
};

class UpstreamPool : public std::enable_shared_from_this<UpstreamPool> {
 public:
  struct Surroundings {
    EventLoop& loop;
    Resolver& resolver;
    PoolCounters& counters;
    std::function<void(std::string_view level, std::string_view text)> log;
  };
  static std::shared_ptr<UpstreamPool> create(Surroundings around, const config::Upstream& settings,
                                              std::shared_ptr<const ClientTls> tls, http::HeadLimits limits);
  ~UpstreamPool();

  const config::Upstream& settings() const { return settings_; }
  void set_tls(std::shared_ptr<const ClientTls> tls) {
    tls_ = std::move(tls);
  }  // for connections from now on

  // A connection in use by `user`, or nullptr: upstream_ready or upstream_failed follows, never from within
  // this call. fresh: not an idle one; an idle one is looked at before it is taken (one recv).
  UpstreamConnection* acquire(UpstreamUser& user, bool fresh);
  void give_up(UpstreamUser& user);  // while it waits
  void release(UpstreamConnection& connection, bool reusable);

  // Closes idle connections and keeps none from now on.
  void retire();
  const std::vector<std::shared_ptr<ServerHealth>>& health() const { return health_; }

  // ---- for UpstreamConnection
  void connected(UpstreamConnection& connection);
  void connect_failed(UpstreamConnection& connection);
  void discard(UpstreamConnection& connection);  // an idle one ended
  bool owns(UpstreamConnection& connection) const { return connections_.contains(&connection); }

 private:
  struct Server {
    ServerUrl url;
    std::vector<Endpoint> addresses;  // empty until resolved
    std::string lookup_error;
    Resolver::Handle lookup;
    std::vector<UpstreamConnection*> idle;  // the last is taken first
    std::uint32_t failures = 0;             // in a row
    MonotonicTime out_until{};
  };

  UpstreamPool(Surroundings around, const config::Upstream& settings, std::shared_ptr<const ClientTls> tls,
               http::HeadLimits limits);
  void start_lookups();
  void resolved(std::size_t server, Result<std::vector<Endpoint>> answer);
  std::size_t choose_server();
  UpstreamConnection* take_idle(std::size_t server);
  void open(UpstreamUser& user, std::size_t server);
  void start_connecting(UpstreamConnection& connection);
  void enqueue(UpstreamUser& user);
  void serve_queue();
  void remove_idle(UpstreamConnection& connection);
  void destroy(UpstreamConnection& connection);
  static void on_queue_timeout(void* user);

  Surroundings around_;
  const config::Upstream settings_;
  std::shared_ptr<const ClientTls> tls_;
  http::HeadLimits limits_;
  std::vector<Server> servers_;
  std::vector<std::shared_ptr<ServerHealth>> health_;
  std::unordered_map<UpstreamConnection*, std::unique_ptr<UpstreamConnection>> connections_;
  std::deque<UpstreamUser*> queue_;
  std::size_t next_server_ = 0;
  std::size_t idle_count_ = 0;
  bool retired_ = false;
};

bool same_settings(const config::Upstream& a, const config::Upstream& b);

}  // namespace tollgate::net
