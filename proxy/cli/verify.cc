#include "proxy/cli/verify.h"

#include <fmt/format.h>

#include <chrono>

#include "metering/base/json_text.h"
#include "metering/journal/journal.h"
#include "metering/redis/connection.h"

namespace tollgate::cli {
namespace {

using usage::EntryKind;

// The latest numbers of each stream, to see whether anything was written meanwhile.
using Ends = std::map<std::pair<std::string, std::string>, std::uint64_t>;

Result<void> tally_stream(const journal::Reader& reader, const std::string& name,
                          const usage::EntrySource::StreamInfo& info, std::uint64_t up_to,
                          usage::JournalTally& tally) {
  tally.begin_stream(name, info.name, info.first <= 1);
  if (up_to == 0) return {};
  auto read = reader.read(info.name, info.first == 0 ? 0 : info.first - 1,
                          [&](const usage::EntrySource::Position& at, const usage::EntryView& entry) {
                            if (at.number > up_to) return false;
                            // What cannot be decoded was named when it was absorbed.
                            if (entry.kind == EntryKind::call_begin) {
                              if (auto begin = usage::decode_call_begin(entry.body)) tally.add(*begin);
                            } else if (entry.kind == EntryKind::call_end) {
                              if (auto end = usage::decode_call_end(entry.body)) tally.add(*end);
                            } else if (entry.kind == EntryKind::op) {
                              if (auto op = usage::decode_op(entry.body)) tally.add(*op);
                            }
                            return at.number < up_to;
                          });
  tally.end_stream();
  return read;
}

}  // namespace

Result<Verification> verify(const VerifyInputs& inputs) {
  Verification verification;
  std::vector<std::string> names;
  for (const std::string& directory : inputs.journals) {
    auto incarnation = journal::Reader(directory).incarnation();
    if (!incarnation) return std::unexpected(incarnation.error());
    names.push_back(billing::journal_name(*incarnation));
  }
  // Rows and journal up to the same entries, although a proxy may absorb on.
  constexpr std::int64_t kAll = std::int64_t{1} << 40;
  std::vector<billing::Watermark> marks;
  auto rows = inputs.book.rows(-kAll, kAll, names, &marks);
  if (!rows) return std::unexpected(rows.error());

  usage::JournalTally tally;
  Ends ends;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const journal::Reader reader(inputs.journals[i]);
    auto streams = reader.streams();
    if (!streams) return std::unexpected(streams.error());
    for (const auto& info : *streams) {
      std::uint64_t up_to = 0;
      for (const billing::Watermark& mark : marks)
        if (mark.journal == names[i] && mark.stream == info.name) up_to = mark.entry;
      ends[{names[i], info.name}] = up_to;
      if (auto read = tally_stream(reader, names[i], info, up_to, tally); !read)
        return std::unexpected(read.error());
    }
    auto live = reader.live();
    if (!live) return std::unexpected(live.error());
    for (const auto& use : *live)
      tally.add_live({use.subject_key, use.field}, {use.window, use.bucket}, use.unsettled);
  }

  std::optional<usage::StoredState> state;
  std::optional<Milliseconds> settled;
  if (inputs.stored != nullptr) {
    auto read = inputs.stored->read();
    if (!read) return std::unexpected(read.error());
    state = std::move(*read);
    verification.store = true;
    // In the store's clock. Its `now` was read before the accounts, so this is rather too early than too late.
    settled = state->now - std::chrono::ceil<Milliseconds>(redis::Connection::now() - inputs.settled);
  }
  for (std::size_t i = 0; i < names.size(); ++i) {
    auto streams = journal::Reader(inputs.journals[i]).streams();
    if (!streams) return std::unexpected(streams.error());
    for (const auto& info : *streams)
      if (auto end = ends.find({names[i], info.name}); end == ends.end() || info.last > end->second)
        verification.serving = true;
  }
  const auto now = std::chrono::floor<Milliseconds>(inputs.now.time_since_epoch());
  if (!settled) settled = now;
  usage::reconcile_accounts({.journal = tally,
                             .store = state ? &*state : nullptr,
                             .now = now,
                             .settled = verification.serving ? settled : std::nullopt,
                             .window_of = inputs.window_of},
                            verification.result);
  usage::reconcile_rows(tally, *rows, usage::first_whole_hour(tally), kAll, verification.result);
  auto exports = inputs.book.check_exports(inputs.exports);
  if (!exports) return std::unexpected(exports.error());
  verification.exports = std::move(*exports);
  return verification;
}

