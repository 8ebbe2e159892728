// The writing side of one stream: entries into the current segment, rotation to the next, commit, and what the stream has
// on disk.
//
//   worker: append ──> current segment ──full──> next segment (allocated ahead)
//                          │                         ^
//   commit thread: sync ───┴── allocate_ahead ───────┘      sync failed: rewrite()
//
// Seat: the flag that one append holds. Nobody else takes it but the commit thread, after a failed sync, to put the copy of a
// segment in the place of the original. So it costs the worker two uncontended atomic instructions and never a wait, but for
// that one case. Mutex: the list of segments; taken at a rotation, not by an append. Order: seat before mutex.
//
// Room: without a next segment the last `reserve` bytes of the current one are kept for the ends of calls under way.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "metering/journal/journal.h"
#include "metering/journal/open_table.h"
#include "metering/journal/segment.h"
#include "metering/journal/segment_list.h"

namespace tollgate::journal {

// What all streams of a journal share.
struct Shared {
  std::string directory;
  std::uint32_t incarnation = 0;
  std::uint64_t segment_bytes = 0, reserve = 0;
  DiskCalls calls;
  std::function<void(std::string_view level, std::string_view text)> log;
  std::function<void()> wake;  // the commit thread has something to do; any thread
  std::optional<OpNumbers> op_numbers;
};

class StreamWriter final : public Stream {
 public:
  struct Begin {
    std::string name;
    std::uint64_t last_before = 0, first = 1;  // entries
    std::uint64_t call_before = 0;             // the last call number given
    std::uint64_t segment = 1;
  };
  static Result<std::unique_ptr<StreamWriter>> open(Shared& shared, SegmentList& list, const Begin& begin,
                                                    OpenTable table);

  std::optional<OpenCall> begin_call(usage::CallBeginView& begin) override;
  void charged(OpenCall call) override;
  void uncharged(OpenCall call) override;
  void sent(OpenCall call) override;
  bool end_call(OpenCall call, usage::CallEnd& end) override;
  bool append(usage::CallEnd& end) override;
  bool append(const usage::OpEntry& op) override;
  bool append(const usage::SeatEntry& seat) override;
  // A place of the table whose call needs no end any more. Recovery only.
  void discard(std::uint32_t place);
  std::uint32_t calls_open() const { return table_.in_use(); }  // worker, or once it has stopped
  // Audits, marks, and the ends that recovery writes: may use the reserve. False: no room at all.
  bool append(usage::EntryKind kind, std::string_view body);

  // ---- commit thread (one at a time)
  // What was written before the call is durable when it returns.
  Result<void> sync();
  bool wants_ahead() const;  // half full, or out of space
  // Makes the pages that are written to next ready for it: a few hundred microseconds' work.
  void prepare_ahead();
  // Allocates the next segment, if there is none. False: it could not; trouble() says why.
  bool allocate_ahead();
  // Closes the current segment; nothing is written after it.
  Result<void> close();

  // ---- any thread
  bool writable() const;  // there is room for more than what is under way, and it can be made durable
  std::uint64_t pending() const;
  std::uint64_t durable() const { return durable_.load(std::memory_order_acquire); }
  std::string trouble() const;  // "" when there is none
  const std::string& name() const { return name_; }
  std::uint64_t bytes_ahead() const {
    return has_next_.load(std::memory_order_relaxed) ? shared_.segment_bytes : 0;
  }

  // Worker: ops in the segment being written.
  std::uint64_t current_segment() const { return number_; }
  const OpIndex& current_ops() const { return *current_ops_; }

 private:
  static constexpr std::uint64_t kPreparedMin = 16 << 10, kPreparedMax = 512 << 10;

  StreamWriter(Shared& shared, SegmentList& list, const Begin& begin, OpenTable table);
  bool write(usage::EntryKind kind, bool may_use_reserve);  // body_
  bool make_room(std::uint64_t size, bool may_use_reserve);
  bool ensure_next();
  void rotate();
  void begin_segment(std::shared_ptr<Segment> segment, std::uint64_t number, std::uint64_t last_before);
  void close_current();
  bool has_room() const;
  Result<void> rewrite(const std::shared_ptr<Segment>& segment);
  Shared& shared_;
  SegmentList& list_;
  const std::string name_;

  // Holder of the seat.
  std::atomic<bool> seat_{false};
  std::uint64_t number_ = 0;  // of the current segment
  std::uint64_t next_entry_ = 1, last_call_ = 0;
  std::string body_;
  usage::OpEntry op_;
  std::unique_ptr<OpIndex> current_ops_;
  OpenTable table_;
  bool asked_ahead_ = false;

  // Written by the holder of the seat, read by anybody.
  std::atomic<std::uint64_t> at_{0};       // where the next entry goes
  std::atomic<std::uint64_t> written_{0};  // last entry number

  std::atomic<std::uint64_t> ask_at_{0};  // behind it, the worker asks for more prepared pages
  std::atomic<std::uint64_t> durable_{0};
  std::atomic<bool> has_next_{false};
  std::atomic<bool> sync_failed_{false};
  std::atomic<bool> refused_{false};  // an entry did not fit before the reserve, and there is no next segment
  std::atomic<bool> no_space_{false};  // the last allocation failed: the worker does not try by itself

  // Of the thread that commits, or prepares.
  const Segment* prepared_of_ = nullptr;
  std::uint64_t prepared_ = 0, ahead_ = kPreparedMin, synced_at_ = 0;  // positions, bytes, position

  mutable std::mutex mutex_;
  std::shared_ptr<Segment> current_;  // changed with seat and mutex; read with either
  std::shared_ptr<Segment> next_;
  std::vector<std::shared_ptr<Segment>> closed_;  // not yet durable
  std::string space_trouble_, sync_trouble_;
};

}  // namespace tollgate::journal
