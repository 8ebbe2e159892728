#include "proxy/net/local_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>
#include <semaphore>
#include <thread>

#include "tests/proxy/net/support/sockets.h"

namespace tollgate::net {
namespace {

using test::Message;
using test::Peer;

std::unique_ptr<LocalService> start(LocalHandler handler) {
  auto service = LocalService::start("127.0.0.1:0", std::move(handler));
  EXPECT_TRUE(service);
  return std::move(*service);
}

void describe(const LocalRequest& request, const LocalReplyTo& reply) {
  reply({.status = 200,
         .fields = "X-Extra: 1\r\n",
         .body = std::string(request.method) + " " + std::string(request.path) + " " +
                 std::string(request.query) + " " + std::string(request.field("x-NAME")) + " " +
                 std::string(request.body) + " " + std::string(request.peer)});
}

TEST(LocalService, AnswersSeveralRequestsOnOneConnection) {
  auto service = start(describe);
  Peer peer = Peer::connect(service->port());
  ASSERT_TRUE(peer.send("POST /api?x=1 HTTP/1.1\r\nHost: a\r\nX-Name: n\r\nContent-Length: 4\r\n\r\nbody"));
  Message reply = peer.read_message();
  EXPECT_EQ(reply.status(), 200);
  EXPECT_EQ(reply.body, "POST /api x=1 n body 127.0.0.1");
  EXPECT_EQ(reply.field("x-extra"), "1");
  EXPECT_EQ(reply.field("content-type"), "text/plain; charset=utf-8");
  ASSERT_TRUE(
      peer.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
                "chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n"));
  EXPECT_EQ(peer.read_message().body, "PUT /   abc 127.0.0.1");
  EXPECT_EQ(peer.read_message().body, "GET /two    127.0.0.1");
}

TEST(LocalService, RequestByteByByteIsTheSameRequest) {
  auto service = start(describe);
  Peer peer = Peer::connect(service->port());
  for (const char c :
       std::string("POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"))
    ASSERT_TRUE(peer.send(std::string(1, c)));
  EXPECT_EQ(peer.read_message().body, "POST /p   abc 127.0.0.1");
}

TEST(LocalService, HeadIsGetWithoutTheBody) {
  auto service = start(describe);
  Peer peer = Peer::connect(service->port());
  ASSERT_TRUE(peer.send("HEAD /h HTTP/1.1\r\nHost: a\r\n\r\nGET /h HTTP/1.1\r\nHost: a\r\n\r\n"));
  const Message head = peer.read_message(true);
  const Message get = peer.read_message();
  EXPECT_EQ(head.field("content-length"), get.field("content-length"));
}

TEST(LocalService, RefusedHeadGetsNoBody) {
  auto service = start(describe);
  for (const char* request : {"HEAD /h HTTP/1.1\r\nHost : a\r\n\r\n",
                              "HEAD /h HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n"}) {
    Peer peer = Peer::connect(service->port());
    ASSERT_TRUE(peer.send(request));
    const Message reply = peer.read_message(true);
    EXPECT_GE(reply.status(), 400);
    EXPECT_TRUE(peer.at_end());
  }
}

TEST(LocalService, ReplyMayComeLaterFromAnotherThread) {
  std::vector<std::thread> threads;
  auto service = start([&](const LocalRequest&, LocalReplyTo reply) {
    threads.emplace_back([reply = std::move(reply)] { reply({.body = "later"}); });
  });
  Peer peer = Peer::connect(service->port());
  ASSERT_TRUE(peer.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
  EXPECT_EQ(peer.read_message().body, "later");
  service.reset();
  for (std::thread& thread : threads) thread.join();
}

TEST(LocalService, ReplyThatNobodyGivesIs500AndOneAfterTheEndIsIgnored) {
  LocalReplyTo kept;
  auto service = start([&](const LocalRequest& request, LocalReplyTo reply) {
    if (request.path == "/keep") kept = std::move(reply);
  });
  Peer peer = Peer::connect(service->port());
  ASSERT_TRUE(peer.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
  EXPECT_EQ(peer.read_message().status(), 500);
  ASSERT_TRUE(peer.send("GET /keep HTTP/1.1\r\nHost: a\r\n\r\n"));
  service.reset();
  if (kept) kept({.body = "too late"});
}

TEST(LocalService, MalformedAndOversizedRequestsAreRefused) {
  auto service = start(describe);
  Peer peer = Peer::connect(service->port());
  ASSERT_TRUE(peer.send("GET / HTTP/1.1\nHost: a\n\n"));
  EXPECT_EQ(peer.read_message().status(), 400);
  EXPECT_TRUE(peer.at_end());
  Peer large = Peer::connect(service->port());
  ASSERT_TRUE(large.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n"));
  EXPECT_EQ(large.read_message().status(), 413);
}

constexpr std::size_t kPlaces = 64;
constexpr std::string_view kGet = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

TEST(LocalService, WhenAllPlacesAreTakenTheLongestIdleMakesRoom) {
  auto service = start(describe);
  Peer unfinished = Peer::connect(service->port());
  ASSERT_TRUE(unfinished.send(kGet));
  EXPECT_EQ(unfinished.read_message().status(), 200);
  ASSERT_TRUE(unfinished.send("GET /half"));
  std::vector<Peer> idle;
  for (std::size_t i = 0; i < kPlaces - 1; ++i) {
    idle.push_back(Peer::connect(service->port()));
    ASSERT_TRUE(idle.back().send(kGet));
    EXPECT_EQ(idle.back().read_message().status(), 200);
  }
  Peer late = Peer::connect(service->port());
  ASSERT_TRUE(late.send(kGet));
  EXPECT_EQ(late.read_message().status(), 200);
  EXPECT_TRUE(idle.front().at_end());
  ASSERT_TRUE(idle[1].send(kGet));
  EXPECT_EQ(idle[1].read_message().status(), 200);
  ASSERT_TRUE(unfinished.send(" HTTP/1.1\r\nHost: a\r\n\r\n"));
  EXPECT_EQ(unfinished.read_message().status(), 200);
}

TEST(LocalService, WithNoneIdleAnUnfinishedRequestMakesRoom) {
  for (const std::string_view beginning :
       {"GET /half", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo"}) {
    auto service = start(describe);
    std::vector<Peer> unfinished;
    for (std::size_t i = 0; i < kPlaces; ++i) {
      unfinished.push_back(Peer::connect(service->port()));
      ASSERT_TRUE(unfinished.back().send(beginning));
    }
    Peer late = Peer::connect(service->port());
    ASSERT_TRUE(late.send(kGet));
    EXPECT_EQ(late.read_message().status(), 200);
    EXPECT_TRUE(unfinished.front().at_end());
  }
}

TEST(LocalService, ConnectionThatIsBeingAnsweredMakesNoRoom) {
  std::mutex mutex;
  std::vector<LocalReplyTo> replies;  // guarded by mutex
  std::counting_semaphore<> asked(0);
  auto service = start([&](const LocalRequest&, LocalReplyTo reply) {
    std::lock_guard lock(mutex);
    replies.push_back(std::move(reply));
    asked.release();
  });
  std::vector<Peer> peers;
  for (std::size_t i = 0; i < kPlaces; ++i) {
    peers.push_back(Peer::connect(service->port()));
    ASSERT_TRUE(peers.back().send(kGet));
    asked.acquire();
  }
  EXPECT_TRUE(Peer::connect(service->port()).at_end());
  for (std::size_t i = 0; i < kPlaces; ++i) {
    std::lock_guard lock(mutex);
    replies[i]({.body = "answered"});
    EXPECT_EQ(peers[i].read_message().body, "answered");
  }
}

// More at once than there are places: each that asks is answered before it makes room.
TEST(LocalService, ABurstIsAnsweredWhole) {
  auto service = start(describe);
  std::vector<Peer> peers;
  for (std::size_t i = 0; i < 2 * kPlaces; ++i) {
    peers.push_back(Peer::connect(service->port()));
    ASSERT_TRUE(peers.back().send(kGet));
  }
  for (Peer& peer : peers) EXPECT_EQ(peer.read_message().status(), 200);
}

TEST(LocalService, AddressThatIsTakenIsAnError) {
  auto service = start(describe);
  auto second = LocalService::start("127.0.0.1:" + std::to_string(service->port()), describe);
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().message, testing::HasSubstr(std::to_string(service->port())));
}

}  // namespace
}  // namespace tollgate::net
