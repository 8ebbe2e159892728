// The Redis of the simulated world: one backend, its clock, its run id, its older copies; and what can be checked at it
// after every operation (backend.h). Knows nothing of networks and proxies.
//
// Loss of data is allowed only while nothing else is lost (scenario.h): may_lose() says whether.
#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "metering/base/random.h"
#include "tests/sim/backend.h"
#include "tests/sim/event_queue.h"
#include "tests/sim/scenario.h"
#include "tests/sim/trace.h"

namespace tollgate::sim {

inline constexpr Milliseconds kStoreEpoch{1'764'000'000'000};  // store time at true time 0

class Server {
 public:
  using Violation = std::function<void(std::string)>;
  // The journalled op of that number, nullptr when that journal is lost.
  using Logged = std::function<const quota::Op*(quota::Incarnation, unsigned partition, std::uint64_t seq)>;

  Server(const Scenario& scenario, EventQueue& queue, const Trace& trace, std::unique_ptr<Backend> backend,
         Violation violation, Logged logged);

  // ---- as the network reaches it
  quota::OpReply apply(const quota::Op& op, quota::SendContext context);
  quota::OpReply replay(const quota::Replay& replay, quota::SendContext context);
  quota::PingReply ping(const quota::Ping& ping, quota::SendContext context);
  bool up() const { return up_; }
  const std::string& run() const { return run_; }
  std::uint64_t generation() const { return generation_; }  // another one: connections of before are dead
  Milliseconds clock() const;

  // ---- what befalls it
  void go_down() { up_ = false, ++generation_; }
  void come_up() { up_ = true; }
  void set_offset(Milliseconds offset) { offset_ = offset; }
  Milliseconds offset() const { return offset_; }
  void new_run();  // same data, another process
  // Goes back to an older copy, if there is one; says how old. Another run.
  std::optional<Duration> fall_back(Random& random);
  void flush();
  bool may_flush() const { return queue_.now() >= flush_barred_until_ && !unsettled(); }
  // Acknowledged operations are missing here and have not been replayed yet.
  bool unsettled() const;
  void journal_lost(quota::Incarnation incarnation);

  Backend& backend() { return *backend_; }
  std::uint64_t operations() const { return operations_; }

 private:
  struct Copy {
    std::uint64_t number;
    Duration at;
  };
  bool plausible(const quota::Op& op) const;
  void check_grants(const quota::Op& op, const quota::OpReply& reply);
  void check_number(const quota::Op& op, std::uint64_t before, bool based);
  void maybe_save();
  quota::SendContext seen(quota::SendContext context) const;

  const Scenario& scenario_;
  EventQueue& queue_;
  const Trace& trace_;
  std::unique_ptr<Backend> backend_;
  Violation violation_;
  Logged logged_;
  bool up_ = true;
  std::uint64_t generation_ = 1, runs_ = 1;
  std::string run_ = "run1";
  Milliseconds offset_{0};
  std::deque<Copy> copies_;
  std::uint64_t next_copy_ = 1, operations_ = 0;
  Duration flush_barred_until_{0};
  struct Applied {
    std::uint64_t highest = 0;  // number ever applied anywhere
    Duration at{0};
  };
  std::map<std::pair<quota::Incarnation, unsigned>, Applied> applied_;
  // Control::no_dedupe: numbers as senders use them; the backend gets ones of its own that are always new.
  std::map<std::pair<quota::Incarnation, unsigned>, std::uint64_t> sender_numbers_;
};

}  // namespace tollgate::sim
