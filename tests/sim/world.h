// One run: everything one seed drives, in one thread, in virtual time.
//
//   live      clients call, faults happen; the oracle looks at every admission and every answer of the store
//   heal      faults end, dead proxies return
//   drain     everything is settled and handed back: the store's totals must be the truth
//   quiet     a window passes: everything must have left
//   refill    every limit must be reachable again, exactly
//
// The first violation ends the run.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/sim/proxy.h"
#include "tests/sim/truth.h"

namespace tollgate::sim {

// Operations that no call waits for, by the first of these that they do.
struct Operations {
  std::uint64_t prefetching = 0, handing_back = 0, settling = 0, telling = 0;
};

struct RunResult {
  std::optional<std::string> violation;
  Duration at{0};  // virtual time of the violation
  std::uint64_t events = 0, calls = 0, admitted = 0, exceeded = 0, unavailable = 0, store_operations = 0;
  std::uint64_t deaths = 0, data_losses = 0, faults = 0, limits_reached = 0;
  std::uint64_t fingerprint = 0;  // of all decisions: equal for equal seeds
  quota::LeaseCounters counters;  // of all lives
  Operations operations;
};

struct RunOptions {
  bool trace = false;
  // Makes the store; the model when empty.
  std::function<std::unique_ptr<Backend>(std::function<Milliseconds()> clock)> backend;
};

class World {
 public:
  World(const Scenario& scenario, const RunOptions& options);
  ~World();
  RunResult run();
  RunResult measure();  // the live part alone

 private:
  struct Call {
    std::size_t user = 0;
    std::vector<quota::AccountCharge> charges;
    unsigned proxy = 0, worker = 0;
    Duration at{0};
    std::function<void(const quota::ChargeOutcome&)> then;
  };
  struct Client {
    std::vector<quota::AccountCharge> charges;
    Random random{0};
    std::uint64_t calls = 0;
    unsigned burst_left = 0;
    // Of the measuring profiles: the day that is planned next, and what is left of the last, latest first.
    std::int64_t day = 0;
    std::vector<Duration> plan;
    std::size_t turn = 0;  // of the proxies
  };

  // ---- clients.cc
  void make_clients();
  void start_clients();
  void schedule_call(std::size_t user);
  Duration pause_before_call(std::size_t user);
  Duration planned_call(std::size_t user);
  void plan_day(std::size_t user);
  void note(const quota::Op& op);
  Proxy* choose_proxy(std::size_t user);
  void call(std::size_t user, Proxy& proxy, std::vector<quota::AccountCharge> charges, std::uint32_t units,
            std::function<void(const quota::ChargeOutcome&)> then);
  void finished(std::uint64_t id, quota::ChargeOutcome&& outcome);
  void write_down(std::uint64_t id, const Call& call, const quota::ChargeOutcome& outcome);
  void give_back(std::uint64_t id, const Call& call, quota::Receipt receipt);
  bool justified(const std::vector<quota::AccountCharge>& charges) const;
  void on_death(Proxy& proxy, bool inner);

  // ---- faults.cc
  void schedule_faults();
  void schedule_faults_of_proxies();
  void schedule_faults_of_server();
  void schedule_changes();
  void each(unsigned count, std::function<void()> fault);
  Proxy* any_proxy();
  Duration any_duration(Duration least, Duration most);
  bool calm() const;  // no two faults that must not meet
  void kill_and_restart(Proxy& proxy);
  void restart_after(Proxy& proxy, Duration delay);
  void lose_a_proxy();
  void lose_data(bool flush);
  void outage();
  void clock_step();
  void change_limit(bool grant);
  void reload();

  // ---- checks.cc
  void heal();
  bool drain();
  void check_totals();
  void check_books();
  void refill();
  void refill_user(std::size_t user);

  void live();
  void run_until(Duration until);
  void publish();
  void count_listeners();
  void violation(std::string what);
  void harvest(Proxy& proxy);  // what a life's engines counted
  void mix(std::uint64_t value) { result_.fingerprint = (result_.fingerprint ^ value) * 0x100000001b3ULL; }

  const Scenario scenario_;
  Trace trace_;
  EventQueue queue_;
  Random random_;
  Truth truth_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<Surroundings> around_;
  std::vector<std::unique_ptr<Proxy>> proxies_;
  std::vector<Client> clients_;
  std::map<std::uint64_t, Call> calls_;  // under way
  std::uint64_t next_call_ = 1;
  // proxy -> account -> units, in this life: given back; let through without a clock
  std::map<unsigned, std::map<std::string, std::int64_t>> given_back_, undated_;
  std::map<std::string, std::int64_t> lost_totals_;  // booked in journals that are lost
  bool clients_call_ = true;
  Duration step_until_{0};  // the store's clock is beyond the guard
  Duration last_trouble_{0};
  std::map<std::string, std::pair<std::optional<std::uint64_t>, std::vector<quota::LimitOverride::Grant>>>
      overrides_;
  RunResult result_;
};

}  // namespace tollgate::sim
