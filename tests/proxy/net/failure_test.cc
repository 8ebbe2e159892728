// What can go wrong on either side: the reply the client gets, the fact, and whether the call was given back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/proxy/net/support/proxy_under_test.h"

namespace tollgate::net::test {
namespace {

using testing::HasSubstr;

std::string metered(const std::string& method = "GET") {
  return method + " /0/odata/Case HTTP/1.1\r\nHost: crm.example\r\nAuthorization: Bearer " + token("ann") +
         "\r\nContent-Length: 0\r\n\r\n";
}

struct Ending {
  int status = 0;
  RecordedFact fact;
  std::uint64_t used = 0;
};
Ending metered_call(const config::Settings& settings, const std::string& request = metered()) {
  Proxy proxy(settings);
  Ending ending;
  ending.status = proxy.ask(request).status();
  ending.fact = proxy.facts.wait_for(1)[0];
  ending.used = proxy.used("ann");
  EXPECT_EQ(proxy.facts.size(), 1U);
  return ending;
}

TEST(UpstreamFailure, RefusedConnectionIs502AndGivenBack) {
  const Ending ending = metered_call(settings({"http://127.0.0.1:" + std::to_string(unused_port())}));
  EXPECT_EQ(ending.status, 502);
  EXPECT_EQ(ending.fact.reason, Reason::upstream_unreachable);
  EXPECT_EQ(ending.fact.units, 0U);
  EXPECT_EQ(ending.used, 0U);
}

TEST(UpstreamFailure, UnknownHostNameIs502AndGivenBack) {
  const Ending ending = metered_call(settings({"http://no-such-host.invalid:80"}));
  EXPECT_EQ(ending.status, 502);
  EXPECT_EQ(ending.fact.reason, Reason::upstream_unreachable);
  EXPECT_EQ(ending.used, 0U);
}

TEST(UpstreamFailure, NextServerIsTriedWhenConnectingFailed) {
  Upstream upstream(echo);
  Proxy proxy(settings({"http://127.0.0.1:" + std::to_string(unused_port()), upstream.url()}));
  for (int i = 0; i < 4; ++i) EXPECT_EQ(proxy.ask(metered("POST")).status(), 200);
  const auto facts = proxy.facts.wait_for(4);
  EXPECT_EQ(facts[0].attempts, 2U);
  EXPECT_EQ(facts[0].units, 1U);
  EXPECT_EQ(facts[3].attempts, 1U) << "a server that is out is passed over";
  EXPECT_EQ(proxy.used("ann"), 4U);
  const Counters counters = proxy.server->counters();
  ASSERT_EQ(counters.upstream_health.size(), 2U);
  EXPECT_FALSE(counters.upstream_health[0].healthy);
  EXPECT_TRUE(counters.upstream_health[1].healthy);
}

TEST(UpstreamFailure, HostNameIsResolved) {
  Upstream upstream(echo);
  EXPECT_EQ(metered_call(settings({"http://localhost:" + std::to_string(upstream.port())})).status, 200);
}

TEST(UpstreamFailure, ClosedWithoutReplyIs502AndStaysCounted) {
  Upstream upstream([](Peer& peer) { peer.read_head(); });
  const Ending ending = metered_call(settings({upstream.url()}));
  EXPECT_EQ(ending.status, 502);
  EXPECT_EQ(ending.fact.reason, Reason::upstream_invalid);
  EXPECT_EQ(ending.fact.units, 1U);
  EXPECT_EQ(ending.used, 1U);
  EXPECT_EQ(upstream.connections(), 1) << "the first use of a connection is not repeated";
}

TEST(UpstreamFailure, GarbageIs502) {
  for (const std::string garbage :
       {"nonsense\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nBroken"}) {
    Upstream upstream([&](Peer& peer) {
      peer.read_head();
      peer.send(garbage);
    });
    const Ending ending = metered_call(settings({upstream.url()}));
    EXPECT_EQ(ending.status, 502) << garbage;
    EXPECT_EQ(ending.fact.reason, Reason::upstream_invalid) << garbage;
    EXPECT_EQ(ending.used, 1U);
  }
}

TEST(UpstreamFailure, ReplyCutInItsMiddleIsCutForTheClientToo) {
  for (const std::string head : {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
                                 "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"}) {
    Upstream upstream([&](Peer& peer) {
      peer.read_head();
      peer.send(head);
    });
    Proxy proxy(settings({upstream.url()}));
    const Message reply = proxy.ask(get("/"));
    EXPECT_EQ(reply.status(), 200);
    EXPECT_FALSE(reply.complete);
    EXPECT_EQ(proxy.facts.wait_for(1)[0].reason, Reason::upstream_invalid);
  }
}

TEST(UpstreamFailure, StaleConnectionIsReplacedForAnIdempotentRequest) {
  // Every connection answers once, reads the second request and closes.
  Upstream upstream([](Peer& peer) {
    peer.read_message();
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    peer.read_message();
  });
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect();
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(client.send(metered("GET")));
    EXPECT_EQ(client.read_message().status(), 200);
  }
  EXPECT_EQ(proxy.used("ann"), 4U) << "a retry counts once";
  EXPECT_EQ(proxy.facts.wait_for(4)[1].attempts, 2U);
}

TEST(UpstreamFailure, StaleConnectionIsNotReplacedForPost) {
  Upstream upstream([](Peer& peer) {
    peer.read_message();
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    peer.read_message();
  });
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect();
  ASSERT_TRUE(client.send(metered("POST")));
  EXPECT_EQ(client.read_message().status(), 200);
  ASSERT_TRUE(client.send(metered("POST")));
  EXPECT_EQ(client.read_message().status(), 502);
  EXPECT_EQ(upstream.connections(), 1);
}

TEST(UpstreamFailure, BytesBehindAReplyNeverAnswerTheNextRequest) {
  Upstream upstream([](Peer& peer) {
    while (peer.read_message().complete)
      peer.send(
          "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL");
  });
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect();
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(client.send(get("/")));
    EXPECT_EQ(client.read_message().body, "ok");
  }
  EXPECT_EQ(upstream.connections(), 3);
}

