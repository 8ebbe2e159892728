#include "metering/base/percent.h"

#include "metering/base/ascii.h"

namespace tollgate {

void append_percent_encoded(std::string& out, std::string_view text) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (is_alpha(c) || is_digit(c) || c == '-' || c == '.' || c == '_' || c == '~')
      out.push_back(c);
    else
      out.append({'%', kDigits[byte >> 4], kDigits[byte & 15]});
  }
}

std::string percent_encoded(std::string_view text) {
  std::string out;
  append_percent_encoded(out, text);
  return out;
}

void append_form(std::string& form, std::string_view name, std::string_view value) {
  if (!form.empty()) form.push_back('&');
  append_percent_encoded(form, name);
  form.push_back('=');
  append_percent_encoded(form, value);
}

}  // namespace tollgate
