// Time-outs of one event loop: a binary heap of embedded timers. Pure: the time is an argument.
//
// Most time-outs are pushed back again and again and never fire (a keep-alive connection sets its idle
// time-out on every request). So moving a timer to a later moment only stores the moment; the heap is
// corrected when the old moment comes. Cost: set to later O(1), set to earlier and first set O(log n), clear
// O(1), expire O(log n) a timer.
//
//   Timer timer;                          // a member of its owner
//   timer.bind(this, [](void* self) { static_cast<Connection*>(self)->on_idle(); });
//   queue.set(timer, now + 75s);
//
// A timer must not outlive its queue. Threads: those of the loop only.
#pragma once
#include <cstddef>
#include <vector>

#include "metering/base/time.h"

namespace tollgate::net {

class TimerQueue;

class LoopTimer {
 public:
  LoopTimer() = default;
  ~LoopTimer();
  LoopTimer(const LoopTimer&) = delete;
  LoopTimer& operator=(const LoopTimer&) = delete;

  void bind(void* owner, void (*fire)(void*)) {
    owner_ = owner;
    fire_ = fire;
  }
  bool armed() const { return deadline_ != MonotonicTime::max(); }
  MonotonicTime deadline() const { return deadline_; }  // max() when not armed

 private:
  friend class TimerQueue;
  static constexpr std::size_t kNowhere = static_cast<std::size_t>(-1);

  void* owner_ = nullptr;
  void (*fire_)(void*) = nullptr;
  TimerQueue* queue_ = nullptr;
  std::size_t place_ = kNowhere;                   // in the heap
  MonotonicTime deadline_ = MonotonicTime::max();  // when to fire
  MonotonicTime scheduled_ =
      MonotonicTime::max();  // what the heap is ordered by; <= deadline_ while in the heap
};

class TimerQueue {
 public:
  TimerQueue() = default;
  ~TimerQueue();
  TimerQueue(const TimerQueue&) = delete;
  TimerQueue& operator=(const TimerQueue&) = delete;

  void set(LoopTimer& timer, MonotonicTime when);
  void clear(LoopTimer& timer);
  // The next moment at which expire() has something to do; max() when there is nothing.
  MonotonicTime next() const;
  // Fires every timer whose deadline has come, in order. A firing timer is cleared first, so it may set
  // itself again and destroy itself or others; one set to a moment <= now while firing fires in the next
  // call.
  void expire(MonotonicTime now);

 private:
  friend class LoopTimer;
  void remove(LoopTimer& timer);
  void place(std::size_t index, LoopTimer* timer);
  void up(std::size_t index);
  void down(std::size_t index);

  std::vector<LoopTimer*> heap_;
};

}  // namespace tollgate::net
