#include "proxy/net/lookup_service.h"

#include <curl/curl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>

#include <array>
#include <chrono>
#include <list>
#include <mutex>
#include <set>
#include <thread>
#include <unordered_map>
#include <vector>

#include "metering/base/check.h"

namespace tollgate::net {
namespace {

using identity::LookupSource;
using identity::LookupTable;
using identity::LookupVerdict;
using identity::SessionKey;

struct Question {
  std::shared_ptr<const LookupSource> source;
  std::shared_ptr<LookupTable> table;
  SessionKey key;
  identity::LookupRequest request;

  // While it is asked.
  CURL* transfer = nullptr;
  curl_slist* fields = nullptr;
  std::string reply;
  bool too_large = false;
  std::array<char, CURL_ERROR_SIZE> error{};

  ~Question() {
    curl_easy_cleanup(transfer);
    curl_slist_free_all(fields);
  }
};

std::size_t take_reply(char* data, std::size_t size, std::size_t count, void* user) {
  auto& question = *static_cast<Question*>(user);
  if (question.reply.size() + size * count > identity::kLookupReplyMax) {
    question.too_large = true;
    return 0;  // curl ends the transfer
  }
  question.reply.append(data, size * count);
  return size * count;
}

void set_options(Question& question) {
  CURL* c = question.transfer;
  const LookupSource& source = *question.source;
  auto set = [&](CURLoption option, auto value) {
    CHECK(curl_easy_setopt(c, option, value) == CURLE_OK, "libcurl lacks an option that look-ups need");
  };
  for (const std::string& line : question.request.headers)
    question.fields = curl_slist_append(question.fields, line.c_str());
  set(CURLOPT_URL, source.url.c_str());
  set(CURLOPT_HTTPHEADER, question.fields);
  set(CURLOPT_USERAGENT, "tollgate");
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_FOLLOWLOCATION, 0L);
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_QUICK_EXIT, 1L);
  set(CURLOPT_NOPROXY, "localhost,127.0.0.1,::1");
  set(CURLOPT_SSL_VERIFYPEER, 1L);
  set(CURLOPT_SSL_VERIFYHOST, 2L);
  set(CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  if (!source.ca_file.empty()) {
    set(CURLOPT_CAINFO, source.ca_file.c_str());
    set(CURLOPT_CAPATH, static_cast<const char*>(nullptr));
  }
  if (question.request.post) {
    set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(question.request.body.size()));
    set(CURLOPT_POSTFIELDS, question.request.body.c_str());
  }
  set(CURLOPT_TIMEOUT_MS, static_cast<long>(source.timeout.count()));
  set(CURLOPT_ERRORBUFFER, question.error.data());
  set(CURLOPT_WRITEFUNCTION, &take_reply);
  set(CURLOPT_WRITEDATA, static_cast<void*>(&question));
  set(CURLOPT_PRIVATE, static_cast<void*>(&question));
}

Result<LookupVerdict> outcome_of(const Question& question, CURLcode code) {
  const LookupSource& source = *question.source;
  const auto failed = [&](std::string_view why) {
    return fail(Origin::upstream, fmt::format("{}: {}: {}", source.name, source.url, why), true);
  };
  if (question.too_large)
    return failed(fmt::format("the reply is larger than {} bytes", identity::kLookupReplyMax));
  if (code != CURLE_OK)
    return failed(question.error[0] != '\0' ? question.error.data() : curl_easy_strerror(code));
  long status = 0;
  curl_easy_getinfo(question.transfer, CURLINFO_RESPONSE_CODE, &status);
  const UnixTime now(std::chrono::system_clock::now().time_since_epoch());
  return identity::read_lookup(source, static_cast<int>(status), question.reply, now);
}

}  // namespace

