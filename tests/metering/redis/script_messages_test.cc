// What the scripts do with what should not be there, and what is made of replies that are not theirs.
#include "metering/redis/script_messages.h"

#include <gtest/gtest.h>

#include "metering/base/random.h"
#include "metering/quota/keys.h"
#include "metering/quota/record.h"
#include "tests/metering/redis/support/script_client.h"

namespace tollgate::redis {
namespace {

using quota::Op;
using quota::OpAccount;
using quota::OpStatus;
using quota::SendContext;
using quota::StoreModel;
using namespace std::chrono_literals;

constexpr Milliseconds kStart{1'763'820'000'000};

Reply number(std::int64_t value) {
  Reply reply;
  reply.type = Reply::Type::integer;
  reply.integer = value;
  return reply;
}

Reply numbers(std::initializer_list<std::int64_t> values) {
  Reply reply;
  reply.type = Reply::Type::array;
  for (const std::int64_t value : values) reply.elements.push_back(number(value));
  return reply;
}

Reply text_reply(Reply::Type type, std::string text) {
  Reply reply;
  reply.type = type;
  reply.text = std::move(text);
  return reply;
}

struct Stage {
  testing::Server server;
  testing::ScriptClient client{server};
  std::string subject = quota::subject_key({"acme", std::nullopt, "ann"});
  unsigned partition = quota::partition_of(subject);
  SendContext context{"run", kStart, 15min, 10s, 0};

