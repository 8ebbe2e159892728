#include "proxy/http/framing.h"

#include <limits>

#include "proxy/http/field_names.h"
#include "proxy/http/syntax.h"

namespace tollgate::http {

std::optional<std::uint64_t> parse_content_length(std::string_view value) {
  const std::optional<std::uint64_t> length = parse_decimal(value);
  if (!length || *length > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
    return std::nullopt;
  return length;
}

TransferCoding parse_transfer_encoding(std::string_view value) {
  if (equals_ignore_case(value, "chunked")) return TransferCoding::chunked;
  const auto is_compression = [](std::string_view coding) {
    for (std::string_view known : {"gzip", "x-gzip", "deflate", "compress", "x-compress"})
      if (equals_ignore_case(coding, known)) return true;
    return false;
  };
  for (std::size_t comma = value.find(','); comma != std::string_view::npos; comma = value.find(',')) {
    if (!is_compression(trim(value.substr(0, comma)))) return TransferCoding::invalid;
    value.remove_prefix(comma + 1);
    if (value.find(',') == std::string_view::npos)
      return equals_ignore_case(trim(value), "chunked") ? TransferCoding::unsupported
                                                        : TransferCoding::invalid;
  }
  return TransferCoding::invalid;
}

ConnectionOptions read_connection(const Fields& fields) {
  ConnectionOptions options;
  std::size_t count = 0;
  const auto visit = [&](std::string_view option) {
    if (++count > kConnectionOptionsMax)
      options.malformed = "too many options in Connection";
    else if (equals_ignore_case(option, "keep-alive"))
      options.keep_alive = true;
    else if (equals_ignore_case(option, "close"))
      options.close = true;
    else if (equals_ignore_case(option, "upgrade"))
      options.upgrade = true;
    else if (!is_token(option))
      options.malformed = "an option in Connection that is not a token";
    else if (is_protected_from_connection(option))
      options.names_protected = true;
    else if (!equals_ignore_case(option, "te"))
      options.names_others = true;
    return options.malformed.empty();
  };
  for (const Field& field : fields) {
    if (!equals_ignore_case(field.name, "connection")) continue;
    if (!for_each_element(field.value, visit)) break;
  }
  return options;
}

}  // namespace tollgate::http
