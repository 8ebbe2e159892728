// Inside the catalogue room: multipart bodies (RFC 2046 section 5.1) cut into parts so that no other reader can cut
// them differently. One newline style (CRLF or LF) holds for every delimiter line of a body; refused are
//   - delimiter lines in the other style or a line that begins with the delimiter and goes on ("--b2" for "--b"):
//     ASP.NET Core takes it for a delimiter, others do not
//   - a delimiter line behind the closing one
// Without a closing delimiter (the vendor's printed $batch sample has none) the last part ends with the body.
// A delimiter counts only at the start of a line: text inside a JSON string is no delimiter.
#pragma once
#include <optional>
#include <string_view>
#include <vector>

namespace tollgate::catalogue {

inline constexpr std::size_t kMultipartPartsMax = 4096;

struct Part {
  std::string_view headers;  // the lines before the empty line
  std::string_view body;     // without the newline that belongs to the delimiter
};

// Cuts headers from the rest at the first empty line; all lines must end in `newline` ("\r\n" or "\n").
// nullopt: a bare CR or LF, a folded line.
struct Head {
  std::string_view lines, rest;
};
std::optional<Head> split_head(std::string_view text, std::string_view newline);

struct Multipart {
  std::vector<Part> parts;
  std::string_view newline;  // of this body
};
// nullopt: no delimiter at all or ambiguous. boundary: 1 to 70 bytes (RFC 2046).
std::optional<Multipart> split_multipart(std::string_view body, std::string_view boundary);

// Field of header lines, by name in any case; `count` tells repeats.
struct FieldMatch {
  std::size_t count = 0;
  std::string_view value;
  bool malformed = false;  // some line has no colon, or white space before it
};
FieldMatch find_field(std::string_view lines, std::string_view name);

}  // namespace tollgate::catalogue
