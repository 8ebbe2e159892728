// Configurations that several tests build on.
#pragma once
#include <string_view>

namespace tollgate::config {

// Six lines, valid by themselves; tests append keys from line 7 on.
inline constexpr std::string_view kSmallest =
    "version: 1\n"
    "upstreams:\n"
    "  crm: {servers: [\"http://127.0.0.1:9000\"]}\n"
    "identity:\n"
    "  jwt:\n"
    "    - {issuer: \"https://idp.example\", algorithms: [HS256], secret_file: k}\n";

}  // namespace tollgate::config
