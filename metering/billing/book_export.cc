// Rows out: closing periods, and files whose bytes depend on the book alone.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <set>

#include "metering/billing/book_impl.h"
#include "metering/billing/output_file.h"

namespace tollgate::billing {
namespace {

constexpr std::size_t kIdDigits = 32;  // 128 bits of the hash

std::string hash_of(std::string_view bytes) {
  Sha256 hash;
  hash.add(bytes);
  return hash.hex();
}

// "2026", "-", "11" ...: exactly `digits` digits at `at`.
std::optional<int> number_at(std::string_view text, std::size_t at, std::size_t digits) {
  if (at + digits > text.size()) return std::nullopt;
  int value = 0;
  const char* end = text.data() + at + digits;
  auto [stop, error] = std::from_chars(text.data() + at, end, value);
  if (error != std::errc{} || stop != end || text[at] == '-') return std::nullopt;
  return value;
}

std::int64_t first_hour_of(std::chrono::year_month_day date) {
  return std::chrono::duration_cast<std::chrono::hours>(std::chrono::sys_days(date).time_since_epoch())
      .count();
}

std::string file_name(const std::string& period, Book::Format format) {
  return fmt::format("{}.{}", period, name(format));
}
// What `exports` calls the file of licences of a format.
std::string licences_format(Book::Format format) {
  return fmt::format("licences.{}", name(format));
}

std::string licences_text(const std::vector<usage::LicenceRow>& rows, const Book::Period& period,
                          Book::Format format) {
  std::string text;
  if (format == Book::Format::csv) text = usage::licence_csv_header();
  for (const usage::LicenceRow& row : rows)
    format == Book::Format::csv ? usage::append_csv(text, row, period.first_hour, period.end_hour)
                                : usage::append_ndjson(text, row, period.first_hour, period.end_hour);
  return text;
}

// The last hour of the period that no other period has closed: corrections that wait are filed under it, and no file
// written before contains it.
std::optional<std::int64_t> last_open_hour(const std::vector<Book::Impl::Hours>& closed,
                                           const Book::Period& period) {
  for (std::int64_t hour = period.end_hour - 1; hour >= period.first_hour; --hour)
    if (std::ranges::none_of(closed,
                             [&](const auto& hours) { return hour >= hours.first && hour < hours.end; }))
      return hour;
  return std::nullopt;
}

}  // namespace

Result<Book::Period> Book::parse_period(std::string_view text) {
  auto wrong = [&] {
    return fail(Origin::client,
                fmt::format("\"{}\" is no period: write a month 2026-11, a day 2026-11-22 or an hour "
                            "2026-11-22T08, in UTC",
                            text));
  };
  const auto year = number_at(text, 0, 4), month = number_at(text, 5, 2);
  if (!year || !month || text[4] != '-') return wrong();
  const std::chrono::year_month_day first{
      std::chrono::year(*year), std::chrono::month(static_cast<unsigned>(*month)), std::chrono::day(1)};
  if (!first.ok() || *year < 1970) return wrong();
  Period period{.name = std::string(text)};
  if (text.size() == 7) {
    period.first_hour = first_hour_of(first);
    period.end_hour = first_hour_of(first + std::chrono::months(1));
    return period;
  }
  const auto day = number_at(text, 8, 2);
  if (!day || text[7] != '-') return wrong();
  const std::chrono::year_month_day date{first.year(), first.month(),
                                         std::chrono::day(static_cast<unsigned>(*day))};
  if (!date.ok()) return wrong();
  period.first_hour = first_hour_of(date);
  period.end_hour = period.first_hour + 24;
  if (text.size() == 10) return period;
  const auto hour = number_at(text, 11, 2);
  if (!hour || *hour > 23 || text[10] != 'T' || text.size() != 13) return wrong();
  period.first_hour += *hour;
  period.end_hour = period.first_hour + 1;
  return period;
}

bool Book::Impl::closed(const std::string& name) {
  Statement& select = database->statement("SELECT 1 FROM closings WHERE name = ?");
  select.bind(name);
  const bool found = select.step();
  select.run();
  return found;
}

void Book::Impl::close(const Period& period, std::int64_t now_ms) {
  if (const auto hour = last_open_hour(closed_hours(), period))
    database->statement("UPDATE rows SET filed = ? WHERE filed = ?").bind(*hour).bind(kWaiting).run();
  step("corrections filed");
  database->statement("INSERT INTO closings VALUES (?, ?, ?, ?)")
      .bind(period.name)
      .bind(period.first_hour)
      .bind(period.end_hour)
      .bind(now_ms)
      .run();
  database
      ->statement(
          "INSERT INTO closing_marks SELECT ?, journal, stream, entry, (SELECT count(*) FROM open_calls "
          "WHERE "
          "open_calls.journal = watermarks.journal AND open_calls.stream = watermarks.stream) FROM "
          "watermarks")
      .bind(period.name)
      .run();
  database->statement("INSERT INTO closing_missing SELECT ?, journal, stream, first, last, why FROM missing")
      .bind(period.name)
      .run();
  step("period closed");
}

// Rows arrive journal by journal; those of one key are one line of the file.
struct Book::Impl::Rendering {
  Format format;
  usage::Manifest& manifest;
  const std::function<void(std::string_view)>& sink;
  usage::ExportRow row{};
  std::vector<std::string> journals{};
  std::set<std::int64_t> corrected{};
  std::string line{};

