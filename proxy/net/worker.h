// One worker of the data plane: a thread with its event loop, listeners, client connections, upstream pools,
// gate, ledger and sinks. Nothing here is locked; other threads post tasks and read atomic counters.
//
// Threads: constructor, start() .. stop() from the control thread; post() and
// counters from any; all else on the worker's own thread.
#pragma once
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "metering/base/random.h"
#include "proxy/flow/gate.h"
#include "proxy/net/client_connection.h"
#include "proxy/net/event_loop.h"
#include "proxy/net/life_watch.h"
#include "proxy/net/listener.h"
#include "proxy/net/lookup_service.h"
#include "proxy/net/overload.h"
#include "proxy/net/resolver.h"
#include "proxy/net/server.h"
#include "proxy/net/session.h"
#include "proxy/net/upstream_pool.h"

namespace tollgate::net {

// The configuration that a request begins and ends with, and the pools that belong to it.
struct Generation {
  std::shared_ptr<const flow::Snapshot> snapshot;
  std::map<std::string, std::shared_ptr<UpstreamPool>, std::less<>> pools;
};

struct WorkerCounters {
  std::atomic<std::uint64_t> active{0}, open{0}, tunnels{0};
  std::atomic<std::uint64_t> accepted_total{0}, refused_total{0}, accept_failures_total{0},
      tls_failures_total{0};
  std::atomic<std::uint64_t> token_cache_hits{0}, token_cache_misses{0};
  std::atomic<std::uint64_t> slow_handshakes_total{0}, slow_heads_total{0}, slow_bodies_total{0},
      slow_readers_total{0};
  std::atomic<std::uint64_t> proxy_header_failures_total{0};
  std::atomic<std::uint64_t> address_full_total{0}, address_fast_total{0};
  std::atomic<std::uint64_t> shed_anonymous_total{0}, shed_all_total{0};
  std::atomic<std::uint64_t> shed_level{0}, lag_nanoseconds{0};
};

class Worker {
 public:
  struct NewListener {
    std::string key;
    int fd = -1;  // -1: the worker has it already
    std::shared_ptr<const ServerTls> tls;
    std::shared_ptr<const ListenerRules> rules;
  };
  struct Update {
    std::shared_ptr<const flow::Snapshot> snapshot;
    std::map<std::string, std::shared_ptr<const ClientTls>, std::less<>> upstream_tls;
    // Of the upstreams with health checks; the same for all workers.
    std::map<std::string, std::vector<std::shared_ptr<CheckedServer>>, std::less<>> checked;
    std::vector<NewListener> listeners;  // all that shall be open; others are closed
  };

  Worker(const Server::Options& options, unsigned index, std::uint64_t seed, Resolver& resolver,
         AddressTable& addresses, LookupService& lookups);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // ---- control thread
  void start(Update first);                         // returns when the worker serves
  void update(Update next);                         // soon
  void follow(std::shared_ptr<flow::Trail> trail);  // nullptr: nothing any more; soon
  void begin_accepting();                           // when options.hold held it back
  void say_close(bool on);
  bool all_told();  // Server::all_told(); waits for the worker
  // What waits in the queues of the listeners: is served here, or left for a successor. Then connections
  // whose reply is out count as ended.
  enum class Queues : std::uint8_t { serve, leave };
  void drain(Queues queues, std::function<void()> when_empty);  // the function runs on the worker's thread
  void stop_charging();
  void detach();  // returns when it is done
  void stop();    // ends what is under way and joins
  void post(std::function<void()> task) { loop_.post(std::move(task)); }
  const WorkerCounters& counters() const { return counters_; }
  const PoolCounters& pool_counters() const { return pool_counters_; }
  std::vector<std::shared_ptr<ServerHealth>> health() const;

  // ---- worker's thread
  EventLoop& loop() { return loop_; }
  flow::Gate& gate() { return *gate_; }
  quota::Ledger* ledger() { return charging_ ? ledger_.get() : nullptr; }
  LookupService& lookups() { return lookups_; }
  flow::SessionStore* session_store() { return session_store_.get(); }  // may be nullptr
  seats::SeatLedger* seats() { return charging_ ? seats_ : nullptr; }
  usage::CallJournal* call_journal() { return call_journal_.get(); }  // may be nullptr
  Random& random() { return random_; }
  WorkerCounters& counters() { return counters_; }
  const std::shared_ptr<Generation>& generation() const { return generation_; }
  const config::Settings& settings() const { return generation_->snapshot->settings; }
  http::HeadLimits head_limits() const;
  std::string_view date();
  bool draining() const { return draining_; }
  bool closing() const { return closing_; }  // no connection is accepted any more, silent ones are closed
  bool stopped() const { return stopped_; }
  void record(const usage::Fact& fact);
  LifeWatch& life_watch() { return life_watch_; }
  void life_ended(const flow::Life& life);
  void retire(std::shared_ptr<Generation> generation);  // a session is done with it

