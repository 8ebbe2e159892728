#include "metering/redis/connection.h"

#include <event2/event.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <deque>
#include <fstream>
#include <queue>

#include "metering/base/check.h"
#include "metering/base/random.h"
#include "metering/redis/channel.h"
#include "metering/redis/command.h"
#include "metering/redis/reply_reader.h"
#include "metering/redis/resolver.h"

namespace tollgate::redis {
namespace {

constexpr std::size_t kReadChunk = 64 * 1024;

timeval to_timeval(Duration duration) {
  auto us = std::chrono::ceil<std::chrono::microseconds>(std::max(duration, Duration::zero())).count();
  return {.tv_sec = us / 1'000'000, .tv_usec = us % 1'000'000};
}

std::unexpected<Error> unreachable(std::string message) { return fail(Origin::store, std::move(message), true); }

}  // namespace

Result<std::string> read_password_file(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!file || !std::getline(file, line))
    return fail(Origin::config, fmt::format("store.password_file {}: cannot be read: {}", path, std::strerror(errno)));
  if (line.ends_with('\r')) line.pop_back();
  if (line.empty()) return fail(Origin::config, fmt::format("store.password_file {}: its first line is empty", path));
  return line;
}

MonotonicTime Connection::now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return MonotonicTime(Seconds(time.tv_sec) + Duration(time.tv_nsec));
}

// A command goes through `pending_` in the order of sending; its sequence number is its place there, so that the heap
// of deadlines needs no pointers. An expired command stays in line, because its reply still comes.
class Connection::Impl {
 public:
  Impl(event_base* base, ConnectionOptions options);
  ~Impl();

  void start(StateChanged changed);
  void send(std::string_view command, MonotonicTime deadline, Milliseconds timeout, Done done, Late late,
            bool patient);
  bool stalled() const;

  State state_ = State::down;
  std::string last_error_ = "not started";
  std::uint64_t connects_ = 0, writes_ = 0;
  std::size_t pending() const { return pending_.size(); }

 private:
  enum class Phase { idle, resolving, connecting, handshaking, greeting, ready };
  enum class Greeting : std::uint8_t { auth, select, ping };
  struct Pending {
    MonotonicTime deadline;
    Milliseconds timeout;
    Done done;
    Late late;
    std::string waiting;  // its bytes, while it waits for the first connection
    bool expired = false;
  };
  struct Deadline {
    MonotonicTime at;
    std::uint64_t sequence;
    bool operator>(const Deadline& other) const { return at > other.at; }
  };

  // ---- connecting
  void begin_attempt();
  void resolved(Result<std::vector<SocketAddress>> addresses);
  void try_next_address();
  bool open_socket(const SocketAddress& address);
  void on_connected();
  void greet();
  void on_greeting(Reply& reply);
  void become_ready();
  void close_socket();
  void give_up(std::string error);  // ends an attempt or a connection; the last act of its caller

  // ---- traffic
  void on_socket(short what);
  void step_handshake();
  void read_replies();
  bool deliver(Reply& reply);  // false: this object is gone or the connection ended
  void write_commands();
  void schedule_flush();
  void on_timer();
  void arm_timer(MonotonicTime at);

  static void socket_event(int, short what, void* self) { static_cast<Impl*>(self)->on_socket(what); }
  static void flush_event(int, short, void* self);
  static void timer_event(int, short, void* self) { static_cast<Impl*>(self)->on_timer(); }
  static void step_event(int, short, void* self);

  event_base* base_;
  ConnectionOptions options_;
  Random random_;
  StateChanged changed_;
  Phase phase_ = Phase::idle;
  bool first_attempt_over_ = false;
  Milliseconds backoff_;
  MonotonicTime up_since_;

