// Plain proxying over real sockets: framing, keep-alive, pipelining, heads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/proxy/net/support/proxy_under_test.h"

namespace tollgate::net::test {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Proxying, GetReachesTheUpstreamAndItsReplyTheClient) {
  Upstream upstream(echo);
  Proxy proxy(settings({upstream.url()}));
  const Message reply = proxy.ask(get("/page?x=1", "Accept: */*\r\n"));
  EXPECT_EQ(reply.status(), 200);
  EXPECT_THAT(reply.body, HasSubstr("GET /page?x=1 HTTP/1.1\r\nHost: crm.example\r\n"));
  EXPECT_THAT(reply.body, HasSubstr("Accept: */*\r\n"));
  EXPECT_THAT(reply.body, HasSubstr("X-Forwarded-For: 127.0.0.1\r\n"));
  EXPECT_EQ(reply.count("X-Request-Id"), 1);
  const auto facts = proxy.facts.wait_for(1);
  EXPECT_EQ(facts[0].reason, Reason::ok);
  EXPECT_EQ(facts[0].status, 200);
  EXPECT_EQ(facts[0].path, "/page");
  EXPECT_EQ(facts[0].client_address, "127.0.0.1");
  EXPECT_EQ(facts[0].bytes_out, reply.body.size());
  EXPECT_EQ(facts[0].attempts, 1U);
  EXPECT_GT(facts[0].upstream, Duration(0));
}

TEST(Proxying, RequestsOfOneConnectionShareOneUpstreamConnection) {
  Upstream upstream(echo);
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect();
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(client.send(get("/p" + std::to_string(i))));
    EXPECT_THAT(client.read_message().body, HasSubstr("GET /p" + std::to_string(i) + " "));
  }
  EXPECT_EQ(upstream.connections(), 1);
  EXPECT_EQ(proxy.facts.wait_for(20).size(), 20U);
}

TEST(Proxying, PipelinedRequestsAreAnsweredInOrder) {
  Upstream upstream(echo);
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect();
  std::string all;
  for (int i = 0; i < 10; ++i)
    all += i % 2 == 0 ? get("/p" + std::to_string(i))
                      : post("/p" + std::to_string(i), "body" + std::to_string(i));
  ASSERT_TRUE(client.send(all));
  for (int i = 0; i < 10; ++i) {
    const Message reply = client.read_message();
    EXPECT_THAT(reply.body, HasSubstr(" /p" + std::to_string(i) + " "));
    if (i % 2 == 1) {
      EXPECT_THAT(reply.body, testing::EndsWith("body" + std::to_string(i)));
    }
  }
}

TEST(Proxying, PipelinedRequestsBeforeHalfCloseAreAllAnswered) {
  Upstream upstream(echo);
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect();
  ASSERT_TRUE(client.send(get("/a") + get("/b") + get("/c")));
  client.end_writing();
  EXPECT_THAT(client.read_message().body, HasSubstr("GET /a "));
  EXPECT_THAT(client.read_message().body, HasSubstr("GET /b "));
  EXPECT_THAT(client.read_message().body, HasSubstr("GET /c "));
  EXPECT_TRUE(client.at_end());
}

TEST(Proxying, RequestByteByByteIsTheSameRequest) {
  Upstream upstream(echo);
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect();
  const std::string request = post("/slow", "hello") + get("/next");
  for (const char byte : request) ASSERT_TRUE(client.send(std::string(1, byte)));
  EXPECT_THAT(client.read_message().body, testing::EndsWith("hello"));
  EXPECT_THAT(client.read_message().body, HasSubstr("GET /next "));
}

TEST(Proxying, ChunkedRequestStaysChunkedWithItsTrailers) {
  Message seen;
  Upstream upstream([&](Peer& peer) {
    seen = peer.read_message();
    peer.send("HTTP/1.1 204 No Content\r\n\r\n");
    peer.read_message();
  });
  Proxy proxy(settings({upstream.url()}));
  const Message reply = proxy.ask(
      "POST /up HTTP/1.1\r\nHost: crm.example\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
      "5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 42\r\n\r\n");
  EXPECT_EQ(reply.status(), 204);
  EXPECT_EQ(seen.body, "hello world");
  EXPECT_EQ(seen.field("transfer-encoding"), "chunked");
  EXPECT_EQ(seen.field("content-length"), "");
  EXPECT_THAT(seen.trailers, testing::ElementsAre("X-Sum: 42"));
  EXPECT_EQ(proxy.facts.wait_for(1)[0].bytes_in, 11U);
}

