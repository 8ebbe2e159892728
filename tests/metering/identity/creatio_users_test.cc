#include "metering/identity/creatio_users.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fmt/format.h>

namespace tollgate::identity {
namespace {

using Kind = SyncFailure::Kind;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::string kRoot = "https://crm.example/0";

std::string page(const std::string& rows, const std::string& more = "") {
  return R"({"@odata.context":"$metadata#X")" + more + R"(,"value":[)" + rows + "]}";
}
std::string user(const std::string& id, const std::string& name, const std::string& more = "") {
  return fmt::format(R"({{"Id":"{}","Name":"{}","Active":true,"ConnectionType":1{}}})", id, name, more);
}
std::string license(const std::string& user_id, const std::string& name, const std::string& active = "true") {
  return fmt::format(R"({{"SysUserId":"{}","Active":{},"SysLicPackage":{{"Name":"{}"}}}})", user_id, active,
                     name);
}

// What comes of these replies, one after the other.
std::expected<CreatioUsers, SyncFailure> read(const std::vector<std::string>& bodies, CreatioNames names = {},
                                              CreatioLimits limits = {}) {
  CreatioUserReader reader(std::move(names), kRoot, limits);
  for (const std::string& body : bodies) {
    EXPECT_NE(reader.next(), "") << body;
    if (auto taken = reader.take(body); !taken) return std::unexpected(taken.error());
  }
  EXPECT_EQ(reader.next(), "");
  return reader.finish();
}
Kind kind_of(const std::expected<CreatioUsers, SyncFailure>& outcome) {
  EXPECT_FALSE(outcome.has_value());
  return outcome ? Kind::unreachable : outcome.error().kind;
}

TEST(CreatioUsers, AddressesNameWhatIsNeededAndNothingElse) {
  CreatioUserReader reader({}, kRoot);
  EXPECT_EQ(reader.next(),
            "https://crm.example/0/odata/SysAdminUnit?$select=Active,ConnectionType,Id,Name"
            "&$expand=Contact($expand=Account($select=Id,Name))&$filter=SysAdminUnitTypeValue%20eq%204"
            "&$orderby=Id&$count=true&$top=5000&$skip=0");
  ASSERT_TRUE(reader.take(page(user("1", "ann"))));
  EXPECT_EQ(
      reader.next(),
      "https://crm.example/0/odata/SysLicUser?$select=Active,SysUserId&$expand=SysLicPackage($select=Name)"
      "&$orderby=Id&$count=true&$top=5000&$skip=0");
  CreatioUserReader other({.users = "VwSystemUsers",
                           .user_filter = "",
                           .user_name = "Contact/Email",
                           .user_organization = "Contact/Account/Name",
                           .user_account = ""},
                          kRoot, {.page_rows = 7});
  EXPECT_EQ(
      other.next(),
      "https://crm.example/0/odata/VwSystemUsers?$select=Active,ConnectionType,Id"
      "&$expand=Contact($select=Email;$expand=Account($select=Name))&$orderby=Id&$count=true&$top=7&$skip=0");
}

TEST(CreatioUsers, RowsBecomeEntries) {
  auto got = read(
      {page(user("1", "Ann",
                 R"(,"Contact":{"Account":{"Id":"25D7C1AB-1DE0-4501-B402-02E0E5A72D6E","Name":" Acme "}})") +
            "," + R"({"Id":"2","Name":"BOB","Active":false,"ConnectionType":0,"Contact":null},)" +
            R"({"Id":"3","Name":"eve","Active":true,"ConnectionType":7,"Contact":{"Account":null}})"),
       page(license("1", "customer portal") + "," + license("1", "self-service portal") + "," +
            license("1", "customer portal") + "," + license("2", "sales", "false") + "," +
            license("9", "of nobody"))});
  ASSERT_TRUE(got) << got.error().text;
  ASSERT_EQ(got->users.size(), 3U);
  EXPECT_EQ(got->licenses, 2U);
  EXPECT_EQ(got->left_out, 0U);
  const auto& ann = got->users.at("ann");
  EXPECT_EQ(ann.organization, "Acme");
  EXPECT_EQ(ann.account, "25d7c1ab-1de0-4501-b402-02e0e5a72d6e");
  EXPECT_EQ(ann.user_type, UserType::portal);
  EXPECT_EQ(ann.active, true);
  EXPECT_THAT(ann.licenses, ElementsAre("customer portal", "self-service portal"));
  const auto& bob = got->users.at("bob");
  EXPECT_EQ(bob.user_type, UserType::staff);
  EXPECT_EQ(bob.active, false);
  EXPECT_EQ(bob.organization, "");
  EXPECT_EQ(bob.account, "");
  EXPECT_THAT(bob.licenses, IsEmpty());
  EXPECT_EQ(got->users.at("eve").user_type, UserType::unknown);
}

TEST(CreatioUsers, MalformedRowsAreLeftOutAndCounted) {
  const std::string long_name(300, 'x');
  auto got = read({page(user("1", "ann") + R"(,{"Id":"2","Active":true},{"Id":"3","Name":"x","Active":1},)" +
                        R"({"Name":"y","Active":true},7,null,[],{"Id":"4","Name":" ","Active":true},)" +
                        user("5", long_name) + "," + user("6", "a\\u0000b")),
                   page(license("1", "portal") + R"(,{"SysUserId":"1","Active":true},"x")")});
  ASSERT_TRUE(got) << got.error().text;
  EXPECT_EQ(got->users.size(), 1U);
  EXPECT_EQ(got->left_out, 11U);
  EXPECT_THAT(got->why, HasSubstr("SysAdminUnit: Name"));
}

TEST(CreatioUsers, TwoUsersOfOneNameAreNeither) {
  auto got = read({page(user("1", "Ann") + "," + user("2", "ANN ") + "," + user("3", "bob")),
                   page(license("1", "p") + "," + license("3", "p"))});
  ASSERT_TRUE(got);
  EXPECT_EQ(got->users.size(), 1U);
  EXPECT_EQ(got->left_out, 1U);
  EXPECT_TRUE(got->users.contains("bob"));
}

TEST(CreatioUsers, PagesAreReadUntilTheCountIsThere) {
  auto got =
      read({page(user("1", "a") + "," + user("2", "b"), R"(,"@odata.count":3)"),
            page(user("3", "c"), R"(,"@odata.count":3)"), page(license("3", "p"), R"(,"@odata.count":1)")});
  ASSERT_TRUE(got);
  EXPECT_EQ(got->users.size(), 3U);
  CreatioUserReader reader({}, kRoot);
  ASSERT_TRUE(reader.take(page(user("1", "a") + "," + user("2", "b"), R"(,"@odata.count":3)")));
  EXPECT_THAT(reader.next(), HasSubstr("&$skip=2"));
}

TEST(CreatioUsers, WithoutACountAFullPageIsFollowedByAnother) {
  auto got = read({page(user("1", "a") + "," + user("2", "b")), page(""), page(license("2", "p"))}, {},
                  {.page_rows = 2});
  ASSERT_TRUE(got);
  EXPECT_EQ(got->users.size(), 2U);
}

TEST(CreatioUsers, OfANextLinkOnlyTheQueryCounts) {
  CreatioUserReader reader({}, kRoot);
  ASSERT_TRUE(reader.take(
      page(user("1", "a"), R"(,"@odata.nextLink":"http://evil.example/x?$skiptoken=1&$count=true")")));
  EXPECT_EQ(reader.next(), "https://crm.example/0/odata/SysAdminUnit?$skiptoken=1&$count=true");
  for (const char* link : {"nowhere", "x?a b", "x?a\\r\\nHost: y"}) {
    CreatioUserReader other({}, kRoot);
    const auto taken = other.take(page(user("1", "a"), fmt::format(R"(,"@odata.nextLink":"{}")", link)));
    ASSERT_FALSE(taken) << link;
    EXPECT_EQ(taken.error().kind, Kind::paging);
  }
}

TEST(CreatioUsers, PagesWithoutAnEndEnd) {
  const std::string link = R"(,"@odata.nextLink":"x?$skiptoken=1")";
  EXPECT_EQ(kind_of(read({page(user("1", "a"), link), page(user("2", "b"), link)})), Kind::paging);
  const std::string same = page(user("1", "a"), R"(,"@odata.count":9)");
  EXPECT_EQ(kind_of(read({same, same})), Kind::paging);
  EXPECT_EQ(kind_of(read({page(user("1", "a"), R"(,"@odata.count":2)"), page("", R"(,"@odata.count":2)")})),
            Kind::paging);
  EXPECT_EQ(kind_of(read({page(user("1", "a") + "," + user("2", "b"))}, {}, {.rows_max = 1})),
            Kind::too_large);
  CreatioUserReader reader({}, kRoot);
  std::size_t pages = 0;
  std::expected<void, SyncFailure> taken;
  for (; taken && pages <= CreatioUserReader::kPagesMax; ++pages)
    taken = reader.take(
        page(user(fmt::format("{}", pages), "a"), fmt::format(R"(,"@odata.nextLink":"x?{}")", pages)));
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().kind, Kind::paging);
}

TEST(CreatioUsers, NothingThatIsNoPageIsTakenForOne) {
  for (const char* body : {"", "x", "[]", "{}", R"({"value":{}})", R"({"value":[)", "<html>"})
    EXPECT_EQ(kind_of(read({body})), Kind::reply) << body;
}

TEST(CreatioUsers, EmptyListsAreNoLists) {
  EXPECT_EQ(kind_of(read({page(""), page("")})), Kind::empty);
  EXPECT_EQ(kind_of(read({page(user("1", "a")), page("")})), Kind::empty);
  EXPECT_EQ(kind_of(read({page(user("1", "a")), page(license("1", "p", "false"))})), Kind::empty);
  CreatioNames names;
  names.licenses = "";
  auto got = read({page(user("1", "a"))}, names);
  ASSERT_TRUE(got);
  EXPECT_FALSE(got->users.at("a").says_licenses);
}

TEST(CreatioUsers, ATrialGoesToTheLicencesAtOnce) {
  CreatioUserReader reader({}, kRoot);
  ASSERT_TRUE(reader.take(page(user("1", "a"), R"(,"@odata.count":900)")));
  EXPECT_EQ(reader.page_rows(), 1U);
  reader.go_to_licenses();
  EXPECT_THAT(reader.next(), HasSubstr("/odata/SysLicUser?"));
}

TEST(CreatioUsers, TheCopyReadsBackTheSameAndNothingElseIsOne) {
  Directory::CrmUsers users;
  users["ann"] = {.organization = "Acme \"& Sons\"",
                  .user_type = UserType::portal,
                  .licenses = {"a", "b"},
                  .account = "25d7c1ab-1de0-4501-b402-02e0e5a72d6e",
                  .active = true};
  users["bob"] = {.user_type = UserType::staff, .active = false};
  users["eve"] = {.says_licenses = false, .active = true};
  const std::string text = write_crm_users(users, kRoot);
  const auto back = read_crm_users(text, kRoot);
  ASSERT_TRUE(back);
  EXPECT_EQ(*back, users);
  EXPECT_FALSE(read_crm_users(text, "https://other.example/0"));
  for (std::size_t cut = 0; cut + 2 < text.size(); ++cut)
    EXPECT_FALSE(read_crm_users(text.substr(0, cut), kRoot)) << cut;
  EXPECT_FALSE(
      read_crm_users(R"({"source":"https://crm.example/0","users":[{"user":"Ann","active":true}]})", kRoot));
}

TEST(CreatioUsers, KindsOfFailureHaveNames) {
  EXPECT_EQ(name(Kind::unreachable), "unreachable");
  EXPECT_EQ(name(Kind::empty), "empty");
}

}  // namespace
}  // namespace tollgate::identity
