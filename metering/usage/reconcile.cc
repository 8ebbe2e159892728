#include "metering/usage/reconcile.h"

#include <fmt/format.h>

#include <algorithm>

#include "metering/usage/export_row.h"

namespace tollgate::usage {
namespace {

constexpr std::int64_t kMinuteMs = 60'000;
// A call is charged this much later than it arrived, at most, when its arrival has to stand for its bucket: it waits
// for the store no longer, and the proxy's calendar clock is as close to the store's.
constexpr std::int64_t kChargeDelayMs = 5'000;
// A cell with many buckets open dates some of their units later (metering/quota/lease_cell.h), until it is settled; that
// is every flush_interval, a quarter of an hour.
constexpr std::int64_t kDatedLaterMs = 3'600'000;

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

// The buckets that all sides know whole, and what each side has in them.
struct Span {
  std::int64_t from = 0, to = std::numeric_limits<std::int64_t>::max();
  bool empty() const { return from > to; }
};

Span span_of(const quota::WindowShape& shape, Milliseconds now, std::optional<Milliseconds> settled,
             std::int64_t complete_from_ms) {
  Span span;
  const std::int64_t bucket = shape.bucket.count();
  const Milliseconds edge = now - shape.window - shape.guard();
  span.from =
      std::max<std::int64_t>(edge.count() / bucket, 0);  // the first live one: (b + 1) * bucket > edge
  if (complete_from_ms > 0) {
    span.from = std::max(span.from, (complete_from_ms + kChargeDelayMs) / bucket + 1);
  }
  if (settled) span.to = settled->count() / bucket - 1;
  return span;
}

struct Facts {
  std::int64_t least = 0, most = 0;
  std::int64_t before = 0;  // in the buckets right before the span: perhaps dated into it
};

Facts facts_between(const JournalTally::Account& account, const Span& span) {
  const std::int64_t bucket = account.shape.bucket.count();
  Facts facts;
  facts.least = facts.most = sum_between(account.facts, span.from, span.to);
  facts.before = sum_between(account.facts, span.from - kDatedLaterMs / bucket, span.from - 1);
  // Recovery dates what it cannot date at the restart: never earlier than the arrival.
  for (const auto& [arrival_ms, units] : account.undated) {
    const std::int64_t earliest = arrival_ms / bucket, latest = (arrival_ms + kChargeDelayMs) / bucket;
    if (earliest > span.to) continue;
    facts.most += units;
    const bool open_end = span.to != std::numeric_limits<std::int64_t>::max();
    if (earliest >= span.from && !(open_end && latest + 1 >= span.to)) facts.least += units;
  }
  for (const auto& [arrival_ms, units] : account.uncertain)
    if (arrival_ms / bucket <= span.to && (arrival_ms + kChargeDelayMs) / bucket >= span.from)
      facts.most += units;
  return facts;
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

struct Stored {
  std::int64_t units = 0;
  std::int64_t oldest = 0;  // in the first entry of the span
};

Stored stored_between(const StoredAccount& account, const Span& span) {
  Stored stored;
  bool first = true;
  for (const auto& bucket : account.buckets) {
    if (bucket.number < span.from || bucket.number > span.to) continue;
    stored.units += static_cast<std::int64_t>(bucket.count);
    if (first) stored.oldest = static_cast<std::int64_t>(bucket.count);
    first = false;
  }
  return stored;
}

void reconcile_account(const AccountInputs& inputs, const AccountName& name,
                       const JournalTally::Account& account, const StoredAccount* stored,
                       Reconciliation& result) {
  const Milliseconds now = inputs.store != nullptr ? inputs.store->now : inputs.now;
  const Span span = span_of(account.shape, now, inputs.settled, inputs.journal.complete_from_ms());
  if (span.empty()) return;
  ++result.accounts;
  const Facts facts = facts_between(account, span);
  // While proxies serve, what is live belongs to buckets that are not compared.
  const std::int64_t live = inputs.settled ? 0 : static_cast<std::int64_t>(account.live);
  const std::int64_t settled = sum_between(account.ledger, span.from, span.to);
  const std::int64_t ledger = settled + live;
  result.units += ledger;
  result.uncertain_units += static_cast<std::uint64_t>(facts.most - facts.least);

  std::string what;
  const bool called = !observation(name);
  const std::int64_t dated_later =
      called ? std::clamp<std::int64_t>(ledger - facts.most, 0, facts.before) : 0;
  result.edge_units += static_cast<std::uint64_t>(dated_later);
  if (called && (ledger < facts.least || ledger > facts.most + dated_later))
    what = ledger < facts.least
               ? fmt::format("{} units of calls were never counted for the store", facts.least - ledger)
               : fmt::format("{} units were counted for the store that no call accounts for",
                             ledger - facts.most);
  Stored held;
  if (inputs.store != nullptr) {
    if (stored != nullptr) held = stored_between(*stored, span);
    const std::int64_t before = inputs.journal.complete_from_ms() > 0
                                    ? held.oldest  // part of it may not be kept any more
                                    : sum_between(account.ledger, 0, span.from - 1);
    const std::int64_t edge = std::clamp<std::int64_t>(before, 0, held.oldest);
    // What is live has not reached the store.
    if (held.units < settled)
      what +=
          fmt::format("{}{} units are missing in the store", what.empty() ? "" : "; ", settled - held.units);
    else if (held.units > settled + edge)
      what += fmt::format("{}the store holds {} units too many", what.empty() ? "" : "; ",
                          held.units - settled - edge);
    else
      result.edge_units += static_cast<std::uint64_t>(held.units - settled);
  }
  if (what.empty()) return;
  Difference difference;
  difference.account = account_text(name);
  if (called) difference.sides.push_back({"facts", facts.least, facts.most - facts.least});
  difference.sides.push_back({"ledger", ledger, 0});
  if (inputs.store != nullptr) difference.sides.push_back({"store", held.units, 0});
  difference.what = std::move(what);
  difference.calls = calls_concerned(account, span);
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
