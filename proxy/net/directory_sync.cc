#include "proxy/net/directory_sync.h"

#include <curl/curl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "metering/base/ascii.h"
#include "metering/base/check.h"
#include "metering/base/json_text.h"
#include "metering/identity/creatio_login.h"
#include "proxy/net/event_loop.h"

namespace tollgate::net {
namespace {

using identity::CreatioUserReader;
using identity::SyncFailure;
using Kind = SyncFailure::Kind;

constexpr Milliseconds kTakeAgain{100};

UnixTime unix_now() {
  return UnixTime(std::chrono::duration_cast<Duration>(std::chrono::system_clock::now().time_since_epoch()));
}

std::unexpected<SyncFailure> failed(Kind kind, std::string text) {
  return std::unexpected(SyncFailure{kind, std::move(text)});
}

struct HttpReply {
  long status = 0;
  std::string body;
  bool too_large = false;
};

std::size_t take_body(char* data, std::size_t size, std::size_t count, void* user) {
  auto& reply = *static_cast<HttpReply*>(user);
  if (reply.body.size() + size * count > DirectorySync::kReplyMax) {
    reply.too_large = true;
    return 0;  // curl ends the transfer
  }
  reply.body.append(data, size * count);
  return size * count;
}

// The address of the application: workspaces have a number, the log-in has none.
std::string application_of(const std::string& url) {
  const std::size_t slash = url.rfind('/');
  return slash != url.npos && parse_decimal(std::string_view(url).substr(slash + 1)) ? url.substr(0, slash)
                                                                                     : url;
}

// One conversation with the CRM: a session, and what is asked in it. Of one thread.
class Conversation {
 public:
  Conversation(const DirectorySource& source, const std::atomic<bool>& stopping)
      : source_(source), stopping_(stopping), curl_(curl_easy_init()) {
    CHECK(curl_ != nullptr, "out of memory");
    // Any cookie makes libcurl keep cookies, in memory; the usual empty CURLOPT_COOKIEFILE leaks at a reset (7.88).
    curl_easy_setopt(curl_, CURLOPT_COOKIELIST, "Set-Cookie: none=; max-age=0; domain=localhost; path=/");
  }
  ~Conversation() { curl_easy_cleanup(curl_); }
  Conversation(const Conversation&) = delete;
  Conversation& operator=(const Conversation&) = delete;

  void forget() { csrf_.clear(); }  // the session
  void begin(Milliseconds at_most) { deadline_ = EventLoop::now() + at_most; }

  // The body of a 200.
  std::expected<std::string, SyncFailure> get(const std::string& address) {
    for (int attempt = 0;; ++attempt) {
      if (source_.authorization.empty() && csrf_.empty())
        if (auto entered = log_in(); !entered) return std::unexpected(entered.error());
      auto reply = ask(address, nullptr);
      if (!reply) return std::unexpected(reply.error());
      const long status = reply->status;
      // A session that has ended: 401, or the way to the page where people log in.
      if ((status == 401 || status == 302) && source_.authorization.empty() && attempt == 0) {
        csrf_.clear();
        continue;
      }
      if (status == 200) return std::move(reply->body);
      const std::string what = address.substr(0, address.find('?'));
      if (status == 401 || status == 302)
        return failed(Kind::log_in, fmt::format("{} answered {}: the account is not let in", what, status));
      return failed(Kind::status, fmt::format("{} answered {}", what, status));
    }
  }

 private:
  static int on_progress(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    return static_cast<const Conversation*>(self)->stopping_.load() ? 1 : 0;
  }

  std::expected<void, SyncFailure> log_in() {
    curl_easy_setopt(curl_, CURLOPT_COOKIELIST, "ALL");  // forgets the session before
    std::string body;
    JsonWriter json(body);
    json.object([&] {
      json.field("UserName", source_.user);
      json.field("UserPassword", source_.password);
    });
    const std::string address = application_of(source_.url) + "/ServiceModel/AuthService.svc/Login";
    auto reply = ask(address, &body);
    if (!reply) return std::unexpected(reply.error());
    if (reply->status != 200)
      return failed(Kind::log_in, fmt::format("{} answered {}", address, reply->status));
    if (!identity::creatio_login_reply(reply->body))
      return failed(Kind::log_in, fmt::format("{} does not let the user \"{}\" in", address, source_.user));
    csrf_ = "BPMCSRF: " + cookie("BPMCSRF");
    return {};
  }

  std::string cookie(std::string_view wanted) {
    curl_slist* cookies = nullptr;
    curl_easy_getinfo(curl_, CURLINFO_COOKIELIST, &cookies);
    std::string found;
    for (const curl_slist* each = cookies; each != nullptr; each = each->next) {
      // Netscape's format: seven cells, of which the last two are name and value.
      const std::string_view line = each->data;
      const std::size_t value = line.rfind('\t');
      const std::size_t name = value == line.npos ? value : line.rfind('\t', value - 1);
      if (name != line.npos && line.substr(name + 1, value - name - 1) == wanted)
        found = line.substr(value + 1);
    }
    curl_slist_free_all(cookies);
    return found;
  }

