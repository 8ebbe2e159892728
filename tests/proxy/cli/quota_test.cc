// `tollgate quota` and `tollgate usage` against an admin port of the test's own: what is asked, and what is shown.
#include "proxy/cli/quota.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <mutex>
#include <sstream>

#include "proxy/cli/cli.h"
#include "proxy/net/local_service.h"

namespace tollgate::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class Quota : public testing::Test {
 protected:
  Quota() {
    std::string pattern = (std::filesystem::temp_directory_path() / "tollgate-quota-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
    std::ofstream(folder_ / "admin.token") << "secret\n";
    auto port = net::LocalService::start(
        "127.0.0.1:0", [this](const net::LocalRequest& request, net::LocalReplyTo reply) {
          std::string asked = std::string(request.method) + " " + std::string(request.path);
          if (!request.query.empty()) asked += "?" + std::string(request.query);
          if (!request.body.empty()) asked += " " + std::string(request.body);
          net::LocalReply answer;
          {
            std::lock_guard lock(mutex_);
            EXPECT_EQ(request.field("Authorization"), "Bearer secret");
            asked_.push_back(std::move(asked));
            answer = {.status = status_, .content_type = "application/json", .fields = {}, .body = reply_};
          }
          reply(std::move(answer));
        });
    if (port) port_ = std::move(*port);
  }
  ~Quota() override {
    port_.reset();
    std::filesystem::remove_all(folder_);
  }
  void SetUp() override { ASSERT_NE(port_, nullptr); }

  int run(std::vector<std::string> words) {
    for (const std::string& word : {std::string("--admin"), fmt::format("http://127.0.0.1:{}", port_->port()),
                                    std::string("--token-file"), (folder_ / "admin.token").string()})
      words.push_back(word);
    std::ostringstream out, err;
    Console console{.out = out, .err = err};
    const int code = cli::run(words, console, [](const ServeArguments&) { return 7; });
    out_ = out.str();
    err_ = err.str();
    return code;
  }
  std::vector<std::string> asked() {
    std::lock_guard lock(mutex_);
    return std::exchange(asked_, {});
  }
  void answer(int status, std::string body) {
    std::lock_guard lock(mutex_);
    status_ = status;
    reply_ = std::move(body);
  }

  std::filesystem::path folder_;
  std::mutex mutex_;
  std::vector<std::string> asked_;
  int status_ = 200;
  std::string reply_ =
      R"({"name":"daily","limit":1200,"used":37,"remaining":1163,"configured_limit":1000,)"
      R"("overridden":false,"grants":[{"extra":200,"until":"2026-11-23T18:00:00Z","reason":"month-end"}]})";
  std::unique_ptr<net::LocalService> port_;
  std::string out_, err_;
};

TEST_F(Quota, GrantAsksForCallsUntilAMomentWithItsReason) {
  EXPECT_EQ(run({"quota", "grant", "ann@x", "--tenant", "acme", "--rule", "daily", "--extra", "200", "--for",
                 "24h", "--reason", "month-\"end\""}),
            kExitOk)
      << err_;
  EXPECT_EQ(run({"quota", "grant", "ann", "--rule", "daily", "--extra", "5", "--until",
                 "2026-11-23T18:00:00Z", "--reason", "r"}),
            kExitOk)
      << err_;
  EXPECT_THAT(
      asked(),
      ElementsAre(
          R"(POST /api/v1/users/acme/ann%40x/quotas/daily/grants {"extra":200,"for":"24h","reason":"month-\"end\""})",
          R"(POST /api/v1/users/-/ann/quotas/daily/grants {"extra":5,"until":"2026-11-23T18:00:00Z","reason":"r"})"));
  EXPECT_THAT(out_, HasSubstr("QUOTA  LIMIT  USED  REMAINING  CONFIGURED  OVERRIDE  GRANTS"));
  EXPECT_THAT(out_, HasSubstr("+200 until 2026-11-23T18:00:00Z (month-end)"));
}

