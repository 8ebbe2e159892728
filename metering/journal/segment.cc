#include "metering/journal/segment.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "metering/base/check.h"
#include "metering/base/words.h"

namespace tollgate::journal {
namespace {

constexpr std::string_view kMagic = "TGJRNL01";
constexpr std::uint32_t kLayout = 1;
constexpr std::size_t kStreamNameMax = 32;
constexpr std::size_t kStartBytes = 128, kCloseAt = 128, kCloseBytes = 40;

template <class T>
T load_acquire(const char* at) {
  return __atomic_load_n(reinterpret_cast<const T*>(at), __ATOMIC_ACQUIRE);
}

std::optional<SegmentName> parse_name(std::string_view name) {
  constexpr std::string_view kEnd = ".log";
  if (!name.ends_with(kEnd)) return std::nullopt;
  name.remove_suffix(kEnd.size());
  const std::size_t dash = name.rfind('-');
  if (dash == std::string_view::npos || dash == 0 || dash > kStreamNameMax) return std::nullopt;
  const std::string_view digits = name.substr(dash + 1);
  SegmentName found;
  found.stream = name.substr(0, dash);
  // Another program's log in our directory is not a damaged segment.
  if (found.stream != "control" && found.stream.find_first_not_of("0123456789") != std::string::npos)
    return std::nullopt;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), found.number);
  if (error != std::errc{} || end != digits.data() + digits.size() || found.number == 0) return std::nullopt;
  return found;
}

}  // namespace

std::string segment_path(const std::string& directory, const std::string& stream, std::uint64_t number) {
  return fmt::format("{}/{}-{:010}.log", directory, stream, number);
}

std::string damage_mark(const std::string& segment_path) {
  return segment_path + ".damaged";
}

bool damage_is_known(const std::string& segment_path) {
  return ::access(damage_mark(segment_path).c_str(), F_OK) == 0;
}

Result<std::vector<SegmentName>> list_segments(const std::string& directory) {
  std::unique_ptr<DIR, int (*)(DIR*)> listing(::opendir(directory.c_str()), ::closedir);
  if (!listing) return system_error("list", directory, errno);
  std::vector<SegmentName> segments;
  while (const dirent* entry = ::readdir(listing.get())) {
    auto segment = parse_name(entry->d_name);
    if (!segment) continue;
    segment->path = directory + "/" + entry->d_name;
    auto file = open_file(segment->path, O_RDONLY);
    if (!file) continue;  // deleted since: retention
    auto bytes = file_size(*file, segment->path);
    if (!bytes) return std::unexpected(bytes.error());
    segment->bytes = *bytes;
    segments.push_back(std::move(*segment));
  }
  std::ranges::sort(segments, [](const SegmentName& a, const SegmentName& b) {
    return a.stream != b.stream ? a.stream < b.stream : a.number < b.number;
  });
  return segments;
}

// ---- writing

Result<std::shared_ptr<Segment>> Segment::create(const std::string& path, std::uint64_t bytes,
                                                 const DiskCalls& calls) {
  auto file = open_file(path, O_RDWR | O_CREAT | O_TRUNC);
  if (!file) return std::unexpected(file.error());
  const int failed = calls.allocate(file->number(), bytes);
  if (failed != 0) {
    ::unlink(path.c_str());
    return system_error(fmt::format("allocate {} bytes for", bytes), path, failed);
  }
  auto mapping = Mapping::map(*file, bytes, true, path);
  if (!mapping) {
    ::unlink(path.c_str());
    return std::unexpected(mapping.error());
  }
  mapping->no_read_ahead();
  return std::shared_ptr<Segment>(new Segment(std::move(*file), std::move(*mapping), path));
}

Result<std::shared_ptr<Segment>> Segment::open(const std::string& path) {
  auto file = open_file(path, O_RDWR);
  if (!file) return std::unexpected(file.error());
  auto bytes = file_size(*file, path);
  if (!bytes) return std::unexpected(bytes.error());
  if (*bytes < kSegmentHeaderBytes)
    return fail(Origin::self, "journal: " + path + ": too short for a segment");
  auto mapping = Mapping::map(*file, *bytes, true, path);
  if (!mapping) return std::unexpected(mapping.error());
  return std::shared_ptr<Segment>(new Segment(std::move(*file), std::move(*mapping), path));
}

