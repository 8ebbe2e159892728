// The data plane: listeners, workers, upstream pools. Started from a snapshot, reloaded with another,
// drained, stopped.
//
//   Server::Options options;
//   options.snapshot = snapshot;                       // a validated configuration
//   options.make_ledger = [](event_base* base, unsigned worker) { return ...; };
//   auto server = Server::start(std::move(options));   // listens and serves when it returns
//   (*server)->reload(next_snapshot);
//   (*server)->drain(30s);                             // returns when every call in flight has ended, or
//   after 30 s server->reset();                                   // stops and joins the workers
//
// One thread a worker, each with its own event base, SO_REUSEPORT listener, upstream pools, Gate, Ledger and
// sinks; nothing is shared between workers but the snapshot, the TLS contexts (immutable) and the resolver of
// host names.
//
// Threads: start, reload, drain and the destructor from one control thread; post, counters, ports, draining
// from any. Ignores SIGPIPE for the process: a peer that goes away is an error of a write, not a signal.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/error.h"
#include "metering/base/time.h"
#include "metering/quota/ledger.h"
#include "metering/seats/ledger.h"
#include "metering/usage/fact.h"
#include "proxy/flow/life.h"
#include "proxy/flow/sessions.h"
#include "proxy/flow/snapshot.h"
#include "proxy/net/lookup_service.h"

struct event_base;