TEST_F(Quota, MistakesAreTakenUpBeforeAnybodyIsAsked) {
  const std::vector<std::string> grant{"quota", "grant", "ann", "--rule", "daily"};
  auto with = [&](std::vector<std::string> more) {
    std::vector<std::string> words = grant;
    words.insert(words.end(), more.begin(), more.end());
    return run(words);
  };
  EXPECT_EQ(with({"--extra", "5", "--for", "24h"}), kExitUsage) << "no reason";
  EXPECT_EQ(with({"--extra", "5", "--reason", "r"}), kExitUsage) << "no end";
  EXPECT_EQ(with({"--for", "24h", "--reason", "r"}), kExitUsage) << "no amount";
  EXPECT_EQ(with({"--extra", "0", "--for", "24h", "--reason", "r"}), kExitUsage);
  EXPECT_EQ(with({"--extra", "5", "--for", "24h", "--until", "2026-11-23T18:00:00Z", "--reason", "r"}),
            kExitUsage);
  EXPECT_EQ(with({"--extra", "5", "--for", "24", "--reason", "r"}), kExitUsage);
  EXPECT_THAT(err_, HasSubstr("needs a unit"));
  EXPECT_EQ(run({"quota", "set", "ann", "--rule", "daily"}), kExitUsage);
  EXPECT_EQ(run({"quota", "set", "ann", "--rule", "daily", "--limit", "5", "--unlimited"}), kExitUsage);
  EXPECT_EQ(run({"quota", "reset", "ann", "--rule", "daily", "--counted", "--grants"}), kExitUsage);
  EXPECT_TRUE(asked().empty());
}

TEST_F(Quota, SetAndResetCarryTheReasonWhenThereIsOne) {
  EXPECT_EQ(run({"quota", "set", "ann", "--rule", "daily", "--limit", "5000", "--reason", "contract 7"}),
            kExitOk);
  EXPECT_EQ(run({"quota", "set", "ann", "--rule", "daily", "--unlimited"}), kExitOk);
  EXPECT_EQ(run({"quota", "reset", "ann", "--rule", "daily", "--org", "Big"}), kExitOk);
  EXPECT_EQ(run({"quota", "reset", "ann", "--rule", "daily", "--grants", "--reason", "over"}), kExitOk);
  answer(200, R"({"reset":true})");
  EXPECT_EQ(run({"quota", "reset", "ann", "--rule", "daily", "--counted"}), kExitOk);
  EXPECT_THAT(err_, HasSubstr("forgotten"));
  EXPECT_THAT(asked(),
              ElementsAre(R"(PUT /api/v1/users/-/ann/quotas/daily {"limit":5000,"reason":"contract 7"})",
                          R"(PUT /api/v1/users/-/ann/quotas/daily {"limit":null})",
                          R"(DELETE /api/v1/users/-/ann/quotas/daily?organization=Big {})",
                          R"(DELETE /api/v1/users/-/ann/quotas/daily/grants {"reason":"over"})",
                          R"(POST /api/v1/users/-/ann/quotas/daily/reset {})"));
}

TEST_F(Quota, GetShowsEveryRuleAndWhatHasNoLimit) {
  answer(
      200,
      R"([{"name":"daily","limit":null,"used":3,"remaining":null,"configured_limit":1000,"override":null,)"
      R"("overridden":true,"grants":[]},)"
      R"({"name":"next","mode":"shadow","limit":8,"used":3,"remaining":5,"configured_limit":8,"grants":[]}])");
  EXPECT_EQ(run({"quota", "get", "ann"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr("daily          none   3     none       1000        none"));
  EXPECT_THAT(out_, HasSubstr("next (shadow)  8"));
  EXPECT_EQ(run({"quota", "get", "ann", "-o", "json"}), kExitOk);
  EXPECT_THAT(out_, testing::StartsWith(R"([{"name":"daily","limit":null)"));
  EXPECT_THAT(asked(), ElementsAre("GET /api/v1/users/-/ann/quotas", "GET /api/v1/users/-/ann/quotas"));
}

TEST_F(Quota, RefusalsOfTheProxyAreExplained) {
  answer(409, R"({"status":409,"detail":"The account has 64 grants."})");
  EXPECT_EQ(run({"quota", "grant", "ann", "--rule", "daily", "--extra", "1", "--for", "1h", "--reason", "r"}),
            kExitFailed);
  EXPECT_THAT(err_, HasSubstr("The account has 64 grants."));
  answer(503, R"({"status":503,"detail":"away"})");
  EXPECT_EQ(run({"quota", "get", "ann"}), kExitUnavailable);
}

TEST_F(Quota, UsageMarksCandidateLimits) {
  answer(200, R"({"user":"ann","limits":[{"name":"next","mode":"shadow","limit":8,"window":86400,"used":3,)"
              R"("remaining":5}],"objects":[]})");
  EXPECT_EQ(run({"usage", "ann"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr("next (shadow)  1d"));
}

TEST_F(Quota, EveryVerbBeginsItsHelpWithAnExample) {
  for (const char* verb : {"get", "set", "grant", "reset"}) {
    EXPECT_EQ(run({"quota", verb, "-h"}), kExitOk);
    EXPECT_THAT(out_, HasSubstr(fmt::format("Examples:\n  tollgate quota {} ann", verb)));
  }
}

}  // namespace
}  // namespace tollgate::cli
