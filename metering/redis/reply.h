// One reply of Redis (RESP2), as a value.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tollgate::redis {

struct Reply {
  enum class Type : std::uint8_t { nil, integer, text, status, error, array };
  Type type = Type::nil;
  std::int64_t integer = 0;
  std::string text;             // text, status ("OK") and error ("NOSCRIPT No matching script.")
  std::vector<Reply> elements;  // array

  bool is_error() const { return type == Type::error; }
  // Error replies open with a code in capitals: is_error("NOSCRIPT").
  bool is_error(std::string_view code) const {
    return is_error() && text.starts_with(code) && (text.size() == code.size() || text[code.size()] == ' ');
  }
};

}  // namespace tollgate::redis
