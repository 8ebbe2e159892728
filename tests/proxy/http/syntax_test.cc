#include "proxy/http/syntax.h"

#include <gtest/gtest.h>

#include "metering/base/random.h"

namespace tollgate::http {
namespace {

std::size_t find_control_plainly(std::string_view text, std::size_t from) {
  for (; from < text.size(); ++from) {
    const auto byte = static_cast<unsigned char>(text[from]);
    if ((byte < 0x20 && byte != '\t') || byte == 0x7f) break;
  }
  return from;
}

TEST(FindControl, EveryByteAtEveryPositionOfABlock) {
  for (int value = 0; value < 256; ++value)
    for (std::size_t size = 1; size <= 40; ++size)
      for (std::size_t at = 0; at < size; ++at) {
        std::string text(size, 'a');
        text[at] = static_cast<char>(value);
        const std::size_t expected = find_control_plainly(text, 0);
        ASSERT_EQ(find_control(text, 0), expected) << value << " at " << at << " of " << size;
        ASSERT_EQ(find_control_portable(text, 0), expected) << value << " at " << at << " of " << size;
      }
}

TEST(FindControl, RandomTextsFromEveryPosition) {
  const std::uint64_t seed = 4711;
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  Random random(seed);
  static constexpr char kBytes[] = {'a', '\t', ' ', '\x1f', '\r', '\n', '\x7f', '\x80', '\xff', '\0', '~'};
  for (int round = 0; round < 2000; ++round) {
    std::string text(static_cast<std::size_t>(random.below(70)), ' ');
    for (char& c : text)
      c = random.one_in(12) ? kBytes[random.below(sizeof kBytes)] : kBytes[random.below(3)];
    for (std::size_t from = 0; from <= text.size(); ++from) {
      ASSERT_EQ(find_control(text, from), find_control_plainly(text, from));
      ASSERT_EQ(find_control_portable(text, from), find_control_plainly(text, from));
    }
  }
}

TEST(Token, HasTheCharactersOfRfc9110) {
  std::string expected = "!#$%&'*+-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ^_`abcdefghijklmnopqrstuvwxyz|~",
              found;
  for (int i = 0; i < 256; ++i)
    if (is_token(std::string(1, static_cast<char>(i)))) found += static_cast<char>(i);
  EXPECT_EQ(found, expected);
  EXPECT_FALSE(is_token(""));
}

TEST(Token, EndIsFoundAtEveryPositionForEveryByte) {
  for (int value = 0; value < 256; ++value) {
    const char c = static_cast<char>(value);
    for (std::size_t size = 1; size <= 36; ++size)
      for (std::size_t at = 0; at < size; ++at) {
        std::string text(size, "aZ09-!"[(at + size) % 6]);
        text[at] = c;
        ASSERT_EQ(find_token_end(text), is_char(c, kTokenChar) ? size : at)
            << value << " at " << at << " of " << size;
      }
  }
}

TEST(Authority, IsSplitIntoHostAndPort) {
  EXPECT_EQ(parse_authority("a.b:80").host, "a.b");
  EXPECT_EQ(parse_authority("a.b:80").port, "80");
  EXPECT_EQ(parse_authority("[::1]:80").host, "[::1]");
  EXPECT_EQ(parse_authority("a").port, "");
  EXPECT_TRUE(parse_authority(std::string(255, 'a')).valid);
  EXPECT_FALSE(parse_authority(std::string(256, 'a')).valid);
}

TEST(List, EmptyElementsAreSkippedAndVisitMayStop) {
  std::string seen;
  EXPECT_TRUE(for_each_element(" a ,, \t,b c,", [&](std::string_view element) {
    seen += "<" + std::string(element) + ">";
    return true;
  }));
  EXPECT_EQ(seen, "<a><b c>");
  EXPECT_FALSE(for_each_element("a,b", [](std::string_view element) { return element != "a"; }));
}

}  // namespace
}  // namespace tollgate::http
