// A private redis-server as a child process: what `store.url: embedded:DIR` means. One machine, no other
// installation.
//
// DIR holds   redis.conf (written anew at each start)   redis.sock   redis.pid   redis.log   appendonlydir/
//             tollgate.lock (flock: one Tollgate a DIR; the second is refused and told who holds it)
// No TCP port. Settings that are part of the quota contract: appendonly yes, appendfsync everysec,
// maxmemory-policy noeviction, hash-max-listpack-value 2048, save "".
//
//   start() ── lock ── end an orphan ── spawn ── wait for PONG ──> running ── stop(): SIGTERM, wait, SIGKILL
//                                         ^                          │ child died
//                                         └──── back-off 100ms..5s ──┘    (watcher thread)
//
// An orphan is a redis-server of a Tollgate that was killed. It normally ends by itself (PR_SET_PDEATHSIG).
// If one still runs, it is ended before the new one starts, and only if it is surely ours: the process of
// DIR/redis.pid must be a redis-server whose working directory is DIR.
//
// The kernel allows 107 bytes for the path of a unix socket. The server binds "redis.sock" relative to DIR;
// when DIR/redis.sock is too long for clients, socket_path() is a short path through /proc/self/fd, valid in
// this process only.
//
// Threads: start, stop and destruction from one thread, which may block up to the time-outs named; the
// accessors from any. Not for use on an event loop's thread once traffic flows.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "metering/base/error.h"
#include "metering/base/time.h"
#include "metering/redis/store_url.h"

namespace tollgate::redis {

struct EmbeddedOptions {
  std::string directory;                      // made (0700) if missing; its parent must exist
  std::string redis_server = "redis-server";  // program: a path, or a name looked up in PATH
  Milliseconds start_timeout{30'000};         // until PONG; includes loading the append-only file
  Milliseconds stop_timeout{10'000};          // SIGTERM .. SIGKILL
  // Called from the watcher thread when the child died (with how) and again when it runs anew.
  std::function<void(const std::string& event)> on_event;
};

class EmbeddedRedis {
 public:
  // Running and answering PING when it returns. Errors: no such program, directory not writable or in use by
  // another Tollgate, redis-server ended (with the tail of its log), time-out.
  static Result<std::unique_ptr<EmbeddedRedis>> start(EmbeddedOptions options);
  ~EmbeddedRedis();  // stop()
  EmbeddedRedis(const EmbeddedRedis&) = delete;
  EmbeddedRedis& operator=(const EmbeddedRedis&) = delete;

  StoreUrl url() const;  // unix_socket URL for ConnectionOptions
  std::string socket_path() const;
  int pid() const;  // 0 while the child is dead
  std::uint64_t restarts() const;
  void stop();  // ends the child and the watcher; harmless when repeated

 private:
  class Impl;
  explicit EmbeddedRedis(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tollgate::redis
