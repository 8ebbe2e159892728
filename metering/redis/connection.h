// One connection to one Redis: RESP2 over TCP, TLS or a unix socket, on a libevent loop. It never blocks the
// loop.
//
//            start()            [where?], socket, TLS, AUTH, SELECT, PING
//    down ─────────────> connecting ─────────────────────────────────> up
//      ^                     │  any failure                            │  closed, protocol error, READONLY,
//      └──── back-off <──────┴─────────────────────────────────────────┘  no reply at all for `stall_timeout`
//
// Pipelining is automatic: all commands of one turn of the loop leave in one write. Replies come in order.
//
// Time-outs: every command has a deadline. When it passes, `done` is called with an error at once, whatever
// the server does; the reply, if it still comes, is dropped (what a late op granted is heard by its repetition,
// lease_protocol.h). The connection is stalled while its oldest command is unanswered at twice its time-out and no other
// reply came in the last time-out; send() then refuses at once instead of letting more callers wait for
// nothing. Any reply ends that.
//
// Down is down: send() answers at once when the connection is not up, with one exception: until the very
// first connection attempt has ended, commands wait for it within their deadline.
//
// Names are resolved by getaddrinfo in a short-lived thread, anew for every attempt, so that a changed DNS
// record is followed; numeric addresses need no thread. Every address of the answer is tried before the
// back-off. Back-off: backoff_min, doubled up to backoff_max, each drawn from [half, whole] by the seeded
// generator.
//
// Threads: everything, constructor and destructor included, on the loop's thread. After destruction no
// callback is called, pending ones are dropped. A callback may destroy the connection.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "metering/base/error.h"
#include "metering/base/time.h"
#include "metering/redis/reply.h"
#include "metering/redis/store_url.h"

struct event_base;

namespace tollgate::redis {

struct ConnectionOptions {
  StoreUrl url{};                       // not embedded: main starts the child and passes its socket
  std::string ca_file{};                // tls: "" is the system's store
  std::string server_name{};            // tls: SNI and name to verify; "" is the URL's host
  bool verify = true;                   // tls: false for tests only
  Milliseconds connect_timeout{1'000};  // name, socket, TLS, AUTH and PING together
  Milliseconds stall_timeout{5'000};  // no reply for so long although one is due: the connection is given up
  Milliseconds backoff_min{20};
  Milliseconds backoff_max{2'000};
  std::uint32_t max_pending = 16'384;  // commands without reply; beyond it send() refuses
  std::size_t max_reply_bytes = 64 * 1024 * 1024;
  std::uint64_t seed = 1;  // of the jitter

  // Sentinel: asked before every attempt where the server is now; within connect_timeout. Answers once, perhaps
  // at once; an answer to an attempt that is over is dropped. Empty: `url` is the server.
  using Located = std::function<void(Result<StoreUrl>)>;
  std::function<void(Located)> locate{};
  // INFO server and ROLE belong to the greeting: run_id() is known while up, a replica is no connection.
  bool primary_only = false;
  // A refused AUTH is passed over: sentinels often have no password where the servers have one.
  bool optional_password = false;
  // Pub/sub: messages published to subscribed channels, which answer no command. Each channel needs a SUBSCRIBE
  // of its own (one reply). The reply is the connection's until the handler returns.
  std::function<void(Reply&)> on_published{};
};

// The password of a file (store.password_file): its first line, without the line end.
Result<std::string> read_password_file(const std::string& path);

class Connection {
 public:
  enum class State : std::uint8_t { down, connecting, up };
  // The reply is the connection's until the handler returns; move out of it what must stay.
  // An Error is a failure of the transport (down, time-out). Error replies of Redis are replies.
  using Done = std::function<void(Result<Reply*>)>;
  using StateChanged = std::function<void(bool up)>;

  Connection(event_base* base, ConnectionOptions options);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Begins to connect; calling it again is harmless. `changed` is called on every step to and from up.
  void start(StateChanged changed = nullptr);

  // Sends one command. `done` is called exactly once, possibly before send() returns, unless the connection
  // is destroyed first.
  void send(std::span<const std::string_view> words, Milliseconds timeout, Done done);
  // The same with the command already in RESP form and with the deadline as a moment (a resent command keeps
  // its own). A patient command is sent even while the connection is stalled: nobody waits for it.
  void send_encoded(std::string_view command, MonotonicTime deadline, Milliseconds timeout, Done done,
                    bool patient = false);

  // Ends the connection, as if it had been lost, and connects anew after the back-off. No effect while down.
  void drop(std::string why);

  State state() const;
  bool up() const { return state() == State::up; }
  bool stalled() const;                   // up, but a reply is overdue by a whole time-out
  const std::string& last_error() const;  // of the last failed attempt or lost connection; never a password
  std::size_t pending() const;            // commands without reply, late ones included
  const std::string& run_id() const;      // of the server, primary_only; of the last connection while down
  const StoreUrl& server() const;         // the server of this or the last attempt
  std::uint64_t connects() const;         // times the connection came up
  std::uint64_t writes() const;           // system calls or TLS records that carried commands

  // What send() measures deadlines by, and what all moments of leases are read from: CLOCK_BOOTTIME. It runs on while the
  // machine is suspended, as the store's clock does; with CLOCK_MONOTONIC a proxy that slept for an hour would believe
  // its sessions still valid. libevent waits by a clock of its own that may stand still meanwhile: only durations
  // go there, so that a deadline is noticed later at most, never earlier, and every timer looks at this clock again.
  static MonotonicTime now();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tollgate::redis
