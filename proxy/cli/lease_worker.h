// One worker's part of the quota store: its engine for the partitions it owns, its connection to the store, the ledger its
// calls are charged with, and the seats of its users, over the same connection. What other workers ask of it, and it of them, goes through mailboxes.
//
//   Gate ── charge ──> LeaseLedger ── local tokens ──> answer
//                          │ lacking
//                          v
//                     OwnerPort: mine? ── yes ──> LeaseEngine ──> RedisStore ──> Redis
//                          └─ no ──> mailbox of the owner ──> its LeaseEngine ... ──> mailbox back
//
// Threads: everything on the worker's own thread; `Shared` is for all.
#pragma once
#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "metering/journal/journal.h"
#include "metering/quota/lease_engine.h"
#include "metering/quota/lease_ledger.h"
#include "metering/redis/redis_seats.h"
#include "metering/redis/redis_store.h"
#include "metering/seats/ledger.h"
#include "proxy/cli/mailbox.h"

namespace tollgate::cli {

class LeaseWorker;

// What the workers of one process have in common.
struct LeaseShared {
  LeaseShared(journal::Journal& own_journal, unsigned workers);

  journal::Journal& journal;
  quota::LeaseTable table;
  std::array<std::atomic<bool>, quota::kPartitions> up{};      // by the owners: reachable
  std::array<std::atomic<bool>, quota::kPartitions> agreed{};  // by the owners: and grants are given
  struct Place {
    Mailbox mailbox;
    LeaseWorker* worker = nullptr;  // on that worker's thread only
  };
  std::vector<std::unique_ptr<Place>> places;

  unsigned owner_of(unsigned partition) const { return partition % static_cast<unsigned>(places.size()); }
  // Runs `task` on that worker's thread with its LeaseWorker, if it is there.
  bool post(unsigned worker, std::function<void(LeaseWorker&)> task);
};

struct LeaseWorkerOptions {
  unsigned index = 0;
  redis::RedisStoreOptions store;
  quota::LeaseOptions engine;
  quota::LeaseLedgerOptions ledger;
  seats::SeatLedgerOptions seats;
  std::vector<seats::Pool> pools;
  std::function<void(std::string_view level, std::string_view text)> log;
  std::function<void(Duration)> observe_round_trip;
};

class LeaseWorker final : public quota::Ledger {
 public:
  LeaseWorker(event_base* base, LeaseShared& shared, LeaseWorkerOptions options);
  ~LeaseWorker() override;

  // ---- quota::Ledger, for this worker's calls
  void charge(std::span<const quota::AccountCharge> charges, ChargeDone done) override;
  void give_back(std::span<const quota::AccountCharge> charges, const quota::Receipt& receipt) override;
  void read(std::vector<quota::AccountCharge> accounts, ReadDone done) override;
  void list(std::string subject_key, std::string prefix, Milliseconds window, Milliseconds bucket,
            ListDone done) override;

  // ---- for the service
  quota::LeaseLedger& ledger();
  redis::RedisStore& store();
  seats::SeatLedger& seats();
  seats::SeatStore& seat_store();
  void set_pools(std::vector<seats::Pool> pools);
  const quota::LeaseEngine& engine() const;
  Milliseconds fence_wait() const;          // longest wait behind a fence now; 0: none
  Milliseconds clock_disagreement() const;  // largest of this worker's partitions, either way
  void tick();                              // about once a second
  // Everything this worker owns is settled, and with give_up handed back; false: the store is away.
  void settle_all(bool give_up, std::function<void(bool)> done);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tollgate::cli
