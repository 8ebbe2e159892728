#include "proxy/http/request_id.h"

#include <algorithm>

#include "metering/base/ascii.h"

namespace tollgate::http {

bool is_valid_request_id(std::string_view id) {
  return id.size() >= kRequestIdMin && id.size() <= kRequestIdMax && std::ranges::all_of(id, [](char c) {
           return is_alpha(c) || is_digit(c) || c == '.' || c == '_' || c == '-';
         });
}

std::string make_request_id(Random& random) {
  static constexpr char kAlphabet[] = "0123456789abcdefghjkmnpqrstvwxyz";
  Wide bits = (static_cast<Wide>(random.next()) << 64) | random.next();
  std::string id(kRequestIdMade, '0');
  for (char& c : id) {
    c = kAlphabet[static_cast<std::size_t>(bits & 31)];
    bits >>= 5;
  }
  return id;
}

}  // namespace tollgate::http
