// In which order the addresses of a server are tried.
#include "proxy/net/address_turns.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tollgate::net {
namespace {

using namespace std::chrono_literals;
using testing::IsEmpty;

constexpr MonotonicTime kStart{1h};

Endpoint at(char name) {
  return *numeric_endpoint({.host = std::string("127.0.0.") + std::to_string(name - 'a' + 1), .port = 80});
}

class Turns : public testing::Test {
 protected:
  Turns() { turns.replace({at('a'), at('b'), at('c')}); }
  // "abc": the order of the next connection.
  std::string next(Duration after = 0s) {
    std::string order;
    for (const Endpoint& endpoint : turns.next(kStart + after))
      order += static_cast<char>('a' + endpoint.host().back() - '1');
    return order;
  }
  AddressTurns turns;
};

TEST_F(Turns, AddressesTakeTurns) {
  EXPECT_EQ(next(), "abc");
  EXPECT_EQ(next(), "bca");
  EXPECT_EQ(next(), "cab");
  EXPECT_EQ(next(), "abc");
}

TEST_F(Turns, OneThatFailedComesLastAndTheOthersTakeEvenTurns) {
  EXPECT_TRUE(turns.failed(at('b'), kStart));
  EXPECT_FALSE(turns.failed(at('b'), kStart)) << "no news";
  EXPECT_EQ(next(), "acb");
  EXPECT_EQ(next(), "cab");
  EXPECT_EQ(next(), "acb");
}

TEST_F(Turns, OneConnectionIn30sTriesItFirst) {
  turns.failed(at('a'), kStart);
  turns.failed(at('b'), kStart);
  EXPECT_EQ(next(29s), "cab");
  EXPECT_EQ(next(30s), "bca") << "its turn has come";
  EXPECT_EQ(next(30s), "acb");
  EXPECT_EQ(next(30s), "cab") << "the others keep off";
  EXPECT_EQ(next(59s), "cab");
}

TEST_F(Turns, OneThatAnswersIsAmongTheOthersAgain) {
  turns.failed(at('b'), kStart);
  EXPECT_TRUE(turns.answered(at('b')));
  EXPECT_FALSE(turns.answered(at('b'))) << "no news";
  EXPECT_EQ(next(), "abc");
  EXPECT_EQ(next(), "bca");
}

TEST_F(Turns, WhenAllFailedTheyTakeTurns) {
  for (const char name : {'a', 'b', 'c'}) turns.failed(at(name), kStart);
  EXPECT_EQ(next(), "abc");
  EXPECT_EQ(next(), "bca");
}

TEST_F(Turns, ANewAnswerKeepsWhatIsKnownOfThoseThatStay) {
  turns.failed(at('a'), kStart);
  turns.failed(at('b'), kStart);
  turns.replace({at('b'), at('d')});
  EXPECT_EQ(next(), "db");
  EXPECT_FALSE(turns.contains(at('a')));
  EXPECT_FALSE(turns.failed(at('a'), kStart)) << "it is gone";
  EXPECT_FALSE(turns.answered(at('a')));
  turns.replace({});
  EXPECT_THAT(turns.next(kStart), IsEmpty());
}

}  // namespace
}  // namespace tollgate::net
