// What really happened, as plainly as it can be written down: for every account the list of admitted calls with their
// true times. The oracle of the simulator; it shares no code with what it judges.
//
//   safety     in no span of `window` were more units admitted than the highest limit in force in it
//   precision  after everything is settled the store has counted what is written here, to the unit
//   liveness   a refusal is justified by calls that are really in the window
//
// A limit in force: the rule's or the override's, with temporary grants. After it was lowered, tokens lent before may
// still be used until the proxy hears of it: a session, a flush, and a quarter of the window at the longest.
#pragma once
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "metering/base/time.h"
#include "metering/quota/ledger.h"
#include "metering/quota/record.h"

namespace tollgate::sim {

struct TruthAccount {
  struct Entry {
    Duration at{0};        // true time of the admission
    std::uint64_t id = 0;  // of the call
    std::int64_t units = 0;
    std::int64_t bucket = 0;  // as the receipt says
    bool degraded = false;    // admitted without a token while the store was away: exempt from safety
    bool gone = false;        // given back
  };
  struct LimitFrom {
    Duration at{0};
    std::uint64_t limit = 0;
  };

  quota::AccountKey key;
  quota::WindowShape shape;
  bool limited = true;
  bool shadow = false;
  std::uint64_t rule_limit = 0;   // of the configuration; an override wins
  std::vector<LimitFrom> limits;  // in order of time
  std::deque<Entry> entries;      // those that a late give-back may still name
  std::size_t window_begin = 0;   // first entry in the span that ends now
  std::int64_t in_window = 0;     // units of entries[window_begin..], neither degraded nor gone
  std::int64_t total = 0;         // all units ever admitted and not given back
  std::int64_t in_doubt = 0;      // units of calls of which a death left unknown whether they were charged
  std::int64_t may_miss = 0;  // let through before the store's clock was known, by a process that then died
  std::int64_t most = 0;      // largest sum in any span
  bool lost = false;          // a journal with uses of this account was lost
  Duration lost_at{0};

  std::uint64_t limit_now() const { return limits.back().limit; }
  std::uint64_t highest_limit(Duration from, Duration to) const;
  std::uint64_t lowest_limit(Duration from, Duration to) const;
  // Units with a true time in (from, to]; degraded ones included.
  std::int64_t between(Duration from, Duration to) const;
  // Units whose receipt's bucket is still live at that time of the store.
  std::int64_t live_at(Milliseconds store_now) const;
};

class Truth {
 public:
  explicit Truth(Duration settle_time) : settle_time_(settle_time) {}

  TruthAccount& add(const quota::AccountKey& key, const quota::WindowShape& shape, bool limited, bool shadow,
                    std::uint64_t limit);
  TruthAccount* find(const quota::AccountKey& key);
  std::map<std::string, TruthAccount>& accounts() { return accounts_; }

  void set_limit(TruthAccount& account, Duration now, std::uint64_t limit);
  // Writes down an admission. What is wrong with it, if anything.
  std::optional<std::string> admitted(TruthAccount& account, Duration now, std::uint64_t id,
                                      std::int64_t units, std::int64_t bucket, bool degraded);
  void given_back(TruthAccount& account, std::uint64_t id);

  std::uint64_t units() const { return units_; }

 private:
  void advance(TruthAccount& account, Duration now) const;

  Duration settle_time_;
  std::map<std::string, TruthAccount> accounts_;
  std::uint64_t units_ = 0;
};

std::string name_of(const quota::AccountKey& key);

}  // namespace tollgate::sim
