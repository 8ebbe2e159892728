// The life of one request for those who watch it: where its time goes, by phase, and lines that tell its steps.
//
// A worker watches one request in many (net::LifeWatch), and all of them while a trail is followed. Who is not watched
// has no Life: the exchange and the gate look at one pointer, read no clock and write nothing.
//
//   arrival ─ read ─ authenticate ─ classify ─ decide ─ charge ─ forward ┄ wait ┄ relay ─ record ─ end
//
// Own time is what passes between enter()/resume() and the next enter()/pause(); the rest is waiting, for whom pause()
// says. A phase may be entered again: what it takes is added up.
//
// Lines hold the path without its query, names and addresses: no token, no cookie, no other field, no body.
//
// Pure: the clock is given. Threads: a Life belongs to its worker; a Trail is shared by all of them.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/time.h"
#include "metering/quota/ledger.h"
#include "metering/usage/fact.h"

namespace tollgate::http {
struct RequestHead;
}

namespace tollgate::flow {

struct Call;

// What Tollgate itself does for a request. The names are promises to dashboards.
enum class Phase : std::uint8_t {
  read,          // head parsed; client address, path and route looked at
  authenticate,  // token found and verified, or found verified
  classify,      // which objects and operations the request touches
  decide,        // licence, and which accounts it is charged to
  charge,        // journal entry, decision of the quota, mark as sent
  forward,       // connection chosen, head rewritten, bytes sent to the upstream
  relay,         // reply parsed, rewritten and sent; or a reply of our own
  record,        // usage fact: journal, access log, metrics
};
inline constexpr std::size_t kPhaseCount = 8;
std::string_view name(Phase phase);

// Whom a request waits for meanwhile.
enum class Wait : std::uint8_t { client, store, upstream };
inline constexpr std::size_t kWaitCount = 3;
std::string_view name(Wait wait);

// Which requests are followed, for how long, and in how many lines at most. "" is any; not both names are "".
struct TrailOrder {
  std::string request_id, user;
  std::string tenant;  // only with user
  Milliseconds time{60'000};
  std::uint32_t lines = 1'000;
};
inline constexpr Milliseconds kTrailTimeMax{3'600'000};
inline constexpr std::uint32_t kTrailLinesMax = 100'000;

class Trail {
 public:
  // `write` takes a line, on any thread; `now` is the time of `over`.
  Trail(TrailOrder order, MonotonicTime now, std::function<void(std::string_view)> write);
  const TrailOrder& order() const { return order_; }
  MonotonicTime until() const { return until_; }
  std::uint32_t lines_left() const;
  bool over(MonotonicTime now) const { return now >= until_ || lines_left() == 0; }
  void write(MonotonicTime now, std::string_view line);  // nothing once it is over

 private:
  const TrailOrder order_;
  const MonotonicTime until_;
  const std::function<void(std::string_view)> write_;
  std::atomic<std::uint32_t> written_{0};
};

class Life {
 public:
  using Clock = MonotonicTime (*)();
  // started: when the bytes of its head came to be parsed. trail: nullptr when nothing is followed.
  Life(Clock clock, MonotonicTime started, bool sampled, std::shared_ptr<Trail> trail);

  void enter(Phase phase);  // what passed since the last mark belongs to what was before
  void pause(Wait wait);
  void resume();

  // ---- steps, for the lines; some enter a phase too
  void arrived(const Call& call, const http::RequestHead* head);
  void authenticated(const Call& call);  // call.token is set
  void classified(const Call& call);
  void decided(const Call& call);
  void charged(const quota::ChargeOutcome& outcome, const Call& call);
  void asks_upstream(std::string_view upstream, std::uint32_t attempt);
  void got_connection(std::string_view server, bool reused);
  void upstream_failed(std::string_view how);
  void got_head(int status);
  void answers(int status);  // a reply of our own
  void ended(const usage::Fact& fact);

  bool sampled() const { return sampled_; }
  Duration own(Phase phase) const { return own_[static_cast<std::size_t>(phase)]; }
  Duration waited(Wait wait) const { return waited_[static_cast<std::size_t>(wait)]; }

 private:
  void mark();
  template <typename Text>
  void tell(Text&& text);

  const Clock clock_;
  const MonotonicTime started_;
  MonotonicTime last_;
  const bool sampled_;
  bool paused_ = false;
  bool matched_ = false;  // the trail's user is known to be the caller
  Phase phase_ = Phase::read;
  Wait wait_ = Wait::client;
  std::array<Duration, kPhaseCount> own_{};
  std::array<Duration, kWaitCount> waited_{};
  std::shared_ptr<Trail> trail_;  // nullptr: not, or no longer, followed
  std::string request_id_;
  std::vector<std::string> held_;  // lines, until the caller is known
};

}  // namespace tollgate::flow
