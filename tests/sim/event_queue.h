// Virtual time: the only clock of the simulator, and what happens when.
//
//   EventQueue queue;
//   queue.after(Milliseconds(5), [] { ... });
//   while (queue.step()) {}
//
// Events of the same instant run in the order in which they were scheduled, so a run depends on nothing but its seed.
// Time is "true time", from the start of the run; every proxy and the store have clocks of their own derived from it.
#pragma once
#include <cstdint>
#include <functional>
#include <queue>
#include <utility>
#include <vector>

#include "metering/base/time.h"

namespace tollgate::sim {

class EventQueue {
 public:
  using Action = std::function<void()>;

  Duration now() const { return now_; }
  std::uint64_t executed() const { return executed_; }

  void at(Duration when, Action action) {
    heap_.push_back({when < now_ ? now_ : when, next_++, std::move(action)});
    std::push_heap(heap_.begin(), heap_.end(), Later());
  }
  void after(Duration delay, Action action) { at(now_ + delay, std::move(action)); }

  // Runs the earliest event if it is not after `until`; else moves the clock there. False: nothing was run.
  bool step(Duration until) {
    if (heap_.empty() || heap_.front().when > until) {
      now_ = std::max(now_, until);
      return false;
    }
    std::pop_heap(heap_.begin(), heap_.end(), Later());
    Event event = std::move(heap_.back());
    heap_.pop_back();
    now_ = event.when;
    ++executed_;
    event.action();
    return true;
  }

 private:
  struct Event {
    Duration when;
    std::uint64_t order;
    Action action;
  };
  struct Later {
    bool operator()(const Event& a, const Event& b) const {
      return a.when != b.when ? a.when > b.when : a.order > b.order;
    }
  };
  std::vector<Event> heap_;
  Duration now_{0};
  std::uint64_t next_ = 0, executed_ = 0;
};

}  // namespace tollgate::sim