// ---- time-outs

TEST(TimeOut, UpstreamThatDoesNotAnswerIs504) {
  Upstream upstream([](Peer& peer) { peer.read_all(); });
  config::Settings impatient = settings({upstream.url()});
  impatient.upstreams[0].response_timeout = Milliseconds(30);
  const Ending ending = metered_call(impatient);
  EXPECT_EQ(ending.status, 504);
  EXPECT_EQ(ending.fact.reason, Reason::upstream_timeout);
  EXPECT_EQ(ending.used, 1U);
}

TEST(TimeOut, UpstreamThatStopsInItsBodyIsCut) {
  Upstream upstream([](Peer& peer) {
    peer.read_head();
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    peer.read_all();
  });
  config::Settings impatient = settings({upstream.url()});
  impatient.upstreams[0].idle_timeout = Milliseconds(30);
  Proxy proxy(impatient);
  EXPECT_FALSE(proxy.ask(get("/")).complete);
  EXPECT_EQ(proxy.facts.wait_for(1)[0].reason, Reason::upstream_timeout);
}

TEST(TimeOut, RequestHeadThatDoesNotEndIs408) {
  Upstream upstream(echo);
  config::Settings impatient = settings({upstream.url()});
  impatient.timeouts.request_head = Milliseconds(30);
  Proxy proxy(impatient);
  Peer client = proxy.connect();
  ASSERT_TRUE(client.send("GET / HTTP/1.1\r\nHost:"));
  const Message reply = client.read_message();
  EXPECT_EQ(reply.status(), 408);
  EXPECT_EQ(reply.field("connection"), "close");
  EXPECT_TRUE(client.at_end());
  EXPECT_EQ(proxy.facts.wait_for(1)[0].reason, Reason::request_timeout);
}

