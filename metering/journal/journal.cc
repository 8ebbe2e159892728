#include "metering/journal/journal.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <random>
#include <ranges>
#include <thread>

#include "metering/base/check.h"
#include "metering/base/random.h"
#include "metering/journal/cells.h"
#include "metering/journal/directory.h"
#include "metering/journal/op_log.h"
#include "metering/journal/recovery.h"
#include "metering/journal/retention.h"
#include "metering/journal/stream_writer.h"

namespace tollgate::journal {
namespace {

constexpr std::string_view kControl = "control";

std::int64_t steady_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

std::uint32_t new_incarnation(std::uint64_t seed, std::uint32_t other_than) {
  if (seed == 0) {
    std::random_device system;
    seed = (static_cast<std::uint64_t>(system()) << 32) | system();
  }
  Random random(seed);
  for (;;) {
    const auto made = static_cast<std::uint32_t>(random.next());
    if (made != 0 && made != other_than) return made;
  }
}

}  // namespace

std::string Recovery::describe() const {
  if (first) return "a new journal";
  return fmt::format(
      "{} entries kept, last stop {}, boot {}, {} accounts in use, calls ended: {} interrupted, {} void "
      "after their charge, {} "
      "void, {} damaged segments",
      entries, clean ? "clean" : "unclean", same_boot ? "the same" : "another", cells_in_use, interrupted,
      void_charged, void_maybe, damaged_segments);
}

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
  Result<void> recover(std::vector<FoundStream>& found, bool everything, bool skip_numbers);
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

// ---- start

Result<std::vector<FoundStream>> Journal::Impl::inspect_all(bool everything) {
  auto segments = list_segments(options.directory);
  if (!segments) return std::unexpected(segments.error());
  std::vector<std::string> names{std::string(kControl)};
  for (unsigned worker = 0; worker < options.workers; ++worker) names.push_back(std::to_string(worker));
  for (const SegmentName& segment : *segments)
    if (std::ranges::find(names, segment.stream) == names.end()) names.push_back(segment.stream);
  std::vector<FoundStream> found;
  for (const std::string& name : names) {
    auto stream = inspect(name, *segments, everything, identity.incarnation);
    if (!stream) return std::unexpected(stream.error());
    found.push_back(std::move(*stream));
  }
  return found;
}

Result<std::unique_ptr<StreamWriter>> Journal::Impl::open_writer(const FoundStream& found,
                                                                 bool skip_numbers) {
  // Nobody begins a call on the control stream.
  auto table =
      OpenTable::open(open_path(found.name), found.name == kControl ? 1 : options.open_calls, shared.calls);
  if (!table) return std::unexpected(table.error());
  const std::uint64_t skipped =
      skip_numbers && (found.last > 0 || !found.damages.empty()) ? kNumbersSkipped : 0;
  return StreamWriter::open(shared, *lists[found.name],
                            {.name = found.name,
                             .last_before = found.last,
                             .first = found.last + skipped + 1,
                             .call_before = found.last_call + skipped,
                             .segment = found.last_segment + 1},
                            std::move(*table));
}

Result<void> Journal::Impl::recover(std::vector<FoundStream>& found, bool everything, bool skip_numbers) {
  const std::int64_t now = shared.calls.unix_ms();
  for (FoundStream& stream : found) {
    recovery.entries += stream.entries;
    recovery.damaged_segments += stream.damages.size();
    for (const FoundStream::Damage& damage : stream.damages)
      for (const std::string& text : damage.texts)
        log("error", "journal: damaged, what lay there is lost for billing: " + text);
    if (auto closed = close_segments(stream, now); !closed) return closed;
    auto& list = lists[stream.name] = std::make_unique<SegmentList>();
    for (SegmentRecord& record : stream.records) {
      ::unlink((record.path + ".new").c_str());  // a rewrite that was cut short
      list->add(std::move(record));
    }
    for (const auto& [partition, seq] : stream.op_numbers)
      if (partition < quota::kPartitions && seq > shared.op_numbers->last(partition))
        shared.op_numbers->set(partition, seq);
  }
  for (const FoundStream& stream : found) {
    const bool ours = stream.name == kControl ||
                      std::ranges::any_of(std::views::iota(0U, options.workers), [&](unsigned worker) {
                        return stream.name == std::to_string(worker);
                      });
    // A stream of more workers than now: only its open calls are of interest.
    auto table = OpenTable::open(open_path(stream.name), 1, shared.calls);
    if (!table) return std::unexpected(table.error());
    const std::vector<OpenTable::Found> places = table->found();
    if (!ours && places.empty() && (!everything || stream.open.empty())) {
      ::unlink(open_path(stream.name).c_str());
      continue;
    }
    auto writer = open_writer(stream, skip_numbers);
    if (!writer) return std::unexpected(writer.error());
    if (auto ended = end_open_calls(stream, places, everything, **writer, recovery); !ended) return ended;
    if (stream.name == kControl) {
      control = std::move(*writer);
    } else if (ours) {
      const auto worker = static_cast<std::size_t>(std::stoul(stream.name));
      if (writers.size() <= worker) writers.resize(worker + 1);
      writers[worker] = std::move(*writer);
    } else if (auto closed = (*writer)->close(); !closed) {
      return closed;
    }
  }
  return {};
}

Result<void> Journal::Impl::open() {
  if (options.workers == 0 || options.segment_bytes < kSegmentBytesMin)
    return fail(Origin::config,
                fmt::format("journal: a segment has at least {} bytes, and there is at least one worker",
                            kSegmentBytesMin));
  if (auto made = make_directory(options.directory); !made) return made;
  auto locked = lock_directory(options.directory);
  if (!locked) return std::unexpected(locked.error());
  lock = std::move(*locked);
  if (options.boot_id.empty()) {
    auto boot = read_boot_id();
    if (!boot) return std::unexpected(boot.error());
    options.boot_id = std::move(*boot);
  }
  auto known = read_identity(options.directory);
  if (!known) return std::unexpected(known.error());
  auto segments = list_segments(options.directory);
  if (!segments) return std::unexpected(segments.error());
  const bool has_identity = known->has_value();
  if (has_identity) identity = **known;
  recovery.first = !has_identity && segments->empty();
  recovery.clean = has_identity && identity.state == Identity::State::clean;
  recovery.same_boot = has_identity && identity.boot == options.boot_id && identity.place == lock.place;
  bool everything = !recovery.first && (!has_identity || identity.state == Identity::State::recovering ||
                                        (!recovery.clean && !recovery.same_boot));

  auto found = inspect_all(everything);
  if (!found) return std::unexpected(found.error());
  const bool damaged =
      std::ranges::any_of(*found, [](const FoundStream& stream) { return !stream.damages.empty(); });
  if (damaged && !everything) {
    everything = true;
    found = inspect_all(true);
    if (!found) return std::unexpected(found.error());
  }
  const bool skip_numbers = everything;
  const bool trusted = recovery.same_boot && !damaged && identity.state != Identity::State::recovering &&
                       Cells::belongs(options.directory, identity.incarnation);
  if (!trusted) {
    identity.state = Identity::State::recovering;
    identity.incarnation = new_incarnation(options.seed, identity.incarnation);
    if (identity.journal == 0) identity.journal = identity.incarnation;
  } else {
    identity.state = Identity::State::running;
  }
  identity.boot = options.boot_id;
  identity.place = lock.place;
  if (auto written = write_identity(options.directory, identity); !written) return written;

  shared.directory = options.directory;
  shared.incarnation = identity.incarnation;
  shared.segment_bytes = options.segment_bytes & ~std::uint64_t{7};
  shared.reserve = std::min(options.reserve_bytes, shared.segment_bytes / 4);
  shared.calls = complete(options.disk);
  shared.log = [this](std::string_view level, std::string_view text) {
    if (options.log) options.log(level, text);
  };
  shared.wake = [this] {
    const std::lock_guard guard(wake_mutex);
    woken = true;
    wake.notify_one();
  };
  auto mapped = Cells::open(options.directory, identity.incarnation, options.cells, !trusted, shared.calls);
  if (!mapped) return std::unexpected(mapped.error());
  cells = std::move(*mapped);
  if (!trusted)  // numbers of another incarnation
    for (FoundStream& stream : *found) stream.op_numbers.clear();
  if (trusted)
    for (const quota::LeaseCell& cell : cells.all()) recovery.cells_in_use += cell.in_use() ? 1 : 0;
  auto numbers = OpNumbers::open(options.directory + "/op-numbers", identity.incarnation, shared.calls);
  if (!numbers) return std::unexpected(numbers.error());
  shared.op_numbers = std::move(*numbers);
  if (auto recovered = recover(*found, everything, skip_numbers); !recovered) return recovered;
  for (const auto& writer : writers) op_logs.push_back(std::make_unique<StreamOpLog>(*writer, lists, shared));

  if (!mark("start", recovery.describe())) return fail(Origin::self, "journal: no room for the first entry");
  // Before the state says that the recovery is over.
  if (auto durable = commit(); !durable) return durable;
  if (identity.state == Identity::State::recovering) {
    identity.state = Identity::State::running;
    if (auto written = write_identity(options.directory, identity); !written) return written;
  }
  log("info", "journal: " + options.directory + ": " + recovery.describe());
  thread = std::thread([this] { run(); });
  return {};
}

bool Journal::Impl::mark(std::string_view what, std::string detail) {
  usage::MarkEntry entry;
  entry.time_ms = shared.calls.unix_ms();
  entry.incarnation = identity.incarnation;
  entry.what = what;
  entry.version = options.version;
  entry.boot_id = options.boot_id;
  entry.detail = std::move(detail);
  std::string body;
  usage::encode(entry, body);
  const std::lock_guard guard(control_mutex);
  return control->append(usage::EntryKind::mark, body);
}

// ---- the commit thread

Result<void> Journal::Impl::commit() {
  const std::lock_guard guard(commit_mutex);
  const std::int64_t began = steady_ms();
  Result<void> result;
  each_writer([&](StreamWriter& writer) {
    if (auto synced = writer.sync(); !synced) result = std::move(synced);
  });
  if (result) committed_at.store(began, std::memory_order_release);
  return result;
}

void Journal::Impl::run() {
  auto next_commit = std::chrono::steady_clock::now() + options.commit_interval;
  for (;;) {
    {
      std::unique_lock guard(wake_mutex);
      wake.wait_until(guard, next_commit, [&] { return woken || stopping; });
      if (stopping) return;
      woken = false;
    }
    const bool due = std::chrono::steady_clock::now() >= next_commit;
    each_writer([&](StreamWriter& writer) {
      // Space that was not there is looked for once an interval, not at every wake-up.
      if (writer.wants_ahead() && (due || writer.trouble().empty())) writer.allocate_ahead();
    });
    if (due) {
      [[maybe_unused]] const auto reported_by_the_stream = commit();
      delete_old();
      next_commit = std::chrono::steady_clock::now() + options.commit_interval;
    }
    if (shared.calls.round_ended) shared.calls.round_ended();
  }
}

void Journal::Impl::stop_thread() {
  if (!thread.joinable()) return;
  {
    const std::lock_guard guard(wake_mutex);
    stopping = true;
    wake.notify_one();
  }
  thread.join();
}

void Journal::Impl::delete_old() {
  std::vector<KeptStream> streams;
  {
    const std::lock_guard guard(released_mutex);
    for (const auto& [name, list] : lists) {
      const auto found = released.find(name);
      streams.push_back({.name = name,
                         .records = list->all(),
                         .released_below = found == released.end() ? 0 : found->second});
    }
  }
  each_writer([&](StreamWriter& writer) {
    for (KeptStream& stream : streams)
      if (stream.name == writer.name()) stream.durable = writer.durable();
  });
  for (const Deletion& deletion :
       choose_deletions(streams, shared.calls.unix_ms(), options.retention, options.max_bytes)) {
    if (deletion.unreleased) {
      const std::string text = fmt::format(
          "entries {} to {} of stream {} were deleted before they were rolled up: the journal is larger than "
          "its cap",
          deletion.first, deletion.last, deletion.stream);
      log("error", "journal: " + text);
      lost_entries += deletion.last + 1 - deletion.first;
      mark("lost", text);
    }
    if (::unlink(deletion.path.c_str()) != 0 && errno != ENOENT) {
      const std::string text = system_error("delete", deletion.path, errno).error().message;
      if (deletion_trouble != text) log("error", text);
      deletion_trouble = text;
      continue;
    }
    ::unlink(damage_mark(deletion.path).c_str());
    lists.at(deletion.stream)->forget(deletion.segment);
  }
}

// ---- Journal

Journal::Journal(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<Journal>> Journal::open(JournalOptions options) {
  auto impl = std::make_unique<Impl>();
  impl->options = std::move(options);
  if (auto opened = impl->open(); !opened) return std::unexpected(opened.error());
  return std::unique_ptr<Journal>(new Journal(std::move(impl)));
}

Journal::~Journal() {
  Impl& impl = *impl_;
  impl.stop_thread();
  impl.mark("stop", "");
  bool clean = true;
  impl.each_writer([&](StreamWriter& writer) {
    if (writer.calls_open() != 0) clean = false;  // their ends are due at the next start
    if (auto closed = writer.close(); !closed) {
      impl.log("error", closed.error().message);
      clean = false;
    }
  });
  if (!impl.cells.sync()) clean = false;
  if (!clean) return;
  impl.identity.state = Identity::State::clean;
  if (auto written = write_identity(impl.options.directory, impl.identity); !written)
    impl.log("error", written.error().message);
}

const Recovery& Journal::recovery() const {
  return impl_->recovery;
}
quota::Incarnation Journal::incarnation() const {
  return impl_->identity.incarnation;
}
std::span<quota::LeaseCell> Journal::cells() {
  return impl_->cells.all();
}
Stream& Journal::stream(unsigned worker) {
  CHECK(worker < impl_->writers.size(), "a stream a worker");
  return *impl_->writers[worker];
}
quota::OpLog& Journal::op_log(unsigned worker) {
  CHECK(worker < impl_->op_logs.size(), "a log of ops a worker");
  return *impl_->op_logs[worker];
}

Result<void> Journal::audit(usage::AuditEntry entry) {
  std::string body;
  usage::encode(entry, body);
  bool appended;
  {
    const std::lock_guard guard(impl_->control_mutex);
    appended = impl_->control->append(usage::EntryKind::audit, body);
  }
  if (!appended)
    return fail(Origin::self, "journal: the change cannot be recorded: " + impl_->control->trouble(), true);
  const std::lock_guard guard(impl_->commit_mutex);
  return impl_->control->sync();
}

bool Journal::writable() const {
  bool writable = true;
  impl_->each_writer([&](const StreamWriter& writer) { writable = writable && writer.writable(); });
  return writable;
}

std::string Journal::trouble() const {
  std::string trouble;
  impl_->each_writer([&](const StreamWriter& writer) {
    if (trouble.empty() && !writer.writable()) trouble = writer.trouble();
  });
  return trouble;
}

std::uint64_t Journal::pending_records() const {
  std::uint64_t pending = 0;
  impl_->each_writer([&](const StreamWriter& writer) { pending += writer.pending(); });
  return pending;
}

Milliseconds Journal::flush_lag() const {
  if (pending_records() == 0) return Milliseconds(0);
  return Milliseconds(
      std::max<std::int64_t>(0, steady_ms() - impl_->committed_at.load(std::memory_order_acquire)));
}

std::uint64_t Journal::bytes_on_disk() const {
  std::uint64_t bytes = 0;
  for (const auto& [name, list] : impl_->lists) bytes += list->bytes();
  impl_->each_writer([&](const StreamWriter& writer) { bytes += writer.bytes_ahead(); });
  return bytes;
}

std::uint64_t Journal::lost_entries() const {
  return impl_->lost_entries.load(std::memory_order_relaxed);
}

Result<void> Journal::commit() {
  return impl_->commit();
}

void Journal::release_below(const std::string& stream, std::uint64_t number) {
  const std::lock_guard guard(impl_->released_mutex);
  std::uint64_t& released = impl_->released[stream];
  released = std::max(released, number);
}

}  // namespace tollgate::journal
