// The users of a Creatio installation and their licences, as OData 4 tells them to a service account: what is
// asked, and how the replies become rows of the directory. net::DirectorySync asks.
//
//   GET {root}/odata/SysAdminUnit?$select=Active,ConnectionType,Id,Name&$expand=Contact($expand=Account($select=Id,Name))
//       &$filter=SysAdminUnitTypeValue%20eq%204&$orderby=Id&$count=true&$top=5000&$skip=0
//   GET {root}/odata/SysLicUser?$select=Active,SysUserId&$expand=SysLicPackage($select=Name)&...
//
//   CreatioUserReader reader(names, "https://crm.example/0", limits);
//   while (!reader.next().empty())
//     if (auto taken = reader.take(body_of(reader.next())); !taken) return taken.error();
//   auto users = reader.finish();
//
// Where the names come from. The vendor's pages (academy.creatio.com: "OData", "Manage user licenses",
// "Portal Creatio overview") describe the protocol, its cap of 20 000 rows a reply, and what the tables mean,
// but list no columns. These are those of entities that installations have generated: SysAdminUnit with Name,
// Active, ConnectionType, ContactId, AccountId, SysAdminUnitTypeValue (4 is a user; 0 to 6 are kinds of
// roles) and SysLicUser with SysUserId, SysLicPackageId, Active (Creatio 7.16 to 8.1); that ConnectionType 1
// is a portal user is in AdministrationServicePortalUsers of Creatio 8.1. Releases differ: every name is a
// setting. A name with slashes is a way through look-ups.
//
// Pages. $count says how many rows there are, and the next page is asked for until they have come, whatever
// the server's own cap; an @odata.nextLink is followed instead, where there is one (of it only the query
// counts: it cannot lead to another host). A page that brings the same bytes again, an address that was asked
// already, or rows that never come are errors, and so is an empty list: an account without the right to read
// sees nothing, which must not lock everybody out.
//
// A row that cannot be read (no name, a flag that is none) is left out and counted. Pure; one reader a sync.
#pragma once
#include <simdjson.h>

#include <expected>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "metering/identity/directory.h"

namespace tollgate::identity {

struct CreatioNames {
  std::string users = "SysAdminUnit", user_filter = "SysAdminUnitTypeValue eq 4";
  std::string user_id = "Id", user_name = "Name", user_active = "Active", user_type = "ConnectionType",
              user_organization = "Contact/Account/Name",  // "": is not asked for
      user_account = "Contact/Account/Id";                 // the same
  std::string licenses = "SysLicUser";                     // "": licences are left to tokens
  std::string license_user = "SysUserId", license_name = "SysLicPackage/Name", license_active = "Active";
  bool operator==(const CreatioNames&) const = default;
};

struct CreatioLimits {
  std::size_t page_rows = 5'000;
  std::size_t rows_max = 500'000;  // users and licences together
  bool operator==(const CreatioLimits&) const = default;
};

// Why nothing came of it. The names of the kinds are labels of a metric.
struct SyncFailure {
  enum class Kind : std::uint8_t { unreachable, log_in, status, reply, too_large, paging, empty };
  static constexpr std::size_t kKinds = 7;
  Kind kind = Kind::reply;
  std::string text;  // one clause for a person, without secrets
};
std::string_view name(SyncFailure::Kind kind);  // "unreachable", "log_in", ...

// What was read, and what not.
struct CreatioUsers {
  Directory::CrmUsers users;
  std::size_t licenses = 0;  // of these users
  std::size_t left_out = 0;  // rows
  std::string why;           // of the first of them; "" when there is none
};

class CreatioUserReader {
 public:
  static constexpr std::size_t kPagesMax = 10'000;
  static constexpr std::size_t kTextMax = 256;  // bytes of a name; rows with longer ones are left out

  // root: the address below which /odata stands, without a slash at its end.
  CreatioUserReader(CreatioNames names, std::string root, CreatioLimits limits = {});

  // The address whose body is to be taken next; "": all has been read.
  const std::string& next() const { return next_; }
  std::expected<void, SyncFailure> take(std::string_view body);
  // Once, when next() is "".
  std::expected<CreatioUsers, SyncFailure> finish();
  // Of the page that was taken last.
  std::size_t page_rows() const { return last_rows_; }
  // Leaves out what is left of the users: for a trial, of which nothing is kept.
  void go_to_licenses() {
    if (part_ == Part::users) begin(Part::licenses);
  }

 private:
  struct User {
    std::string name;
    Directory::Entry entry;
  };
  enum class Part : std::uint8_t { users, licenses, done };

  std::string address(std::size_t skip) const;
  std::expected<void, SyncFailure> go_on(std::size_t rows, std::string_view next_link,
                                         std::optional<std::uint64_t> count);
  // "", or the name of the column that is missing or wrong.
  std::string_view add_user(const simdjson::dom::element& row);
  std::string_view add_license(const simdjson::dom::element& row);
  void leave_out(std::string why);
  void begin(Part part);

  const CreatioNames names_;
  const std::string root_;
  const CreatioLimits limits_;
  Part part_ = Part::users;
  std::string next_;
  std::set<std::string, std::less<>> asked_;  // addresses
  std::size_t part_rows_ = 0, all_rows_ = 0, last_rows_ = 0;
  std::size_t last_body_ = 0;  // hash of it
  std::map<std::string, User> by_id_;
  CreatioUsers out_;
};

// The users as a file keeps them for the next start, with the address that they are from.
std::string write_crm_users(const Directory::CrmUsers& users, std::string_view source);
// nullopt: not written by write_crm_users(), or of another source.
std::optional<Directory::CrmUsers> read_crm_users(std::string_view text, std::string_view source);

}  // namespace tollgate::identity
