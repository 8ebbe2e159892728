#include "metering/identity/token_verifier.h"

#include <fmt/format.h>

#include <algorithm>

#include "metering/base/ascii.h"
#include "metering/base/base64.h"
#include "metering/base/check.h"
#include "metering/identity/claims.h"
#include "metering/identity/key_material.h"
#include "metering/identity/session.h"

namespace tollgate::identity {
namespace {

template <class T>
using Checked = std::expected<T, TokenRefusal>;

std::unexpected<TokenRefusal> invalid(std::string detail) {
  return std::unexpected(TokenRefusal{Reason::token_invalid, std::move(detail)});
}

struct Parts {
  std::string_view signing_input;
  std::string header, payload, signature;  // decoded
};

Checked<Parts> split(std::string_view token) {
  std::size_t dots = static_cast<std::size_t>(std::count(token.begin(), token.end(), '.'));
  if (dots == 4) return invalid("The access token is encrypted (JWE); only signed tokens are accepted");
  if (dots != 2) return invalid("The access token is not a JSON Web Token: it must have three parts");
  std::size_t first = token.find('.'), second = token.rfind('.');
  auto header = base64url_decode(token.substr(0, first));
  auto payload = base64url_decode(token.substr(first + 1, second - first - 1));
  auto signature = base64url_decode(token.substr(second + 1));
  if (!header || !payload || !signature)
    return invalid("The access token is not base64url (RFC 7515 section 2: no padding, no white space)");
  if (signature->empty()) return invalid("The access token is not signed");
  return Parts{token.substr(0, second), *std::move(header), *std::move(payload), *std::move(signature)};
}

// `what`: "header" or "claims set", for the detail.
Checked<JsonMembers> read_object(simdjson::dom::parser& parser, const std::string& text,
                                 std::string_view what) {
  simdjson::dom::object object;
  if (parser.parse(text).get(object) != simdjson::SUCCESS)
    return invalid(fmt::format("The token's {} is not a JSON object", what));
  auto members = JsonMembers::of(object);
  if (!members) return invalid(fmt::format("The token's {} holds a member twice", what));
  return *std::move(members);
}

// "at+jwt" and "application/at+jwt" are the same (RFC 7515 section 4.1.9); media types ignore case.
bool is_media_type(std::string_view text, std::string_view type) {
  constexpr std::string_view kPrefix = "application/";
  if (starts_with_ignore_case(text, kPrefix)) text.remove_prefix(kPrefix.size());
  return equals_ignore_case(text, type);
}

struct Header {
  Algorithm algorithm = Algorithm::kCount;
  std::optional<std::string> kid;
};

Checked<Header> read_header(const JsonMembers& members) {
  // Any `crit` at all: no extension is understood here, and an empty list is forbidden (RFC 7515
  // section 4.1.11).
  if (members.has("crit"))
    return invalid("The token's header demands extensions (crit) that are not supported");
  if (auto b64 = members.find("b64")) {
    bool encoded = false;
    if (b64->get(encoded) != simdjson::SUCCESS || !encoded)
      return invalid("Tokens with an unencoded payload (b64: false) are not accepted");
  }
  if (members.has("typ")) {
    auto typ = members.text("typ");
    if (!typ || (!is_media_type(*typ, "JWT") && !is_media_type(*typ, "at+jwt")))
      return invalid("The token's type (typ) is not that of an access token: JWT or at+jwt");
  }
  if (members.has("cty")) {
    auto cty = members.text("cty");
    if (!cty || is_media_type(*cty, "JWT")) return invalid("Nested tokens (cty: JWT) are not accepted");
  }
  auto alg = members.text("alg");
  auto algorithm = alg ? parse_algorithm(*alg) : std::nullopt;
  if (!algorithm) return invalid("The token's algorithm (alg) is not accepted");
  Header out{*algorithm, std::nullopt};
  if (members.has("kid")) {
    auto kid = members.text("kid");
    if (!kid) return invalid("The token's key id (kid) is not a text");
    out.kid = std::string(*kid);
  }
  return out;
}

Checked<void> check_signature(const IssuerRules& rules, std::uint32_t permitted, const Header& header,
                              const Parts& parts) {
  if ((permitted & bit(header.algorithm)) == 0)
    return invalid("The token's algorithm (alg) is not accepted from this issuer");
  std::shared_ptr<const KeySet> keys = rules.keys->load();
  if (!keys) {
    rules.keys->request_refresh();
    return invalid("The keys of the token's issuer are not available yet; try again shortly");
  }
  bool exact = false, named = false, tried = false;
  for (const Key& key : keys->keys()) {
    if (header.kid && !key.kid().empty() && key.kid() != *header.kid) continue;
    named = true;
    exact = exact || (header.kid && key.kid() == *header.kid);
    if (!key.fits(header.algorithm)) continue;
    tried = true;
    if (key.verify(header.algorithm, parts.signing_input, parts.signature)) return {};
  }
  // The issuer may have changed its keys since the set was fetched. With the very key at hand a bad signature
  // is bad.
  if (!exact) rules.keys->request_refresh();
  if (!named) return invalid("The token's key (kid) is not in the issuer's key set");
  if (!tried) return invalid("The token's algorithm (alg) does not fit the issuer's key");
  return invalid("The token's signature does not match");
}

}  // namespace

TokenVerifier::TokenVerifier(std::vector<IssuerRules> issuers, std::size_t max_token_bytes)
    : issuers_(std::move(issuers)), max_token_bytes_(max_token_bytes) {
  permitted_.reserve(issuers_.size());
  for (const IssuerRules& rules : issuers_) {
    CHECK(rules.keys != nullptr, "an issuer without a key ring");
    std::uint32_t bits = 0;
    for (const std::string& listed : rules.algorithms)
      if (auto algorithm = parse_algorithm(listed)) bits |= bit(*algorithm);
    permitted_.push_back(bits);
  }
}

std::uint64_t TokenVerifier::keys_version() const {
  std::uint64_t sum = 0;  // each part only grows, so the sum changes whenever a part does
  for (const IssuerRules& rules : issuers_) sum += rules.keys->version();
  return sum;
}

std::expected<std::shared_ptr<const VerifiedToken>, TokenRefusal> TokenVerifier::verify(
    std::string_view token, UnixTime now) const {
  if (token.empty()) return std::unexpected(TokenRefusal{Reason::token_missing, "No access token was sent"});
  if (token.size() > max_token_bytes_)
    return invalid(fmt::format("The access token is longer than {} bytes", max_token_bytes_));
  auto parts = split(token);
  if (!parts) return std::unexpected(parts.error());
  simdjson::dom::parser header_parser, claims_parser;
  auto header_members = read_object(header_parser, parts->header, "header");
  if (!header_members) return std::unexpected(header_members.error());
  auto header = read_header(*header_members);
  if (!header) return std::unexpected(header.error());
  auto claims = read_object(claims_parser, parts->payload, "claims set");
  if (!claims) return std::unexpected(claims.error());

  auto issuer = claims->text("iss");
  if (!issuer && claims->has("iss")) return invalid("The token's issuer (iss) is not a text");
  bool known = issuer && !issuer->empty() &&
               std::any_of(issuers_.begin(), issuers_.end(),
                           [&](const auto& rules) { return rules.issuer == *issuer; });

  // Of several refusals the one that came furthest tells most: a good signature with a wrong audience says
  // more than the other key that did not match.
  TokenRefusal furthest{Reason::token_invalid, "The token's issuer (iss) is not accepted here"};
  int furthest_step = 0;
  auto refuse = [&](int step, TokenRefusal refusal) {
    if (step <= furthest_step) return;
    furthest_step = step;
    furthest = std::move(refusal);
  };
  for (std::size_t i = 0; i < issuers_.size(); ++i) {
    const IssuerRules& rules = issuers_[i];
    if (known ? rules.issuer != *issuer : !rules.issuer.empty()) continue;
    if (auto good = check_signature(rules, permitted_[i], *header, *parts); !good) {
      refuse(1, std::move(good.error()));
      continue;
    }
    auto verified = std::make_shared<VerifiedToken>();
    if (auto good = check_audience(*claims, rules); !good) {
      refuse(2, std::move(good.error()));
      continue;
    }
    if (auto good = check_times(*claims, rules, now, *verified); !good) {
      refuse(3, std::move(good.error()));
      continue;
    }
    auto principal = read_principal(*claims, rules);
    if (!principal) {
      refuse(4, std::move(principal.error()));
      continue;
    }
    verified->principal = *std::move(principal);
    return verified;
  }
  return std::unexpected(std::move(furthest));
}

}  // namespace tollgate::identity
