// Whose a record is, asked of a CRM on a real socket: what is asked, what is learned, how long anybody waits.
#include "proxy/net/owner_fetcher.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

#include "proxy/net/cherwell_owners.h"
#include "tests/proxy/net/support/sockets.h"

namespace tollgate::net {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

constexpr auto kPatience = 20s;

std::string reply(int status, const std::string& body) {
  return fmt::format(
      "HTTP/1.1 {} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: "
      "keep-alive\r\n\r\n{}",
      status, body.size(), body);
}
std::string token_reply(const std::string& token = "t1") {
  return reply(200, fmt::format(R"({{"access_token":"{}","token_type":"bearer","expires_in":1199,)"
                                R"("refresh_token":"r","username":"service"}})",
                                token));
}
std::string record_reply(const std::string& id, const std::string& owner) {
  return reply(200, fmt::format(R"({{"busObId":"6dd5","busObRecId":"{}","busObPublicId":"1{}","fields":)"
                                R"([{{"name":"CustomerRecID","fieldId":"x","value":"{}"}}]}})",
                                id, id, owner));
}

class Crm : public test::AnsweringServer {
 public:
  using AnsweringServer::AnsweringServer;
  std::string url() const { return AnsweringServer::url() + "/CherwellAPI"; }
};

bool is_token(const std::string& request) {
  return request.starts_with("POST ");
}

class Fetching {
 public:
  explicit Fetching(const std::string& url, Milliseconds timeout = 5s) {
    auto source = std::make_unique<CherwellOwners>(CherwellAccess{.url = url,
                                                                  .ca_file = "",
                                                                  .user = "svc user",
                                                                  .password = "p&ss",
                                                                  .client_id = "client",
                                                                  .auth_mode = "Internal"},
                                                   std::vector<std::string>{"CustomerRecID"}, owners);
    fetcher = std::make_unique<OwnerFetcher>(std::move(source), timeout, [this](const std::string& line) {
      std::lock_guard lock(mutex_);
      lines_.push_back(line);
    });
  }
  ~Fetching() { fetcher->stop(); }
  void ask(const std::string& record) {
    fetcher->find("crm", record, [this] {
      std::lock_guard lock(mutex_);
      ++done_;
      changed_.notify_all();
    });
  }
  // False: not all in time.
  bool answered(int count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return done_ >= count; });
  }
  int done() {
    std::lock_guard lock(mutex_);
    return done_;
  }
  std::vector<std::string> lines() {
    std::lock_guard lock(mutex_);
    return lines_;
  }
  std::optional<std::string> owner(const std::string& record) {
    const UnixTime now(
        std::chrono::duration_cast<Duration>(std::chrono::system_clock::now().time_since_epoch()));
    return owners->find("crm", record, now, 1h);
  }

  std::shared_ptr<licence::OwnerTable> owners = std::make_shared<licence::OwnerTable>(1'000);
  std::unique_ptr<OwnerFetcher> fetcher;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int done_ = 0;                    // guarded by mutex
  std::vector<std::string> lines_;  // guarded by mutex
};

TEST(OwnerFetcher, LogsInOnceAndLearnsTheRequesterByEveryNameOfTheRecord) {
  Crm crm([](const std::string& request) {
    return is_token(request) ? token_reply() : record_reply("a1", "cust-ann");
  });
  Fetching fetching(crm.url());
  fetching.ask("6dd5/a1/");
  ASSERT_TRUE(fetching.answered(1));
  EXPECT_EQ(fetching.owner("6dd5/a1/"), "cust-ann");
  EXPECT_EQ(fetching.owner("6dd5//1a1"), "cust-ann");
  EXPECT_EQ(fetching.owner("6dd5/a1/1a1"), "cust-ann");
  EXPECT_THAT(crm.last(), HasSubstr("Authorization: Bearer t1"));
  fetching.ask("6dd5//77");
  ASSERT_TRUE(fetching.answered(2));
  EXPECT_THAT(crm.asked(), ElementsAre("POST /CherwellAPI/token?auth_mode=Internal",
                                       "GET /CherwellAPI/api/V1/getbusinessobject/busobid/6dd5/busobrecid/a1",
                                       "GET /CherwellAPI/api/V1/getbusinessobject/busobid/6dd5/publicid/77"));
  EXPECT_EQ(fetching.owner("6dd5//77"), "") << "another record was shown: nobody's";
}