TEST(Proxying, ChunkedReplyStaysChunkedWithItsTrailersAndTheConnectionGoesOn) {
  Upstream upstream([](Peer& peer) {
    while (peer.read_message().complete)
      peer.send(
          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\nX-End: "
          "yes\r\n\r\n");
  });
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect();
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(client.send(get("/")));
    const Message reply = client.read_message();
    EXPECT_EQ(reply.body, "abcdefg");
    EXPECT_THAT(reply.trailers, testing::ElementsAre("X-End: yes"));
  }
  EXPECT_EQ(upstream.connections(), 1);
}

TEST(Proxying, ChunkedReplyToHttp10EndsWithTheConnection) {
  Upstream upstream([](Peer& peer) {
    peer.read_message();
    peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    peer.read_message();
  });
  Proxy proxy(settings({upstream.url()}));
  const Message reply = proxy.ask("GET / HTTP/1.0\r\nHost: crm.example\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_EQ(reply.field("transfer-encoding"), "");
  EXPECT_EQ(reply.field("connection"), "close");
  EXPECT_EQ(reply.body, "abc");
}

TEST(Proxying, ReplyUntilCloseBecomesChunked) {
  Upstream upstream([](Peer& peer) {
    peer.read_message();
    peer.send("HTTP/1.1 200 OK\r\n\r\nall there is");
  });
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect();
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(client.send(get("/")));
    const Message reply = client.read_message();
    EXPECT_EQ(reply.field("transfer-encoding"), "chunked");
    EXPECT_EQ(reply.body, "all there is");
    EXPECT_TRUE(reply.complete);
  }
}

TEST(Proxying, HeadReplyHasNoBodyAndKeepsItsLength) {
  Upstream upstream([](Peer& peer) {
    while (peer.read_message().complete) peer.send("HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n");
  });
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect();
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(client.send("HEAD / HTTP/1.1\r\nHost: crm.example\r\n\r\n"));
    const Message reply = client.read_message(true);
    EXPECT_EQ(reply.field("content-length"), "12345");
  }
  EXPECT_EQ(upstream.connections(), 1);
}

TEST(Proxying, RepliesWithoutBodyLeaveTheConnectionUsable) {
  Upstream upstream([](Peer& peer) {
    for (int i = 0;; ++i) {
      if (!peer.read_message().complete) return;
      peer.send(i % 2 == 0 ? "HTTP/1.1 204 No Content\r\n\r\n"
                           : "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 99\r\n\r\n");
    }
  });
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect();
  for (int i = 0; i < 6; ++i) {
    ASSERT_TRUE(client.send(get("/")));
    EXPECT_EQ(client.read_message().status(), i % 2 == 0 ? 204 : 304);
  }
  EXPECT_EQ(upstream.connections(), 1);
}

