#include "proxy/net/health.h"

namespace tollgate::net {

namespace {

constexpr Milliseconds kFirstPause{1'000};
constexpr Milliseconds kLongestPause{10'000};
constexpr std::uint32_t kColdShare = Balancer::kWhole / 10;

}  // namespace

bool CheckCount::note(bool passed) {
  const bool first = first_;
  first_ = false;
  if (passed == up_) {
    against_ = 0;
    return false;
  }
  if (++against_ < (up_ ? down_after_ : up_after_) && !first) return false;
  against_ = 0;
  up_ = passed;
  return true;
}

PassiveHealth::PassiveHealth(const config::Upstream& settings)
    : rules_(settings.outlier), slow_start_(settings.slow_start), servers_(settings.servers.size()) {}

bool PassiveHealth::reached(std::size_t index, MonotonicTime now) {
  Server& server = servers_[index];
  if (server.connect_failures == 0) return false;
  server.connect_failures = 0;
  server.back_since = now;
  server.retry_at = {};
  return true;
}

bool PassiveHealth::unreachable(std::size_t index, MonotonicTime now) {
  Server& server = servers_[index];
  const Milliseconds pause = kFirstPause * (1 << std::min<std::uint32_t>(server.connect_failures, 4));
  server.retry_at = now + std::min(pause, kLongestPause);
  return ++server.connect_failures == 1;
}

bool PassiveHealth::failed(std::size_t index, MonotonicTime now) {
  Server& server = servers_[index];
  if (rules_.failures == 0 || server.ejected_until > now) return false;
  if (++server.failures < rules_.failures) return false;
  std::size_t ejected = 1;
  for (const Server& other : servers_) ejected += other.ejected_until > now ? 1 : 0;
  if (ejected * 100 > servers_.size() * rules_.max_ejected_percent) return false;
  if (server.ejections > 0 && now - server.ejected_until > rules_.ejection_max) server.ejections = 0;
  ++server.ejections;
  server.failures = 0;
  server.ejected_until = now + std::min<Milliseconds>(rules_.ejection * server.ejections,
                                                      std::max(rules_.ejection_max, rules_.ejection));
  server.back_since = server.ejected_until;
  return true;
}

std::uint32_t PassiveHealth::share(std::size_t index, MonotonicTime now,
                                   MonotonicTime checked_up_since) const {
  const Server& server = servers_[index];
  if (server.retry_at > now || server.ejected_until > now) return 0;
  if (slow_start_.count() == 0) return Balancer::kWhole;
  const MonotonicTime since = std::max(server.back_since, checked_up_since);
  if (since == MonotonicTime{} || now - since >= slow_start_) return Balancer::kWhole;
  const auto grown = static_cast<std::uint32_t>(Balancer::kWhole * (now - since) / Duration(slow_start_));
  return std::max(kColdShare, grown);
}

void PassiveHealth::chosen(std::size_t index, MonotonicTime now, Milliseconds attempt) {
  Server& server = servers_[index];
  if (server.connect_failures > 0 && server.retry_at <= now) server.retry_at = now + attempt;
}

bool RetryBudget::take(MonotonicTime now) {
  if (percent_ == 0) return false;
  if (refilled_ == MonotonicTime{}) refilled_ = now;
  const auto seconds = std::chrono::duration_cast<Seconds>(now - refilled_);
  refilled_ += seconds;
  const auto refill =
      static_cast<std::uint32_t>(std::min<std::int64_t>(seconds.count(), kMost / kOne)) * kOne;
  saved_ = std::min(saved_ + refill, kMost);
  if (saved_ < kOne) return false;
  saved_ -= kOne;
  return true;
}

}  // namespace tollgate::net
