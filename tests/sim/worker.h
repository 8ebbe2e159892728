// One worker of a simulated proxy: engine, ledger and connection, wired as the program wires them (proxy/cli): whatever
// enters the engine is followed by its tick, and what workers ask of each other travels through a mailbox.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/sim/proxy.h"

namespace tollgate::sim {

struct Proxy::Worker final : public quota::OwnerPort {
  Worker(Proxy& owner, quota::LeaseTable& table, unsigned worker_index, unsigned engines);

  // Every way into the engine and the ledger.
  template <class Action>
  void enter(Action&& action) {
    ++depth;
    action();
    if (--depth == 0) tick();
  }
  void tick();
  void start();  // connects

  void request(quota::AccountRef account, std::uint32_t units, std::uint64_t rule_limit,
               quota::LeaseEngine::Done done) override;
  void prefetch(quota::AccountRef account) override;
  void limit_changed(quota::AccountRef account, std::uint64_t rule_limit) override;
  void take_back(quota::AccountRef account, std::int64_t bucket, std::uint32_t units) override;
  void settle(std::string subject_key, std::function<void(bool)> done) override;
  bool store_up(unsigned partition) const override;
  void read(std::vector<quota::AccountCharge> accounts,
            std::function<void(Result<std::vector<quota::LeaseState>>&&)> done) override;
  void list(std::string subject_key, std::string prefix, Milliseconds window, Milliseconds bucket,
            quota::Ledger::ListDone done) override;
  std::shared_ptr<void> timer(Milliseconds after, std::function<void()> expired) override;

  Proxy& proxy;
  unsigned index;
  std::weak_ptr<Life> life;
  Link link;
  quota::LeaseEngine engine;
  quota::LeaseLedger ledger;
  unsigned depth = 0;

 private:
  void at(unsigned worker, std::function<void(Worker&)> action);
  Worker& owner_of(unsigned partition);
  void wake_at(Duration when);
  bool joins() const;  // or replays

  Duration wakes_at_{0};  // of the earliest wake-up under way; 0: none
  Duration ledger_ticked_{0};
};

}  // namespace tollgate::sim
