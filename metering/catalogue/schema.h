// The objects of one CRM installation that the catalogue must know by name: canonical spellings (real clients write
// `case` and `Case`), schema UIds (some services name an object only by UId), column -> object of relations whose
// name differs from the object's, and effects of processes and One-Steps that the operator declares.
// Built by config/load from a preset (config/presets/*.yaml) and the operator's own settings; read-only afterwards,
// then safe from any thread. Every look-up ignores ASCII case and costs a few hash look-ups and no allocation for
// names up to 260 bytes; longer names are never found. Views returned live as long as the Schema.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "metering/catalogue/classification.h"

namespace tollgate::catalogue {

class Schema {
 public:
  struct Effect {
    std::string object;
    Operation operation;
  };

  void add_object(std::string_view canonical);
  void add_uid(std::string_view uid, std::string_view object);  // any case, with or without dashes
  void add_relation(std::string_view object, std::string_view column,
                    std::string_view target);                               // object "*": any
  void add_process(std::string_view process, std::vector<Effect> effects);  // process or One-Step key
  // It matters whose the single records of this object are: requests are read for which ones they name. column: of
  // the owner, "PartnerId".
  void add_owned(std::string_view object, std::string_view column);

  // Canonical spelling of a known object in whatever case, else nullopt.
  std::optional<std::string_view> canonical(std::string_view object) const;
  std::optional<std::string_view> object_of_uid(std::string_view uid) const;
  // The object that `column` of `object` points to: a declared relation, else a known object named like the column
  // (Opportunity.Contact -> Contact, not its detail OpportunityContact), else one named object+column
  // (Case.Status -> CaseStatus), else nullopt.
  std::optional<std::string_view> relation(std::string_view object, std::string_view column) const;
  const std::vector<Effect>* process(std::string_view process) const;
  // The owner's column; nullptr: whose the records are does not matter. Where that is so of all objects: one test.
  const std::string* owner_column(std::string_view object) const {
    return owned_.empty() ? nullptr : find_owned(object);
  }

 private:
  const std::string* find_owned(std::string_view object) const;

  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  template <class T>
  using Map = std::unordered_map<std::string, T, Hash, std::equal_to<>>;

  Map<std::string> canonical_;  // lower case -> canonical
  Map<std::string> uids_;  // lower-case hex digits, no dashes or braces (32, at Cherwell 42) -> canonical
  Map<std::string> relations_;          // lower "object.column" -> canonical
  Map<std::vector<Effect>> processes_;  // lower case
  Map<std::string> owned_;              // lower-case object -> column of its owner
};

}  // namespace tollgate::catalogue
