#include "metering/redis/connection.h"

#include <cerrno>
#include <cstring>
#include <ctime>
#include <fstream>

#include "metering/redis/command.h"
#include "metering/redis/connection_impl.h"

namespace tollgate::redis {
namespace {

constexpr std::size_t kReadChunk = 64 * 1024;

}  // namespace

Result<std::string> read_password_file(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!file || !std::getline(file, line))
    return fail(Origin::config,
                fmt::format("store.password_file {}: cannot be read: {}", path, std::strerror(errno)));
  if (line.ends_with('\r')) line.pop_back();
  if (line.empty())
    return fail(Origin::config, fmt::format("store.password_file {}: its first line is empty", path));
  return line;
}

MonotonicTime Connection::now() {
  timespec time{};
  CHECK(clock_gettime(CLOCK_BOOTTIME, &time) == 0, "CLOCK_BOOTTIME");
  return MonotonicTime(Seconds(time.tv_sec) + Duration(time.tv_nsec));
}

Connection::Impl::Impl(event_base* base, ConnectionOptions options)
    : base_(base), options_(std::move(options)), random_(options_.seed), backoff_(options_.backoff_min) {
  CHECK(options_.url.kind != StoreUrl::Kind::embedded, "an embedded store is reached through its socket");
  bool many = options_.url.kind == StoreUrl::Kind::sentinel || options_.url.kind == StoreUrl::Kind::cluster;
  CHECK(!many || options_.locate, "a connection leads to one server: somebody must say to which");
  target_ = options_.url;
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

// --------------------------------------------------------------------------------------------------- traffic

void Connection::Impl::send(std::string_view command, MonotonicTime deadline, Milliseconds timeout, Done done,
                            bool patient) {
  if (state_ != State::up && (state_ != State::connecting || first_attempt_over_))
    return done(unreachable("the store is down: " + last_error_));
  if (pending_.size() >= options_.max_pending)
    return done(unreachable("too many commands wait for the store"));
  if (!patient && state_ == State::up && stalled()) return done(unreachable("the store does not answer"));
  Pending& entry = pending_.emplace_back(
      Pending{.deadline = deadline, .timeout = timeout, .done = std::move(done), .waiting = {}});
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
    case Io::failed:
      break;
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
  if (options_.on_published && reply.type == Reply::Type::array && reply.elements.size() == 3 &&
      reply.elements[0].text == "message") {
    last_reply_ = Connection::now();
    options_.on_published(reply);
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
  bool wrong_role =
      reply.is_error() && reply.text.find("READONLY ") != std::string::npos;  // Redis 6 wraps it
  if (!command.expired) command.done(&reply);
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
    done(unreachable(state_ == State::up
                         ? fmt::format("the store did not answer within {} ms", timeout.count())
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

// ----------------------------------------------------------------------------------------------------
// outside

Connection::Connection(event_base* base, ConnectionOptions options)
    : impl_(std::make_unique<Impl>(base, std::move(options))) {}
Connection::~Connection() = default;

void Connection::start(StateChanged changed) {
  impl_->start(std::move(changed));
}

void Connection::send(std::span<const std::string_view> words, Milliseconds timeout, Done done) {
  std::string command;
  CommandWriter writer(command, words.size());
  for (std::string_view word : words) writer.word(word);
  impl_->send(command, now() + timeout, timeout, std::move(done), false);
}

void Connection::send_encoded(std::string_view command, MonotonicTime deadline, Milliseconds timeout,
                              Done done, bool patient) {
  impl_->send(command, deadline, timeout, std::move(done), patient);
}

Connection::State Connection::state() const {
  return impl_->state_;
}
bool Connection::stalled() const {
  return impl_->state_ == State::up && impl_->stalled();
}
const std::string& Connection::last_error() const {
  return impl_->last_error_;
}
std::size_t Connection::pending() const {
  return impl_->pending();
}
void Connection::drop(std::string why) {
  impl_->drop(std::move(why));
}
const std::string& Connection::run_id() const {
  return impl_->run_id_;
}
const StoreUrl& Connection::server() const {
  return impl_->target_;
}
std::uint64_t Connection::connects() const {
  return impl_->connects_;
}
std::uint64_t Connection::writes() const {
  return impl_->writes_;
}

}  // namespace tollgate::redis