namespace {

std::string calls_text(const std::vector<usage::CallRange>& calls) {
  std::string text;
  for (const usage::CallRange& range : calls)
    text += fmt::format("{}journal {} stream {} calls {}{}", text.empty() ? "" : ", ", range.journal,
                        range.stream, range.first,
                        range.first == range.last ? "" : fmt::format("-{}", range.last));
  return text;
}

void print_json(const Verification& verification, Console& console) {
  const usage::Reconciliation& result = verification.result;
  std::string out;
  JsonWriter json(out);
  json.object([&] {
    json.field("equal", verification.equal());
    json.field("store", verification.store ? "compared" : "not compared");
    json.field("serving", verification.serving);
    json.field("accounts", result.accounts);
    json.field("rows", result.rows);
    json.field("units", result.units);
    json.field("uncertain_units", result.uncertain_units);
    json.field("edge_units", result.edge_units);
    json.field_array("skipped", [&] {
      for (const std::string& text : result.skipped) json.value(text);
    });
    json.field_array("exports", [&] {
      for (const std::string& text : verification.exports) json.value(text);
    });
    json.field_array("differences", [&] {
      for (const usage::Difference& difference : result.differences)
        json.object([&] {
          json.field("account", difference.account);
          if (!difference.hour.empty()) json.field("hour", difference.hour);
          json.field("what", difference.what);
          json.field_array("sides", [&] {
            for (const auto& side : difference.sides)
              json.object([&] {
                json.field("name", side.name);
                json.field("units", side.units);
                json.field("more", side.more);
              });
          });
          json.field_array("calls", [&] {
            for (const auto& range : difference.calls)
              json.object([&] {
                json.field("journal", range.journal);
                json.field("stream", range.stream);
                json.field("first", range.first);
                json.field("last", range.last);
              });
          });
        });
    });
  });
  console.out << out << '\n';
}

}  // namespace

void print_verification(const Verification& verification, Format format, Console& console) {
  const usage::Reconciliation& result = verification.result;
  if (format == Format::json) {
    print_json(verification, console);
  } else if (!result.differences.empty()) {
    std::vector<std::vector<std::string>> rows{{"ACCOUNT", "HOUR", "UNITS", "DIFFERENCE", "CALLS"}};
    for (const usage::Difference& difference : result.differences) {
      std::string sides;
      for (const auto& side : difference.sides)
        sides += fmt::format("{}{} {}{}", sides.empty() ? "" : ", ", side.name, side.units,
                             side.more == 0 ? "" : fmt::format("..{}", side.units + side.more));
      rows.push_back(
          {difference.account, difference.hour, sides, difference.what, calls_text(difference.calls)});
    }
    print_table(console.out, rows);
  }
  for (const std::string& text : verification.exports) console.err << text << '\n';
  for (const std::string& text : result.skipped) console.err << "not compared: " << text << '\n';
  if (!verification.store)
    console.err << "the store and running proxies were left out (--offline): journal and book only\n";
  if (verification.serving)
    console.err << "calls went on meanwhile: compared is what ended before the proxies settled\n";
  if (result.uncertain_units > 0)
    console.err << fmt::format(
        "{} units belong to calls under way, or cut off by the death of a proxy: they may be there or not\n",
        result.uncertain_units);
  if (result.edge_units > 0)
    console.err << fmt::format(
        "{} units in the store's oldest buckets belong to calls that left the window\n", result.edge_units);
  console.err << fmt::format("{}: {} accounts with {} units, {} rows, {} differences\n",
                             verification.equal() ? "equal" : "NOT equal", result.accounts, result.units,
                             result.rows, result.differences.size() + verification.exports.size());
}

}  // namespace tollgate::cli
