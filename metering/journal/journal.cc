#include "metering/journal/journal.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "metering/base/check.h"
#include "metering/journal/journal_impl.h"
#include "metering/journal/retention.h"

namespace tollgate::journal {
namespace {

std::int64_t steady_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

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
    {
      const std::lock_guard guard(commit_mutex);
      each_writer([](StreamWriter& writer) { writer.prepare_ahead(); });
    }
    each_writer([&](StreamWriter& writer) {
      // Space that was not there is looked for once an interval, not at every wake-up.
      if (writer.wants_ahead() && (due || writer.trouble().empty())) writer.allocate_ahead();
    });
    if (due) {
      [[maybe_unused]] const auto reported_by_the_stream = commit();
      delete_old();
      next_commit = std::chrono::steady_clock::now() + options.commit_interval;
      if (shared.calls.round_ended) shared.calls.round_ended();
    }
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
