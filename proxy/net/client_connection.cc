#include "proxy/net/client_connection.h"

#include <event2/event.h>

#include "metering/base/check.h"
#include "proxy/net/proxy_protocol.h"
#include "proxy/net/session.h"
#include "proxy/net/worker.h"

namespace tollgate::net {

namespace {

constexpr int kDropReadsMax = 16;  // before others have their turn

}  // namespace

ClientConnection::ClientConnection(Worker& worker, int fd, std::string_view peer_address,
                                   AddressTable::Entry* address, std::shared_ptr<const ServerTls> tls,
                                   bool overloaded, bool announced)
    : worker_(worker),
      peer_address_(http::canonical_address(peer_address)),
      address_(address),
      phase_(announced ? Phase::announced : Phase::handshake),
      overloaded_(overloaded),
      secured_(tls == nullptr ? nullptr : new Secured{std::move(tls), nullptr}) {
  timer_.bind(this, &ClientConnection::on_timer);
  transport_.open(fd, secured_ == nullptr ? nullptr : secured_->tls->new_session());
}

ClientConnection::~ClientConnection() = default;

void ClientConnection::start() {
  watch_.start(worker_.loop(), WatchKind::client, transport_.fd(), this, &ClientConnection::on_event);
  if (transport_.tls() || phase_ == Phase::announced)
    worker_.loop().set(timer_, worker_.settings().timeouts.tls_handshake);
  else
    become_idle();
}

void ClientConnection::on_event(void* self, short what) {
  auto* connection = static_cast<ClientConnection*>(self);
  if ((what & (EV_READ | EV_CLOSED)) != 0) connection->readable = true;
  if ((what & EV_WRITE) != 0) connection->writable = true;
  if ((what & EV_CLOSED) != 0) connection->peer_closed = true;
  if (connection->transport_.tls()) connection->readable = connection->writable = true;
  // A reset while nothing is taken (the sender is paused, the PROXY header is not whole) would go unnoticed.
  const bool takes_nothing = connection->phase_ == Phase::exchange || connection->phase_ == Phase::announced;
  if (takes_nothing && (what & EV_READ) != 0 && (what & EV_WRITE) != 0 && (what & EV_CLOSED) == 0 &&
      connection->transport_.take_error() != 0) {
    if (connection->phase_ == Phase::exchange)
      connection->session_->client_gone();
    else
      connection->peer_closed = true;
  }
  connection->advance();
}

void ClientConnection::advance() {
  if (advancing_) {
    again_ = true;
    return;
  }
  advancing_ = true;
  do {
    again_ = false;
    step();
  } while (again_ && phase_ != Phase::gone);
  advancing_ = false;
}

void ClientConnection::step() {
  switch (phase_) {
    case Phase::announced:
      return read_announcement();
    case Phase::handshake:
      return handshake();
    case Phase::idle:
    case Phase::head:
      return read_head();
    case Phase::exchange:
      return run_exchange();
    case Phase::lingering:
      return drop_input();
    case Phase::gone:
      return;
  }
}

// Looked at without taking it: what follows belongs to TLS or to the first request.
void ClientConnection::read_announcement() {
  const std::string_view seen = transport_.peek(worker_.loop().scratch(), kProxyHeaderMax);
  const ProxyHeader header = parse_proxy_header(seen);
  const bool ended = peer_closed && header.status != ProxyHeader::Status::complete;
  if (header.status == ProxyHeader::Status::incomplete && !ended) return;
  if (header.status == ProxyHeader::Status::failed || ended) {
    worker_.counters().proxy_header_failures_total.fetch_add(1, std::memory_order_relaxed);
    return close();
  }
  transport_.skip(worker_.loop().scratch(), header.size);
  if (!header.source.empty()) peer_address_ = header.source;
  if (!worker_.admit(peer_address_, address_)) return close();
  readable = true;
  phase_ = Phase::handshake;
  if (!transport_.tls()) become_idle();
  again_ = true;
}

void ClientConnection::handshake() {
  const IoResult result = transport_.handshake();
  if (result.status == Io::blocked) return;
  if (result.status != Io::ok) {
    worker_.counters().tls_failures_total.fetch_add(1, std::memory_order_relaxed);
    return close();
  }
  if (secured_ != nullptr) secured_->certificate = transport_.peer_certificate();
  become_idle();
  again_ = true;
}

// ---------------------------------------------------------------- requests

void ClientConnection::become_idle() {
  drop_session();
  phase_ = Phase::idle;
  worker_.add_idle(*this);
  const Milliseconds patience = worker_.closing() ? kSilence : worker_.settings().timeouts.client_idle;
  worker_.loop().set(timer_, patience);
  idle_since_ = timer_.deadline() - patience;
}

void ClientConnection::close_when_silent() {
  const MonotonicTime silent_at = idle_since_ + kSilence;
  if (silent_at <= worker_.loop().now()) return silence_ended();
  worker_.loop().set(timer_, silent_at);
}

// A request may have come since the loop looked last; closing now would destroy it.
void ClientConnection::silence_ended() {
  char byte;
  if (transport_.peek(&byte, 1).empty()) return close();
  readable = true;
  advance();
  if (phase_ == Phase::idle) worker_.loop().set(timer_, kSilence);  // a part of a TLS record
}

void ClientConnection::read_head() {
  if (!readable || eof_) {
    if (eof_) close();
    return;
  }
  if (session_ == nullptr) {
    session_ = worker_.lend_session();
    session_->lend(*this);
  }
  Buffer& input = session_->input();
  char* room = input.prepare(Buffer::kBlock / 2);
  const IoResult result = transport_.read(room, input.room());
  if (result.status != Io::ok) {
    readable = false;
    if (result.status != Io::blocked) return close();
    if (phase_ == Phase::idle) drop_session();
    return;
  }
  input.commit(result.bytes);
  if (result.drained && !peer_closed) readable = false;
  if (phase_ == Phase::idle) {
    worker_.remove_idle(*this);
    phase_ = Phase::head;
    worker_.loop().clear(timer_);
  }
  parse_head();
}

void ClientConnection::parse_head() {
  if (worker_.life_watch().due()) [[unlikely]]
    session_->parsing_begins();
  switch (session_->parser().parse(session_->input().view())) {
    case http::ParseStatus::incomplete:
      if (eof_) return close();
      // Counted from the first byte: more bytes do not buy more time.
      if (!timer_.armed()) worker_.loop().set(timer_, worker_.settings().timeouts.request_head);
      readable = again_ = true;  // a reset may have come with these bytes: see transport.h
      return;
    case http::ParseStatus::complete:
      worker_.loop().clear(timer_);
      phase_ = Phase::exchange;
      worker_.exchange_began();
      session_->begin();
      break;
    case http::ParseStatus::failed:
      worker_.loop().clear(timer_);
      phase_ = Phase::exchange;
      worker_.exchange_began();
      session_->refuse(session_->parser().failure());
      break;
  }
  run_exchange();
}

void ClientConnection::head_timed_out() {
  worker_.counters().slow_heads_total.fetch_add(1, std::memory_order_relaxed);
  phase_ = Phase::exchange;
  worker_.exchange_began();
  session_->parsing_begins();
  session_->refuse({Reason::request_timeout, "The request head did not arrive in time."});
  advance();
}

void ClientConnection::run_exchange() {
  const bool all_done = session_->pump();
  if (session_->over()) return exchange_over();
  if (session_->client_lost()) {  // only the store's answer is waited for
    watch_.stop();
    transport_.close();
    worker_.loop().clear(timer_);
  } else if (!all_done) {
    worker_.advance_later(this);
  }
}

void ClientConnection::exchange_over() {
  worker_.exchange_ended();
  if (!transport_.is_open()) return close();
  switch (session_->end()) {
    case flow::ClientEnd::keep:
      return next_request();
    case flow::ClientEnd::close:
      return linger();
    case flow::ClientEnd::abort:
      // What came before the cut is the client's, as far as the socket takes it.
      if (!session_->client_lost() && !session_->unsent().empty()) transport_.write(session_->unsent());
      if (session_->cut_needs_reset()) transport_.reset_on_close();
      return close();
  }
}

void ClientConnection::next_request() {
  eof_ = session_->client_closed();
  session_->next_request();
  if (session_->input().empty()) {
    if (eof_) return close();
    become_idle();
    again_ = readable;
    return;
  }
  phase_ = Phase::head;
  parse_head();
}

// ---------------------------------------------------------------- endings

// The reply is out. Close for writing, and let the client read before the socket is closed.
void ClientConnection::linger() {
  if (session_->client_closed() || worker_.stopped()) return close();
  transport_.end_writing();
  drop_session();
  phase_ = Phase::lingering;
  worker_.linger_began();
  const Milliseconds most = overloaded_ || worker_.closing() ? kLingerMaxShort : kLingerMax;
  linger_until_ = worker_.loop().now() + most;
  worker_.loop().set(timer_, std::min(most, kLingerLook));
  drop_input();
}

void ClientConnection::drop_input() {
  for (int reads = 0; readable; ++reads) {
    if (reads == kDropReadsMax) return worker_.advance_later(this);
    const IoResult result = transport_.read(worker_.loop().scratch(), EventLoop::kScratch);
    if (result.status == Io::blocked) {
      readable = false;
      return;
    }
    dropped_ += result.bytes;
    if (result.status != Io::ok) return close();
    if (result.drained && !peer_closed) readable = false;
  }
}

void ClientConnection::look_at_lingering() {
  const MonotonicTime now = worker_.loop().now();
  const auto seconds = static_cast<std::uint64_t>(kLingerLook / std::chrono::seconds(1));
  const std::uint64_t least = std::max<std::uint64_t>(1, worker_.settings().limits.min_body_rate * seconds);
  if (now >= linger_until_ || dropped_ < least) return close();
  dropped_ = 0;
  worker_.loop().set(timer_, std::min(kLingerLook, std::chrono::ceil<Milliseconds>(linger_until_ - now)));
}

// ---------------------------------------------------------------- slow clients

void ClientConnection::await() {
  if (awaited_place == kNotAwaited) worker_.await(*this);
}

ClientConnection::Progress ClientConnection::look(const config::Limits& limits, MonotonicTime now) {
  if (phase_ != Phase::exchange) return Progress::not_awaited;
  const bool exchanging = transport_.is_open() && !session_->tunnel();
  const bool body = exchanging && session_->awaits_body();
  const bool reader = exchanging && !session_->unsent().empty();
  ClientPace& pace = session_->pace();
  if (!body) pace.body.forget();
  if (!reader) pace.reply.forget();
  if (!body && !reader) return Progress::not_awaited;
  if (reader) {
    // What the kernel has taken is not yet what the client has: it may hold megabytes.
    const std::uint64_t delivered = sent - std::min<std::uint64_t>(transport_.undelivered(), sent);
    if (delivered > pace.delivered) {
      pace.delivered = delivered;
      pace.delivered_at = now;
    }
    if (pace.reply.too_slow({limits.min_reply_rate, limits.rate_window}, pace.delivered, now))
      return Progress::slow_reader;
  }
  if (body && pace.body.too_slow({limits.min_body_rate, limits.rate_window}, received, now))
    return Progress::slow_body;
  return Progress::fast_enough;
}

void ClientConnection::cut(Progress why) {
  if (phase_ != Phase::exchange) return;
  if (why == Progress::slow_body) {
    session_->body_stalled();
  } else {
    worker_.counters().slow_readers_total.fetch_add(1, std::memory_order_relaxed);
    session_->client_stalled();
    transport_.reset_on_close();
  }
  advance();
}

void ClientConnection::on_timer(void* self) {
  auto* connection = static_cast<ClientConnection*>(self);
  Worker& worker = connection->worker_;
  switch (connection->phase_) {
    case Phase::head:
      return connection->head_timed_out();
    case Phase::exchange: {
      // The socket says that it has room only when much of its buffer is free again.
      const MonotonicTime moved_at = connection->session_->pace().delivered_at;
      const MonotonicTime moves_until = moved_at + worker.settings().timeouts.client_write;
      if (moved_at != MonotonicTime{} && moves_until > worker.loop().now())
        return worker.loop().set(connection->timer_, moves_until);
      return connection->cut(Progress::slow_reader);
    }
    case Phase::announced:
    case Phase::handshake:
      worker.counters().slow_handshakes_total.fetch_add(1, std::memory_order_relaxed);
      return connection->close();
    case Phase::idle:
      return connection->silence_ended();
    case Phase::lingering:
      return connection->look_at_lingering();
    default:
      return connection->close();
  }
}

void ClientConnection::drop_session() {
  if (session_ == nullptr) return;
  session_->give_back_to_worker();
  worker_.take_session(std::move(session_));
}

void ClientConnection::close() {
  if (phase_ == Phase::gone) return;
  if (phase_ == Phase::idle) worker_.remove_idle(*this);
  if (phase_ == Phase::lingering) worker_.linger_ended();
  phase_ = Phase::gone;
  worker_.forget_awaited(*this);
  worker_.leave(address_);
  worker_.loop().clear(timer_);
  watch_.stop();
  transport_.close();
  drop_session();
  worker_.remove(*this);
}

void ClientConnection::stop() {
  if (phase_ == Phase::exchange) {
    if (!session_->over()) {
      session_->stop();
      worker_.exchange_ended();
    }
    phase_ = Phase::head;
  }
  close();
}

}  // namespace tollgate::net
