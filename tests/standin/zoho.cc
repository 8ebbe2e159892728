// The stand-in's Zoho CRM: /crm/v{N}/{module}... with the envelopes of the vendor's API (data, code SUCCESS, info).
#include <fmt/format.h>

#include "metering/base/ascii.h"
#include "tests/standin/crm.h"

namespace tollgate::standin {
namespace json = boost::json;
namespace {

json::object success(std::string_view message, const std::string& id) {
  return {{"code", "SUCCESS"}, {"details", {{"id", id}}}, {"message", message}, {"status", "success"}};
}

Reply one(int status, json::object entry) {
  return json_reply(status, json::serialize(json::object{{"data", json::array{std::move(entry)}}}));
}

Reply not_found() {
  return json_reply(
      404, R"({"code":"INVALID_URL_PATTERN","details":{},"message":"no such address","status":"error"})");
}

// The first record of {"data":[{...}]}.
json::object first_record(const Request& request) {
  boost::system::error_code error;
  const json::value body = json::parse(request.body, error);
  const json::object* object = error ? nullptr : body.if_object();
  const json::value* data = object == nullptr ? nullptr : object->if_contains("data");
  const json::array* list = data == nullptr ? nullptr : data->if_array();
  const bool there = list != nullptr && !list->empty() && list->front().is_object();
  return there ? list->front().get_object() : json::object{};
}

}  // namespace

// rest: what follows /crm/v{N}/.
Reply Crm::zoho(const Request& request, std::string_view rest) {
  if (auto reply = portal_users_.answer(request, rest)) return *std::move(reply);
  const std::size_t slash = rest.find('/');
  const std::string module(rest.substr(0, slash));
  const std::string_view tail = slash == std::string_view::npos ? std::string_view() : rest.substr(slash + 1);
  const std::string id(tail.substr(0, tail.find('/')));
  const bool whole = tail.empty();
  Reply reply = not_found();
  if (tail.find("actions/") != std::string_view::npos || id == "upsert" || module == "coql") {
    reply = one(200, success("done", id));
  } else if (request.method == "GET") {
    json::array rows;
    if (whole)
      for (const auto& row : store_.all(module)) rows.push_back(row);
    else if (auto row = store_.get(module, id))
      rows.push_back(*row);
    const std::size_t count = rows.size();
    reply = count == 0 ? Reply{.status = 204}
                       : json_reply(200, json::serialize(json::object{
                                             {"data", std::move(rows)},
                                             {"info", {{"count", count}, {"more_records", false}}}}));
  } else if (request.method == "POST" && whole) {
    const json::object made = store_.create(module, first_record(request));
    reply = one(201, success("record added", std::string(made.at("Id").as_string())));
  } else if (request.method == "PUT") {
    reply = one(200, success("record updated", id));
  } else if (request.method == "DELETE") {
    reply = store_.remove(module, id) ? one(200, success("record deleted", id)) : not_found();
  }
  reply.touched.push_back(request.method + " " + module);
  return reply;
}

}  // namespace tollgate::standin
