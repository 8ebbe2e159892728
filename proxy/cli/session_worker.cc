#include "proxy/cli/session_worker.h"

#include "metering/redis/reply.h"

namespace tollgate::cli {
namespace {

using identity::SessionKey;
using identity::SessionRecord;

constexpr std::size_t kAskedMax = 10'000;    // sessions asked about at a time
constexpr std::size_t kUnknownMax = 10'000;  // remembered as nobody's
constexpr std::size_t kUnpublishedMax = 10'000;
constexpr Milliseconds kUnknownFor{1'000};
constexpr Milliseconds kEndedMargin{60'000};  // clocks of proxies differ

// What is left of a session that is used now.
Milliseconds lifetime(const SessionRecord& record, UnixTime now, const identity::SessionTimes& times) {
  const auto left = std::chrono::floor<Milliseconds>(record.deadline - now);
  return std::max(Milliseconds(1), std::min(times.idle, left));
}

}  // namespace

SessionWorker::SessionWorker(redis::RedisStore& store, SessionCounters& counters, Milliseconds timeout)
    : store_(store), counters_(counters), timeout_(timeout), alive_(std::make_shared<char>()) {}
SessionWorker::~SessionWorker() = default;

void SessionWorker::command(const SessionKey& key, const std::vector<std::string_view>& words, Answer done) {
  store_.command(identity::partition_of(key), words, timeout_,
                 [alive = std::weak_ptr(alive_), done = std::move(done)](Result<redis::Reply*> reply) {
                   if (alive.expired()) return;
                   if (reply && (*reply)->is_error()) reply = fail(Origin::store, (*reply)->text, true);
                   done(std::move(reply));
                 });
}

void SessionWorker::find(const Snapshot& snapshot, const SessionKey& key, UnixTime now, Found done) {
  if (auto nobody = unknown_.find(key); nobody != unknown_.end()) {
    if (now >= nobody->second && now - nobody->second <= kUnknownFor) return done({});
    unknown_.erase(nobody);
  }
  auto [waiting, first] = asked_.try_emplace(key);
  if (first && asked_.size() > kAskedMax) {
    asked_.erase(waiting);
    counters_.failures.fetch_add(1, std::memory_order_relaxed);
    return done({.record = nullptr, .unavailable = true});
  }
  waiting->second.push_back(std::move(done));
  if (!first) return;
  counters_.lookups.fetch_add(1, std::memory_order_relaxed);
  command(key, {"GET", identity::store_key(key)}, [this, snapshot, key, now](Result<redis::Reply*> reply) {
    const flow::SessionAnswer answer = judge(snapshot, key, now, reply);
    auto node = asked_.extract(key);
    for (Found& waits : node.mapped()) waits(answer);
  });
}

flow::SessionAnswer SessionWorker::judge(const Snapshot& snapshot, const SessionKey& key, UnixTime now,
                                         const Result<redis::Reply*>& reply) {
  identity::SessionTable& table = *snapshot->sessions;
  const identity::SessionTimes times = flow::session_times(*snapshot);
  if (!reply) {
    counters_.failures.fetch_add(1, std::memory_order_relaxed);
    auto known = table.unreachable(key, now);
    return {.record = known.value_or(nullptr), .unavailable = !known.has_value()};
  }
  identity::SessionTable::Verdict verdict;
  if ((*reply)->type == redis::Reply::Type::nil) {
    verdict = table.missing(key, now, times);
  } else if (auto record = identity::decode_session((*reply)->text)) {
    verdict = table.confirmed(key, std::make_shared<const SessionRecord>(std::move(*record)), now, times);
  } else {
    table.ended_elsewhere(key, now);
  }
  if (verdict.publish) publish(snapshot, key, verdict.record, now, true, [] {});
  if (verdict.touch) {
    const std::string left = std::to_string(lifetime(*verdict.record, now, times).count());
    command(key, {"PEXPIRE", identity::store_key(key), left}, [](Result<redis::Reply*>) {});
  }
  if (verdict.record == nullptr) note_unknown(key, now);
  return {.record = std::move(verdict.record)};
}

void SessionWorker::note_unknown(const SessionKey& key, UnixTime now) {
  counters_.unknown.fetch_add(1, std::memory_order_relaxed);
  if (unknown_.size() >= kUnknownMax) unknown_.clear();
  unknown_[key] = now;
}

void SessionWorker::bind(const Snapshot& snapshot, const SessionKey& key,
                         std::shared_ptr<const SessionRecord> record, UnixTime now, Written done) {
  counters_.binds.fetch_add(1, std::memory_order_relaxed);
  unknown_.erase(key);
  snapshot->sessions->bind(key, record, now);
  publish(snapshot, key, std::move(record), now, false, std::move(done));
}

void SessionWorker::end(const Snapshot& snapshot, const SessionKey& key, UnixTime now, Written done) {
  counters_.ends.fetch_add(1, std::memory_order_relaxed);
  snapshot->sessions->end(key, now);
  publish(snapshot, key, nullptr, now, false, std::move(done));
}

void SessionWorker::publish(const Snapshot& snapshot, const SessionKey& key,
                            std::shared_ptr<const SessionRecord> record, UnixTime now, bool only_if_absent,
                            Written done) {
  const identity::SessionTimes times = flow::session_times(*snapshot);
  const std::string name = identity::store_key(key);
  const std::string text =
      record == nullptr ? std::string(identity::kEndedSession) : identity::encode(*record);
  const Milliseconds span =
      record == nullptr ? times.idle + times.recheck + kEndedMargin : lifetime(*record, now, times);
  const std::string left = std::to_string(span.count());
  std::vector<std::string_view> words{"SET", name, text, "PX", left};
  if (only_if_absent) words.emplace_back("NX");
  snapshot->sessions->set_published(key, false);
  command(key, words, [this, snapshot, key, done = std::move(done)](Result<redis::Reply*> reply) {
    snapshot->sessions->set_published(key, reply.has_value());
    if (reply)
      unpublished_.erase(key);
    else if (unpublished_.size() < kUnpublishedMax)
      unpublished_.insert_or_assign(key, snapshot);
    show_unpublished();
    done();
  });
}

// A log-in is told again only where nothing is: meanwhile the session may have ended elsewhere.
void SessionWorker::tick(UnixTime now) {
  if (unpublished_.empty() || !store_.all_up()) return;
  auto again = std::move(unpublished_);
  unpublished_.clear();
  for (const auto& [key, snapshot] : again) {
    auto known = snapshot->sessions->peek(key);
    if (!known) continue;
    publish(snapshot, key, *known, now, *known != nullptr, [] {});
  }
  show_unpublished();
}

void SessionWorker::show_unpublished() {
  counters_.unpublished.fetch_add(unpublished_.size() - shown_unpublished_, std::memory_order_relaxed);
  shown_unpublished_ = unpublished_.size();
}

}  // namespace tollgate::cli
