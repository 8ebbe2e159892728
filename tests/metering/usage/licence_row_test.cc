#include "metering/usage/licence_row.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "metering/base/random.h"
#include "tests/metering/usage/support/csv.h"

namespace tollgate::usage {
namespace {

using licence::Price;
using testing::HasSubstr;

constexpr std::int64_t kNovember2025 = 489'432;  // 2025-11-01T00:00Z
constexpr std::int64_t kDecember2025 = kNovember2025 + 720;

Price price(Price::Per per = Price::Per::user, Price::Every every = Price::Every::year,
            std::uint64_t minor_units = 7'000) {
  return {.product = "customer",
          .minor_units = minor_units,
          .currency = "USD",
          .per = per,
          .every = every,
          .source = "sheet",
          .as_of = "2017"};
}
LicenceRow row(std::optional<Price> with = price()) {
  return {.tenant = "acme",
          .organization = "north",
          .product = "customer",
          .calls = 123,
          .users = 12,
          .price = std::move(with)};
}
std::string amount(const LicenceRow& of, std::int64_t first = kNovember2025,
                   std::int64_t end = kDecember2025) {
  return owed(of, first, end).minor_units;
}

TEST(Owed, IsTheShareOfTheYearThatThePeriodIs) {
  const Owed due = owed(row(), kNovember2025, kDecember2025);
  EXPECT_EQ(due.units, "12");
  EXPECT_EQ(due.minor_units, "6904");  // 12 x 7000 x 720 / 8760 = 6904.1
  EXPECT_EQ(due.rule, "12 user x 7000 x 720 h / 8760 h");
}

TEST(Owed, TwelveMonthsMakeTheYearAlsoWhenItIsALeapYear) {
  using namespace std::chrono;
  for (int year_number : {2027, 2028}) {
    std::uint64_t sum = 0;
    for (unsigned number = 1; number <= 12; ++number) {
      const year_month when = year(year_number) / month(number);
      const auto first = duration_cast<hours>(sys_days(when / 1).time_since_epoch()).count();
      const auto end = duration_cast<hours>(sys_days((when + months(1)) / 1).time_since_epoch()).count();
      sum += std::stoull(amount(row(price(Price::Per::user, Price::Every::year, 1'000'000)), first, end));
    }
    EXPECT_NEAR(static_cast<double>(sum), 12e6, 6) << year_number;
  }
}

TEST(Owed, OfAMonthIsWholeForAMonthAndAThirtiethForADayOfNovember) {
  EXPECT_EQ(amount(row(price(Price::Per::user, Price::Every::month, 500))), "6000");
  EXPECT_EQ(
      amount(row(price(Price::Per::user, Price::Every::month, 500)), kNovember2025 + 48, kNovember2025 + 72),
      "200");
}

TEST(Owed, HalfAMinorUnitIsRoundedUp) {
  auto of = row(price(Price::Per::user, Price::Every::month, 15));
  of.users = 1;
  EXPECT_EQ(amount(of, kNovember2025, kNovember2025 + 24), "1");  // 0.5
  of.price->minor_units = 14;
  EXPECT_EQ(amount(of, kNovember2025, kNovember2025 + 24), "0");  // 0.47
}

TEST(Owed, CallsArePaidOnceWhateverThePeriod) {
  const auto of = row(price(Price::Per::call, Price::Every::once, 3));
  EXPECT_EQ(amount(of), "369");
  EXPECT_EQ(amount(of, kNovember2025, kNovember2025 + 1), "369");
}

TEST(Owed, SeatsArePaidByTheMostThatWereHeld) {
  auto of = row(price(Price::Per::named_seat, Price::Every::month, 500));
  of.named_max = 7, of.named_end = 3;
  EXPECT_EQ(amount(of), "3500");
  of.price->per = Price::Per::concurrent_seat;
  of.concurrent_peak = 2;
  EXPECT_EQ(amount(of), "1000");
}

TEST(Owed, NothingIsSaidWithoutAPriceAndZeroIsAPrice) {
  EXPECT_EQ(amount(row(std::nullopt)), "");
  EXPECT_EQ(owed(row(std::nullopt), kNovember2025, kDecember2025).units, "");
  EXPECT_EQ(amount(row(price(Price::Per::user, Price::Every::year, 0))), "0");
  EXPECT_EQ(amount(row(price(Price::Per::named_seat))), "") << "there are no seats to count";
}

TEST(Owed, WhatIsIncludedIsTakenOffTheTotalOnly) {
  auto of = row(price(Price::Per::named_seat, Price::Every::month, 500));
  of.named_max = 1'203;
  of.price->included = 1'000;
  EXPECT_EQ(amount(of), "");
  of.total = true;
  const Owed due = owed(of, kNovember2025, kDecember2025);
  EXPECT_EQ(due.units, "203");
  EXPECT_EQ(due.minor_units, "101500");
  EXPECT_EQ(due.rule, "(1203 named_seat - 1000) x 500 x 720 h / 720 h");
  of.named_max = 999;
  EXPECT_EQ(amount(of), "0");
}

TEST(Owed, NoNumbersAreTooLarge) {
  auto of = row(price(Price::Per::call, Price::Every::once, 1'000'000'000'000));
  of.calls = UINT64_MAX;
  EXPECT_EQ(amount(of), "18446744073709551615000000000000");
}

TEST(LicenceRow, EveryColumnStandsWhereItsNameSays) {
  LicenceRow of = row();
  of.named_max = 5, of.named_end = 4;
  of.organization = "=north";
  std::string text = licence_csv_header();
  append_csv(text, of, kNovember2025, kDecember2025);
  const auto records = parse_csv(text);
  ASSERT_EQ(records.size(), 2U);
  const std::vector<std::string> expected{"organization",
                                          "2025-11-01T00:00:00Z",
                                          "2025-12-01T00:00:00Z",
                                          "acme",
                                          "'=north",
                                          "customer",
                                          "123",
                                          "12",
                                          "5",
                                          "4",
                                          "",
                                          "USD",
                                          "7000",
                                          "user",
                                          "year",
                                          "0",
                                          "12",
                                          "6904",
                                          "12 user x 7000 x 720 h / 8760 h",
                                          "sheet",
                                          "2017"};
  ASSERT_EQ(records[0].size(), licence_columns().size());
  EXPECT_EQ(records[1], expected);
  for (std::size_t i = 0; i < records[0].size(); ++i) EXPECT_EQ(records[0][i], licence_columns()[i].name);
}

TEST(LicenceRow, NdjsonHasNumbersAsNumbersAndNullWhereNothingIsKnown) {
  std::string text;
  append_ndjson(text, row(std::nullopt), kNovember2025, kDecember2025);
  EXPECT_EQ(text,
            "{\"scope\":\"organization\",\"from\":\"2025-11-01T00:00:00Z\",\"to\":\"2025-12-01T00:00:00Z\","
            "\"tenant\":\"acme\",\"organization\":\"north\",\"product\":\"customer\",\"calls\":123,\"users\":"
            "12,\"named_seats_max\":null,\"named_seats_end\":null,\"concurrent_peak\":null,\"currency\":\"\","
            "\"price_minor_units\":null,\"price_per\":\"\",\"price_every\":\"\",\"included\":null,\"units\":"
            "null,\"amount_minor_units\":null,\"rule\":\"\",\"price_source\":\"\",\"price_as_of\":\"\"}\n");
}

TEST(LicenceRow, TheManualHasEveryColumn) {
  std::ifstream in(TOLLGATE_SOURCE_DIR "/docs/billing.md");
  std::stringstream text;
  text << in.rdbuf();
  for (const Column& column : licence_columns())
    EXPECT_THAT(text.str(),
                HasSubstr("| `" + std::string(column.name) + "` | " + std::string(column.meaning)));
}

// ---- seats

struct Seats {
  SeatSweep sweep;
  void named(std::int64_t time, const std::string& user, const std::string& organization = "north",
             std::uint64_t used = 0) {
    sweep.add({.time_ms = time,
               .pool = "self_service",
               .named = true,
               .tenant = "acme",
               .user = user,
               .until_ms = SeatEntry::kNoEnd,
               .used = used},
              organization);
  }
  void released(std::int64_t time, const std::string& user, const std::string& organization = "north") {
    sweep.add({.time_ms = time,
               .pool = "self_service",
               .named = true,
               .tenant = "acme",
               .user = user,
               .until_ms = time},
              organization);
  }
  void at_once(std::int64_t time, const std::string& user, std::int64_t until, bool goes_on = false) {
    sweep.add({.time_ms = time,
               .pool = "concurrent",
               .tenant = "acme",
               .user = user,
               .until_ms = until,
               .goes_on = goes_on},
              "north");
  }
  SeatSweep::Counts total(std::string_view pool, std::int64_t first, std::int64_t end) {
    return sweep.count(first, end)[std::string(pool)].total;
  }
};

TEST(SeatSweep, NamedSeatsOfEarlierPeriodsAreStillHeld) {
  Seats seats;
  seats.named(10, "ann");
  seats.named(20, "bob", "south");
  seats.released(30, "ann");
  seats.named(1'500, "eve");
  EXPECT_EQ(seats.total("self_service", 0, 25).most, 2U);
  EXPECT_EQ(seats.total("self_service", 25, 1'000).most, 2U) << "ann held hers when it began";
  EXPECT_EQ(seats.total("self_service", 25, 1'000).end, 1U);
  EXPECT_EQ(seats.total("self_service", 1'000, 2'000).most, 2U);
  const auto pool = seats.sweep.count(1'000, 2'000)["self_service"];
  EXPECT_EQ(pool.organizations.at({"acme", "south"}).most, 1U);
  EXPECT_EQ(pool.organizations.at({"acme", "north"}).most, 1U);
  EXPECT_TRUE(pool.named);
}

TEST(SeatSweep, OneUserHasOneSeatHoweverOftenItIsSaid) {
  Seats seats;
  for (int i = 0; i < 5; ++i) seats.named(10 + i, "ann");
  EXPECT_EQ(seats.total("self_service", 0, 100).most, 1U);
}

TEST(SeatSweep, ASeatThatEndsWhenAnotherBeginsIsOneSeat) {
  Seats seats;
  seats.at_once(10, "ann", 50);
  seats.at_once(50, "bob", 90);
  EXPECT_EQ(seats.total("concurrent", 0, 100).most, 1U);
  EXPECT_EQ(seats.total("concurrent", 0, 100).end, 0U);
  EXPECT_EQ(seats.total("concurrent", 0, 90).end, 1U);
}

TEST(SeatSweep, AnEndIsMovedOnAndALogOutEndsIt) {
  Seats seats;
  seats.at_once(10, "ann", 50);
  seats.at_once(45, "ann", 80, true);
  seats.at_once(60, "bob", 100);
  EXPECT_EQ(seats.total("concurrent", 0, 200).most, 2U);
  Seats left;
  left.at_once(10, "ann", 50);
  left.at_once(20, "ann", 20);
  left.at_once(45, "ann", 80, true);  // of a worker that had not heard of the log-out
  left.at_once(60, "bob", 100);
  EXPECT_EQ(left.total("concurrent", 0, 200).most, 1U);
}

TEST(SeatSweep, WhoTakesASeatAndLeavesItWithinAMillisecondHasLeftIt) {
  Seats seats;
  for (int user = 0; user < 5; ++user) {
    seats.at_once(10 + user, std::to_string(user), 100);
    seats.at_once(10 + user, std::to_string(user), 10 + user);
  }
  EXPECT_LE(seats.total("concurrent", 0, 200).most, 1U);
  EXPECT_EQ(seats.total("concurrent", 0, 50).end, 0U);
}

TEST(SeatSweep, TheStoreKnowsOfMoreThanTheJournalsHere) {
  Seats seats;
  seats.named(10, "ann", "north", 41);
  const auto pool = seats.sweep.count(0, 100)["self_service"];
  EXPECT_EQ(pool.total.most, 41U);
  EXPECT_EQ(pool.organizations.at({"acme", "north"}).most, 1U);
}

TEST(SeatSweep, EqualsTheNaiveCountOfEveryMoment) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    SeatSweep sweep;
    struct Fact {
      std::int64_t time, until;
      std::string user;
    };
    std::vector<Fact> facts;
    const auto count = 1 + random.below(25);
    for (std::uint64_t i = 0; i < count; ++i) {
      const auto time = static_cast<std::int64_t>(random.below(60));
      const std::string user(1, static_cast<char>('a' + random.below(4)));
      const std::int64_t until =
          random.one_in(4) ? time : time + 1 + static_cast<std::int64_t>(random.below(30));
      facts.push_back({time, until, user});
      sweep.add({.time_ms = time, .pool = "p", .user = user, .until_ms = until}, "");
    }
    // Moment by moment: ends first, then what begins.
    std::map<std::string, std::int64_t> held;
    std::uint64_t most = 0, end = 0;
    for (std::int64_t now = 0; now < 70; ++now) {
      std::erase_if(held, [&](const auto& one) { return one.second <= now; });
      for (const Fact& fact : facts)
        if (fact.time == now && fact.until <= now) held.erase(fact.user);
      if (now == 20) most = held.size();
      for (const Fact& fact : facts)
        if (fact.time == now && fact.until > now && !std::ranges::any_of(facts, [&](const Fact& other) {
              return other.user == fact.user && other.time == now && other.until <= now;
            }))
          held[fact.user] = std::max(held[fact.user], fact.until);
      if (now >= 20 && now < 50) {
        most = std::max<std::uint64_t>(most, held.size());
        end = held.size();
      }
    }
    const auto counts = sweep.count(20, 50)["p"].total;
    EXPECT_EQ(counts.most, most);
    EXPECT_EQ(counts.end, end);
  }
}

}  // namespace
}  // namespace tollgate::usage
