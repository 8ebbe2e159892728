#include "proxy/net/owner_fetcher.h"

#include <curl/curl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "metering/base/check.h"
#include "metering/catalogue/cherwell_reply.h"
#include "metering/identity/cherwell_login.h"
#include "proxy/net/event_loop.h"

namespace tollgate::net {
namespace {

constexpr std::size_t kReplyMax = 1024 * 1024;

UnixTime unix_now() {
  return UnixTime(std::chrono::duration_cast<Duration>(std::chrono::system_clock::now().time_since_epoch()));
}

struct HttpReply {
  long status = 0;  // 0: none
  std::string body;
};

std::size_t take_body(char* data, std::size_t size, std::size_t count, void* user) {
  auto& body = *static_cast<std::string*>(user);
  if (body.size() + size * count > kReplyMax) return 0;  // curl ends the transfer
  body.append(data, size * count);
  return size * count;
}

}  // namespace

struct OwnerFetcher::Impl {
  struct Key {
    std::string upstream, record;
    auto operator<=>(const Key&) const = default;
  };
  struct Asked {
    MonotonicTime since;
    std::vector<std::function<void()>> waiting;
  };

  Impl(OwnerSource the_source, std::function<void(const std::string&)> the_log)
      : source(std::move(the_source)), log(std::move(the_log)) {
    static const CURLcode curl_ready = curl_global_init(CURL_GLOBAL_DEFAULT);
    CHECK(curl_ready == CURLE_OK, "libcurl cannot be initialised");
    curl = curl_easy_init();
    CHECK(curl != nullptr, "out of memory");
  }
  ~Impl() { curl_easy_cleanup(curl); }

  static int on_progress(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    return static_cast<Impl*>(self)->stopping.load() ? 1 : 0;
  }

  // form: sent with POST; nullptr: GET.
  HttpReply ask(const std::string& url, const std::string* form) {
    HttpReply reply;
    curl_easy_reset(curl);  // connections are kept
    auto set = [&](CURLoption option, auto value) {
      CHECK(curl_easy_setopt(curl, option, value) == CURLE_OK, "libcurl lacks an option that look-ups need");
    };
    curl_slist* fields = curl_slist_append(nullptr, "Accept: application/json");
    const std::string authorization = "Authorization: Bearer " + token;
    if (form == nullptr) fields = curl_slist_append(fields, authorization.c_str());
    set(CURLOPT_URL, url.c_str());
    set(CURLOPT_HTTPHEADER, fields);
    if (form != nullptr) set(CURLOPT_POSTFIELDS, form->c_str());
    set(CURLOPT_USERAGENT, "tollgate");
    set(CURLOPT_PROTOCOLS_STR, "http,https");
    set(CURLOPT_FOLLOWLOCATION, 0L);
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_NOPROXY, "*");
    set(CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
    if (!source.ca_file.empty()) {
      set(CURLOPT_CAINFO, source.ca_file.c_str());
      set(CURLOPT_CAPATH, static_cast<const char*>(nullptr));
    }
    const auto left = std::chrono::ceil<Milliseconds>(deadline - EventLoop::now());
    set(CURLOPT_TIMEOUT_MS, static_cast<long>(std::max<std::int64_t>(1, left.count())));
    set(CURLOPT_NOPROGRESS, 0L);
    set(CURLOPT_XFERINFOFUNCTION, &on_progress);
    set(CURLOPT_XFERINFODATA, static_cast<void*>(this));
    set(CURLOPT_WRITEFUNCTION, &take_body);
    set(CURLOPT_WRITEDATA, static_cast<void*>(&reply.body));
    const CURLcode code = curl_easy_perform(curl);
    if (code == CURLE_OK)
      curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &reply.status);
    else
      why = curl_easy_strerror(code);
    curl_slist_free_all(fields);
    return reply;
  }

  std::string escaped(std::string_view text) {
    char* out = curl_easy_escape(curl, text.data(), static_cast<int>(text.size()));
    std::string kept = out == nullptr ? "" : out;
    curl_free(out);
    return kept;
  }

  bool log_in() {
    const std::string form =
        fmt::format("grant_type=password&client_id={}&username={}&password={}", escaped(source.client_id),
                    escaped(source.user), escaped(source.password));
    const HttpReply reply =
        ask(fmt::format("{}/token?auth_mode={}", source.url, escaped(source.auth_mode)), &form);
    const auto tokens = reply.status == 200 ? identity::read_cherwell_tokens(reply.body) : std::nullopt;
    if (!tokens && reply.status != 0) why = fmt::format("no token: answered {}", reply.status);
    token = tokens ? tokens->access_token : "";
    return tokens.has_value();
  }

