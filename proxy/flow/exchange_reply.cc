// The reply half: from the upstream to the client.
#include "proxy/flow/exchange.h"
#include "proxy/http/forward.h"

namespace tollgate::flow {

namespace {

constexpr std::uint32_t kInformationalMax = 32;  // 1xx heads before the final one

}  // namespace

std::string_view name(UpstreamFailure failure) {
  switch (failure) {
    case UpstreamFailure::connect:
      return "no connection";
    case UpstreamFailure::connect_timeout:
      return "no connection in time";
    case UpstreamFailure::queue_full:
      return "no free connection in time";
    case UpstreamFailure::unavailable:
      return "every server is down";
    case UpstreamFailure::closed_early:
      return "closed without a reply";
    case UpstreamFailure::invalid:
      return "a reply that is not valid HTTP, or cut";
  }
  return "";
}

void Exchange::on_upstream_head(const http::ResponseHead& head) {
  if (reply_ != Reply::forwarding) return;
  call_.tell(&Life::got_head, head.status);
  if (head.status == 101) return start_tunnel(head);
  if (head.status < 200) return forward_informational(head);
  if (head.status >= 502 && head.status <= 504 && retry(std::to_string(head.status))) return;
  status_ = head.status;
  reply_ = Reply::replying;
  if (call_.session != nullptr) [[unlikely]]
    watch_reply(head);
  if (call_.portal != nullptr) [[unlikely]]
    watch_portal(head);
  if (call_.snapshot->owners != nullptr) [[unlikely]]
    watch_owners(head);
  head_sent_ = !holding_;
  // A server that answers without having read the request may take the rest of it for the next one.
  reply_early_ = request_ != Request::complete || port_.upstream_backlog() > 0;
  if (request_ != Request::complete || port_.draining()) keep_alive_ = false;
  http::ResponseForwarding forwarding;
  forwarding.framing = http::client_framing(head, head_->minor_version);
  forwarding.content_length = head.content_length;
  forwarding.request_id = call_.request_id;
  forwarding.extra_fields = call_.response_fields;
  const PreparedEdits& edits = edits_of(*call_.snapshot, *call_.route).reply;
  // RateLimit is a list: the upstream's own members stay. These hold one number: ours.
  const bool legacy = settings().proxy.legacy_rate_limit_headers && !call_.response_fields.empty();
  forwarding.drop_fields = reply_drop_ = legacy ? edits.drop_legacy : edits.drop;
  if (!edits.lines.empty()) {
    call_.response_fields += edits.lines;
    forwarding.extra_fields = call_.response_fields;
  }
  forwarding.date = port_.date();
  forwarding.client_minor_version = head_->minor_version;
  reply_until_close_ = forwarding.framing == http::Framing::until_close;
  if (reply_until_close_) keep_alive_ = false;
  forwarding.close = !keep_alive_;
  reply_chunked_ = forwarding.framing == http::Framing::chunked;
  http::ReplyPaths paths;
  if (!call_.upstream_path.empty() && call_.route->rewrite.map_replies) {
    paths = {.upstream_prefix = http::without_end_slash(call_.route->rewrite.replace_prefix),
             .client_prefix = http::without_end_slash(call_.route->path_prefix),
             .host = head_->authority,
             .public_host = forwarded_host_,
             .servers = upstream_config_->servers};
    forwarding.paths = &paths;
  }
  reply_named_ = http::names_in_connection(head);
  scratch_.clear();
  http::append_response_head(scratch_, head, forwarding);
  to_client(scratch_);
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
  const bool goes_on = head.status == 100 && client_awaits_continue();
  if (head.status == 100) continue_sent_ = true;
  http::ResponseForwarding forwarding;
  forwarding.request_id = call_.request_id;
  scratch_.clear();
  http::append_response_head(scratch_, head, forwarding);
  port_.client_write(scratch_);
  if (!goes_on) return;
  port_.set_timer(Timer::client, settings().timeouts.request_body);  // from now on it is the client who owes
  watch_upstream();
}

void Exchange::start_tunnel(const http::ResponseHead& head) {
  if (!upgrade_) {
    release_upstream(false);
    return fail(Reason::upstream_invalid, "The upstream switched protocols without being asked.");
  }
  if (!http::switches_as_offered(*head_, head)) {
    release_upstream(false);
    return fail(Reason::upstream_invalid, "The upstream switched to a protocol that was not offered.");
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
    to_client(scratch_);
    to_client(payload);
    to_client(http::kChunkEnd);
  } else {
    to_client(payload);
  }
  if (watches_body_) [[unlikely]]
    watch_body(payload);
  if (watches_owners_) [[unlikely]] {
    watches_owners_ = owners_body_.size() + payload.size() <= kOwnersReplyMax;
    if (watches_owners_) owners_body_.append(payload);
  }
  if (port_.client_backlog() + held_.size() > settings().limits.buffer && !watches_body_) {
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
    http::append_response_trailers(scratch_, trailers, reply_named_, reply_drop_);
    to_client(scratch_);
  }
  // Its reply may have come in the turn in which it was asked.
  upstream_time_ = std::max(Duration(0), port_.event_time() - upstream_started_);
  if (watches_owners_) [[unlikely]]
    settle_owners();
  // A reply that came before its request was complete leaves the rest of the request unread.
  if (request_ != Request::complete) {
    request_ = Request::abandoned;
    port_.client_read(false);
    port_.clear_timer(Timer::client);
  }
  release_upstream(reusable && !reply_early_);
  if (holding_) [[unlikely]] {
    held_end_ = true;
    if (watches_body_ && call_.portal != nullptr) return settle_portal(status_, watched_body_);
    if (watches_body_) settle_login();
    return;
  }
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
  call_.tell(&Life::upstream_failed, name(failure));
  if (head_sent_) return cut_short(Reason::upstream_invalid);
  switch (failure) {
    case UpstreamFailure::connect:
      if (retry("connect")) return;
      return fail(Reason::upstream_unreachable, "The upstream server could not be reached.");
    case UpstreamFailure::connect_timeout:
      if (retry("connect")) return;
      return fail(Reason::upstream_connect_timeout, "Connecting to the upstream server took too long.");
    case UpstreamFailure::queue_full:
      return fail(Reason::overloaded, "Too many requests are waiting for the upstream server.");
    case UpstreamFailure::unavailable:
      return fail(Reason::upstream_unavailable, "No upstream server passes its health checks at the moment.");
    case UpstreamFailure::closed_early:
      if (retry_stale() || retry("closed")) return;
      return fail(Reason::upstream_closed, "The upstream server closed the connection without a reply.");
    case UpstreamFailure::invalid:
      return fail(Reason::upstream_invalid, "The upstream server sent a reply that is not valid HTTP.");
  }
}

}  // namespace tollgate::flow
