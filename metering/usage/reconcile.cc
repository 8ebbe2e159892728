#include "metering/usage/reconcile.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "metering/usage/export_row.h"

namespace tollgate::usage {
namespace {

constexpr std::int64_t kMinuteMs = 60'000;
// A call is charged this much later than it arrived, at most, when its arrival has to stand for its bucket: it waits
// for the store no longer, and the proxy's calendar clock is as close to the store's.
constexpr std::int64_t kChargeDelayMs = 5'000;
// A cell with many buckets open dates some of their units later (metering/quota/lease_cell.h), until it is settled; that
// is every flush_interval, 16 minutes.
constexpr std::int64_t kDatedLaterMs = 2 * 3'600'000;

std::int64_t sum_between(const UnitsByBucket& units, std::int64_t from, std::int64_t to) {
  std::int64_t sum = 0;
  for (auto at = units.lower_bound(from); at != units.end() && at->first <= to; ++at) sum += at->second;
  return sum;
}

std::string account_text(const AccountName& name) {
  return name.subject_key + " " + name.field;
}

// Counts of GET /.tollgate/usage: no call_end names them (metering/quota/keys.h).
bool observation(const AccountName& name) {
  return name.field.starts_with('#');
}

// Buckets first .. last.
struct Span {
  std::int64_t from = 0, to = std::numeric_limits<std::int64_t>::max();
  bool open_end() const { return to == std::numeric_limits<std::int64_t>::max(); }
};

// What the journals know whole: from their first complete bucket to the last one that ended before the proxies settled.
Span known_span(const quota::WindowShape& shape, std::optional<Milliseconds> settled,
                std::int64_t complete_from_ms) {
  Span span;
  const std::int64_t bucket = shape.bucket.count();
  if (complete_from_ms > 0) span.from = (complete_from_ms + kChargeDelayMs) / bucket + 1;
  if (settled) span.to = settled->count() / bucket - 1;
  return span;
}

// Of these, the ones that the store still counts: (b + 1) * bucket > now - window - guard.
Span live_span(Span known, const quota::WindowShape& shape, Milliseconds now) {
  const Milliseconds edge = now - shape.window - shape.guard();
  known.from = std::max<std::int64_t>(known.from, edge.count() / shape.bucket.count());
  return known;
}

struct Facts {
  std::int64_t least = 0, most = 0;
};

Facts facts_between(const JournalTally::Account& account, const Span& span) {
  const std::int64_t bucket = account.shape.bucket.count();
  Facts facts;
  facts.least = facts.most = sum_between(account.facts, span.from, span.to);
  // Recovery dates what it cannot date at the restart: never earlier than the arrival.
  for (const auto& [arrival_ms, units] : account.undated) {
    const std::int64_t earliest = arrival_ms / bucket, latest = (arrival_ms + kChargeDelayMs) / bucket;
    if (earliest > span.to) continue;
    facts.most += units;
    if (earliest >= span.from && (span.open_end() || latest + 1 < span.to)) facts.least += units;
  }
  for (const auto& [arrival_ms, units] : account.uncertain)
    if (arrival_ms / bucket <= span.to && (arrival_ms + kChargeDelayMs) / bucket >= span.from)
      facts.most += units;
  return facts;
}

// Facts against ledger. Cells date some units later than their calls, never earlier, so from any bucket on the ledger has
// as many as the facts or more, and the same where a settlement fell. Where the journals reach back to the beginning that
// is everywhere; else it is somewhere in the first hours: the least of the surpluses there is what counts.
struct Told {
  Span span;
  Facts facts;
  std::int64_t ledger = 0;
  std::int64_t missing() const { return std::max<std::int64_t>(facts.least - ledger, 0); }
  std::int64_t too_many() const { return std::max<std::int64_t>(ledger - facts.most, 0); }
};

Told compare_told(const JournalTally::Account& account, const Span& known, bool whole) {
  auto at = [&](std::int64_t from) {
    const Span span{from, known.to};
    const std::int64_t live = span.open_end() ? static_cast<std::int64_t>(account.live) : 0;
    return Told{span, facts_between(account, span), sum_between(account.ledger, span.from, span.to) + live};
  };
  Told best = at(known.from);
  if (whole) return best;
  std::set<std::int64_t> cuts;
  const std::int64_t last = known.from + kDatedLaterMs / account.shape.bucket.count();
  for (const UnitsByBucket* side : {&account.facts, &account.ledger})
    for (auto found = side->lower_bound(known.from); found != side->end() && found->first <= last; ++found)
      cuts.insert(found->first + 1);
  for (std::int64_t cut : cuts) {
    const Told later = at(cut);
    if (later.missing() > best.missing() || (best.missing() == 0 && later.too_many() < best.too_many()))
      best = later;
  }
  return best;
}

void merge_ranges(std::vector<CallRange>& into, const std::vector<CallRange>& from) {
  for (const CallRange& range : from) {
    auto same = std::ranges::find_if(into, [&](const CallRange& other) {
      return other.journal == range.journal && other.stream == range.stream;
    });
    if (same == into.end()) {
      into.push_back(range);
    } else {
      same->first = std::min(same->first, range.first);
      same->last = std::max(same->last, range.last);
    }
  }
}

// Calls that arrived in the buckets where facts and ledger differ; in all of the span when they differ in none.
std::vector<CallRange> calls_concerned(const JournalTally::Account& account, const Span& span) {
  std::set<std::int64_t> differing, all;
  auto look = [&](const UnitsByBucket& units) {
    for (auto at = units.lower_bound(span.from); at != units.end() && at->first <= span.to; ++at) {
      all.insert(at->first);
      if (sum_between(account.facts, at->first, at->first) !=
          sum_between(account.ledger, at->first, at->first))
        differing.insert(at->first);
    }
  };
  look(account.facts);
  look(account.ledger);
  std::vector<CallRange> ranges;
  const std::int64_t bucket = account.shape.bucket.count();
  for (std::int64_t number : differing.empty() ? all : differing) {
    const std::int64_t begin = number * bucket - kChargeDelayMs - kMinuteMs, end = (number + 1) * bucket;
    for (auto at = account.calls.upper_bound(begin); at != account.calls.end() && at->first < end; ++at)
      merge_ranges(ranges, at->second);
  }
  return ranges;
}

// Ledger against store, over the live buckets. The store merges old buckets into later ones, so its oldest entry may
// hold units of buckets that have left; every later entry holds exactly what lies between it and the one before.
struct Held {
  std::int64_t units = 0, settled = 0;
  std::int64_t missing = 0, too_many = 0;
  std::int64_t edge = 0;  // of buckets that have left: accepted
};

Held compare_held(const JournalTally::Account& account, const StoredAccount* stored, const Span& span,
                  bool whole) {
  Held held;
  held.settled = sum_between(account.ledger, span.from, span.to);
  std::int64_t oldest = 0, oldest_units = 0;
  if (stored != nullptr)
    for (const auto& bucket : stored->buckets) {
      if (bucket.number < span.from || bucket.number > span.to) continue;
      if (held.units == 0) {
        oldest = bucket.number;
        oldest_units = static_cast<std::int64_t>(bucket.count);
      }
      held.units += static_cast<std::int64_t>(bucket.count);
    }
  if (held.units == 0) {
    held.missing = std::max<std::int64_t>(held.settled, 0);
    return held;
  }
  const std::int64_t least = sum_between(account.ledger, span.from, oldest);
  const std::int64_t most = whole ? std::max(least, sum_between(account.ledger, 0, oldest)) : oldest_units;
  held.edge = std::clamp<std::int64_t>(oldest_units - least, 0, std::max<std::int64_t>(most - least, 0));
  const std::int64_t off[] = {oldest_units - least - held.edge,
                              held.units - oldest_units - sum_between(account.ledger, oldest + 1, span.to)};
  for (std::int64_t units : off) (units < 0 ? held.missing : held.too_many) += std::abs(units);
  return held;
}

void reconcile_account(const AccountInputs& inputs, const AccountName& name,
                       const JournalTally::Account& account, const StoredAccount* stored,
                       Reconciliation& result) {
  const bool whole = inputs.journal.complete_from_ms() == 0;
  const Span known = known_span(account.shape, inputs.settled, inputs.journal.complete_from_ms());
  if (known.from > known.to) return;
  ++result.accounts;
  const Told told = compare_told(account, known, whole);
  result.units += told.ledger;
  result.uncertain_units += static_cast<std::uint64_t>(told.facts.most - told.facts.least);

  std::vector<std::string> what;
  const bool called = !observation(name);
  if (called && told.missing() > 0)
    what.push_back(fmt::format("{} units of calls were never counted for the store", told.missing()));
  if (called && told.too_many() > 0)
    what.push_back(
        fmt::format("{} units were counted for the store that no call accounts for", told.too_many()));
  Held held;
  if (inputs.store != nullptr) {
    held = compare_held(account, stored, live_span(known, account.shape, inputs.store->now), whole);
    result.edge_units += static_cast<std::uint64_t>(held.edge);
    if (held.missing > 0) what.push_back(fmt::format("{} units are missing in the store", held.missing));
    if (held.too_many > 0) what.push_back(fmt::format("the store holds {} units too many", held.too_many));
  }
  if (what.empty()) return;
  Difference difference;
  difference.account = account_text(name);
  if (called) difference.sides.push_back({"facts", told.facts.least, told.facts.most - told.facts.least});
  difference.sides.push_back({"ledger", told.ledger, 0});
  if (inputs.store != nullptr) {
    difference.sides.push_back({"ledger in the window", held.settled, 0});
    difference.sides.push_back({"store", held.units, 0});
  }
  difference.what = fmt::format("{}", fmt::join(what, "; "));
  difference.calls = calls_concerned(account, told.span);
  result.differences.push_back(std::move(difference));
}

// Calls name it, and no op or cell does.
std::optional<Difference> never_settled(const AccountInputs& inputs, const AccountName& name,
                                        const JournalTally::Account& account) {
  std::int64_t units = 0;
  for (const UnitsByBucket* side : {&account.facts, &account.undated})
    for (const auto& [at, count] : *side) units += count;
  const Milliseconds now = inputs.store != nullptr ? inputs.store->now : inputs.now;
  const auto window = inputs.window_of ? inputs.window_of(name) : std::nullopt;
  const std::int64_t last_ms = account.calls.empty() ? 0 : account.calls.rbegin()->first + kMinuteMs;
  if (units == 0 || (window && last_ms + window->count() + kChargeDelayMs < now.count())) return std::nullopt;
  if (inputs.settled && last_ms > inputs.settled->count()) return std::nullopt;
  Difference difference;
  difference.account = account_text(name);
  difference.sides = {{"facts", units, 0}, {"ledger", 0, 0}};
  difference.what = fmt::format("{} units of calls were never counted for the store", units);
  for (const auto& [minute, ranges] : account.calls) merge_ranges(difference.calls, ranges);
  return difference;
}

std::string key_text(const RollupKey& key) {
  std::string text;
  for (const std::string* part :
       {&key.tenant, &key.organization, &key.user, &key.product, &key.object, &key.operation})
    text += fmt::format("{}{}", part == &key.tenant ? "" : "/", part->empty() ? "-" : *part);
  return text;
}

}  // namespace

void JournalTally::begin_stream(const std::string& journal, const std::string& stream, bool whole) {
  journal_ = journal;
  stream_ = stream;
  seeking_start_ = !whole;
  open_.clear();
}

void JournalTally::note(std::map<std::int64_t, std::vector<CallRange>>& ranges, std::int64_t at,
                        std::uint64_t call) {
  if (call != 0) merge_ranges(ranges[at], {{journal_, stream_, call, call}});
}

void JournalTally::add(const CallBegin& begin) {
  if (std::exchange(seeking_start_, false)) complete_from_ms_ = std::max(complete_from_ms_, begin.time_ms);
  open_.insert_or_assign(begin.call, begin);
}

void JournalTally::add(const CallEnd& end) {
  if (end.call == 0) {
    if (end.alone) count(*end.alone, end);
    return;
  }
  auto found = open_.find(end.call);
  if (found == open_.end()) return;  // arrived before complete_from_ms()
  count(found->second, end);
  open_.erase(found);
}

void JournalTally::count(const CallBegin& begin, const CallEnd& end) {
  add_call(rollup_, begin, end);
  note(calls_by_hour_, hour_of(begin.time_ms), begin.call);
  for (std::size_t i = 0; i < begin.charged.size(); ++i) {
    const CallBegin::Charged& charged = begin.charged[i];
    const auto units = static_cast<std::int64_t>(charged.units);
    Account& account = accounts_[AccountName{charged.subject_key, charged.field}];
    note(account.calls, begin.time_ms / kMinuteMs * kMinuteMs, begin.call);
    const std::int64_t bucket = i < end.buckets.size() ? end.buckets[i] : 0;
    if (end.given_back) continue;
    if (bucket != 0)
      account.facts[bucket] += units;
    else if (end.outcome == CallOutcome::void_maybe)
      account.uncertain[begin.time_ms] += units;
    else if (end.outcome != CallOutcome::done)
      account.undated[begin.time_ms] += units;
  }
}

void JournalTally::add(const OpEntry& op) {
  if (!ops_.emplace(op.incarnation, op.partition, op.seq).second) return;
  for (const OpEntry::Account& settled : op.accounts) {
    Account& account = accounts_[AccountName{op.subject_key, settled.field}];
    const quota::WindowShape shape{Milliseconds(settled.window_ms), Milliseconds(settled.bucket_ms)};
    if (shape.bucket.count() <= 0) continue;
    if (account.shape.bucket.count() != 0 && account.shape.bucket != shape.bucket) account.reshaped = true;
    account.shape = shape;
    for (const auto& [bucket, units] : settled.uses) account.ledger[bucket] += units;
  }
}

void JournalTally::add_live(const AccountName& name, const quota::WindowShape& shape,
                            std::uint64_t unsettled) {
  Account& account = accounts_[name];
  account.live += unsettled;
  if (account.shape.bucket.count() == 0) account.shape = shape;
}

void JournalTally::end_stream() {
  for (const auto& [call, begin] : open_)
    for (const CallBegin::Charged& charged : begin.charged) {
      Account& account = accounts_[AccountName{charged.subject_key, charged.field}];
      account.uncertain[begin.time_ms] += static_cast<std::int64_t>(charged.units);
      note(account.calls, begin.time_ms / kMinuteMs * kMinuteMs, call);
    }
  open_.clear();
}

void reconcile_accounts(const AccountInputs& inputs, Reconciliation& result) {
  std::map<AccountName, const StoredAccount*> stored;
  if (inputs.store != nullptr)
    for (const StoredAccount& account : inputs.store->accounts) stored.emplace(account.name, &account);
  for (const auto& [name, account] : inputs.journal.accounts()) {
    auto found = stored.find(name);
    const StoredAccount* held = found == stored.end() ? nullptr : found->second;
    if (account.reshaped ||
        (held != nullptr && account.shape.bucket.count() != 0 && held->bucket != account.shape.bucket)) {
      result.skipped.push_back(account_text(name) + ": the window of its rule was changed");
      continue;
    }
    if (account.shape.bucket.count() == 0) {
      if (auto difference = never_settled(inputs, name, account))
        result.differences.push_back(std::move(*difference));
      continue;
    }
    reconcile_account(inputs, name, account, held, result);
  }
  for (const auto& [name, held] : stored) {
    if (inputs.journal.accounts().contains(name)) continue;
    const auto window = inputs.window_of ? inputs.window_of(name) : std::nullopt;
    JournalTally::Account unknown;
    unknown.shape = {window.value_or(inputs.store->now), held->bucket};
    reconcile_account(inputs, name, unknown, held, result);
  }
}

std::int64_t first_whole_hour(const JournalTally& journal) {
  return journal.complete_from_ms() == 0 ? 0 : hour_of(journal.complete_from_ms()) + 1;
}

void reconcile_rows(const JournalTally& journal, const Rollup& rows, std::int64_t first_hour,
                    std::int64_t end_hour, Reconciliation& result) {
  std::set<RollupKey> keys;
  for (const Rollup* side : {&journal.rollup(), &rows})
    for (const auto& [key, sums] : *side)
      if (key.hour >= first_hour && key.hour < end_hour) keys.insert(key);
  const RollupSums none;
  for (const RollupKey& key : keys) {
    ++result.rows;
    auto of = [&](const Rollup& side) -> const RollupSums& {
      auto found = side.find(key);
      return found == side.end() ? none : found->second;
    };
    const RollupSums &read = of(journal.rollup()), &billed = of(rows);
    if (read == billed) continue;
    Difference difference;
    difference.account = key_text(key);
    difference.hour = hour_text(key.hour);
    const auto calls_read = static_cast<std::int64_t>(read.calls),
               calls_billed = static_cast<std::int64_t>(billed.calls);
    difference.sides = {{"journal", calls_read, 0}, {"book", calls_billed, 0}};
    difference.what =
        calls_read == calls_billed
            ? "the same billable calls, but other sums (refusals, bytes or seconds)"
            : fmt::format("{} billable calls {}", std::abs(calls_read - calls_billed),
                          calls_read > calls_billed ? "are missing in the book" : "too many in the book");
    if (auto calls = journal.calls_by_hour().find(key.hour); calls != journal.calls_by_hour().end())
      difference.calls = calls->second;
    result.differences.push_back(std::move(difference));
  }
}

}  // namespace tollgate::usage
