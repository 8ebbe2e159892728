#include "proxy/net/upstream_connection.h"

#include <event2/event.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "metering/base/check.h"
#include "proxy/net/tls.h"
#include "proxy/net/upstream_pool.h"

namespace tollgate::net {

namespace {
constexpr int kReadsPerTurn = 4;  // of 64 KiB: then other connections have their turn
constexpr Milliseconds kQueueFullPause{5};
}  // namespace

UpstreamConnection::UpstreamConnection(EventLoop& loop, UpstreamPool& pool, std::size_t server,
                                       http::HeadLimits limits)
    : loop_(loop), pool_(pool), server_(server), parser_(limits) {
  timer_.bind(this, &UpstreamConnection::on_timer);
}

UpstreamConnection::~UpstreamConnection() {
  close();
}

void UpstreamConnection::close() {
  state_ = State::closed;
  loop_.clear(timer_);
  watch_.stop();
  transport_.close();
  user_ = nullptr;
}

// ---------------------------------------------------------------- connecting

void UpstreamConnection::wait_for_address(MonotonicTime deadline) {
  state_ = State::resolving;
  loop_.set(timer_, deadline);
}

void UpstreamConnection::connect(std::vector<Endpoint> addresses, const ClientTls* tls,
                                 const std::string& host, MonotonicTime deadline) {
  addresses_ = std::move(addresses);
  next_address_ = 0;
  tls_ = tls;
  tls_host_ = host;
  deadline_ = deadline;
  connect_next();
}

void UpstreamConnection::connect_next() {
  state_ = State::connecting;
  loop_.clear(timer_);
  watch_.stop();
  transport_.close();
  readable_ = writable_ = peer_closed_ = false;
  while (next_address_ < addresses_.size()) {
    const auto left = static_cast<std::int64_t>(addresses_.size() - next_address_);
    const Endpoint& at = peer_ = addresses_[next_address_++];
    timed_out_ = false;
    const int fd = ::socket(at.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
      error_ = std::strerror(errno);
      continue;
    }
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (::connect(fd, at.get(), at.length) < 0 && errno != EINPROGRESS) {
      const int error = errno;
      error_ = std::strerror(error);
      ::close(fd);
      if (error == EAGAIN && at.address.ss_family == AF_UNIX) {
        state_ = State::queueing;
        return loop_.set(timer_, std::min(deadline_, loop_.now() + kQueueFullPause));
      }
      pool_.address_failed(*this);
      continue;
    }
    transport_.open(fd, tls_ == nullptr ? nullptr : tls_->new_session(tls_host_));
    watch_.start(loop_, WatchKind::upstream, fd, this, &UpstreamConnection::on_event);
    const MonotonicTime now = loop_.now();
    loop_.set(timer_, now + (deadline_ - now) / left);
    return;
  }
  // Not from within acquire(): the user hears of it in the next turn.
  const std::uint64_t use = uses_;
  loop_.defer([pool = pool_.weak_from_this(), this, use] {
    auto held = pool.lock();
    if (held != nullptr && held->owns(*this) && state_ == State::connecting && uses_ == use)
      connect_failed(error_.empty() ? "no address" : error_);
  });
}

void UpstreamConnection::attempt_failed(std::string error) {
  error_ = std::move(error);
  pool_.address_failed(*this);
  connect_next();
}

void UpstreamConnection::go_on_connecting(short what) {
  if (state_ == State::connecting) {
    const int error = transport_.take_error();
    if (error != 0) return attempt_failed(std::strerror(error));
    if ((what & EV_WRITE) == 0) return;
    state_ = State::handshaking;
  }
  const IoResult result = transport_.handshake();
  if (result.status == Io::ok) return established();
  if (result.status != Io::blocked) attempt_failed(fmt::format("TLS handshake: {}", transport_.error()));
}

void UpstreamConnection::established() {
  // Who speaks first is no HTTP server (RFC 9112 section 9.2), and it would be taken for a reply.
  if (transport_.has_unread()) return connect_failed("bytes before any request");
  state_ = State::used;
  loop_.clear(timer_);
  tls_ = nullptr;
  writable_ = true;
  pool_.connected(*this);
}

void UpstreamConnection::connect_failed(std::string error) {
  error_ = std::move(error);
  pool_.connect_failed(*this);
}

void UpstreamConnection::on_timer(void* self) {
  auto* connection = static_cast<UpstreamConnection*>(self);
  if (connection->state_ == State::idle) return connection->pool_.discard(*connection);
  if (connection->state_ == State::queueing && connection->loop_.now() < connection->deadline_) {
    --connection->next_address_;
    return connection->connect_next();
  }
  connection->timed_out_ = true;
  if (connection->state_ == State::resolving)
    return connection->connect_failed("host name not resolved in time");
  connection->attempt_failed("connecting took too long");
}

// ---------------------------------------------------------------- use

void UpstreamConnection::use(UpstreamUser& user) {
  user_ = &user;
  ++uses_;
  if (state_ == State::idle) {
    state_ = State::used;
    loop_.clear(timer_);
  }
}

bool UpstreamConnection::stale() {
  if (!transport_.tls()) return transport_.readable_or_closed();
  // Session tickets are read and kept by the TLS library. Not into the scratch memory: a request may lie there.
  char byte = 0;
  return transport_.read(&byte, 1).status != Io::blocked;
}

void UpstreamConnection::idle_until(MonotonicTime deadline) {
  user_ = nullptr;
  state_ = State::idle;
  reading_ = false;
  in_.release();
  out_.release();
  decoder_.reset();
  loop_.set(timer_, deadline);
}

void UpstreamConnection::on_event(void* self, short what) {
  auto* connection = static_cast<UpstreamConnection*>(self);
  if ((what & (EV_READ | EV_CLOSED)) != 0) connection->readable_ = true;
  if ((what & EV_WRITE) != 0) connection->writable_ = true;
  if ((what & EV_CLOSED) != 0) connection->peer_closed_ = true;
  if (connection->transport_.tls()) connection->readable_ = connection->writable_ = true;
  switch (connection->state_) {
    case State::connecting:
    case State::handshaking:
      return connection->go_on_connecting(what);
    case State::used:
      return connection->user_->upstream_event();
    case State::idle:
      return connection->idle_event();
    default:
      return;
  }
}

// Nothing may come on an idle connection but TLS session tickets.
void UpstreamConnection::idle_event() {
  if (!readable_) return;
  const IoResult result = transport_.read(loop_.scratch(), 1);
  readable_ = false;
  if (result.status != Io::blocked) pool_.discard(*this);
}

void UpstreamConnection::expect(std::string_view method, bool upgrade) {
  parser_.reset();
  parser_.expect(method, upgrade);
  decoder_.reset();
  phase_ = Phase::head;
  reply_started_ = reply_keep_alive_ = write_broken_ = end_writing_ = false;
}

void UpstreamConnection::write(std::string_view bytes) {
  if (write_broken_) return;
  if (bytes.size() >= kDirectWrite && writable_) {
    const std::string_view queued = out_.view();
    const IoResult result = queued.empty() ? transport_.write(bytes) : transport_.write(queued, bytes);
    if (result.status == Io::ok) {
      const std::size_t from_queue = std::min(result.bytes, queued.size());
      out_.consume(from_queue);
      bytes.remove_prefix(result.bytes - from_queue);
      if (result.drained) writable_ = false;
    } else if (result.status == Io::blocked) {
      writable_ = false;
    }  // a failure comes again in flush()
  }
  out_.append(bytes);
}

bool UpstreamConnection::flush() {
  if (out_.empty()) {
    if (!end_writing_) return false;
    end_writing_ = false;
    transport_.end_writing();
    return false;
  }
  if (!writable_) return false;
  const IoResult result = transport_.write(out_.view());
  if (result.status == Io::ok) {
    out_.consume(result.bytes);
    if (result.drained && !out_.empty()) writable_ = false;
    return true;
  }
  writable_ = false;
  if (result.status == Io::blocked) return false;
  // The server may have answered before it closed; reading tells.
  out_.clear();
  write_broken_ = readable_ = true;
  return true;
}

bool UpstreamConnection::pump(UpstreamUser& user) {
  const std::uint64_t use = uses_;
  bool delivered = false;
  if (reading_ && !in_.empty() && phase_ != Phase::head) {
    const std::size_t used = process(in_.view(), user);
    if (!still(user, use)) return true;
    in_.consume(used);
    delivered = used > 0;
  }
  for (int reads = 0; reading_ && readable_ && phase_ != Phase::done; ++reads) {
    if (reads == kReadsPerTurn) return true;
    const IoResult result = transport_.read(loop_.scratch(), EventLoop::kScratch);
    if (result.status == Io::blocked) {
      readable_ = false;
      break;
    }
    delivered = true;
    if (result.status != Io::ok) {
      readable_ = false;
      peer_closed_ = true;
      ended(result.status == Io::closed, user);
      return true;
    }
    if (result.drained && !peer_closed_) readable_ = false;
    std::string_view bytes(loop_.scratch(), result.bytes);
    const bool joined = !in_.empty();
    if (joined) {
      in_.append(bytes);
      bytes = in_.view();
    }
    const std::size_t used = process(bytes, user);
    if (!still(user, use)) return true;
    if (joined)
      in_.consume(used);
    else
      in_.append(bytes.substr(used));
    if (phase_ != Phase::done) readable_ = true;  // a reset may have come with these bytes: see transport.h
  }
  return delivered;
}

// Delivers what `bytes` hold; the number of bytes that are used up.
std::size_t UpstreamConnection::process(std::string_view bytes, UpstreamUser& user) {
  const std::uint64_t use = uses_;
  const std::size_t all = bytes.size();
  reply_started_ = true;
  while (still(user, use) && phase_ == Phase::head)
    if (!process_head(bytes, user)) break;
  if (still(user, use) && phase_ == Phase::body) process_body(bytes, user);
  if (still(user, use) && phase_ == Phase::tunnel && reading_ && !bytes.empty()) {
    const std::string_view payload = bytes;
    bytes = {};
    user.reply_body(payload);
  }
  return all - bytes.size();
}

bool UpstreamConnection::process_head(std::string_view& bytes, UpstreamUser& user) {
  const std::uint64_t use = uses_;
  switch (parser_.parse(bytes)) {
    case http::ParseStatus::incomplete:
      return false;
    case http::ParseStatus::failed:
      phase_ = Phase::done;
      pool_.failed(*this, "a reply that is not valid HTTP");
      user.reply_failed(flow::UpstreamFailure::invalid);
      return false;
    case http::ParseStatus::complete:
      break;
  }
  const http::ResponseHead& head = parser_.head();
  const int status = head.status;
  bytes.remove_prefix(parser_.head_size());
  if (status >= 200 || status == 101) pool_.answered(*this, status);
  if (status == 101) {
    pool_.completed(*this, status);
    phase_ = Phase::tunnel;
  } else if (status >= 200) {
    reply_keep_alive_ = head.keep_alive;
    bodiless_ = head.framing == http::Framing::none;
    decoder_ = http::BodyDecoder::of_response(head, {});
    phase_ = Phase::body;
  }
  user.reply_head(head);
  if (still(user, use) && phase_ == Phase::head) parser_.reset();
  return true;
}

void UpstreamConnection::process_body(std::string_view& bytes, UpstreamUser& user) {
  const std::uint64_t use = uses_;
  while (reading_) {
    const http::BodyDecoder::Step step = decoder_->next(bytes);
    bytes.remove_prefix(step.consumed);
    if (!step.payload.empty()) {
      user.reply_body(step.payload);
      if (!still(user, use)) return;
    }
    if (step.failed) {
      phase_ = Phase::done;
      pool_.failed(*this, "a reply that is not valid HTTP");
      return user.reply_failed(flow::UpstreamFailure::invalid);
    }
    if (step.done) {
      phase_ = Phase::done;
      pool_.completed(*this, parser_.head().status);
      const bool reusable =
          reply_keep_alive_ && bytes.empty() && out_.empty() && !peer_closed_ && !write_broken_ && quiet();
      return user.reply_end(decoder_->trailers(), reusable);
    }
    if (step.consumed == 0) return;
  }
}

// Nothing behind the reply: bytes that are already here would be taken for the next one.
bool UpstreamConnection::quiet() {
  if (!readable_) return true;
  if (!transport_.tls()) return !transport_.readable_or_closed();
  readable_ = false;
  return transport_.read(loop_.scratch(), 1).status == Io::blocked;
}

void UpstreamConnection::ended(bool in_order, UpstreamUser& user) {
  const Phase before = phase_;
  phase_ = Phase::done;
  if (before == Phase::tunnel && in_order) return user.reply_end({}, false);
  if (before == Phase::body && in_order && decoder_->may_end_here()) {
    pool_.completed(*this, parser_.head().status);
    return user.reply_end(decoder_->trailers(), false);
  }
  const bool early = before == Phase::head && !reply_started_;
  // An idle connection may be closed at any moment: that says nothing about the server.
  if (!early || !reused()) pool_.failed(*this, early ? "no reply before the end" : "a reply that is cut");
  user.reply_failed(early ? flow::UpstreamFailure::closed_early : flow::UpstreamFailure::invalid);
}

}  // namespace tollgate::net
