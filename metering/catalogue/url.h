// Request targets brought to one reading, strictly. Used by the dialects and by the proxy's router.
//
// Two servers can read one target differently (one decodes before it splits, one after; one drops `;params`, one
// strips trailing dots). normalise() accepts only targets on which such servers agree, so that what was classified
// is what the upstream serves:
//   - the path is percent-decoded exactly once; an invalid %xx is refused
//   - refused after decoding: '%' + two hex digits and %u (double encodings such as %252e), backslash, control
//     bytes, NUL, bytes that are not UTF-8 (overlong %c0%af)
//   - an encoded slash (%2F) is refused unless it stands inside a quoted OData key: Case('a%2Fb') has one reading
//   - a raw ';' outside a quoted key is refused (path parameters); so are segments that end in '.' or ' '
//   - empty and "." segments vanish, ".." removes its predecessor; above the root it is refused, and so are a dot
//     segment inside quotes, Case('x/../Account'), and one that removes what has a parenthesis or a quote: Case(1)/..
//   - a '#' is refused: fragments are never sent (RFC 9110 section 4.2.5)
//
//   normalise("//0/./OData/%43ase(1)/?$top=1") -> path "/0/OData/Case(1)", lower "/0/odata/case(1)", query "$top=1"
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "metering/base/error.h"

namespace tollgate::catalogue {

inline constexpr std::size_t kPathSegmentsMax = 64;

// Moves freely; the query is a view of the target given to normalise().
struct NormalPath {
  std::string path;        // decoded, begins with '/', no trailing '/' but for the root itself
  std::string lower;       // the same bytes in ASCII lower case
  std::string_view query;  // as sent, without '?'; may be empty

  std::size_t size() const { return count; }
  // Segment by index, decoded. Slashes inside a quoted key belong to the segment.
  std::string_view segment(std::size_t i) const { return view(path, i); }
  std::string_view segment_lower(std::size_t i) const { return view(lower, i); }
  // An origin-form target with the same meaning: normalise(encoded()) yields the same path.
  std::string encoded() const;
  // Of that, the segments from `first` on, each with its '/' before it; no query.
  void append_encoded(std::string& out, std::size_t first) const;

  struct Span {
    std::uint32_t begin, length;
  };
  std::array<Span, kPathSegmentsMax> spans;  // the first `count`
  std::size_t count = 0;

 private:
  std::string_view view(std::string_view text, std::size_t i) const {
    return text.substr(spans[i].begin, spans[i].length);
  }
};

// target: origin-form (RFC 9112 section 3.2.1), begins with '/'. The error names what is wrong, for a 400.
Result<NormalPath> normalise(std::string_view target);
// The same into `out`, whose memory is used again. After an error `out` holds nothing of use.
Result<void> normalise(std::string_view target, NormalPath& out);

// Parameters of a query string, in order. Names and values are decoded ('+' is a space, %xx once); a '%' that is
// not followed by two hex digits stays as it is, as ASP.NET keeps it.
//   QueryCursor cursor("%24top=1&q=a+b"); while (cursor.next()) use(cursor.name(), cursor.value());
class QueryCursor {
 public:
  explicit QueryCursor(std::string_view query) : rest_(query) {}
  bool next();
  // Valid until the next call of next().
  std::string_view name() const { return name_; }
  std::string_view value() const { return value_; }

 private:
  std::string_view rest_, name_, value_;
  std::string name_buffer_, value_buffer_;
};

// How often a parameter occurs (name in any ASCII case) and its first value.
struct QueryMatch {
  std::size_t count = 0;
  std::string value;
};
QueryMatch find_parameter(std::string_view query, std::string_view name);

}  // namespace tollgate::catalogue
