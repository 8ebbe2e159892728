// One primary as the store uses it: a Connection that knows the scripts and keeps the order. Inside this room only.
//
//   send() ── EVALSHA ──> server ──> reply ──────────────────────────> done
//                           │          └─ confirm: held ── WAIT ok ──> done
//                           │                                └─ too few replicas: done(error)
//                           └─ NOSCRIPT: what is sent from now on waits; when everything under way is answered, the
//                              scripts are loaded, then what met NOSCRIPT follows in its order, then what waited
//
// Confirming (`confirm`, requests that are `durable`): a ROLE and a WAIT follow the commands of one turn of the loop,
// in the same write. ROLE tells how many replicas are connected now, WAIT how many of them have everything written
// before it. Replies of durable requests are held until all connected ones, and at least min_replicas, have it. One WAIT
// is under way at a time; what is sent meanwhile is covered by the next. WAIT occupies the connection: reads sent behind
// it wait as well, at most wait_timeout.
//
// A request whose deadline passes gets an error; if it is `vital`, the connection ends with it (nothing later can be
// relied on). When the connection ends, every unanswered request gets an error, after `changed(false)`.
//
// Threads: on the loop's thread. Functions called from here may not destroy the Link.
#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "metering/redis/connection.h"
#include "metering/redis/scripts.h"

struct event;

namespace tollgate::redis {

class Link {
 public:
  struct Options {
    ConnectionOptions connection;
    std::vector<const Script*> scripts;  // loaded when the connection comes up; they outlive the Link
    bool confirm = false;
    std::uint32_t min_replicas = 1;
    Milliseconds wait_timeout{100};
  };
  struct Counters {
    std::uint64_t script_loads = 0;  // NOSCRIPT met
    std::uint64_t wait_misses = 0;   // WAITs that too few replicas answered in time
  };
  using Done = std::function<void(Result<Reply*>)>;
  struct Request {
    std::shared_ptr<const std::string> command;  // RESP
    MonotonicTime deadline;
    Milliseconds timeout{0};
    bool durable = false;
    bool vital = false;
    bool asking = false;  // Cluster: ASKING in front of it
    Done done;
    int loads = 0;  // times it met NOSCRIPT
  };

  Link(event_base* base, Options options, std::function<void(bool up)> changed);
  ~Link();
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  void start();
  void observe(std::function<void(bool up)> changed) { changed_ = std::move(changed); }
  // Ends the connection: whoever waits gets an error.
  void close(const std::string& why) { connection_.drop(why); }
  // `done` is called exactly once unless the Link is destroyed first; at once with an error when this is down.
  void send(Request request);

  bool up() const { return connection_.up(); }
  const std::string& run_id() const { return connection_.run_id(); }
  const StoreUrl& server() const { return connection_.server(); }
  const std::string& last_error() const { return connection_.last_error(); }
  std::uint64_t connects() const { return connection_.connects(); }
  const Counters& counters() const { return counters_; }

 private:
  struct Held {
    Done done;
    Reply reply;
  };

  void on_changed(bool up);
  void transmit(std::shared_ptr<Request> request);
  void answered(const std::shared_ptr<Request>& request, Result<Reply*> reply);
  void reload_when_quiet();
  void send_wait();
  void on_wait(Result<Reply*> reply, std::uint32_t asked);
  void release(bool confirmed, const std::string& why);
  static void wait_event(int, short, void* self);

  Options options_;
  std::function<void(bool up)> changed_;
  Counters counters_;
  std::uint64_t epoch_ = 0;  // of the connection: what belongs to an earlier one is over
  std::size_t under_way_ = 0;

  bool reloading_ = false;
  std::deque<std::shared_ptr<Request>> without_script_, waiting_;

  bool unconfirmed_ = false;  // durable commands sent since the last WAIT
  bool wait_under_way_ = false, wait_scheduled_ = false;
  std::uint32_t replicas_ = 0;  // connected, by the last ROLE
  std::deque<Held> held_;
  event* wait_event_ = nullptr;
  Connection connection_;  // last: destroyed first
};

// EVALSHA of `script`, or any other command, in RESP form.
std::shared_ptr<const std::string> encode_script(const Script& script, const std::vector<std::string>& keys,
                                                 const std::vector<std::string>& args);
std::shared_ptr<const std::string> encode_command(const std::vector<std::string_view>& words);

}  // namespace tollgate::redis
