// Which account a record of Creatio belongs to, asked on a real socket: what is asked, and what is learned of the answers.
#include "proxy/net/creatio_owners.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proxy/net/event_loop.h"
#include "tests/proxy/net/support/sockets.h"

namespace tollgate::net {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

constexpr const char* kRecord = "Partnership/405947d0-2ffb-4ded-8675-0475f19f5a81";
constexpr const char* kAcme = "25d7c1ab-1de0-4501-b402-02e0e5a72d6e";
const std::string kLogIn = "POST /ServiceModel/AuthService.svc/Login";
const std::string kRead =
    "GET /0/odata/Partnership(405947d0-2ffb-4ded-8675-0475f19f5a81)?$select=Id,PartnerId";

std::string reply(int status, const std::string& body, const std::string& fields = "") {
  return fmt::format("HTTP/1.1 {} X\r\nContent-Type: application/json\r\n{}Content-Length: {}\r\n\r\n{}",
                     status, fields, body.size(), body);
}
std::string let_in(int code = 0) {
  return reply(200, fmt::format(R"({{"Code":{}}})", code),
               "Set-Cookie: .ASPXAUTH=abc; path=/; HttpOnly\r\nSet-Cookie: BPMCSRF=token; path=/\r\n");
}
std::string owned_by(const std::string& account) {
  return reply(200,
               fmt::format(R"({{"Id":"405947d0-2ffb-4ded-8675-0475f19f5a81","PartnerId":"{}"}})", account));
}
bool is_log_in(const std::string& request) {
  return request.starts_with("POST ");
}

struct Asking {
  explicit Asking(test::AnsweringServer& crm, Milliseconds timeout = 5s) : timeout_(timeout) {
    access.url = crm.url() + "/0";
    access.user = "robot";
    access.password = "s\"ecret";
    access.timeout = timeout;
  }
  // "" or why nothing was learned.
  std::string ask(const std::string& record = kRecord) {
    if (source == nullptr) source = std::make_unique<CreatioOwners>(access, columns, owners);
    const auto answered = source->look_up("crm", record, EventLoop::now() + timeout_);
    return answered ? "" : answered.error();
  }
  std::optional<std::string> owner(const std::string& record = kRecord) const {
    return owners->find("crm", record, EventLoop::calendar_now(), 1h);
  }

