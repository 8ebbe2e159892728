// The ledger on one real Redis: every charge is one run of one script, charge.lua, which checks all accounts
// of the call and then counts in all of them or in none. One RedisLedger per worker, each with one
// connection.
//
//   RedisLedger ledger(base, {.connection = {.url = url}, .timeout = 50ms});
//   ledger.start();
//   ledger.charge(rules.charges(caller, operations), [](quota::ChargeOutcome&& outcome) { ... });
//
// Keys: metering/quota/keys.h. The accounts of one call may lie in several partitions (a user's and an
// organization's): a single Redis runs that as one script. Redis Cluster would refuse it (CROSSSLOT), and so
// this class is for one Redis (or one primary behind a name); leases lift that restriction.
//
// The moment of a charge is Redis' own TIME, and never earlier than any moment a partition has seen (`t` in
// h:{pNNN}): a clock that is set back delays, it never frees units early. A clock that jumps ahead by a day
// lets a day's units go, as every clock-based window must.
//
// Degraded: down, stalled, time-out and the error replies LOADING, OOM, READONLY, MISCONF, NOREPLICAS, BUSY,
// MASTERDOWN, NOAUTH, NOPERM all are `unavailable` with the cause in `error`. NOSCRIPT is cured by loading
// the script and sending the charge once more, within the same deadline.
//
// A charge whose reply is late and says admitted is given back. A charge whose connection broke before the
// reply stays charged if Redis had run it: more would need to know what Redis did, and the safe side is to
// count.
//
// Threads: as Connection: all on the loop's thread. Callbacks may destroy the ledger.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "metering/quota/ledger.h"
#include "metering/redis/connection.h"
#include "metering/redis/scripts.h"

struct event_base;

namespace tollgate::redis {

struct RedisLedgerOptions {
  ConnectionOptions connection;
  Milliseconds timeout{50};           // store.timeout: longest a charge or a read waits
  Milliseconds admin_timeout{2'000};  // overrides, resets and give-backs, for which no call waits
  Scripts scripts = Scripts::standard();
};

class RedisLedger : public quota::Ledger {
 public:
  struct Counters {
    std::uint64_t charges = 0;          // asked for
    std::uint64_t unavailable = 0;      // answered unavailable, for whatever cause
    std::uint64_t timeouts = 0;         // of these: no reply within the bound
    std::uint64_t late_replies = 0;     // charges whose reply came after the bound
    std::uint64_t late_given_back = 0;  // of these: admitted, therefore given back
    std::uint64_t give_backs = 0;       // sent, late ones included
    std::uint64_t give_back_failures =
        0;                           // not confirmed: the units may stay charged until they leave the window
    std::uint64_t script_loads = 0;  // NOSCRIPT answers cured
    std::uint64_t reconnects = 0;    // connections established after the first one
  };
  using RoundTrip = std::function<void(Duration)>;

  RedisLedger(event_base* base, RedisLedgerOptions options);
  ~RedisLedger() override;

  void start();  // begins to connect; charge() before it answers unavailable

  void charge(std::vector<quota::AccountCharge> charges, ChargeDone done) override;
  void give_back(quota::Receipt receipt) override;
  void read(std::vector<quota::AccountCharge> accounts, ReadDone done) override;
  void list(std::string subject_key, std::string prefix, Milliseconds window, Milliseconds bucket,
            ListDone done) override;

  // ---- for the admin API: overrides live in the store, all proxies obey them from the next charge on, and
  // they have no time to live. kUnlimited is a valid limit (counted, never refused), 0 refuses every call.
  using Changed = std::function<void(Result<void>)>;
  using OverrideRead = std::function<void(Result<std::optional<std::uint64_t>>)>;
  void set_override(const quota::AccountKey& account, std::optional<std::uint64_t> limit,
                    Changed done);  // nullopt removes
  void get_override(const quota::AccountKey& account, OverrideRead done);
  // Forgets what was counted in the accounts; overrides stay. Calls in flight that are given back later
  // change nothing.
  void reset(std::vector<quota::AccountKey> accounts, Changed done);

  // ---- for metrics and readiness
  bool store_up() const;                  // connected and answering
  const std::string& last_error() const;  // why not
  const Counters& counters() const;
  void observe_round_trips(RoundTrip observer);  // every script call that was answered, late or not
  void observe_state(std::function<void(bool up)> observer);  // connection came up, connection lost

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tollgate::redis
