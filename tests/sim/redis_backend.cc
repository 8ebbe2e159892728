#include "tests/sim/redis_backend.h"

#include <algorithm>

#include "metering/base/check.h"
#include "metering/quota/keys.h"
#include "metering/quota/record.h"
#include "tests/metering/redis/support/script_client.h"

namespace tollgate::sim {
namespace {

using redis::testing::Listener;
using redis::testing::ScriptClient;
using redis::testing::Server;

// Everything but the clock, as pairs of key and dump.
constexpr const char* kSave =
    "local out = {} for _, key in ipairs(redis.call('KEYS', '*')) do "
    "if key ~= 'clock' then out[#out + 1] = key out[#out + 1] = redis.call('DUMP', key) end end return out";
constexpr const char* kRestore =
    "for i = 1, #ARGV, 2 do redis.call('RESTORE', ARGV[i], 0, ARGV[i + 1]) end return 1";

std::int64_t number(const std::string& text) {
  return text.empty() ? 0 : std::stoll(text);
}

class RedisBackend final : public Backend {
 public:
  RedisBackend(const Server& server, std::function<Milliseconds()> clock)
      : server_(server), clock_(std::move(clock)), client_(server), ears_(server) {
    flush();
  }

  quota::OpReply apply(const quota::Op& op, const quota::SendContext& context) override {
    set_clock();
    return client_.apply(op, context);
  }
  quota::OpReply replay(const quota::Replay& replay, const quota::SendContext& context) override {
    set_clock();
    return client_.replay(replay, context);
  }
  quota::PingReply ping(const quota::Ping& ping, const quota::SendContext& context) override {
    set_clock();
    return client_.ping(ping, context);
  }
  std::vector<quota::LeaseState> read(const std::vector<quota::AccountCharge>& accounts) override {
    set_clock();
    return client_.read(accounts);
  }
  void set_override(const quota::AccountKey& account,
                    const std::optional<quota::LimitOverride>& value) override {
    set_clock();
    client_.set_override(account, value);
  }
  std::vector<quota::StoreModel::Message> take_messages() override { return ears_.take(); }
  // What PUBLISH counts: our own ears are one of them.
  void set_listeners(std::uint32_t count) override {
    while (others_.size() + 1 < count) others_.push_back(std::make_unique<Listener>(server_));
    if (others_.size() + 1 > std::max(count, 1U)) {
      others_.resize(std::max(count, 1U) - 1);
      // The server notices the end of a connection in its own time.
      while (subscribers() > others_.size() + 1) {
      }
    }
  }
  void flush() override {
    client_.command({"FLUSHALL"});
    told_ = Milliseconds(0);
  }
  std::uint64_t hwm(unsigned partition, quota::Incarnation incarnation) override {
    return static_cast<std::uint64_t>(number(partition_field(partition, std::to_string(incarnation))));
  }
  Sums sums(const quota::AccountKey& key, const quota::WindowShape& shape) override {
    const std::string bytes = client_.record(key);
    if (bytes.empty()) return {};
    auto record = quota::AccountRecord::decode(bytes, shape.bucket);
    CHECK(record.has_value(), "a record the scripts wrote");
    const unsigned partition = quota::partition_of(key.subject_key);
    const Milliseconds now = std::max(clock_(), Milliseconds(number(partition_field(partition, "t"))));
    record->prune(shape, now, [&](quota::Incarnation incarnation) {
      return Milliseconds(number(partition_field(partition, "x" + std::to_string(incarnation))));
    });
    return {record->window.used(), record->lent()};
  }
  void save(std::uint64_t copy) override {
    std::vector<std::string>& kept = copies_[copy];
    for (const redis::Reply& word : client_.command({"EVAL", kSave, "0"}).elements) kept.push_back(word.text);
  }
  void restore(std::uint64_t copy) override {
    auto found = copies_.find(copy);
    CHECK(found != copies_.end(), "a copy that was saved");
    flush();
    std::vector<std::string> words{"EVAL", kRestore, "0"};
    words.insert(words.end(), found->second.begin(), found->second.end());
    CHECK(client_.command(words).integer == 1, "RESTORE");
  }
  void forget(std::uint64_t copy) override { copies_.erase(copy); }

 private:
  void set_clock() {
    if (const Milliseconds now = clock_(); now != told_) client_.set_clock(told_ = now);
  }
  std::string partition_field(unsigned partition, const std::string& field) {
    return client_.command({"HGET", redis::partition_key(partition), field}).text;
  }
  std::size_t subscribers() {
    const std::string list = client_.command({"CLIENT", "LIST", "TYPE", "pubsub"}).text;
    return static_cast<std::size_t>(std::count(list.begin(), list.end(), '\n'));
  }

  const Server& server_;
  std::function<Milliseconds()> clock_;
  ScriptClient client_;
  Listener ears_;
  std::vector<std::unique_ptr<Listener>> others_;
  std::map<std::uint64_t, std::vector<std::string>> copies_;
  Milliseconds told_{0};
};

}  // namespace

struct RedisBackends::Impl {
  Server server;
};

RedisBackends::RedisBackends() : impl_(std::make_unique<Impl>()) {}
RedisBackends::~RedisBackends() = default;

std::unique_ptr<Backend> RedisBackends::make(std::function<Milliseconds()> clock) {
  return std::make_unique<RedisBackend>(impl_->server, std::move(clock));
}

}  // namespace tollgate::sim
