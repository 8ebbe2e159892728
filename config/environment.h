// What the environment adds to a configuration file: ${NAME} inside values, and TOLLGATE_SECTION__KEY in
// place of values. The rules are told in parse.h. Pure: the variables are an argument.
#pragma once
#include <vector>

#include "config/diagnostic.h"
#include "config/parse.h"
#include "config/yaml_tree.h"

namespace tollgate::config {

inline constexpr std::string_view kEnvironmentPrefix = "TOLLGATE_";

// Replaces ${NAME}, ${NAME:-fallback} and $${ in every value (not in keys); what a variable holds is not
// looked at again. Errors: a variable that is not set, a reference that is not closed.
void replace_references(Node& root, const Environment& environment, std::vector<Diagnostic>& diagnostics);

// Puts TOLLGATE_ variables into the tree, marked from_environment, with "environment NAME" as their file.
void apply_overrides(Node& root, const Environment& environment, std::vector<Diagnostic>& diagnostics);

}  // namespace tollgate::config
