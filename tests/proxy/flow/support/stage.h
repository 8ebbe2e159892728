// One exchange between a scripted client and a scripted upstream: no socket, time by hand.
#pragma once
#include <gtest/gtest.h>

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "metering/quota/memory_ledger.h"
#include "proxy/flow/exchange.h"
#include "proxy/http/response_parser.h"
#include "tests/proxy/flow/support/portal.h"

namespace tollgate::flow::test {

struct ScriptedPort final : ExchangePort {
  MonotonicTime now() override { return clock; }
  MonotonicTime event_time() override { return clock - turn; }
  UnixTime unix_now() override { return from_unix_seconds(test::kNow); }
  std::string_view date() override { return "Sun, 22 Nov 2026 00:00:00 GMT"; }
  bool draining() override { return is_draining; }
  void client_write(std::string_view bytes) override {
    to_client.append(bytes), client_queue += bytes.size();
  }
  std::size_t client_backlog() const override { return client_queue; }
  void client_read(bool wanted) override { reads_client = wanted; }
  void client_end_writing() override { client_fin = true; }
  bool upstream_acquire(const config::Route&, const Wanted& wanted, Upstream& upstream) override {
    ++acquired;
    last_fresh = wanted.fresh;
    last_again = wanted.again;
    last_hash_key = wanted.hash_key;
    held = true;
    if (!idle_connection || wanted.fresh) return false;
    upstream = {"10.0.0.7:9000", true};
    return true;
  }
  bool upstream_may_repeat(const config::Route&) override { return budget-- > 0; }
  void upstream_stalled() override { ++stalled; }
  void upstream_expect(std::string_view, bool) override {}
  void upstream_write(std::string_view bytes) override {
    exchange->on_upstream_sends();
    to_upstream.append(bytes), upstream_queue += bytes.size();
  }
  void flush_upstream() { upstream_queue = 0; }
  std::size_t upstream_backlog() const override { return upstream_queue; }
  void upstream_read(bool wanted) override { reads_upstream = wanted; }
  void upstream_end_writing() override { upstream_fin = true; }
  void upstream_release(bool reusable) override {
    EXPECT_TRUE(held);
    held = false;
    released_reusable = reusable;
  }
  void look_up(const CallLookup& lookup) override {
    looked_up.push_back(lookup.credential);
    if (!defer_session) exchange->on_lookup(lookup_answer);
  }
  void find_session(const identity::SessionKey& key) override {
    ++sessions_asked;
    if (!defer_session)
      exchange->on_session({.record = known_sessions[key], .unavailable = session_store_away});
  }
  void bind_session(const identity::SessionKey& key,
                    std::shared_ptr<const identity::SessionRecord> record) override {
    known_sessions[key] = std::move(record);
    if (!defer_session) exchange->on_session_written();
  }
  void end_session(const identity::SessionKey& key) override {
    ++sessions_ended;
    known_sessions.erase(key);
    if (!defer_session) exchange->on_session_written();
  }
  std::optional<seats::Outcome> take_seat(const seats::Pool& pool, const identity::Principal&, Milliseconds,
                                          seats::ClientId) override {
    seats_asked.push_back(pool.id);
    return seat;
  }
  void invite(CallPortal& portal, std::vector<std::string> members) override {
    portal.invitation = "invitation";
    invited = std::move(members);
    if (seat) exchange->on_seat(*seat);
  }
  void settle_invitation(const CallPortal&, std::vector<seats::Settlement> settlements) override {
    for (const auto& one : settlements) settled.emplace_back(one.member, one.outcome);
    if (!defer_session) exchange->on_session_written();
  }
  void charge(std::span<const quota::AccountCharge> asked) override {
    if (defer_store) {
      pending_charges.assign(asked.begin(), asked.end());
      return;
    }
    ledger.charge(asked, [this](quota::ChargeOutcome&& outcome) { exchange->on_charge(std::move(outcome)); });
  }
  void answer_store() {
    ledger.charge(pending_charges,
                  [this](quota::ChargeOutcome&& outcome) { exchange->on_charge(std::move(outcome)); });
  }
  void read_usage(const Call&) override {}
  void give_back(std::span<const quota::AccountCharge> charges, const quota::Receipt& receipt) override {
    ++given_back;
    ledger.give_back(charges, receipt);
  }
  void set_timer(Timer timer, Milliseconds after) override {
    timers[static_cast<std::size_t>(timer)] = after;
  }
  void clear_timer(Timer timer) override { timers[static_cast<std::size_t>(timer)].reset(); }
  void record(const usage::Fact& fact) override {
    ++facts;
    reason = fact.reason;
    status = fact.status;
    units = fact.units;
    attempts = fact.attempts;
  }
  std::optional<Milliseconds> timer(Timer which) const { return timers[static_cast<std::size_t>(which)]; }
  std::uint64_t counted() {
    std::uint64_t used = 0;
    for (const auto& record : accounts)
      ledger.read({record},
                  [&](Result<std::vector<quota::AccountState>>&& states) { used += states->at(0).used; });
    return used;
  }
  void flush_client() {
    client_queue = 0;
    exchange->on_client_writable();
  }

