#include "proxy/net/timer_queue.h"

#include "metering/base/check.h"

namespace tollgate::net {

LoopTimer::~LoopTimer() {
  if (queue_ != nullptr && place_ != kNowhere) queue_->remove(*this);
}

TimerQueue::~TimerQueue() {
  for (LoopTimer* timer : heap_) {
    timer->queue_ = nullptr;
    timer->place_ = LoopTimer::kNowhere;
  }
}

void TimerQueue::set(LoopTimer& timer, MonotonicTime when) {
  CHECK(timer.queue_ == nullptr || timer.queue_ == this, "a timer belongs to one queue");
  CHECK(timer.fire_ != nullptr, "a timer is bound before it is set");
  timer.queue_ = this;
  timer.deadline_ = when;
  if (timer.place_ == LoopTimer::kNowhere) {
    timer.scheduled_ = when;
    heap_.push_back(&timer);
    timer.place_ = heap_.size() - 1;
    up(timer.place_);
  } else if (when < timer.scheduled_) {
    timer.scheduled_ = when;
    up(timer.place_);
  }
}

void TimerQueue::clear(LoopTimer& timer) {
  timer.deadline_ = MonotonicTime::max();
}

MonotonicTime TimerQueue::next() const {
  return heap_.empty() ? MonotonicTime::max() : heap_.front()->scheduled_;
}

void TimerQueue::expire(MonotonicTime now) {
  // Timers set to `now` or earlier by a firing one wait for the next call: else two timers could keep us
  // here.
  std::size_t budget = heap_.size();
  while (!heap_.empty() && heap_.front()->scheduled_ <= now && budget-- > 0) {
    LoopTimer& timer = *heap_.front();
    if (timer.deadline_ > now && timer.deadline_ != MonotonicTime::max()) {
      timer.scheduled_ = timer.deadline_;
      down(0);
      continue;
    }
    const bool fires = timer.deadline_ <= now;
    remove(timer);
    timer.deadline_ = MonotonicTime::max();
    if (fires) timer.fire_(timer.owner_);
  }
}

void TimerQueue::remove(LoopTimer& timer) {
  const std::size_t hole = timer.place_;
  timer.place_ = LoopTimer::kNowhere;
  LoopTimer* last = heap_.back();
  heap_.pop_back();
  if (last == &timer) return;
  place(hole, last);
  up(hole);
  down(last->place_);
}

void TimerQueue::place(std::size_t index, LoopTimer* timer) {
  heap_[index] = timer;
  timer->place_ = index;
}

void TimerQueue::up(std::size_t index) {
  LoopTimer* timer = heap_[index];
  while (index > 0) {
    const std::size_t parent = (index - 1) / 2;
    if (heap_[parent]->scheduled_ <= timer->scheduled_) break;
    place(index, heap_[parent]);
    index = parent;
  }
  place(index, timer);
}

void TimerQueue::down(std::size_t index) {
  LoopTimer* timer = heap_[index];
  for (;;) {
    std::size_t child = 2 * index + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && heap_[child + 1]->scheduled_ < heap_[child]->scheduled_) ++child;
    if (timer->scheduled_ <= heap_[child]->scheduled_) break;
    place(index, heap_[child]);
    index = child;
  }
  place(index, timer);
}

}  // namespace tollgate::net
