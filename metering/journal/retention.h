// Which segments may go. Pure: what there is and what time it is come in, a list of deletions goes out.
//
//   - never the one being written, never the newest of a stream (it carries the numbers on), never one that is not durable
//   - by age: closed longer ago than `retention`, and every entry of it below what was released (rolled up). So a journal
//     that nobody ever rolls up keeps everything
//   - by size: while there is more than `max_bytes`, the oldest released ones, however young; then, because a full disk would
//     stop everything, the oldest of the rest. That loses calls for billing: each such deletion is reported with its range
//
// In each stream the oldest goes first, so that what is kept has no holes.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "metering/base/time.h"
#include "metering/journal/stream_writer.h"

namespace tollgate::journal {

struct KeptStream {
  std::string name;
  std::vector<SegmentRecord> records;  // oldest first
  std::uint64_t released_below = 0;    // entry number; 0: nothing was ever released
  std::uint64_t durable = UINT64_MAX;  // last durable entry
};

struct Deletion {
  std::string stream;
  std::uint64_t segment = 0;
  std::string path;
  std::uint64_t first = 0, last = 0, bytes = 0;
  bool unreleased = false;  // its entries were not rolled up: lost
};

std::vector<Deletion> choose_deletions(const std::vector<KeptStream>& streams, std::int64_t now_ms,
                                       Milliseconds retention, std::uint64_t max_bytes);

}  // namespace tollgate::journal
