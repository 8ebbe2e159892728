// From the text of a configuration file to Settings, or to every mistake in it at once. Pure: opens no file
// (that is config/load), reads no environment (it is an argument).
//
//   ParseOutcome outcome = parse(text, "tollgate.yaml", environment);
//   if (!outcome.ok()) for (auto& d : outcome.diagnostics) print(to_string(d));
//
// What a value may come from, strongest first: environment variable, file, default (settings.h).
//   ${NAME}            in any value: the variable; an error when it is not set
//   ${NAME:-fallback}  the fallback when the variable is unset or empty
//   $${                a literal "${"
//   TOLLGATE_STORE__URL=redis://...     sets store.url; "__" separates the levels, list items go by number:
//   TOLLGATE_LISTENERS__0__ADDRESS      and names of a map (upstreams) in any case. A list or a map of text
//   may be
//                                       given as YAML flow text ([a, b]) or, for lists, separated by commas.
//   Variables without "__" that are no top-level key are not ours and ignored (Kubernetes sets
//   TOLLGATE_PORT).
//
// YAML: one document, at most 1 MiB, at most 32 levels; anchors, aliases and tags are refused; a key may
// occur once. yaml-cpp 0.7 itself keeps duplicate keys and reads 010 as 8: it is only used as a tokenizer
// here.
//
// Thread-safe. Cost: linear in the size of the file.
#pragma once
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "config/diagnostic.h"
#include "config/settings.h"

namespace tollgate::config {

inline constexpr std::size_t kFileBytesMax = 1024 * 1024;
inline constexpr int kNestingMax = 32;

using Environment = std::map<std::string, std::string>;  // variable -> value

// Where each value of the settings came from: "store.url", "listeners[0].address",
// "upstreams.crm.servers[0]". Keys left at their default are not in it.
using Positions = std::map<std::string, Position>;

struct ParseOutcome {
  Settings settings;                    // only of use when ok()
  std::vector<Diagnostic> diagnostics;  // in the order of the file; warnings too
  Positions positions;
  bool ok() const { return !has_errors(diagnostics); }
};

ParseOutcome parse(std::string_view yaml, std::string_view file_name, const Environment& environment);

}  // namespace tollgate::config
