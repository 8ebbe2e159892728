// From single calls to what billing reads: sums per hour (UTC) x tenant x organization x user x product x object x
// operation. Pure: entries in, rows out; the rows are kept by metering/billing, written by export_row.h.
//
// A call belongs to the hour of its arrival. One call on n operations (a batch) adds its calls to each operation's row;
// seconds and bytes of the call are split evenly over its operations, remainders to the first, so that sums are exact.
// A call without a licensed operation is in the row whose product, object and operation are "".
//
//   batch of 3: Case read (twice), Account read; 100 bytes out, 10 us in the upstream
//     Case read      calls 2   bytes_out 67   backend_us 7    (100 / 3 = 33 each, the first operation has the rest)
//     Account read   calls 1   bytes_out 33   backend_us 3
//
// A row once exported is never changed: what is learned later of a closed hour becomes a row of its own, a correction with
// its own id, in the next file. Ids are hashes of what the row covers, so a repeated export has the same ids and bytes.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "metering/usage/journal_record.h"

namespace tollgate::usage {

// Latency quantiles from logarithmic buckets: 32 a factor of 10 from 100 us up to 1 000 s; error of a quantile < 4 %.
// Bucket 0 is everything below, bucket 225 everything above. NEVER CHANGE the bounds: sketches are kept in books.
class LatencySketch {
 public:
  static constexpr std::size_t kBuckets = 226;
  void add(std::uint64_t us, std::uint64_t count = 1);
  void merge(const LatencySketch& other);
  std::uint64_t quantile(double q) const;  // us; 0 when empty. q in [0, 1]
  std::uint64_t count() const;
  std::string encode() const;  // (varint gap, varint count)*, ascending; "" when empty
  static Result<LatencySketch> decode(std::string_view bytes);
  bool operator==(const LatencySketch&) const = default;

 private:
  std::uint64_t& count_of(std::uint16_t bucket);
  struct Bucket {
    std::uint16_t number = 0;
    std::uint64_t count = 0;
    bool operator==(const Bucket&) const = default;
  };
  std::vector<Bucket> buckets_;  // ascending; none is empty. The calls of a row fall into a few of them
};

struct RollupKey {
  std::int64_t hour = 0;  // hours since 1970, UTC
  std::string tenant, organization, user, product, object, operation;
  auto operator<=>(const RollupKey&) const = default;
};

// Every number but bytes, backend_us and latency counts operations.
struct RollupSums {
  std::uint64_t calls = 0;        // billable units
  std::uint64_t interrupted = 0;  // of these: cut off by the death of a proxy
  std::uint64_t degraded = 0;     // of these: let through without a quota decision
  std::uint64_t errors = 0;       // of these: answered 5xx, or not at all, by the upstream
  std::uint64_t free = 0;         // forwarded and not billable (staff, objects without licence); not in calls
  std::uint64_t given_back = 0;   // charged and handed back; not in calls
  std::uint64_t void_charged = 0;  // charged, never sent, lost with a process; not in calls
  std::uint64_t void_maybe =
      0;  // as void_charged, and it is not known whether they were charged; not in calls
  std::map<std::string, std::uint64_t>
      denied;  // by reason code; operations refused, or that failed uncharged
  std::uint64_t bytes_in = 0, bytes_out = 0;
  std::uint64_t backend_us = 0;  // time in the upstream: the actual performance
  LatencySketch latency;  // of the upstream: the whole time of each call that touched the row, once a call
  void merge(const RollupSums& other);
  bool empty() const;
  std::uint64_t denied_total() const;
  bool operator==(const RollupSums&) const = default;
};

using Rollup = std::map<RollupKey, RollupSums>;

// "quota_exceeded=3;token_expired=1", ascending; "" when nothing was denied. parse: what it cannot read is left out.
std::string format_denied(const std::map<std::string, std::uint64_t>& denied);
std::map<std::string, std::uint64_t> parse_denied(std::string_view text);

// The hour of a call's arrival.
std::int64_t hour_of(std::int64_t time_ms);
// Billable units of a call: `units` of its end; an interrupted call whose end says none counts its operations. Staff has
// none, whatever a quota rule charged it.
std::uint64_t billable_units(const CallBegin& begin, const CallEnd& end);
// The rows of a roll-up by their key, made when they are missing: found by hash, and without making a key.
class RowIndex {
 public:
  explicit RowIndex(Rollup& rollup) : rollup_(rollup) {}
  RowIndex(const RowIndex&) = delete;
  RowIndex& operator=(const RowIndex&) = delete;
  RollupSums& row(const CallBegin& begin, std::string_view product, std::string_view object,
                  std::string_view operation);
  void clear() { rows_.clear(); }  // the roll-up was emptied

 private:
  Rollup& rollup_;
  std::unordered_map<std::uint64_t, Rollup::pointer> rows_;  // by hash; of two that share one, the first
};

// Adds one finished call to its rows.
void add_call(RowIndex& rows, const CallBegin& begin, const CallEnd& end);
void add_call(Rollup& rollup, const CallBegin& begin, const CallEnd& end);

// Reads entries of one stream in order and sums them. Holds begins whose end has not come (bounded by the calls under
// way); they survive a restart of the reader through open_calls() and restore(), so that nothing is read twice.
// A begin without end adds nothing yet.
class RollupBuilder {
 public:
  struct Open {
    std::uint64_t entry = 0;
    CallBegin begin;
  };
  // The body of a call_begin or a call_end entry. An error: it cannot be read.
  Result<void> add_begin(std::string_view body);
  Result<void> add_end(std::string_view body);
  void set_entry(std::uint64_t number) { entry_ = number; }  // of the next add
  Rollup take();                                             // what was summed since the last take

  const std::map<std::uint64_t, Open>& open_calls() const { return open_; }  // by call number
  void restore(std::uint64_t entry, CallBegin begin);
  // Ends whose begin was never seen (it was lost with a damaged or deleted segment): nobody can be billed for them.
  struct Orphan {
    std::uint64_t entry = 0, call = 0;
    std::uint32_t units = 0;
  };
  std::vector<Orphan> take_orphans();

 private:
  using OpenCalls = std::map<std::uint64_t, Open>;
  std::uint64_t entry_ = 0;
  OpenCalls open_;                           // call -> begin
  std::vector<OpenCalls::node_type> spare_;  // of calls that ended: memory of those that begin
  CallEnd end_;                              // the same
  std::vector<Orphan> orphans_;
  Rollup rollup_;
  RowIndex rows_{rollup_};
};

}  // namespace tollgate::usage
