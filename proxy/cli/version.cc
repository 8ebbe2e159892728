#include "proxy/cli/version.h"

#include <curl/curl.h>
#include <event2/event.h>
#include <fmt/format.h>
#include <hiredis/hiredis.h>
#include <openssl/crypto.h>

#include "metering/base/json_text.h"
#include "tollgate_version.h"

namespace tollgate::cli {

std::string version_line() {
  return "tollgate " TOLLGATE_VERSION " (" TOLLGATE_REVISION ")";
}

std::vector<std::pair<std::string, std::string>> library_versions() {
  return {{"OpenSSL", OpenSSL_version(OPENSSL_VERSION_STRING)},
          {"libevent", event_get_version()},
          {"hiredis", fmt::format("{}.{}.{}", HIREDIS_MAJOR, HIREDIS_MINOR, HIREDIS_PATCH)},
          {"libcurl", curl_version_info(CURLVERSION_NOW)->version},
          {"compiler", __VERSION__}};
}

int run_version(const VersionArguments& arguments, Console& console) {
  if (arguments.format == Format::table) {
    console.out << version_line() << '\n';
    std::vector<std::vector<std::string>> rows;
    for (auto& [name, version] : library_versions()) rows.push_back({"  " + name, version});
    print_table(console.out, rows);
    return kExitOk;
  }
  std::string out;
  JsonWriter json(out);
  json.object([&] {
    json.field("version", TOLLGATE_VERSION);
    json.field("revision", TOLLGATE_REVISION);
    json.field_object("libraries", [&] {
      for (auto& [name, version] : library_versions()) json.field(name, version);
    });
  });
  console.out << out << '\n';
  return kExitOk;
}

}  // namespace tollgate::cli
