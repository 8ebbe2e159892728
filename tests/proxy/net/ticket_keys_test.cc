#include "proxy/net/ticket_keys.h"

#include <gtest/gtest.h>

namespace tollgate::net {
namespace {

const std::string kOld(32, 'a'), kNew(32, 'b');
constexpr Milliseconds kHour{3'600'000};
UnixTime at(std::int64_t seconds) {
  return from_unix_seconds(1'800'000'000 + seconds);
}

TEST(TicketKeys, EqualSecretsMakeEqualKeysInOnePeriod) {
  const TicketKeys one({kOld}, kHour), two({kOld}, kHour);
  EXPECT_EQ(one.seal(at(0)).cipher, two.seal(at(3'599)).cipher);
  EXPECT_NE(one.seal(at(0)).cipher, two.seal(at(3'600)).cipher);
  EXPECT_NE(one.seal(at(0)).mac, one.seal(at(0)).cipher);
  EXPECT_NE(one.seal(at(0)).name, TicketKeys({kNew}, kHour).seal(at(0)).name);
}

TEST(TicketKeys, ATicketIsOpenedOnePeriodLater) {
  const TicketKeys keys({kOld}, kHour);
  const TicketKey sealed = keys.seal(at(0));
  auto now = keys.open(sealed.name.data(), at(10));
  ASSERT_TRUE(now.has_value());
  EXPECT_TRUE(now->current);
  EXPECT_EQ(now->cipher, sealed.cipher);
  auto later = keys.open(sealed.name.data(), at(3'600 + 3'599));
  ASSERT_TRUE(later.has_value());
  EXPECT_FALSE(later->current);
  EXPECT_FALSE(keys.open(sealed.name.data(), at(7'200)).has_value());
  EXPECT_TRUE(keys.open(sealed.name.data(), at(-1)).has_value());  // our clock is behind
}

TEST(TicketKeys, AnOldSecretOpensAndNoLongerSeals) {
  const TicketKeys before({kOld}, kHour), after({kNew, kOld}, kHour);
  auto opened = after.open(before.seal(at(0)).name.data(), at(0));
  ASSERT_TRUE(opened.has_value());
  EXPECT_FALSE(opened->current);
  EXPECT_EQ(after.seal(at(0)).name, TicketKeys({kNew}, kHour).seal(at(0)).name);
  EXPECT_FALSE(before.open(after.seal(at(0)).name.data(), at(0)).has_value());
}

}  // namespace
}  // namespace tollgate::net