TEST(Proxying, InterimRepliesReachTheClientBeforeTheFinalOne) {
  Upstream upstream([](Peer& peer) {
    while (peer.read_message().complete)
      peer.send(
          "HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  });
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect();
  ASSERT_TRUE(client.send(get("/")));
  const Message hints = client.read_message();
  EXPECT_EQ(hints.status(), 103);
  EXPECT_EQ(hints.field("link"), "</s.css>");
  EXPECT_EQ(client.read_message().body, "ok");
  // HTTP/1.0 knows no interim replies (RFC 9110 section 15.2).
  EXPECT_EQ(proxy.ask("GET / HTTP/1.0\r\nHost: crm.example\r\n\r\n").status(), 200);
}

TEST(Proxying, Http10ClientMayKeepItsConnection) {
  Upstream upstream(echo);
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect();
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(client.send("GET / HTTP/1.0\r\nHost: crm.example\r\nConnection: keep-alive\r\n\r\n"));
    const Message reply = client.read_message();
    EXPECT_EQ(reply.field("connection"), "keep-alive");
    EXPECT_EQ(reply.status(), 200);
  }
  ASSERT_TRUE(client.send("GET / HTTP/1.0\r\nHost: crm.example\r\n\r\n"));
  EXPECT_EQ(client.read_message().field("connection"), "close");
  EXPECT_TRUE(client.at_end());
}

TEST(Proxying, ConnectionCloseOfTheClientIsObeyed) {
  Upstream upstream(echo);
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect();
  ASSERT_TRUE(client.send(get("/", "Connection: close\r\n")));
  EXPECT_EQ(client.read_message().field("connection"), "close");
  EXPECT_TRUE(client.at_end());
}

TEST(Proxying, ExpectContinueIsAnsweredByTheUpstream) {
  Upstream upstream([](Peer& peer) {
    const std::string head = peer.read_head();
    EXPECT_THAT(head, HasSubstr("Expect: 100-continue\r\n"));
    peer.send("HTTP/1.1 100 Continue\r\n\r\n");
    const std::string body = peer.read_exactly(5);
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + body);
    peer.read_message();
  });
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect();
  ASSERT_TRUE(client.send(
      "PUT /file HTTP/1.1\r\nHost: crm.example\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"));
  EXPECT_EQ(client.read_message().status(), 100);
  ASSERT_TRUE(client.send("hello"));
  EXPECT_EQ(client.read_message().body, "hello");
}

TEST(Proxying, RefusalOfAnExpectedBodyArrivesWithoutIt) {
  Upstream upstream([](Peer& peer) {
    peer.read_head();
    peer.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    peer.read_some();
  });
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect();
  ASSERT_TRUE(client.send(
      "PUT /file HTTP/1.1\r\nHost: crm.example\r\nContent-Length: 500000\r\nExpect: 100-continue\r\n\r\n"));
  const Message reply = client.read_message();
  EXPECT_EQ(reply.status(), 403);
  EXPECT_EQ(reply.body, "no");
  EXPECT_EQ(reply.field("connection"), "close");
  EXPECT_TRUE(client.at_end());
}

TEST(Proxying, InboundRequestIdIsKeptWhenWellFormedAndReplacedOtherwise) {
  Upstream upstream(echo);
  Proxy proxy(settings({upstream.url()}));
  Message reply = proxy.ask(get("/", "X-Request-Id: abc-12345.X_y\r\n"));
  EXPECT_EQ(reply.field("x-request-id"), "abc-12345.X_y");
  EXPECT_THAT(reply.body, HasSubstr("X-Request-Id: abc-12345.X_y\r\n"));
  reply = proxy.ask(get("/", "X-Request-Id: bad id\r\n"));
  EXPECT_THAT(reply.field("x-request-id"), testing::Not(HasSubstr("bad")));
  EXPECT_GE(reply.field("x-request-id").size(), 8U);
}

TEST(Proxying, TokenIsKeptFromTheUpstreamWhenSwitchedOff) {
  Upstream upstream(echo);
  config::Settings with_cookie = settings({upstream.url()});
  with_cookie.identity.forward_token = false;
  with_cookie.identity.sources = {{.header = "authorization", .cookie = ""},
                                  {.header = "", .cookie = "session"}};
  Proxy proxy(with_cookie);
  const Message reply = proxy.ask(get(
      "/0/odata/Case", "Authorization: Bearer " + token("ann") + "\r\nCookie: a=1; session=secret; b=2\r\n"));
  EXPECT_EQ(reply.status(), 200);
  EXPECT_THAT(reply.body, Not(HasSubstr("Bearer")));
  EXPECT_THAT(reply.body, Not(HasSubstr("secret")));
  EXPECT_THAT(reply.body, HasSubstr("a=1; b=2"));
}

TEST(Proxying, TokenIsKeptFromTheUpstreamInEveryPlaceItMayStand) {
  Upstream upstream(echo);
  config::Settings many = settings({upstream.url()});
  many.identity.forward_token = false;
  many.identity.sources = {{.header = "authorization", .cookie = ""}};
  std::string fields = "Authorization: Bearer " + token("ann") + "\r\n", cookies = "Cookie: a=1";
  for (int i = 0; i < 10; ++i) {
    const std::string name = "place-" + std::to_string(i);
    many.identity.sources.push_back({.header = name, .cookie = ""});
    many.identity.sources.push_back({.header = "", .cookie = name});
    fields += name + ": secret\r\n";
    cookies += "; " + name + "=secret";
  }
  Proxy proxy(many);
  const Message reply = proxy.ask(get("/0/odata/Case", fields + cookies + "\r\n"));
  EXPECT_EQ(reply.status(), 200);
  EXPECT_THAT(reply.body, Not(HasSubstr("secret")));
  EXPECT_THAT(reply.body, HasSubstr("Cookie: a=1\r\n"));
}

TEST(Proxying, MeteredCallIsCountedAndCarriesTheRateLimitFields) {
  Upstream upstream(echo);
  config::Settings few = settings({upstream.url()});
  few.quotas[0].limit = 2;
  Proxy proxy(few);
  const std::string request = get("/0/odata/Case", "Authorization: Bearer " + token("ann") + "\r\n");
  Peer client = proxy.connect();
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(client.send(request));
    const Message reply = client.read_message();
    EXPECT_EQ(reply.status(), 200);
    EXPECT_THAT(reply.field("ratelimit"), HasSubstr("\"daily\";r=" + std::to_string(1 - i)));
  }
  ASSERT_TRUE(client.send(request));
  const Message refused = client.read_message();
  EXPECT_EQ(refused.status(), 429);
  EXPECT_EQ(refused.count("date"), 1);
  EXPECT_EQ(refused.count("x-request-id"), 1);
  EXPECT_THAT(refused.body, HasSubstr("quota_exceeded"));
  // The connection goes on after a refusal.
  ASSERT_TRUE(client.send(get("/free")));
  EXPECT_EQ(client.read_message().status(), 200);
  const auto facts = proxy.facts.wait_for(4);
  EXPECT_EQ(facts[0].units, 1U);
  EXPECT_EQ(facts[0].user, "ann");
  EXPECT_EQ(facts[2].units, 0U);
  EXPECT_EQ(facts[2].reason, Reason::quota_exceeded);
  EXPECT_EQ(proxy.used("ann"), 2U);
}

