#include "metering/identity/claims.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "metering/base/guid.h"
#include "metering/identity/directory.h"
#include "metering/identity/session.h"

namespace tollgate::identity {
namespace {

template <class T>
using Checked = std::expected<T, TokenRefusal>;

std::unexpected<TokenRefusal> invalid(std::string detail) {
  return std::unexpected(TokenRefusal{Reason::token_invalid, std::move(detail)});
}

// Saturates far outside of any real date (about the year 2255), so that leeway can be added without overflow.
std::optional<UnixTime> numeric_date(simdjson::dom::element element) {
  constexpr std::int64_t kBound = 9'000'000'000;
  std::int64_t whole = 0;
  std::uint64_t large = 0;
  double seconds = 0;
  if (element.get(whole) == simdjson::SUCCESS) {
    if (whole >= kBound) return UnixTime::max();
    return from_unix_seconds(std::max(whole, -kBound));
  }
  if (element.get(large) == simdjson::SUCCESS) return UnixTime::max();  // above every int64
  if (!element.is_double() || element.get(seconds) != simdjson::SUCCESS || !std::isfinite(seconds))
    return std::nullopt;
  if (seconds >= static_cast<double>(kBound)) return UnixTime::max();
  double floor = std::floor(std::max(seconds, -static_cast<double>(kBound)));
  auto fraction = static_cast<std::int64_t>((std::max(seconds, -static_cast<double>(kBound)) - floor) * 1e9);
  return from_unix_seconds(static_cast<std::int64_t>(floor)) + Duration(fraction);
}

UnixTime later_by(UnixTime time, Seconds leeway) {
  return time >= UnixTime::max() - leeway ? UnixTime::max() : time + leeway;
}

// C0, DEL, and C1 as UTF-8 (U+0080..U+009F): none of them belongs in a name, all of them fool logs and
// terminals.
bool has_control_character(std::string_view text) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    auto c = static_cast<unsigned char>(text[i]);
    if (c < 0x20 || c == 0x7F) return true;
    if (c == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0) return true;
  }
  return false;
}

// A text or a whole number (many systems number their tenants); absent and null give "".
Checked<std::string> read_name(const JsonMembers& claims, const std::string& claim) {
  auto element = claims.find(claim);
  if (!element || element->is_null()) return std::string();
  std::string_view text;
  std::int64_t whole = 0;
  std::uint64_t large = 0;
  if (element->get(text) == simdjson::SUCCESS) {
    if (has_control_character(text))
      return invalid(fmt::format("The token's {} holds control characters", claim));
    return std::string(text);
  }
  if (element->get(whole) == simdjson::SUCCESS) return std::to_string(whole);
  if (element->get(large) == simdjson::SUCCESS) return std::to_string(large);
  return invalid(fmt::format("The token's {} is neither a text nor a whole number", claim));
}

Checked<std::vector<std::string>> read_licenses(const JsonMembers& claims, const std::string& claim) {
  std::vector<std::string> out;
  auto element = claims.find(claim);
  if (!element || element->is_null()) return out;
  auto take = [&](simdjson::dom::element item) {
    std::string_view text;
    if (item.get(text) != simdjson::SUCCESS || has_control_character(text)) return false;
    if (!text.empty() && std::find(out.begin(), out.end(), text) == out.end()) out.emplace_back(text);
    return true;
  };
  simdjson::dom::array list;
  bool well_formed = true;
  if (element->get(list) == simdjson::SUCCESS) {
    for (simdjson::dom::element item : list) well_formed = well_formed && take(item);
  } else {
    well_formed = take(*element);
  }
  if (!well_formed)
    return invalid(fmt::format("The token's {} is neither a text nor a list of texts", claim));
  return out;
}

}  // namespace

Checked<UnixTime> check_expiry(const JsonMembers& claims, const IssuerRules& rules, UnixTime now) {
  UnixTime expires = UnixTime::max();
  if (auto element = claims.find("exp")) {
    auto time = numeric_date(*element);
    if (!time) return invalid("The token's exp is not a number of seconds");
    expires = later_by(*time, rules.leeway);
  } else if (rules.require_expiry) {
    return invalid("The token has no end of validity (exp)");
  }
  if (now >= expires)
    return std::unexpected(
        TokenRefusal{Reason::token_expired, "The access token has expired; get a new one"});
  return expires;
}

