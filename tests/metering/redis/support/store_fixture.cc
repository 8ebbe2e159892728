#include "tests/metering/redis/support/store_fixture.h"

#include <fmt/format.h>

#include "metering/base/check.h"
#include "metering/quota/keys.h"

namespace tollgate::redis::testing {

void Record::on_up(unsigned partition, const std::string& run) {
  told();
  CHECK(!runs.contains(partition), "a partition came up twice");
  runs[partition] = run;
  ++ups[partition];
}
void Record::on_down(unsigned partition) {
  told();
  CHECK(runs.erase(partition) == 1, "a partition went down that was not up");
  ++downs[partition];
}
void Record::on_op(unsigned partition, std::uint64_t seq, quota::OpReply&& reply, MonotonicTime) {
  told();
  ops.push_back({partition, seq, std::move(reply)});
}
void Record::on_replay(unsigned partition, std::uint64_t seq, quota::OpReply&& reply, MonotonicTime) {
  told();
  replays.push_back({partition, seq, std::move(reply)});
}
void Record::on_ping(unsigned partition, quota::PingReply&& reply, MonotonicTime) {
  told();
  pings.emplace_back(partition, std::move(reply));
}
void Record::on_error(unsigned, const std::string& what) {
  told();
  errors.push_back(what);
}
void Record::on_message(const quota::StoreModel::Message& message) {
  told();
  messages.push_back(message);
}

RedisStoreOptions StoreClient::options(StoreUrl url, const Adjust& adjust) {
  RedisStoreOptions made;
  made.connection.url = std::move(url);
  made.connection.connect_timeout = Milliseconds(5'000);  // a busy machine is not what these tests are about
  made.connection.backoff_max = Milliseconds(200);
  made.timeout = made.admin_timeout = Milliseconds(10'000);
  made.incarnation = 7;
  if (adjust) adjust(made);
  return made;
}

StoreClient::StoreClient(StoreUrl url, Adjust adjust, std::function<bool(unsigned)> mine)
    : store(loop.base(), options(std::move(url), adjust), record, std::move(mine)) {
  store.start();
}

bool StoreClient::come_up(Milliseconds deadline) {
  return loop.run_until([&] { return store.all_up(); }, deadline);
}

quota::Op StoreClient::make_op(std::string_view user, std::uint32_t need,
                               std::vector<quota::BucketUse> uses) {
  std::string key = key_of(user);
  unsigned partition = quota::partition_of(key);
  return {.incarnation = incarnation,
          .partition = partition,
          .seq = ++seqs_[partition],
          .subject_key = key,
          .accounts = {{.field = "daily",
                        .window = Milliseconds(86'400'000),
                        .bucket = Milliseconds(60'000),
                        .limit = 1'000,
                        .uses = std::move(uses),
                        .returned = 0,
                        .forget = false,
                        .need = need,
                        .want = need}}};
}

void StoreClient::send(const quota::Op& op) {
  auto run = record.runs.find(op.partition);
  record.inside_send = true;
  store.send(op, {.run = run == record.runs.end() ? "" : run->second,
                  .clock = clock,
                  .session_ttl = Milliseconds(900'000),
                  .fence_wait = Milliseconds(10'000),
                  .lease_max = 400});
  record.inside_send = false;
}

std::optional<quota::OpReply> StoreClient::apply(const quota::Op& op, Milliseconds deadline) {
  std::size_t before = record.ops.size();
  int sent_in = -1;
  auto found = [&]() -> const Record::Answer* {
    for (std::size_t i = before; i < record.ops.size(); ++i)
      if (record.ops[i].partition == op.partition && record.ops[i].seq == op.seq) return &record.ops[i];
    return nullptr;
  };
  bool answered = loop.run_until(
      [&] {
        if (found() != nullptr) return true;
        if (store.up(op.partition) && sent_in != record.ups[op.partition]) {
          sent_in = record.ups[op.partition];
          send(op);
        }
        return false;
      },
      deadline);
  if (!answered) return std::nullopt;
  acknowledged_[op.partition] = std::max(acknowledged_[op.partition], op.seq);
  return found()->reply;
}

std::optional<quota::PingReply> StoreClient::ping(unsigned partition, Milliseconds deadline) {
  std::size_t before = record.pings.size();
  int sent_in = -1;
  auto found = [&]() -> const quota::PingReply* {
    for (std::size_t i = before; i < record.pings.size(); ++i)
      if (record.pings[i].first == partition) return &record.pings[i].second;
    return nullptr;
  };
  bool answered = loop.run_until(
      [&] {
        if (found() != nullptr) return true;
        if (store.up(partition) && sent_in != record.ups[partition]) {
          sent_in = record.ups[partition];
          record.inside_send = true;
          store.send(quota::Ping{.incarnation = incarnation,
                                 .partition = partition,
                                 .acked = acknowledged_[partition],
                                 .peers = {}},
                     {.run = record.runs[partition],
                      .clock = clock,
                      .session_ttl = Milliseconds(900'000),
                      .fence_wait = Milliseconds(0),
                      .lease_max = 400});
          record.inside_send = false;
        }
        return false;
      },
      deadline);
  if (!answered) return std::nullopt;
  clock = found()->now;
  return *found();
}

std::optional<quota::OpReply> StoreClient::acquire(std::string_view user, std::uint32_t need) {
  if (!ping(partition_of_user(user))) return std::nullopt;
  return apply(make_op(user, need));
}

std::vector<quota::LeaseState> StoreClient::read(std::vector<quota::AccountCharge> accounts) {
  std::optional<Result<std::vector<quota::LeaseState>>> answer;
  store.read(std::move(accounts), [&](auto&& states) { answer = std::move(states); });
  CHECK(loop.run_until([&] { return answer.has_value(); }), "no answer to a read");
  CHECK(answer->has_value(), "a read failed");
  return std::move(**answer);
}

bool StoreClient::change(const std::function<void(RedisStore&, RedisStore::Changed)>& what) {
  std::optional<Result<void>> answer;
  what(store, [&](Result<void> done) { answer = done; });
  CHECK(loop.run_until([&] { return answer.has_value(); }), "no answer to a change");
  return answer->has_value();
}

Result<std::vector<RedisStore::StoredAccount>> StoreClient::scan() {
  std::optional<Result<std::vector<RedisStore::StoredAccount>>> answer;
  store.scan([&](auto&& found) { answer = std::move(found); });
  CHECK(loop.run_until([&] { return answer.has_value(); }), "no answer to a scan");
  return std::move(*answer);
}

std::string key_of(std::string_view user) {
  return quota::subject_key({.tenant = "acme", .organization = std::nullopt, .user = user});
}
unsigned partition_of_user(std::string_view user) {
  return quota::partition_of(key_of(user));
}
std::string user_in(const std::function<bool(unsigned partition)>& wanted) {
  for (int i = 0;; ++i) {
    std::string name = fmt::format("user{}", i);
    if (wanted(partition_of_user(name))) return name;
  }
}

StoreUrl parse_url(std::string_view url) {
  auto parsed = parse_store_url(url);
  CHECK(parsed.has_value(), "a URL of a test");
  return std::move(*parsed);
}

}  // namespace tollgate::redis::testing
