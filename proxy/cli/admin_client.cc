#include "proxy/cli/admin_client.h"

#include <curl/curl.h>
#include <fmt/format.h>
#include <simdjson.h>

#include <fstream>
#include <iterator>
#include <memory>

#include "metering/base/ascii.h"

namespace tollgate::cli {
namespace {

constexpr std::size_t kReplyBytesMax = 16 * 1024 * 1024;

struct CurlFreer {
  void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};

std::size_t take(char* bytes, std::size_t size, std::size_t count, void* target) {
  auto* out = static_cast<std::string*>(target);
  if (out->size() + size * count > kReplyBytesMax) return 0;
  out->append(bytes, size * count);
  return size * count;
}

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

std::string percent_encoded(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (is_alpha(c) || is_digit(c) || c == '-' || c == '.' || c == '_' || c == '~')
      out.push_back(c);
    else
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
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
  std::unique_ptr<CURL, CurlFreer> handle(curl_easy_init());
  if (!handle) return fail(Origin::self, "libcurl cannot be started");
  std::unique_ptr<curl_slist, CurlFreer> headers;
  auto add_header = [&](const std::string& line) {
    headers.reset(curl_slist_append(headers.release(), line.c_str()));
  };
  if (!endpoint.token.empty()) add_header("Authorization: Bearer " + endpoint.token);
  if (!body.empty()) add_header("Content-Type: application/json");
  add_header("Expect:");
  std::string url = endpoint.url + std::string(path), method_text(method), body_text(body);
  AdminReply reply;
  curl_easy_setopt(handle.get(), CURLOPT_URL, url.c_str());
  curl_easy_setopt(handle.get(), CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(handle.get(), CURLOPT_PATH_AS_IS, 1L);  // a user may be named ".."
  curl_easy_setopt(handle.get(), CURLOPT_PROXY, "");
  curl_easy_setopt(handle.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle.get(), CURLOPT_TIMEOUT, static_cast<long>(at_most.count()));
  curl_easy_setopt(handle.get(), CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(handle.get(), CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(handle.get(), CURLOPT_WRITEFUNCTION, &take);
  curl_easy_setopt(handle.get(), CURLOPT_WRITEDATA, &reply.body);
  if (method != "GET") {
    curl_easy_setopt(handle.get(), CURLOPT_CUSTOMREQUEST, method_text.c_str());
    if (method != "DELETE" || !body.empty()) {
      curl_easy_setopt(handle.get(), CURLOPT_POSTFIELDSIZE, static_cast<long>(body_text.size()));
      curl_easy_setopt(handle.get(), CURLOPT_POSTFIELDS, body_text.c_str());
    }
  }
  if (CURLcode code = curl_easy_perform(handle.get()); code != CURLE_OK)
    return fail(Origin::upstream, fmt::format("{}: {}", endpoint.url, curl_easy_strerror(code)), true);
  long status = 0;
  curl_easy_getinfo(handle.get(), CURLINFO_RESPONSE_CODE, &status);
  reply.status = static_cast<int>(status);
  return reply;
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
