#include "proxy/admin/service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/proxy/flow/support/portal.h"

namespace tollgate::admin {
namespace {

using testing::HasSubstr;

// The service over a ledger in memory.
class AdminTest : public testing::Test {
 protected:
  AdminTest() : snapshot_(flow::test::snapshot(flow::test::settings())) {}

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
        .set_override =
            [this](quota::AccountKey key, std::optional<std::uint64_t> limit, Sources::Changed done) {
              ledger_.set_override(key, limit);
              done({});
            },
        .reset =
            [this](std::vector<quota::AccountKey> keys, Sources::Changed done) {
              resets_ += keys.size();
              done({});
            },
        .audit = [this](std::string_view text) { audit_.emplace_back(text); },
        .version = "1.2.3",
        .revision = "abc"};
    Service service(std::move(sources), std::move(token));
    Reply out;
    int answers = 0;
    service.handle(
        {.method = method, .path = path, .query = query, .authorization = authorization, .body = body},
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

  std::shared_ptr<const flow::Snapshot> snapshot_;
  Milliseconds store_time_{flow::test::kNow * 1'000};
  quota::MemoryLedger ledger_{[this] { return store_time_; }};
  std::vector<Check> checks_ = {{.name = "config"}, {.name = "store"}};
  std::vector<std::string> audit_;
  std::size_t resets_ = 0;
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
  EXPECT_EQ(audit_[0], "set quota daily of user ann (tenant 'acme') to 10");
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

TEST_F(AdminTest, RefusedReloadSaysWhy) {
  EXPECT_EQ(send("POST", "/api/v1/config/reload").status, 200);
  reload_fails_ = true;
  auto refused = send("POST", "/api/v1/config/reload");
  EXPECT_EQ(refused.status, 422);
  EXPECT_THAT(refused.body, HasSubstr("line 3: unknown key"));
}

TEST_F(AdminTest, StoreAwayIs503) {
  ledger_.set_available(false);
  EXPECT_EQ(send("GET", "/api/v1/users/acme/ann/usage").status, 503);
}

}  // namespace
}  // namespace tollgate::admin