void Segment::begin(const SegmentStart& start) {
  CHECK(start.stream.size() <= kStreamNameMax, "a stream's name has at most 32 bytes");
  char* at = data();
  store_word(at + 12, kLayout);
  store_word(at + 16, start.incarnation);
  store_word(at + 20, static_cast<std::uint32_t>(kSegmentHeaderBytes));
  store_word(at + 24, start.first);
  store_word(at + 32, start.segment);
  store_word(at + 40, start.began_ms);
  store_word(at + 48, start.last_before);
  store_word(at + 56, start.call_before);
  std::memcpy(at + 64, start.stream.data(), start.stream.size());
  store_word(at + 8, usage::crc32c({at + 12, kStartBytes - 12}));
  __atomic_store_n(reinterpret_cast<std::uint64_t*>(at), load_word<std::uint64_t>(kMagic.data()),
                   __ATOMIC_RELEASE);
}

void Segment::close(const SegmentClose& close) {
  char* at = data() + kCloseAt;
  store_word(at + 8, close.end);
  store_word(at + 16, close.last);
  store_word(at + 24, close.last_call);
  store_word(at + 32, close.closed_ms);
  store_word(at + 4, usage::crc32c({at + 8, kCloseBytes - 8}));
  end = close.end;
  __atomic_store_n(reinterpret_cast<std::uint32_t*>(at), 1U, __ATOMIC_RELEASE);
}

void Segment::cut(std::uint64_t where) {
  // The zero length behind the last entry stays: a reader who mapped the file before will look at it. A file that stays longer
  // than it must be is only space.
  if (where + 8 < bytes()) [[maybe_unused]]
    const int ignored = ::ftruncate(file_.number(), static_cast<off_t>(where + 8));
}

// ---- reading

Result<std::optional<SegmentView>> SegmentView::open(const std::string& path, bool* header_damaged) {
  const auto damaged = [&](std::string_view what) {
    if (header_damaged != nullptr) *header_damaged = true;
    return fail(Origin::self, fmt::format("journal: {}: damaged header: {}", path, what));
  };
  auto file = open_file(path, O_RDONLY);
  if (!file) return std::unexpected(file.error());
  auto bytes = file_size(*file, path);
  if (!bytes) return std::unexpected(bytes.error());
  if (*bytes == 0) return std::nullopt;
  if (*bytes < kSegmentHeaderBytes) return damaged("the file is cut off");
  auto mapping = Mapping::map(*file, *bytes, false, path);
  if (!mapping) return std::unexpected(mapping.error());
  SegmentView view;
  view.path_ = path;
  view.mapping_ = std::move(*mapping);
  const char* at = view.mapping_.data();
  const auto magic = load_acquire<std::uint64_t>(at);
  if (magic == 0) return std::nullopt;
  if (magic != load_word<std::uint64_t>(kMagic.data())) return damaged("not a journal segment");
  if (load_word<std::uint32_t>(at + 8) != usage::crc32c({at + 12, kStartBytes - 12}))
    return damaged("checksum differs");
  if (load_word<std::uint32_t>(at + 12) != kLayout ||
      load_word<std::uint32_t>(at + 20) != kSegmentHeaderBytes)
    return fail(Origin::self, fmt::format("journal: {}: layout {} is of a later version", path,
                                          load_word<std::uint32_t>(at + 12)));
  SegmentStart& start = view.start_;
  start.incarnation = load_word<std::uint32_t>(at + 16);
  start.first = load_word<std::uint64_t>(at + 24);
  start.segment = load_word<std::uint64_t>(at + 32);
  start.began_ms = load_word<std::int64_t>(at + 40);
  start.last_before = load_word<std::uint64_t>(at + 48);
  start.call_before = load_word<std::uint64_t>(at + 56);
  start.stream.assign(at + 64, ::strnlen(at + 64, kStreamNameMax));
  const char* closing = at + kCloseAt;
  if (load_acquire<std::uint32_t>(closing) != 0) {
    if (load_word<std::uint32_t>(closing) != 1 ||
        load_word<std::uint32_t>(closing + 4) != usage::crc32c({closing + 8, kCloseBytes - 8}))
      return damaged("checksum of the closing part differs");
    SegmentClose close;
    close.end = load_word<std::uint64_t>(closing + 8);
    close.last = load_word<std::uint64_t>(closing + 16);
    close.last_call = load_word<std::uint64_t>(closing + 24);
    close.closed_ms = load_word<std::int64_t>(closing + 32);
    view.close_ = close;
  }
  return std::optional<SegmentView>(std::move(view));
}

