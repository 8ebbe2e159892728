#include "proxy/cli/token.h"

#include <fmt/format.h>

#include "config/values.h"
#include "metering/base/json_text.h"
#include "metering/identity/mint.h"

namespace tollgate::cli {
namespace {

using identity::Claim;

// The issuer to sign for, or nullptr after a message.
const config::JwtIssuer* find_issuer(const TokenArguments& arguments, const config::Settings& settings,
                                     Console& console) {
  std::vector<std::string> known;
  for (const config::JwtIssuer& jwt : settings.identity.jwt) {
    if (jwt.secret_file.empty()) continue;
    if (arguments.issuer.empty() || arguments.issuer == jwt.issuer) return &jwt;
    known.push_back(jwt.issuer);
  }
  if (known.empty())
    print_error(
        console,
        fmt::format("{}: no issuer under identity.jwt has a secret_file; tokens signed with a private key "
                    "come from the identity provider",
                    arguments.config_file));
  else
    print_error(console, fmt::format("{}: there is no issuer \"{}\" with a secret_file; known are: {}",
                                     arguments.config_file, arguments.issuer, fmt::join(known, ", ")));
  return nullptr;
}

std::vector<Claim> claims_of(const TokenArguments& arguments, const config::JwtIssuer& jwt, UnixTime issued,
                             UnixTime expires) {
  std::vector<Claim> claims;
  auto add = [&](const std::string& name, const std::string& value) {
    if (!name.empty() && !value.empty()) claims.push_back(identity::text_claim(name, value));
  };
  add("iss", jwt.issuer);
  if (!jwt.audience.empty()) add("aud", jwt.audience.front());
  add(jwt.claims.user, arguments.user);
  add(jwt.claims.tenant, arguments.tenant);
  add(jwt.claims.organization, arguments.organization);
  add(jwt.claims.user_type, arguments.user_type);
  if (!jwt.claims.licenses.empty() && !arguments.licenses.empty())
    claims.push_back(identity::texts_claim(jwt.claims.licenses, arguments.licenses));
  claims.push_back(identity::number_claim("iat", unix_seconds(issued)));
  claims.push_back(identity::number_claim("exp", unix_seconds(expires)));
  return claims;
}

}  // namespace

int run_token(const TokenArguments& arguments, Console& console) {
  auto lifetime = config::parse_duration(arguments.expires);
  if (!lifetime) {
    print_error(console, fmt::format("--expires: \"{}\" {}", arguments.expires, lifetime.error()));
    return kExitUsage;
  }
  auto loaded = load_config(console, arguments.config_file);
  if (!loaded) return kExitConfig;
  const config::JwtIssuer* jwt = find_issuer(arguments, loaded->settings, console);
  if (jwt == nullptr) return kExitConfig;

  UnixTime issued = console.now, expires = console.now + *lifetime;
  if (arguments.expired) {
    issued = console.now - std::chrono::hours(2);
    expires = console.now - std::chrono::hours(1) - jwt->leeway;
  }
  identity::Mint mint;
  mint.algorithm = identity::parse_algorithm(jwt->algorithms.front()).value_or(identity::Algorithm::hs256);
  mint.key = loaded->file_texts.at(jwt->secret_file);
  mint.claims = claims_of(arguments, *jwt, issued, expires);
  auto token = identity::mint_token(mint);
  if (!token) {
    print_error(console, token.error().message);
    return kExitConfig;
  }
  if (arguments.format == Format::table) {
    console.out << *token << '\n';
    return kExitOk;
  }
  std::string out;
  JsonWriter json(out);
  json.object([&] {
    json.field("token", *token);
    json.field("issuer", jwt->issuer);
    json.field("user", arguments.user);
    json.field("expires_at", unix_seconds(expires));
  });
  console.out << out << '\n';
  return kExitOk;
}

}  // namespace tollgate::cli
