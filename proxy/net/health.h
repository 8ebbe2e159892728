// What is known of the servers of one upstream, and how much each may be asked. Pure: the time is an
// argument.
//
//   unreachable   no connection could be made. Left out for 1 s, doubling to 10 s; then one call tries it, and
//                 only when that one got a connection the others follow
//   ejected       so many failures in a row (outlier.failures: no reply, a broken one, none in time, or one of
//                 outlier.statuses). Left out for outlier.ejection, once longer for each time it happens again,
//                 up to outlier.ejection_max; at most outlier.max_ejected_percent of the servers at a time, so
//                 never the only one
//   down          its health checks fail (CheckedServer). Gets nothing, even when no other server is left
//   warming up    back from one of these: a tenth of its weight, growing to the whole over slow_start
//
// Unreachable and ejected servers are asked all the same when there is no other: a suspicion is no reason to
// refuse.
//
// Threads: PassiveHealth belongs to one worker. CheckedServer is written by the one who checks and read by
// all.
#pragma once
#include <atomic>
#include <cstdint>
#include <vector>

#include "config/settings.h"
#include "metering/base/time.h"
#include "proxy/net/balancer.h"

namespace tollgate::net {

// Counts the results of the checks of one server.
class CheckCount {
 public:
  CheckCount(std::uint32_t unhealthy_threshold, std::uint32_t healthy_threshold)
      : down_after_(unhealthy_threshold), up_after_(healthy_threshold) {}
  // True when this result turned the server up or down. A server begins up: nothing is known against it. The
  // very first result decides at once, so that a proxy that starts does not send calls to a server that is
  // down.
  bool note(bool passed);
  bool up() const { return up_; }

 private:
  std::uint32_t down_after_, up_after_, against_ = 0;
  bool up_ = true, first_ = true;
};

struct CheckedServer {
  std::atomic<bool> up{true};
  std::atomic<std::int64_t> up_since{0};  // nanoseconds of MonotonicTime; 0: always
  std::atomic<std::uint64_t> passed_total{0}, failed_total{0};
};

class PassiveHealth {
 public:
  explicit PassiveHealth(const config::Upstream& settings);

  // What happened. True when the state of the server changed.
  bool reached(std::size_t server, MonotonicTime now);  // a connection was made
  bool unreachable(std::size_t server, MonotonicTime now);
  void answered(std::size_t server) { servers_[server].failures = 0; }  // with a reply that is no failure
  bool failed(std::size_t server, MonotonicTime now);                   // true: it is ejected now

  // How much of its weight counts at `now`: 0 while it is left out.
  std::uint32_t share(std::size_t server, MonotonicTime now, MonotonicTime checked_up_since) const;
  // It was chosen: the one call that tries an unreachable server again keeps the others away for `attempt`.
  void chosen(std::size_t server, MonotonicTime now, Milliseconds attempt);

  bool is_unreachable(std::size_t server) const { return servers_[server].connect_failures > 0; }
  bool is_ejected(std::size_t server, MonotonicTime now) const {
    return servers_[server].ejected_until > now;
  }
  MonotonicTime ejected_until(std::size_t server) const { return servers_[server].ejected_until; }

 private:
  struct Server {
    std::uint32_t connect_failures = 0, failures = 0;  // in a row
    std::uint32_t ejections = 0;                       // without a long time in peace between them
    MonotonicTime retry_at{}, ejected_until{}, back_since{};
  };
  const config::Outlier rules_;
  const Milliseconds slow_start_;
  std::vector<Server> servers_;
};

// How many calls may be repeated that a server may have received: `percent` of the calls, and one a second so
// that few calls have a chance too. Keeps servers that cannot keep up from being asked twice for everything.
// Saves up to 100.
class RetryBudget {
 public:
  explicit RetryBudget(std::uint32_t percent) : percent_(percent) {}
  void call() { saved_ = saved_ + percent_ < kMost ? saved_ + percent_ : kMost; }
  bool take(MonotonicTime now);

 private:
  static constexpr std::uint32_t kOne = 100, kMost = 100 * kOne, kFirst = 10 * kOne;
  const std::uint32_t percent_;
  std::uint32_t saved_ = kFirst;  // hundredths of a retry
  MonotonicTime refilled_{};
};

}  // namespace tollgate::net
