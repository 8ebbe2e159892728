// What is accepted, and what is understood.
#include "proxy/http/request_parser.h"

#include <gtest/gtest.h>

#include "tests/proxy/http/support/feed.h"

namespace tollgate::http::testing {
namespace {

// Parses and keeps bytes and head together.
class Accepted {
 public:
  explicit Accepted(std::string bytes, HeadLimits limits = {}) : bytes_(std::move(bytes)), parser_(limits) {
    EXPECT_EQ(parser_.parse(bytes_), ParseStatus::complete) << parser_.failure().detail << "\n" << bytes_;
    request_however_cut(bytes_, limits);
  }
  const RequestHead* operator->() const { return &parser_.head(); }
  std::size_t size() const { return parser_.head_size(); }

 private:
  std::string bytes_;
  RequestParser parser_;
};

std::string get(std::string_view fields) {
  return "GET / HTTP/1.1\r\nHost: a\r\n" + std::string(fields) + "\r\n";
}
std::string post(std::string_view fields) {
  return "POST / HTTP/1.1\r\nHost: a\r\n" + std::string(fields) + "\r\n";
}
std::string target(std::string_view text) {
  return "GET " + std::string(text) + " HTTP/1.1\r\nHost: a\r\n\r\n";
}

TEST(RequestParser, CrmReadIsTakenApart) {
  Accepted head(
      "GET /0/odata/Case?$filter=Number%20eq%20'SR1'&$top=5 HTTP/1.1\r\nHost: crm.example:8443\r\n"
      "Authorization: Bearer abc\r\nAccept: application/json\r\n\r\n");
  EXPECT_EQ(head->method, "GET");
  EXPECT_EQ(head->target, "/0/odata/Case?$filter=Number%20eq%20'SR1'&$top=5");
  EXPECT_EQ(head->path, "/0/odata/Case");
  EXPECT_EQ(head->query, "$filter=Number%20eq%20'SR1'&$top=5");
  EXPECT_TRUE(head->has_query);
  EXPECT_EQ(head->authority, "crm.example:8443");
  EXPECT_EQ(head->minor_version, 1);
  ASSERT_EQ(head->fields.size(), 3U);
  EXPECT_EQ(head->fields[1].name, "Authorization");
  EXPECT_EQ(head->fields[1].value, "Bearer abc");
  EXPECT_EQ(head->framing, Framing::none);
  EXPECT_TRUE(head->keep_alive);
  EXPECT_FALSE(head->expect_continue);
  EXPECT_FALSE(head->wants_upgrade);
}

TEST(RequestParser, HeadIsKnownWhateverIsWrongWithTheRest) {
  const std::string refused[] = {"HEAD / HTTP/1.1\r\nA : b\r\n\r\n", "\r\nHEAD / HTTP/1.1\r\n\r\n",
                                 "HEAD /" + std::string(200, 'x'), "HEAD / HTTP/3\r\n",
                                 "HEAD / HTTP/1.1\r\nA: " + std::string(500, 'x')};
  for (const std::string& bytes : refused) {
    RequestParser parser({.head_bytes = 256, .request_line = 100});
    ASSERT_EQ(parser.parse(bytes), ParseStatus::failed) << bytes;
    EXPECT_TRUE(parser.asks_head()) << bytes;
    parser.reset();
    EXPECT_FALSE(parser.asks_head());
  }
  for (const std::string bytes :
       {"GET / HTTP/1.1\r\nHEAD : b\r\n\r\n", "HEADS / HTTP/1.1\r\n\r\n", "HEAD\t/ x\r\n"}) {
    RequestParser parser({});
    ASSERT_EQ(parser.parse(bytes), ParseStatus::failed) << bytes;
    EXPECT_FALSE(parser.asks_head()) << bytes;
  }
  RequestParser slow({});
  EXPECT_EQ(slow.parse("HEAD /x"), ParseStatus::incomplete);
  EXPECT_TRUE(slow.asks_head());
}

TEST(RequestParser, HeadEndsBeforeBodyAndPipelinedRequest) {
  Accepted head("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n");
  EXPECT_EQ(head.size(), std::string_view("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n").size());
  EXPECT_EQ(head->content_length, 3U);
}

TEST(RequestParser, AnyMethodTokenIsAccepted) {
  for (std::string method : {"MERGE", "PATCH", "PROPFIND", "M-SEARCH", "get", "X!#$%&'*+-.^_`|~9"}) {
    Accepted head(method + " / HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_EQ(head->method, method);
  }
}

TEST(RequestParser, BodyOnGetHeadAndDeleteIsLegal) {
  for (std::string method : {"GET", "HEAD", "DELETE"}) {
    Accepted head(method + " / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n");
    EXPECT_EQ(head->framing, Framing::length);
    EXPECT_EQ(head->content_length, 7U);
    Accepted chunked(method + " / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    EXPECT_EQ(chunked->framing, Framing::chunked);
  }
}

TEST(RequestParser, LengthZeroIsFramingLength) {
  Accepted head(post("Content-Length: 0\r\n"));
  EXPECT_EQ(head->framing, Framing::length);
  EXPECT_EQ(head->content_length, 0U);
}

TEST(RequestParser, LargestLengthIs2To63Minus1) {
  EXPECT_EQ(Accepted(post("Content-Length: 9223372036854775807\r\n"))->content_length,
            9223372036854775807ULL);
}

TEST(RequestParser, LengthMayHaveLeadingZerosAndBlanksAround) {
  EXPECT_EQ(Accepted(post("Content-Length: \t 0012 \t\r\n"))->content_length, 12U);
}

TEST(RequestParser, ChunkedInAnyCaseIsChunked) {
  EXPECT_EQ(Accepted(post("transfer-encoding:CHUNKED\r\n"))->framing, Framing::chunked);
  EXPECT_EQ(Accepted(post("Transfer-Encoding: \t Chunked \t \r\n"))->framing, Framing::chunked);
}

TEST(RequestParser, FieldValuesLoseOuterBlanksOnly) {
  Accepted head(get("A:x\r\nB: \t x  y\t\r\nC:\r\nD: \t \r\nE: caf\xe9 \xc3\xa9\r\nF: a:b\r\n"));
  EXPECT_EQ(find(head->fields, "a")->value, "x");
  EXPECT_EQ(find(head->fields, "B")->value, "x  y");
  EXPECT_EQ(find(head->fields, "C")->value, "");
  EXPECT_EQ(find(head->fields, "D")->value, "");
  EXPECT_EQ(find(head->fields, "E")->value, "caf\xe9 \xc3\xa9");
  EXPECT_EQ(find(head->fields, "F")->value, "a:b");
}

TEST(RequestParser, FieldsMayRepeatAndKeepTheirOrder) {
  Accepted head(get("X: 1\r\nCookie: a=b\r\nX: 2\r\nCookie: c=d\r\n"));
  ASSERT_EQ(head->fields.size(), 5U);
  EXPECT_EQ(head->fields[1].value, "1");
  EXPECT_EQ(head->fields[3].value, "2");
}

TEST(RequestParser, TargetMayHoldWhatOdataClientsSendUnencoded) {
  const std::string odata =
      "/0/odata/Case(00000000-0000-0000-0000-000000000000)?$expand=a($select=b;$top=1)&x={\"y\":[1|2]}^`<>";
  EXPECT_EQ(Accepted(target(odata))->target, odata);
  EXPECT_EQ(Accepted(target("/a?b=c\\d"))->query, "b=c\\d");
}

TEST(RequestParser, PercentEncodedControlsOtherThanNulPass) {
  EXPECT_EQ(Accepted(target("/a?b=%0D%0a%1f"))->query, "b=%0D%0a%1f");
}

TEST(RequestParser, QueryMayBeEmptyAndMayHoldQuestionMarks) {
  Accepted empty(target("/a?"));
  EXPECT_TRUE(empty->has_query);
  EXPECT_EQ(empty->query, "");
  EXPECT_EQ(Accepted(target("/a?b?c"))->query, "b?c");
  EXPECT_FALSE(Accepted(target("/a"))->has_query);
}

TEST(RequestParser, PathMayBeginWithTwoSlashes) {
  EXPECT_EQ(Accepted(target("//b/c"))->path, "//b/c");
}

TEST(RequestParser, AsteriskIsForOptions) {
  Accepted head("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(head->path, "*");
  EXPECT_FALSE(head->has_query);
}

TEST(RequestParser, AbsoluteFormIsTakenApart) {
  Accepted head("GET HTTP://CRM.example/0/odata?a HTTP/1.1\r\nHost: crm.EXAMPLE\r\n\r\n");
  EXPECT_EQ(head->path, "/0/odata");
  EXPECT_EQ(head->query, "a");
  EXPECT_EQ(head->authority, "CRM.example");
}

TEST(RequestParser, AbsoluteFormWithoutPathIsTheRoot) {
  EXPECT_EQ(Accepted("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n")->path, "/");
  Accepted query("GET http://a?q HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(query->path, "/");
  EXPECT_EQ(query->query, "q");
  EXPECT_EQ(Accepted("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n")->path, "*");
  EXPECT_EQ(Accepted("OPTIONS http://a/ HTTP/1.1\r\nHost: a\r\n\r\n")->path, "/");
}

TEST(RequestParser, AbsoluteFormAndHostMayDifferByTheDefaultPort) {
  Accepted("GET http://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n");
  Accepted("GET http://a/ HTTP/1.1\r\nHost: a:80\r\n\r\n");
  Accepted("GET https://a/ HTTP/1.1\r\nHost: a:443\r\n\r\n");
  Accepted("GET http://a:8080/ HTTP/1.1\r\nHost: a:8080\r\n\r\n");
}

TEST(RequestParser, AbsoluteFormIn10NeedsNoHost) {
  Accepted head("GET http://a:81/x HTTP/1.0\r\n\r\n");
  EXPECT_EQ(head->authority, "a:81");
}

TEST(RequestParser, HostFormsThatAreGood) {
  for (std::string host : {"a", "A-b_c~d.Example", "example.com.", "127.0.0.1", "127.0.0.1:80", "[::1]",
                           "[2001:db8::1]:8443", "[::ffff:192.0.2.1]", "a:0", "a:65535"}) {
    Accepted head("GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n");
    EXPECT_EQ(head->authority, host);
  }
}

TEST(RequestParser, EmptyPortOfHostIsLeftOut) {
  EXPECT_EQ(Accepted("GET / HTTP/1.1\r\nHost: a:\r\n\r\n")->authority, "a");
  EXPECT_EQ(Accepted("GET / HTTP/1.1\r\nHost: [::1]:\r\n\r\n")->authority, "[::1]");
}

TEST(RequestParser, KeepAliveFollowsVersionAndConnection) {
  EXPECT_TRUE(Accepted(get(""))->keep_alive);
  EXPECT_FALSE(Accepted(get("Connection: close\r\n"))->keep_alive);
  EXPECT_FALSE(Accepted(get("Connection: x-a , CLOSE\r\n"))->keep_alive);
  EXPECT_FALSE(Accepted(get("Connection: keep-alive\r\nConnection: close\r\n"))->keep_alive);
  EXPECT_TRUE(Accepted(get("Connection:\r\n"))->keep_alive);
  EXPECT_FALSE(Accepted("GET / HTTP/1.0\r\n\r\n")->keep_alive);
  EXPECT_TRUE(Accepted("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")->keep_alive);
  EXPECT_FALSE(Accepted("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n")->keep_alive);
}

TEST(RequestParser, ExpectContinueCountsOnlyWithABodyInHttp11) {
  EXPECT_TRUE(Accepted(post("Content-Length: 1\r\nExpect: 100-Continue\r\n"))->expect_continue);
  EXPECT_TRUE(Accepted(post("Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n"))->expect_continue);
  EXPECT_FALSE(Accepted(post("Content-Length: 0\r\nExpect: 100-continue\r\n"))->expect_continue);
  EXPECT_FALSE(Accepted(post("Expect: 100-continue\r\n"))->expect_continue);
  EXPECT_FALSE(
      Accepted("POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")->expect_continue);
}

TEST(RequestParser, UpgradeNeedsConnectionFieldAndNoBody) {
  EXPECT_TRUE(Accepted(get("Connection: Upgrade\r\nUpgrade: websocket\r\n"))->wants_upgrade);
  EXPECT_TRUE(Accepted(get("Connection: keep-alive, upgrade\r\nUpgrade: a/1, b\r\n"))->wants_upgrade);
  EXPECT_FALSE(Accepted(get("Upgrade: websocket\r\n"))->wants_upgrade);
  EXPECT_FALSE(Accepted(get("Connection: upgrade\r\n"))->wants_upgrade);
  EXPECT_FALSE(Accepted(get("Connection: upgrade\r\nUpgrade:\r\n"))->wants_upgrade);
  EXPECT_FALSE(
      Accepted(get("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n"))->wants_upgrade);
  EXPECT_FALSE(
      Accepted(get("Connection: upgrade\r\nUpgrade: x\r\nTransfer-Encoding: chunked\r\n"))->wants_upgrade);
  EXPECT_FALSE(
      Accepted("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")->wants_upgrade);
}

TEST(RequestParser, UpgradeToAProtocolThatHidesRequestsIsIgnored) {
  for (std::string protocol : {"h2c", "H2C", "h2", "HTTP/2.0", "TLS/1.0", "websocket, h2c", "connect-udp"}) {
    EXPECT_FALSE(Accepted(get("Connection: upgrade, http2-settings\r\nHTTP2-Settings: AAMAAABk\r\nUpgrade: " +
                              protocol + "\r\n"))
                     ->wants_upgrade)
        << protocol;
  }
}

TEST(RequestParser, UpToFourEmptyLinesBeforeTheRequestAreSkipped) {
  Accepted head("\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(head->method, "GET");
  EXPECT_EQ(head.size(), std::string_view("\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").size());
}

TEST(RequestParser, StartedTellsARequestFromEmptyLines) {
  RequestParser parser({});
  EXPECT_EQ(parser.parse("\r\n\r\n"), ParseStatus::incomplete);
  EXPECT_FALSE(parser.started());
  EXPECT_EQ(parser.parse("\r\n\r\nG"), ParseStatus::incomplete);
  EXPECT_TRUE(parser.started());
}

TEST(RequestParser, ResetForgetsEverythingOfTheLastMessage) {
  RequestParser parser({});
  const std::string first = post("Content-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n");
  ASSERT_EQ(parser.parse(first), ParseStatus::complete);
  parser.reset();
  const std::string second = get("");
  ASSERT_EQ(parser.parse(second), ParseStatus::complete);
  EXPECT_EQ(describe(parser.head()), parse_request(second).head);
  parser.reset();
  ASSERT_EQ(parser.parse("x\n"), ParseStatus::failed);
  parser.reset();
  ASSERT_EQ(parser.parse(second), ParseStatus::complete);
}

TEST(RequestParser, FieldVectorIsKeptForTheNextMessage) {
  RequestParser parser({});
  const std::string bytes = get("A: 1\r\nB: 2\r\nC: 3\r\n");
  ASSERT_EQ(parser.parse(bytes), ParseStatus::complete);
  const Field* const place = parser.head().fields.data();
  for (int i = 0; i < 10; ++i) {
    parser.reset();
    ASSERT_EQ(parser.parse(bytes), ParseStatus::complete);
    EXPECT_EQ(parser.head().fields.data(), place);
  }
}

TEST(RequestParser, CompleteAndFailedStayUntilReset) {
  RequestParser parser({});
  ASSERT_EQ(parser.parse("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), ParseStatus::complete);
  EXPECT_EQ(parser.parse("GET / HTTP/1.1\r\nHost: a\r\n\r\nmore"), ParseStatus::complete);
  RequestParser broken({});
  ASSERT_EQ(broken.parse("GET /\n"), ParseStatus::failed);
  EXPECT_EQ(broken.parse("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), ParseStatus::failed);
}

TEST(RequestParser, HeadFollowsABufferThatMovesAfterItIsComplete) {
  for (std::string text : {"POST http://a HTTP/1.1\r\nHost: a:80\r\nContent-Length: 4\r\n\r\n",
                           "POST /x?y HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"}) {
    RequestParser parser({});
    auto small = std::make_unique<std::string>(text);
    ASSERT_EQ(parser.parse(*small), ParseStatus::complete);
    const std::string before = describe(parser.head());
    const std::string grown = text + "body";
    ASSERT_EQ(parser.parse(grown), ParseStatus::complete);
    small->assign(small->size(), 'X');
    EXPECT_EQ(describe(parser.head()), before);
  }
}

TEST(RequestParser, RequestLineAtTheLimitPassesAndOneByteMoreIs414) {
  HeadLimits limits{.head_bytes = 4096, .request_line = 64, .field_count = 8};
  const auto line = [](std::size_t size) {
    return "GET /" + std::string(size - std::string_view("GET / HTTP/1.1").size(), 'a') +
           " HTTP/1.1\r\nHost: a\r\n\r\n";
  };
  EXPECT_EQ(request_however_cut(line(64), limits).status, ParseStatus::complete);
  EXPECT_EQ(request_however_cut(line(65), limits).failure.reason, Reason::uri_too_long);
  EXPECT_EQ(request_however_cut(std::string(65, 'a'), limits).failure.reason, Reason::uri_too_long);
  EXPECT_EQ(request_however_cut(std::string(64, 'a'), limits).status, ParseStatus::incomplete);
  EXPECT_EQ(request_however_cut(std::string(70, 'a') + "\n", limits).failure.reason, Reason::uri_too_long);
}

TEST(RequestParser, HeadAtTheLimitPassesAndOneByteMoreIs431) {
  const std::string bytes = get("X: " + std::string(100, 'a') + "\r\n");
  HeadLimits limits{.head_bytes = bytes.size(), .request_line = 64, .field_count = 8};
  EXPECT_EQ(request_however_cut(bytes, limits).status, ParseStatus::complete);
  EXPECT_EQ(request_however_cut(bytes + "body", limits).status, ParseStatus::complete);
  limits.head_bytes -= 1;
  EXPECT_EQ(request_however_cut(bytes, limits).failure.reason, Reason::header_too_large);
  limits.head_bytes = 60;
  EXPECT_EQ(request_however_cut(bytes, limits).failure.reason, Reason::header_too_large);
  limits.head_bytes = 10;  // below the limit of the request line
  EXPECT_EQ(request_however_cut(bytes, limits).failure.reason, Reason::header_too_large);
}

TEST(RequestParser, EveryHeadLimitGivesOneOutcomeHoweverCut) {
  for (const std::string& bytes : {get("X: abc\r\nY: d\r\n"), std::string("\r\nGET / HTTP/1.1\r\nHost: a\nX"),
                                   std::string("GET / HTTP/1.1\r\n\rx")}) {
    for (std::size_t head = 1; head < bytes.size() + 2; ++head)
      for (std::size_t line : {1U, 13U, 14U, 60U}) request_however_cut(bytes, {head, line, 3});
  }
}

TEST(RequestParser, FieldCountAtTheLimitPassesAndOneMoreIs431) {
  const HeadLimits limits{.head_bytes = 4096, .request_line = 64, .field_count = 3};
  EXPECT_EQ(request_however_cut(get("A: 1\r\nB: 2\r\n"), limits).status, ParseStatus::complete);
  EXPECT_EQ(request_however_cut(get("A: 1\r\nB: 2\r\nC: 3\r\n"), limits).failure.reason,
            Reason::header_too_large);
}

TEST(RequestParser, FailureIsKnownAsSoonAsTheOffendingByteIs) {
  for (std::string bytes : {"GET / HTTP/1.1\n", "G\x01", "GET / HTTP/1.1\r\nHost: a\rX", "GET / HTTP/2.0\r\n",
                            "GET / HTTP/1.1\r\nA : b\r\n", "CONNECT a:1 HTTP/1.1\r\n",
                            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n"}) {
    EXPECT_EQ(parse_request(bytes).status, ParseStatus::failed) << bytes;
    EXPECT_EQ(parse_request(bytes.substr(0, bytes.size() - 1)).status, ParseStatus::incomplete) << bytes;
  }
}

// Quadratic scanning would take days.
TEST(RequestParser, FieldOf8MiBFedByteByByteIsScannedOnce) {
  const std::string bytes = get("X: " + std::string(8U << 20, 'a') + "\r\n");
  RequestParser parser({.head_bytes = 16U << 20, .request_line = 64, .field_count = 8});
  for (std::size_t size = 1; size < bytes.size(); ++size)
    ASSERT_EQ(parser.parse(std::string_view(bytes).substr(0, size)), ParseStatus::incomplete);
  EXPECT_EQ(parser.parse(bytes), ParseStatus::complete);
}

}  // namespace
}  // namespace tollgate::http::testing
