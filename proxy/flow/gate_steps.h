// What the steps of the gate share among themselves (gate.cc, gate_identity.cc, gate_login.cc, gate_owners.cc).
#pragma once
#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "metering/identity/cherwell_login.h"
#include "metering/identity/creatio_login.h"
#include "proxy/flow/gate.h"
#include "proxy/flow/reply.h"

namespace tollgate::flow {

inline Next reply_with(Call& call, LocalReply reply) {
  call.reason = reply.reason;
  call.reply = std::move(reply);
  return Next::reply;
}

inline Next refuse(Call& call, Reason reason, std::string_view detail) {
  return reply_with(call, problem(call, reason, detail));
}

inline Next shed(Call& call) {
  call.shed = true;
  return refuse(call, Reason::overloaded,
                "This proxy is too busy for requests without a token at the moment.");
}

inline quota::Caller caller_of(const identity::Principal& principal) {
  return {.tenant = principal.tenant,
          .organization = principal.organization,
          .user = principal.user,
          .staff = principal.is_staff()};
}

// Who has to be asked before it is known who calls.
inline std::optional<Next> awaited(const Call& call) {
  if (call.session != nullptr && call.session->asks) return Next::find_session;
  if (call.lookup != nullptr && call.lookup->asks) return Next::look_up;
  return std::nullopt;
}

// What is watched for: a log-in of which CRM.
inline bool watches(const Snapshot& snapshot, identity::SessionKind kind) {
  const auto& kinds = snapshot.settings.identity.sessions.kinds;
  return std::ranges::find(kinds, identity::name(kind)) != kinds.end();
}

inline identity::SessionStep step_of(identity::SessionKind kind, const http::RequestHead& head,
                                     std::string_view lower_path) {
  return kind == identity::SessionKind::cherwell ? identity::cherwell_step(head.method, lower_path)
                                                 : identity::creatio_step(head.method, lower_path);
}

}  // namespace tollgate::flow
