#include "proxy/net/key_set_fetcher.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <fstream>
#include <mutex>
#include <optional>
#include <thread>

#include "metering/base/check.h"
#include "proxy/net/event_loop.h"
#include "proxy/net/http_transfer.h"

namespace tollgate::net {
namespace {

using identity::KeySet;

constexpr std::size_t kTextBytesMax = KeySet::kMaxText;
constexpr Milliseconds kFilePoll{1'000};
// A file that was written twice within one tick of its file system's clock (2 s on some) looks the same.
constexpr Milliseconds kFileSettled{3'000};
constexpr Milliseconds kIntervalMin{
    100};  // whatever the configuration says: a dead server is not asked in a tight loop

bool is_own_host(const std::string& host) {
  if (host == "localhost" || host == "[::1]") return true;
  in_addr address{};
  return inet_pton(AF_INET, host.c_str(), &address) == 1 && (ntohl(address.s_addr) >> 24) == 127;
}

// Which file with which content, as far as its file system tells.
struct FileIdentity {
  dev_t device = 0;
  ino_t inode = 0;
  off_t size = 0;
  std::int64_t modified = 0, changed = 0;  // nanoseconds since 1970
  bool operator==(const FileIdentity&) const = default;
};

// Nothing of what is no regular file: its content changes unseen.
std::optional<FileIdentity> identity_of(const struct stat& at) {
  if (!S_ISREG(at.st_mode)) return std::nullopt;
  auto nanoseconds = [](const timespec& t) {
    return static_cast<std::int64_t>(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
  };
  return FileIdentity{at.st_dev, at.st_ino, at.st_size, nanoseconds(at.st_mtim), nanoseconds(at.st_ctim)};
}

std::optional<FileIdentity> identity_of(const std::string& path) {
  struct stat at{};
  if (::stat(path.c_str(), &at) != 0) return std::nullopt;
  return identity_of(at);
}

// size: what it is expected to have.
Result<std::string> read_file(const std::string& path, std::size_t size) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(Origin::config, fmt::format("{}: cannot be opened", path), true);
  std::string text;
  for (std::size_t room = std::min(size, kTextBytesMax) + 1; file && text.size() <= kTextBytesMax;
       room = kTextBytesMax + 1) {
    const std::size_t before = text.size();
    text.resize(room);
    file.read(text.data() + before, static_cast<std::streamsize>(room - before));
    text.resize(before + static_cast<std::size_t>(file.gcount()));
  }
  if (file.bad()) return fail(Origin::config, fmt::format("{}: cannot be read", path), true);
  if (text.size() > kTextBytesMax)
    return fail(Origin::config, fmt::format("{}: larger than {} bytes", path, kTextBytesMax));
  return text;
}

// One source with all that is remembered about it. Only `status` is read by other threads.
struct Feed {
  KeySource source;
  KeySetFetcher::Status status;              // guarded by Impl::mutex
  std::optional<std::string> in_use;         // text of the set in the ring
  std::optional<std::string> rejected;       // last text that was no key set: not parsed again every second
  bool healthy = false;                      // the last reading or fetch was good
  MonotonicTime due = MonotonicTime::min();  // file: when it is looked at next
  std::optional<FileIdentity> seen;          // file: before the last reading
  MonotonicTime seen_since{};                // file: `seen` is the same since then
  bool settled = false;                      // file: it was read kFileSettled after seen_since
  std::optional<MonotonicTime> last_start, last_success;  // url

  std::optional<HttpTransfer> transfer;  // url: of the fetch in flight
};

// Secrets of the environment (proxy credentials in http_proxy) never reach a line: texts of failures do not hold
// them, and check_key_set_url() keeps credentials out of the URL.
HttpRequest request_for(const KeySource& source) {
  return {.url = source.location,
          .fields = {"Accept: application/jwk-set+json, application/json"},
          .ca_file = source.ca_file,
          .timeout = source.timeout,
          .connect_timeout = std::max(Milliseconds(1), source.timeout / 2),
          .reply_max = kTextBytesMax,
          .proxies = true};
}

// The body of a finished transfer, or why there is none that counts.
Result<std::string> body_of(const KeySource& source, HttpOutcome outcome) {
  auto failed = [&](std::string_view why) {
    return fail(Origin::upstream, fmt::format("{}: {}", source.location, why), true);
  };
  if (!outcome) return failed(outcome.error().text);
  const int status = outcome->status;
  if (status >= 300 && status < 400)
    return failed(
        fmt::format("answered {}; redirects are not followed: configure the final address", status));
  if (status != 200) return failed(fmt::format("answered {} instead of 200", status));
  return std::move(outcome->body);
}

}  // namespace

Result<void> check_key_set_url(const std::string& url) {
  auto wrong = [&](std::string_view why) { return fail(Origin::config, fmt::format("jwks_url {}", why)); };
  std::unique_ptr<CURLU, decltype(&curl_url_cleanup)> parsed(curl_url(), curl_url_cleanup);
  if (!parsed || curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(), 0) != CURLUE_OK)
    return wrong("is not a URL");
  auto part = [&](CURLUPart which) {
    char* text = nullptr;
    std::string out;
    if (curl_url_get(parsed.get(), which, &text, 0) == CURLUE_OK) out = text;
    curl_free(text);
    return out;
  };
  std::string scheme = part(CURLUPART_SCHEME), host = part(CURLUPART_HOST);
  if (scheme != "https" && scheme != "http") return wrong("must start with https://");
  if (!part(CURLUPART_USER).empty() || !part(CURLUPART_PASSWORD).empty())
    return wrong("must not hold credentials");
  if (scheme == "http" && !is_own_host(host))
    return wrong(
        "must start with https://: over plain http anybody on the way could put in keys of his own "
        "(allowed for localhost, 127.0.0.0/8 and [::1])");
  return {};
}

struct KeySetFetcher::Impl {
  Impl(std::vector<KeySource> sources, Log log_function) : log(std::move(log_function)) {
    for (KeySource& source : sources) {
      CHECK(source.ring != nullptr, "a key source without a ring");
      auto feed = std::make_unique<Feed>();
      feed->status.location = source.location;
      if (auto keys = source.ring->load()) feed->status.keys = keys->keys().size();  // seeded at a reload
      feed->source = std::move(source);
      feed->source.ring->set_refresh_listener([this] { transfers.wake(); });
      feeds.push_back(std::move(feed));
    }
  }
  ~Impl() {
    for (auto& feed : feeds) feed->source.ring->set_refresh_listener({});
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  void say(Level level, const std::string& line) const {
    if (log) log(level, line);
  }

  // A reading or fetch that gave a good text. `set` is empty when the text is the one in use already.
  void succeed(Feed& feed, std::optional<KeySet> set) {
    bool recovered = !feed.healthy;
    bool counts = set || recovered || feed.source.kind == KeySource::Kind::url;
    feed.healthy = true;
    std::size_t keys = 0;
    {
      std::lock_guard lock(mutex);
      if (counts) ++feed.status.successes;
      if (set) feed.status.keys = set->keys().size();
      feed.status.last_error.clear();
      keys = feed.status.keys;
    }
    if (set) {
      for (const std::string& note : set->notes())
        say(Level::warning, fmt::format("{}: {}", feed.source.location, note));
      feed.source.ring->store(std::make_shared<const KeySet>(*std::move(set)));
    }
    if (set || recovered) say(Level::info, fmt::format("{}: {} keys in use", feed.source.location, keys));
    settled.notify_all();
  }

  // Counted every time, logged when it is news.
  void fail_with(Feed& feed, const Error& error) {
    feed.healthy = false;
    bool news = false, has_keys = false;
    {
      std::lock_guard lock(mutex);
      ++feed.status.failures;
      news = feed.status.last_error != error.message;
      has_keys = feed.status.keys > 0;
      feed.status.last_error = error.message;
    }
    if (news)
      say(Level::warning, fmt::format("{} ({})", error.message,
                                      has_keys ? "the last good keys stay in use"
                                               : "tokens of this issuer are refused until it succeeds"));
    settled.notify_all();
  }

  static Error named(const Feed& feed, Error error) {
    error.message = fmt::format("{}: {}", feed.source.location, error.message);
    return error;
  }

  void take(Feed& feed, std::string text) {
    if (feed.in_use == text) return succeed(feed, std::nullopt);
    if (feed.rejected == text && !feed.healthy) {
      std::lock_guard lock(mutex);
      ++feed.status.failures;
      return;
    }
    Result<KeySet> set = feed.source.kind == KeySource::Kind::secret
                             ? KeySet::from_secret(text, feed.source.algorithms)
                             : KeySet::from_text(text);
    if (!set) {
      feed.rejected = std::move(text);
      return fail_with(feed, named(feed, set.error()));
    }
    feed.rejected.reset();
    feed.in_use = std::move(text);
    succeed(feed, *std::move(set));
  }

  void read(Feed& feed, MonotonicTime now) {
    const std::optional<FileIdentity> found = identity_of(feed.source.location);
    if (!found || found != feed.seen) {
      feed.seen = found;
      feed.seen_since = now;
      feed.settled = false;
    } else if (feed.settled && feed.healthy) {
      return;
    }
    feed.settled = found && now - feed.seen_since >= kFileSettled;
    auto text = read_file(feed.source.location, found ? static_cast<std::size_t>(found->size) : 0);
    if (!text) return fail_with(feed, text.error());
    take(feed, *std::move(text));
  }

  void begin_transfer(Feed& feed, MonotonicTime now) {
    feed.last_start = now;
    feed.source.ring->take_refresh_request();  // answered by this fetch; a later one asks again
    if (auto good = check_key_set_url(feed.source.location); !good)
      return fail_with(feed, named(feed, good.error()));
    feed.transfer.emplace();
    transfers.begin(*feed.transfer, request_for(feed.source),
                    [this, &feed](HttpOutcome outcome) { end_transfer(feed, std::move(outcome)); });
  }

  void end_transfer(Feed& feed, HttpOutcome outcome) {
    feed.transfer.reset();
    auto body = body_of(feed.source, std::move(outcome));
    if (body)
      take(feed, *std::move(body));
    else
      fail_with(feed, body.error());
    if (feed.healthy) feed.last_success = step_time;
  }

  // When a URL that is not being fetched is due: never before last start + min_interval.
  MonotonicTime url_due(const Feed& feed) const {
    if (!feed.last_start) return MonotonicTime::min();
    MonotonicTime earliest = *feed.last_start + std::max(feed.source.min_interval, kIntervalMin);
    if (!feed.healthy || !feed.last_success || feed.source.ring->refresh_requested()) return earliest;
    return std::max(earliest, *feed.last_success + feed.source.refresh);
  }

  void read_files(MonotonicTime now) {
    for (auto& feed : feeds) {
      if (feed->source.kind == KeySource::Kind::url) continue;
      feed->source.ring->take_refresh_request();  // files are read all the time anyway
      if (now < feed->due) continue;
      read(*feed, now);
      feed->due = now + kFilePoll;
    }
  }

  MonotonicTime step(MonotonicTime now) {
    read_files(now);
    for (auto& feed : feeds) {
      if (feed->source.kind == KeySource::Kind::url && !feed->transfer && now >= url_due(*feed))
        begin_transfer(*feed, now);
    }
    step_time = now;
    transfers.step();
    MonotonicTime next = now + kFilePoll;  // also bounds how late a refresh request can be seen
    for (auto& feed : feeds) {
      if (feed->source.kind != KeySource::Kind::url)
        next = std::min(next, feed->due);
      else if (!feed->transfer)
        next = std::min(next, std::max(now, url_due(*feed)));
    }
    return next;
  }

  bool in_flight() const {
    return std::any_of(feeds.begin(), feeds.end(),
                       [](const auto& feed) { return feed->transfer.has_value(); });
  }

  void run() {
    block_signals();
    while (!stopping.load(std::memory_order_acquire)) {
      MonotonicTime now = EventLoop::now();
      MonotonicTime next = step(now);
      if (stopping.load(std::memory_order_acquire)) return;
      transfers.wait(std::chrono::ceil<Milliseconds>(next - now));
    }
  }

  Log log;
  HttpTransfers transfers;
  std::vector<std::unique_ptr<Feed>> feeds;
  MonotonicTime step_time{};  // of the last step()
  mutable std::mutex mutex;
  std::condition_variable settled;
  std::atomic<bool> stopping{false};
  std::thread thread;
};

KeySetFetcher::KeySetFetcher(std::vector<KeySource> sources, Log log)
    : impl_(std::make_unique<Impl>(std::move(sources), std::move(log))) {}
KeySetFetcher::~KeySetFetcher() {
  stop();
}

void KeySetFetcher::start(Milliseconds first_load) {
  CHECK(!impl_->thread.joinable(), "started twice");
  impl_->stopping.store(false, std::memory_order_release);
  impl_->read_files(EventLoop::now());
  impl_->thread = std::thread([this] { impl_->run(); });
  std::unique_lock lock(impl_->mutex);
  impl_->settled.wait_for(lock, first_load, [this] {
    return std::all_of(impl_->feeds.begin(), impl_->feeds.end(),
                       [](const auto& feed) { return feed->status.successes + feed->status.failures > 0; });
  });
}

void KeySetFetcher::stop() {
  if (!impl_->thread.joinable()) return;
  impl_->stopping.store(true, std::memory_order_release);
  impl_->transfers.wake();
  impl_->thread.join();
  for (auto& feed : impl_->feeds) feed->transfer.reset();
}

std::vector<KeySetFetcher::Status> KeySetFetcher::status() const {
  std::lock_guard lock(impl_->mutex);
  std::vector<Status> out;
  for (const auto& feed : impl_->feeds) out.push_back(feed->status);
  return out;
}

MonotonicTime KeySetFetcher::step(MonotonicTime now) {
  return impl_->step(now);
}
void KeySetFetcher::wait(Milliseconds longest) {
  impl_->transfers.wait(longest);
}
bool KeySetFetcher::in_flight() const {
  return impl_->in_flight();
}

}  // namespace tollgate::net
