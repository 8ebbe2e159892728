// Talks to the admin API of a running proxy (proxy/admin/service.h lists its paths), for the commands that
// need one. Blocking, on the caller's thread; redirects are not followed; 16 MiB at most, and
// 10 s unless a command has to wait longer.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/error.h"
#include "proxy/cli/console.h"

namespace tollgate::cli {

struct AdminArguments {
  std::string config_file = "tollgate.yaml";  // where address and token are taken from when not given
  std::string url;                            // "http://127.0.0.1:9901"
  std::string token_file;
};

struct AdminEndpoint {
  std::string url;    // without a slash at the end
  std::string token;  // "" sends none
};

struct AdminReply {
  int status = 0;
  std::string body;
};

// Where a local client reaches an admin.address, also one that listens everywhere.
std::string admin_url(std::string_view address);

// What --admin and --token-file say, and the configuration for what they leave open. Nothing after a message.
std::optional<AdminEndpoint> find_endpoint(const AdminArguments& arguments, Console& console);

// An error (origin upstream) when the admin port cannot be reached. HTTP errors are replies.
Result<AdminReply> ask_admin(const AdminEndpoint& endpoint, std::string_view method, std::string_view path,
                             std::string_view body = {}, Seconds at_most = Seconds(10));

// The sentence in a problem document; "" when there is none.
std::string problem_detail(const AdminReply& reply);

// "/api/v1/users/-/ann%40example.com/usage": percent-encodes tenant and user; the empty tenant is "-".
std::string user_path(std::string_view tenant, std::string_view user, std::string_view rest,
                      std::string_view organization);

// The exit code and message of an answer that is anything but 2xx. The reply is set when the code is 0.
int explain_answer(const AdminEndpoint& endpoint, Result<AdminReply> answer, Console& console,
                   AdminReply& reply);
// ask_admin, and the exit code and message of everything but 2xx. The reply is set when the code is 0.
int ask_or_explain(const AdminArguments& arguments, Console& console, std::string_view method,
                   std::string_view path, std::string_view body, AdminReply& reply,
                   Seconds at_most = Seconds(10));

}  // namespace tollgate::cli
