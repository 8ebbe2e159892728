// What a stream has on disk, and where in it the ops of the quota engine are.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "metering/base/error.h"
#include "metering/journal/disk.h"
#include "metering/quota/keys.h"

namespace tollgate::journal {

// Where ops of one incarnation lie in a segment: first and last number by partition; 0: none.
struct OpIndex {
  struct Range {
    std::uint64_t first = 0, last = 0;
    void add(std::uint64_t seq);
  };
  std::array<Range, quota::kPartitions> partitions;
};

// A segment on disk.
struct SegmentRecord {
  std::uint64_t number = 0;
  std::string path;
  std::uint32_t incarnation = 0;
  std::int64_t began_ms = 0;
  std::uint64_t first = 1, last = 0, bytes = 0;  // last and bytes: once closed
  std::int64_t closed_ms = 0;                    // 0: being written
  std::shared_ptr<const OpIndex> ops;            // nullptr: not looked at yet
};

// The segments of one stream, oldest first. Any thread; all copies.
class SegmentList {
 public:
  void add(SegmentRecord record);
  void close(std::uint64_t number, std::uint64_t last, std::uint64_t bytes, std::int64_t closed_ms,
             std::shared_ptr<const OpIndex> ops);
  void set_ops(std::uint64_t number, std::shared_ptr<const OpIndex> ops);
  void forget(std::uint64_t number);
  std::vector<SegmentRecord> all() const;
  std::uint64_t bytes() const;

 private:
  mutable std::mutex mutex_;
  std::vector<SegmentRecord> records_;
};

// One last op number by partition, of the present incarnation, in a mapped file: what an idle partition had reached long after
// the segment with that op is gone.
//   DIR/op-numbers:  "TGOPNR01", u32 incarnation, u32 0, 256 x u64
class OpNumbers {
 public:
  static Result<OpNumbers> open(const std::string& path, std::uint32_t incarnation, const DiskCalls& calls);
  std::uint64_t last(unsigned partition) const;
  void set(unsigned partition, std::uint64_t seq);  // owner of the partition

 private:
  Mapping mapping_;
};

}  // namespace tollgate::journal
