#include "proxy/cli/stored_counts.h"

#include <event2/event.h>
#include <fmt/format.h>

#include <chrono>
#include <optional>

#include "metering/quota/record.h"
#include "metering/redis/probe.h"
#include "metering/redis/redis_store.h"
#include "proxy/cli/assembly.h"

namespace tollgate::cli {
namespace {

constexpr Milliseconds kLimit{120'000};
constexpr Milliseconds kStepLimit{10'000};  // one step of the scan

UnixTime calendar_now() {
  return UnixTime(std::chrono::duration_cast<Duration>(std::chrono::system_clock::now().time_since_epoch()));
}

// Nothing is sent to partitions here.
class Unheard final : public redis::LeaseStoreEvents {
 public:
  void on_up(unsigned, const std::string&) override {}
  void on_down(unsigned) override {}
  void on_op(unsigned, std::uint64_t, quota::OpReply&&, MonotonicTime) override {}
  void on_replay(unsigned, std::uint64_t, quota::OpReply&&, MonotonicTime) override {}
  void on_ping(unsigned, quota::PingReply&&, MonotonicTime) override {}
  void on_error(unsigned, const std::string&) override {}
  void on_message(const quota::StoreModel::Message&) override {}
};

struct BaseFreer {
  void operator()(event_base* base) const { event_base_free(base); }
};

// Turns the loop until `done` says so; false when the time is over.
bool turn_until(event_base* base, MonotonicTime deadline, const std::function<bool()>& done) {
  while (!done()) {
    if (redis::Connection::now() >= deadline) return false;
    const timeval moment{.tv_sec = 0, .tv_usec = 20'000};
    event_base_loopexit(base, &moment);
    event_base_loop(base, EVLOOP_ONCE);
  }
  return true;
}

Result<usage::StoredAccount> decoded(const redis::RedisStore::StoredAccount& stored) {
  auto record = quota::AccountRecord::decode(stored.record);
  if (!record)
    return fail(Origin::store, fmt::format("the record of {} {} in the store: {}", stored.key.subject_key,
                                           stored.key.field, record.error().message));
  return usage::StoredAccount{
      {stored.key.subject_key, stored.key.field}, record->window.bucket(), record->window.buckets()};
}

}  // namespace

Result<std::unique_ptr<RedisStoredCounts>> RedisStoredCounts::of(const config::LoadedConfig& loaded) {
  auto url = redis::parse_store_url(loaded.settings.store.url);
  if (!url) return std::unexpected(url.error());
  if (url->kind == redis::StoreUrl::Kind::embedded) {
    url->kind = redis::StoreUrl::Kind::unix_socket;
    url->path = url->directory + "/redis.sock";
  }
  auto connection = store_connection(loaded.settings.store, *url, loaded);
  if (!connection) return std::unexpected(connection.error());
  return std::make_unique<RedisStoredCounts>(std::move(*connection), kLimit);
}

Result<usage::StoredState> RedisStoredCounts::read() {
  usage::StoredState state;
  const redis::ProbeReport report = redis::probe(connection_, {.now = calendar_now});
  const auto local = std::chrono::floor<Milliseconds>(calendar_now().time_since_epoch());
  state.now = local + (report.reachable ? report.clock_offset : Milliseconds(0));

  std::unique_ptr<event_base, BaseFreer> base(event_base_new());
  if (!base) return fail(Origin::self, "no event loop can be made");
  const MonotonicTime deadline = redis::Connection::now() + limit_;
  Unheard events;
  std::optional<Result<std::vector<redis::RedisStore::StoredAccount>>> answer;
  redis::RedisStoreOptions options;
  options.connection = connection_;
  options.admin_timeout = kStepLimit;
  redis::RedisStore store(base.get(), std::move(options), events, [](unsigned) { return true; });
  store.start();
  const MonotonicTime reached_by = redis::Connection::now() + connection_.connect_timeout * 2;
  if (!turn_until(base.get(), reached_by, [&] { return store.all_up(); }))
    return fail(Origin::store, fmt::format("the quota store cannot be reached: {}", store.last_error()),
                true);
  store.scan([&](auto&& scanned) { answer = std::move(scanned); });
  if (!turn_until(base.get(), deadline, [&] { return answer.has_value(); }))
    return fail(Origin::store, "the quota store was not read in time", true);
  if (!*answer) return std::unexpected(answer->error());
  for (const auto& stored : **answer) {
    auto account = decoded(stored);
    if (!account) return std::unexpected(account.error());
    state.accounts.push_back(std::move(*account));
  }
  return state;
}

}  // namespace tollgate::cli
