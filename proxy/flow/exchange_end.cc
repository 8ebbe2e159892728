// The endings: replies of our own, time-outs, the client's departure, and the fact about it all.
#include "metering/base/append.h"
#include "proxy/flow/exchange.h"
#include "proxy/flow/status_phrase.h"

namespace tollgate::flow {

namespace {

constexpr std::size_t kKeptMemoryMax = 64 * 1024;  // of strings kept for the next exchange

}  // namespace

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
  const bool everything = past_deadline();
  // The time for everything may have passed while the client sent, or within a long reply: then it is not the server's fault.
  const bool unanswered = reply_ == Reply::forwarding && (!everything || request_ == Request::complete);
  if (unanswered || (reply_ == Reply::replying && !everything)) port_.upstream_stalled();
  call_.tell(&Life::upstream_failed, everything ? "the call took longer than it may" : "no reply in time");
  if (head_sent_) return cut_short(everything ? Reason::upstream_deadline : Reason::upstream_timeout);
  if (everything) return fail(Reason::upstream_deadline, "The call took longer than it may.");
  if (retry("timeout")) return;
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
  holding_ = watches_body_ = false;
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
  if (call_.portal != nullptr) settle_portal(0, {});
  settle_request_for_local_reply();
  if (port_.draining()) keep_alive_ = false;
  const LocalReply& reply = call_.reply;
  call_.tell(&Life::answers, reply.status);
  call_.reason = reply.reason;
  status_ = reply.status;
  head_sent_ = true;
  scratch_.clear();
  {
    Appender to(scratch_);
    to.text("HTTP/1.1 ").decimal(reply.status).text(" ").text(status_phrase(reply.status));
    to.text("\r\nDate: ").text(port_.date()).text("\r\n").text(reply.fields);
    to.text("X-Request-Id: ").text(call_.request_id);
    to.text("\r\nContent-Length: ").decimal(reply.body.size()).text("\r\n");
    if (!keep_alive_)
      to.text("Connection: close\r\n");
    else if (client_version() == 0)
      to.text("Connection: keep-alive\r\n");
    to.text("\r\n");
    if (!asks_head_) to.text(reply.body);
  }
  if (!asks_head_) bytes_out_ += reply.body.size();
  port_.client_write(scratch_);
  reply_ = Reply::flushing;
  settle_if_flushed();
}

Wait Exchange::waits_for() const {
  if (store_pending_ || session_pending_) return Wait::store;
  const bool flushes = reply_ == Reply::flushing || (reply_ == Reply::replying && upstream_paused_);
  const bool takes_body =
      request_ == Request::buffering || (request_ == Request::streaming && !client_paused_);
  return flushes || takes_body ? Wait::client : Wait::upstream;
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
  port_.give_back(call_.charges, call_.receipt);
  call_.receipt = {};
  given_back_ = charged_;
  charged_ = false;
  if (journalled_.call != 0) port_.call_journal()->uncharged(journalled_);
}

void Exchange::end(ClientEnd how) {
  if (over()) return;
  port_.clear_timer(Timer::client);
  port_.clear_timer(Timer::upstream);
  if (upstream_held_ && upstream_started_ != MonotonicTime{})
    upstream_time_ = port_.now() - upstream_started_;
  release_upstream(false);
  if (!upstream_written_) give_back();
  if (call_.portal != nullptr) {
    holding_ = false;
    settle_portal(0, {});
  }
  client_end_ = how;
  call_.tell(&Life::enter, Phase::record);
  record();
  reply_ = Reply::over;
  head_ = nullptr;
  gate_.forget(call_);
  trailers_.clear();
  body_.clear();
  held_.clear();
  session_writes_.clear();
  watched_body_.clear();
  owners_body_.clear();
  if (owners_body_.capacity() > kKeptMemoryMax) owners_body_.shrink_to_fit();
  if (body_.capacity() > kKeptMemoryMax) body_.shrink_to_fit();
  if (held_.capacity() > kKeptMemoryMax) held_.shrink_to_fit();
  if (scratch_.capacity() > kKeptMemoryMax) scratch_.shrink_to_fit();
}

}  // namespace tollgate::flow
