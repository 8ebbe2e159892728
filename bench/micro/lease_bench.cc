// What a call costs that is admitted from tokens held here: the counter alone, the way to it from the account's name, and
// the whole charge of a ledger. No store, no round trip: the owner behind it grants at once when tokens run out.
#include <benchmark/benchmark.h>

#include <memory>

#include "metering/base/check.h"
#include "metering/base/random.h"
#include "metering/quota/keys.h"
#include "metering/quota/lease_handles.h"
#include "metering/quota/lease_ledger.h"

namespace {

using namespace tollgate;
using namespace tollgate::quota;

constexpr Milliseconds kNow{1'764'000'000'000};
constexpr WindowShape kDay{Milliseconds(86'400'000), Milliseconds(60'000)};
constexpr MonotonicTime kTime{Seconds(1'000)};

void lend(Account& account, LeaseTable& table, std::uint64_t tokens) {
  account.cell->snapshot(1, kNow / kDay.bucket, false);
  account.cell->acknowledge(tokens);
  account.session = table.partition(account.subject->partition).session.load();
  AccountView view;
  view.limit = view.rule_limit = 1'000'000'000;
  account.set_view(view);
}

class Owners final : public OwnerPort {
 public:
  explicit Owners(LeaseTable& table) : table_(table) {}
  void request(AccountRef account, std::uint32_t, std::uint64_t, LeaseEngine::Done done) override {
    lend(*account, table_, 1'000);
    done(LeaseEngine::Answer::granted);
  }
  void prefetch(AccountRef) override {}
  void limit_changed(AccountRef, std::uint64_t) override {}
  void take_back(AccountRef, std::int64_t, std::uint32_t) override {}
  void settle(std::string, std::function<void(bool)> done) override { done(true); }
  bool store_up(unsigned) const override { return true; }
  void read(std::vector<AccountCharge>,
            std::function<void(Result<std::vector<LeaseState>>&&)> done) override {
    done(fail(Origin::store, "not here"));
  }
  void list(std::string, std::string, Milliseconds, Milliseconds, Ledger::ListDone done) override {
    done(fail(Origin::store, "not here"));
  }
  std::shared_ptr<void> timer(Milliseconds, std::function<void()>) override {
    return std::make_shared<int>(0);
  }

 private:
  LeaseTable& table_;
};

// `users` users with a daily and a burst account each, tokens in all of them.
struct World {
  explicit World(std::size_t count)
      : cells(new LeaseCell[2 * count]),
        table({{cells.get(), 2 * count}, 1}),
        handles(2 * count, 0x9e3779b97f4a7c15ULL) {
    for (unsigned p = 0; p < kPartitions; ++p) {
      table.partition(p).clock.observe(kNow, kTime, kTime);
      table.partition(p).session_expiry_ms = kNow.count() + 900'000;
    }
    for (std::size_t i = 0; i < count; ++i) {
      const std::string user = "user-" + std::to_string(i) + "@example.org";
      for (const char* field : {"daily", "burst"}) {
        AccountKey key{subject_key({"acme", std::nullopt, user}), field};
        auto account = table.find_or_create(key, kDay, true);
        CHECK(account.has_value(), "there is a cell for every account");
        lend(**account, table, kTokensMax);
        handles.insert(handles.hash(key), *account);
        keys.push_back(std::move(key));
      }
    }
  }
  std::unique_ptr<LeaseCell[]> cells;
  LeaseTable table;
  LeaseHandles handles;
  std::vector<AccountKey> keys;  // daily and burst in turn
};

World& world(std::size_t users) {
  static std::unique_ptr<World> made;
  static std::size_t made_for = 0;
  if (made_for != users) {
    made = nullptr;
    made = std::make_unique<World>(users);
    made_for = users;
  }
  return *made;
}

void take_and_put_back(benchmark::State& state) {
  LeaseCell cell;
  cell.set_name("q:{p017}:acme:u:ann\ndaily", kDay.window, kDay.bucket, true);
  cell.snapshot(1, 0, false);
  cell.acknowledge(10);
  const std::int64_t bucket = kNow / kDay.bucket;
  for (auto _ : state) {
    benchmark::DoNotOptimize(cell.take(bucket, 1));
    benchmark::DoNotOptimize(cell.put_back(bucket, 1, false));
  }
}
BENCHMARK(take_and_put_back);

void clock_hi(benchmark::State& state) {
  StoreClock clock;
  clock.observe(kNow, kTime, kTime);
  for (auto _ : state) benchmark::DoNotOptimize(clock.hi_if_known(kTime));
}
BENCHMARK(clock_hi);

// From the name of the account to the token taken. A lease that is used up is filled again.
void decide_locally(benchmark::State& state) {
  World& w = world(static_cast<std::size_t>(state.range(0)));
  Random random(1);
  std::vector<std::uint32_t> order(1 << 16);
  for (auto& at : order) at = static_cast<std::uint32_t>(random.below(w.keys.size()));
  std::size_t next = 0;
  std::uint64_t admitted = 0;
  for (auto _ : state) {
    // The names of a real call have just been made: they are in the cache.
    __builtin_prefetch(&w.keys[order[(next + 32) & (order.size() - 1)]]);
    __builtin_prefetch(w.keys[order[(next + 16) & (order.size() - 1)]].subject_key.data());
    const AccountKey& key = w.keys[order[next++ & (order.size() - 1)]];
    const AccountRef* account = w.handles.find(w.handles.hash(key));
    std::int64_t bucket = 0;
    if (admit(**account, w.table.partition((*account)->partition), 1, kTime, bucket) == Admission::admitted)
      ++admitted;
    else
      lend(**account, w.table, kTokensMax);
  }
  state.counters["admitted"] = static_cast<double>(admitted) / static_cast<double>(state.iterations());
}
BENCHMARK(decide_locally)->Arg(1)->Arg(1'000)->Arg(250'000);

void charge(benchmark::State& state) {
  World& w = world(static_cast<std::size_t>(state.range(0)));
  const auto accounts = static_cast<std::size_t>(state.range(1));
  Owners owners(w.table);
  LeaseLedger ledger(w.table, owners, [] { return kTime; }, {.cache_entries = w.keys.size()});
  Random random(1);
  std::vector<std::vector<AccountCharge>> calls(1 << 12);
  for (auto& call : calls) {
    const std::size_t user = random.below(w.keys.size() / 2);
    for (std::size_t i = 0; i < accounts; ++i)
      call.push_back({w.keys[2 * user + i], 1'000'000'000, kDay.window, kDay.bucket, 1, 0, false});
  }
  std::size_t next = 0;
  std::uint64_t admitted = 0;
  for (auto _ : state)
    ledger.charge(calls[next++ & (calls.size() - 1)], [&](ChargeOutcome&& outcome) {
      admitted += outcome.status == ChargeOutcome::Status::admitted ? 1U : 0U;
    });
  state.counters["admitted"] = static_cast<double>(admitted) / static_cast<double>(state.iterations());
}
BENCHMARK(charge)
    ->ArgNames({"users", "accounts"})
    ->Args({1, 1})
    ->Args({1, 2})
    ->Args({250'000, 1})
    ->Args({250'000, 2});

}  // namespace
