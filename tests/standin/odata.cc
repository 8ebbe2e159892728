// OData 4 and OData 3 of the stand-in CRM: single requests. Batches are in odata_batch.cc.
#include <fmt/format.h>

#include "metering/base/ascii.h"
#include "tests/standin/crm.h"

namespace tollgate::standin {
namespace json = boost::json;
namespace {

Reply odata_error(int status, std::string_view message) {
  return json_reply(
      status, json::serialize(json::object{
                  {"error", json::object{{"code", ""},
                                         {"message", json::string_view(message.data(), message.size())}}}}));
}

bool is_guid(std::string_view text) {
  if (text.size() != 36) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash ? text[i] != '-' : hex_value(text[i]) < 0) return false;
  }
  return true;
}

// Key literals seen on the wire: (guid), (guid'..'), ('..'), (Id=..).
std::string key_value(std::string_view key) {
  if (starts_with_ignore_case(key, "Id=")) key.remove_prefix(3);
  if (starts_with_ignore_case(key, "guid")) key.remove_prefix(4);
  if (key.size() >= 2 && key.front() == '\'' && key.back() == '\'') key = key.substr(1, key.size() - 2);
  return std::string(key);
}

struct Address {
  std::string entity, key;
  bool has_key = false;
  std::string_view tail;  // after entity and key, without the leading slash
};

// "Case(k)/Account" or "Case/k/Account" or "Case/$count".
std::optional<Address> split_address(std::string_view rest) {
  Address out;
  std::size_t end = 0;
  while (end < rest.size() && (is_alpha(rest[end]) || is_digit(rest[end]) || rest[end] == '_')) ++end;
  if (end == 0) return std::nullopt;
  out.entity = std::string(rest.substr(0, end));
  rest.remove_prefix(end);
  if (rest.starts_with('(')) {
    const std::size_t close = rest.find(')');
    if (close == std::string_view::npos) return std::nullopt;
    out.key = key_value(rest.substr(1, close - 1));
    out.has_key = !out.key.empty();
    rest.remove_prefix(close + 1);
  } else if (rest.starts_with('/') && is_guid(rest.substr(1, rest.find('/', 1) - 1))) {
    const std::size_t slash = std::min(rest.find('/', 1), rest.size());
    out.key = std::string(rest.substr(1, slash - 1));
    out.has_key = true;
    rest.remove_prefix(slash);
  }
  if (!rest.empty() && rest.front() != '/') return std::nullopt;
  while (rest.starts_with('/')) rest.remove_prefix(1);
  while (rest.ends_with('/')) rest.remove_suffix(1);
  out.tail = rest;
  return out;
}

std::optional<EntityStore::Record> record_of(const std::string& body) {
  if (body.empty()) return EntityStore::Record();
  boost::system::error_code error;
  json::value parsed = json::parse(body, error);
  if (error || !parsed.is_object()) return std::nullopt;
  return parsed.get_object();
}

// `Name eq 'x'`, joined by `and`. Any other expression keeps every row and says so in a header.
bool matches(const EntityStore::Record& row, std::string_view filter, bool& understood) {
  while (!filter.empty()) {
    const std::size_t end = std::min(filter.find(" and "), filter.size());
    const std::string_view term = filter.substr(0, end);
    filter.remove_prefix(std::min(end + 5, filter.size()));
    const std::size_t eq = term.find(" eq ");
    if (eq == std::string_view::npos) {
      understood = false;
      continue;
    }
    const std::string name(term.substr(0, eq));
    const std::string wanted = key_value(term.substr(eq + 4));
    const json::value* value = row.if_contains(name);
    if (value == nullptr) return false;
    const std::string have = value->is_string() ? std::string(value->get_string()) : json::serialize(*value);
    if (have != wanted) return false;
  }
  return true;
}

struct Page {
  std::vector<EntityStore::Record> rows;
  std::size_t count = 0;
  bool understood = true;
};

