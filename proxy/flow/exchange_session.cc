// Sessions of the CRM's own log-in, as an exchange sees them begin, change and end.
//
//   log-in answered 200 ─ Set-Cookie, body {"Code":0,...} ─> bind ─┐
//   a reply that sets the session's cookie anew ───────────> bind ─┼─> on_session_written ─> the held reply goes out
//   log-out answered, the cookie taken away ───────────────> end ──┘
//   Cherwell: {"access_token":..} of a token request, {"newAccessToken":..} of a One-Step ─> bind, end ─> (as above)
//   401 to a request with a session: it has ended over there ─> end, nothing waits for that
#include <bit>
#include <cstring>

#include "metering/base/ascii.h"
#include "metering/base/check.h"
#include "metering/identity/cherwell_login.h"
#include "metering/identity/creatio_login.h"
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

// The wait counts as one for the store: it is not our own.
void Exchange::on_lookup(std::shared_ptr<const identity::LookupVerdict> verdict) {
  if (!session_pending_ || over()) return;
  session_pending_ = false;
  store_time_ += port_.now() - store_asked_;
  const Next next = gate_.on_lookup(call_, *head_, std::move(verdict), arrived_unix_);
  if (call_.shed) port_.note_shed(Shed::anonymous);
  if (call_.session != nullptr && call_.session->learnt)  // nothing waits for that
    port_.bind_session(call_.session->key, call_.session->record);
  act(next);
}

void Exchange::on_session_written() {
  if (!session_pending_ || over()) return;
  session_pending_ = false;
  store_time_ += port_.now() - store_asked_;
  if (!session_writes_.empty()) return write_sessions();
  if (holding_) release_held();
}

// One behind the other; the held reply goes out after the last.
void Exchange::write_sessions() {
  const SessionWrite write = std::move(session_writes_.front());
  session_writes_.erase(session_writes_.begin());
  session_pending_ = true;
  store_asked_ = port_.now();
  if (write.record == nullptr)
    port_.end_session(write.key);
  else
    port_.bind_session(write.key, write.record);
}

// Whom the CRM believes must be who was metered.
void Exchange::drop_for_session() {
  const CallSession& session = *call_.session;
  if (session.step == SessionStep::log_in || session.step == SessionStep::renews)
    dropped_fields_.push_back("accept-encoding");  // its reply is read
  const bool token = session.kind == identity::SessionKind::cherwell;
  if (session.counted && !token) dropped_fields_.push_back("authorization");
  if (session.foreign || token) list_session_cookies(settings().identity.sessions, *head_, dropped_cookies_);
}

void Exchange::watch_reply(const http::ResponseHead& head) {
  CallSession& session = *call_.session;
  if (session.step == SessionStep::log_in) return watch_login(head);
  if (session.record == nullptr || session.foreign) return;
  if (head.status == 401) return port_.end_session(session.key);
  if (session.kind == identity::SessionKind::cherwell) return watch_token_reply(head);
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
  if (call_.session->kind == identity::SessionKind::cherwell) {
    holding_ = watches_body_ = true;
    return;
  }
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
    holding_ = watches_body_ = true;
    return;
  }
}

void Exchange::watch_token_reply(const http::ResponseHead& head) {
  const CallSession& session = *call_.session;
  if (session.step == SessionStep::renews && head.status == 200) {
    holding_ = watches_body_ = true;
  } else if (session.step == SessionStep::log_out && head.status < 400) {
    leave_seat();
    session_writes_.push_back({session.key, nullptr});
    for (const identity::SessionKey& key : session.record->linked) session_writes_.push_back({key, nullptr});
    holding_ = true;
    write_sessions();
  }
}

seats::ClientId client_of(const identity::SessionKey& key) {
  seats::ClientId client;
  std::memcpy(&client, key.data(), sizeof client);
  return client | 1;  // never kNoClient
}

// A licence that was taken for the session is free with it, unless another of the user's holds it.
void Exchange::leave_seat() {
  const Snapshot& snapshot = *call_.snapshot;
  if (!snapshot.policy.by_table() || snapshot.concurrent_pool == 0 || call_.token == nullptr) return;
  const auto pool = static_cast<std::size_t>(std::countr_zero(snapshot.concurrent_pool));
  std::vector<seats::ClientId> clients{client_of(call_.session->key)};
  for (const identity::SessionKey& key : call_.session->record->linked) clients.push_back(client_of(key));
  port_.leave_seat(snapshot.seat_pools[pool].pool, call_.token->principal, clients);
}

void Exchange::watch_body(std::string_view payload) {
  watched_body_.append(payload);
  if (watched_body_.size() <= (call_.portal != nullptr ? kPortalReplyMax : kLoginReplyMax)) return;
  watches_body_ = false;
  release_held();
}

void Exchange::settle_login() {
  if (call_.session->kind == identity::SessionKind::cherwell) {
    if (call_.session->step == SessionStep::log_in)
      list_token_writes();
    else
      list_renewal_writes();
    return session_writes_.empty() ? release_held() : write_sessions();
  }
  const auto user_type = identity::creatio_login_reply(watched_body_);
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

// What the CRM has just handed out: an access token and, mostly, a refresh token. Each ends with the other; with a refresh
// the one before ends too, when the user logs out.
void Exchange::list_token_writes() {
  const CallSession& session = *call_.session;
  const auto tokens = identity::read_cherwell_tokens(watched_body_);
  if (!tokens || (session.refresh && tokens->user != session.record->user)) return;
  const identity::SessionSecret& secret = call_.snapshot->sessions->secret();
  const Milliseconds longest = settings().identity.sessions.max_age;
  const UnixTime now = port_.unix_now();
  identity::SessionRecord record{
      .kind = session.kind,
      .user = tokens->user,
      .user_type = session.site.empty() ? identity::UserType::unknown : identity::UserType::portal,
      .deadline = now + longest,
      .site = session.site};
  const identity::SessionKey access =
      secret.key_of(session.kind, call_.route->upstream, tokens->access_token);
  std::optional<identity::SessionKey> refresh;
  if (session.refresh) refresh = session.key;  // goes on, unless there is a new one
  if (!tokens->refresh_token.empty())
    refresh = secret.key_of(session.kind, call_.route->upstream,
                            identity::refresh_credential(tokens->refresh_token));
  std::vector<identity::SessionKey> before;
  if (session.refresh) before = session.record->linked;
  if (refresh) {
    record.linked = {access};
    if (!before.empty()) record.linked.push_back(before.front());
    session_writes_.push_back({*refresh, std::make_shared<const identity::SessionRecord>(record)});
    record.linked.front() = *refresh;
  }
  if (tokens->lifetime.count() > 0) record.deadline = now + std::min(longest, tokens->lifetime);
  session_writes_.push_back({access, std::make_shared<const identity::SessionRecord>(record)});
  if (session.refresh && *refresh != session.key) session_writes_.push_back({session.key, nullptr});
  for (std::size_t i = 1; i < before.size(); ++i) session_writes_.push_back({before[i], nullptr});
}

// A One-Step's reply may replace the token that it was run with: the same session under another name.
void Exchange::list_renewal_writes() {
  const CallSession& session = *call_.session;
  const std::string token = identity::cherwell_new_token(watched_body_);
  if (token.empty()) return;
  auto record = std::make_shared<identity::SessionRecord>(*session.record);
  if (record->linked.size() < identity::kLinkedMax) record->linked.push_back(session.key);
  const auto key = call_.snapshot->sessions->secret().key_of(session.kind, call_.route->upstream, token);
  if (key != session.key) session_writes_.push_back({key, std::move(record)});
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
