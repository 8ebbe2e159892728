// Seats as the gate sees them: who needs one, what is said, and what it costs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proxy/flow/gate.h"
#include "tests/proxy/flow/support/portal.h"

namespace tollgate::flow {
namespace {

using seats::Outcome;
using test::Portal;
using test::token;
using test::with_token;
using testing::HasSubstr;
using testing::Not;
using Status = Outcome::Status;

const std::string kSelfService = "Creatio self-service portal cloud",
                  kCustomer = "Creatio customer portal cloud";

config::Settings with_seats(std::uint64_t at_once = 0) {
  config::Settings settings = test::settings();
  settings.licensing.main_product_users = 7;
  settings.licensing.concurrent_seats.capacity = at_once;
  return settings;
}

// Answers each pool as told, and keeps which were asked for.
struct Seats {
  explicit Seats(Portal& portal) {
    portal.seats = [this](const seats::Pool& pool, const identity::Principal&) {
      asked.push_back(pool.id);
      return answers.contains(pool.id) ? answers[pool.id] : Outcome{.status = Status::held};
    };
  }
  std::vector<std::string> asked;
  std::map<std::string, Outcome> answers;
};

test::Outcome call(Portal& portal, std::vector<std::string> licenses,
                   std::string_view target = "/0/odata/Case", const std::string& type = "portal") {
  return portal.send(with_token("GET", target, token({.type = type, .licenses = std::move(licenses)})));
}

TEST(GateSeats, CapacityIsTheLeastOfWhatTheLicenceSheetSays) {
  auto capacity = [](std::uint32_t users) {
    config::Settings settings = test::settings();
    settings.licensing.main_product_users = users;
    return Portal(settings).current().seat_pools.at(0).pool;
  };
  EXPECT_EQ(capacity(7).id, "self_service");
  EXPECT_EQ(capacity(7).kind, seats::Kind::named);
  EXPECT_EQ(capacity(7).capacity, 700U);
  EXPECT_EQ(capacity(100).capacity, 10'000U);
  EXPECT_EQ(capacity(101).capacity, 10'000U);
  EXPECT_EQ(capacity(0).capacity, 10'000U) << "not stated";
}

TEST(GateSeats, UserOfTheCappedProductAloneNeedsASeatForLicensedCalls) {
  Portal portal(with_seats());
  Seats seats(portal);
  EXPECT_EQ(call(portal, {kSelfService}).next, Next::forward);
  EXPECT_THAT(seats.asked, testing::ElementsAre("self_service"));
  seats.asked.clear();
  call(portal, {kCustomer});
  call(portal, {kSelfService}, "/0/odata/City");
  call(portal, {kSelfService}, "/0/Nui/ViewModule.aspx");
  call(portal, {kSelfService}, "/0/odata/Case", "staff");
  call(portal, {kSelfService}, "/0/odata/Lead");
  EXPECT_THAT(seats.asked, testing::IsEmpty());
}

TEST(GateSeats, WhoAlsoHoldsAProductWithoutACapNeedsNoneAndUsesThatOne) {
  Portal portal(with_seats());
  Seats seats(portal);
  auto out = call(portal, {kSelfService, kCustomer});
  EXPECT_EQ(out.next, Next::forward);
  EXPECT_THAT(seats.asked, testing::IsEmpty());
  ASSERT_EQ(out.call.decision.units.size(), 1U);
  EXPECT_EQ(out.call.decision.units[0].product, "customer");
}

TEST(GateSeats, SeatsAtOnceBindPortalUsersOfEveryProductAndNoStaff) {
  Portal portal(with_seats(40));
  Seats seats(portal);
  call(portal, {kCustomer});
  call(portal, {kSelfService});
  EXPECT_THAT(seats.asked, testing::ElementsAre("concurrent", "self_service", "concurrent"));
  seats.asked.clear();
  call(portal, {kCustomer}, "/0/odata/Case", "staff");
  EXPECT_THAT(seats.asked, testing::IsEmpty());
}

TEST(GateSeats, SeatThatWasTakenIsToldOnceInAField) {
  Portal portal(with_seats(40));
  Seats seats(portal);
  seats.answers["self_service"] = {.status = Status::held, .taken = true};
  auto out = call(portal, {kSelfService});
  EXPECT_THAT(out.call.response_fields, HasSubstr("License-Seat: self_service;taken\r\n"));
  EXPECT_THAT(out.call.response_fields, Not(HasSubstr("concurrent")));
  EXPECT_THAT(out.call.response_fields, HasSubstr("RateLimit: "));
  seats.answers.clear();
  EXPECT_THAT(call(portal, {kSelfService}).call.response_fields, Not(HasSubstr("License-Seat")));
  // Told too when the quota refuses the call: the seat is taken all the same.
  call(portal, {kSelfService});
  seats.answers["concurrent"] = {.status = Status::held, .taken = true};
  out = call(portal, {kSelfService});
  EXPECT_EQ(out.call.reply.status, 429);
  EXPECT_THAT(out.call.reply.fields, HasSubstr("License-Seat: concurrent;taken\r\n"));
}

TEST(GateSeats, WithoutANamedSeatTheCallIsForbiddenAndCostsNothing) {
  Portal portal(with_seats());
  Seats seats(portal);
  seats.answers["self_service"] = {.status = Status::full};
  auto out = call(portal, {kSelfService});
  ASSERT_EQ(out.next, Next::reply);
  EXPECT_EQ(out.call.reply.status, 403);
  EXPECT_EQ(out.call.reason, Reason::seat_cap_reached);
  EXPECT_THAT(out.call.reply.body, HasSubstr("All 700 seats of the Self-service Portal are taken"));
  EXPECT_THAT(out.call.reply.body, HasSubstr("\"pool\":\"self_service\""));
  EXPECT_THAT(out.call.reply.fields, Not(HasSubstr("Retry-After")));
  EXPECT_EQ(portal.ledger.account_count(), 0U);
}

TEST(GateSeats, FullPoolOfConcurrentSeatsIs429WithTheEarliestExpiry) {
  Portal portal(with_seats(40));
  Seats seats(portal);
  seats.answers["concurrent"] = {.status = Status::full, .retry_after = Milliseconds(61'200)};
  auto out = call(portal, {kCustomer});
  ASSERT_EQ(out.next, Next::reply);
  EXPECT_EQ(out.call.reply.status, 429);
  EXPECT_EQ(out.call.reason, Reason::concurrent_licenses_exhausted);
  EXPECT_THAT(out.call.reply.fields, HasSubstr("Retry-After: 62\r\n"));
  EXPECT_THAT(out.call.reply.body, HasSubstr("40 portal users are active"));
  EXPECT_THAT(out.call.reply.body, HasSubstr("\"retry_after\":62"));
  EXPECT_EQ(portal.ledger.account_count(), 0U);
}

TEST(GateSeats, StoreThatGivesNoAnswerRefusesUnlessToldToAllow) {
  config::Settings settings = with_seats(40);
  Portal portal(settings);
  Seats seats(portal);
  seats.answers["concurrent"] = {.status = Status::unavailable, .retry_after = Milliseconds(12'000)};
  auto out = call(portal, {kCustomer});
  EXPECT_EQ(out.call.reply.status, 503);
  EXPECT_EQ(out.call.reason, Reason::store_unavailable);
  EXPECT_THAT(out.call.reply.fields, HasSubstr("Retry-After: 12\r\n"));
  settings.store.on_outage = config::OnOutage::allow;
  portal.reload(settings);
  out = call(portal, {kCustomer});
  EXPECT_EQ(out.next, Next::forward);
  EXPECT_TRUE(out.call.degraded);
}

TEST(GateSeats, UsageTellsTheCallersSeats) {
  Portal portal(with_seats(40));
  seats::Page named{.now = Milliseconds(5'000), .used = 3, .own = Milliseconds(1'000)};
  seats::Page at_once{.now = Milliseconds(5'000), .used = 3, .own = Milliseconds(65'000)};
  portal.looks = {named, at_once};
  auto out = portal.send(with_token("GET", "/.tollgate/usage", token({.licenses = {kSelfService}})));
  EXPECT_THAT(out.call.reply.body,
              HasSubstr(R"("seats":[{"pool":"self_service","kind":"named","held":true},)"
                        R"({"pool":"concurrent","kind":"concurrent","held":true,"seconds_left":60}])"));
  at_once.own.reset();
  portal.looks = {fail(Origin::store, "away", true), at_once};
  out = portal.send(with_token("GET", "/.tollgate/usage", token({.licenses = {kSelfService}})));
  EXPECT_THAT(out.call.reply.body, HasSubstr(R"("seats":[{"pool":"self_service","kind":"named"},)"
                                             R"({"pool":"concurrent","kind":"concurrent","held":false}])"));
}

}  // namespace
}  // namespace tollgate::flow
