#include "proxy/net/resolver.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>

namespace tollgate::net {

namespace {

using Clock = std::chrono::steady_clock;
constexpr Milliseconds kRetry{2'000};
constexpr std::size_t kLookupsAtOnce = 32;

struct Watcher {
  Milliseconds interval{};
  Resolver::Answer answer;
};

struct Name {
  explicit Name(HostPort name) : at(std::move(name)) {}

  const HostPort at;
  std::vector<const Watcher*> watchers;
  Clock::time_point due = Clock::now();
  bool under_way = false;
  std::optional<std::vector<Endpoint>> known;  // the last good answer
  std::optional<Error> failure;                // of the last look-up

  void tell(const Result<std::vector<Endpoint>>& answer) const {
    for (const Watcher* watcher : watchers) watcher->answer(answer);
  }
  Milliseconds interval() const {
    return (*std::ranges::min_element(watchers, {}, &Watcher::interval))->interval;
  }
};

}  // namespace

// One thread waits for what is due; each look-up then has a thread of its own. All are detached: getaddrinfo cannot be
// cancelled and may take many seconds when name servers are silent.
struct Resolver::Shared : std::enable_shared_from_this<Resolver::Shared> {
  explicit Shared(LookUp how) : look_up(std::move(how)) {}

  const LookUp look_up;
  std::mutex mutex;
  std::condition_variable changed;
  // Guarded by mutex, with all that the names hold but `at`.
  bool stopped = false;
  std::vector<std::shared_ptr<Name>> names;
  std::size_t under_way = 0;

  void schedule() {
    std::unique_lock lock(mutex);
    while (!stopped) {
      std::erase_if(names, [](const auto& name) { return !name->under_way && name->watchers.empty(); });
      std::shared_ptr<Name> first;
      for (const auto& name : names)
        if (may_begin(*name) && (first == nullptr || name->due < first->due)) first = name;
      if (first == nullptr)
        changed.wait(lock);
      else if (first->due > Clock::now())
        changed.wait_until(lock, Clock::time_point(first->due));
      else
        begin(first);
    }
  }

  // One name may be watched with several ports.
  bool may_begin(const Name& name) const {
    return under_way < kLookupsAtOnce &&
           std::ranges::none_of(
               names, [&](const auto& other) { return other->under_way && other->at.host == name.at.host; });
  }

  void begin(const std::shared_ptr<Name>& name) {
    try {
      std::thread([shared = shared_from_this(), name] { shared->run(*name); }).detach();
    } catch (const std::system_error&) {  // no thread is to be had now
      name->due = Clock::now() + kRetry;
      return;
    }
    name->under_way = true;
    ++under_way;
  }

  void run(Name& name) {
    const Result<std::vector<Endpoint>> result = look_up(name.at);
    std::lock_guard lock(mutex);
    name.under_way = false;
    --under_way;
    changed.notify_all();
    // Under the lock, so that no callback runs after ~Resolver or once its watch has ended.
    if (!stopped) note(name, result);
  }

  static void note(Name& name, const Result<std::vector<Endpoint>>& result) {
    if (name.watchers.empty()) return;
    name.due = Clock::now() + (result ? name.interval() : std::min(kRetry, name.interval()));
    const bool failed_before = name.failure.has_value();
    if (!result) {
      name.failure = result.error();
      if (!failed_before) name.tell(result);
      return;
    }
    name.failure.reset();
    const bool news = failed_before || name.known != *result;
    name.known = *result;
    if (news) name.tell(result);
  }

  void join(const Watcher& watcher, HostPort at) {
    std::lock_guard lock(mutex);
    auto found = std::ranges::find_if(names, [&](const auto& name) { return name->at == at; });
    if (found == names.end()) {
      names.push_back(std::make_shared<Name>(std::move(at)));
      found = std::prev(names.end());
    }
    Name& name = **found;
    if (name.known) watcher.answer(*name.known);
    if (name.failure) watcher.answer(std::unexpected(*name.failure));
    name.watchers.push_back(&watcher);
    name.due = std::min(name.due, Clock::now() + watcher.interval);
    changed.notify_all();
  }

  void leave(const Watcher& watcher) {
    std::lock_guard lock(mutex);
    for (const auto& name : names) std::erase(name->watchers, &watcher);
    changed.notify_all();
  }
};

Resolver::Resolver(LookUp look_up) : shared_(std::make_shared<Shared>(std::move(look_up))) {
  std::thread([shared = shared_] { shared->schedule(); }).detach();
}

Resolver::~Resolver() {
  std::lock_guard lock(shared_->mutex);
  shared_->stopped = true;
  shared_->changed.notify_all();
}

Resolver::Handle Resolver::watch(HostPort at, Milliseconds interval, Answer answer) {
  auto watcher = std::make_shared<const Watcher>(interval, std::move(answer));
  shared_->join(*watcher, std::move(at));
  return {nullptr, [shared = shared_, watcher](void*) { shared->leave(*watcher); }};
}

}  // namespace tollgate::net
