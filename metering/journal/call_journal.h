// Calls as entries: what proxy/flow knows of a call (usage::Fact) into one worker's stream.
//
//   auto calls = StreamCallJournal(journal, worker);
//   auto handle = calls.begin(fact, accounts); ... calls.charged(handle); calls.sent(handle); ...
//   calls.record(handle, fact, accounts, false);
//
// The entries are kept and filled anew, so that a call in steady state allocates nothing. Texts that clients
// make up are cut: path at kPathMax bytes, request id and method at kTextMax. Names that are billed by are never cut.
//
// Threads: the worker's.
#pragma once
#include <cstddef>

#include "metering/journal/journal.h"
#include "metering/usage/fact.h"

namespace tollgate::journal {

class StreamCallJournal final : public usage::CallJournal {
 public:
  static constexpr std::size_t kPathMax = 1024, kTextMax = 256;

  // `journal` outlives this.
  StreamCallJournal(Journal& journal, unsigned worker);

  bool writable() const override;
  usage::CallHandle begin(const usage::Fact& fact, std::span<const usage::ChargedAccount> accounts) override;
  void charged(usage::CallHandle call) override;
  void uncharged(usage::CallHandle call) override;
  void sent(usage::CallHandle call) override;
  void record(usage::CallHandle call, const usage::Fact& fact,
              std::span<const usage::ChargedAccount> accounts, bool given_back) override;

  // Ends that could not be written for want of room. Those of calls that began are written at the next start.
  std::uint64_t unwritten() const { return unwritten_; }

 private:
  const Journal& journal_;
  Stream& stream_;
  usage::CallBeginView begin_;  // of the call at hand
  usage::CallEnd end_;
  std::uint64_t unwritten_ = 0;
};

}  // namespace tollgate::journal
