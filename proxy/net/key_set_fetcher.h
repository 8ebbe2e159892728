// EDGE: keeps key rings filled. Reads secret_file and jwks_file again when their content changes and fetches
// jwks_url when a set is old or a token named an unknown key, on ONE background thread that no call ever
// waits for.
//
//   KeySetFetcher fetcher({{.ring = ring, .kind = KeySource::Kind::url, .location =
//   "https://idp.example/jwks"}}, log); fetcher.start();   // files are loaded when it returns; URLs too, if
//   they answer within the given bound
//
// Rules:
//   - a failure (unreachable, not 200, redirect, over 1 MiB, not a key set) keeps the last good set; until
//   there is a
//     first one, tokens of that issuer are refused
//   - one fetch at a time for each source, the starts at least min_interval apart, whatever tokens arrive
//   - files are looked at once a second and compared by content, so a rename, a symlink swap (Kubernetes secrets and
//     config maps) and an edit in place are all seen. One whose inode, size, mtime and ctime are the same for 3 s when
//     it is read is not read again until one of them changes
//   - TLS is verified (ca_file or the system's store); plain http is only allowed to the own host (localhost,
//     127.0.0.0/8, ::1); no redirect is followed; credentials inside a URL are refused
//
// Threads: construct, start, stop and destroy on one thread; status() from any. step() and wait() are the
// loop's body, for tests that bring their own time: do not mix them with start(); SIGPIPE must be ignored
// there (the own thread blocks it).
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "metering/base/error.h"
#include "metering/base/time.h"
#include "metering/identity/key_set.h"

namespace tollgate::net {

struct KeySource {
  enum class Kind : std::uint8_t { file, url, secret };
  std::shared_ptr<identity::KeyRing> ring;  // of this source alone
  Kind kind = Kind::file;
  std::string location;  // absolute path, or http(s) URL
  std::string ca_file;   // url: PEM bundle; "" is the system's store
  std::vector<std::string>
      algorithms;                 // secret: the issuer's list, to refuse a secret that is too short for one
  Milliseconds refresh{300'000};  // url: age at which a set is fetched again
  Milliseconds min_interval{10'000};  // url: shortest time between two starts, at least 100 ms
  Milliseconds timeout{10'000};       // url: the whole exchange; connecting gets at most half
};

// What is wrong with a jwks_url, for `tollgate check`: scheme, plain http to another host, credentials, no
// host.
Result<void> check_key_set_url(const std::string& url);

class KeySetFetcher {
 public:
  enum class Level : std::uint8_t { info, warning };
  // Called on the fetching thread (or the one that calls step). Never holds key material.
  using Log = std::function<void(Level, const std::string& line)>;

  struct Status {
    std::string location;
    std::uint64_t successes = 0;  // url: good fetches; file, secret: changes taken and recoveries
    std::uint64_t failures =
        0;                 // url: failed fetches; file, secret: failed readings (one a second while it lasts)
    std::size_t keys = 0;  // in the set now in use
    std::string last_error;  // "" after a success
  };

  explicit KeySetFetcher(std::vector<KeySource> sources, Log log = {});
  ~KeySetFetcher();  // stops
  KeySetFetcher(const KeySetFetcher&) = delete;
  KeySetFetcher& operator=(const KeySetFetcher&) = delete;

  // Loads every file, starts the thread, and waits at most `first_load` until each URL has answered or failed
  // once.
  void start(Milliseconds first_load = Milliseconds(2'000));
  void stop();  // breaks off fetches in flight; returns within milliseconds; may be called twice

  std::vector<Status> status() const;  // in the order of the sources

  // Starts what is due at `now`, moves fetches in flight on without waiting, stores what is complete. Returns
  // the time at which the next thing is due.
  MonotonicTime step(MonotonicTime now);
  // Waits until a fetch in flight can move on, a refresh is requested, or `longest` has passed.
  void wait(Milliseconds longest);
  bool in_flight() const;  // any fetch; same thread as step()

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tollgate::net
