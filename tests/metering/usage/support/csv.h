// Reads CSV for tests.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace tollgate::usage {

// RFC 4180, written by somebody who only read the RFC.
inline std::vector<std::vector<std::string>> parse_csv(std::string_view text) {
  std::vector<std::vector<std::string>> records(1, std::vector<std::string>(1));
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted && c == '"' && i + 1 < text.size() && text[i + 1] == '"') {
      records.back().back().push_back('"');
      ++i;
    } else if (c == '"') {
      quoted = !quoted;
    } else if (!quoted && c == ',') {
      records.back().emplace_back();
    } else if (!quoted && c == '\r' && text[i + 1] == '\n') {
      records.emplace_back(1);
      ++i;
    } else {
      records.back().back().push_back(c);
    }
  }
  records.pop_back();
  return records;
}

}  // namespace tollgate::usage
