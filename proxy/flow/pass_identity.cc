#include "proxy/flow/pass_identity.h"

#include "metering/base/check.h"
#include "metering/identity/mint.h"

namespace tollgate::flow {
namespace {

std::string_view type_name(identity::UserType type) {
  switch (type) {
    case identity::UserType::portal:
      return "portal";
    case identity::UserType::staff:
      return "staff";
    case identity::UserType::unknown:
      break;
  }
  return "";
}

// Field values are read as ASCII, Latin-1 or UTF-8, as one likes (RFC 9110 section 5.5): what is written here has one
// reading.
void append_line(std::string& lines, std::string_view name, std::string_view value) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  if (value.empty()) return;
  lines.append(name).append(": ");
  for (std::size_t i = 0; i < value.size(); ++i) {
    const auto byte = static_cast<unsigned char>(value[i]);
    const bool outer = i == 0 || i + 1 == value.size();  // a blank there would be taken for none
    if (byte > 0x20 && byte < 0x7F && byte != '%')
      lines.push_back(value[i]);
    else if (byte == ' ' && !outer)
      lines.push_back(' ');
    else
      lines.append({'%', kHex[byte >> 4], kHex[byte & 15]});
  }
  lines.append("\r\n");
}

}  // namespace

void append_identity(std::string& lines, const Snapshot& snapshot, const identity::Principal& principal,
                     std::string_view upstream, UnixTime now) {
  const config::IdentityPass& pass = snapshot.settings.identity.pass;
  const std::string_view type = type_name(principal.user_type);
  if (pass.as == config::PassIdentity::plain) {
    append_line(lines, pass.user_field, principal.user);
    append_line(lines, pass.tenant_field, principal.tenant);
    append_line(lines, pass.organization_field, principal.organization);
    append_line(lines, pass.user_type_field, type);
  } else if (pass.as == config::PassIdentity::token) {
    identity::Mint mint;
    mint.key = snapshot.pass_secret;
    mint.claims = {identity::text_claim("iss", "tollgate"), identity::text_claim("aud", upstream),
                   identity::text_claim("sub", principal.user)};
    for (const auto& [name, value] :
         {std::pair<std::string_view, std::string_view>{"tenant", principal.tenant},
          {"org", principal.organization},
          {"user_type", type}})
      if (!value.empty()) mint.claims.push_back(identity::text_claim(name, value));
    mint.claims.push_back(identity::number_claim("iat", unix_seconds(now)));
    mint.claims.push_back(identity::number_claim("exp", unix_seconds(now + pass.lifetime)));
    const auto token = identity::mint_token(mint);
    CHECK(token.has_value(), "the secret was checked when the configuration was read");
    append_line(lines, pass.token_field, *token);
  }
}

}  // namespace tollgate::flow
