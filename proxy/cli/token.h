// `tollgate token`: mints a token for development and tests, signed with the secret that the configuration
// itself names. It only works for issuers with a secret_file: private keys of real identity providers are
// never here.
#pragma once
#include <vector>

#include "proxy/cli/console.h"

namespace tollgate::cli {

struct TokenArguments {
  std::string config_file = "tollgate.yaml";
  std::string issuer;  // "": the first with a secret_file
  std::string user, tenant, organization;
  std::string user_type;  // "portal", "staff" or "": the claim is left out
  std::vector<std::string> licenses;
  std::string expires = "1h";  // from now
  bool expired = false;        // a token that ended an hour ago
  Format format = Format::table;
};

// The token alone on out. 0; 78 when the configuration is broken or has no such issuer; 2 for a bad duration.
int run_token(const TokenArguments& arguments, Console& console);

}  // namespace tollgate::cli
