#include "metering/catalogue/classification.h"

namespace tollgate::catalogue {

std::string_view name(Operation operation) {
  switch (operation) {
    case Operation::read:
      return "read";
    case Operation::create:
      return "create";
    case Operation::edit:
      return "edit";
    case Operation::remove:
      return "delete";
    case Operation::execute:
      return "execute";
  }
  return "";
}

std::string_view name(Via via) {
  switch (via) {
    case Via::primary:
      return "";
    case Via::nav:
      return "nav";
    case Via::expand:
      return "expand";
    case Via::filter:
      return "filter";
    case Via::join:
      return "join";
    case Via::service:
      return "service";
    case Via::process:
      return "process";
  }
  return "";
}

std::string_view name(Kind kind) {
  switch (kind) {
    case Kind::objects:
      return "objects";
    case Kind::metadata:
      return "metadata";
    case Kind::asset:
      return "asset";
    case Kind::authentication:
      return "authentication";
    case Kind::basic_function:
      return "basic_function";
    case Kind::seat:
      return "seat";
    case Kind::unknown:
      return "unknown";
    case Kind::foreign:
      return "foreign";
    case Kind::reject:
      return "reject";
  }
  return "";
}

}  // namespace tollgate::catalogue
