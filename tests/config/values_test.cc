#include "config/values.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/suggest.h"
#include "metering/base/random.h"

namespace tollgate::config {
namespace {

using namespace std::chrono_literals;

TEST(Duration, UnitsAndSums) {
  EXPECT_EQ(parse_duration("250ms"), Milliseconds(250));
  EXPECT_EQ(parse_duration("10s"), Milliseconds(10'000));
  EXPECT_EQ(parse_duration("24h"), Milliseconds(86'400'000));
  EXPECT_EQ(parse_duration("31d"), Milliseconds(31LL * 86'400'000));
  EXPECT_EQ(parse_duration("1h30m"), Milliseconds(5'400'000));
  EXPECT_EQ(parse_duration("1d2h3m4s5ms"), Milliseconds(86'400'000 + 7'200'000 + 180'000 + 4'005));
  EXPECT_EQ(parse_duration("0"), Milliseconds(0));
  EXPECT_EQ(parse_duration("0s"), Milliseconds(0));
}

TEST(Duration, EverythingElseIsRefused) {
  for (std::string_view text : {"", "s", "5", "-5s", "5S", "5 s", " 5s", "5s ", "1m1h", "5s5s", "1.5s", "5us",
                                "5w", "+5s", "05s", "5ss", "99999999999999999999s", "9999999d", "5m5"})
    EXPECT_FALSE(parse_duration(text).has_value()) << text;
}

TEST(Duration, ItsTextReadsBackAsTheSame) {
  Random random(20261122);
  for (int i = 0; i < 2'000; ++i) {
    Milliseconds d(static_cast<std::int64_t>(random.below(1ULL << (1 + random.below(38)))));
    EXPECT_EQ(parse_duration(duration_text(d)), d) << duration_text(d) << " seed 20261122";
  }
  EXPECT_EQ(duration_text(24h), "1d");
  EXPECT_EQ(duration_text(1500ms), "1500ms");
}

TEST(Size, PowersOf1024) {
  EXPECT_EQ(parse_size("512"), 512U);
  EXPECT_EQ(parse_size("64KiB"), 65'536U);
  EXPECT_EQ(parse_size("8MiB"), 8U << 20);
  EXPECT_EQ(parse_size("1GiB"), 1U << 30);
  for (std::string_view text :
       {"", "64kb", "64K", "1.5MiB", "64 KiB", "KiB", "-1", "1TiB", "99999999999999GiB", "0x40"})
    EXPECT_FALSE(parse_size(text).has_value()) << text;
}

TEST(Size, ItsTextReadsBackAsTheSame) {
  Random random(7);
  for (int i = 0; i < 2'000; ++i) {
    std::uint64_t bytes = random.next() >> random.below(64);
    EXPECT_EQ(parse_size(size_text(bytes)), bytes) << size_text(bytes) << " seed 7";
  }
}

struct Case {
  Format format;
  std::string_view text, normal;  // normal "": refused
};
class Formats : public testing::TestWithParam<Case> {};
TEST_P(Formats, AreCheckedAndNormalised) {
  auto checked = check_format(GetParam().text, GetParam().format);
  if (GetParam().normal.empty())
    EXPECT_FALSE(checked.has_value()) << GetParam().text;
  else
    EXPECT_EQ(checked, std::string(GetParam().normal)) << GetParam().text;
}
INSTANTIATE_TEST_SUITE_P(
    Values, Formats,
    testing::Values(
        Case{Format::listen_address, "127.0.0.1:0", "127.0.0.1:0"},
        Case{Format::listen_address, "[::]:8080", "[::]:8080"},
        Case{Format::listen_address, "LOCALHOST:1", "127.0.0.1:1"},
        Case{Format::listen_address, "::1:80", ""}, Case{Format::listen_address, "[::1]", ""},
        Case{Format::listen_address, "1.2.3:80", ""}, Case{Format::listen_address, "127.0.0.1:", ""},
        Case{Format::listen_address, "127.0.0.1:080", ""}, Case{Format::listen_address, "*:80", ""},
        Case{Format::listen_address, "127.0.0.1:80/x", ""},
        Case{Format::server_url, "http://crm", "http://crm:80"},
        Case{Format::server_url, "https://[::1]:8443/", "https://[::1]:8443"},
        Case{Format::server_url, "https://[::1]", "https://[::1]:443"},
        Case{Format::server_url, "http://a/b", ""}, Case{Format::server_url, "http://", ""},
        Case{Format::server_url, "http://a:0", ""}, Case{Format::server_url, "http://a:b", ""},
        Case{Format::server_url, "http://u@a", ""}, Case{Format::server_url, "http://a b", ""},
        Case{Format::server_url, "http://a..b", ""}, Case{Format::server_url, "http://1.2.3", ""},
        Case{Format::server_url, "crm:80", ""}, Case{Format::server_url, "http://a:", ""},
        Case{Format::server_url, "http://a?x", ""},
        Case{Format::store_url, "embedded:redis", "embedded:redis"},
        Case{Format::store_url, "redis://h", "redis://h"},
        Case{Format::store_url, "redis://:p%40@[::1]:6380/2", "redis://:p%40@[::1]:6380/2"},
        Case{Format::store_url, "redis://h?x=1", ""},
        Case{Format::store_url, "redis+unix:///run/r.sock?db=2", "redis+unix:///run/r.sock?db=2"},
        Case{Format::store_url, "redis+unix://u:p@/run/r.sock", "redis+unix://u:p@/run/r.sock"},
        Case{Format::store_url, "redis+unix:///run/r.sock?x=2", ""},
        Case{Format::store_url, "redis+sentinel://u:p@h,[::1]:26380/mymaster/2",
             "redis+sentinel://u:p@h,[::1]:26380/mymaster/2"},
        Case{Format::store_url, "rediss+sentinel://h/mymaster", "rediss+sentinel://h/mymaster"},
        Case{Format::store_url, "rediss+cluster://a:7000,b:7001", "rediss+cluster://a:7000,b:7001"},
        Case{Format::store_url, "redis+cluster://a,", ""}, Case{Format::network, "0.0.0.0/0", "0.0.0.0/0"},
        Case{Format::network, "::/0", "::/0"}, Case{Format::network, "10.1.2.3", "10.1.2.3"},
        Case{Format::network, "10.0.0.0/", ""}, Case{Format::network, "10.0.0.0/08", ""},
        Case{Format::network, "::1/129", ""}, Case{Format::network, "10.128.0.0/9", "10.128.0.0/9"},
        Case{Format::network, "10.128.0.0/8", ""},
        Case{Format::host_name, "Portal.Example", "portal.example"}, Case{Format::host_name, "a:80", ""},
        Case{Format::host_name, "http://a", ""}, Case{Format::path_prefix, "/0/odata", "/0/odata"},
        Case{Format::path_prefix, "/a b", ""}, Case{Format::header_name, "x-token", "x-token"},
        Case{Format::header_name, "x token", ""}, Case{Format::any, "a\nb", ""},
        Case{Format::uid, "{117d32f9}", ""}));

TEST(Redact, PasswordOnly) {
  EXPECT_EQ(redact_url("redis://user:pa:ss@host/0"), "redis://user:***@host/0");
  EXPECT_EQ(redact_url("redis://:p@h"), "redis://:***@h");
  EXPECT_EQ(redact_url("redis://user@h"), "redis://user@h");
  EXPECT_EQ(redact_url("embedded:a@b"), "embedded:a@b");
}

TEST(Suggest, NearestNameOrNone) {
  Names names{"listeners", "limits", "licensing"};
  EXPECT_EQ(nearest("listner", names), "listeners");
  EXPECT_EQ(nearest("lisen", names), "listeners");
  EXPECT_EQ(nearest("LIMITS", names), "limits");
  EXPECT_EQ(nearest("limist", names), "limits") << "swapped neighbours are one mistake";
  EXPECT_EQ(nearest("zebra", names), "");
  EXPECT_EQ(nearest("", names), "");
  EXPECT_EQ(nearest(std::string(100'000, 'l'), names), "");
  EXPECT_EQ(edit_distance("abc", "acb"), 1U);
  EXPECT_EQ(edit_distance("", "abc"), 3U);
}

}  // namespace
}  // namespace tollgate::config
