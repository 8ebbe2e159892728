// `tollgate explain METHOD PATH`: what would happen to a request, and every rule that is consulted, in the order in which the
// proxy does: route, who calls, what the request touches, licence, seats, quotas. Runs here, from the configuration file,
// through the same rules as the proxy; no server is asked, so it is not known whether a seat is free or a quota has room.
//
//   tollgate explain GET '/0/odata/Case(1)/Account' --license "customer portal cloud" -o json
//   tollgate explain GET /0/odata/Case --user ann
//
// For whom: --user, --tenant and --organization as a token would name them; what licensing.directory_file knows of the user wins
// over all of these, as in the proxy. --license gives licence names, --product portal products by id. With neither, a user
// whom the directory does not list holds every portal product: the answer is then what any licence could allow.
//
// Whose a single record is (sections of one's own organization only) --owner says; without it the answer is that of a proxy
// which could not find it out.
#pragma once
#include <vector>

#include "proxy/cli/console.h"

namespace tollgate::cli {

struct ExplainArguments {
  std::string config_file = "tollgate.yaml";
  std::string method, target;
  std::vector<std::string> headers;  // "Name: value"
  std::string body;                  // text, or "@file" ("@-": standard input)
  std::string body_file;
  std::vector<std::string> licenses;
  std::vector<std::string> products;
  bool no_license = false;                 // a user without any licence
  std::string user_type = "portal";        // portal | staff
  std::string user, tenant, organization;  // user "": nobody in particular, whom no directory lists
  std::string account;                     // of the user; what the directory knows wins
  std::string owner;  // account that the records belong to which the request names; "": it is not known
  Format format = Format::table;
};

// 0 whatever the decision is; 78 when the configuration is broken; 2 when an argument is.
int run_explain(const ExplainArguments& arguments, Console& console);

}  // namespace tollgate::cli
