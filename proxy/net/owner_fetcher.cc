#include "proxy/net/owner_fetcher.h"

#include <fmt/format.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "metering/base/check.h"
#include "metering/base/percent.h"
#include "metering/catalogue/cherwell_reply.h"
#include "metering/identity/cherwell_login.h"
#include "proxy/net/event_loop.h"
#include "proxy/net/http_transfer.h"

namespace tollgate::net {
namespace {

constexpr std::size_t kReplyMax = 1024 * 1024;

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
      : source(std::move(the_source)), log(std::move(the_log)) {}

  // form: sent with POST; none: GET. Nothing without a reply.
  std::optional<HttpReply> ask(std::string url, std::optional<std::string> form) {
    HttpRequest request{.url = std::move(url),
                        .fields = {"Accept: application/json"},
                        .body = std::move(form),
                        .ca_file = source.ca_file,
                        .timeout = std::chrono::ceil<Milliseconds>(deadline - EventLoop::now()),
                        .reply_max = kReplyMax,
                        .stop = &stopping};
    if (!request.body) request.fields.push_back("Authorization: Bearer " + token);
    HttpOutcome outcome = transfer.perform(std::move(request));
    if (outcome) return *std::move(outcome);
    why = outcome.error().text;
    return std::nullopt;
  }

  bool log_in() {
    std::string form;
    append_form(form, "grant_type", "password");
    append_form(form, "client_id", source.client_id);
    append_form(form, "username", source.user);
    append_form(form, "password", source.password);
    const auto reply = ask(
        fmt::format("{}/token?auth_mode={}", source.url, percent_encoded(source.auth_mode)), std::move(form));
    if (!reply) return false;
    const auto tokens = reply->status == 200 ? identity::read_cherwell_tokens(reply->body) : std::nullopt;
    if (!tokens) why = fmt::format("no token: answered {}", reply->status);
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
        "{}/api/V1/getbusinessobject/busobid/{}/{}/{}", source.url, percent_encoded(record.substr(0, first)),
        id.empty() ? "publicid" : "busobrecid", percent_encoded(id.empty() ? public_id : id));
    std::optional<HttpReply> reply;
    for (int attempt = 0; attempt < 2; ++attempt) {
      if (token.empty() && !log_in()) return false;
      reply = ask(url, std::nullopt);
      if (!reply || reply->status != 401) break;
      token.clear();  // it has expired
    }
    if (!reply) return false;
    if (reply->status != 200 && reply->status != 404) {
      why = fmt::format("answered {}", reply->status);
      return false;
    }
    if (reply->status == 200 && !catalogue::is_cherwell_reply(reply->body)) {
      why = "answered with something else than a record";
      return false;
    }
    const UnixTime now = EventLoop::calendar_now();
    bool named = false;
    for (const auto& seen : catalogue::read_cherwell_owners(reply->body, source.owner_fields, 1))
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
  HttpTransfer transfer;     // the thread's
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
    block_signals();
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
