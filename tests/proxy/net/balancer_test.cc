// The choice of a server: shares by weight, fewest in flight, and what a hash keeps in place.
#include "proxy/net/balancer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tollgate::net {
namespace {

using config::Balance;
using testing::ElementsAre;

std::vector<std::string> names(std::size_t count) {
  std::vector<std::string> out;
  for (std::size_t i = 0; i < count; ++i) out.push_back(fmt::format("http://10.0.0.{}:9000", i));
  return out;
}

std::vector<std::size_t> choices(Balancer& balancer, std::span<const Balancer::Candidate> candidates,
                                 int count) {
  std::vector<std::size_t> out;
  for (int i = 0; i < count; ++i) out.push_back(balancer.choose(candidates, {}));
  return out;
}

TEST(RoundRobin, EqualServersTakeTurns) {
  Balancer balancer(Balance::round_robin, names(3), {1, 1, 1});
  const std::vector<Balancer::Candidate> all(3);
  EXPECT_THAT(choices(balancer, all, 6), ElementsAre(0, 1, 2, 0, 1, 2));
}

TEST(RoundRobin, WeightsAreSmooth) {
  Balancer balancer(Balance::round_robin, names(3), {5, 1, 1});
  const std::vector<Balancer::Candidate> all(3);
  EXPECT_THAT(choices(balancer, all, 7), ElementsAre(0, 0, 1, 0, 2, 0, 0));
}

TEST(RoundRobin, AServerThatIsOutGetsNothingAndOwesNothingWhenItIsBack) {
  Balancer balancer(Balance::round_robin, names(2), {1, 1});
  std::vector<Balancer::Candidate> all(2);
  all[0].share = 0;
  EXPECT_THAT(choices(balancer, all, 50), testing::Each(1));
  all[0].share = Balancer::kWhole;
  int first = 0;
  for (std::size_t chosen : choices(balancer, all, 10)) first += chosen == 0;
  EXPECT_EQ(first, 5);
}

TEST(RoundRobin, AWarmingServerGetsItsShareOnly) {
  Balancer balancer(Balance::round_robin, names(2), {1, 1});
  std::vector<Balancer::Candidate> all(2);
  all[0].share = Balancer::kWhole / 4;
  int first = 0;
  for (std::size_t chosen : choices(balancer, all, 1'000)) first += chosen == 0;
  EXPECT_EQ(first, 200);  // 1/4 against 1
}

TEST(Balancer, NobodyIsNone) {
  for (Balance kind : {Balance::round_robin, Balance::least_connections, Balance::hash})
    for (std::size_t count : {1U, 3U}) {
      Balancer balancer(kind, names(count), std::vector<std::uint32_t>(count, 1));
      std::vector<Balancer::Candidate> all(count);
      for (auto& candidate : all) candidate.share = 0;
      EXPECT_EQ(balancer.choose(all, "key"), Balancer::kNone);
    }
}

TEST(LeastConnections, FewestForItsWeightAndEqualsTakeTurns) {
  Balancer balancer(Balance::least_connections, names(3), {1, 2, 1});
  std::vector<Balancer::Candidate> all(3);
  all[0].in_flight = 2, all[1].in_flight = 3, all[2].in_flight = 2;  // 2, 1.5, 2
  EXPECT_EQ(balancer.choose(all, {}), 1U);
  all[1].in_flight = 5;
  std::vector<std::size_t> chosen = choices(balancer, all, 4);
  EXPECT_THAT(chosen, testing::UnorderedElementsAre(0, 2, 0, 2));
  all[0].share = 0;
  EXPECT_THAT(choices(balancer, all, 3), testing::Each(2));
}

// With calls that end one by one, nobody ever has much more than its part.
TEST(LeastConnections, KeepsTheLoadLevel) {
  Balancer balancer(Balance::least_connections, names(4), {1, 1, 1, 1});
  std::vector<Balancer::Candidate> all(4);
  for (int call = 0; call < 400; ++call) ++all[balancer.choose(all, {})].in_flight;
  for (const auto& candidate : all) EXPECT_EQ(candidate.in_flight, 100U);
}

TEST(Hash, TheSameKeyGoesToTheSameServerWhateverTheTurn) {
  Balancer one(Balance::hash, names(5), {1, 1, 1, 1, 1}), other(Balance::hash, names(5), {1, 1, 1, 1, 1});
  const std::vector<Balancer::Candidate> all(5);
  choices(other, all, 3);
  for (int user = 0; user < 100; ++user) {
    const std::string key = fmt::format("user-{}", user);
    EXPECT_EQ(one.choose(all, key), other.choose(all, key));
  }
}

TEST(Hash, KeysSpreadByWeight) {
  Balancer balancer(Balance::hash, names(3), {1, 2, 1});
  const std::vector<Balancer::Candidate> all(3);
  std::array<int, 3> counts{};
  for (int user = 0; user < 20'000; ++user) ++counts[balancer.choose(all, fmt::format("user-{}", user))];
  EXPECT_NEAR(counts[0], 5'000, 300);
  EXPECT_NEAR(counts[1], 10'000, 300);
  EXPECT_NEAR(counts[2], 5'000, 300);
}

TEST(Hash, AServerThatGoesMovesItsOwnKeysOnly) {
  Balancer balancer(Balance::hash, names(5), {1, 1, 1, 1, 1});
  std::vector<Balancer::Candidate> all(5), without(5);
  without[2].share = 0;
  int moved = 0;
  for (int user = 0; user < 2'000; ++user) {
    const std::string key = fmt::format("user-{}", user);
    const std::size_t before = balancer.choose(all, key), after = balancer.choose(without, key);
    if (before == 2)
      ++moved;
    else
      EXPECT_EQ(before, after) << key;
    EXPECT_NE(after, 2U);
  }
  EXPECT_NEAR(moved, 400, 100);
}

TEST(Hash, WithoutAKeyServersTakeTurns) {
  Balancer balancer(Balance::hash, names(2), {1, 1});
  const std::vector<Balancer::Candidate> all(2);
  EXPECT_THAT(choices(balancer, all, 4), ElementsAre(0, 1, 0, 1));
}

}  // namespace
}  // namespace tollgate::net