Page select_rows(std::vector<EntityStore::Record> rows, const Request& request) {
  Page page;
  const std::string filter = request.parameter("$filter").value_or("");
  std::erase_if(rows, [&](const auto& row) { return !matches(row, filter, page.understood); });
  page.count = rows.size();
  const std::size_t skip =
      std::min<std::size_t>(parse_decimal(request.parameter("$skip").value_or("0")).value_or(0), rows.size());
  const std::size_t top = parse_decimal(request.parameter("$top").value_or("20000")).value_or(20'000);
  const std::string columns = request.parameter("$select").value_or("");
  for (std::size_t i = skip; i < rows.size() && page.rows.size() < top; ++i) {
    if (columns.empty() || columns == "*") {
      page.rows.push_back(rows[i]);
      continue;
    }
    EntityStore::Record narrow;
    for (const auto& field : rows[i])
      if (("," + columns + ",").find("," + std::string(field.key()) + ",") != std::string::npos)
        narrow[field.key()] = field.value();
    page.rows.push_back(std::move(narrow));
  }
  return page;
}

json::array array_of(const std::vector<EntityStore::Record>& rows) {
  json::array out;
  for (const auto& row : rows) out.push_back(row);
  return out;
}

std::string metadata(const std::vector<std::string>& names) {
  std::string out =
      R"(<?xml version="1.0" encoding="utf-8"?><edmx:Edmx Version="4.0" )"
      R"(xmlns:edmx="http://docs.oasis-open.org/odata/ns/edmx"><edmx:DataServices>)"
      R"(<Schema Namespace="Terrasoft.Configuration.OData" xmlns="http://docs.oasis-open.org/odata/ns/edm">)";
  for (const std::string& name : names)
    out += fmt::format(R"(<EntityType Name="{}"><Key><PropertyRef Name="Id"/></Key>)"
                       R"(<Property Name="Id" Type="Edm.Guid" Nullable="false"/></EntityType>)",
                       name);
  out += R"(<EntityContainer Name="Container">)";
  for (const std::string& name : names)
    out += fmt::format(R"(<EntitySet Name="{0}" EntityType="Terrasoft.Configuration.OData.{0}"/>)", name);
  return out + "</EntityContainer></Schema></edmx:DataServices></edmx:Edmx>";
}

}  // namespace

Reply Crm::odata(const Request& request, std::string_view rest) {
  while (rest.starts_with('/')) rest.remove_prefix(1);
  if (rest.empty()) {
    json::array sets;
    for (const std::string& name : store_.entity_names())
      sets.push_back(json::object{{"name", name}, {"kind", "EntitySet"}, {"url", name}});
    Reply reply =
        json_reply(200, json::serialize(json::object{{"@odata.context", "$metadata"}, {"value", sets}}));
    reply.touched.push_back(request.method + " odata");
    return reply;
  }
  if (equals_ignore_case(rest, "$metadata")) {
    Reply reply = text_reply(200, metadata(store_.entity_names()));
    reply.headers = {{"Content-Type", "application/xml"}};
    reply.touched.push_back(request.method + " $metadata");
    return reply;
  }
  if (equals_ignore_case(rest, "$batch")) return odata_batch(request, "");
  const auto address = split_address(rest);
  if (!address) return odata_error(400, "The address is not an entity set");
  const bool directory_rows = request.method == "GET" && !address->has_key && address->tail.empty() &&
                              (address->entity == "SysAdminUnit" || address->entity == "SysLicUser");
  Reply reply = directory_rows     ? directory(request, address->entity)
                : address->has_key ? odata_record(request, address->entity, address->key, address->tail)
                                   : odata_collection(request, address->entity, address->tail);
  reply.headers.emplace_back("OData-Version", "4.0");
  reply.touched.insert(reply.touched.begin(), request.method + " " + address->entity);
  return reply;
}

Reply Crm::odata_collection(const Request& request, const std::string& entity, std::string_view tail) {
  if (request.method == "GET" || request.method == "HEAD") {
    const Page page = select_rows(store_.all(entity), request);
    Reply reply;
    if (equals_ignore_case(tail, "$count")) {
      reply = text_reply(200, std::to_string(page.count));
    } else if (!tail.empty()) {
      return odata_error(404, "No such resource");
    } else {
      json::object body{{"@odata.context", "$metadata#" + entity}};
      if (request.parameter("$count") == "true") body["@odata.count"] = page.count;
      body["value"] = array_of(page.rows);
      reply = json_reply(200, json::serialize(body));
    }
    if (!page.understood) reply.headers.emplace_back("X-Standin-Filter", "ignored");
    return reply;
  }
  if (request.method == "POST" && tail.empty()) {
    const auto fields = record_of(request.body);
    if (!fields) return odata_error(400, "The body is not a JSON object");
    const EntityStore::Record made = store_.create(entity, *fields);
    Reply reply = json_reply(201, json::serialize(made));
    reply.headers.emplace_back("Location",
                               fmt::format("{}({})", entity, std::string(made.at("Id").as_string())));
    return reply;
  }
  return odata_error(405, "The method is not allowed on an entity set");
}

