#include "proxy/cli/schema.h"

#include "config/schema.h"

namespace tollgate::cli {

int run_schema(const SchemaArguments& arguments, Console& console) {
  console.out << (arguments.markdown ? config::reference_markdown() : config::json_schema());
  return kExitOk;
}

}  // namespace tollgate::cli
