// The inside of Connection: its state, shared by connection.cc (traffic) and connecting.cc (the way up and
// down). Included by these two files only.
#pragma once
#include <event2/event.h>
#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <queue>
#include <string>
#include <vector>

#include "metering/base/check.h"
#include "metering/base/random.h"
#include "metering/redis/channel.h"
#include "metering/redis/connection.h"
#include "metering/redis/reply_reader.h"
#include "metering/redis/resolver.h"

namespace tollgate::redis {

inline timeval to_timeval(Duration duration) {
  auto us = std::chrono::ceil<std::chrono::microseconds>(std::max(duration, Duration::zero())).count();
  return {.tv_sec = us / 1'000'000, .tv_usec = us % 1'000'000};
}

inline std::unexpected<Error> unreachable(std::string message) {
  return fail(Origin::store, std::move(message), true);
}

// A command goes through `pending_` in the order of sending; its sequence number is its place there, so that
// the heap of deadlines needs no pointers. An expired command stays in line, because its reply still comes.
class Connection::Impl {
 public:
  Impl(event_base* base, ConnectionOptions options);
  ~Impl();

  void start(StateChanged changed);
  void send(std::string_view command, MonotonicTime deadline, Milliseconds timeout, Done done, bool patient);
  bool stalled() const;

  void drop(std::string why) {
    if (state_ != State::down) give_up(std::move(why));
  }

  State state_ = State::down;
  StoreUrl target_;  // of this attempt: options_.url, or what `locate` said
  std::string run_id_;
  std::string last_error_ = "not started";
  std::uint64_t connects_ = 0, writes_ = 0;
  std::size_t pending() const { return pending_.size(); }

 private:
  enum class Phase { idle, locating, resolving, connecting, handshaking, greeting, ready };
  enum class Greeting : std::uint8_t { auth, select, ping, info, role };
  struct Pending {
    MonotonicTime deadline;
    Milliseconds timeout;
    Done done;
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
  void look_up_target();
  void resolved(Result<std::vector<SocketAddress>> addresses);
  void try_next_address();
  bool open_socket(const SocketAddress& address);
  void on_connected();
  void greet();
  void on_greeting(Reply& reply);
  void refuse_greeting(Greeting what, const Reply& reply);
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

  std::uint64_t attempts_ = 0;

  std::unique_ptr<TlsContext> tls_;
  std::unique_ptr<Resolution> resolution_;
  std::string resolving_;  // what it looks for
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

}  // namespace tollgate::redis
