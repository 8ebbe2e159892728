// The connection against real servers: ways in, time-outs, loss, TLS.
#include "metering/redis/connection.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fstream>

#include "metering/redis/redis_ledger.h"
#include "tests/metering/redis/support/redis_fixture.h"

namespace tollgate::redis {
namespace {

using quota::ChargeOutcome;
using testing::account;
using testing::Client;
using testing::free_port;
using testing::Loop;
using testing::Server;
using testing::TemporaryDirectory;
using Status = ChargeOutcome::Status;
using namespace std::chrono_literals;

// What PING says over a new connection, or the reason why there is none.
std::string ping(ConnectionOptions options) {
  Loop loop;
  Connection connection(loop.base(), std::move(options));
  connection.start();
  std::string answer;
  std::array<std::string_view, 1> words{"PING"};
  connection.send(words, 5'000ms,
                  [&](Result<Reply*> reply) { answer = reply ? (*reply)->text : reply.error().message; });
  loop.run_until([&] { return !answer.empty(); });
  return answer;
}

ConnectionOptions options_for(std::string_view url) {
  ConnectionOptions options;
  auto parsed = parse_store_url(url);
  EXPECT_TRUE(parsed.has_value()) << url;
  options.url = parsed.value_or(StoreUrl{});
  options.connect_timeout = 5'000ms;
  return options;
}

TEST(Connection, TcpByAddressAndByName) {
  std::uint16_t port = free_port();
  Server server({fmt::format("port {}", port), "bind 127.0.0.1"});
  EXPECT_EQ(ping(options_for(fmt::format("redis://127.0.0.1:{}", port))), "PONG");
  EXPECT_EQ(ping(options_for(fmt::format("redis://localhost:{}", port))), "PONG");
}

TEST(Connection, NameThatDoesNotExistIsNamedInTheError) {
  std::string answer = ping(options_for("redis://no-such-host.invalid:6379"));
  EXPECT_NE(answer.find("no-such-host.invalid"), std::string::npos) << answer;
}

TEST(Connection, DatabaseOfTheUrlIsSelected) {
  Server server;
  server.command({"SET", "where", "zero"});
  ConnectionOptions options{.url = server.url()};
  options.url.database = 3;
  Loop loop;
  Connection connection(loop.base(), options);
  connection.start();
  std::optional<Reply::Type> type;
  std::array<std::string_view, 2> words{"GET", "where"};
  connection.send(words, 5'000ms, [&](Result<Reply*> reply) { type = reply.value()->type; });
  ASSERT_TRUE(loop.run_until([&] { return type.has_value(); }));
  EXPECT_EQ(*type, Reply::Type::nil);
  options.url.database = 99;
  EXPECT_NE(ping(options).find("refuses database 99"), std::string::npos);
}

TEST(Connection, PasswordAndAclUserAreSentAndWrongOnesAreNamedWithoutThePassword) {
  Server server({"requirepass sesame", "user tollgate on >hunter2 ~* &* +@all"});
  ConnectionOptions options{.url = server.url()};
  options.connect_timeout = 5'000ms;
  EXPECT_NE(ping(options).find("store.password_file"), std::string::npos);
  options.url.password = "sesame";
  EXPECT_EQ(ping(options), "PONG");
  options.url.user = "tollgate";
  std::string answer = ping(options);
  EXPECT_NE(answer.find("refuses the password of user tollgate"), std::string::npos) << answer;
  EXPECT_NE(answer.find("WRONGPASS"), std::string::npos) << answer;
  EXPECT_EQ(answer.find("sesame"), std::string::npos) << answer;
  options.url.password = "hunter2";
  EXPECT_EQ(ping(options), "PONG");
}

TEST(Connection, AclUserWithOnlyTheRightsOfTheScriptsIsEnough) {
  Server server({"user default off",
                 "user t on >p ~q:* ~h:* ~o:* &* +evalsha +script|load +hget +hset +hdel +hgetall +pttl "
                 "+pexpire +time"});
  Client client(server, [](RedisLedgerOptions& options) {
    options.connection.url.user = "t";
    options.connection.url.password = "p";
  });
  ChargeOutcome outcome = client.charge({account("ann", "daily", 1)});
  EXPECT_EQ(outcome.status, Status::admitted) << outcome.error;
  EXPECT_EQ(client.charge({account("ann", "daily", 1)}).status, Status::exceeded);
}

TEST(Connection, CommandsOfOneTurnLeaveInOneWrite) {
  Server server;
  Loop loop;
  Connection connection(loop.base(), {.url = server.url()});
  connection.start();
  ASSERT_TRUE(loop.run_until([&] { return connection.up(); }));
  std::uint64_t before = connection.writes();
  int answered = 0;
  bool in_order = true;
  for (int i = 0; i < 1000; ++i) {
    std::string text = std::to_string(i);
    std::array<std::string_view, 2> words{"ECHO", text};
    connection.send(words, 5'000ms, [&, i](Result<Reply*> reply) {
      in_order = in_order && reply && (*reply)->text == std::to_string(i);
      ++answered;
    });
  }
  ASSERT_TRUE(loop.run_until([&] { return answered == 1000; }));
  EXPECT_TRUE(in_order);
  EXPECT_EQ(connection.writes(), before + 1);
}

TEST(Connection, RepliesOfManyMegabytesArriveWhole) {
  Server server;
  Loop loop;
  Connection connection(loop.base(), {.url = server.url()});
  connection.start();
  std::string big(9'000'000, 'x');
  std::string got;
  std::array<std::string_view, 2> words{"ECHO", big};
  connection.send(words, 10'000ms,
                  [&](Result<Reply*> reply) { got = reply ? (*reply)->text : reply.error().message; });
  ASSERT_TRUE(loop.run_until([&] { return !got.empty(); }));
  EXPECT_EQ(got, big);
}

TEST(Connection, PeerThatSpeaksAnotherProtocolIsGivenUp) {
  int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(listener, 1), 0);
  ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  Loop loop;
  Connection connection(loop.base(),
                        options_for(fmt::format("redis://127.0.0.1:{}", ntohs(address.sin_port))));
  connection.start();
  int peer = -1;
  ASSERT_TRUE(loop.run_until([&] { return connection.state() == Connection::State::connecting; }));
  peer = ::accept(listener, nullptr, nullptr);
  ASSERT_GT(::write(peer, "HTTP/1.1 400 Bad Request\r\n\r\n", 28), 0);
  EXPECT_TRUE(loop.run_until([&] {
    return connection.last_error().find("not a Redis reply") != std::string::npos;
  })) << connection.last_error();
  ::close(peer);
  ::close(listener);
}

TEST(Ledger, BeforeStartAndWhileDownChargesAreUnavailableAtOnce) {
  Loop loop;
  StoreUrl url;
  url.kind = StoreUrl::Kind::unix_socket;
  url.path = "/nonexistent/redis.sock";
  RedisLedger ledger(loop.base(), {.connection = {.url = url}, .timeout = 10'000ms});
  int unavailable = 0;
  auto count = [&](ChargeOutcome&& outcome) {
    unavailable += outcome.status == Status::unavailable;
    EXPECT_FALSE(outcome.error.empty());
  };
  ledger.charge({account("ann", "daily", 1)}, count);
  EXPECT_EQ(unavailable, 1);
  ledger.start();
  ledger.charge({account("ann", "daily", 1)}, count);
  EXPECT_EQ(unavailable, 2);
  EXPECT_FALSE(ledger.store_up());
  EXPECT_NE(ledger.last_error().find("/nonexistent/redis.sock"), std::string::npos);
}

TEST(Ledger, ChargesWaitForTheFirstConnectionAttempt) {
  Server server;
  Loop loop;
  RedisLedger ledger(loop.base(), {.connection = {.url = server.url()}, .timeout = 10'000ms});
  ledger.start();
  int admitted = 0;
  for (int i = 0; i < 5; ++i)
    ledger.charge({account("ann", "daily", 9)},
                  [&](ChargeOutcome&& outcome) { admitted += outcome.status == Status::admitted; });
  EXPECT_EQ(admitted, 0);
  EXPECT_TRUE(loop.run_until([&] { return admitted == 5; }));
}

TEST(Ledger, StoppedServerIsUnavailableWithinTheBoundAndTheLateAdmissionIsGivenBack) {
  Server server;
  Client client(server, [](RedisLedgerOptions& options) { options.timeout = 60ms; });
  ASSERT_TRUE(client.loop.run_until([&] { return client.ledger.store_up(); }));
  // The scripts are loaded once this is answered, however slow the machine.
  ASSERT_TRUE(client.loop.run_until(
      [&] { return client.charge({account("ann", "daily", 10)}).status == Status::admitted; }));
  std::uint64_t used = client.read({account("ann", "daily", 10)})[0].used;
  server.signal(SIGSTOP);

  MonotonicTime before = Connection::now();
  ChargeOutcome outcome = client.charge({account("ann", "daily", 10, 3)});
  Duration waited = Connection::now() - before;
  EXPECT_EQ(outcome.status, Status::unavailable);
  EXPECT_GE(waited, 55ms);
  EXPECT_LT(waited, 1'000ms);

  ASSERT_TRUE(client.loop.run_until([&] { return !client.ledger.store_up(); }));
  std::optional<Status> at_once;
  client.ledger.charge({account("ann", "daily", 10)},
                       [&](ChargeOutcome&& refused) { at_once = refused.status; });
  EXPECT_EQ(at_once, Status::unavailable) << "a store known not to answer must not be waited for";

  server.signal(SIGCONT);
  ASSERT_TRUE(client.loop.run_until([&] { return client.ledger.counters().late_given_back >= 1; }));
  ASSERT_TRUE(client.loop.run_until([&] { return client.ledger.store_up(); }));
  EXPECT_TRUE(client.loop.run_until([&] {
    return server.command({"HLEN", account("ann", "daily", 10).key.subject_key}).integer == 1 &&
           client.read({account("ann", "daily", 10)})[0].used == used;
  }));
  EXPECT_GE(client.ledger.counters().timeouts, 1U);
  EXPECT_EQ(client.ledger.counters().give_back_failures, 0U);
}

TEST(Ledger, ServerThatNeverAnswersAgainIsGivenUpAfterTheStallTimeout) {
  Server server;
  Client client(server, [](RedisLedgerOptions& options) {
    options.timeout = 50ms;
    options.connection.stall_timeout = 200ms;
    options.connection.connect_timeout = 100ms;
  });
  ASSERT_TRUE(client.loop.run_until([&] { return client.ledger.store_up(); }));
  server.signal(SIGSTOP);
  client.charge({account("ann", "daily", 10)});
  EXPECT_TRUE(client.loop.run_until([&] {
    return client.ledger.last_error().find("no reply for 200 ms") != std::string::npos ||
           client.ledger.last_error().find("no answer within") != std::string::npos;
  })) << client.ledger.last_error();
  server.signal(SIGCONT);
  EXPECT_TRUE(client.loop.run_until([&] { return client.ledger.store_up(); }));
}

TEST(Ledger, KilledServerFailsChargesInFlightAndTheNextServerIsFound) {
  TemporaryDirectory directory;
  Server server({"appendonly yes", "appendfsync always"}, &directory);
  Client client(server);
  ASSERT_EQ(client.charge({account("ann", "daily", 100, 7)}).status, Status::admitted);
  server.signal(SIGSTOP);
  int unavailable = 0;
  for (int i = 0; i < 20; ++i)
    client.ledger.charge({account("ann", "daily", 100)}, [&](ChargeOutcome&& outcome) {
      unavailable += outcome.status == Status::unavailable;
    });
  client.loop.run_until([] { return false; }, 30ms);
  server.kill_now();
  ASSERT_TRUE(client.loop.run_until([&] { return unavailable == 20; }));
  EXPECT_FALSE(client.ledger.store_up());
  server.spawn();
  ASSERT_TRUE(client.loop.run_until([&] { return client.ledger.store_up(); }));
  EXPECT_EQ(client.charge({account("ann", "daily", 100)}).states[0].used, 8U);
  EXPECT_EQ(client.ledger.counters().reconnects, 1U);
}

// ---- TLS

class TlsTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    directory = new TemporaryDirectory;
    make_certificate("server", "localhost", "DNS:localhost,IP:127.0.0.1");
    make_certificate("other", "elsewhere.example", "DNS:elsewhere.example");
    port = free_port();
    server = new Server({fmt::format("tls-port {}", port), "bind 127.0.0.1", "tls-auth-clients no",
                         "tls-cert-file " + directory->path("server.pem"),
                         "tls-key-file " + directory->path("server.key"),
                         "tls-ca-cert-file " + directory->path("server.pem")});
  }
  static void TearDownTestSuite() {
    delete server;
    delete directory;
  }
  static void make_certificate(const std::string& name, const std::string& subject,
                               const std::string& names) {
    ASSERT_EQ(testing::run_program({"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                                    "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
                                    "/CN=" + subject, "-addext", "subjectAltName=" + names, "-keyout",
                                    directory->path(name + ".key"), "-out", directory->path(name + ".pem")}),
              0);
  }
  ConnectionOptions tls_options(std::string_view host) {
    ConnectionOptions options = options_for(fmt::format("rediss://{}:{}", host, port));
    options.ca_file = directory->path("server.pem");
    return options;
  }
  static TemporaryDirectory* directory;
  static Server* server;
  static std::uint16_t port;
};
TemporaryDirectory* TlsTest::directory = nullptr;
Server* TlsTest::server = nullptr;
std::uint16_t TlsTest::port = 0;

TEST_F(TlsTest, TrustedCertificateByNameAndByAddress) {
  EXPECT_EQ(ping(tls_options("localhost")), "PONG");
  EXPECT_EQ(ping(tls_options("127.0.0.1")), "PONG");
}

TEST_F(TlsTest, CertificateOfAnotherNameIsRefused) {
  ConnectionOptions options = tls_options("127.0.0.1");
  options.server_name = "redis.example";
  std::string answer = ping(options);
  EXPECT_NE(answer.find("certificate was refused"), std::string::npos) << answer;
  EXPECT_NE(answer.find("ostname"), std::string::npos) << answer;
}

TEST_F(TlsTest, CertificateOfAnUnknownAuthorityIsRefusedUnlessVerificationIsOff) {
  ConnectionOptions options = tls_options("localhost");
  options.ca_file = directory->path("other.pem");
  EXPECT_NE(ping(options).find("certificate was refused"), std::string::npos);
  options.verify = false;
  EXPECT_EQ(ping(options), "PONG");
}

TEST_F(TlsTest, MissingAuthorityFileIsNamed) {
  ConnectionOptions options = tls_options("localhost");
  options.ca_file = directory->path("missing.pem");
  EXPECT_NE(ping(options).find("missing.pem"), std::string::npos);
}

TEST_F(TlsTest, PlainServerIsNotTakenForATlsOne) {
  std::uint16_t plain_port = free_port();
  Server plain({fmt::format("port {}", plain_port), "bind 127.0.0.1"});
  ConnectionOptions options = tls_options("localhost");
  options.url.port = plain_port;
  options.connect_timeout = 1'000ms;  // Redis waits for the end of what it takes for a command
  EXPECT_NE(ping(options).find("TLS"), std::string::npos);
}

TEST_F(TlsTest, ChargesAndMegabytesGoThroughTls) {
  Loop loop;
  RedisLedger ledger(loop.base(), {.connection = tls_options("localhost"), .timeout = 10'000ms});
  ledger.start();
  int admitted = 0, exceeded = 0;
  for (int i = 0; i < 700; ++i)
    ledger.charge({account("tls", "daily", 500)}, [&](ChargeOutcome&& outcome) {
      admitted += outcome.status == Status::admitted;
      exceeded += outcome.status == Status::exceeded;
    });
  ASSERT_TRUE(loop.run_until([&] { return admitted + exceeded == 700; }));
  EXPECT_EQ(admitted, 500);
  Connection connection(loop.base(), tls_options("localhost"));
  connection.start();
  std::string big(3'000'000, 'y'), got;
  std::array<std::string_view, 2> words{"ECHO", big};
  connection.send(words, 10'000ms,
                  [&](Result<Reply*> reply) { got = reply ? (*reply)->text : reply.error().message; });
  ASSERT_TRUE(loop.run_until([&] { return !got.empty(); }));
  EXPECT_EQ(got, big);
}

TEST(PasswordFile, FirstLineIsThePassword) {
  TemporaryDirectory directory;
  std::ofstream(directory.path("p")) << "se same\r\nsecond line\n";
  EXPECT_EQ(read_password_file(directory.path("p")).value_or("?"), "se same");
  std::ofstream(directory.path("empty")) << "\n";
  EXPECT_FALSE(read_password_file(directory.path("empty")).has_value());
  EXPECT_FALSE(read_password_file(directory.path("missing")).has_value());
}

}  // namespace
}  // namespace tollgate::redis
