#include "metering/quota/lease_table.h"

#include <algorithm>
#include <bit>

#include "metering/base/check.h"

namespace tollgate::quota {
namespace {

constexpr std::uint64_t kLeft = UINT64_MAX;  // epoch of a worker that looks at nothing any more

bool same(const Account& account, const WindowShape& shape, bool limited) {
  return account.shape.window == shape.window && account.shape.bucket == shape.bucket &&
         account.limited == limited;
}

bool empty(const LeaseCell& cell) {
  return cell.unsettled() == 0 && cell.outstanding() == 0 && cell.pending_seq() == 0 && cell.available() == 0;
}

}  // namespace

// Each load holds those behind it back, so that the version is read before and after the words; what a writer stores
// of one word is seen only with the odd version before it.
AccountView Account::view() const {
  std::array<std::uint64_t, kViewWords> words;
  while (true) {
    const std::uint32_t version = view_version_.load(std::memory_order_acquire);
    for (std::size_t i = 0; i < kViewWords; ++i) words[i] = view_words_[i].load(std::memory_order_acquire);
    if (version % 2 == 0 && view_version_.load(std::memory_order_relaxed) == version)
      return std::bit_cast<AccountView>(words);
  }
}

void Account::set_view(const AccountView& view) {
  const auto words = std::bit_cast<std::array<std::uint64_t, kViewWords>>(view);
  std::lock_guard lock(view_mutex_);
  const std::uint32_t version = view_version_.load(std::memory_order_relaxed);
  view_version_.store(version + 1, std::memory_order_relaxed);
  for (std::size_t i = 0; i < kViewWords; ++i) view_words_[i].store(words[i], std::memory_order_release);
  view_version_.store(version + 2, std::memory_order_release);
}

LeaseTable::LeaseTable(TableOptions options) : cells_(options.cells) {
  CHECK(cells_.size() <= UINT32_MAX, "cells are numbered by 32 bits");
  for (unsigned i = 0; i < options.workers; ++i)
    epochs_.push_back(std::make_unique<std::atomic<std::uint64_t>>(0));
  // The last first: cells at the front of the file are handed out first.
  for (std::size_t i = cells_.size(); i-- > 0;) {
    if (cells_[i].in_use())
      restore(static_cast<std::uint32_t>(i));
    else
      free_.push_back(static_cast<std::uint32_t>(i));
  }
}

LeaseTable::~LeaseTable() {
  for (Shard& shard : shards_)
    for (auto& [key, subject] : shard.subjects) {
      subject->accounts.clear();
      subject->leaving.clear();
    }
}

// A cell that an earlier process left. What it holds is dated and told to the store by the owner.
void LeaseTable::restore(std::uint32_t index) {
  LeaseCell& cell = cells_[index];
  const std::string_view name = cell.name();
  const std::size_t newline = name.find('\n');
  const std::string key(name.substr(0, newline));
  cell.reopen();
  if (newline == std::string_view::npos || !parse_subject_key(key) || cell.window() <= Milliseconds(0) ||
      cell.bucket() <= Milliseconds(0) || empty(cell)) {
    cell.release();
    free_.push_back(index);
    return;
  }
  auto [entry, added] = shards_[partition_of(key)].subjects.try_emplace(key);
  if (added) {
    entry->second = std::make_shared<LeaseSubject>();
    entry->second->key = key;
    entry->second->partition = partition_of(key);
  }
  AccountRef account = make(entry->second, name.substr(newline + 1), index);
  account->forget = true;
}

AccountRef LeaseTable::make(std::shared_ptr<LeaseSubject> subject, std::string_view field,
                            std::uint32_t cell) {
  auto account = std::allocate_shared<Account>(AccountMemory<Account>());
  account->subject = subject.get();
  account->partition = subject->partition;
  account->cell = &cells_[cell];
  account->field = field;
  account->shape = {cells_[cell].window(), cells_[cell].bucket()};
  account->limited = cells_[cell].limited();
  account->keeps_ = std::move(subject);
  account->subject->accounts.push_back(account);
  used_.fetch_add(1, std::memory_order_relaxed);
  return account;
}

std::optional<std::uint32_t> LeaseTable::free_cell() {
  std::lock_guard lock(cells_mutex_);
  if (free_.empty()) return std::nullopt;
  const std::uint32_t index = free_.back();
  free_.pop_back();
  return index;
}

// The account to be used for this name, under the shard's mutex; nullptr: a new one is to be made.
AccountRef LeaseTable::match(LeaseSubject& subject, std::string_view field, const WindowShape& shape,
                             bool limited) {
  AccountRef other;
  for (const AccountRef& account : subject.accounts) {
    if (account->field != field) continue;
    if (same(*account, shape, limited)) {
      account->outdated.store(false, std::memory_order_relaxed);
      return account;
    }
    other = account;
  }
  if (other) {
    other->outdated.store(true, std::memory_order_relaxed);
    return other;
  }
  for (auto leaving = subject.leaving.begin(); leaving != subject.leaving.end(); ++leaving) {
    AccountRef account = *leaving;
    if (account->field != field || !same(*account, shape, limited)) continue;
    subject.leaving.erase(leaving);
    subject.accounts.push_back(account);
    account->outdated.store(false, std::memory_order_relaxed);
    account->retired.store(false, std::memory_order_release);
    used_.fetch_add(1, std::memory_order_relaxed);
    return account;
  }
  return nullptr;
}

Result<AccountRef> LeaseTable::find_or_create(const AccountKey& key, const WindowShape& shape, bool limited) {
  CHECK(shape.window > Milliseconds(0) && shape.bucket > Milliseconds(0), "a window has a length");
  const unsigned p = partition_of(key.subject_key);
  for (bool last_try : {false, true}) {
    {
      std::lock_guard lock(shards_[p].mutex);
      auto found = shards_[p].subjects.find(key.subject_key);
      if (found != shards_[p].subjects.end())
        if (AccountRef account = match(*found->second, key.field, shape, limited)) return account;
      const std::size_t name_bytes = key.subject_key.size() + 1 + key.field.size();
      if (name_bytes > kNameBytes)
        return fail(Origin::self, "the name of the quota account is longer than " +
                                      std::to_string(kNameBytes) + " bytes: " + key.subject_key + " " +
                                      key.field);
      if (const auto cell = free_cell()) {
        if (found == shards_[p].subjects.end()) {
          found = shards_[p].subjects.emplace(key.subject_key, std::make_shared<LeaseSubject>()).first;
          found->second->key = key.subject_key;
          found->second->partition = p;
        }
        std::string name;
        name.reserve(name_bytes);
        name.append(key.subject_key).append("\n").append(key.field);
        cells_[*cell].set_name(name, shape.window, shape.bucket, limited);
        return make(found->second, key.field, *cell);
      }
    }
    if (!last_try) reclaim();
  }
  return fail(Origin::self, "all " + std::to_string(cells_.size()) + " places for quota accounts are in use",
              true);
}

AccountRef LeaseTable::find(const AccountKey& key) {
  Shard& shard = shards_[partition_of(key.subject_key)];
  std::lock_guard lock(shard.mutex);
  auto found = shard.subjects.find(key.subject_key);
  if (found == shard.subjects.end()) return nullptr;
  AccountRef outdated;
  for (const AccountRef& account : found->second->accounts) {
    if (account->field != key.field) continue;
    if (!account->outdated.load(std::memory_order_relaxed)) return account;
    outdated = account;
  }
  return outdated;
}

std::vector<AccountRef> LeaseTable::of_subject(std::string_view subject_key) {
  Shard& shard = shards_[partition_of(subject_key)];
  std::vector<AccountRef> accounts;
  {
    std::lock_guard lock(shard.mutex);
    auto found = shard.subjects.find(subject_key);
    if (found != shard.subjects.end()) accounts = found->second->accounts;
  }
  std::ranges::sort(accounts, {},
                    [](const AccountRef& account) -> const std::string& { return account->field; });
  return accounts;
}

void LeaseTable::announce(unsigned worker) {
  CHECK(worker < epochs_.size(), "workers are numbered from 0");
  epochs_[worker]->store(epoch_.load(std::memory_order_acquire), std::memory_order_release);
  reclaim();
}

void LeaseTable::leave(unsigned worker) {
  CHECK(worker < epochs_.size(), "workers are numbered from 0");
  epochs_[worker]->store(kLeft, std::memory_order_release);
}

void LeaseTable::each_subject(unsigned partition, const std::function<void(LeaseSubject&)>& visit) {
  Shard& shard = shards_[partition];
  std::lock_guard lock(shard.mutex);
  for (auto entry = shard.subjects.begin(); entry != shard.subjects.end();) {
    LeaseSubject& subject = *entry->second;
    // Every Account holds its subject, and new ones are made under this mutex: a count of one stays one.
    if (subject.accounts.empty() && entry->second.use_count() == 1 && subject.in_flight == 0 &&
        !subject.queued) {
      entry = shard.subjects.erase(entry);
      continue;
    }
    visit(subject);
    ++entry;
  }
}

void LeaseTable::retire(const AccountRef& account) {
  Shard& shard = shards_[account->subject->partition];
  std::lock_guard lock(shard.mutex);
  auto& accounts = account->subject->accounts;
  auto found = std::ranges::find(accounts, account);
  if (found == accounts.end()) return;
  accounts.erase(found);
  account->subject->leaving.push_back(account);
  account->retired.store(true, std::memory_order_release);
  used_.fetch_sub(1, std::memory_order_relaxed);
  std::lock_guard cells_lock(cells_mutex_);
  account->retire_epoch_ = epoch_.fetch_add(1, std::memory_order_acq_rel) + 1;
  retired_.push_back({account, account->retire_epoch_});
}

// Frees the cells of accounts that every worker has looked away from.
void LeaseTable::reclaim() {
  std::uint64_t passed = kLeft;
  for (const auto& epoch : epochs_) passed = std::min(passed, epoch->load(std::memory_order_acquire));
  std::vector<Retired> ripe;
  {
    std::lock_guard lock(cells_mutex_);
    auto first = std::ranges::partition(retired_, [&](const Retired& one) { return one.epoch > passed; });
    ripe.assign(std::make_move_iterator(first.begin()), std::make_move_iterator(first.end()));
    retired_.erase(first.begin(), first.end());
  }
  for (Retired& one : ripe) {
    Account& account = *one.account;
    Shard& shard = shards_[account.subject->partition];
    std::lock_guard lock(shard.mutex);
    auto& leaving = account.subject->leaving;
    auto found = std::ranges::find(leaving, one.account);
    if (found == leaving.end() || account.retire_epoch_ != one.epoch) continue;  // it came back meanwhile
    leaving.erase(found);
    if (!empty(*account.cell)) {
      account.subject->accounts.push_back(one.account);
      account.retired.store(false, std::memory_order_release);
      used_.fetch_add(1, std::memory_order_relaxed);
      continue;
    }
    account.cell->release();
    std::lock_guard cells_lock(cells_mutex_);
    free_.push_back(static_cast<std::uint32_t>(account.cell - cells_.data()));
  }
}

std::size_t LeaseTable::accounts() const {
  return used_.load(std::memory_order_relaxed);
}

std::uint64_t LeaseTable::tokens_held() const {
  std::uint64_t tokens = 0;
  for (const LeaseCell& cell : cells_)
    if (cell.in_use()) tokens += cell.available();
  return tokens;
}

namespace {

bool tokens_hold(const Account& account, const PartitionState& partition, Milliseconds hi) {
  return hi.count() < partition.session_expiry_ms.load(std::memory_order_acquire) &&
         account.session.load(std::memory_order_acquire) == partition.session.load(std::memory_order_acquire);
}

// To a second, so that workers who share an account do not pass its cache line around for every call.
void note_use(Account& account, Milliseconds hi) {
  if (hi.count() - account.last_used_ms.load(std::memory_order_relaxed) >= 1'000)
    account.last_used_ms.store(hi.count(), std::memory_order_relaxed);
}

}  // namespace

Admission admit(Account& account, const PartitionState& partition, std::uint32_t units, MonotonicTime now,
                std::int64_t& bucket) {
  if (account.retired.load(std::memory_order_acquire)) return Admission::retired;
  const std::optional<Milliseconds> hi = partition.clock.hi_if_known(now);
  if (!hi) return Admission::lacking;
  const std::int64_t present = account.shape.bucket_of(*hi);
  if (account.limited) {
    if (!tokens_hold(account, partition, *hi) || !account.cell->take(present, units, &bucket))
      return Admission::lacking;
  } else if (!account.cell->force(present, units, &bucket)) {
    return Admission::lacking;
  }
  note_use(account, *hi);
  return Admission::admitted;
}

bool admit_forced(Account& account, const PartitionState& partition, std::uint32_t units, MonotonicTime now,
                  std::int64_t& bucket) {
  if (account.retired.load(std::memory_order_acquire)) return false;
  const std::optional<Milliseconds> hi = partition.clock.hi_if_known(now);
  if (!hi || !account.cell->force(account.shape.bucket_of(*hi), units, &bucket)) return false;
  note_use(account, *hi);
  return true;
}

std::uint32_t tokens_valid(const Account& account, const PartitionState& partition, MonotonicTime now) {
  const std::optional<Milliseconds> hi = partition.clock.hi_if_known(now);
  return account.limited && hi && tokens_hold(account, partition, *hi) ? account.cell->available() : 0;
}

}  // namespace tollgate::quota
