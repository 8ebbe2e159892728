// Connection on its way up (address, socket, TLS, greeting) and down (loss, back-off).
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "metering/redis/command.h"
#include "metering/redis/connection_impl.h"

namespace tollgate::redis {

void Connection::Impl::begin_attempt() {
  state_ = State::connecting;
  attempt_error_ = "no answer within connect_timeout";
  timeval limit = to_timeval(options_.connect_timeout);
  event_add(step_event_, &limit);
  ++attempts_;
  target_ = options_.url;
  if (!options_.locate) return look_up_target();
  phase_ = Phase::locating;
  options_.locate([this, alive = std::weak_ptr<bool>(alive_), attempt = attempts_](Result<StoreUrl> found) {
    if (alive.expired() || attempt != attempts_ || phase_ != Phase::locating) return;
    if (!found) return give_up(found.error().message);
    target_ = std::move(*found);
    look_up_target();
  });
}

void Connection::Impl::look_up_target() {
  phase_ = Phase::resolving;
  const StoreUrl& url = target_;
  if (url.kind == StoreUrl::Kind::tls && tls_ == nullptr) {
    auto made = TlsContext::make(options_.ca_file, options_.verify);
    if (!made) return give_up(made.error().message);
    tls_ = std::move(*made);
  }
  if (url.kind == StoreUrl::Kind::unix_socket) {
    auto address = unix_address(url.path);
    if (!address) return give_up(address.error().message);
    return resolved(std::vector<SocketAddress>{std::move(*address)});
  }
  if (auto numeric = resolve_numeric(url.host, url.port))
    return resolved(std::vector<SocketAddress>{std::move(*numeric)});
  // A look-up that outlived the attempt before this one is waited for: a slow resolver must not pile up
  // threads.
  std::string name = Endpoint{.host = url.host, .port = url.port}.text();
  if (resolution_ != nullptr && resolving_ == name) return;
  resolving_ = std::move(name);
  resolution_ = std::make_unique<Resolution>(base_, url.host, url.port,
                                             [this](Result<std::vector<SocketAddress>> found) {
                                               std::unique_ptr<Resolution> over = std::move(resolution_);
                                               if (phase_ == Phase::resolving) resolved(std::move(found));
                                             });
}

void Connection::Impl::resolved(Result<std::vector<SocketAddress>> addresses) {
  if (!addresses) return give_up(addresses.error().message);
  addresses_ = std::move(*addresses);
  next_address_ = 0;
  attempt_error_ = "the name has no address";
  try_next_address();
}

void Connection::Impl::try_next_address() {
  close_socket();
  while (next_address_ < addresses_.size()) {
    const SocketAddress& address = addresses_[next_address_++];
    if (open_socket(address)) return;
  }
  give_up(attempt_error_);
}

bool Connection::Impl::open_socket(const SocketAddress& address) {
  int fd = ::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    attempt_error_ = fmt::format("{}: {}", address.text, std::strerror(errno));
    return false;
  }
  channel_ = std::make_unique<Channel>(fd);
  if (address.storage.ss_family != AF_UNIX) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  }
  int result = ::connect(fd, reinterpret_cast<const sockaddr*>(&address.storage), address.length);
  if (result != 0 && errno != EINPROGRESS) {
    attempt_error_ = fmt::format("{}: {}", address.text, std::strerror(errno));
    close_socket();
    return false;
  }
  phase_ = Phase::connecting;
  socket_event_ = event_new(base_, fd, EV_READ | EV_WRITE | EV_ET | EV_PERSIST, &Impl::socket_event, this);
  CHECK(socket_event_ != nullptr && event_add(socket_event_, nullptr) == 0, "event_new");
  return true;
}

void Connection::Impl::on_connected() {
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(event_get_fd(socket_event_), SOL_SOCKET, SO_ERROR, &error, &size);
  if (error != 0) {
    attempt_error_ = fmt::format("{}: {}", addresses_[next_address_ - 1].text, std::strerror(error));
    return try_next_address();
  }
  reader_ = std::make_unique<ReplyReader>(options_.max_reply_bytes);
  phase_ = Phase::handshaking;
  if (target_.kind == StoreUrl::Kind::tls) {
    attempt_error_ = "the TLS handshake was not answered within connect_timeout: is it a TLS port?";
    channel_->use_tls(*tls_, options_.server_name.empty() ? target_.host : options_.server_name,
                      options_.verify);
  }
  step_handshake();
}

void Connection::Impl::step_handshake() {
  switch (channel_->handshake()) {
    case Io::done:
      return greet();
    case Io::again:
      return;
    case Io::closed:
    case Io::failed:
      break;
  }
  give_up("TLS: " + channel_->error());
}

void Connection::Impl::greet() {
  phase_ = Phase::greeting;
  attempt_error_ = "connected, but no answer within connect_timeout";
  const StoreUrl& url = target_;
  if (!url.password.empty()) {
    CommandWriter auth(out_, url.user.empty() ? 2 : 3);
    auth.word("AUTH");
    if (!url.user.empty()) auth.word(url.user);
    auth.word(url.password);
    greetings_.push_back(Greeting::auth);
  }
  if (url.database != 0) {
    CommandWriter select(out_, 2);
    select.word("SELECT");
    select.number(url.database);
    greetings_.push_back(Greeting::select);
  }
  CommandWriter(out_, 1).word("PING");
  greetings_.push_back(Greeting::ping);
  if (options_.primary_only) {
    CommandWriter info(out_, 2);
    info.word("INFO");
    info.word("server");
    greetings_.push_back(Greeting::info);
    CommandWriter(out_, 1).word("ROLE");
    greetings_.push_back(Greeting::role);
  }
  write_commands();
}

