#include <fmt/format.h>

#include <algorithm>

#include "metering/billing/book_impl.h"

namespace tollgate::billing {
namespace {

constexpr std::int64_t kVersion = 2;

// One statement an element: SQLite prepares one at a time.
constexpr const char* kTables[] = {
    "CREATE TABLE IF NOT EXISTS watermarks (journal TEXT NOT NULL, stream TEXT NOT NULL, entry INTEGER NOT "
    "NULL, "
    "fingerprint INTEGER NOT NULL, PRIMARY KEY (journal, stream)) WITHOUT ROWID",

    "CREATE TABLE IF NOT EXISTS open_calls (journal TEXT NOT NULL, stream TEXT NOT NULL, call INTEGER NOT "
    "NULL, "
    "entry INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (journal, stream, call)) WITHOUT ROWID",

    "CREATE TABLE IF NOT EXISTS rows (filed INTEGER NOT NULL, hour INTEGER NOT NULL, tenant TEXT NOT NULL, "
    "organization TEXT NOT NULL, user TEXT NOT NULL, product TEXT NOT NULL, object TEXT NOT NULL, operation "
    "TEXT NOT "
    "NULL, journal TEXT NOT NULL, calls INTEGER NOT NULL, interrupted INTEGER NOT NULL, degraded INTEGER NOT "
    "NULL, "
    "errors INTEGER NOT NULL, free INTEGER NOT NULL, given_back INTEGER NOT NULL, void_charged INTEGER NOT "
    "NULL, "
    "void_maybe INTEGER NOT NULL, denied TEXT NOT NULL, bytes_in INTEGER NOT NULL, bytes_out INTEGER NOT "
    "NULL, "
    "backend_us INTEGER NOT NULL, latency BLOB NOT NULL, "
    "PRIMARY KEY (filed, hour, tenant, organization, user, product, object, operation, journal)) WITHOUT "
    "ROWID",

    "CREATE TABLE IF NOT EXISTS closings (name TEXT NOT NULL PRIMARY KEY, first_hour INTEGER NOT NULL, "
    "end_hour "
    "INTEGER NOT NULL, closed_at_ms INTEGER NOT NULL) WITHOUT ROWID",

    "CREATE TABLE IF NOT EXISTS closing_marks (name TEXT NOT NULL, journal TEXT NOT NULL, stream TEXT NOT "
    "NULL, entry "
    "INTEGER NOT NULL, open_calls INTEGER NOT NULL, PRIMARY KEY (name, journal, stream)) WITHOUT ROWID",

    "CREATE TABLE IF NOT EXISTS missing (journal TEXT NOT NULL, stream TEXT NOT NULL, first INTEGER NOT "
    "NULL, last "
    "INTEGER NOT NULL, why TEXT NOT NULL, PRIMARY KEY (journal, stream, first)) WITHOUT ROWID",

    "CREATE TABLE IF NOT EXISTS closing_missing (name TEXT NOT NULL, journal TEXT NOT NULL, stream TEXT NOT "
    "NULL, "
    "first INTEGER NOT NULL, last INTEGER NOT NULL, why TEXT NOT NULL, PRIMARY KEY (name, journal, stream, "
    "first)) "
    "WITHOUT ROWID",

    "CREATE TABLE IF NOT EXISTS exports (name TEXT NOT NULL, format TEXT NOT NULL, sha256 TEXT NOT NULL, "
    "rows INTEGER "
    "NOT NULL, PRIMARY KEY (name, format)) WITHOUT ROWID",

    // ---- since layout 2
    "CREATE TABLE IF NOT EXISTS users (tenant TEXT NOT NULL, user TEXT NOT NULL, organization TEXT NOT NULL, "
    "hour "
    "INTEGER NOT NULL, PRIMARY KEY (tenant, user)) WITHOUT ROWID",

    "INSERT OR REPLACE INTO users SELECT tenant, user, organization, hour FROM rows ORDER BY hour, "
    "organization",

    "CREATE TABLE IF NOT EXISTS seats (time_ms INTEGER NOT NULL, pool TEXT NOT NULL, named INTEGER NOT NULL, "
    "tenant TEXT "
    "NOT NULL, user TEXT NOT NULL, until_ms INTEGER NOT NULL, used INTEGER NOT NULL, goes_on INTEGER NOT "
    "NULL)",

    "CREATE TABLE IF NOT EXISTS licence_closings (name TEXT NOT NULL PRIMARY KEY) WITHOUT ROWID",

    "CREATE TABLE IF NOT EXISTS licences (name TEXT NOT NULL, number INTEGER NOT NULL, total INTEGER NOT "
    "NULL, tenant TEXT "
    "NOT NULL, organization TEXT NOT NULL, product TEXT NOT NULL, calls INTEGER NOT NULL, users INTEGER NOT "
    "NULL, "
    "named_max INTEGER NOT NULL, named_end INTEGER NOT NULL, concurrent_peak INTEGER NOT NULL, currency TEXT "
    "NOT NULL, "
    "minor_units INTEGER NOT NULL, per INTEGER NOT NULL, every INTEGER NOT NULL, included INTEGER NOT NULL, "
    "source TEXT NOT NULL, as_of TEXT NOT NULL, PRIMARY KEY (name, number)) WITHOUT ROWID",

    "PRAGMA user_version = 2",
};

void bind_key(Statement& statement, std::int64_t filed, const usage::RollupKey& key,
              const std::string& journal) {
  statement.bind(filed)
      .bind(key.hour)
      .bind(key.tenant)
      .bind(key.organization)
      .bind(key.user)
      .bind(key.product)
      .bind(key.object)
      .bind(key.operation)
      .bind(journal);
}

}  // namespace

std::string journal_name(std::uint32_t incarnation) {
  return fmt::format("{:08x}", incarnation);
}

std::string_view name(Book::Format format) {
  return format == Book::Format::csv ? "csv" : "ndjson";
}

usage::RollupSums read_sums(const Statement& row, int first_column) {
  int column = first_column;
  usage::RollupSums sums;
  for (std::uint64_t* value : {&sums.calls, &sums.interrupted, &sums.degraded, &sums.errors, &sums.free,
                               &sums.given_back, &sums.void_charged, &sums.void_maybe})
    *value = row.number(column++);
  sums.denied = usage::parse_denied(row.text(column++));
  for (std::uint64_t* value : {&sums.bytes_in, &sums.bytes_out, &sums.backend_us})
    *value = row.number(column++);
  // A sketch that cannot be read costs quantiles, not money.
  if (auto latency = usage::LatencySketch::decode(row.text(column))) sums.latency = std::move(*latency);
  return sums;
}

Book::Book(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Book::~Book() = default;

Result<std::unique_ptr<Book>> Book::open(const std::string& file, Milliseconds busy_timeout) {
  auto database = Database::open(file, busy_timeout);
  if (!database) return std::unexpected(database.error());
  Statement& version = (*database)->statement("PRAGMA user_version");
  const std::int64_t found = version.step() ? version.integer(0) : 0;
  version.run();
  if (auto status = (*database)->status(); !status) return std::unexpected(status.error());
  if (found > kVersion)
    return fail(Origin::self,
                fmt::format("{}: written by a later version (layout {}, this one knows {}); use the "
                            "program that wrote it",
                            file, found, kVersion));
  if (found < kVersion) {
    Database::Transaction change(**database);
    for (const char* sql : kTables) (*database)->run(sql);
    if (auto done = change.commit(); !done) return std::unexpected(done.error());
  }
  auto impl = std::make_unique<Impl>();
  impl->database = std::move(*database);
  return std::unique_ptr<Book>(new Book(std::move(impl)));
}

void Book::on_step(std::function<void(std::string_view)> hook) {
  impl_->step_hook = std::move(hook);
}

void Book::set_batch(std::uint64_t entries) {
  impl_->batch = std::max<std::uint64_t>(entries, 1);
}

Book::Impl::Mark Book::Impl::mark(std::string_view journal, std::string_view stream) {
  Statement& select =
      database->statement("SELECT entry, fingerprint FROM watermarks WHERE journal = ? AND stream = ?");
  select.bind(journal).bind(stream);
  if (!select.step()) return {};
  return {select.number(0), static_cast<std::uint32_t>(select.number(1))};
}

void Book::Impl::note_missing(std::string_view journal, std::string_view stream, std::uint64_t first,
                              std::uint64_t last, std::string_view why) {
  database->statement("INSERT OR REPLACE INTO missing VALUES (?, ?, ?, ?, ?)")
      .bind(journal)
      .bind(stream)
      .bind(first)
      .bind(last)
      .bind(why)
      .run();
}

std::vector<Book::Impl::Hours> Book::Impl::closed_hours() {
  std::vector<Hours> hours;
  Statement& select = database->statement("SELECT first_hour, end_hour FROM closings");
  while (select.step()) hours.push_back({select.integer(0), select.integer(1)});
  return hours;
}

void Book::Impl::add_rows(const std::string& journal, const usage::Rollup& rollup) {
  const std::vector<Hours> closed = closed_hours();
  for (const auto& [key, added] : rollup) {
    const bool late = std::ranges::any_of(
        closed, [&](const Hours& hours) { return key.hour >= hours.first && key.hour < hours.end; });
    const std::int64_t filed = late ? kWaiting : key.hour;
    Statement& select = database->statement("SELECT " TOLLGATE_SUM_COLUMNS
                                            " FROM rows WHERE filed = ? AND hour = ? AND tenant = ? AND "
                                            "organization = ? AND user = ? AND product = ? AND "
                                            "object = ? AND operation = ? AND journal = ?");
    bind_key(select, filed, key, journal);
    usage::RollupSums sums = added;
    if (select.step()) sums.merge(read_sums(select, 0));
    select.run();

    Statement& put = database->statement(
        "INSERT OR REPLACE INTO rows (filed, hour, tenant, organization, user, product, object, operation, "
        "journal, " TOLLGATE_SUM_COLUMNS
        ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    bind_key(put, filed, key, journal);
    const std::string denied = usage::format_denied(sums.denied), latency = sums.latency.encode();
    for (std::uint64_t value : {sums.calls, sums.interrupted, sums.degraded, sums.errors, sums.free,
                                sums.given_back, sums.void_charged, sums.void_maybe})
      put.bind(value);
    put.bind(denied).bind(sums.bytes_in).bind(sums.bytes_out).bind(sums.backend_us).bind_blob(latency);
    put.run();
    // Of two hours the later one, whatever the order of journals: the same book from the same entries.
    database
        ->statement(
            "INSERT INTO users VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET organization = "
            "excluded.organization, hour = excluded.hour WHERE (excluded.hour, excluded.organization) > "
            "(hour, organization)")
        .bind(key.tenant)
        .bind(key.user)
        .bind(key.organization)
        .bind(key.hour)
        .run();
  }
}

namespace {

std::vector<Watermark> read_marks(Database& database) {
  std::vector<Watermark> marks;
  Statement& select =
      database.statement("SELECT journal, stream, entry FROM watermarks ORDER BY journal, stream");
  while (select.step()) marks.push_back({select.text(0), select.text(1), select.number(2)});
  return marks;
}

}  // namespace

Result<std::vector<Watermark>> Book::watermarks() const {
  Database::Transaction view(*impl_->database, Database::Transaction::Kind::read);
  std::vector<Watermark> marks = read_marks(*impl_->database);
  if (auto done = view.commit(); !done) return std::unexpected(done.error());
  return marks;
}

Result<std::vector<Book::Missing>> Book::missing() const {
  Database& database = *impl_->database;
  Database::Transaction view(database, Database::Transaction::Kind::read);
  std::vector<Missing> gaps;
  Statement& select = database.statement(
      "SELECT journal, stream, first, last, why FROM missing ORDER BY journal, stream, first");
  while (select.step())
    gaps.push_back({select.text(0), select.text(1), select.number(2), select.number(3), select.text(4)});
  if (auto done = view.commit(); !done) return std::unexpected(done.error());
  return gaps;
}

Result<usage::Rollup> Book::rows(std::int64_t first_hour, std::int64_t end_hour,
                                 const std::vector<std::string>& journals,
                                 std::vector<Watermark>* marks) const {
  Database& database = *impl_->database;
  Database::Transaction view(database, Database::Transaction::Kind::read);
  usage::Rollup rollup;
  Statement& select = database.statement(
      "SELECT journal, hour, tenant, organization, user, product, object, operation, " TOLLGATE_SUM_COLUMNS
      " FROM rows WHERE hour >= ? AND hour < ?");
  select.bind(first_hour).bind(end_hour);
  while (select.step()) {
    if (!journals.empty() && std::ranges::find(journals, select.text(0)) == journals.end()) continue;
    rollup[usage::RollupKey{select.integer(1), select.text(2), select.text(3), select.text(4), select.text(5),
                            select.text(6), select.text(7)}]
        .merge(read_sums(select, 8));
  }
  if (marks != nullptr) *marks = read_marks(database);
  if (auto done = view.commit(); !done) return std::unexpected(done.error());
  return rollup;
}

}  // namespace tollgate::billing
