#include "proxy/flow/exchange.h"

#include <algorithm>

#include "metering/base/ascii.h"
#include "metering/base/check.h"
#include "proxy/flow/status_phrase.h"
#include "proxy/http/address.h"
#include "proxy/http/forward.h"
#include "proxy/http/request_id.h"

namespace tollgate::flow {

namespace {

constexpr std::uint32_t kInformationalMax = 32;    // 1xx heads before the final one
constexpr std::size_t kKeptMemoryMax = 64 * 1024;  // of strings kept for the next exchange

bool is_idempotent(std::string_view method) {  // RFC 9110 section 9.2.2
  return method == "GET" || method == "HEAD" || method == "OPTIONS" || method == "PUT" ||
         method == "DELETE" || method == "TRACE";
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
  buffered_ = store_pending_ = client_lost_ = upstream_held_ = upstream_reused_ = upstream_written_ =
      body_written_ = upgrade_ = stale_retry_used_ = head_sent_ = continue_sent_ = reply_chunked_ =
          reply_until_close_ = client_paused_ = upstream_paused_ = client_finished_ = upstream_finished_ =
              false;
  retries_ = attempts_ = informational_ = 0;
  status_ = 0;
  bytes_in_ = bytes_out_ = discarded_ = 0;
  store_time_ = upstream_time_ = Duration(0);
  upstream_started_ = {};
  arrived_ = port_.now();
  arrived_unix_ = port_.unix_now();
  peer_address_ = arrival.peer_address;
  upstream_server_.clear();
  forwarded_host_.clear();
  choose_request_id(arrival);
  if (head == nullptr) {
    call_.client_address = arrival.peer_address;
    return;
  }
  http::ClientInfo client =
      http::client_of(arrival.peer_address, arrival.tls, *head, arrival.snapshot->trusted_proxies);
  call_.client_address = std::move(client.address);
  forwarded_host_ = std::move(client.host);
  https_ = client.https;
  trusted_peer_ = client.trusted_peer;
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
  const std::uint64_t body_max = settings().limits.max_body;
  if (body_max != 0 && head.framing == http::Framing::length && head.content_length > body_max)
    return fail(Reason::body_too_large, "The request body is larger than this proxy accepts.");
  act(gate_.on_head(call_, head, arrived_unix_));
}

void Exchange::on_request_refused(const Arrival& arrival, const http::ParseFailure& failure) {
  begin(arrival, nullptr);
  request_ = Request::abandoned;
  fail(failure.reason, failure.detail);
}

void Exchange::act(Next next) {
  switch (next) {
    case Next::forward:
      return forward();
    case Next::need_body:
      return start_body_buffer();
    case Next::charge:
      store_pending_ = true;
      store_asked_ = port_.now();
      return port_.charge(call_.charges);
    case Next::read_usage:
      store_pending_ = true;
      store_asked_ = port_.now();
      return port_.read_usage(call_);
    case Next::reply:
      return send_local_reply();
  }
}

void Exchange::start_body_buffer() {
  if (request_ == Request::complete) return act(gate_.on_body(call_, *head_, body_));
  if (head_->framing == http::Framing::length && head_->content_length > settings().catalogue.max_body)
    return fail(Reason::body_uninspectable, "The request body is too large to be inspected.");
  request_ = Request::buffering;
  buffered_ = true;
  if (head_->expect_continue && !continue_sent_) {
    continue_sent_ = true;
    port_.client_write("HTTP/1.1 100 Continue\r\n\r\n");
  }
  resume_client();
}

void Exchange::resume_client() {
  client_paused_ = false;
  port_.client_read(true);
  port_.set_timer(Timer::client, settings().timeouts.request_body);
}

void Exchange::on_request_body(std::string_view payload) {
  if (payload.empty() || over()) return;
  bytes_in_ += payload.size();
  if (reply_ == Reply::tunnel || request_ == Request::streaming) return write_request_payload(payload);
  if (request_ == Request::buffering) {
    if (body_.size() + payload.size() > settings().catalogue.max_body)
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
    act(gate_.on_body(call_, *head_, body_));
  } else if (before == Request::streaming) {
    if (head_->framing == http::Framing::chunked) {
      scratch_.clear();
      http::append_last_chunk(scratch_, trailers);
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

void Exchange::on_charge(quota::ChargeOutcome&& outcome) {
  if (!store_pending_) return;
  store_pending_ = false;
  store_time_ += port_.now() - store_asked_;
  if (client_lost_) {
    call_.receipt = std::move(outcome.receipt);
    call_.reason = Reason::client_closed;
    return end(ClientEnd::abort);
  }
  act(gate_.on_charge(call_, std::move(outcome)));
}

void Exchange::on_usage(Result<std::vector<quota::AccountState>>&& states,
                        Result<std::vector<quota::Ledger::Listed>>&& objects) {
  if (!store_pending_) return;
  store_pending_ = false;
  store_time_ += port_.now() - store_asked_;
  if (client_lost_) {
    call_.reason = Reason::client_closed;
    return end(ClientEnd::abort);
  }
  act(gate_.on_usage(call_, std::move(states), std::move(objects)));
}

// ---------------------------------------------------------------- to the upstream

void Exchange::forward() {
  CHECK(call_.route != nullptr, "a call that is forwarded has a route");
  upstream_config_ = find_upstream(settings(), call_.route->upstream);
  CHECK(upstream_config_ != nullptr, "a validated route names an upstream");
  upgrade_ = head_->wants_upgrade && call_.route->allow_upgrade && head_->framing == http::Framing::none &&
             head_->minor_version >= 1;
  acquire(false);
}

void Exchange::acquire(bool fresh) {
  reply_ = Reply::acquiring;
  upstream_held_ = true;
  upstream_paused_ = false;
  ++attempts_;
  const bool sendable_again = is_idempotent(head_->method) && request_ == Request::complete;
  ExchangePort::Upstream upstream;
  if (port_.upstream_acquire(*call_.route, fresh, sendable_again, upstream)) on_upstream_ready(upstream);
}

void Exchange::on_upstream_ready(const ExchangePort::Upstream& upstream) {
  CHECK(reply_ == Reply::acquiring, "a connection comes when it was asked for");
  reply_ = Reply::forwarding;
  upstream_reused_ = upstream.reused;
  upstream_server_ = upstream.server;
  if (upstream_started_ == MonotonicTime{}) upstream_started_ = port_.now();
  send_request();
}

void Exchange::append_upstream_head() {
  const config::Identity& identity = settings().identity;
  std::array<std::string_view, 8> dropped;
  std::size_t dropped_count = 0;
  std::string_view dropped_cookie;
  if (!identity.forward_token) {
    if (identity.sources.empty()) dropped[dropped_count++] = "authorization";
    for (const auto& source : identity.sources) {
      if (!source.header.empty() && dropped_count < dropped.size()) dropped[dropped_count++] = source.header;
      if (!source.cookie.empty()) dropped_cookie = source.cookie;
    }
  }
  http::RequestForwarding forwarding;
  forwarding.framing = head_->framing;
  forwarding.content_length = head_->content_length;
  forwarding.request_id = call_.request_id;
  forwarding.peer_address = peer_address_;
  forwarding.trusted_peer = trusted_peer_;
  forwarding.https = https_;
  forwarding.forwarded_host = forwarded_host_;
  forwarding.default_host = upstream_server_;
  forwarding.drop_fields = std::span(dropped.data(), dropped_count);
  forwarding.drop_cookie = dropped_cookie;
  forwarding.upgrade = upgrade_;
  forwarding.forward_expect = head_->expect_continue && request_ != Request::complete;
  http::append_request_head(scratch_, *head_, forwarding);
}

void Exchange::send_request() {
  scratch_.clear();
  append_upstream_head();
  port_.upstream_expect(head_->method, upgrade_);
  upstream_written_ = true;
  if (body_buffered()) {
    send_buffered_body();
  } else {
    port_.upstream_write(scratch_);
    if (request_ != Request::complete) {
      request_ = Request::streaming;
      resume_client();
    }
  }
  port_.upstream_read(true);
  watch_upstream();
}

void Exchange::send_buffered_body() {
  const bool chunked = head_->framing == http::Framing::chunked;
  if (chunked && !body_.empty()) http::append_chunk_start(scratch_, body_.size());
  port_.upstream_write(scratch_);
  port_.upstream_write(body_);
  if (!chunked) return;
  scratch_.clear();
  if (!body_.empty()) scratch_.append(http::kChunkEnd);
  http::append_last_chunk(scratch_, trailers_);
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
// fault.
void Exchange::watch_upstream() {
  if (reply_ == Reply::tunnel) {
    port_.set_timer(Timer::upstream, settings().timeouts.upgrade_idle);
  } else if (reply_ == Reply::forwarding) {
    if (request_ == Request::complete)
      port_.set_timer(Timer::upstream, upstream_config_->response_timeout);
    else if (port_.upstream_backlog() > 0)
      port_.set_timer(Timer::upstream, upstream_config_->idle_timeout);
    else
      port_.clear_timer(Timer::upstream);
  } else if (reply_ == Reply::replying && !upstream_paused_) {
    port_.set_timer(Timer::upstream, upstream_config_->idle_timeout);
  } else {
    port_.clear_timer(Timer::upstream);
  }
}

// ---------------------------------------------------------------- from the upstream

void Exchange::on_upstream_head(const http::ResponseHead& head) {
  if (reply_ != Reply::forwarding) return;
  if (head.status == 101) return start_tunnel(head);
  if (head.status < 200) return forward_informational(head);
  status_ = head.status;
  head_sent_ = true;
  reply_ = Reply::replying;
  if (request_ != Request::complete || port_.draining()) keep_alive_ = false;
  http::ResponseForwarding forwarding;
  forwarding.framing = http::client_framing(head, head_->minor_version);
  forwarding.content_length = head.content_length;
  forwarding.request_id = call_.request_id;
  forwarding.extra_fields = call_.response_fields;
  forwarding.date = port_.date();
  forwarding.client_minor_version = head_->minor_version;
  reply_until_close_ = forwarding.framing == http::Framing::until_close;
  if (reply_until_close_) keep_alive_ = false;
  forwarding.close = !keep_alive_;
  reply_chunked_ = forwarding.framing == http::Framing::chunked;
  scratch_.clear();
  http::append_response_head(scratch_, head, forwarding);
  port_.client_write(scratch_);
  watch_upstream();
}

void Exchange::forward_informational(const http::ResponseHead& head) {
  if (++informational_ > kInformationalMax) {
    release_upstream(false);
    return fail(Reason::upstream_invalid, "The upstream sent too many interim replies.");
  }
  if (head_->minor_version == 0) return;
  // We have told this client to go on ourselves, or it never asked.
  if (head.status == 100 && (!head_->expect_continue || continue_sent_)) return;
  if (head.status == 100) continue_sent_ = true;
  http::ResponseForwarding forwarding;
  forwarding.request_id = call_.request_id;
  scratch_.clear();
  http::append_response_head(scratch_, head, forwarding);
  port_.client_write(scratch_);
}

void Exchange::start_tunnel(const http::ResponseHead& head) {
  if (!upgrade_) {
    release_upstream(false);
    return fail(Reason::upstream_invalid, "The upstream switched protocols without being asked.");
  }
  status_ = head.status;
  head_sent_ = true;
  keep_alive_ = false;
  http::ResponseForwarding forwarding;
  forwarding.request_id = call_.request_id;
  forwarding.extra_fields = call_.response_fields;
  forwarding.upgrade = true;
  scratch_.clear();
  http::append_response_head(scratch_, head, forwarding);
  port_.client_write(scratch_);
  reply_ = Reply::tunnel;
  port_.client_read(true);
  watch_upstream();
}

void Exchange::on_upstream_body(std::string_view payload) {
  if (payload.empty() || (reply_ != Reply::replying && reply_ != Reply::tunnel)) return;
  bytes_out_ += payload.size();
  if (reply_chunked_ && reply_ == Reply::replying) {
    scratch_.clear();
    http::append_chunk_start(scratch_, payload.size());
    port_.client_write(scratch_);
    port_.client_write(payload);
    port_.client_write(http::kChunkEnd);
  } else {
    port_.client_write(payload);
  }
  if (port_.client_backlog() > settings().limits.buffer) {
    upstream_paused_ = true;
    port_.upstream_read(false);
  }
  watch_upstream();
}

void Exchange::on_upstream_end(const std::vector<http::TrailerField>& trailers, bool reusable) {
  if (reply_ == Reply::tunnel) {
    upstream_finished_ = true;
    port_.client_end_writing();
    return tunnel_end_seen();
  }
  if (reply_ != Reply::replying) return;
  if (reply_chunked_) {
    scratch_.clear();
    http::append_last_chunk(scratch_, trailers);
    port_.client_write(scratch_);
  }
  upstream_time_ = port_.now() - upstream_started_;
  // A reply that came before its request was complete leaves the rest of the request unread.
  if (request_ != Request::complete) {
    request_ = Request::abandoned;
    port_.client_read(false);
    port_.clear_timer(Timer::client);
    reusable = false;
  }
  release_upstream(reusable);
  reply_ = Reply::flushing;
  settle_if_flushed();
}

void Exchange::tunnel_end_seen() {
  if (!client_finished_ || !upstream_finished_) return;
  release_upstream(false);
  reply_ = Reply::flushing;
  settle_if_flushed();
}

void Exchange::on_upstream_failed(UpstreamFailure failure) {
  if (over()) return;
  upstream_held_ = false;
  port_.clear_timer(Timer::upstream);
  if (reply_ == Reply::tunnel) {
    reply_ = Reply::flushing;
    return settle_if_flushed();
  }
  if (reply_ != Reply::acquiring && reply_ != Reply::forwarding && reply_ != Reply::replying) return;
  if (head_sent_) return cut_short(Reason::upstream_invalid);
  if (retry(failure)) return;
  switch (failure) {
    case UpstreamFailure::connect:
      return fail(Reason::upstream_unreachable, "The upstream server could not be reached.");
    case UpstreamFailure::queue_full:
      return fail(Reason::overloaded, "Too many requests are waiting for the upstream server.");
    case UpstreamFailure::closed_early:
      return fail(Reason::upstream_invalid, "The upstream server closed the connection without a reply.");
    case UpstreamFailure::invalid:
      return fail(Reason::upstream_invalid, "The upstream server sent a reply that is not valid HTTP.");
  }
}

bool Exchange::replayable() const {
  return is_idempotent(head_->method) && !body_written_ &&
         (request_ == Request::complete || request_ == Request::streaming);
}

bool Exchange::retry(UpstreamFailure failure) {
  bool fresh = false;
  if (failure == UpstreamFailure::connect) {
    if (retries_ >= upstream_config_->max_retries || upstream_config_->servers.size() < 2) return false;
    ++retries_;
  } else if (failure == UpstreamFailure::closed_early) {
    // The server closed an idle connection while our request was on its way (RFC 9112 section 9.3.1).
    if (!upstream_reused_ || stale_retry_used_ || !replayable()) return false;
    stale_retry_used_ = fresh = true;
    if (request_ == Request::streaming) {
      request_ = Request::waiting;
      port_.client_read(false);
      port_.clear_timer(Timer::client);
    }
  } else {
    return false;
  }
  acquire(fresh);
  return true;
}

// ---------------------------------------------------------------- endings

void Exchange::on_client_writable() {
  if (over()) return;
  const bool reads_reply = reply_ == Reply::replying || reply_ == Reply::tunnel;
  if (upstream_paused_ && reads_reply && port_.client_backlog() <= settings().limits.buffer / 2) {
    upstream_paused_ = false;
    port_.upstream_read(true);
    watch_upstream();
  }
  settle_if_flushed();
}

void Exchange::on_client_gone() {
  if (over()) return;
  client_lost_ = true;
  if (store_pending_) return;  // the verdict decides whether something has to be given back
  if (reply_ != Reply::tunnel) call_.reason = Reason::client_closed;
  end(ClientEnd::abort);
}

void Exchange::on_timer(Timer timer) {
  if (over()) return;
  if (timer == Timer::client) {
    if (request_ == Request::discarding) {
      request_ = Request::abandoned;
      keep_alive_ = false;
      port_.client_read(false);
      return settle_if_flushed();
    }
    request_ = Request::abandoned;
    keep_alive_ = false;
    if (head_sent_) return cut_short(Reason::request_timeout);
    return fail(Reason::request_timeout, "The request body did not arrive in time.");
  }
  if (reply_ == Reply::tunnel) {
    release_upstream(false);
    reply_ = Reply::flushing;
    return settle_if_flushed();
  }
  if (head_sent_) return cut_short(Reason::upstream_timeout);
  fail(Reason::upstream_timeout, "The upstream server did not answer in time.");
}

void Exchange::stop() {
  if (over()) return;
  store_pending_ = false;
  if (!head_sent_ && !client_lost_) {
    keep_alive_ = false;
    request_ = Request::abandoned;
    fail(Reason::draining, "This proxy is stopping.");
  } else if (reply_ != Reply::tunnel && reply_ != Reply::flushing) {
    call_.reason = client_lost_ ? Reason::client_closed : Reason::draining;
  }
  end(reply_ == Reply::flushing ? ClientEnd::close : ClientEnd::abort);
}

void Exchange::fail(Reason reason, std::string_view detail) {
  release_upstream(false);
  if (upstream_started_ != MonotonicTime{}) upstream_time_ = port_.now() - upstream_started_;
  if (!upstream_written_) give_back();
  Gate::fail(call_, reason, detail);
  send_local_reply();
}

void Exchange::cut_short(Reason reason) {
  call_.reason = reason;
  end(ClientEnd::abort);
}

// What to do with the part of the request that has not been read when a reply of our own goes out.
void Exchange::settle_request_for_local_reply() {
  port_.clear_timer(Timer::client);
  if (request_ == Request::complete) return;
  const bool client_waits = head_ != nullptr && head_->expect_continue && !continue_sent_;
  const bool short_enough = head_ != nullptr && (head_->framing == http::Framing::chunked ||
                                                 head_->content_length - bytes_in_ <= kDiscardMax);
  if (keep_alive_ && request_ != Request::abandoned && !client_waits && short_enough) {
    request_ = Request::discarding;
    return resume_client();
  }
  request_ = Request::abandoned;
  keep_alive_ = false;
  port_.client_read(false);
}

void Exchange::send_local_reply() {
  settle_request_for_local_reply();
  if (port_.draining()) keep_alive_ = false;
  const LocalReply& reply = call_.reply;
  call_.reason = reply.reason;
  status_ = reply.status;
  head_sent_ = true;
  const bool head_only = head_ != nullptr && head_->method == "HEAD";
  scratch_.clear();
  fmt::format_to(std::back_inserter(scratch_), "HTTP/1.1 {} {}\r\nDate: {}\r\n", reply.status,
                 status_phrase(reply.status), port_.date());
  scratch_.append(reply.fields);
  fmt::format_to(std::back_inserter(scratch_), "X-Request-Id: {}\r\nContent-Length: {}\r\n", call_.request_id,
                 reply.body.size());
  if (!keep_alive_)
    scratch_.append("Connection: close\r\n");
  else if (client_version() == 0)
    scratch_.append("Connection: keep-alive\r\n");
  scratch_.append("\r\n");
  if (!head_only) {
    scratch_.append(reply.body);
    bytes_out_ += reply.body.size();
  }
  port_.client_write(scratch_);
  reply_ = Reply::flushing;
  settle_if_flushed();
}

void Exchange::settle_if_flushed() {
  if (reply_ != Reply::flushing || request_ == Request::discarding || port_.client_backlog() > 0) return;
  end(keep_alive_ ? ClientEnd::keep : ClientEnd::close);
}

void Exchange::release_upstream(bool reusable) {
  if (!upstream_held_) return;
  upstream_held_ = false;
  port_.clear_timer(Timer::upstream);
  port_.upstream_release(reusable);
}

void Exchange::give_back() {
  if (call_.receipt.items.empty()) return;
  port_.give_back(std::move(call_.receipt));
  call_.receipt = {};
}

void Exchange::end(ClientEnd how) {
  if (over()) return;
  port_.clear_timer(Timer::client);
  port_.clear_timer(Timer::upstream);
  if (upstream_held_ && upstream_started_ != MonotonicTime{})
    upstream_time_ = port_.now() - upstream_started_;
  release_upstream(false);
  if (!upstream_written_) give_back();
  client_end_ = how;
  record();
  reply_ = Reply::over;
  head_ = nullptr;
  call_ = Call{};
  trailers_.clear();
  body_.clear();
  if (body_.capacity() > kKeptMemoryMax) body_.shrink_to_fit();
  if (scratch_.capacity() > kKeptMemoryMax) scratch_.shrink_to_fit();
}

void Exchange::record() {
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
  const bool charged = std::ranges::any_of(
      call_.charges, [](const quota::AccountCharge& charge) { return charge.rule != quota::Rules::kObservation; });
  if (upstream_written_ && (call_.decision.metered || charged) && call_.classification.counted)
    fact.units = static_cast<std::uint32_t>(call_.decision.units.size());
  fact.reason = call_.reason;
  fact.degraded = call_.degraded;
  fact.status = head_sent_ ? status_ : 0;
  fact.bytes_in = bytes_in_;
  fact.bytes_out = bytes_out_;
  fact.total = port_.now() - arrived_;
  fact.upstream = upstream_time_;
  fact.store = store_time_;
  if (attempts_ > 0) fact.upstream_server = upstream_server_;
  fact.attempts = attempts_;
  port_.record(fact);
}

}  // namespace tollgate::flow
