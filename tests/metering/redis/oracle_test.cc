// A charge on real Redis against the plainest model there is: the list of every unit ever admitted, with its
// moment. Several virtual days of random traffic with give-backs and changing overrides; the seed is printed
// with a failure.
#include <gtest/gtest.h>

#include <deque>

#include "metering/base/random.h"
#include "metering/quota/record.h"
#include "tests/metering/redis/support/redis_fixture.h"

namespace tollgate::redis {
namespace {

using quota::AccountCharge;
using quota::ChargeOutcome;
using testing::account;
using namespace std::chrono_literals;

constexpr Milliseconds kStart{1'763'820'000'000};

struct Admission {
  Milliseconds at;
  std::uint64_t units;
  quota::Receipt receipt;
};

struct Model {
  AccountCharge account;
  std::uint64_t limit;  // override or rule
  std::deque<Admission> admissions;

  // Units admitted in (now - window, now]: what the promise is about.
  std::uint64_t in_window(Milliseconds now) const {
    std::uint64_t sum = 0;
    for (const Admission& one : admissions)
      if (one.at > now - account.window) sum += one.units;
    return sum;
  }
  // Units whose bucket is still live: what the answer may be late by, and not more.
  std::uint64_t in_live_buckets(Milliseconds now) const {
    quota::WindowShape shape{account.window, account.bucket};
    std::uint64_t sum = 0;
    for (const Admission& one : admissions)
      if (shape.live(shape.bucket_of(one.at), now)) sum += one.units;
    return sum;
  }
};

// Office hours, bursts, nights; about 700 calls a day.
Milliseconds next_call(Random& random, Milliseconds now) {
  if (random.one_in(120)) return now + Milliseconds(random.below(8 * 3'600'000));
  if (random.one_in(10)) return now + Milliseconds(random.below(1'200'000));
  return now + Milliseconds(random.below(90'000));
}

struct Totals {
  std::uint64_t admitted = 0, exceeded = 0, given_back = 0, at_limit = 0;
};

// precise: few enough buckets that none is ever merged, so that the answer is known exactly.
Totals run_days(std::uint64_t seed, Milliseconds bucket, bool precise) {
  Random random(seed);
  testing::Server server;
  testing::Client client(server, testing::use_virtual_time);
  Model user{account("ann", "daily", 300, 1, 24h, bucket), 300, {}};
  Model pool{account("pool", "daily", 420, 1, 24h, bucket), 420, {}};
  Totals totals;
  Milliseconds now = kStart;
  while (now < kStart + 96h) {
    now = next_call(random, now);
    testing::set_clock(server, now);
    if (random.one_in(150)) {
      std::uint64_t limit = 200 + random.below(250);
      bool remove = random.one_in(2);
      client.set_override(user.account.key, remove ? std::nullopt : std::optional(limit));
      user.limit = remove ? user.account.limit : limit;
    }
    if (!user.admissions.empty() && random.one_in(25)) {
      std::size_t place =
          user.admissions.size() - 1 - random.below(std::min<std::size_t>(user.admissions.size(), 30));
      client.give_back(user.admissions[place].receipt);
      user.admissions.erase(user.admissions.begin() + static_cast<std::ptrdiff_t>(place));
      ++totals.given_back;
    }
    bool both = random.one_in(2);
    user.account.units = static_cast<std::uint32_t>(random.one_in(8) ? 1 + random.below(12) : 1);
    pool.account.units = user.account.units;
    std::vector<AccountCharge> charges{user.account};
    if (both) charges.push_back(pool.account);

    ChargeOutcome outcome = client.charge(charges);

    std::uint64_t units = user.account.units;
    bool room_user = user.in_live_buckets(now) + units <= user.limit;
    bool room_pool = !both || pool.in_live_buckets(now) + units <= pool.limit;
    bool admitted = outcome.status == ChargeOutcome::Status::admitted;
    EXPECT_NE(outcome.status, ChargeOutcome::Status::unavailable) << outcome.error;
    if (precise) {
      EXPECT_EQ(admitted, room_user && room_pool) << "seed " << seed << " at " << now.count();
      EXPECT_EQ(outcome.states[0].used, user.in_live_buckets(now) + (admitted ? units : 0))
          << "seed " << seed;
    }
    if (!admitted) {
      ++totals.exceeded;
      continue;
    }
    ++totals.admitted;
    // Receipts of the pool are left out: what is given back there is not part of this model.
    quota::Receipt receipt{{outcome.receipt.items[0]}};
    user.admissions.push_back({now, units, std::move(receipt)});
    if (both) pool.admissions.push_back({now, units, {}});
    EXPECT_LE(user.in_window(now), user.limit) << "seed " << seed << " at " << now.count();
    EXPECT_LE(pool.in_window(now), pool.limit) << "seed " << seed << " at " << now.count();
    if (user.in_window(now) == user.limit) ++totals.at_limit;
    if (::testing::Test::HasFailure()) break;
  }
  return totals;
}

TEST(Oracle, DecisionsAreExactlyThoseOfTheListOfTimestamps) {
  for (std::uint64_t seed : {11, 12}) {
    Totals totals = run_days(seed, 15min, true);
    EXPECT_GT(totals.admitted, 500U);
    EXPECT_GT(totals.exceeded, 50U);
    EXPECT_GT(totals.given_back, 10U);
  }
}

TEST(Oracle, NoSpanOf24HoursHoldsMoreThanTheLimitWhenBucketsAreMerged) {
  for (std::uint64_t seed : {21, 22}) {
    Totals totals = run_days(seed, 60s, false);
    EXPECT_GT(totals.admitted, 500U);
    EXPECT_GT(totals.exceeded, 50U);
    EXPECT_GT(totals.at_limit, 0U) << "the limit was never reached: the run proves nothing";
  }
}

}  // namespace
}  // namespace tollgate::redis
