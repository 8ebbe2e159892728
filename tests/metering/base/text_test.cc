#include <gtest/gtest.h>

#include "metering/base/append.h"
#include "metering/base/ascii.h"
#include "metering/base/json_text.h"
#include "metering/base/reason.h"
#include "metering/base/time.h"

namespace tollgate {
namespace {

std::string json(std::string_view text) {
  std::string out;
  append_json_string(out, text);
  return out;
}

TEST(JsonText, EscapesWhatJsonDemands) {
  EXPECT_EQ(json("a\"b\\c"), R"("a\"b\\c")");
  EXPECT_EQ(json("\n\r\t\x01\x7f"), std::string("\"\\n\\r\\t\\u0001\\u007f\""));
  EXPECT_EQ(json(std::string_view("\0", 1)), "\"\\u0000\"");
}

TEST(JsonText, KeepsValidUtf8AndReplacesTheRest) {
  EXPECT_EQ(json("z\xc3\xbcrich \xe2\x82\xac \xf0\x9f\x98\x80"),
            "\"z\xc3\xbcrich \xe2\x82\xac \xf0\x9f\x98\x80\"");
  EXPECT_EQ(json("\xff"), "\"\\ufffd\"");
  EXPECT_EQ(json("\xc0\xaf"), "\"\\ufffd\\ufffd\"");             // overlong
  EXPECT_EQ(json("\xed\xa0\x80"), "\"\\ufffd\\ufffd\\ufffd\"");  // surrogate
  EXPECT_EQ(json("\xe2\x82"), "\"\\ufffd\\ufffd\"");             // cut short
  EXPECT_EQ(json("\xf4\x90\x80\x80"), "\"\\ufffd\\ufffd\\ufffd\\ufffd\"");
}

// However long the text is and wherever the byte stands, which goes through blocks, words and bytes.
TEST(JsonText, AByteIsWrittenTheSameWhereverItStands) {
  for (std::size_t size = 0; size < 70; ++size) {
    for (std::size_t at = 0; at < std::max<std::size_t>(size, 1); ++at) {
      for (int byte = 0; byte < 256; ++byte) {
        std::string text(size, 'x');
        if (size > 0) text[at] = static_cast<char>(byte);
        std::string wanted = '"' + text + '"';
        if (size > 1) {
          const std::string alone = json({&text[at], 1});
          wanted.replace(1 + at, 1, alone, 1, alone.size() - 2);
        }
        ASSERT_TRUE(size < 2 || json(text) == wanted) << size << " " << at << " " << byte;
        std::string room(2 + 6 * size, '\0');
        char* const end = write_json_string(room.data(), text);
        ASSERT_LE(static_cast<std::size_t>(end - room.data()), room.size());
        ASSERT_EQ(std::string_view(room.data(), end), json(text)) << size << " " << at << " " << byte;
      }
    }
  }
}

TEST(Ascii, WholeWordsAtOnceAreTheSameAsByteByByte) {
  for (std::size_t size = 0; size < 36; ++size) {
    for (std::size_t at = 0; at < size; ++at) {
      for (int byte = 0; byte < 256; ++byte) {
        std::string text(size, 'q'), other(size, 'Q');
        text[at] = static_cast<char>(byte);
        std::string lower = text;
        for (char& c : lower) c = ascii_lower(c);
        ASSERT_EQ(to_lower(text), lower);
        ASSERT_TRUE(equals_ignore_case(text, lower));
        ASSERT_EQ(equals_ignore_case(text, other), byte == 'q' || byte == 'Q');
        ASSERT_FALSE(equals_ignore_case(text, text.substr(1)));
        other[at] = static_cast<char>(byte ^ 0x20);
        ASSERT_EQ(equals_ignore_case(text, other), is_alpha(static_cast<char>(byte)));
      }
    }
  }
}

TEST(Append, WritesBehindWhatIsThereHoweverLittleRoomThereIs) {
  for (std::size_t reserved : {0, 20, 100, 1000}) {
    std::string out = "GET ", expected = out;
    out.reserve(reserved);
    {
      Appender to(out);
      for (std::uint64_t i = 0; i < 50; ++i) {
        to.text("/").decimal(i * 1'000'003).text({}).text("\r\n");
        expected += "/" + std::to_string(i * 1'000'003) + "\r\n";
      }
      to.cut(to.size() - 2);
      *to.room(1) = '!';
      to.advance_to(to.room(1) + 1);
    }
    expected.resize(expected.size() - 2);
    EXPECT_EQ(out, expected + "!");
  }
}

TEST(JsonText, WriterNestsAndSeparates) {
  std::string out;
  JsonWriter writer(out);
  writer.object([&] {
    writer.field("user", "ann");
    writer.field("used", 3U);
    writer.field("share", 0.5);
    writer.field("ok", true);
    writer.field_array("list", [&] {
      writer.value(1);
      writer.object([&] { writer.field("a", -1); });
      writer.null();
    });
    writer.field_object("empty", [] {});
  });
  EXPECT_EQ(out, R"({"user":"ann","used":3,"share":0.5,"ok":true,"list":[1,{"a":-1},null],"empty":{}})");
}

TEST(Ascii, DecimalTakesDigitsOnly) {
  EXPECT_EQ(parse_decimal("0"), 0U);
  EXPECT_EQ(parse_decimal("18446744073709551615"), UINT64_MAX);
  for (auto bad : {"", "+1", "-1", " 1", "1 ", "0x1", "1e3", "18446744073709551616", "1a"})
    EXPECT_FALSE(parse_decimal(bad)) << bad;
}

TEST(Ascii, ComparesAndTrims) {
  EXPECT_TRUE(equals_ignore_case("Content-Length", "content-LENGTH"));
  EXPECT_FALSE(equals_ignore_case("a", "ab"));
  EXPECT_TRUE(starts_with_ignore_case("BEARER x", "bearer "));
  EXPECT_EQ(trim(" \t a b\t"), "a b");
  EXPECT_EQ(to_lower("AbZ"), "abz");
}

TEST(Reason, EveryReasonHasItsOwnCodeAndAStatus) {
  std::vector<std::string_view> codes;
  for (std::size_t i = 0; i < kReasonCount; ++i) {
    const ReasonInfo& reason = info(static_cast<Reason>(i));
    EXPECT_FALSE(reason.code.empty());
    EXPECT_FALSE(reason.title.empty());
    EXPECT_TRUE(reason.status == 200 || (reason.status >= 400 && reason.status < 600));
    codes.push_back(reason.code);
  }
  std::sort(codes.begin(), codes.end());
  EXPECT_EQ(std::adjacent_find(codes.begin(), codes.end()), codes.end());
}

TEST(Time, WholeSecondsRoundDownBeforeTheEpochToo) {
  EXPECT_EQ(unix_seconds(UnixTime(Milliseconds(1'999))), 1);
  EXPECT_EQ(unix_seconds(UnixTime(Milliseconds(-1))), -1);
  EXPECT_EQ(unix_seconds(from_unix_seconds(42)), 42);
}

}  // namespace
}  // namespace tollgate
