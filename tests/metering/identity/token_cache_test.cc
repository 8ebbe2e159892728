#include "metering/identity/token_cache.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>

#include "metering/base/random.h"

namespace tollgate::identity {
namespace {

constexpr std::uint64_t kSeed = 42;
const UnixTime kNow = from_unix_seconds(1'000'000);

std::shared_ptr<const VerifiedToken> verified(std::string user, UnixTime from = UnixTime::min(),
                                              UnixTime until = UnixTime::max()) {
  auto out = std::make_shared<VerifiedToken>();
  out->principal.user = std::move(user);
  out->not_before = from;
  out->expires_at = until;
  return out;
}

TEST(TokenCache, FindsWhatWasInsertedAndCountsHitsAndMisses) {
  TokenCache cache(4, kSeed);
  EXPECT_EQ(cache.find("t1", kNow), nullptr);
  auto one = verified("ann");
  cache.insert("t1", one);
  EXPECT_EQ(cache.find("t1", kNow), one);
  EXPECT_EQ(cache.find("t2", kNow), nullptr);
  EXPECT_EQ(cache.hits(), 1U);
  EXPECT_EQ(cache.misses(), 2U);
  EXPECT_EQ(cache.size(), 1U);
}

TEST(TokenCache, NearlyEqualTokensAreStrangers) {
  TokenCache cache(64, kSeed);
  std::string token(800, 'a');
  cache.insert(token, verified("ann"));
  for (std::size_t i = 0; i < token.size(); i += 13) {
    std::string other = token;
    other[i] = 'b';
    EXPECT_EQ(cache.find(other, kNow), nullptr);
  }
  EXPECT_EQ(cache.find(token.substr(1), kNow), nullptr);
  EXPECT_EQ(cache.find(token + 'a', kNow), nullptr);
  EXPECT_EQ(cache.find("", kNow), nullptr);
}

TEST(TokenCache, ServesFromNotBeforeUntilJustBeforeExpiry) {
  TokenCache cache(4, kSeed);
  cache.insert("t", verified("ann", kNow, kNow + Seconds(10)));
  EXPECT_EQ(cache.find("t", kNow - Duration(1)), nullptr);
  EXPECT_NE(cache.find("t", kNow), nullptr);
  EXPECT_NE(cache.find("t", kNow + Seconds(10) - Duration(1)), nullptr);
  EXPECT_EQ(cache.size(), 1U);
  EXPECT_EQ(cache.find("t", kNow + Seconds(10)), nullptr);
  EXPECT_EQ(cache.size(), 0U) << "an expired entry makes room at once";
}

TEST(TokenCache, InsertingAgainReplaces) {
  TokenCache cache(4, kSeed);
  cache.insert("t", verified("ann"));
  cache.insert("t", verified("bob"));
  EXPECT_EQ(cache.find("t", kNow)->principal.user, "bob");
  EXPECT_EQ(cache.size(), 1U);
}

TEST(TokenCache, HeldTokenOutlivesItsEviction) {
  TokenCache cache(1, kSeed);
  cache.insert("a", verified("ann"));
  auto held = cache.find("a", kNow);
  cache.insert("b", verified("bob"));
  EXPECT_EQ(cache.find("a", kNow), nullptr);
  EXPECT_EQ(held->principal.user, "ann");
}

TEST(TokenCache, NeverHoldsMoreThanItsCapacity) {
  TokenCache cache(100, kSeed);
  for (int i = 0; i < 10'000; ++i) {
    cache.insert(fmt::format("token-{}", i), verified("u"));
    ASSERT_LE(cache.size(), 100U);
  }
  EXPECT_EQ(cache.size(), 100U);
  EXPECT_NE(cache.find("token-9999", kNow), nullptr) << "the newest is there";
}

TEST(TokenCache, TokensInUseSurviveAFloodOfOthers) {
  TokenCache cache(100, kSeed);
  for (int i = 0; i < 50; ++i) cache.insert(fmt::format("regular-{}", i), verified("u"));
  int found = 0;
  for (int round = 0; round < 1000; ++round) {
    cache.insert(fmt::format("flood-{}", round), verified("f"));
    for (int i = 0; i < 50; ++i) found += cache.find(fmt::format("regular-{}", i), kNow) != nullptr;
  }
  EXPECT_EQ(found, 50 * 1000);
}

TEST(TokenCache, CapacityZeroIsOff) {
  TokenCache cache(0, kSeed);
  cache.insert("t", verified("ann"));
  EXPECT_EQ(cache.find("t", kNow), nullptr);
  EXPECT_EQ(cache.size(), 0U);
  EXPECT_EQ(cache.misses(), 1U);
  cache.clear();
}

TEST(TokenCache, ClearForgetsEverything) {
  TokenCache cache(10, kSeed);
  for (int i = 0; i < 25; ++i) cache.insert(fmt::format("{}", i), verified("u"));
  cache.clear();
  EXPECT_EQ(cache.size(), 0U);
  for (int i = 0; i < 25; ++i) EXPECT_EQ(cache.find(fmt::format("{}", i), kNow), nullptr);
  cache.insert("t", verified("ann"));
  EXPECT_NE(cache.find("t", kNow), nullptr);
}

TEST(TokenCache, MovesKeepTheContent) {
  TokenCache first(4, kSeed);
  first.insert("t", verified("ann"));
  TokenCache second(std::move(first));
  EXPECT_NE(second.find("t", kNow), nullptr);
}

// Against a plain map: whatever the cache returns is what was last inserted for that very token and valid
// now; and with room for all, nothing is ever lost (which removals out of probe runs could do).
TEST(TokenCache, AgreesWithAPlainMapOverRandomOperations) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    Random random(seed);
    std::size_t capacity = 1 + random.below(64);
    bool room_for_all = capacity >= 40;
    TokenCache cache(capacity, seed);
    std::map<std::string, std::shared_ptr<const VerifiedToken>> model;
    UnixTime now = kNow;
    for (int step = 0; step < 4000; ++step) {
      std::string token = fmt::format("token-{}", random.below(40));
      now += Seconds(random.below(2));
      if (random.one_in(2)) {
        auto value = verified(token, UnixTime::min(), now + Seconds(random.below(60)));
        cache.insert(token, value);
        model[token] = value;
      } else {
        auto got = cache.find(token, now);
        auto at = model.find(token);
        auto expected = at == model.end() || now >= at->second->expires_at ? nullptr : at->second;
        if (got != nullptr || room_for_all) {
          ASSERT_EQ(got, expected);
        }
      }
      ASSERT_LE(cache.size(), capacity);
    }
  }
}

}  // namespace
}  // namespace tollgate::identity
