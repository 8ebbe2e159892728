// Users as the operator lists them (licensing.directory_file): who belongs to which organization, holds which
// licences and is portal user or staff. For identity providers that do not put this into the token. The
// directory wins over the token's claims, cell by cell: an empty cell says nothing.
//
//   user,organization,license,user_type
//   ann@example.com,Acme,Creatio customer portal,portal
//   ann@example.com,Acme,Creatio self-service portal,
//   bob@example.com,,,staff
//
// CSV as in RFC 4180: comma, double quotes, line breaks inside quotes; CRLF or LF; a UTF-8 byte order mark is
// skipped. The first row names the columns, in any order and case; only `user` is required. `certificate` is a name in
// a client's certificate, or a SHA-256 fingerprint (with or without colons), that is this user's (client_certificate.h);
// one of two users is an error. For Cherwell there are three more: customer (the user's own record, as requester fields
// hold it), security_right and consume_license (yes, no). Others are errors. Several rows for one user add licences;
// rows that contradict each other about anything else are errors. Immutable after parse; any thread may read.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "metering/base/error.h"
#include "metering/identity/principal.h"

namespace tollgate::identity {

class Directory {
 public:
  struct Entry {
    std::string organization;  // "" when the file does not say
    UserType user_type = UserType::unknown;
    std::vector<std::string> licenses;  // without repeats, in file order
    std::string customer;               // Principal::customer
    std::optional<bool> security_right, consume_license;
  };

  // Errors name the line (of the start of the row), e.g. "line 7: user_type \"boss\" is neither portal nor
  // staff".
  static Result<Directory> parse(std::string_view csv);

  // nullptr when the user is not listed. Names compare byte by byte. O(1).
  const Entry* find(std::string_view user) const;
  std::size_t size() const { return entries_.size(); }
  // The user of that certificate: its name as it stands there, or its fingerprint in lower case without colons. O(1).
  const std::string* find_certificate(std::string_view name) const;

  // The principal with what the directory knows put over what the token said: licences always (a listed user
  // without one has none), organization and user type where the file names them. A user that is not listed
  // stays as he is.
  Principal apply(Principal principal) const;
  // The same for a user as identity::session_user() names him: listed in another case he gets the directory's spelling,
  // so that he is one user however he logs in. Who is listed in several spellings is none of them.
  Principal apply_folded(Principal principal) const;

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  std::unordered_map<std::string, Entry, Hash, std::equal_to<>> entries_;
  std::unordered_map<std::string, std::string, Hash, std::equal_to<>>
      spellings_;  // folded -> listed; "": several
  std::unordered_map<std::string, std::string, Hash, std::equal_to<>> certificates_;  // -> user
};

// "portal" and "staff", and as the Creatio login reply names them "SSP" and "General"; in any case. Else
// unknown.
UserType parse_user_type(std::string_view text);
// "yes", "true", "no" and "false" in any case. Else nullopt.
std::optional<bool> parse_flag(std::string_view text);

}  // namespace tollgate::identity
