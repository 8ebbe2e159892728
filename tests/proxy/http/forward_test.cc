#include "proxy/http/forward.h"

#include <gtest/gtest.h>

#include "metering/base/random.h"
#include "proxy/http/request_parser.h"
#include "proxy/http/response_parser.h"
#include "tests/proxy/http/support/feed.h"

namespace tollgate::http {
namespace {

std::string forward(std::string_view bytes, const RequestForwarding& how = {}) {
  RequestParser parser({});
  EXPECT_EQ(parser.parse(bytes), ParseStatus::complete) << parser.failure().detail;
  std::string out;
  append_request_head(out, parser.head(), how);
  return out;
}

// The forwarded lines of a GET with these fields, without the request line, Host and what is always added.
std::string forwarded_fields(std::string_view fields, RequestForwarding how = {}) {
  how.peer_address = "192.0.2.7";
  std::string out = forward("GET / HTTP/1.1\r\nHost: a\r\n" + std::string(fields) + "\r\n", how);
  const std::string head = "GET / HTTP/1.1\r\nHost: a\r\n";
  EXPECT_TRUE(out.starts_with(head));
  out.erase(0, head.size());
  for (std::string_view added :
       {"X-Forwarded-For: 192.0.2.7\r\n", "X-Forwarded-Proto: http\r\n", "X-Forwarded-Host: a\r\n"})
    if (const std::size_t at = out.find(added); at != std::string::npos) out.erase(at, added.size());
  EXPECT_TRUE(out.ends_with("\r\n"));
  out.resize(out.size() - 2);
  return out;
}

std::string reply(std::string_view bytes, const ResponseForwarding& how, std::string_view method = "GET") {
  ResponseParser parser({});
  parser.expect(method);
  EXPECT_EQ(parser.parse(bytes), ParseStatus::complete) << parser.failure().detail;
  std::string out;
  append_response_head(out, parser.head(), how);
  return out;
}

TEST(ForwardedRequest, WholeHeadOfACrmCall) {
  const std::string_view drop[] = {"authorization"};
  RequestForwarding how{.framing = Framing::length,
                        .content_length = 12,
                        .request_id = "req-12345",
                        .peer_address = "192.0.2.7"};
  how.https = true;
  how.drop_fields = drop;
  const std::string_view cookies[] = {"token"};
  how.drop_cookies = cookies;
  how.extra_fields = "X-Tollgate-User: ann\r\n";
  EXPECT_EQ(forward("MERGE /0/odata/Case(1)?a=b HTTP/1.1\r\nAccept: */*\r\nHost: "
                    "crm.example\r\nAUTHORIZATION: Bearer x\r\n"
                    "Cookie: BPMLOADER=1; token=secret; .ASPXAUTH=2\r\nContent-Length: "
                    "00012\r\nX-Request-ID: theirs-123\r\n"
                    "X-HTTP-Method: DELETE\r\nX-HTTP-Method-Override: DELETE\r\nConnection: "
                    "keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n",
                    how),
            "MERGE /0/odata/Case(1)?a=b HTTP/1.1\r\nHost: crm.example\r\nAccept: */*\r\n"
            "Cookie: BPMLOADER=1; .ASPXAUTH=2\r\nX-HTTP-Method: DELETE\r\nX-HTTP-Method-Override: DELETE\r\n"
            "Content-Length: 12\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n"
            "X-Forwarded-Host: crm.example\r\nX-Request-Id: req-12345\r\nX-Tollgate-User: ann\r\n\r\n");
}

TEST(ForwardedRequest, AbsoluteFormIsReducedToOriginForm) {
  EXPECT_TRUE(forward("GET http://a.b:8080/x?y HTTP/1.1\r\nHost: a.b:8080\r\n\r\n")
                  .starts_with("GET /x?y HTTP/1.1\r\nHost: a.b:8080\r\n"));
  EXPECT_TRUE(
      forward("GET http://a.b HTTP/1.1\r\nHost: a.b\r\n\r\n").starts_with("GET / HTTP/1.1\r\nHost: a.b\r\n"));
  EXPECT_TRUE(forward("GET http://a.b?y HTTP/1.1\r\nHost: a.b\r\n\r\n").starts_with("GET /?y HTTP/1.1\r\n"));
  EXPECT_TRUE(forward("GET /x? HTTP/1.1\r\nHost: a.b\r\n\r\n").starts_with("GET /x? HTTP/1.1\r\n"));
  EXPECT_TRUE(
      forward("OPTIONS http://a.b HTTP/1.1\r\nHost: a.b\r\n\r\n").starts_with("OPTIONS * HTTP/1.1\r\n"));
}

TEST(ForwardedRequest, Http10BecomesHttp11WithAHost) {
  EXPECT_TRUE(forward("GET / HTTP/1.0\r\n\r\n", {.default_host = "crm:9000"})
                  .starts_with("GET / HTTP/1.1\r\nHost: crm:9000\r\n"));
  EXPECT_TRUE(forward("GET / HTTP/1.0\r\nHost: b\r\n\r\n", {.default_host = "crm:9000"})
                  .starts_with("GET / HTTP/1.1\r\nHost: b\r\n"));
}

TEST(ForwardedRequest, FramingIsWrittenAnew) {
  const std::string chunked =
      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n";
  const std::string as_length =
      forward(chunked, {.framing = Framing::length, .content_length = 18446744073709551615ULL});
  EXPECT_NE(as_length.find("Content-Length: 18446744073709551615\r\n"), std::string::npos);
  EXPECT_EQ(as_length.find("chunked"), std::string::npos);
  EXPECT_EQ(as_length.find("Trailer"), std::string::npos);
  const std::string as_chunked =
      forward("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", {.framing = Framing::chunked});
  EXPECT_NE(as_chunked.find("Transfer-Encoding: chunked\r\n"), std::string::npos);
  EXPECT_EQ(as_chunked.find("Content-Length"), std::string::npos);
}

TEST(ForwardedRequest, FieldsOfOneConnectionAreDropped) {
  EXPECT_EQ(forwarded_fields("Connection: close, X-Mine\r\nX-Mine: 1\r\nx-mine: 2\r\nX-Yours: "
                             "3\r\nKeep-Alive: 1\r\nProxy-Connection: a\r\n"
                             "Proxy-Authorization: b\r\nProxy: c\r\nTE: gzip\r\nTrailer: d\r\nUpgrade: "
                             "e\r\nHTTP2-Settings: f\r\n"),
            "X-Yours: 3\r\n");
}

TEST(ForwardedRequest, OnlyTeTrailersIsPassed) {
  EXPECT_EQ(forwarded_fields("TE: gzip, Trailers;q=1\r\n"), "");
  EXPECT_EQ(forwarded_fields("TE: gzip, Trailers\r\nConnection: TE\r\n"),
            "Connection: TE\r\nTE: trailers\r\n");
}

TEST(ForwardedRequest, UpgradeIsPassedOnlyWhenAskedForAndOffered) {
  const std::string fields =
      "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n";
  EXPECT_EQ(forwarded_fields(fields), "Sec-WebSocket-Key: k\r\n");
  EXPECT_EQ(forwarded_fields(fields, {.upgrade = true}),
            "Sec-WebSocket-Key: k\r\nConnection: upgrade\r\nUpgrade: websocket\r\n");
  EXPECT_EQ(
      forwarded_fields("Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n", {.upgrade = true}),
      "");
}

TEST(ForwardedRequest, ProvenanceOfAnUntrustedPeerIsReplaced) {
  const std::string out = forward(
      "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: "
      "6.6.6.6\r\nX-Forwarded-Proto: https\r\n"
      "X-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\nX-Forwarded-Prefix: /e\r\nForwarded: "
      "for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n"
      "True-Client-IP: 6.6.6.6\r\nX-Original-Host: evil\r\n\r\n",
      {.peer_address = "192.0.2.7"});
  EXPECT_EQ(out,
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: "
            "http\r\nX-Forwarded-Host: a\r\n\r\n");
}

TEST(ForwardedRequest, ProvenanceOfATrustedPeerIsContinued) {
  const std::string out = forward(
      "GET / HTTP/1.1\r\nHost: a:8080\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Port: "
      "443\r\nx-forwarded-for: 10.0.0.2\r\n"
      "X_Forwarded_For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: portal\r\nForwarded: "
      "for=203.0.113.9\r\nX_Real_IP: 6.6.6.6\r\n\r\n",
      {.peer_address = "2001:db8::1", .trusted_peer = true, .https = true, .forwarded_host = "portal"});
  EXPECT_EQ(out,
            "GET / HTTP/1.1\r\nHost: a:8080\r\nX-Forwarded-Port: 443\r\n"
            "X-Forwarded-For: 203.0.113.9, 10.0.0.2, 2001:db8::1\r\nX-Forwarded-Proto: "
            "https\r\nX-Forwarded-Host: portal\r\n"
            "Forwarded: for=203.0.113.9, for=\"[2001:db8::1]\";host=\"a:8080\";proto=https\r\n\r\n");
}

TEST(ForwardedRequest, WhatATrustedPeerVouchesForPassesAsItSpellsIt) {
  const std::string fields = "Client-Cert: :a:\r\nOIDC_CLAIM_sub: ann\r\nSSL_CLIENT_CERT: a\r\n";
  EXPECT_EQ(forwarded_fields(fields), "");
  EXPECT_EQ(forwarded_fields(fields, {.trusted_peer = true}), "Client-Cert: :a:\r\nOIDC_CLAIM_sub: ann\r\n");
}

TEST(ForwardedRequest, PeerWithoutAnAddressIsUnknown) {
  EXPECT_NE(
      forward("GET / HTTP/1.1\r\nHost: a\r\n\r\n", {.peer_address = ""}).find("X-Forwarded-For: unknown\r\n"),
      std::string::npos);
}

TEST(ForwardedRequest, FieldsThatNameAnotherTargetNeverPass) {
  for (const bool trusted : {false, true})
    EXPECT_EQ(
        forwarded_fields("X-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\nx-original-uri: "
                         "/\r\nX_Original_URL: /admin\r\n"
                         "X-HTTP-Host-Override: b\r\nX_HTTP_Method: DELETE\r\nContent_Type: text/xml\r\n",
                         {.trusted_peer = trusted}),
        "");
}

TEST(ForwardedRequest, CookiesAreDroppedByExactName) {
  const std::string_view cookies[] = {"t"}, both[] = {"t", "T"};
  const RequestForwarding how{.drop_cookies = cookies};
  EXPECT_EQ(forwarded_fields("Cookie: t=1\r\n", how), "");
  EXPECT_EQ(forwarded_fields("Cookie: a=1;t=2 ;; T=3;tt=4; t ;x=t=5\r\n", how),
            "Cookie: a=1; T=3; tt=4; x=t=5\r\n");
  EXPECT_EQ(forwarded_fields("cookie: a=1\r\nCookie: t=2\r\nCookie: t = 3; b=4\r\n", how),
            "cookie: a=1\r\nCookie: b=4\r\n");
  const std::string_view drop[] = {"Cookie"};
  EXPECT_EQ(forwarded_fields("Cookie: a=1\r\n", {.drop_fields = drop, .drop_cookies = cookies}), "");
  EXPECT_EQ(forwarded_fields("Cookie: a=1;t=2; T=3\r\nCookie: T=4\r\n", {.drop_cookies = both}),
            "Cookie: a=1\r\n");
}

TEST(ForwardedRequest, DroppedFieldsAreDroppedInEverySpelling) {
  const std::string_view drop[] = {"X-Tenant", "cookie"}, cookies[] = {"t"};
  EXPECT_EQ(forwarded_fields("x-tenant: 1\r\nX_Tenant: 2\r\nX-Tenants: 3\r\nCookie: a=1\r\n",
                             {.drop_fields = drop, .drop_cookies = cookies}),
            "X-Tenants: 3\r\n");
}

TEST(ForwardedRequest, TrailersPassForNoDroppedOrIdentityField) {
  RequestParser parser({});
  ASSERT_EQ(parser.parse("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
            ParseStatus::complete);
  const std::string_view drop[] = {"X-Tenant"}, identity[] = {"X-Access-Token"};
  std::string out;
  append_request_trailers(out, parser.head(),
                          {{"x-tenant", "1"},
                           {"X_Tenant", "2"},
                           {"X_Access-Token", "3"},
                           {"X-Access-Token", "4"},
                           {"X-Sum", "5"}},
                          identity, drop);
  EXPECT_EQ(out, "0\r\nX-Sum: 5\r\n\r\n");
}

TEST(ForwardedReply, TrailersOfDroppedFieldsStayHere) {
  const std::string_view drop[] = {"X-Secret"};
  const std::string named[] = {"X-Gone"};
  const std::vector<TrailerField> trailers = {{"x-secret", "1"}, {"x-gone", "2"}, {"X-Sum", "3"}};
  std::string out;
  append_response_trailers(out, trailers, named, drop);
  EXPECT_EQ(out, "0\r\nX-Sum: 3\r\n\r\n");
  out.clear();
  append_response_trailers(out, trailers, {}, {});
  EXPECT_EQ(out, "0\r\nx-secret: 1\r\nx-gone: 2\r\nX-Sum: 3\r\n\r\n");
}

TEST(ForwardedRequest, ExpectIsPassedOnlyWhenAskedFor) {
  const std::string bytes = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n";
  EXPECT_EQ(forward(bytes).find("Expect"), std::string::npos);
  EXPECT_NE(forward(bytes, {.forward_expect = true}).find("Expect: 100-continue\r\n"), std::string::npos);
}

TEST(ForwardedRequest, MaxForwardsOfOptionsIsLoweredByOne) {
  const auto options = [](const std::string& value) {
    return forward("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: " + value + "\r\n\r\n");
  };
  EXPECT_NE(options("10").find("\r\nMax-Forwards: 9\r\n"), std::string::npos);
  EXPECT_NE(options("1").find("\r\nMax-Forwards: 0\r\n"), std::string::npos);
  EXPECT_NE(options("many").find("\r\nMax-Forwards: many\r\n"), std::string::npos);
  EXPECT_NE(forward("GET / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 10\r\n\r\n").find("\r\nMax-Forwards: 10\r\n"),
            std::string::npos);
}

TEST(ForwardedRequest, ViaIsAppendedWhenNamed) {
  EXPECT_EQ(forwarded_fields("Via: 1.0 x\r\n", {.via = "tollgate"}), "Via: 1.0 x\r\nVia: 1.1 tollgate\r\n");
  EXPECT_NE(forward("GET / HTTP/1.0\r\n\r\n", {.via = "t"}).find("Via: 1.0 t\r\n"), std::string::npos);
}

TEST(ForwardedRequest, OutputIsAppended) {
  RequestParser parser({});
  ASSERT_EQ(parser.parse("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), ParseStatus::complete);
  std::string out = "before";
  append_request_head(out, parser.head(), {});
  EXPECT_TRUE(out.starts_with("beforeGET / HTTP/1.1\r\n"));
}

TEST(ForwardedRequestDeathTest, LineEndsInOurOwnValuesAreOurBug) {
  EXPECT_DEATH(forward("GET / HTTP/1.1\r\nHost: a\r\n\r\n", {.request_id = "a\r\nX: y"}), "line end");
  EXPECT_DEATH(forward("GET / HTTP/1.1\r\nHost: a\r\n\r\n", {.extra_fields = "X: y"}), "whole lines");
}

// Whatever is accepted and written anew is read back as the same message with the same end.
TEST(ForwardedRequest, EveryAcceptedMutationReadsBackTheSame) {
  const std::string seeds[] = {
      "POST /0/odata/Case?$filter=a HTTP/1.1\r\nHost: crm.example:80\r\nContent-Length: 5\r\nConnection: x, "
      "TE\r\nTE: trailers\r\nX: y\r\n\r\n",
      "PUT http://a:80/b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nCookie: a=b; c=d\r\nExpect: "
      "100-continue\r\n\r\n",
      "OPTIONS * HTTP/1.0\r\nHost: [::1]:80\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=a\r\nConnection: "
      "keep-alive\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n"};
  static constexpr std::string_view kInserts[] = {
      "\r\n",    ":", " ", ",", "0",   "\t",  "a", "Content-Length: 1\r\n",
      "chunked", ";", "-", "_", "%41", "\xff"};
  const std::uint64_t seed = 99;
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  Random random(seed);
  int accepted = 0;
  for (int round = 0; round < 30'000; ++round) {
    std::string bytes = seeds[random.below(std::size(seeds))];
    for (std::uint64_t edits = random.below(3); edits > 0; --edits) {
      const auto at = static_cast<std::size_t>(random.below(bytes.size()));
      if (random.one_in(2))
        bytes.insert(at, kInserts[random.below(std::size(kInserts))]);
      else if (random.one_in(2))
        bytes.erase(at, 1 + static_cast<std::size_t>(random.below(3)));
      else
        bytes[at] = static_cast<char>(random.below(256));
    }
    RequestParser parser({});
    if (parser.parse(bytes) != ParseStatus::complete) continue;
    ++accepted;
    const RequestHead& head = parser.head();
    RequestForwarding how{.framing = head.framing,
                          .content_length = head.content_length,
                          .request_id = "abcdefgh",
                          .peer_address = "1.2.3.4"};
    how.trusted_peer = random.one_in(2);
    how.default_host = "default";
    how.upgrade = head.wants_upgrade;
    how.forward_expect = true;
    std::string out;
    append_request_head(out, head, how);
    RequestParser again({});
    ASSERT_EQ(again.parse(out), ParseStatus::complete) << again.failure().detail << "\n"
                                                       << bytes << "\n"
                                                       << out;
    ASSERT_EQ(again.head_size(), out.size());
    ASSERT_EQ(again.head().method, head.method);
    ASSERT_EQ(again.head().path, head.path);
    ASSERT_EQ(again.head().query, head.query);
    ASSERT_EQ(again.head().has_query, head.has_query);
    ASSERT_EQ(again.head().authority, head.authority.empty() ? "default" : head.authority);
    ASSERT_EQ(again.head().framing, head.framing);
    ASSERT_EQ(again.head().content_length, head.content_length);
    ASSERT_EQ(again.head().wants_upgrade, head.wants_upgrade);
    ASSERT_EQ(again.head().expect_continue, head.expect_continue);
    ASSERT_TRUE(again.head().keep_alive);
    std::string twice;
    how.trusted_peer = false;
    how.forwarded_host = "x";
    append_request_head(twice, again.head(), how);
    RequestParser third({});
    ASSERT_EQ(third.parse(twice), ParseStatus::complete);
  }
  EXPECT_GT(accepted, 5'000) << "the mutations must leave enough to look at";
}

TEST(ForwardedResponse, WholeHead) {
  ResponseForwarding how{.framing = Framing::length, .content_length = 5, .request_id = "req-12345"};
  how.extra_fields = "RateLimit: \"daily\";r=1;t=2\r\n";
  how.date = "Sun, 06 Nov 1994 08:49:37 GMT";
  EXPECT_EQ(reply("HTTP/1.0 200 Fine\r\nServer: iis\r\nConnection: keep-alive, X-Mine\r\nX-Mine: "
                  "1\r\nKeep-Alive: 5\r\nX-Request-Id: theirs\r\n"
                  "Content-Length: 5\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nProxy-Authenticate: x\r\n\r\n",
                  how),
            "HTTP/1.1 200 Fine\r\nServer: iis\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nDate: Sun, 06 Nov 1994 "
            "08:49:37 GMT\r\nContent-Length: 5\r\n"
            "X-Request-Id: req-12345\r\nRateLimit: \"daily\";r=1;t=2\r\n\r\n");
}

TEST(ForwardedResponse, DateOfTheUpstreamWins) {
  EXPECT_EQ(reply("HTTP/1.1 204 \r\nDate: x\r\n\r\n", {.date = "y"}), "HTTP/1.1 204 \r\nDate: x\r\n\r\n");
}

TEST(ForwardedResponse, FieldsThatMatterAreKeptEvenIfConnectionNamesThem) {
  EXPECT_EQ(
      reply("HTTP/1.1 204 \r\nConnection: Set-Cookie, Content-Type, Foo\r\nSet-Cookie: a\r\nFoo: b\r\n\r\n",
            {}),
      "HTTP/1.1 204 \r\nSet-Cookie: a\r\n\r\n");
}

TEST(ForwardedResponse, ReplacedFieldsCanBeDropped) {
  const std::string_view drop[] = {"RateLimit"};
  EXPECT_EQ(reply("HTTP/1.1 204 \r\nratelimit: theirs\r\n\r\n",
                  {.extra_fields = "RateLimit: ours\r\n", .drop_fields = drop}),
            "HTTP/1.1 204 \r\nRateLimit: ours\r\n\r\n");
}

TEST(ForwardedResponse, LengthOfAReplyToHeadAndOf304IsKept) {
  EXPECT_EQ(reply("HTTP/1.1 200 OK\r\nContent-Length: 05\r\n\r\n", {}, "HEAD"),
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
  EXPECT_EQ(reply("HTTP/1.1 304 N\r\nContent-Length: 5\r\n\r\n", {}),
            "HTTP/1.1 304 N\r\nContent-Length: 5\r\n\r\n");
  EXPECT_EQ(reply("HTTP/1.1 204 N\r\nContent-Length: 5\r\n\r\n", {}), "HTTP/1.1 204 N\r\n\r\n");
  EXPECT_EQ(reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", {}, "HEAD"),
            "HTTP/1.1 200 OK\r\n\r\n");
}

TEST(ForwardedResponse, FramingForTheClientFollowsItsVersion) {
  ResponseHead head;
  head.framing = Framing::until_close;
  EXPECT_EQ(client_framing(head, 1), Framing::chunked);
  EXPECT_EQ(client_framing(head, 0), Framing::until_close);
  head.framing = Framing::chunked;
  EXPECT_EQ(client_framing(head, 1), Framing::chunked);
  EXPECT_EQ(client_framing(head, 0), Framing::until_close);
  head.framing = Framing::length;
  EXPECT_EQ(client_framing(head, 0), Framing::length);
  head.framing = Framing::none;
  EXPECT_EQ(client_framing(head, 1), Framing::none);
}

TEST(ForwardedResponse, ChunkedToHttp10IsCloseDelimited) {
  EXPECT_EQ(reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                  {.framing = Framing::chunked, .client_minor_version = 0}),
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
}

TEST(ForwardedResponse, ConnectionSaysWhatHappensToTheClientConnection) {
  const std::string bytes = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
  const std::string head = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n";
  EXPECT_EQ(reply(bytes, {.framing = Framing::length}), head + "\r\n");
  EXPECT_EQ(reply(bytes, {.framing = Framing::length, .close = true}), head + "Connection: close\r\n\r\n");
  EXPECT_EQ(reply(bytes, {.framing = Framing::length, .client_minor_version = 0}),
            head + "Connection: keep-alive\r\n\r\n");
  EXPECT_EQ(reply(bytes, {.framing = Framing::length, .client_minor_version = 0, .close = true}),
            head + "Connection: close\r\n\r\n");
  EXPECT_EQ(reply(bytes, {.framing = Framing::until_close}), "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
}

TEST(ForwardedResponse, InterimResponseHasFieldsOnly) {
  EXPECT_EQ(reply("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\n\r\n",
                  {.request_id = "abcdefgh", .extra_fields = "A: b\r\n", .date = "d", .close = true}),
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
}

TEST(ForwardedResponse, SwitchingProtocolsKeepsUpgrade) {
  EXPECT_EQ(reply("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: "
                  "Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
                  {.request_id = "abcdefgh", .upgrade = true}),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "
            "x\r\nConnection: upgrade\r\nX-Request-Id: abcdefgh\r\n\r\n");
}

TEST(ForwardedResponse, WhatIsWrittenReadsBackTheSame) {
  for (std::string bytes :
       {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n",
        "HTTP/1.1 500 \r\nContent-Length: 7\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 204 No\r\n\r\n"}) {
    ResponseParser parser({}), again({});
    ASSERT_EQ(parser.parse(bytes), ParseStatus::complete);
    std::string out;
    const Framing framing = client_framing(parser.head(), 1);
    append_response_head(out, parser.head(),
                         {.framing = framing, .content_length = parser.head().content_length});
    ASSERT_EQ(again.parse(out), ParseStatus::complete) << out;
    EXPECT_EQ(again.head().framing, framing);
    EXPECT_EQ(again.head().content_length, parser.head().content_length);
    EXPECT_EQ(again.head().status, parser.head().status);
  }
}

}  // namespace
}  // namespace tollgate::http
