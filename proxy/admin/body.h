// Bodies of requests to the admin API: JSON objects whose members are all known.
#pragma once
#include <simdjson.h>

#include <expected>
#include <initializer_list>
#include <optional>
#include <string_view>

#include "proxy/admin/service.h"

namespace tollgate::admin {

std::unexpected<Reply> bad(std::string_view detail);  // 400

// An empty body is an empty object. Members other than `known` are mistakes: the Reply says which.
std::optional<Reply> read_object(simdjson::dom::parser& parser, std::string_view body,
                                 std::initializer_list<std::string_view> known, simdjson::dom::object& out);

}  // namespace tollgate::admin
