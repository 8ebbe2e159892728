// Tasks for a thread that runs a libevent loop, from other threads. The box may exist before its loop does and after it
// has ended: tasks wait until attach(), and are dropped after detach().
#pragma once
#include <functional>
#include <mutex>
#include <vector>

struct event;
struct event_base;

namespace tollgate::cli {

class Mailbox {
 public:
  Mailbox();
  ~Mailbox();
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  void attach(event_base* base);  // on the loop's thread
  void detach();                  // on the loop's thread; tasks not yet run are destroyed
  // Any thread, in the order of posting. False: the loop has ended, the task is dropped.
  bool post(std::function<void()> task);

 private:
  static void on_wake(int, short, void* self);

  int wake_fd_;
  event* event_ = nullptr;
  std::mutex mutex_;
  std::vector<std::function<void()>> tasks_;  // guarded by mutex_
  bool closed_ = false;                       // guarded by mutex_
};

}  // namespace tollgate::cli