TEST(OwnerFetcher, NamesAndSecretsAreEscaped) {
  std::string form;
  Crm crm([&](const std::string& request) {
    if (!is_token(request)) return reply(404, "{}");
    form = request.substr(request.find("\r\n\r\n") + 4);
    return token_reply();
  });
  Fetching fetching(crm.url());
  fetching.ask("6dd5/a b?c/");
  ASSERT_TRUE(fetching.answered(1));
  EXPECT_EQ(form, "grant_type=password&client_id=client&username=svc%20user&password=p%26ss");
  EXPECT_THAT(crm.asked().back(), HasSubstr("/busobrecid/a%20b%3Fc"));
}

TEST(OwnerFetcher, ATokenThatIsNotTakenAnyMoreIsAskedForAnewOnce) {
  int tokens = 0;
  Crm crm([&](const std::string& request) {
    if (is_token(request)) return token_reply("t" + std::to_string(++tokens));
    return request.find("Bearer t1") != request.npos ? reply(401, "") : record_reply("a1", "cust-ann");
  });
  Fetching fetching(crm.url());
  fetching.ask("6dd5/a1/");
  ASSERT_TRUE(fetching.answered(1));
  EXPECT_EQ(fetching.owner("6dd5/a1/"), "cust-ann");
  EXPECT_THAT(crm.asked(), SizeIs(4));
}

TEST(OwnerFetcher, AnAccountThatIsRefusedIsNotTriedForever) {
  Crm crm([](const std::string& request) { return is_token(request) ? token_reply() : reply(401, ""); });
  Fetching fetching(crm.url());
  fetching.ask("6dd5/a1/");
  ASSERT_TRUE(fetching.answered(1));
  EXPECT_THAT(crm.asked(), SizeIs(4)) << "twice a token, twice the record";
  EXPECT_EQ(fetching.owner("6dd5/a1/"), std::nullopt);
}

TEST(OwnerFetcher, ThatThereIsNoRecordOrNoRequesterIsRemembered) {
  Crm crm([](const std::string& request) {
    if (is_token(request)) return token_reply();
    return request.find("gone") != request.npos ? reply(404, "") : reply(200, R"({"busObId":"6dd5"})");
  });
  Fetching fetching(crm.url());
  fetching.ask("6dd5/gone/");
  fetching.ask("6dd5/bare/");
  ASSERT_TRUE(fetching.answered(2));
  EXPECT_EQ(fetching.owner("6dd5/gone/"), "");
  EXPECT_EQ(fetching.owner("6dd5/bare/"), "");
}

TEST(OwnerFetcher, CallsThatWaitForOneRecordShareOneQuestion) {
  std::mutex gate;
  std::unique_lock closed(gate);
  Crm crm([&](const std::string& request) {
    if (is_token(request)) return token_reply();
    std::lock_guard wait(gate);
    return record_reply("a1", "cust-ann");
  });
  Fetching fetching(crm.url());
  for (int i = 0; i < 50; ++i) fetching.ask("6dd5/a1/");
  closed.unlock();
  ASSERT_TRUE(fetching.answered(50));
  EXPECT_THAT(crm.asked(), SizeIs(2));
}

class BadReply : public ::testing::TestWithParam<std::pair<const char*, std::string>> {};

TEST_P(BadReply, TeachesNothingAndNobodyIsAskedForAPause) {
  Crm crm([](const std::string& request) { return is_token(request) ? token_reply() : GetParam().second; });
  Fetching fetching(crm.url());
  fetching.ask("6dd5/a1/");
  ASSERT_TRUE(fetching.answered(1));
  EXPECT_EQ(fetching.owner("6dd5/a1/"), std::nullopt);
  fetching.ask("6dd5/a1/");
  fetching.ask("6dd5/b2/");
  EXPECT_EQ(fetching.done(), 3) << "let go on at once";
  EXPECT_THAT(crm.asked(), SizeIs(2));
  ASSERT_THAT(fetching.lines(), SizeIs(1));
  EXPECT_THAT(fetching.lines()[0], HasSubstr(crm.url()));
  EXPECT_THAT(fetching.lines()[0], Not(HasSubstr("p&ss")));
}

