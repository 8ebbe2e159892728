// Sessions of the CRM's own log-in, as an exchange sees them begin, change and end.
//
//   log-in answered 200 ─ Set-Cookie, body {"Code":0,...} ─> bind ─┐
//   a reply that sets the session's cookie anew ───────────> bind ─┼─> on_session_written ─> the held reply goes out
//   log-out answered, the cookie taken away ───────────────> end ──┘
//   401 to a request with a session: it has ended over there ─> end, nothing waits for that
#include "metering/base/ascii.h"
#include "metering/base/check.h"
#include "proxy/flow/credentials.h"
#include "proxy/flow/exchange.h"

namespace tollgate::flow {

using identity::SessionStep;

void Exchange::on_session(SessionAnswer answer) {
  if (!session_pending_ || over()) return;
  session_pending_ = false;
  store_time_ += port_.now() - store_asked_;
  const Next next = gate_.on_session(call_, *head_, std::move(answer), arrived_unix_);
  if (call_.shed) port_.note_shed(Shed::anonymous);
  act(next);
}

void Exchange::on_session_written() {
  if (!session_pending_ || over()) return;
  session_pending_ = false;
  store_time_ += port_.now() - store_asked_;
  if (holding_) release_held();
}

// Whom the CRM believes must be who was metered.
void Exchange::drop_for_session() {
  const CallSession& session = *call_.session;
  if (session.step == SessionStep::log_in) dropped_fields_.push_back("accept-encoding");  // its reply is read
  if (session.counted) dropped_fields_.push_back("authorization");
  if (session.foreign) list_session_cookies(settings().identity.sessions, *head_, dropped_cookies_);
}

void Exchange::watch_reply(const http::ResponseHead& head) {
  CallSession& session = *call_.session;
  if (session.step == SessionStep::log_in) return watch_login(head);
  if (session.record == nullptr || session.foreign) return;
  if (head.status == 401) return port_.end_session(session.key);
  const identity::SessionTable& table = *call_.snapshot->sessions;
  bool ends = session.step == SessionStep::log_out && head.status < 400;
  std::optional<identity::SessionKey> renewed;
  for (const http::Field& field : head.fields) {
    if (!equals_ignore_case(field.name, "Set-Cookie")) continue;
    const auto cookie = identity::parse_set_cookie(field.value);
    if (!cookie || !equals_ignore_case(cookie->name, session.cookie)) continue;
    if (cookie->value.empty())
      ends = true;
    else
      renewed = table.secret().key_of(session.record->kind, call_.route->upstream, cookie->value);
  }
  if (renewed && *renewed == session.key) renewed.reset();
  if (!ends && !renewed) return;
  holding_ = session_pending_ = true;
  store_asked_ = port_.now();
  if (ends)
    port_.end_session(session.key);
  else
    port_.bind_session(*renewed, session.record);
}

void Exchange::watch_login(const http::ResponseHead& head) {
  if (head.status != 200) return;
  const config::Sessions& sessions = settings().identity.sessions;
  for (const std::string& name : sessions.cookies) {
    std::string_view value;  // the last one counts, as in a browser
    for (const http::Field& field : head.fields) {
      if (!equals_ignore_case(field.name, "Set-Cookie")) continue;
      const auto cookie = identity::parse_set_cookie(field.value);
      if (cookie && equals_ignore_case(cookie->name, name)) value = cookie->value;
    }
    if (value.empty()) continue;
    call_.session->key = call_.snapshot->sessions->secret().key_of(identity::SessionKind::creatio,
                                                                   call_.route->upstream, value);
    holding_ = watches_login_ = true;
    return;
  }
}

void Exchange::watch_login_body(std::string_view payload) {
  login_body_.append(payload);
  if (login_body_.size() <= kLoginReplyMax) return;
  watches_login_ = false;
  release_held();
}

void Exchange::settle_login() {
  const auto user_type = identity::creatio_login_reply(login_body_);
  if (!user_type) return release_held();
  const UnixTime now = port_.unix_now();
  auto record = std::make_shared<const identity::SessionRecord>(
      identity::SessionRecord{.kind = identity::SessionKind::creatio,
                              .user = call_.session->user,
                              .user_type = *user_type,
                              .deadline = now + settings().identity.sessions.max_age});
  session_pending_ = true;
  store_asked_ = port_.now();
  port_.bind_session(call_.session->key, std::move(record));
}

void Exchange::to_client(std::string_view bytes) {
  if (holding_) [[unlikely]]
    held_.append(bytes);
  else
    port_.client_write(bytes);
}

void Exchange::release_held() {
  CHECK(holding_, "a reply is held");
  holding_ = false;
  head_sent_ = true;
  port_.client_write(held_);
  held_.clear();
  if (held_end_) {
    reply_ = Reply::flushing;
    return settle_if_flushed();
  }
  if (upstream_paused_ && port_.client_backlog() <= settings().limits.buffer / 2) {
    upstream_paused_ = false;
    port_.upstream_read(true);
    watch_upstream();
  }
}

}  // namespace tollgate::flow
