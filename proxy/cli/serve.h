// `tollgate serve -c FILE`: run the proxy until it is told to stop. What runs is put together in
// proxy/main.cc, which hands its function to the command line; the tests of the command line hand in one of
// their own. Signals: TERM and INT drain and stop, HUP reloads, USR1 reopens logs, USR2
// upgrades (upgrade.h).
#pragma once
#include <functional>
#include <string>

namespace tollgate::cli {

struct ServeArguments {
  std::string config_file = "tollgate.yaml";
};

// Blocks until the proxy has stopped. Result: exit code (console.h).
using Serve = std::function<int(const ServeArguments&)>;

}  // namespace tollgate::cli
