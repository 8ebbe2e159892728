// Where calls are counted, as those see it who charge calls. Behind it stand leases over Redis (lease_ledger.h; in the
// proxy proxy/cli/lease_worker.h) or plain memory (memory_ledger.h; tests, benches).
//
// A call on n operations charges every account that applies, ALL OR NOTHING: either each account had room for its
// units and all are counted, or none is. An account is one rule for one subject: "daily" of user ann of tenant acme.
//
// Exactness: in no span of `window` are more units admitted than the limit. Time is the store's own clock, never the
// proxy's. A unit is counted in the bucket [b*bucket, (b+1)*bucket) of its admission and leaves the window when
// (b+1)*bucket + window + guard has passed: late by at most bucket + guard, never early.
//
// Threads: a Ledger belongs to one worker; callbacks run on that worker, possibly before charge() returns.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "metering/base/error.h"
#include "metering/base/time.h"

namespace tollgate::quota {

inline constexpr std::uint64_t kUnlimited = UINT64_MAX;  // counted, never refused

// Names an account in the store. partition/subject/field follow metering/quota/keys.h.
struct AccountKey {
  std::string subject_key;  // one key per subject: "q:{p017}:acme:u:ann"; same subject = same Redis slot
  std::string field;        // account within the subject: "daily", or "daily|Case|read" for finer rules
  bool operator==(const AccountKey&) const = default;
};

struct AccountCharge {
  AccountKey key;
  std::uint64_t limit = 0;  // the rule's limit; an override kept in the store wins
  Milliseconds window{0};
  Milliseconds bucket{0};
  std::uint32_t units = 0;  // > 0
  std::uint32_t rule = 0;   // index into the rules, for the reply; not sent to the store
  bool shadow = false;      // a candidate limit: evaluated and counted, but its refusal refuses nothing
};

// What an account looks like right after a charge (or refusal), by the store's clock.
// Of a charge without limit that was admitted only the limit is told: nobody asks for more on the way of a call.
struct AccountState {
  std::uint64_t used = 0;             // units in the window now, this charge included if admitted
  std::uint64_t limit = 0;            // effective limit, override included
  Milliseconds next_free_after{0};    // when the oldest bucket leaves; 0 when nothing is counted
  std::uint64_t next_free_units = 0;  // what it gives back
  Milliseconds admitted_after{
      0};  // when the refused units would fit; 0 when they fit now; max() when never (units > limit)
  std::uint64_t remaining() const { return used >= limit ? 0 : limit - used; }
};

// Proof of an admitted charge: needed, with the charges, to give it back exactly.
struct Receipt {
  struct Item {
    std::uint32_t charge = 0;  // index of the charge; they rise
    std::int64_t bucket_number = 0;
    std::uint32_t units = 0;
    Milliseconds window{0}, bucket{0};
    bool degraded = false;  // admitted without a token, while the store was away
  };
  std::vector<Item> items;
};

struct ChargeOutcome {
  enum class Status : std::uint8_t { admitted, exceeded, unavailable } status = Status::unavailable;
  std::vector<AccountState> states;     // in the order of the charges; empty when unavailable
  std::vector<std::uint32_t> violated;  // indexes of charges without room (exceeded)
  std::vector<std::uint32_t>
      shadow_violated;    // indexes of shadow charges without room; they were not charged
  bool degraded = false;  // admitted although the store could not be asked (on_outage: allow)
  Receipt receipt;        // admitted
  std::string error;      // unavailable: why, for the log

  void clear();  // as new, but for memory that is kept
};

inline void ChargeOutcome::clear() {
  auto kept_states = std::move(states);
  auto kept_items = std::move(receipt.items);
  *this = ChargeOutcome{};
  kept_states.clear();
  kept_items.clear();
  states = std::move(kept_states);
  receipt.items = std::move(kept_items);
}

class Ledger {
 public:
  virtual ~Ledger() = default;

  // Who swaps what it takes from the outcome for memory it has no use for saves the ledger from asking for new memory.
  using ChargeDone = std::function<void(ChargeOutcome&&)>;
  using ReadDone = std::function<void(Result<std::vector<AccountState>>&&)>;
  struct Listed {
    std::string field;  // AccountKey::field
    std::uint64_t used = 0;
  };
  using ListDone = std::function<void(Result<std::vector<Listed>>&&)>;

  // Always answers, within the store's bound (`store.timeout`): unavailable when the store did not answer in time.
  // An answer that arrives after the bound and says `admitted` is given back by the ledger itself.
  virtual void charge(std::span<const AccountCharge> charges, ChargeDone done) = 0;
  // The upstream never received the call. `charges` are those of the receipt, as they were. No answer; a failure leaves the
  // units charged (the safe side).
  virtual void give_back(std::span<const AccountCharge> charges, const Receipt& receipt) = 0;
  // States without charging. `units` of the charges is ignored.
  virtual void read(std::vector<AccountCharge> accounts, ReadDone done) = 0;
  // The accounts of one subject whose field starts with `prefix` and that hold anything, all counted over the same
  // window and bucket. For what was not known beforehand: which objects a user called (GET /.tollgate/usage).
  virtual void list(std::string subject_key, std::string prefix, Milliseconds window, Milliseconds bucket,
                    ListDone done) = 0;
};

}  // namespace tollgate::quota
