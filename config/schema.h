// What `tollgate schema` prints and docs/configuration.md holds: both derived from the table of keys
// (keys.h), so that the parser, the schema and the manual cannot disagree.
#pragma once
#include <string>

namespace tollgate::config {

// JSON Schema (draft 2020-12) of the configuration file, indented. Editors use it by
// `# yaml-language-server: $schema=tollgate.schema.json` in the first line of the YAML file.
std::string json_schema();

// The reference of every key as Markdown: docs/configuration.md is this text (a test compares them).
std::string reference_markdown();

}  // namespace tollgate::config
