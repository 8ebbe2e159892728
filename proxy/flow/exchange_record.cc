// What is written down about an exchange: its entry in the journal before it is charged, and the fact at its end.
#include <algorithm>

#include "proxy/flow/exchange.h"

namespace tollgate::flow {
namespace {

bool limits(const quota::AccountCharge& charge) {
  return charge.rule != quota::Rules::kObservation;
}

}  // namespace

void Exchange::charge() {
  for (const quota::AccountCharge& charge : call_.charges)
    if (limits(charge))
      accounts_.push_back(
          {.subject_key = charge.key.subject_key, .field = charge.key.field, .units = charge.units});
  usage::CallJournal* journal = port_.call_journal();
  if (journal != nullptr && (call_.decision.metered || !accounts_.empty())) {
    if (journal->writable()) journalled_ = journal->begin(fact(), accounts_);
    if (journalled_.call == 0 && settings().journal.on_failure == config::OnJournalFailure::refuse) {
      accounts_.clear();  // they name what is in the charges
      call_.charges.clear();
      return fail(
          Reason::store_unavailable,
          "Calls cannot be recorded at the moment, so none are let through. Nothing was charged; try again.");
    }
  }
  if (call_.charges.empty()) {  // no rule limits it, and it is billed all the same
    if (journalled_.call != 0) journal->charged(journalled_);
    return act(Next::forward);
  }
  store_pending_ = true;
  store_asked_ = {};  // an answer that comes at once took no time
  port_.charge(call_.charges);
  if (store_pending_) store_asked_ = port_.now();
}

void Exchange::note_charge(const quota::ChargeOutcome& outcome) {
  for (std::uint32_t index : outcome.shadow_violated)
    shadow_violated_.push_back(call_.snapshot->rules.rules()[call_.charges[index].rule].name);
  if (outcome.status != quota::ChargeOutcome::Status::admitted) return;
  charged_ = true;
  // The receipt names what was charged, in the order of the charges; a refused candidate limit is not in it.
  auto item = outcome.receipt.items.begin();
  auto account = accounts_.begin();
  for (std::uint32_t i = 0; i < call_.charges.size(); ++i) {
    const bool is_charged = item != outcome.receipt.items.end() && item->charge == i;
    if (limits(call_.charges[i])) {
      if (is_charged)
        account->bucket = item->bucket_number;
      else
        account->units = 0;
      ++account;
    }
    if (is_charged) ++item;
  }
  if (journalled_.call != 0) port_.call_journal()->charged(journalled_);
}

void Exchange::note_sent() {
  upstream_written_ = true;
  if (journalled_.call != 0) port_.call_journal()->sent(journalled_);
}

usage::Fact Exchange::fact() {
  operations_.clear();
  for (const licence::Unit& unit : call_.decision.units)
    operations_.push_back({unit.object, catalogue::name(unit.operation), unit.section, unit.product});
  usage::Fact fact;
  fact.time = arrived_unix_;
  fact.request_id = call_.request_id;
  fact.client_address = call_.client_address;
  if (call_.token != nullptr) {
    const identity::Principal& principal = call_.token->principal;
    fact.user = principal.user;
    fact.tenant = principal.tenant;
    fact.organization = principal.organization;
    fact.staff = principal.is_staff();
  }
  if (head_ != nullptr) {
    fact.method = head_->method;
    fact.path = head_->path;
  }
  fact.kind = catalogue::name(call_.classification.kind);
  fact.operations = operations_;
  // Staff is not metered by the licence, but a quota rule may charge it all the same.
  if (upstream_written_ && (call_.decision.metered || !accounts_.empty()) && call_.classification.counted)
    fact.units = static_cast<std::uint32_t>(call_.decision.units.size());
  fact.shadow_violated = shadow_violated_;
  fact.reason = call_.reason;
  fact.degraded = call_.degraded;
  fact.status = head_sent_ ? status_ : 0;
  fact.bytes_in = bytes_in_;
  fact.bytes_out = bytes_out_;
  fact.upstream = upstream_time_;
  fact.store = store_time_;
  if (attempts_ > 0) fact.upstream_server = upstream_server_;
  fact.attempts = attempts_;
  return fact;
}

void Exchange::record() {
  usage::Fact fact = this->fact();
  fact.total = port_.now() - arrived_;
  port_.record(fact);
  usage::CallJournal* journal = port_.call_journal();
  // Who called is known, so it is a usage fact, also when it was refused or cost nothing.
  if (journal != nullptr && call_.token != nullptr && !call_.usage_request)
    journal->record(journalled_, fact, accounts_, given_back_);
  call_.tell(&Life::ended, fact);
}

}  // namespace tollgate::flow
