// The command line: `tollgate COMMAND ...`. Registers every sub-command with its options, help text and
// example. Each command is one file pair here and a function that can be called without a command line.
//
//   int main(int argc, char** argv) { return tollgate::cli::run(argc, argv, serve); }
//
// Exit codes: 0 ok, 1 failed, 2 usage, 69 unavailable, 78 configuration (console.h).
#pragma once
#include <string>
#include <vector>

#include "proxy/cli/console.h"
#include "proxy/cli/serve.h"

namespace tollgate::cli {

int run(int argc, char** argv, const Serve& serve);
// arguments: without the program's name.
int run(const std::vector<std::string>& arguments, Console& console, const Serve& serve);

}  // namespace tollgate::cli
