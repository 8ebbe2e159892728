// Licence rules that hang on circumstances (whose record, which portal, which right) as rows of a table: the first row
// that fits decides. The rows are data of a rulebook (`decisions`, config/presets/cherwell.yaml).
//
//   Facts facts = {};                                   // everything at its first value
//   set(facts, Input::record, kOther); set(facts, Input::action, kEdit); ...
//   const DecisionRow* row = first_row(rulebook.decisions, facts);   // nullptr: no row fits, which allows nothing
//
// Pure; no state.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tollgate::licence {

// What a row may ask for, by these names in a rulebook.
enum class Input : std::uint8_t {
  site_always_uses_licence,  // the portal that the user logged in to: false, true
  record,                    // own (the user is its requester), other
  action,                    // view, create, edit, one_step
  one_step_alters_data,      // false, true
  one_step_kind,             // normal, journal_entry, rating
  rating_field_configured,   // of a rating: false, true
  has_security_right,        // on records of others: false, true
  may_consume_licence,       // false, true
  always_site_view,  // the operator's switch for views on such a site without a right to consume: deny, free
  kCount
};
inline constexpr std::size_t kInputs = static_cast<std::size_t>(Input::kCount);
std::string_view name(Input input);
std::span<const std::string_view> values_of(Input input);

// One value each: an index into values_of().
using Facts = std::array<std::uint8_t, kInputs>;
inline void set(Facts& facts, Input input, unsigned value) {
  facts[static_cast<std::size_t>(input)] = static_cast<std::uint8_t>(value);
}
inline constexpr unsigned kOwn = 0, kOther = 1;
inline constexpr unsigned kJournalEntry = 1;
inline constexpr unsigned kView = 0, kCreate = 1, kEdit = 2, kOneStep = 3;

enum class Outcome : std::uint8_t {
  free,                // allowed
  consumes,            // allowed with a concurrent licence
  denied_rights,       // no right on the record
  denied_cannot_edit,  // it takes a licence, which the user may not take
};
std::string_view name(Outcome outcome);
std::optional<Outcome> parse_outcome(std::string_view name);

struct DecisionRow {
  std::string id;  // "C8"
  static constexpr std::uint8_t kAny = 0xFF;
  Facts when{};  // kAny: whatever the value
  Outcome outcome = Outcome::denied_rights;
};

const DecisionRow* first_row(std::span<const DecisionRow> rows, const Facts& facts);

}  // namespace tollgate::licence
