#include "proxy/net/lookup_service.h"

#include <fmt/format.h>

#include <list>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <unordered_map>
#include <vector>

#include "proxy/net/event_loop.h"
#include "proxy/net/http_transfer.h"

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
  std::optional<HttpTransfer> transfer;  // while it is asked
};

HttpRequest request_for(const LookupSource& source, identity::LookupRequest request) {
  HttpRequest out{.url = source.url,
                  .fields = std::move(request.headers),
                  .ca_file = source.ca_file,
                  .timeout = source.timeout,
                  .reply_max = identity::kLookupReplyMax,
                  .proxies = true};
  if (request.post) out.body = std::move(request.body);
  return out;
}

Result<LookupVerdict> verdict_of(const LookupSource& source, const HttpOutcome& outcome) {
  if (!outcome)
    return fail(Origin::upstream, fmt::format("{}: {}: {}", source.name, source.url, outcome.error().text),
                true);
  return identity::read_lookup(source, outcome->status, outcome->body, EventLoop::calendar_now());
}

}  // namespace

struct LookupService::Impl {
  explicit Impl(Log log_function) : log(std::move(log_function)) {}
  ~Impl() {
    if (!thread.joinable()) return;
    stopping.store(true, std::memory_order_release);
    transfers.wake();
    thread.join();
  }

  void run() {
    block_signals();
    while (!stopping.load(std::memory_order_acquire)) {
      std::list<Question> fresh;
      {
        const std::lock_guard lock(mutex);
        fresh.swap(inbox);
      }
      for (Question& question : fresh) begin(question);
      asked.splice(asked.end(), fresh);
      transfers.step();
      transfers.wait(Milliseconds(1'000));
    }
  }

  void begin(Question& question) {
    question.transfer.emplace();
    transfers.begin(*question.transfer, request_for(*question.source, std::move(question.request)),
                    [this, &question](const HttpOutcome& outcome) {
                      settle(question, verdict_of(*question.source, outcome));
                      asked.remove_if([&](const Question& each) { return &each == &question; });
                    });
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
  HttpTransfers transfers{kConnectionsMax};
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
  impl.transfers.wake();
}

}  // namespace tollgate::net
