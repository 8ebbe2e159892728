#include "metering/journal/stream_writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <thread>

#include "metering/base/check.h"

namespace tollgate::journal {
namespace {

class Seat {
 public:
  explicit Seat(std::atomic<bool>& taken) : taken_(taken) {
    while (taken_.exchange(true, std::memory_order_acquire)) std::this_thread::yield();
  }
  ~Seat() { taken_.store(false, std::memory_order_release); }
  Seat(const Seat&) = delete;
  Seat& operator=(const Seat&) = delete;

 private:
  std::atomic<bool>& taken_;
};

}  // namespace

StreamWriter::StreamWriter(Shared& shared, SegmentList& list, const Begin& begin, OpenTable table)
    : shared_(shared), list_(list), name_(begin.name), table_(std::move(table)) {
  next_entry_ = begin.first;
  last_call_ = begin.call_before;
  written_ = durable_ = begin.first - 1;
}

Result<std::unique_ptr<StreamWriter>> StreamWriter::open(Shared& shared, SegmentList& list,
                                                         const Begin& begin, OpenTable table) {
  auto segment = Segment::create(segment_path(shared.directory, begin.name, begin.segment),
                                 shared.segment_bytes, shared.calls);
  if (!segment) return std::unexpected(segment.error());
  if (auto synced = sync_directory(shared.directory); !synced) return std::unexpected(synced.error());
  std::unique_ptr<StreamWriter> writer(new StreamWriter(shared, list, begin, std::move(table)));
  writer->begin_segment(std::move(*segment), begin.segment, begin.last_before);
  return writer;
}

// Under the seat, or before anybody else knows the stream.
void StreamWriter::begin_segment(std::shared_ptr<Segment> segment, std::uint64_t number,
                                 std::uint64_t last_before) {
  const SegmentStart start{.stream = name_,
                           .incarnation = shared_.incarnation,
                           .segment = number,
                           .first = next_entry_,
                           .last_before = last_before,
                           .call_before = last_call_,
                           .began_ms = shared_.calls.unix_ms()};
  segment->begin(start);
  current_ops_ = std::make_unique<OpIndex>();
  list_.add({.number = number,
             .path = segment->path(),
             .incarnation = shared_.incarnation,
             .began_ms = start.began_ms,
             .first = start.first,
             .last = start.first - 1,
             .bytes = segment->bytes(),
             .ops = nullptr});
  number_ = number;
  at_.store(kSegmentHeaderBytes, std::memory_order_relaxed);
  asked_ahead_ = false;
  current_ = std::move(segment);
}

std::optional<OpenCall> StreamWriter::begin_call(usage::CallBeginView& begin) {
  const Seat seat(seat_);
  std::uint64_t units = 0;
  for (const auto& operation : begin.operations) units += operation.count;
  begin.call = last_call_ + 1;
  const std::uint32_t place =
      table_.begin(begin.call, static_cast<std::uint32_t>(std::min<std::uint64_t>(units, UINT32_MAX)));
  if (place == UINT32_MAX) return std::nullopt;
  body_.clear();
  usage::encode(begin, body_);
  if (!write(usage::EntryKind::call_begin, false)) {
    table_.release(place);
    begin.call = 0;
    return std::nullopt;
  }
  last_call_ = begin.call;
  return OpenCall{begin.call, place};
}

void StreamWriter::charged(OpenCall call) {
  if (table_.call(call.place) == call.call) table_.set(call.place, call.call, CallState::charged);
}
void StreamWriter::uncharged(OpenCall call) {
  if (table_.call(call.place) == call.call) table_.set(call.place, call.call, CallState::begun);
}
void StreamWriter::sent(OpenCall call) {
  if (table_.call(call.place) == call.call) table_.set(call.place, call.call, CallState::sent);
}

bool StreamWriter::end_call(OpenCall call, usage::CallEnd& end) {
  const Seat seat(seat_);
  CHECK(call.call != 0 && table_.call(call.place) == call.call,
        "a call ends once, on the stream on which it began");
  end.call = call.call;
  body_.clear();
  usage::encode(end, body_);
  // Without room the place stays taken: the next start writes the end that it can vouch for.
  if (!write(usage::EntryKind::call_end, true)) return false;
  table_.release(call.place);
  return true;
}

void StreamWriter::discard(std::uint32_t place) {
  table_.release(place);
}

bool StreamWriter::append(usage::CallEnd& end) {
  const Seat seat(seat_);
  end.call = 0;
  body_.clear();
  usage::encode(end, body_);
  return write(usage::EntryKind::call_end, false);
}

bool StreamWriter::append(const usage::OpEntry& op) {
  const Seat seat(seat_);
  body_.clear();
  usage::encode(op, body_);
  if (!write(usage::EntryKind::op, false)) return false;
  if (op.partition < quota::kPartitions && op.incarnation == shared_.incarnation) {
    current_ops_->partitions[op.partition].add(op.seq);
    shared_.op_numbers->set(op.partition, op.seq);
  }
  return true;
}

bool StreamWriter::append(const usage::SeatEntry& seat) {
  const Seat guard(seat_);
  body_.clear();
  usage::encode(seat, body_);
  return write(usage::EntryKind::seat, false);
}

bool StreamWriter::wants_ahead() const {
  return !has_next_.load(std::memory_order_acquire) &&
         (no_space_.load(std::memory_order_relaxed) ||
          at_.load(std::memory_order_relaxed) > shared_.segment_bytes / 2);
}

bool StreamWriter::append(usage::EntryKind kind, std::string_view body) {
  const Seat seat(seat_);
  body_.assign(body);
  return write(kind, true);
}

bool StreamWriter::write(usage::EntryKind kind, bool may_use_reserve) {
  if (body_.size() > usage::kEntryBodyMax) return false;
  const std::uint64_t size = usage::entry_size(body_.size());
  if (!make_room(size, may_use_reserve)) return false;
  const std::uint64_t where = at_.load(std::memory_order_relaxed);
  char* at = current_->data() + where;
  char header[usage::kEntryHeaderBytes];
  usage::seal_header(kind, next_entry_, body_, header);
  std::memcpy(at + 4, header + 4, sizeof header - 4);
  std::memcpy(at + sizeof header, body_.data(), body_.size());
  std::uint32_t length;
  std::memcpy(&length, header, sizeof length);
  __atomic_store_n(reinterpret_cast<std::uint32_t*>(at), length, __ATOMIC_RELEASE);
  at_.store(where + size, std::memory_order_relaxed);
  written_.store(next_entry_++, std::memory_order_release);
  if (!asked_ahead_ && where + size > shared_.segment_bytes / 2) {
    asked_ahead_ = true;
    shared_.wake();
  }
  if (where + size > ask_at_.load(std::memory_order_relaxed)) [[unlikely]] {
    ask_at_.store(UINT64_MAX, std::memory_order_relaxed);
    shared_.wake();
  }
  return true;
}

bool StreamWriter::make_room(std::uint64_t size, bool may_use_reserve) {
  if (!current_ || kSegmentHeaderBytes + size + 8 > shared_.segment_bytes) return false;
  // 8: the zero length behind the last entry.
  const auto left = [&] { return shared_.segment_bytes - at_.load(std::memory_order_relaxed) - 8; };
  const bool fits = left() >= size;
  const bool beyond_reserve =
      fits && left() - size >= shared_.reserve && !refused_.load(std::memory_order_relaxed);
  if (fits && (may_use_reserve || beyond_reserve || has_next_.load(std::memory_order_acquire))) return true;
  if (!ensure_next()) {
    // Small entries might still fit where a large one did not: all are refused, so that writable() speaks for all.
    if (!may_use_reserve) refused_.store(true, std::memory_order_relaxed);
    return false;
  }
  if (fits) return true;
  rotate();
  return left() >= size;
}

// The worker's own attempt, when the commit thread has not come round to it; not while there is known to be no space.
bool StreamWriter::ensure_next() {
  if (has_next_.load(std::memory_order_acquire)) return true;
  if (no_space_.load(std::memory_order_relaxed)) return false;
  asked_ahead_ = true;
  return allocate_ahead();
}

bool StreamWriter::allocate_ahead() {
  const std::lock_guard lock(mutex_);
  if (next_ || !current_) return true;
  auto segment = Segment::create(segment_path(shared_.directory, name_, number_ + 1), shared_.segment_bytes,
                                 shared_.calls);
  if (segment)
    if (auto synced = sync_directory(shared_.directory); !synced) segment = std::unexpected(synced.error());
  no_space_.store(!segment, std::memory_order_relaxed);
  if (!segment) {
    if (space_trouble_.empty()) {
      shared_.log("error", segment.error().message);
      shared_.wake();  // to try again
    }
    space_trouble_ = segment.error().message;
    return false;
  }
  if (!space_trouble_.empty()) shared_.log("info", "journal: there is room again for stream " + name_);
  space_trouble_.clear();
  refused_.store(false, std::memory_order_relaxed);
  (*segment)->prepare(0, kPreparedMin);
  next_ = std::move(*segment);
  has_next_.store(true, std::memory_order_release);
  return true;
}

// Under the seat, with next_ there.
void StreamWriter::rotate() {
  const std::lock_guard lock(mutex_);
  const std::uint64_t number = number_ + 1;
  close_current();
  std::shared_ptr<Segment> next = std::move(next_);
  has_next_.store(false, std::memory_order_release);
  begin_segment(std::move(next), number, next_entry_ - 1);
  shared_.wake();
}

void StreamWriter::close_current() {
  const SegmentClose close{.end = at_.load(std::memory_order_relaxed),
                           .last = next_entry_ - 1,
                           .last_call = last_call_,
                           .closed_ms = shared_.calls.unix_ms()};
  current_->close(close);
  list_.close(number_, close.last, close.end + 8, close.closed_ms,
              std::shared_ptr<const OpIndex>(std::move(current_ops_)));
  closed_.push_back(std::move(current_));
}

// ---- commit

Result<void> StreamWriter::sync() {
  const std::uint64_t written = written_.load(std::memory_order_acquire);
  std::vector<std::shared_ptr<Segment>> closed, all;
  {
    const std::lock_guard lock(mutex_);
    closed = all = closed_;
    if (current_) all.push_back(current_);
  }
  if (written == durable() && closed.empty()) return {};
  Result<void> result;
  for (const std::shared_ptr<Segment>& segment : all) {
    if (segment->unsyncable) {
      if (result = rewrite(segment); !result) break;
    } else if (shared_.calls.sync(segment->file()) != 0) {
      result = system_error("make durable", segment->path(), errno);
      segment->unsyncable = true;
      break;
    }
  }
  {
    const std::lock_guard lock(mutex_);
    if (!result) {
      if (sync_trouble_.empty()) shared_.log("error", result.error().message);
      sync_trouble_ = result.error().message;
      sync_failed_.store(true, std::memory_order_relaxed);
      return result;
    }
    if (!sync_trouble_.empty()) shared_.log("info", "journal: stream " + name_ + " is durable again");
    sync_trouble_.clear();
    sync_failed_.store(false, std::memory_order_relaxed);
    durable_.store(written, std::memory_order_release);
    // Rewritten ones have another object in the list by now.
    const std::size_t done = closed.size();
    for (std::size_t i = 0; i < done; ++i) closed_[i]->cut(closed_[i]->end);
    closed_.erase(closed_.begin(), closed_.begin() + static_cast<std::ptrdiff_t>(done));
  }
  const std::uint64_t at = at_.load(std::memory_order_relaxed);
  ahead_ = std::clamp(at > synced_at_ ? at - synced_at_ : at, kPreparedMin, kPreparedMax);
  synced_at_ = at;
  prepared_ = 0;  // what was written back is no longer prepared
  prepare_ahead();
  return result;
}

// Prepared pages are dirty ones, written back in vain when nothing comes: no more than the last interval took. A worker that
// asks before the next one gets twice as many.
void StreamWriter::prepare_ahead() {
  std::shared_ptr<Segment> current;
  {
    const std::lock_guard lock(mutex_);
    current = current_;
  }
  if (!current) return;
  // at_ may be of the segment after it already: then pages are prepared that nobody needs.
  const std::uint64_t at = at_.load(std::memory_order_relaxed);
  if (current.get() != prepared_of_) prepared_ = 0;
  if (prepared_ != 0 && at > prepared_ - ahead_ / 2) ahead_ = std::min(2 * ahead_, kPreparedMax);
  prepared_of_ = current.get();
  current->prepare(std::max(at, prepared_), at + ahead_);
  prepared_ = at + ahead_;
  ask_at_.store(prepared_ - ahead_ / 2, std::memory_order_relaxed);
}

// A failed sync leaves pages that the kernel may think clean and that are not on the disk: syncing the same file again would
// say yes and mean nothing. So all of it is copied to a new file, which takes its name. Most of the copying is done beside
// the worker; the seat is taken for what came meanwhile.
Result<void> StreamWriter::rewrite(const std::shared_ptr<Segment>& segment) {
  const std::string& path = segment->path();
  const std::string fresh_path = path + ".new";
  auto fresh = Segment::create(fresh_path, segment->bytes(), shared_.calls);
  if (!fresh) return std::unexpected(fresh.error());
  const auto give_up = [&](std::unexpected<Error> error) -> Result<void> {
    ::unlink(fresh_path.c_str());
    return error;
  };
  std::uint64_t copied;
  {
    const Seat seat(seat_);
    copied = segment == current_ ? at_.load(std::memory_order_relaxed) : segment->end;
  }
  const auto copy = [&](std::uint64_t from, std::uint64_t to) {
    std::memcpy((*fresh)->data() + from, segment->data() + from, to - from);
  };
  copy(kSegmentHeaderBytes, copied);
  if (shared_.calls.sync((*fresh)->file()) != 0)
    return give_up(system_error("make durable", fresh_path, errno));
  {
    const Seat seat(seat_);
    const std::lock_guard lock(mutex_);
    copy(0, kSegmentHeaderBytes);  // closed meanwhile, perhaps
    const bool is_current = segment == current_;
    copy(copied, is_current ? at_.load(std::memory_order_relaxed) : segment->end);
    if (std::rename(fresh_path.c_str(), path.c_str()) != 0)
      return give_up(system_error("rename", fresh_path, errno));
    (*fresh)->renamed(path);
    (*fresh)->end = segment->end;
    if (is_current) {
      current_ = *fresh;
    } else {
      for (auto& closed : closed_)
        if (closed == segment) closed = *fresh;
    }
  }
  if (shared_.calls.sync((*fresh)->file()) != 0) {
    (*fresh)->unsyncable = true;
    return system_error("make durable", path, errno);
  }
  return sync_directory(shared_.directory);
}

Result<void> StreamWriter::close() {
  std::shared_ptr<Segment> unused;
  {
    const Seat seat(seat_);
    const std::lock_guard lock(mutex_);
    if (current_) close_current();
    unused = std::move(next_);
    has_next_.store(false, std::memory_order_release);
  }
  if (unused) ::unlink(unused->path().c_str());
  return sync();
}

// ---- any thread

bool StreamWriter::writable() const {
  return !sync_failed_.load(std::memory_order_relaxed) && has_room();
}

bool StreamWriter::has_room() const {
  if (has_next_.load(std::memory_order_acquire)) return true;
  if (!no_space_.load(std::memory_order_relaxed)) return true;
  const std::uint64_t at = at_.load(std::memory_order_relaxed);
  return at + shared_.reserve + 8 < shared_.segment_bytes && !refused_.load(std::memory_order_relaxed);
}

std::uint64_t StreamWriter::pending() const {
  const std::uint64_t durable = durable_.load(std::memory_order_acquire);
  return written_.load(std::memory_order_acquire) - durable;
}

std::string StreamWriter::trouble() const {
  const bool room = has_room();
  const std::lock_guard lock(mutex_);
  if (!sync_trouble_.empty()) return sync_trouble_;
  return room ? "" : space_trouble_;
}

}  // namespace tollgate::journal
