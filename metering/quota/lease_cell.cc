#include "metering/quota/lease_cell.h"

#include <algorithm>
#include <cstring>

#include "metering/base/check.h"

namespace tollgate::quota {
namespace {

constexpr std::uint64_t mask(unsigned bits) {
  return (std::uint64_t{1} << bits) - 1;
}

constexpr unsigned kTokenBits = 20, kUnitBits = 21, kWordBucketBits = 22;
constexpr std::uint64_t kSnapshotBit = std::uint64_t{1} << 63;
constexpr std::uint32_t kWordUnitsMax = static_cast<std::uint32_t>(mask(kUnitBits));
constexpr unsigned kClosedUnitBits = 28, kClosedBucketBits = 36;
constexpr std::uint64_t kClosedUnitsMax = mask(kClosedUnitBits);
// Room that a closed cell must have before a thread may open a new bucket: enough for many threads at once, each with a
// full word.
constexpr std::uint64_t kClosedMargin = std::uint64_t{1} << 26;
constexpr std::int64_t kLaterSpan = 1 << 16;
// No number an op ever has: marks the snapshot of recover(), which no op reports.
constexpr std::uint64_t kDropTokens = UINT64_MAX;

struct Word {
  std::uint64_t bucket = 0;  // low bits
  std::uint32_t units = 0, tokens = 0;
  bool snapshot = false;

  static Word of(std::uint64_t bits) {
    return {(bits >> (kTokenBits + kUnitBits)) & mask(kWordBucketBits),
            static_cast<std::uint32_t>((bits >> kTokenBits) & mask(kUnitBits)),
            static_cast<std::uint32_t>(bits & mask(kTokenBits)), (bits & kSnapshotBit) != 0};
  }
  std::uint64_t bits() const {
    return (snapshot ? kSnapshotBit : 0) | bucket << (kTokenBits + kUnitBits) |
           std::uint64_t{units} << kTokenBits | tokens;
  }
};

struct Closed {
  std::uint64_t bucket = 0;  // low bits
  std::uint64_t units = 0;

  static Closed of(std::uint64_t bits) { return {bits >> kClosedUnitBits, bits & kClosedUnitsMax}; }
  std::uint64_t bits() const { return units == 0 ? 0 : bucket << kClosedUnitBits | units; }
};

std::uint64_t low(std::int64_t bucket, unsigned bits) {
  return static_cast<std::uint64_t>(bucket) & mask(bits);
}

// The newest number with these low bits that is at most kLaterSpan after `near`.
std::int64_t rebuild(std::uint64_t low_bits, unsigned bits, std::int64_t near) {
  const std::int64_t last = near + kLaterSpan;
  return last - static_cast<std::int64_t>((static_cast<std::uint64_t>(last) - low_bits) & mask(bits));
}

struct Forced {
  std::int32_t moved = 0, all = 0;

