// What an op costs the store: CPU of the script on a real Redis, by Redis' own account (INFO commandstats), and the round
// trip of one op at a time over a unix socket (the time column). Budget: cpu_us below 40 for one account.
#include <benchmark/benchmark.h>
#include <hiredis/hiredis.h>
#include <stdlib.h>

#include <filesystem>

#include "metering/base/check.h"
#include "metering/base/random.h"
#include "metering/quota/keys.h"
#include "metering/redis/embedded.h"
#include "metering/redis/script_messages.h"
#include "metering/redis/scripts.h"

namespace {

using namespace tollgate;
using namespace std::chrono_literals;

class Store {
 public:
  explicit Store(redis::Scripts with = redis::Scripts::standard()) : scripts(std::move(with)) {
    std::string name = (std::filesystem::temp_directory_path() / "tollgate-bench-XXXXXX").string();
    CHECK(::mkdtemp(name.data()) != nullptr, "mkdtemp");
    directory_ = name;
    redis::EmbeddedOptions options;
    options.directory = name;
    auto started = redis::EmbeddedRedis::start(options);
    CHECK(started.has_value(), "redis-server");
    server_ = std::move(*started);
    context_ = redisConnectUnix(server_->socket_path().c_str());
    CHECK(context_ != nullptr && context_->err == 0, "connect");
    for (const redis::Script* script : {&scripts.op, &scripts.ping})
      command({"SCRIPT", "LOAD", script->text});
  }
  ~Store() {
    redisFree(context_);
    server_->stop();
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  void append(const redis::Script& script, const redis::ScriptCall& call) {
    std::vector<std::string> words{"EVALSHA", script.sha1, std::to_string(call.keys.size())};
    words.insert(words.end(), call.keys.begin(), call.keys.end());
    words.insert(words.end(), call.args.begin(), call.args.end());
    append(words);
  }
  std::string await() {
    void* raw = nullptr;
    CHECK(redisGetReply(context_, &raw) == REDIS_OK, "a reply");
    auto* reply = static_cast<redisReply*>(raw);
    CHECK(reply->type != REDIS_REPLY_ERROR, reply->str);
    std::string text = reply->str == nullptr ? "" : std::string(reply->str, reply->len);
    status_ = reply->type == REDIS_REPLY_ARRAY && reply->elements > 0 ? reply->element[0]->integer : 0;
    freeReplyObject(reply);
    return text;
  }
  std::string command(const std::vector<std::string>& words) {
    append(words);
    return await();
  }
  long long status() const { return status_; }
  double cpu_us_per_call() {
    const std::string stats = command({"INFO", "commandstats"});
    const std::size_t at = stats.find("cmdstat_evalsha:");
    CHECK(at != std::string::npos, "the scripts have run");
    return std::stod(stats.substr(stats.find("usec_per_call=", at) + 14));
  }
  Milliseconds now() {
    append({"TIME"});
    void* raw = nullptr;
    CHECK(redisGetReply(context_, &raw) == REDIS_OK, "a reply");
    auto* reply = static_cast<redisReply*>(raw);
    const Milliseconds now(std::stoll(reply->element[0]->str) * 1'000 +
                           std::stoll(reply->element[1]->str) / 1'000);
    freeReplyObject(reply);
    return now;
  }

  const redis::Scripts scripts;

 private:
  void append(const std::vector<std::string>& words) {
    std::vector<const char*> texts;
    std::vector<std::size_t> sizes;
    for (const std::string& word : words) {
      texts.push_back(word.data());
      sizes.push_back(word.size());
    }
    redisAppendCommandArgv(context_, static_cast<int>(words.size()), texts.data(), sizes.data());
  }
  std::string directory_;
  std::unique_ptr<redis::EmbeddedRedis> server_;
  redisContext* context_ = nullptr;
  long long status_ = 0;
};

// Ops that settle one use and ask for tokens, over records of `buckets` closed minutes, `depth` in the pipeline.
void op(benchmark::State& state, std::size_t accounts) {
  const std::int64_t buckets = state.range(0), depth = state.range(1);
  Store store;
  constexpr std::size_t kUsers = 200;
  const Milliseconds now = store.now();
  const std::int64_t current = now / 60s;
  const quota::SendContext context{"run", now, 15min, 0ms, 400};
  std::vector<std::string> subjects;
  std::vector<std::uint64_t> next(quota::kPartitions, 1);
  Random random(1);
  for (unsigned p = 0; p < quota::kPartitions; ++p) {
    store.append(store.scripts.ping, redis::ping_call({7, p, 0, {}}, context));
    store.await();
  }
  auto send = [&](std::size_t user, std::vector<quota::BucketUse> uses, std::uint32_t returned) {
    quota::Op message;
    message.incarnation = 7;
    message.subject_key = subjects[user];
    message.partition = quota::partition_of(message.subject_key);
    message.seq = next[message.partition]++;
    for (std::size_t i = 0; i < accounts; ++i)
      message.accounts.push_back({.field = i == 0 ? "daily" : "burst",
                                  .window = i == 0 ? Milliseconds(24h) : 1h,
                                  .bucket = i == 0 ? Milliseconds(60s) : 2'500ms,
                                  .limit = 1'000'000,
                                  .uses = i == 0 ? uses : std::vector<quota::BucketUse>{},
                                  .returned = returned,
                                  .need = 1,
                                  .want = 10});
    store.append(store.scripts.op, redis::op_call(message, context));
  };
  for (std::size_t user = 0; user < kUsers; ++user) {
    subjects.push_back(quota::subject_key({"acme", std::nullopt, "user" + std::to_string(user)}));
    std::vector<quota::BucketUse> history;
    for (std::int64_t i = buckets; i > 0; --i)
      history.push_back({current - 9 * i, static_cast<std::int64_t>(1 + random.below(30))});
    send(user, history, 0);
    store.await();
    CHECK(store.status() == 0, "the history is settled");
  }
  store.command({"CONFIG", "RESETSTAT"});
  std::size_t user = 0;
  for (auto _ : state) {
    for (std::int64_t i = 0; i < depth; ++i)
      send((user + static_cast<std::size_t>(i)) % kUsers, {{current, 1}}, 300);
    for (std::int64_t i = 0; i < depth; ++i) store.await();
    user += static_cast<std::size_t>(depth);
  }
  CHECK(store.status() == 0, "the ops are applied");
  state.SetItemsProcessed(state.iterations() * depth);
  state.counters["cpu_us"] = store.cpu_us_per_call();
}
void op_one_account(benchmark::State& state) {
  op(state, 1);
}
void op_two_accounts(benchmark::State& state) {
  op(state, 2);
}
BENCHMARK(op_one_account)->Args({1, 1})->Args({1, 64})->Args({40, 64})->Args({140, 64})->UseRealTime();
BENCHMARK(op_two_accounts)->Args({40, 64})->UseRealTime();

// The dearest op: a call every 86 s around the clock, so that the record is at its cap and every use opens a new bucket,
// closes one and merges two. Virtual time.
void op_that_merges(benchmark::State& state) {
  Store store(redis::Scripts::with_clock("  return tonumber(redis.call('GET', 'clock'))"));
  Milliseconds now = store.now();
  const std::string subject = quota::subject_key({"acme", std::nullopt, "ann"});
  const unsigned partition = quota::partition_of(subject);
  std::uint64_t seq = 0;
  auto settle = [&] {
    now += 86s;
    store.command({"SET", "clock", std::to_string(now.count())});
    const quota::SendContext context{"run", now, 15min, 0ms, 400};
    if (seq == 0) {
      store.append(store.scripts.ping, redis::ping_call({7, partition, 0, {}}, context));
      store.await();
    }
    quota::Op message{7, partition, ++seq, subject, {}};
    message.accounts.push_back({.field = "daily",
                                .window = 24h,
                                .bucket = 60s,
                                .limit = 1'000'000'000,
                                .uses = {{now / 60s, 1}},
                                .returned = 300,
                                .need = 1,
                                .want = 10});
    store.append(store.scripts.op, redis::op_call(message, context));
    store.await();
  };
  for (int i = 0; i < 2'000; ++i) settle();
  store.command({"CONFIG", "RESETSTAT"});
  for (auto _ : state) settle();
  CHECK(store.status() == 0, "the ops are applied");
  state.counters["cpu_us"] = store.cpu_us_per_call();
}
BENCHMARK(op_that_merges)->UseRealTime();

void ping(benchmark::State& state) {
  Store store;
  const quota::SendContext context{"run", store.now(), 15min, 0ms, 400};
  for (quota::Incarnation peer = 1; peer <= static_cast<quota::Incarnation>(state.range(0)); ++peer) {
    store.append(store.scripts.ping, redis::ping_call({peer, 3, 0, {}}, context));
    store.await();
  }
  store.command({"CONFIG", "RESETSTAT"});
  for (auto _ : state) {
    store.append(store.scripts.ping, redis::ping_call({1, 3, 0, {}}, context));
    store.await();
  }
  state.counters["cpu_us"] = store.cpu_us_per_call();
}
BENCHMARK(ping)->Arg(1)->Arg(16)->UseRealTime();

}  // namespace
