// The connection against real servers: ways in, time-outs, loss, TLS.
#include "metering/redis/connection.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <fstream>

#include "tests/metering/redis/support/redis_fixture.h"

namespace tollgate::redis {
namespace {

using testing::free_port;
using testing::Loop;
using testing::Server;
using testing::TemporaryDirectory;
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

// What became of commands that count on the server: the sums it answered, and the errors of the transport.
struct Answers {
  std::vector<std::int64_t> sums;
  std::vector<std::string> errors;
  std::size_t size() const { return sums.size() + errors.size(); }
};
void count(Connection& connection, Answers& answers, Milliseconds timeout = 10'000ms) {
  std::array<std::string_view, 2> words{"INCR", "count"};
  connection.send(words, timeout, [&answers](Result<Reply*> reply) {
    if (reply)
      answers.sums.push_back((*reply)->integer);
    else
      answers.errors.push_back(reply.error().message);
  });
}

TEST(Connection, BeforeStartAndWhileDownCommandsAreRefusedAtOnce) {
  Loop loop;
  StoreUrl url;
  url.kind = StoreUrl::Kind::unix_socket;
  url.path = "/nonexistent/redis.sock";
  Connection connection(loop.base(), {.url = url});
  Answers answers;
  count(connection, answers);
  ASSERT_EQ(answers.errors.size(), 1U);
  connection.start();
  count(connection, answers);
  ASSERT_EQ(answers.errors.size(), 2U);
  EXPECT_NE(answers.errors[1].find("/nonexistent/redis.sock"), std::string::npos) << answers.errors[1];
  EXPECT_FALSE(connection.up());
  EXPECT_NE(connection.last_error().find("/nonexistent/redis.sock"), std::string::npos);
}

TEST(Connection, CommandsWaitForTheFirstConnectionAttempt) {
  Server server;
  Loop loop;
  Connection connection(loop.base(), {.url = server.url(), .connect_timeout = 5'000ms});
  connection.start();
  Answers answers;
  for (int i = 0; i < 5; ++i) count(connection, answers);
  EXPECT_EQ(answers.size(), 0U);
  ASSERT_TRUE(loop.run_until([&] { return answers.size() == 5; }));
  EXPECT_EQ(answers.sums, (std::vector<std::int64_t>{1, 2, 3, 4, 5}));
}

TEST(Connection, StoppedServerIsAnErrorWithinTheBoundAndItsLateReplyIsNobodys) {
  Server server;
  Loop loop;
  Connection connection(loop.base(), {.url = server.url(), .stall_timeout = 20'000ms});
  connection.start();
  ASSERT_TRUE(loop.run_until([&] { return connection.up(); }));
  server.signal(SIGSTOP);

  Answers answers;
  MonotonicTime before = Connection::now();
  count(connection, answers, 60ms);
  ASSERT_TRUE(loop.run_until([&] { return answers.size() == 1; }));
  Duration waited = Connection::now() - before;
  ASSERT_EQ(answers.errors.size(), 1U);
  EXPECT_NE(answers.errors[0].find("60 ms"), std::string::npos) << answers.errors[0];
  EXPECT_GE(waited, 55ms);
  EXPECT_LT(waited, 1'000ms);

  ASSERT_TRUE(loop.run_until([&] { return connection.stalled(); }));
  count(connection, answers);
  EXPECT_EQ(answers.errors.size(), 2U) << "a store known not to answer must not be waited for";

  server.signal(SIGCONT);
  ASSERT_TRUE(loop.run_until([&] { return connection.pending() == 0; }));
  EXPECT_FALSE(connection.stalled());
  count(connection, answers);
  ASSERT_TRUE(loop.run_until([&] { return answers.size() == 3; }));
  EXPECT_EQ(answers.sums, std::vector<std::int64_t>{2}) << "the late command was run, its reply told nobody";
  EXPECT_EQ(connection.connects(), 1U);
}

TEST(Connection, ServerThatNeverAnswersAgainIsGivenUpAfterTheStallTimeout) {
  Server server;
  Loop loop;
  Connection connection(
      loop.base(),
      {.url = server.url(), .connect_timeout = 100ms, .stall_timeout = 200ms, .backoff_max = 100ms});
  connection.start();
  ASSERT_TRUE(loop.run_until([&] { return connection.up(); }));
  server.signal(SIGSTOP);
  Answers answers;
  count(connection, answers, 50ms);
  EXPECT_TRUE(loop.run_until([&] {
    return connection.last_error().find("no reply for 200 ms") != std::string::npos ||
           connection.last_error().find("no answer within") != std::string::npos;
  })) << connection.last_error();
  EXPECT_EQ(answers.errors.size(), 1U);
  server.signal(SIGCONT);
  EXPECT_TRUE(loop.run_until([&] { return connection.up(); }));
}

TEST(Connection, KilledServerFailsCommandsInFlightAndTheNextServerIsFound) {
  TemporaryDirectory directory;
  Server server({"appendonly yes", "appendfsync always"}, &directory);
  Loop loop;
  Connection connection(loop.base(), {.url = server.url(), .connect_timeout = 5'000ms, .backoff_max = 100ms});
  connection.start();
  Answers answers;
  count(connection, answers);
  ASSERT_TRUE(loop.run_until([&] { return answers.sums.size() == 1; }));
  server.signal(SIGSTOP);
  for (int i = 0; i < 20; ++i) count(connection, answers);
  const std::uint64_t before = connection.writes();
  ASSERT_TRUE(loop.run_until([&] { return connection.writes() > before; }));
  server.kill_now();
  ASSERT_TRUE(loop.run_until([&] { return answers.errors.size() == 20; }));
  EXPECT_FALSE(connection.up());
  server.spawn();
  ASSERT_TRUE(loop.run_until([&] { return connection.up(); }));
  count(connection, answers);
  ASSERT_TRUE(loop.run_until([&] { return answers.sums.size() == 2; }));
  EXPECT_EQ(answers.sums[1], 2);
  EXPECT_EQ(connection.connects(), 2U);
}

TEST(Connection, DestroyedWithCommandsInFlightItCallsNobody) {
  Server server;
  Loop loop;
  Answers answers;
  {
    Connection connection(loop.base(), {.url = server.url(), .connect_timeout = 5'000ms});
    connection.start();
    ASSERT_TRUE(loop.run_until([&] { return connection.up(); }));
    for (int i = 0; i < 10; ++i) count(connection, answers, 10ms);
  }
  Connection other(loop.base(), {.url = server.url(), .connect_timeout = 5'000ms});
  other.start();
  Answers others;
  count(other, others);
  ASSERT_TRUE(loop.run_until([&] { return others.sums.size() == 1; }));
  EXPECT_EQ(answers.size(), 0U);
}

TEST(Connection, CallbackMayDestroyIt) {
  Server server;
  Loop loop;
  auto connection = std::make_unique<Connection>(
      loop.base(), ConnectionOptions{.url = server.url(), .connect_timeout = 5'000ms});
  connection->start();
  int called = 0;
  std::array<std::string_view, 1> words{"PING"};
  for (int i = 0; i < 3; ++i)
    connection->send(words, 5'000ms, [&](Result<Reply*>) {
      ++called;
      connection.reset();
    });
  ASSERT_TRUE(loop.run_until([&] { return connection == nullptr; }));
  EXPECT_EQ(ping({.url = server.url()}), "PONG");
  EXPECT_EQ(called, 1);
}

TEST(Connection, ItsClockRunsOnWhileTheMachineIsSuspended) {
  timespec before{}, after{};
  ASSERT_EQ(clock_gettime(CLOCK_BOOTTIME, &before), 0);
  const MonotonicTime now = Connection::now();
  ASSERT_EQ(clock_gettime(CLOCK_BOOTTIME, &after), 0);
  EXPECT_GE(now.time_since_epoch(), Seconds(before.tv_sec) + Duration(before.tv_nsec));
  EXPECT_LE(now.time_since_epoch(), Seconds(after.tv_sec) + Duration(after.tv_nsec));
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

TEST_F(TlsTest, CommandsAndMegabytesGoThroughTls) {
  Loop loop;
  Connection connection(loop.base(), tls_options("localhost"));
  connection.start();
  Answers answers;
  for (int i = 0; i < 700; ++i) count(connection, answers);
  ASSERT_TRUE(loop.run_until([&] { return answers.size() == 700; }));
  ASSERT_EQ(answers.sums.size(), 700U);
  EXPECT_EQ(answers.sums.back(), 700);
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
