// Whose records are, as an exchange learns it from the replies that go by (nothing is held back for it), or, where the
// decision hangs on it, from the CRM.
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

void Exchange::settle_owners() {
  watches_owners_ = false;
  licence::OwnerTable& owners = *call_.snapshot->owners;
  const std::string& upstream = call_.route->upstream;
  const UnixTime now = port_.unix_now();
  const auto& uses = call_.classification.uses;
  if (uses.size() == 1 && uses.front().operation == catalogue::Operation::create && call_.token != nullptr) {
    const identity::Principal& maker = call_.token->principal;
    const std::string& record = uses.front().record;
    const std::string_view object = std::string_view(record).substr(0, record.find('/'));
    for (const std::string& name : catalogue::read_cherwell_created(owners_body_, object))
      owners.learn(upstream, name, maker.customer.empty() ? maker.user : maker.customer, now);
    return;
  }
  for (const auto& seen : catalogue::read_cherwell_owners(
           owners_body_, settings().licensing.cherwell.owner_fields, kOwnersOfReplyMax))
    for (const std::string& name : seen.records) owners.learn(upstream, name, seen.owner, now);
}

}  // namespace tollgate::flow
