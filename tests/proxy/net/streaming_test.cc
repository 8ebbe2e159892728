// Large bodies, back-pressure and tunnels.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/proxy/net/support/proxy_under_test.h"

namespace tollgate::net::test {
namespace {

using testing::HasSubstr;

constexpr std::size_t kMiB = 1024 * 1024;
// Less under a sanitizer, where a GiB takes its time; AddressSanitizer also keeps up to 256 MiB of what was freed.
#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kLargeMiB = 512, kHeldMiBMax = 32 + 256;
#elif defined(__SANITIZE_THREAD__)
constexpr std::size_t kLargeMiB = 512, kHeldMiBMax = 32;
#else
constexpr std::size_t kLargeMiB = 1024, kHeldMiBMax = 32;
#endif

std::size_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::size_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * 4096;
}

TEST(Streaming, LargeDownloadPassesInConstantMemory) {
  const std::string block(kMiB, 'd');
  Upstream upstream([&](Peer& peer) {
    peer.read_head();
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(kLargeMiB * kMiB) + "\r\n\r\n");
    for (std::size_t i = 0; i < kLargeMiB; ++i)
      if (!peer.send(block)) return;
    peer.read_head();
  });
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect();
  ASSERT_TRUE(client.send(get("/big")));
  ASSERT_THAT(client.read_head(), HasSubstr("200 OK"));
  const std::size_t before = resident_bytes();
  std::size_t got = 0, most = 0;
  while (got < kLargeMiB * kMiB) {
    const std::string part = client.read_some();
    ASSERT_FALSE(part.empty());
    got += part.size();
    if (got % (64 * kMiB) < part.size()) most = std::max(most, resident_bytes());
  }
  EXPECT_EQ(got, kLargeMiB * kMiB);
  EXPECT_LT(most, before + kHeldMiBMax * kMiB);
  EXPECT_EQ(proxy.facts.wait_for(1)[0].bytes_out, kLargeMiB * kMiB);
}

