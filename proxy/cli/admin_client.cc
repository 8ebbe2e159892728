#include "proxy/cli/admin_client.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <fstream>
#include <iterator>

#include "metering/base/percent.h"
#include "proxy/net/http_transfer.h"

namespace tollgate::cli {
namespace {

constexpr std::size_t kReplyBytesMax = 16 * 1024 * 1024;

}  // namespace

std::string problem_detail(const AdminReply& reply) {
  simdjson::dom::parser parser;
  simdjson::dom::element document;
  std::string_view detail;
  if (parser.parse(reply.body).get(document) != simdjson::SUCCESS) return "";
  if (document["detail"].get(detail) != simdjson::SUCCESS) return "";
  return std::string(detail);
}

std::string admin_url(std::string_view address) {
  std::string_view port = address.substr(address.rfind(':') + 1);
  if (address.starts_with("0.0.0.0:")) return fmt::format("http://127.0.0.1:{}", port);
  if (address.starts_with("[::]:")) return fmt::format("http://[::1]:{}", port);
  return fmt::format("http://{}", address);
}

std::optional<AdminEndpoint> find_endpoint(const AdminArguments& arguments, Console& console) {
  AdminEndpoint endpoint{arguments.url, ""};
  while (endpoint.url.ends_with('/')) endpoint.url.pop_back();
  if (!arguments.token_file.empty()) {
    std::ifstream in(arguments.token_file, std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    if (!in) {
      print_error(console, fmt::format("--token-file {}: cannot be read", arguments.token_file));
      return std::nullopt;
    }
    endpoint.token = config::secret_of_file(text);
  }
  if (!endpoint.url.empty() && !endpoint.token.empty()) return endpoint;

  auto loaded = config::load(arguments.config_file, console.environment);
  // With an address of its own the configuration is only looked into for the token.
  if (!loaded && !endpoint.url.empty()) return endpoint;
  if (!loaded) {
    print_diagnostics(console, loaded.error());
    print_error(console, "name the admin port with --admin URL, or a configuration with -c");
    return std::nullopt;
  }
  const config::Admin& admin = loaded->settings.admin;
  if (endpoint.url.empty() && admin.address.empty()) {
    print_error(console, "the admin port is switched off in this configuration (admin.address is empty)");
    return std::nullopt;
  }
  // The token of the configuration is for its own admin port, not for whatever --admin names.
  if (endpoint.token.empty() && !admin.token_file.empty() &&
      (endpoint.url.empty() || endpoint.url == admin_url(admin.address)))
    endpoint.token = config::secret_of_file(loaded->file_texts.at(admin.token_file));
  if (endpoint.url.empty()) endpoint.url = admin_url(admin.address);
  return endpoint;
}

Result<AdminReply> ask_admin(const AdminEndpoint& endpoint, std::string_view method, std::string_view path,
                             std::string_view body, Seconds at_most) {
  net::HttpRequest request{.url = endpoint.url + std::string(path),
                           .method = std::string(method),
                           .timeout = at_most,
                           .reply_max = kReplyBytesMax};
  if (!endpoint.token.empty()) request.fields.push_back("Authorization: Bearer " + endpoint.token);
  if (!body.empty()) request.fields.emplace_back("Content-Type: application/json");
  if (!body.empty() || (method != "GET" && method != "DELETE")) request.body = body;
  auto outcome = net::HttpTransfer().perform(std::move(request));
  if (!outcome)
    return fail(Origin::upstream, fmt::format("{}: {}", endpoint.url, outcome.error().text), true);
  return AdminReply{outcome->status, std::move(outcome->body)};
}

std::string user_path(std::string_view tenant, std::string_view user, std::string_view rest,
                      std::string_view organization) {
  std::string path = fmt::format("/api/v1/users/{}/{}/{}", tenant.empty() ? "-" : percent_encoded(tenant),
                                 percent_encoded(user), rest);
  if (!organization.empty()) path += "?organization=" + percent_encoded(organization);
  return path;
}

int ask_or_explain(const AdminArguments& arguments, Console& console, std::string_view method,
                   std::string_view path, std::string_view body, AdminReply& reply, Seconds at_most) {
  auto endpoint = find_endpoint(arguments, console);
  if (!endpoint) return kExitConfig;
  return explain_answer(*endpoint, ask_admin(*endpoint, method, path, body, at_most), console, reply);
}

int explain_answer(const AdminEndpoint& endpoint, Result<AdminReply> answer, Console& console,
                   AdminReply& reply) {
  if (!answer) {
    print_error(console, answer.error().message + "; is the proxy running, and is this its admin port?");
    return kExitUnavailable;
  }
  if (answer->status >= 200 && answer->status < 300) {
    reply = std::move(*answer);
    return kExitOk;
  }
  const std::string detail = problem_detail(*answer);
  if (answer->status == 401 || answer->status == 403)
    print_error(console, fmt::format("{} refused the admin token ({}){}{}", endpoint.url, answer->status,
                                     detail.empty() ? "; name its file with --token-file" : ": ", detail));
  else
    print_error(console, fmt::format("{} answered {}{}{}", endpoint.url, answer->status,
                                     detail.empty() ? "" : ": ", detail));
  return answer->status == 503 ? kExitUnavailable : kExitFailed;
}

}  // namespace tollgate::cli
