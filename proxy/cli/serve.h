// `tollgate serve -c FILE`: run the proxy until it is told to stop.
// Signals: TERM and INT drain and stop, HUP reloads, USR1 reopens logs.
#pragma once
#include <string>

namespace tollgate::cli {

struct ServeArguments {
  std::string config_file = "tollgate.yaml";
};

// Blocks until the proxy has stopped. Result: exit code (console.h).
int run_serve(const ServeArguments& arguments);

}  // namespace tollgate::cli