TEST(Streaming, LargeUploadPassesInConstantMemory) {
  std::atomic<std::size_t> received{0};
  Upstream upstream([&](Peer& peer) {
    peer.read_head();
    while (received < kLargeMiB * kMiB) {
      const std::string part = peer.read_some();
      if (part.empty()) return;
      received += part.size();
    }
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    peer.read_head();
  });
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect();
  const std::size_t before = resident_bytes();
  ASSERT_TRUE(client.send(
      "PUT /big HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(kLargeMiB * kMiB) + "\r\n\r\n"));
  const std::string block(kMiB, 'u');
  std::size_t most = 0;
  for (std::size_t i = 0; i < kLargeMiB; ++i) {
    ASSERT_TRUE(client.send(block));
    if (i % 64 == 0) most = std::max(most, resident_bytes());
  }
  EXPECT_EQ(client.read_message().status(), 200);
  EXPECT_EQ(received, kLargeMiB * kMiB);
  EXPECT_LT(most, before + kHeldMiBMax * kMiB);
}

TEST(Streaming, SlowReaderHoldsTheUpstreamBack) {
  std::atomic<std::size_t> sent{0};
  Upstream upstream([&](Peer& peer) {
    peer.read_head();
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(256 * kMiB) + "\r\n\r\n");
    const std::string block(64 * 1024, 's');
    for (std::size_t i = 0; i < 256 * kMiB / block.size(); ++i) {
      if (!peer.send(block)) return;
      sent += block.size();
    }
  });
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect(16 * 1024);
  ASSERT_TRUE(client.send(get("/")));
  client.read_head();
  // Nothing is read: the upstream gets stuck once sockets and our buffers are full. Two equal looks, a while
  // apart, with an exchange on another connection between them, so that the proxy certainly had its turn.
  std::size_t last = 1;
  for (int same = 0; same < 50;) {
    proxy.ask("BAD\r\n\r\n");
    same = sent == last ? same + 1 : 0;
    last = sent;
  }
  EXPECT_LT(last, 64 * kMiB);
  std::size_t got = 0;
  while (got < 256 * kMiB) {
    const std::string part = client.read_some();
    ASSERT_FALSE(part.empty());
    got += part.size();
  }
  EXPECT_GE(got, 256 * kMiB - 65'536);
}

TEST(Streaming, BodiesFlowBothWaysAtOnce) {
  Upstream upstream([](Peer& peer) {
    peer.read_head();
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
    for (int i = 0; i < 10; ++i) peer.send(peer.read_exactly(1));
    peer.read_head();
  });
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect();
  ASSERT_TRUE(client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"));
  EXPECT_THAT(client.read_head(), HasSubstr("200 OK"));
  for (const char c : std::string("0123456789")) {
    ASSERT_TRUE(client.send(std::string(1, c)));
    EXPECT_EQ(client.read_exactly(1), std::string(1, c));
  }
  EXPECT_EQ(proxy.facts.wait_for(1)[0].reason, Reason::ok);
}

// ---- upgrades

void tunnel_echo(Peer& peer) {
  const std::string head = peer.read_head();
  EXPECT_THAT(head, HasSubstr("Upgrade: websocket\r\n"));
  peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello ");
  for (;;) {
    const std::string bytes = peer.read_some();
    if (bytes.empty()) break;
    peer.send(bytes);
  }
  peer.send("bye");
}

TEST(Tunnel, BytesPassBothWaysUntilBothSidesHaveEnded) {
  Upstream upstream(tunnel_echo);
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect();
  ASSERT_TRUE(client.send(get("/ws", "Connection: Upgrade\r\nUpgrade: websocket\r\n")));
  const std::string head = client.read_head();
  EXPECT_THAT(head, HasSubstr("101 "));
  EXPECT_THAT(head, HasSubstr("Upgrade: websocket\r\n"));
  EXPECT_EQ(client.read_exactly(6), "hello ");
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(client.send("\x81\x02no head"));
    EXPECT_EQ(client.read_exactly(9), "\x81\x02no head");
  }
  EXPECT_EQ(proxy.server->counters().client.tunnels, 1U);
  client.end_writing();
  EXPECT_EQ(client.read_all(), "bye");
  const auto facts = proxy.facts.wait_for(1);
  EXPECT_EQ(facts[0].status, 101);
  EXPECT_EQ(facts[0].reason, Reason::ok);
  EXPECT_EQ(proxy.server->counters().client.tunnels, 0U);
}

TEST(Tunnel, IsClosedWhenNothingPasses) {
  Upstream upstream(tunnel_echo);
  config::Settings impatient = settings({upstream.url()});
  impatient.timeouts.upgrade_idle = Milliseconds(50);
  Proxy proxy(impatient);
  Peer client = proxy.connect();
  ASSERT_TRUE(client.send(get("/ws", "Connection: Upgrade\r\nUpgrade: websocket\r\n")));
  EXPECT_THAT(client.read_head(), HasSubstr("101 "));
  EXPECT_EQ(client.read_exactly(6), "hello ");
  EXPECT_EQ(client.read_all(), "");
}

TEST(Tunnel, RouteMayForbidIt) {
  Upstream upstream(echo);
  config::Settings plain = settings({upstream.url()});
  for (config::Route& route : plain.routes) route.allow_upgrade = false;
  Proxy proxy(plain);
  const Message reply = proxy.ask(get("/ws", "Connection: Upgrade\r\nUpgrade: websocket\r\n"));
  EXPECT_EQ(reply.status(), 200);
  EXPECT_THAT(reply.body, testing::Not(HasSubstr("Upgrade")));
}

TEST(Tunnel, UpgradeThatNobodyAskedForIs502) {
  Upstream upstream([](Peer& peer) {
    peer.read_head();
    peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    peer.read_all();
  });
  Proxy proxy(settings({upstream.url()}));
  EXPECT_EQ(proxy.ask(get("/")).status(), 502);
}

TEST(Tunnel, RefusedUpgradeIsAnOrdinaryReply) {
  Upstream upstream(echo);
  Proxy proxy(settings({upstream.url()}));
  Peer client = proxy.connect();
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(client.send(get("/ws", "Connection: Upgrade\r\nUpgrade: websocket\r\n")));
    EXPECT_EQ(client.read_message().status(), 200);
  }
}

}  // namespace
}  // namespace tollgate::net::test