  // json: sent with POST; nullptr: GET.
  std::expected<HttpReply, SyncFailure> ask(const std::string& address, const std::string* json) {
    HttpReply reply;
    curl_easy_reset(curl_);  // connections and cookies are kept
    auto set = [&](CURLoption option, auto value) {
      CHECK(curl_easy_setopt(curl_, option, value) == CURLE_OK, "libcurl lacks an option that a sync needs");
    };
    curl_slist* fields = curl_slist_append(nullptr, "Accept: application/json");
    if (json != nullptr) {
      fields = curl_slist_append(fields, "Content-Type: application/json");
      fields = curl_slist_append(fields, "ForceUseSession: true");
      set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(json->size()));
      set(CURLOPT_POSTFIELDS, json->c_str());
    } else if (!source_.authorization.empty()) {
      fields = curl_slist_append(fields, ("Authorization: " + source_.authorization).c_str());
    } else {
      fields = curl_slist_append(fields, csrf_.c_str());
    }
    std::array<char, CURL_ERROR_SIZE> error{};
    set(CURLOPT_URL, address.c_str());
    set(CURLOPT_HTTPHEADER, fields);
    set(CURLOPT_USERAGENT, "tollgate");
    set(CURLOPT_ACCEPT_ENCODING, "");
    set(CURLOPT_PROTOCOLS_STR, "http,https");
    set(CURLOPT_FOLLOWLOCATION, 0L);
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_NOPROXY, "*");
    set(CURLOPT_SSL_VERIFYPEER, 1L);
    set(CURLOPT_SSL_VERIFYHOST, 2L);
    set(CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
    if (!source_.ca_file.empty()) {
      set(CURLOPT_CAINFO, source_.ca_file.c_str());
      set(CURLOPT_CAPATH, static_cast<const char*>(nullptr));
    }
    const auto left = std::chrono::ceil<Milliseconds>(deadline_ - EventLoop::now());
    set(CURLOPT_TIMEOUT_MS,
        static_cast<long>(std::clamp<std::int64_t>(left.count(), 1, source_.timeout.count())));
    set(CURLOPT_NOPROGRESS, 0L);
    set(CURLOPT_XFERINFOFUNCTION, &on_progress);
    set(CURLOPT_XFERINFODATA, static_cast<void*>(this));
    set(CURLOPT_ERRORBUFFER, error.data());
    set(CURLOPT_WRITEFUNCTION, &take_body);
    set(CURLOPT_WRITEDATA, static_cast<void*>(&reply));
    const CURLcode code = curl_easy_perform(curl_);
    if (code == CURLE_OK) curl_easy_getinfo(curl_, CURLINFO_RESPONSE_CODE, &reply.status);
    curl_easy_setopt(curl_, CURLOPT_ERRORBUFFER, nullptr);
    curl_slist_free_all(fields);
    const std::string what = address.substr(0, address.find('?'));
    if (reply.too_large)
      return failed(Kind::too_large,
                    fmt::format("{}: a reply of more than {} bytes", what, DirectorySync::kReplyMax));
    if (code != CURLE_OK)
      return failed(Kind::unreachable,
                    fmt::format("{}: {}", what, error[0] != '\0' ? error.data() : curl_easy_strerror(code)));
    return reply;
  }

  const DirectorySource& source_;
  const std::atomic<bool>& stopping_;
  CURL* curl_;
  std::string csrf_;  // line of the session that is open; "": none
  MonotonicTime deadline_{};
};

void make_curl_ready() {
  static const CURLcode ready = curl_global_init(CURL_GLOBAL_DEFAULT);
  CHECK(ready == CURLE_OK, "libcurl cannot be initialised");
}

}  // namespace

struct DirectorySync::Impl {
  Impl(DirectorySource the_source, Take the_take, Log the_log)
      : source(std::move(the_source)), take(std::move(the_take)), log(std::move(the_log)) {
    make_curl_ready();
  }

  std::expected<identity::CreatioUsers, SyncFailure> read(Conversation& conversation) const {
    conversation.begin(kSyncMax);
    CreatioUserReader reader(source.names, source.url, source.limits);
    while (!reader.next().empty()) {
      auto body = conversation.get(reader.next());
      if (!body) return std::unexpected(body.error());
      if (auto taken = reader.take(*body); !taken) return std::unexpected(taken.error());
    }
    return reader.finish();
  }

