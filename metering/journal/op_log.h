// The ops of one worker's engine, on its stream; read back from the segments of all streams, because in earlier runs the
// partition may have belonged to another worker.
//
// Ops of a partition are numbered in the order of time, whatever stream they went to. So read() goes through the segments from
// the youngest to the oldest until it has the first number asked for, then visits what it found from the oldest on. Which
// partitions a segment holds is remembered after the first look at it; segments written by this process are known anyway.
//
// Threads: all functions on the worker's thread.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "metering/journal/stream_writer.h"
#include "metering/quota/lease_engine.h"

namespace tollgate::journal {

usage::OpEntry entry_of(const quota::Op& op);
quota::Op op_of(const usage::OpEntry& entry);

class StreamOpLog final : public quota::OpLog {
 public:
  using Lists = std::map<std::string, std::unique_ptr<SegmentList>>;
  StreamOpLog(StreamWriter& writer, Lists& lists, Shared& shared)
      : writer_(writer), lists_(lists), shared_(shared) {}

  bool append(const quota::Op& op) override;
  std::uint64_t read(unsigned partition, std::uint64_t after, std::uint64_t up_to,
                     const std::function<void(const quota::Op&)>& visit) override;
  std::uint64_t last_seq(unsigned partition) override;

 private:
  std::shared_ptr<const OpIndex> index_of(SegmentList& list, const SegmentRecord& record);

  StreamWriter& writer_;
  Lists& lists_;  // its keys do not change while the journal is open
  Shared& shared_;
};

}  // namespace tollgate::journal
