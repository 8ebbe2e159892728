// Random faults against a plain list of admissions: never more than the limit in a window, and after healing and
// draining the store has counted exactly what was admitted.
#include <deque>
#include <iostream>

#include <gtest/gtest-spi.h>

#include "metering/base/random.h"
#include "tests/metering/quota/lease_rig.h"

namespace tollgate::quota {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;

struct Faults {
  bool losses = true;    // of what the store knew: flush, or an older copy
  bool restarts = true;  // kill -9 of proxies
  Milliseconds window = minutes(60);
};

class Trial {
 public:
  Trial(std::uint64_t seed, LeaseOptions options, Faults faults) : random_(seed), faults_(faults) {
    options.session_ttl = minutes(5);
    options.ping_interval = seconds(30);
    options.flush_interval = minutes(4);
    options.lease_max = 20;
    for (int i = 0; i < 3; ++i) world_.add(options);
    limit_ = 5 + random_.below(60);
  }

  void go(int steps) {
    for (int step = 0; step < steps; ++step) {
      for (auto& proxy : world_.proxies)
        for (std::uint64_t calls = random_.below(3); calls > 0; --calls) call(*proxy);
      fault();
      world_.advance(Milliseconds(1 + random_.below(20'000)), seconds(5));
    }
  }
  void heal() {
    for (auto& proxy : world_.proxies) {
      proxy->down();
      proxy->up();
      down_[proxy.get()] = false;
    }
    world_.deaf = false;
    world_.advance(minutes(1), seconds(1));
    for (auto& proxy : world_.proxies) {
      bool settled = false;
      proxy->engine->drain(world_.now, [&](bool all) { settled = all; });
      world_.advance(seconds(20), seconds(1));
      EXPECT_TRUE(settled);
    }
  }
  std::uint64_t live() const {
    std::uint64_t count = 0;
    for (const Milliseconds at : admissions_) count += at + faults_.window > world_.clock ? 1 : 0;
    return count;
  }
  // Most admissions in any window.
  std::uint64_t most() const {
    std::uint64_t most = 0;
    for (std::size_t last = 0, first = 0; last < admissions_.size(); ++last) {
      while (admissions_[first] + faults_.window <= admissions_[last]) ++first;
      most = std::max<std::uint64_t>(most, last - first + 1);
    }
    return most;
  }
  StoreModel::Sums sums() { return world_.sums("hourly", faults_.window); }
  std::uint64_t limit() const { return limit_; }

 private:
  void call(Proxy& proxy) {
    const AccountRef account = proxy.account("hourly", faults_.window);
    const std::uint64_t before = proxy.admitted;
    proxy.call(account, limit_);
    if (proxy.admitted > before) admissions_.push_back(world_.clock);
    while (!admissions_.empty() && admissions_.front() + 3 * faults_.window < world_.clock)
      admissions_.pop_front();
    EXPECT_LE(most(), limit_);
  }
  void fault() {
    Proxy& proxy = *world_.proxies[random_.below(world_.proxies.size())];
    switch (random_.below(40)) {
      case 0:
        proxy.down();
        down_[&proxy] = true;
        break;
      case 1:
      case 2:
      case 3:
        if (std::exchange(down_[&proxy], false)) proxy.up();
        break;
      case 4:
        proxy.drop_replies = 1;
        break;
      case 5:
        if (faults_.restarts) {
          proxy.restart();
          down_[&proxy] = false;
        }
        break;
      case 6:
        if (faults_.losses) lose(StoreModel(world_.store), true);
        break;
      case 7:
        if (faults_.losses && copy_) lose(*copy_, false);
        break;
      case 8:
        copy_ = std::make_unique<StoreModel>(world_.store);
        break;
      case 9:
        world_.deaf = !world_.deaf;
        break;
      case 10:  // a ghost of something said long ago
        if (!proxy.history.empty()) proxy.arrive(proxy.history[random_.below(proxy.history.size())], false);
        break;
      case 11:
        if (random_.one_in(3)) world_.advance(minutes(7), seconds(20));
        break;
      case 12:
        proxy.log.full = !proxy.log.full;
        break;
      default:
        proxy.log.full = false;
        break;
    }
  }
  // Everybody alive notices at the same moment: who is cut off for longer than the fence waits is a double failure.
  void lose(StoreModel with, bool all) {
    world_.store = std::move(with);
    if (all) world_.store.flush();
    world_.run_id = "run-" + std::to_string(++runs_);
    world_.deaf = false;
    for (auto& proxy : world_.proxies) {
      proxy->down();
      proxy->log.full = false;
      proxy->up();
      down_[proxy.get()] = false;
    }
  }

  World world_;
  Random random_;
  Faults faults_;
  std::uint64_t limit_ = 0;
  int runs_ = 1;
  std::deque<Milliseconds> admissions_;
  std::map<Proxy*, bool> down_;
  std::unique_ptr<StoreModel> copy_;
};

TEST(LeaseEngineRandom, NoFaultAdmitsOneTooManyOrLosesAUnit) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Trial run(seed, {}, {});
    run.go(150);
    run.heal();
    EXPECT_EQ(run.sums().lent, 0U);
    EXPECT_GE(run.sums().used, run.live());
    EXPECT_LE(run.sums().used, run.limit());
    if (testing::Test::HasFailure()) {
      std::cerr << "seed " << seed << "\n";
      break;
    }
  }
}

// Nothing leaves so long a window: used is everything that was ever admitted.
TEST(LeaseEngineRandom, AfterHealingEveryTotalEqualsTheTruth) {
  for (std::uint64_t seed = 101; seed <= 140; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Trial run(seed, {}, {.window = std::chrono::hours(24)});
    run.go(100);
    run.heal();
    EXPECT_EQ(run.sums().lent, 0U);
    EXPECT_EQ(run.sums().used, run.live());
    if (testing::Test::HasFailure()) {
      std::cerr << "seed " << seed << "\n";
      break;
    }
  }
}

TEST(LeaseEngineRandom, WithoutReplayTheLimitIsBroken) {
  LeaseOptions options;
  options.unsafe.no_replay = true;
  int broken = 0;
  for (std::uint64_t seed = 1; seed <= 30 && broken == 0; ++seed) {
    testing::TestPartResultArray failures;
    {
      testing::ScopedFakeTestPartResultReporter reporter(
          testing::ScopedFakeTestPartResultReporter::INTERCEPT_ONLY_CURRENT_THREAD, &failures);
      Trial run(seed, options, {});
      run.go(150);
    }
    broken += failures.size() > 0 ? 1 : 0;
  }
  EXPECT_GT(broken, 0);
}

}  // namespace
}  // namespace tollgate::quota
