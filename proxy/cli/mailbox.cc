#include "proxy/cli/mailbox.h"

#include <event2/event.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>

#include "metering/base/check.h"

namespace tollgate::cli {

Mailbox::Mailbox() : wake_fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  CHECK(wake_fd_ >= 0, "an eventfd can be made");
}

Mailbox::~Mailbox() {
  detach();
  close(wake_fd_);
}

void Mailbox::attach(event_base* base) {
  event_ = event_new(base, wake_fd_, EV_READ | EV_PERSIST, on_wake, this);
  CHECK(event_ != nullptr && event_add(event_, nullptr) == 0, "an event can be added");
}

void Mailbox::detach() {
  if (event_ != nullptr) event_free(event_);
  event_ = nullptr;
  std::vector<std::function<void()>> dropped;
  std::lock_guard lock(mutex_);
  closed_ = true;
  dropped.swap(tasks_);
}

bool Mailbox::post(std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    if (closed_) return false;
    tasks_.push_back(std::move(task));
    if (tasks_.size() > 1) return true;  // the wake-up for the first is still due
  }
  const std::uint64_t one = 1;
  [[maybe_unused]] auto written =
      write(wake_fd_, &one, sizeof one);  // fails only when a wake-up is due already
  return true;
}

void Mailbox::on_wake(int fd, short, void* self) {
  std::uint64_t count = 0;
  [[maybe_unused]] auto length = read(fd, &count, sizeof count);
  std::vector<std::function<void()>> tasks;
  {
    auto* box = static_cast<Mailbox*>(self);
    std::lock_guard lock(box->mutex_);
    tasks.swap(box->tasks_);
  }
  for (auto& task : tasks) task();
}

}  // namespace tollgate::cli