void Connection::Impl::on_greeting(Reply& reply) {
  CHECK(!greetings_.empty(), "a reply to no greeting");
  Greeting what = greetings_.front();
  greetings_.pop_front();
  if (reply.is_error() && !(what == Greeting::auth && options_.optional_password) &&
      !reply.is_error("NOPERM"))
    return refuse_greeting(what, reply);
  if (reply.is_error("NOPERM") && what != Greeting::ping && what != Greeting::role)
    return refuse_greeting(what, reply);  // who may not PING may still run scripts
  if (what == Greeting::info) {
    constexpr std::string_view kField = "run_id:";
    std::size_t at = reply.text.find(kField);
    if (at == std::string::npos) return give_up("INFO server names no run_id");
    std::size_t begin = at + kField.size();
    run_id_ = reply.text.substr(begin, reply.text.find_first_of("\r\n", begin) - begin);
  }
  // Without the right to run ROLE the first write tells (READONLY).
  if (what == Greeting::role && !reply.is_error() &&
      (reply.elements.empty() || reply.elements[0].text != "master")) {
    attempt_error_ = fmt::format("{} is no primary but a {}", addresses_[next_address_ - 1].text,
                                 reply.elements.empty() ? "stranger" : reply.elements[0].text);
    return try_next_address();  // a name may stand for a primary and its replicas
  }
  if (greetings_.empty()) become_ready();
}

void Connection::Impl::refuse_greeting(Greeting what, const Reply& reply) {
  switch (what) {
    case Greeting::auth:
      return give_up(fmt::format("the store refuses the password of user {}: {}",
                                 target_.user.empty() ? "default" : target_.user, reply.text));
    case Greeting::select:
      return give_up(fmt::format("the store refuses database {}: {}", target_.database, reply.text));
    case Greeting::info:
      return give_up("the user of the store needs the right to run INFO (+info): " + reply.text);
    case Greeting::ping:
    case Greeting::role:
      break;
  }
  if (reply.is_error("NOAUTH"))
    return give_up("the store wants a password: set store.password_file: " + reply.text);
  give_up("the store is not ready: " + reply.text);
}

void Connection::Impl::become_ready() {
  event_del(step_event_);
  phase_ = Phase::ready;
  state_ = State::up;
  first_attempt_over_ = true;
  last_error_.clear();
  ++connects_;
  up_since_ = last_reply_ = Connection::now();
  std::weak_ptr<bool> alive = alive_;
  // A copy is called: the callback may destroy this object. Its commands go first: scripts are loaded before
  // use.
  if (StateChanged changed = changed_) changed(true);
  if (alive.expired() || state_ != State::up) return;
  // What waited follows in order; what expired meanwhile is never sent and leaves the line.
  std::deque<Pending> line;
  std::uint64_t sequence = first_sequence_;
  for (Pending& command : pending_) {
    if (command.waiting.empty() && !command.expired) line.push_back(std::move(command));
  }
  for (Pending& command : pending_) {
    if (command.waiting.empty() || command.expired) continue;
    out_ += command.waiting;
    command.waiting.clear();
    line.push_back(std::move(command));
  }
  first_sequence_ = sequence + pending_.size();
  pending_ = std::move(line);
  for (std::size_t i = 0; i < pending_.size(); ++i) {
    deadlines_.push({pending_[i].deadline, first_sequence_ + i});
    arm_timer(pending_[i].deadline);
  }
  schedule_flush();
}

void Connection::Impl::close_socket() {
  if (socket_event_ != nullptr) event_free(socket_event_);
  socket_event_ = nullptr;
  channel_.reset();
  greetings_.clear();
  out_.clear();
  out_offset_ = 0;
}

void Connection::Impl::give_up(std::string error) {
  bool was_up = state_ == State::up;
  close_socket();
  // The reader may be the caller's caller: its last reply lives until the next connection.
  state_ = State::down;
  phase_ = Phase::idle;
  first_attempt_over_ = true;
  last_error_ = fmt::format("{}: {}", target_.describe(), error);
  if (was_up && Connection::now() - up_since_ >= options_.backoff_max) backoff_ = options_.backoff_min;
  auto half = static_cast<std::uint64_t>(std::max<Milliseconds::rep>(backoff_.count() / 2, 1));
  timeval wait = to_timeval(Milliseconds(half + random_.below(half + 1)));
  event_add(step_event_, &wait);
  backoff_ = std::min(backoff_ * 2, options_.backoff_max);

  std::deque<Pending> lost = std::move(pending_);
  pending_.clear();
  first_sequence_ += lost.size();
  deadlines_ = {};
  timer_at_ = MonotonicTime::max();
  event_del(timer_event_);
  std::weak_ptr<bool> alive = alive_;
  std::string why = last_error_;
  if (StateChanged changed = changed_; was_up && changed) {
    changed(false);
    if (alive.expired()) return;
  }
  for (Pending& command : lost) {
    if (command.expired) continue;
    command.done(unreachable(why));
    if (alive.expired()) return;
  }
}

void Connection::Impl::step_event(int, short, void* self) {
  auto* impl = static_cast<Impl*>(self);
  if (impl->state_ == State::connecting) return impl->give_up(impl->attempt_error_);
  impl->begin_attempt();
}

}  // namespace tollgate::redis
