// The state machine of one call against a scripted edge: no socket, time by hand. Whatever happens at
// whatever step, there is exactly one fact, and the charge is given back if and only if the upstream never
// received the call.
#include "proxy/flow/exchange.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proxy/http/response_parser.h"
#include "tests/proxy/flow/support/portal.h"

namespace tollgate::flow {
namespace {

using test::Request;
using test::token;
using test::with_token;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

struct ScriptedPort final : ExchangePort {
  MonotonicTime now() override { return clock; }
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
    to_upstream.append(bytes), upstream_queue += bytes.size();
  }
  void upstream_flush() override { upstream_queue = 0; }
  std::size_t upstream_backlog() const override { return upstream_queue; }
  void upstream_read(bool wanted) override { reads_upstream = wanted; }
  void upstream_end_writing() override { upstream_fin = true; }
  void upstream_release(bool reusable) override {
    EXPECT_TRUE(held);
    held = false;
    released_reusable = reusable;
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
  void charge(std::vector<quota::AccountCharge> asked) override {
    if (defer_store) {
      pending_charges = std::move(asked);
      return;
    }
    ledger.charge(std::move(asked),
                  [this](quota::ChargeOutcome&& outcome) { exchange->on_charge(std::move(outcome)); });
  }
  void answer_store() {
    ledger.charge(std::move(pending_charges),
                  [this](quota::ChargeOutcome&& outcome) { exchange->on_charge(std::move(outcome)); });
  }
  void read_usage(const Call&) override {}
  void give_back(quota::Receipt receipt) override {
    ++given_back;
    ledger.give_back(std::move(receipt));
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
  quota::MemoryLedger ledger{[] { return Milliseconds(test::kNow * 1'000); }};
  std::vector<quota::AccountCharge> pending_charges, accounts;
  std::string to_client, to_upstream;
  std::size_t client_queue = 0, upstream_queue = 0;
  std::array<std::optional<Milliseconds>, 2> timers;
  bool is_draining = false, reads_client = false, reads_upstream = false, client_fin = false,
       upstream_fin = false;
  bool held = false, released_reusable = false, last_fresh = false, idle_connection = false,
       defer_store = false;
  std::map<identity::SessionKey, std::shared_ptr<const identity::SessionRecord>> known_sessions;
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

Request read_case() {
  return with_token("GET", "/0/odata/Case", token());
}
Request create_case() {
  return with_token("POST", "/0/odata/Case", token(), "{\"Subject\":\"x\"}");
}

TEST(Exchange, ForwardedCallIsOneFactOneUnitAndKeepsTheConnection) {
  Stage stage;
  const Request request = read_case();
  stage.begin(request);
  stage.upstream_ready();
  EXPECT_THAT(stage.port.to_upstream, HasSubstr("GET /0/odata/Case HTTP/1.1\r\n"));
  stage.whole_reply();
  EXPECT_TRUE(stage.exchange.over());
  EXPECT_EQ(stage.exchange.client_end(), ClientEnd::keep);
  EXPECT_TRUE(stage.port.released_reusable);
  EXPECT_EQ(stage.port.facts, 1);
  EXPECT_EQ(stage.port.units, 1U);
  EXPECT_EQ(stage.port.status, 200);
  EXPECT_EQ(stage.port.counted(), 1U);
  EXPECT_THAT(stage.port.to_client, HasSubstr("RateLimit: \"daily\";r=2"));
  EXPECT_THAT(stage.port.to_client, testing::EndsWith("\r\n\r\nok"));
}

TEST(Exchange, LegacyRateLimitFieldsOfTheUpstreamGiveWayToOurs) {
  for (const bool legacy : {false, true}) {
    config::Settings settings = test::settings();
    settings.proxy.legacy_rate_limit_headers = legacy;
    Stage stage(settings);
    const Request request = read_case();
    stage.begin(request);
    stage.upstream_ready();
    stage.reply_head(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nx-ratelimit-limit: 7\r\nX-RateLimit-Remaining: 7\r\n"
        "X-RateLimit-Reset: 7\r\nRateLimit: \"crm\";r=7\r\n\r\n");
    EXPECT_THAT(stage.port.to_client, HasSubstr("RateLimit: \"crm\";r=7\r\n")) << "a list: members are added";
    EXPECT_THAT(stage.port.to_client, HasSubstr("RateLimit: \"daily\";r=2"));
    const auto theirs = HasSubstr(": 7\r\n");
    if (legacy)
      EXPECT_THAT(stage.port.to_client, testing::AllOf(Not(theirs), HasSubstr("X-RateLimit-Limit: 3\r\n")));
    else
      EXPECT_THAT(stage.port.to_client, theirs);
    stage.exchange.on_upstream_end({}, true);
    stage.port.flush_client();
  }
}

TEST(Exchange, RewrittenPathGoesOutAndAddressesInTheReplyComeBack) {
  for (const bool map_replies : {true, false}) {
    config::Settings settings = test::settings();
    settings.routes = {{.path_prefix = "/portal",
                        .upstream = "crm",
                        .rewrite = {.replace_prefix = "/0/odata", .map_replies = map_replies}}};
    Stage stage(settings);
    const Request request = with_token("GET", "/portal/Case?$filter=a%20eq%20'/portal'", token());
    stage.begin(request);
    stage.upstream_ready();
    EXPECT_THAT(stage.port.to_upstream,
                StartsWith("GET /0/odata/Case?$filter=a%20eq%20'/portal' HTTP/1.1\r\n"));
    stage.reply_head(
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9000/0/odata/Lead\r\nContent-Location: "
        "/0/odata/Case\r\n"
        "Set-Cookie: a=b; Path=/0/odata\r\nContent-Length: 0\r\n\r\n");
    EXPECT_THAT(
        stage.port.to_client,
        HasSubstr(map_replies ? "Location: /portal/Lead\r\nContent-Location: /portal/Case\r\n"
                                "Set-Cookie: a=b; Path=/portal\r\n"
                              : "Location: http://127.0.0.1:9000/0/odata/Lead\r\n"
                                "Content-Location: /0/odata/Case\r\nSet-Cookie: a=b; Path=/0/odata\r\n"));
    stage.exchange.on_upstream_end({}, true);
    stage.port.flush_client();
    EXPECT_EQ(stage.port.units, 1U);
  }
}

TEST(Exchange, OptionsWithoutHopsLeftIsAnsweredHere) {
  for (const bool left : {false, true}) {
    Stage stage;
    const Request request =
        with_token("OPTIONS", "/0/odata/Case", token(), "", {{"Max-Forwards", left ? "1" : "0"}});
    stage.begin(request);
    if (left) {
      stage.upstream_ready();
      EXPECT_THAT(stage.port.to_upstream, HasSubstr("Max-Forwards: 0\r\n"));
      stage.whole_reply();
    } else {
      EXPECT_EQ(stage.port.acquired, 0);
      EXPECT_THAT(stage.port.to_client, testing::StartsWith("HTTP/1.1 200 "));
      EXPECT_THAT(stage.port.to_client, HasSubstr("\r\nAllow: GET, "));
      stage.port.flush_client();
      EXPECT_EQ(stage.port.counted(), 0U);
    }
    EXPECT_TRUE(stage.exchange.over());
    EXPECT_EQ(stage.exchange.client_end(), ClientEnd::keep);
    EXPECT_EQ(stage.port.facts, 1);
  }
}

// Staff is not metered by the licence; a rule that binds staff makes its calls units all the same.
TEST(Exchange, StaffHasUnitsExactlyWhenARuleChargesIt) {
  for (const bool bound : {false, true}) {
    config::Settings settings = test::settings();
    settings.quotas.front().staff = bound;
    Stage stage(settings);
    const Request request = with_token("GET", "/0/odata/Case", token({.type = "staff"}));
    stage.begin(request);
    stage.upstream_ready();
    stage.whole_reply();
    EXPECT_EQ(stage.port.facts, 1);
    EXPECT_EQ(stage.port.units, bound ? 1U : 0U) << bound;
  }
}

TEST(Exchange, FactIsRecordedOnlyWhenTheReplyHasLeft) {
  Stage stage;
  const Request request = read_case();
  stage.begin(request);
  stage.upstream_ready();
  stage.reply_head("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  stage.exchange.on_upstream_end({}, true);
  EXPECT_EQ(stage.port.facts, 0);
  stage.port.flush_client();
  EXPECT_EQ(stage.port.facts, 1);
}

// ---- an ending at every step

enum class Step { store, acquiring, forwarding, replying, flushing };
enum class Blow { client_gone, upstream_fails, upstream_timer, stop };

std::string name_of(Step step) {
  return std::array{"store", "acquiring", "forwarding", "replying",
                    "flushing"}[static_cast<std::size_t>(step)];
}
std::string name_of(Blow blow) {
  return std::array{"client_gone", "upstream_fails", "upstream_timer",
                    "stop"}[static_cast<std::size_t>(blow)];
}

// Leads a fresh exchange to `step`.
void lead_to(Stage& stage, Step step, const Request& request) {
  stage.port.defer_store = true;
  stage.begin(request);
  if (step == Step::store) return;
  stage.port.answer_store();
  if (step == Step::acquiring) return;
  stage.upstream_ready();
  if (step == Step::forwarding) return;
  stage.reply_head("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
  if (step == Step::replying) return;
  stage.exchange.on_upstream_body("ok");
  stage.exchange.on_upstream_end({}, true);
}

TEST(Exchange, EveryBlowAtEveryStepIsOneFactAndGivesBackIffNeverReceived) {
  for (const Step step : {Step::store, Step::acquiring, Step::forwarding, Step::replying, Step::flushing}) {
    for (const Blow blow : {Blow::client_gone, Blow::upstream_fails, Blow::upstream_timer, Blow::stop}) {
      if (step == Step::store && (blow == Blow::upstream_fails || blow == Blow::upstream_timer)) continue;
      if (step == Step::flushing && (blow == Blow::upstream_fails || blow == Blow::upstream_timer)) continue;
      if (step == Step::acquiring && blow == Blow::upstream_timer) continue;  // the pool's business
      SCOPED_TRACE(name_of(step) + " / " + name_of(blow));
      Stage stage;
      const Request request = read_case();
      lead_to(stage, step, request);
      switch (blow) {
        case Blow::client_gone:
          stage.exchange.on_client_gone();
          break;
        case Blow::upstream_fails:
          stage.port.held = false;
          stage.exchange.on_upstream_failed(step == Step::acquiring ? UpstreamFailure::connect
                                                                    : UpstreamFailure::invalid);
          break;
        case Blow::upstream_timer:
          stage.exchange.on_timer(Timer::upstream);
          break;
        case Blow::stop:
          stage.exchange.stop();
          break;
      }
      if (stage.exchange.awaits_store()) {
        EXPECT_EQ(stage.port.facts, 0) << "the verdict is awaited";
        stage.port.answer_store();
      }
      if (!stage.exchange.over()) stage.port.flush_client();
      EXPECT_TRUE(stage.exchange.over());
      EXPECT_EQ(stage.port.facts, 1);
      EXPECT_FALSE(stage.port.held) << "no connection is left behind";
      EXPECT_FALSE(stage.port.timer(Timer::client) || stage.port.timer(Timer::upstream));
      const bool received = step != Step::store && step != Step::acquiring;
      EXPECT_EQ(stage.port.counted(), received ? 1U : 0U);
      EXPECT_EQ(stage.port.units, received ? 1U : 0U);
      EXPECT_LE(stage.port.given_back, 1);
    }
  }
}

TEST(Exchange, EventsAfterTheEndChangeNothing) {
  Stage stage;
  const Request request = read_case();
  stage.begin(request);
  stage.upstream_ready();
  stage.whole_reply();
  const std::string sent = stage.port.to_client;
  stage.exchange.on_client_gone();
  stage.exchange.on_upstream_failed(UpstreamFailure::invalid);
  stage.exchange.on_upstream_body("late");
  stage.exchange.on_timer(Timer::client);
  stage.exchange.on_timer(Timer::upstream);
  stage.exchange.on_client_writable();
  stage.exchange.stop();
  EXPECT_EQ(stage.port.facts, 1);
  EXPECT_EQ(stage.port.to_client, sent);
}

// ---- retries

TEST(Exchange, ReusedConnectionClosedEarlyIsRetriedOnceOnAFreshOne) {
  Stage stage;
  stage.port.idle_connection = true;
  const Request request = read_case();
  stage.begin(request);
  stage.exchange.on_upstream_failed(UpstreamFailure::closed_early);
  EXPECT_EQ(stage.port.acquired, 2);
  EXPECT_TRUE(stage.port.last_fresh);
  stage.upstream_ready();
  stage.exchange.on_upstream_failed(UpstreamFailure::closed_early);
  stage.port.flush_client();
  EXPECT_EQ(stage.port.acquired, 2);
  EXPECT_EQ(stage.port.status, 502);
  EXPECT_EQ(stage.port.attempts, 2U);
  EXPECT_EQ(stage.port.counted(), 1U) << "the upstream may have received it";
}

// A server that answers without reading may take the rest of the request for the next one: its answer to that would go to
// somebody else.
TEST(Exchange, ConnectionWhoseReplyBeganBeforeTheRequestHadLeftIsNotUsedAgain) {
  for (const bool ends_in_time : {false, true}) {
    Stage stage;
    const Request request = create_case();
    stage.begin(request);
    stage.upstream_ready();
    stage.exchange.on_request_body(request.body().substr(0, 5));
    if (ends_in_time) {
      stage.exchange.on_request_body(request.body().substr(5));
      stage.exchange.on_request_end({});
      stage.port.upstream_flush();
    }
    stage.reply_head("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
    if (!ends_in_time) {
      stage.exchange.on_request_body(request.body().substr(5));
      stage.exchange.on_request_end({});
    }
    stage.exchange.on_upstream_body("ok");
    stage.exchange.on_upstream_end({}, true);
    stage.port.flush_client();
    EXPECT_TRUE(stage.exchange.over());
    EXPECT_EQ(stage.port.released_reusable, ends_in_time);
  }
}

TEST(Exchange, SwitchToAProtocolThatWasNotOfferedIs502) {
  for (const auto& [fields, good] :
       std::vector<std::pair<std::string, bool>>{{"Upgrade: websocket\r\n", true},
                                                 {"Upgrade: WebSocket\r\n", true},
                                                 {"Upgrade: h2c\r\n", false},
                                                 {"Upgrade: websocket, h2c\r\n", false},
                                                 {"Upgrade:\r\n", false},
                                                 {"", false}}) {
    Stage stage;
    const Request request = with_token("GET", "/0/odata/Case", token(), {},
                                       {{"Connection", "upgrade"}, {"Upgrade", "chat/1, websocket"}});
    stage.begin(request);
    stage.upstream_ready();
    stage.reply_head("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n" + fields + "\r\n");
    EXPECT_EQ(stage.exchange.tunnel(), good) << fields;
    if (good) {
      stage.exchange.stop();
      continue;
    }
    EXPECT_THAT(stage.port.to_client, StartsWith("HTTP/1.1 502 ")) << fields;
    EXPECT_EQ(stage.port.reason, Reason::ok) << "not recorded before it has left";
    stage.port.flush_client();
    EXPECT_EQ(stage.port.reason, Reason::upstream_invalid);
  }
}

config::Settings two_places() {
  config::Settings settings = test::settings();
  settings.identity.sources = {{.header = "X-Access-Token", .cookie = ""},
                               {.header = "", .cookie = "session"}};
  return settings;
}

std::string sent_to_upstream(const Request& request, config::Settings settings) {
  Stage stage(std::move(settings));
  stage.begin(request);
  if (stage.exchange.request_complete() && stage.port.acquired == 0) return stage.port.to_client;
  stage.upstream_ready();
  if (!request.body().empty()) {
    stage.exchange.on_request_body(request.body());
    stage.exchange.on_request_end(
        {{"x-access-TOKEN", "forged"}, {"X_Access_Token", "forged"}, {"X-Sum", "1"}, {"X-Gone", "2"}});
  }
  std::string sent = stage.port.to_upstream;
  stage.exchange.stop();
  return sent;
}

TEST(Exchange, CredentialsInDisguiseStayHere) {
  const std::string mine = token();
  const std::string sent = sent_to_upstream(
      Request("GET", "/0/odata/Case",
              {{"X-Access-Token", mine}, {"X_Access_Token", "forged"}, {"x-access_token", "forged"}}),
      two_places());
  EXPECT_THAT(sent, HasSubstr("X-Access-Token: " + mine + "\r\n"));
  EXPECT_THAT(sent, Not(HasSubstr("forged")));
}

TEST(Exchange, TrailersCarryNoCredentialsAndNothingThatConnectionNames) {
  const std::string sent = sent_to_upstream(
      Request("POST", "/0/odata/Case",
              {{"X-Access-Token", token()}, {"Transfer-Encoding", "chunked"}, {"Connection", "X-Gone"}},
              "{}"),
      two_places());
  EXPECT_THAT(sent, Not(HasSubstr("forged")));
  EXPECT_THAT(sent, testing::EndsWith("\r\n0\r\nX-Sum: 1\r\n\r\n"));
}

TEST(Exchange, ConnectionMayNotStripTheCredentials) {
  EXPECT_THAT(
      sent_to_upstream(Request("GET", "/0/odata/Case",
                               {{"X-Access-Token", token()}, {"Connection", "close, x-access-token"}}),
                       two_places()),
      StartsWith("HTTP/1.1 400 "));
}

// Metered as ann, believed to be bob: not even when both tokens are good.
TEST(Exchange, UpstreamIsGivenTheTokenThatWasMeteredAndNoOther) {
  const std::string ann = token(), bob = token({.user = "bob"});
  std::string sent = sent_to_upstream(
      Request("GET", "/0/odata/Case", {{"X-Access-Token", ann}, {"Cookie", "a=1; session=" + bob}}),
      two_places());
  EXPECT_THAT(sent, HasSubstr(ann));
  EXPECT_THAT(sent, Not(HasSubstr(bob)));
  EXPECT_THAT(sent, HasSubstr("Cookie: a=1\r\n"));
  sent = sent_to_upstream(
      Request("GET", "/0/odata/Case", {{"X-Access-Token", ann}, {"Cookie", "a=1; session=" + ann}}),
      two_places());
  EXPECT_THAT(sent, HasSubstr("Cookie: a=1; session=" + ann)) << "the same twice contradicts nothing";
}

TEST(Exchange, PostIsNotRetriedOnceSomethingWasSent) {
  Stage stage;
  stage.port.idle_connection = true;
  const Request request = create_case();
  stage.begin(request);
  stage.exchange.on_upstream_failed(UpstreamFailure::closed_early);
  EXPECT_EQ(stage.port.acquired, 1);
  EXPECT_THAT(stage.port.to_client, HasSubstr(" 502 "));
}

TEST(Exchange, ConnectFailureGoesToTheNextServerAtMostMaxRetriesTimes) {
  config::Settings two = test::settings();
  two.upstreams[0].servers = {"http://10.0.0.7:9000", "http://10.0.0.8:9000", "http://10.0.0.9:9000"};
  two.upstreams[0].max_retries = 1;
  Stage stage(two);
  const Request request = create_case();
  stage.begin(request);
  stage.exchange.on_upstream_failed(UpstreamFailure::connect);
  EXPECT_EQ(stage.port.acquired, 2);
  stage.exchange.on_upstream_failed(UpstreamFailure::connect);
  EXPECT_EQ(stage.port.acquired, 2);
  stage.exchange.on_request_body(request.body());
  stage.exchange.on_request_end({});
  stage.port.flush_client();
  EXPECT_EQ(stage.port.reason, Reason::upstream_unreachable);
  EXPECT_EQ(stage.port.given_back, 1);
  EXPECT_EQ(stage.port.counted(), 0U);
}

config::Settings two_servers(std::vector<std::string> retry_on = {"connect", "closed"}) {
  config::Settings out = test::settings();
  out.upstreams[0].servers = {"http://10.0.0.7:9000", "http://10.0.0.8:9000"};
  out.upstreams[0].retry_on = std::move(retry_on);
  return out;
}

TEST(Exchange, AFollowedLifeTellsEachStepInOrderAndWhomItWaitedFor) {
  static MonotonicTime clock{Seconds(7)};
  std::vector<std::string> lines;
  const auto trail = std::make_shared<Trail>(TrailOrder{.request_id = "", .user = "ann", .tenant = ""}, clock,
                                             [&](std::string_view line) { lines.emplace_back(line); });
  Life life([] { return clock; }, clock, true, trail);
  Stage stage(two_servers());
  stage.life = &life;
  stage.port.defer_store = true;
  const Request request = read_case();
  stage.begin(request);
  auto passes = [&](int milliseconds) {
    life.pause(stage.exchange.waits_for());
    clock += Milliseconds(milliseconds);
  };
  passes(3);
  stage.port.answer_store();
  passes(10);
  stage.exchange.on_upstream_failed(UpstreamFailure::connect);
  passes(20);
  stage.upstream_ready();
  passes(40);
  stage.reply_head("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
  stage.exchange.on_upstream_body("ok");
  stage.exchange.on_upstream_end({}, true);
  passes(5);
  stage.port.flush_client();
  ASSERT_TRUE(stage.exchange.over());
  EXPECT_EQ(life.waited(Wait::store), Milliseconds(3));
  EXPECT_EQ(life.waited(Wait::upstream), Milliseconds(70));
  EXPECT_EQ(life.waited(Wait::client), Milliseconds(5));
  for (std::size_t i = 0; i < kPhaseCount; ++i) EXPECT_EQ(life.own(static_cast<Phase>(i)), Duration(0));
  EXPECT_THAT(lines,
              testing::ElementsAre(
                  HasSubstr("received GET \"/0/odata/Case\""), HasSubstr("authenticated as user \"ann\""),
                  HasSubstr("classified as objects: \"Case\" read"),
                  HasSubstr("allowed; charges: 1 to \"daily\""), HasSubstr("+3000us charge admitted"),
                  HasSubstr("attempt 1"), HasSubstr("+13000us upstream failed: no connection"),
                  HasSubstr("attempt 2"), HasSubstr("+33000us server 10.0.0.7:9000, new connection"),
                  HasSubstr("+73000us reply head 200"), HasSubstr("+78000us ended ok: status 200, 1 units")));
}

TEST(Exchange, IdempotentCallThatGotNoReplyIsRepeatedAndChargedOnce) {
  Stage stage(two_servers());
  const Request request = read_case();
  stage.begin(request);
  stage.upstream_ready();
  stage.exchange.on_upstream_failed(UpstreamFailure::closed_early);
  EXPECT_EQ(stage.port.acquired, 2);
  EXPECT_TRUE(stage.port.last_again);
  EXPECT_FALSE(stage.port.last_fresh);
  stage.upstream_ready();
  stage.whole_reply();
  EXPECT_EQ(stage.port.status, 200);
  EXPECT_EQ(stage.port.counted(), 1U);
  EXPECT_EQ(stage.port.units, 1U);
  EXPECT_EQ(stage.port.attempts, 2U);
}

TEST(Exchange, RepeatingStopsAtMaxRetriesAtTheBudgetAndAtWhatIsConfigured) {
  for (const bool budget : {true, false}) {
    Stage stage(two_servers());
    stage.port.budget = budget ? 5 : 0;
    const Request request = read_case();
    stage.begin(request);
    for (int i = 0; i < (budget ? 2 : 1); ++i) {
      stage.upstream_ready();
      stage.exchange.on_upstream_failed(UpstreamFailure::closed_early);
    }
    stage.port.flush_client();
    EXPECT_EQ(stage.port.reason, Reason::upstream_closed);
    EXPECT_EQ(stage.port.counted(), 1U);
  }
  Stage stage(two_servers({"connect"}));
  const Request request = read_case();
  stage.begin(request);
  stage.upstream_ready();
  stage.exchange.on_upstream_failed(UpstreamFailure::closed_early);
  EXPECT_EQ(stage.port.acquired, 1);
}

TEST(Exchange, NothingThatChangesSomethingIsEverRepeatedOnceItWasSent) {
  for (const bool status : {false, true}) {
    Stage stage(two_servers({"connect", "closed", "timeout", "503"}));
    const Request request = create_case();
    stage.begin(request);
    stage.exchange.on_request_body(request.body());
    stage.exchange.on_request_end({});
    stage.upstream_ready();
    if (status)
      stage.reply_head("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "POST");
    else
      stage.exchange.on_timer(Timer::upstream);
    EXPECT_EQ(stage.port.acquired, 1);
    EXPECT_THAT(stage.port.to_client, HasSubstr(status ? " 503 " : " 504 "));
  }
}

TEST(Exchange, StatusesAndTimeOutsAreRepeatedWhereThatIsConfigured) {
  Stage stage(two_servers({"timeout", "503"}));
  stage.port.budget = 1;
  const Request request = read_case();
  stage.begin(request);
  stage.upstream_ready();
  stage.reply_head("HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(stage.port.acquired, 1) << "502 is not in the list";

  for (const bool status : {false, true}) {
    Stage again(two_servers({"timeout", "503"}));
    again.begin(request);
    again.upstream_ready();
    if (status)
      again.reply_head("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\n");
    else
      again.exchange.on_timer(Timer::upstream);
    EXPECT_EQ(again.port.stalled, status ? 0 : 1);
    EXPECT_EQ(again.port.acquired, 2);
    EXPECT_EQ(again.port.to_client, "");
    EXPECT_FALSE(again.port.released_reusable);
    again.upstream_ready();
    again.whole_reply();
    EXPECT_EQ(again.port.status, 200);
    EXPECT_EQ(again.port.counted(), 1U);
  }
}

TEST(Exchange, EachEndingOfTheUpstreamHasItsReason) {
  const std::tuple<UpstreamFailure, bool, Reason, int, bool> endings[] = {
      {UpstreamFailure::connect, false, Reason::upstream_unreachable, 502, true},
      {UpstreamFailure::connect_timeout, false, Reason::upstream_connect_timeout, 504, true},
      {UpstreamFailure::queue_full, false, Reason::overloaded, 503, true},
      {UpstreamFailure::unavailable, false, Reason::upstream_unavailable, 503, true},
      {UpstreamFailure::closed_early, true, Reason::upstream_closed, 502, false},
      {UpstreamFailure::invalid, true, Reason::upstream_invalid, 502, false}};
  for (const auto& [failure, connected, reason, status, given_back] : endings) {
    Stage stage;
    const Request request = read_case();
    stage.begin(request);
    if (connected) stage.upstream_ready();
    stage.exchange.on_upstream_failed(failure);
    stage.port.flush_client();
    EXPECT_EQ(stage.port.reason, reason) << code(reason);
    EXPECT_EQ(stage.port.status, status) << code(reason);
    EXPECT_EQ(stage.port.counted(), given_back ? 0U : 1U) << code(reason);
  }
}

TEST(Exchange, TheTotalTimeCoversWaitingRepeatingAndTheBody) {
  config::Settings settings = two_servers();
  settings.upstreams[0].total_timeout = Milliseconds(3'000);
  settings.upstreams[0].response_timeout = Milliseconds(2'000);
  const Request request = read_case();

  Stage waiting(settings);
  waiting.begin(request);
  EXPECT_EQ(waiting.port.timer(Timer::upstream), Milliseconds(3'000));
  waiting.port.clock += Seconds(3);
  waiting.exchange.on_timer(Timer::upstream);
  waiting.port.flush_client();
  EXPECT_EQ(waiting.port.reason, Reason::upstream_deadline);
  EXPECT_EQ(waiting.port.given_back, 1) << "nothing was sent";

  Stage slow(settings);
  slow.begin(request);
  slow.upstream_ready();
  EXPECT_EQ(slow.port.timer(Timer::upstream), Milliseconds(2'000)) << "what is earlier";
  slow.port.clock += Milliseconds(1'500);
  slow.exchange.on_upstream_failed(UpstreamFailure::closed_early);
  slow.upstream_ready();
  EXPECT_EQ(slow.port.timer(Timer::upstream), Milliseconds(1'500));
  slow.reply_head("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
  slow.exchange.on_upstream_body("half");
  EXPECT_EQ(slow.port.timer(Timer::upstream), Milliseconds(1'500));
  slow.port.clock += Milliseconds(1'500);
  slow.exchange.on_timer(Timer::upstream);
  EXPECT_TRUE(slow.exchange.over());
  EXPECT_EQ(slow.exchange.client_end(), ClientEnd::abort);
  EXPECT_EQ(slow.port.reason, Reason::upstream_deadline);
  EXPECT_EQ(slow.port.counted(), 1U);
}

TEST(Exchange, TheHashKeyIsTheUserTheAddressOrAField) {
  for (const auto& [kind, key] : std::vector<std::pair<std::string, std::string>>{
           {"user", "ann"}, {"ip", "192.0.2.7"}, {"header:x-room", "12"}, {"header:x-other", ""}}) {
    config::Settings settings = test::settings();
    settings.upstreams[0].balance = config::Balance::hash;
    settings.upstreams[0].hash_key = kind;
    Stage stage(settings);
    const Request request = with_token("GET", "/0/odata/Case", token(), "", {{"X-Room", "12"}});
    stage.begin(request);
    EXPECT_EQ(stage.port.last_hash_key, key) << kind;
  }
}

TEST(Exchange, StaleThenUnreachableIsNotGivenBack) {
  Stage stage;
  stage.port.idle_connection = true;
  const Request request = read_case();
  stage.begin(request);
  stage.exchange.on_upstream_failed(UpstreamFailure::closed_early);
  stage.exchange.on_upstream_failed(UpstreamFailure::connect);
  stage.port.flush_client();
  EXPECT_EQ(stage.port.given_back, 0) << "the first server may have received it";
  EXPECT_EQ(stage.port.counted(), 1U);
}

// ---- bodies and back-pressure

TEST(Exchange, FullUpstreamPausesTheClientUntilItHasDrained) {
  config::Settings tight = test::settings();
  tight.limits.buffer = 1'000;
  tight.routes[0].metered = false;
  Stage stage(tight);
  const Request request("PUT", "/file", {}, std::string(5'000, 'b'));
  stage.begin(request);
  EXPECT_FALSE(stage.port.reads_client) << "nobody is there to take the body yet";
  stage.upstream_ready();
  EXPECT_TRUE(stage.port.reads_client);
  stage.exchange.on_request_body(std::string(2'000, 'b'));
  EXPECT_FALSE(stage.port.reads_client);
  EXPECT_FALSE(stage.port.timer(Timer::client)) << "the client is not late while it is paused";
  EXPECT_TRUE(stage.port.timer(Timer::upstream));
  stage.port.upstream_queue = 600;
  stage.exchange.on_upstream_writable();
  EXPECT_FALSE(stage.port.reads_client);
  stage.port.upstream_queue = 500;
  stage.exchange.on_upstream_writable();
  EXPECT_TRUE(stage.port.reads_client);
}

TEST(Exchange, FullClientPausesTheUpstreamUntilItHasDrained) {
  config::Settings tight = test::settings();
  tight.limits.buffer = 1'000;
  Stage stage(tight);
  const Request request = read_case();
  stage.begin(request);
  stage.upstream_ready();
  stage.reply_head("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n");
  stage.exchange.on_upstream_body(std::string(2'000, 'r'));
  EXPECT_FALSE(stage.port.reads_upstream);
  EXPECT_FALSE(stage.port.timer(Timer::upstream)) << "the upstream is not late while it is paused";
  stage.port.flush_client();
  EXPECT_TRUE(stage.port.reads_upstream);
  EXPECT_TRUE(stage.port.timer(Timer::upstream));
}

TEST(Exchange, BodyTimeOutIs408AndNotGivenBackOnceForwarded) {
  config::Settings open = test::settings();
  open.routes[0].metered = false;
  Stage stage(open);
  const Request request("PUT", "/file", {}, std::string(50, 'b'));
  stage.begin(request);
  stage.upstream_ready();
  stage.exchange.on_timer(Timer::client);
  EXPECT_THAT(stage.port.to_client, HasSubstr("HTTP/1.1 408 "));
  EXPECT_THAT(stage.port.to_client, HasSubstr("Connection: close\r\n"));
  stage.port.flush_client();
  EXPECT_EQ(stage.exchange.client_end(), ClientEnd::close);
}

TEST(Exchange, RefusedRequestWithASmallBodyIsReadToItsEndAndTheConnectionGoesOn) {
  Stage stage;
  const Request request("PUT", "/0/odata/Case(1)", {}, std::string(50, 'b'));  // no token
  stage.begin(request);
  EXPECT_THAT(stage.port.to_client, HasSubstr("HTTP/1.1 401 "));
  EXPECT_THAT(stage.port.to_client, Not(HasSubstr("Connection: close")));
  stage.port.flush_client();
  EXPECT_FALSE(stage.exchange.over());
  stage.exchange.on_request_body(request.body());
  stage.exchange.on_request_end({});
  EXPECT_EQ(stage.exchange.client_end(), ClientEnd::keep);
  EXPECT_EQ(stage.port.facts, 1);
}

TEST(Exchange, RefusedRequestWithALargeBodyClosesTheConnection) {
  Stage stage;
  const Request request("PUT", "/0/odata/Case(1)", {}, std::string(kDiscardMax + 1, 'b'));
  stage.begin(request);
  EXPECT_THAT(stage.port.to_client, HasSubstr("Connection: close\r\n"));
  EXPECT_FALSE(stage.port.reads_client);
  stage.port.flush_client();
  EXPECT_EQ(stage.exchange.client_end(), ClientEnd::close);
}

TEST(Exchange, DrainingClosesAfterTheReply) {
  Stage stage;
  stage.port.is_draining = true;
  const Request request = read_case();
  stage.begin(request);
  stage.upstream_ready();
  stage.whole_reply();
  EXPECT_THAT(stage.port.to_client, HasSubstr("Connection: close\r\n"));
  EXPECT_EQ(stage.exchange.client_end(), ClientEnd::close);
}

TEST(Exchange, RefusedHeadIsOneFactWithoutMethod) {
  Stage stage;
  Arrival arrival;
  arrival.snapshot = stage.snapshot;
  arrival.peer_address = "192.0.2.7";
  arrival.new_request_id = "made-request-id";
  stage.exchange.on_request_refused(arrival, {Reason::header_too_large, "The header section is too large."});
  stage.port.flush_client();
  EXPECT_EQ(stage.port.status, 431);
  EXPECT_EQ(stage.port.facts, 1);
  EXPECT_THAT(stage.port.to_client, HasSubstr("X-Request-Id: made-request-id\r\n"));
  EXPECT_EQ(stage.exchange.client_end(), ClientEnd::close);
}

TEST(Exchange, EndlessInterimRepliesAreInvalid) {
  Stage stage;
  const Request request = read_case();
  stage.begin(request);
  stage.upstream_ready();
  for (int i = 0; i < 40 && stage.exchange.active(); ++i)
    stage.reply_head("HTTP/1.1 103 Early Hints\r\n\r\n");
  stage.port.flush_client();
  EXPECT_EQ(stage.port.reason, Reason::upstream_invalid);
  EXPECT_EQ(stage.port.facts, 1);
}

// ---------------------------------------------------------------- sessions of the CRM's own log-in

config::Settings with_sessions() {
  config::Settings settings = test::settings();
  settings.identity.sessions.kinds = {"creatio"};
  settings.licensing.system = "none";
  return settings;
}
constexpr std::string_view kCookie = "Set-Cookie: .ASPXAUTH=C00C1E; path=/; HttpOnly\r\n";
constexpr std::string_view kLoggedIn = R"({"Code":0,"Message":"","UserType":"SSP"})";

struct SessionStage : Stage {
  SessionStage() : Stage(with_sessions()) {}
  identity::SessionKey key(std::string_view cookie = "C00C1E") {
    return snapshot->sessions->secret().key_of(identity::SessionKind::creatio, "crm", cookie);
  }
  void know(std::string_view user, std::string_view cookie = "C00C1E") {
    port.known_sessions[key(cookie)] = std::make_shared<const identity::SessionRecord>(
        identity::SessionRecord{identity::SessionKind::creatio, std::string(user), identity::UserType::portal,
                                from_unix_seconds(test::kNow + 3'600)});
  }
  void log_in(std::string body = R"({"UserName":"Ann","UserPassword":"x"})") {
    request.emplace(Request("POST", "/ServiceModel/AuthService.svc/Login",
                            {{"Accept-Encoding", "gzip"}, {"Cookie", "UserType=General"}}, body));
    begin(*request);
    exchange.on_request_body(body);
    exchange.on_request_end({});
  }
  void call(std::vector<std::pair<std::string, std::string>> fields = {{"Cookie", "a=b; .ASPXAUTH=C00C1E"}},
            std::string_view method = "GET", std::string_view target = "/0/odata/Case") {
    request.emplace(Request(method, target, std::move(fields)));
    begin(*request);
  }
  void login_reply(std::string_view body, std::string_view status = "200 OK") {
    reply_head("HTTP/1.1 " + std::string(status) + "\r\n" + std::string(kCookie) +
                   "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n",
               "POST");
    for (const char& c : body) exchange.on_upstream_body(std::string_view(&c, 1));
    exchange.on_upstream_end({}, true);
  }
  std::optional<Request> request;
};

TEST(ExchangeSession, ALogInIsBoundBeforeTheClientHearsOfIt) {
  SessionStage stage;
  stage.port.defer_session = true;
  stage.log_in();
  stage.upstream_ready();
  EXPECT_THAT(stage.port.to_upstream, testing::EndsWith(R"({"UserName":"Ann","UserPassword":"x"})"));
  EXPECT_THAT(stage.port.to_upstream, Not(HasSubstr("gzip"))) << "its reply is read";
  stage.login_reply(kLoggedIn);
  EXPECT_EQ(stage.port.to_client, "");
  const auto record = stage.port.known_sessions.at(stage.key());
  EXPECT_EQ(record->user, "ann");
  EXPECT_EQ(record->user_type, identity::UserType::portal);
  EXPECT_EQ(record->deadline, from_unix_seconds(test::kNow + 86'400));
  EXPECT_FALSE(stage.port.held) << "the CRM's connection does not wait for the store";
  stage.exchange.on_session_written();
  stage.port.flush_client();
  EXPECT_THAT(stage.port.to_client, testing::AllOf(StartsWith("HTTP/1.1 200 OK\r\n"), HasSubstr(kCookie),
                                                   testing::EndsWith(kLoggedIn)));
  EXPECT_TRUE(stage.exchange.over());
  EXPECT_EQ(stage.port.facts, 1);
  EXPECT_EQ(stage.port.status, 200);
}

TEST(ExchangeSession, WhatIsNoLogInIsPassedOnAndBindsNobody) {
  for (auto [body, status] :
       {std::pair{R"({"Code":1,"Message":"Invalid username"})", "200 OK"},
        std::pair{R"({"Code":0,"UserType":"SSP"})", "201 Created"},
        std::pair{R"({"Code":0,"UserType":"SSP"})", "500 Oops"}, std::pair{"", "200 OK"}}) {
    SessionStage stage;
    stage.log_in();
    stage.upstream_ready();
    stage.login_reply(body, status);
    stage.port.flush_client();
    EXPECT_THAT(stage.port.known_sessions, testing::IsEmpty()) << body << status;
    EXPECT_THAT(stage.port.to_client,
                testing::AllOf(StartsWith("HTTP/1.1 " + std::string(status)), testing::EndsWith(body)));
    EXPECT_TRUE(stage.exchange.over());
  }
}

TEST(ExchangeSession, AReplyTooLargeForALogInIsStreamedOnAndBindsNobody) {
  SessionStage stage;
  stage.log_in();
  stage.upstream_ready();
  const std::string body = std::string(kLoggedIn) + std::string(kLoginReplyMax, ' ');
  stage.login_reply(body);
  stage.port.flush_client();
  EXPECT_THAT(stage.port.known_sessions, testing::IsEmpty());
  EXPECT_THAT(stage.port.to_client, testing::EndsWith(body));
  EXPECT_TRUE(stage.exchange.over());
}

TEST(ExchangeSession, ALogInWhoseReplyIsCutBindsNobodyAndIsAnError) {
  SessionStage stage;
  stage.log_in();
  stage.upstream_ready();
  stage.reply_head("HTTP/1.1 200 OK\r\n" + std::string(kCookie) + "Content-Length: 100\r\n\r\n", "POST");
  stage.exchange.on_upstream_body(kLoggedIn);
  stage.port.held = false;
  stage.exchange.on_upstream_failed(UpstreamFailure::invalid);
  stage.port.flush_client();
  EXPECT_THAT(stage.port.to_client, testing::AllOf(StartsWith("HTTP/1.1 502"), Not(HasSubstr("C00C1E"))));
  EXPECT_THAT(stage.port.known_sessions, testing::IsEmpty());
  EXPECT_EQ(stage.port.facts, 1);
}

TEST(ExchangeSession, AClientThatLeavesWhileItsLogInIsWrittenEndsTheExchange) {
  SessionStage stage;
  stage.port.defer_session = true;
  stage.log_in();
  stage.upstream_ready();
  stage.login_reply(kLoggedIn);
  stage.exchange.on_client_gone();
  EXPECT_TRUE(stage.exchange.over());
  EXPECT_EQ(stage.port.facts, 1);
  stage.exchange.on_session_written();  // late: nobody is there
  EXPECT_EQ(stage.port.to_client, "");
}

TEST(ExchangeSession, ACallIsItsUsersWhoseSessionItCarries) {
  SessionStage stage;
  stage.know("ann");
  stage.call({{"Cookie", ".ASPXAUTH=C00C1E; a=b"}, {"Authorization", "Basic eDp5"}});
  stage.upstream_ready();
  EXPECT_THAT(stage.port.to_upstream, HasSubstr("Cookie: .ASPXAUTH=C00C1E; a=b\r\n")) << "the CRM needs it";
  EXPECT_THAT(stage.port.to_upstream, Not(HasSubstr("Basic"))) << "the CRM could believe it";
  stage.whole_reply();
  EXPECT_EQ(stage.port.units, 1U);
  EXPECT_EQ(stage.port.sessions_asked, 1);
}

TEST(ExchangeSession, AnUnknownSessionIsRefusedAndAStoreThatIsAwayIsToldApart) {
  for (const bool away : {false, true}) {
    SessionStage stage;
    stage.port.session_store_away = away;
    stage.call();
    stage.port.flush_client();
    EXPECT_EQ(stage.port.reason, away ? Reason::store_unavailable : Reason::token_invalid);
    EXPECT_EQ(stage.port.acquired, 0);
  }
}

TEST(ExchangeSession, PagesAndScriptsPassWithASessionThatIsNobodys) {
  SessionStage stage;
  stage.call({{"Cookie", ".ASPXAUTH=C00C1E"}}, "GET", "/core/hash/app.js");
  EXPECT_EQ(stage.port.acquired, 1);
}

TEST(ExchangeSession, AClientThatLeavesWhileItsSessionIsLookedUpEndsTheExchange) {
  SessionStage stage;
  stage.port.defer_session = true;
  stage.call();
  EXPECT_EQ(stage.exchange.waits_for(), Wait::store);
  stage.exchange.on_client_gone();
  EXPECT_TRUE(stage.exchange.over());
  stage.exchange.on_session({});
  EXPECT_EQ(stage.port.facts, 1);
}

TEST(ExchangeSession, TheEndOfASessionIsKnownBeforeTheClientHearsOfIt) {
  const std::vector<std::pair<std::string, std::string>> cookie{{"Cookie", ".ASPXAUTH=C00C1E"}};
  for (const std::string fields : {"", "Set-Cookie: .ASPXAUTH=; expires=Thu, 01 Jan 1970 00:00:00 GMT\r\n"}) {
    SessionStage stage;
    stage.know("ann");
    if (fields.empty())
      stage.call(cookie, "POST", "/0/rest/MainMenuService/Logout");
    else
      stage.call();
    stage.upstream_ready();
    stage.port.defer_session = true;
    stage.whole_reply("HTTP/1.1 200 OK\r\n" + fields + "Content-Length: 2\r\n\r\n");
    EXPECT_EQ(stage.port.to_client, "");
    EXPECT_EQ(stage.port.sessions_ended, 1);
    stage.exchange.on_session_written();
    stage.port.flush_client();
    EXPECT_THAT(stage.port.to_client, testing::EndsWith("ok"));
    EXPECT_TRUE(stage.exchange.over());
  }
}

TEST(ExchangeSession, A401OfTheCrmEndsTheSession) {
  SessionStage stage;
  stage.know("ann");
  stage.call();
  stage.upstream_ready();
  stage.port.defer_session = true;
  stage.whole_reply("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n");
  EXPECT_EQ(stage.port.sessions_ended, 1);
  EXPECT_TRUE(stage.exchange.over()) << "the reply does not wait for the store";
}

TEST(ExchangeSession, ACookieMadeAnewIsTheSameUsers) {
  SessionStage stage;
  stage.know("ann");
  stage.call();
  stage.upstream_ready();
  stage.whole_reply("HTTP/1.1 200 OK\r\nSet-Cookie: .ASPXAUTH=D00D1E; path=/\r\nContent-Length: 2\r\n\r\n");
  EXPECT_EQ(stage.port.known_sessions.at(stage.key("D00D1E"))->user, "ann");
  EXPECT_EQ(stage.port.sessions_ended, 0) << "calls under way still carry the old one";
}

TEST(ExchangeSession, AnotherUsersSessionStaysHereWhenATokenSaysWhoCalls) {
  for (const auto& [owner, passes] :
       {std::pair{"bob", false}, std::pair{"ann", true}, std::pair{"", false}}) {
    SessionStage stage;
    if (*owner != '\0') stage.know(owner);
    stage.call({{"Authorization", "Bearer " + token()}, {"Cookie", "a=b; .aspxauth=C00C1E; BPMLOADER=x"}});
    stage.upstream_ready();
    if (passes)
      EXPECT_THAT(stage.port.to_upstream, HasSubstr("Cookie: a=b; .aspxauth=C00C1E; BPMLOADER=x\r\n"));
    else
      EXPECT_THAT(stage.port.to_upstream, HasSubstr("Cookie: a=b\r\n")) << owner;
    stage.whole_reply();
  }
}

TEST(ExchangeSession, ALogInIsNobodysWhateverTheRequestCarries) {
  SessionStage stage;
  stage.log_in(R"({"UserName":"a","username":"b"})");
  stage.port.flush_client();
  EXPECT_EQ(stage.port.reason, Reason::bad_request);
  EXPECT_EQ(stage.port.sessions_asked, 0);
  EXPECT_EQ(stage.port.acquired, 0);
}

}  // namespace
}  // namespace tollgate::flow
