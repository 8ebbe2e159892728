#include "metering/catalogue/cherwell_reply.h"

#include <optional>

#include "metering/base/ascii.h"
#include "metering/catalogue/json_body.h"

namespace tollgate::catalogue {
namespace {

// The text of a member that is there once; "" for null.
std::optional<std::string_view> text_once(JsonObject object, std::string_view key) {
  const Member found = member(object, key);
  if (!found || found.repeated) return std::nullopt;
  if (found.value->is_null()) return "";
  return found.text();
}

std::vector<std::string> names_of(std::string_view object_id, std::string_view record_id,
                                  std::string_view public_id) {
  std::vector<std::string> names;
  if (object_id.empty() || record_id.empty()) return names;
  names.push_back(cherwell_record(object_id, record_id, ""));
  if (public_id.empty()) return names;
  names.push_back(cherwell_record(object_id, "", public_id));
  names.push_back(cherwell_record(object_id, record_id, public_id));
  return names;
}

std::optional<std::string_view> owner_of(JsonArray fields, std::span<const std::string> owner_fields) {
  for (const std::string& wanted : owner_fields)
    for (JsonElement element : fields) {
      const auto field = as_object(element);
      if (!field) continue;
      const auto name = text_once(*field, "name"), id = text_once(*field, "fieldId");
      if ((name && equals_ignore_case(*name, wanted)) || (id && equals_ignore_case(*id, wanted)))
        return text_once(*field, "value");
    }
  return std::nullopt;
}

void read_record(JsonObject object, std::span<const std::string> owner_fields,
                 std::vector<CherwellOwner>& owners) {
  const auto object_id = text_once(object, "busObId"), record_id = text_once(object, "busObRecId"),
             public_id = text_once(object, "busObPublicId");
  const Member fields = member(object, "fields");
  const auto list = fields.array();
  if (!object_id || !record_id || fields.repeated || !list) return;
  const auto owner = owner_of(*list, owner_fields);
  auto names = names_of(*object_id, *record_id, public_id.value_or(""));
  if (owner && !names.empty()) owners.push_back({std::move(names), std::string(*owner)});
}

}  // namespace

std::string cherwell_record(std::string_view object_id, std::string_view record_id,
                            std::string_view public_id) {
  std::string name(object_id);
  name.append(1, '/').append(record_id).append(1, '/').append(public_id);
  for (char& c : name) c = ascii_lower(c);
  return name;
}

std::vector<CherwellOwner> read_cherwell_owners(std::string_view body,
                                                std::span<const std::string> owner_fields, std::size_t most) {
  std::vector<CherwellOwner> owners;
  JsonDocument document;
  const auto root = document.parse(body);
  const auto object = root ? as_object(*root) : std::nullopt;
  if (!object) return owners;
  read_record(*object, owner_fields, owners);
  for (std::string_view name : {"businessObjects", "responses", "relatedBusinessObjects"}) {
    const Member list = member(*object, name);
    const auto items = list.array();
    if (list.repeated || !items) continue;
    for (JsonElement item : *items)
      if (const auto record = as_object(item); record && owners.size() < most)
        read_record(*record, owner_fields, owners);
  }
  return owners;
}

bool is_cherwell_reply(std::string_view body) {
  JsonDocument document;
  const auto root = document.parse(body);
  return root && as_object(*root);
}

std::vector<std::string> read_cherwell_created(std::string_view body, std::string_view object_id) {
  JsonDocument document;
  const auto root = document.parse(body);
  const auto object = root ? as_object(*root) : std::nullopt;
  if (!object) return {};
  return names_of(object_id, text_once(*object, "busObRecId").value_or(""),
                  text_once(*object, "busObPublicId").value_or(""));
}

std::vector<std::vector<std::string>> read_cherwell_created(std::string_view body,
                                                            std::span<const std::string_view> object_ids) {
  JsonDocument document;
  const auto root = document.parse(body);
  const auto object = root ? as_object(*root) : std::nullopt;
  const Member list = object ? member(*object, "responses") : Member{};
  const auto items = list.array();
  if (list.repeated || !items || items->size() != object_ids.size()) return {};
  std::vector<std::vector<std::string>> made;
  for (JsonElement item : *items) {
    const auto record = as_object(item);
    const std::string_view id = object_ids[made.size()];
    made.push_back(record ? names_of(id, text_once(*record, "busObRecId").value_or(""),
                                     text_once(*record, "busObPublicId").value_or(""))
                          : std::vector<std::string>());
  }
  return made;
}

}  // namespace tollgate::catalogue
