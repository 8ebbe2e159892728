#include "metering/base/percent.h"

#include <gtest/gtest.h>

namespace tollgate {
namespace {

TEST(Percent, AllButUnreservedCharactersAreEncoded) {
  EXPECT_EQ(percent_encoded("AZaz09-._~"), "AZaz09-._~");
  EXPECT_EQ(percent_encoded("a b/c?d&e=f+%\r\n"), "a%20b%2Fc%3Fd%26e%3Df%2B%25%0D%0A");
  EXPECT_EQ(percent_encoded(std::string_view("\0\xC3\xA9\xFF", 4)), "%00%C3%A9%FF");
}

TEST(Percent, ValuesOfAFormStayInTheirPlace) {
  std::string form;
  append_form(form, "name", "a&b=c");
  append_form(form, "empty", "");
  EXPECT_EQ(form, "name=a%26b%3Dc&empty=");
}

}  // namespace
}  // namespace tollgate
