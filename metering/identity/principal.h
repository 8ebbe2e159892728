// Who is calling: what a verified token says about its bearer.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "metering/base/reason.h"
#include "metering/base/time.h"

namespace tollgate::identity {

// `portal` users are bound by portal licences and quotas; `staff` is proxied without them. A user whose token does
// not say is treated as a portal user (the strict reading).
enum class UserType : std::uint8_t { unknown, portal, staff };

struct Principal {
  std::string user;          // never empty once verified
  std::string tenant;        // "" when the token names none
  std::string organization;  // "" when the token names none
  std::string
      site{};  // the CRM's portal that the user logged in to (Cherwell), folded; "" when none is known
  UserType user_type = UserType::unknown;
  std::vector<std::string>
      licenses;  // licence names as the CRM spells them, from the token or the directory file
  std::string
      customer{};  // Cherwell: the user's own record, as requester fields hold it; "" when it is not said
  // Creatio: id of the Account that the user's organization is, as read_guid() spells it; "" when it is not said.
  std::string account{};
  std::optional<bool> security_right{};   // Cherwell: may see records of others; nullopt: not said
  std::optional<bool> consume_license{};  // Cherwell: may take a concurrent licence; nullopt: not said
  bool active = true;                     // false: the directory says that he may not call at all

  bool is_staff() const { return user_type == UserType::staff; }
};

struct VerifiedToken {
  Principal principal;
  UnixTime not_before;  // earliest moment of use, leeway included
  UnixTime
      expires_at;  // first moment at which it is expired, leeway included; UnixTime::max() when the token has no exp
};

// Why a token was turned away. `detail` is a sentence for the caller: it never quotes the token.
struct TokenRefusal {
  Reason reason = Reason::token_invalid;  // token_missing, token_invalid or token_expired
  std::string detail;
};

}  // namespace tollgate::identity
