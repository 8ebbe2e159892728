#include "proxy/net/directory_sync.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <mutex>

#include "tests/proxy/net/support/sockets.h"

namespace tollgate::net {
namespace {

using identity::SyncFailure;
using Kind = SyncFailure::Kind;
using ::testing::HasSubstr;

std::string reply_of(std::string_view status, std::string_view body, std::string_view fields = "") {
  return fmt::format("HTTP/1.1 {}\r\nContent-Type: application/json\r\n{}Content-Length: {}\r\n\r\n{}",
                     status, fields, body.size(), body);
}

// A CRM with one user, ann, who has one licence.
class Crm {
 public:
  std::string log_in = R"({"Code":0,"UserType":"General"})";
  std::atomic<int> status{200};           // of what is read with a session
  std::atomic<bool> silent{false};        // reads, and never answers
  std::atomic<int> users{1}, log_ins{0};  // rows of SysAdminUnit

  std::vector<std::string> heads() {
    const std::lock_guard lock(mutex_);
    return heads_;
  }

 private:
  void serve(test::Peer& peer) {
    for (;;) {
      const test::Message asked = peer.read_message();
      if (!asked.complete) return;
      {
        const std::lock_guard lock(mutex_);
        heads_.push_back(asked.head);
      }
      if (silent) {
        peer.at_end();
        return;
      }
      if (asked.start_line.starts_with("POST")) {
        ++log_ins;
        peer.send(
            reply_of("200 OK", log_in,
                     "Set-Cookie: .ASPXAUTH=abc; path=/; HttpOnly\r\nSet-Cookie: BPMCSRF=token; path=/\r\n"));
      } else if (asked.start_line.find("SysAdminUnit") != std::string::npos) {
        std::string rows;
        for (int i = 0; i < users; ++i)
          rows += fmt::format(R"({}{{"Id":"{}","Name":"ann{}","Active":true}})", i == 0 ? "" : ",", i, i);
        peer.send(reply_of(fmt::format("{} Such", status.load()), R"({"value":[)" + rows + "]}"));
      } else {
        peer.send(reply_of(
            "200 OK", R"({"value":[{"SysUserId":"0","Active":true,"SysLicPackage":{"Name":"portal"}}]})"));
      }
    }
  }
  std::mutex mutex_;
  std::vector<std::string> heads_;  // guarded by mutex_

 public:
  test::Upstream upstream{[this](test::Peer& peer) { serve(peer); }};  // its threads end before the rest does
};

class DirectorySyncTest : public testing::Test {
 protected:
  DirectorySource source() const {
    DirectorySource source;
    source.url = crm_.upstream.url() + "/0";
    source.user = "robot";
    source.password = "secret";
    source.interval = Milliseconds(3'600'000);
    return source;
  }
  std::unique_ptr<DirectorySync> started(const DirectorySource& source) {
    auto sync = std::make_unique<DirectorySync>(
        source,
        [this](const DirectorySync::Users& users) {
          const std::lock_guard lock(mutex_);
          if (refusals_ > 0) {
            --refusals_;
            return false;
          }
          taken_.push_back(users);
          return true;
        },
        [this](bool, const std::string& line) {
          const std::lock_guard lock(mutex_);
          lines_.push_back(line);
        });
    sync->start(std::chrono::seconds(10));
    return sync;
  }
  std::expected<void, SyncFailure> now(DirectorySync& sync) {
    std::promise<std::expected<void, SyncFailure>> answer;
    sync.sync_now([&](std::expected<void, SyncFailure> outcome) { answer.set_value(std::move(outcome)); });
    return answer.get_future().get();
  }
  std::size_t taken() {
    const std::lock_guard lock(mutex_);
    return taken_.size();
  }

