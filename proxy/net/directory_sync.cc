#include "proxy/net/directory_sync.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "metering/base/check.h"
#include "proxy/net/event_loop.h"
#include "proxy/net/http_transfer.h"

namespace tollgate::net {
namespace {

using identity::CreatioUserReader;
using identity::SyncFailure;
using Kind = SyncFailure::Kind;

constexpr Milliseconds kTakeAgain{100};

std::unexpected<SyncFailure> failed(Kind kind, std::string text) {
  return std::unexpected(SyncFailure{kind, std::move(text)});
}

}  // namespace

struct DirectorySync::Impl {
  Impl(DirectorySource the_source, Take the_take, Log the_log)
      : source(std::move(the_source)), take(std::move(the_take)), log(std::move(the_log)) {}

  std::expected<identity::CreatioUsers, SyncFailure> read(CreatioConversation& conversation) const {
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
      status.last_success = EventLoop::calendar_now();
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
      status.last_failure = EventLoop::calendar_now();
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

  std::expected<void, SyncFailure> sync(CreatioConversation& conversation) {
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
    CreatioConversation conversation(source, kReplyMax, stopping);
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
    block_signals();
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
  const std::atomic<bool> stopping{false};
  CreatioConversation conversation(source, DirectorySync::kReplyMax, stopping);
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
