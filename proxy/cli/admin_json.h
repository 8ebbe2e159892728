// Replies of the admin API as JSON, for the commands that show them as tables.
#pragma once
#include <simdjson.h>

#include <string>

#include "proxy/cli/console.h"

namespace tollgate::cli {

// body as the kind of value that is wanted, which lives as long as the parser; false after a message.
template <class Value>
bool read_json(simdjson::dom::parser& parser, const std::string& body, Value& value, Console& console) {
  if (parser.parse(body).get(value) == simdjson::SUCCESS) return true;
  print_error(console, "the reply is no JSON");
  return false;
}

}  // namespace tollgate::cli
