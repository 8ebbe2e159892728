#include "metering/licence/decision_table.h"

#include <algorithm>

namespace tollgate::licence {
namespace {

using Names = std::span<const std::string_view>;
constexpr std::string_view kBoolean[] = {"false", "true"};
constexpr std::string_view kRecords[] = {"own", "other"};
constexpr std::string_view kActions[] = {"view", "create", "edit", "one_step"};
constexpr std::string_view kKinds[] = {"normal", "journal_entry", "rating"};
constexpr std::string_view kViews[] = {"deny", "free"};
constexpr std::string_view kOutcomes[] = {"free", "consumes", "denied_rights", "denied_cannot_edit"};

struct Description {
  std::string_view name;
  Names values;
};
constexpr std::array<Description, kInputs> kDescriptions = {{{"site_always_uses_licence", kBoolean},
                                                             {"record", kRecords},
                                                             {"action", kActions},
                                                             {"one_step_alters_data", kBoolean},
                                                             {"one_step_kind", kKinds},
                                                             {"rating_field_configured", kBoolean},
                                                             {"has_security_right", kBoolean},
                                                             {"may_consume_licence", kBoolean},
                                                             {"always_site_view", kViews}}};

}  // namespace

std::string_view name(Input input) {
  return kDescriptions[static_cast<std::size_t>(input)].name;
}

Names values_of(Input input) {
  return kDescriptions[static_cast<std::size_t>(input)].values;
}

std::string_view name(Outcome outcome) {
  return kOutcomes[static_cast<std::size_t>(outcome)];
}

std::optional<Outcome> parse_outcome(std::string_view name) {
  const auto* found = std::ranges::find(kOutcomes, name);
  if (found == std::end(kOutcomes)) return std::nullopt;
  return static_cast<Outcome>(found - std::begin(kOutcomes));
}

const DecisionRow* first_row(std::span<const DecisionRow> rows, const Facts& facts) {
  const auto fits = [&](const DecisionRow& row) {
    for (std::size_t i = 0; i < kInputs; ++i)
      if (row.when[i] != DecisionRow::kAny && row.when[i] != facts[i]) return false;
    return true;
  };
  const auto row = std::ranges::find_if(rows, fits);
  return row == rows.end() ? nullptr : &*row;
}

}  // namespace tollgate::licence
