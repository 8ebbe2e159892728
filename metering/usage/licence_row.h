// The licences of a period as billing reads them: for each product, and for each organization, how many users
// there were, how many seats were held, how many calls were made, and what is owed by the price of the
// product. Pure.
//
// A row is of one organization, or (`total`) of the whole installation: the same counted over all of them.
// Users and peaks of organizations need not add up to the total; who charges organizations takes their rows,
// who pays the vendor the total. What a price includes belongs to the installation as a whole, so the
// organizations of such a price have no amount.
//
//   amount = (units - included) x minor_units x hours of the period / hours of the year or month around it
//
// in integers, half a minor unit rounded up. Twelve months of equal units make the price of a year but for
// the rounding. No price: no amount, which is not the same as 0.
//
// Seats are known from what proxies write down (SeatEntry, journal_record.h): SeatSweep puts that into time
// order.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "metering/licence/price.h"
#include "metering/usage/export_row.h"
#include "metering/usage/journal_record.h"

namespace tollgate::usage {

struct LicenceRow {
  bool total = false;  // of the whole installation; tenant and organization are empty then
  std::string tenant, organization, product;
  std::uint64_t calls = 0;  // corrections of earlier periods included
  std::uint64_t users = 0;  // with a call in the period
  // nullopt: no pool of seats of that kind, or none that was ever used.
  std::optional<std::uint64_t> named_max, named_end, concurrent_peak;
  std::optional<licence::Price> price;
  bool operator==(const LicenceRow&) const = default;
};

// Units that the price counts, and what is owed in minor units as a decimal. Both "" without a price, or
// where the price counts something that there is none of (a product without seats, by the seat).
struct Owed {
  std::string units, minor_units, rule;
};
// hours: of the period, [first, end), within one calendar month.
Owed owed(const LicenceRow& row, std::int64_t first_hour, std::int64_t end_hour);

// In the order of the file. Columns are only ever added, at the end.
const std::vector<Column>& licence_columns();
std::string licence_csv_header();
void append_csv(std::string& out, const LicenceRow& row, std::int64_t first_hour, std::int64_t end_hour);
void append_ndjson(std::string& out, const LicenceRow& row, std::int64_t first_hour, std::int64_t end_hour);

// Who holds how many seats, moment by moment. Entries in any order of journals; add() all, then count().
class SeatSweep {
 public:
  struct Counts {
    std::uint64_t most = 0;  // at one moment of the period
    std::uint64_t end = 0;   // at its end
  };
  struct Pool {
    bool named = false;
    Counts total;
    std::map<std::pair<std::string, std::string>, Counts> organizations;  // tenant, organization
  };
  void add(SeatEntry entry, std::string organization);
  // Of the period [first, end) ms since 1970, by pool. The total's most is what the store itself counted when
  // a seat was taken, where that is more: a proxy whose journal is not here had a part of it.
  std::map<std::string, Pool> count(std::int64_t first_ms, std::int64_t end_ms);

 private:
  struct Known {
    SeatEntry entry;
    std::string organization;
  };
  std::vector<Known> entries_;
};

}  // namespace tollgate::usage
