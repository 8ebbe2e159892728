// X-Request-Id: one id follows a call through client, proxy, upstream and logs.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

#include "metering/base/random.h"

namespace tollgate::http {

inline constexpr std::size_t kRequestIdMin = 8, kRequestIdMax = 128, kRequestIdMade = 26;

// [A-Za-z0-9._-]{8,128}: an inbound id in this form is kept, any other is replaced.
bool is_valid_request_id(std::string_view id);

// A new one: 26 characters 0-9 a-z without i l o u (Crockford's base 32), 128 bits of `random`. Not a secret.
void make_request_id(Random& random, std::string& id);

}  // namespace tollgate::http
