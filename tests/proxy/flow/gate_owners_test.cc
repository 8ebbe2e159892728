// Sections of one's own organization only (the partner program of Creatio) at the gate: when the CRM is asked whose a record
// is, and what comes of its answer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/proxy/flow/support/portal.h"

namespace tollgate::flow {
namespace {

using test::Portal;
using test::with_token;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr const char* kAcme = "25d7c1ab-1de0-4501-b402-02e0e5a72d6e";
constexpr const char* kBest = "35d7c1ab-1de0-4501-b402-02e0e5a72d6e";
constexpr const char* kOurs = "405947d0-2ffb-4ded-8675-0475f19f5a81";
constexpr const char* kTheirs = "505947d0-2ffb-4ded-8675-0475f19f5a81";

config::Settings settings() {
  config::Settings out = test::settings();
  out.licensing.main_products = {"crm_bundle"};
  out.licensing.creatio.lookup.url = "https://crm.example/0";
  return out;
}
std::string partner(const std::string& account = kAcme, const std::string& type = "portal") {
  return test::token({.type = type, .licenses = {"partner portal cloud"}, .account = account});
}
std::string address(const std::string& id) {
  return "/0/odata/Partnership(" + id + ")";
}

struct OwnOrganization : ::testing::Test {
  OwnOrganization() {
    portal.owners = [](const std::string& record) -> std::optional<std::string> {
      if (record.ends_with(kOurs)) return kAcme;
      if (record.ends_with(kTheirs)) return kBest;
      return std::nullopt;
    };
  }
  test::Outcome get(const std::string& target, const std::string& token = partner()) {
    return portal.send(with_token("GET", target, token));
  }
  Portal portal{settings()};
};

TEST_F(OwnOrganization, TheCrmIsAskedOnceWhoseARecordIs) {
  EXPECT_EQ(get(address(kOurs)).next, Next::forward);
  EXPECT_EQ(get(address(kOurs)).next, Next::forward);
  EXPECT_EQ(get(address(kTheirs)).call.reply.status, 403);
  const auto again = get(address(kTheirs) + "/Name");
  EXPECT_EQ(again.call.reason, Reason::operation_not_licensed);
  EXPECT_THAT(again.call.reply.body, HasSubstr("this is another's"));
  EXPECT_THAT(portal.asked,
              ElementsAre(std::string("Partnership/") + kOurs, std::string("Partnership/") + kTheirs));
  EXPECT_TRUE(again.call.charges.empty()) << "a refused call costs nothing";
}

TEST_F(OwnOrganization, WhatIsRememberedIsAskedForAgainWhenItIsOld) {
  (void)get(address(kOurs));
  portal.now += settings().licensing.creatio.record_age + std::chrono::seconds(1);
  portal.owners = [](const std::string&) { return std::optional<std::string>(kBest); };
  EXPECT_EQ(get(address(kOurs)).call.reply.status, 403) << "it changed hands";
  EXPECT_THAT(portal.asked, SizeIs(2));
}

TEST_F(OwnOrganization, WithoutAnAnswerTheCallIsRefused) {
  portal.owners = [](const std::string&) { return std::optional<std::string>(); };
  const auto out = get(address(kOurs));
  EXPECT_EQ(out.call.reason, Reason::operation_not_licensed);
  EXPECT_THAT(out.call.reply.body, HasSubstr("it could not be found out whose this one is"));
  portal.owners = [](const std::string&) { return std::optional<std::string>(""); };
  EXPECT_THAT(get(address(kOurs)).call.reply.body, HasSubstr("this is another's")) << "a record of nobody";
}

TEST_F(OwnOrganization, NobodyIsAskedWhereTheAnswerWouldChangeNothing) {
  EXPECT_EQ(get("/0/odata/Partnership").next, Next::forward) << "a list";
  EXPECT_EQ(portal.send(with_token("PATCH", address(kOurs), partner(), "{}")).call.reply.status, 403)
      << "read only";
  EXPECT_EQ(get(address(kOurs), partner("")).call.reply.status, 403) << "whose account is not known";
  EXPECT_EQ(get("/0/odata/Partnership('x')").call.reply.status, 403) << "a record that cannot be told";
  EXPECT_EQ(get(address(kOurs), partner("", "staff")).next, Next::forward) << "staff";
  EXPECT_EQ(get(address(kOurs), test::token({.account = kAcme})).call.reply.status, 403) << "another portal";
  EXPECT_EQ(get(std::string("/0/odata/Case(") + kOurs + ")").next, Next::forward) << "another section";
  EXPECT_THAT(portal.asked, IsEmpty());
}

TEST_F(OwnOrganization, AListOfAnotherOrganizationsRecordsIsRefused) {
  const std::string list = "/0/odata/Partnership?$filter=PartnerId%20eq%20";
  EXPECT_EQ(get(list + kAcme).next, Next::forward);
  EXPECT_EQ(get(list + kBest).call.reply.status, 403);
  EXPECT_THAT(portal.asked, IsEmpty());
}

TEST_F(OwnOrganization, AllRecordsOfABatchAreAskedForAtOnceUpToABound) {
  const auto batch = [](std::size_t parts) {
    std::string body = "{\"requests\":[";
    for (std::size_t i = 0; i < parts; ++i)
      body += fmt::format(
          "{}{{\"id\":\"{}\",\"method\":\"GET\",\"url\":\"Partnership(405947d0-2ffb-4ded-8675-{:012x})\"}}",
          i > 0 ? "," : "", i, i);
    return with_token("POST", "/0/odata/$batch", partner(), body + "]}",
                      {{"Content-Type", "application/json"}});
  };
  portal.owners = [](const std::string&) { return std::optional<std::string>(kAcme); };
  EXPECT_EQ(portal.send(batch(3)).next, Next::forward);
  EXPECT_THAT(portal.asked, SizeIs(3));
  EXPECT_EQ(portal.send(batch(kOwnersAskedMax + 4)).call.reply.status, 403);
  EXPECT_THAT(portal.asked, SizeIs(3 + kOwnersAskedMax)) << "three were known";
}

TEST_F(OwnOrganization, WithoutALookUpTheCrmIsTrusted) {
  config::Settings trusting = settings();
  trusting.licensing.creatio.lookup.url.clear();
  Portal plain{trusting};
  EXPECT_EQ(plain.current().owners, nullptr);
  const auto out = plain.send(with_token("GET", address(kTheirs), partner("")));
  EXPECT_EQ(out.next, Next::forward);
  EXPECT_TRUE(out.call.owners.empty());
}

TEST_F(OwnOrganization, CallsThatNameNoSuchRecordCarryNothingOfIt) {
  const auto out = get(std::string("/0/odata/Case(") + kOurs + ")");
  EXPECT_EQ(out.call.owners.capacity(), 0U) << "no memory is taken for it";
  EXPECT_TRUE(out.call.classification.uses.front().record.empty());
}

}  // namespace
}  // namespace tollgate::flow
