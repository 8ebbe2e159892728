// What can go wrong on either side: the reply the client gets, the fact, and whether the call was given back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <latch>

#include "proxy/net/endpoint.h"
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
  // A label of 64 characters is in no name server (RFC 1035 section 2.3.4): that is known before the call comes.
  const Ending ending = metered_call(settings({"http://" + std::string(64, 'a') + ".invalid:80"}));
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
  EXPECT_EQ(ending.fact.reason, Reason::upstream_closed);
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

// The worker is held while both arrive, so that the loop tells of them in one event.
TEST(UpstreamFailure, ResetThatComesWithAPartOfAReplyEndsTheCallAtOnce) {
  for (const std::string part :
       {"HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"}) {
    Server* server = nullptr;
    std::latch held(1), go_on(1);
    Upstream upstream([&](Peer& peer) {
      peer.read_head();
      server->post(0, [&] {
        held.count_down();
        go_on.wait();
      });
      held.wait();
      peer.send(part);
      peer.reset();
      go_on.count_down();
    });
    Proxy proxy(settings({upstream.url()}));
    server = proxy.server.get();
    proxy.ask(get("/"));
    const auto facts = proxy.facts.wait_for(1);
    ASSERT_EQ(facts.size(), 1U) << part;
    EXPECT_EQ(facts[0].reason, Reason::upstream_invalid) << part;
    EXPECT_LT(facts[0].total, Seconds(5)) << part;
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

TEST(UpstreamFailure, StaleConnectionFromTheQueueIsReplacedToo) {
  std::atomic<bool> may_answer{false};
  // Every connection answers once, reads the second request and closes.
  Upstream upstream([&](Peer& peer) {
    peer.read_message();
    while (!may_answer) std::this_thread::yield();
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    peer.read_message();
  });
  config::Settings one = settings({upstream.url()});
  one.upstreams[0].max_connections = 1;
  Proxy proxy(one);
  Peer first = proxy.connect(), second = proxy.connect();
  ASSERT_TRUE(first.send(metered("GET")));
  while (upstream.connections() == 0) std::this_thread::yield();
  ASSERT_TRUE(second.send(metered("GET")));
  while (proxy.server->counters().upstream_waiting == 0) std::this_thread::yield();
  may_answer = true;
  EXPECT_EQ(first.read_message().status(), 200);
  EXPECT_EQ(second.read_message().status(), 200);
  EXPECT_EQ(proxy.used("ann"), 2U) << "a retry counts once";
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

// The next request and the stray bytes come in the same turn of the worker, the request first.
TEST(UpstreamFailure, StrayBytesOnAnIdleConnectionNeverAnswerARequestOfTheSameTurn) {
  std::latch send_stray(1), stray_sent(1), held(1), go_on(1);
  std::atomic<int> connections{0};
  Upstream upstream([&](Peer& peer) {
    const bool first = connections++ == 0;
    peer.read_message();
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    if (first) {
      send_stray.wait();
      peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL");
      stray_sent.count_down();
    }
    peer.read_all();
  });
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect();
  ASSERT_TRUE(client.send(get("/")));
  EXPECT_EQ(client.read_message().body, "ok");
  proxy.server->post(0, [&] {
    held.count_down();
    go_on.wait();
  });
  held.wait();
  ASSERT_TRUE(client.send(get("/")));
  send_stray.count_down();
  stray_sent.wait();
  go_on.count_down();
  EXPECT_EQ(client.read_message().body, "ok");
  EXPECT_EQ(connections, 2);
}

// ---- time-outs

// Listens, but its queue is full: the kernel leaves further attempts to connect without an answer.
struct FullServer {
  FullServer() {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    auto* address = reinterpret_cast<sockaddr*>(&at);
    EXPECT_EQ(::bind(fds[0], address, size), 0);
    EXPECT_EQ(::listen(fds[0], 0), 0);
    EXPECT_EQ(::getsockname(fds[0], address, &size), 0);
    port = ntohs(at.sin_port);
    for (std::size_t i = 1; i < fds.size(); ++i) ::connect(fds[i], address, size);
  }
  ~FullServer() {
    for (const int fd : fds) ::close(fd);
  }
  static int make() { return ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0); }
  std::array<int, 5> fds = {make(), make(), make(), make(), make()};
  std::uint16_t port = 0;
};

TEST(TimeOut, ConnectingThatTakesTooLongIs504AndGivenBack) {
  FullServer full;
  config::Settings impatient = settings({"http://127.0.0.1:" + std::to_string(full.port)});
  impatient.upstreams[0].connect_timeout = Milliseconds(30);
  const Ending ending = metered_call(impatient);
  EXPECT_EQ(ending.status, 504);
  EXPECT_EQ(ending.fact.reason, Reason::upstream_connect_timeout);
  EXPECT_EQ(ending.fact.units, 0U);
  EXPECT_EQ(ending.used, 0U);
  EXPECT_GE(ending.fact.total, Milliseconds(30));
}

// A Unix socket whose accept queue is full: connect() answers EAGAIN.
class FullUnixServer {
 public:
  FullUnixServer() {
    EXPECT_EQ(::bind(listener_, at_.get(), at_.length), 0);
    EXPECT_EQ(::listen(listener_, 0), 0);
    do fillers_.push_back(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    while (::connect(fillers_.back(), at_.get(), at_.length) == 0);
    EXPECT_EQ(errno, EAGAIN);
  }
  ~FullUnixServer() {
    for (const int fd : fillers_) ::close(fd);
    ::close(listener_);
    ::unlink(path_.c_str());
  }
  std::string url() const { return "unix:" + path_; }
  // The connection after those that filled the queue.
  Peer accept() {
    for (std::size_t i = 0; i + 1 < fillers_.size(); ++i) ::close(::accept(listener_, nullptr, nullptr));
    return Peer(::accept(listener_, nullptr, nullptr));
  }

 private:
  const std::string path_ = testing::TempDir() + "full-" + std::to_string(::getpid()) + ".sock";
  const Endpoint at_ = *numeric_endpoint({.host = path_});
  const int listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  std::vector<int> fillers_;
};

TEST(TimeOut, FullQueueOfAUnixSocketIsWaitedForAsOneOfTcpIs) {
  FullUnixServer full;
  config::Settings impatient = settings({full.url()});
  impatient.upstreams[0].connect_timeout = Milliseconds(30);
  const Ending ending = metered_call(impatient);
  EXPECT_EQ(ending.status, 504);
  EXPECT_EQ(ending.fact.reason, Reason::upstream_connect_timeout);
  EXPECT_EQ(ending.used, 0U);
  EXPECT_GE(ending.fact.total, Milliseconds(30));
}

TEST(TimeOut, CallGoesOnWhenTheQueueOfAUnixSocketHasRoom) {
  FullUnixServer full;
  config::Settings patient = settings({full.url()});
  patient.upstreams[0].connect_timeout = Seconds(10);
  Proxy proxy(patient);
  Peer client = proxy.connect();
  ASSERT_TRUE(client.send(get("/")));
  while (proxy.server->counters().upstream_connecting == 0 && proxy.facts.size() == 0)
    std::this_thread::yield();
  ASSERT_EQ(proxy.facts.size(), 0U) << "the call has ended";
  Peer server = full.accept();
  server.read_message();
  server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  EXPECT_EQ(client.read_message().body, "ok");
}

// ---- out of descriptors

// No descriptor is free in this process while the object lives.
class NoDescriptors {
 public:
  NoDescriptors() {
    EXPECT_EQ(::getrlimit(RLIMIT_NOFILE, &before_), 0);
    const int any = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    rlimit low = before_;
    low.rlim_cur = 512;
    EXPECT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);
    for (int fd = any; fd >= 0; fd = ::dup(any)) taken_.push_back(fd);
  }
  ~NoDescriptors() {
    for (const int fd : taken_) ::close(fd);
    ::setrlimit(RLIMIT_NOFILE, &before_);
  }

 private:
  rlimit before_{};
  std::vector<int> taken_;
};

TEST(OutOfDescriptors, NewConnectionIsClosedOpenOnesGoOnAndLaterOnesAreServed) {
  Upstream upstream(echo);
  Proxy proxy(settings({upstream.url()}));
  Peer open = proxy.connect();
  ASSERT_TRUE(open.send(get("/")));
  EXPECT_EQ(open.read_message().status(), 200);
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ASSERT_GE(fd, 0);
  Peer refused(fd);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  at.sin_port = htons(proxy.server->ports().at(0));
  {
    NoDescriptors none;
    ASSERT_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&at), sizeof at), 0);
    EXPECT_TRUE(refused.at_end()) << "not left waiting";
    ASSERT_TRUE(open.send(get("/")));
    EXPECT_EQ(open.read_message().status(), 200);
  }
  EXPECT_GE(proxy.server->counters().accept_failures_total, 1U);
  EXPECT_EQ(proxy.ask(get("/")).status(), 200);
}

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

TEST(UpstreamFailure, BytesThatNobodyAskedForAnswerNobody) {
  std::latch answered(1);
  Upstream upstream([&](Peer& peer) {
    peer.read_head();
    const bool first = !answered.try_wait();
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    if (!first) return;
    answered.wait();
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged");
    peer.read_all();
  });
  Proxy proxy(settings({upstream.url()}));
  EXPECT_EQ(proxy.ask(get("/")).body, "ok");
  EXPECT_EQ(proxy.server->counters().upstream.idle, 1U);
  answered.count_down();
  while (proxy.server->counters().upstream.idle > 0) std::this_thread::yield();
  EXPECT_EQ(proxy.ask(get("/")).body, "ok");
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
