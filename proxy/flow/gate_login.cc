// Log-ins that are watched, and what a session may be used for.
#include "metering/catalogue/url.h"
#include "proxy/flow/gate_steps.h"

namespace tollgate::flow {

// nullopt: it is none.
std::optional<Next> Gate::begin_login(Call& call, const http::RequestHead& head,
                                      const catalogue::Request& request) {
  std::optional<identity::SessionKind> kind;
  for (const auto each : {identity::SessionKind::creatio, identity::SessionKind::cherwell})
    if (request.path != nullptr && watches(*call.snapshot, each) &&
        step_of(each, head, request.path->lower) == identity::SessionStep::log_in)
      kind = each;
  if (!kind) return std::nullopt;
  catalogue::Classification seen = call.snapshot->classifier.classify(request);
  if (seen.kind != catalogue::Kind::authentication) return std::nullopt;
  call.classification = std::move(seen);
  if (call.no_anonymous) return shed(call);
  if (http::find(head.fields, "Content-Encoding") != nullptr)
    return refuse(call, Reason::unsupported_media_type, "The body of a log-in must not be compressed.");
  if (head.framing == http::Framing::length && head.content_length > kLoginBodyMax)
    return refuse(call, Reason::body_uninspectable, "The body of a log-in is too large.");
  call.session = std::make_unique<CallSession>();
  call.session->kind = *kind;
  call.session->step = identity::SessionStep::log_in;
  return Next::need_body;
}

Next Gate::read_login(Call& call, const http::RequestHead& head, std::string_view body) {
  CallSession& session = *call.session;
  if (session.kind == identity::SessionKind::creatio) {
    auto user = identity::creatio_login_user(body);
    if (!user) return refuse(call, Reason::bad_request, user.error().message);
    session.user = *std::move(user);
    return Next::forward;
  }
  auto login = identity::read_cherwell_login(head.query, body);
  if (!login) return refuse(call, Reason::bad_request, login.error().message);
  session.site = std::move(login->site);
  session.refresh = !login->refresh_token.empty();
  if (!session.refresh) return Next::forward;
  session.key = call.snapshot->sessions->secret().key_of(session.kind, call.route->upstream,
                                                         identity::refresh_credential(login->refresh_token));
  return Next::find_session;
}

// Whose refresh token it is: who he becomes says the CRM, but not a site that he never logged in to.
Next Gate::on_refresh(Call& call, SessionState state) {
  CallSession& session = *call.session;
  if (state == SessionState::unavailable)
    return refuse(call, Reason::store_unavailable,
                  "Whose refresh token this is cannot be found out at the moment; try again.");
  if (state != SessionState::known || (!session.site.empty() && session.site != session.record->site))
    return reply_with(call, unauthorized(call, Reason::token_invalid,
                                         "The refresh token is not known here, has ended, or is of another "
                                         "site: log in again."));
  session.site = session.record->site;
  return Next::forward;
}

// A session of one portal site is nobody's at another. A route may rewrite the address: the site that the caller
// asks for stands in what he sent, and what the upstream is asked for must not name another one.
std::optional<LocalReply> Gate::check_site(Call& call, const http::RequestHead& head,
                                           const catalogue::Request& request) {
  if (call.session->kind != identity::SessionKind::cherwell || request.path == nullptr) return std::nullopt;
  auto site = identity::cherwell_site(request.path->path, request.path->query);
  if (site && !call.upstream_path.empty()) {
    catalogue::NormalPath sent;
    const bool read = catalogue::normalise(head.path, sent).has_value();
    const auto asked = read ? identity::cherwell_site(sent.path, request.path->query) : std::nullopt;
    if (!asked || (!site->empty() && !asked->empty() && *asked != *site))
      site.reset();
    else if (site->empty())
      site = asked;
  }
  if (!site)
    return problem(call, Reason::bad_request, "The address names two sites, or one that is no name.");
  if (site->empty() || *site == call.session->record->site) return std::nullopt;
  return unauthorized(call, Reason::token_invalid, "The token is of another site: log in to this one.");
}

}  // namespace tollgate::flow
