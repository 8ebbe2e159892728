#include "metering/journal/recovery.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace tollgate::journal {
namespace {

// Entries of one segment into what is known of the stream.
class Collector {
 public:
  Collector(FoundStream& found, std::uint32_t incarnation) : found_(found), incarnation_(incarnation) {}

  bool operator()(const usage::EntryView& entry) {
    switch (entry.kind) {
      case usage::EntryKind::call_begin:
        if (const auto begin = usage::decode_call_begin(entry.body)) {
          std::uint64_t units = 0;
          for (const auto& operation : begin->operations) units += operation.count;
          found_.open[begin->call] = static_cast<std::uint32_t>(std::min<std::uint64_t>(units, UINT32_MAX));
          found_.last_call = std::max(found_.last_call, begin->call);
        }
        break;
      case usage::EntryKind::call_end:
        if (const auto end = usage::decode_call_end(entry.body); end && end->call != 0) {
          found_.ended.insert(end->call);
          found_.open.erase(end->call);
          found_.last_call = std::max(found_.last_call, end->call);
        }
        break;
      case usage::EntryKind::op:
        if (const auto op = usage::decode_op_number(entry.body); op && op->incarnation == incarnation_) {
          std::uint64_t& last = found_.op_numbers[op->partition];
          last = std::max(last, op->seq);
        }
        break;
      default:
        break;
    }
    return true;
  }

 private:
  FoundStream& found_;
  std::uint32_t incarnation_;
};

Result<void> inspect_segment(const SegmentView& view, const SegmentName& name, bool look,
                             std::uint32_t incarnation, FoundStream& found) {
  const SegmentStart& start = view.start();
  SegmentRecord record{.number = name.number,
                       .path = name.path,
                       .incarnation = start.incarnation,
                       .began_ms = start.began_ms,
                       .first = start.first,
                       .last = start.first - 1,
                       .bytes = name.bytes,
                       .closed_ms = start.began_ms,
                       .ops = nullptr};
  found.last_call = std::max(found.last_call, start.call_before);
  if (view.closed()) {
    record.last = view.closed()->last;
    record.closed_ms = view.closed()->closed_ms;
    found.last_call = std::max(found.last_call, view.closed()->last_call);
  }
  if (look || !view.closed()) {
    auto walk = view.walk(true, Collector(found, incarnation));
    if (!walk) return std::unexpected(walk.error());
    record.last = std::max(record.last, walk->last);
    if (!walk->damages.empty() && !damage_is_known(name.path))
      found.damages.push_back({name.path, walk->damages});
    if (!view.closed())
      found.unclosed.push_back(
          {name.path, {.end = walk->end, .last = walk->last, .last_call = found.last_call}});
  }
  found.entries += record.last + 1 - record.first;
  found.last = std::max(found.last, record.last);
  found.records.push_back(std::move(record));
  return {};
}

}  // namespace

Result<FoundStream> inspect(const std::string& stream, const std::vector<SegmentName>& segments,
                            bool everything, std::uint32_t incarnation) {
  FoundStream found;
  found.name = stream;
  struct Opened {
    const SegmentName* name;
    SegmentView view;
  };
  std::vector<Opened> opened;
  for (const SegmentName& name : segments) {
    if (name.stream != stream) continue;
    found.last_segment = std::max(found.last_segment, name.number);
    bool damaged = false;
    auto view = SegmentView::open(name.path, &damaged);
    if (!view && !damaged) return std::unexpected(view.error());
    if (!view) {
      if (!damage_is_known(name.path)) found.damages.push_back({name.path, {view.error().message}});
    } else if (!*view) {
      found.unused.push_back(name.path);
    } else {
      opened.push_back({&name, std::move(**view)});
    }
  }
  // The last one with entries is looked at even when it is closed: see above.
  std::size_t look_from = opened.size();
  while (look_from > 0) {
    --look_from;
    const auto& closed = opened[look_from].view.closed();
    if (closed && closed->last >= opened[look_from].view.start().first) break;
    if (!closed && opened[look_from].view.walk(true, [](const usage::EntryView&) { return false; })->stopped)
      break;
  }
  for (std::size_t i = 0; i < opened.size(); ++i)
    if (auto done = inspect_segment(opened[i].view, *opened[i].name, everything || i >= look_from,
                                    incarnation, found);
        !done)
      return std::unexpected(done.error());
  return found;
}

Result<void> close_segments(const FoundStream& found, std::int64_t now_ms) {
  for (const FoundStream::Damage& damage : found.damages)
    if (auto mark = open_file(damage_mark(damage.path), O_WRONLY | O_CREAT); !mark)
      return std::unexpected(mark.error());
  for (const FoundStream::Unclosed& unclosed : found.unclosed) {
    auto segment = Segment::open(unclosed.path);
    if (!segment) return std::unexpected(segment.error());
    SegmentClose close = unclosed.close;
    close.closed_ms = now_ms;
    (*segment)->close(close);
    if (::fdatasync((*segment)->file()) != 0) return system_error("make durable", unclosed.path, errno);
    const bool damaged = std::ranges::any_of(
        found.damages, [&](const FoundStream::Damage& damage) { return damage.path == unclosed.path; });
    if (!damaged) (*segment)->cut(close.end);
  }
  for (const std::string& path : found.unused) ::unlink(path.c_str());
  return {};
}

Result<void> end_open_calls(const FoundStream& found, const std::vector<OpenTable::Found>& places,
                            bool everything, StreamWriter& writer, Recovery& recovery) {
  const auto full = [&] {
    return fail(Origin::self,
                fmt::format("journal: no room to end the calls that were under way on stream {}: {}",
                            found.name, writer.trouble()));
  };
  const auto make_end = [&](std::uint64_t call, CallState state, std::uint32_t units) {
    usage::CallEnd end;
    end.call = call;
    switch (state) {
      case CallState::sent:
        end.outcome = usage::CallOutcome::interrupted;
        end.reason = "interrupted";
        end.units = units;
        ++recovery.interrupted;
        break;
      case CallState::charged:
        end.outcome = usage::CallOutcome::void_charged;
        end.reason = "void_charged";
        ++recovery.void_charged;
        break;
      default:
        end.outcome = usage::CallOutcome::void_maybe;
        end.reason = "void_maybe";
        ++recovery.void_maybe;
    }
    return end;
  };
  std::map<std::uint64_t, std::uint32_t> open =
      everything ? found.open : std::map<std::uint64_t, std::uint32_t>{};
  for (const OpenTable::Found& place : places) {
    const bool under_way = everything ? open.erase(place.call) != 0
                                      : place.call <= found.last_call && !found.ended.contains(place.call);
    if (!under_way) {
      writer.discard(place.place);
      continue;
    }
    usage::CallEnd end = make_end(place.call, place.state, place.units);
    if (!writer.end_call({place.call, place.place}, end)) return full();
  }
  for (const auto& [call, units] : open) {  // no place tells of them
    std::string body;
    usage::encode(make_end(call, CallState::begun, units), body);
    if (!writer.append(usage::EntryKind::call_end, body)) return full();
  }
  return {};
}

}  // namespace tollgate::journal
