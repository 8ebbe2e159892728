// The calls under way on one stream, in a mapped file: what a killed process had begun and not ended.
//
//   DIR/open-<stream>      NEVER CHANGE within layout 1
//     0   8  "TGOPEN01"
//     8   4  number of places
//    16      places of 16 bytes:  u64 call << 2 | state;  u32 billable units of the call;  u32 0
//
//   state   0 free ─begin─> 1 begun ─charged─> 2 charged ─sent─> 3 sent;  uncharged: back to 1;  end: back to 0
//
// One store of the first word is one change: a kill -9 leaves the place before it or after it. Taken before the call_begin
// is written and freed after the call_end is: a place in use whose call has no begin was never begun, one whose call has an
// end was ended (recovery.h looks at both).
//
// Threads: begin() .. release() by the writer of the stream; each() when nobody writes.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "metering/base/error.h"
#include "metering/journal/disk.h"

namespace tollgate::journal {

enum class CallState : std::uint8_t { free = 0, begun = 1, charged = 2, sent = 3 };

class OpenTable {
 public:
  // Made, or grown to `places`; never shrinks.
  static Result<OpenTable> open(const std::string& path, std::uint32_t places, const DiskCalls& calls);

  // The place; UINT32_MAX when all are in use.
  std::uint32_t begin(std::uint64_t call, std::uint32_t units);
  void set(std::uint32_t place, std::uint64_t call, CallState state);
  void release(std::uint32_t place);
  std::uint64_t call(std::uint32_t place) const;
  std::uint32_t in_use() const { return places_ - static_cast<std::uint32_t>(free_.size()); }

  struct Found {
    std::uint32_t place = 0;
    std::uint64_t call = 0;
    CallState state = CallState::free;
    std::uint32_t units = 0;
  };
  std::vector<Found> found() const;  // places in use, by call

 private:
  char* at(std::uint32_t place) const;
  Mapping mapping_;
  std::uint32_t places_ = 0;
  std::vector<std::uint32_t> free_;
};

}  // namespace tollgate::journal
