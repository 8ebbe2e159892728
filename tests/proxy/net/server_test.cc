// The server as a whole: limits of connections, draining, reloading, several workers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "tests/proxy/net/support/proxy_under_test.h"

namespace tollgate::net::test {
namespace {

using testing::HasSubstr;

// An upstream that answers when it is told to.
struct Held {
  std::promise<void> release;
  std::shared_future<void> released{release.get_future()};
  Upstream upstream{[this](Peer& peer) {
    while (peer.read_message().complete) {
      released.wait();
      if (!peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")) return;
    }
  }};
};

TEST(ConnectionCap, LongestIdleConnectionMakesRoom) {
  Upstream upstream(echo);
  config::Settings few = settings({upstream.url()});
  few.limits.max_connections = 2;
  Proxy proxy(few);
  Peer first = proxy.connect(), second = proxy.connect();
  for (Peer* peer : {&first, &second}) {
    ASSERT_TRUE(peer->send(get("/")));
    EXPECT_EQ(peer->read_message().status(), 200);
  }
  EXPECT_EQ(proxy.ask(get("/")).status(), 200);
  EXPECT_TRUE(first.at_end());
  ASSERT_TRUE(second.send(get("/")));
  EXPECT_EQ(second.read_message().status(), 200);
}

TEST(ConnectionCap, RequestsBeyondItAre503) {
  Held held;
  config::Settings few = settings({held.upstream.url()});
  few.limits.max_connections = 1;
  Proxy proxy(few);
  Peer busy = proxy.connect();
  ASSERT_TRUE(busy.send(get("/")));
  while (proxy.server->counters().client.active == 0) std::this_thread::yield();
  const Message refused = proxy.ask(get("/"));
  EXPECT_EQ(refused.status(), 503);
  EXPECT_THAT(refused.body, HasSubstr("overloaded"));
  EXPECT_EQ(refused.field("connection"), "close");
  EXPECT_EQ(proxy.server->counters().refused_connections_total, 1U);
  held.release.set_value();
  EXPECT_EQ(busy.read_message().status(), 200);
}

TEST(Draining, CallsInFlightEndIdleConnectionsCloseAndNothingIsAccepted) {
  Held held;
  Proxy proxy(settings({held.upstream.url()}));
  Peer idle = proxy.connect();
  Peer busy = proxy.connect();
  ASSERT_TRUE(busy.send(get("/")));
  while (proxy.server->counters().client.active == 0) std::this_thread::yield();
  EXPECT_FALSE(proxy.server->drain(Milliseconds(20)));
  EXPECT_TRUE(proxy.server->draining());
  EXPECT_TRUE(idle.at_end());
  held.release.set_value();
  const Message reply = busy.read_message();
  EXPECT_EQ(reply.body, "done");
  EXPECT_EQ(reply.field("connection"), "close");
  EXPECT_TRUE(busy.at_end());
  busy.close();
  EXPECT_TRUE(proxy.server->drain(Milliseconds(10'000)));
}

TEST(GivingWay, WhoWaitsIsServedByTheSuccessorAndACallUnderWayEnds) {
  Held held;
  Upstream fast(echo);
  Proxy old(settings({held.upstream.url()}), 3);
  Peer busy = old.connect(), idle = old.connect();
  ASSERT_TRUE(busy.send(get("/")));
  while (old.server->counters().client.active == 0) std::this_thread::yield();
  // A predecessor's sockets come as numbers; what is none is left out.
  Sockets sockets = sockets_from_text(to_text(old.server->sockets()) + ";127.0.0.1:9=0,x,999999;nonsense");
  ASSERT_EQ(sockets.size(), 1U);
  ASSERT_EQ(sockets.begin()->second.size(), 3U);
  old.server->say_close(true);
  EXPECT_FALSE(old.server->give_way(Milliseconds(1'500)));
  EXPECT_TRUE(idle.at_end());
  std::vector<Peer> waiting;
  for (int i = 0; i < 12; ++i) waiting.push_back(old.connect());
  for (Peer& peer : waiting) ASSERT_TRUE(peer.send(get("/")));
  old.server->stop_charging();
  old.server->detach();
  Proxy successor(settings({fast.url()}), 2, std::move(sockets));
  EXPECT_EQ(successor.server->ports(), old.server->ports());
  EXPECT_EQ(successor.server->counters().accepted_total, 0U);
  successor.server->begin_accepting();
  for (Peer& peer : waiting) EXPECT_EQ(peer.read_message().status(), 200);
  held.release.set_value();
  const Message reply = busy.read_message();
  EXPECT_EQ(reply.body, "done");
  EXPECT_EQ(reply.field("connection"), "close");
  busy.close();
  EXPECT_TRUE(old.server->drain(Milliseconds(10'000)));
  EXPECT_EQ(old.facts.wait_for(1).size(), 1U);
}

TEST(GivingWay, ConnectionsThatWereIdleAreToldWithTheirNextReply) {
  Upstream upstream(echo);
  Proxy proxy(settings({upstream.url()}));
  Peer idle = proxy.connect();
  ASSERT_TRUE(idle.send(get("/")));
  EXPECT_EQ(idle.read_message().field("connection"), "");
  while (proxy.server->counters().client.idle == 0) std::this_thread::yield();
  proxy.server->say_close(true);
  EXPECT_FALSE(proxy.server->all_told());
  EXPECT_EQ(proxy.ask(get("/")).field("connection"), "close");
  EXPECT_FALSE(proxy.server->all_told());
  ASSERT_TRUE(idle.send(get("/")));
  EXPECT_EQ(idle.read_message().field("connection"), "close");
  EXPECT_TRUE(idle.at_end());
  EXPECT_TRUE(proxy.server->all_told());
  proxy.server->say_close(false);
  EXPECT_EQ(proxy.ask(get("/")).field("connection"), "");
}

TEST(Stopping, CallInFlightGetsItsFactAndA503) {
  Upstream upstream([](Peer& peer) { peer.read_all(); });
  Proxy proxy(settings({upstream.url()}));
  Peer busy = proxy.connect();
  ASSERT_TRUE(busy.send(get("/")));
  while (proxy.server->counters().upstream.active == 0) std::this_thread::yield();
  proxy.server.reset();
  EXPECT_EQ(busy.read_message().status(), 503);
  const auto facts = proxy.facts.wait_for(1);
  EXPECT_EQ(facts[0].reason, Reason::draining);
  EXPECT_EQ(proxy.facts.size(), 1U);
}

TEST(Reloading, RequestUnderWayEndsAndTheNextOneSeesTheNewUpstream) {
  Held held;
  Upstream other(echo);
  Proxy proxy(settings({held.upstream.url()}));
  Peer client = proxy.connect();
  ASSERT_TRUE(client.send(get("/")));
  while (proxy.server->counters().upstream.active == 0) std::this_thread::yield();
  config::Settings next = settings({other.url()});
  ASSERT_TRUE(proxy.reload(next));
  while (proxy.ask(get("/")).body == "done") {
  }
  held.release.set_value();
  EXPECT_EQ(client.read_message().body, "done");
  ASSERT_TRUE(client.send(get("/after")));
  EXPECT_THAT(client.read_message().body, HasSubstr("GET /after "));
}

TEST(Reloading, UnchangedUpstreamKeepsItsConnections) {
  Upstream upstream(echo);
  Proxy proxy(settings({upstream.url()}));
  EXPECT_EQ(proxy.ask(get("/")).status(), 200);
  config::Settings next = settings({upstream.url()});
  next.quotas[0].limit = 5;
  ASSERT_TRUE(proxy.reload(next));
  EXPECT_EQ(proxy.ask(get("/")).status(), 200);
  EXPECT_EQ(upstream.connections(), 1);
}

TEST(Reloading, ListenersComeAndGoWithoutTouchingTheOthers) {
  Upstream upstream(echo);
  Proxy proxy(settings({upstream.url()}));
  const std::uint16_t port = proxy.server->ports()[0];
  config::Settings two = settings({upstream.url()});
  two.listeners.emplace_back().address = "[::1]:0";
  ASSERT_TRUE(proxy.reload(two));
  ASSERT_EQ(proxy.server->ports().size(), 2U);
  EXPECT_EQ(proxy.server->ports()[0], port);
  EXPECT_NE(proxy.server->ports()[1], 0);
  EXPECT_EQ(proxy.ask(get("/")).status(), 200);
  ASSERT_TRUE(proxy.reload(settings({upstream.url()})));
  EXPECT_EQ(proxy.ask(get("/")).status(), 200);
}

TEST(Reloading, PortThatIsTakenChangesNothing) {
  Upstream upstream(echo);
  Proxy proxy(settings({upstream.url()}));
  config::Settings next = settings({upstream.url()});
  next.listeners.emplace_back().address = "127.0.0.1:" + std::to_string(upstream.port());
  next.quotas[0].limit = 5;
  const auto reloaded = proxy.reload(next);
  ASSERT_FALSE(reloaded);
  EXPECT_THAT(reloaded.error().message, HasSubstr(std::to_string(upstream.port())));
  EXPECT_EQ(proxy.server->snapshot()->settings.quotas[0].limit, 1'000U);
  EXPECT_EQ(proxy.ask(get("/")).status(), 200);
}

TEST(Workers, ShareOnePortAndAllServe) {
  Upstream upstream(echo);
  Proxy proxy(settings({upstream.url()}), 3);
  for (int i = 0; i < 60; ++i) EXPECT_EQ(proxy.ask(get("/")).status(), 200);
  EXPECT_EQ(proxy.facts.wait_for(60).size(), 60U);
  EXPECT_EQ(proxy.server->counters().accepted_total, 60U);
}

TEST(Workers, TasksRunOnTheirThread) {
  Upstream upstream(echo);
  Proxy proxy(settings({upstream.url()}), 2);
  std::promise<std::thread::id> first, second;
  proxy.server->post(0, [&] { first.set_value(std::this_thread::get_id()); });
  proxy.server->post(1, [&] { second.set_value(std::this_thread::get_id()); });
  EXPECT_NE(first.get_future().get(), second.get_future().get());
}

}  // namespace
}  // namespace tollgate::net::test
