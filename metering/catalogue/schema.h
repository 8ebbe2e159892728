// The objects of one CRM installation that the catalogue must know by name: canonical spellings (real clients write
// `case` and `Case`), schema UIds (some services name an object only by UId), column -> object of relations whose
// name differs from the object's, and effects of processes and One-Steps that the operator declares.
// Built by config/load from a preset (config/presets/*.yaml) and the operator's own settings.
#pragma once
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
  void add_uid(std::string_view uid, std::string_view object);                  // any case, with or without dashes
  void add_relation(std::string_view object, std::string_view column, std::string_view target);  // object "*": any
  void add_process(std::string_view process, std::vector<Effect> effects);     // process or One-Step key

  // Canonical spelling of a known object in whatever case, else nullopt.
  std::optional<std::string_view> canonical(std::string_view object) const;
  std::optional<std::string_view> object_of_uid(std::string_view uid) const;
  // The object that `column` of `object` points to: a declared relation, else a known object named object+column
  // (Case.Status -> CaseStatus), else a known object named like the column (Account), else nullopt.
  std::optional<std::string_view> relation(std::string_view object, std::string_view column) const;
  const std::vector<Effect>* process(std::string_view process) const;

 private:
  std::unordered_map<std::string, std::string> canonical_;  // lower case -> canonical
  std::unordered_map<std::string, std::string> uids_;       // 32 lower-case hex digits, no dashes -> canonical
  std::unordered_map<std::string, std::string> relations_;  // lower "object.column" -> canonical
  std::unordered_map<std::string, std::vector<Effect>> processes_;  // lower case
};

}  // namespace tollgate::catalogue
