// Inside the catalogue room: COQL, Zoho's query language (select .. from Leads where ..).
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tollgate::catalogue::zoho {

struct CoqlReading {
  std::vector<std::string> modules;                               // behind FROM and JOIN, in order
  std::vector<std::pair<std::string, std::string>> lookup_paths;  // first two parts of Account_Name.Industry
  std::uint64_t rows =
      200;  // most that may come: of LIMIT (the vendor's default without one); of several the largest
};
// nullopt: no FROM, an unclosed string, or something that two tokenizers could read differently (comments, backticks,
// semicolons). Keywords in any case; strings in ' or " with backslash or doubled quotes; any white space.
std::optional<CoqlReading> read_coql(std::string_view query);

}  // namespace tollgate::catalogue::zoho
