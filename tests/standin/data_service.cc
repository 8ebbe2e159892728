// DataService of the stand-in CRM: the operation is the URL's last segment, the object is rootSchemaName of
// the body.
#include "metering/base/ascii.h"
#include "tests/standin/crm.h"

namespace tollgate::standin {
namespace json = boost::json;
namespace {

// Browsers send camelCase, the C# serializer PascalCase.
const json::value* member(const json::object& object, std::string_view name) {
  for (const auto& field : object)
    if (equals_ignore_case(std::string_view(field.key().data(), field.key().size()), name))
      return &field.value();
  return nullptr;
}

std::string text_member(const json::object& object, std::string_view name) {
  const json::value* value = member(object, name);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

// columnValues: {"items": {"Name": {"parameter": {"value": "x"}}}} -> {"Name": "x"}
json::object column_values(const json::object& query) {
  json::object out;
  const json::value* values = member(query, "columnValues");
  const json::value* items =
      values != nullptr && values->is_object() ? member(values->get_object(), "items") : nullptr;
  if (items == nullptr || !items->is_object()) return out;
  for (const auto& item : items->get_object()) {
    if (!item.value().is_object()) continue;
    const json::value* parameter = member(item.value().get_object(), "parameter");
    const json::value* value =
        parameter != nullptr && parameter->is_object() ? member(parameter->get_object(), "value") : nullptr;
    if (value != nullptr) out[item.key()] = *value;
  }
  return out;
}

// The first string found under a key "value" inside the filters: the id in the common "primary column equals"
// filter.
std::string filtered_id(const json::value& node) {
  if (node.is_object()) {
    for (const auto& field : node.get_object()) {
      if (equals_ignore_case(std::string_view(field.key().data(), field.key().size()), "value") &&
          field.value().is_string())
        return std::string(field.value().get_string());
      if (std::string found = filtered_id(field.value()); !found.empty()) return found;
    }
  } else if (node.is_array()) {
    for (const json::value& item : node.get_array())
      if (std::string found = filtered_id(item); !found.empty()) return found;
  }
  return {};
}

}  // namespace

std::string Crm::data_query(std::string_view type, const json::object& query,
                            std::vector<std::string>& touched) {
  const std::string entity = text_member(query, "rootSchemaName");
  touched.push_back(std::string(type) + " " + entity);
  const json::value* filters = member(query, "filters");
  const std::string id = filters == nullptr ? std::string() : filtered_id(*filters);
  json::object out{{"success", true}, {"nextPrcElReady", false}};
  if (type.ends_with("SelectQuery") || type == "SelectLocalizationQuery") {
    json::array rows;
    for (const auto& row : store_.all(entity)) rows.push_back(row);
    out["rowsAffected"] = rows.size();
    out["rows"] = rows;
    out["rowConfig"] = json::object();
  } else if (type == "InsertQuery") {
    out["id"] = store_.create(entity, column_values(query)).at("Id");
    out["rowsAffected"] = 1;
  } else if (type == "UpdateQuery" || type == "UpdateLocalizationQuery") {
    out["rowsAffected"] = store_.update(entity, id, column_values(query)) ? 1 : 0;
  } else if (type == "DeleteQuery") {
    out["rowsAffected"] = store_.remove(entity, id) ? 1 : 0;
  }
  return json::serialize(out);
}

Reply Crm::data_service(const Request& request, std::string_view method) {
  boost::system::error_code error;
  const json::value body = json::parse(request.body, error);
  if (error || !body.is_object())
    return json_reply(
        500,
        R"({"ResponseStatus":{"ErrorCode":"SerializationException","Message":"not JSON"},"success":false})");
  std::vector<std::string> touched;
  Reply reply;
  if (method != "BatchQuery") {
    reply = json_reply(200, data_query(method, body.get_object(), touched));
  } else {
    std::string out = R"({"ResponseStatus":null,"queryResults":[)";
    const json::value* items = member(body.get_object(), "items");
    bool first = true;
    if (items != nullptr && items->is_array())
      for (const json::value& item : items->get_array()) {
        if (!item.is_object()) continue;
        const std::string type = text_member(item.get_object(), "__type");
        if (!first) out += ',';
        first = false;
        out += data_query(type.substr(type.rfind('.') + 1), item.get_object(), touched);
      }
    reply = json_reply(200, out + R"(],"hasErrors":false})");
    touched.insert(touched.begin(), "BatchQuery");
  }
  reply.touched = std::move(touched);
  return reply;
}

}  // namespace tollgate::standin
