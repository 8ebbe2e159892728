#include "metering/catalogue/portal_change.h"

#include <algorithm>
#include <optional>

#include "metering/base/ascii.h"
#include "metering/catalogue/json_body.h"

namespace tollgate::catalogue {
namespace {

// {"code":"SUCCESS","details":{"personality_id":"1"},"message":"..","status":"success"}
struct Entry {
  PortalOutcome outcome = PortalOutcome::unknown;
  std::string_view record;  // "": of all
};

std::string_view text_of(JsonObject object, std::string_view key) {
  const Member found = member(object, key);
  return found.repeated ? std::string_view() : found.text().value_or(std::string_view());
}

Entry read_entry(JsonObject object, PortalChange::Way way) {
  Entry entry;
  const std::string_view status = text_of(object, "status");
  if (equals_ignore_case(status, "error"))
    entry.outcome = PortalOutcome::refused;
  else if (equals_ignore_case(status, "success"))
    entry.outcome =
        way == PortalChange::Way::remove && !equals_ignore_case(text_of(object, "code"), "SUCCESS")
            ? PortalOutcome::unknown
            : PortalOutcome::done;
  if (const auto details = member(object, "details").object())
    for (std::string_view key : {"personality_id", "id", "record_id"})
      if (entry.record.empty()) entry.record = text_of(*details, key);
  return entry;
}

}  // namespace

std::vector<PortalOutcome> read_portal_reply(const PortalChange& change, int status, std::string_view body) {
  std::vector<PortalOutcome> outcomes(change.members.size(), PortalOutcome::unknown);
  if (status >= 400 && status < 500) std::ranges::fill(outcomes, PortalOutcome::refused);
  if (status < 200 || status > 299) return outcomes;
  JsonDocument document;
  const auto root = document.parse(body);
  const auto object = root ? as_object(*root) : std::nullopt;
  if (!object) return outcomes;
  std::optional<JsonArray> list;
  for (std::string_view key : {"portal_invite", "users", "change_status"})
    if (const Member found = member(*object, key); !list && !found.repeated) list = found.array();
  if (!list) return outcomes;
  for (const JsonElement element : *list) {
    const auto item = as_object(element);
    if (!item) continue;
    const Entry entry = read_entry(*item, change.way);
    const auto named = std::ranges::find(change.members, entry.record);
    if (named != change.members.end()) {
      outcomes[static_cast<std::size_t>(named - change.members.begin())] = entry.outcome;
    } else if (entry.record.empty() && (change.way == PortalChange::Way::add || change.members.size() == 1)) {
      // One entry may stand for many: a single success among errors keeps them all.
      for (PortalOutcome& outcome : outcomes)
        if (outcome != PortalOutcome::done) outcome = entry.outcome;
    }
  }
  return outcomes;
}

}  // namespace tollgate::catalogue
