#include "proxy/net/resolver.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace tollgate::net {

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kRetry{2};

struct Lookup {
  HostPort at;
  Milliseconds interval{};
  Resolver::Answer answer;
  Clock::time_point due = Clock::now();
  std::vector<Endpoint> last;
  bool answered = false, failing = false;
};

}  // namespace

struct Resolver::Shared {
  std::mutex mutex;
  std::condition_variable changed;
  bool stopped = false;                        // guarded by mutex
  std::vector<std::weak_ptr<Lookup>> lookups;  // guarded by mutex

  // Blocks until a look-up is due; nullptr when stopped.
  std::shared_ptr<Lookup> next() {
    std::unique_lock lock(mutex);
    for (;;) {
      if (stopped) return nullptr;
      std::shared_ptr<Lookup> first;
      std::erase_if(lookups, [](const auto& lookup) { return lookup.expired(); });
      for (const auto& held : lookups) {
        auto lookup = held.lock();
        if (lookup != nullptr && (first == nullptr || lookup->due < first->due)) first = std::move(lookup);
      }
      if (first == nullptr) {
        changed.wait(lock);
      } else if (first->due <= Clock::now()) {
        return first;
      } else {
        const auto due = first->due;
        first.reset();
        changed.wait_until(lock, due);
      }
    }
  }

  void run() {
    while (auto lookup = next()) {
      Result<std::vector<Endpoint>> result = resolve(lookup->at);
      std::unique_lock lock(mutex);
      if (stopped) return;
      lookup->due =
          Clock::now() + (result ? lookup->interval : std::min<Milliseconds>(kRetry, lookup->interval));
      const bool tell =
          result ? !lookup->answered || lookup->failing || *result != lookup->last : !lookup->failing;
      lookup->failing = !result;
      if (result) {
        lookup->answered = true;
        lookup->last = *result;
      }
      // Under the lock, so that no callback runs after ~Resolver.
      if (tell) lookup->answer(result);
    }
  }
};

Resolver::Resolver() : shared_(std::make_shared<Shared>()) {
  // Detached: getaddrinfo cannot be cancelled and may take many seconds when name servers are silent.
  std::thread([shared = shared_] { shared->run(); }).detach();
}

Resolver::~Resolver() {
  std::lock_guard lock(shared_->mutex);
  shared_->stopped = true;
  shared_->changed.notify_all();
}

Resolver::Handle Resolver::watch(HostPort at, Milliseconds interval, Answer answer) {
  auto lookup = std::make_shared<Lookup>();
  lookup->at = std::move(at);
  lookup->interval = interval;
  lookup->answer = std::move(answer);
  std::lock_guard lock(shared_->mutex);
  shared_->lookups.push_back(lookup);
  shared_->changed.notify_all();
  return lookup;
}

}  // namespace tollgate::net