  std::unique_ptr<TlsContext> tls_;
  std::unique_ptr<Resolution> resolution_;
  std::vector<SocketAddress> addresses_;
  std::size_t next_address_ = 0;
  std::string attempt_error_;
  std::unique_ptr<Channel> channel_;
  std::unique_ptr<ReplyReader> reader_;
  std::deque<Greeting> greetings_;

  std::string out_;
  std::size_t out_offset_ = 0;
  std::deque<Pending> pending_;
  std::uint64_t first_sequence_ = 0;  // of pending_.front()
  std::priority_queue<Deadline, std::vector<Deadline>, std::greater<>> deadlines_;
  MonotonicTime last_reply_;
  MonotonicTime timer_at_ = MonotonicTime::max();

  event* socket_event_ = nullptr;
  event* flush_event_ = nullptr;
  event* timer_event_ = nullptr;
  event* step_event_ = nullptr;  // end of the attempt while connecting, next attempt while down
  bool flush_scheduled_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

Connection::Impl::Impl(event_base* base, ConnectionOptions options)
    : base_(base), options_(std::move(options)), random_(options_.seed), backoff_(options_.backoff_min) {
  CHECK(options_.url.kind != StoreUrl::Kind::embedded, "an embedded store is reached through its socket");
  flush_event_ = event_new(base_, -1, 0, &Impl::flush_event, this);
  timer_event_ = evtimer_new(base_, &Impl::timer_event, this);
  step_event_ = evtimer_new(base_, &Impl::step_event, this);
  CHECK(flush_event_ != nullptr && timer_event_ != nullptr && step_event_ != nullptr, "event_new");
}

Connection::Impl::~Impl() {
  close_socket();
  event_free(flush_event_);
  event_free(timer_event_);
  event_free(step_event_);
}

void Connection::Impl::start(StateChanged changed) {
  if (phase_ != Phase::idle || first_attempt_over_) return;
  changed_ = std::move(changed);
  last_error_ = "the first connection attempt has not ended yet";
  begin_attempt();
}

bool Connection::Impl::stalled() const {
  return !pending_.empty() && pending_.front().expired &&
         Connection::now() >= std::max(pending_.front().deadline, last_reply_) + pending_.front().timeout;
}

// ------------------------------------------------------------------------------------------------- connecting

void Connection::Impl::begin_attempt() {
  state_ = State::connecting;
  phase_ = Phase::resolving;
  attempt_error_ = "no answer within connect_timeout";
  timeval limit = to_timeval(options_.connect_timeout);
  event_add(step_event_, &limit);
  const StoreUrl& url = options_.url;
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
  if (auto numeric = resolve_numeric(url.host, url.port)) return resolved(std::vector<SocketAddress>{std::move(*numeric)});
  // A look-up that outlived the attempt before this one is waited for: a slow resolver must not pile up threads.
  if (resolution_ == nullptr)
    resolution_ = std::make_unique<Resolution>(base_, url.host, url.port, [this](Result<std::vector<SocketAddress>> found) {
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
  if (options_.url.kind == StoreUrl::Kind::tls) {
    attempt_error_ = "the TLS handshake was not answered within connect_timeout: is it a TLS port?";
    channel_->use_tls(*tls_, options_.server_name.empty() ? options_.url.host : options_.server_name, options_.verify);
  }
  step_handshake();
}

void Connection::Impl::step_handshake() {
  switch (channel_->handshake()) {
    case Io::done: return greet();
    case Io::again: return;
    case Io::closed:
    case Io::failed: break;
  }
  give_up("TLS: " + channel_->error());
}

void Connection::Impl::greet() {
  phase_ = Phase::greeting;
  attempt_error_ = "connected, but no answer within connect_timeout";
  const StoreUrl& url = options_.url;
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
  write_commands();
}

void Connection::Impl::on_greeting(Reply& reply) {
  CHECK(!greetings_.empty(), "a reply to no greeting");
  Greeting what = greetings_.front();
  greetings_.pop_front();
  const StoreUrl& url = options_.url;
  if (!reply.is_error()) {
    if (what == Greeting::ping) become_ready();
    return;
  }
  switch (what) {
    case Greeting::auth:
      return give_up(fmt::format("the store refuses the password of user {}: {}", url.user.empty() ? "default" : url.user,
                                 reply.text));
    case Greeting::select: return give_up(fmt::format("the store refuses database {}: {}", url.database, reply.text));
    case Greeting::ping: break;
  }
  if (reply.is_error("NOPERM")) return become_ready();  // a user without the right to PING may still run scripts
  if (reply.is_error("NOAUTH")) return give_up("the store wants a password: set store.password_file: " + reply.text);
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
  // A copy is called: the callback may destroy this object. Its commands go first: scripts are loaded before use.
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
  last_error_ = fmt::format("{}: {}", options_.url.describe(), error);
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

// --------------------------------------------------------------------------------------------------- traffic

void Connection::Impl::send(std::string_view command, MonotonicTime deadline, Milliseconds timeout, Done done, Late late,
                            bool patient) {
  if (state_ != State::up && (state_ != State::connecting || first_attempt_over_))
    return done(unreachable("the store is down: " + last_error_));
  if (pending_.size() >= options_.max_pending) return done(unreachable("too many commands wait for the store"));
  if (!patient && state_ == State::up && stalled()) return done(unreachable("the store does not answer"));
  Pending& entry = pending_.emplace_back(
      Pending{.deadline = deadline, .timeout = timeout, .done = std::move(done), .late = std::move(late), .waiting = {}});
  if (state_ == State::up) {
    out_ += command;
    schedule_flush();
  } else {
    entry.waiting = command;
  }
  deadlines_.push({deadline, first_sequence_ + pending_.size() - 1});
  arm_timer(deadline);
}

void Connection::Impl::schedule_flush() {
  if (flush_scheduled_) return;
  flush_scheduled_ = true;
  event_active(flush_event_, EV_TIMEOUT, 0);
}

void Connection::Impl::flush_event(int, short, void* self) {
  auto* impl = static_cast<Impl*>(self);
  impl->flush_scheduled_ = false;
  if (impl->phase_ == Phase::ready) impl->write_commands();
}

void Connection::Impl::write_commands() {
  if (out_offset_ < out_.size()) ++writes_;
  switch (channel_->flush(out_, out_offset_)) {
    case Io::done:
      out_.clear();
      out_offset_ = 0;
      return;
    case Io::again:
      if (out_offset_ > out_.size() / 2) {
        out_.erase(0, out_offset_);
        out_offset_ = 0;
      }
      return;  // the edge of writability calls again
    case Io::closed:
    case Io::failed: break;
  }
  give_up(channel_->error());
}

void Connection::Impl::on_socket(short) {
  std::weak_ptr<bool> alive = alive_;
  if (phase_ == Phase::connecting) {
    on_connected();
  } else if (phase_ == Phase::handshaking) {
    step_handshake();
  } else {
    write_commands();
  }
  if (alive.expired()) return;
  // Edge-triggered: bytes that came with the last step of an earlier phase are read now or never.
  if (phase_ == Phase::greeting || phase_ == Phase::ready) read_replies();
}

void Connection::Impl::read_replies() {
  std::weak_ptr<bool> alive = alive_;
  thread_local std::string chunk(kReadChunk, '\0');
  for (;;) {
    std::size_t length = 0;
    Io result = channel_->read(chunk.data(), chunk.size(), length);
    if (result == Io::again) return;
    if (result != Io::done) return give_up(channel_->error());
    if (!reader_->feed({chunk.data(), length})) return give_up(reader_->error());
    while (Reply* reply = reader_->next()) {
      if (!deliver(*reply)) return;
    }
    if (!reader_->error().empty()) return give_up(reader_->error());
  }
}

bool Connection::Impl::deliver(Reply& reply) {
  std::weak_ptr<bool> alive = alive_;
  Channel* channel = channel_.get();
  if (phase_ == Phase::greeting) {
    on_greeting(reply);
    return !alive.expired() && channel_.get() == channel;
  }
  if (pending_.empty()) {
    give_up("a reply came to no command");
    return false;
  }
  Pending command = std::move(pending_.front());
  pending_.pop_front();
  ++first_sequence_;
  last_reply_ = Connection::now();
  // The server became a replica: its primary is elsewhere, perhaps behind the same name.
  bool wrong_role = reply.is_error() && reply.text.find("READONLY ") != std::string::npos;  // Redis 6 wraps it
  if (!command.expired) {
    command.done(&reply);
  } else if (command.late) {
    command.late(reply);
  }
  if (alive.expired() || channel_.get() != channel) return false;
  if (!wrong_role) return true;
  give_up("the store is a replica and takes no writes (READONLY)");
  return false;
}

void Connection::Impl::arm_timer(MonotonicTime at) {
  if (at >= timer_at_) return;
  timer_at_ = at;
  timeval wait = to_timeval(at - Connection::now());
  event_add(timer_event_, &wait);
}

void Connection::Impl::on_timer() {
  timer_at_ = MonotonicTime::max();
  MonotonicTime now = Connection::now();
  std::weak_ptr<bool> alive = alive_;
  while (!deadlines_.empty() && deadlines_.top().at <= now) {
    std::uint64_t sequence = deadlines_.top().sequence;
    deadlines_.pop();
    if (sequence < first_sequence_ || sequence - first_sequence_ >= pending_.size()) continue;  // answered
    Pending& command = pending_[sequence - first_sequence_];
    if (command.expired) continue;
    command.expired = true;
    Done done = std::move(command.done);
    Milliseconds timeout = command.timeout;
    done(unreachable(state_ == State::up ? fmt::format("the store did not answer within {} ms", timeout.count())
                                         : "the store is not connected yet: " + last_error_));
    if (alive.expired()) return;
  }
  // An answered command's deadline stays in the heap until it passes: the timer then runs once for nothing.
  if (!deadlines_.empty()) arm_timer(deadlines_.top().at);
  if (state_ != State::up || pending_.empty() || !pending_.front().expired) return;
  const Pending& oldest = pending_.front();
  MonotonicTime hopeless = std::max(last_reply_, oldest.deadline - oldest.timeout) + options_.stall_timeout;
  if (now >= hopeless) return give_up(fmt::format("no reply for {} ms", options_.stall_timeout.count()));
  arm_timer(hopeless);
}

// ---------------------------------------------------------------------------------------------------- outside

Connection::Connection(event_base* base, ConnectionOptions options)
    : impl_(std::make_unique<Impl>(base, std::move(options))) {}
Connection::~Connection() = default;

void Connection::start(StateChanged changed) { impl_->start(std::move(changed)); }

void Connection::send(std::span<const std::string_view> words, Milliseconds timeout, Done done, Late late) {
  std::string command;
  CommandWriter writer(command, words.size());
  for (std::string_view word : words) writer.word(word);
  impl_->send(command, now() + timeout, timeout, std::move(done), std::move(late), false);
}

void Connection::send_encoded(std::string_view command, MonotonicTime deadline, Milliseconds timeout, Done done, Late late,
                              bool patient) {
  impl_->send(command, deadline, timeout, std::move(done), std::move(late), patient);
}

Connection::State Connection::state() const { return impl_->state_; }
bool Connection::stalled() const { return impl_->state_ == State::up && impl_->stalled(); }
const std::string& Connection::last_error() const { return impl_->last_error_; }
std::size_t Connection::pending() const { return impl_->pending(); }
std::uint64_t Connection::connects() const { return impl_->connects_; }
std::uint64_t Connection::writes() const { return impl_->writes_; }

}  // namespace tollgate::redis