TEST(TimeOut, RequestBodyThatDoesNotComeIs408) {
  Upstream upstream([](Peer& peer) { peer.read_all(); });
  config::Settings impatient = settings({upstream.url()});
  impatient.timeouts.request_body = Milliseconds(30);
  Proxy proxy(impatient);
  Peer client = proxy.connect();
  ASSERT_TRUE(client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf"));
  EXPECT_EQ(client.read_message().status(), 408);
  EXPECT_TRUE(client.at_end());
  EXPECT_EQ(proxy.facts.wait_for(1)[0].reason, Reason::request_timeout);
}

TEST(TimeOut, IdleConnectionIsClosedWithoutAWord) {
  Upstream upstream(echo);
  config::Settings impatient = settings({upstream.url()});
  impatient.timeouts.client_idle = Milliseconds(30);
  Proxy proxy(impatient);
  Peer client = proxy.connect();
  EXPECT_TRUE(client.at_end());
  Peer used = proxy.connect();
  ASSERT_TRUE(used.send(get("/")));
  EXPECT_EQ(used.read_message().status(), 200);
  EXPECT_TRUE(used.at_end());
}

TEST(TimeOut, IdleUpstreamConnectionIsClosed) {
  Upstream upstream(echo);
  config::Settings impatient = settings({upstream.url()});
  impatient.upstreams[0].keepalive_timeout = Milliseconds(1);
  Proxy proxy(impatient);
  EXPECT_EQ(proxy.ask(get("/")).status(), 200);
  while (proxy.server->counters().upstream.idle > 0) std::this_thread::yield();
  EXPECT_EQ(proxy.ask(get("/")).status(), 200);
  EXPECT_EQ(upstream.connections(), 2);
}

TEST(TimeOut, ClientThatDoesNotReadIsGivenUp) {
  Upstream upstream([](Peer& peer) {
    peer.read_head();
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
    while (peer.send(std::string(100'000, 'x'))) {
    }
  });
  config::Settings impatient = settings({upstream.url()});
  impatient.timeouts.client_write = Milliseconds(50);
  Proxy proxy(impatient);
  Peer client = proxy.connect(4096);
  ASSERT_TRUE(client.send(get("/")));
  EXPECT_EQ(proxy.facts.wait_for(1)[0].reason, Reason::client_closed);
}

TEST(TimeOut, RequestWaitsForAConnectionOnlySoLong) {
  Upstream upstream([](Peer& peer) { peer.read_all(); });
  config::Settings narrow = settings({upstream.url()});
  narrow.upstreams[0].max_connections = 1;
  narrow.upstreams[0].queue_timeout = Milliseconds(30);
  Proxy proxy(narrow);
  Peer first = proxy.connect();
  ASSERT_TRUE(first.send(get("/")));
  while (proxy.server->counters().upstream.active == 0) std::this_thread::yield();
  EXPECT_EQ(proxy.ask(metered()).status(), 503);
  const auto facts = proxy.facts.wait_for(1);
  EXPECT_EQ(facts[0].reason, Reason::overloaded);
  EXPECT_EQ(proxy.used("ann"), 0U);
}

TEST(Queue, WaitingRequestGetsTheConnectionThatIsReturned) {
  Upstream upstream(echo);
  config::Settings narrow = settings({upstream.url()});
  narrow.upstreams[0].max_connections = 1;
  Proxy proxy(narrow);
  std::vector<Peer> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(proxy.connect());
    ASSERT_TRUE(clients.back().send(get("/")));
  }
  for (Peer& client : clients) EXPECT_EQ(client.read_message().status(), 200);
  EXPECT_EQ(upstream.connections(), 1);
}

// ---- the client

TEST(ClientGone, ResetWhileTheUpstreamWorksCancelsItAndStaysCounted) {
  std::atomic<bool> cancelled{false};
  Upstream upstream([&](Peer& peer) {
    peer.read_head();
    peer.read_all();
    cancelled = true;
  });
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect();
  ASSERT_TRUE(client.send(metered()));
  while (proxy.server->counters().upstream.active == 0) std::this_thread::yield();
  client.reset();
  EXPECT_EQ(proxy.facts.wait_for(1)[0].reason, Reason::client_closed);
  EXPECT_EQ(proxy.facts.wait_for(1)[0].status, 0);
  EXPECT_EQ(proxy.used("ann"), 1U);
  while (!cancelled) std::this_thread::yield();
}

TEST(ClientGone, HalfCloseStillGetsItsReply) {
  Upstream upstream(echo);
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect();
  ASSERT_TRUE(client.send(get("/")));
  client.end_writing();
  EXPECT_EQ(client.read_message().status(), 200);
  EXPECT_TRUE(client.at_end());
}

TEST(ClientGone, RequestCutInItsBodyIsNeverCompleteForTheUpstream) {
  Message seen;
  std::atomic<bool> ended{false};
  Upstream upstream([&](Peer& peer) {
    seen = peer.read_message();
    ended = true;
  });
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect();
  ASSERT_TRUE(client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"));
  client.close();
  EXPECT_EQ(proxy.facts.wait_for(1)[0].reason, Reason::client_closed);
  while (!ended) std::this_thread::yield();
  EXPECT_FALSE(seen.complete);
}

TEST(EarlyReply, RefusalDuringAnUploadReachesTheClient) {
  Upstream upstream([](Peer& peer) {
    peer.read_head();
    peer.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig");
  });
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect();
  ASSERT_TRUE(
      client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n" + std::string(1000, 'x')));
  const Message reply = client.read_message();
  EXPECT_EQ(reply.status(), 413);
  EXPECT_EQ(reply.body, "big");
  EXPECT_EQ(reply.field("connection"), "close");
}

}  // namespace
}  // namespace tollgate::net::test
