#include "tests/standin/cherwell.h"

#include <fmt/format.h>

#include "metering/base/ascii.h"

namespace tollgate::standin {
namespace json = boost::json;
namespace {

json::object object_of(const Request& request) {
  boost::system::error_code error;
  const json::value body = json::parse(request.body, error);
  return !error && body.is_object() ? body.get_object() : json::object{};
}

std::string text_of(const json::object& object, std::string_view name) {
  const json::value* found = object.if_contains(name);
  return found != nullptr && found->is_string() ? std::string(found->get_string()) : std::string();
}

std::string value_behind(const std::vector<std::string>& words, std::string_view name) {
  for (std::size_t i = 1; i + 1 < words.size(); i += 2)
    if (equals_ignore_case(words[i], name)) return words[i + 1];
  return {};
}

Reply refused(int status, std::string_view what) {
  return json_reply(status, json::serialize(json::object{{"error", json::string_view(what)}}));
}

json::object shown(const std::string& object, const std::string& id, const std::string& public_id,
                   const json::object& fields) {
  json::array list;
  for (const auto& field : fields)
    list.push_back(json::object{{"dirty", false},
                                {"displayName", field.key()},
                                {"fieldId", "BO:" + object + ",FI:" + std::string(field.key())},
                                {"name", field.key()},
                                {"value", field.value()}});
  return {{"busObId", object},
          {"busObPublicId", public_id},
          {"busObRecId", id},
          {"fields", std::move(list)},
          {"hasError", false}};
}

}  // namespace

std::string Cherwell::open(const Owner& owner) {
  Owner kept = owner;
  const std::string token = fmt::format("access-{:016X}-{}", std::hash<std::string>()(owner.user), ++made_);
  kept.refresh = fmt::format("refresh-{:016X}-{}", std::hash<std::string>()(owner.user), made_);
  refreshes_[kept.refresh] = kept;
  tokens_[token] = std::move(kept);
  return token;
}

void Cherwell::close_all() {
  const std::lock_guard lock(mutex_);
  tokens_.clear();
  refreshes_.clear();
}

Reply Cherwell::token(const Request& request) {
  Request form;
  form.query = request.body;
  const auto parameter = [&](std::string_view name) {
    auto found = form.parameter(name);
    return (found ? found : request.parameter(name)).value_or("");
  };
  Owner owner{parameter("username"), to_lower(parameter("site_name")), ""};
  if (parameter("grant_type") == "refresh_token") {
    const auto known = refreshes_.find(parameter("refresh_token"));
    if (known == refreshes_.end()) return refused(400, "invalid_grant");
    owner = known->second;
    refreshes_.erase(known);
  } else if (owner.user.empty() || parameter("password") != "secret") {
    return refused(400, "BADREQUEST");
  }
  const std::string token = open(owner);
  const std::string* lifetime = request.find("X-Standin-Lifetime");
  json::object body{{"access_token", token},
                    {"token_type", "bearer"},
                    {"expires_in", parse_decimal(lifetime == nullptr ? "1199" : *lifetime).value_or(0)},
                    {"refresh_token", tokens_[token].refresh},
                    {"as:client_id", parameter("client_id")},
                    {"username", owner.user},
                    {".issued", "Sun, 22 Nov 2026 00:00:00 GMT"},
                    {".expires", "Sun, 22 Nov 2026 00:20:00 GMT"}};
  const std::string* found = request.find("X-Standin-Grant");
  const std::string grant = found == nullptr ? "" : *found;
  if (grant == "nameless") body.erase("username");
  if (grant == "tokenless") body.erase("access_token");
  if (!grant.empty()) body["error"] = "invalid_grant";
  return json_reply(grant == "refused" ? 400 : grant == "broken" ? 500 : 200, json::serialize(body));
}

Cherwell::Record* Cherwell::find(const std::string& object, const std::string& id,
                                 const std::string& public_id) {
  for (Record& record : records_)
    if (equals_ignore_case(record.object, object) &&
        (id.empty() ? record.public_id == public_id : equals_ignore_case(record.id, id)))
      return &record;
  return nullptr;
}

// nullopt: there is no such record.
std::optional<json::object> Cherwell::save(const json::object& body, const Owner& owner) {
  const std::string object = text_of(body, "busObId"), id = text_of(body, "busObRecId"),
                    public_id = text_of(body, "busObPublicId");
  Record* record = nullptr;
  if (id.empty() && public_id.empty()) {
    record = &records_.emplace_back();
    *record = {object, fmt::format("{:042x}", ++made_), std::to_string(10'000 + made_), {}};
    record->fields["CustomerRecID"] = "cust-" + to_lower(owner.user);
  } else {
    record = find(object, id, public_id);
  }
  if (record == nullptr) return std::nullopt;
  if (const json::value* fields = body.if_contains("fields"); fields != nullptr && fields->is_array())
    for (const json::value& field : fields->get_array())
      if (field.is_object() && !text_of(field.get_object(), "name").empty())
        record->fields[text_of(field.get_object(), "name")] = text_of(field.get_object(), "value");
  return json::object{{"busObPublicId", record->public_id},
                      {"busObRecId", record->id},
                      {"cacheKey", nullptr},
                      {"fieldValidationErrors", json::array()},
                      {"hasError", false}};
}

Reply Cherwell::run(const Request& request, const std::string& token) {
  json::object out{{"completed", true}, {"hasNewAccessToken", false}, {"newAccessToken", nullptr}};
  if (request.find("X-Standin-New-Token") != nullptr) {
    out["hasNewAccessToken"] = true;
    out["newAccessToken"] = open(tokens_[token]);
    tokens_.erase(token);
  }
  return json_reply(200, json::serialize(out));
}

Reply Cherwell::serve(const Request& request, const std::string& token,
                      const std::vector<std::string>& words) {
  const Owner owner = tokens_[token];
  const std::string operation = to_lower(words[0]);
  if (operation == "logout") {
    refreshes_.erase(owner.refresh);
    tokens_.erase(token);
    return text_reply(200, "");
  }
  if (operation == "savebusinessobject") {
    const auto saved = save(object_of(request), owner);
    return saved ? json_reply(200, json::serialize(*saved)) : refused(404, "RECORDNOTFOUND");
  }
  if (operation == "savebusinessobjectbatch") {
    const json::object body = object_of(request);
    json::array responses;
    if (const json::value* saves = body.if_contains("saveRequests"); saves != nullptr && saves->is_array())
      for (const json::value& one : saves->get_array()) {
        auto saved = one.is_object() ? save(one.get_object(), owner) : std::nullopt;
        responses.push_back(
            saved ? json::value(*saved)
                  : json::value{{"busObRecId", nullptr}, {"busObPublicId", nullptr}, {"hasError", true}});
      }
    return json_reply(200, json::serialize(json::object{{"responses", std::move(responses)}}));
  }
  if (operation.starts_with("runonestepaction")) return run(request, token);
  if (operation == "getbusinessobject" || operation == "deletebusinessobject") {
    Record* record = find(value_behind(words, "busobid"), value_behind(words, "busobrecid"),
                          value_behind(words, "publicid"));
    if (record == nullptr) return refused(404, "RECORDNOTFOUND");
    Reply reply = json_reply(
        200, json::serialize(shown(record->object, record->id, record->public_id, record->fields)));
    if (operation == "deletebusinessobject") records_.erase(records_.begin() + (record - records_.data()));
    return reply;
  }
  if (operation == "getsearchresults" || operation == "getbusinessobjectbatch") {
    const json::object body = object_of(request);
    json::array rows;
    for (const Record& record : records_) {
      bool wanted = equals_ignore_case(text_of(body, "busObId"), record.object);
      if (const json::value* reads = body.if_contains("readRequests"); reads != nullptr && reads->is_array())
        for (const json::value& read : reads->get_array())
          wanted = wanted || (read.is_object() && text_of(read.get_object(), "busObRecId") == record.id);
      if (wanted) rows.push_back(shown(record.object, record.id, record.public_id, record.fields));
    }
    const char* name = operation == "getsearchresults" ? "businessObjects" : "responses";
    const std::size_t count = rows.size();
    return json_reply(200, json::serialize(json::object{{name, std::move(rows)}, {"totalRows", count}}));
  }
  return json_reply(200, "{}");
}

Reply Cherwell::answer(const Request& request, std::string_view rest) {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> words;
  for (std::size_t at = 0; at <= rest.size();) {
    const std::size_t end = std::min(rest.find('/', at), rest.size());
    words.emplace_back(rest.substr(at, end - at));
    at = end + 1;
  }
  if (equals_ignore_case(words[0], "token")) {
    Reply reply = token(request);
    reply.touched.push_back("POST token");
    return reply;
  }
  const std::string* authorization = request.find("Authorization");
  const std::string bearer = authorization != nullptr && starts_with_ignore_case(*authorization, "Bearer ")
                                 ? authorization->substr(7)
                                 : std::string();
  const auto known = tokens_.find(bearer);
  if (known == tokens_.end() || words.size() < 3) {
    Reply reply = refused(known == tokens_.end() ? 401 : 404, "UNAUTHORIZED");
    reply.touched.push_back("401 " + request.path);
    return reply;
  }
  const std::string whose = known->second.user + "@" + known->second.site;
  words.erase(words.begin(), words.begin() + 2);
  Reply reply = serve(request, bearer, words);
  reply.headers.emplace_back("X-Standin-User", whose);
  reply.touched.push_back(request.method + " " + words[0]);
  return reply;
}

}  // namespace tollgate::standin