  static Forced of(std::uint64_t bits) {
    return {static_cast<std::int32_t>(static_cast<std::uint32_t>(bits >> 32)),
            static_cast<std::int32_t>(static_cast<std::uint32_t>(bits))};
  }
  std::uint64_t bits() const {
    return std::uint64_t{static_cast<std::uint32_t>(moved)} << 32 | static_cast<std::uint32_t>(all);
  }
};

// Sorted by bucket, each once.
void merge(std::vector<BucketUse>& uses) {
  std::ranges::sort(uses, {}, &BucketUse::bucket);
  std::size_t kept = 0;
  for (std::size_t i = 0; i < uses.size(); ++i) {
    if (kept > 0 && uses[kept - 1].bucket == uses[i].bucket)
      uses[kept - 1].units += uses[i].units;
    else
      uses[kept++] = uses[i];
  }
  uses.resize(kept);
}

}  // namespace

// ---- hot path

bool LeaseCell::count(std::int64_t bucket, std::uint32_t units, std::uint32_t tokens,
                      std::int64_t* counted_in) {
  std::uint64_t seen = word_.load(std::memory_order_acquire);
  while (true) {
    const Word old = Word::of(seen);
    if (old.tokens < tokens) return false;
    Word next = old;
    next.tokens -= tokens;
    std::int64_t counted = bucket, closing_bucket = 0;
    std::uint32_t closing = 0;
    if (old.units == 0) {
      next.bucket = low(bucket, kWordBucketBits);
      next.units = units;
    } else {
      const std::int64_t present = rebuild(old.bucket, kWordBucketBits, bucket);
      if (present >= bucket) counted = present;
      if (present >= bucket && old.units + units <= kWordUnitsMax) {
        next.units = old.units + units;
      } else {
        closing = old.units;
        closing_bucket = present;
        next.bucket = low(counted, kWordBucketBits);
        next.units = units;
        if (!closed_have_room()) return false;
      }
    }
    if (word_.compare_exchange_weak(seen, next.bits(), std::memory_order_acq_rel,
                                    std::memory_order_acquire)) {
      if (closing > 0) add_closed(closing_bucket, closing);
      if (counted_in != nullptr) *counted_in = counted;
      return true;
    }
  }
}

bool LeaseCell::take(std::int64_t bucket, std::uint32_t units, std::int64_t* counted_in) {
  return units <= kTokensMax && count(bucket, units, units, counted_in);
}

bool LeaseCell::force(std::int64_t bucket, std::uint32_t units, std::int64_t* counted_in) {
  if (units > kTokensMax) return false;
  if (limited_ == 0) return count(bucket, units, 0, counted_in);
  if (Forced::of(forced_.load(std::memory_order_relaxed)).all > 1'000'000'000) return false;
  // Before the units: a snapshot that takes them must not miss that they are forced, or it would take them for tokens.
  add_forced(units);
  if (count(bucket, units, 0, counted_in)) return true;
  add_forced(-std::int64_t{units});
  return false;
}

bool LeaseCell::put_back(std::int64_t bucket, std::uint32_t units, bool forced) {
  const bool tokens_return = limited_ != 0 && !forced;
  // While forced units are about, the units found might be those: their tokens would be made of nothing.
  const auto only_tokens = [&] {
    return !tokens_return || Forced::of(forced_.load(std::memory_order_acquire)).bits() == 0;
  };
  std::uint64_t seen = word_.load(std::memory_order_acquire);
  while (true) {
    Word next = Word::of(seen);
    if (next.units < units || rebuild(next.bucket, kWordBucketBits, bucket) != bucket) break;
    if (!only_tokens() || (tokens_return && next.tokens > kTokensMax - units)) return false;
    next.units -= units;
    if (tokens_return) next.tokens += units;
    if (word_.compare_exchange_weak(seen, next.bits(), std::memory_order_acq_rel,
                                    std::memory_order_acquire)) {
      if (forced && limited_ != 0) add_forced(-std::int64_t{units});
      return true;
    }
  }
  for (auto& cell : closed_) {
    seen = cell.load(std::memory_order_acquire);
    while (true) {
      Closed next = Closed::of(seen);
      if (next.units < units || next.bucket != low(bucket, kClosedBucketBits)) break;
      if (!only_tokens() || (tokens_return && available() > kTokensMax / 2)) return false;
      next.units -= units;
      if (!cell.compare_exchange_weak(seen, next.bits(), std::memory_order_acq_rel,
                                      std::memory_order_acquire))
        continue;
      if (forced && limited_ != 0) add_forced(-std::int64_t{units});
      if (!tokens_return) return true;
      seen = word_.load(std::memory_order_acquire);
      while (true) {
        Word back = Word::of(seen);
        back.tokens = std::min(kTokensMax, back.tokens + units);
        if (word_.compare_exchange_weak(seen, back.bits(), std::memory_order_acq_rel,
                                        std::memory_order_acquire))
          return true;
      }
    }
  }
  return false;
}

std::uint32_t LeaseCell::available() const {
  return Word::of(word_.load(std::memory_order_acquire)).tokens;
}

bool LeaseCell::closed_have_room() const {
  return std::ranges::any_of(closed_, [](const auto& cell) {
    return Closed::of(cell.load(std::memory_order_relaxed)).units < kClosedUnitsMax - kClosedMargin;
  });
}

void LeaseCell::add_closed(std::int64_t bucket, std::uint64_t units) {
  const std::uint64_t own = low(bucket, kClosedBucketBits);
  while (true) {
    // Same bucket, else a free cell, else the newest with room, which takes the later date.
    std::atomic<std::uint64_t>* best = nullptr;
    std::uint64_t best_seen = 0;
    std::int64_t best_bucket = 0;
    int best_rank = -1;
    for (auto& cell : closed_) {
      const std::uint64_t seen = cell.load(std::memory_order_acquire);
      const Closed held = Closed::of(seen);
      if (held.units + units > kClosedUnitsMax) continue;
      const std::int64_t number = rebuild(held.bucket, kClosedBucketBits, bucket);
      const int rank = held.units == 0 ? 1 : held.bucket == own ? 2 : 0;
      if (rank > best_rank || (rank == best_rank && rank == 0 && number > best_bucket)) {
        best = &cell;
        best_seen = seen;
        best_bucket = number;
        best_rank = rank;
      }
    }
    CHECK(best != nullptr, "closed_have_room() keeps a margin for every thread");
    const Closed held = Closed::of(best_seen);
    const Closed next{best_rank == 0 && best_bucket > bucket ? held.bucket : own, held.units + units};
    if (best->compare_exchange_weak(best_seen, next.bits(), std::memory_order_acq_rel,
                                    std::memory_order_relaxed))
      return;
  }
}

void LeaseCell::add_forced(std::int64_t units) {
  std::uint64_t seen = forced_.load(std::memory_order_relaxed);
  while (true) {
    Forced next = Forced::of(seen);
    next.all = static_cast<std::int32_t>(next.all + units);
    if (forced_.compare_exchange_weak(seen, next.bits(), std::memory_order_acq_rel,
                                      std::memory_order_relaxed))
      return;
  }
}

// ---- owner

void LeaseCell::snapshot(std::uint64_t seq, std::int64_t current_bucket, bool return_all) {
  CHECK(seq != 0 && pending_seq() == 0, "one snapshot at a time");
  date_undated(current_bucket);
  std::uint64_t seen = word_.load();
  while (true) {
    const Word old = Word::of(seen);
    CHECK(!old.snapshot, "one snapshot at a time");
    Word moved = old, next = old;
    if (!return_all) moved.tokens = 0;
    next.tokens = old.tokens - moved.tokens;
    next.units = 0;
    next.snapshot = true;
    moved_word_.store(moved.bits());
    if (word_.compare_exchange_weak(seen, next.bits())) break;
  }
  for (std::size_t i = 0; i < kClosedBuckets; ++i) {
    // First the copy, then the original: killed in between, both are there and equal, and one is dropped by reopen().
    std::uint64_t units = closed_[i].load();
    do {
      moved_closed_[i].store(units);
    } while (units != 0 && !closed_[i].compare_exchange_weak(units, 0));
  }
  std::uint64_t forced = forced_.load();
  while (true) {
    Forced next = Forced::of(forced);
    next.moved = next.all;
    if (forced_.compare_exchange_weak(forced, next.bits())) break;
  }
  pending_seq_.store(seq);
}

std::vector<BucketUse> LeaseCell::pending_uses(std::int64_t current_bucket) const {
  std::vector<BucketUse> uses;
  if (!Word::of(word_.load()).snapshot) return uses;
  for (const auto& cell : moved_closed_)
    if (const Closed held = Closed::of(cell.load()); held.units > 0)
      uses.push_back(
          {rebuild(held.bucket, kClosedBucketBits, current_bucket), static_cast<std::int64_t>(held.units)});
  if (const Word held = Word::of(moved_word_.load()); held.units > 0)
    uses.push_back({rebuild(held.bucket, kWordBucketBits, current_bucket), held.units});
  merge(uses);
  return uses;
}

std::uint64_t LeaseCell::pending_returned() const {
  return Word::of(word_.load()).snapshot ? Word::of(moved_word_.load()).tokens : 0;
}

std::uint64_t LeaseCell::moved_units() const {
  std::uint64_t units = Word::of(moved_word_.load()).units;
  for (const auto& cell : moved_closed_) units += Closed::of(cell.load()).units;
  return units;
}

void LeaseCell::acknowledge(std::uint64_t outstanding_now) {
  CHECK(pending_seq() != 0 && Word::of(word_.load()).snapshot, "a snapshot is acknowledged once");
  end_snapshot(outstanding_now);
}

// Without a number: as the store would have it if it had lent nothing more.
void LeaseCell::end_snapshot(std::optional<std::uint64_t> outstanding_now) {
  const bool lent = limited_ != 0;
  const std::int64_t own = static_cast<std::int64_t>(outstanding_.load());
  const std::int64_t taken = static_cast<std::int64_t>(moved_units()) - Forced::of(forced_.load()).moved;
  const std::int64_t before = lent ? own - Word::of(moved_word_.load()).tokens - taken : 0;
  const std::int64_t lacking =
      lent && outstanding_now
          ? static_cast<std::int64_t>(std::min<std::uint64_t>(*outstanding_now, std::uint64_t{1} << 62)) -
                before
          : 0;
  std::uint64_t seen = word_.load();
  while (true) {
    Word next = Word::of(seen);
    const std::int64_t tokens = std::clamp<std::int64_t>(next.tokens + lacking, 0, kTokensMax);
    next_outstanding_.store(
        static_cast<std::uint64_t>(std::max<std::int64_t>(0, before + tokens - next.tokens)));
    next.tokens = static_cast<std::uint32_t>(tokens);
    next.snapshot = false;
    if (word_.compare_exchange_weak(seen, next.bits())) break;
  }
  finish_acknowledge();
}

void LeaseCell::finish_acknowledge() {
  outstanding_.store(next_outstanding_.load());
  std::uint64_t forced = forced_.load();
  while (true) {
    Forced next = Forced::of(forced);
    next.all -= next.moved;
    next.moved = 0;
    if (forced_.compare_exchange_weak(forced, next.bits())) break;
  }
  for (auto& cell : moved_closed_) cell.store(0);
  pending_seq_.store(0);
}

void LeaseCell::undo_snapshot(std::int64_t current_bucket) {
  if (!Word::of(word_.load()).snapshot) return pending_seq_.store(0);
  pending_seq_.store(kUndoing);
  std::uint64_t forced = forced_.load();
  while (true) {
    Forced next = Forced::of(forced);
    next.moved = 0;
    if (forced_.compare_exchange_weak(forced, next.bits())) break;
  }
  for (auto& cell : moved_closed_) {
    const Closed held = Closed::of(cell.load());
    if (held.units > 0) add_closed(rebuild(held.bucket, kClosedBucketBits, current_bucket), held.units);
    cell.store(0);
  }
  Word moved = Word::of(moved_word_.load());
  if (moved.units > 0) add_closed(rebuild(moved.bucket, kWordBucketBits, current_bucket), moved.units);
  moved.units = 0;
  moved_word_.store(moved.bits());
  std::uint64_t seen = word_.load();
  while (true) {
    Word next = Word::of(seen);
    next.tokens = std::min(kTokensMax, next.tokens + moved.tokens);
    next.snapshot = false;
    if (word_.compare_exchange_weak(seen, next.bits())) break;
  }
  pending_seq_.store(0);
}

bool LeaseCell::dirty() const {
  return undated_.load() > 0 || Word::of(word_.load()).units > 0 ||
         std::ranges::any_of(closed_, [](const auto& cell) { return cell.load() != 0; });
}

std::uint64_t LeaseCell::unsettled() const {
  const Word word = Word::of(word_.load());
  std::uint64_t units = word.units + undated_.load() + (word.snapshot ? moved_units() : 0);
  for (const auto& cell : closed_) units += Closed::of(cell.load()).units;
  return units;
}

std::uint64_t LeaseCell::unreported() const {
  const std::uint64_t all = unsettled();
  const bool reported = Word::of(word_.load()).snapshot && pending_seq() != 0;
  return all - std::min(all, reported ? moved_units() : 0);
}

// ---- restart

// Some units are both in `closed` and in `moved`, of a snapshot that counts as never made; in `closed` they stay.
// undo_snapshot() was cut off: it goes through the cells in order, and through the word last.
void LeaseCell::drop_moved_back() {
  for (auto& cell : moved_closed_)
    if (cell.load() != 0) return cell.store(0);
  Word moved = Word::of(moved_word_.load());
  moved.units = 0;
  moved_word_.store(moved.bits());
}

// snapshot() was cut off, and a thread had added to the original since it was copied: that is the last copy.
void LeaseCell::drop_copied() {
  for (std::size_t i = kClosedBuckets; i-- > 0;)
    if (moved_closed_[i].load() != 0) return moved_closed_[i].store(0);
}

void LeaseCell::reopen() {
  const Word word = Word::of(word_.load());
  const bool undoing = pending_seq_.load() == kUndoing;
  if (!word.snapshot && pending_seq() != 0) finish_acknowledge();
  if (!word.snapshot && undoing) pending_seq_.store(0);
  if (word.snapshot && pending_seq() == 0 && !undoing)
    for (std::size_t i = 0; i < kClosedBuckets; ++i)
      if (closed_[i].load() == moved_closed_[i].load()) moved_closed_[i].store(0);
  if (!word.snapshot)
    for (auto& cell : moved_closed_) cell.store(0);
  undated_.store(0);
  if (limited_ == 0) return;
  const std::int64_t admitted = static_cast<std::int64_t>(outstanding_.load()) - word.tokens -
                                (word.snapshot ? Word::of(moved_word_.load()).tokens : 0) +
                                Forced::of(forced_.load()).all;
  std::int64_t claimed = static_cast<std::int64_t>(unsettled());
  // What other threads were in the middle of only makes claimed the smaller one.
  if (claimed > admitted && word.snapshot && pending_seq() == 0) {
    if (undoing)
      drop_moved_back();
    else
      drop_copied();
    claimed = static_cast<std::int64_t>(unsettled());
  }
  if (admitted > claimed) undated_.store(static_cast<std::uint64_t>(admitted - claimed));
}

void LeaseCell::date_undated(std::int64_t bucket) {
  std::uint64_t units = undated_.load();
  while (units > 0) {
    const std::uint64_t part = std::min<std::uint64_t>(units, kWordUnitsMax);
    add_closed(bucket, part);
    units -= part;
    undated_.store(units);
  }
}

std::vector<BucketUse> LeaseCell::recover(std::int64_t restart_bucket, bool limited) {
  if (Word::of(word_.load()).snapshot) {
    if (pending_seq() == 0 || pending_seq() == kDropTokens)
      undo_snapshot(restart_bucket);
    else
      end_snapshot(std::nullopt);
  }
  date_undated(restart_bucket);
  if (limited && available() > 0) {
    // A snapshot of the tokens alone, and its acknowledgement: outstanding and tokens fall in one CAS.
    std::uint64_t seen = word_.load();
    while (true) {
      Word next = Word::of(seen), moved;
      moved.tokens = next.tokens;
      next.tokens = 0;
      next.snapshot = true;
      moved_word_.store(moved.bits());
      if (word_.compare_exchange_weak(seen, next.bits())) break;
    }
    pending_seq_.store(kDropTokens);
    end_snapshot(std::nullopt);
  }
  return unmoved_uses(restart_bucket);
}

std::vector<BucketUse> LeaseCell::unmoved_uses(std::int64_t current) const {
  std::vector<BucketUse> uses;
  for (const auto& cell : closed_)
    if (const Closed held = Closed::of(cell.load()); held.units > 0)
      uses.push_back(
          {rebuild(held.bucket, kClosedBucketBits, current), static_cast<std::int64_t>(held.units)});
  if (const Word held = Word::of(word_.load()); held.units > 0)
    uses.push_back({rebuild(held.bucket, kWordBucketBits, current), held.units});
  merge(uses);
  return uses;
}

// ---- identity

void LeaseCell::set_name(std::string_view name, Milliseconds window, Milliseconds bucket, bool limited) {
  CHECK(!in_use() && name.size() <= kNameBytes, "a free cell and a name that fits");
  std::memcpy(name_.data(), name.data(), name.size());
  name_size_ = static_cast<std::uint16_t>(name.size());
  window_ms_ = window.count();
  bucket_ms_ = bucket.count();
  limited_ = limited ? 1 : 0;
  in_use_.store(1, std::memory_order_release);
}

void LeaseCell::release() {
  // In use until everything is zero: killed in between, the account is found again, empty.
  word_.store(0);
  for (auto& cell : closed_) cell.store(0);
  for (auto& cell : moved_closed_) cell.store(0);
  for (auto* value : {&outstanding_, &next_outstanding_, &pending_seq_, &moved_word_, &forced_, &undated_})
    value->store(0);
  in_use_.store(0, std::memory_order_release);
}

}  // namespace tollgate::quota
