#include "proxy/http/response_parser.h"

#include <gtest/gtest.h>

#include "tests/proxy/http/support/feed.h"

namespace tollgate::http::testing {
namespace {

class Accepted {
 public:
  explicit Accepted(std::string bytes, Asking asking = {}) : bytes_(std::move(bytes)), parser_({}) {
    parser_.expect(asking.method, asking.upgrade_offered);
    EXPECT_EQ(parser_.parse(bytes_), ParseStatus::complete) << parser_.failure().detail << "\n" << bytes_;
    response_however_cut(bytes_, asking);
  }
  const ResponseHead* operator->() const { return &parser_.head(); }
  std::size_t size() const { return parser_.head_size(); }

 private:
  std::string bytes_;
  ResponseParser parser_;
};

std::string status(std::string_view line, std::string_view fields = "") {
  return std::string(line) + "\r\n" + std::string(fields) + "\r\n";
}
std::string ok(std::string_view fields) {
  return status("HTTP/1.1 200 OK", fields);
}

struct Case {
  std::string name;
  std::string bytes;
  Asking asking{};
};

std::vector<Case> refused_cases() {
  return {
      {"BareLf", "HTTP/1.1 200 OK\nA: b\r\n\r\n"},
      {"BareCr", "HTTP/1.1 200 OK\rA: b\r\n\r\n"},
      {"EmptyLineBefore", "\r\nHTTP/1.1 200 OK\r\n\r\n"},
      {"Nul", ok(std::string("A: \0\r\n", 6))},
      {"Fold", ok("A: b\r\n c\r\n")},
      {"SpaceBeforeColon", ok("A : b\r\n")},
      {"EmptyName", ok(": b\r\n")},
      {"NoColon", ok("A\r\n")},
      {"Version09", status("HTTP/0.9 200 OK")},
      {"Version12", status("HTTP/1.2 200 OK")},
      {"Version2", status("HTTP/2 200 OK")},
      {"VersionLowerCase", status("http/1.1 200 OK")},
      {"VersionIcy", status("ICY 200 OK")},
      {"LeadingSpace", status(" HTTP/1.1 200 OK")},
      {"TwoSpaces", status("HTTP/1.1  200 OK")},
      {"StatusOfTwoDigits", status("HTTP/1.1 20 OK")},
      {"StatusOfFourDigits", status("HTTP/1.1 2000 OK")},
      {"StatusOfLetters", status("HTTP/1.1 abc OK")},
      {"StatusSigned", status("HTTP/1.1 +20 OK")},
      {"StatusMissing", status("HTTP/1.1 ")},
      {"Status099", status("HTTP/1.1 099 Low")},
      {"Status000", status("HTTP/1.1 000 Low")},
      {"Status600", status("HTTP/1.1 600 High")},
      {"StatusTab", status("HTTP/1.1 200\tOK")},
      {"ControlInPhrase", status("HTTP/1.1 200 O\x01K")},
      {"LengthAndCoding", ok("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")},
      {"LengthAndCodingToHead", ok("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), {"HEAD"}},
      {"LengthsConflict", ok("Content-Length: 5\r\nContent-Length: 6\r\n")},
      {"LengthsEqual", ok("Content-Length: 5\r\nContent-Length: 5\r\n")},
      {"LengthList", ok("Content-Length: 5, 5\r\n")},
      {"LengthSigned", ok("Content-Length: +5\r\n")},
      {"LengthEmpty", ok("Content-Length:\r\n")},
      {"LengthOverflow", ok("Content-Length: 9223372036854775808\r\n")},
      {"LengthBadToHead", ok("Content-Length: x\r\n"), {"HEAD"}},
      {"CodingGzip", ok("Transfer-Encoding: gzip\r\n")},
      {"CodingGzipChunked", ok("Transfer-Encoding: gzip, chunked\r\n")},
      {"CodingChunkedGzip", ok("Transfer-Encoding: chunked, gzip\r\n")},
      {"CodingIdentity", ok("Transfer-Encoding: identity\r\n")},
      {"CodingTwice", ok("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")},
      {"CodingIn10", status("HTTP/1.0 200 OK", "Transfer-Encoding: chunked\r\n")},
      {"InterimWithLength", status("HTTP/1.1 100 Continue", "Content-Length: 5\r\n")},
      {"InterimWithCoding", status("HTTP/1.1 103 Early Hints", "Transfer-Encoding: chunked\r\n")},
      {"SwitchNotAskedFor", status("HTTP/1.1 101 Switching Protocols", "Upgrade: x\r\n"), {"GET", false}},
      {"ConnectionNotToken", ok("Connection: a b\r\n")},
      {"HtmlInsteadOfHttp", "<html>\r\n"},
  };
}

class RefusedResponse : public ::testing::TestWithParam<Case> {};

TEST_P(RefusedResponse, IsUpstreamInvalidHoweverItIsCut) {
  const Parsed parsed = response_however_cut(GetParam().bytes, GetParam().asking);
  EXPECT_EQ(parsed.status, ParseStatus::failed) << parsed;
  EXPECT_EQ(parsed.failure.reason, Reason::upstream_invalid) << parsed;
  EXPECT_FALSE(parsed.failure.detail.empty());
}

INSTANTIATE_TEST_SUITE_P(Case, RefusedResponse, ::testing::ValuesIn(refused_cases()),
                         [](const auto& test) { return test.param.name; });

TEST(ResponseParser, StatusLineIsTakenApart) {
  Accepted head(status("HTTP/1.1 404 Not Found, caf\xe9", "Content-Length: 12\r\nX: y\r\n") + "body");
  EXPECT_EQ(head->status, 404);
  EXPECT_EQ(head->reason_phrase, "Not Found, caf\xe9");
  EXPECT_EQ(head->minor_version, 1);
  EXPECT_EQ(head->framing, Framing::length);
  EXPECT_EQ(head->content_length, 12U);
  EXPECT_TRUE(head->keep_alive);
  EXPECT_EQ(head->fields.size(), 2U);
}

TEST(ResponseParser, ReasonPhraseMayBeMissing) {
  EXPECT_EQ(Accepted(status("HTTP/1.1 200 "))->reason_phrase, "");
  EXPECT_EQ(Accepted(status("HTTP/1.1 200"))->reason_phrase, "");
}

TEST(ResponseParser, FramingFollowsRfc9112Section63) {
  EXPECT_EQ(Accepted(ok("Transfer-Encoding: chunked\r\n"))->framing, Framing::chunked);
  EXPECT_EQ(Accepted(ok("Content-Length: 0\r\n"))->framing, Framing::length);
  Accepted open(ok(""));
  EXPECT_EQ(open->framing, Framing::until_close);
  EXPECT_FALSE(open->keep_alive);
  EXPECT_EQ(Accepted(ok("Content-Length: 5\r\n"), {"HEAD"})->framing, Framing::none);
  EXPECT_EQ(Accepted(ok("Transfer-Encoding: chunked\r\n"), {"HEAD"})->framing, Framing::none);
  EXPECT_TRUE(Accepted(ok(""), {"HEAD"})->keep_alive);
  EXPECT_EQ(Accepted(status("HTTP/1.1 304 Not Modified", "Content-Length: 5\r\n"))->framing, Framing::none);
  EXPECT_EQ(Accepted(status("HTTP/1.1 304 Not Modified", "Content-Length: 5\r\n"))->content_length, 5U);
  EXPECT_EQ(Accepted(status("HTTP/1.1 204 No Content"))->framing, Framing::none);
  EXPECT_TRUE(Accepted(status("HTTP/1.1 204 No Content"))->keep_alive);
  EXPECT_EQ(Accepted(status("HTTP/1.1 205 Reset Content", "Content-Length: 0\r\n"))->framing,
            Framing::length);
  EXPECT_EQ(Accepted(ok("Content-Length: 9\r\n"), {"CONNECT"})->framing, Framing::none);
  EXPECT_EQ(Accepted(status("HTTP/1.1 403 No", "Content-Length: 9\r\n"), {"CONNECT"})->framing,
            Framing::length);
  EXPECT_EQ(Accepted(ok("Content-Length: 5\r\n"), {"head"})->framing, Framing::length) << "methods have case";
}

TEST(ResponseParser, InterimResponsesHaveNoBodyAndKeepTheConnection) {
  for (std::string line : {"HTTP/1.1 100 Continue", "HTTP/1.1 102 Processing", "HTTP/1.1 103 Early Hints"}) {
    Accepted head(status(line, "Link: </a>\r\n"));
    EXPECT_EQ(head->framing, Framing::none);
    EXPECT_TRUE(head->keep_alive);
  }
}

TEST(ResponseParser, FinalResponseIsReadAfterInterimOne) {
  const std::string interim = status("HTTP/1.1 100 Continue"), last = ok("Content-Length: 2\r\n");
  const std::string bytes = interim + last;
  ResponseParser parser({});
  parser.expect("HEAD");
  ASSERT_EQ(parser.parse(bytes), ParseStatus::complete);
  EXPECT_EQ(parser.head().status, 100);
  EXPECT_EQ(parser.head_size(), interim.size());
  parser.reset();
  ASSERT_EQ(parser.parse(std::string_view(bytes).substr(interim.size())), ParseStatus::complete);
  EXPECT_EQ(parser.head().status, 200);
  EXPECT_EQ(parser.head().framing, Framing::none) << "still the reply to HEAD";
}

TEST(ResponseParser, SwitchingProtocolsLeavesHttp) {
  Accepted head(status("HTTP/1.1 101 Switching Protocols", "Connection: upgrade\r\nUpgrade: websocket\r\n"));
  EXPECT_EQ(head->framing, Framing::none);
  EXPECT_FALSE(head->keep_alive);
}

TEST(ResponseParser, ConnectionThatMayHoldAnUnannouncedBodyIsNotUsedAgain) {
  Accepted head(status("HTTP/1.1 204 No Content", "Content-Length: 5\r\n"));
  EXPECT_EQ(head->framing, Framing::none);
  EXPECT_FALSE(head->keep_alive);
  EXPECT_FALSE(Accepted(status("HTTP/1.1 204 No Content", "Transfer-Encoding: chunked\r\n"))->keep_alive);
  EXPECT_TRUE(Accepted(status("HTTP/1.1 204 No Content", "Content-Length: 0\r\n"))->keep_alive);
}

TEST(ResponseParser, KeepAliveFollowsVersionAndConnection) {
  EXPECT_FALSE(Accepted(ok("Content-Length: 0\r\nConnection: close\r\n"))->keep_alive);
  EXPECT_FALSE(Accepted(status("HTTP/1.0 200 OK", "Content-Length: 0\r\n"))->keep_alive);
  EXPECT_TRUE(
      Accepted(status("HTTP/1.0 200 OK", "Content-Length: 0\r\nConnection: keep-alive\r\n"))->keep_alive);
  EXPECT_FALSE(Accepted(status("HTTP/1.0 200 OK", "Connection: keep-alive\r\n"))->keep_alive)
      << "until close";
}

TEST(ResponseParser, LimitsAreUpstreamInvalid) {
  const HeadLimits limits{.head_bytes = 64, .request_line = 32, .field_count = 2};
  for (const std::string& bytes :
       {ok("A: " + std::string(80, 'a') + "\r\n"), status("HTTP/1.1 200 " + std::string(40, 'a')),
        ok("A: 1\r\nB: 2\r\nC: 3\r\n")}) {
    const Parsed parsed = response_however_cut(bytes, {}, limits);
    EXPECT_EQ(parsed.status, ParseStatus::failed);
    EXPECT_EQ(parsed.failure.reason, Reason::upstream_invalid);
  }
}

}  // namespace
}  // namespace tollgate::http::testing
