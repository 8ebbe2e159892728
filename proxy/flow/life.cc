#include "proxy/flow/life.h"

#include <fmt/format.h>

#include <algorithm>

#include "metering/base/json_text.h"
#include "metering/catalogue/classification.h"
#include "proxy/flow/call.h"
#include "proxy/http/message.h"

namespace tollgate::flow {

namespace {

constexpr std::size_t kNamesShown = 16;  // operations or accounts in one line: a batch may have hundreds

std::string quoted(std::string_view text) {
  std::string out;
  append_json_string(out, text);
  return out;
}

std::string_view name(quota::ChargeOutcome::Status status) {
  switch (status) {
    case quota::ChargeOutcome::Status::admitted:
      return "admitted";
    case quota::ChargeOutcome::Status::exceeded:
      return "exceeded";
    case quota::ChargeOutcome::Status::unavailable:
      return "unavailable";
  }
  return "";
}

// "a, b, c and 34 more"
template <typename Items, typename Text>
std::string list(const Items& items, Text&& text) {
  std::string out;
  std::size_t shown = 0;
  for (const auto& item : items) {
    if (shown++ == kNamesShown) return out + fmt::format(" and {} more", items.size() - kNamesShown);
    if (!out.empty()) out += ", ";
    out += text(item);
  }
  return out;
}

}  // namespace

std::string_view name(Phase phase) {
  static constexpr std::array<std::string_view, kPhaseCount> kNames = {
      "read", "authenticate", "classify", "decide", "charge", "forward", "relay", "record"};
  return kNames[static_cast<std::size_t>(phase)];
}

std::string_view name(Wait wait) {
  static constexpr std::array<std::string_view, kWaitCount> kNames = {"client", "store", "upstream"};
  return kNames[static_cast<std::size_t>(wait)];
}

// ---------------------------------------------------------------- the trail

Trail::Trail(TrailOrder order, MonotonicTime now, std::function<void(std::string_view)> write)
    : order_(std::move(order)), until_(now + order_.time), write_(std::move(write)) {}

std::uint32_t Trail::lines_left() const {
  return order_.lines - std::min(written_.load(std::memory_order_relaxed), order_.lines);
}

void Trail::write(MonotonicTime now, std::string_view line) {
  if (over(now)) return;
  const std::uint32_t before = written_.fetch_add(1, std::memory_order_relaxed);
  if (before < order_.lines) write_(line);
  if (before + 1 == order_.lines) write_(fmt::format("trace ended: {} lines were asked for", order_.lines));
}

// ---------------------------------------------------------------- time

Life::Life(Clock clock, MonotonicTime started, bool sampled, std::shared_ptr<Trail> trail)
    : clock_(clock), started_(started), last_(started), sampled_(sampled), trail_(std::move(trail)) {}

void Life::mark() {
  const MonotonicTime now = clock_();
  (paused_ ? waited_[static_cast<std::size_t>(wait_)] : own_[static_cast<std::size_t>(phase_)]) +=
      now - last_;
  last_ = now;
}

void Life::enter(Phase phase) {
  mark();
  paused_ = false;
  phase_ = phase;
}

void Life::pause(Wait wait) {
  mark();
  paused_ = true;
  wait_ = wait;
}

void Life::resume() {
  if (!paused_) return;
  mark();
  paused_ = false;
  // What the upstream says first is read before anybody knows what it is.
  if (phase_ == Phase::forward && wait_ == Wait::upstream) phase_ = Phase::relay;
}

// ---------------------------------------------------------------- steps

// Every line has the id of its request, so that those of many can be told apart.
template <typename Text>
void Life::tell(Text&& text) {
  if (trail_ == nullptr) return;
  const MonotonicTime now = clock_();
  std::string line =
      fmt::format("trace {} +{}us {}", request_id_,
                  std::chrono::duration_cast<std::chrono::microseconds>(now - started_).count(), text());
  if (!matched_) return held_.push_back(std::move(line));
  for (const std::string& held : held_) trail_->write(now, held);
  held_.clear();
  trail_->write(now, line);
}

void Life::arrived(const Call& call, const http::RequestHead* head) {
  if (trail_ == nullptr) return;
  const TrailOrder& order = trail_->order();
  request_id_ = call.request_id;
  if (!order.request_id.empty() && order.request_id != request_id_) return trail_.reset();
  matched_ = order.user.empty();
  tell([&] {
    if (head == nullptr)
      return fmt::format("received a request that is not valid from {}", call.client_address);
    return fmt::format("received {} {} from {}", head->method, quoted(head->path), call.client_address);
  });
}

void Life::authenticated(const Call& call) {
  enter(Phase::classify);
  if (trail_ == nullptr) return;
  const identity::Principal& who = call.token->principal;
  const TrailOrder& order = trail_->order();
  if (!order.user.empty() &&
      (order.user != who.user || (!order.tenant.empty() && order.tenant != who.tenant))) {
    held_.clear();
    return trail_.reset();
  }
  matched_ = true;
  tell([&] {
    return fmt::format("authenticated as user {} tenant {} organization {}{}", quoted(who.user),
                       quoted(who.tenant), quoted(who.organization), who.is_staff() ? ", staff" : "");
  });
}

void Life::classified(const Call& call) {
  enter(Phase::decide);
  tell([&] {
    return fmt::format("classified as {}: {}", catalogue::name(call.classification.kind),
                       list(call.classification.uses, [](const catalogue::ObjectUse& use) {
                         return fmt::format("{} {}", quoted(use.object), catalogue::name(use.operation));
                       }));
  });
}

void Life::decided(const Call& call) {
  enter(Phase::charge);
  tell([&] {
    return fmt::format("allowed; charges: {}", list(call.charges, [&](const quota::AccountCharge& charge) {
                         return fmt::format("{} to {} of {}", charge.units, quoted(charge.key.field),
                                            quoted(charge.key.subject_key));
                       }));
  });
}

void Life::charged(const quota::ChargeOutcome& outcome, const Call& call) {
  enter(Phase::charge);
  tell([&] {
    std::string text =
        fmt::format("charge {}{}", name(outcome.status), outcome.degraded ? ", store away" : "");
    if (!outcome.violated.empty())
      text += fmt::format(": no room in {}", list(outcome.violated, [&](std::uint32_t index) {
                            return quoted(call.charges[index].key.field);
                          }));
    if (!outcome.error.empty()) text += ": " + outcome.error;
    return text;
  });
}

void Life::asks_upstream(std::string_view upstream, std::uint32_t attempt) {
  enter(Phase::forward);
  tell([&] { return fmt::format("asks upstream {}, attempt {}", quoted(upstream), attempt); });
}

void Life::got_connection(std::string_view server, bool reused) {
  enter(Phase::forward);
  tell([&] { return fmt::format("server {}, {} connection", server, reused ? "reused" : "new"); });
}

void Life::upstream_failed(std::string_view how) {
  tell([&] { return fmt::format("upstream failed: {}", how); });
}

void Life::got_head(int status) {
  enter(Phase::relay);
  tell([&] { return fmt::format("reply head {}", status); });
}

void Life::answers(int status) {
  enter(Phase::relay);
  tell([&] { return fmt::format("answers {} itself", status); });
}

void Life::ended(const usage::Fact& fact) {
  mark();
  tell([&] {
    auto microseconds = [](Duration time) {
      return std::chrono::duration_cast<std::chrono::microseconds>(time).count();
    };
    std::string times;
    for (std::size_t i = 0; i < kPhaseCount; ++i)
      if (own_[i] > Duration(0))
        times += fmt::format(", {} {}us", flow::name(static_cast<Phase>(i)), microseconds(own_[i]));
    for (std::size_t i = 0; i < kWaitCount; ++i)
      if (waited_[i] > Duration(0))
        times +=
            fmt::format(", waited for {} {}us", flow::name(static_cast<Wait>(i)), microseconds(waited_[i]));
    return fmt::format("ended {}: status {}, {} units, {} bytes in, {} out{}", code(fact.reason), fact.status,
                       fact.units, fact.bytes_in, fact.bytes_out, times);
  });
}

}  // namespace tollgate::flow
