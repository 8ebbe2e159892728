// Members of a portal, as an exchange sees them come and go.
//
//   seats for all who are invited ─> forwarded ─> reply 2xx: its body is read ─┬─> settled ─> the held reply goes out
//         │ none                                  reply 4xx: refused ──────────┘
//         └─> 403                    never sent: refused; lost on the way, 5xx, unreadable: they keep their seats, since
//                                    the CRM may have taken them in, until they are removed or released
#include "proxy/flow/exchange.h"

namespace tollgate::flow {

using catalogue::PortalChange;
using catalogue::PortalOutcome;

void ExchangePort::invite(CallPortal&, std::vector<std::string>) {}
void ExchangePort::settle_invitation(const CallPortal&, std::vector<seats::Settlement>) {}

void Exchange::take_portal_seats() {
  std::vector<std::string> members;
  for (const std::string& member : call_.classification.portal->members)
    members.push_back(seats::member_of({call_.token->principal.tenant, member}));
  port_.invite(*call_.portal, std::move(members));
}

void Exchange::watch_portal(const http::ResponseHead& head) {
  holding_ = true;
  if (head.status < 300)
    watches_body_ = true;
  else
    settle_portal(head.status, {});
}

// status 0: there is no reply.
void Exchange::settle_portal(int status, std::string_view body) {
  if (call_.portal->settled) return;
  call_.portal->settled = true;
  const PortalChange& change = *call_.classification.portal;
  const bool adds = change.way == PortalChange::Way::add;
  std::vector<PortalOutcome> outcomes = catalogue::read_portal_reply(change, status, body);
  if (status == 0 && !upstream_written_) outcomes.assign(outcomes.size(), PortalOutcome::refused);
  std::vector<seats::Settlement> settlements;
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    using Outcome = seats::Settlement::Outcome;
    if (!adds && outcomes[i] != PortalOutcome::done) continue;
    settlements.push_back({.outcome = !adds                                   ? Outcome::removed
                                      : outcomes[i] == PortalOutcome::refused ? Outcome::refused
                                                                              : Outcome::member,
                           .member = seats::member_of({call_.token->principal.tenant, change.members[i]})});
  }
  const bool asked = !adds || !call_.portal->invitation.empty();
  if (settlements.empty() || !asked) {
    if (holding_) release_held();
    return;
  }
  if (holding_) {
    session_pending_ = true;
    store_asked_ = port_.now();
  }
  port_.settle_invitation(*call_.portal, std::move(settlements));
}

}  // namespace tollgate::flow
