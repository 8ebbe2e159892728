#include "proxy/http/date.h"

#include <gtest/gtest.h>

#include <ctime>

#include "metering/base/random.h"

namespace tollgate::http {
namespace {

TEST(Date, Rfc9110Example) {
  EXPECT_EQ(format_date(from_unix_seconds(784'111'777)), "Sun, 06 Nov 1994 08:49:37 GMT");
}

TEST(Date, EdgesOfTheCalendar) {
  EXPECT_EQ(format_date(from_unix_seconds(0)), "Thu, 01 Jan 1970 00:00:00 GMT");
  EXPECT_EQ(format_date(from_unix_seconds(-1)), "Wed, 31 Dec 1969 23:59:59 GMT");
  EXPECT_EQ(format_date(from_unix_seconds(951'782'400)), "Tue, 29 Feb 2000 00:00:00 GMT");
  EXPECT_EQ(format_date(from_unix_seconds(4'107'542'400)), "Mon, 01 Mar 2100 00:00:00 GMT");
}

TEST(Date, FractionsAreRoundedDown) {
  EXPECT_EQ(format_date(from_unix_seconds(784'111'777) + Milliseconds(999)), "Sun, 06 Nov 1994 08:49:37 GMT");
}

TEST(Date, AgreesWithTheCLibrary) {
  const std::uint64_t seed = 1;
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  Random random(seed);
  for (int i = 0; i < 2000; ++i) {
    const auto seconds = static_cast<std::time_t>(random.below(9'000'000'000ULL));
    std::tm parts{};
    gmtime_r(&seconds, &parts);
    char text[64];
    const std::size_t size = std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts);
    ASSERT_EQ(format_date(from_unix_seconds(seconds)), std::string(text, size));
  }
}

}  // namespace
}  // namespace tollgate::http
