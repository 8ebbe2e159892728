#include "metering/journal/op_log.h"

#include <algorithm>
#include <vector>

namespace tollgate::journal {

usage::OpEntry entry_of(const quota::Op& op) {
  usage::OpEntry entry;
  entry.incarnation = op.incarnation;
  entry.partition = op.partition;
  entry.seq = op.seq;
  entry.subject_key = op.subject_key;
  entry.accounts.reserve(op.accounts.size());
  for (const quota::OpAccount& account : op.accounts) {
    auto& made = entry.accounts.emplace_back();
    made.field = account.field;
    made.window_ms = static_cast<std::uint64_t>(account.window.count());
    made.bucket_ms = static_cast<std::uint64_t>(account.bucket.count());
    made.limit = account.limit;
    made.returned = account.returned;
    made.forget = account.forget;
    made.uses.reserve(account.uses.size());
    for (const quota::BucketUse& use : account.uses) made.uses.emplace_back(use.bucket, use.units);
  }
  return entry;
}

quota::Op op_of(const usage::OpEntry& entry) {
  quota::Op op;
  op.incarnation = entry.incarnation;
  op.partition = entry.partition;
  op.seq = entry.seq;
  op.subject_key = entry.subject_key;
  op.accounts.reserve(entry.accounts.size());
  for (const usage::OpEntry::Account& account : entry.accounts) {
    auto& made = op.accounts.emplace_back();
    made.field = account.field;
    made.window = Milliseconds(account.window_ms);
    made.bucket = Milliseconds(account.bucket_ms);
    made.limit = account.limit;
    made.returned = account.returned;
    made.forget = account.forget;
    made.uses.reserve(account.uses.size());
    for (const auto& [bucket, units] : account.uses) made.uses.push_back({bucket, units});
  }
  return op;
}

bool StreamOpLog::append(const quota::Op& op) {
  return writer_.append(entry_of(op));
}

std::uint64_t StreamOpLog::last_seq(unsigned partition) {
  return shared_.op_numbers->last(partition);
}

std::shared_ptr<const OpIndex> StreamOpLog::index_of(SegmentList& list, const SegmentRecord& record) {
  if (record.ops) return record.ops;
  auto index = std::make_shared<OpIndex>();
  if (record.incarnation == shared_.incarnation) {
    const auto view = SegmentView::open(record.path);
    if (view && *view) {
      const auto walk = (*view)->walk(true, [&](const usage::EntryView& entry) {
        if (entry.kind != usage::EntryKind::op) return true;
        const auto op = usage::decode_op_number(entry.body);
        if (op && op->incarnation == shared_.incarnation && op->partition < quota::kPartitions)
          index->partitions[op->partition].add(op->seq);
        return true;
      });
      for (const std::string& damage : walk ? walk->damages : std::vector<std::string>{})
        shared_.log("error", "journal: while looking for ops: " + damage);
    } else if (!view) {
      shared_.log("error", view.error().message);
    }
  }
  list.set_ops(record.number, index);
  return index;
}

std::uint64_t StreamOpLog::read(unsigned partition, std::uint64_t after, std::uint64_t up_to,
                                const std::function<void(const quota::Op&)>& visit) {
  if (up_to <= after) return after + 1;
  struct Source {
    SegmentList* list;
    SegmentRecord record;
    bool current;
  };
  std::vector<Source> sources;
  for (auto& [name, list] : lists_)
    for (SegmentRecord& record : list->all()) {
      const bool current = name == writer_.name() && record.number == writer_.current_segment();
      // What another worker writes now holds nothing of a partition that is ours.
      if (record.closed_ms != 0 || current) sources.push_back({list.get(), std::move(record), current});
    }
  // Youngest first. The calendar may have been stepped back between two of them, so the search ends when there is nothing
  // missing, not at the first old enough one.
  std::ranges::stable_sort(
      sources, [](const Source& a, const Source& b) { return a.record.began_ms > b.record.began_ms; });
  struct Piece {
    OpIndex::Range range;
    std::string path;
  };
  std::vector<Piece> pieces;
  const auto complete = [&] {
    std::ranges::sort(pieces, {}, [](const Piece& piece) { return piece.range.first; });
    std::uint64_t covered = after;
    for (const Piece& piece : pieces)
      if (piece.range.first <= covered + 1) covered = std::max(covered, piece.range.last);
    return covered >= up_to;
  };
  for (const Source& source : sources) {
    const std::shared_ptr<const OpIndex> kept =
        source.current ? nullptr : index_of(*source.list, source.record);
    const OpIndex::Range range = (source.current ? writer_.current_ops() : *kept).partitions[partition];
    if (range.first == 0 || range.first > up_to || range.last <= after) continue;
    pieces.push_back({range, source.record.path});
    if (complete()) break;
  }
  std::uint64_t done = after, first_kept = 0;
  for (const Piece& piece : pieces) {
    const auto view = SegmentView::open(piece.path);
    if (!view || !*view) continue;  // deleted a moment ago: the first number kept says so
    [[maybe_unused]] const auto walk = (*view)->walk(true, [&](const usage::EntryView& entry) {
      if (entry.kind != usage::EntryKind::op) return true;
      const auto number = usage::decode_op_number(entry.body);
      if (!number || number->incarnation != shared_.incarnation || number->partition != partition ||
          number->seq <= done)
        return true;
      if (number->seq > up_to) return false;
      const auto op = usage::decode_op(entry.body);
      if (!op) return true;
      if (first_kept == 0) first_kept = op->seq;
      done = op->seq;
      visit(op_of(*op));
      return true;
    });
  }
  // Nothing of it is kept: the first number that is, is one behind.
  return first_kept != 0 ? first_kept : up_to + 1;
}

}  // namespace tollgate::journal
