// The licences of a period: calls and users from the rows, seats from what proxies wrote down, prices from
// the caller.
#include <algorithm>
#include <set>
#include <tuple>

#include "metering/billing/book_impl.h"

namespace tollgate::billing {
namespace {

constexpr std::int64_t kNone = -1;  // of a number that may be missing
constexpr std::int64_t kHourMs = 3'600'000;

std::int64_t number_of(const std::optional<std::uint64_t>& number) {
  return number ? static_cast<std::int64_t>(*number) : kNone;
}
std::optional<std::uint64_t> optional_of(std::int64_t number) {
  return number == kNone ? std::nullopt : std::optional(static_cast<std::uint64_t>(number));
}

// The rows of organizations and the total of each product, made when they are missing.
class Lines {
 public:
  usage::LicenceRow& of(const std::string& product, const std::string& tenant,
                        const std::string& organization) {
    return line({product, false, tenant, organization});
  }
  usage::LicenceRow& total(const std::string& product) { return line({product, true, "", ""}); }
  // By product, each with its organizations first.
  std::vector<usage::LicenceRow> take(const std::vector<licence::Price>& prices) {
    std::vector<usage::LicenceRow> rows;
    for (auto& [key, row] : lines_) {
      const auto price = std::ranges::find(prices, row.product, &licence::Price::product);
      if (price != prices.end()) row.price = *price;
      rows.push_back(std::move(row));
    }
    return rows;
  }

 private:
  using Key = std::tuple<std::string, bool, std::string, std::string>;
  usage::LicenceRow& line(const Key& key) {
    usage::LicenceRow& row = lines_[key];
    std::tie(row.product, row.total, row.tenant, row.organization) = key;
    return row;
  }
  std::map<Key, usage::LicenceRow> lines_;
};

}  // namespace

std::vector<usage::LicenceRow> Book::Impl::count_licences(const Period& period,
                                                          const std::vector<licence::Price>& prices) {
  Lines lines;
  Statement& calls = database->statement(
      "SELECT product, tenant, organization, sum(calls) FROM rows WHERE filed >= ? AND filed < ? AND calls > "
      "0 "
      "GROUP BY product, tenant, organization");
  calls.bind(period.first_hour).bind(period.end_hour);
  while (calls.step()) {
    lines.of(calls.text(0), calls.text(1), calls.text(2)).calls += calls.number(3);
    lines.total(calls.text(0)).calls += calls.number(3);
  }
  // Of one tenant a name is one user, also of two organizations: the total counts him once.
  Statement& users = database->statement(
      "SELECT product, tenant, organization, count(DISTINCT user) FROM rows WHERE filed >= ? AND filed < ? "
      "AND filed = hour AND calls > 0 GROUP BY product, tenant, organization");
  users.bind(period.first_hour).bind(period.end_hour);
  while (users.step()) lines.of(users.text(0), users.text(1), users.text(2)).users = users.number(3);
  Statement& all_users = database->statement(
      "SELECT product, count(*) FROM (SELECT DISTINCT product, tenant, user FROM rows WHERE filed >= ? AND "
      "filed < ? AND filed = hour AND calls > 0) GROUP BY product");
  all_users.bind(period.first_hour).bind(period.end_hour);
  while (all_users.step()) lines.total(all_users.text(0)).users = all_users.number(1);

  usage::SeatSweep sweep;
  Statement& seats = database->statement(
      "SELECT time_ms, pool, named, seats.tenant, seats.user, until_ms, used, goes_on, "
      "coalesce(organization, '') FROM seats LEFT JOIN users ON users.tenant = seats.tenant AND users.user = "
      "seats.user WHERE time_ms < ?");
  seats.bind(period.end_hour * kHourMs);
  while (seats.step())
    sweep.add({.time_ms = seats.integer(0),
               .pool = seats.text(1),
               .named = seats.integer(2) != 0,
               .tenant = seats.text(3),
               .user = seats.text(4),
               .until_ms = seats.integer(5),
               .used = seats.number(6),
               .goes_on = seats.integer(7) != 0},
              seats.text(8));
  for (const auto& [id, pool] : sweep.count(period.first_hour * kHourMs, period.end_hour * kHourMs)) {
    auto put = [&](usage::LicenceRow& row, const usage::SeatSweep::Counts& counts) {
      if (pool.named) {
        row.named_max = counts.most;
        row.named_end = counts.end;
      } else {
        row.concurrent_peak = counts.most;
      }
    };
    put(lines.total(id), pool.total);
    for (const auto& [names, counts] : pool.organizations)
      if (counts.most > 0) put(lines.of(id, names.first, names.second), counts);
  }
  return lines.take(prices);
}

void Book::Impl::keep_licences(const Period& period, const std::vector<licence::Price>& prices) {
  Statement& done = database->statement("SELECT 1 FROM licence_closings WHERE name = ?");
  done.bind(period.name);
  const bool kept = done.step();
  done.run();
  if (kept) return;
  std::int64_t number = 0;
  for (const usage::LicenceRow& row : count_licences(period, prices)) {
    const licence::Price price = row.price.value_or(licence::Price{});
    database->statement("INSERT INTO licences VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(period.name)
        .bind(number++)
        .bind(std::int64_t{row.total})
        .bind(row.tenant)
        .bind(row.organization)
        .bind(row.product)
        .bind(row.calls)
        .bind(row.users)
        .bind(number_of(row.named_max))
        .bind(number_of(row.named_end))
        .bind(number_of(row.concurrent_peak))
        .bind(price.currency)
        .bind(price.minor_units)
        .bind(static_cast<std::int64_t>(price.per))
        .bind(static_cast<std::int64_t>(price.every))
        .bind(price.included)
        .bind(price.source)
        .bind(price.as_of)
        .run();
  }
  database->statement("INSERT INTO licence_closings VALUES (?)").bind(period.name).run();
  step("licences counted");
}

std::vector<usage::LicenceRow> Book::Impl::kept_licences(const std::string& name) {
  std::vector<usage::LicenceRow> rows;
  Statement& select = database->statement(
      "SELECT total, tenant, organization, product, calls, users, named_max, named_end, concurrent_peak, "
      "currency, minor_units, per, every, included, source, as_of FROM licences WHERE name = ? ORDER BY "
      "number");
  select.bind(name);
  while (select.step()) {
    usage::LicenceRow& row = rows.emplace_back();
    row.total = select.integer(0) != 0;
    row.tenant = select.text(1);
    row.organization = select.text(2);
    row.product = select.text(3);
    row.calls = select.number(4);
    row.users = select.number(5);
    row.named_max = optional_of(select.integer(6));
    row.named_end = optional_of(select.integer(7));
    row.concurrent_peak = optional_of(select.integer(8));
    if (select.text(9).empty()) continue;
    row.price = licence::Price{.product = row.product,
                               .minor_units = select.number(10),
                               .currency = select.text(9),
                               .per = static_cast<licence::Price::Per>(select.integer(11)),
                               .every = static_cast<licence::Price::Every>(select.integer(12)),
                               .included = select.number(13),
                               .source = select.text(14),
                               .as_of = select.text(15)};
  }
  return rows;
}

}  // namespace tollgate::billing
