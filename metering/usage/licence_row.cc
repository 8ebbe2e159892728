#include "metering/usage/licence_row.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <tuple>

#include "metering/base/json_text.h"

namespace tollgate::usage {
namespace {

using licence::Price;

std::string number_or_nothing(const std::optional<std::uint64_t>& number) {
  return number ? std::to_string(*number) : "";
}

std::optional<std::uint64_t> units_of(const LicenceRow& row) {
  switch (row.price->per) {
    case Price::Per::user:
      return row.users;
    case Price::Per::named_seat:
      return row.named_max;
    case Price::Per::concurrent_seat:
      return row.concurrent_peak;
    case Price::Per::call:
      return row.calls;
  }
  return std::nullopt;
}

// Hours of the calendar year or month that `hour` lies in.
std::int64_t hours_around(std::int64_t hour, Price::Every every) {
  using namespace std::chrono;
  const year_month_day date(floor<days>(sys_time<hours>(hours(hour))));
  const sys_days first = every == Price::Every::year ? sys_days(date.year() / January / 1)
                                                     : sys_days(date.year() / date.month() / 1);
  const sys_days next = every == Price::Every::year ? sys_days((date.year() + years(1)) / January / 1)
                                                    : sys_days((date.year() / date.month() + months(1)) / 1);
  return duration_cast<hours>(next - first).count();
}

// The cells of a row in the order of licence_columns(). text: quoted in CSV, a string in NDJSON; an empty one
// that is no text is nothing, in NDJSON null.
struct Cell {
  std::string value;
  bool text = false;
};

std::vector<Cell> cells_of(const LicenceRow& row, std::int64_t first_hour, std::int64_t end_hour) {
  const Owed due = owed(row, first_hour, end_hour);
  const Price none;
  const Price& price = row.price ? *row.price : none;
  auto priced = [&](auto value) { return row.price ? fmt::format("{}", value) : ""; };
  return {{row.total ? "total" : "organization", true},
          {hour_text(first_hour), true},
          {hour_text(end_hour), true},
          {row.tenant, true},
          {row.organization, true},
          {row.product, true},
          {std::to_string(row.calls)},
          {std::to_string(row.users)},
          {number_or_nothing(row.named_max)},
          {number_or_nothing(row.named_end)},
          {number_or_nothing(row.concurrent_peak)},
          {price.currency, true},
          {priced(price.minor_units)},
          {row.price ? std::string(licence::name(price.per)) : "", true},
          {row.price ? std::string(licence::name(price.every)) : "", true},
          {priced(price.included)},
          {due.units},
          {due.minor_units},
          {due.rule, true},
          {price.source, true},
          {price.as_of, true}};
}

}  // namespace

Owed owed(const LicenceRow& row, std::int64_t first_hour, std::int64_t end_hour) {
  if (!row.price) return {};
  const Price& price = *row.price;
  const std::optional<std::uint64_t> counted = units_of(row);
  if (!counted) return {};
  if (!row.total && price.included > 0)
    return {std::to_string(*counted), "", "what the price includes belongs to the total"};
  const std::uint64_t units = *counted > price.included ? *counted - price.included : 0;
  std::string rule = price.included > 0
                         ? fmt::format("({} {} - {})", *counted, name(price.per), price.included)
                         : fmt::format("{} {}", *counted, name(price.per));
  rule += fmt::format(" x {}", price.minor_units);
  // 128 bits: no number of calls at no price is too large.
  __extension__ using Wide = unsigned __int128;
  Wide amount = static_cast<Wide>(units) * price.minor_units;
  if (price.every != Price::Every::once) {
    const auto of = static_cast<std::uint64_t>(hours_around(first_hour, price.every));
    const auto hours = static_cast<std::uint64_t>(end_hour - first_hour);
    rule += fmt::format(" x {} h / {} h", hours, of);
    amount = (amount * hours * 2 + of) / (Wide{2} * of);
  }
  return {std::to_string(units), fmt::format("{}", amount), std::move(rule)};
}

const std::vector<Column>& licence_columns() {
  static const std::vector<Column> kColumns = {
      {"scope", "`organization`, or `total`: the same of the whole installation. Never to be added up"},
      {"from", "beginning of the period, UTC"},
      {"to", "its end, not included"},
      {"tenant", "tenant of the users; empty in a total"},
      {"organization", "organization of the users; empty in a total, and of who never made a call"},
      {"product", "licence product, or pool of seats (`concurrent`, `portal_users`)"},
      {"calls", "billable units that the product permitted, corrections in this period's file included"},
      {"users", "users with such a call in the period"},
      {"named_seats_max", "most named seats that were held at one moment of the period; empty: it has none"},
      {"named_seats_end", "named seats that were held at its end"},
      {"concurrent_peak", "most concurrent seats that were held at one moment; empty: it has none"},
      {"currency", "of the price, ISO 4217; empty: no price is known"},
      {"price_minor_units", "price of one unit, in minor units of the currency: 7000 of USD are 70.00"},
      {"price_per", "what a unit is: `user`, `named_seat`, `concurrent_seat`, `call`"},
      {"price_every", "for how long it is paid: `year`, `month`, `once`"},
      {"included", "units of the whole installation that cost nothing"},
      {"units", "units to be paid for"},
      {"amount_minor_units", "what is owed, in minor units; empty: no price is known, which is not 0"},
      {"rule", "how it was computed"},
      {"price_source", "where the price is from"},
      {"price_as_of", "the date of that"},
  };
  return kColumns;
}

std::string licence_csv_header() {
  std::string out;
  for (const Column& column : licence_columns())
    out += fmt::format("{}{}", out.empty() ? "" : ",", column.name);
  return out + "\r\n";
}

void append_csv(std::string& out, const LicenceRow& row, std::int64_t first_hour, std::int64_t end_hour) {
  bool first = true;
  for (const Cell& cell : cells_of(row, first_hour, end_hour)) {
    if (!std::exchange(first, false)) out.push_back(',');
    cell.text ? append_csv_text(out, cell.value) : void(out += cell.value);
  }
  out += "\r\n";
}

void append_ndjson(std::string& out, const LicenceRow& row, std::int64_t first_hour, std::int64_t end_hour) {
  JsonWriter json(out);
  json.object([&] {
    std::size_t column = 0;
    for (const Cell& cell : cells_of(row, first_hour, end_hour)) {
      json.key(licence_columns()[column++].name);
      if (cell.text)
        json.value(cell.value);
      else if (cell.value.empty())
        json.null();
      else
        json.raw(cell.value);
    }
  });
  out.push_back('\n');
}

void SeatSweep::add(SeatEntry entry, std::string organization) {
  entries_.push_back({std::move(entry), std::move(organization)});
}

std::map<std::string, SeatSweep::Pool> SeatSweep::count(std::int64_t first_ms, std::int64_t end_ms) {
  // Each entry sets until when its member holds the seat; of one moment, what ends comes before what begins.
  struct Moment {
    std::int64_t time_ms;
    bool begins;
    std::size_t entry;
    auto operator<=>(const Moment&) const = default;
  };
  std::vector<Moment> moments;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const SeatEntry& entry = entries_[i].entry;
    moments.push_back({entry.time_ms, entry.until_ms > entry.time_ms, i});
    if (entry.until_ms > entry.time_ms && entry.until_ms != SeatEntry::kNoEnd)
      moments.push_back({entry.until_ms, false, i});
  }
  std::ranges::sort(moments);
  std::map<std::string, Pool> pools;
  using Holder = std::tuple<std::string, std::string, std::string>;  // pool, tenant, user
  std::map<Holder, std::int64_t> held;                               // until when
  // Who takes a seat and leaves it within one millisecond has left it.
  std::set<std::pair<Holder, std::int64_t>> over;
  for (const auto& [entry, organization] : entries_)
    if (entry.until_ms <= entry.time_ms) over.insert({{entry.pool, entry.tenant, entry.user}, entry.time_ms});
  auto reach = [&](SeatSweep::Counts& counts, std::int64_t time) {
    if (time >= first_ms) counts.most = std::max(counts.most, counts.end);
  };
  bool begun = false;
  auto begin_period = [&] {
    begun = true;
    for (auto& [id, pool] : pools) {
      reach(pool.total, first_ms);
      for (auto& [names, counts] : pool.organizations) reach(counts, first_ms);
    }
  };
  for (const Moment& moment : moments) {
    if (moment.time_ms >= end_ms) break;
    if (!begun && (moment.time_ms > first_ms || (moment.time_ms == first_ms && moment.begins)))
      begin_period();
    const auto& [entry, organization] = entries_[moment.entry];
    Pool& pool = pools[entry.pool];
    pool.named = entry.named;
    Counts& counts = pool.organizations[{entry.tenant, organization}];
    const Holder key{entry.pool, entry.tenant, entry.user};
    auto found = held.find(key);
    if (moment.begins) {
      if (found == held.end()) {
        if (entry.goes_on || over.contains({key, entry.time_ms})) continue;
        held.emplace(key, entry.until_ms);
        ++counts.end, ++pool.total.end;
      } else {
        found->second = std::max(found->second, entry.until_ms);
      }
      reach(counts, moment.time_ms);
      reach(pool.total, moment.time_ms);
      if (moment.time_ms >= first_ms) pool.total.most = std::max(pool.total.most, entry.used);
    } else if (found != held.end()) {
      // A log-out or a release ends it; the end of an entry does where no later one went on.
      const bool ended = entry.until_ms <= entry.time_ms || found->second <= moment.time_ms;
      if (!ended) continue;
      held.erase(found);
      --counts.end, --pool.total.end;
    }
  }
  if (!begun) begin_period();
  for (auto& [id, pool] : pools)
    for (auto& [names, counts] : pool.organizations) counts.most = std::min(counts.most, pool.total.most);
  return pools;
}

}  // namespace tollgate::usage
