#include "metering/seats/ledger.h"

#include <gtest/gtest.h>

#include <deque>
#include <set>

#include "metering/base/random.h"
#include "metering/seats/model.h"

namespace tollgate::seats {
namespace {

using namespace std::chrono_literals;
using Status = Outcome::Status;

const Pool kNamed{.id = "self_service", .kind = Kind::named, .capacity = 2, .lease = 30s};
const Pool kAtOnce{.id = "concurrent", .kind = Kind::concurrent, .capacity = 2, .idle = 120s, .lease = 30s};

// The model as a store on the other end of a line: commands arrive when the test says so, answers too, or never.
class Line final : public SeatStore {
 public:
  explicit Line(SeatModel& model) : model_(model) {}

  void take(const Pool& pool, std::string member, std::string client,
            std::function<void(Result<TakeReply>&&)> done) override {
    ++takes;
    send([this, pool, member, client] { return model_.take(pool, member, client); }, std::move(done));
  }
  void leave(const Pool& pool, std::string member, std::vector<std::string> clients,
             std::function<void(Result<bool>&&)> done) override {
    send([this, pool, member, clients] { return model_.leave(pool, member, clients); }, std::move(done));
  }
  void renew(const Pool& pool, std::vector<Renewal> renewals,
             std::function<void(Result<RenewReply>&&)> done) override {
    ++renewal_commands;
    renewed += renewals.size();
    send([this, pool, renewals] { return model_.renew(pool, renewals); }, std::move(done));
  }
  void invite(const Pool& pool, std::string id, std::vector<std::string> members,
              std::function<void(Result<InviteReply>&&)> done) override {
    send([this, pool, id, members] { return model_.invite(pool, id, members); }, std::move(done));
  }
  void settle(const Pool& pool, std::string id, std::vector<Settlement> settlements,
              std::function<void(Result<void>&&)> done) override {
    send([this, pool, id, settlements] { return model_.settle(pool, id, settlements), Result<void>{}; },
         std::move(done));
  }
  void release(const Pool& pool, std::string member, std::function<void(Result<bool>&&)> done) override {
    send([this, pool, member] { return model_.release(pool, member); }, std::move(done));
  }
  void list(const Pool& pool, std::uint64_t offset, std::uint64_t count, std::string member,
            std::function<void(Result<Page>&&)> done) override {
    send([this, pool, offset, count, member] { return model_.list(pool, offset, count, member); },
         std::move(done));
  }
  void arrive() {
    std::deque<std::function<void()>> now = std::exchange(waiting_, {});
    for (auto& one : now) one();
  }

  bool away = false, slow = false;
  int takes = 0, renewal_commands = 0;
  std::size_t renewed = 0;

 private:
  template <class Command, class Done>
  void send(Command command, Done done) {
    auto run = [this, command = std::move(command), done = std::move(done)] {
      if (away) return done(fail(Origin::store, "away", true));
      done(command());
    };
    if (slow)
      waiting_.push_back(std::move(run));
    else
      run();
  }
  SeatModel& model_;
  std::deque<std::function<void()>> waiting_;
};

class Worker {
 public:
  Worker(SeatModel& model, const MonotonicTime& now, SeatLedgerOptions options = {})
      : line(model), ledger(line, [&now] { return now; }, options) {}

  // nullopt: still waiting.
  std::optional<Outcome> call(const Pool& pool, std::string_view user, Milliseconds hold = 0ms,
                              ClientId client = kNoClient) {
    auto later = std::make_shared<std::optional<Outcome>>();
    auto at_once =
        ledger.take(pool, {"acme", user}, [later](Outcome&& outcome) { *later = outcome; }, hold, client);
    return at_once ? at_once : *later;
  }

