// EDGE: the journal of one proxy on disk. What was written here before a process was killed is read by the next one.
//
//   DIR/lock                    flock: one Tollgate a directory
//   DIR/identity                incarnation, boot id, layout version; text (directory.h)
//   DIR/cells                   mapped LeaseCells (metering/quota/lease_cell.h): live counters (cells.h)
//   DIR/open-<stream>           mapped table of calls under way on one stream (open_table.h)
//   DIR/op-numbers              last op number of each partition (stream_writer.h)
//   DIR/<stream>-<number>.log   segments: header, then entries (metering/usage/journal_record.h), append-only (segment.h)
//   DIR/usage.sqlite            roll-ups (metering/billing), not written here
//
// All mapped files have their room on the disk from the start: a full disk is an error, never a SIGBUS.
//
// A stream belongs to one worker, plus one for the control plane (audit, marks): one writer each, no locks between them.
// Entries are copied into a mapped, preallocated segment: no system call an entry, and a kill -9 loses none. A thread
// makes them durable against power loss every `commit_interval` (group commit) and allocates the next segment ahead.
//
// kill -9 and open calls: begin_call() takes a place in the mapped table of open calls before the entry is written;
// charged() and sent() are one store into it; end_call() writes the entry and frees the place. On start every place in
// use becomes a call_end: sent -> interrupted (billable), charged -> void_charged, else void_maybe. No call is lost and
// none ends twice.
//
// Power loss (the boot id differs): cells are not trusted, a new incarnation begins; leases of the old one stay charged in
// the store until they leave the window. The table of open calls and the segments reached the disk at different moments, so
// all kept segments are read: a call is open when it has a begin and no end. Numbers of entries and calls go on 2^24 higher:
// what was lost may have been read already, and a number never names two things. The same after damage in a segment that was
// being written. Whole entries behind damage are kept. Place of the directory: a copy of it counts as another boot.
//
// Disk full, fsync error: writable() turns false while there is still room for what is under way: `reserve_bytes` of
// allocated segment. The caller then makes no new grants and, unless configured otherwise, lets no metered call through.
// It recovers by itself when there is room again. After a failed fdatasync the kernel may have dropped the dirty pages, so
// the segment is copied to a new file, which is made durable and takes its name.
//
// Retention (retention.h): segments older than `retention` whose calls are all rolled up (release_below) are deleted; what
// was never released stays. Beyond `max_bytes` the oldest released ones go first, then, logged and counted as lost, the
// oldest others.
//
// Threads: open, close and recovery by one; a Stream by its worker only; Reader objects by any thread, concurrently with
// writing (they stop at the last complete entry); the rest as noted.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "metering/base/error.h"
#include "metering/base/time.h"
#include "metering/journal/disk.h"
#include "metering/quota/lease_cell.h"
#include "metering/quota/lease_engine.h"
#include "metering/usage/entry_source.h"
#include "metering/usage/journal_record.h"

