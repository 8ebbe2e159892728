// `tollgate schema`: the JSON Schema of the configuration; with `--markdown` its manual,
// docs/configuration.md.
#pragma once
#include "proxy/cli/console.h"

namespace tollgate::cli {

struct SchemaArguments {
  bool markdown = false;
};

int run_schema(const SchemaArguments& arguments, Console& console);

}  // namespace tollgate::cli
