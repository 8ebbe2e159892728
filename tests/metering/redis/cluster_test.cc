// Redis Cluster with real nodes: slots, redirections, the move of a slot under way, nodes that fail.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <set>

#include "metering/quota/keys.h"
#include "metering/redis/cluster_map.h"
#include "metering/redis/redis_seats.h"
#include "metering/redis/redis_store.h"
#include "tests/metering/redis/support/store_fixture.h"

namespace tollgate::redis {
namespace {

using quota::OpStatus;
using testing::account;
using testing::key_of;
using testing::Loop;
using testing::parse_url;
using testing::partition_of_user;
using testing::Server;
using testing::StoreClient;
using testing::TemporaryDirectory;
using testing::user_in;
using namespace std::chrono_literals;

// ---- the map, as text

Reply number(std::int64_t value) {
  return {.type = Reply::Type::integer, .integer = value};
}
Reply text(std::string value) {
  return {.type = Reply::Type::text, .text = std::move(value)};
}
Reply array(std::vector<Reply> elements) {
  return {.type = Reply::Type::array, .elements = std::move(elements)};
}
Reply error(std::string value) {
  return {.type = Reply::Type::error, .text = std::move(value)};
}

const Endpoint kAsked{.host = "seed.example", .port = 7000};

TEST(ClusterMap, RangesNameTheirPrimaryFirst) {
  auto ranges =
      parse_slots(array({array({number(0), number(99), array({text("10.0.0.1"), number(7001), text("id")}),
                                array({text("10.0.0.2"), number(7002), text("replica")})}),
                         array({number(100), number(16383), array({text(""), number(7003)})})}),
                  kAsked);
  ASSERT_TRUE(ranges.has_value());
  ASSERT_EQ(ranges->size(), 2U);
  EXPECT_EQ((*ranges)[0].last, 99U);
  EXPECT_EQ((*ranges)[0].primary, (Endpoint{"10.0.0.1", 7001}));
  EXPECT_EQ((*ranges)[1].primary, (Endpoint{"seed.example", 7003}))
      << "a node without a name is the one asked";
}

TEST(ClusterMap, WhatIsNoMapIsAnError) {
  Reply node = array({text("h"), number(7001)});
  for (const Reply& reply :
       {text("OK"), array({number(1)}), array({array({number(0), number(1)})}),
        array({array({number(5), number(4), node})}), array({array({number(0), number(16'384), node})}),
        array({array({number(-1), number(4), node})}),
        array({array({number(0), number(1), array({text("h")})})}),
        array({array({number(0), number(1), array({text("h"), number(70'000)})})})})
    EXPECT_FALSE(parse_slots(reply, kAsked).has_value());
}

TEST(ClusterMap, RedirectionsAreRead) {
  auto moved = parse_redirection(error("MOVED 3999 127.0.0.1:6381"), kAsked);
  ASSERT_TRUE(moved.has_value());
  EXPECT_FALSE(moved->ask);
  EXPECT_EQ(moved->slot, 3'999U);
  EXPECT_EQ(moved->to, (Endpoint{"127.0.0.1", 6381}));
  auto ask = parse_redirection(error("ASK 1 fd00::7:6381"), kAsked);
  ASSERT_TRUE(ask.has_value());
  EXPECT_TRUE(ask->ask);
  EXPECT_EQ(ask->to, (Endpoint{"fd00::7", 6381}));
  EXPECT_EQ(parse_redirection(error("MOVED 3999 :6381"), kAsked)->to, (Endpoint{"seed.example", 6381}));
  for (const char* other : {"MOVED", "MOVED 1", "MOVED x h:1", "MOVED 16384 h:1", "MOVED 1 h", "MOVED 1 h:0",
                            "MOVED 1 h:70000", "MOVEDTO 1 h:1", "ERR no"})
    EXPECT_FALSE(parse_redirection(error(other), kAsked).has_value()) << other;
  EXPECT_FALSE(parse_redirection(text("MOVED 1 h:1"), kAsked).has_value()) << "no error, no redirection";
}

// ---- real nodes

// Three primaries, a third of the slots each.
class Nodes {
 public:
  struct Node {
    TemporaryDirectory directory;
    std::unique_ptr<Server> server;
    std::string id;
  };

  void form() {
    for (int i = 0; i < 3; ++i) add_node();
    constexpr unsigned kThird = kSlots / 3;
    for (unsigned i = 0; i < 3; ++i) {
      unsigned last = i == 2 ? kSlots - 1 : (i + 1) * kThird - 1;
      ASSERT_EQ(node(i)
                    .command({"CLUSTER", "ADDSLOTSRANGE", std::to_string(i * kThird), std::to_string(last)})
                    .text,
                "OK");
      ASSERT_EQ(node(i).command({"CLUSTER", "SET-CONFIG-EPOCH", std::to_string(i + 1)}).text, "OK");
    }
    for (unsigned i = 1; i < 3; ++i) meet(i);
    Loop loop;
    ASSERT_TRUE(loop.run_until([&] { return agreed(3); }));
  }

  void add_node() {
    auto made = std::make_unique<Node>();
    made->server = std::make_unique<Server>(
        std::vector<std::string>{"port {port}", "bind 127.0.0.1", "cluster-enabled yes", "cluster-port {bus}",
                                 "cluster-node-timeout 600", "cluster-require-full-coverage no",
                                 "appendonly yes", "appendfsync always", "repl-diskless-sync-delay 0",
                                 "cluster-replica-validity-factor 0"},
        &made->directory);
    made->id = made->server->command({"CLUSTER", "MYID"}).text;
    nodes_.push_back(std::move(made));
  }
  void meet(unsigned index) {
    ASSERT_EQ(node(index)
                  .command({"CLUSTER", "MEET", "127.0.0.1", std::to_string(node(0).port()),
                            std::to_string(node(0).bus())})
                  .text,
              "OK");
  }
  // Every node sees the whole cluster in order.
  bool agreed(unsigned count) {
    for (const auto& one : nodes_) {
      std::string info = one->server->command({"CLUSTER", "INFO"}).text;
      if (info.find("cluster_state:ok") == std::string::npos ||
          info.find(fmt::format("cluster_known_nodes:{}\r", count)) == std::string::npos ||
          info.find("cluster_slots_ok:16384") == std::string::npos)
        return false;
    }
    return true;
  }
  Server& node(unsigned index) { return *nodes_[index]->server; }
  const std::string& id(unsigned index) { return nodes_[index]->id; }
  unsigned home_of(unsigned partition) { return std::min(slot_of_partition(partition) / (kSlots / 3), 2U); }
  StoreUrl url() {
    std::string list = fmt::format("127.0.0.1:{}", testing::free_port());  // one that is not there
    for (const auto& one : nodes_) list += "," + one->server->address();
    return parse_url("redis+cluster://" + list);
  }

  // The four steps in which redis-cli --cluster reshard moves a slot.
  void begin_move(unsigned slot, unsigned from, unsigned to) {
    ASSERT_EQ(node(to).command({"CLUSTER", "SETSLOT", std::to_string(slot), "IMPORTING", id(from)}).text,
              "OK");
    ASSERT_EQ(node(from).command({"CLUSTER", "SETSLOT", std::to_string(slot), "MIGRATING", id(to)}).text,
              "OK");
  }
  void move_keys(unsigned from, unsigned to, const std::vector<std::string>& keys) {
    std::vector<std::string> words{"MIGRATE", "127.0.0.1", std::to_string(node(to).port()), "", "0",
                                   "5000",    "KEYS"};
    words.insert(words.end(), keys.begin(), keys.end());
    ASSERT_EQ(node(from).command(words).text, "OK");
  }
  std::vector<std::string> keys_in(unsigned slot, unsigned at) {
    std::vector<std::string> keys;
    for (const Reply& key :
         node(at).command({"CLUSTER", "GETKEYSINSLOT", std::to_string(slot), "1000"}).elements)
      keys.push_back(key.text);
    return keys;
  }
  void end_move(unsigned slot, unsigned from, unsigned to) {
    for (unsigned at : {to, from})
      ASSERT_EQ(node(at).command({"CLUSTER", "SETSLOT", std::to_string(slot), "NODE", id(to)}).text, "OK");
  }

  void move_whole(unsigned slot, unsigned from, unsigned to) {
    begin_move(slot, from, to);
    move_keys(from, to, keys_in(slot, from));
    end_move(slot, from, to);
  }

  std::size_t count() const { return nodes_.size(); }

 private:
  std::vector<std::unique_ptr<Node>> nodes_;
};

// One cluster for all tests that leave it whole: forming one takes two seconds.
class Cluster : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    nodes_ = new Nodes;
    nodes_->form();
  }
  static void TearDownTestSuite() {
    delete nodes_;
    nodes_ = nullptr;
  }
  void SetUp() override {
    for (unsigned i = 0; i < nodes_->count(); ++i) {
      nodes_->node(i).command({"FLUSHALL"});
      nodes_->node(i).command({"SCRIPT", "FLUSH"});
    }
  }
  static Nodes* nodes_;
};
Nodes* Cluster::nodes_ = nullptr;

TEST_F(Cluster, PartitionsLiveWhereRedisHashesTheirKeys) {
  for (unsigned p : {0U, 17U, 255U})
    EXPECT_EQ(nodes_->node(0).command({"CLUSTER", "KEYSLOT", "h:" + quota::hash_tag(p)}).integer,
              static_cast<std::int64_t>(slot_of_partition(p)));
}

TEST_F(Cluster, OpsOfAllPartitionsGoToTheirNodes) {
  StoreClient client(nodes_->url(), [](RedisStoreOptions& options) { options.subscribe = true; });
  ASSERT_TRUE(client.come_up()) << client.store.last_error();
  EXPECT_EQ(client.record.runs.size(), quota::kPartitions);
  std::set<std::string> runs;
  for (const auto& [partition, run] : client.record.runs) runs.insert(run);
  EXPECT_EQ(runs.size(), 3U);
  std::set<unsigned> homes;
  std::set<std::string> users;
  for (int i = 0; i < 30; ++i) {
    std::string user = fmt::format("user{}", i);
    auto lent = client.acquire(user, 2);
    ASSERT_TRUE(lent.has_value()) << client.store.last_error();
    EXPECT_EQ(lent->states[0].granted, 2U);
    unsigned home = nodes_->home_of(partition_of_user(user));
    EXPECT_EQ(nodes_->node(home).command({"HLEN", key_of(user)}).integer, 1);
    homes.insert(home);
    users.insert(key_of(user));
  }
  EXPECT_EQ(homes.size(), 3U);
  EXPECT_EQ(client.store.counters().redirections, 0U);
  // A scan sees all nodes, a read and a change find theirs.
  auto found = client.scan();
  ASSERT_TRUE(found.has_value()) << found.error().message;
  EXPECT_EQ(found->size(), users.size());
  for (const auto& stored : *found) EXPECT_TRUE(users.contains(stored.key.subject_key));
  EXPECT_EQ(
      client.read({account("user1", "daily", 9), account("user2", "daily", 8), account("user3", "daily", 7)})
          .size(),
      3U);
  // One listener a node; what one publishes, all of them pass on.
  ASSERT_TRUE(client.loop.run_until([&] { return client.record.subscribed == 3; }));
  ASSERT_TRUE(
      client.change([&](RedisStore& store, auto done) { store.reset({{key_of("user1"), "daily"}}, done); }));
  EXPECT_TRUE(client.loop.run_until([&] {
    return std::ranges::count_if(client.record.messages, [](const auto& message) {
             return message.kind == quota::StoreModel::Message::Kind::policy;
           }) == 3;
  }));
  EXPECT_TRUE(client.record.errors.empty());
}

TEST_F(Cluster, SlotThatMovesUnderWayIsFollowedAndCountsOnce) {
  StoreClient client(nodes_->url());
  ASSERT_TRUE(client.come_up()) << client.store.last_error();
  std::string user = user_in([&](unsigned partition) { return nodes_->home_of(partition) == 0; });
  ASSERT_TRUE(client.acquire(user, 3));
  unsigned partition = partition_of_user(user), slot = slot_of_partition(partition);
  nodes_->begin_move(slot, 0, 1);
  nodes_->move_keys(0, 1, {"h:" + quota::hash_tag(partition)});
  // Half here, half there. A ping needs only the key that has moved: ASK leads there.
  auto ping = client.ping(partition);
  ASSERT_TRUE(ping.has_value()) << client.store.last_error();
  EXPECT_EQ(ping->hwm, 1U);
  EXPECT_GE(client.store.counters().redirections, 1U);
  // An op needs them all: it is tried again and again, without harm.
  quota::Op op = client.make_op(user, 2);
  EXPECT_FALSE(client.apply(op, 200ms).has_value());
  EXPECT_GE(client.record.downs[partition], 1);
  unsigned elsewhere = partition_of_user(user_in([&](unsigned p) { return nodes_->home_of(p) == 2; }));
  EXPECT_EQ(client.record.downs[elsewhere], 0) << "other partitions have nothing to do with it";
  nodes_->move_keys(0, 1, nodes_->keys_in(slot, 0));
  nodes_->end_move(slot, 0, 1);
  auto moved = client.apply(op);
  ASSERT_TRUE(moved.has_value()) << client.store.last_error();
  EXPECT_EQ(moved->status, OpStatus::applied);
  EXPECT_EQ(moved->states[0].outstanding, 3U)
      << "settled; nothing is lent, the new server has to be voted for";
  EXPECT_TRUE(moved->fenced);
  EXPECT_NE(nodes_->node(1).command({"INFO", "server"}).text.find(client.record.runs[partition]),
            std::string::npos);
  auto next = client.acquire(user, 2);
  ASSERT_TRUE(next && next->status == OpStatus::applied);
  EXPECT_EQ(next->states[0].outstanding, 5U);
  EXPECT_TRUE(client.record.errors.empty());
  nodes_->move_whole(slot, 1, 0);
}

TEST_F(Cluster, ReadsFollowAMovedSlotAtOnce) {
  StoreClient client(nodes_->url());
  std::string user = user_in([&](unsigned partition) { return nodes_->home_of(partition) == 0; });
  ASSERT_TRUE(client.acquire(user, 3));
  unsigned slot = slot_of_partition(partition_of_user(user));
  nodes_->move_whole(slot, 0, 2);
  EXPECT_EQ(client.read({account(user, "daily", 1'000)})[0].lent_to_others, 3U);
  EXPECT_EQ(client.store.counters().redirections, 1U);
  EXPECT_EQ(client.read({account(user, "daily", 1'000)})[0].lent_to_others, 3U);
  EXPECT_EQ(client.store.counters().redirections, 1U) << "the map has learned";
  nodes_->move_whole(slot, 2, 0);
}

// A command on seats names the run of the server it was sent to: to another one it would raise a fence for a stranger.
TEST_F(Cluster, SeatsOfAMovedSlotStayTakenAndTheirFenceIsTheNewServersOwn) {
  using Status = seats::TakeReply::Status;
  StoreClient client(nodes_->url());
  ASSERT_TRUE(client.come_up()) << client.store.last_error();
  RedisSeats seat_store(client.store);
  seats::Pool pool{.kind = seats::Kind::concurrent, .capacity = 2, .idle = 60s, .lease = 300ms};
  for (int i = 0; pool.id.empty() || nodes_->home_of(seats::partition_of(pool)) != 0; ++i)
    pool.id = fmt::format("pool{}", i);
  auto take = [&](const std::string& member) {
    std::optional<Result<seats::TakeReply>> answer;
    seat_store.take(pool, member, "", [&](Result<seats::TakeReply>&& reply) { answer = std::move(reply); });
    EXPECT_TRUE(client.loop.run_until([&] { return answer.has_value(); }));
    return std::move(*answer);
  };
  ASSERT_TRUE(client.loop.run_until([&] {
    auto first = take(":ann");
    return first && first->status == Status::taken;
  }));
  const unsigned slot = slot_of_partition(seats::partition_of(pool));
  nodes_->move_whole(slot, 0, 2);
  auto redirected = take(":ann");
  ASSERT_FALSE(redirected);
  EXPECT_TRUE(redirected.error().message.starts_with("MOVED")) << redirected.error().message;
  EXPECT_EQ(take(":ann")->status, Status::held);
  EXPECT_EQ(take(":bob")->status, Status::fenced);
  ASSERT_TRUE(client.loop.run_until([&] { return take(":bob")->status == Status::taken; }));
  const std::string run = nodes_->node(2).command({"HGET", seats::seats_key(pool) + ":about", "run"}).text;
  EXPECT_EQ(run.size(), 40U);
  EXPECT_NE(nodes_->node(2).command({"INFO", "server"}).text.find(run), std::string::npos);
  nodes_->move_whole(slot, 2, 0);
}

TEST(ClusterFailure, NodeThatDiesTakesOnlyItsPartitionsAndBringsThemBack) {
  Nodes nodes;
  ASSERT_NO_FATAL_FAILURE(nodes.form());
  StoreClient client(nodes.url());
  ASSERT_TRUE(client.come_up());
  std::string there = user_in([&](unsigned p) { return nodes.home_of(p) == 1; });
  std::string here = user_in([&](unsigned p) { return nodes.home_of(p) == 2; });
  ASSERT_TRUE(client.acquire(there, 3));
  std::string run = client.record.runs[partition_of_user(there)];
  nodes.node(1).kill_now();
  ASSERT_TRUE(client.loop.run_until([&] { return !client.store.up(partition_of_user(there)); }));
  ASSERT_TRUE(client.acquire(here, 1).has_value()) << "the others go on";
  EXPECT_EQ(client.record.downs[partition_of_user(here)], 0);
  nodes.node(1).spawn();
  ASSERT_TRUE(client.come_up()) << client.store.last_error();
  EXPECT_NE(client.record.runs[partition_of_user(there)], run);
  auto next = client.acquire(there, 1);
  ASSERT_TRUE(next && next->status == OpStatus::applied);
  EXPECT_EQ(next->states[0].outstanding, 4U);
}

TEST(ClusterFailure, PromotedReplicaOfADeadNodeIsFound) {
  Nodes nodes;
  ASSERT_NO_FATAL_FAILURE(nodes.form());
  nodes.add_node();
  nodes.meet(3);
  Loop loop;
  ASSERT_TRUE(loop.run_until([&] { return nodes.agreed(4); }));
  ASSERT_EQ(nodes.node(3).command({"CLUSTER", "REPLICATE", nodes.id(0)}).text, "OK");
  std::string user = user_in([&](unsigned partition) { return nodes.home_of(partition) == 0; });
  StoreClient client(nodes.url());
  ASSERT_TRUE(client.acquire(user, 3).has_value()) << client.store.last_error();
  ASSERT_TRUE(loop.run_until([&] { return nodes.node(3).command({"DBSIZE"}).integer == 2; }));
  unsigned partition = partition_of_user(user);
  std::string run = client.record.runs[partition];
  nodes.node(0).kill_now();
  ASSERT_TRUE(client.loop.run_until(
      [&] { return client.store.up(partition) && client.record.runs[partition] != run; }, 30'000ms))
      << client.store.last_error();
  auto next = client.acquire(user, 1);
  ASSERT_TRUE(next && next->status == OpStatus::applied);
  EXPECT_EQ(next->states[0].outstanding, 4U);
  ASSERT_TRUE(client.come_up());
}

}  // namespace
}  // namespace tollgate::redis
