// The ledger in plain memory, for tests and benches of what charges calls. It keeps the same windows and record bytes as
// the store (record.h) and decides at once: what one proxy does that holds no leases. The store's twin is store_model.h.
//
//   Milliseconds now{1'700'000'000'000};
//   MemoryLedger ledger([&] { return now; });
//   ledger.charge(charges, [](ChargeOutcome&& outcome) { ... });   // called back before charge() returns
//
// One thread. Nothing is ever written to disk. Accounts without a live bucket are dropped when they are next touched.
#pragma once
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "metering/quota/ledger.h"
#include "metering/quota/record.h"

namespace tollgate::quota {

class MemoryLedger final : public Ledger {
 public:
  // store_clock: milliseconds since 1970; it may be the only clock of a test. A step back is absorbed: the ledger goes on
  // from the latest time it has seen.
  explicit MemoryLedger(std::function<Milliseconds()> store_clock);

  void charge(std::span<const AccountCharge> charges, ChargeDone done) override;
  void give_back(std::span<const AccountCharge> charges, const Receipt& receipt) override;
  void read(std::vector<AccountCharge> accounts, ReadDone done) override;
  void list(std::string subject_key, std::string prefix, Milliseconds window, Milliseconds bucket,
            ListDone done) override;

  // A limit of one account that wins over the rule's; nullopt takes it away.
  void set_override(const AccountKey& key, std::optional<std::uint64_t> limit);
  // What a store that cannot be reached does: every charge ends `unavailable`, every read fails, give_back is lost.
  void set_available(bool available) { available_ = available; }
  // The record as the store would hold it; "" when there is none.
  std::string record(const AccountKey& key) const;
  std::size_t account_count() const { return accounts_.size(); }

 private:
  struct Account {
    RollingWindow window;
    std::optional<std::uint64_t> limit_override;
  };
  Milliseconds now();
  Account& account(const AccountKey& key, const WindowShape& shape, Milliseconds now);
  void drop_if_empty(const AccountKey& key);

  std::function<Milliseconds()> store_clock_;
  Milliseconds latest_{0};
  bool available_ = true;
  std::map<std::string, Account>
      accounts_;  // subject key + '\n' + field: the fields of a subject stand together
};

}  // namespace tollgate::quota