  Line line;
  SeatLedger ledger;
};

class SeatLedgerTest : public ::testing::Test {
 protected:
  SeatLedgerTest() {
    model.set_run("first");
    model.set_now(store_now);
    model.renew(kAtOnce, {});  // the fence of a pool that was never seen
    pass(30s);
    model.renew(kAtOnce, {});
  }
  void pass(Milliseconds time) {
    now += time;
    store_now += time;
    model.set_now(store_now);
  }
  SeatModel model;
  MonotonicTime now{1'000s};
  Milliseconds store_now{1'763'820'000'000};
};

TEST_F(SeatLedgerTest, FirstCallTakesASeatAndTheNextOnesAskNobody) {
  Worker worker(model, now);
  auto first = worker.call(kNamed, "ann");
  ASSERT_TRUE(first);
  EXPECT_EQ(first->status, Status::held);
  EXPECT_TRUE(first->taken);
  for (int i = 0; i < 100; ++i) {
    auto next = worker.call(kNamed, "ann");
    EXPECT_EQ(next->status, Status::held);
    EXPECT_FALSE(next->taken);
  }
  EXPECT_EQ(worker.line.takes, 1);
}

TEST_F(SeatLedgerTest, ASessionsSeatIsHeldToItsEndWithoutACall) {
  Worker worker(model, now), other(model, now);
  EXPECT_TRUE(worker.call(kAtOnce, "ann", 600s)->taken);
  EXPECT_TRUE(worker.call(kAtOnce, "bob", 600s)->taken);
  pass(599s);
  worker.ledger.tick();
  EXPECT_EQ(other.call(kAtOnce, "cid", 600s)->status, Status::full);
  EXPECT_EQ(other.call(kAtOnce, "cid", 600s)->retry_after, 1s);
  pass(1s);
  EXPECT_TRUE(other.call(kAtOnce, "cid", 600s)->taken);
}

TEST_F(SeatLedgerTest, ASessionThatIsMadeLongerKeepsItsSeatFromItsNextCallOn) {
  Worker worker(model, now), other(model, now);
  EXPECT_TRUE(worker.call(kAtOnce, "ann", 20s)->taken);
  EXPECT_TRUE(worker.call(kAtOnce, "bob", 600s)->taken);
  pass(15s);
  EXPECT_EQ(worker.call(kAtOnce, "ann", 600s)->status, Status::held);
  EXPECT_EQ(worker.line.takes, 3) << "the store is told before the seat ends there";
  pass(10s);
  EXPECT_EQ(other.call(kAtOnce, "cid", 600s)->status, Status::full);
  EXPECT_EQ(worker.call(kAtOnce, "ann", 590s)->status, Status::held);
  EXPECT_EQ(worker.line.takes, 3);
}

TEST_F(SeatLedgerTest, WhoLeavesFreesTheSeatAndMayTakeItAgain) {
  Worker worker(model, now), other(model, now);
  EXPECT_TRUE(worker.call(kAtOnce, "ann", 600s)->taken);
  EXPECT_TRUE(worker.call(kAtOnce, "bob", 600s)->taken);
  EXPECT_EQ(worker.call(kAtOnce, "cid", 600s)->status, Status::full);
  worker.ledger.leave(kAtOnce, {"acme", "ann"}, {});
  EXPECT_TRUE(worker.call(kAtOnce, "cid", 600s)->taken) << "what was refused is forgotten too";
  EXPECT_EQ(worker.call(kAtOnce, "ann", 600s)->status, Status::full);
  worker.ledger.leave(kAtOnce, {"acme", "cid"}, {});
  EXPECT_TRUE(other.call(kAtOnce, "ann", 600s)->taken);
}

TEST_F(SeatLedgerTest, ALogOutFreesTheSeatWhenTheUsersLastClientIsGone) {
  Worker worker(model, now), other(model, now);
  EXPECT_TRUE(worker.call(kAtOnce, "ann", 600s, 11)->taken);
  EXPECT_FALSE(other.call(kAtOnce, "ann", 600s, 22)->taken) << "one a user";
  EXPECT_TRUE(worker.call(kAtOnce, "bob", 600s, 33)->taken);
  worker.ledger.leave(kAtOnce, {"acme", "ann"}, {11});
  EXPECT_EQ(worker.call(kAtOnce, "cid", 600s, 44)->status, Status::full) << "her other client has it";
  EXPECT_EQ(other.call(kAtOnce, "ann", 600s, 22)->status, Status::held);
  other.ledger.leave(kAtOnce, {"acme", "ann"}, {22});
  EXPECT_TRUE(other.call(kAtOnce, "cid", 600s, 44)->taken);
}

TEST_F(SeatLedgerTest, WhoLogsInAnewIsBelievedByNoWorkerBeforeTheStore) {
  Worker worker(model, now), other(model, now);
  EXPECT_TRUE(worker.call(kAtOnce, "ann", 600s, 11)->taken);
  EXPECT_FALSE(other.call(kAtOnce, "ann", 600s, 11)->taken);
  worker.ledger.leave(kAtOnce, {"acme", "ann"}, {11});
  EXPECT_TRUE(worker.call(kAtOnce, "bob", 600s, 33)->taken);
  EXPECT_TRUE(worker.call(kAtOnce, "cid", 600s, 44)->taken);
  EXPECT_EQ(other.call(kAtOnce, "ann", 600s, 22)->status, Status::full)
      << "this worker has not heard of the log-out, and asks all the same";
}

TEST_F(SeatLedgerTest, AClientAsksOnceAndAgainBeforeItsNoteEnds) {
  Worker worker(model, now);
  worker.call(kAtOnce, "ann", 60s, 11);
  worker.call(kAtOnce, "ann", 60s, 22);
  EXPECT_EQ(worker.line.takes, 2);
  for (int i = 0; i < 9; ++i) {
    pass(5s);
    worker.ledger.tick();
    EXPECT_EQ(worker.call(kAtOnce, "ann", 60s, 11)->status, Status::held);
  }
  EXPECT_EQ(worker.line.takes, 2);
  pass(6s);
  worker.ledger.tick();
  worker.call(kAtOnce, "ann", 60s, 11);
  EXPECT_EQ(worker.line.takes, 3) << "its note would have ended in 9 s";
  worker.ledger.leave(kAtOnce, {"acme", "ann"}, {22});
  Worker other(model, now);
  EXPECT_FALSE(other.call(kAtOnce, "ann", 60s, 55)->taken) << "it is hers still";
}

TEST_F(SeatLedgerTest, ASessionThatIsAboutToEndDoesNotAskWithEachCall) {
  Worker worker(model, now);
  worker.call(kAtOnce, "ann", 40s, 11);
  for (int left = 39; left > 0; --left) {
    pass(1s);
    worker.ledger.tick();
    EXPECT_EQ(worker.call(kAtOnce, "ann", Milliseconds(left * 1'000), 11)->status, Status::held);
  }
  EXPECT_EQ(worker.line.takes, 1);
}

TEST_F(SeatLedgerTest, ClientsThatWaitForOneAnswerAreAllNoted) {
  Worker worker(model, now);
  worker.line.slow = true;
  for (ClientId client : {11, 22, 33}) EXPECT_FALSE(worker.call(kAtOnce, "ann", 600s, client));
  for (int i = 0; i < 4; ++i) worker.line.arrive();
  EXPECT_EQ(worker.line.takes, 3);
  worker.line.slow = false;
  worker.ledger.leave(kAtOnce, {"acme", "ann"}, {11, 22});
  Worker other(model, now);
  EXPECT_FALSE(other.call(kAtOnce, "ann", 600s, 44)->taken) << "the third one has it";
  other.ledger.leave(kAtOnce, {"acme", "ann"}, {33, 44});
  EXPECT_TRUE(other.call(kAtOnce, "ann", 600s, 55)->taken);
}

TEST_F(SeatLedgerTest, CallsThatAskAtTheSameTimeAreOneQuestionAndOneOfThemTookTheSeat) {
  Worker worker(model, now);
  worker.line.slow = true;
  int held = 0, taken = 0;
  for (int i = 0; i < 10; ++i)
    EXPECT_FALSE(worker.ledger.take(kNamed, {"acme", "ann"}, [&](Outcome&& outcome) {
      held += outcome.status == Status::held ? 1 : 0;
      taken += outcome.taken ? 1 : 0;
    }));
  EXPECT_EQ(worker.line.takes, 1);
  worker.line.arrive();
  EXPECT_EQ(held, 10);
  EXPECT_EQ(taken, 1);
}

TEST_F(SeatLedgerTest, RefusalIsRepeatedFromMemoryUntilASeatMayBeFree) {
  Worker worker(model, now);
  EXPECT_TRUE(worker.call(kAtOnce, "ann")->taken);
  pass(115s);
  EXPECT_TRUE(worker.call(kAtOnce, "bob")->taken);
  auto refused = worker.call(kAtOnce, "cid");
  EXPECT_EQ(refused->status, Status::full);
  EXPECT_EQ(refused->retry_after, 5s);
  const int asked = worker.line.takes;
  pass(4s);
  EXPECT_EQ(worker.call(kAtOnce, "cid")->retry_after, 1s);
  EXPECT_EQ(worker.line.takes, asked);
  pass(1s);
  EXPECT_TRUE(worker.call(kAtOnce, "cid")->taken);
}

TEST_F(SeatLedgerTest, RefusalOfANamedSeatIsAskedForAgainAfterTenSeconds) {
  Worker worker(model, now);
  worker.call(kNamed, "ann");
  worker.call(kNamed, "bob");
  auto refused = worker.call(kNamed, "cid");
  EXPECT_EQ(refused->status, Status::full);
  EXPECT_EQ(refused->retry_after, 0ms);
  EXPECT_EQ(worker.line.takes, 3);
  model.release(kNamed, member_of({"acme", "ann"}));
  pass(9'999ms);
  EXPECT_EQ(worker.call(kNamed, "cid")->status, Status::full);
  pass(1ms);
  EXPECT_TRUE(worker.call(kNamed, "cid")->taken);
}

TEST_F(SeatLedgerTest, HolderWhoIsActiveKeepsTheSeatAndAnIdleOneLosesItAfterHisLastCall) {
  Worker worker(model, now);
  worker.ledger.configure({kAtOnce});
  worker.call(kAtOnce, "ann");
  worker.call(kAtOnce, "bob");
  for (int i = 0; i < 200; ++i) {
    pass(1s);
    worker.ledger.tick();
    EXPECT_EQ(worker.call(kAtOnce, "ann")->status, Status::held);
  }
  EXPECT_EQ(worker.line.takes, 2) << "renewals keep a seat, questions do not";
  EXPECT_EQ(model.list(kAtOnce, 0, 9, "").used, 1U) << "bob made no call for more than the idle time";
  // The last call, not the last renewal, is what the idle time counts from.
  pass(5s);
  worker.ledger.tick();
  pass(114s);
  EXPECT_EQ(model.list(kAtOnce, 0, 9, "").used, 1U);
  pass(1s);
  EXPECT_EQ(model.list(kAtOnce, 0, 9, "").used, 0U);
}

TEST_F(SeatLedgerTest, CutOffFromTheStoreAConcurrentSeatIsBelievedForALeaseAndANamedOneOn) {
  Worker worker(model, now);
  worker.ledger.configure({kAtOnce, kNamed});
  worker.call(kAtOnce, "ann");
  worker.call(kNamed, "ann");
  worker.line.away = true;
  for (int i = 0; i < 29; ++i) {
    pass(1s);
    worker.ledger.tick();
    EXPECT_EQ(worker.call(kAtOnce, "ann")->status, Status::held);
    EXPECT_EQ(worker.call(kNamed, "ann")->status, Status::held);
  }
  pass(1s);
  worker.ledger.tick();
  EXPECT_EQ(worker.call(kAtOnce, "ann")->status, Status::unavailable);
  for (int i = 0; i < 600; ++i) {
    pass(1s);
    worker.ledger.tick();
    EXPECT_EQ(worker.call(kNamed, "ann")->status, Status::held);
  }
  EXPECT_EQ(worker.call(kNamed, "bob")->status, Status::unavailable);
  worker.line.away = false;
  EXPECT_EQ(worker.call(kAtOnce, "ann")->status, Status::held);
}

TEST_F(SeatLedgerTest, AnswerIsCertainFromTheMomentOfTheQuestionNotOfTheAnswer) {
  Worker worker(model, now);
  worker.line.slow = true;
  EXPECT_FALSE(worker.call(kAtOnce, "ann"));
  worker.line.slow = false;
  pass(29s);
  worker.line.arrive();
  pass(1s);
  worker.line.away = true;
  EXPECT_EQ(worker.call(kAtOnce, "ann")->status, Status::unavailable);
}

TEST_F(SeatLedgerTest, ReleasedHolderIsOutWithTheNextRenewal) {
  Worker worker(model, now);
  worker.ledger.configure({kNamed});
  worker.call(kNamed, "ann");
  worker.call(kNamed, "bob");
  worker.ledger.tick();
  model.release(kNamed, member_of({"acme", "ann"}));
  EXPECT_TRUE(Worker(model, now).call(kNamed, "cid")->taken);
  EXPECT_EQ(worker.call(kNamed, "ann")->status, Status::held) << "nobody has told this proxy";
  pass(5s);
  worker.ledger.tick();
  EXPECT_EQ(worker.call(kNamed, "ann")->status, Status::full);
  EXPECT_EQ(worker.call(kNamed, "bob")->status, Status::held);
}

TEST_F(SeatLedgerTest, ForgottenHolderAsksAtOnceAndSoDoWhoWereRefused) {
  Worker worker(model, now);
  worker.call(kNamed, "ann");
  worker.call(kNamed, "bob");
  EXPECT_EQ(worker.call(kNamed, "cid")->status, Status::full);
  model.release(kNamed, member_of({"acme", "ann"}));
  worker.ledger.forget(kNamed, {"acme", "ann"});
  EXPECT_TRUE(worker.call(kNamed, "cid")->taken);
  EXPECT_EQ(worker.call(kNamed, "ann")->status, Status::full);
}

TEST_F(SeatLedgerTest, NamedSeatsComeBackToAStoreThatHasLostEverythingAlsoOfThoseWhoAreNotActive) {
  Worker worker(model, now);
  const Pool pool{.id = "self_service", .kind = Kind::named, .capacity = 1'000, .lease = 30s};
  worker.ledger.configure({pool});
  for (int i = 0; i < 600; ++i) worker.call(pool, "user" + std::to_string(i));
  for (int i = 0; i < 100; ++i) {  // all of them silent for long
    pass(5s);
    worker.ledger.tick();
  }
  model.lose_everything();
  pass(5s);
  for (int i = 0; i < 10; ++i) worker.ledger.tick();
  EXPECT_EQ(model.list(pool, 0, 0, "").used, 600U);
}

TEST_F(SeatLedgerTest, SeatThatAFailoverForgotIsNobodyElsesWhileItIsBelievedIn) {
  Worker ann(model, now), bob(model, now);
  const Pool one{.id = "concurrent", .kind = Kind::concurrent, .capacity = 1, .idle = 120s, .lease = 30s};
  const SeatModel replica = model;
  EXPECT_TRUE(ann.call(one, "ann")->taken);
  model = replica;
  model.set_run("second");
  ann.line.away = true;
  int ann_served = 0;
  bool bob_served = false;
  for (int second = 0; second < 40; ++second) {
    const bool served = ann.call(one, "ann")->status == Status::held;
    ann_served += served ? 1 : 0;
    bob_served = bob.call(one, "bob")->status == Status::held;
    EXPECT_FALSE(served && bob_served) << second;
    pass(1s);
  }
  EXPECT_EQ(ann_served, 30);
  EXPECT_TRUE(bob_served);
}

TEST_F(SeatLedgerTest, SeatThatRanOutWhileTheProxyWasCutOffIsNotClaimedFromAServerThatTookOver) {
  Worker ann(model, now), bob(model, now);
  const Pool one{.id = "concurrent", .kind = Kind::concurrent, .capacity = 1, .idle = 120s, .lease = 30s};
  ann.ledger.configure({one});
  EXPECT_TRUE(ann.call(one, "ann")->taken);
  ann.line.away = true;
  pass(29s);
  EXPECT_EQ(ann.call(one, "ann")->status, Status::held) << "a call that the store does not hear of";
  ann.ledger.tick();
  pass(92s);
  EXPECT_TRUE(bob.call(one, "bob")->taken);
  model.set_run("second");
  ann.line.away = false;
  ann.ledger.tick();
  ASSERT_EQ(model.list(one, 0, 9, "").seats.size(), 1U);
  EXPECT_EQ(model.list(one, 0, 9, "").seats[0].member, member_of({"acme", "bob"}));
}

TEST_F(SeatLedgerTest, SeatThatAFailoverForgotIsKeptByItsActiveHolder) {
  Worker ann(model, now), bob(model, now);
  const Pool one{.id = "concurrent", .kind = Kind::concurrent, .capacity = 1, .idle = 120s, .lease = 30s};
  ann.ledger.configure({one});
  const SeatModel replica = model;
  EXPECT_TRUE(ann.call(one, "ann")->taken);
  model = replica;
  model.set_run("second");
  for (int second = 0; second < 100; ++second) {
    EXPECT_EQ(ann.call(one, "ann")->status, Status::held);
    EXPECT_NE(bob.call(one, "bob")->status, Status::held);
    pass(1s);
    model.set_now(store_now);
    ann.ledger.tick();
  }
  EXPECT_EQ(bob.call(one, "bob")->status, Status::full);
}

TEST_F(SeatLedgerTest, MemoryIsBoundedAndLapsedUsersGoFirst) {
  const Pool pool{
      .id = "concurrent", .kind = Kind::concurrent, .capacity = 100'000, .idle = 120s, .lease = 30s};
  model.renew(pool, {});
  Worker worker(model, now, {.remembered = 100});
  worker.ledger.configure({pool});
  for (int i = 0; i < 1'000; ++i) {
    worker.call(pool, "user" + std::to_string(i));
    pass(1s);
    worker.ledger.tick();
  }
  EXPECT_LE(worker.ledger.status()[0].remembered, 100U);
  EXPECT_GT(worker.ledger.status()[0].remembered, 20U);
}

TEST_F(SeatLedgerTest, AllActiveHoldersAreRenewedInBatchesOfOneRound) {
  const Pool pool{
      .id = "concurrent", .kind = Kind::concurrent, .capacity = 2'000, .idle = 120s, .lease = 30s};
  Worker worker(model, now);
  worker.ledger.configure({pool});
  for (int i = 0; i < 1'000; ++i) worker.call(pool, "user" + std::to_string(i));
  worker.ledger.tick();
  pass(5s);
  for (int i = 0; i < 700; ++i) worker.call(pool, "user" + std::to_string(i));
  worker.line.renewal_commands = 0;
  worker.ledger.tick();
  EXPECT_EQ(worker.line.renewed, 700U) << "who made no call since is not renewed";
  EXPECT_EQ(worker.line.renewal_commands, 3);
}

TEST_F(SeatLedgerTest, PoolsThatAreConfiguredNoMoreAreForgotten) {
  Worker worker(model, now);
  worker.ledger.configure({kNamed, kAtOnce});
  worker.ledger.configure({kNamed});
  ASSERT_EQ(worker.ledger.status().size(), 1U);
  EXPECT_EQ(worker.ledger.status()[0].pool, kNamed);
}

TEST_F(SeatLedgerTest, WhoWaitsAtTheEndIsToldSoAndLaterAnswersAreDropped) {
  Line line(model);
  line.slow = true;
  std::vector<Status> told;
  {
    SeatLedger ledger(line, [this] { return now; }, {});
    ledger.configure({kNamed});
    ledger.take(kNamed, {"acme", "ann"}, [&](Outcome&& outcome) { told.push_back(outcome.status); });
    ledger.tick();
    EXPECT_TRUE(told.empty());
  }
  EXPECT_EQ(told, std::vector{Status::unavailable});
  line.arrive();
  EXPECT_EQ(told.size(), 1U);
}

// Workers that are killed, users that come and go, links that break, a store whose replica takes over without the last
// moments. In the end everybody is asked: who would be served now?
struct History {
  std::size_t holders = 0;  // users
  int admitted = 0;
  std::uint64_t used_after_idle = 0;
};
History run_history(std::uint64_t seed, bool server_tells_its_run) {
  const Pool pool{.id = "concurrent", .kind = Kind::concurrent, .capacity = 4, .idle = 60s, .lease = 12s};
  Random random(seed);
  SeatModel store;
  Milliseconds store_now{1'763'820'000'000};
  MonotonicTime now{1'000s};
  int runs = 0;
  store.set_now(store_now);
  store.set_run("0");
  std::vector<std::unique_ptr<Worker>> workers;
  auto start = [&] {
    workers.push_back(std::make_unique<Worker>(store, now));
    workers.back()->ledger.configure({pool});
  };
  for (int i = 0; i < 4; ++i) start();
  SeatModel replica = store;
  History history;
  auto user = [&] { return "user" + std::to_string(random.below(12)); };
  for (std::uint64_t step = 0, steps = 50 + random.below(250); step < steps; ++step) {
    const Milliseconds time(100 + random.below(400));
    now += time;
    store.set_now(store_now += time);
    if (random.below(25) == 0) replica = store;
    if (random.below(50) == 0) {
      store = replica;
      if (server_tells_its_run) store.set_run(std::to_string(++runs));
      store.set_now(store_now);
    }
    if (random.below(100) == 0) {
      workers.erase(workers.begin() + static_cast<std::ptrdiff_t>(random.below(workers.size())));
      start();
    }
    for (auto& worker : workers) {
      if (random.below(40) == 0) worker->line.away = !worker->line.away;
      worker->ledger.tick();
      if (worker->call(pool, user())->status == Status::held) ++history.admitted;
    }
  }
  std::set<std::string> holders;
  for (auto& worker : workers) {
    worker->line.away = true;  // only memory answers
    for (int i = 0; i < 12; ++i)
      if (worker->call(pool, "user" + std::to_string(i))->status == Status::held)
        holders.insert("user" + std::to_string(i));
  }
  history.holders = holders.size();
  store.set_now(store_now + 60s);
  history.used_after_idle = store.list(pool, 0, 0, "").used;
  return history;
}

using Fate = Settlement::Outcome;

struct Invited : ::testing::Test {
  bool invite(const std::string& id, std::vector<std::string> members) {
    return !model.invite(kNamed, id, members).full;
  }
  void settle(const std::string& id, Fate fate, const std::string& member) {
    model.settle(kNamed, id, {{fate, member}});
  }
  std::uint64_t used() { return model.list(kNamed, 0, 0, "").used; }
  SeatModel model;
};

TEST_F(Invited, AllOfAnInvitationGetASeatOrNone) {
  EXPECT_TRUE(invite("a", {"x"}));
  EXPECT_FALSE(invite("b", {"y", "z"}));
  EXPECT_EQ(used(), 1U);
  EXPECT_TRUE(invite("b", {"x", "y"})) << "who has a seat needs no other";
  EXPECT_EQ(used(), 2U);
  EXPECT_TRUE(invite("c", {"x", "y"}));
}

TEST_F(Invited, MemberWhomSeveralInvitationsWantIsFreeWhenAllHaveLost) {
  invite("a", {"x"});
  invite("b", {"x"});
  settle("a", Fate::refused, "x");
  EXPECT_EQ(used(), 1U) << "the other may still succeed";
  settle("a", Fate::refused, "x");
  EXPECT_EQ(used(), 1U) << "told twice";
  settle("b", Fate::refused, "x");
  EXPECT_EQ(used(), 0U);
  invite("a", {"x"});
  invite("b", {"x"});
  settle("a", Fate::member, "x");
  settle("b", Fate::refused, "x");
  EXPECT_EQ(used(), 1U) << "a member is not undone by a later refusal";
  settle("c", Fate::removed, "x");
  EXPECT_EQ(used(), 0U);
}

TEST_F(Invited, ReleasedByAnAdministratorIsAsIfHeHadNeverBeenInvited) {
  invite("a", {"x"});
  model.release(kNamed, "x");
  invite("b", {"x"});
  settle("a", Fate::refused, "x");
  EXPECT_EQ(used(), 1U) << "b is under way";
  settle("b", Fate::refused, "x");
  EXPECT_EQ(used(), 0U);
}

TEST(SeatLedgerInvitations, AreAnsweredOnceAlsoWhenTheStoreIsAwayOrTheLedgerEnds) {
  SeatModel model;
  const MonotonicTime now{Seconds(100)};
  std::vector<Outcome> answers;
  const auto keep = [&](Outcome&& outcome) { answers.push_back(outcome); };
  {
    Worker worker(model, now);
    const std::string first = worker.ledger.new_invitation();
    EXPECT_NE(first, worker.ledger.new_invitation());
    worker.ledger.invite(kNamed, first, {"x"}, keep);
    ASSERT_EQ(answers.size(), 1U);
    EXPECT_EQ(answers[0].status, Status::held);
    EXPECT_TRUE(answers[0].taken);
    worker.ledger.invite(kNamed, "other", {"x", "y", "z"}, keep);
    EXPECT_EQ(answers.at(1).status, Status::full);
    worker.line.away = true;
    worker.ledger.invite(kNamed, "third", {"y"}, keep);
    EXPECT_EQ(answers.at(2).status, Status::unavailable);
    worker.line.slow = true;
    worker.ledger.invite(kNamed, "fourth", {"y"}, keep);
    worker.ledger.settle(kNamed, first, {{Fate::refused, "x"}}, keep);
    EXPECT_EQ(answers.size(), 3U);
  }
  ASSERT_EQ(answers.size(), 5U) << "the end answers those who wait";
  EXPECT_EQ(answers[3].status, Status::unavailable);
}

TEST(SeatHistories, NeverMoreHoldersThanSeatsWhateverFailsAndAllAreFreeAfterTheIdleTime) {
  int admitted = 0, all_taken = 0;
  for (std::uint64_t seed = 1; seed <= 1000; ++seed) {
    const History history = run_history(seed, true);
    ASSERT_LE(history.holders, 4U) << "seed " << seed;
    ASSERT_EQ(history.used_after_idle, 0U) << "seed " << seed;
    admitted += history.admitted;
    all_taken += history.holders == 4 ? 1 : 0;
  }
  EXPECT_GT(admitted, 50'000);
  EXPECT_GT(all_taken, 200);
}

TEST(SeatHistories, WithoutTheFenceTheSameHistoriesHaveTooManyHolders) {
  int crowded = 0;
  for (std::uint64_t seed = 1; seed <= 1000; ++seed) crowded += run_history(seed, false).holders > 4 ? 1 : 0;
  EXPECT_GT(crowded, 20);
}

}  // namespace
}  // namespace tollgate::seats
