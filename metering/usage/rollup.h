// From single calls to what billing reads: sums per hour (UTC) x tenant x organization x user x product x object x
// operation, and the files made of them. Pure: entries in, rows out; the rows are kept by metering/billing.
//
// A call belongs to the hour of its arrival. One call on n operations (a batch) adds its calls to each operation's row;
// seconds and bytes of the call are split evenly over its operations, remainders to the first, so that sums are exact.
//
// A row once exported is never changed: what is learned later of a closed hour becomes a row of its own, a correction with
// its own id, in the next file. Ids are hashes of what the row covers, so a repeated export has the same ids and bytes.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "metering/usage/journal_record.h"

namespace tollgate::usage {

// Latency quantiles from logarithmic buckets: 32 a factor of 10 from 100 us up to 1 000 s; error of a quantile < 4 %.
class LatencySketch {
 public:
  static constexpr std::size_t kBuckets = 226;
  void add(std::uint64_t us, std::uint64_t count = 1);
  void merge(const LatencySketch& other);
  std::uint64_t quantile(double q) const;  // us; 0 when empty
  std::uint64_t count() const;
  std::string encode() const;              // sparse varints
  static Result<LatencySketch> decode(std::string_view bytes);
  bool operator==(const LatencySketch&) const = default;

 private:
  std::map<std::uint16_t, std::uint64_t> buckets_;
};

struct RollupKey {
  std::int64_t hour = 0;                   // hours since 1970, UTC
  std::string tenant, organization, user, product, object, operation;
  auto operator<=>(const RollupKey&) const = default;
};

struct RollupSums {
  std::uint64_t calls = 0;                 // billable units
  std::uint64_t interrupted = 0;           // of these: cut off by the death of a proxy
  std::uint64_t degraded = 0;              // of these: let through without a quota decision
  std::uint64_t errors = 0;                // of these: answered 5xx, or not at all, by the upstream
  std::uint64_t given_back = 0;            // charged and handed back; not in calls
  std::uint64_t void_charged = 0;          // charged, never sent, lost with a process; not in calls
  std::map<std::string, std::uint64_t> denied;  // by reason code; operations refused
  std::uint64_t bytes_in = 0, bytes_out = 0;
  std::uint64_t backend_us = 0;            // time in the upstream: the actual performance
  LatencySketch latency;                   // of the upstream, one value a call
  void merge(const RollupSums& other);
  bool empty() const;
};

using Rollup = std::map<RollupKey, RollupSums>;

// Reads entries of one stream in order and sums them. Holds begins whose end has not come (bounded by the calls under way);
// they survive a restart of the reader through open_calls() / restore().
class RollupBuilder {
 public:
  void add(const CallBegin& begin);
  void add(const CallEnd& end);
  Rollup take();                           // what was summed since the last take
  // The lowest entry number that must be read again if the reader starts anew: that of the oldest open begin.
  struct Open {
    std::uint64_t call = 0, entry = 0;
  };
  void set_entry(std::uint64_t number) { entry_ = number; }  // of the next add
  std::vector<Open> open_calls() const;

 private:
  std::uint64_t entry_ = 0;
  std::map<std::uint64_t, std::pair<std::uint64_t, CallBegin>> open_;  // call -> (entry, begin)
  Rollup rollup_;
};

}  // namespace tollgate::usage
