#include "proxy/net/key_set_fetcher.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "metering/base/base64.h"
#include "tests/proxy/net/support/certificates.h"
#include "tests/proxy/net/support/sockets.h"

namespace tollgate::net {
namespace {

namespace fs = std::filesystem;
using identity::KeyRing;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string secret_of(char c) {
  return std::string(32, c);
}
std::string set_named(std::string_view kid) {
  return fmt::format(R"({{"keys":[{{"kty":"oct","kid":"{}","k":"{}"}}]}})", kid,
                     base64url_encode(secret_of('k')));
}
std::string kid_in(const KeyRing& ring) {
  return ring.load() ? ring.load()->keys()[0].kid() : "no keys";
}
std::string ok_reply(const std::string& body) {
  return fmt::format(
      "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: "
      "close\r\n\r\n{}",
      body.size(), body);
}

// Answers with the bytes of set_reply(); without any, never.
class KeyServer {
 public:
  explicit KeyServer(SSL_CTX* tls = nullptr)
      : server_(
            [this](const std::string&) {
              std::lock_guard lock(mutex_);
              return reply_;
            },
            tls) {}
  std::string url() const { return server_.url() + "/jwks"; }
  void set_reply(std::string reply) {
    std::lock_guard lock(mutex_);
    reply_ = std::move(reply);
  }
  int requests() const { return static_cast<int>(server_.asked().size()); }
  std::string last_request() const { return server_.last(); }

 private:
  std::mutex mutex_;
  std::string reply_;  // guarded by mutex_
  test::AnsweringServer server_;
};

class KeySetFetch : public ::testing::Test {
 protected:
  KeySetFetch() {
    signal(SIGPIPE, SIG_IGN);  // step() runs on this thread; the fetcher's own thread looks after itself
    std::string pattern = (fs::temp_directory_path() / "tollgate-keys-XXXXXX").string();
    directory = mkdtemp(pattern.data());
  }
  ~KeySetFetch() override { fs::remove_all(directory); }

