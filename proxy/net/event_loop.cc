#include "proxy/net/event_loop.h"

#include <event2/event.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "metering/base/check.h"

namespace tollgate::net {

namespace {

constexpr std::size_t kEventsATime = 32;  // are handled at what counts as one time
constexpr Milliseconds kWallClock{10};    // so often its distance to the monotonic clock is looked at

Duration read_clock(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
}

}  // namespace

EventLoop::EventLoop() : scratch_(std::make_unique_for_overwrite<char[]>(kScratch)) {
  event_config* config = event_config_new();
  CHECK(config != nullptr, "out of memory");
  event_config_require_features(config, EV_FEATURE_ET);
  event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
  base_ = event_base_new_with_config(config);
  event_config_free(config);
  CHECK(base_ != nullptr, "an event base with edge-triggered events is needed (epoll)");
  wake_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  CHECK(wake_fd_ >= 0, "no file descriptor left for an event loop");
  wake_event_ = event_new(base_, wake_fd_, EV_READ | EV_PERSIST, &EventLoop::on_wake, this);
  timer_event_ = event_new(base_, -1, 0, &EventLoop::on_timer, this);
  deferred_event_ = event_new(base_, -1, 0, &EventLoop::on_deferred, this);
  turn_end_event_ = event_new(base_, -1, 0, &EventLoop::on_turn_end, this);
  CHECK(wake_event_ != nullptr && timer_event_ != nullptr && deferred_event_ != nullptr &&
            turn_end_event_ != nullptr,
        "out of memory");
  event_add(wake_event_, nullptr);
  event_begins();
}

EventLoop::~EventLoop() {
  event_free(wake_event_);
  event_free(timer_event_);
  event_free(deferred_event_);
  event_free(turn_end_event_);
  event_base_free(base_);
  ::close(wake_fd_);
}

void EventLoop::run() {
  event_begins();
  event_base_loop(base_, EVLOOP_NO_EXIT_ON_EMPTY);
}

void EventLoop::stop() {
  post([this] { event_base_loopbreak(base_); });
}

void EventLoop::post(std::function<void()> task) {
  bool first;
  {
    std::lock_guard lock(mutex_);
    first = posted_.empty();
    posted_.push_back(std::move(task));
  }
  if (!first) return;
  const std::uint64_t one = 1;
  // The counter of an eventfd cannot be full here: it is at most 1.
  if (::write(wake_fd_, &one, sizeof one) < 0) CHECK(false, "an eventfd takes a wake-up");
}

MonotonicTime EventLoop::now() {
  return MonotonicTime(read_clock(CLOCK_MONOTONIC));
}

UnixTime EventLoop::calendar_now() {
  return UnixTime(read_clock(CLOCK_REALTIME));
}

void EventLoop::event_begins() {
  event_now_ = now();
  if (event_now_ - wall_read_ >= kWallClock) [[unlikely]] {
    wall_read_ = event_now_;
    wall_offset_ = read_clock(CLOCK_REALTIME) - event_now_.time_since_epoch();
  }
  unix_now_ = UnixTime(event_now_.time_since_epoch() + wall_offset_);
}

void EventLoop::set(LoopTimer& timer, MonotonicTime when) {
  timers_.set(timer, when);
  if (timers_.next() < armed_for_) arm();
}

void EventLoop::arm() {
  armed_for_ = timers_.next();
  if (armed_for_ == MonotonicTime::max()) return;
  // Rounded up to a microsecond: a timer never fires early.
  const auto wait = std::chrono::ceil<std::chrono::microseconds>(std::max(Duration(0), armed_for_ - now()));
  timeval tv{};
  tv.tv_sec = static_cast<time_t>(wait.count() / 1'000'000);
  tv.tv_usec = static_cast<suseconds_t>(wait.count() % 1'000'000);
  event_add(timer_event_, &tv);
}

void EventLoop::bind_turn_end(void* owner, void (*task)(void*)) {
  turn_end_owner_ = owner;
  turn_end_task_ = task;
}

void EventLoop::want_turn_end() {
  turn_end_wanted_ = true;
  end_turn();
}

// An event made active while others are handled comes behind them, in the same turn.
void EventLoop::end_turn() {
  if (turn_ != Turn::begun) return;
  turn_ = Turn::ends_soon;
  event_active(turn_end_event_, EV_TIMEOUT, 0);
}

void EventLoop::collect(Watch& watch) {
  ready_[static_cast<std::size_t>(watch.kind_)].push_back(&watch);
  end_turn();
}

void EventLoop::drop(const Watch& watch) {
  auto& ready = ready_[static_cast<std::size_t>(watch.kind_)];
  const auto at = std::ranges::find(ready, &watch);
  if (at != ready.end()) *at = nullptr;
}

void EventLoop::handle(std::vector<Watch*>& ready) {
  for (std::size_t i = 0; i < ready.size(); ++i) {
    if (i % kEventsATime == kEventsATime - 1) event_begins();
    Watch* watch = ready[i];
    if (watch != nullptr) watch->ready_(watch->owner_, std::exchange(watch->what_, 0));
  }
  ready.clear();
}

void EventLoop::defer(std::function<void()> task) {
  deferred_.push_back(std::move(task));
  if (deferred_.size() > 1) return;
  const timeval at_once{};
  event_add(deferred_event_, &at_once);
}

void EventLoop::run_deferred() {
  while (!deferred_.empty()) {
    std::vector<std::function<void()>> tasks;
    tasks.swap(deferred_);
    for (auto& task : tasks) task();
  }
}

void EventLoop::on_wake(int, short, void* self) {
  auto* loop = static_cast<EventLoop*>(self);
  loop->event_begins();
  std::uint64_t count = 0;
  if (::read(loop->wake_fd_, &count, sizeof count) < 0) return;
  std::vector<std::function<void()>> tasks;
  {
    std::lock_guard lock(loop->mutex_);
    tasks.swap(loop->posted_);
  }
  for (auto& task : tasks) task();
}

void EventLoop::on_timer(int, short, void* self) {
  auto* loop = static_cast<EventLoop*>(self);
  loop->timers_due_ = true;
  loop->end_turn();
}

void EventLoop::expire_timers() {
  timers_due_ = false;
  armed_for_ = MonotonicTime::min();  // no event_add for each timer set while firing
  timers_.expire(now());
  armed_for_ = MonotonicTime::max();
  arm();
}

void EventLoop::on_deferred(int, short, void* self) {
  auto* loop = static_cast<EventLoop*>(self);
  loop->event_begins();
  std::vector<std::function<void()>> tasks;
  tasks.swap(loop->deferred_);
  for (auto& task : tasks) task();
}

void EventLoop::on_turn_end(int, short, void* self) {
  auto* loop = static_cast<EventLoop*>(self);
  loop->turn_ = Turn::ends;
  loop->event_begins();
  for (auto& ready : loop->ready_) loop->handle(ready);
  if (loop->timers_due_) loop->expire_timers();
  while (std::exchange(loop->turn_end_wanted_, false)) loop->turn_end_task_(loop->turn_end_owner_);
  loop->turn_ = Turn::begun;
}

void Watch::start(EventLoop& loop, WatchKind kind, int fd, void* owner, void (*ready)(void*, short)) {
  CHECK(event_ == nullptr, "one watch, one descriptor");
  kind_ = kind;
  loop_ = &loop;
  owner_ = owner;
  ready_ = ready;
  event_ =
      event_new(loop.base(), fd, EV_READ | EV_WRITE | EV_CLOSED | EV_ET | EV_PERSIST, &Watch::on_event, this);
  CHECK(event_ != nullptr, "out of memory");
  event_add(event_, nullptr);
}

void Watch::stop() {
  if (event_ == nullptr) return;
  event_free(event_);
  event_ = nullptr;
  if (what_ != 0) loop_->drop(*this);
  what_ = 0;
}

void Watch::on_event(int, short what, void* self) {
  auto* watch = static_cast<Watch*>(self);
  if (watch->what_ == 0) watch->loop_->collect(*watch);
  watch->what_ = static_cast<short>(watch->what_ | what);
}

}  // namespace tollgate::net
