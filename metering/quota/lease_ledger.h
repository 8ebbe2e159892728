// quota::Ledger over leases: what a worker charges calls with. The common call touches nothing but this worker's cache
// of handles and one word a account; the store is asked only when tokens are lacking.
//
//   charge(accounts) ── all have tokens ──────────────────────────────> admitted, at once
//        │ one lacks: the others get theirs back at once, locally
//        ├── one refused lately and still true, the others that lack
//        │   as well, or cannot be asked ────────────────────────────> exceeded, at once, no round trip
//        └── ask the owners of all that lack, at the same time
//                          ├─ all granted: try again, all or nothing
//                          ├─ one refused, all others answered ──────> exceeded
//                          └─ down, or `timeout` passed ─────────────> unavailable (or what is configured),
//                                                                      exceeded where one is known to refuse
//
// A refusal names every account without room, each with its wait: the same call fits after the longest of them. So a
// call that one account refuses asks the others that lack tokens too, each once, and waits for them: no longer than
// `timeout`, and none whose store is known to be down. What they grant is kept for later calls, what they refuse is
// remembered, so the next such call asks nobody. Who did not answer in time is not named.
//
// Shadow accounts (AccountCharge::shadow) are charged in the same way, but their refusal refuses nothing: they are
// reported in ChargeOutcome::shadow_violated and not charged. A refused call neither asks nor waits for them.
//
// Exactness of AccountState: used = settled in the store as of the last answer + admitted here since. So what this proxy
// has admitted is always in it, and no unit twice. What other proxies hold unused counts as remaining: they hand it back
// when it is asked for. Moments are told from the late side of the clock: who waits that long never comes too early.
//
// A refusal is remembered until AccountView::denied_until; who lacks denied_units or more is refused until hi(now) says
// that it has passed, without a round trip. admitted_after is exact for the units that were refused; for more units
// it is the first moment at which asking again can help.
//
// Limits: a charge that names another limit than the owner knows tells the owner. A higher one goes on with the tokens held
// and forgets what was refused; a lower one admits nothing until the owner has asked again under it.
//
// on_outage: lease (tokens held are spent, then unavailable), deny (nothing is admitted while the store is known to be
// down), allow (beyond the tokens, calls are admitted with degraded = true and counted as soon as the store is back: at
// once in the cell, or, while no clock is known yet, in the first tick() that knows it). A refusal that is still
// remembered stands under each of them. Accounts without limit refuse nothing, so what cannot be counted on them (the
// table is full) is let through and shows in Counters::table_full.
//
// Threads: one LeaseLedger a worker, all on that worker. OwnerPort carries requests to the owners, which may be other
// workers, and answers back.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "metering/quota/lease_engine.h"
#include "metering/quota/ledger.h"

namespace tollgate::quota {

// The way to the owner of a partition. Callbacks come back on the calling worker's thread, possibly before the function
// returns when the worker is the owner itself.
class OwnerPort {
 public:
  virtual ~OwnerPort() = default;
  // `units` tokens beyond those held are lacking. For an account without limit: its partition is not joined yet, nobody
  // has told the time.
  virtual void request(AccountRef account, std::uint32_t units, std::uint64_t rule_limit,
                       LeaseEngine::Done done) = 0;
  virtual void prefetch(AccountRef account) = 0;
  virtual void limit_changed(AccountRef account, std::uint64_t rule_limit) = 0;
  virtual void take_back(AccountRef account, std::int64_t bucket, std::uint32_t units) = 0;
  virtual void settle(std::string subject_key, std::function<void(bool)> done) = 0;
  virtual bool store_up(unsigned partition) const = 0;  // known to be reachable, by the owner's last word
  // Reads without charging; states as of the store (RedisStore::read, list).
  virtual void read(std::vector<AccountCharge> accounts,
                    std::function<void(Result<std::vector<LeaseState>>&&)> done) = 0;
  virtual void list(std::string subject_key, std::string prefix, Milliseconds window, Milliseconds bucket,
                    Ledger::ListDone done) = 0;
  // Calls `expired` once, `after` from now, unless the returned token is destroyed before.
  virtual std::shared_ptr<void> timer(Milliseconds after, std::function<void()> expired) = 0;
};

enum class OutagePolicy : std::uint8_t { lease, allow, deny };

struct LeaseLedgerOptions {
  unsigned worker = 0;
  Milliseconds timeout{50};  // longest a charge waits
  OutagePolicy on_outage = OutagePolicy::lease;
  std::size_t cache_entries = 65'536;  // handles; beyond it the cache starts anew
  std::uint64_t hash_seed = 0;         // of the handles: random, and told to nobody
};

class LeaseLedger final : public Ledger {
 public:
  struct Counters {
    std::uint64_t local = 0;           // charges decided without asking (admitted or denied)
    std::uint64_t denied_locally = 0;  // of these, denied from memory
    std::uint64_t waited = 0;          // charges that asked
    std::uint64_t timeouts = 0, unavailable = 0, degraded = 0, table_full = 0;
    std::uint64_t prefetches = 0;
    std::uint64_t given_back = 0;  // items, of receipts
  };

  LeaseLedger(LeaseTable& table, OwnerPort& owners, std::function<MonotonicTime()> now,
              LeaseLedgerOptions options);
  ~LeaseLedger() override;  // charges that wait are answered: unavailable

  void charge(std::span<const AccountCharge> charges, ChargeDone done) override;
  void give_back(std::span<const AccountCharge> charges, const Receipt& receipt) override;
  void read(std::vector<AccountCharge> accounts, ReadDone done) override;
  void list(std::string subject_key, std::string prefix, Milliseconds window, Milliseconds bucket,
            ListDone done) override;

  void set_outage_policy(OutagePolicy policy);
  void tick();  // about once a second: announces quiescence to the table
  const Counters& counters() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tollgate::quota
