#include "proxy/http/request_id.h"

#include <algorithm>

#include "metering/base/ascii.h"

namespace tollgate::http {

bool is_valid_request_id(std::string_view id) {
  return id.size() >= kRequestIdMin && id.size() <= kRequestIdMax && std::ranges::all_of(id, [](char c) {
           return is_alpha(c) || is_digit(c) || c == '.' || c == '_' || c == '-';
         });
}

void make_request_id(Random& random, std::string& id) {
  static constexpr char kAlphabet[] = "0123456789abcdefghjkmnpqrstvwxyz";
  id.resize(kRequestIdMade);
  char* at = id.data();
  for (int half = 0; half < 2; ++half) {  // 12 characters of 5 bits and one of 4 each
    std::uint64_t bits = random.next();
    for (std::size_t i = 0; i < kRequestIdMade / 2; ++i, bits >>= 5)
      *at++ = kAlphabet[static_cast<std::size_t>(bits & 31)];
  }
}

}  // namespace tollgate::http
