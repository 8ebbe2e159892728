#include "metering/catalogue/media_type.h"

#include "metering/base/ascii.h"

namespace tollgate::catalogue {
namespace {

bool is_token_char(char c) {
  return is_alpha(c) || is_digit(c) || std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}
// Unquoted values: tokens, and what clients write without the quotes that RFC 2046 asks for ("/", ":", "=", "?").
bool is_bare_value_char(char c) {
  return is_token_char(c) || std::string_view("()/:=?@").find(c) != std::string_view::npos;
}

}  // namespace

bool ParameterCursor::next() {
  rest_ = trim(rest_);
  while (!rest_.empty() && rest_.front() == ';') rest_ = trim(rest_.substr(1));
  if (rest_.empty()) return false;
  std::size_t length = 0;
  while (length < rest_.size() && is_token_char(rest_[length])) ++length;
  name_ = rest_.substr(0, length);
  rest_ = trim(rest_.substr(length));
  if (length == 0 || rest_.empty() || rest_.front() != '=') {
    malformed_ = true;
    return false;
  }
  rest_ = trim(rest_.substr(1));
  value_.clear();
  if (!take_value()) malformed_ = true;
  rest_ = trim(rest_);
  if (!rest_.empty() && rest_.front() != ';') malformed_ = true;
  return !malformed_;
}

bool ParameterCursor::take_value() {
  if (!rest_.empty() && rest_.front() == '"') {
    for (std::size_t i = 1; i < rest_.size(); ++i) {
      if (rest_[i] == '"') {
        rest_.remove_prefix(i + 1);
        return true;
      }
      if (rest_[i] == '\\' && ++i == rest_.size()) break;
      value_.push_back(rest_[i]);
    }
    return false;
  }
  std::size_t length = 0;
  while (length < rest_.size() && is_bare_value_char(rest_[length])) ++length;
  value_ = rest_.substr(0, length);
  rest_.remove_prefix(length);
  return length > 0;
}

MediaType parse_media_type(std::string_view value) {
  MediaType out;
  value = trim(value);
  if (value.empty()) return out;
  std::size_t end = std::min(value.find(';'), value.size());
  std::string_view essence = trim(value.substr(0, end));
  std::size_t slash = essence.find('/');
  for (std::size_t i = 0; i < essence.size(); ++i)
    if (i != slash && !is_token_char(essence[i])) out.well_formed = false;
  if (!essence.empty() && (slash == 0 || slash == essence.npos || slash + 1 == essence.size()))
    out.well_formed = false;
  out.essence = to_lower(essence);
  ParameterCursor cursor(value.substr(end));
  bool boundary = false, charset = false;
  while (cursor.next()) {
    std::string_view name = cursor.name();
    if (equals_ignore_case(name, "boundary")) {
      if (boundary || cursor.value().empty()) out.well_formed = false;
      boundary = true;
      out.boundary = cursor.value();
    } else if (equals_ignore_case(name, "charset")) {
      if (charset) out.well_formed = false;
      charset = true;
      out.charset = to_lower(cursor.value());
    } else if (starts_with_ignore_case(name, "boundary*") || starts_with_ignore_case(name, "charset*")) {
      out.well_formed = false;  // RFC 2231 forms: read by some, ignored by others
    }
  }
  if (cursor.malformed()) out.well_formed = false;
  return out;
}

bool MediaType::is_json() const {
  return essence.empty() || essence == "application/json" || essence == "text/json" ||
         essence == "text/x-json" || (essence.starts_with("application/") && essence.ends_with("+json"));
}

bool MediaType::readable_charset() const {
  return charset.empty() || charset == "utf-8" || charset == "utf8" || charset == "us-ascii" ||
         charset == "ascii" || charset.starts_with("iso-8859-") || charset.starts_with("windows-125");
}

}  // namespace tollgate::catalogue
