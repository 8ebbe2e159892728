// `tollgate explain METHOD PATH`: what a request touches, what the licence says of it and what it costs. Runs
// here, from the configuration file, through the same catalogue and licence rules as the proxy; no server is
// asked.
//
//   tollgate explain GET '/0/odata/Case(1)/Account' --license "customer portal cloud" -o json
//
// For whom: --license gives the user's licence names as a token would; --product gives portal products by id.
// With neither, the user holds every portal product: the answer is then what any licence could allow.
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
  bool no_license = false;           // a user without any licence
  std::string user_type = "portal";  // portal | staff
  Format format = Format::table;
};

// 0 whatever the decision is; 78 when the configuration is broken; 2 when an argument is.
int run_explain(const ExplainArguments& arguments, Console& console);

}  // namespace tollgate::cli