  Exchange* exchange = nullptr;
  MonotonicTime clock{Seconds(100)};
  Milliseconds turn{0};  // since the event, from which timers run
  quota::MemoryLedger ledger{[] { return Milliseconds(test::kNow * 1'000); }};
  std::vector<quota::AccountCharge> pending_charges, accounts;
  std::optional<seats::Outcome> seat = seats::Outcome{.status = seats::Outcome::Status::held};
  std::vector<std::string> seats_asked;
  std::vector<std::string> invited;
  std::vector<std::pair<std::string, seats::Settlement::Outcome>> settled;
  std::string to_client, to_upstream;
  std::size_t client_queue = 0, upstream_queue = 0;
  std::array<std::optional<Milliseconds>, 2> timers;
  bool is_draining = false, reads_client = false, reads_upstream = false, client_fin = false,
       upstream_fin = false;
  bool held = false, released_reusable = false, last_fresh = false, idle_connection = false,
       defer_store = false;
  std::map<identity::SessionKey, std::shared_ptr<const identity::SessionRecord>> known_sessions;
  std::vector<std::string> looked_up;
  std::shared_ptr<const identity::LookupVerdict> lookup_answer;
  bool defer_session = false, session_store_away = false;
  int sessions_asked = 0, sessions_ended = 0;
  bool last_again = false;
  std::string last_hash_key;
  int budget = 100, stalled = 0;
  int acquired = 0, given_back = 0, facts = 0, status = -1;
  std::uint32_t units = 0, attempts = 0;
  Reason reason = Reason::ok;
};

// One exchange with what surrounds it.
struct Stage {
  explicit Stage(config::Settings s = test::settings()) : snapshot(test::snapshot(s)) {
    port.exchange = &exchange;
  }

  void begin(const Request& sent) {
    Arrival arrival;
    arrival.snapshot = snapshot;
    arrival.peer_address = "192.0.2.7";
    arrival.new_request_id = "made-request-id";
    arrival.life = life;
    port.accounts = snapshot->rules.accounts({"acme", "Best Ltd", "ann", false});
    exchange.on_request_head(arrival, sent.head());
  }
  void upstream_ready(bool reused = false) { exchange.on_upstream_ready({"10.0.0.7:9000", reused}); }
  void reply_head(const std::string& text, std::string_view method = "GET") {
    reply_text = text;
    http::ResponseParser parser{http::HeadLimits{}};
    parser.expect(method);
    ASSERT_EQ(parser.parse(reply_text), http::ParseStatus::complete) << parser.failure().detail;
    exchange.on_upstream_head(parser.head());
  }
  void whole_reply(const std::string& head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n") {
    port.flush_upstream();
    reply_head(head);
    exchange.on_upstream_body("ok");
    exchange.on_upstream_end({}, true);
    port.flush_client();
  }

  std::shared_ptr<const Snapshot> snapshot;
  Life* life = nullptr;
  Gate gate{100, 1};
  ScriptedPort port;
  Exchange exchange{port, gate};
  std::string reply_text;
};

inline Request read_case() {
  return with_token("GET", "/0/odata/Case", token());
}
inline Request create_case() {
  return with_token("POST", "/0/odata/Case", token(), "{\"Subject\":\"x\"}");
}

inline config::Settings two_servers(std::vector<std::string> retry_on = {"connect", "closed"}) {
  config::Settings out = test::settings();
  out.upstreams[0].servers = {"http://10.0.0.7:9000", "http://10.0.0.8:9000"};
  out.upstreams[0].retry_on = std::move(retry_on);
  return out;
}

}  // namespace tollgate::flow::test
