// One simulated Tollgate: its memory that survives a kill (cells, journal), its lives in between, its clock, its pauses.
//
//   Proxy
//     cells, MemoryLog                 survive kill(); lost by lose()
//     Life                             from start() to kill()
//       LeaseTable
//       Worker 0..n: LeaseEngine + LeaseLedger + Link (its connection to the store)
//
// The real engine, ledger, table and cells; only what lies around them is simulated. A kill between two events ends the
// Life. A kill in the middle of one, at an append or a send, keeps the bytes of that instant; what the code still does
// until it returns has no effect on anything outside, and then the Life ends with those bytes.
#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "metering/base/random.h"
#include "metering/quota/lease_engine.h"
#include "metering/quota/lease_ledger.h"
#include "metering/quota/lease_table.h"
#include "tests/sim/event_queue.h"
#include "tests/sim/link.h"
#include "tests/sim/scenario.h"
#include "tests/sim/server.h"
#include "tests/sim/trace.h"

namespace tollgate::sim {

// A journal of ops in memory. Adds up what was ever written into it, account by account.
class MemoryLog final : public quota::OpLog {
 public:
  explicit MemoryLog(std::function<bool()> dies) : dies_(std::move(dies)) {}
  bool append(const quota::Op& op) override;
  std::uint64_t read(unsigned partition, std::uint64_t after, std::uint64_t up_to,
                     const std::function<void(const quota::Op&)>& visit) override;
  std::uint64_t last_seq(unsigned partition) override;

  bool full = false;
  std::function<void(std::string)> violation;  // numbers out of order
  const quota::Op* find(unsigned partition, std::uint64_t seq) const;
  const std::map<std::string, std::int64_t>& totals() const { return totals_; }
  void clear();
  void drop_newest(std::size_t count);                      // Control::forgotten_journal
  void drop_before(unsigned partition, std::uint64_t seq);  // retention

 private:
  std::function<bool()> dies_;  // a moment at which the process may die: true when it is dead
  std::map<unsigned, std::map<std::uint64_t, quota::Op>> entries_;
  std::map<std::string, std::int64_t> totals_;
  std::vector<std::pair<unsigned, std::uint64_t>> order_;
};

// What all proxies share.
struct Surroundings {
  const Scenario& scenario;
  EventQueue& queue;
  Random& random;
  const Trace& trace;
  Server& server;
  std::vector<unsigned> partitions;  // those in which anything happens
  std::function<void(std::string)> violation;
  std::function<void()> store_spoke;  // publishes what the store has to say, after each operation
  std::function<void()> listeners_changed;
  std::function<void(const quota::Op&)> asked;  // of the store; resent ones too
  bool peace = false;                           // faults are over
};

class Proxy {
 public:
  struct Worker;
  struct Life {
    std::unique_ptr<quota::LeaseTable> table;
    std::vector<std::unique_ptr<Worker>> workers;
    ~Life();
  };

  Proxy(Surroundings& around, unsigned index);
  ~Proxy();

  void start(unsigned engines);
  void kill();
  void lose();  // after kill(): a new incarnation, nothing kept
  bool alive() const { return life_ != nullptr; }
  bool dead_inside() const { return dying_; }  // killed in the middle of what runs now
  bool dies();                                 // an instant passes at which the process may die
  bool paused() const { return around_.queue.now() < resumes_at_; }
  bool listening() const;  // hears what the store publishes
  void pause(Duration length);
  void cut_off(Duration length);  // the store cannot be reached
  bool reachable() const { return around_.queue.now() >= reachable_at_; }
  void cut_links(bool ghosts);
  void arm_fuse(unsigned instants) { fuse_ = instants; }  // dies at the n-th instant from now
  void disarm() { fuse_ = 0; }

  std::weak_ptr<Life> life() const { return life_; }
  // Runs `action` in that life, now or when the pause is over; not at all when the life has ended.
  void deliver(std::weak_ptr<Life> life, std::function<void(Life&)> action);
  MonotonicTime mono() const;
  Duration true_time(MonotonicTime mono) const;

  unsigned index() const { return index_; }
  quota::Incarnation incarnation() const { return incarnation_; }
  MemoryLog& log() { return log_; }
  std::span<quota::LeaseCell> cells();
  // Units that are counted, were taken back, and are in no op yet: by account. They stay counted when it dies.
  std::map<std::pair<std::string, std::string>, std::int64_t> taken_back();
  quota::LeaseTable& table() { return *life_->table; }
  unsigned workers() const { return static_cast<unsigned>(life_->workers.size()); }
  quota::LeaseLedger& ledger(unsigned worker);
  quota::LeaseEngine& engine(unsigned worker);
  Worker& worker(unsigned index) { return *life_->workers[index]; }
  std::function<void(bool inner)> on_death;  // before the life's memory goes
  Duration died_at() const { return died_at_; }
  std::uint64_t deaths() const { return deaths_; }
  Surroundings& around() { return around_; }

 private:
  void end_life(bool inner);
  void catch_up();

  Surroundings& around_;
  unsigned index_;
  double rate_;  // of its monotonic clock against true time
  std::int64_t boot_ns_;
  quota::Incarnation incarnation_ = 0;
  std::size_t cell_count_;
  std::unique_ptr<std::byte[]> cell_bytes_, saved_bytes_;
  MemoryLog log_;
  std::shared_ptr<Life> life_;
  std::map<std::pair<std::string, std::string>, std::int64_t> under_way_;  // taken back, between two workers
  std::map<std::pair<std::string, std::string>, std::int64_t>
      taken_back_at_death_;  // in the middle of something
  unsigned depth_ = 0;
  unsigned fuse_ = 0;
  bool dying_ = false;
  std::deque<std::pair<std::weak_ptr<Life>, std::function<void(Life&)>>> backlog_;  // came during a pause
  bool catching_up_ = false;
  Duration resumes_at_{0}, reachable_at_{0}, died_at_{0};
  std::uint64_t deaths_ = 0;
};

}  // namespace tollgate::sim
