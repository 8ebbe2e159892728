#include "proxy/net/owner_fetcher.h"

#include <fmt/format.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "proxy/net/event_loop.h"
#include "proxy/net/http_transfer.h"

namespace tollgate::net {

struct OwnerFetcher::Impl {
  struct Key {
    std::string upstream, record;
    auto operator<=>(const Key&) const = default;
  };
  struct Asked {
    MonotonicTime since;
    std::vector<std::function<void()>> waiting;
  };

  Impl(std::unique_ptr<OwnerSource> the_source, Milliseconds the_timeout,
       std::function<void(const std::string&)> the_log)
      : source(std::move(the_source)), timeout(the_timeout), log(std::move(the_log)) {}

  void run() {
    std::unique_lock lock(mutex);
    while (true) {
      asked_for.wait(lock, [&] { return stopping.load() || !queue.empty(); });
      if (stopping.load()) break;
      const Key key = std::move(queue.front());
      queue.pop_front();
      const MonotonicTime now = EventLoop::now();
      const bool too_late = now - asked.at(key).since > timeout;
      if (!too_late && now >= paused_until) {
        lock.unlock();
        const auto answered = source->look_up(key.upstream, key.record, now + timeout);
        if (!answered && !stopping.load() && log)
          log(fmt::format("look-up of a record's owner at {}: {}", source->url(), answered.error()));
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

  const std::unique_ptr<OwnerSource> source;  // the thread's
  const Milliseconds timeout;
  const std::function<void(const std::string&)> log;
  std::mutex mutex;
  std::condition_variable asked_for;
  std::map<Key, Asked> asked;    // guarded by mutex
  std::deque<Key> queue;         // guarded by mutex
  MonotonicTime paused_until{};  // guarded by mutex
  std::atomic<bool> stopping{false};
  std::thread thread;
};

OwnerFetcher::OwnerFetcher(std::unique_ptr<OwnerSource> source, Milliseconds timeout,
                           std::function<void(const std::string&)> log)
    : impl_(std::make_unique<Impl>(std::move(source), timeout, std::move(log))) {
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
    impl_->source->stop();
    impl_->asked_for.notify_one();
  }
  if (impl_->thread.joinable()) impl_->thread.join();
}

}  // namespace tollgate::net
