#include "proxy/admin/service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "metering/seats/model.h"
#include "proxy/admin/replies.h"
#include "tests/proxy/flow/support/portal.h"

namespace tollgate::admin {
namespace {

using testing::HasSubstr;

// The service over a ledger in memory.
class AdminTest : public testing::Test {
 protected:
  AdminTest() : snapshot_(flow::test::snapshot(flow::test::settings())) {}

  const std::string kAnn = "/api/v1/users/acme/ann/quotas/daily";

  Reply send(std::string_view method, std::string_view path, std::string_view query = "",
             std::string_view body = "", std::string_view authorization = "Bearer admin-secret",
             std::string token = "admin-secret") {
    Sources sources{
        .snapshot = [this] { return snapshot_; },
        .metrics = [] { return "metric 1\n"; },
        .metrics_content_type = "text/plain; version=0.0.4; charset=utf-8",
        .readiness = [this] { return checks_; },
        .reload = [this]() -> Result<void> {
          if (reload_fails_) return fail(Origin::config, "line 3: unknown key");
          return {};
        },
        .read_usage =
            [this](auto accounts, auto observation, auto done) {
              ledger_.read(accounts, [&](auto&& states) {
                ledger_.list(observation.subject_key, observation.prefix, observation.window,
                             observation.bucket,
                             [&](auto&& listed) { done(std::move(states), std::move(listed)); });
              });
            },
        .get_override =
            [this](quota::AccountKey key, Sources::OverrideRead done) {
              if (!overrides_readable_) return done(fail(Origin::store, "the store is away", true));
              auto found = overrides_.find(key.subject_key + key.field);
              done(found == overrides_.end() ? Sources::Override() : found->second);
            },
        .set_override =
            [this](quota::AccountKey key, Sources::Override value, Sources::Changed done) {
              if (!overrides_writable_) return done(fail(Origin::store, "the store is away", true));
              std::optional<std::uint64_t> effective;
              if (value) effective = value->effective(3, store_time_);
              ledger_.set_override(key, effective);
              overrides_[key.subject_key + key.field] = std::move(value);
              done({});
            },
        .reset =
            [this](std::vector<quota::AccountKey> keys, Sources::Changed done) {
              resets_ += keys.size();
              done({});
            },
        .settle =
            [this](Sources::Changed done) {
              if (settles_) return done({});
              done(fail(Origin::store, "3 accounts are not settled", true));
            },
        .list_seats =
            [this](seats::Pool pool, std::uint64_t offset, std::uint64_t count, auto done) {
              if (!seats_known_) return done(fail(Origin::store, "the store is away", true));
              done(seats_.list(pool, offset, count, ""));
            },
        .release_seat = [this](
                            seats::Pool pool, std::string tenant, std::string seat_user,
                            auto done) { done(seats_.release(pool, seats::member_of({tenant, seat_user}))); },
        .assign_seat = [this](seats::Pool pool, std::string tenant, std::string seat_user,
                              auto done) { done(seats_.take(pool, seats::member_of({tenant, seat_user}))); },
        .audit = [this](usage::AuditEntry entry) -> Result<void> {
          if (audit_fails_) return fail(Origin::self, "the disk is full");
          audit_.push_back(std::move(entry));
          return {};
        },
        .audit_log = [this](std::size_t most) -> Result<std::vector<usage::AuditEntry>> {
          std::vector<usage::AuditEntry> latest(audit_.rbegin(), audit_.rend());
          latest.resize(std::min(latest.size(), most));
          return latest;
        },
        .follow =
            [this](std::optional<flow::TrailOrder> order, std::string_view who) {
              followed_ = std::move(order);
              follower_ = who;
            },
        .followed = [this]() -> std::optional<Sources::Followed> {
          if (!followed_) return std::nullopt;
          return Sources::Followed{
              .order = *followed_, .left = followed_->time, .lines_left = followed_->lines};
        },
        .upstreams =
            [] {
              return std::vector<Sources::UpstreamServer>{
                  {.upstream = "crm", .server = "http://a:80", .ejected = true, .idle = 3, .waiting = 2}};
            },
        .clock = [this] { return UnixTime(store_time_); },
        .version = "1.2.3",
        .revision = "abc"};
    Service service(std::move(sources), std::move(token));
    Reply out;
    int answers = 0;
    service.handle({.method = method,
                    .path = path,
                    .query = query,
                    .authorization = authorization,
                    .body = body,
                    .peer = "10.0.0.9"},
                   [&](Reply reply) {
                     out = std::move(reply);
                     ++answers;
                   });
    EXPECT_EQ(answers, 1);
    return out;
  }
  void charge(std::string_view user, std::uint32_t units) {
    const quota::CountedOperation read{.object = "Case", .operation = "read", .product = ""};
    std::vector<quota::CountedOperation> operations(units, read);
    ledger_.charge(snapshot_->rules.charges({.tenant = "acme", .organization = "", .user = user}, operations),
                   [](quota::ChargeOutcome&& outcome) {
                     EXPECT_EQ(outcome.status, quota::ChargeOutcome::Status::admitted);
                   });
  }

