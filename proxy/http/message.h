// The parts of an HTTP/1.1 message as views into the connection's read buffer. No socket, no copy.
// Whoever holds a head must keep the bytes it was parsed from in place.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include "metering/base/ascii.h"
#include "metering/base/reason.h"

namespace tollgate::http {

struct Field {
  std::string_view name;   // as sent
  std::string_view value;  // without leading and trailing OWS
};

using Fields = std::vector<Field>;

// First value of a field, or nullptr. Names compare without case. Cost: linear in the number of fields.
inline const Field* find(const Fields& fields, std::string_view name) {
  for (const Field& field : fields)
    if (equals_ignore_case(field.name, name)) return &field;
  return nullptr;
}

// How the end of a body is known (RFC 9112 section 6.3).
enum class Framing : std::uint8_t { none, length, chunked, until_close };

struct RequestHead {
  std::string_view method;
  std::string_view target;  // as sent
  std::string_view path;    // target in origin-form without the query; "*" for OPTIONS *
  std::string_view query;   // after '?', without it; empty when there is none
  bool has_query = false;
  std::string_view authority;      // Host, or the authority of an absolute-form target (they must agree)
  std::uint8_t minor_version = 1;  // HTTP/1.minor
  Fields fields;
  Framing framing = Framing::none;  // none, length or chunked
  std::uint64_t content_length = 0;
  bool keep_alive = true;  // the connection may carry another request
  bool expect_continue = false;
  bool wants_upgrade = false;            // Connection: upgrade and an Upgrade field
  bool connection_names_fields = false;  // Connection names fields that end here (forward.h)
};

struct ResponseHead {
  int status = 0;
  std::string_view reason_phrase;
  std::uint8_t minor_version = 1;
  Fields fields;
  Framing framing = Framing::none;  // framing of the body as it arrives; none for HEAD, 1xx, 204, 304
  std::uint64_t content_length = 0;
  bool keep_alive = true;
  bool connection_names_fields = false;  // as in RequestHead
};

// Why a message was refused. `detail` is a literal: it never quotes what was sent.
struct ParseFailure {
  Reason reason = Reason::bad_request;
  std::string_view detail;
};

enum class ParseStatus : std::uint8_t { incomplete, complete, failed };

struct HeadLimits {
  std::size_t head_bytes = 64 * 1024;
  std::size_t request_line = 16 * 1024;
  std::size_t field_count = 128;
};

}  // namespace tollgate::http
