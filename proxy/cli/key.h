// `tollgate key`: makes API keys, and hashes those that exist. A key is printed once and kept nowhere; what
// identity.api_keys.file gets is its hash.
//
//   $ tollgate key create --user billing@acme.example --org Acme --type portal --expires 90d
//   tgk_Jt0...                                                            the key, for the caller
//   hmac-sha256:9c1f...,billing@acme.example,,Acme,,portal,2027-02-21T09:00:00Z     the row, for the file
#pragma once
#include <iosfwd>
#include <vector>

#include "proxy/cli/console.h"

namespace tollgate::cli {

struct KeyArguments {
  std::string config_file = "tollgate.yaml";
  std::string user, tenant, organization;
  std::string user_type;  // "portal", "staff" or ""
  std::vector<std::string> licenses;
  std::string expires;  // from now; "": never
  Format format = Format::table;
};

// The key, then its rows, in the order of identity::kApiKeyColumns. 0; 78 when the configuration is broken or names no
// file of keys; 2 for a bad duration.
int run_key_create(const KeyArguments& arguments, Console& console);
// The hash of the key in the first line of `in`. 0; 78 as above; 2 for a key that is too short.
int run_key_hash(const KeyArguments& arguments, std::istream& in, Console& console);

}  // namespace tollgate::cli