Result<SegmentView::Walk> SegmentView::walk(bool around, const Visit& visit, Place from) const {
  const std::string_view all = mapping_.bytes();
  const std::uint64_t limit = close_ ? std::min<std::uint64_t>(close_->end, all.size()) : all.size();
  Walk walk;
  walk.last = start_.first - 1;
  std::uint64_t at = kSegmentHeaderBytes;
  if (from.at >= at && from.at < limit && from.number > walk.last) {
    const auto entry = usage::parse_entry(all.substr(from.at, limit - from.at));
    if (entry && *entry && (*entry)->number == from.number) {
      at = walk.end = from.at;
      walk.last = from.number - 1;
    }
  }
  while (at < limit) {
    std::string wrong;
    std::optional<usage::EntryView> entry;
    if (limit - at >= sizeof(std::uint32_t) && load_acquire<std::uint32_t>(all.data() + at) == 0) {
      if (!close_) break;  // the end of what was written
      wrong = "an entry's length is 0 before the end";
    } else if (auto parsed = usage::parse_entry(all.substr(at, limit - at)); !parsed) {
      wrong = parsed.error().message;
    } else if (!*parsed) {
      break;
    } else if ((*parsed)->number != walk.last + 1 &&
               !(around && !walk.damages.empty() && (*parsed)->number > walk.last)) {
      wrong = fmt::format("entry {} where {} is due", (*parsed)->number, walk.last + 1);
    } else {
      entry = **parsed;
    }
    if (entry) {
      if (!visit(*entry)) {
        walk.stopped = true;
        return walk;
      }
      walk.last = entry->number;
      walk.place = {at, entry->number};
      at += entry->size;
      walk.end = at;
      continue;
    }
    const std::string text = fmt::format("{}, byte {}: {}", path_, at, wrong);
    if (!around) return fail(Origin::self, "journal: " + text);
    walk.damages.push_back(text);
    const auto next = find_next(at, limit, walk.last);
    if (!next) return walk;
    at = *next;
  }
  const bool short_of_end = close_ && (all.size() < close_->end || walk.last != close_->last);
  if (short_of_end && walk.damages.empty()) {
    const std::string text =
        fmt::format("{}: ends with entry {}, {} is missing", path_, walk.last, close_->last);
    if (!around) return fail(Origin::self, "journal: " + text);
    walk.damages.push_back(text);
  }
  return walk;
}

// The next place at which a whole entry lies: numbers only rise, so bytes of a text are hardly ever taken for one.
std::optional<std::uint64_t> SegmentView::find_next(std::uint64_t from, std::uint64_t limit,
                                                    std::uint64_t number) const {
  const char* data = mapping_.data();
  for (std::uint64_t at = from; at + usage::kEntryHeaderBytes <= limit; at += 8) {
    if (load_word<std::uint32_t>(data + at) == 0) continue;
    const auto candidate = load_word<std::uint64_t>(data + at + 8);
    const auto kind = load_word<std::uint16_t>(data + at + 16);
    if (candidate <= number || candidate - number > (1ULL << 32) || kind == 0 || kind > 64) continue;
    const auto parsed = usage::parse_entry(mapping_.bytes().substr(at, limit - at));
    if (parsed && *parsed) return at;
  }
  return std::nullopt;
}

}  // namespace tollgate::journal
