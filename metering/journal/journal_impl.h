// Journal's inside: what open() puts together (journal_start.cc) and the commit thread works on (journal.cc).
#pragma once
#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "metering/journal/cells.h"
#include "metering/journal/directory.h"
#include "metering/journal/journal.h"
#include "metering/journal/op_log.h"
#include "metering/journal/recovery.h"
#include "metering/journal/stream_writer.h"

namespace tollgate::journal {

inline constexpr std::string_view kControl = "control";

struct Journal::Impl {
  JournalOptions options;
  Recovery recovery;
  Lock lock;
  Identity identity;
  Shared shared;
  Cells cells;
  StreamOpLog::Lists lists;
  std::vector<std::unique_ptr<StreamWriter>> writers;  // of the workers
  std::vector<std::unique_ptr<StreamOpLog>> op_logs;
  std::unique_ptr<StreamWriter> control;
  std::mutex control_mutex;  // appends to control
  std::mutex commit_mutex;   // one commit at a time

  std::mutex released_mutex;
  std::map<std::string, std::uint64_t> released;
  std::string deletion_trouble;  // commit thread

  std::atomic<std::uint64_t> lost_entries{0};
  std::atomic<std::int64_t> committed_at{0};  // steady ms: what was written before it is durable

  std::mutex wake_mutex;
  std::condition_variable wake;
  bool woken = false, stopping = false;
  std::thread thread;

  ~Impl() { stop_thread(); }

  Result<void> open();
  Result<std::vector<FoundStream>> inspect_all(bool everything);
  struct Trust {
    bool cells = false;       // they and the ops go on under the same incarnation
    bool everything = false;  // all segments were read; numbers go on further up
  };
  Result<Trust> take_stock(std::vector<FoundStream>& found);
  Result<void> map_files(const Trust& trust);
  Result<void> recover(std::vector<FoundStream>& found, const Trust& trust);
  Result<std::unique_ptr<StreamWriter>> open_writer(const FoundStream& found, bool skip_numbers);
  bool mark(std::string_view what, std::string detail);
  void log(std::string_view level, const std::string& text) const {
    if (options.log) options.log(level, text);
  }

  template <class Visit>
  void each_writer(Visit visit) const {
    for (const auto& writer : writers) visit(*writer);
    if (control) visit(*control);
  }

  void run();
  void stop_thread();
  Result<void> commit();
  void delete_old();
  std::string open_path(const std::string& stream) const { return options.directory + "/open-" + stream; }
};

}  // namespace tollgate::journal