  Crm crm_;
  std::mutex mutex_;
  int refusals_ = 0;                         // guarded by mutex_
  std::vector<DirectorySync::Users> taken_;  // guarded by mutex_
  std::vector<std::string> lines_;           // guarded by mutex_
};

TEST_F(DirectorySyncTest, LogsInOnceAndSendsCookiesAndTheirToken) {
  auto sync = started(source());
  ASSERT_EQ(taken(), 1U);
  EXPECT_EQ(taken_[0]->at("ann0").licenses.size(), 1U);
  EXPECT_TRUE(now(*sync));
  EXPECT_EQ(crm_.log_ins, 1);
  const auto heads = crm_.heads();
  ASSERT_EQ(heads.size(), 5U);
  EXPECT_THAT(heads[0], HasSubstr("POST /ServiceModel/AuthService.svc/Login HTTP/1.1"));
  EXPECT_THAT(heads[0], HasSubstr("ForceUseSession: true"));
  EXPECT_THAT(heads[1], HasSubstr("GET /0/odata/SysAdminUnit?"));
  EXPECT_THAT(heads[1], HasSubstr("BPMCSRF: token"));
  EXPECT_THAT(heads[1], HasSubstr(".ASPXAUTH=abc"));
  EXPECT_EQ(sync->status().successes, 2U);
  EXPECT_EQ(lines_.size(), 1U) << "nothing has changed since";
  crm_.users = 2;
  EXPECT_TRUE(now(*sync));
  EXPECT_EQ(lines_.size(), 2U);
}

TEST_F(DirectorySyncTest, UsersThatAreNotWantedNowAreOfferedAgain) {
  refusals_ = 2;
  auto sync = started(source());
  EXPECT_EQ(taken(), 1U);
  EXPECT_EQ(sync->status().successes, 1U);
}

TEST_F(DirectorySyncTest, StopsWhileTheyAreOfferedAndAnswersWhoWaits) {
  refusals_ = 1'000'000;
  DirectorySource quick = source();
  auto sync = std::make_unique<DirectorySync>(
      quick, [](const DirectorySync::Users&) { return false; }, [](bool, const std::string&) {});
  sync->start(Milliseconds(0));
  auto answer = std::make_shared<std::promise<bool>>();
  sync->sync_now([answer](auto outcome) { answer->set_value(outcome.has_value()); });
  sync->stop();
  EXPECT_FALSE(answer->get_future().get());
  sync->sync_now([&](auto outcome) { EXPECT_FALSE(outcome); });
  sync->stop();
}

TEST_F(DirectorySyncTest, StopBreaksOffACrmThatIsSilent) {
  crm_.silent = true;
  auto sync = std::make_unique<DirectorySync>(
      source(), [](const DirectorySync::Users&) { return true; }, [](bool, const std::string&) {});
  sync->start(Milliseconds(50));
  const auto begun = std::chrono::steady_clock::now();
  sync->stop();
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(5)) << "its time-out is 10 s";
}

TEST_F(DirectorySyncTest, FailuresAreToldOnceAndLeaveWhatWasTaken) {
  auto sync = started(source());
  crm_.status = 500;
  for (int i = 0; i < 3; ++i) {
    const auto outcome = now(*sync);
    ASSERT_FALSE(outcome);
    EXPECT_EQ(outcome.error().kind, Kind::status);
  }
  EXPECT_EQ(taken(), 1U);
  EXPECT_EQ(sync->status().failures[static_cast<std::size_t>(Kind::status)], 3U);
  EXPECT_EQ(lines_.size(), 2U);
  crm_.status = 200;
  EXPECT_TRUE(now(*sync));
  EXPECT_EQ(sync->status().failure, "");
  EXPECT_EQ(lines_.size(), 3U);
}

TEST_F(DirectorySyncTest, OnlyCodeZeroIsALogIn) {
  crm_.log_in = R"({"Code":1,"Message":"Invalid username or password"})";
  auto sync = started(source());
  EXPECT_EQ(taken(), 0U);
  EXPECT_EQ(sync->status().failures[static_cast<std::size_t>(Kind::log_in)], 1U);
  EXPECT_THAT(sync->status().failure, HasSubstr("does not let the user \"robot\" in"));
  EXPECT_EQ(sync->status().failure.find("secret"), std::string::npos);
}

TEST_F(DirectorySyncTest, WithoutASessionThatLastsItGivesUp) {
  crm_.status = 401;
  auto sync = started(source());
  EXPECT_EQ(crm_.log_ins, 2) << "once more, and no more often";
  EXPECT_EQ(sync->status().failures[static_cast<std::size_t>(Kind::log_in)], 1U);
}

TEST_F(DirectorySyncTest, ATrialReadsThePagesAndKeepsNothing) {
  const auto seen = try_directory(source());
  ASSERT_TRUE(seen) << seen.error().text;
  EXPECT_EQ(*seen, "1 rows of SysAdminUnit, 1 rows of SysLicUser");
  DirectorySource nobody = source();
  nobody.url = fmt::format("http://127.0.0.1:{}", test::unused_port());
  const auto refused = try_directory(nobody);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, Kind::unreachable);
}

}  // namespace
}  // namespace tollgate::net
