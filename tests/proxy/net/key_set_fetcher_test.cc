#include "proxy/net/key_set_fetcher.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "metering/base/base64.h"

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

// A certificate for 127.0.0.1 that nobody knows but whoever reads `pem`.
struct Identity {
  Identity() {
    key.reset(EVP_EC_gen("P-256"));
    certificate.reset(X509_new());
    X509_set_version(certificate.get(), 2);
    X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -3600);
    X509_gmtime_adj(X509_getm_notAfter(certificate.get()), 3600);
    X509_set_pubkey(certificate.get(), key.get());
    X509_NAME* name = X509_get_subject_name(certificate.get());
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("keys"), -1,
                               -1, 0);
    X509_set_issuer_name(certificate.get(), name);
    X509_EXTENSION* names = X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, "IP:127.0.0.1");
    X509_add_ext(certificate.get(), names, -1);
    X509_EXTENSION_free(names);
    X509_sign(certificate.get(), key.get(), EVP_sha256());
    std::unique_ptr<BIO, decltype(&BIO_free_all)> bio(BIO_new(BIO_s_mem()), BIO_free_all);
    PEM_write_bio_X509(bio.get(), certificate.get());
    char* start = nullptr;
    long length = BIO_get_mem_data(bio.get(), &start);
    pem.assign(start, static_cast<std::size_t>(length));
  }
  std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key{nullptr, EVP_PKEY_free};
  std::unique_ptr<X509, decltype(&X509_free)> certificate{nullptr, X509_free};
  std::string pem;
};

// Answers every connection with the bytes of set_reply(), on a thread of its own. An empty reply is never
// sent: the connection stays open until the server ends.
class KeyServer {
 public:
  explicit KeyServer(const Identity* tls = nullptr) {
    if (tls != nullptr) {
      context_.reset(SSL_CTX_new(TLS_server_method()));
      SSL_CTX_use_certificate(context_.get(), tls->certificate.get());
      SSL_CTX_use_PrivateKey(context_.get(), tls->key.get());
    }
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), length), 0);
    EXPECT_EQ(listen(listener_, 16), 0);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~KeyServer() {
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    close(listener_);
    for (int held : held_) close(held);
  }
  std::string url() const {
    return fmt::format("{}://127.0.0.1:{}/jwks", context_ ? "https" : "http", port_);
  }
  void set_reply(std::string reply) {
    std::lock_guard lock(mutex_);
    reply_ = std::move(reply);
  }
  int requests() const { return requests_; }
  std::string last_request() const {
    std::lock_guard lock(mutex_);
    return last_request_;
  }

 private:
  void serve() {
    sigset_t pipe;  // SSL_write to a client that has gone
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, nullptr);
    while (true) {
      int connection = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (connection < 0) return;
      answer(connection);
    }
  }
  void answer(int connection) {
    std::unique_ptr<SSL, decltype(&SSL_free)> tls(context_ ? SSL_new(context_.get()) : nullptr, SSL_free);
    if (tls) SSL_set_fd(tls.get(), connection);
    std::string request;
    if (!tls || SSL_accept(tls.get()) == 1) {
      char buffer[4096];
      while (request.find("\r\n\r\n") == std::string::npos) {
        ssize_t got =
            tls ? SSL_read(tls.get(), buffer, sizeof buffer) : recv(connection, buffer, sizeof buffer, 0);
        if (got <= 0) break;
        request.append(buffer, static_cast<std::size_t>(got));
      }
    }
    std::string reply;
    {
      std::lock_guard lock(mutex_);
      reply = reply_;
      last_request_ = request;
    }
    if (!request.empty()) ++requests_;
    if (reply.empty() && !request.empty()) {
      held_.push_back(connection);
      return;
    }
    if (!request.empty()) {
      if (tls) {
        SSL_write(tls.get(), reply.data(), static_cast<int>(reply.size()));
        SSL_shutdown(tls.get());
      } else {
        std::size_t sent = 0;
        while (sent < reply.size()) {
          ssize_t done = send(connection, reply.data() + sent, reply.size() - sent, MSG_NOSIGNAL);
          if (done <= 0) break;
          sent += static_cast<std::size_t>(done);
        }
      }
    }
    close(connection);
  }

  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context_{nullptr, SSL_CTX_free};
  int listener_ = -1;
  std::uint16_t port_ = 0;
  mutable std::mutex mutex_;
  std::string reply_, last_request_;
  std::atomic<int> requests_{0};
  std::vector<int> held_;  // only the serving thread, and the destructor after it
  std::thread thread_;
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
  Identity identity;
  KeyServer server(&identity);
  server.set_reply(ok_reply(set_named("tls")));
  KeySource unknown = source(KeySource::Kind::url, server.url());
  {
    KeySetFetcher fetcher({unknown}, log());
    EXPECT_EQ(run(fetcher, start).failures, 1U);
    EXPECT_EQ(ring->load(), nullptr);
    EXPECT_EQ(server.requests(), 0);
  }
  KeySource known = unknown;
  known.ca_file = write("ca.pem", identity.pem);
  KeySetFetcher fetcher({known}, log());
  EXPECT_EQ(run(fetcher, start).last_error, "");
  EXPECT_EQ(kid_in(*ring), "tls");
}

TEST_F(KeySetFetch, CertificateOfAnotherNameIsRefused) {
  Identity identity;  // for 127.0.0.1 only
  KeyServer server(&identity);
  server.set_reply(ok_reply(set_named("tls")));
  std::string url = server.url();
  KeySource other = source(KeySource::Kind::url, url.replace(url.find("127.0.0.1"), 9, "localhost"));
  other.ca_file = write("ca.pem", identity.pem);
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
