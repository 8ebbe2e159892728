// Ledgers over engines and one store: who waits as long as a refusal says is admitted, on whichever proxy.
#include "metering/base/random.h"
#include "metering/quota/lease_ledger.h"
#include "tests/metering/quota/lease_rig.h"

namespace tollgate::quota {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Status = ChargeOutcome::Status;

// The engine of the same proxy owns all partitions.
class OwnEngine final : public OwnerPort {
 public:
  explicit OwnEngine(Proxy& proxy) : proxy_(proxy) {}

  void request(AccountRef account, std::uint32_t units, std::uint64_t rule_limit,
               LeaseEngine::Done done) override {
    proxy_.engine->request(std::move(account), units, rule_limit, now(), std::move(done));
  }
  void prefetch(AccountRef account) override { proxy_.engine->prefetch(std::move(account), now()); }
  void limit_changed(AccountRef account, std::uint64_t rule_limit) override {
    proxy_.engine->limit_changed(std::move(account), rule_limit, now());
  }
  void take_back(AccountRef account, std::int64_t bucket, std::uint32_t units) override {
    proxy_.engine->take_back(std::move(account), bucket, units, now());
  }
  void settle(std::string, std::function<void(bool)> done) override { done(false); }
  bool store_up(unsigned) const override { return true; }
  void read(std::vector<AccountCharge>,
            std::function<void(Result<std::vector<LeaseState>>&&)> done) override {
    done(fail(Origin::store, "not read here", true));
  }
  void list(std::string, std::string, Milliseconds, Milliseconds, Ledger::ListDone done) override {
    done(fail(Origin::store, "not read here", true));
  }
  std::shared_ptr<void> timer(Milliseconds, std::function<void()>) override {
    return std::make_shared<int>();  // the store always answers
  }

 private:
  MonotonicTime now() const { return proxy_.world.now; }
  Proxy& proxy_;
};

class Trial {
 public:
  explicit Trial(std::uint64_t seed) : random_(seed) {
    for (int i = 0; i < 2; ++i) {
      Proxy& proxy = world_.add();
      owners_.push_back(std::make_unique<OwnEngine>(proxy));
      ledgers_.push_back(std::make_unique<LeaseLedger>(
          *proxy.table, *owners_.back(), [this] { return world_.now; }, LeaseLedgerOptions{}));
    }
    const bool same_subject = random_.one_in(2);
    charges_ = {of(kAnn, "short", 1 + random_.below(5), seconds(2)),
                of(same_subject ? kAnn : kBob, "long", 1 + random_.below(8), seconds(4 + random_.below(20)))};
  }

  void go(int steps) {
    for (int step = 0; step < steps; ++step) {
      const ChargeOutcome outcome = charge();
      ASSERT_NE(outcome.status, Status::unavailable) << outcome.error;
      if (outcome.status == Status::exceeded) {
        ++refused;
        Milliseconds wait{0};
        for (const std::uint32_t index : outcome.violated)
          wait = std::max(wait, outcome.states[index].admitted_after);
        if (outcome.violated.size() == 2) ++named_both;
        world_.advance(wait);
        ASSERT_EQ(charge().status, Status::admitted)
            << "step " << step << ", after " << wait.count() << " ms";
      }
      world_.advance(milliseconds(random_.below(600)));
    }
  }

  int refused = 0, named_both = 0;

 private:
  static AccountCharge of(const std::string& subject, std::string field, std::uint64_t limit,
                          Milliseconds window) {
    return {{subject, std::move(field)}, limit, window, default_bucket(window), 1, 0, false};
  }
  ChargeOutcome charge() {
    ChargeOutcome said;
    bool over = false;
    ledgers_[random_.below(ledgers_.size())]->charge(charges_, [&](ChargeOutcome&& outcome) {
      said = std::move(outcome);
      over = true;
    });
    for (int waited = 0; waited < 50 && !over; ++waited) world_.advance(milliseconds(5), milliseconds(5));
    EXPECT_TRUE(over);
    return said;
  }

  World world_;
  Random random_;
  std::vector<std::unique_ptr<OwnEngine>> owners_;
  std::vector<std::unique_ptr<LeaseLedger>> ledgers_;
  std::vector<AccountCharge> charges_;
};

TEST(LeaseLedgerRandom, WhoWaitsAsLongAsARefusalSaysIsAdmitted) {
  int refused = 0, named_both = 0;
  for (std::uint64_t seed = 1; seed <= 60 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Trial trial(seed);
    trial.go(60);
    refused += trial.refused;
    named_both += trial.named_both;
  }
  EXPECT_GT(refused, 300);
  EXPECT_GT(named_both, 30);
}

}  // namespace
}  // namespace tollgate::quota
