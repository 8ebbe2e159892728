// Do the books agree? Three independent counts of the same calls, compared to the unit:
//
//   J  journal    facts: what every call_end says was charged, and in which bucket
//                 ledger: what the numbered ops told the store, plus what live cells have not told it yet
//   R  store      what the store holds in its live buckets
//   E  rows       what the book has billed, against the roll-up of the same entries, read again from the journal
//
//   accounts:  facts == ledger   per quota account, over everything the journals still keep
//              ledger == store   over the buckets that are live at the store's `now`
//   rows:      roll-up of the journal == rows of the book, per hour and key
//
// Only buckets that the journals know whole are compared and, while proxies go on serving, only those that ended before
// the proxies settled.
//
// At the edge of the window the store may hold units of buckets that have left by their own number: it merges old buckets
// into later ones (metering/quota/record.h). They are in its oldest entry. So its oldest entry may hold more than the
// ledger has in the live buckets up to it, by no more than the ledger has before; what the store holds later must be the
// ledger's to the unit.
//
// Not certain are only calls of which the journal itself says so: cut off by the death of a proxy before it was known
// whether they were charged (void_maybe), begun and not ended yet (both: 0 or all of their units), and calls that
// recovery ended, whose bucket it cannot know (they are dated by their arrival).
//
// Pure. One thread.
#pragma once
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "metering/base/error.h"
#include "metering/base/time.h"
#include "metering/quota/record.h"
#include "metering/usage/journal_record.h"
#include "metering/usage/rollup.h"

namespace tollgate::usage {

struct AccountName {
  std::string subject_key, field;
  auto operator<=>(const AccountName&) const = default;
};

// Calls of one stream, by number.
struct CallRange {
  std::string journal, stream;
  std::uint64_t first = 0, last = 0;
  bool operator==(const CallRange&) const = default;
};

using UnitsByBucket = std::map<std::int64_t, std::int64_t>;

// What the journals say: entries in, counts out.
class JournalTally {
 public:
  // Entries added from now on are of this stream. `whole`: it is kept from its first entry on.
  void begin_stream(const std::string& journal, const std::string& stream, bool whole);
  void add(const CallBegin& begin);
  void add(const CallEnd& end);
  void add(
      const OpEntry& op);  // each (incarnation, partition, number) counts once, however often it is added
  // A cell: units admitted and not yet in an acknowledged op. Those in the op under way are in the journal already:
  // pass the rest only.
  void add_live(const AccountName& account, const quota::WindowShape& shape, std::uint64_t unsettled);
  // The calls of the stream that are begun and not ended: after its last entry.
  void end_stream();

  struct Account {
    quota::WindowShape shape;                        // 0: no op has named it
    UnitsByBucket facts;                             // of calls whose bucket is known
    std::map<std::int64_t, std::int64_t> undated;    // arrival, ms -> units; charged, bucket not known
    std::map<std::int64_t, std::int64_t> uncertain;  // arrival, ms -> units; perhaps charged
    UnitsByBucket ledger;
    std::uint64_t live = 0;
    bool reshaped = false;  // ops name it with different buckets: the rule's window was changed
    std::map<std::int64_t, std::vector<CallRange>> calls;  // arrival rounded down to a minute, ms
  };
  const std::map<AccountName, Account>& accounts() const { return accounts_; }
  const Rollup& rollup() const { return rollup_; }
  // Calls that arrived before this moment may be missing, because their entries are no longer kept. 0: none are.
  std::int64_t complete_from_ms() const { return complete_from_ms_; }
  const std::map<std::int64_t, std::vector<CallRange>>& calls_by_hour() const { return calls_by_hour_; }

 private:
  void count(const CallBegin& begin, const CallEnd& end);
  void note(std::map<std::int64_t, std::vector<CallRange>>& ranges, std::int64_t at, std::uint64_t call);

  std::string journal_, stream_;
  bool seeking_start_ = false;  // the first begin of a stream whose older entries are gone
  std::map<std::uint64_t, CallBegin> open_;
  std::map<AccountName, Account> accounts_;
  std::set<std::tuple<std::uint32_t, std::uint32_t, std::uint64_t>> ops_;
  std::map<std::int64_t, std::vector<CallRange>> calls_by_hour_;
  Rollup rollup_;
  std::int64_t complete_from_ms_ = 0;
};

// One account as the store holds it.
struct StoredAccount {
  AccountName name;
  Milliseconds bucket{0};
  std::vector<quota::RollingWindow::Bucket> buckets;  // ascending
};
struct StoredState {
  Milliseconds now{0};  // the store's clock, read before the accounts
  std::vector<StoredAccount> accounts;
};
// Where the store's side comes from: the store itself, or the admin API of a running proxy.
class StoredCounts {
 public:
  virtual ~StoredCounts() = default;
  virtual Result<StoredState> read() = 0;
};

struct Difference {
  std::string account;  // "q:{p017}:acme:u:ann daily", or the key of a row
  std::string hour;     // rows only
  struct Side {
    std::string name;  // "facts", "ledger", "store"; "journal", "book"
    std::int64_t units = 0;
    std::int64_t more = 0;  // and perhaps as many more: not certain
  };
  std::vector<Side> sides;
  std::string what;  // one sentence
  std::vector<CallRange> calls;
};

struct Reconciliation {
  std::vector<Difference> differences;
  std::uint64_t accounts = 0;  // compared
  std::uint64_t rows = 0;
  std::int64_t units = 0;             // of the ledger, in what was compared
  std::uint64_t uncertain_units = 0;  // of calls that nobody can be certain of
  std::uint64_t edge_units = 0;       // counted in live buckets for buckets that have left: accepted
  std::vector<std::string> skipped;   // accounts that cannot be compared now, and why
};

struct AccountInputs {
  const JournalTally& journal;
  const StoredState* store = nullptr;  // nullptr: not looked at
  Milliseconds now{0};                 // without a store: the calendar clock
  // Proxies went on serving: only buckets that ended before this moment are compared. nullopt: nothing moved.
  std::optional<Milliseconds> settled;
  // Window of an account that no op of the journal names (it is in the store only); empty: not known.
  std::function<std::optional<Milliseconds>(const AccountName&)> window_of;
};
void reconcile_accounts(const AccountInputs& inputs, Reconciliation& result);

// `rows` of the hours [first, end) and of the journals that were tallied, both read up to the same entries.
void reconcile_rows(const JournalTally& journal, const Rollup& rows, std::int64_t first_hour,
                    std::int64_t end_hour, Reconciliation& result);
// First hour of which the journals know every call.
std::int64_t first_whole_hour(const JournalTally& journal);

}  // namespace tollgate::usage
