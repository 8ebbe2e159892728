// Replies that several parts of the admin service give, and how its requests are taken apart. Pure.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/error.h"
#include "metering/base/moment.h"
#include "proxy/admin/service.h"

namespace tollgate::admin {

// A problem document (RFC 9457).
Reply problem(int status, std::string_view title, std::string_view detail);
Reply not_found(std::string_view path);
Reply method_not_allowed(std::string_view allow);
Reply store_failed(const Error& error);  // 503
Reply json_reply(std::string body);      // 200

std::optional<std::string> percent_decode(std::string_view text);
// Decoded value of "name=..." in a query; "" when it is absent or cannot be decoded.
std::string query_value(std::string_view query, std::string_view name);
// "/api/v1/users" -> api, v1, users, each decoded; empty when one cannot be decoded.
std::vector<std::string> segments(std::string_view path);

}  // namespace tollgate::admin
