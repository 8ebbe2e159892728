#include "tests/standin/crm.h"

#include <fmt/format.h>

#include "metering/base/ascii.h"

namespace tollgate::standin {
namespace json = boost::json;
namespace {

std::string echo_body(const Request& request) {
  const auto list = [](const HeaderList& headers) {
    json::array out;
    for (const auto& [name, value] : headers) out.push_back(json::array{name, value});
    return out;
  };
  return json::serialize(json::object{{"method", request.method},
                                      {"target", request.target},
                                      {"version", request.version},
                                      {"headers", list(request.headers)},
                                      {"trailers", list(request.trailers)},
                                      {"body_length", request.body_length},
                                      {"body_sha256", request.body_sha256},
                                      {"chunks", request.chunks}});
}

std::optional<std::uint64_t> number_after(std::string_view path, std::string_view prefix) {
  if (!starts_with_ignore_case(path, prefix)) return std::nullopt;
  return parse_decimal(path.substr(prefix.size()));
}

Reply demonstration(const Request& request) {
  const std::string_view path = request.path;
  if (path == "/health") return text_reply(200, "ok\n");
  if (path == "/echo" || path.starts_with("/echo/") || path == "/upload")
    return json_reply(200, echo_body(request));
  if (const auto size = number_after(path, "/bytes/")) {
    Reply reply;
    reply.headers.emplace_back("Content-Type", "application/octet-stream");
    reply.filler = *size;
    reply.chunked = request.parameter("chunked") == "1";
    return reply;
  }
  if (const auto status = number_after(path, "/status/"); status && *status >= 200 && *status <= 599)
    return text_reply(static_cast<int>(*status), fmt::format("status {}\n", *status));
  if (path == "/early") {
    Reply reply = text_reply(200, "late\n");
    reply.interim = {{102, {}}, {103, {{"Link", "</style.css>; rel=preload"}}}};
    return reply;
  }
  if (path == "/trailers") {
    Reply reply = text_reply(200, "counted\n");
    reply.chunked = true;
    reply.trailers = {{"X-Row-Count", "1"}, {"X-Checksum", "abc"}};
    reply.headers.emplace_back("Trailer", "X-Row-Count, X-Checksum");
    return reply;
  }
  if (path == "/items" || path.starts_with("/items/"))
    return json_reply(200, R"({"id":42,"number":"SR00000042","status":"In progress"})");
  return json_reply(404, R"({"error":{"code":"","message":"No such resource"}})");
}

}  // namespace

std::string cookie_of(const Request& request, std::string_view wanted) {
  for (const auto& [name, value] : request.headers) {
    if (!equals_ignore_case(name, "Cookie")) continue;
    std::string_view rest = value;
    while (!rest.empty()) {
      const std::string_view pair = trim(rest.substr(0, rest.find(';')));
      rest.remove_prefix(std::min(rest.find(';'), rest.size() - 1) + 1);
      const std::size_t equals = pair.find('=');
      if (equals != std::string_view::npos && equals_ignore_case(pair.substr(0, equals), wanted))
        return std::string(pair.substr(equals + 1));
    }
  }
  return {};
}

// ---------------------------------------------------------------- log-in with forms

std::string Sessions::open(const std::string& user) {
  const std::lock_guard lock(mutex_);
  std::string cookie = fmt::format("{:016X}{:08X}", std::hash<std::string>()(user), ++made_);
  users_[cookie] = user;
  return cookie;
}

std::optional<std::string> Sessions::user_of(const std::string& cookie) const {
  const std::lock_guard lock(mutex_);
  const auto found = users_.find(cookie);
  return found == users_.end() ? std::nullopt : std::optional(found->second);
}

void Sessions::close(const std::string& cookie) {
  const std::lock_guard lock(mutex_);
  users_.erase(cookie);
}

void Sessions::close_all() {
  const std::lock_guard lock(mutex_);
  users_.clear();
}

// The cookies and the answer of a Forms login (the real one answers 200 with Code 1 to a wrong password).
Reply Crm::login(const Request& request) {
  boost::system::error_code error;
  const json::value body = json::parse(request.body, error);
  const auto* object = body.if_object();
  const auto text = [&](const char* name) -> std::string {
    const auto* found = object == nullptr ? nullptr : object->if_contains(name);
    return found != nullptr && found->is_string() ? std::string(found->get_string()) : std::string();
  };
  const std::string user = text("UserName");
  if (error || user.empty() || text("UserPassword") != "secret")
    return json_reply(200, R"({"Code":1,"Message":"Invalid username or password specified","Exception":null,)"
                           R"("PasswordChangeUrl":null,"RedirectUrl":null})");
  Reply reply =
      json_reply(200, fmt::format(R"({{"Code":0,"Message":"","Exception":null,"PasswordChangeUrl":null,)"
                                  R"("RedirectUrl":null,"UserType":"{}"}})",
                                  user.starts_with("Portal/") ? "SSP" : "General"));
  std::string codes;
  for (const char c : user)
    codes += fmt::format("{}{}", codes.empty() ? "" : "|", static_cast<int>(static_cast<unsigned char>(c)));
  reply.headers.emplace_back("Set-Cookie",
                             fmt::format(".ASPXAUTH={}; path=/; HttpOnly", sessions_.open(user)));
  reply.headers.emplace_back("Set-Cookie", "BPMLOADER=loader0123456789; path=/; HttpOnly");
  reply.headers.emplace_back("Set-Cookie", "BPMCSRF=csrf0123456789; path=/");
  reply.headers.emplace_back("Set-Cookie", fmt::format("UserName={}; path=/; HttpOnly", codes));
  return reply;
}

namespace {

// "/0/ssp/odata/Case" -> "odata/Case": the root is an optional workspace number and an optional "ssp".
std::string_view without_root(std::string_view path) {
  while (path.starts_with('/')) path.remove_prefix(1);
  const std::size_t slash = path.find('/');
  if (slash != std::string_view::npos && parse_decimal(path.substr(0, slash))) path.remove_prefix(slash + 1);
  if (starts_with_ignore_case(path, "ssp/")) path.remove_prefix(4);
  return path;
}

}  // namespace

Reply Crm::answer(const Request& request) {
  const std::string cookie = cookie_of(request, ".ASPXAUTH");
  const std::string_view page = without_root(request.path);
  if (cookie.empty() || starts_with_ignore_case(page, "ServiceModel/AuthService.svc")) return serve(request);
  const auto user = sessions_.user_of(cookie);
  if (!user) {
    Reply reply = json_reply(401, R"({"Code":401,"Message":"Authentication failed"})");
    reply.touched.push_back("401 " + request.path);
    return reply;
  }
  if (equals_ignore_case(page, "rest/MainMenuService/Logout")) sessions_.close(cookie);
  Reply reply = serve(request);
  reply.headers.emplace_back("X-Standin-User", *user);
  if (request.find("X-Standin-Renew") != nullptr)  // as a ticket that is half used up is made anew
    reply.headers.emplace_back("Set-Cookie",
                               fmt::format(".ASPXAUTH={}; path=/; HttpOnly", sessions_.open(*user)));
  return reply;
}

Reply Crm::serve(const Request& request) {
  const std::string_view path = without_root(request.path);
  const auto after = [&](std::string_view prefix) -> std::optional<std::string_view> {
    if (!starts_with_ignore_case(path, prefix)) return std::nullopt;
    return path.substr(prefix.size());
  };
  if (auto reply = identity(request, path)) return *std::move(reply);
  if (equals_ignore_case(path, "odata")) return odata(request, "");
  if (const auto rest = after("odata/")) return odata(request, *rest);
  if (const auto rest = after("ServiceModel/EntityDataService.svc")) return odata3(request, *rest);
  if (after("ServiceModel/AuthService.svc/Login")) return login(request);
  for (const char* root : {"DataService/json/SyncReply/", "DataService/json/reply/",
                           "DataService/ssp/json/SyncReply/", "DataService/ssp/json/reply/"})
    if (const auto method = after(root)) return data_service(request, *method);
  if (const auto rest = after("crm/v"))
    if (const std::size_t slash = rest->find('/'); slash != std::string_view::npos)
      return zoho(request, rest->substr(slash + 1));
  if (const auto rest = after("CherwellAPI/")) return cherwell_.answer(request, *rest);
  if (const auto rest = after("rest/")) return service(request, *rest);
  if (const auto rest = after("ServiceModel/")) return service(request, *rest);
  Reply reply = demonstration(request);
  reply.touched.push_back(request.method + " " + request.path);
  return reply;
}

Reply Crm::service(const Request& request, std::string_view name) {
  const std::size_t slash = name.rfind('/');
  const std::string method(slash == std::string_view::npos ? name : name.substr(slash + 1));
  Reply reply =
      json_reply(200, json::serialize(json::object{{method + "Result", json::object{{"success", true}}}}));
  reply.touched.push_back(request.method + " " + std::string(name));
  return reply;
}

}  // namespace tollgate::standin
