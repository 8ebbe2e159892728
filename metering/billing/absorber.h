// Keeps the book of a running proxy up to date: absorbs its journal every half minute on a thread of its own, and says
// which entries are in the rows, so that the journal may let their segments go.
//
//   Absorber absorber({.book = dir + "/usage.sqlite", .release = [&](auto& stream, auto below) { journal->release_below(stream, below); },
//                      .make_durable = [&] { return journal->commit(); }}, reader);
//   absorber.start();  ...  absorber.stop();
//
// What fails (disk full, a book that another process holds) is reported, once for each new sentence, and tried again at
// the next turn: nothing is released meanwhile, nothing is lost.
//
// Threads: start() and stop() by the owner; the functions are called on the absorber's thread. `source` must outlive it.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "metering/billing/billing.h"

namespace tollgate::billing {

struct AbsorberOptions {
  std::string book;
  // A row that changed is looked up and written once a turn, however many calls are in it.
  Milliseconds interval{30'000};
  // Every entry of `stream` below this number is in the book, durably.
  std::function<void(const std::string& stream, std::uint64_t below)> release;
  Book::MakeDurable make_durable;
  std::function<void(std::string_view level, std::string_view text)> log;
  std::function<void()> on_turn;  // after each turn; for metrics and tests
};

class Absorber {
 public:
  Absorber(AbsorberOptions options, const usage::EntrySource& source);
  ~Absorber();  // stops
  Absorber(const Absorber&) = delete;
  Absorber& operator=(const Absorber&) = delete;

  void start();
  void wake();  // a turn now
  // A last turn that takes in what has been written so far, then the end of the thread.
  void stop();

  struct Status {
    std::uint64_t turns = 0, entries = 0, failures = 0;
    std::string trouble;  // of the last turn; "" when it went well
  };
  Status status() const;  // any thread

 private:
  void run();
  void turn();
  Result<void> absorb();

  const AbsorberOptions options_;
  const usage::EntrySource& source_;
  std::unique_ptr<Book> book_;  // on the thread only
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false, woken_ = false;
  Status status_;
  std::thread thread_;
};

}  // namespace tollgate::billing