Reply Crm::odata_record(const Request& request, const std::string& entity, const std::string& id,
                        std::string_view tail) {
  const auto record = store_.get(entity, id);
  if (!record) return odata_error(404, "Resource not found for the segment '" + entity + "'");
  if (request.method == "GET" || request.method == "HEAD") {
    if (tail.empty()) return json_reply(200, json::serialize(*record));
    const std::string property(tail.substr(0, tail.find('/')));
    if (const auto* value = record->if_contains(property)) {
      if (!tail.ends_with("$value")) return json_reply(200, json::serialize(json::object{{"value", *value}}));
      return text_reply(200, value->is_string() ? std::string(value->get_string()) : json::serialize(*value));
    }
    const auto* link = record->if_contains(property + "Id");
    if (link == nullptr || !link->is_string())
      return json_reply(200, json::serialize(json::object{{"value", json::array()}}));
    const auto linked = store_.get(property, std::string(link->get_string()));
    if (!linked) return text_reply(204, "");
    return json_reply(200, json::serialize(*linked));
  }
  if (request.method == "PATCH" || request.method == "PUT" || request.method == "MERGE") {
    const auto fields = tail.empty() ? record_of(request.body) : EntityStore::Record();
    if (!fields) return odata_error(400, "The body is not a JSON object");
    store_.update(entity, id, *fields);
    return text_reply(204, "");
  }
  if (request.method == "DELETE") {
    if (tail.empty()) store_.remove(entity, id);
    return text_reply(204, "");
  }
  return odata_error(405, "The method is not allowed on an entity");
}

// EntityDataService.svc: `{Entity}Collection(guid'..')`, Atom unless JSON verbose is asked for.
Reply Crm::odata3(const Request& request, std::string_view rest) {
  while (rest.starts_with('/')) rest.remove_prefix(1);
  if (equals_ignore_case(rest, "$batch")) return odata_batch(request, "ServiceModel/EntityDataService.svc");
  if (rest.empty() || equals_ignore_case(rest, "$metadata")) {
    Reply reply = text_reply(200, metadata(store_.entity_names()));
    reply.headers = {{"Content-Type", "application/xml"}};
    reply.touched.push_back(request.method + " $metadata");
    return reply;
  }
  auto address = split_address(rest);
  if (!address) return odata_error(400, "The address is not an entity set");
  constexpr std::string_view kSuffix = "Collection";
  if (address->entity.size() > kSuffix.size() && address->entity.ends_with(kSuffix))
    address->entity.resize(address->entity.size() - kSuffix.size());
  Reply reply = address->has_key ? odata_record(request, address->entity, address->key, address->tail)
                                 : odata_collection(request, address->entity, address->tail);
  reply.touched.insert(reply.touched.begin(), request.method + " " + address->entity);
  const std::string* accept = request.find("Accept");
  const bool wants_json = accept != nullptr && accept->find("json") != std::string::npos;
  if (reply.status >= 400 || reply.body.empty() || address->tail == "$count") return reply;
  if (wants_json) {
    boost::system::error_code error;
    json::value body = json::parse(reply.body, error);
    if (!error && body.is_object() && body.get_object().contains("value"))
      body = json::object{{"results", body.get_object().at("value")}};
    reply.body = json::serialize(json::object{{"d", body}});
    reply.headers = {{"Content-Type", "application/json;odata=verbose;charset=utf-8"}};
  } else {
    reply.body = fmt::format(
        R"(<?xml version="1.0" encoding="utf-8"?><feed xmlns="http://www.w3.org/2005/Atom"><title>{}</title></feed>)",
        address->entity);
    reply.headers = {{"Content-Type", "application/atom+xml;charset=utf-8"}};
  }
  reply.headers.emplace_back("DataServiceVersion", "3.0");
  return reply;
}

}  // namespace tollgate::standin
