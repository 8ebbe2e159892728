#include "proxy/http/request_id.h"

#include <gtest/gtest.h>

#include <set>

#include "metering/base/ascii.h"

namespace tollgate::http {
namespace {

TEST(RequestId, LengthIs8To128) {
  EXPECT_FALSE(is_valid_request_id(""));
  EXPECT_FALSE(is_valid_request_id("abcdefg"));
  EXPECT_TRUE(is_valid_request_id("abcdefgh"));
  EXPECT_TRUE(is_valid_request_id(std::string(128, 'a')));
  EXPECT_FALSE(is_valid_request_id(std::string(129, 'a')));
}

TEST(RequestId, OnlyLettersDigitsDotUnderscoreDash) {
  const std::string good = "ABCXYZabcxyz0189._-";
  for (int i = 0; i < 256; ++i) {
    const char c = static_cast<char>(i);
    const bool allowed = is_alpha(c) || is_digit(c) || c == '.' || c == '_' || c == '-';
    EXPECT_EQ(is_valid_request_id(good + c), allowed) << i;
  }
}

TEST(RequestId, MadeOnesAreValidDistinctAndFollowTheSeed) {
  Random random(7), same(7);
  std::set<std::string> ids;
  for (int i = 0; i < 1000; ++i) {
    std::string id, again;
    make_request_id(random, id);
    make_request_id(same, again);
    EXPECT_EQ(id.size(), kRequestIdMade);
    EXPECT_TRUE(is_valid_request_id(id)) << id;
    EXPECT_EQ(id, again);
    ids.insert(id);
  }
  EXPECT_EQ(ids.size(), 1000U);
}

}  // namespace
}  // namespace tollgate::http