  void accepted(int fd, std::string peer_address, std::shared_ptr<const ServerTls> tls, Listener& listener);
  void accept_failed(int error);
  void await(ClientConnection& connection);
  void forget_awaited(ClientConnection& connection);
  // Counts a connection of this address; false: it may have no further one.
  bool admit(const std::string& peer, AddressTable::Entry*& address);
  void leave(AddressTable::Entry*& address);
  // Does limits.per_address.request_rate let this request pass?
  bool may_request(const ClientConnection& connection, const http::RequestHead& head);
  flow::Shed shed() const { return overload_.level(); }
  void add_idle(ClientConnection& connection);
  void remove_idle(ClientConnection& connection);
  void exchange_began() { counters_.active.fetch_add(1, std::memory_order_relaxed); }
  void exchange_ended() { counters_.active.fetch_sub(1, std::memory_order_relaxed); }
  void linger_began();
  void linger_ended() { --lingering_; }
  void remove(ClientConnection& connection);         // closed: destroyed in the next turn
  void advance_later(ClientConnection* connection);  // in the next turn, if it still exists
  // What exchanges have to send waits for the end of the turn: then all of it goes out in one go. A peer that the
  // first send wakes is awake for those that follow, and code and data of sending stay in the caches.
  bool sends_now() const { return sending_; }
  void send_later(ClientConnection& connection);
  std::unique_ptr<Session> lend_session();
  void take_session(std::unique_ptr<Session> session);

 private:
  void run(Update first, const std::function<void()>& ready);
  void apply(Update next);
  void apply_limits();
  void apply_listeners(std::vector<NewListener> listeners);
  void send_all();
  void close_silent();
  void note_ended();
  static void on_entrance_timer(void* self);
  std::size_t room_for_connections() const;
  void look_after_awaited();
  void look_at_memory();
  void tell_overload();
  static void on_lag_timer(void* self);
  void tick();
  static void on_tick(void* self);
  void log(std::string_view level, std::string_view text) const;

  const Server::Options& options_;
  const unsigned index_;
  const std::uint64_t seed_;
  Resolver& resolver_;
  AddressTable& addresses_;
  LookupService& lookups_;
  EventLoop loop_;
  std::thread thread_;
  WorkerCounters counters_;
  PoolCounters pool_counters_;

  std::unique_ptr<flow::Gate> gate_;
  std::vector<std::unique_ptr<usage::FactSink>> sinks_;
  std::shared_ptr<Generation> generation_;
  std::unique_ptr<quota::Ledger> ledger_;
  std::unique_ptr<flow::SessionStore> session_store_;
  seats::SeatLedger* seats_ = nullptr;  // the ledger's
  std::unique_ptr<usage::CallJournal> call_journal_;
  Random random_;
  LifeWatch life_watch_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::unordered_map<ClientConnection*, std::unique_ptr<ClientConnection>> connections_;
  std::vector<std::unique_ptr<Session>> sessions_;  // not lent
  std::vector<ClientConnection*> later_;
  std::vector<ClientConnection*> senders_;  // that send at the end of the turn; nullptr: gone meanwhile
  ClientConnection* idle_first_ = nullptr;  // the longest idle
  ClientConnection* idle_last_ = nullptr;
  std::vector<ClientConnection*> awaited_;  // clients that others wait for
  std::size_t connections_max_ = 0;         // limits.max_connections, or what open files allow
  AddressLimits address_limits_;
  Overload overload_;
  OverloadRules overload_rules_;
  flow::Shed shed_told_ = flow::Shed::nothing;
  MonotonicTime lag_due_{};
  LoopTimer tick_timer_, lag_timer_, entrance_timer_;
  std::string date_;
  std::int64_t date_second_ = -1;
  MonotonicTime accept_failure_logged_{}, address_refusal_logged_{};
  std::size_t lingering_ = 0;  // connections whose reply is out
  std::function<void()> when_empty_;
  Queues queues_ = Queues::serve;
  MonotonicTime close_said_at_{};
  bool sending_ = false;
  bool holding_, charging_ = true, detached_ = false;
  bool draining_ = false, closing_ = false, stopped_ = false, listeners_paused_ = false;

  mutable std::mutex health_mutex_;
  std::vector<std::shared_ptr<ServerHealth>> health_;  // guarded by health_mutex_
};

}  // namespace tollgate::net
