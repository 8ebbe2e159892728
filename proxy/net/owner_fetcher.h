// EDGE: asks a CRM whose a record is, with a service account, on ONE background thread. Which CRM, and how: OwnerSource
// (cherwell_owners.h, creatio_owners.h).
//
// Rules:
//   - calls that ask for one record while it is asked for wait for the one answer
//   - a record that is not there, or has no owner, is remembered as nobody's, as long as an owner is
//   - without an answer (time-out, refused, broken) nothing is learned, and nobody waits for a look-up for kPause
//   - who has waited for `timeout` is let go on before his own look-up; one that is under way ends after it
// So a call waits for twice `timeout` at most, and a CRM that is down costs a call in kPause that time.
//
// Threads: construct, stop and destroy on one thread; find() from any.
#pragma once
#include <atomic>
#include <expected>
#include <functional>
#include <memory>
#include <string>

#include "metering/base/time.h"
#include "proxy/flow/owner_lookup.h"

namespace tollgate::net {

// One CRM that tells. Of one thread, but for stop(). SIGPIPE must be ignored or blocked there.
class OwnerSource {
 public:
  // The error says why nothing came of it, without secrets.
  template <class T>
  using Answer = std::expected<T, std::string>;

  static constexpr std::size_t kReplyMax = 1024 * 1024;

  virtual ~OwnerSource() = default;
  virtual const std::string& url() const = 0;
  // The table of owners knows what there is to know of the record then; an error: there was no answer that says anything.
  virtual Answer<void> look_up(const std::string& upstream, const std::string& record,
                               MonotonicTime deadline) = 0;
  // For `tollgate doctor`: asks whether the account may, and for nothing else; a clause about what was seen.
  virtual Answer<std::string> examine(MonotonicTime deadline) = 0;

  void stop() { stopping_ = true; }  // breaks off what is under way

 protected:
  std::atomic<bool> stopping_{false};
};

class OwnerFetcher final : public flow::OwnerLookup {
 public:
  static constexpr Milliseconds kPause{1'000};
  static constexpr std::size_t kWaitingMax = 10'000;  // records asked for at a time; more are not looked up

  // log: on the fetching thread; one line a pause at most, without secrets.
  OwnerFetcher(std::unique_ptr<OwnerSource> source, Milliseconds timeout,
               std::function<void(const std::string& line)> log);
  ~OwnerFetcher() override;  // stops
  void find(const std::string& upstream, const std::string& record, std::function<void()> done) override;
  // Breaks off what is under way; who waits is let go on. May be called twice.
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tollgate::net