  // read: but for the users themselves, who are with the proxy.
  void note(std::size_t users, const identity::CreatioUsers& read) {
    Status before;
    {
      const std::lock_guard lock(mutex);
      before = status;
      status.users = users;
      status.licenses = read.licenses;
      status.left_out = read.left_out;
      status.last_success = unix_now();
      ++status.successes;
      status.failure.clear();
    }
    const bool same = before.successes > 0 && before.failure.empty() && before.users == users &&
                      before.licenses == read.licenses && before.left_out == read.left_out;
    if (same) return;
    const std::string out =
        read.left_out == 0 ? "" : fmt::format("; {} rows left out, the first: {}", read.left_out, read.why);
    log(read.left_out == 0, fmt::format("identity.directory.sync: {}: {} users with {} licences{}",
                                        source.url, users, read.licenses, out));
  }

  void note(const SyncFailure& failure) {
    bool news = false;
    {
      const std::lock_guard lock(mutex);
      news = status.failure != failure.text;
      status.failure = failure.text;
      status.last_failure = unix_now();
      ++status.failures[static_cast<std::size_t>(failure.kind)];
    }
    if (news)
      log(false, fmt::format("identity.directory.sync failed ({}): {}; what is known of users stays",
                             identity::name(failure.kind), failure.text));
  }

  // True: the users are taken.
  bool hand_over(const Users& users) {
    while (!take(users)) {
      std::unique_lock lock(mutex);
      if (wake.wait_for(lock, kTakeAgain, [&] { return stopping.load(); })) return false;
    }
    return true;
  }

  std::expected<void, SyncFailure> sync(Conversation& conversation) {
    auto got = read(conversation);
    if (stopping.load()) return failed(Kind::unreachable, "stopped");
    if (!got) {
      conversation.forget();
      note(got.error());
      return std::unexpected(got.error());
    }
    const auto users = std::make_shared<const identity::Directory::CrmUsers>(std::exchange(got->users, {}));
    if (!hand_over(users)) return failed(Kind::unreachable, "stopped");
    note(users->size(), *got);
    return {};
  }

  void run() {
    Conversation conversation(source, stopping);
    std::unique_lock lock(mutex);
    while (!stopping.load()) {
      std::vector<Done> waiting = std::exchange(asked, {});
      lock.unlock();
      const auto outcome = sync(conversation);
      for (const Done& done : waiting) done(outcome);
      lock.lock();
      tried = true;
      wake.notify_all();
      const Milliseconds pause = outcome ? source.interval : std::min(kRetry, source.interval);
      wake.wait_for(lock, pause, [&] { return stopping.load() || !asked.empty(); });
    }
    const std::vector<Done> rest = std::exchange(asked, {});
    lock.unlock();
    for (const Done& done : rest) done(failed(Kind::unreachable, "stopped"));
  }

  const DirectorySource source;
  const Take take;
  const Log log;
  mutable std::mutex mutex;
  std::condition_variable wake;
  Status status;            // guarded by mutex
  std::vector<Done> asked;  // guarded by mutex
  bool tried = false;       // guarded by mutex
  std::atomic<bool> stopping{false};
  std::thread thread;
};

DirectorySync::DirectorySync(DirectorySource source, Take take, Log log)
    : impl_(std::make_unique<Impl>(std::move(source), std::move(take), std::move(log))) {}

DirectorySync::~DirectorySync() {
  stop();
}

void DirectorySync::start(Milliseconds first_wait) {
  impl_->thread = std::thread([impl = impl_.get()] {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    impl->run();
  });
  std::unique_lock lock(impl_->mutex);
  impl_->wake.wait_for(lock, first_wait, [&] { return impl_->tried; });
}

void DirectorySync::sync_now(Done done) {
  {
    const std::lock_guard lock(impl_->mutex);
    if (!impl_->stopping.load()) {
      impl_->asked.push_back(std::move(done));
      impl_->wake.notify_all();
      return;
    }
  }
  done(failed(Kind::unreachable, "stopped"));
}

DirectorySync::Status DirectorySync::status() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->status;
}

const DirectorySource& DirectorySync::source() const {
  return impl_->source;
}

void DirectorySync::stop() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->stopping = true;
    impl_->wake.notify_all();
  }
  if (impl_->thread.joinable()) impl_->thread.join();
}

std::expected<std::string, SyncFailure> try_directory(const DirectorySource& source) {
  make_curl_ready();
  const std::atomic<bool> stopping{false};
  Conversation conversation(source, stopping);
  conversation.begin(3 * source.timeout);
  CreatioUserReader reader(source.names, source.url, source.limits);
  std::string seen;
  for (const std::string* entity : {&source.names.users, &source.names.licenses}) {
    if (reader.next().empty()) break;
    auto body = conversation.get(reader.next());
    if (!body) return std::unexpected(body.error());
    if (auto taken = reader.take(*body); !taken) return std::unexpected(taken.error());
    seen += fmt::format("{}{} rows of {}", seen.empty() ? "" : ", ", reader.page_rows(), *entity);
    if (entity == &source.names.users) reader.go_to_licenses();
  }
  return seen;
}

}  // namespace tollgate::net
