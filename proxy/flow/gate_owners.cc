// Whose the records of a call are, where the licence depends on it: by the rulebook's table (Cherwell, the requester of a
// record) or in a section of one's own organization only (Creatio, the account that a record belongs to).
#include <algorithm>

#include "metering/base/ascii.h"
#include "proxy/flow/gate_steps.h"

namespace tollgate::flow {
namespace {

// Is the requester of a record this user?
bool is_requester(const identity::Principal& principal, std::string_view owner) {
  return !owner.empty() && (equals_ignore_case(owner, principal.user) ||
                            (!principal.customer.empty() && equals_ignore_case(owner, principal.customer)));
}

bool contains_ignore_case(std::string_view text, std::string_view part) {
  return std::ranges::search(text, part, [](char a, char b) {
           return ascii_lower(a) == ascii_lower(b);
         }).begin() != text.end();
}

}  // namespace

void Gate::look_at_owners(Call& call, const catalogue::Request& request, UnixTime now) {
  call.owners.clear();
  if (call.snapshot->policy.by_table()) return look_at_requesters(call, request, now);
  const auto& uses = call.classification.uses;
  if (std::ranges::all_of(uses, &std::string::empty, &catalogue::ObjectUse::record)) return;
  const Snapshot& snapshot = *call.snapshot;
  const Milliseconds age = snapshot.settings.licensing.creatio.record_age;
  for (const catalogue::ObjectUse& use : uses) {
    const auto account = snapshot.owners->find(call.route->upstream, use.record, now, age);
    call.owners.push_back(licence::owner_for(call.token->principal, use, account));
    call.moves_owner |= use.operation != catalogue::Operation::read;
  }
}

void Gate::look_at_requesters(Call& call, const catalogue::Request& request, UnixTime now) {
  const Snapshot& snapshot = *call.snapshot;
  const config::CherwellLicensing& settings = snapshot.settings.licensing.cherwell;
  for (const catalogue::ObjectUse& use : call.classification.uses) {
    auto& owner = call.owners.emplace_back(licence::Owner::unknown);
    const bool alters =
        use.operation == catalogue::Operation::edit || use.operation == catalogue::Operation::execute;
    call.learns = call.learns || !alters;
    if (use.record.empty()) continue;
    const auto known = snapshot.owners->find(call.route->upstream, use.record, now, settings.record_age);
    if (known)
      owner = is_requester(call.token->principal, *known) ? licence::Owner::own : licence::Owner::other;
    for (const std::string& field : settings.owner_fields)
      if (alters && contains_ignore_case(request.body, field)) call.moves_owner = true;
  }
}

// Would it be decided otherwise if what is unknown were the caller's own?
bool Gate::hangs_on_owners(const Call& call) const {
  if (unknown_owners(call).empty()) return false;
  std::vector<licence::Owner> owners = call.owners;
  std::ranges::replace(owners, licence::Owner::unknown, licence::Owner::own);
  const licence::Decision other =
      call.snapshot->policy.decide(call.token->principal, call.classification, {}, owners);
  return other.reason != call.decision.reason || other.consumes != call.decision.consumes;
}

std::vector<std::string> Gate::unknown_owners(const Call& call) {
  std::vector<std::string> records;
  const auto& uses = call.classification.uses;
  for (std::size_t i = 0; i < uses.size() && records.size() < kOwnersAskedMax; ++i) {
    const std::string& record = uses[i].record;
    const bool named = !record.empty() && !record.ends_with("//");
    if (named && call.owners[i] == licence::Owner::unknown &&
        std::ranges::find(records, record) == records.end())
      records.push_back(record);
  }
  return records;
}

Next Gate::on_owners(Call& call, const http::RequestHead& head, std::string_view body, UnixTime now) {
  call.owners_asked = true;
  return decide(call, request_of(call, head, body), now);
}

}  // namespace tollgate::flow