  std::optional<flow::TrailOrder> followed_;
  std::string follower_;
  std::shared_ptr<const flow::Snapshot> snapshot_;
  Milliseconds store_time_{flow::test::kNow * 1'000};
  quota::MemoryLedger ledger_{[this] { return store_time_; }};
  std::vector<Check> checks_ = {{.name = "config"}, {.name = "store"}};
  std::vector<usage::AuditEntry> audit_;
  std::map<std::string, Sources::Override> overrides_;
  std::size_t resets_ = 0;
  seats::SeatModel seats_;
  bool seats_known_ = true;
  bool settles_ = true, audit_fails_ = false, overrides_readable_ = true, overrides_writable_ = true;
  bool reload_fails_ = false;
};

TEST_F(AdminTest, ProbesMetricsAndVersionNeedNoToken) {
  EXPECT_EQ(send("GET", "/livez", "", "", "").status, 200);
  EXPECT_EQ(send("GET", "/healthz", "", "", "").status, 200);
  EXPECT_EQ(send("GET", "/readyz", "", "", "").status, 200);
  auto metrics = send("GET", "/metrics", "", "", "");
  EXPECT_EQ(metrics.body, "metric 1\n");
  EXPECT_EQ(metrics.content_type, "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_THAT(send("GET", "/version", "", "", "").body, HasSubstr("\"version\":\"1.2.3\""));
  EXPECT_EQ(send("POST", "/livez").status, 405);
  EXPECT_EQ(send("GET", "/nothing").status, 404);
}

TEST_F(AdminTest, ReadinessFailsWithTheCheckThatFailsButLivenessDoesNot) {
  checks_[1] = {.name = "store", .ok = false, .detail = "0 of 1 workers connected"};
  auto ready = send("GET", "/readyz", "verbose");
  EXPECT_EQ(ready.status, 503);
  EXPECT_THAT(ready.body, HasSubstr("[+]config ok\n[-]store failed: 0 of 1 workers connected\n"));
  EXPECT_EQ(send("GET", "/livez").status, 200);
}

TEST_F(AdminTest, ApiNeedsTheTokenAndIsClosedWithoutOne) {
  EXPECT_EQ(send("GET", "/api/v1/users/acme/ann/usage", "", "", "").status, 401);
  EXPECT_EQ(send("GET", "/api/v1/users/acme/ann/usage", "", "", "Bearer wrong-secret").status, 401);
  EXPECT_EQ(send("GET", "/api/v1/users/acme/ann/usage", "", "", "Bearer admin-secret").status, 200);
  EXPECT_EQ(send("GET", "/api/v1/users/acme/ann/usage", "", "", "Bearer ", "").status, 403);
}

TEST_F(AdminTest, UsageOfAUserIsReadWithoutCost) {
  charge("ann", 2);
  for (int i = 0; i < 3; ++i) {
    auto reply = send("GET", "/api/v1/users/acme/ann/usage");
    EXPECT_THAT(reply.body, HasSubstr(R"("used":2,"remaining":1)"));
    EXPECT_THAT(reply.body, HasSubstr(R"({"object":"Case","operation":"read","calls":2})"));
  }
  EXPECT_THAT(send("GET", "/api/v1/users/acme/bob/usage").body, HasSubstr(R"("used":0)"));
  EXPECT_THAT(send("GET", "/api/v1/users/-/ann/usage").body, HasSubstr(R"("used":0)"));  // another tenant
}

TEST_F(AdminTest, OverrideActsAtOnceIsAuditedAndGoesAway) {
  charge("ann", 3);
  auto put = send("PUT", "/api/v1/users/acme/ann/quotas/daily", "", R"({"limit":10})");
  EXPECT_EQ(put.status, 200);
  EXPECT_THAT(put.body,
              HasSubstr(R"("limit":10,"used":3,"remaining":7,"configured_limit":3,"overridden":true)"));
  charge("ann", 7);
  auto removed = send("DELETE", "/api/v1/users/acme/ann/quotas/daily");
  EXPECT_THAT(removed.body, HasSubstr(R"("limit":3,"used":10,"remaining":0)"));
  ASSERT_EQ(audit_.size(), 2U);
  EXPECT_EQ(audit_[0].actor, "10.0.0.9 token admin");
  EXPECT_EQ(audit_[0].action, "quota.set");
  EXPECT_EQ(audit_[0].subject, "acme/ann daily");
  EXPECT_EQ(audit_[0].detail, "limit 10");
  EXPECT_EQ(audit_[0].time_ms, store_time_.count());
  EXPECT_EQ(audit_[1].action, "quota.unset");
}

TEST_F(AdminTest, GrantAddsToTheLimitUntilItsEndAndSaysWhy) {
  charge("ann", 3);
  auto given = send("POST", kAnn + "/grants", "", R"({"extra":2,"for":"24h","reason":"month-end"})");
  EXPECT_EQ(given.status, 200) << given.body;
  EXPECT_THAT(given.body,
              HasSubstr(R"("limit":5,"used":3,"remaining":2,"configured_limit":3,"overridden":false)"));
  EXPECT_THAT(given.body,
              HasSubstr(R"("grants":[{"extra":2,"until":"2026-11-19T11:06:40Z","reason":"month-end"}])"));
  ASSERT_EQ(audit_.size(), 1U);
  EXPECT_EQ(audit_[0].action, "quota.grant");
  EXPECT_EQ(audit_[0].detail, "+2 until 2026-11-19T11:06:40Z");
  EXPECT_EQ(audit_[0].reason, "month-end");
  EXPECT_THAT(send("GET", "/api/v1/users/acme/ann/quotas").body, HasSubstr("month-end"));
  store_time_ += std::chrono::hours(24);
  EXPECT_THAT(send("GET", kAnn).body, HasSubstr(R"("grants":[])")) << "it is over";
}

TEST_F(AdminTest, LimitKeepsGrantsAndGrantsKeepTheLimit) {
  send("POST", kAnn + "/grants", "", R"({"extra":2,"until":"2026-11-20T00:00:00+01:00","reason":"r"})");
  send("PUT", kAnn, "", R"({"limit":10,"reason":"contract 7"})");
  auto both = send("POST", kAnn + "/grants", "", R"({"extra":5,"for":"1h","reason":"r"})");
  EXPECT_THAT(both.body, HasSubstr(R"("limit":17,)"));
  EXPECT_THAT(both.body, HasSubstr(R"("overridden":true,"override":10)"));
  EXPECT_THAT(both.body, HasSubstr("2026-11-19T23:00:00Z"));
  EXPECT_EQ(audit_[1].reason, "contract 7");
  EXPECT_THAT(send("DELETE", kAnn).body, HasSubstr(R"("limit":10,)")) << "3 configured, 2 and 5 granted";
  auto none = send("DELETE", kAnn + "/grants", "reason=over%20now");
  EXPECT_THAT(none.body, HasSubstr(R"("limit":3,)"));
  EXPECT_EQ(audit_.back().action, "quota.withdraw");
  EXPECT_EQ(audit_.back().reason, "over now");
  EXPECT_FALSE(overrides_.begin()->second.has_value()) << "nothing is left behind in the store";
}

TEST_F(AdminTest, NoLimitIsNull) {
  auto put = send("PUT", kAnn, "", R"({"limit":null})");
  EXPECT_THAT(put.body, HasSubstr(R"("limit":null,"used":0,"remaining":null,"configured_limit":3)"));
  EXPECT_EQ(audit_[0].detail, "no limit");
}

TEST_F(AdminTest, GrantNeedsAmountEndAndReason) {
  for (std::string_view body :
       {R"({})", R"({"extra":2,"for":"24h"})", R"({"extra":2,"for":"24h","reason":""})",
        R"({"extra":0,"for":"24h","reason":"r"})", R"({"extra":-1,"for":"24h","reason":"r"})",
        R"({"extra":2,"reason":"r"})",
        R"({"extra":2,"for":"24h","until":"2026-11-20T00:00:00Z","reason":"r"})",
        R"({"extra":2,"for":"0","reason":"r"})", R"({"extra":2,"for":"367d","reason":"r"})",
        R"({"extra":2,"until":"2026-11-18T11:06:40Z","reason":"r"})",
        R"({"extra":2,"until":"2026-02-30T00:00:00Z","reason":"r"})",
        R"({"extra":2,"until":"soon","reason":"r"})", R"({"extra":2,"for":"24h","reason":"a\nb"})",
        R"({"extra":2,"for":"24h","reason":"r","limit":1})"}) {
    EXPECT_EQ(send("POST", kAnn + "/grants", "", body).status, 400) << body;
  }
  const std::string long_reason = R"({"extra":2,"for":"24h","reason":")" + std::string(501, 'x') + "\"}";
  EXPECT_EQ(send("POST", kAnn + "/grants", "", long_reason).status, 400);
  EXPECT_EQ(send("GET", kAnn + "/grants").status, 405);
  EXPECT_TRUE(audit_.empty());
  EXPECT_TRUE(overrides_.empty());
}

TEST_F(AdminTest, SixtyFourGrantsAreTheMostAndExpiredOnesMakeRoom) {
  for (std::size_t i = 0; i < quota::LimitOverride::kGrantsMax; ++i)
    EXPECT_EQ(send("POST", kAnn + "/grants", "", R"({"extra":1,"for":"1h","reason":"r"})").status, 200);
  EXPECT_EQ(send("POST", kAnn + "/grants", "", R"({"extra":1,"for":"1h","reason":"r"})").status, 409);
  EXPECT_EQ(audit_.back().action, "quota.grant.failed");
  store_time_ += std::chrono::hours(1);
  EXPECT_EQ(send("POST", kAnn + "/grants", "", R"({"extra":1,"for":"1h","reason":"r"})").status, 200);
}

TEST_F(AdminTest, WhatCannotBeRecordedIsNotDone) {
  audit_fails_ = true;
  EXPECT_EQ(send("PUT", kAnn, "", R"({"limit":10})").status, 503);
  EXPECT_EQ(send("POST", kAnn + "/reset").status, 503);
  EXPECT_EQ(send("POST", "/api/v1/config/reload").status, 503);
  EXPECT_TRUE(overrides_.empty());
  EXPECT_EQ(resets_, 0U);
}

TEST_F(AdminTest, ChangeThatFailsIsRecordedAsFailed) {
  overrides_writable_ = false;
  EXPECT_EQ(send("PUT", kAnn, "", R"({"limit":10})").status, 503);
  overrides_readable_ = false;
  EXPECT_EQ(send("PUT", kAnn, "", R"({"limit":10})").status, 503);
  ASSERT_EQ(audit_.size(), 4U);
  EXPECT_EQ(audit_[1].action, "quota.set.failed");
  EXPECT_EQ(audit_[1].detail, "limit 10: the store is away");
  EXPECT_EQ(audit_[3].action, "quota.set.failed");
}

TEST_F(AdminTest, AuditListsTheLatestFirst) {
  send("PUT", kAnn, "", R"({"limit":10,"reason":"a"})");
  send("POST", "/api/v1/users/-/bob/quotas/daily/reset", "", R"({"reason":"b"})");
  auto all = send("GET", "/api/v1/audit");
  EXPECT_THAT(all.body,
              testing::StartsWith(
                  R"([{"time":"2026-11-18T11:06:40Z","actor":"10.0.0.9 token admin","action":"quota.reset",)"
                  R"("subject":"-/bob daily","detail":"what was counted is forgotten","reason":"b"},)"));
  auto one = send("GET", "/api/v1/audit", "limit=1");
  EXPECT_EQ(one.body.find("quota.set"), std::string::npos);
  EXPECT_EQ(send("GET", "/api/v1/audit", "limit=0").status, 400);
  EXPECT_EQ(send("GET", "/api/v1/audit", "limit=x").status, 400);
  EXPECT_EQ(send("POST", "/api/v1/audit").status, 405);
  EXPECT_EQ(send("GET", "/api/v1/audit", "", "", "").status, 401);
}

TEST_F(AdminTest, SettleSaysWhetherAllReachedTheStore) {
  EXPECT_EQ(send("POST", "/api/v1/settle").status, 200);
  EXPECT_EQ(send("GET", "/api/v1/settle").status, 405);
  settles_ = false;
  auto failed = send("POST", "/api/v1/settle");
  EXPECT_EQ(failed.status, 503);
  EXPECT_THAT(failed.body, HasSubstr("3 accounts are not settled"));
}

TEST_F(AdminTest, CandidateLimitIsMarked) {
  auto settings = flow::test::settings();
  settings.quotas.front().mode = config::QuotaMode::shadow;
  snapshot_ = flow::test::snapshot(settings);
  EXPECT_THAT(send("GET", kAnn).body, HasSubstr(R"("name":"daily","mode":"shadow","limit":3)"));
  EXPECT_THAT(send("GET", "/api/v1/users/acme/ann/usage").body, HasSubstr(R"("mode":"shadow")"));
}

TEST_F(AdminTest, MistakesAreToldApart) {
  EXPECT_EQ(send("PUT", "/api/v1/users/acme/ann/quotas/daily", "", "{}").status, 400);
  EXPECT_EQ(send("PUT", "/api/v1/users/acme/ann/quotas/daily", "", R"({"limit":-1})").status, 400);
  EXPECT_EQ(send("PUT", "/api/v1/users/acme/ann/quotas/daily", "", "nonsense").status, 400);
  EXPECT_EQ(send("PUT", "/api/v1/users/acme/ann/quotas/weekly", "", R"({"limit":1})").status, 404);
  EXPECT_EQ(send("PATCH", "/api/v1/users/acme/ann/quotas/daily").status, 405);
  EXPECT_EQ(send("GET", "/api/v1/users/acme").status, 404);
  EXPECT_EQ(send("GET", "/api/v1/users/acme/%zz/usage").status, 404);
  EXPECT_TRUE(audit_.empty());
}

TEST_F(AdminTest, ResetForgetsOneAccount) {
  EXPECT_EQ(send("POST", "/api/v1/users/acme/ann/quotas/daily/reset").status, 200);
  EXPECT_EQ(resets_, 1U);
  EXPECT_EQ(send("GET", "/api/v1/users/acme/ann/quotas/daily/reset").status, 405);
}

TEST_F(AdminTest, RequestsAreFollowedForAWhileAndNoLonger) {
  const std::string_view trace = "/api/v1/trace";
  EXPECT_EQ(send("GET", trace).body, R"({"following":false})");
  const Reply reply = send("PUT", trace, "", R"({"user":"ann","tenant":"acme","for":"10m","lines":20})");
  EXPECT_EQ(reply.status, 200);
  EXPECT_THAT(reply.body, HasSubstr(R"({"following":true,"user":"ann","tenant":"acme","until":")"));
  EXPECT_THAT(reply.body, HasSubstr(R"("lines_left":20})"));
  ASSERT_TRUE(followed_);
  EXPECT_EQ(followed_->time, Seconds(600));
  EXPECT_EQ(follower_, "10.0.0.9");
  EXPECT_EQ(send("PUT", trace, "", R"({"request_id":"4711"})").status, 200);
  EXPECT_EQ(followed_->time, Seconds(60));
  EXPECT_EQ(followed_->user, "");
  EXPECT_EQ(send("DELETE", trace).body, R"({"following":false})");
  EXPECT_FALSE(followed_);
  EXPECT_EQ(send("POST", trace).status, 405);
  EXPECT_EQ(send("PUT", trace, "", R"({"user":"ann"})", "Bearer wrong").status, 401);
  EXPECT_TRUE(audit_.empty()) << "it changes nothing, and is wanted when the disk is full";
}

TEST_F(AdminTest, WrongOrdersToFollowAreRefused) {
  for (std::string_view body :
       {"", "{}", "[]", R"({"user":""})", R"({"user":7})", R"({"tenant":"acme","request_id":"x"})",
        R"({"user":"ann","for":"61m"})", R"({"user":"ann","for":"0"})", R"({"user":"ann","for":60})",
        R"({"user":"ann","lines":0})", R"({"user":"ann","lines":100001})", R"({"user":"ann","fro":"60s"})"})
    EXPECT_EQ(send("PUT", "/api/v1/trace", "", body).status, 400) << body;
  EXPECT_FALSE(followed_);
}

TEST_F(AdminTest, UpstreamsAreListedWithTheirPools) {
  const Reply reply = send("GET", "/api/v1/upstreams");
  EXPECT_EQ(reply.status, 200);
  EXPECT_THAT(reply.body,
              HasSubstr(R"("server":"http://a:80","healthy":false,"down":false,"unreachable":false,)"
                        R"("ejected":true,"in_flight":0,"idle":3,"waiting":2)"));
  EXPECT_EQ(send("PUT", "/api/v1/upstreams").status, 405);
  EXPECT_EQ(send("GET", "/api/v1/upstreams", "", "", "").status, 401);
}

TEST_F(AdminTest, RefusedReloadSaysWhy) {
  EXPECT_EQ(send("POST", "/api/v1/config/reload").status, 200);
  reload_fails_ = true;
  auto refused = send("POST", "/api/v1/config/reload");
  EXPECT_EQ(refused.status, 422);
  EXPECT_THAT(refused.body, HasSubstr("line 3: unknown key"));
}

TEST_F(AdminTest, SeatsAreListedAssignedAndReleasedWithAnAudit) {
  config::Settings settings = flow::test::settings();
  settings.licensing.main_product_users = 1;
  settings.licensing.concurrent_seats.capacity = 40;
  snapshot_ = flow::test::snapshot(settings);
  seats_.set_now(Milliseconds(1'795'000'000'000));
  const std::string pool = "/api/v1/licenses/self_service/seats";
  EXPECT_EQ(send("PUT", pool + "/acme/ann", "", R"({"reason":"new"})").body,
            R"({"assigned":true,"new":true})");
  EXPECT_EQ(send("PUT", pool + "/acme/ann").body, R"({"assigned":true,"new":false})");
  EXPECT_EQ(send("PUT", pool + "/-/bob").status, 200);
  EXPECT_EQ(send("GET", pool).body,
            R"({"pool":"self_service","kind":"named","capacity":100,"used":2,"seats":[)"
            R"({"user":"bob","since":"2026-11-18T11:06:40Z"},)"
            R"({"tenant":"acme","user":"ann","since":"2026-11-18T11:06:40Z"}]})");
  EXPECT_THAT(send("GET", pool, "offset=1&limit=1").body, testing::Not(HasSubstr("bob")));
  auto licenses = send("GET", "/api/v1/licenses").body;
  EXPECT_THAT(licenses, HasSubstr(R"({"id":"self_service","title":"Self-service Portal","available":true,)"
                                  R"("kind":"named","capacity":100,"used":2})"));
  EXPECT_THAT(licenses, HasSubstr(R"({"id":"customer","title":"Customer Portal","available":true})"));
  EXPECT_THAT(licenses, HasSubstr(R"({"id":"partner","title":"Partner Portal","available":false})"));
  EXPECT_THAT(licenses, HasSubstr(R"("kind":"concurrent","capacity":40,"used":0})"));
  EXPECT_EQ(send("DELETE", pool + "/acme/ann", "reason=left").body, R"({"released":true})");
  EXPECT_EQ(send("DELETE", pool + "/acme/ann").status, 404);
  ASSERT_EQ(audit_.size(), 6U);
  EXPECT_EQ(audit_[0].action, "seat.assign");
  EXPECT_EQ(audit_[0].subject, "acme/ann self_service");
  EXPECT_EQ(audit_[0].reason, "new");
  EXPECT_EQ(audit_[3].action, "seat.release");
  EXPECT_EQ(audit_[3].reason, "left");
  EXPECT_EQ(audit_[5].action, "seat.release.failed");
}

TEST_F(AdminTest, BadRequestsForSeatsChangeNothing) {
  config::Settings settings = flow::test::settings();
  settings.licensing.main_product_users = 1;
  settings.licensing.concurrent_seats.capacity = 40;
  snapshot_ = flow::test::snapshot(settings);
  seats_.set_now(Milliseconds(1'795'000'000'000));
  const std::string pool = "/api/v1/licenses/self_service/seats";
  EXPECT_EQ(send("GET", "/api/v1/licenses/customer/seats").status, 404) << "it has no cap";
  EXPECT_EQ(send("GET", pool, "limit=10001").status, 400);
  EXPECT_EQ(send("GET", pool, "offset=x").status, 400);
  EXPECT_EQ(send("POST", pool + "/acme/ann").status, 405);
  EXPECT_EQ(send("PUT", "/api/v1/licenses/concurrent/seats/acme/ann").status, 409);
  EXPECT_TRUE(audit_.empty());
  for (int i = 0; i < 100; ++i) seats_.take(snapshot_->seat_pools[0].pool, ":user" + std::to_string(i));
  EXPECT_EQ(send("PUT", pool + "/acme/ann").status, 409);
  audit_fails_ = true;
  EXPECT_EQ(send("DELETE", pool + "/-/user1").status, 503);
  EXPECT_EQ(seats_.list(snapshot_->seat_pools[0].pool, 0, 0, "").used, 100U)
      << "what cannot be recorded is not done";
  seats_known_ = false;
  EXPECT_EQ(send("GET", pool).status, 503);
  EXPECT_EQ(send("GET", "/api/v1/licenses").status, 503);
}

TEST(Moments, ReadBackAsWritten) {
  for (std::int64_t seconds : {0LL, 951'782'399LL, 1'795'000'000LL, 253'402'300'799LL}) {
    const Milliseconds moment{seconds * 1'000};
    EXPECT_EQ(parse_moment(format_moment(moment)), moment) << format_moment(moment);
  }
  EXPECT_EQ(format_moment(Milliseconds(1'999)), "1970-01-01T00:00:01Z");
  EXPECT_EQ(parse_moment("2026-11-23T18:00:00.5+05:30"), parse_moment("2026-11-23T12:30:00Z"));
  for (std::string_view wrong : {"", "2026-11-23", "2026-13-01T00:00:00Z", "2026-11-23T24:00:00Z",
                                 "2026-11-23T18:00:60Z", "2026-11-23T18:00:00", "2026-11-23T18:00:00Zx",
                                 "2026-11-23T18:00:00+24:00", "26-11-23T18:00:00Z", "2026-11-23T18:00:00.Z"})
    EXPECT_EQ(parse_moment(wrong), std::nullopt) << wrong;
}

TEST_F(AdminTest, StoreAwayIs503) {
  ledger_.set_available(false);
  EXPECT_EQ(send("GET", "/api/v1/users/acme/ann/usage").status, 503);
}

}  // namespace
}  // namespace tollgate::admin
