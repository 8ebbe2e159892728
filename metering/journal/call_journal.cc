#include "metering/journal/call_journal.h"

#include <algorithm>
#include <chrono>

namespace tollgate::journal {
namespace {

std::uint64_t microseconds(Duration duration) {
  return static_cast<std::uint64_t>(
      std::max<std::int64_t>(0, std::chrono::duration_cast<std::chrono::microseconds>(duration).count()));
}

// Equal operations of a batch become one with a count. Looking back a little finds them: a batch repeats few.
template <class Operation>
void fill_operations(std::vector<Operation>& out, std::span<const usage::CountedOperation> operations) {
  constexpr std::size_t kLookBack = 16;
  std::size_t size = 0;
  for (const usage::CountedOperation& operation : operations) {
    bool counted = false;
    for (std::size_t i = size; i > 0 && i + kLookBack > size; --i) {
      Operation& known = out[i - 1];
      if (known.object != operation.object || known.operation != operation.operation ||
          known.section != operation.section || known.product != operation.product)
        continue;
      ++known.count;
      counted = true;
      break;
    }
    if (counted) continue;
    if (out.size() == size) out.emplace_back();
    Operation& made = out[size++];
    made.object = operation.object;
    made.operation = operation.operation;
    made.section = operation.section;
    made.product = operation.product;
    made.count = 1;
  }
  out.resize(size);
}

template <class Text>
void fill(usage::CallBeginOf<Text>& begin, const usage::Fact& fact,
          std::span<const usage::ChargedAccount> accounts) {
  begin.call = 0;
  begin.time_ms = std::chrono::duration_cast<Milliseconds>(fact.time.time_since_epoch()).count();
  begin.request_id = fact.request_id.substr(0, StreamCallJournal::kTextMax);
  begin.user = fact.user;
  begin.tenant = fact.tenant;
  begin.organization = fact.organization;
  begin.client_address = fact.client_address;
  begin.method = fact.method.substr(0, StreamCallJournal::kTextMax);
  begin.path = fact.path.substr(0, StreamCallJournal::kPathMax);
  begin.kind = fact.kind;
  begin.staff = fact.staff;
  fill_operations(begin.operations, fact.operations);
  begin.charged.resize(accounts.size());
  for (std::size_t i = 0; i < accounts.size(); ++i) {
    begin.charged[i].subject_key = accounts[i].subject_key;
    begin.charged[i].field = accounts[i].field;
    begin.charged[i].units = accounts[i].units;
  }
}

}  // namespace

StreamCallJournal::StreamCallJournal(Journal& journal, unsigned worker)
    : journal_(journal), stream_(journal.stream(worker)) {}

bool StreamCallJournal::writable() const {
  return journal_.writable();
}

usage::CallHandle StreamCallJournal::begin(const usage::Fact& fact,
                                           std::span<const usage::ChargedAccount> accounts) {
  fill(begin_, fact, accounts);
  const auto call = stream_.begin_call(begin_);
  return call ? usage::CallHandle{call->call, call->place} : usage::CallHandle{};
}

void StreamCallJournal::charged(usage::CallHandle call) {
  if (call.call != 0) stream_.charged({call.call, call.place});
}
void StreamCallJournal::uncharged(usage::CallHandle call) {
  if (call.call != 0) stream_.uncharged({call.call, call.place});
}
void StreamCallJournal::sent(usage::CallHandle call) {
  if (call.call != 0) stream_.sent({call.call, call.place});
}

void StreamCallJournal::record(usage::CallHandle call, const usage::Fact& fact,
                               std::span<const usage::ChargedAccount> accounts, bool given_back) {
  end_.outcome = usage::CallOutcome::done;
  end_.reason = code(fact.reason);
  end_.status = static_cast<std::uint32_t>(std::max(0, fact.status));
  end_.units = fact.units;
  end_.given_back = given_back;
  end_.degraded = fact.degraded;
  end_.bytes_in = fact.bytes_in;
  end_.bytes_out = fact.bytes_out;
  end_.total_us = microseconds(fact.total);
  end_.upstream_us = microseconds(fact.upstream);
  end_.store_us = microseconds(fact.store);
  end_.upstream_server = fact.upstream_server;
  end_.attempts = fact.attempts;
  end_.buckets.clear();
  for (const usage::ChargedAccount& account : accounts) end_.buckets.push_back(account.bucket);
  if (call.call != 0) {
    end_.alone.reset();
    if (!stream_.end_call({call.call, call.place}, end_)) ++unwritten_;
    return;
  }
  if (!end_.alone) end_.alone.emplace();
  fill(*end_.alone, fact, accounts);
  if (!stream_.append(end_)) ++unwritten_;
}

}  // namespace tollgate::journal
