#include "metering/catalogue/cherwell_reply.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tollgate::catalogue {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(CherwellReply, ABatchOfSavesIsReadItemByItem) {
  const std::string_view objects[] = {"6DD5", "6DD5", "9A9A"};
  const auto made = read_cherwell_created(
      R"({"responses":[{"busObRecId":"94F","busObPublicId":"1"},{"busObRecId":null,"hasError":true},)"
      R"({"busObRecId":"95f"}]})",
      objects);
  ASSERT_EQ(made.size(), 3U);
  EXPECT_THAT(made[0], ElementsAre("6dd5/94f/", "6dd5//1", "6dd5/94f/1"));
  EXPECT_THAT(made[1], IsEmpty());
  EXPECT_THAT(made[2], ElementsAre("9a9a/95f/"));
}

TEST(CherwellReply, ABatchThatDoesNotAnswerEachRequestTeachesNothing) {
  const std::string_view objects[] = {"a", "b"};
  for (const char* body : {"", "[]", "{}", R"({"responses":{}})", R"({"responses":[{"busObRecId":"1"}]})",
                           R"({"responses":[{"busObRecId":"1"},{"busObRecId":"2"},{"busObRecId":"3"}]})",
                           R"({"responses":[{"busObRecId":"1"},{"busObRecId":"2"}],"Responses":[]})"})
    EXPECT_THAT(read_cherwell_created(body, objects), IsEmpty()) << body;
  const auto odd = read_cherwell_created(R"({"responses":[7,{"busObRecId":"2"}]})", objects);
  ASSERT_EQ(odd.size(), 2U);
  EXPECT_THAT(odd[0], IsEmpty());
}

TEST(CherwellReply, AReplyIsAnObject) {
  EXPECT_TRUE(is_cherwell_reply(" {} "));
  for (const char* body : {"", "[]", "null", "<html>", "{", "{}{}"})
    EXPECT_FALSE(is_cherwell_reply(body)) << body;
}

}  // namespace
}  // namespace tollgate::catalogue
