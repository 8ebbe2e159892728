// The accounts this proxy has leases of: names -> cells. Shared by all workers of the process: a lease belongs to the
// process, so that cores do not split it.
//
//        worker 0..n                      shards, one a partition               cells (mapped memory)
//   names ──> own cache of handles ─miss─> mutex + map of subjects ────────────> LeaseCell
//                    └──── hit: no lock, one compare-and-swap ─────────────────────┘
//
// An Account lives as long as somebody holds an AccountRef. It is retired when unused, settled and nothing is lent: its
// cell then goes to another account, but only after every worker has passed a quiescent point (announce()), so that
// "not retired, therefore take()" within one turn of a worker's loop is safe without a lock. Handles whose account is
// retired are dropped and looked up again.
//
// Retired is not yet gone: until its cell is free, an account that is named again comes back with the same cell. A call
// that was counted in the very moment of retiring is found when the cell is looked at for the last time; the account comes
// back then too. So a name has one cell at any time (two, when the configuration changed its shape meanwhile).
//
// Another shape: an account whose window, bucket or kind is not what the present configuration says is marked `outdated`.
// It goes on with the old shape; its owner settles and returns everything, asks for no more tokens, and retires it
// when it is empty. The next look-up then makes the new one.
//
// Memory is bounded: `cells` is what there is. When it is full, find_or_create says so and the caller denies (or lets
// through, as configured): nothing is evicted that still holds something. A subject is forgotten when no Account of it is
// held by anybody.
//
// Threads: find_or_create() and announce() by any worker. LeaseSubject and the members marked so belong to the owner of
// the partition (lease_engine.h).
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/error.h"
#include "metering/quota/keys.h"
#include "metering/quota/lease_cell.h"
#include "metering/quota/store_clock.h"

namespace tollgate::quota {

struct LeaseSubject;

// What the last answer of the store said, for replies and for denials without a round trip. One writer (the owner).
struct AccountView {
  std::uint64_t used = 0, lent_to_others = 0, limit = 0, rule_limit = 0;
  Milliseconds next_free_at{0};
  Milliseconds denied_until{
      0};  // store's clock; a need of >= denied_units is refused until then without asking
  std::uint32_t denied_units = 0;
  std::uint32_t lease = 0;  // tokens after the last grant: the prefetch threshold is a quarter of it
  std::uint64_t next_free_units = 0;
  Milliseconds fits_at{0};  // of the denial
};

// What the hot path reads comes first and lies on few cache lines (AccountMemory).
struct Account {
  LeaseCell* cell = nullptr;
  WindowShape shape;
  std::atomic<std::int64_t> last_used_ms{0};  // store's clock, hi; of the last admission, to a second
  unsigned partition = 0;                     // of the subject
  std::atomic<std::uint32_t> session{
      0};  // of the partition when tokens were last granted; other: tokens are void. 0: never
  std::atomic<bool> retired{false};
  bool limited = true;
  std::atomic<bool> outdated{false};      // the configuration says another shape now: settle, return, retire
  std::atomic<bool> refill_asked{false};  // a prefetch is under way

  AccountView view() const;                // consistent copy; waits for nobody but a set_view() under way
  void set_view(const AccountView& view);  // owner, or under the shard's mutex

 private:
  friend class LeaseTable;
  static constexpr std::size_t kViewWords = sizeof(AccountView) / sizeof(std::uint64_t);
  std::atomic<std::uint32_t> view_version_{0};  // odd while set_view() is at work
  std::array<std::atomic<std::uint64_t>, kViewWords> view_words_{};

 public:
  LeaseSubject* subject = nullptr;           // lives as long as this account, also a retired one
  std::atomic<std::uint64_t> limit_told{0};  // the last rule limit that a ledger told the owner of unasked
  std::string field;

  // ---- owner only
  std::uint32_t need = 0;             // tokens that waiting calls lack
  std::vector<BucketUse> given_back;  // settled uses that did not happen: negative
  bool forget = false;      // found after a restart: the store's lease of it is void; LeaseCell::recover()
  double rate = 0;          // tokens a second, smoothed
  Milliseconds rate_at{0};  // store's clock of the last grant
  std::uint64_t taken_since = 0;  // tokens used since then
  std::uint64_t limit = 0;        // the rule's limit that the last caller named

