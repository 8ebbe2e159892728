#include <gtest/gtest.h>

#include "metering/quota/store_model.h"

namespace tollgate::quota {
namespace {

using namespace std::chrono_literals;
constexpr Milliseconds kNow{1'763'820'000'000};

TEST(LimitOverride, TextAndValueAreOneAndTheSame) {
  const std::pair<const char*, LimitOverride> cases[] = {
      {"1500", {1500, {}}},
      {"0", {0, {}}},
      {"*", {kUnlimited, {}}},
      {"-;+200@1764000000000", {std::nullopt, {{200, 1'764'000'000'000ms}}}},
      {"1500;+200@1764000000000;+50@1764100000000",
       {1500, {{200, 1'764'000'000'000ms}, {50, 1'764'100'000'000ms}}}},
      {"9007199254740992", {1ULL << 53, {}}},
  };
  for (const auto& [text, value] : cases) {
    EXPECT_EQ(value.format(), text);
    EXPECT_EQ(LimitOverride::parse(text), value) << text;
  }
}

TEST(LimitOverride, AnythingElseIsRefused) {
  for (const char* text : {"",
                           "-",
                           " 5",
                           "5 ",
                           "+5",
                           "-5",
                           "05",
                           "5;",
                           "5;200@1",
                           "5;+200",
                           "5;+@1",
                           "5;+1@",
                           "5;+01@1",
                           "5;+1@01",
                           "5;+1@2;",
                           "5;;+1@2",
                           "5;+1@2@3",
                           "**",
                           "*;",
                           "1.5",
                           "1e3",
                           "0x5",
                           "nan",
                           "9007199254740993",
                           "5;+1@281474976710657",
                           "18446744073709551616",
                           "-;+1@2 ",
                           "5\n"})
    EXPECT_EQ(LimitOverride::parse(text), std::nullopt) << "'" << text << "'";
  std::string many = "5";
  for (std::size_t i = 0; i < LimitOverride::kGrantsMax; ++i) many += ";+1@2";
  EXPECT_TRUE(LimitOverride::parse(many).has_value());
  EXPECT_EQ(LimitOverride::parse(many + ";+1@2"), std::nullopt);
}

TEST(LimitOverride, WinsOverTheRulesLimitUpwardsAndDownwards) {
  EXPECT_EQ((LimitOverride{5, {}}).effective(1'000, kNow), 5U);
  EXPECT_EQ((LimitOverride{5'000, {}}).effective(1'000, kNow), 5'000U);
  EXPECT_EQ((LimitOverride{}).effective(1'000, kNow), 1'000U);
  EXPECT_EQ((LimitOverride{kUnlimited, {}}).effective(1'000, kNow), kUnlimited);
}

TEST(LimitOverride, GrantsAddUntilTheirMomentAndNotInIt) {
  const LimitOverride one{std::nullopt, {{200, kNow + 10ms}, {50, kNow + 20ms}}};
  EXPECT_EQ(one.effective(1'000, kNow), 1'250U);
  EXPECT_EQ(one.effective(1'000, kNow + 9ms), 1'250U);
  EXPECT_EQ(one.effective(1'000, kNow + 10ms), 1'050U);
  EXPECT_EQ(one.effective(1'000, kNow + 20ms), 1'000U);
  EXPECT_EQ(one.effective(kUnlimited, kNow), kUnlimited);
}

TEST(LimitOverride, HugeSumsStopWhereTheScriptsCanStillCount) {
  const LimitOverride one{1ULL << 53, {{1ULL << 53, kNow + 1ms}, {UINT64_MAX, kNow + 1ms}}};
  EXPECT_EQ(one.effective(1, kNow), 1ULL << 53);
}

}  // namespace
}  // namespace tollgate::quota
