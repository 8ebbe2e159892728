#include "metering/journal/retention.h"

#include <algorithm>

namespace tollgate::journal {

std::vector<Deletion> choose_deletions(const std::vector<KeptStream>& streams, std::int64_t now_ms,
                                       Milliseconds retention, std::uint64_t max_bytes) {
  std::vector<Deletion> deletions;
  std::vector<std::size_t> gone(streams.size(), 0);  // how many of each stream, from the oldest
  std::uint64_t bytes = 0;
  for (const KeptStream& stream : streams)
    for (const SegmentRecord& record : stream.records) bytes += record.bytes;

  const auto oldest = [&](std::size_t s) -> const SegmentRecord* {
    const auto& records = streams[s].records;
    if (gone[s] + 1 >= records.size()) return nullptr;
    const SegmentRecord& record = records[gone[s]];
    return record.closed_ms == 0 || record.last > streams[s].durable ? nullptr : &record;
  };
  const auto released = [&](std::size_t s, const SegmentRecord& record) {
    return record.last < record.first || record.last < streams[s].released_below;
  };
  const auto drop = [&](std::size_t s) {
    const SegmentRecord& record = streams[s].records[gone[s]++];
    deletions.push_back({.stream = streams[s].name,
                         .segment = record.number,
                         .path = record.path,
                         .first = record.first,
                         .last = record.last,
                         .bytes = record.bytes,
                         .unreleased = !released(s, record)});
    bytes -= std::min(bytes, record.bytes);
  };

  for (std::size_t s = 0; s < streams.size(); ++s)
    for (const SegmentRecord* record = oldest(s);
         record != nullptr && released(s, *record) && record->closed_ms + retention.count() < now_ms;
         record = oldest(s))
      drop(s);

  for (const bool forced : {false, true}) {
    while (max_bytes != 0 && bytes > max_bytes) {
      std::size_t best = streams.size();
      for (std::size_t s = 0; s < streams.size(); ++s) {
        const SegmentRecord* record = oldest(s);
        if (record == nullptr || (!forced && !released(s, *record))) continue;
        if (best == streams.size() || record->closed_ms < oldest(best)->closed_ms) best = s;
      }
      if (best == streams.size()) break;
      drop(best);
    }
  }
  return deletions;
}

}  // namespace tollgate::journal