 private:
  std::mutex view_mutex_;                // of writers of the view
  std::shared_ptr<LeaseSubject> keeps_;  // what `subject` points to
  std::uint64_t retire_epoch_ = 0;       // of the last retire(); the shard's mutex
};

// Of accounts and the counts of their references: begins with a cache line.
template <class T>
struct AccountMemory {
  using value_type = T;
  AccountMemory() = default;
  template <class Other>
  explicit AccountMemory(const AccountMemory<Other>&) {}
  T* allocate(std::size_t number) {
    return static_cast<T*>(::operator new(number * sizeof(T), std::align_val_t(64)));
  }
  void deallocate(T* at, std::size_t) { ::operator delete(at, std::align_val_t(64)); }
  bool operator==(const AccountMemory&) const = default;
};

using AccountRef = std::shared_ptr<Account>;

struct LeaseSubject {
  std::string key;  // "q:{p017}:acme:u:ann"
  unsigned partition = 0;
  std::vector<AccountRef> accounts;  // guarded by the shard's mutex: look-ups of any worker add to it
  std::vector<AccountRef> leaving;   // retired, cell not yet free; guarded as well, the table's own business
  // ---- owner only
  std::uint64_t in_flight = 0;  // seq of the op under way; 0 none
  bool queued = false;          // in the engine's list of subjects that want an op
  MonotonicTime settled_at{};   // last acknowledged op
};

// One partition as the hot path sees it.
struct alignas(64) PartitionState {
  StoreClock clock;
  std::atomic<std::int64_t> session_expiry_ms{0};  // store's clock; 0: no session
  std::atomic<std::uint32_t> session{1};           // counts sessions: raised when one has lapsed; never 0
};

struct TableOptions {
  std::span<LeaseCell> cells;  // zeroed, or what an earlier process left
  unsigned workers = 1;
};

class LeaseTable {
 public:
  explicit LeaseTable(TableOptions options);  // cells in use become accounts with `forget` set
  ~LeaseTable();
  LeaseTable(const LeaseTable&) = delete;
  LeaseTable& operator=(const LeaseTable&) = delete;

  PartitionState& partition(unsigned p) { return partitions_[p]; }
  const PartitionState& partition(unsigned p) const { return partitions_[p]; }

  // The account of that name; made if there is none. Error (origin self): no cell is free, or the name is too long.
  // May answer with an account of another shape, which is marked outdated then.
  Result<AccountRef> find_or_create(const AccountKey& key, const WindowShape& shape, bool limited);
  AccountRef find(const AccountKey& key);  // nullptr when there is none; of two shapes the one in use
  std::vector<AccountRef> of_subject(std::string_view subject_key);  // by field; retired ones not included

  // Whatever this worker found not to be retired before this moment, it will look at again before it uses it. About
  // once a second; a worker that has stopped announces no more and must call leave().
  void announce(unsigned worker);
  void leave(unsigned worker);

  // ---- owner of the partition
  // Visits the subjects of a partition under its mutex; the visitor must not call the table. Forgets subjects that nobody
  // holds an account of: keep no LeaseSubject* beyond its accounts unless it is `queued` or has an op `in_flight`.
  void each_subject(unsigned partition, const std::function<void(LeaseSubject&)>& visit);
  // Settled, nothing lent, nothing pending: the cell becomes free after all have announced. A retired account stays
  // retired for its holders unless the table brings it back; tokens must never be granted to one.
  void retire(const AccountRef& account);
  std::size_t accounts() const;  // in use, retired ones not included
  std::size_t capacity() const { return cells_.size(); }
  std::uint64_t tokens_held() const;  // sum of tokens left, for the `leases` metric; walks all cells

 private:
  struct Shard {
    std::mutex mutex;
    std::map<std::string, std::shared_ptr<LeaseSubject>, std::less<>> subjects;
  };
  struct Retired {
    AccountRef account;
    std::uint64_t epoch;
  };
  std::optional<std::uint32_t> free_cell();
  AccountRef make(std::shared_ptr<LeaseSubject> subject, std::string_view field, std::uint32_t cell);
  AccountRef match(LeaseSubject& subject, std::string_view field, const WindowShape& shape, bool limited);
  void restore(std::uint32_t cell);
  void reclaim();

  std::span<LeaseCell> cells_;
  std::array<PartitionState, kPartitions> partitions_;
  std::array<Shard, kPartitions> shards_;
  std::vector<std::unique_ptr<std::atomic<std::uint64_t>>> epochs_;  // one a worker
  std::atomic<std::uint64_t> epoch_{1};
  mutable std::mutex cells_mutex_;  // of the three below; taken to make or retire an account, not to use one
  std::vector<std::uint32_t> free_;
  std::vector<Retired> retired_;
  std::atomic<std::size_t> used_{0};  // accounts that are not retired
};

// ---- the hot path: may this worker admit `units` on this account, now?
//
//   limited:    the clock is known, hi(now) < session expiry, the tokens are of this session, and there are enough
//   unlimited:  the clock is known
//
// Counted in the bucket of hi(now), or a later one that has begun already: `bucket` says which. Call it in the turn of the
// worker's loop in which `account` was looked up or found not retired.
enum class Admission : std::uint8_t {
  admitted,
  lacking,  // tokens, a session, or the clock: the owner must be asked
  retired,  // look the account up again
};
Admission admit(Account& account, const PartitionState& partition, std::uint32_t units, MonotonicTime now,
                std::int64_t& bucket);
// Counts without tokens what must be let through all the same (on_outage: allow). False: the clock is not known, the account
// is retired, or the cell cannot count it.
bool admit_forced(Account& account, const PartitionState& partition, std::uint32_t units, MonotonicTime now,
                  std::int64_t& bucket);
// Tokens that admit() would take from now; 0 for an account without limit.
std::uint32_t tokens_valid(const Account& account, const PartitionState& partition, MonotonicTime now);

}  // namespace tollgate::quota
