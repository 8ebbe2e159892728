// Whose records are, as an exchange learns it from the replies that go by (nothing is held back for it), or, where the
// decision hangs on it, from the CRM.
#include <algorithm>

#include "metering/catalogue/cherwell_reply.h"
#include "proxy/flow/exchange.h"

namespace tollgate::flow {

void Exchange::on_owners() {
  if (!session_pending_ || over()) return;
  session_pending_ = false;
  act(gate_.on_owners(call_, *head_, body_, port_.unix_now()));
}

void Exchange::watch_owners(const http::ResponseHead& head) {
  if (head.status < 200 || head.status >= 300) return;
  if (call_.moves_owner)
    for (const catalogue::ObjectUse& use : call_.classification.uses)
      call_.snapshot->owners->forget(call_.route->upstream, use.record);
  watches_owners_ = call_.learns && head.status == 200;
}

namespace {

// Who makes a record is its requester.
bool made_by_caller(const catalogue::ObjectUse& use) {
  return use.operation == catalogue::Operation::create && !use.record.empty();
}

}  // namespace

void Exchange::learn_created(licence::OwnerTable& owners, UnixTime now) {
  if (call_.token == nullptr) return;
  const auto& uses = call_.classification.uses;
  const identity::Principal& maker = call_.token->principal;
  auto learn = [&](const std::vector<std::string>& names) {
    for (const std::string& name : names)
      owners.learn(call_.route->upstream, name, maker.customer.empty() ? maker.user : maker.customer, now);
  };
  std::vector<std::string_view> objects;
  for (const catalogue::ObjectUse& use : uses)
    objects.push_back(std::string_view(use.record).substr(0, use.record.find('/')));
  if (!uses.front().in_batch) return learn(catalogue::read_cherwell_created(owners_body_, objects.front()));
  const auto made = catalogue::read_cherwell_created(owners_body_, objects);
  for (std::size_t i = 0; i < made.size(); ++i)
    if (made_by_caller(uses[i])) learn(made[i]);
}

void Exchange::settle_owners() {
  watches_owners_ = false;
  licence::OwnerTable& owners = *call_.snapshot->owners;
  const std::string& upstream = call_.route->upstream;
  const UnixTime now = port_.unix_now();
  if (std::ranges::any_of(call_.classification.uses, &made_by_caller)) return learn_created(owners, now);
  for (const auto& seen : catalogue::read_cherwell_owners(
           owners_body_, settings().licensing.cherwell.owner_fields, kOwnersOfReplyMax))
    for (const std::string& name : seen.records) owners.learn(upstream, name, seen.owner, now);
}

}  // namespace tollgate::flow
