// Settings back to a configuration file: `tollgate check --dump`. What comes out parses to the same settings,
// except that a password in store.url is replaced by "***". Also the text of single values, for the manual
// and the schema.
#pragma once
#include <string>

#include "config/keys.h"
#include "config/parse.h"

namespace tollgate::config {

// The current value as YAML flow text that is JSON too: "\"24h\"", "[\"user\"]", "true", "128". Groups give
// "".
std::string value_text(const Value& value);

// Every key of a running configuration with its value. Behind each value that was set stands where:
// "# tollgate.yaml:12" or "# environment TOLLGATE_WORKERS"; defaults have no remark.
std::string effective_yaml(Settings settings, const Positions& positions);

// The same as one JSON object, without places.
std::string effective_json(Settings settings);

}  // namespace tollgate::config
