// The metrics of docs/metrics.md, in Prometheus' text format. Names and labels are promises to dashboards and alerts.
//
// The number of series is fixed by the configuration: labels hold objects of the rulebook (others count as `other`),
// operations, reasons and status codes, never a user, an organization or a path.
//
// Hot path: each worker has a shard of its own that only it writes (relaxed stores, no read-modify-write on shared
// lines, no lock); a scrape sums the shards. What other rooms know (connections, store, certificates) is asked for at
// each scrape through add_source.
//
// Threads: worker_sink and add_source before traffic; each sink on its worker's thread; scrape from any thread.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "metering/base/time.h"
#include "metering/usage/fact.h"
#include "proxy/flow/life.h"

namespace tollgate::telemetry {

// What a source contributes to a scrape.
struct Family {
  enum class Type : std::uint8_t { counter, gauge };
  using Labels = std::vector<std::pair<std::string, std::string>>;
  struct Sample {
    Labels labels;
    double value = 0;
  };
  std::string name;  // "tollgate_..." or "process_...", base units, counters end in _total
  std::string help;
  Type type = Type::gauge;
  std::vector<Sample> samples;
};

class Metrics {
 public:
  struct Options {
    unsigned workers = 1;
    std::vector<std::string> objects;          // label values of `object`
    std::vector<std::string> main_objects;     // of these, calls that never happened are exported as 0
    std::vector<std::string> shadow_limits{};  // candidate limits; those of a reload count as `other`
    std::string version, revision;
  };
  explicit Metrics(Options options);
  ~Metrics();

  std::unique_ptr<usage::FactSink> worker_sink(unsigned worker);
  // A round trip to the store, seen by that worker.
  void observe_store_roundtrip(unsigned worker, Duration duration);
  // Of a worker: how late it ran a timer; where the time of a request went (phases that it did not reach count nothing).
  void observe_loop_delay(unsigned worker, Duration late);
  void observe_life(unsigned worker, const flow::Life& life);
  void add_source(std::function<std::vector<Family>()> source);

  std::string scrape() const;
  static constexpr const char* kContentType = "text/plain; version=0.0.4; charset=utf-8";

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// process_* as Prometheus' client libraries name them, read from /proc/self.
std::vector<Family> process_metrics();

}  // namespace tollgate::telemetry
