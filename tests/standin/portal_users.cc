// Users of Zoho's portal in the stand-in: invited one by one or many at once, activated, deactivated, deleted and listed, with
// the replies of the vendor's API guide (v8: "Invite a User to a Portal", "Change User's Status", "Delete User from the Portal").
#include <boost/algorithm/string.hpp>

#include "tests/standin/crm.h"

namespace tollgate::standin {
namespace json = boost::json;
namespace {

json::object entry(bool fine, std::string_view code, json::object details) {
  return {{"code", code},
          {"details", std::move(details)},
          {"message", fine ? "done" : "not done"},
          {"status", fine ? "success" : "error"}};
}

Reply listed(int status, const char* key, json::array entries) {
  Reply reply = json_reply(status, json::serialize(json::object{{key, std::move(entries)}}));
  reply.touched.emplace_back("portal users");
  return reply;
}

std::vector<std::string> split(std::string_view text, char at) {
  std::vector<std::string> parts;
  boost::split(parts, text, [at](char c) { return c == at; });
  return parts;
}

// The ids of {"portal_invite":[{"data":[{"id":"1"}]}]}.
std::vector<std::string> invited_in(const std::string& body) {
  std::vector<std::string> ids;
  const json::value root = json::parse(body);
  for (const json::value& group : root.at("portal_invite").as_array())
    for (const json::value& record : group.at("data").as_array())
      ids.emplace_back(record.at("id").as_string());
  return ids;
}

}  // namespace

Reply PortalUsers::list() const {
  json::array users;
  for (const auto& [id, active] : active_) users.push_back({{"personality_id", id}, {"active", active}});
  const std::size_t count = users.size();
  return json_reply(
      200, json::serialize(json::object{{"users", std::move(users)}, {"info", {{"total_count", count}}}}));
}

std::optional<Reply> PortalUsers::answer(const Request& request, std::string_view rest) {
  const std::vector<std::string> words = split(rest.substr(0, rest.find('?')), '/');
  const std::string* asked = request.find("X-Standin-Portal");
  const bool refuse = asked != nullptr && *asked == "refuse", error = asked != nullptr && *asked == "error";
  std::lock_guard lock(mutex_);
  if (words.back() == "portal_invite" && request.method == "POST") {
    const bool many = words.size() == 3;
    if (refuse) return listed(400, "portal_invite", {entry(false, "DUPLICATE_DATA", {})});
    if (error) return listed(200, "portal_invite", {entry(false, "INVALID_DATA", {})});
    for (const std::string& id : many ? invited_in(request.body) : std::vector{words[1]}) active_[id] = true;
    return listed(200, "portal_invite",
                  {many ? entry(true, "SCHEDULED", {{"job_id", "7"}})
                        : entry(true, "SUCCESS", {{"record_id", words[1]}})});
  }
  if (words.size() < 6 || words[0] != "settings" || words[1] != "portals" || words[5] != "users")
    return std::nullopt;
  if (request.method == "GET") return list();
  if (refuse) return listed(400, "users", {entry(false, "INVALID_DATA", {})});
  json::array entries;
  if (words.size() == 9 && request.method == "PUT") {
    const auto user = active_.find(words[6]);
    const bool on = request.parameter("active") == "true";
    const bool fine = user != active_.end() && user->second != on;
    if (fine) user->second = on;
    entries.push_back(entry(fine, fine ? "SUCCESS" : "ALREADY_ACTIVATED", {{"personality_id", words[6]}}));
    return listed(fine ? 200 : 400, "change_status", std::move(entries));
  }
  if (request.method == "DELETE") {
    for (const std::string& id : split(request.parameter("personality_ids").value_or(""), ',')) {
      const bool fine = active_.erase(id) > 0;
      entries.push_back(entry(fine, fine ? "SUCCESS" : "INVALID_DATA", {{"personality_id", id}}));
    }
    return listed(200, "users", std::move(entries));
  }
  return std::nullopt;
}

}  // namespace tollgate::standin
