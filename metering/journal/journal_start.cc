// How a journal starts: what is there, what of it is believed, what becomes of it.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <random>
#include <ranges>

#include "metering/base/random.h"
#include "metering/journal/journal_impl.h"

namespace tollgate::journal {
namespace {

std::uint32_t new_incarnation(std::uint64_t seed, std::uint32_t other_than) {
  if (seed == 0) {
    std::random_device system;
    seed = (static_cast<std::uint64_t>(system()) << 32) | system();
  }
  Random random(seed);
  for (;;) {
    const auto made = static_cast<std::uint32_t>(random.next());
    if (made != 0 && made != other_than) return made;
  }
}

}  // namespace

std::string Recovery::describe() const {
  if (first) return "a new journal";
  return fmt::format(
      "{} entries kept, last stop {}, boot {}, {} accounts in use, calls ended: {} interrupted, {} void "
      "after their charge, {} "
      "void, {} damaged segments",
      entries, clean ? "clean" : "unclean", same_boot ? "the same" : "another", cells_in_use, interrupted,
      void_charged, void_maybe, damaged_segments);
}

Result<std::vector<FoundStream>> Journal::Impl::inspect_all(bool everything) {
  auto segments = list_segments(options.directory);
  if (!segments) return std::unexpected(segments.error());
  std::vector<std::string> names{std::string(kControl)};
  for (unsigned worker = 0; worker < options.workers; ++worker) names.push_back(std::to_string(worker));
  for (const SegmentName& segment : *segments)
    if (std::ranges::find(names, segment.stream) == names.end()) names.push_back(segment.stream);
  std::vector<FoundStream> found;
  for (const std::string& name : names) {
    auto stream = inspect(name, *segments, everything, identity.incarnation);
    if (!stream) return std::unexpected(stream.error());
    found.push_back(std::move(*stream));
  }
  return found;
}

Result<std::unique_ptr<StreamWriter>> Journal::Impl::open_writer(const FoundStream& found,
                                                                 bool skip_numbers) {
  // Nobody begins a call on the control stream.
  auto table =
      OpenTable::open(open_path(found.name), found.name == kControl ? 1 : options.open_calls, shared.calls);
  if (!table) return std::unexpected(table.error());
  const std::uint64_t skipped =
      skip_numbers && (found.last > 0 || !found.damages.empty()) ? kNumbersSkipped : 0;
  return StreamWriter::open(shared, *lists[found.name],
                            {.name = found.name,
                             .last_before = found.last,
                             .first = found.last + skipped + 1,
                             .call_before = found.last_call + skipped,
                             .segment = found.last_segment + 1},
                            std::move(*table));
}

Result<void> Journal::Impl::recover(std::vector<FoundStream>& found, const Trust& trust) {
  const std::int64_t now = shared.calls.unix_ms();
  for (FoundStream& stream : found) {
    recovery.entries += stream.entries;
    recovery.damaged_segments += stream.damages.size();
    for (const FoundStream::Damage& damage : stream.damages)
      for (const std::string& text : damage.texts)
        log("error", "journal: damaged, what lay there is lost for billing: " + text);
    if (auto closed = close_segments(stream, now); !closed) return closed;
    auto& list = lists[stream.name] = std::make_unique<SegmentList>();
    for (SegmentRecord& record : stream.records) {
      ::unlink((record.path + ".new").c_str());  // a rewrite that was cut short
      list->add(std::move(record));
    }
    for (const auto& [partition, seq] : stream.op_numbers)
      if (partition < quota::kPartitions && seq > shared.op_numbers->last(partition))
        shared.op_numbers->set(partition, seq);
  }
  for (const FoundStream& stream : found) {
    const bool ours = stream.name == kControl ||
                      std::ranges::any_of(std::views::iota(0U, options.workers), [&](unsigned worker) {
                        return stream.name == std::to_string(worker);
                      });
    // A stream of more workers than now: only its open calls are of interest.
    auto table = OpenTable::open(open_path(stream.name), 1, shared.calls);
    if (!table) return std::unexpected(table.error());
    const std::vector<OpenTable::Found> places = table->found();
    if (!ours && places.empty() && (!trust.everything || stream.open.empty())) {
      ::unlink(open_path(stream.name).c_str());
      continue;
    }
    auto writer = open_writer(stream, trust.everything);
    if (!writer) return std::unexpected(writer.error());
    if (auto ended = end_open_calls(stream, places, trust.everything, **writer, recovery); !ended)
      return ended;
    if (stream.name == kControl) {
      control = std::move(*writer);
    } else if (ours) {
      const auto worker = static_cast<std::size_t>(std::stoul(stream.name));
      if (writers.size() <= worker) writers.resize(worker + 1);
      writers[worker] = std::move(*writer);
    } else if (auto closed = (*writer)->close(); !closed) {
      return closed;
    }
  }
  return {};
}

// Reads what there is, decides what to believe of it, and writes the decision down before anything is changed.
Result<Journal::Impl::Trust> Journal::Impl::take_stock(std::vector<FoundStream>& found) {
  auto known = read_identity(options.directory);
  if (!known) return std::unexpected(known.error());
  auto segments = list_segments(options.directory);
  if (!segments) return std::unexpected(segments.error());
  const bool has_identity = known->has_value();
  if (has_identity) identity = **known;
  const bool cut_short = has_identity && identity.state == Identity::State::recovering;
  recovery.first = !has_identity && segments->empty();
  recovery.clean = has_identity && identity.state == Identity::State::clean;
  recovery.same_boot = has_identity && identity.boot == options.boot_id && identity.place == lock.place;
  Trust trust;
  trust.everything =
      !recovery.first && (!has_identity || cut_short || (!recovery.clean && !recovery.same_boot));
  auto all = inspect_all(trust.everything);
  if (!all) return std::unexpected(all.error());
  const bool damaged =
      std::ranges::any_of(*all, [](const FoundStream& stream) { return !stream.damages.empty(); });
  if (damaged && !trust.everything) {
    trust.everything = true;
    all = inspect_all(true);
    if (!all) return std::unexpected(all.error());
  }
  found = std::move(*all);
  trust.cells =
      recovery.same_boot && !damaged && !cut_short && Cells::belongs(options.directory, identity.incarnation);
  if (trust.cells) {
    identity.state = Identity::State::running;
  } else {
    identity.state = Identity::State::recovering;
    identity.incarnation = new_incarnation(options.seed, identity.incarnation);
    if (identity.journal == 0) identity.journal = identity.incarnation;
    for (FoundStream& stream : found) stream.op_numbers.clear();  // of another incarnation
  }
  identity.boot = options.boot_id;
  identity.place = lock.place;
  if (auto written = write_identity(options.directory, identity); !written)
    return std::unexpected(written.error());
  return trust;
}

Result<void> Journal::Impl::map_files(const Trust& trust) {
  auto mapped =
      Cells::open(options.directory, identity.incarnation, options.cells, !trust.cells, shared.calls);
  if (!mapped) return std::unexpected(mapped.error());
  cells = std::move(*mapped);
  if (trust.cells)
    for (const quota::LeaseCell& cell : cells.all()) recovery.cells_in_use += cell.in_use() ? 1 : 0;
  auto numbers = OpNumbers::open(options.directory + "/op-numbers", identity.incarnation, shared.calls);
  if (!numbers) return std::unexpected(numbers.error());
  shared.op_numbers = std::move(*numbers);
  return {};
}

Result<void> Journal::Impl::open() {
  if (options.workers == 0 || options.segment_bytes < kSegmentBytesMin)
    return fail(Origin::config,
                fmt::format("journal: a segment has at least {} bytes, and there is at least one worker",
                            kSegmentBytesMin));
  if (auto made = make_directory(options.directory); !made) return made;
  auto locked = lock_directory(options.directory);
  if (!locked) return std::unexpected(locked.error());
  lock = std::move(*locked);
  if (options.boot_id.empty()) {
    auto boot = read_boot_id();
    if (!boot) return std::unexpected(boot.error());
    options.boot_id = std::move(*boot);
  }
  std::vector<FoundStream> found;
  const auto trust = take_stock(found);
  if (!trust) return std::unexpected(trust.error());

  shared.directory = options.directory;
  shared.incarnation = identity.incarnation;
  shared.segment_bytes = options.segment_bytes & ~std::uint64_t{7};
  shared.reserve = std::min(options.reserve_bytes, shared.segment_bytes / 4);
  shared.calls = complete(options.disk);
  shared.log = [this](std::string_view level, std::string_view text) {
    if (options.log) options.log(level, text);
  };
  shared.wake = [this] {
    const std::lock_guard guard(wake_mutex);
    woken = true;
    wake.notify_one();
  };
  if (auto mapped = map_files(*trust); !mapped) return mapped;
  if (auto recovered = recover(found, *trust); !recovered) return recovered;
  for (const auto& writer : writers) op_logs.push_back(std::make_unique<StreamOpLog>(*writer, lists, shared));

  if (!mark("start", recovery.describe())) return fail(Origin::self, "journal: no room for the first entry");
  // Before the state says that the recovery is over.
  if (auto durable = commit(); !durable) return durable;
  if (identity.state == Identity::State::recovering) {
    identity.state = Identity::State::running;
    if (auto written = write_identity(options.directory, identity); !written) return written;
  }
  log("info", "journal: " + options.directory + ": " + recovery.describe());
  thread = std::thread([this] { run(); });
  return {};
}

}  // namespace tollgate::journal
