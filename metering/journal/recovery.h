// What an earlier process left, and what is made of it. Two steps, so that nothing is changed before it is known what to trust:
// inspect() only reads; end_open_calls() writes.
//
// Which calls get an end, exactly once, though recovery itself may be killed at any point of it:
//   killed process     the table of open calls is right (mapped memory outlives a process). The one place that may be behind
//                      the log is that of the last entry written: a begin not yet written, or an end written already.
//                      Looking at the last segment with entries (and all that are not closed) therefore settles it.
//   power loss         table and log were written back at different moments: all kept segments are read, a call is open
//                      when it has a begin and no end; the table only says how far it had come.
#pragma once
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "metering/base/error.h"
#include "metering/journal/journal.h"
#include "metering/journal/open_table.h"
#include "metering/journal/segment.h"
#include "metering/journal/stream_writer.h"

namespace tollgate::journal {

// After a power loss or damage numbers go on this far above the last one found: entries above it may have been read by
// somebody before they were lost, and a number must never name two things.
inline constexpr std::uint64_t kNumbersSkipped = 1ULL << 24;

struct FoundStream {
  std::string name;
  std::vector<SegmentRecord> records;
  std::vector<std::string> unused;  // allocated, never begun
  struct Unclosed {
    std::string path;
    SegmentClose close;
  };
  std::vector<Unclosed> unclosed;
  struct Damage {
    std::string path;
    std::vector<std::string> texts;
  };
  std::vector<Damage> damages;
  std::uint64_t last = 0, last_call = 0, last_segment = 0;
  std::uint64_t entries = 0;                    // kept
  std::set<std::uint64_t> ended;                // calls with an end in what was looked at
  std::map<std::uint64_t, std::uint32_t> open;  // all of it was looked at: calls without an end -> units
  // Highest op number by partition in what was looked at, of one incarnation.
  std::map<unsigned, std::uint64_t> op_numbers;
};

// `everything`: all segments are read, not only those at the end. `incarnation`: whose ops count.
Result<FoundStream> inspect(const std::string& stream, const std::vector<SegmentName>& segments,
                            bool everything, std::uint32_t incarnation);

// Closes what was being written, marks reported damage as known, removes what was never begun.
Result<void> close_segments(const FoundStream& found, std::int64_t now_ms);

// `places` are those in use in the writer's table. Counts into `recovery`.
Result<void> end_open_calls(const FoundStream& found, const std::vector<OpenTable::Found>& places,
                            bool everything, StreamWriter& writer, Recovery& recovery);

}  // namespace tollgate::journal
