// What is wrong with a configuration, and where: one entry per mistake, so that all of them are shown at
// once.
//
//   tollgate.yaml:14:3: error: unknown key "lisen"; did you mean "listeners"?
//   tollgate.yaml:31:10: warning: certificate checks towards this upstream are off
//   environment TOLLGATE_STORE__TIMEOUT: error: "50" needs a unit: write 50ms or 50s
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace tollgate::config {

enum class Severity : std::uint8_t { warning, error };

// A place in a file. Lines and columns count from 1; line 0: the whole file, or an environment variable.
struct Position {
  std::string file;  // as given by the user, or "environment NAME"
  int line = 0, column = 0;
};

struct Diagnostic {
  std::string file;
  int line = 0, column = 0;  // from 1; 0 when there is no place to point at
  Severity severity = Severity::error;
  std::string message;  // one sentence without the place
};

// "file:line:column: error: message", the form editors and terminals make clickable.
std::string to_string(const Diagnostic& diagnostic);
bool has_errors(const std::vector<Diagnostic>& diagnostics);

}  // namespace tollgate::config
