#include "metering/seats/recorder.h"

#include <gtest/gtest.h>

#include "metering/seats/model.h"

namespace tollgate::seats {
namespace {

using namespace std::chrono_literals;
using usage::SeatEntry;

const Pool kNamed{.id = "self_service", .kind = Kind::named, .capacity = 2, .lease = 30s};
const Pool kAtOnce{.id = "concurrent", .kind = Kind::concurrent, .capacity = 2, .idle = 120s, .lease = 30s};
const Pool kPortal{.id = "portal_users", .kind = Kind::named, .capacity = 9, .lease = 30s};

// The model as a store that answers at once, or not at all.
class ModelStore final : public SeatStore {
 public:
  SeatModel model;
  bool away = false;
  void take(const Pool& pool, std::string member, std::string client,
            std::function<void(Result<TakeReply>&&)> done) override {
    answer([&] { return model.take(pool, member, client); }, done);
  }
  void leave(const Pool& pool, std::string member, std::vector<std::string> clients,
             std::function<void(Result<bool>&&)> done) override {
    answer([&] { return model.leave(pool, member, clients); }, done);
  }
  void renew(const Pool& pool, std::vector<Renewal> renewals,
             std::function<void(Result<RenewReply>&&)> done) override {
    answer([&] { return model.renew(pool, renewals); }, done);
  }
  void invite(const Pool& pool, std::string id, std::vector<std::string> members,
              std::function<void(Result<InviteReply>&&)> done) override {
    answer([&] { return model.invite(pool, id, members); }, done);
  }
  void settle(const Pool& pool, std::string id, std::vector<Settlement> settlements,
              std::function<void(Result<void>&&)> done) override {
    answer([&] { return model.settle(pool, id, settlements), Result<void>{}; }, done);
  }
  void release(const Pool& pool, std::string member, std::function<void(Result<bool>&&)> done) override {
    answer([&] { return model.release(pool, member); }, done);
  }
  void list(const Pool& pool, std::uint64_t offset, std::uint64_t count, std::string member,
            std::function<void(Result<Page>&&)> done) override {
    answer([&] { return model.list(pool, offset, count, member); }, done);
  }

