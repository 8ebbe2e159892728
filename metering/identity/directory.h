// Users as the operator lists them (licensing.directory_file) and as the CRM does (identity.directory.sync):
// who belongs to which organization, holds which licences and is portal user or staff. For identity providers
// that do not put this into the token. The directory wins over the token's claims, and in it the operator's
// file over the CRM, cell by cell: an empty cell says nothing.
//
//   user,organization,license,user_type,active
//   ann@example.com,Acme,Creatio customer portal,portal,
//   ann@example.com,Acme,Creatio self-service portal,,
//   bob@example.com,,,staff,
//   eve@example.com,,,,no
//
// A user who is not active is nobody, whatever proves who he is. Users of the CRM are known by their log-in
// names without case, as the CRM itself takes them (session_user()); the operator's spelling, where he lists
// one, is the user's name.
//
// CSV as in RFC 4180: comma, double quotes, line breaks inside quotes; CRLF or LF; a UTF-8 byte order mark is
// skipped. The first row names the columns, in any order and case; only `user` is required. `active` is yes
// or no, and yes where nothing says otherwise. `certificate` is a name in a client's certificate, or a
// SHA-256 fingerprint (with or without colons), that is this user's (client_certificate.h); one of two users
// is an error. For Creatio there is account (the GUID of the Account that the user's organization is), for
// Cherwell customer (the user's own record, as requester fields hold it), security_right and consume_license
// (yes, no). Others are errors. Several rows for one user add licences; rows that contradict each other about
// anything else are errors. Immutable after parse; any thread may read.
#pragma once
#include <map>
#include <memory>
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
    std::string organization;  // "" when it is not said
    UserType user_type = UserType::unknown;
    std::vector<std::string> licenses;  // without repeats, in the order in which they were listed
    bool says_licenses = true;          // false: whatever licences the token names are the user's
    std::string customer;               // Principal::customer
    std::string account;                // Principal::account
    std::optional<bool> security_right, consume_license, active;
    bool operator==(const Entry&) const = default;
  };
  // What the CRM says of its users, by session_user() of their names.
  using CrmUsers = std::map<std::string, Entry, std::less<>>;

  // Errors name the line (of the start of the row), e.g. "line 7: user_type \"boss\" is neither portal nor
  // staff".
  static Result<Directory> parse(std::string_view csv);
  // The same users, completed by what the CRM says of them, and those of the CRM alone. crm: not nullptr.
  static Directory combine(const Directory& file, std::shared_ptr<const CrmUsers> crm);

  // What counts of a user; nullptr when he is listed nowhere. Names of the file compare byte by byte, those
  // of the CRM without case. O(log n).
  const Entry* find(std::string_view user) const;
  // What file and CRM say each; nullptr: nothing.
  const Entry* in_file(std::string_view user) const;
  const Entry* in_crm(std::string_view user) const;
  std::size_t size() const { return entries_.size(); }                       // of the file
  const std::shared_ptr<const CrmUsers>& crm_users() const { return crm_; }  // nullptr: the CRM was not asked
  // The user of that certificate: its name as it stands there, or its fingerprint in lower case without
  // colons. O(1).
  const std::string* find_certificate(std::string_view name) const;

  // The principal with what the directory knows put over what the token said: licences always (a listed user
  // without one has none), organization and user type where they are said, Principal::active. A user that is
  // not listed stays as he is.
  Principal apply(Principal principal) const;
  // The same for a user as identity::session_user() names him: listed in another case he gets the directory's
  // spelling, so that he is one user however he logs in. Who is listed in several spellings is none of them.
  Principal apply_folded(Principal principal) const;

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  using Entries = std::unordered_map<std::string, Entry, Hash, std::equal_to<>>;
  Entries entries_;    // of the file, completed by combine()
  Entries as_listed_;  // of the file alone, when combine() has completed them
  std::shared_ptr<const CrmUsers> crm_;
  std::unordered_map<std::string, std::string, Hash, std::equal_to<>>
      spellings_;  // folded -> listed; "": several
  std::unordered_map<std::string, std::string, Hash, std::equal_to<>> certificates_;  // -> user
};

// Why somebody whom the directory has as not active is refused.
TokenRefusal inactive_user();

// "portal" and "staff", and as the Creatio login reply names them "SSP" and "General"; in any case. Else
// unknown.
UserType parse_user_type(std::string_view text);
// "yes", "true", "no" and "false" in any case. Else nullopt.
std::optional<bool> parse_flag(std::string_view text);

}  // namespace tollgate::identity
