// One segment: a file of entries of one stream, numbered without gaps.
//
//   DIR/<stream>-<number>.log, number from 1 in ten digits
//
// Bytes. NEVER CHANGE: journals are read by later versions. Little endian.
//
//   offset size
//     0     8   "TGJRNL01"; 8 zero bytes: allocated ahead, nothing in it yet. Written last when a segment begins
//     8     4   CRC-32C over bytes 12 .. 128
//    12     4   layout version, 1
//    16     4   incarnation that wrote it
//    20     4   where entries begin, 256
//    24     8   number of the first entry
//    32     8   number of the segment
//    40     8   when it began, ms since 1970
//    48     8   last entry number before it. first - 1; smaller where numbers were skipped, because a power loss may have taken
//               entries that somebody had read already
//    56     8   last call number before it
//    64    32   name of the stream, padded with zeros
//   128     4   1: closed, the rest counts; 0: being written, or its writer was killed. Written last when it is closed
//   132     4   CRC-32C over bytes 136 .. 168
//   136     8   end: offset behind the last entry; the file is cut 8 zero bytes later
//   144     8   number of the last entry; first - 1 when it has none
//   152     8   last call number
//   160     8   when it was closed, ms since 1970
//   256         entries (metering/usage/journal_record.h), each at a multiple of 8
//
// A file <segment>.damaged beside it says: the damage in it, or a gap before it, is known; read on behind it. Recovery makes
// one when it has reported a damaged tail, an operator (touch) for any other (docs/journal.md).
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/error.h"
#include "metering/journal/disk.h"
#include "metering/usage/journal_record.h"

namespace tollgate::journal {

inline constexpr std::uint64_t kSegmentHeaderBytes = 256;
inline constexpr std::uint64_t kSegmentBytesMin = 16 << 10;

struct SegmentStart {
  std::string stream;
  std::uint32_t incarnation = 0;
  std::uint64_t segment = 0;
  std::uint64_t first = 1;
  std::uint64_t last_before = 0;
  std::uint64_t call_before = 0;
  std::int64_t began_ms = 0;
};

struct SegmentClose {
  std::uint64_t end = 0;
  std::uint64_t last = 0;
  std::uint64_t last_call = 0;
  std::int64_t closed_ms = 0;
};

struct SegmentName {
  std::string stream;
  std::uint64_t number = 0;
  std::string path;
  std::uint64_t bytes = 0;
};
std::string segment_path(const std::string& directory, const std::string& stream, std::uint64_t number);
// All segment files of a directory, by stream, then number.
Result<std::vector<SegmentName>> list_segments(const std::string& directory);
std::string damage_mark(const std::string& segment_path);
bool damage_is_known(const std::string& segment_path);

// A segment being written. Allocated in full, so that no store into it can find the disk full.
class Segment {
 public:
  static Result<std::shared_ptr<Segment>> create(const std::string& path, std::uint64_t bytes,
                                                 const DiskCalls& calls);
  // An existing one, to close what a killed process left.
  static Result<std::shared_ptr<Segment>> open(const std::string& path);

  char* data() const { return mapping_.data(); }
  std::uint64_t bytes() const { return mapping_.size(); }
  int file() const { return file_.number(); }
  const std::string& path() const { return path_; }

  void begin(const SegmentStart& start);
  void close(const SegmentClose& close);
  // Behind the end nothing is needed any more. Only once nobody writes here.
  void cut(std::uint64_t end);
  void prepare(std::uint64_t from, std::uint64_t to) const { mapping_.prepare(from, to); }
  void renamed(std::string path) { path_ = std::move(path); }

  std::uint64_t end = 0;    // behind the last entry, once closed; guarded by the stream
  bool unsyncable = false;  // a sync of it failed: must be written anew; of the thread that commits

 private:
  Segment(File file, Mapping mapping, std::string path)
      : file_(std::move(file)), mapping_(std::move(mapping)), path_(std::move(path)) {}
  File file_;
  Mapping mapping_;
  std::string path_;
};

// A segment being read, while it is written or not.
class SegmentView {
 public:
  // nullopt: nothing in it yet. Error: cannot be read, is of a later version, or (`header_damaged` is set) has a damaged header.
  static Result<std::optional<SegmentView>> open(const std::string& path, bool* header_damaged = nullptr);

  const SegmentStart& start() const { return start_; }
  const std::optional<SegmentClose>& closed() const { return close_; }
  const std::string& path() const { return path_; }

  // An entry that was read before. A later walk that begins there need not look at those before it again.
  struct Place {
    std::uint64_t at;  // 0: none
    std::uint64_t number;
  };
  struct Walk {
    std::uint64_t end = kSegmentHeaderBytes;  // behind the last whole entry
    std::uint64_t last = 0;                   // its number; first - 1 when there is none
    Place place{};                            // of that entry
    std::vector<std::string> damages;         // with `around` only; where and what
    bool stopped = false;                     // by the visitor
  };
  using Visit = std::function<bool(const usage::EntryView&)>;
  // All entries up to the last whole one. Damage is an error, or with `around` reported and passed over.
  // `from`: begins with that entry if it is (still) there and whole, else with the first.
  Result<Walk> walk(bool around, const Visit& visit, Place from = {}) const;

 private:
  std::optional<std::uint64_t> find_next(std::uint64_t from, std::uint64_t limit, std::uint64_t number) const;
  std::string path_;
  Mapping mapping_;
  SegmentStart start_;
  std::optional<SegmentClose> close_;
};

}  // namespace tollgate::journal
