#include "proxy/cli/key.h"

#include <fmt/format.h>
#include <openssl/rand.h>

#include <istream>

#include "config/values.h"
#include "metering/base/check.h"
#include "metering/base/json_text.h"
#include "metering/base/moment.h"
#include "metering/identity/api_keys.h"

namespace tollgate::cli {
namespace {

// As csv.h reads it.
std::string cell(std::string_view text) {
  if (text.find_first_of(",\"\r\n") == std::string_view::npos) return std::string(text);
  std::string out = "\"";
  for (char c : text) out.append(c == '"' ? 2 : 1, c);
  return out + '"';
}

// The secret that hashes are keyed with, or "" without one; nullopt after a message.
std::optional<std::string> hash_secret(const KeyArguments& arguments, Console& console) {
  auto loaded = load_config(console, arguments.config_file);
  if (!loaded) return std::nullopt;
  const config::ApiKeys& settings = loaded->settings.identity.api_keys;
  if (settings.file.empty()) {
    print_error(console,
                fmt::format("{}: identity.api_keys.file is missing: nobody would know the key. Begin with a "
                            "file that has only the line {}",
                            arguments.config_file, identity::kApiKeyColumns));
    return std::nullopt;
  }
  return settings.secret_file.empty() ? "" : loaded->file_texts.at(settings.secret_file);
}

std::string row_of(const KeyArguments& arguments, const std::string& hash, const std::string& license,
                   const std::string& expires) {
  return fmt::format("{},{},{},{},{},{},{}", hash, cell(arguments.user), cell(arguments.tenant),
                     cell(arguments.organization), cell(license), arguments.user_type, expires);
}

}  // namespace

int run_key_create(const KeyArguments& arguments, Console& console) {
  std::string expires;
  if (!arguments.expires.empty()) {
    auto lifetime = config::parse_duration(arguments.expires);
    if (!lifetime) {
      print_error(console, fmt::format("--expires: \"{}\" {}", arguments.expires, lifetime.error()));
      return kExitUsage;
    }
    expires = format_moment(std::chrono::floor<Milliseconds>((console.now + *lifetime).time_since_epoch()));
  }
  const auto secret = hash_secret(arguments, console);
  if (!secret) return kExitConfig;
  std::string random(32, '\0');
  CHECK(RAND_bytes(reinterpret_cast<unsigned char*>(random.data()), static_cast<int>(random.size())) == 1,
        "the system gives random bytes");
  const std::string key = identity::make_api_key(random);
  const auto hash = identity::api_key_hash(key, *secret);
  CHECK(hash.has_value(), "the secret was checked when the configuration was read");
  std::vector<std::string> rows;
  for (const std::string& license : arguments.licenses)
    rows.push_back(row_of(arguments, *hash, license, expires));
  if (rows.empty()) rows.push_back(row_of(arguments, *hash, "", expires));
  if (arguments.format == Format::table) {
    console.out << key << '\n';
    for (const std::string& row : rows) console.out << row << '\n';
    return kExitOk;
  }
  std::string out;
  JsonWriter json(out);
  json.object([&] {
    json.field("key", key);
    json.field("hash", *hash);
    json.field("columns", identity::kApiKeyColumns);
    json.key("rows");
    json.array([&] {
      for (const std::string& row : rows) json.value(row);
    });
  });
  console.out << out << '\n';
  return kExitOk;
}

int run_key_hash(const KeyArguments& arguments, std::istream& in, Console& console) {
  const auto secret = hash_secret(arguments, console);
  if (!secret) return kExitConfig;
  std::string key;
  std::getline(in, key);
  if (!key.empty() && key.back() == '\r') key.pop_back();
  const auto hash = identity::api_key_hash(key, *secret);
  if (!hash) {
    print_error(console, hash.error().message);
    return kExitUsage;
  }
  console.out << *hash << '\n';
  return kExitOk;
}

}  // namespace tollgate::cli
