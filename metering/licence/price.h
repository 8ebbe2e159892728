// What a licence costs, as data of a rulebook (`price` of a product, config/presets/bpmonline.yaml) or as the
// operator says (licensing.prices). Nothing here decides whether a call may pass; the billing files show it
// and compute amounts by it (metering/usage/licence_row.h).
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tollgate::licence {

struct Price {
  // What is counted and paid for.
  enum class Per : std::uint8_t {
    user,             // who had a call that the product permitted, in the period
    named_seat,       // the most that were held at once in the period
    concurrent_seat,  // the same
    call,             // billable units of the period
  };
  // For how long one unit of it is paid; `once`: for good, whatever the period (calls).
  enum class Every : std::uint8_t { year, month, once };

  std::string product;            // id of a product or of a pool of seats
  std::uint64_t minor_units = 0;  // of the currency, for one unit: 7000 of USD are 70.00 USD
  std::string currency;           // ISO 4217: "USD"
  Per per = Per::user;
  Every every = Every::year;
  std::uint64_t included = 0;  // units of the whole installation that cost nothing
  std::string source;          // where it is from: a document, a contract
  std::string as_of;           // the date of that
  bool operator==(const Price&) const = default;
};

inline constexpr std::string_view kPerNames[] = {"user", "named_seat", "concurrent_seat", "call"};
inline constexpr std::string_view kEveryNames[] = {"year", "month", "once"};
inline std::string_view name(Price::Per per) {
  return kPerNames[static_cast<std::size_t>(per)];
}
inline std::string_view name(Price::Every every) {
  return kEveryNames[static_cast<std::size_t>(every)];
}
// A currency as ISO 4217 writes it: three capital letters.
inline bool is_currency(std::string_view text) {
  if (text.size() != 3) return false;
  for (char c : text)
    if (c < 'A' || c > 'Z') return false;
  return true;
}

}  // namespace tollgate::licence
