// A RedisStore used from straight-line code, and a record of everything it told.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "metering/redis/redis_store.h"
#include "tests/metering/redis/support/redis_fixture.h"

namespace tollgate::redis::testing {

struct Record final : LeaseStoreEvents {
  void on_up(unsigned partition, const std::string& run) override;
  void on_down(unsigned partition) override;
  void on_op(unsigned partition, std::uint64_t seq, quota::OpReply&& reply, MonotonicTime sent) override;
  void on_replay(unsigned partition, std::uint64_t seq, quota::OpReply&& reply, MonotonicTime sent) override;
  void on_ping(unsigned partition, quota::PingReply&& reply, MonotonicTime sent) override;
  void on_error(unsigned partition, const std::string& what) override;
  void on_message(const quota::StoreModel::Message& message) override;
  void on_subscribed() override { ++subscribed; }

  struct Answer {
    unsigned partition = 0;
    std::uint64_t seq = 0;
    quota::OpReply reply;
  };
  std::map<unsigned, std::string> runs;  // of the partitions that are up
  std::map<unsigned, int> ups, downs;    // how often
  std::vector<Answer> ops, replays;
  std::vector<std::pair<unsigned, quota::PingReply>> pings;
  std::vector<std::string> errors;
  std::vector<quota::StoreModel::Message> messages;
  int subscribed = 0;
  bool inside_send = false, told_inside_send = false;

 private:
  void told() { told_inside_send = told_inside_send || inside_send; }
};

class StoreClient {
 public:
  using Adjust = std::function<void(RedisStoreOptions&)>;
  explicit StoreClient(
      StoreUrl url, Adjust adjust = nullptr,
      std::function<bool(unsigned)> mine = [](unsigned) { return true; });

  bool come_up(Milliseconds deadline = Milliseconds(20'000));  // all partitions

  // One op of `user` on its own account "daily": numbered here, journalled nowhere.
  quota::Op make_op(std::string_view user, std::uint32_t need, std::vector<quota::BucketUse> uses = {});
  void send(const quota::Op& op);
  // Sends and, after each loss of the partition, sends again until it is answered.
  std::optional<quota::OpReply> apply(const quota::Op& op, Milliseconds deadline = Milliseconds(20'000));
  // Keeps the session and votes. nullopt: no answer.
  std::optional<quota::PingReply> ping(unsigned partition, Milliseconds deadline = Milliseconds(20'000));
  // A ping that votes, and one op for so many tokens.
  std::optional<quota::OpReply> acquire(std::string_view user, std::uint32_t need);

  std::vector<quota::LeaseState> read(std::vector<quota::AccountCharge> accounts);
  bool change(const std::function<void(RedisStore&, RedisStore::Changed)>& what);
  Result<std::vector<RedisStore::StoredAccount>> scan();

  static RedisStoreOptions options(StoreUrl url, const Adjust& adjust);

  Loop loop;
  Record record;
  quota::Incarnation incarnation = 7;
  Milliseconds clock{0};  // of the store, by the last ping
  RedisStore store;

 private:
  std::map<unsigned, std::uint64_t> seqs_, acknowledged_;
};

std::string key_of(std::string_view user);
unsigned partition_of_user(std::string_view user);
// Names of users whose partition satisfies `wanted`.
std::string user_in(const std::function<bool(unsigned partition)>& wanted);

StoreUrl parse_url(std::string_view url);

}  // namespace tollgate::redis::testing
