// Content-Type (RFC 9110 section 8.3), read strictly: what two parsers could read differently is not well formed.
#pragma once
#include <string>
#include <string_view>

namespace tollgate::catalogue {

struct MediaType {
  std::string essence;   // "multipart/mixed", lower case; "" when there is no Content-Type
  std::string boundary;  // of multipart, unquoted; "" when absent
  std::string charset;   // lower case; "" when absent
  bool well_formed = true;

  // application/json, text/json and application/*+json; no Content-Type counts as JSON where JSON is expected.
  bool is_json() const;
  // The bytes can be read as ASCII-compatible text: no charset, UTF-8, US-ASCII or a Latin one.
  bool readable_charset() const;
};

MediaType parse_media_type(std::string_view value);

// The `; name=value` parameters of a header value (Content-Type, Content-Disposition).
//   ParameterCursor cursor("; boundary=\"a b\""); while (cursor.next()) ...; if (cursor.malformed()) ...
class ParameterCursor {
 public:
  explicit ParameterCursor(std::string_view rest) : rest_(rest) {}
  bool next();
  bool malformed() const { return malformed_; }
  std::string_view name() const { return name_; }      // as sent
  const std::string& value() const { return value_; }  // unquoted

 private:
  bool take_value();
  std::string_view rest_, name_;
  std::string value_;
  bool malformed_ = false;
};

}  // namespace tollgate::catalogue
