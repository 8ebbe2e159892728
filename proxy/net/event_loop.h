// One thread's libevent base with what every edge needs around it: tasks from other threads, one timer queue,
// work put off to the next turn, and a clock.
//
// File descriptors are watched with one persistent, edge-triggered event each (Watch): no epoll_ctl per
// request.
//
// What one epoll_wait tells is a turn. Its events are handled at the end of it, when all are known, kind by kind:
// upstream connections (what came on an idle one is known before anybody takes it), clients, timers (who was answered in
// time has not timed out, however late we look), and then what bind_turn_end() names.
//
// Threads: post() and stop() from any; all else on the thread that calls run(). libevent's own locking is not
// used.
#pragma once
#include <sys/types.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "metering/base/time.h"
#include "proxy/net/timer_queue.h"

struct event;
struct event_base;

namespace tollgate::net {

class Watch;

// Whose socket it is. The events of one turn are handled kind by kind, in this order.
enum class WatchKind : std::uint8_t { upstream, client };
inline constexpr std::size_t kWatchKinds = 2;

class EventLoop {
 public:
  EventLoop();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  event_base* base() { return base_; }
  void run();                             // until stop()
  void stop();                            // any thread
  void post(std::function<void()> task);  // any thread; runs in the order of posting

  static MonotonicTime now();      // reads the clock
  static UnixTime calendar_now();  // reads the wall clock
  // The time at which the turn's events, or the last 32 of them, began to be handled; a wall clock that was set is
  // followed within 10 ms. Good enough for time-outs and dates, and free. Whoever enters from an event that is not a
  // Watch, a timer or a task of this loop says so with event_begins().
  MonotonicTime event_time() const { return event_now_; }
  UnixTime unix_now() const { return unix_now_; }
  void event_begins();

  void set(LoopTimer& timer, MonotonicTime when);
  void set(LoopTimer& timer, Milliseconds after) { set(timer, event_now_ + after); }
  void clear(LoopTimer& timer) { timers_.clear(timer); }

  // The very end of a turn: bind_turn_end() says what is done then, want_turn_end() that it is to be done this time.
  void bind_turn_end(void* owner, void (*task)(void* owner));
  void want_turn_end();

  // In the next turn of the loop, after other events had their chance.
  void defer(std::function<void()> task);
  void run_deferred();  // now, when the loop has ended: until nothing is put off any more

  // 64 KiB to read into; whoever reads uses the bytes up before anybody else reads. Content does not last.
  static constexpr std::size_t kScratch = 64 * 1024;
  char* scratch() { return scratch_.get(); }

 private:
  static void on_wake(int, short, void* self);
  static void on_timer(int, short, void* self);
  static void on_deferred(int, short, void* self);
  static void on_turn_end(int, short, void* self);
  friend class Watch;
  void collect(Watch& watch);     // it has an event in this turn
  void drop(const Watch& watch);  // it is none of this turn's any more
  void end_turn();
  void handle(std::vector<Watch*>& ready);
  void expire_timers();
  void arm();

  event_base* base_ = nullptr;
  MonotonicTime event_now_;
  UnixTime unix_now_;
  MonotonicTime wall_read_{};
  Duration wall_offset_{0};
  int wake_fd_ = -1;
  event* wake_event_ = nullptr;
  event* timer_event_ = nullptr;
  event* deferred_event_ = nullptr;
  event* turn_end_event_ = nullptr;
  void* turn_end_owner_ = nullptr;
  void (*turn_end_task_)(void*) = nullptr;
  bool turn_end_wanted_ = false;
  enum class Turn : std::uint8_t { begun, ends_soon, ends } turn_ = Turn::begun;
  bool timers_due_ = false;                             // at the end of this turn
  std::array<std::vector<Watch*>, kWatchKinds> ready_;  // of this turn; nullptr: stopped meanwhile
  TimerQueue timers_;
  MonotonicTime armed_for_ = MonotonicTime::max();
  std::vector<std::function<void()>> deferred_;
  std::unique_ptr<char[]> scratch_;
  std::mutex mutex_;
  std::vector<std::function<void()>> posted_;  // guarded by mutex_
};

// Watches one descriptor for everything, edge-triggered. `ready` gets EV_READ, EV_WRITE and EV_CLOSED bits, once a turn.
// Unwatch before the descriptor is closed.
class Watch {
 public:
  Watch() = default;
  ~Watch() { stop(); }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  void start(EventLoop& loop, WatchKind kind, int fd, void* owner, void (*ready)(void* owner, short what));
  void stop();
  bool active() const { return event_ != nullptr; }
  bool event_waits() const { return what_ != 0; }  // of this turn

 private:
  friend class EventLoop;
  static void on_event(int, short what, void* self);
  event* event_ = nullptr;
  WatchKind kind_ = WatchKind::client;
  short what_ = 0;  // of this turn
  EventLoop* loop_ = nullptr;
  void* owner_ = nullptr;
  void (*ready_)(void*, short) = nullptr;
};

}  // namespace tollgate::net