 private:
  void answer(auto ask, auto& done) {
    if (away) return done(fail(Origin::store, "away", true));
    done(ask());
  }
};

class SeatRecorderTest : public ::testing::Test {
 protected:
  SeatRecorderTest() {
    store.model.set_run("first");
    pass(0ms);
    store.model.renew(kAtOnce, {});
    pass(30s);
    store.model.renew(kAtOnce, {});
  }
  void pass(Milliseconds time) {
    now += time;
    store.model.set_now(now);
  }
  void take(const Pool& pool, const std::string& user, const std::string& client = "") {
    recorder.take(pool, member_of({"acme", user}), client, [](auto&&) {});
  }
  void renew(const std::string& user) {
    recorder.renew(kAtOnce, {{.member = member_of({"acme", user}), .idle_left = 120s}}, [](auto&&) {});
  }
  void release(const Pool& pool, const std::string& user) {
    recorder.release(pool, member_of({"acme", user}), [](auto&&) {});
  }
  Milliseconds now{1'763'820'000'000};
  ModelStore store;
  std::vector<SeatEntry> written;
  bool disk_full = false;
  SeatRecorder recorder{store, [this] { return now; },
                        [this](const SeatEntry& entry) {
                          if (disk_full) return false;
                          written.push_back(entry);
                          return true;
                        }};
};

TEST_F(SeatRecorderTest, ANamedSeatIsWrittenOnceAndItsRelease) {
  take(kNamed, "ann");
  for (int i = 0; i < 5; ++i) take(kNamed, "ann");
  ASSERT_EQ(written.size(), 1U);
  EXPECT_EQ(written[0], (SeatEntry{.time_ms = now.count(),
                                   .pool = "self_service",
                                   .named = true,
                                   .tenant = "acme",
                                   .user = "ann",
                                   .until_ms = SeatEntry::kNoEnd,
                                   .used = 1}));
  const Milliseconds then = now;
  pass(10s);
  release(kNamed, "ann");
  ASSERT_EQ(written.size(), 2U);
  EXPECT_EQ(written[1].time_ms, (then + 10s).count());
  EXPECT_EQ(written[1].until_ms, written[1].time_ms);
  release(kNamed, "ann");
  EXPECT_EQ(written.size(), 2U) << "who has none leaves none";
  take(kNamed, "ann");
  EXPECT_EQ(written.size(), 3U);
}

TEST_F(SeatRecorderTest, WhoIsRefusedIsNotWritten) {
  for (const char* user : {"ann", "bob", "eve"}) take(kNamed, user);
  EXPECT_EQ(written.size(), 2U);
}

TEST_F(SeatRecorderTest, AConcurrentSeatIsWrittenWithItsEndAndOnceMoreBeforeThatPasses) {
  take(kAtOnce, "ann");
  ASSERT_EQ(written.size(), 1U);
  EXPECT_EQ(written[0].until_ms, (now + 120s).count());
  for (int i = 0; i < 21; ++i) pass(5s), renew("ann");
  EXPECT_EQ(written.size(), 1U) << "110 s: the end that was written is far enough";
  pass(5s), renew("ann");
  ASSERT_EQ(written.size(), 2U);
  EXPECT_TRUE(written[1].goes_on);
  EXPECT_EQ(written[1].time_ms, now.count());
  EXPECT_EQ(written[1].until_ms, (now + 120s).count());
}

TEST_F(SeatRecorderTest, TheEndOfWhoStopsIsWrittenByTheRenewalsOfOthers) {
  take(kAtOnce, "ann");
  pass(60s), renew("ann");  // held until 180 s
  take(kAtOnce, "bob");
  pass(50s), renew("bob");
  ASSERT_EQ(written.size(), 3U);
  EXPECT_EQ(written[2].user, "ann");
  EXPECT_EQ(written[2].until_ms - written[0].time_ms, 180'000);
}

TEST_F(SeatRecorderTest, ALogOutIsWrittenWhenNoOtherClientHoldsTheSeat) {
  take(kAtOnce, "ann", "a1");
  take(kAtOnce, "ann", "b2");
  auto leave = [&](const std::string& client) {
    recorder.leave(kAtOnce, member_of({"acme", "ann"}), {client}, [](auto&&) {});
  };
  pass(1s), leave("a1");
  EXPECT_EQ(written.size(), 1U);
  pass(1s), leave("b2");
  ASSERT_EQ(written.size(), 2U);
  EXPECT_EQ(written[1].until_ms, now.count());
}

TEST_F(SeatRecorderTest, ASeatThatIsTakenAgainBeginsAnew) {
  take(kAtOnce, "ann");
  pass(200s);
  take(kAtOnce, "ann");
  ASSERT_EQ(written.size(), 2U);
  EXPECT_FALSE(written[1].goes_on);
}

TEST_F(SeatRecorderTest, WhatIsHeldAfterALongSilenceOfTheStoreBeginsAnew) {
  take(kAtOnce, "ann");
  const Pool longer{.id = "concurrent", .kind = Kind::concurrent, .capacity = 2, .idle = 900s, .lease = 30s};
  store.model.renew(longer, {{.member = member_of({"acme", "ann"}), .idle_left = 900s}});  // by another proxy
  pass(300s);
  renew("ann");
  ASSERT_EQ(written.size(), 2U);
  EXPECT_FALSE(written[1].goes_on);
}

TEST_F(SeatRecorderTest, WhatCouldNotBeWrittenIsTriedAgain) {
  disk_full = true;
  take(kAtOnce, "ann");
  disk_full = false;
  pass(5s), renew("ann");
  ASSERT_EQ(written.size(), 1U);
  EXPECT_EQ(written[0].user, "ann");
}

TEST_F(SeatRecorderTest, AnAwayStoreIsNobodysSeatAndNobodysLeaving) {
  take(kNamed, "ann");
  store.away = true;
  take(kNamed, "bob");
  release(kNamed, "ann");
  renew("ann");
  EXPECT_EQ(written.size(), 1U);
}

TEST_F(SeatRecorderTest, MembersCountWhenTheInvitationIsSettledAndUntilTheyAreRemoved) {
  const std::string one = member_of({"acme", "101"}), two = member_of({"acme", "102"});
  recorder.invite(kPortal, "i1", {one, two}, [](auto&&) {});
  EXPECT_TRUE(written.empty());
  using Outcome = Settlement::Outcome;
  recorder.settle(kPortal, "i1", {{Outcome::member, one}, {Outcome::refused, two}}, [](auto&&) {});
  ASSERT_EQ(written.size(), 1U);
  EXPECT_EQ(written[0].user, "101");
  EXPECT_EQ(written[0].until_ms, SeatEntry::kNoEnd);
  recorder.settle(kPortal, "", {{Outcome::removed, one}}, [](auto&&) {});
  ASSERT_EQ(written.size(), 2U);
  EXPECT_EQ(written[1].until_ms, written[1].time_ms);
}

}  // namespace
}  // namespace tollgate::seats