Checked<void> check_times(const JsonMembers& claims, const IssuerRules& rules, UnixTime now,
                          VerifiedToken& out) {
  out.not_before = UnixTime::min();
  for (std::string_view name : {"nbf", "iat"}) {
    auto element = claims.find(name);
    if (!element) continue;
    auto time = numeric_date(*element);
    if (!time) return invalid(fmt::format("The token's {} is not a number of seconds", name));
    out.not_before = std::max(out.not_before, *time - rules.leeway);
  }
  auto expires = check_expiry(claims, rules, now);
  if (!expires) return std::unexpected(expires.error());
  out.expires_at = *expires;
  if (now < out.not_before)
    return invalid("The access token is not valid yet (nbf, iat): check the clocks of issuer and proxy");
  return {};
}

Checked<void> check_audience(const JsonMembers& claims, const IssuerRules& rules) {
  std::vector<std::string_view> named;
  if (auto aud = claims.find("aud")) {
    std::string_view text;
    simdjson::dom::array list;
    if (aud->get(text) == simdjson::SUCCESS) {
      named.push_back(text);
    } else if (aud->get(list) == simdjson::SUCCESS) {
      for (simdjson::dom::element element : list) {
        if (element.get(text) != simdjson::SUCCESS) return invalid("The token's aud is not a list of texts");
        named.push_back(text);
      }
    } else {
      return invalid("The token's aud is neither a text nor a list of texts");
    }
  }
  if (rules.audience.empty()) return {};
  for (std::string_view text : named)
    if (std::find(rules.audience.begin(), rules.audience.end(), text) != rules.audience.end()) return {};
  return invalid("The access token was issued for another audience (aud)");
}

Checked<Principal> read_principal(const JsonMembers& claims, const IssuerRules& rules) {
  Principal out;
  auto user = claims.text(rules.user_claim);
  if (!user || user->empty()) return invalid(fmt::format("The token names no user ({})", rules.user_claim));
  if (has_control_character(*user))
    return invalid(fmt::format("The token's {} holds control characters", rules.user_claim));
  out.user = *user;
  auto tenant = read_name(claims, rules.tenant_claim);
  if (!tenant) return std::unexpected(tenant.error());
  out.tenant = *std::move(tenant);
  auto organization = read_name(claims, rules.organization_claim);
  if (!organization) return std::unexpected(organization.error());
  out.organization = *std::move(organization);
  if (auto type = claims.find(rules.user_type_claim); type && !type->is_null()) {
    std::string_view text;
    if (type->get(text) != simdjson::SUCCESS)
      return invalid(fmt::format("The token's {} is not a text", rules.user_type_claim));
    out.user_type = parse_user_type(text);
  }
  auto licenses = read_licenses(claims, rules.licenses_claim);
  if (!licenses) return std::unexpected(licenses.error());
  out.licenses = *std::move(licenses);
  auto site = read_name(claims, rules.site_claim), customer = read_name(claims, rules.customer_claim);
  if (!site) return std::unexpected(site.error());
  if (!customer) return std::unexpected(customer.error());
  if (!site->empty()) out.site = session_user(*site).value_or("");
  out.customer = *std::move(customer);
  out.account = read_guid(claims.text(rules.account_claim).value_or("")).value_or("");
  for (auto [claim, flag] : {std::pair(&rules.security_right_claim, &out.security_right),
                             std::pair(&rules.consume_license_claim, &out.consume_license)}) {
    auto said = claims.find(*claim);
    if (!said || said->is_null()) continue;
    bool value = false;
    std::string_view text;
    if (said->get(value) == simdjson::SUCCESS)
      *flag = value;
    else if (said->get(text) == simdjson::SUCCESS)
      *flag = parse_flag(text);
    if (!*flag) return invalid(fmt::format("The token's {} is neither true nor false", *claim));
  }
  return out;
}

}  // namespace tollgate::identity
