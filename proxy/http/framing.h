// The two fields that say where a body ends, read the same way in requests and responses.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "proxy/http/message.h"

namespace tollgate::http {

inline constexpr std::size_t kConnectionOptionsMax = 64;

// Content-Length: digits only, at most 2^63-1, so that sums of sizes cannot overflow anywhere. Leading zeros
// are harmless (the field is written anew in decimal).
std::optional<std::uint64_t> parse_content_length(std::string_view value);

enum class TransferCoding : std::uint8_t {
  chunked,      // exactly that word, any case
  unsupported,  // registered compressions and a final chunked: where it ends is clear, what it says is not
  invalid
};
TransferCoding parse_transfer_encoding(std::string_view value);

// All Connection fields of a head together (RFC 9110 section 7.6.1).
struct ConnectionOptions {
  bool close = false, keep_alive = false, upgrade = false;
  bool names_protected = false;  // is_protected_from_connection (field_names.h) of one of them
  bool names_others = false;     // something else than close, keep-alive, upgrade, te
  std::string_view malformed;    // empty, or what is wrong: not a token, more than kConnectionOptionsMax
};
ConnectionOptions read_connection(const Fields& fields);

}  // namespace tollgate::http
