#include "metering/base/guid.h"

#include <gtest/gtest.h>

namespace tollgate {
namespace {

constexpr const char* kSpelled = "405947d0-2ffb-4ded-8675-0475f19f5a81";

TEST(Guid, HasOneSpellingHoweverItWasSent) {
  for (const char* sent : {"405947d0-2ffb-4ded-8675-0475f19f5a81", "405947D0-2FFB-4DED-8675-0475F19F5A81",
                           "405947d02ffb4ded86750475f19f5a81", "405947D02ffb4DED86750475f19f5a81"})
    EXPECT_EQ(read_guid(sent), kSpelled) << sent;
}

TEST(Guid, NothingElseIsOne) {
  for (const char* sent :
       {"", "1", "405947d0-2ffb-4ded-8675-0475f19f5a8", "405947d0-2ffb-4ded-8675-0475f19f5a811",
        "405947d0-2ffb-4ded-86750475f19f5a81", "{405947d0-2ffb-4ded-8675-0475f19f5a81}",
        " 405947d0-2ffb-4ded-8675-0475f19f5a81", "405947d0-2ffb-4ded-8675-0475f19f5a8g",
        "405947d0_2ffb_4ded_8675_0475f19f5a81", "------------------------------------"}) {
    EXPECT_FALSE(is_guid(sent)) << sent;
    EXPECT_EQ(read_guid(sent), std::nullopt) << sent;
  }
}

TEST(Guid, TheEmptyOneIsNobodys) {
  EXPECT_TRUE(is_guid("00000000-0000-0000-0000-000000000000"));
  EXPECT_EQ(read_guid("00000000-0000-0000-0000-000000000000"), std::nullopt);
}

}  // namespace
}  // namespace tollgate