TEST(Proxying, UsageIsAnsweredWithoutTheUpstream) {
  Upstream upstream(echo);
  Proxy proxy(settings({upstream.url()}));
  const std::string bearer = "Authorization: Bearer " + token("ann") + "\r\n";
  EXPECT_EQ(proxy.ask(get("/0/odata/Case", bearer)).status(), 200);
  const Message reply = proxy.ask(get("/.tollgate/usage", bearer));
  EXPECT_EQ(reply.status(), 200);
  EXPECT_THAT(reply.body, HasSubstr("\"used\":1"));
  EXPECT_THAT(reply.body, HasSubstr("\"object\":\"Case\""));
  EXPECT_EQ(proxy.used("ann"), 1U);
}

TEST(Proxying, BodyThatTheGateNeedsIsBufferedAndForwardedWhole) {
  Message seen;
  Upstream upstream([&](Peer& peer) {
    seen = peer.read_message();
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    peer.read_message();
  });
  Proxy proxy(settings({upstream.url()}));
  const std::string body =
      R"({"requests":[{"id":"1","method":"GET","url":"Case"},{"id":"2","method":"GET","url":"Case"}]})";
  Peer client = proxy.connect();
  ASSERT_TRUE(client.send("POST /0/odata/$batch HTTP/1.1\r\nHost: crm.example\r\nAuthorization: Bearer " +
                          token("ann") +
                          "\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: " +
                          std::to_string(body.size()) + "\r\n\r\n"));
  EXPECT_EQ(client.read_message().status(), 100);
  ASSERT_TRUE(client.send(body.substr(0, 20)));
  ASSERT_TRUE(client.send(body.substr(20)));
  EXPECT_EQ(client.read_message().status(), 200);
  EXPECT_EQ(seen.body, body);
  EXPECT_EQ(seen.field("expect"), "");
  EXPECT_EQ(proxy.facts.wait_for(1)[0].units, 2U);
}

TEST(Proxying, BodyTooLargeToInspectIs413) {
  Upstream upstream(echo);
  config::Settings small = settings({upstream.url()});
  small.catalogue.max_body = 100;
  Proxy proxy(small);
  const std::string head = "Authorization: Bearer " + token("ann") + "\r\nContent-Type: application/json\r\n";
  Message reply = proxy.ask(post("/0/odata/$batch", std::string(101, 'x'), head));
  EXPECT_EQ(reply.status(), 413);
  EXPECT_THAT(reply.body, HasSubstr("body_uninspectable"));
  reply = proxy.ask("POST /0/odata/$batch HTTP/1.1\r\nHost: crm.example\r\n" + head +
                    "Transfer-Encoding: chunked\r\n\r\n80\r\n" + std::string(128, 'x') + "\r\n0\r\n\r\n");
  EXPECT_EQ(reply.status(), 413);
  EXPECT_EQ(proxy.used("ann"), 0U);
}

TEST(Proxying, MalformedRequestIs400OnceAndTheConnectionEnds) {
  Upstream upstream(echo);
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect();
  ASSERT_TRUE(client.send(
      "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" +
      get("/smuggled")));
  const Message reply = client.read_message();
  EXPECT_EQ(reply.status(), 400);
  EXPECT_EQ(reply.field("connection"), "close");
  EXPECT_EQ(reply.field("content-type"), "application/problem+json");
  EXPECT_GE(reply.field("x-request-id").size(), 8U);
  EXPECT_TRUE(client.at_end());
  EXPECT_EQ(upstream.connections(), 0);
  EXPECT_EQ(proxy.facts.wait_for(1)[0].reason, Reason::bad_request);
  EXPECT_EQ(proxy.facts.size(), 1U);
}

TEST(Proxying, MalformedChunkEndsTheRequestOnBothSides) {
  Upstream upstream([](Peer& peer) {
    peer.read_head();
    EXPECT_THAT(peer.read_all(), Not(HasSubstr("0\r\n\r\n")));
  });
  Proxy proxy(settings({upstream.url()}));
  const Message reply =
      proxy.ask("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n\r\n");
  EXPECT_EQ(reply.status(), 400);
  EXPECT_EQ(reply.field("connection"), "close");
}

}  // namespace
}  // namespace tollgate::net::test
