// Looks at a store before use, for `tollgate doctor` and for the start: can it be reached, is its clock
// right, are the settings on which the promises rest as they must be. Blocking (own loop); at most `timeout`
// a server.
//
// Sentinel: each sentinel is asked, then the primary that they name is looked at. Cluster: its slots, then every
// primary; what is in order is told once, of the first one.
//
//   auto report = probe(options, {.timeout = 2s, .now = system_now});
//   for (const Finding& f : report.findings) print(f.level, f.text, f.advice);
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "metering/base/error.h"
#include "metering/base/time.h"
#include "metering/redis/connection.h"

namespace tollgate::redis {

struct Finding {
  enum class Level : std::uint8_t { ok, warning, problem } level = Level::ok;
  std::string subject;  // stable word: sentinel, cluster, connect, round_trip, clock, version, role, scripts,
                        // eviction, persistence, encoding, replicas, replica_lag, backlog
  std::string text;     // what was found
  std::string advice;   // what to do; "" when ok
};

struct ProbeOptions {
  Milliseconds timeout{2'000};
  std::function<UnixTime()> now;    // this machine's calendar clock; empty: clocks are not compared
  Milliseconds clock_guard{2'000};  // further apart is a warning
  std::uint32_t min_replicas = 0;   // durability wait: replicas without which nothing is granted; 0 replay
};

struct ProbeReport {
  bool reachable = false;
  std::string server;             // "Redis 7.0.15", "Valkey 8.0.1"
  Duration round_trip{0};         // median of several PINGs
  Milliseconds clock_offset{0};   // server minus ours, half a round trip allowed for
  std::vector<Finding> findings;  // in the order of the subjects above
  bool usable() const;            // reachable and no problem among the findings
};

// What a start in strict mode must refuse: every problem, and of the warnings those that put a promise at risk (what
// evicts, what forgets, clocks that disagree, settings of these that cannot be read). The rest costs memory or time.
std::vector<Finding> strict_problems(const ProbeReport& report);

ProbeReport probe(ConnectionOptions connection, const ProbeOptions& options);

}  // namespace tollgate::redis
