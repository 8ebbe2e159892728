// Journal in, rows out. One batch is one transaction that begins before the watermark is looked at, so whoever else
// absorbs the same journal finds it moved and goes on from there.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "metering/billing/book_impl.h"

namespace tollgate::billing {
namespace {

using usage::EntryKind;
using usage::EntrySource;
using usage::EntryView;

std::uint32_t fingerprint_of(const EntryView& entry) {
  return usage::crc32c(entry.body, static_cast<std::uint32_t>(entry.kind));
}

}  // namespace

// One batch of one stream while it is read.
struct Book::Impl::Stream {
  Impl& book;
  const std::string& journal;
  const EntrySource::StreamInfo& info;

  Mark mark{};  // as it moves
  usage::RollupBuilder builder{};
  std::vector<usage::SeatEntry> seats{};
  std::set<std::uint64_t> kept{};  // calls whose begin is in the book already
  std::uint64_t count = 0;
  EntryKind last_kind{};  // of the last entry taken, for its fingerprint
  std::string last_body{};

  void load();
  void take(std::uint64_t number, const EntryView& entry);
  void write();

 private:
  Result<void> add(const EntryView& entry);
};

void Book::Impl::Stream::load() {
  mark = book.mark(journal, info.name);
  // Gaps beyond the watermark were found by an attempt that could not go on: perhaps this one can.
  book.database->statement("DELETE FROM missing WHERE journal = ? AND stream = ? AND first > ?")
      .bind(journal)
      .bind(info.name)
      .bind(mark.entry)
      .run();
  Statement& select =
      book.database->statement("SELECT call, entry, body FROM open_calls WHERE journal = ? AND stream = ?");
  select.bind(journal).bind(info.name);
  while (select.step()) {
    auto begin = usage::decode_call_begin(select.text(2));
    if (!begin) continue;
    kept.insert(select.number(0));
    builder.restore(select.number(1), std::move(*begin));
  }
  if (mark.entry + 1 < info.first) {
    book.note_missing(journal, info.name, mark.entry + 1, info.first - 1,
                      "deleted from the journal before they were absorbed");
    mark = {info.first - 1, 0};
  }
}

Result<void> Book::Impl::Stream::add(const EntryView& entry) {
  if (entry.kind == EntryKind::call_begin) return builder.add_begin(entry.body);
  if (entry.kind == EntryKind::call_end) return builder.add_end(entry.body);
  if (entry.kind == EntryKind::seat) {
    auto seat = usage::decode_seat(entry.body);
    if (!seat) return std::unexpected(seat.error());
    seats.push_back(std::move(*seat));
  }
  return {};  // ops, audit and marks are nobody's bill
}

void Book::Impl::Stream::take(std::uint64_t number, const EntryView& entry) {
  if (number > mark.entry + 1)
    book.note_missing(
        journal, info.name, mark.entry + 1, number - 1,
        "not in the journal: its numbers go on here after a power loss, or behind known damage");
  builder.set_entry(number);
  if (auto added = add(entry); !added)
    book.note_missing(journal, info.name, number, number, added.error().message);
  for (const auto& orphan : builder.take_orphans())
    book.note_missing(
        journal, info.name, orphan.entry, orphan.entry,
        fmt::format("the end of call {}, {} units, whose begin was never read", orphan.call, orphan.units));
  mark.entry = number;
  last_kind = entry.kind;
  last_body = entry.body;
  ++count;
}

void Book::Impl::Stream::write() {
  if (count > 0) mark.fingerprint = fingerprint_of({.kind = last_kind, .body = last_body});
  book.add_rows(journal, builder.take());
  for (const usage::SeatEntry& seat : seats)
    book.database->statement("INSERT INTO seats VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(seat.time_ms)
        .bind(seat.pool)
        .bind(std::int64_t{seat.named})
        .bind(seat.tenant)
        .bind(seat.user)
        .bind(seat.until_ms)
        .bind(seat.used)
        .bind(std::int64_t{seat.goes_on})
        .run();
  book.step("rows written");
  for (const auto& [call, open] : builder.open_calls()) {
    if (kept.erase(call) > 0) continue;
    std::string body;
    usage::encode(open.begin, body);
    book.database->statement("INSERT OR REPLACE INTO open_calls VALUES (?, ?, ?, ?, ?)")
        .bind(journal)
        .bind(info.name)
        .bind(call)
        .bind(open.entry)
        .bind_blob(body)
        .run();
  }
  for (std::uint64_t call : kept)
    book.database->statement("DELETE FROM open_calls WHERE journal = ? AND stream = ? AND call = ?")
        .bind(journal)
        .bind(info.name)
        .bind(call)
        .run();
  book.step("calls under way written");
  book.database->statement("INSERT OR REPLACE INTO watermarks VALUES (?, ?, ?, ?)")
      .bind(journal)
      .bind(info.name)
      .bind(mark.entry)
      .bind(static_cast<std::uint64_t>(mark.fingerprint))
      .run();
  book.step("watermark written");
}

namespace {

// Whether the journal still is the one that was absorbed up to `mark`.
Result<void> same_journal(const EntrySource& source, const std::string& journal,
                          const EntrySource::StreamInfo& info, std::uint64_t entry,
                          std::uint32_t fingerprint) {
  auto another = [&](std::string_view what) {
    return fail(
        Origin::self,
        fmt::format(
            "journal {}, stream {}: {}, but the book has absorbed it up to entry {}. This is an older "
            "copy of the journal, or one restored from a backup: nothing of it was taken in",
            journal, info.name, what, entry));
  };
  if (entry == 0 || entry + 1 < info.first) return {};
  if (entry > info.last) return another(fmt::format("ends at entry {}", info.last));
  if (entry < info.first || fingerprint == 0) return {};
  bool same = true;
  auto read = source.read(info.name, entry - 1, [&](const EntrySource::Position& at, const EntryView& view) {
    same = at.number != entry || fingerprint_of(view) == fingerprint;
    return false;
  });
  if (!read) return {};  // damaged there by now; it is in the rows
  if (!same) return another(fmt::format("entry {} is not what it was", entry));
  return {};
}

}  // namespace

Result<void> Book::Impl::absorb_stream(const EntrySource& source, const std::string& journal,
                                       const EntrySource::StreamInfo& info,
                                       const std::function<void(std::uint64_t)>& read) {
  for (bool first = true;; first = false) {
    Database::Transaction change(*database);
    if (auto begun = database->status(); !begun) return begun;
    step("began");
    Stream stream{*this, journal, info};
    if (first) {
      const Mark before = mark(journal, info.name);
      if (auto same = same_journal(source, journal, info, before.entry, before.fingerprint); !same)
        return same;
    }
    stream.load();
    Result<void> reading;
    if (stream.mark.entry < info.last)
      reading = source.read(info.name, stream.mark.entry,
                            [&](const EntrySource::Position& at, const EntryView& entry) {
                              if (at.number > info.last) return false;
                              stream.take(at.number, entry);
                              return at.number < info.last && stream.count < batch;
                            });
    step("read");
    if (!reading) note_missing(journal, info.name, stream.mark.entry + 1, info.last, reading.error().message);
    stream.write();
    if (auto done = change.commit(); !done) return done;
    step("committed");
    read(stream.count);
    if (!reading)
      return fail(reading.error().origin,
                  fmt::format("{}; entries {} to {} of stream {} are left out", reading.error().message,
                              stream.mark.entry + 1, info.last, info.name),
                  reading.error().may_retry);
    if (stream.count == 0 || stream.mark.entry >= info.last) return {};
  }
}

Result<std::uint64_t> Book::absorb(const EntrySource& source, const Progress& progress,
                                   const MakeDurable& make_durable) {
  auto incarnation = source.incarnation();
  if (!incarnation) return std::unexpected(incarnation.error());
  auto streams = source.streams();
  if (!streams) return std::unexpected(streams.error());
  // After the ends of the streams are known, before anything is read: what is read was durable.
  if (make_durable)
    if (auto durable = make_durable(); !durable) return std::unexpected(durable.error());

  const std::string journal = journal_name(*incarnation);
  std::uint64_t total = 0, done = 0;
  std::set<std::string> behind;  // the others cost no transaction
  {
    Database::Transaction view(*impl_->database, Database::Transaction::Kind::read);
    for (const auto& info : *streams) {
      const std::uint64_t entry = impl_->mark(journal, info.name).entry;
      const std::uint64_t from = std::max(entry, info.first == 0 ? 0 : info.first - 1);
      if (info.last > from) total += info.last - from;
      if (info.last != entry) behind.insert(info.name);
    }
    if (auto seen = view.commit(); !seen) return std::unexpected(seen.error());
  }
  std::optional<Error> first_error;
  for (const auto& info : *streams) {
    if (!behind.contains(info.name)) continue;
    auto absorbed = impl_->absorb_stream(source, journal, info, [&](std::uint64_t entries) {
      done += entries;
      if (progress) progress(done, total);
    });
    if (!absorbed && !first_error) first_error = absorbed.error();
  }
  if (first_error) return std::unexpected(*first_error);
  return done;
}

}  // namespace tollgate::billing