struct LookupService::Impl {
  explicit Impl(Log log_function) : log(std::move(log_function)) {
    static const CURLcode curl_ready = curl_global_init(CURL_GLOBAL_DEFAULT);
    CHECK(curl_ready == CURLE_OK, "libcurl cannot be initialised");
    multi = curl_multi_init();
    CHECK(multi != nullptr, "out of memory");
    curl_multi_setopt(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, kConnectionsMax);
    curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, kConnectionsMax);
  }
  ~Impl() {
    if (thread.joinable()) {
      stopping.store(true, std::memory_order_release);
      curl_multi_wakeup(multi);
      thread.join();
    }
    for (Question& question : asked)
      if (question.transfer != nullptr) curl_multi_remove_handle(multi, question.transfer);
    asked.clear();
    curl_multi_cleanup(multi);
  }

  void run() {
    // Signals are the main thread's business; above all SIGPIPE, which libcurl leaves to us (CURLOPT_NOSIGNAL).
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    while (!stopping.load(std::memory_order_acquire)) {
      std::list<Question> fresh;
      {
        const std::lock_guard lock(mutex);
        fresh.swap(inbox);
      }
      for (Question& question : fresh) begin(question);
      asked.splice(asked.end(), fresh);
      int running = 0;
      curl_multi_perform(multi, &running);
      collect();
      curl_multi_poll(multi, nullptr, 0, 1'000, nullptr);
    }
  }

  void begin(Question& question) {
    question.transfer = curl_easy_init();
    CHECK(question.transfer != nullptr, "out of memory");
    set_options(question);
    CHECK(curl_multi_add_handle(multi, question.transfer) == CURLM_OK, "a transfer can be added");
  }

  void collect() {
    int left = 0;
    while (CURLMsg* message = curl_multi_info_read(multi, &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      const CURLcode code = message->data.result;
      void* user = nullptr;
      curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &user);
      auto* question = static_cast<Question*>(user);
      curl_multi_remove_handle(multi, question->transfer);
      settle(*question, outcome_of(*question, code));
      asked.remove_if([question](const Question& each) { return &each == question; });
    }
  }

  void settle(const Question& question, Result<LookupVerdict> outcome) {
    std::shared_ptr<const LookupVerdict> verdict;
    const std::string& name = question.source->name;
    if (outcome) {
      verdict = std::make_shared<const LookupVerdict>(*std::move(outcome));
      question.table->store(question.key, verdict);
      if (verdict->user == nullptr) counters.nobody.fetch_add(1, std::memory_order_relaxed);
      if (failing.erase(name) != 0) log(true, fmt::format("{}: answers again", name));
    } else {
      counters.failures.fetch_add(1, std::memory_order_relaxed);
      if (failing.insert(name).second) log(false, outcome.error().message);
    }
    std::vector<Done> told;
    {
      const std::lock_guard lock(mutex);
      auto node = waiting.extract(question.key);
      told = std::move(node.mapped());
    }
    for (Done& done : told) done(verdict);
  }

  Log log;
  Counters counters;
  CURLM* multi = nullptr;
  std::list<Question> asked;      // of the thread
  std::set<std::string> failing;  // sources; of the thread
  std::mutex mutex;
  std::list<Question> inbox;                                                            // guarded by mutex
  std::unordered_map<SessionKey, std::vector<Done>, identity::SessionKeyHash> waiting;  // guarded by mutex
  std::once_flag started;
  std::atomic<bool> stopping{false};
  std::thread thread;
};

LookupService::LookupService(Log log) : impl_(std::make_unique<Impl>(std::move(log))) {}
LookupService::~LookupService() = default;

const LookupService::Counters& LookupService::counters() const {
  return impl_->counters;
}

void LookupService::ask(std::shared_ptr<const LookupSource> source, std::shared_ptr<LookupTable> table,
                        const SessionKey& key, std::string credential, UnixTime now, Done done) {
  Impl& impl = *impl_;
  auto request = identity::lookup_request(*source, credential);
  if (!request) return done(nullptr);
  std::shared_ptr<const LookupVerdict> settled;
  bool asks = false;
  {
    const std::lock_guard lock(impl.mutex);
    auto [waiting, first] = impl.waiting.try_emplace(key);
    if (!first) return waiting->second.push_back(std::move(done));
    // Settled since the caller looked: who asked has been told, and is no longer among those that wait.
    settled = table->find(key, now);
    const bool full = impl.waiting.size() > kAskedMax;
    asks = settled == nullptr && !full;
    if (!asks) {
      impl.waiting.erase(waiting);
      if (settled == nullptr) impl.counters.failures.fetch_add(1, std::memory_order_relaxed);
    } else {
      waiting->second.push_back(std::move(done));
      Question& question = impl.inbox.emplace_back();
      question.source = std::move(source);
      question.table = std::move(table);
      question.key = key;
      question.request = *std::move(request);
    }
  }
  if (!asks) return done(std::move(settled));
  impl.counters.questions.fetch_add(1, std::memory_order_relaxed);
  std::call_once(impl.started, [&impl] { impl.thread = std::thread([&impl] { impl.run(); }); });
  curl_multi_wakeup(impl.multi);
}

}  // namespace tollgate::net
