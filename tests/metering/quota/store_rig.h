// A store model with a clock of its own, and ops of one subject for it.
#pragma once
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "metering/quota/keys.h"
#include "metering/quota/store_model.h"

namespace tollgate::quota::store_test {

using namespace std::chrono_literals;

inline constexpr Milliseconds kStart{1'763'820'000'000};
inline constexpr WindowShape kDay{86'400'000ms, 60'000ms};
inline constexpr Incarnation kA = 10, kB = 20, kC = 30;

struct Store {
  Milliseconds now = kStart;
  StoreModel model{[this] { return now; }};
  SendContext context{"run", kStart, 15min, 10s, 0};
  std::string subject = subject_key({"acme", std::nullopt, "ann"});
  unsigned partition = partition_of(subject);

  explicit Store(bool open = true) {
    if (!open) return;
    ping(kA);
    model.take_messages();
  }
  SendContext at_now() {
    context.clock = now;
    return context;
  }
  PingReply ping(Incarnation from, std::uint64_t acked = 0, std::vector<Ping::Peer> peers = {}) {
    return model.ping({from, partition, acked, std::move(peers)}, at_now());
  }
  Op op(Incarnation from, std::uint64_t seq, OpAccount account) {
    if (account.field.empty()) account.field = "daily";
    if (account.window == 0ms) account.window = kDay.window, account.bucket = kDay.bucket;
    if (account.limit == 0) account.limit = 100;
    return {from, partition, seq, subject, {std::move(account)}};
  }
  // The next op of that incarnation.
  OpReply send(Incarnation from, OpAccount account) {
    return model.apply(op(from, model.hwm(partition, from) + 1, std::move(account)), at_now());
  }
  LeaseState state(Incarnation from, OpAccount account) {
    OpReply reply = send(from, std::move(account));
    EXPECT_EQ(reply.status, OpStatus::applied);
    return reply.states.at(0);
  }
  std::int64_t bucket() const { return kDay.bucket_of(now); }
  StoreModel::Sums sums() { return model.sums({subject, "daily"}, kDay); }
  std::vector<Incarnation> recalled() {
    std::vector<Incarnation> to;
    for (const StoreModel::Message& message : model.take_messages())
      if (message.kind == StoreModel::Message::Kind::recall) to.push_back(message.to);
    return to;
  }
};

}  // namespace tollgate::quota::store_test
