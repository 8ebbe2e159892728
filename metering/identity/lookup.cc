#include "metering/identity/lookup.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>

#include "metering/base/ascii.h"
#include "metering/base/base64.h"
#include "metering/base/percent.h"
#include "metering/identity/claims.h"

namespace tollgate::identity {
namespace {

LookupVerdict nobody(const LookupSource& source, TokenRefusal refusal, UnixTime now) {
  return {.user = nullptr, .refusal = std::move(refusal), .until = now + source.negative_age};
}

std::unexpected<Error> unsettled(const LookupSource& source, std::string_view why) {
  return fail(Origin::upstream, fmt::format("{}: {}: {}", source.name, source.url, why), true);
}

}  // namespace

std::string lookup_identity(const LookupSource& source) {
  const IssuerRules& rules = source.rules;
  std::string out;
  const auto add = [&](std::string_view part) { out.append(part).push_back('\0'); };
  for (std::string_view part :
       {std::string_view(source.url), std::string_view(source.ca_file), std::string_view(source.field),
        std::string_view(source.prefix), std::string_view(source.more_form), std::string_view(source.at),
        std::string_view(rules.user_claim), std::string_view(rules.tenant_claim),
        std::string_view(rules.organization_claim), std::string_view(rules.user_type_claim),
        std::string_view(rules.licenses_claim), std::string_view(rules.account_claim)})
    add(part);
  for (const auto* list : {&source.headers, &rules.audience}) {
    for (const std::string& part : *list) add(part);
    add("");
  }
  add(fmt::format("{} {} {} {} {} {} {}", static_cast<int>(source.place), source.active,
                  source.unauthorized_is_nobody, rules.leeway.count(), rules.require_expiry,
                  source.max_age.count(), source.negative_age.count()));
  return out;
}

std::string basic_of_client(std::string_view id, std::string_view secret) {
  std::string pair;
  append_percent_encoded(pair, id);
  pair.push_back(':');
  append_percent_encoded(pair, secret);
  return "Authorization: Basic " + base64_encode(pair);
}

Result<LookupRequest> lookup_request(const LookupSource& source, std::string_view credential) {
  LookupRequest out{.post = source.place == LookupSource::Place::form, .body = {}, .headers = source.headers};
  out.headers.emplace_back("Accept: application/json");
  if (out.post) {
    append_form(out.body, source.field, credential);
    if (!source.more_form.empty()) out.body.append("&").append(source.more_form);
    out.headers.emplace_back("Content-Type: application/x-www-form-urlencoded");
    return out;
  }
  if (std::any_of(credential.begin(), credential.end(),
                  [](char c) { return (c >= 0 && c < ' ') || c == 127; }))
    return fail(Origin::client, "a credential with control characters");
  out.headers.push_back(fmt::format("{}: {}{}", source.field, source.prefix, credential));
  return out;
}

Result<LookupVerdict> read_lookup(const LookupSource& source, int status, std::string_view body,
                                  UnixTime now) {
  if (status == 401 && source.unauthorized_is_nobody)
    return nobody(source, {Reason::token_invalid, source.refusal}, now);
  if (status != 200) return unsettled(source, fmt::format("answered {} instead of 200", status));
  if (body.empty()) return unsettled(source, "the reply is empty");
  simdjson::dom::parser parser;
  simdjson::dom::element document;
  if (parser.parse(body.data(), body.size()).get(document) != simdjson::SUCCESS)
    return unsettled(source, "the reply is not JSON");
  simdjson::dom::object object;
  if (document.at_pointer(source.at).get(object) != simdjson::SUCCESS)
    return unsettled(source, fmt::format("the reply has no object at \"{}\"", source.at));
  auto claims = JsonMembers::of(object);
  if (!claims) return unsettled(source, "the reply holds a member twice");
  if (source.active) {
    bool active = false;
    const auto member = claims->find("active");
    if (!member || member->get(active) != simdjson::SUCCESS)
      return unsettled(source, "the reply does not say whether the token is active (RFC 7662 section 2.2)");
    if (!active) return nobody(source, {Reason::token_invalid, source.refusal}, now);
  }
  if (auto good = check_audience(*claims, source.rules); !good)
    return nobody(source, std::move(good.error()), now);
  // Whether it is valid by now is what was asked; nbf and iat, which clocks could make a difference of, are not looked at.
  const auto expires = check_expiry(*claims, source.rules, now);
  if (!expires) return nobody(source, expires.error(), now);
  auto user = std::make_shared<VerifiedToken>();
  user->not_before = UnixTime::min();
  auto principal = read_principal(*claims, source.rules);
  if (!principal) return nobody(source, std::move(principal.error()), now);
  user->principal = *std::move(principal);
  user->expires_at = std::min(*expires, now + source.max_age);
  const UnixTime until = user->expires_at;
  return LookupVerdict{.user = std::move(user), .refusal = {}, .until = until};
}

}  // namespace tollgate::identity
