// `tollgate version`: what this program is and what it is linked with.
#pragma once
#include <utility>
#include <vector>

#include "proxy/cli/console.h"

namespace tollgate::cli {

struct VersionArguments {
  Format format = Format::table;
};

int run_version(const VersionArguments& arguments, Console& console);

// Name and version of the libraries in use, as they report themselves at run time where they can.
std::vector<std::pair<std::string, std::string>> library_versions();
// "tollgate 0.1.0 (1a2b3c4d5e6f)"
std::string version_line();

}  // namespace tollgate::cli