INSTANTIATE_TEST_SUITE_P(
    OwnerFetcher, BadReply,
    ::testing::Values(std::pair("error", reply(500, "{}")), std::pair("moved", reply(302, "{}")),
                      std::pair("page", reply(200, "<html>please log in</html>")),
                      std::pair("list", reply(200, "[]")), std::pair("nothing", reply(200, "")),
                      std::pair("cut", std::string("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"busO")),
                      std::pair("huge", reply(200, "{\"a\":\"" + std::string(1'100'000, 'x') + "\"}")),
                      std::pair("noise", std::string("hello\r\n\r\n"))),
    [](const auto& made) { return made.param.first; });

TEST(OwnerFetcher, WithoutATokenNothingIsAsked) {
  Crm crm([](const std::string&) { return reply(200, R"({"error":"invalid_grant"})"); });
  Fetching fetching(crm.url());
  fetching.ask("6dd5/a1/");
  ASSERT_TRUE(fetching.answered(1));
  EXPECT_THAT(crm.asked(), SizeIs(1));
  EXPECT_EQ(fetching.owner("6dd5/a1/"), std::nullopt);
}

TEST(OwnerFetcher, AfterThePauseTheCrmIsAskedAgain) {
  std::atomic<bool> up{false};
  Crm crm([&](const std::string& request) {
    if (!up) return reply(503, "");
    return is_token(request) ? token_reply() : record_reply("a1", "cust-ann");
  });
  Fetching fetching(crm.url());
  fetching.ask("6dd5/a1/");
  ASSERT_TRUE(fetching.answered(1));
  up = true;
  const auto end = std::chrono::steady_clock::now() + kPatience;
  for (int asked = 1; !fetching.owner("6dd5/a1/") && std::chrono::steady_clock::now() < end;) {
    fetching.ask("6dd5/a1/");
    ASSERT_TRUE(fetching.answered(++asked));
  }
  EXPECT_EQ(fetching.owner("6dd5/a1/"), "cust-ann");
}

TEST(OwnerFetcher, ACrmThatIsSilentCostsTheTimeoutAndWhoQueuedBehindIsLetGoWithoutAQuestion) {
  Crm crm([](const std::string& request) { return is_token(request) ? token_reply() : std::string(); });
  Fetching fetching(crm.url(), 200ms);
  const auto began = std::chrono::steady_clock::now();
  fetching.ask("6dd5/a1/");
  fetching.ask("6dd5/b2/");
  ASSERT_TRUE(fetching.answered(2));
  EXPECT_GE(std::chrono::steady_clock::now() - began, 190ms);
  EXPECT_THAT(crm.asked(), SizeIs(2)) << "a token and the first record";
  EXPECT_EQ(fetching.owner("6dd5/a1/"), std::nullopt);
  EXPECT_THAT(fetching.lines(), SizeIs(1));
}

TEST(OwnerFetcher, SoManyRecordsAreAskedForAtATimeAndStoppingLetsAllGoOn) {
  Crm crm([](const std::string& request) { return is_token(request) ? token_reply() : std::string(); });
  Fetching fetching(crm.url(), 60s);
  for (std::size_t i = 0; i < OwnerFetcher::kWaitingMax; ++i) fetching.ask(fmt::format("6dd5/{}/", i));
  EXPECT_EQ(fetching.done(), 0);
  fetching.ask("6dd5/one-too-many/");
  EXPECT_EQ(fetching.done(), 1) << "let go on at once";
  fetching.ask("6dd5/7/");
  EXPECT_EQ(fetching.done(), 1) << "that one is asked for already";
  fetching.fetcher->stop();
  EXPECT_EQ(fetching.done(), static_cast<int>(OwnerFetcher::kWaitingMax) + 2);
  fetching.ask("6dd5/late/");
  EXPECT_EQ(fetching.done(), static_cast<int>(OwnerFetcher::kWaitingMax) + 3);
  fetching.fetcher->stop();
}

TEST(OwnerFetcher, WhatIsRememberedIsBounded) {
  Crm crm([](const std::string& request) {
    if (is_token(request)) return token_reply();
    const std::size_t at = request.find("/busobrecid/") + 12;
    return record_reply(request.substr(at, request.find(' ', at) - at), "cust-ann");
  });
  Fetching fetching(crm.url());
  for (int i = 0; i < 1'500; ++i) fetching.ask(fmt::format("6dd5/{}/", i));
  ASSERT_TRUE(fetching.answered(1'500));
  EXPECT_LE(fetching.owners->size(), 1'000U + 16U) << "of 4500 names";
  EXPECT_GT(fetching.owners->size(), 500U);
}

}  // namespace
}  // namespace tollgate::net
