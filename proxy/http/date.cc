#include "proxy/http/date.h"

#include <fmt/format.h>

#include <chrono>

#include "metering/base/check.h"

namespace tollgate::http {

std::string format_date(UnixTime time) {
  static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                            "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const std::chrono::sys_seconds seconds{Seconds(unix_seconds(time))};
  const std::chrono::sys_days day = std::chrono::floor<std::chrono::days>(seconds);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss clock(seconds - day);
  const int year = static_cast<int>(date.year());
  CHECK(year >= 0 && year <= 9999, "a date that IMF-fixdate cannot write");
  return fmt::format("{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT",
                     kDays[std::chrono::weekday(day).c_encoding()], static_cast<unsigned>(date.day()),
                     kMonths[static_cast<unsigned>(date.month()) - 1], year, clock.hours().count(),
                     clock.minutes().count(), clock.seconds().count());
}

}  // namespace tollgate::http