  std::string write(const std::string& name, const std::string& content) {
    std::ofstream(directory / name, std::ios::binary) << content;
    return (directory / name).string();
  }
  KeySource source(KeySource::Kind kind, std::string location) const {
    KeySource out;
    out.ring = ring;
    out.kind = kind;
    out.location = std::move(location);
    out.refresh = Milliseconds(300'000);
    out.min_interval = Milliseconds(10'000);
    out.timeout = Milliseconds(5'000);
    return out;
  }
  KeySetFetcher::Log log() {
    return [this](KeySetFetcher::Level, const std::string& line) {
      std::lock_guard lock(mutex);
      lines.push_back(line);
    };
  }
  // Everything that is due at `now`, to its end.
  static KeySetFetcher::Status run(KeySetFetcher& fetcher, MonotonicTime now) {
    fetcher.step(now);
    while (fetcher.in_flight()) {
      fetcher.wait(Milliseconds(1'000));
      fetcher.step(now);
    }
    return fetcher.status()[0];
  }

  const MonotonicTime start{Seconds(1'000)};
  fs::path directory;
  std::shared_ptr<KeyRing> ring = std::make_shared<KeyRing>();
  std::mutex mutex;
  std::vector<std::string> lines;
};

// ---- files

TEST_F(KeySetFetch, FileIsLoadedAtTheFirstStepAndAgainWhenItsContentChanges) {
  std::string path = write("keys.json", set_named("one"));
  KeySetFetcher fetcher({source(KeySource::Kind::file, path)}, log());
  EXPECT_EQ(fetcher.step(start), start + Seconds(1));
  EXPECT_EQ(kid_in(*ring), "one");
  run(fetcher, start + Seconds(1));
  EXPECT_EQ(ring->version(), 1U) << "the same content is no new set";
  write("keys.json", set_named("two"));  // same length, perhaps the same tick of the file system's clock
  run(fetcher, start + Milliseconds(1'999));
  EXPECT_EQ(kid_in(*ring), "one");
  auto status = run(fetcher, start + Milliseconds(2'000));
  EXPECT_EQ(kid_in(*ring), "two");
  EXPECT_EQ(status.successes, 2U);
  EXPECT_EQ(status.failures, 0U);
  EXPECT_EQ(status.keys, 1U);
}

TEST_F(KeySetFetch, FileThatStaysTheSameIsNotReadAgain) {
  const std::string path = write("keys.json", set_named("one"));
  const int watcher = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  ASSERT_GE(inotify_add_watch(watcher, path.c_str(), IN_OPEN), 0);
  auto opened = [&] {
    int count = 0;
    alignas(inotify_event) char events[4096];
    for (ssize_t got; (got = ::read(watcher, events, sizeof events)) > 0;)
      count += static_cast<int>(got / static_cast<ssize_t>(sizeof(inotify_event)));
    return count;
  };
  KeySetFetcher fetcher({source(KeySource::Kind::file, path)}, log());
  for (int second = 0; second <= 3; ++second) run(fetcher, start + Seconds(second));
  EXPECT_GE(opened(), 1) << "the watch works";
  for (int second = 4; second <= 60; ++second) run(fetcher, start + Seconds(second));
  EXPECT_EQ(opened(), 0);
  const auto modified = fs::last_write_time(path);
  write("keys.json", set_named("two"));
  fs::last_write_time(path, modified);  // same length, and its own time is set back
  run(fetcher, start + Seconds(61));
  EXPECT_EQ(kid_in(*ring), "two");
  ::close(watcher);
}

TEST_F(KeySetFetch, SymlinkSwapAsKubernetesDoesItIsSeen) {
  fs::create_directory(directory / "..v1");
  fs::create_directory(directory / "..v2");
  write("..v1/keys.json", set_named("one"));
  write("..v2/keys.json", set_named("two"));
  fs::create_directory_symlink("..v1", directory / "..data");
  fs::create_symlink("..data/keys.json", directory / "keys.json");
  KeySetFetcher fetcher({source(KeySource::Kind::file, (directory / "keys.json").string())}, log());
  run(fetcher, start);
  EXPECT_EQ(kid_in(*ring), "one");
  fs::create_directory_symlink("..v2", directory / "..data_tmp");
  fs::rename(directory / "..data_tmp", directory / "..data");
  run(fetcher, start + Seconds(1));
  EXPECT_EQ(kid_in(*ring), "two");
}

TEST_F(KeySetFetch, BrokenOrMissingFileKeepsTheLastGoodSetAndIsLoggedOnce) {
  std::string path = write("keys.json", set_named("one"));
  KeySetFetcher fetcher({source(KeySource::Kind::file, path)}, log());
  run(fetcher, start);
  lines.clear();
  write("keys.json", "{\"keys\":[");
  run(fetcher, start + Seconds(1));
  run(fetcher, start + Seconds(2));
  auto status = run(fetcher, start + Seconds(3));
  EXPECT_EQ(kid_in(*ring), "one");
  EXPECT_EQ(ring->version(), 1U);
  EXPECT_EQ(status.failures, 3U);
  EXPECT_THAT(status.last_error, HasSubstr("not JSON"));
  EXPECT_THAT(lines, ElementsAre(HasSubstr("the last good keys stay in use")));
  fs::remove(path);
  status = run(fetcher, start + Seconds(4));
  EXPECT_THAT(status.last_error, HasSubstr("cannot be opened"));
  write("keys.json", set_named("one"));
  status = run(fetcher, start + Seconds(5));
  EXPECT_EQ(status.last_error, "");
  EXPECT_EQ(status.successes, 2U) << "a recovery counts";
  EXPECT_EQ(ring->version(), 1U) << "but the set never changed";
}

TEST_F(KeySetFetch, MissingFileLeavesTheRingEmptyUntilItAppears) {
  KeySetFetcher fetcher({source(KeySource::Kind::file, (directory / "later").string())}, log());
  EXPECT_EQ(run(fetcher, start).failures, 1U);
  EXPECT_EQ(ring->load(), nullptr);
  EXPECT_THAT(lines, ElementsAre(HasSubstr("refused until it succeeds")));
  write("later", set_named("one"));
  run(fetcher, start + Seconds(1));
  EXPECT_EQ(kid_in(*ring), "one");
}

TEST_F(KeySetFetch, FileBeyondTheLimitIsRefused) {
  std::string path = write("keys.json", std::string(1024 * 1024 + 1, ' '));
  KeySetFetcher fetcher({source(KeySource::Kind::file, path)}, log());
  EXPECT_THAT(run(fetcher, start).last_error, HasSubstr("larger than 1048576 bytes"));
}

TEST_F(KeySetFetch, SecretFileIsReadAsASecretAndRotates) {
  std::string path = write("hs256.key", secret_of('a') + "\n");
  KeySource secret = source(KeySource::Kind::secret, path);
  secret.algorithms = {"HS256"};
  KeySetFetcher fetcher({secret}, log());
  run(fetcher, start);
  ASSERT_NE(ring->load(), nullptr);
  EXPECT_TRUE(ring->load()->keys()[0].fits(identity::Algorithm::hs256));
  write("hs256.key", "short");
  EXPECT_THAT(run(fetcher, start + Seconds(1)).last_error, HasSubstr("HS256 needs at least 32"));
  EXPECT_EQ(ring->version(), 1U);
  write("hs256.key", secret_of('b'));
  run(fetcher, start + Seconds(2));
  EXPECT_EQ(ring->version(), 2U);
  for (const std::string& line : lines) {
    EXPECT_THAT(line, ::testing::Not(HasSubstr("aaaa")));
    EXPECT_THAT(line, ::testing::Not(HasSubstr("short")));
  }
}

// ---- URLs

TEST_F(KeySetFetch, UrlIsFetchedAtOnceAndAgainWhenTheSetIsOld) {
  KeyServer server;
  server.set_reply(ok_reply(set_named("one")));
  KeySetFetcher fetcher({source(KeySource::Kind::url, server.url())}, log());
  auto status = run(fetcher, start);
  EXPECT_EQ(kid_in(*ring), "one");
  EXPECT_EQ(status.successes, 1U);
  EXPECT_THAT(server.last_request(), HasSubstr("GET /jwks HTTP/1.1\r\n"));
  EXPECT_THAT(server.last_request(), HasSubstr("Accept: application/jwk-set+json, application/json\r\n"));
  server.set_reply(ok_reply(set_named("two")));
  run(fetcher, start + Milliseconds(299'999));
  EXPECT_EQ(server.requests(), 1);
  run(fetcher, start + Milliseconds(300'000));
  EXPECT_EQ(server.requests(), 2);
  EXPECT_EQ(kid_in(*ring), "two");
}

TEST_F(KeySetFetch, SameSetAgainIsNoNewVersion) {
  KeyServer server;
  server.set_reply(ok_reply(set_named("one")));
  KeySetFetcher fetcher({source(KeySource::Kind::url, server.url())}, log());
  run(fetcher, start);
  EXPECT_EQ(run(fetcher, start + Seconds(300)).successes, 2U);
  EXPECT_EQ(ring->version(), 1U);
}

TEST_F(KeySetFetch, RefreshRequestsAreHonouredButNeverMoreOftenThanTheMinimumInterval) {
  KeyServer server;
  server.set_reply(ok_reply(set_named("one")));
  KeySetFetcher fetcher({source(KeySource::Kind::url, server.url())}, log());
  run(fetcher, start);
  for (int second = 1; second < 10; ++second) {
    for (int storm = 0; storm < 100; ++storm) ring->request_refresh();
    run(fetcher, start + Seconds(second));
  }
  EXPECT_EQ(server.requests(), 1);
  run(fetcher, start + Seconds(10));
  EXPECT_EQ(server.requests(), 2) << "the request is kept until its time has come";
  run(fetcher, start + Seconds(25));
  EXPECT_EQ(server.requests(), 2) << "and is answered by one fetch";
  ring->request_refresh();
  run(fetcher, start + Seconds(26));
  EXPECT_EQ(server.requests(), 3);
}

TEST_F(KeySetFetch, NextStepIsAnnouncedSoThatARefreshIsNotLate) {
  KeyServer server;
  server.set_reply(ok_reply(set_named("one")));
  KeySetFetcher fetcher({source(KeySource::Kind::url, server.url())}, log());
  run(fetcher, start);
  ring->request_refresh();
  EXPECT_EQ(fetcher.step(start + Milliseconds(9'500)), start + Seconds(10));
}

TEST_F(KeySetFetch, FailuresKeepTheLastGoodSetAndAreTriedAgainAfterTheMinimumInterval) {
  KeyServer server;
  server.set_reply(ok_reply(set_named("one")));
  KeySetFetcher fetcher({source(KeySource::Kind::url, server.url())}, log());
  run(fetcher, start);
  MonotonicTime now = start + Seconds(300);
  struct Case {
    std::string reply, error;
  };
  const std::vector<Case> cases{
      {"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "answered 500"},
      {"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\nConnection: "
       "close\r\n\r\n",
       "redirects are not followed"},
      {"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", "answered 204"},
      {ok_reply("<html>"), "not JSON"},
      {ok_reply(R"({"keys":[]})"), "no key that can verify"},
      {"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\nConnection: close\r\n\r\n{", "127.0.0.1"},
      {"nonsense\r\n\r\n", "127.0.0.1"},
      {fmt::format("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", 2 << 20) +
           std::string(2 << 20, ' '),
       "larger than 1048576 bytes"},
      {"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + std::string(2 << 20, ' '),
       "larger than 1048576 bytes"},
  };
  int requests = 1;
  std::uint64_t failures = 0;
  for (const auto& [reply, error] : cases) {
    server.set_reply(reply);
    auto status = run(fetcher, now);
    EXPECT_EQ(server.requests(), ++requests) << error;
    EXPECT_EQ(status.failures, ++failures) << error;
    EXPECT_THAT(status.last_error, HasSubstr(error));
    EXPECT_EQ(kid_in(*ring), "one");
    run(fetcher, now + Milliseconds(9'999));
    EXPECT_EQ(server.requests(), requests) << error;
    now += Seconds(10);
  }
  server.set_reply(ok_reply(set_named("two")));
  EXPECT_EQ(run(fetcher, now).last_error, "");
  EXPECT_EQ(kid_in(*ring), "two");
}

TEST_F(KeySetFetch, ServerThatIsNotThereIsAFailure) {
  std::string url;
  {
    url = KeyServer().url();
  }
  KeySetFetcher fetcher({source(KeySource::Kind::url, url)}, log());
  auto status = run(fetcher, start);
  EXPECT_EQ(status.failures, 1U);
  EXPECT_EQ(ring->load(), nullptr);
}

TEST_F(KeySetFetch, OneFetchAtATimeForASource) {
  KeyServer server;  // never answers
  KeySource slow = source(KeySource::Kind::url, server.url());
  slow.timeout = Milliseconds(60'000);
  KeySetFetcher fetcher({slow}, log());
  fetcher.step(start);
  while (server.requests() == 0) {
    fetcher.wait(Milliseconds(10));
    fetcher.step(start);
  }
  ring->request_refresh();
  for (int minute = 1; minute < 5; ++minute) fetcher.step(start + std::chrono::minutes(minute));
  EXPECT_TRUE(fetcher.in_flight());
  EXPECT_EQ(server.requests(), 1);
}

TEST_F(KeySetFetch, ServerThatNeverAnswersRunsIntoTheTimeout) {
  KeyServer server;
  KeySource slow = source(KeySource::Kind::url, server.url());
  slow.timeout = Milliseconds(50);
  KeySetFetcher fetcher({slow}, log());
  EXPECT_THAT(run(fetcher, start).last_error, HasSubstr("imed out"));
}

TEST_F(KeySetFetch, SlowSourceDoesNotHoldUpTheOthers) {
  KeyServer slow, quick;
  quick.set_reply(ok_reply(set_named("quick")));
  auto other = std::make_shared<KeyRing>();
  KeySource first = source(KeySource::Kind::url, slow.url()),
            second = source(KeySource::Kind::url, quick.url());
  second.ring = other;
  KeySetFetcher fetcher({first, second}, log());
  fetcher.step(start);
  while (other->load() == nullptr) {
    fetcher.wait(Milliseconds(1'000));
    fetcher.step(start);
  }
  EXPECT_EQ(kid_in(*other), "quick");
  EXPECT_EQ(ring->load(), nullptr);
}

// ---- TLS

TEST_F(KeySetFetch, CertificateOfAnUnknownAuthorityIsRefusedAndAKnownOneIsAccepted) {
  const test::Folder certificates;
  test::make_certificate(certificates, "keys", {"IP:127.0.0.1"});
  const test::Context context = test::server_context(certificates, "keys");
  KeyServer server(context.get());
  server.set_reply(ok_reply(set_named("tls")));
  KeySource unknown = source(KeySource::Kind::url, server.url());
  {
    KeySetFetcher fetcher({unknown}, log());
    EXPECT_EQ(run(fetcher, start).failures, 1U);
    EXPECT_EQ(ring->load(), nullptr);
    EXPECT_EQ(server.requests(), 0);
  }
  KeySource known = unknown;
  known.ca_file = certificates.path("ca.pem");
  KeySetFetcher fetcher({known}, log());
  EXPECT_EQ(run(fetcher, start).last_error, "");
  EXPECT_EQ(kid_in(*ring), "tls");
}

TEST_F(KeySetFetch, CertificateOfAnotherNameIsRefused) {
  const test::Folder certificates;
  test::make_certificate(certificates, "keys", {"IP:127.0.0.1"});
  const test::Context context = test::server_context(certificates, "keys");
  KeyServer server(context.get());
  server.set_reply(ok_reply(set_named("tls")));
  std::string url = server.url();
  KeySource other = source(KeySource::Kind::url, url.replace(url.find("127.0.0.1"), 9, "localhost"));
  other.ca_file = certificates.path("ca.pem");
  KeySetFetcher fetcher({other}, log());
  EXPECT_THAT(run(fetcher, start).last_error, HasSubstr("no alternative certificate subject name matches"));
  EXPECT_EQ(server.requests(), 0);
}

TEST_F(KeySetFetch, PlainHttpIsOnlyForTheOwnHost) {
  for (std::string_view good : {"https://idp.example/jwks", "http://localhost:1/x", "http://127.0.0.1/",
                                "http://127.9.9.9:80/", "http://[::1]:8080/k", "HTTPS://IDP.EXAMPLE/"})
    EXPECT_TRUE(check_key_set_url(std::string(good))) << good;
  for (std::string_view bad :
       {"http://idp.example/jwks", "http://127.0.0.1.evil.example/", "http://localhost.evil.example/",
        "http://10.0.0.1/", "http://128.0.0.1/", "file:///etc/passwd", "ftp://localhost/", "idp.example/jwks",
        "", "https://user:password@idp.example/", "http://localhost@evil.example/", "https://"})
    EXPECT_FALSE(check_key_set_url(std::string(bad))) << bad;
}

TEST_F(KeySetFetch, ForbiddenUrlIsNeverFetched) {
  KeySetFetcher fetcher({source(KeySource::Kind::url, "http://idp.example/jwks")}, log());
  EXPECT_THAT(run(fetcher, start).last_error, HasSubstr("must start with https://"));
}

// ---- the thread

TEST_F(KeySetFetch, StartReturnsWithFilesAndUrlsLoaded) {
  KeyServer server;
  server.set_reply(ok_reply(set_named("url")));
  auto file_ring = std::make_shared<KeyRing>();
  KeySource file = source(KeySource::Kind::file, write("keys.json", set_named("file")));
  file.ring = file_ring;
  KeySetFetcher fetcher({source(KeySource::Kind::url, server.url()), file}, log());
  fetcher.start(Seconds(30));
  EXPECT_EQ(kid_in(*ring), "url");
  EXPECT_EQ(kid_in(*file_ring), "file");
  fetcher.stop();
  fetcher.stop();
}

TEST_F(KeySetFetch, StartAndStopDoNotHangOnAServerThatNeverAnswers) {
  KeyServer server;
  KeySource slow = source(KeySource::Kind::url, server.url());
  slow.timeout = Seconds(600);
  KeySetFetcher fetcher({slow}, log());
  fetcher.start(Milliseconds(20));
  EXPECT_EQ(ring->load(), nullptr);
  fetcher.stop();
  EXPECT_FALSE(fetcher.in_flight());
}

TEST_F(KeySetFetch, RequestFromAWorkerWakesTheThread) {
  KeyServer server;
  server.set_reply(ok_reply(set_named("one")));
  KeySource eager = source(KeySource::Kind::url, server.url());
  eager.min_interval = Milliseconds(0);
  std::mutex done_mutex;
  std::condition_variable done;
  bool rotated = false;
  KeySetFetcher fetcher({eager}, [&](KeySetFetcher::Level, const std::string&) {
    std::lock_guard lock(done_mutex);
    rotated = ring->version() >= 2;
    done.notify_all();
  });
  fetcher.start(Seconds(30));
  server.set_reply(ok_reply(set_named("two")));
  std::thread worker([&] { ring->request_refresh(); });
  worker.join();
  std::unique_lock lock(done_mutex);
  EXPECT_TRUE(done.wait_for(lock, Seconds(30), [&] { return rotated; }));
  EXPECT_EQ(kid_in(*ring), "two");
}

TEST_F(KeySetFetch, NoSourcesIsFine) {
  KeySetFetcher fetcher({});
  fetcher.start();
  EXPECT_THAT(fetcher.status(), IsEmpty());
}

}  // namespace
}  // namespace tollgate::net
