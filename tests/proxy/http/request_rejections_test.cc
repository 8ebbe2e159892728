// Every message that must be refused, one named case each. Each is also fed cut at every byte and byte by
// byte.
#include <gtest/gtest.h>

#include "tests/proxy/http/support/feed.h"

namespace tollgate::http::testing {
namespace {

struct Case {
  std::string name;
  std::string bytes;
  Reason reason = Reason::bad_request;
};

std::string operator""_bytes(const char* text, std::size_t size) {
  return {text, size};
}

// A request with this line and a good Host.
std::string line(std::string_view request_line) {
  return std::string(request_line) + "\r\nHost: a\r\n\r\n";
}
// A good GET with these field lines after Host.
std::string with(std::string_view fields) {
  return "GET / HTTP/1.1\r\nHost: a\r\n" + std::string(fields) + "\r\n";
}
std::string post(std::string_view fields) {
  return "POST / HTTP/1.1\r\nHost: a\r\n" + std::string(fields) + "\r\n";
}
std::string host(std::string_view value) {
  return "GET / HTTP/1.1\r\nHost: " + std::string(value) + "\r\n\r\n";
}

std::vector<Case> line_cases() {
  return {
      {"BareLfAfterRequestLine", "GET / HTTP/1.1\nHost: a\r\n\r\n"},
      {"BareLfAfterField", "GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n"},
      {"BareLfAsEndOfHead", "GET / HTTP/1.1\r\nHost: a\r\n\n"},
      {"BareLfBeforeRequestLine", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"},
      {"OnlyLfEverywhere", "GET / HTTP/1.1\nHost: a\n\n"},
      {"BareCrInRequestLine", "GET /\rx HTTP/1.1\r\nHost: a\r\n\r\n"},
      {"BareCrInFieldValue", with("X: a\rb\r\n")},
      {"BareCrAfterFieldLine", "GET / HTTP/1.1\r\nHost: a\rX: 1\r\n\r\n"},
      {"CrCrLfAfterField", with("X: a\r\r\n")},
      {"CrAsEndOfHead", "GET / HTTP/1.1\r\nHost: a\r\n\rX"},
      {"NulInFieldValue", with("X: a\0b\r\n"_bytes)},
      {"NulInFieldName", with("X\0Y: a\r\n"_bytes)},
      {"NulInTarget", line("GET /\0 HTTP/1.1"_bytes)},
      {"VerticalTabInFieldValue", with("X: a\x0b\r\n")},
      {"FormFeedInFieldValue", with("X: a\x0c\r\n")},
      {"BellInFieldValue", with("X: \x07\r\n")},
      {"DelInFieldValue", with("X: a\x7f\r\n")},
      {"EscapeInFieldName", with("X\x1b: a\r\n")},
      {"FoldWithSpace", with("X: a\r\n b\r\n")},
      {"FoldWithTab", with("X: a\r\n\tb\r\n")},
      {"FoldBeforeFirstField", "GET / HTTP/1.1\r\n Host: a\r\n\r\n"},
      {"FoldOfSpacesOnly", with("X: a\r\n \r\n")},
      {"SpaceBeforeColon", with("X : a\r\n")},
      {"TabBeforeColon", with("X\t: a\r\n")},
      {"SpaceBeforeColonOfContentLength", post("Content-Length : 5\r\n")},
      {"SpaceBeforeColonOfTransferEncoding", post("Transfer-Encoding : chunked\r\n")},
      {"SpaceInsideFieldName", with("X Y: a\r\n")},
      {"EmptyFieldName", with(": a\r\n")},
      {"FieldLineWithoutColon", with("Nonsense\r\n")},
      {"FieldNameWithSlash", with("a/b: c\r\n")},
      {"FieldNameWithParenthesis", with("a(b): c\r\n")},
      {"FieldNameWithQuote", with("\"a\": c\r\n")},
      {"FieldNameWithAt", with("a@b: c\r\n")},
      {"FieldNameWithBracket", with("a[b]: c\r\n")},
      {"FieldNameWithObsText", with("X\xe9: c\r\n")},
      {"FieldNameWithComma", with("a,b: c\r\n")},
      {"FieldNameWithByteOrderMark", with("\xef\xbb\xbfX: c\r\n")},
  };
}

std::vector<Case> request_line_cases() {
  return {
      {"TwoSpacesAfterMethod", line("GET  / HTTP/1.1")},
      {"TwoSpacesBeforeVersion", line("GET /  HTTP/1.1")},
      {"TabAfterMethod", line("GET\t/ HTTP/1.1")},
      {"TabBeforeVersion", line("GET /\tHTTP/1.1")},
      {"LeadingSpace", line(" GET / HTTP/1.1")},
      {"LeadingTab", line("\tGET / HTTP/1.1")},
      {"TrailingSpace", line("GET / HTTP/1.1 ")},
      {"TrailingWord", line("GET / HTTP/1.1 x")},
      {"NoVersion", line("GET /")},
      {"NoVersionWithSpace", line("GET / ")},
      {"MethodOnly", line("GET")},
      {"MethodWithColon", line("GET: / HTTP/1.1")},
      {"MethodWithParenthesis", line("GE(T / HTTP/1.1")},
      {"MethodWithObsText", line("GE\xc9 / HTTP/1.1")},
      {"MethodIsEmpty", line("/ HTTP/1.1")},
      {"VersionInLowerCase", line("GET / http/1.1")},
      {"Version09", line("GET / HTTP/0.9")},
      {"Version12", line("GET / HTTP/1.2")},
      {"Version19", line("GET / HTTP/1.9")},
      {"Version2", line("GET / HTTP/2")},
      {"Version20", line("GET / HTTP/2.0")},
      {"Version3", line("GET / HTTP/3.0")},
      {"VersionWithTwoMinorDigits", line("GET / HTTP/1.10")},
      {"VersionWithTwoMajorDigits", line("GET / HTTP/11.1")},
      {"VersionWithLeadingZero", line("GET / HTTP/01.1")},
      {"VersionWithoutMinor", line("GET / HTTP/1")},
      {"VersionWithComma", line("GET / HTTP/1,1")},
      {"VersionOfAnotherProtocol", line("GET / HTTPS/1.1")},
      {"VersionIcy", line("GET / ICY/1.1")},
      {"VersionWithSpace", line("GET / HTTP /1.1")},
      {"Http2Preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
      {"TlsClientHello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"_bytes},
      {"TooManyEmptyLinesBefore", "\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"},
      {"FieldLineAsRequestLine", "Host: a\r\n\r\n"},
      {"ResponseAsRequest", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
  };
}

std::vector<Case> target_cases() {
  return {
      {"Fragment", line("GET /a#b HTTP/1.1")},
      {"FragmentAlone", line("GET # HTTP/1.1")},
      {"FragmentInQuery", line("GET /?a#b HTTP/1.1")},
      {"SpaceInTarget", line("GET /a b HTTP/1.1")},
      {"NonAsciiInTarget", line("GET /\xc3\xa9 HTTP/1.1")},
      {"LatinByteInQuery", line("GET /?q=\xe9 HTTP/1.1")},
      {"DelInTarget", line("GET /\x7f HTTP/1.1")},
      {"PercentWithoutHex", line("GET /%zz HTTP/1.1")},
      {"PercentWithOneHex", line("GET /%4 HTTP/1.1")},
      {"PercentAtEnd", line("GET /a% HTTP/1.1")},
      {"PercentInQueryWithoutHex", line("GET /?p=100% HTTP/1.1")},
      {"PercentHexThenOther", line("GET /%4g HTTP/1.1")},
      {"PercentU", line("GET /%u0041 HTTP/1.1")},
      {"EncodedNul", line("GET /a%00b HTTP/1.1")},
      {"EncodedNulInQuery", line("GET /?a=%00 HTTP/1.1")},
      {"BackslashInPath", line("GET /0\\odata HTTP/1.1")},
      {"RelativePath", line("GET a/b HTTP/1.1")},
      {"QueryOnly", line("GET ?a=b HTTP/1.1")},
      {"AuthorityForm", line("GET a:80 HTTP/1.1")},
      {"AsteriskWithGet", line("GET * HTTP/1.1")},
      {"AsteriskWithPath", line("OPTIONS *a HTTP/1.1")},
      {"AsteriskInLowerCaseOptions", line("options * HTTP/1.1")},
      {"SchemeFtp", line("GET ftp://a/ HTTP/1.1")},
      {"SchemeWs", line("GET ws://a/ HTTP/1.1")},
      {"SchemeWithoutSlashes", line("GET http:a HTTP/1.1")},
      {"AbsoluteWithoutHost", line("GET http:///x HTTP/1.1")},
      {"AbsoluteWithUserinfo", line("GET http://u@a/ HTTP/1.1")},
      {"AbsoluteWithPassword", line("GET http://u:p@a/ HTTP/1.1")},
      {"AbsoluteDiffersFromHost", line("GET http://b/ HTTP/1.1")},
      {"AbsolutePortDiffersFromHost", line("GET http://a:81/ HTTP/1.1")},
      {"AbsoluteHttpsPortIsNot80", "GET https://a/ HTTP/1.1\r\nHost: a:80\r\n\r\n"},
      {"AbsoluteDiffersFromHostIn10", "GET http://b/ HTTP/1.0\r\nHost: a\r\n\r\n"},
      {"AbsoluteWithBadPort", line("GET http://a:http/ HTTP/1.1")},
      {"AbsoluteWithBackslash", line("GET http://a\\b/ HTTP/1.1")},
      {"AbsoluteWithoutHostField", "GET http://a/ HTTP/1.1\r\n\r\n"},
      {"Connect", line("CONNECT a:443 HTTP/1.1"), Reason::not_implemented},
      {"ConnectWithPath", line("CONNECT / HTTP/1.1"), Reason::not_implemented},
      {"Trace", line("TRACE / HTTP/1.1"), Reason::not_implemented},
      {"TraceInLowerCase", line("trace / HTTP/1.1"), Reason::not_implemented},
      {"Track", line("TRACK / HTTP/1.1"), Reason::not_implemented},
  };
}

std::vector<Case> host_cases() {
  return {
      {"NoHost", "GET / HTTP/1.1\r\n\r\n"},
      {"NoHostButAnother", "GET / HTTP/1.1\r\nX-Host: a\r\n\r\n"},
      {"TwoHosts", with("Host: b\r\n")},
      {"TwoEqualHosts", with("Host: a\r\n")},
      {"TwoHostsInOtherCase", with("hOST: a\r\n")},
      {"TwoHostsIn10", "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"},
      {"HostEmpty", host("")},
      {"HostOfSpaces", host("  ")},
      {"HostWithUserinfo", host("u@a")},
      {"HostWithSpace", host("a b")},
      {"HostWithComma", host("a,b")},
      {"HostWithCommaAndSpace", host("a, b")},
      {"HostWithPath", host("a/b")},
      {"HostWithQuery", host("a?b")},
      {"HostWithFragment", host("a#b")},
      {"HostWithScheme", host("http://a")},
      {"HostWithBackslash", host("a\\b")},
      {"HostWithPercent", host("a%41")},
      {"HostWithNonAscii", host("\xc3\xa9")},
      {"HostWithQuote", host("\"a\"")},
      {"HostWithSemicolon", host("a;b")},
      {"HostWithLetterPort", host("a:http")},
      {"HostWithSignedPort", host("a:+80")},
      {"HostWithNegativePort", host("a:-1")},
      {"HostWithPortTooLarge", host("a:65536")},
      {"HostWithPortTooLong", host("a:000080")},
      {"HostWithTwoPorts", host("a:1:2")},
      {"HostOfPortOnly", host(":80")},
      {"HostWithEmptyLabel", host("a..b")},
      {"HostWithLeadingDot", host(".a")},
      {"HostIpv6WithoutBrackets", host("::1")},
      {"HostIpv6Unclosed", host("[::1")},
      {"HostIpv6Bad", host("[::g]")},
      {"HostIpv6TooLong", host("[1:2:3:4:5:6:7:8:9]")},
      {"HostIpv6WithZone", host("[fe80::1%25eth0]")},
      {"HostIpv6Junk", host("[::1]a")},
      {"HostIpv4InBrackets", host("[127.0.0.1]")},
      {"HostIpvFuture", host("[v1.a]")},
      {"HostTooLong", host(std::string(256, 'a'))},
      {"HostBadIn10", "GET / HTTP/1.0\r\nHost: a b\r\n\r\n"},
  };
}

std::vector<Case> length_cases() {
  return {
      {"TwoLengths", post("Content-Length: 5\r\nContent-Length: 6\r\n")},
      {"TwoEqualLengths", post("Content-Length: 5\r\nContent-Length: 5\r\n")},
      {"TwoLengthsInOtherCase", post("Content-Length: 5\r\ncontent-LENGTH: 5\r\n")},
      {"LengthList", post("Content-Length: 5, 5\r\n")},
      {"LengthListWithoutSpace", post("Content-Length: 5,6\r\n")},
      {"LengthTrailingComma", post("Content-Length: 5,\r\n")},
      {"LengthPlus", post("Content-Length: +5\r\n")},
      {"LengthMinus", post("Content-Length: -5\r\n")},
      {"LengthMinusZero", post("Content-Length: -0\r\n")},
      {"LengthHex", post("Content-Length: 0x5\r\n")},
      {"LengthHexDigits", post("Content-Length: a\r\n")},
      {"LengthEmpty", post("Content-Length:\r\n")},
      {"LengthOfSpaces", post("Content-Length:   \r\n")},
      {"LengthDecimal", post("Content-Length: 5.0\r\n")},
      {"LengthExponent", post("Content-Length: 1e2\r\n")},
      {"LengthWithSpaceInside", post("Content-Length: 5 5\r\n")},
      {"LengthWithSpaceAfterDigits", post("Content-Length: 5 x\r\n")},
      {"LengthQuoted", post("Content-Length: \"5\"\r\n")},
      {"LengthWithSuffix", post("Content-Length: 5;a\r\n")},
      {"LengthWithUnderscore", post("Content-Length: 1_0\r\n")},
      {"LengthOverflows64Bits", post("Content-Length: 18446744073709551616\r\n")},
      {"LengthOverflowsSigned64Bits", post("Content-Length: 9223372036854775808\r\n")},
      {"LengthWithVerticalTab", post("Content-Length: \x0b"
                                     "5\r\n")},
      {"LengthWithFullWidthDigit", post("Content-Length: \xef\xbc\x95\r\n")},
      {"LengthListOnGet", with("Content-Length: 0, 0\r\n")},
  };
}

std::vector<Case> coding_cases() {
  return {
      {"LengthThenCoding", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")},
      {"CodingThenLength", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n")},
      {"LengthZeroThenCoding", post("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n")},
      {"LengthWithGzipCoding", post("Content-Length: 5\r\nTransfer-Encoding: gzip, chunked\r\n")},
      {"LengthWithIdentityCoding", post("Content-Length: 5\r\nTransfer-Encoding: identity\r\n")},
      {"TwoCodings", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")},
      {"CodingAndIdentityLines", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n")},
      {"CodingIn10", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"},
      {"CodingEmpty", post("Transfer-Encoding:\r\n")},
      {"CodingXchunked", post("Transfer-Encoding: xchunked\r\n")},
      {"CodingChunkedx", post("Transfer-Encoding: chunkedx\r\n")},
      {"CodingChunk", post("Transfer-Encoding: chunk\r\n")},
      {"CodingIdentity", post("Transfer-Encoding: identity\r\n")},
      {"CodingIdentityChunked", post("Transfer-Encoding: identity, chunked\r\n")},
      {"CodingChunkedIdentity", post("Transfer-Encoding: chunked, identity\r\n")},
      {"CodingChunkedTwice", post("Transfer-Encoding: chunked, chunked\r\n")},
      {"CodingChunkedComma", post("Transfer-Encoding: chunked,\r\n")},
      {"CodingCommaChunked", post("Transfer-Encoding: ,chunked\r\n")},
      {"CodingChunkedWithParameter", post("Transfer-Encoding: chunked;q=1\r\n")},
      {"CodingChunkedSemicolon", post("Transfer-Encoding: chunked;\r\n")},
      {"CodingQuoted", post("Transfer-Encoding: \"chunked\"\r\n")},
      {"CodingWithVerticalTab", post("Transfer-Encoding: \x0b"
                                     "chunked\r\n")},
      {"CodingWithTrailingVerticalTab", post("Transfer-Encoding: chunked\x0b\r\n")},
      {"CodingWithNul", post("Transfer-Encoding: chunked\0\r\n"_bytes)},
      {"CodingWithBareCr", post("Transfer-Encoding: chunked\rx\r\n")},
      {"CodingFolded", post("Transfer-Encoding:\r\n chunked\r\n")},
      {"CodingWithNoBreakSpace", post("Transfer-Encoding: \xa0"
                                      "chunked\r\n")},
      {"CodingWithSpaceInside", post("Transfer-Encoding: chun ked\r\n")},
      {"CodingTwoWords", post("Transfer-Encoding: chunked gzip\r\n")},
      {"CodingChunkedThenGzip", post("Transfer-Encoding: chunked, gzip\r\n")},
      {"CodingGzipAlone", post("Transfer-Encoding: gzip\r\n")},
      {"CodingUnknownThenChunked", post("Transfer-Encoding: cow, chunked\r\n")},
      {"CodingGzipEmptyChunked", post("Transfer-Encoding: gzip,,chunked\r\n")},
      {"CodingGzipChunked", post("Transfer-Encoding: gzip, chunked\r\n"), Reason::not_implemented},
      {"CodingDeflateGzipChunked", post("Transfer-Encoding: deflate,gzip , Chunked\r\n"),
       Reason::not_implemented},
  };
}

std::vector<Case> meaning_cases() {
  return {
      {"ExpectUnknown", post("Content-Length: 1\r\nExpect: 200-ok\r\n")},
      {"ExpectEmpty", post("Content-Length: 1\r\nExpect:\r\n")},
      {"ExpectList", post("Content-Length: 1\r\nExpect: 100-continue, x\r\n")},
      {"ExpectTwice", post("Content-Length: 1\r\nExpect: 100-continue\r\nExpect: 100-continue\r\n")},
      {"AuthorizationTwice", with("Authorization: Bearer a\r\nauthorization: Bearer b\r\n")},
      {"ContentTypeTwice", post("Content-Type: text/plain\r\nContent-Type: application/json\r\n")},
      {"MethodOverrideTwice", post("X-HTTP-Method: MERGE\r\nX-Http-Method: DELETE\r\n")},
      {"MethodOverrideLongTwice", post("X-HTTP-Method-Override: PUT\r\nX-HTTP-Method-Override: GET\r\n")},
      {"ConnectionNamesHost", with("Connection: close, Host\r\n")},
      {"ConnectionNamesContentLength", post("Content-Length: 5\r\nConnection: Content-Length\r\n")},
      {"ConnectionNamesTransferEncoding",
       post("Transfer-Encoding: chunked\r\nConnection: transfer-encoding\r\n")},
      {"ConnectionNamesAuthorization",
       with("Authorization: Bearer a\r\nConnection: keep-alive, authorization\r\n")},
      {"ConnectionNamesCookie", with("Cookie: a=b\r\nConnection: Cookie\r\n")},
      {"ConnectionNamesForwardedFor", with("Connection: X-Forwarded-For\r\n")},
      {"ConnectionNamesForwarded", with("Connection: forwarded\r\n")},
      {"ConnectionNamesRequestId", with("Connection: X-Request-Id\r\n")},
      {"ConnectionNamesTraceparent", with("Connection: traceparent\r\n")},
      {"ConnectionNamesMethodOverride", post("X-HTTP-Method: GET\r\nConnection: X-HTTP-Method\r\n")},
      {"ConnectionNamesMethodOverrideWithUnderscores", post("Connection: X_HTTP_Method\r\n")},
      {"ConnectionNamesContentType", post("Content-Type: text/plain\r\nConnection: content-type\r\n")},
      {"ConnectionNamesFieldInSecondLine", with("Connection: close\r\nConnection: Host\r\n")},
      {"ConnectionNotToken", with("Connection: keep alive\r\n")},
      {"ConnectionQuoted", with("Connection: \"close\"\r\n")},
  };
}

std::vector<Case> all_cases() {
  std::vector<Case> all;
  for (const auto& group : {line_cases(), request_line_cases(), target_cases(), host_cases(), length_cases(),
                            coding_cases(), meaning_cases()})
    all.insert(all.end(), group.begin(), group.end());
  std::string many = "Connection: a";
  for (int i = 0; i < 64; ++i) many += ",a";
  all.push_back({"ConnectionWithTooManyOptions", with(many + "\r\n")});
  return all;
}

class RefusedRequest : public ::testing::TestWithParam<Case> {};

TEST_P(RefusedRequest, IsRefusedHoweverItIsCut) {
  const Parsed parsed = request_however_cut(GetParam().bytes);
  EXPECT_EQ(parsed.status, ParseStatus::failed) << parsed;
  EXPECT_EQ(code(parsed.failure.reason), code(GetParam().reason)) << parsed;
  EXPECT_FALSE(parsed.failure.detail.empty());
}

INSTANTIATE_TEST_SUITE_P(Case, RefusedRequest, ::testing::ValuesIn(all_cases()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace tollgate::http::testing
