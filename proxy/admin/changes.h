// Changes of limits by administrators: what a request asks for, and the one-at-a-time way in which it is made.
//
// Limit and grants of an account stand in one value of the store (quota::LimitOverride). A change is a function on that
// value: it is read, changed and written back, while later changes wait. So a new limit never loses a grant given a
// moment before through the same proxy.
//
//   queue->run({key, apply}, done):   get ──> drop expired grants ──> apply ──> set ──> done(what is in the store now)
//                                                                  └──> a refusal: done, nothing written
//
// Threads: run() from any; `apply` and `done` on the thread that answers for the store.
#pragma once
#include <deque>
#include <expected>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "proxy/admin/service.h"

namespace tollgate::admin {

// What a body or query asks for. `apply` returns what is wrong with the change in view of what is there; it changes the
// value otherwise.
struct Change {
  std::string action;  // "quota.set", as the audit names it
  std::string detail;  // "limit 5000", "+200 until 2026-11-23T18:00:00Z"
  std::string reason;
  std::function<std::optional<Reply>(quota::LimitOverride&)> apply{};
};

inline constexpr std::size_t kReasonBytesMax = 500;
inline constexpr Milliseconds kGrantLongest{366LL * 86'400'000};

// `now` is the store's clock. A Reply is what is wrong with the request.
std::expected<Change, Reply> parse_set(std::string_view body, std::string_view query);
std::expected<Change, Reply> parse_unset(std::string_view body, std::string_view query);
std::expected<Change, Reply> parse_grant(std::string_view body, Milliseconds now);
std::expected<Change, Reply> parse_withdraw(std::string_view body, std::string_view query);
std::expected<Change, Reply> parse_reset(std::string_view body, std::string_view query);  // without `apply`
// Without `apply`: a seat is given or taken away as such.
std::expected<Change, Reply> parse_assign(std::string_view body, std::string_view query);
std::expected<Change, Reply> parse_release(std::string_view body, std::string_view query);

// The audit's words for a grant; also how its reason is found again.
std::string grant_detail(const quota::LimitOverride::Grant& grant);

class ChangeQueue : public std::enable_shared_from_this<ChangeQueue> {
 public:
  using Get = std::function<void(quota::AccountKey, Sources::OverrideRead)>;
  using Set = std::function<void(quota::AccountKey, Sources::Override, Sources::Changed)>;
  // `refusal` or an error: nothing was changed, but for an error of the write itself: then it is not known.
  struct Outcome {
    Result<void> stored;
    std::optional<Reply> refusal{};
  };
  using Done = std::function<void(Outcome)>;

  ChangeQueue(Get get, Set set) : get_(std::move(get)), set_(std::move(set)) {}
  void run(quota::AccountKey key, Milliseconds now,
           std::function<std::optional<Reply>(quota::LimitOverride&)> apply, Done done);

 private:
  struct Job {
    quota::AccountKey key;
    Milliseconds now{0};
    std::function<std::optional<Reply>(quota::LimitOverride&)> apply;
    Done done;
  };
  class Turn;  // of one job; its end, however it comes, begins the next one
  void next();
  void begin(const std::shared_ptr<Turn>& turn);

  const Get get_;
  const Set set_;
  std::mutex mutex_;
  std::deque<Job> waiting_;
  bool running_ = false;
};

}  // namespace tollgate::admin
