// Reader: the streams of a directory, segment after segment. Holds no lock and asks nobody: what it sees is what writers have
// completed.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <mutex>

#include "metering/journal/directory.h"
#include "metering/journal/journal.h"
#include "metering/journal/segment.h"

namespace tollgate::journal {
namespace {

// Segments disappear (retention) and appear while one looks; an opened one stays readable.
struct Opened {
  SegmentName name;
  std::optional<SegmentView> view;  // nullopt: its header is damaged, and that is known
};

Result<std::optional<Opened>> open_segment(const SegmentName& name) {
  bool damaged = false;
  auto view = SegmentView::open(name.path, &damaged);
  if (!view) {
    if (damaged && damage_is_known(name.path)) return Opened{name, std::nullopt};
    return std::unexpected(view.error());
  }
  if (!*view) return std::nullopt;
  return Opened{name, std::move(**view)};
}

}  // namespace

// By path of the segment. A place is only taken from a walk that met no damage, and only used where the entry still is.
struct Reader::Seen {
  struct Places {
    SegmentView::Place listed, read;
  };
  std::mutex mutex;
  std::map<std::string, Places> segments;

  SegmentView::Place of(const std::string& path, SegmentView::Place Places::* which) {
    const std::lock_guard lock(mutex);
    const auto found = segments.find(path);
    return found == segments.end() ? SegmentView::Place{} : found->second.*which;
  }
  void note(const std::string& path, SegmentView::Place Places::* which, const SegmentView::Walk& walk) {
    if (!walk.damages.empty() || walk.place.at == 0) return;
    const std::lock_guard lock(mutex);
    segments[path].*which = walk.place;
  }
  void keep_only(const std::vector<SegmentName>& names) {
    const std::lock_guard lock(mutex);
    std::erase_if(segments, [&](const auto& one) {
      return std::ranges::find(names, one.first, &SegmentName::path) == names.end();
    });
  }
  Result<std::uint64_t> last_number(const Opened& opened) {
    if (!opened.view) return std::uint64_t{0};
    if (opened.view->closed()) return opened.view->closed()->last;
    const auto walk = opened.view->walk(
        true, [](const usage::EntryView&) { return true; }, of(opened.name.path, &Places::listed));
    if (!walk) return std::unexpected(walk.error());
    note(opened.name.path, &Places::listed, *walk);
    return walk->last;
  }
};

Reader::Reader(std::string directory) : directory_(std::move(directory)), seen_(std::make_unique<Seen>()) {}
Reader::~Reader() = default;

Result<std::uint32_t> Reader::incarnation() const {
  const auto identity = read_identity(directory_);
  if (!identity) return std::unexpected(identity.error());
  if (!*identity)
    return fail(Origin::config, "journal: " + directory_ + " is not a journal: it has no identity");
  return (*identity)->journal;
}

Result<std::vector<Reader::StreamInfo>> Reader::streams() const {
  const auto segments = list_segments(directory_);
  if (!segments) return std::unexpected(segments.error());
  seen_->keep_only(*segments);
  std::map<std::string, StreamInfo> streams;
  for (const SegmentName& name : *segments) {
    const auto opened = open_segment(name);
    if (!opened && !damage_is_known(name.path)) {
      // read() will say what is wrong with it; whatever else is there can be listed.
      StreamInfo& info = streams[name.stream];
      info.name = name.stream;
      ++info.segments;
      info.bytes += name.bytes;
      continue;
    }
    if (!opened || !*opened) continue;
    StreamInfo& info = streams[name.stream];
    info.name = name.stream;
    ++info.segments;
    info.bytes += name.bytes;
    if (!(*opened)->view) continue;
    const auto last = seen_->last_number(**opened);
    if (!last) return std::unexpected(last.error());
    const std::uint64_t first = (*opened)->view->start().first;
    if (info.first == 0 || info.last + 1 == info.first) info.first = first;  // nothing was in those before it
    info.last = std::max(info.last, *last);
  }
  std::vector<StreamInfo> list;
  for (auto& [name, info] : streams)
    if (info.first != 0) list.push_back(std::move(info));
  return list;
}

Result<void> Reader::read(const std::string& stream, std::uint64_t after,
                          const std::function<bool(const Position&, const usage::EntryView&)>& visit) const {
  const auto segments = list_segments(directory_);
  if (!segments) return std::unexpected(segments.error());
  std::vector<SegmentName> names;
  for (const SegmentName& name : *segments)
    if (name.stream == stream) names.push_back(name);

  Position at{.stream = stream, .number = 0};
  std::uint64_t seen = after, last = 0;  // last: entry number before the segment at hand
  bool stopped = false;
  const auto read_one = [&](const SegmentView& view, bool around) -> Result<void> {
    SegmentView::Place from = seen_->of(view.path(), &Seen::Places::read);
    if (from.number > seen + 1) from = {};
    const auto walk = view.walk(
        around,
        [&](const usage::EntryView& entry) {
          if (entry.number <= seen) return true;
          at.number = seen = entry.number;
          return visit(at, entry);
        },
        from);
    if (!walk) return std::unexpected(walk.error());
    seen_->note(view.path(), &Seen::Places::read, *walk);
    stopped = walk->stopped;
    last = view.closed() ? std::max(walk->last, view.closed()->last) : walk->last;
    return {};
  };

  const SegmentName* unfinished = nullptr;  // was being written when it was read
  bool any = false, around_before = false;
  for (const SegmentName& name : names) {
    const bool around = damage_is_known(name.path);
    const auto opened = open_segment(name);
    if (!opened) return std::unexpected(opened.error());
    if (!*opened) continue;
    if (!(*opened)->view) {
      around_before = true;
      continue;
    }
    const SegmentView& view = *(*opened)->view;
    const SegmentStart& start = view.start();
    if (unfinished != nullptr && start.last_before > last) {  // and went on until this one began
      const auto again = open_segment(*unfinished);
      if (!again) return std::unexpected(again.error());
      if (*again && (*again)->view)
        if (auto read = read_one(*(*again)->view, around_before); !read || stopped) return read;
    }
    if (any && start.last_before != last && start.first > seen + 1 && !around && !around_before)
      return fail(Origin::self,
                  fmt::format("journal: {}: begins after entry {}, but the one before it ends with {}: {}",
                              name.path, start.last_before, last, "entries are missing"));
    any = true;
    around_before = around;
    unfinished = nullptr;
    last = start.first - 1;
    if (view.closed() && view.closed()->last <= after) {
      last = view.closed()->last;
      continue;
    }
    if (!view.closed()) unfinished = &name;
    if (auto read = read_one(view, around); !read || stopped) return read;
  }
  return {};
}

}  // namespace tollgate::journal
