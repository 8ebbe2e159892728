// What the store keeps of one account: the rolling window of what was used, the tokens lent to proxies
// (lease_protocol.h), and the bytes of both.
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
// Nearly everything is added to the tail: a use in the bucket of the last one, the common case, changes one number; what
// a proxy settles up to 20 buckets late is as cheap, and exact. count() dates every unit exactly, in the body too (by
// insertion). add() dates what is older than `newest` (the store's clock stepped back) in `newest`: later, so never
// freed early.
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
//     1     1   m = number of leases (a program that knows none refuses a record with any)
//     2     1   n = number of tail slots, 1..20
//     3     4   u32 bucket in ms
//     7     6   u48 total: sum of all counts below; > 0 unless there are leases
//    13     6   u48 head: bucket number of the first body entry, 0 when the body is empty
//    19     6   u48 last: bucket number of the last body entry, 0 when the body is empty
//    25     6   u48 newest: bucket number of tail slot 0
//    31   16*m  leases, ascending by incarnation: u32 incarnation > 0, u48 tokens outstanding > 0,
//               u48 session expiry (ms) when last touched
//               n varints: counts of buckets newest, newest-1, ..., newest-(n-1); the last one > 0 unless n = 1
//               body, to the end: (varint gap, varint count)*, oldest first; gap to the entry before, 0 for the first
//               (its number is `head`); counts > 0, gaps of the others > 0; last < newest-19; at most 128 entries
//               newest < floor(2^48 / bucket): all times are below 2^48 ms, exact in a double
//
// An account with total 0 and no leases has no record ("" here, no field in the store); with total 0 and leases all
// bucket numbers are 0. One state has exactly one encoding.
//   newest=1000 with 3 units, 2 units in bucket 998, 5 in bucket 900, bucket 60 s:
//   01 00 03 60ea0000 0a0000000000 840300000000 840300000000 e80300000000 | 03 00 02 | 00 05
// The same with 25 tokens lent to incarnation 7 until 1763820900000:
//   01 01 03 60ea0000 0a0000000000 840300000000 840300000000 e80300000000 | 07000000 190000000000 a00eebab9a01 |
//   03 00 02 | 00 05
//
// One operation on a stored record, in this order, in C++ and in the script alike:
//   1 decode; if its bucket differs from the rule's (the configuration changed): rebucket()
//   2 prune(now)   3 count() or add(), leases   4 encode
//
// Pure and single-threaded. Times are milliseconds since 1970 of the STORE's clock.
#pragma once
#include <algorithm>
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
inline constexpr std::size_t kLeasesMax = 255;
inline constexpr std::uint64_t kCountMax =
    (1ULL << 48) - 1;  // counts and bucket numbers have 48 bits; the total stops there

using Incarnation = std::uint32_t;  // > 0, random, kept in the journal; never used again by another journal

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

struct RecordLease;

class RollingWindow {
 public:
  struct Bucket {
    std::int64_t number = 0;
    std::uint64_t count = 0;
    bool operator==(const Bucket&) const = default;
  };

  explicit RollingWindow(Milliseconds bucket);

  // The window in `bytes`; "" is an empty one with the given bucket. Bytes that are not exactly one valid encoding
  // are an error (origin store): a record is never guessed at, and one with leases is an AccountRecord's. A record of
  // another bucket size is rebucketed.
  static Result<RollingWindow> decode(std::string_view bytes, Milliseconds bucket);
  std::string encode() const;

  // Drops what has left. Call before every question below. Amortised O(1).
  void prune(const WindowShape& shape, Milliseconds now);

  std::uint64_t used() const { return total_; }
  Milliseconds bucket() const { return bucket_; }

  // Counts units in bucket max(number, newest) and returns that number: it belongs in the receipt. units > 0.
  // An empty window (total 0) forgets its newest bucket: it starts at `number`.
  std::int64_t add(std::int64_t number, std::uint64_t units);

  // Counts units in exactly that bucket, newest or not; returns how many. A bucket that has left counts nothing (0).
  // Call after prune. O(1) in the tail, O(body) before it. number * bucket is below 2^48 ms.
  std::uint64_t count(const WindowShape& shape, Milliseconds now, std::int64_t number, std::uint64_t units);

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
  friend class AccountRecord;
  static Result<RollingWindow> parse(std::string_view bytes, std::vector<RecordLease>& leases);
  std::string encode_with(const std::vector<RecordLease>& leases) const;
  void start_at(std::int64_t number);  // empty: forgets its buckets
  void count_in_body(Bucket bucket);
  void shift_to(std::int64_t number);  // makes `number` the newest; slots that fall out go to the body
  void append_body(Bucket bucket);
  void merge_cheapest_pair();

  Milliseconds bucket_;
  std::uint64_t total_ = 0;
  std::int64_t newest_ = 0;
  std::array<std::uint64_t, kTailBuckets> tail_{};  // [i] = bucket newest_ - i
  std::vector<Bucket> body_;
};

// Tokens lent to one proxy.
struct RecordLease {
  Incarnation incarnation = 0;
  std::uint64_t outstanding = 0;  // > 0
  Milliseconds expiry{0};  // of the session, when the lease was last touched; pings may have renewed it since
  bool operator==(const RecordLease&) const = default;
};

// All that is kept of one account.
class AccountRecord {
 public:
  explicit AccountRecord(Milliseconds bucket) : window(bucket) {}

  // As RollingWindow::decode, leases included. Without a bucket: in the bucket size in which it is stored; bytes not
  // empty.
  static Result<AccountRecord> decode(std::string_view bytes, Milliseconds bucket);
  static Result<AccountRecord> decode(std::string_view bytes);
  std::string encode() const;  // "" when there is nothing to keep

  // Drops what has left the window, and leases whose tokens cannot have been used within it: session expiry + window +
  // guard <= now. The expiry is the later one of the record's (which is raised to it) and `session_of(incarnation)`,
  // asked only where the record's would not keep the lease.
  template <class SessionOf>
  void prune(const WindowShape& shape, Milliseconds now, SessionOf&& session_of) {
    window.prune(shape, now);
    std::erase_if(leases_, [&](RecordLease& lease) {
      auto over = [&] { return lease.expiry + shape.window + shape.guard() <= now; };
      if (over()) lease.expiry = std::max<Milliseconds>(lease.expiry, session_of(lease.incarnation));
      return over();
    });
  }

  const std::vector<RecordLease>& leases() const { return leases_; }  // ascending by incarnation
  std::uint64_t lent() const;                                         // to all
  std::uint64_t lent_to(Incarnation incarnation) const;
  // What is lent to this incarnation from now on; 0 takes the lease away. False, and nothing has changed, when it would
  // be one lease more than kLeasesMax.
  bool set_lease(RecordLease lease);

  RollingWindow window;

 private:
  std::vector<RecordLease> leases_;
};

}  // namespace tollgate::quota
