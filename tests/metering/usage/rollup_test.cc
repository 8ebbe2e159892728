#include "metering/usage/rollup.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/metering/usage/support/call_mix.h"

namespace tollgate::usage {
namespace {

CallBegin batch(std::vector<CallBegin::Operation> operations) {
  CallBegin begin{.call = 1, .time_ms = kTestHour * 3'600'000, .user = "ann", .tenant = "acme"};
  begin.operations = std::move(operations);
  return begin;
}

void add(RollupBuilder& builder, const CallBegin& begin) {
  std::string body;
  encode(begin, body);
  ASSERT_TRUE(builder.add_begin(body));
}

void add(RollupBuilder& builder, const CallEnd& end) {
  std::string body;
  encode(end, body);
  ASSERT_TRUE(builder.add_end(body));
}

RollupKey key(std::string object, std::string operation) {
  return {kTestHour, "acme", "", "ann", "customer", std::move(object), std::move(operation)};
}

TEST(Rollup, BatchIsSplitOverItsOperationsAndTheFirstTakesTheRemainder) {
  RollupBuilder builder;
  add(builder, batch({{"Case", "read", "", "customer", 2}, {"Account", "read", "", "customer", 1}}));
  add(builder,
      CallEnd{.call = 1, .reason = "ok", .status = 200, .units = 3, .bytes_out = 100, .upstream_us = 10});
  const Rollup rollup = builder.take();
  ASSERT_EQ(rollup.size(), 2u);
  const RollupSums& first = rollup.at(key("Case", "read"));
  EXPECT_EQ(first.calls, 2u);
  EXPECT_EQ(first.bytes_out, 67u);
  EXPECT_EQ(first.backend_us, 7u);
  const RollupSums& second = rollup.at(key("Account", "read"));
  EXPECT_EQ(second.calls, 1u);
  EXPECT_EQ(second.bytes_out, 33u);
  EXPECT_EQ(second.backend_us, 3u);
  EXPECT_EQ(first.latency.count(), 1u);
  EXPECT_EQ(second.latency.count(), 1u);
}

TEST(Rollup, UnitsThatAreNotTheNumberOfOperationsStillAddUp) {
  for (std::uint32_t units : {1U, 2U, 4U, 7U, 1'000'003U}) {
    RollupBuilder builder;
    add(builder, batch({{"Case", "read", "", "customer", 2}, {"Account", "read", "", "customer", 1}}));
    add(builder, CallEnd{.call = 1, .reason = "ok", .units = units});
    std::uint64_t sum = 0;
    for (const auto& [row, sums] : builder.take()) sum += sums.calls;
    EXPECT_EQ(sum, units);
  }
}

TEST(Rollup, BeginWithoutEndAddsNothingUntilItsEndComes) {
  RollupBuilder builder;
  builder.set_entry(41);
  add(builder, batch({{"Case", "read", "", "customer", 1}}));
  EXPECT_TRUE(builder.take().empty());
  ASSERT_EQ(builder.open_calls().size(), 1u);
  EXPECT_EQ(builder.open_calls().at(1).entry, 41u);

  RollupBuilder next;  // the reader starts anew, behind the begin
  for (const auto& [call, open] : builder.open_calls()) next.restore(open.entry, open.begin);
  add(next, CallEnd{.call = 1, .reason = "ok", .units = 1});
  EXPECT_EQ(next.take().at(key("Case", "read")).calls, 1u);
  EXPECT_TRUE(next.open_calls().empty());
}

TEST(Rollup, EndWhoseBeginWasLostIsReportedAndBillsNobody) {
  RollupBuilder builder;
  builder.set_entry(7);
  add(builder, CallEnd{.call = 5, .reason = "ok", .units = 3});
  EXPECT_TRUE(builder.take().empty());
  const auto orphans = builder.take_orphans();
  ASSERT_EQ(orphans.size(), 1u);
  EXPECT_EQ(orphans[0].entry, 7u);
  EXPECT_EQ(orphans[0].call, 5u);
  EXPECT_EQ(orphans[0].units, 3u);
  EXPECT_TRUE(builder.take_orphans().empty());
}

TEST(Rollup, InterruptedCallIsBilledAndVoidOnesAreNot) {
  RollupBuilder builder;
  const std::vector<CallBegin::Operation> twice{{"Case", "read", "", "customer", 2}};
  add(builder, batch(twice));
  add(builder, CallEnd{.call = 1, .outcome = CallOutcome::interrupted});  // units not known: its operations
  add(builder, batch(twice));
  add(builder, CallEnd{.call = 1, .outcome = CallOutcome::void_charged});
  add(builder, batch(twice));
  add(builder, CallEnd{.call = 1, .outcome = CallOutcome::void_maybe});
  const RollupSums sums = builder.take().at(key("Case", "read"));
  EXPECT_EQ(sums.calls, 2u);
  EXPECT_EQ(sums.interrupted, 2u);
  EXPECT_EQ(sums.void_charged, 2u);
  EXPECT_EQ(sums.void_maybe, 2u);
}

TEST(Rollup, InterruptedCallWithoutOperationsIsFree) {
  RollupBuilder builder;
  add(builder, batch({}));
  add(builder, CallEnd{.call = 1, .outcome = CallOutcome::interrupted, .reason = "interrupted"});
  const Rollup rollup = builder.take();
  ASSERT_EQ(rollup.size(), 1u);
  EXPECT_EQ(rollup.begin()->second.free, 1u);
  EXPECT_TRUE(rollup.begin()->second.denied.empty());
}

// docs/billing.md: staff is free, also when a quota rule binds it.
TEST(Rollup, StaffIsNeverBilled) {
  RollupBuilder builder;
  for (const CallOutcome outcome : {CallOutcome::done, CallOutcome::interrupted}) {
    CallBegin staff = batch({{"Case", "read", "", "customer", 1}});
    staff.staff = true;
    add(builder, staff);
    add(builder, CallEnd{.call = 1, .outcome = outcome, .reason = "ok", .status = 200, .units = 1});
  }
  const RollupSums sums = builder.take().at(key("Case", "read"));
  EXPECT_EQ(sums.calls, 0u);
  EXPECT_EQ(sums.free, 2u);
}

TEST(Rollup, RefusedAndGivenBackOperationsAreCountedAndNotBilled) {
  RollupBuilder builder;
  CallEnd refused{.reason = "quota_exceeded", .status = 429};
  refused.alone = batch({{"Case", "read", "", "customer", 3}});
  add(builder, refused);
  CallEnd back{.reason = "upstream_unreachable", .status = 502, .given_back = true};
  back.alone = batch({{"Case", "read", "", "customer", 1}});
  add(builder, back);
  const RollupSums sums = builder.take().at(key("Case", "read"));
  EXPECT_EQ(sums.calls, 0u);
  EXPECT_EQ(sums.denied, (std::map<std::string, std::uint64_t>{{"quota_exceeded", 3}}));
  EXPECT_EQ(sums.given_back, 1u);
}

TEST(Rollup, CallBelongsToTheHourOfItsArrival) {
  EXPECT_EQ(hour_of(0), 0);
  EXPECT_EQ(hour_of(3'599'999), 0);
  EXPECT_EQ(hour_of(3'600'000), 1);
  EXPECT_EQ(hour_of(-1), -1);
}

TEST(Rollup, SumsOfRandomCallsEqualTheNaiveOnes) {
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    CallMix mix(seed);
    EntryList journal;
    Rollup truth;
    mix.write(journal, "0", 300, truth);
    RollupBuilder builder;
    Rollup sums;
    Random random(seed);
    ASSERT_TRUE(journal.read("0", 0, [&](const auto& at, const EntryView& view) {
      builder.set_entry(at.number);
      EXPECT_TRUE(view.kind == EntryKind::call_begin ? builder.add_begin(view.body)
                                                     : builder.add_end(view.body));
      if (random.one_in(20))  // sums may be taken at any moment
        for (const auto& [row, part] : builder.take()) sums[row].merge(part);
      return true;
    }));
    for (const auto& [row, part] : builder.take()) sums[row].merge(part);
    EXPECT_EQ(sums, truth);
    EXPECT_TRUE(builder.take_orphans().empty());
    EXPECT_LE(builder.open_calls().size(), 2u);
  }
}

TEST(LatencySketch, QuantilesErrByLessThanFourPercent) {
  Random random(7);
  for (int round = 0; round < 200; ++round) {
    LatencySketch sketch;
    std::vector<std::uint64_t> values;
    for (std::uint64_t n = 1 + random.below(400); n > 0; --n) {
      std::uint64_t scale = 1'000;
      for (std::uint64_t power = random.below(6); power > 0; --power) scale *= 10;
      values.push_back(100 + random.below(scale));
      sketch.add(values.back());
    }
    std::ranges::sort(values);
    for (double q : {0.0, 0.01, 0.5, 0.9, 0.99, 1.0}) {
      const auto rank = std::max<std::size_t>(
          1, static_cast<std::size_t>(std::ceil(q * static_cast<double>(values.size()))));
      const auto exact = static_cast<double>(values[rank - 1]);
      EXPECT_NEAR(static_cast<double>(sketch.quantile(q)), exact, exact * 0.04) << "q " << q;
    }
  }
}

// Sketches are kept in books: what the bounds were they stay.
TEST(LatencySketch, BoundsAre32ToAFactorOfTen) {
  const auto bucket_of = [](std::uint64_t us) {
    LatencySketch sketch;
    sketch.add(us);
    const std::string bytes = sketch.encode();  // a varint below 2^14, and 1
    return bytes.size() == 2 ? bytes[0] & 0x7f : (bytes[0] & 0x7f) | bytes[1] << 7;
  };
  EXPECT_EQ(bucket_of(0), 0);
  for (int i = 0; i <= 224; ++i) {
    const auto bound = static_cast<std::uint64_t>(std::llround(100 * std::pow(10, i / 32.0)));
    EXPECT_EQ(bucket_of(bound - 1), i) << bound;
    EXPECT_EQ(bucket_of(bound), i + 1) << bound;
  }
  EXPECT_EQ(bucket_of(UINT64_MAX), 225);
}

TEST(LatencySketch, SurvivesItsEncodingAndAddsUp) {
  LatencySketch both, one, other;
  EXPECT_EQ(both.quantile(0.5), 0u);
  EXPECT_EQ(both.encode(), "");
  for (std::uint64_t us : {0ULL, 1ULL, 99ULL, 100ULL, 5'000ULL, 999'999'999ULL, 1'000'000'000ULL, ~0ULL}) {
    one.add(us);
    both.add(us);
    other.add(us, 3);
    both.add(us, 3);
  }
  auto again = LatencySketch::decode(one.encode());
  ASSERT_TRUE(again);
  EXPECT_EQ(*again, one);
  again->merge(other);
  EXPECT_EQ(*again, both);
  EXPECT_EQ(again->count(), 32u);
}

TEST(LatencySketch, BytesThatAreNoSketchAreAnError) {
  using namespace std::string_view_literals;
  for (std::string_view bytes : {"\x01"sv, "\x01\x00"sv, "\x01\x01\x00\x01"sv, "\xff\xff\xff\xff\x7f\x01"sv,
                                 "\xe1\x01\x01\x01\x01"sv, "\x80"sv})
    EXPECT_FALSE(LatencySketch::decode(bytes)) << bytes.size();
}

TEST(DeniedText, SurvivesBothWays) {
  const std::map<std::string, std::uint64_t> denied{{"operation_not_licensed", 1}, {"quota_exceeded", 12}};
  EXPECT_EQ(format_denied(denied), "operation_not_licensed=1;quota_exceeded=12");
  EXPECT_EQ(parse_denied(format_denied(denied)), denied);
  EXPECT_TRUE(parse_denied("").empty());
  EXPECT_TRUE(parse_denied(";;=;x=;x=y;x").empty());
}

}  // namespace
}  // namespace tollgate::usage
