#include "metering/quota/rate_limit_fields.h"

#include <gtest/gtest.h>

namespace tollgate::quota {
namespace {

using namespace std::chrono_literals;

Rule rule(std::string name, std::uint64_t limit, Milliseconds window) {
  Rule out;
  out.name = std::move(name);
  out.limit = limit;
  out.window = window;
  return out;
}
AccountCharge charge(std::uint32_t rule) {
  AccountCharge out;
  out.rule = rule;
  out.units = 1;
  return out;
}
AccountState state(std::uint64_t used, std::uint64_t limit, Milliseconds next_free = 0ms,
                   Milliseconds admitted = 0ms) {
  AccountState out;
  out.used = used;
  out.limit = limit;
  out.next_free_after = next_free;
  out.admitted_after = admitted;
  return out;
}
const std::vector<Rule> kRules{rule("daily", 1000, 86'400'000ms), rule("burst", 50, 1'000ms)};

TEST(RateLimitPolicy, ListsEveryRule) {
  EXPECT_EQ(rate_limit_policy(kRules), R"("daily";q=1000;w=86400, "burst";q=50;w=1)");
  EXPECT_EQ(rate_limit_policy({}), "");
}

TEST(RateLimitPolicy, WindowsAreWholeSecondsRoundedUp) {
  std::vector<Rule> rules{rule("r", 1, 1'500ms)};
  EXPECT_EQ(rate_limit_policy(rules), R"("r";q=1;w=2)");
}

TEST(RateLimitPolicy, NumbersStayStructuredIntegers) {
  std::vector<Rule> rules{rule("r", 5'000'000'000'000'000, 1'000ms)};
  EXPECT_EQ(rate_limit_policy(rules), R"("r";q=999999999999999;w=1)");
}

TEST(StructuredString, QuotesAreEscapedAndOtherBytesCannotBreakTheField) {
  EXPECT_EQ(structured_string(R"(a"b\c)"), R"("a\"b\\c")");
  EXPECT_EQ(structured_string("x\r\ny\xC3\xA4"), R"("x%0D%0Ay%C3%A4")");
}

TEST(RateLimit, NamesWhatIsLeftAndWhenMoreReturns) {
  EXPECT_EQ(rate_limit("daily", state(873, 1000, 4'210'001ms)), R"("daily";r=127;t=4211)");
  EXPECT_EQ(rate_limit("daily", state(0, 1000)), R"("daily";r=1000)");
  EXPECT_EQ(rate_limit("daily", state(1200, 1000, 1ms)), R"("daily";r=0;t=1)");
}

TEST(RateLimit, NamesThePolicyNearestToExhaustion) {
  std::vector<AccountCharge> charges{charge(0), charge(1), charge(Rules::kObservation)};
  std::vector<AccountState> states{state(873, 1000, 1ms), state(5, 50, 1ms), state(7, kUnlimited)};
  EXPECT_EQ(nearest_to_exhaustion(charges, states), 0U);
  states[1].used = 49;
  EXPECT_EQ(nearest_to_exhaustion(charges, states), 1U);
}

TEST(RateLimit, NamesTheViolatedPolicyThatOpensLastWhenRefused) {
  std::vector<AccountCharge> charges{charge(0), charge(1)};
  std::vector<AccountState> states{state(990, 1000, 5'000ms, 9'000ms), state(50, 50, 900ms, 900ms)};
  std::vector<std::uint32_t> both{0, 1}, burst{1};
  EXPECT_EQ(nearest_to_exhaustion(charges, states, both), 0U);
  EXPECT_EQ(nearest_to_exhaustion(charges, states, burst), 1U);
}

TEST(RateLimit, ObservationsAreNoPolicy) {
  std::vector<AccountCharge> charges{charge(Rules::kObservation)};
  std::vector<AccountState> states{state(7, kUnlimited)};
  EXPECT_EQ(nearest_to_exhaustion(charges, states), std::nullopt);
  EXPECT_EQ(rate_limit_field_lines({}, "p", kRules, charges, states), "");
}

TEST(RetryAfter, IsNeverEarlierThanTheMomentOfAdmission) {
  std::vector<std::uint32_t> violated{0, 1};
  for (std::int64_t ms : {1, 999, 1'000, 1'001, 4'210'999}) {
    std::vector<AccountState> states{state(1, 1, 1ms, Milliseconds(ms)), state(1, 1, 1ms, 1ms)};
    auto seconds = retry_after_seconds(states, violated);
    ASSERT_TRUE(seconds.has_value());
    EXPECT_GE(static_cast<std::int64_t>(*seconds) * 1000, ms);
    EXPECT_LT(static_cast<std::int64_t>(*seconds) * 1000, std::max<std::int64_t>(ms + 1000, 1001));
  }
}

TEST(RetryAfter, IsLeftOutWhenTheCallCanNeverBeAdmitted) {
  std::vector<std::uint32_t> violated{0};
  std::vector<AccountState> states{state(0, 5, 0ms, Milliseconds::max())};
  EXPECT_EQ(retry_after_seconds(states, violated), std::nullopt);
}

TEST(FieldLines, ARefusalCarriesAllOfThem) {
  std::vector<AccountCharge> charges{charge(0)};
  std::vector<AccountState> states{state(1000, 1000, 4'211'000ms, 4'211'000ms)};
  std::vector<std::uint32_t> violated{0};
  EXPECT_EQ(
      rate_limit_field_lines({true, true}, rate_limit_policy(kRules), kRules, charges, states, violated),
      "RateLimit-Policy: \"daily\";q=1000;w=86400, \"burst\";q=50;w=1\r\n"
      "RateLimit: \"daily\";r=0;t=4211\r\n"
      "X-RateLimit-Limit: 1000\r\nX-RateLimit-Remaining: 0\r\nX-RateLimit-Reset: 4211\r\n"
      "Retry-After: 4211\r\n");
}

TEST(FieldLines, RetryAfterIsSentEvenWhenTheRateLimitFieldsAreOff) {
  std::vector<AccountCharge> charges{charge(0)};
  std::vector<AccountState> states{state(1000, 1000, 1ms, 1ms)};
  std::vector<std::uint32_t> violated{0};
  EXPECT_EQ(rate_limit_field_lines({false, false}, "p", kRules, charges, states, violated),
            "Retry-After: 1\r\n");
}

TEST(FieldLines, NeverNameACandidateLimit) {
  std::vector<Rule> rules = kRules;
  rules[0].shadow = true;
  EXPECT_EQ(rate_limit_policy(rules), R"("burst";q=50;w=1)");
  std::vector<AccountCharge> charges{charge(0), charge(1)};
  charges[0].shadow = true;
  std::vector<AccountState> states{state(1000, 1000, 1ms, 1ms), state(5, 50, 1ms)};
  EXPECT_EQ(nearest_to_exhaustion(charges, states), 1U);
  charges.pop_back();
  EXPECT_EQ(rate_limit_field_lines({}, rate_limit_policy(rules), rules, charges, states), "");
}

}  // namespace
}  // namespace tollgate::quota
