// The users of the stand-in CRM and their licences, as OData 4 shows them to whoever has logged in: $select,
// nested $expand, $filter, $top, $skip, $count and pages. Anybody may write them, as any other entity:
//
//   POST /0/odata/SysAdminUnit   {"Name":"Ann","SysAdminUnitTypeValue":4,"Active":true,"ConnectionType":1,"ContactId":..}
//   POST /0/odata/SysLicUser     {"SysUserId":..,"SysLicPackageId":..,"Active":true}
//
// How it misbehaves: the latest row of StandinDirectory. {"cap": 2} gives two rows a page at most, {"links":
// true} says where the next page is, {"fault": ...} one of
//   loop       each page says that it is followed by itself
//   endless    each page is followed by another one, of new users
//   short      announces one row more than there is
//   huge       80 MiB behind a page
//   text       a page for people in place of JSON
//   forbidden  403
//   nobody     no rows at all
#include <fmt/format.h>

#include "metering/base/ascii.h"
#include "tests/standin/crm.h"

namespace tollgate::standin {
namespace json = boost::json;
namespace {

// "$select=Id,Name;$expand=Account($select=Name)" -> the part of that name, without it.
std::string option(std::string_view options, std::string_view name) {
  std::size_t depth = 0, start = 0;
  for (std::size_t i = 0; i <= options.size(); ++i) {
    if (i < options.size() && options[i] == '(') ++depth;
    if (i < options.size() && options[i] == ')') --depth;
    if (i < options.size() && (options[i] != ';' || depth > 0)) continue;
    const std::string_view part = options.substr(start, i - start);
    if (part.starts_with(name) && part.substr(name.size()).starts_with('='))
      return std::string(part.substr(name.size() + 1));
    start = i + 1;
  }
  return {};
}

// The row as `select` and `expand` want it. Entities are named like the look-ups that lead to them.
json::object shaped(const EntityStore& store, const EntityStore::Record& row, const std::string& select,
                    std::string expand) {
  json::object out;
  for (const auto& field : row)
    if (select.empty() ||
        ("," + select + ",").find("," + std::string(field.key()) + ",") != std::string::npos)
      out[field.key()] = field.value();
  while (!expand.empty()) {
    std::size_t end = 0, depth = 0;
    for (; end < expand.size() && (expand[end] != ',' || depth > 0); ++end)
      depth += expand[end] == '(' ? 1 : expand[end] == ')' ? -1 : 0;
    const std::string one = expand.substr(0, end);
    expand.erase(0, end + 1);
    const std::size_t open = std::min(one.find('('), one.size());
    const std::string name = one.substr(0, open);
    const std::string options = open < one.size() ? one.substr(open + 1, one.size() - open - 2) : "";
    const auto* id = row.if_contains(name + "Id");
    const auto linked =
        id != nullptr && id->is_string() ? store.get(name, std::string(id->get_string())) : std::nullopt;
    out[name] =
        linked ? json::value(shaped(store, *linked, option(options, "$select"), option(options, "$expand")))
               : json::value(nullptr);
  }
  return out;
}

}  // namespace

EntityStore::Record Crm::directory_settings() const {
  const auto rows = store_.all("StandinDirectory");
  return rows.empty() ? EntityStore::Record() : rows.back();
}

Reply Crm::directory(const Request& request, const std::string& entity) {
  const std::string* authorization = request.find("Authorization");
  const std::string* csrf = request.find("BPMCSRF");
  const bool session =
      !cookie_of(request, ".ASPXAUTH").empty() && csrf != nullptr && *csrf == cookie_of(request, "BPMCSRF");
  const std::string bearer =
      authorization != nullptr && authorization->starts_with("Bearer ") ? authorization->substr(7) : "";
  if (!session && bearer != "directory" && !sessions_.user_of(bearer))
    return json_reply(401, R"({"Code":401,"Message":"Authentication failed"})");
  const EntityStore::Record how = directory_settings();
  const auto* named = how.if_contains("fault");
  const std::string fault(named == nullptr ? "" : std::string(named->as_string()));
  if (fault == "text") return text_reply(200, "<html>Please log in</html>");
  if (fault == "forbidden") return json_reply(403, R"({"error":{"message":"CanUseODataService"}})");

  const auto number = [&](const char* name, std::uint64_t otherwise) {
    return parse_decimal(request.parameter(name).value_or("")).value_or(otherwise);
  };
  const auto* cap = how.if_contains("cap");
  const bool links = how.contains("links") || fault == "loop" || fault == "endless";
  std::vector<EntityStore::Record> rows = store_.all(entity);
  const std::string filter = request.parameter("$filter").value_or("");
  if (filter == "SysAdminUnitTypeValue eq 4")
    std::erase_if(rows,
                  [](const auto& row) { return json::serialize(row.at("SysAdminUnitTypeValue")) != "4"; });
  if (fault == "nobody") rows.clear();
  const std::size_t skip = std::min<std::size_t>(number("$skip", 0) + number("$skiptoken", 0), rows.size());
  const std::size_t top =
      std::min<std::size_t>(number("$top", 20'000), cap == nullptr ? 20'000 : cap->to_number<std::size_t>());
  json::array page;
  for (std::size_t i = skip; i < rows.size() && page.size() < top; ++i)
    page.push_back(shaped(store_, rows[i], request.parameter("$select").value_or(""),
                          request.parameter("$expand").value_or("")));
  json::object body{{"@odata.context", "$metadata#" + entity}};
  if (request.parameter("$count") == "true") body["@odata.count"] = rows.size() + (fault == "short" ? 1 : 0);
  const std::size_t token = number("$skiptoken", 0) + page.size();
  if (fault == "endless") {
    page = {json::object{{"Id", fmt::format("endless-{}", token)},
                         {"Name", fmt::format("endless-{}", token)},
                         {"Active", true}}};
    body["@odata.nextLink"] = fmt::format("http://elsewhere.example/{}?$skiptoken={}", entity, token + 1);
  } else if (fault == "loop") {
    body["@odata.nextLink"] = "/0/odata/" + entity + "?" + request.query;
  } else if (links && skip + page.size() < rows.size()) {
    body["@odata.nextLink"] = fmt::format(
        "http://internal.example/0/odata/{}?$select={}&$expand={}&$filter={}&$skiptoken={}", entity,
        request.parameter("$select").value_or(""), request.parameter("$expand").value_or(""),
        filter == "" ? "" : "SysAdminUnitTypeValue%20eq%204", skip + page.size());
  }
  body["value"] = std::move(page);
  Reply reply = json_reply(200, json::serialize(body));
  if (fault == "huge") reply.filler = 80ULL << 20;
  return reply;
}

}  // namespace tollgate::standin