namespace tollgate::journal {

struct JournalOptions {
  std::string directory;  // made (0700) if missing; its parent must exist
  unsigned workers = 1;   // streams 0 .. workers-1, and "control"
  std::uint64_t segment_bytes = 64ULL << 20;
  std::uint64_t reserve_bytes = 4ULL << 20;
  std::size_t cells = 262'144;  // accounts, 512 bytes each on the disk. Grows with the setting, never shrinks
  std::uint32_t open_calls = 32'768;  // a stream
  Milliseconds commit_interval{1'000};
  Milliseconds retention{48 * 3'600'000};
  std::uint64_t max_bytes = 0;  // 0: no cap but the disk
  std::string version;          // for marks
  std::string boot_id;          // "" reads /proc/sys/kernel/random/boot_id
  std::uint64_t seed = 0;       // of a new incarnation; 0: from the system
  std::function<void(std::string_view level, std::string_view text)> log;  // any thread
  DiskCalls disk;  // empty: the system's own; tests put failures here
};

// What a start found.
struct Recovery {
  bool first = false;      // an empty directory
  bool clean = false;      // the last process closed it
  bool same_boot = false;  // cells are trusted
  std::uint64_t entries = 0, cells_in_use = 0;
  std::uint64_t interrupted = 0, void_charged = 0, void_maybe = 0;  // calls ended by recovery
  std::uint64_t damaged_segments = 0;
  std::string describe() const;  // one line for the log
};

// A call between begin and end; a value, valid on its stream only.
struct OpenCall {
  std::uint64_t call = 0;  // 0: none
  std::uint32_t place = 0;
};

class Stream {
 public:
  virtual ~Stream() = default;
  // nullopt: no room in segment or table; nothing was written. `begin.call` is set here.
  virtual std::optional<OpenCall> begin_call(usage::CallBeginView& begin) = 0;
  virtual void charged(OpenCall call) = 0;    // units were taken (or may have been, from now on)
  virtual void uncharged(OpenCall call) = 0;  // refused or given back: nothing is taken any more
  virtual void sent(OpenCall call) = 0;       // from now on the upstream may receive it
  virtual bool end_call(OpenCall call, usage::CallEnd& end) = 0;  // `end.call` is set here
  virtual bool append(usage::CallEnd& end) = 0;  // a call that began and charged nothing: `alone`
  virtual bool append(const usage::OpEntry& op) = 0;
  virtual bool append(const usage::SeatEntry& seat) = 0;
};

class Journal {
 public:
  static Result<std::unique_ptr<Journal>> open(JournalOptions options);
  ~Journal();  // commits; a clean stop
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  const Recovery& recovery() const;
  quota::Incarnation incarnation() const;
  std::span<quota::LeaseCell> cells();  // of this incarnation; zeroed when not trusted
  Stream& stream(unsigned worker);
  // The ops of an engine: appended to its worker's stream, read back from all streams (workers may have been more or
  // fewer in earlier runs). All on the worker's thread; read() goes through files: for replays only.
  quota::OpLog& op_log(unsigned worker);
  // Any thread; durable when it returns. An error: it may not be on the disk, the change should not be made.
  Result<void> audit(usage::AuditEntry entry);

  bool writable() const;                  // any thread
  std::string trouble() const;            // why not; "" when writable
  std::uint64_t pending_records() const;  // written, not yet durable
  Milliseconds flush_lag() const;         // age of the oldest of these, at most
  std::uint64_t bytes_on_disk() const;    // segments
  std::uint64_t lost_entries() const;     // deleted by max_bytes before they were rolled up, since the start
  Result<void> commit();                  // makes everything written so far durable; any thread, blocks
  // Everything of a stream below this entry number is rolled up: segments may be deleted once old enough. Kept in memory
  // only: to be said again after a start.
  void release_below(const std::string& stream, std::uint64_t number);

 private:
  struct Impl;
  explicit Journal(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Reads a journal directory, while a proxy writes it or not. Copies nothing; `body` views live during the visit.
//   Reader reader(dir);
//   reader.read("0", after, [](const Reader::Position& at, const usage::EntryView& entry) { ...; return true; });
class Reader final : public usage::EntrySource {
 public:
  explicit Reader(std::string directory);
  ~Reader() override;
  // Names the directory for good, whatever incarnations its proxies had.
  Result<std::uint32_t> incarnation() const override;
  Result<std::vector<StreamInfo>> streams() const override;
  Result<void> read(
      const std::string& stream, std::uint64_t after,
      const std::function<bool(const Position&, const usage::EntryView&)>& visit) const override;
  // Uses that live in the cells and are not yet in an op: (account, bucket) -> units, for reconciliation.
  struct LiveUse {
    std::string subject_key, field;
    Milliseconds window{0}, bucket{0};
    std::uint64_t unsettled = 0;
    std::uint64_t outstanding = 0;
  };
  Result<std::vector<LiveUse>> live() const;

 private:
  // How far a segment was listed and read, so that a reader that comes again looks at what is new.
  struct Seen;
  std::string directory_;
  std::unique_ptr<Seen> seen_;
};

}  // namespace tollgate::journal