  CreatioAccess access;
  CreatioOwners::Columns columns{{"Partnership", "PartnerId"}};
  std::shared_ptr<licence::OwnerTable> owners = std::make_shared<licence::OwnerTable>(1'000);
  std::unique_ptr<CreatioOwners> source;

 private:
  Milliseconds timeout_;
};

TEST(CreatioOwners, LogsInOnceAndLearnsTheAccount) {
  test::AnsweringServer crm([](const std::string& request) {
    return is_log_in(request) ? let_in() : owned_by("25D7C1AB-1DE0-4501-B402-02E0E5A72D6E");
  });
  Asking asking(crm);
  EXPECT_EQ(asking.ask(), "");
  EXPECT_EQ(asking.owner(), kAcme);
  EXPECT_EQ(asking.ask(), "");
  EXPECT_THAT(crm.asked(), ElementsAre(kLogIn, kRead, kRead));
  EXPECT_THAT(crm.last(), HasSubstr("BPMCSRF: token\r\n"));
  EXPECT_THAT(crm.last(), HasSubstr(".ASPXAUTH=abc"));
}

TEST(CreatioOwners, AnAuthorizationStandsInPlaceOfALogIn) {
  test::AnsweringServer crm([](const std::string&) { return owned_by(kAcme); });
  Asking asking(crm);
  asking.access.authorization = "Bearer robot";
  EXPECT_EQ(asking.ask(), "");
  EXPECT_THAT(crm.asked(), ElementsAre(kRead));
  EXPECT_THAT(crm.last(), HasSubstr("Authorization: Bearer robot\r\n"));
}

TEST(CreatioOwners, ASessionThatHasEndedIsOpenedAnewOnce) {
  int reads = 0;
  test::AnsweringServer crm([&](const std::string& request) {
    return is_log_in(request) ? let_in() : ++reads == 1 ? reply(401, "") : owned_by(kAcme);
  });
  Asking asking(crm);
  EXPECT_EQ(asking.ask(), "");
  EXPECT_THAT(crm.asked(), ElementsAre(kLogIn, kRead, kLogIn, kRead));
  EXPECT_EQ(asking.owner(), kAcme);
}

TEST(CreatioOwners, ARecordThatIsNotThereOrHasNoAccountIsNobodys) {
  int status = 404;
  test::AnsweringServer crm([&](const std::string& request) {
    return is_log_in(request) ? let_in()
           : status == 404    ? reply(404, R"({"error":{"message":"not found"}})")
                              : owned_by("00000000-0000-0000-0000-000000000000");
  });
  Asking asking(crm);
  EXPECT_EQ(asking.ask(), "");
  EXPECT_EQ(asking.owner(), "");
  status = 200;
  EXPECT_EQ(asking.ask("Partnership/505947d0-2ffb-4ded-8675-0475f19f5a81"), "");
  EXPECT_EQ(asking.owner("Partnership/505947d0-2ffb-4ded-8675-0475f19f5a81"), "");
}

struct Broken {
  const char* what;
  std::string log_in, read, complaint;
};
class CreatioOwnersBroken : public testing::TestWithParam<Broken> {};

TEST_P(CreatioOwnersBroken, NothingIsLearnedAndTheReasonIsSaid) {
  const Broken& broken = GetParam();
  test::AnsweringServer crm(
      [&](const std::string& request) { return is_log_in(request) ? broken.log_in : broken.read; });
  Asking asking(crm);
  const std::string why = asking.ask();
  EXPECT_THAT(why, HasSubstr(broken.complaint));
  EXPECT_THAT(why, Not(HasSubstr("ecret")));
  EXPECT_EQ(asking.owner(), std::nullopt);
}

INSTANTIATE_TEST_SUITE_P(
    All, CreatioOwnersBroken,
    testing::Values(
        Broken{"log_in", let_in(1), "", "does not let the user \"robot\" in"},
        Broken{"log_in_status", reply(500, ""), "", "answered 500"},
        Broken{"forbidden", let_in(), reply(403, ""), "answered 403"},
        Broken{"refused", let_in(), reply(401, ""), "the account is not let in"},
        Broken{"failure", let_in(), reply(500, ""), "answered 500"},
        Broken{"page", let_in(), reply(200, "<html>"), "something else than a record"},
        Broken{"no_column", let_in(), reply(200, R"({"Id":"1"})"), "something else than a record"},
        Broken{"no_id", let_in(), owned_by("Acme"), "something else than a record"},
        Broken{"large", let_in(), reply(200, std::string(OwnerSource::kReplyMax + 1, ' ')), "larger than"}),
    [](const auto& one) { return one.param.what; });

TEST(CreatioOwners, ACrmThatIsSilentCostsNoMoreThanTheTime) {
  test::AnsweringServer crm([](const std::string& request) { return is_log_in(request) ? let_in() : ""; });
  Asking asking(crm, 200ms);
  const auto began = EventLoop::now();
  EXPECT_NE(asking.ask(), "");
  EXPECT_GE(EventLoop::now() - began, 190ms);
}

TEST(CreatioOwners, AnExaminationReadsOneRowOfEach) {
  test::AnsweringServer crm([](const std::string& request) {
    return is_log_in(request) ? let_in() : reply(200, R"({"value":[]})");
  });
  Asking asking(crm);
  asking.columns["VwPartnership"] = "PartnerId";
  CreatioOwners source(asking.access, asking.columns, nullptr);
  EXPECT_EQ(source.examine(EventLoop::now() + 5s),
            "the account may read Partnership.PartnerId, VwPartnership.PartnerId");
  EXPECT_THAT(crm.asked(), ElementsAre(kLogIn, "GET /0/odata/Partnership?$select=Id,PartnerId&$top=1",
                                       "GET /0/odata/VwPartnership?$select=Id,PartnerId&$top=1"));
  test::AnsweringServer closed([](const std::string&) { return let_in(1); });
  Asking refused(closed);
  CreatioOwners locked_out(refused.access, refused.columns, nullptr);
  EXPECT_FALSE(locked_out.examine(EventLoop::now() + 5s));
}

}  // namespace
}  // namespace tollgate::net
