// The request half: from the head over the gate and the store to the upstream.
#include "proxy/flow/exchange.h"

#include <algorithm>

#include "metering/base/check.h"
#include "proxy/flow/credentials.h"
#include "proxy/flow/pass_identity.h"
#include "proxy/http/address.h"
#include "proxy/http/forward.h"
#include "proxy/http/request_id.h"

namespace tollgate::flow {

namespace {

bool is_idempotent(std::string_view method) {  // RFC 9110 section 9.2.2
  return method == "GET" || method == "HEAD" || method == "OPTIONS" || method == "PUT" || method == "DELETE";
}

const config::Upstream* find_upstream(const config::Settings& settings, std::string_view name) {
  for (const config::Upstream& upstream : settings.upstreams)
    if (upstream.name == name) return &upstream;
  return nullptr;
}

}  // namespace

Exchange::Exchange(ExchangePort& port, Gate& gate) : port_(port), gate_(gate) {}
Exchange::~Exchange() = default;

// ---------------------------------------------------------------- the request

void Exchange::begin(const Arrival& arrival, const http::RequestHead* head) {
  CHECK(over(), "one exchange at a time");
  head_ = head;
  call_.snapshot = arrival.snapshot;
  upstream_config_ = nullptr;
  request_ = Request::waiting;
  reply_ = Reply::deciding;
  client_end_ = ClientEnd::keep;
  keep_alive_ = head != nullptr && head->keep_alive;
  asks_head_ = head != nullptr && head->method == "HEAD";
  session_pending_ = holding_ = held_end_ = watches_body_ = watches_owners_ = false;
  store_pending_ = charged_ = given_back_ = client_lost_ = upstream_held_ = upstream_reused_ =
      upstream_written_ = body_written_ = upgrade_ = stale_retry_used_ = head_sent_ = continue_sent_ =
          reply_chunked_ = reply_until_close_ = reply_early_ = client_paused_ = upstream_paused_ =
              client_finished_ = upstream_finished_ = false;
  retries_ = attempts_ = informational_ = 0;
  status_ = 0;
  bytes_in_ = bytes_out_ = discarded_ = 0;
  store_time_ = upstream_time_ = Duration(0);
  upstream_started_ = deadline_ = {};
  journalled_ = {};
  accounts_.clear();
  shadow_violated_.clear();
  arrived_ = port_.event_time();
  arrived_unix_ = port_.unix_now();
  peer_address_ = arrival.peer_address;
  upstream_server_.clear();
  forwarded_host_.clear();
  choose_request_id(arrival);
  call_.certificate = arrival.certificate;
  call_.life = arrival.life;
  if (head == nullptr) {
    call_.client_address = arrival.peer_address;
    call_.tell(&Life::arrived, call_, nullptr);
    return;
  }
  http::ClientInfo client =
      http::client_of(arrival.peer_address, arrival.tls, *head, arrival.snapshot->trusted_proxies);
  call_.client_address = std::move(client.address);
  forwarded_host_ = std::move(client.host);
  https_ = client.https;
  trusted_peer_ = client.trusted_peer;
  call_.tell(&Life::arrived, call_, head);
}

void Exchange::choose_request_id(const Arrival& arrival) {
  const http::Field* sent = head_ == nullptr ? nullptr : http::find(head_->fields, "x-request-id");
  if (sent != nullptr && http::is_valid_request_id(sent->value))
    call_.request_id = sent->value;
  else
    call_.request_id = arrival.new_request_id;
}

void Exchange::on_request_head(const Arrival& arrival, const http::RequestHead& head) {
  begin(arrival, &head);
  if (head.framing == http::Framing::none ||
      (head.framing == http::Framing::length && head.content_length == 0))
    request_ = Request::complete;
  if (arrival.overloaded) {
    keep_alive_ = false;
    return fail(Reason::overloaded, "This proxy has no room for another connection at the moment.");
  }
  if (arrival.too_fast)
    return fail(Reason::address_rate_exceeded, "This address sends more requests a second than it may.");
  if (arrival.shed == Shed::everything) {
    port_.note_shed(Shed::everything);
    return fail(Reason::overloaded, "This proxy is too busy at the moment.");
  }
  call_.no_anonymous = arrival.shed != Shed::nothing;
  const std::uint64_t body_max = settings().limits.max_body;
  if (body_max != 0 && head.framing == http::Framing::length && head.content_length > body_max) {
    keep_alive_ = false;  // its body is not read, not even to drop it
    return fail(Reason::body_too_large, "The request body is larger than this proxy accepts.");
  }
  const Next next = gate_.on_head(call_, head, arrived_unix_);
  if (call_.shed) port_.note_shed(Shed::anonymous);
  act(next);
}

void Exchange::on_request_refused(const Arrival& arrival, const http::ParseFailure& failure, bool asks_head) {
  begin(arrival, nullptr);
  asks_head_ = asks_head;
  request_ = Request::abandoned;
  fail(failure.reason, failure.detail);
}

void Exchange::act(Next next) {
  switch (next) {
    case Next::forward:
      return forward();
    case Next::need_body:
      return start_body_buffer();
    case Next::seat:
      return take_seat();
    case Next::charge:
      return charge();
    case Next::read_usage:
      store_pending_ = true;
      store_asked_ = port_.now();
      return port_.read_usage(call_);
    case Next::find_session:
      session_pending_ = true;
      store_asked_ = port_.now();
      return port_.find_session(call_.session->key);
    case Next::look_up:
      session_pending_ = true;
      store_asked_ = port_.now();
      return port_.look_up(*call_.lookup);
    case Next::find_owners:
      session_pending_ = true;
      store_asked_ = port_.now();
      return port_.find_owners(call_.route->upstream, Gate::unknown_owners(call_));
    case Next::reply:
      return send_local_reply();
  }
}

void Exchange::start_body_buffer() {
  if (request_ == Request::complete) return act(gate_.on_body(call_, *head_, body_, arrived_unix_));
  if (head_->framing == http::Framing::length && head_->content_length > Gate::body_max(call_))
    return fail(Reason::body_uninspectable, "The request body is too large to be inspected.");
  request_ = Request::buffering;
  if (head_->expect_continue && !continue_sent_) {
    continue_sent_ = true;
    port_.client_write("HTTP/1.1 100 Continue\r\n\r\n");
  }
  resume_client();
}

void Exchange::resume_client() {
  client_paused_ = false;
  port_.client_read(true);
  if (!client_awaits_continue()) port_.set_timer(Timer::client, settings().timeouts.request_body);
}

void Exchange::on_request_body(std::string_view payload) {
  if (payload.empty() || over()) return;
  bytes_in_ += payload.size();
  if (call_.route != nullptr && call_.route->max_body != 0 && bytes_in_ > call_.route->max_body &&
      reply_ != Reply::tunnel && request_ != Request::discarding)
    return on_request_body_refused(
        {Reason::body_too_large, "The request body is larger than this route accepts."});
  if (reply_ == Reply::tunnel || request_ == Request::streaming) return write_request_payload(payload);
  if (request_ == Request::buffering) {
    if (body_.size() + payload.size() > Gate::body_max(call_))
      return fail(Reason::body_uninspectable, "The request body is too large to be inspected.");
    body_.append(payload);
    port_.set_timer(Timer::client, settings().timeouts.request_body);
  } else if (request_ == Request::discarding) {
    discarded_ += payload.size();
    if (discarded_ <= kDiscardMax) return;
    request_ = Request::abandoned;
    keep_alive_ = false;
    port_.client_read(false);
    port_.clear_timer(Timer::client);
    settle_if_flushed();
  }
}

void Exchange::write_request_payload(std::string_view payload) {
  body_written_ = true;
  if (reply_ != Reply::tunnel && head_->framing == http::Framing::chunked) {
    scratch_.clear();
    http::append_chunk_start(scratch_, payload.size());
    port_.upstream_write(scratch_);
    port_.upstream_write(payload);
    port_.upstream_write(http::kChunkEnd);
  } else {
    port_.upstream_write(payload);
  }
  if (port_.upstream_backlog() > settings().limits.buffer) {
    client_paused_ = true;
    port_.client_read(false);
    port_.clear_timer(Timer::client);
  } else if (reply_ != Reply::tunnel) {
    port_.set_timer(Timer::client, settings().timeouts.request_body);
  }
  watch_upstream();
}

void Exchange::on_request_end(const std::vector<http::TrailerField>& trailers) {
  if (over()) return;
  if (reply_ == Reply::tunnel) {
    client_finished_ = true;
    port_.upstream_end_writing();
    return tunnel_end_seen();
  }
  port_.clear_timer(Timer::client);
  const Request before = request_;
  request_ = Request::complete;
  if (before == Request::buffering) {
    trailers_ = trailers;
    act(gate_.on_body(call_, *head_, body_, arrived_unix_));
  } else if (before == Request::streaming) {
    if (head_->framing == http::Framing::chunked) {
      if (!body_written_) trailers_ = trailers;  // all there is to send again
      scratch_.clear();
      append_upstream_trailers(trailers);
      port_.upstream_write(scratch_);
    }
    watch_upstream();
  } else if (before == Request::discarding) {
    settle_if_flushed();
  }
}

void Exchange::on_request_body_refused(const http::ParseFailure& failure) {
  if (over()) return;
  request_ = Request::abandoned;
  keep_alive_ = false;
  port_.client_read(false);
  port_.clear_timer(Timer::client);
  if (reply_ == Reply::flushing) return settle_if_flushed();
  if (head_sent_) return cut_short(failure.reason);
  fail(failure.reason, failure.detail);
}

// ---------------------------------------------------------------- the store

void Exchange::take_seat() {
  store_pending_ = true;
  store_asked_ = port_.now();
  if (call_.portal != nullptr) return take_portal_seats();
  Milliseconds hold{0};
  seats::ClientId client = seats::kNoClient;
  if (call_.snapshot->policy.by_table() && call_.session != nullptr && call_.session->counted) [[unlikely]] {
    const auto left = std::chrono::floor<Milliseconds>(call_.session->record->deadline - arrived_unix_);
    hold = std::max(Milliseconds(1), std::min(left, settings().identity.sessions.idle));
    client = client_of(call_.session->key);
  }
  const auto known = port_.take_seat(Gate::wanted_seat(call_), call_.token->principal, hold, client);
  if (!known) return;
  store_pending_ = false;
  act(gate_.on_seat(call_, *known));
}

void Exchange::on_seat(const seats::Outcome& outcome) {
  if (!store_pending_) return;
  store_pending_ = false;
  store_time_ += port_.now() - store_asked_;
  if (client_lost_) {
    call_.reason = Reason::client_closed;
    return end(ClientEnd::abort);
  }
  act(gate_.on_seat(call_, outcome));
}

void Exchange::on_charge(quota::ChargeOutcome&& outcome) {
  if (!store_pending_) return;
  store_pending_ = false;
  if (store_asked_ != MonotonicTime{}) store_time_ += port_.now() - store_asked_;
  call_.tell(&Life::charged, outcome, call_);
  note_charge(outcome);
  if (client_lost_) {
    call_.receipt = std::move(outcome.receipt);
    call_.reason = Reason::client_closed;
    return end(ClientEnd::abort);
  }
  act(gate_.on_charge(call_, std::move(outcome)));
}

void Exchange::on_usage(Result<std::vector<quota::AccountState>>&& states,
                        Result<std::vector<quota::Ledger::Listed>>&& objects, const SeatLooks& seats) {
  if (!store_pending_) return;
  store_pending_ = false;
  store_time_ += port_.now() - store_asked_;
  if (client_lost_) {
    call_.reason = Reason::client_closed;
    return end(ClientEnd::abort);
  }
  act(gate_.on_usage(call_, std::move(states), std::move(objects), seats));
}

// ---------------------------------------------------------------- to the upstream

void Exchange::forward() {
  CHECK(call_.route != nullptr, "a call that is forwarded has a route");
  if (http::max_forwards(*head_) == 0) return answer_options();
  upstream_config_ = find_upstream(settings(), call_.route->upstream);
  CHECK(upstream_config_ != nullptr, "a validated route names an upstream");
  upgrade_ = head_->wants_upgrade && call_.route->allow_upgrade && head_->framing == http::Framing::none &&
             head_->minor_version >= 1;
  if (upstream_config_->total_timeout.count() > 0) deadline_ = port_.now() + upstream_config_->total_timeout;
  acquire(false);
}

// The final recipient of OPTIONS with Max-Forwards: 0 is this proxy (RFC 9110 section 7.6.2).
void Exchange::answer_options() {
  give_back();
  call_.reply = {.status = 200,
                 .reason = Reason::ok,
                 .fields = "Allow: GET, HEAD, POST, PUT, PATCH, MERGE, DELETE, OPTIONS\r\n",
                 .body = {}};
  send_local_reply();
}

void Exchange::acquire(bool fresh) {
  reply_ = Reply::acquiring;
  upstream_held_ = true;
  upstream_paused_ = false;
  ++attempts_;
  call_.tell(&Life::asks_upstream, upstream_config_->name, attempts_);
  arm_upstream(Milliseconds::max());
  ExchangePort::Upstream upstream;
  const ExchangePort::Wanted wanted{
      .fresh = fresh, .again = attempts_ > 1, .once = !replayable(), .hash_key = hash_key()};
  if (port_.upstream_acquire(*call_.route, wanted, upstream)) on_upstream_ready(upstream);
}

std::string_view Exchange::hash_key() const {
  if (upstream_config_->balance != config::Balance::hash) return {};
  std::string_view kind = upstream_config_->hash_key;
  if (kind == "user" && call_.token != nullptr) return call_.token->principal.user;
  if (kind == "user" || kind == "ip") return call_.client_address;
  kind.remove_prefix(kind.find(':') + 1);
  const http::Field* field = http::find(head_->fields, kind);
  return field == nullptr ? std::string_view() : field->value;
}

void Exchange::on_upstream_ready(const ExchangePort::Upstream& upstream) {
  CHECK(reply_ == Reply::acquiring, "a connection comes when it was asked for");
  reply_ = Reply::forwarding;
  upstream_reused_ = upstream.reused;
  upstream_server_ = upstream.server;
  call_.tell(&Life::got_connection, upstream.server, upstream.reused);
  if (upstream_started_ == MonotonicTime{}) upstream_started_ = port_.now();
  send_request();
}

void Exchange::append_upstream_head() {
  const config::Identity& identity = settings().identity;
  http::RequestForwarding forwarding;
  forwarding.path = call_.upstream_path;
  forwarding.framing = head_->framing;
  forwarding.content_length = head_->content_length;
  forwarding.request_id = call_.request_id;
  forwarding.peer_address = peer_address_;
  forwarding.trusted_peer = trusted_peer_;
  forwarding.https = https_;
  forwarding.forwarded_host = forwarded_host_;
  forwarding.via = settings().proxy.via;
  forwarding.default_host = upstream_server_;
  if (upstream_server_.starts_with("unix:")) forwarding.default_host = "localhost";
  const PreparedEdits& edits = edits_of(*call_.snapshot, *call_.route).request;
  forwarding.extra_fields = edits.lines;
  if (identity.pass.as != config::PassIdentity::none && call_.token != nullptr) {
    identity_lines_ = edits.lines;
    append_identity(identity_lines_, *call_.snapshot, call_.token->principal, call_.route->upstream,
                    port_.unix_now());
    forwarding.extra_fields = identity_lines_;
  }
  forwarding.drop_fields = edits.drop;
  forwarding.identity_fields = call_.snapshot->identity_headers;
  forwarding.drop_cookies = call_.snapshot->dropped_cookies;
  // Whom the upstream believes must be who was metered: another token in another place stays here.
  if (identity.forward_token && identity.sources.size() > 1 && call_.token != nullptr) {
    dropped_fields_ = edits.drop;
    dropped_cookies_.clear();
    for (const config::Identity::Source* source : other_tokens(identity, *head_)) {
      if (!source->header.empty()) dropped_fields_.push_back(source->header);
      if (!source->cookie.empty()) dropped_cookies_.push_back(source->cookie);
    }
    forwarding.drop_fields = dropped_fields_;
    forwarding.drop_cookies = dropped_cookies_;
  }
  if (call_.session != nullptr || call_.without_token || call_.portal != nullptr) [[unlikely]] {
    dropped_fields_.assign(forwarding.drop_fields.begin(), forwarding.drop_fields.end());
    dropped_cookies_.assign(forwarding.drop_cookies.begin(), forwarding.drop_cookies.end());
    if (call_.without_token)
      dropped_fields_.push_back("authorization");  // of another scheme, read by nobody here
    if (call_.session != nullptr) drop_for_session();
    if (call_.portal != nullptr) dropped_fields_.push_back("accept-encoding");  // its reply is read
    forwarding.drop_fields = dropped_fields_;
    forwarding.drop_cookies = dropped_cookies_;
  }
  if (call_.learns) [[unlikely]] {  // its reply is read
    if (forwarding.drop_fields.data() != dropped_fields_.data())
      dropped_fields_.assign(forwarding.drop_fields.begin(), forwarding.drop_fields.end());
    dropped_fields_.push_back("accept-encoding");
    forwarding.drop_fields = dropped_fields_;
  }
  forwarding.upgrade = upgrade_;
  forwarding.forward_expect = head_->expect_continue && request_ != Request::complete;
  http::append_request_head(scratch_, *head_, forwarding);
}

void Exchange::append_upstream_trailers(const std::vector<http::TrailerField>& trailers) {
  http::append_request_trailers(scratch_, *head_, trailers, call_.snapshot->identity_headers,
                                edits_of(*call_.snapshot, *call_.route).request.drop);
}

void Exchange::send_request() {
  scratch_.clear();
  append_upstream_head();
  port_.upstream_expect(head_->method, upgrade_);
  if (request_ == Request::complete) {
    send_whole_body();
  } else {
    port_.upstream_write(scratch_);
    request_ = Request::streaming;
    resume_client();
  }
  port_.upstream_read(true);
  watch_upstream();
}

// With the head. What was read to the end before it was sent, or, sent again, has no data: it may still have an end.
void Exchange::send_whole_body() {
  const bool chunked = head_->framing == http::Framing::chunked;
  if (chunked && !body_.empty()) http::append_chunk_start(scratch_, body_.size());
  port_.upstream_write(scratch_);
  if (!body_.empty()) port_.upstream_write(body_);
  if (!chunked) return;
  scratch_.clear();
  if (!body_.empty()) scratch_.append(http::kChunkEnd);
  append_upstream_trailers(trailers_);
  port_.upstream_write(scratch_);
}

void Exchange::on_upstream_writable() {
  if (over()) return;
  const bool reads_body = request_ == Request::streaming || reply_ == Reply::tunnel;
  if (client_paused_ && reads_body && port_.upstream_backlog() <= settings().limits.buffer / 2) {
    client_paused_ = false;
    port_.client_read(true);
    if (reply_ != Reply::tunnel) port_.set_timer(Timer::client, settings().timeouts.request_body);
  }
  watch_upstream();
}

// The upstream's timer by what it is waited for. Waiting for bytes that the client owes is not the upstream's
// fault, unless the client waits for the upstream's leave to send them.
void Exchange::watch_upstream() {
  if (reply_ == Reply::tunnel) {
    port_.set_timer(Timer::upstream, settings().timeouts.upgrade_idle);
  } else if (reply_ == Reply::forwarding) {
    if (request_ == Request::complete || client_awaits_continue())
      arm_upstream(upstream_config_->response_timeout);
    else if (port_.upstream_backlog() > 0)
      arm_upstream(upstream_config_->idle_timeout);
    else
      arm_upstream(Milliseconds::max());
  } else if (reply_ == Reply::replying && !upstream_paused_) {
    arm_upstream(upstream_config_->idle_timeout);
  } else {
    arm_upstream(Milliseconds::max());
  }
}

// After `limit` (max: never), or when the time for everything together is over, whichever is earlier.
void Exchange::arm_upstream(Milliseconds limit) {
  const bool held = reply_ == Reply::acquiring || reply_ == Reply::forwarding || reply_ == Reply::replying;
  if (deadline_ != MonotonicTime{} && held)  // from the event on, as timers run: never early
    limit = std::min(
        limit, std::max(Milliseconds(0), std::chrono::ceil<Milliseconds>(deadline_ - port_.event_time())));
  if (limit == Milliseconds::max())
    port_.clear_timer(Timer::upstream);
  else
    port_.set_timer(Timer::upstream, limit);
}

bool Exchange::past_deadline() {
  return deadline_ != MonotonicTime{} && reply_ != Reply::tunnel && port_.now() >= deadline_;
}

// ---------------------------------------------------------------- again

bool Exchange::replayable() const {
  return is_idempotent(head_->method) && !body_written_ &&
         (request_ == Request::complete || request_ == Request::streaming);
}

// The server closed an idle connection while our request was on its way (RFC 9112 section 9.3.1).
bool Exchange::retry_stale() {
  if (!upstream_reused_ || stale_retry_used_ || !replayable()) return false;
  stale_retry_used_ = true;
  again(true);
  return true;
}

// cause: as in upstreams.*.retry_on.
bool Exchange::retry(std::string_view cause) {
  const config::Upstream& upstream = *upstream_config_;
  if (upstream.servers.size() < 2 || retries_ >= upstream.max_retries || past_deadline()) return false;
  if (std::find(upstream.retry_on.begin(), upstream.retry_on.end(), cause) == upstream.retry_on.end())
    return false;
  if (cause != "connect" && (!replayable() || !port_.upstream_may_repeat(*call_.route))) return false;
  ++retries_;
  release_upstream(false);
  again(false);
  return true;
}

void Exchange::again(bool fresh) {
  if (request_ == Request::streaming) {
    request_ = Request::waiting;
    port_.client_read(false);
    port_.clear_timer(Timer::client);
  }
  acquire(fresh);
}

}  // namespace tollgate::flow
