// Reads a rulebook (config/presets/bpmonline.yaml is the one that is built in; its comments are the format's manual)
// and turns it into what the rooms below need. No files: the text comes in as an argument.
//
//   auto rulebook = config::load_rulebook(embedded::k_bpmonline, "bpmonline.yaml");
//   rulebook->custom_sections = {"UsrRealty"};                       // or config::apply_settings(*rulebook, settings)
//   auto schema = config::make_schema(*rulebook, settings.catalogue.uids, settings.catalogue.processes);
//   licence::Policy policy(std::make_shared<const licence::Rulebook>(std::move(*rulebook)));
#pragma once
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/settings.h"
#include "metering/base/error.h"
#include "metering/catalogue/schema.h"
#include "metering/licence/rulebook.h"

namespace tollgate::config {

// The preset that is built in for a licensing.system: "bpmonline", "creatio_partner", "zoho"; for "none" that of bpmonline
// (its names spell metrics and counts). nullopt: there is none.
std::optional<std::string_view> preset_text(std::string_view system);

// `base` names a preset whose sections, objects and main products are taken over.
// Strict: an unknown or repeated key, a section, product or operation that does not exist, a pattern that is no regular
// expression: an error "name:line:column: what is wrong" (origin config). The first error ends it.
Result<licence::Rulebook> load_rulebook(std::string_view yaml_text, const std::string& name_for_errors);

// Adds what the operator's settings say (edition, main products, portal user types, custom sections, their children,
// prefixes, unlicensed objects, relations, which win over those of the rulebook, and whether the unknown may pass).
// Errors name the key: an unknown main product (with the known ones), more than 3 custom sections, a custom section that
// is a stock object, an unknown edition or permission, children of a root that is not listed, an unknown operation of a
// process.
Result<void> apply_settings(licence::Rulebook& rulebook, const Catalogue& catalogue,
                            const Licensing& licensing);

// Every object, UId and relation of the rulebook plus the operator's own. An operation of a process that is no
// operation's name counts as `delete`, which no portal product grants (apply_settings reports it before).
std::shared_ptr<const catalogue::Schema> make_schema(
    const licence::Rulebook& rulebook, const std::map<std::string, std::string>& uids = {},
    const std::map<std::string, std::vector<std::pair<std::string, std::string>>>& processes = {});

// "read" | "create" | "edit" | "delete" | "execute".
std::optional<catalogue::Operation> parse_operation(std::string_view name);

}  // namespace tollgate::config