namespace tollgate::net {

// While draining, a connection without a request is closed once it was silent for so long: a request may be
// on its way on one that was just opened or used.
inline constexpr Milliseconds kSilence{1'000};

// Address in the settings -> listening sockets.
using Sockets = std::map<std::string, std::vector<int>, std::less<>>;
// As text for an environment variable: "127.0.0.1:8080=5,6;[::1]:8080=7". What is no listening socket is left
// out.
std::string to_text(const Sockets& sockets);
Sockets sockets_from_text(std::string_view text);
void close_all(Sockets& sockets);

// Sums over all workers at one moment; each worker's part is at most one turn of its loop old.
struct Counters {
  struct Connections {
    std::uint64_t active = 0, idle = 0;  // with and without an exchange
    std::uint64_t tunnels = 0;           // client side: upgraded connections; not in active
  };
  Connections client, upstream;
  std::uint64_t upstream_connecting = 0,
                upstream_waiting = 0;           // connections under way; requests waiting for one
  std::uint64_t accepted_total = 0;             // client connections
  std::uint64_t refused_connections_total = 0;  // closed or answered 503 because of limits.max_connections
  std::uint64_t accept_failures_total = 0;      // out of file descriptors or memory
  std::uint64_t tls_failures_total = 0;         // handshakes with clients that failed
  std::uint64_t upstream_connects_total = 0, upstream_connect_failures_total = 0;
  std::uint64_t upstream_retries_total = 0, upstream_retries_refused_total = 0;
  std::uint64_t token_cache_hits = 0, token_cache_misses = 0;
  // Clients cut off because they were too slow.
  std::uint64_t slow_handshakes_total = 0, slow_heads_total = 0, slow_bodies_total = 0,
                slow_readers_total = 0;
  std::uint64_t proxy_header_failures_total = 0;  // connections without the PROXY header that was expected
  // Connections refused because their address has too many, or opens them too fast (limits.per_address).
  std::uint64_t address_full_total = 0, address_fast_total = 0;
  std::uint64_t client_addresses = 0;                          // in the table of addresses
  std::uint64_t shed_anonymous_total = 0, shed_all_total = 0;  // requests answered 503 at that level
  std::uint64_t shed_level = 0;                                // flow::Shed of the busiest worker
  Duration loop_lag{0};                                        // of the latest worker, over a second
  struct Health {
    std::string upstream, server;
    std::uint64_t idle = 0;  // connections kept for the next call
    // Requests, for a connection to whatever server of the upstream: told by its first one.
    std::uint64_t waiting = 0;
    // false: its health checks fail, or on any worker: the last attempt to connect failed, or it is left out
    // for failing
    bool healthy = true;
    bool down = false, unreachable = false, ejected = false;  // why not
    std::uint64_t in_flight = 0, calls_total = 0, failures_total = 0, ejections_total = 0;
    bool checked = false;
    std::uint64_t checks_passed_total = 0, checks_failed_total = 0;
  };
  std::vector<Health> upstream_health;  // every server of every upstream of the present snapshot
};

struct CertificateExpiry {
  std::string file;
  UnixTime not_after;
};

class Server {
 public:
  struct Options {
    std::shared_ptr<const flow::Snapshot> snapshot;
    unsigned workers = 1;  // > 0
    // Called on the worker's thread before it serves. May be null: every charge is then unavailable.
    std::function<std::unique_ptr<quota::Ledger>(event_base*, unsigned worker)> make_ledger;
    // Called after make_ledger; what it made ends before the ledger. May be null: what a snapshot's table does not know
    // cannot be found out.
    std::function<std::unique_ptr<flow::SessionStore>(unsigned worker)> make_sessions;
    // The seats that come with that ledger and end with it. Called after make_ledger; may be null, or answer nullptr: it is
    // then not known who has a seat.
    std::function<seats::SeatLedger*(unsigned worker)> seats;
    std::function<std::vector<std::unique_ptr<usage::FactSink>>(unsigned worker)> make_sinks;
    // Where metered calls are written down before they are charged. May be null: nowhere.
    std::function<std::unique_ptr<usage::CallJournal>(unsigned worker)> make_call_journal;
    // A request ended whose time was taken (flow::Life::sampled); and how late the loop ran a timer, ten times a second.
    // On the worker's thread.
    std::function<void(unsigned worker, const flow::Life& life)> on_life;
    std::function<void(unsigned worker, Duration late)> on_loop_delay;
    // level: "error", "warning", "info", "debug". From any thread.
    std::function<void(std::string_view level, std::string_view text)> log;
    // Called on the worker's thread about once a second and when it stops: the place to flush logs and
    // journals.
    std::function<void(unsigned worker)> on_tick;
    std::uint64_t seed = 0;  // of request ids and hash tables; 0: taken from the system
    // Listening sockets of a predecessor, by address: used instead of new ones. Others are closed.
    Sockets inherited;
    bool hold = false;  // accept nothing before begin_accepting()
  };

  // Opens every listener and loads every certificate, or fails without leaving anything behind.
  static Result<std::unique_ptr<Server>> start(Options options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // All or nothing: new listeners are opened and certificates read (again) first; on an error nothing has
  // changed. Listeners of equal address stay open, others are closed after what waits in their queue was
  // accepted. Requests under way end under the snapshot they began with. Upstreams whose settings did not
  // change keep their connections. `workers` of the settings cannot change while running.
  Result<void> reload(std::shared_ptr<const flow::Snapshot> snapshot);

  // Accepts what waits in the queues and nothing more, closes connections that are silent for kSilence,
  // answers what comes on others with Connection: close. Returns when none is left or after `limit`; true
  // when none is left. What is still under way is cut by the destructor.
  bool drain(Milliseconds limit);
  // From this moment on replies say Connection: close, but listeners stay open
  // (settings.timeouts.drain_delay).
  void begin_drain();
  bool draining() const;

  void begin_accepting();

  // ---- making way for a successor, in this order; drain() comes last
  // Copies of the listening sockets: what comes after give_way() waits in their queues. The caller's to
  // close.
  Sockets sockets() const;
  void say_close(bool on);  // replies say Connection: close, and nothing else changes
  // Has every connection that was idle when say_close() began had a request since, or ended?
  bool all_told();
  // As drain(), but what waits in the queues is left there, and who only has to read his reply is not waited
  // for.
  bool give_way(Milliseconds limit);
  // From now on no call is charged: a metered one that still comes is answered 503.
  void stop_charging();
  // When it returns, ledgers and call journals have ended and on_tick is not called any more. Calls under way
  // go on, unrecorded in the journal: its next start ends them.
  void detach();

  // The requests that `order` names are followed from now on: "debug" lines in the log, until its time or its lines are
  // used up. One trail at a time: a new one ends the one before; nullopt just ends it.
  void follow(std::optional<flow::TrailOrder> order);
  // What is followed, as long as it lasts.
  std::shared_ptr<const flow::Trail> followed() const;
  static MonotonicTime now();  // the clock of Trail::until

  Counters counters() const;
  const LookupService::Counters& lookups() const;
  // Actual ports in the order of settings.listeners (differs from the address for port 0).
  std::vector<std::uint16_t> ports() const;
  std::vector<CertificateExpiry> certificates() const;
  unsigned workers() const;
  std::shared_ptr<const flow::Snapshot> snapshot() const;

  // Runs `task` on the worker's thread, soon. Tasks posted after the worker stopped are dropped.
  void post(unsigned worker, std::function<void()> task);
  // That worker's ledger; to be used on the worker's thread only (inside post).
  quota::Ledger* ledger(unsigned worker);

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tollgate::net
