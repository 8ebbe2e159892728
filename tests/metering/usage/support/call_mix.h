// Random calls as a journal would have them, and what they add up to, computed the slow and obvious way: one operation
// at a time.
#pragma once
#include <string>
#include <vector>

#include "metering/base/random.h"
#include "metering/usage/rollup.h"
#include "tests/metering/usage/support/entry_list.h"

namespace tollgate::usage {

inline constexpr std::int64_t kTestHour = 490'000;  // 2025-11-24T16:00Z

class CallMix {
 public:
  explicit CallMix(std::uint64_t seed) : random_(seed) {}

  CallBegin begin(std::uint64_t call) {
    CallBegin begin;
    begin.call = call;
    begin.time_ms = kTestHour * 3'600'000 + static_cast<std::int64_t>(random_.below(6 * 3'600'000));
    begin.tenant = pick({"acme", "globex", ""});
    begin.organization = pick({"", "north", "south"});
    begin.user = pick({"ann", "bob", "=cmd()", "zoë", "o'hara \"x\""});
    begin.request_id = "r" + std::to_string(call);
    for (std::uint64_t n = random_.below(4); n > 0; --n)
      begin.operations.push_back({pick({"Case", "Account", "Contact"}), pick({"read", "create"}), "",
                                  pick({"customer", "partner"}),
                                  static_cast<std::uint32_t>(1 + random_.below(3))});
    begin.charged.push_back({"q:{p017}:acme:u:" + begin.user, "daily", count(begin)});
    return begin;
  }

  CallEnd end(const CallBegin& begin) {
    CallEnd end;
    end.call = begin.call;
    end.bytes_in = random_.below(1'000);
    end.bytes_out = random_.below(100'000);
    end.total_us = random_.below(1'000'000);
    end.reason = "ok";
    end.status = 200;
    switch (random_.below(10)) {
      case 0:
        end.outcome = CallOutcome::interrupted, end.units = count(begin), end.reason = "", end.status = 0;
        break;
      case 1:
        end.outcome = CallOutcome::void_charged, end.reason = "", end.status = 0;
        break;
      case 2:
        end.outcome = CallOutcome::void_maybe, end.reason = "", end.status = 0;
        break;
      case 3:
        end.reason = "quota_exceeded", end.status = 429;
        break;
      case 4:
        end.reason = "upstream_unreachable", end.status = 502, end.given_back = true;
        break;
      case 5:
        end.units = count(begin), end.reason = "upstream_timeout", end.status = 504;
        break;
      case 6:
        break;  // free
      default:
        end.units = count(begin), end.degraded = random_.one_in(5),
        end.upstream_us = random_.below(2'000'000);
    }
    end.buckets = {begin.time_ms / 60'000};
    return end;
  }

  static std::uint32_t count(const CallBegin& begin) {
    std::uint32_t sum = 0;
    for (const auto& operation : begin.operations) sum += operation.count;
    return std::max(sum, 1U);
  }

  // Writes `calls` calls to one stream, many of them under way at the same time, a few for ever; adds to the truth.
  void write(EntryList& journal, const std::string& stream, std::uint64_t calls, Rollup& truth) {
    std::vector<CallBegin> under_way;
    for (std::uint64_t call = next_call_; call < next_call_ + calls; ++call) {
      CallBegin begin = this->begin(call);
      if (random_.one_in(10)) {
        CallEnd end = this->end(begin);
        begin.call = 0;
        end.call = 0;
        end.alone = begin;
        journal.add(stream, end);
        count(truth, begin, end);
      } else {
        journal.add(stream, begin);
        under_way.push_back(std::move(begin));
      }
      while (under_way.size() > 3 && random_.one_in(2)) finish(journal, stream, under_way, truth);
    }
    next_call_ += calls;
    while (under_way.size() > 2) finish(journal, stream, under_way, truth);
  }

  static void count(Rollup& truth, const CallBegin& begin, const CallEnd& end) {
    std::vector<RollupKey> single;
    RollupKey key{begin.time_ms / 3'600'000, begin.tenant, begin.organization, begin.user, "", "", ""};
    for (const auto& operation : begin.operations)
      for (std::uint32_t i = 0; i < operation.count; ++i) {
        key.product = operation.product, key.object = operation.object, key.operation = operation.operation;
        single.push_back(key);
      }
    if (single.empty()) single.push_back(key);
    std::set<RollupKey> touched;
    for (std::size_t i = 0; i < single.size(); ++i) {
      RollupSums& row = truth[single[i]];
      auto share = [&](std::uint64_t sum) {
        return sum / single.size() + (i == 0 ? sum % single.size() : 0);
      };
      row.bytes_in += share(end.bytes_in);
      row.bytes_out += share(end.bytes_out);
      row.backend_us += share(end.upstream_us);
      if (touched.insert(single[i]).second && end.upstream_us > 0) row.latency.add(end.upstream_us);
      if (end.outcome == CallOutcome::void_charged)
        ++row.void_charged;
      else if (end.outcome == CallOutcome::void_maybe)
        ++row.void_maybe;
      else if (end.given_back)
        ++row.given_back;
      else if (end.units == 0 && end.reason == "ok")
        ++row.free;
      else if (end.units == 0)
        ++row.denied[end.reason];
      else {
        ++row.calls;
        if (end.outcome == CallOutcome::interrupted) ++row.interrupted;
        if (end.degraded) ++row.degraded;
        if (end.status >= 500) ++row.errors;
      }
    }
  }

 private:
  void finish(EntryList& journal, const std::string& stream, std::vector<CallBegin>& under_way,
              Rollup& truth) {
    const std::size_t which = random_.below(under_way.size());
    CallBegin begin = under_way[which];
    under_way.erase(under_way.begin() + static_cast<std::ptrdiff_t>(which));
    CallEnd end = this->end(begin);
    journal.add(stream, end);
    count(truth, begin, end);
  }
  std::string pick(std::initializer_list<const char*> from) {
    return *(from.begin() + random_.below(from.size()));
  }

  Random random_;
  std::uint64_t next_call_ = 1;
};

}  // namespace tollgate::usage