  Stage() {
    client.set_clock(kStart);
    client.ping({7, partition, 0, {}}, context);
  }
  Op op(std::uint64_t seq, quota::Incarnation from = 7) const {
    Op made{from, partition, seq, subject, {}};
    made.accounts.push_back({.field = "daily", .window = 24h, .bucket = 60s, .limit = 100});
    return made;
  }
};

// ---- messages

TEST(ScriptMessages, KeysOfACallShareTheHashTagOfThePartition) {
  const Stage stage;
  const std::string tag = quota::hash_tag(stage.partition);
  for (const ScriptCall& call :
       {op_call(stage.op(1), stage.context), replay_call({stage.op(1), {0}, kStart, false}, stage.context),
        ping_call({7, stage.partition, 0, {}}, stage.context), accounts_call(stage.subject, "", 24h, 60s),
        set_override_call({stage.subject, "daily"}, std::nullopt)})
    for (const std::string& key : call.keys) EXPECT_NE(key.find(tag), std::string::npos) << key;
}

TEST(ScriptMessages, RepliesOfAnotherShapeAreErrors) {
  Op op{7, 0, 1, "q:{p000}:a:u:b", {OpAccount{}}};
  const Reply good = numbers({0, 0, 1, 2, 3, 1, 2, 3, 4, -1, 6, 7, -1, 1});
  auto parsed = parse_op(good, op);
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(parsed->states[0].limit, quota::kUnlimited);
  EXPECT_EQ(parsed->states[0].fits_at, Milliseconds::max());
  EXPECT_TRUE(parsed->states[0].over);
  for (std::size_t length = 0; length < good.elements.size(); ++length) {
    Reply cut = good;
    cut.elements.resize(length);
    EXPECT_FALSE(parse_op(cut, op).has_value()) << length;
  }
  EXPECT_FALSE(parse_op(numbers({1, 0, 1, 2, 3, 1, 2, 3, 4, 5, 6, 7, 8, 0}), op).has_value())
      << "no such status";
  EXPECT_FALSE(parse_op(numbers({0, 4, 1, 2, 3, 1, 2, 3, 4, 5, 6, 7, 8, 0}), op).has_value())
      << "no such flag";
  EXPECT_FALSE(parse_op(numbers({0, 0, -2, 2, 3, 1, 2, 3, 4, 5, 6, 7, 8, 0}), op).has_value());
  EXPECT_TRUE(parse_op(numbers({4, 0, 1, 2, 3}), op).has_value());
  EXPECT_FALSE(parse_op(number(0), op).has_value());
  EXPECT_FALSE(parse_op(text_reply(Reply::Type::error, "OOM command not allowed"), op).has_value());
  EXPECT_FALSE(parse_replay(good).has_value());
  EXPECT_FALSE(parse_ping(numbers({1, 2, 3})).has_value());
  EXPECT_FALSE(parse_ping(numbers({1, 2, 3, 4, 0, 5})).has_value()) << "no incarnation is 0";
  EXPECT_FALSE(parse_ping(numbers({1, 2, 3, 4, 4'294'967'296, 5})).has_value());
  EXPECT_FALSE(parse_states(numbers({1, 2, 3}), 1).has_value());
  EXPECT_FALSE(parse_accounts(numbers({1, 2, 3})).has_value());
  EXPECT_FALSE(parse_change(number(0)).has_value());
  EXPECT_FALSE(parse_override(text_reply(Reply::Type::text, "12;")).has_value());
  EXPECT_EQ(parse_override(Reply{}).value(), std::nullopt);
}

TEST(ScriptMessages, PublishedBodiesAreReadBackAndNothingElseIs) {
  const std::string ann = quota::subject_key({"acme", std::nullopt, "ann"});
  const std::string body = ann + " daily|my rule";
  auto recall = parse_message("q:recall:4294967295", body);
  ASSERT_TRUE(recall.has_value());
  EXPECT_EQ(recall->to, 4'294'967'295U);
  EXPECT_EQ(recall->account, (quota::AccountKey{ann, "daily|my rule"}));
  EXPECT_EQ(recall->partition, quota::partition_of(ann));
  EXPECT_EQ(parse_message("q:policy", body)->kind, StoreModel::Message::Kind::policy);
  EXPECT_EQ(parse_message("q:room", body)->kind, StoreModel::Message::Kind::room);
  EXPECT_EQ(parse_message("q:room", body)->partition, quota::partition_of(ann));
  EXPECT_EQ(parse_message("q:fence", "255")->partition, 255U);
  const std::pair<std::string, std::string> strange[] = {{"q:fence", "256"},
                                                         {"q:fence", ""},
                                                         {"q:fence", "1 "},
                                                         {"q:recall:0", body},
                                                         {"q:recall:", body},
                                                         {"q:recall:-1", body},
                                                         {"q:recall:4294967296", body},
                                                         {"q:policy", ann},
                                                         {"q:policy", "x daily"},
                                                         {"q:other", body},
                                                         {"", ""}};
  for (const auto& [channel, text] : strange)
    EXPECT_FALSE(parse_message(channel, text).has_value()) << channel << " " << text;
}

// ---- scripts and what should not be in the store

TEST(LeaseScripts, DamagedRecordStopsTheOpAndNothingIsWritten) {
  Stage stage;
  stage.client.command({"HSET", stage.subject, "daily", "not a record"});
  const auto before = stage.client.hash(partition_key(stage.partition));
  Op op = stage.op(1);
  op.accounts.insert(op.accounts.begin(),
                     OpAccount{.field = "sound", .window = 24h, .bucket = 60s, .limit = 9, .want = 5});
  for (const Reply& reply :
       {stage.client.run(stage.client.scripts.op, op_call(op, stage.context)),
        stage.client.run(stage.client.scripts.replay,
                         replay_call({op, {1, 1}, kStart, false}, stage.context)),
        stage.client.run(stage.client.scripts.set_override,
                         set_override_call({stage.subject, "daily"}, quota::LimitOverride{5, {}}))}) {
    EXPECT_TRUE(reply.is_error("TOLLGATE")) << reply.text;
    EXPECT_NE(reply.text.find("daily"), std::string::npos) << "the message names the account: " << reply.text;
  }
  EXPECT_EQ(stage.client.hash(partition_key(stage.partition)), before);
  EXPECT_EQ(stage.client.record({stage.subject, "sound"}), "");
  EXPECT_TRUE(stage.client.hash(override_key(stage.partition)).empty());
}

TEST(LeaseScripts, DamagedOverrideStopsTheOpAndNothingIsWritten) {
  Stage stage;
  for (const char* text : {"", "-", "many", "5;", "5;+1", "5;+1@2;x", "5 ", "1e9", "0x10"}) {
    stage.client.command(
        {"HSET", override_key(stage.partition), override_field({stage.subject, "daily"}), text});
    EXPECT_TRUE(
        stage.client.run(stage.client.scripts.op, op_call(stage.op(1), stage.context)).is_error("TOLLGATE"))
        << "'" << text << "'";
  }
  EXPECT_EQ(stage.client.record({stage.subject, "daily"}), "");
  EXPECT_EQ(stage.client.hash(partition_key(stage.partition)).count("7"), 0U);
}

TEST(LeaseScripts, EveryCutOfARecordIsRefusedOrReadAsItStands) {
  Stage stage;
  Op op = stage.op(1);
  op.accounts[0].uses = {{kStart / 60s - 500, 300}, {kStart / 60s - 3, 7}, {kStart / 60s, 1}};
  op.accounts[0].want = 5;
  stage.client.apply(op, stage.context);
  const std::string good = stage.client.record({stage.subject, "daily"});
  // Cuts in header, leases and tail are found. The scripts do not add the body up (C++ does, wherever a record is read there).
  for (std::size_t length = 1; length + 4 < good.size(); ++length) {
    stage.client.command({"HSET", stage.subject, "daily", good.substr(0, length)});
    EXPECT_TRUE(
        stage.client.run(stage.client.scripts.op, op_call(stage.op(2), stage.context)).is_error("TOLLGATE"))
        << length;
  }
}

// ---- edges of the differential: rare in random histories

struct Twin : Stage {
  Milliseconds now = kStart;
  StoreModel model{[this] { return now; }};

  Twin() { model.ping({7, partition, 0, {}}, context); }
  void at(Milliseconds moment) {
    now = context.clock = moment;
    client.set_clock(moment);
  }
  void same() {
    ASSERT_EQ(client.record({subject, "daily"}), model.record({subject, "daily"}));
    ASSERT_EQ(client.hash(partition_key(partition)), model.partition_fields(partition));
  }
};

TEST(LeaseScripts, BodyAtItsCapIsMergedAsInTheModelInBothForms) {
  for (std::uint64_t seed : {1, 2, 3, 4}) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    Twin twin;
    // Small numbers take one byte each and a shorter way through the script; large ones do not.
    const std::uint64_t most = seed % 2 == 0 ? 3 : 20'000;
    std::size_t full = 0;
    for (std::uint64_t seq = 1; seq <= 1'200; ++seq) {
      twin.at(twin.now + Milliseconds(30'000 + random.below(120'000)));
      Op op = twin.op(seq);
      op.accounts[0].limit = quota::kUnlimited;
      op.accounts[0].uses = {{twin.now / 60s, static_cast<std::int64_t>(1 + random.below(most))}};
      if (random.one_in(8))
        op.accounts[0].uses.insert(
            op.accounts[0].uses.begin(),
            {twin.now / 60s - static_cast<std::int64_t>(1 + random.below(1'400)),
             static_cast<std::int64_t>(1 + random.below(most)) * (random.one_in(3) ? -1 : 1)});
      const auto mine = twin.client.apply(op, twin.context), theirs = twin.model.apply(op, twin.context);
      ASSERT_EQ(mine, theirs) << "step " << seq;
      ASSERT_NO_FATAL_FAILURE(twin.same()) << "step " << seq;
      auto record = quota::AccountRecord::decode(twin.model.record({twin.subject, "daily"}));
      ASSERT_TRUE(record.has_value());
      full += record->window.buckets().size() > quota::kBodyMax;
    }
    EXPECT_GT(full, 500U);
  }
}

TEST(LeaseScripts, MoreHoldersThanARecordNamesAreTreatedAsInTheModel) {
  Twin twin;
  for (quota::Incarnation who = 1'000; who < 1'000 + quota::kLeasesMax + 2; ++who) {
    Op op = twin.op(1, who);
    op.accounts[0].limit = 100'000;
    op.accounts[0].need = 1;
    op.accounts[0].want = 2;
    const auto mine = twin.client.apply(op, twin.context), theirs = twin.model.apply(op, twin.context);
    ASSERT_EQ(mine, theirs) << who;
    ASSERT_EQ(mine.states[0].granted > 0, who < 1'000 + quota::kLeasesMax);
  }
  const quota::Replay fact{twin.op(1, 5'000), {25}, kStart + 1min, false};
  ASSERT_EQ(twin.client.replay(fact, twin.context), twin.model.replay(fact, twin.context));
  twin.same();
}

TEST(LeaseScripts, ThousandsOfDeadMembersAreForgottenWithoutAnError) {
  Twin twin;
  std::vector<std::string> words{"HSET", partition_key(twin.partition)};
  for (int who = 10'000; who < 15'000; ++who)
    for (const char* prefix : {"", "x", "v"}) {
      words.push_back(prefix + std::to_string(who));
      words.push_back("1");
    }
  twin.client.command(words);
  for (int i = 0; i < 6; ++i) twin.client.ping({7, twin.partition, 0, {}}, twin.context);
  EXPECT_LT(twin.client.hash(partition_key(twin.partition)).size(), 10U);
}

TEST(LeaseScripts, ServersClockIsTheOneThatCounts) {
  testing::Server server;
  testing::ScriptClient client(server, false);
  const Reply time = client.command({"TIME"});
  const auto reply = client.ping({7, 3, 0, {}}, {"run", 0ms, 15min, 10s, 0});
  const Milliseconds now(std::stoll(time.elements[0].text) * 1'000);
  EXPECT_GE(reply.now, now);
  EXPECT_LT(reply.now, now + 1h);
  EXPECT_EQ(reply.session_expiry, reply.now + 15min);
}

}  // namespace
}  // namespace tollgate::redis
