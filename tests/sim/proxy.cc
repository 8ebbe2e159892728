#include "tests/sim/proxy.h"

#include <cmath>
#include <cstring>

#include "metering/base/check.h"
#include "tests/sim/worker.h"

namespace tollgate::sim {

namespace {
constexpr std::size_t kForgottenEntries = 6;
}  // namespace

// ---- MemoryLog

bool MemoryLog::append(const quota::Op& op) {
  if (full) return false;
  if (dies_()) return true;
  auto& entries = entries_[op.partition];
  if (!entries.empty() && op.seq != entries.rbegin()->first + 1 && violation)
    violation("I3: a journalled number does not follow the one before");
  entries.emplace(op.seq, op);
  order_.emplace_back(op.partition, op.seq);
  for (const quota::OpAccount& account : op.accounts)
    for (const quota::BucketUse& use : account.uses)
      totals_[op.subject_key + "\n" + account.field] += use.units;
  dies_();
  return true;
}

std::uint64_t MemoryLog::read(unsigned partition, std::uint64_t after, std::uint64_t up_to,
                              const std::function<void(const quota::Op&)>& visit) {
  auto& entries = entries_[partition];
  auto at = entries.upper_bound(after);
  const std::uint64_t first = entries.empty() ? after + 1 : std::max(after + 1, entries.begin()->first);
  for (; at != entries.end() && at->first <= up_to; ++at) visit(at->second);
  return first;
}

std::uint64_t MemoryLog::last_seq(unsigned partition) {
  auto& entries = entries_[partition];
  return entries.empty() ? 0 : entries.rbegin()->first;
}

const quota::Op* MemoryLog::find(unsigned partition, std::uint64_t seq) const {
  auto entries = entries_.find(partition);
  if (entries == entries_.end()) return nullptr;
  auto found = entries->second.find(seq);
  return found == entries->second.end() ? nullptr : &found->second;
}

void MemoryLog::clear() {
  entries_.clear();
  totals_.clear();
  order_.clear();
}

void MemoryLog::drop_newest(std::size_t count) {
  for (; count > 0 && !order_.empty(); --count) {
    entries_[order_.back().first].erase(order_.back().second);
    order_.pop_back();
  }
}

void MemoryLog::drop_before(unsigned partition, std::uint64_t seq) {
  auto& entries = entries_[partition];
  entries.erase(entries.begin(), entries.lower_bound(seq));
}

// ---- Proxy

Proxy::Life::~Life() = default;

Proxy::Proxy(Surroundings& around, unsigned index)
    : around_(around),
      index_(index),
      rate_(1.0 + (static_cast<double>(around.random.below(301)) - 150.0) * 1e-6),
      boot_ns_(static_cast<std::int64_t>(around.random.below(1'000'000'000'000))),
      cell_count_(around.scenario.cells),
      cell_bytes_(
          std::make_unique<std::byte[]>(cell_count_ * sizeof(quota::LeaseCell) + alignof(quota::LeaseCell))),
      saved_bytes_(std::make_unique<std::byte[]>(cell_count_ * sizeof(quota::LeaseCell))),
      log_([this] { return dies(); }) {
  incarnation_ = static_cast<quota::Incarnation>(1 + around.random.below(UINT32_MAX - 1));
  log_.violation = around.violation;
}

Proxy::~Proxy() = default;

std::span<quota::LeaseCell> Proxy::cells() {
  auto address = reinterpret_cast<std::uintptr_t>(cell_bytes_.get());
  address = (address + alignof(quota::LeaseCell) - 1) / alignof(quota::LeaseCell) * alignof(quota::LeaseCell);
  return {reinterpret_cast<quota::LeaseCell*>(address), cell_count_};
}

void Proxy::start(unsigned engines) {
  CHECK(life_ == nullptr, "one life at a time");
  fuse_ = 0;
  life_ = std::make_shared<Life>();
  life_->table =
      std::make_unique<quota::LeaseTable>(quota::TableOptions{.cells = cells(), .workers = engines});
  for (unsigned i = 0; i < engines; ++i)
    life_->workers.push_back(std::make_unique<Worker>(*this, *life_->table, i, engines));
  deliver(life_, [](Life& life) {
    for (auto& worker : life.workers) worker->start();
  });
}

void Proxy::kill() {
  if (alive()) end_life(false);
}

void Proxy::end_life(bool inner) {
  ++deaths_;
  died_at_ = around_.queue.now();
  if (!inner) std::memcpy(saved_bytes_.get(), static_cast<const void*>(cells().data()), cells().size_bytes());
  dying_ = true;  // until the last destructor is through
  around_.trace.line(around_.queue.now(), "proxy {} dies{}", index_,
                     inner ? " in the middle of something" : "");
  if (on_death) on_death(inner);
  std::shared_ptr<Life> ended = std::move(life_);
  life_ = nullptr;
  ended.reset();
  under_way_.clear();
  taken_back_at_death_.clear();
  // Whatever destructors did: a killed process runs none.
  std::memcpy(static_cast<void*>(cells().data()), saved_bytes_.get(), cells().size_bytes());
  if (around_.scenario.control == Control::forgotten_cells)
    std::memset(static_cast<void*>(cells().data()), 0, cells().size_bytes());
  if (around_.scenario.control == Control::forgotten_journal) log_.drop_newest(kForgottenEntries);
  resumes_at_ = Duration(0);
  dying_ = false;
  backlog_.clear();
  fuse_ = 0;
  around_.listeners_changed();
}

void Proxy::lose() {
  CHECK(!alive(), "lost after a kill");
  std::memset(static_cast<void*>(cells().data()), 0, cells().size_bytes());
  log_.clear();
  incarnation_ = static_cast<quota::Incarnation>(1 + around_.random.below(UINT32_MAX - 1));
  boot_ns_ = static_cast<std::int64_t>(around_.random.below(1'000'000'000'000));
}

bool Proxy::dies() {
  if (dying_) return true;
  if (fuse_ == 0 || --fuse_ > 0) return false;
  taken_back_at_death_ = taken_back();
  dying_ = true;
  std::memcpy(saved_bytes_.get(), static_cast<const void*>(cells().data()), cells().size_bytes());
  return true;
}

void Proxy::deliver(std::weak_ptr<Life> life, std::function<void(Life&)> action) {
  if (paused() || (depth_ == 0 && !backlog_.empty() && !catching_up_)) {
    if (backlog_.empty()) around_.queue.at(resumes_at_, [this] { catch_up(); });
    backlog_.emplace_back(std::move(life), std::move(action));
    return;
  }
  Life* living = life_.get();
  if (living == nullptr || life.lock().get() != living) return;
  ++depth_;
  action(*living);
  if (--depth_ == 0 && dying_) end_life(true);
}

// The pause is over: everything that came meanwhile, in its order.
void Proxy::catch_up() {
  if (paused()) return around_.queue.at(resumes_at_, [this] { catch_up(); });
  catching_up_ = true;
  while (!backlog_.empty()) {
    auto [life, action] = std::move(backlog_.front());
    backlog_.pop_front();
    deliver(std::move(life), std::move(action));
  }
  catching_up_ = false;
}

void Proxy::pause(Duration length) {
  resumes_at_ = std::max(resumes_at_, around_.queue.now() + length);
}

void Proxy::cut_off(Duration length) {
  reachable_at_ = std::max(reachable_at_, around_.queue.now() + length);
}

void Proxy::cut_links(bool ghosts) {
  if (!alive()) return;
  for (std::size_t i = 0; alive() && i < life_->workers.size(); ++i) life_->workers[i]->link.cut(ghosts);
}

std::map<std::pair<std::string, std::string>, std::int64_t> Proxy::taken_back() {
  if (dying_ && !taken_back_at_death_.empty()) return taken_back_at_death_;
  std::map<std::pair<std::string, std::string>, std::int64_t> units = under_way_;
  for (unsigned partition : around_.partitions)
    table().each_subject(partition, [&](quota::LeaseSubject& subject) {
      for (const quota::AccountRef& account : subject.accounts)
        for (const quota::BucketUse& use : account->given_back)
          units[{subject.key, account->field}] -= use.units;
    });
  return units;
}

bool Proxy::listening() const {
  return alive() && life_->workers.front()->link.connected();
}

MonotonicTime Proxy::mono() const {
  const double passed = static_cast<double>(around_.queue.now().count()) * rate_;
  return MonotonicTime(Duration(boot_ns_ + static_cast<std::int64_t>(passed)));
}

Duration Proxy::true_time(MonotonicTime mono) const {
  if (mono == MonotonicTime::max()) return Duration::max() / 4;
  const double passed = static_cast<double>(mono.time_since_epoch().count() - boot_ns_) / rate_;
  return Duration(static_cast<std::int64_t>(std::ceil(passed)) + 1);
}

quota::LeaseLedger& Proxy::ledger(unsigned worker) {
  return life_->workers[worker]->ledger;
}

quota::LeaseEngine& Proxy::engine(unsigned worker) {
  return life_->workers[worker]->engine;
}

}  // namespace tollgate::sim
