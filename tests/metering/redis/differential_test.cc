// The scripts against the C++ twin: the same random history to RedisLedger and to MemoryLedger must give the
// same answers and the same bytes. Virtual time; the seed is printed with every failure.
#include <gtest/gtest.h>

#include "metering/base/random.h"
#include "metering/quota/memory_ledger.h"
#include "metering/quota/record.h"
#include "tests/metering/redis/support/redis_fixture.h"

namespace tollgate::redis {
namespace {

using quota::AccountCharge;
using quota::ChargeOutcome;
using quota::MemoryLedger;
using testing::account;
using namespace std::chrono_literals;

constexpr Milliseconds kStart{1'763'820'000'000};

class Differential {
 public:
  explicit Differential(std::uint64_t seed)
      : random_(seed), client_(server_, testing::use_virtual_time), memory_([this] { return now_; }) {
    // Windows and buckets of all sizes; few limits are small, so that most history is kept.
    accounts_ = {account("ann", "daily", 900, 1, 24h, 60s),
                 account("ann", "burst", 20, 1, 10s, 100ms),
                 account("bob", "daily", 700, 1, 24h, 60s),
                 account("bob", "monthly", 50'000, 1, 744h, 60s),
                 account("pool", "hourly", 250, 1, 1h, 2'500ms),
                 account("ann", "#|Case|read", quota::kUnlimited, 1, 24h, 60s)};
  }

  void step() {
    advance();
    std::uint64_t dice = random_.below(100);
    if (dice < 75)
      charge();
    else if (dice < 88)
      give_back();
    else if (dice < 92)
      override_limit();
    else if (dice < 94)
      change_bucket();
    else if (dice < 97)
      read();
    else
      list();
  }

  // Every record, byte for byte; those that no charge has rewritten since their last prune are pruned first.
  void compare_all_records() {
    for (const AccountCharge& one : accounts_) {
      std::string stored = server_.command({"HGET", one.key.subject_key, one.key.field}).text;
      auto window = quota::RollingWindow::decode(stored, one.bucket);
      ASSERT_TRUE(window.has_value()) << window.error().message;
      window->prune({one.window, one.bucket}, now_);
      memory_.read({one}, [](auto&&) {});
      ASSERT_EQ(window->encode(), memory_.record(one.key)) << one.key.subject_key << " " << one.key.field;
    }
  }
  std::uint64_t admitted() const { return admitted_; }
  std::uint64_t exceeded() const { return exceeded_; }
  std::uint64_t compared() const { return compared_; }

 private:
  void advance() {
    constexpr std::uint64_t kMs[] = {0, 1, 300, 5'000, 70'000, 400'000, 4'000'000, 40'000'000};
    std::uint64_t dice = random_.below(1000);
    std::uint64_t scale = dice < 200   ? 0
                          : dice < 400 ? 2
                          : dice < 600 ? 3
                          : dice < 900 ? 4
                          : dice < 985 ? 5
                          : dice < 998 ? 6
                                       : 7;
    now_ += Milliseconds(random_.below(kMs[scale] + 1));
    testing::set_clock(server_, now_);
  }

  void charge() {
    std::vector<AccountCharge> charges;
    std::size_t count = 1 + random_.below(3);
    for (std::size_t i = 0; i < count; ++i) {
      charges.push_back(accounts_[random_.below(accounts_.size())]);
      charges.back().units =
          static_cast<std::uint32_t>(random_.one_in(20) ? 1 + random_.below(300) : 1 + random_.below(4));
    }
    charge_on_both(charges);
  }

  void charge_on_both(const std::vector<AccountCharge>& charges) {
    ChargeOutcome mine = client_.charge(charges), theirs;
    memory_.charge(charges, [&](ChargeOutcome&& outcome) { theirs = std::move(outcome); });
    ASSERT_EQ(mine.status, theirs.status) << mine.error;
    ASSERT_EQ(mine.violated, theirs.violated);
    compare(mine.states, theirs.states);
    ASSERT_EQ(mine.receipt.items.size(), theirs.receipt.items.size());
    for (std::size_t i = 0; i < mine.receipt.items.size(); ++i)
      ASSERT_EQ(mine.receipt.items[i].bucket_number, theirs.receipt.items[i].bucket_number);
    if (mine.status != ChargeOutcome::Status::admitted) {
      ++exceeded_;
      return;
    }
    ++admitted_;
    for (const AccountCharge& one : charges) {
      std::string stored = server_.command({"HGET", one.key.subject_key, one.key.field}).text;
      ASSERT_EQ(stored, memory_.record(one.key));
      ++compared_;
    }
    receipts_.push_back(std::move(mine.receipt));
  }

  void give_back() {
    if (receipts_.empty()) return;
    // Mostly a recent one, sometimes one that has long been merged or left.
    std::size_t place =
        random_.one_in(3) ? random_.below(receipts_.size())
                          : receipts_.size() - 1 - random_.below(std::min<std::size_t>(receipts_.size(), 5));
    quota::Receipt receipt = receipts_[place];
    if (!random_.one_in(10)) receipts_.erase(receipts_.begin() + static_cast<std::ptrdiff_t>(place));
    client_.give_back(receipt);
    memory_.give_back(receipt);
    for (const quota::Receipt::Item& item : receipt.items) {
      AccountCharge asked{
          .key = item.key, .limit = 1, .window = item.window, .bucket = item.bucket, .units = 0, .rule = 0};
      compare_read({asked});
    }
  }

  void override_limit() {
    const AccountCharge& one = accounts_[random_.below(accounts_.size())];
    std::optional<std::uint64_t> limit;
    if (!random_.one_in(3)) limit = random_.one_in(4) ? quota::kUnlimited : random_.below(800);
    client_.set_override(one.key, limit);
    memory_.set_override(one.key, limit);
  }

  void change_bucket() {
    AccountCharge& one = accounts_[random_.below(2) * 2];  // the daily ones
    constexpr Milliseconds kBuckets[] = {60s, 30s, 45s, 300s};
    // The plain-memory ledger prunes and renumbers at every look, the store at admitted charges: one with the
    // old bucket and one with the new bring both to the same point.
    client_.set_override(one.key, std::nullopt);
    memory_.set_override(one.key, std::nullopt);
    std::erase_if(receipts_, [&](const quota::Receipt& receipt) {
      return std::ranges::any_of(receipt.items, [&](const auto& item) { return item.key == one.key; });
    });
    AccountCharge unlimited = one;
    unlimited.limit = quota::kUnlimited;
    charge_on_both({unlimited});
    unlimited.bucket = one.bucket = kBuckets[random_.below(4)];
    receipts_.pop_back();
    charge_on_both({unlimited});
  }

  void read() { compare_read(accounts_); }

  void list() {
    const AccountCharge& one = accounts_[5];
    std::optional<std::vector<quota::Ledger::Listed>> mine, theirs;
    client_.ledger.list(one.key.subject_key, "#|", one.window, one.bucket,
                        [&](auto&& listed) { mine = listed.value(); });
    ASSERT_TRUE(client_.loop.run_until([&] { return mine.has_value(); }));
    memory_.list(one.key.subject_key, "#|", one.window, one.bucket,
                 [&](auto&& listed) { theirs = listed.value(); });
    ASSERT_EQ(mine->size(), theirs->size());
    for (std::size_t i = 0; i < mine->size(); ++i) {
      ASSERT_EQ((*mine)[i].field, (*theirs)[i].field);
      ASSERT_EQ((*mine)[i].used, (*theirs)[i].used);
    }
  }

  void compare_read(const std::vector<AccountCharge>& asked) {
    auto mine = client_.read(asked);
    memory_.read(asked, [&](auto&& theirs) { compare(mine, theirs.value()); });
  }

  static void compare(const std::vector<quota::AccountState>& mine,
                      const std::vector<quota::AccountState>& theirs) {
    ASSERT_EQ(mine.size(), theirs.size());
    for (std::size_t i = 0; i < mine.size(); ++i) {
      ASSERT_EQ(mine[i].used, theirs[i].used) << i;
      ASSERT_EQ(mine[i].limit, theirs[i].limit) << i;
      ASSERT_EQ(mine[i].next_free_after, theirs[i].next_free_after) << i;
      ASSERT_EQ(mine[i].next_free_units, theirs[i].next_free_units) << i;
      ASSERT_EQ(mine[i].admitted_after, theirs[i].admitted_after) << i;
    }
  }

  Random random_;
  testing::Server server_;
  testing::Client client_;
  Milliseconds now_ = kStart;
  MemoryLedger memory_;
  std::vector<AccountCharge> accounts_;
  std::vector<quota::Receipt> receipts_;
  std::uint64_t admitted_ = 0, exceeded_ = 0, compared_ = 0;
};

TEST(ScriptsAndMemory, SameHistoryGivesSameAnswersAndSameBytes) {
  for (std::uint64_t seed : {1, 2, 3}) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Differential run(seed);
    for (int step = 0; step < 2'500; ++step) {
      SCOPED_TRACE("step " + std::to_string(step));
      run.step();
      if (::testing::Test::HasFatalFailure()) return;
    }
    run.compare_all_records();
    // The run was worth something: both endings.
    EXPECT_GT(run.admitted(), 700U);
    EXPECT_GT(run.exceeded(), 100U);
    EXPECT_GT(run.compared(), run.admitted());
  }
}

TEST(ScriptsAndMemory, RecordOfMoreBucketsThanItsBodyHoldsIsMergedAlike) {
  Random random(31);
  testing::Server server;
  testing::Client client(server, testing::use_virtual_time);
  Milliseconds now = kStart;
  MemoryLedger memory([&] { return now; });
  AccountCharge one = account("ann", "daily", 100'000, 1, 24h, 60s);
  std::vector<quota::Receipt> receipts;
  std::size_t merges = 0;
  for (int step = 0; step < 1'200; ++step) {
    SCOPED_TRACE("step " + std::to_string(step));
    now += Milliseconds(30'000 + random.below(300'000));
    testing::set_clock(server, now);
    one.units = static_cast<std::uint32_t>(1 + random.below(random.one_in(10) ? 20'000 : 20));
    ChargeOutcome mine = client.charge({one}), theirs;
    memory.charge({one}, [&](ChargeOutcome&& outcome) { theirs = std::move(outcome); });
    ASSERT_EQ(mine.status, theirs.status);
    if (mine.status == ChargeOutcome::Status::admitted) receipts.push_back(mine.receipt);
    if (random.one_in(6)) {
      const quota::Receipt& receipt = receipts[random.below(receipts.size())];
      client.give_back(receipt);
      memory.give_back(receipt);
    }
    std::string stored = server.command({"HGET", one.key.subject_key, one.key.field}).text;
    auto window = quota::RollingWindow::decode(stored, one.bucket);
    ASSERT_TRUE(window.has_value()) << window.error().message;
    window->prune({one.window, one.bucket}, now);
    ASSERT_EQ(window->encode(), memory.record(one.key));
    merges += window->buckets().size() >= quota::kBodyMax;
  }
  EXPECT_GT(merges, 500U);
}

}  // namespace
}  // namespace tollgate::redis