  void add(std::int64_t filed, usage::RollupKey key, std::string journal, const usage::RollupSums& sums) {
    if (journals.empty() || filed != row.filed_hour || key != row.key) {
      flush();
      row = {.id = "", .key = std::move(key), .filed_hour = filed, .sums = {}};
    }
    journals.push_back(std::move(journal));
    row.sums.merge(sums);
  }
  void flush() {
    if (journals.empty()) return;
    row.id = hash_of(usage::identity(row.key, row.filed_hour, journals)).substr(0, kIdDigits);
    line.clear();
    format == Format::csv ? usage::append_csv(line, row) : usage::append_ndjson(line, row);
    sink(line);
    ++manifest.rows;
    manifest.sums.merge(row.sums);
    if (row.correction()) {
      ++manifest.corrections;
      corrected.insert(row.key.hour);
    }
    journals.clear();
  }
};

usage::Manifest Book::Impl::render(const Period& period, Format format, bool final_period,
                                   const std::function<void(std::string_view)>& sink) {
  usage::Manifest manifest;
  manifest.period = period.name;
  manifest.first_hour = period.first_hour;
  manifest.end_hour = period.end_hour;
  manifest.format = billing::name(format);
  manifest.final_period = final_period;
  Rendering rendering{format, manifest, sink};
  if (format == Format::csv) sink(usage::csv_header());

  auto read = [&](const char* sql, std::int64_t first, std::int64_t end, std::optional<std::int64_t> filed) {
    Statement& select = database->statement(sql);
    select.bind(first).bind(end);
    while (select.step())
      rendering.add(filed.value_or(select.integer(0)),
                    {select.integer(1), select.text(2), select.text(3), select.text(4), select.text(5),
                     select.text(6), select.text(7)},
                    select.text(8), read_sums(select, 9));
    rendering.flush();
  };
#define TOLLGATE_SELECT_ROWS                                                     \
  "SELECT filed, hour, tenant, organization, user, product, object, operation, " \
  "journal, " TOLLGATE_SUM_COLUMNS " FROM rows WHERE filed >= ? AND filed < ? "
#define TOLLGATE_ORDER "ORDER BY filed, hour, tenant, organization, user, product, object, operation, journal"
  read(TOLLGATE_SELECT_ROWS "AND filed = hour " TOLLGATE_ORDER, period.first_hour, period.end_hour, {});
  read(TOLLGATE_SELECT_ROWS "AND filed <> hour " TOLLGATE_ORDER, period.first_hour, period.end_hour, {});
  // A file that is not final shows what it would have if the period were closed now.
  if (!final_period)
    if (const auto hour = last_open_hour(closed_hours(), period))
      read(TOLLGATE_SELECT_ROWS TOLLGATE_ORDER, kWaiting, kWaiting + 1, hour);
#undef TOLLGATE_SELECT_ROWS
#undef TOLLGATE_ORDER
  manifest.corrections_of.assign(rendering.corrected.begin(), rendering.corrected.end());

  if (final_period) {
    Statement& select = database->statement("SELECT closed_at_ms FROM closings WHERE name = ?");
    select.bind(period.name);
    if (select.step()) manifest.closed_at_ms = select.integer(0);
    select.run();
  }
  Statement& marks =
      final_period
          ? database
                ->statement(
                    "SELECT journal, stream, entry, open_calls FROM closing_marks WHERE name = ? ORDER BY "
                    "journal, stream")
                .bind(period.name)
          : database->statement(
                "SELECT journal, stream, entry, (SELECT count(*) FROM open_calls WHERE "
                "open_calls.journal = watermarks.journal AND open_calls.stream = watermarks.stream) "
                "FROM watermarks ORDER BY journal, stream");
  while (marks.step())
    manifest.watermarks.push_back({marks.text(0), marks.text(1), marks.number(2), marks.number(3)});
  Statement& gaps = final_period ? database
                                       ->statement(
                                           "SELECT journal, stream, first, last, why FROM closing_missing "
                                           "WHERE name = ? ORDER BY journal, stream, first")
                                       .bind(period.name)
                                 : database->statement(
                                       "SELECT journal, stream, first, last, why FROM missing ORDER BY "
                                       "journal, stream, first");
  while (gaps.step())
    manifest.missing.push_back({gaps.text(0), gaps.text(1), gaps.number(2), gaps.number(3), gaps.text(4)});
  return manifest;
}

Result<void> Book::Impl::as_exported_first(const usage::Manifest& manifest) {
  const usage::Manifest::Licences& licences = manifest.licences;
  if (auto same =
          as_exported_first(manifest.period, manifest.format, manifest.file, manifest.sha256, manifest.rows);
      !same)
    return same;
  return as_exported_first(manifest.period, "licences." + manifest.format, licences.file, licences.sha256,
                           licences.rows);
}

Result<void> Book::Impl::as_exported_first(const std::string& period, const std::string& format,
                                           const std::string& file, const std::string& sha256,
                                           std::uint64_t rows) {
  Database::Transaction change(*database);
  database->statement("INSERT OR IGNORE INTO exports VALUES (?, ?, ?, ?)")
      .bind(period)
      .bind(format)
      .bind(sha256)
      .bind(rows)
      .run();
  Statement& select = database->statement("SELECT sha256 FROM exports WHERE name = ? AND format = ?");
  select.bind(period).bind(format);
  const bool same = !select.step() || select.text(0) == sha256;
  select.run();
  if (auto done = change.commit(); !done) return done;
  if (same) return {};
  return fail(Origin::self,
              fmt::format("{}: the rows of this closed period are not what they were when it was "
                          "exported first; the file was not written. Was the book edited?",
                          file));
}

Result<Book::Exported> Book::export_period(const Period& period, Format format, const std::string& directory,
                                           UnixTime now, const std::vector<licence::Price>& prices) {
  Database& database = *impl_->database;
  const std::int64_t now_ms = std::chrono::floor<Milliseconds>(now.time_since_epoch()).count();
  const std::int64_t now_hour = usage::hour_of(now_ms);
  if (period.first_hour > now_hour)
    return fail(Origin::client, fmt::format("the period {} begins in the future, at {}", period.name,
                                            usage::hour_text(period.first_hour)));
  const bool over = period.end_hour <= now_hour;
  if (over) {
    Database::Transaction change(database);
    if (!impl_->closed(period.name)) impl_->close(period, now_ms);
    impl_->keep_licences(period, prices);
    if (auto done = change.commit(); !done) return std::unexpected(done.error());
    impl_->step("closing committed");
  }

  Exported exported;
  const std::string file = file_name(period.name, format);
  exported.file = directory + "/" + file;
  exported.manifest = exported.file + ".manifest.json";
  exported.licences = directory + "/" + file_name(period.name + ".licences", format);
  auto out = OutputFile::create(exported.file);
  if (!out) return std::unexpected(out.error());
  auto beside_rows = OutputFile::create(exported.licences);
  if (!beside_rows) return std::unexpected(beside_rows.error());
  usage::Manifest manifest;
  Sha256 hash;
  std::vector<usage::LicenceRow> licences;
  {
    // What is closed was counted before; a preview counts with the rows that it shows.
    Database::Transaction view(database, Database::Transaction::Kind::read);
    manifest = impl_->render(period, format, over, [&](std::string_view bytes) {
      (*out)->write(bytes);
      hash.add(bytes);
    });
    licences = over ? impl_->kept_licences(period.name) : impl_->count_licences(period, prices);
    if (auto done = view.commit(); !done) return std::unexpected(done.error());
  }
  manifest.file = file;
  manifest.bytes = (*out)->bytes();
  manifest.sha256 = hash.hex();
  const std::string text = licences_text(licences, period, format);
  (*beside_rows)->write(text);
  manifest.licences = {.file = file_name(period.name + ".licences", format),
                       .sha256 = hash_of(text),
                       .bytes = text.size(),
                       .rows = licences.size()};
  exported.rows = manifest.rows;
  exported.corrections = manifest.corrections;
  exported.sha256 = manifest.sha256;
  exported.final_period = over;
  exported.calls = manifest.sums.calls;
  exported.missing = manifest.missing.size();
  impl_->step("file rendered");

  if (over)
    if (auto same = impl_->as_exported_first(manifest); !same) return std::unexpected(same.error());
  if (auto done = (*out)->commit(); !done) return std::unexpected(done.error());
  impl_->step("file renamed");
  if (auto done = (*beside_rows)->commit(); !done) return std::unexpected(done.error());
  impl_->step("licences renamed");
  auto beside = OutputFile::create(exported.manifest);
  if (!beside) return std::unexpected(beside.error());
  (*beside)->write(usage::manifest_json(manifest));
  if (auto done = (*beside)->commit(); !done) return std::unexpected(done.error());
  impl_->step("manifest renamed");
  return exported;
}

Result<std::vector<std::string>> Book::check_exports(const std::string& directory) const {
  Database& database = *impl_->database;
  Database::Transaction view(database, Database::Transaction::Kind::read);
  struct Final {
    Period period;
    Format format;
    bool licences;
    std::string sha256;
  };
  std::vector<Final> files;
  Statement& select = database.statement(
      "SELECT exports.name, format, sha256, first_hour, end_hour FROM exports JOIN closings ON closings.name "
      "= "
      "exports.name ORDER BY first_hour, exports.name, format");
  while (select.step()) {
    const std::string kind = select.text(1);
    const Format format = kind.ends_with(name(Format::csv)) ? Format::csv : Format::ndjson;
    files.push_back({{select.integer(3), select.integer(4), select.text(0)},
                     format,
                     kind == licences_format(format),
                     select.text(2)});
  }
  std::vector<std::string> differences;
  for (const Final& final : files) {
    Sha256 hash;
    auto add = [&](std::string_view bytes) { hash.add(bytes); };
    if (final.licences)
      add(licences_text(impl_->kept_licences(final.period.name), final.period, final.format));
    else
      impl_->render(final.period, final.format, true, add);
    const std::string file = file_name(final.period.name + (final.licences ? ".licences" : ""), final.format);
    if (hash.hex() != final.sha256)
      differences.push_back(fmt::format("{}: the book's rows are not those of its first export", file));
    if (directory.empty()) continue;
    std::ifstream in(directory + "/" + file, std::ios::binary);
    if (!in) continue;  // moved away: what exports are for
    Sha256 on_disk;
    for (std::string piece(1 << 16, '\0');
         in.read(piece.data(), static_cast<std::streamsize>(piece.size())) || in.gcount() > 0;)
      on_disk.add(std::string_view(piece).substr(0, static_cast<std::size_t>(in.gcount())));
    if (on_disk.hex() != final.sha256)
      differences.push_back(fmt::format("{}/{}: is not the file that was exported", directory, file));
  }
  if (auto done = view.commit(); !done) return std::unexpected(done.error());
  return differences;
}

}  // namespace tollgate::billing
