#include "metering/seats/pool.h"

#include <gtest/gtest.h>

namespace tollgate::seats {
namespace {

TEST(SeatPool, AllKeysOfAPoolCarryTheTagOfItsPartition) {
  const Pool pool{.id = "self_service", .kind = Kind::named};
  const std::string tag = "{p" + std::string(partition_of(pool) < 100 ? "0" : "") +
                          std::string(partition_of(pool) < 10 ? "0" : "") +
                          std::to_string(partition_of(pool)) + "}";
  EXPECT_EQ(seats_key(pool), "s:" + tag + ":named:self_service");
  EXPECT_NE(seats_key(pool), seats_key({.id = "self_service", .kind = Kind::concurrent}));
}

TEST(SeatPool, MembersReadBackAndNoNameImitatesAnother) {
  const std::string member = member_of({"ac:me", "ann doe"});
  EXPECT_EQ(member, "ac%3Ame:ann%20doe");
  const auto parsed = parse_member(member);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->tenant, "ac:me");
  EXPECT_EQ(parsed->user, "ann doe");
  EXPECT_NE(member_of({"a", "b:c"}), member_of({"a:b", "c"}));
  EXPECT_FALSE(parse_member("without-colon"));
  EXPECT_FALSE(parse_member("a%zz:b"));
}

}  // namespace
}  // namespace tollgate::seats
