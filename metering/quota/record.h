// The rolling window of one account, and the bytes in which it is kept outside the process.
//
// Problem: "never more than N units in any 24 hours" wants the time of every unit: 379 kB a user as a sorted set.
// Idea: units are counted in buckets of 60 s, only buckets with something in them are kept, and a unit is held until
// the END of its bucket is a window old (plus a guard), so the answer errs by at most one bucket, always late.
//
//      bucket b covers [b*bucket, (b+1)*bucket) ms of the store's clock
//      it is live while (b+1)*bucket + window + guard > now;  guard = min(2 s, bucket): what two store clocks may differ
//
//   time  ───────────────────────────────────────────────────────────────────────────────>
//            body: closed buckets, sparse, at most 128          tail: newest-19 .. newest
//          [b=100: 25] [b=131: 3] ......... [b=1002: 7]      [0][4][0]......[12][1]
//            oldest first                                       dense, newest first in the bytes
//
// Only the tail is ever added to: a charge in the bucket of the last charge, the common case, changes one number.
// A charge dated before `newest` (the store's clock stepped back) is counted in `newest`: later, so never freed early.
// `newest` stays when its units are given back (slot 0 may be 0); it never moves back while anything is counted.
// When a new bucket pushes a slot out of the tail, it is appended to the body if it holds anything. A body of more than
// 128 entries merges the adjacent pair that loses least: the earlier one INTO THE LATER one (its units are held longer,
// never shorter). Cost of a pair = count of the earlier * distance, computed in IEEE doubles (what Lua has); the
// oldest pair wins a tie. One merge after each append.
//
// Bytes. NEVER CHANGE: version 1 is what stores out there hold; a new layout takes a new version number.
// Little endian. varint = LEB128: 7 bits a byte, low bits first, high bit set on all but the last, shortest form only.
//
//   offset size
//     0     1   version = 1
//     1     1   number of leases = 0 (none in this version)
//     2     1   n = number of tail slots, 1..20
//     3     4   u32 bucket in ms
//     7     6   u48 total: sum of all counts below, > 0
//    13     6   u48 head: bucket number of the first body entry, 0 when the body is empty
//    19     6   u48 last: bucket number of the last body entry, 0 when the body is empty
//    25     6   u48 newest: bucket number of tail slot 0
//    31         n varints: counts of buckets newest, newest-1, ..., newest-(n-1); the last one > 0 unless n = 1
//               body, to the end: (varint gap, varint count)*, oldest first; gap to the entry before, 0 for the first
//               (its number is `head`); counts > 0, gaps of the others > 0; last < newest-19; at most 128 entries
//               newest < floor(2^48 / bucket): all times are below 2^48 ms, exact in a double
//
// An account with total 0 has no record ("" here, no field in the store). One state has exactly one encoding.
//   newest=1000 with 3 units, 2 units in bucket 998, 5 in bucket 900, bucket 60 s:
//   01 00 03 60ea0000 0a0000000000 840300000000 840300000000 e80300000000 | 03 00 02 | 00 05
//
// One operation on a stored record, in this order, in C++ and in the script alike:
//   1 decode; if its bucket differs from the rule's (the configuration changed): rebucket()
//   2 prune(now)   3 room? used + units <= limit   4 add(floor(now / bucket), units)   5 encode
//
// Pure and single-threaded. Times are milliseconds since 1970 of the STORE's clock.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/error.h"
#include "metering/base/time.h"

namespace tollgate::quota {

inline constexpr Milliseconds kGuardMax{2'000};
inline constexpr std::size_t kTailBuckets = 20;
inline constexpr std::size_t kBodyMax = 128;
inline constexpr std::uint64_t kCountMax =
    (1ULL << 48) - 1;  // counts and bucket numbers have 48 bits; the total stops there

// A window and its resolution: when a bucket leaves. Both > 0.
struct WindowShape {
  Milliseconds window{0};
  Milliseconds bucket{0};

  Milliseconds guard() const { return bucket < kGuardMax ? bucket : kGuardMax; }
  std::int64_t bucket_of(Milliseconds now) const { return now.count() / bucket.count(); }
  // First moment at which the units of bucket b no longer count.
  Milliseconds leaves_at(std::int64_t b) const { return (b + 1) * bucket + window + guard(); }
  bool live(std::int64_t b, Milliseconds now) const { return leaves_at(b) > now; }
};

// window/1440, not finer than 100 ms nor coarser than 60 s: 24 h -> 60 s, 1 h -> 2.5 s, 1 s -> 100 ms.
Milliseconds default_bucket(Milliseconds window);

class RollingWindow {
 public:
  struct Bucket {
    std::int64_t number = 0;
    std::uint64_t count = 0;
    bool operator==(const Bucket&) const = default;
  };

  explicit RollingWindow(Milliseconds bucket);

  // The window in `bytes`; "" is an empty one with the given bucket. Bytes that are not exactly one valid encoding
  // are an error (origin store): a record is never guessed at. A record of another bucket size is rebucketed.
  static Result<RollingWindow> decode(std::string_view bytes, Milliseconds bucket);
  std::string encode() const;

  // Drops what has left. Call before every question below. Amortised O(1).
  void prune(const WindowShape& shape, Milliseconds now);

  std::uint64_t used() const { return total_; }
  Milliseconds bucket() const { return bucket_; }

  // Counts units in bucket max(number, newest) and returns that number: it belongs in the receipt. units > 0.
  // An empty window (total 0) forgets its newest bucket: it starts at `number`.
  std::int64_t add(std::int64_t number, std::uint64_t units);

  // Gives back units of a receipt whose bucket is `number`: from the tail slot of exactly that number, else from the
  // first body entry at or after it (merging moves units only there). Never takes more than is there; returns what was
  // taken. A bucket that has already left by its own number gives nothing. Call after prune.
  std::uint64_t remove(const WindowShape& shape, Milliseconds now, std::int64_t number, std::uint64_t units);

  // Oldest bucket with something in it: leaves_at(number) is when `count` units come back. {0, 0} when empty.
  Bucket oldest() const;
  // How long from now until `units` more fit under `limit`: 0 when they fit now, Milliseconds::max() when never.
  // Exact: a call at that moment is admitted, one millisecond earlier it is not (nothing else being charged).
  // O(number of buckets).
  Milliseconds fits_after(const WindowShape& shape, Milliseconds now, std::uint64_t limit,
                          std::uint64_t units) const;

  // All buckets with something in them, oldest first. For explanations and tests.
  std::vector<Bucket> buckets() const;

  // Renumbers for another bucket size: units move to the bucket that holds the last millisecond of their old one
  // (never earlier), in the order of age, through the same append and merge rules.
  void rebucket(Milliseconds bucket);

  bool operator==(const RollingWindow&) const = default;

 private:
  void shift_to(std::int64_t number);  // makes `number` the newest; slots that fall out go to the body
  void append_body(Bucket bucket);
  void merge_cheapest_pair();

  Milliseconds bucket_;
  std::uint64_t total_ = 0;
  std::int64_t newest_ = 0;
  std::array<std::uint64_t, kTailBuckets> tail_{};  // [i] = bucket newest_ - i
  std::vector<Bucket> body_;
};

}  // namespace tollgate::quota
