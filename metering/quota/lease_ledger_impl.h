// Inside of LeaseLedger: one Call for each charge that could not be decided at once.
//
//   lease_ledger.cc        charges: attempts, asking, deadlines, outages
//   lease_ledger_read.cc   states, reads, what is given back
#pragma once
#include <optional>
#include <unordered_set>

#include "metering/quota/lease_handles.h"
#include "metering/quota/lease_ledger.h"

namespace tollgate::quota {

class LeaseLedger::Impl {
 public:
  Impl(LeaseTable& table, OwnerPort& owners, std::function<MonotonicTime()> now, LeaseLedgerOptions options);
  ~Impl();

  void charge(std::span<const AccountCharge> charges, ChargeDone done);
  void give_back(std::span<const AccountCharge> charges, const Receipt& receipt);
  void read(std::vector<AccountCharge> accounts, ReadDone done);
  void list(std::string subject_key, std::string prefix, Milliseconds window, Milliseconds bucket,
            ListDone done);
  void tick();

  LeaseLedgerOptions options_;
  Counters counters_;

 private:
  using Answer = LeaseEngine::Answer;

  // What an attempt made of one charge.
  struct Slot {
    enum class State : std::uint8_t { lacking, taken, owed, uncounted } state = State::lacking;
    AccountRef account;  // null: the table is full
    AccountView view;    // of an account with a limit, before the attempt
    std::int64_t bucket = 0;
    bool forced = false;  // no token was taken
    bool denied = false;  // lacking, and known to stay so
  };
  struct Asked {
    AccountRef account;
    bool enforced = false;  // some charge of it is limited and no shadow: its refusal refuses the call
    std::optional<Answer> answer;
  };
  struct Call {
    std::vector<AccountCharge> charges;
    ChargeDone done;
    std::vector<Slot> slots;
    std::vector<Asked> asked;  // each account once, as it was asked last
    std::size_t awaited = 0;   // answers, of the present round
    unsigned round = 0;
    std::shared_ptr<void> timer;
    ChargeOutcome outcome;  // its memory, for the next answer
  };
  using CallRef = std::shared_ptr<Call>;
  // Degraded admissions that no clock could date yet.
  struct Owed {
    AccountRef account;
    AccountKey key;
    std::uint32_t units = 0;
  };
  // Waits for all settlements of a read, but not for ever.
  struct Settling {
    std::size_t awaited = 0;
    bool all = true, over = false;
    std::function<void(bool)> then;
    std::shared_ptr<void> timer;
  };

  // ---- lease_ledger.cc
  AccountRef look_up(const AccountCharge& charge, std::string& error);
  bool attempt(Call& call, MonotonicTime now, std::string& error);
  void attempt_one(const AccountCharge& charge, Slot& slot, MonotonicTime now);
  bool denied(const Call& call, std::size_t index) const;
  void undo(Call& call);
  void run(const CallRef& call, bool last);
  void let_through(Call& call);
  std::optional<Answer> answer_of(const Call& call, const AccountRef& account) const;
  bool may_refuse_too(const Call& call, std::size_t index) const;
  void ask(const CallRef& call, bool refused);
  void on_answer(const CallRef& call, unsigned round, const AccountRef& account, Answer answer);
  void admit_call(const CallRef& call, MonotonicTime now);
  void refuse(const CallRef& call);
  void unavailable(const CallRef& call, std::string why);
  void finish(const CallRef& call);  // tells call->outcome
  void put_back(const AccountRef& account, std::int64_t bucket, std::uint32_t units, bool forced);
  PartitionState& partition(const Account& account) { return table_.partition(account.partition); }
  const PartitionState& partition(const Account& account) const {
    return table_.partition(account.partition);
  }

  // ---- lease_ledger_read.cc
  AccountState state(const AccountCharge& charge, const Account* account, const AccountView& view,
                     MonotonicTime now, bool refused) const;
  Result<std::vector<AccountState>> states_from_memory(const std::vector<AccountCharge>& accounts);
  void settle_all(const std::vector<AccountCharge>& accounts, std::function<void(bool)> then);
  void settled_one(const std::shared_ptr<Settling>& settling, bool settled);
  AccountRef cached(const AccountKey& key);

  LeaseTable& table_;
  OwnerPort& owners_;
  std::function<MonotonicTime()> now_;
  LeaseHandles handles_;
  CallRef spare_;                      // memory of a charge that never waited
  std::unordered_set<CallRef> calls_;  // those that wait
  std::unordered_set<std::shared_ptr<Settling>> settlings_;
  std::vector<Owed> owed_;
  std::shared_ptr<Impl*> alive_;  // null inside once this is gone: for callbacks that come later
};

}  // namespace tollgate::quota