  // False: no answer that says anything.
  bool look_up(const Key& key) {
    const std::string_view record = key.record;
    const std::size_t first = record.find('/'), second = record.find('/', first + 1);
    CHECK(second != record.npos, "a record is named object/id/public id");
    const std::string_view id = record.substr(first + 1, second - first - 1),
                           public_id = record.substr(second + 1);
    const std::string url = fmt::format(
        "{}/api/V1/getbusinessobject/busobid/{}/{}/{}", source.url, escaped(record.substr(0, first)),
        id.empty() ? "publicid" : "busobrecid", escaped(id.empty() ? public_id : id));
    HttpReply reply;
    for (int attempt = 0; attempt < 2; ++attempt) {
      if (token.empty() && !log_in()) return false;
      reply = ask(url, nullptr);
      if (reply.status != 401) break;
      token.clear();  // it has expired
    }
    if (reply.status == 0) return false;
    if (reply.status != 200 && reply.status != 404) {
      why = fmt::format("answered {}", reply.status);
      return false;
    }
    if (reply.status == 200 && !catalogue::is_cherwell_reply(reply.body)) {
      why = "answered with something else than a record";
      return false;
    }
    const UnixTime now = unix_now();
    bool named = false;
    for (const auto& seen : catalogue::read_cherwell_owners(reply.body, source.owner_fields, 1))
      for (const std::string& name : seen.records) {
        source.owners->learn(key.upstream, name, seen.owner, now);
        named = named || name == key.record;
      }
    if (!named) source.owners->learn(key.upstream, key.record, "", now);
    return true;
  }

  void run() {
    std::unique_lock lock(mutex);
    while (true) {
      asked_for.wait(lock, [&] { return stopping.load() || !queue.empty(); });
      if (stopping.load()) break;
      const Key key = std::move(queue.front());
      queue.pop_front();
      const MonotonicTime now = EventLoop::now();
      const bool too_late = now - asked.at(key).since > source.timeout;
      if (!too_late && now >= paused_until) {
        lock.unlock();
        deadline = now + source.timeout;
        const bool answered = look_up(key);
        if (!answered && !stopping.load() && log)
          log(fmt::format("look-up of a record's owner at {}: {}", source.url, why));
        lock.lock();
        if (!answered) paused_until = EventLoop::now() + kPause;
      }
      auto node = asked.extract(key);
      lock.unlock();
      for (const auto& done : node.mapped().waiting) done();
      lock.lock();
    }
    auto rest = std::exchange(asked, {});
    lock.unlock();
    for (const auto& [key, entry] : rest)
      for (const auto& done : entry.waiting) done();
  }

  const OwnerSource source;
  const std::function<void(const std::string&)> log;
  CURL* curl = nullptr;      // the thread's
  std::string token, why;    // the thread's
  MonotonicTime deadline{};  // the thread's
  std::mutex mutex;
  std::condition_variable asked_for;
  std::map<Key, Asked> asked;    // guarded by mutex
  std::deque<Key> queue;         // guarded by mutex
  MonotonicTime paused_until{};  // guarded by mutex
  std::atomic<bool> stopping{false};
  std::thread thread;
};

OwnerFetcher::OwnerFetcher(OwnerSource source, std::function<void(const std::string&)> log)
    : impl_(std::make_unique<Impl>(std::move(source), std::move(log))) {
  impl_->thread = std::thread([impl = impl_.get()] {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    impl->run();
  });
}

OwnerFetcher::~OwnerFetcher() {
  stop();
}

void OwnerFetcher::find(const std::string& upstream, const std::string& record, std::function<void()> done) {
  {
    std::lock_guard lock(impl_->mutex);
    const bool paused = EventLoop::now() < impl_->paused_until;
    const bool full = impl_->asked.size() >= kWaitingMax && !impl_->asked.contains({upstream, record});
    if (!impl_->stopping.load() && !paused && !full) {
      const auto [at, first] = impl_->asked.try_emplace({upstream, record});
      at->second.waiting.push_back(std::move(done));
      if (!first) return;
      at->second.since = EventLoop::now();
      impl_->queue.push_back(at->first);
      impl_->asked_for.notify_one();
      return;
    }
  }
  done();
}

void OwnerFetcher::stop() {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->stopping = true;
    impl_->asked_for.notify_one();
  }
  if (impl_->thread.joinable()) impl_->thread.join();
}

}  // namespace tollgate::net
