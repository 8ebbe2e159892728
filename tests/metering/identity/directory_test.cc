#include "metering/identity/directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tollgate::identity {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Directory parsed(std::string_view csv) {
  auto directory = Directory::parse(csv);
  EXPECT_TRUE(directory) << directory.error().message;
  return directory ? *std::move(directory) : Directory();
}
std::string error_of(std::string_view csv) {
  auto directory = Directory::parse(csv);
  return directory ? "no error" : directory.error().message;
}

TEST(Directory, SeveralRowsOfAUserAreSeveralLicenses) {
  Directory directory = parsed(
      "user,organization,license,user_type\n"
      "ann,Acme,customer portal,portal\n"
      "bob,,,staff\n"
      "ann,,self-service portal,\n"
      "ann,Acme,customer portal,SSP\n");
  EXPECT_EQ(directory.size(), 2U);
  const Directory::Entry* ann = directory.find("ann");
  ASSERT_NE(ann, nullptr);
  EXPECT_EQ(ann->organization, "Acme");
  EXPECT_EQ(ann->user_type, UserType::portal);
  EXPECT_THAT(ann->licenses, ElementsAre("customer portal", "self-service portal"));
  const Directory::Entry* bob = directory.find("bob");
  ASSERT_NE(bob, nullptr);
  EXPECT_EQ(bob->user_type, UserType::staff);
  EXPECT_THAT(bob->licenses, IsEmpty());
  EXPECT_EQ(directory.find("Ann"), nullptr);
  EXPECT_EQ(directory.find(""), nullptr);
}

TEST(Directory, ColumnsStandInAnyOrderAndCase) {
  Directory directory = parsed("License, USER \r\nx,ann\r\n");
  ASSERT_NE(directory.find("ann"), nullptr);
  EXPECT_THAT(directory.find("ann")->licenses, ElementsAre("x"));
}

TEST(Directory, QuotedCellsHoldCommasQuotesAndLineBreaks) {
  Directory directory = parsed("user,organization\n\"O'Hara, \"\"Ann\"\"\",\"two\r\nlines\"\n");
  ASSERT_NE(directory.find("O'Hara, \"Ann\""), nullptr);
  EXPECT_EQ(directory.find("O'Hara, \"Ann\"")->organization, "two\r\nlines");
}

TEST(Directory, ByteOrderMarkEmptyLinesAndMissingLastLineBreakAreFine) {
  Directory directory = parsed("\xEF\xBB\xBFuser\n\nann\r\n\r\nbob");
  EXPECT_NE(directory.find("ann"), nullptr);
  EXPECT_NE(directory.find("bob"), nullptr);
  EXPECT_EQ(directory.size(), 2U);
}

TEST(Directory, HeaderAloneIsAnEmptyDirectory) {
  EXPECT_EQ(parsed("user,license\n").size(), 0U);
}

TEST(Directory, FaultsNameTheirLine) {
  EXPECT_THAT(error_of(""), HasSubstr("line 1: the file is empty"));
  EXPECT_THAT(error_of("organization\nx\n"), HasSubstr("line 1: the first row must name the columns"));
  EXPECT_THAT(error_of("user,email\n"), HasSubstr("line 1: unknown column \"email\""));
  EXPECT_THAT(error_of("user,User\n"), HasSubstr("line 1: column \"user\" twice"));
  EXPECT_THAT(error_of("user,license\nann,x\nbob\n"),
              HasSubstr("line 3: 1 cells, but the first row names 2"));
  EXPECT_THAT(error_of("user,license\nann,x,y\n"), HasSubstr("line 2: 3 cells"));
  EXPECT_THAT(error_of("user,license\n ,x\n"), HasSubstr("line 2: no user"));
  EXPECT_THAT(error_of("user,user_type\nann,boss\n"),
              HasSubstr("line 2: user_type \"boss\" is neither portal nor staff"));
  EXPECT_THAT(error_of("user,user_type\nann,portal\n\nann,staff\n"),
              HasSubstr("line 4: the user had the other user_type"));
  EXPECT_THAT(error_of("user,organization\nann,A\nann,B\n"),
              HasSubstr("line 3: the user was in organization \"A\""));
  EXPECT_THAT(error_of("user\n\"ann\nbob\n"), HasSubstr("line 2: a quote is never closed"));
  EXPECT_THAT(error_of("user\n\"ann\"x\n"), HasSubstr("line 2: text after the closing quote"));
  EXPECT_THAT(error_of("user\nan\"n\n"), HasSubstr("line 2: a quote inside a cell"));
  EXPECT_THAT(error_of("user\n\"two\nlines\"\n\"x"), HasSubstr("line 4: "));
}

TEST(Directory, AnAccountIsAnIdInOneSpelling) {
  Directory directory = parsed(
      "user,account\nann,25D7C1AB1DE04501B40202E0E5A72D6E\n"
      "ann,25d7c1ab-1de0-4501-b402-02e0e5a72d6e\nbob,\n");
  EXPECT_EQ(directory.find("ann")->account, "25d7c1ab-1de0-4501-b402-02e0e5a72d6e");
  Principal token;
  token.account = "of the token";
  token.user = "ann";
  EXPECT_EQ(directory.apply(token).account, "25d7c1ab-1de0-4501-b402-02e0e5a72d6e");
  token.user = "bob";
  EXPECT_EQ(directory.apply(token).account, "of the token");
  EXPECT_THAT(error_of("user,account\nann,Acme\n"),
              HasSubstr("line 2: account \"Acme\" is no id of an account"));
  EXPECT_THAT(error_of("user,account\nann,25d7c1ab-1de0-4501-b402-02e0e5a72d6e\n"
                       "ann,35d7c1ab-1de0-4501-b402-02e0e5a72d6e\n"),
              HasSubstr("line 3: the user was of account 25d7c1ab-1de0-4501-b402-02e0e5a72d6e"));
}

TEST(Directory, WinsOverTheTokenWhereItSaysSomething) {
  Directory directory = parsed("user,organization,license,user_type\nann,Acme,a,staff\nbob,,,\n");
  Principal token;
  token.tenant = "t";
  token.organization = "Other";
  token.user_type = UserType::portal;
  token.licenses = {"z"};

  token.user = "ann";
  Principal ann = directory.apply(token);
  EXPECT_EQ(ann.organization, "Acme");
  EXPECT_EQ(ann.user_type, UserType::staff);
  EXPECT_THAT(ann.licenses, ElementsAre("a"));
  EXPECT_EQ(ann.tenant, "t");

  token.user = "bob";
  Principal bob = directory.apply(token);
  EXPECT_EQ(bob.organization, "Other");
  EXPECT_EQ(bob.user_type, UserType::portal);
  EXPECT_THAT(bob.licenses, IsEmpty()) << "a listed user has the listed licences only";

  token.user = "eve";
  EXPECT_THAT(directory.apply(token).licenses, ElementsAre("z"));
}

// ---------------------------------------------------------------- with the users of the CRM

std::shared_ptr<const Directory::CrmUsers> crm_users() {
  Directory::CrmUsers users;
  users["ann"] = {.organization = "Acme",
                  .user_type = UserType::portal,
                  .licenses = {"customer portal"},
                  .account = "25d7c1ab-1de0-4501-b402-02e0e5a72d6e",
                  .active = true};
  users["bob"] = {.organization = "Best", .user_type = UserType::staff, .active = false};
  users["eve"] = {.user_type = UserType::portal, .says_licenses = false, .active = true};
  return std::make_shared<const Directory::CrmUsers>(std::move(users));
}

TEST(Directory, TheFileWinsOverTheCrmCellByCell) {
  const Directory directory = Directory::combine(
      parsed("user,organization,license,user_type,active\nAnn,Other,,,\nbob,,extra,,yes\nzoe,,z,,\n"),
      crm_users());
  const Directory::Entry* ann = directory.find("Ann");
  ASSERT_NE(ann, nullptr);
  EXPECT_EQ(ann->organization, "Other");
  EXPECT_EQ(ann->user_type, UserType::portal);
  EXPECT_THAT(ann->licenses, ElementsAre("customer portal"));
  EXPECT_EQ(ann->account, "25d7c1ab-1de0-4501-b402-02e0e5a72d6e");
  EXPECT_EQ(ann->active, true);
  const Directory::Entry* bob = directory.find("bob");
  ASSERT_NE(bob, nullptr);
  EXPECT_EQ(bob->organization, "Best");
  EXPECT_THAT(bob->licenses, ElementsAre("extra"));
  EXPECT_EQ(bob->active, true);
  EXPECT_THAT(directory.find("zoe")->licenses, ElementsAre("z"));
  EXPECT_EQ(directory.in_file("Ann")->licenses.size(), 0U);
  EXPECT_EQ(directory.in_crm("zoe"), nullptr);
  EXPECT_EQ(directory.in_file("eve"), nullptr);
}

TEST(Directory, UsersOfTheCrmAreFoundWithoutCase) {
  const Directory directory = Directory::combine(Directory(), crm_users());
  ASSERT_NE(directory.find(" ANN"), nullptr);
  EXPECT_EQ(directory.find("nobody"), nullptr);
  EXPECT_EQ(directory.find(""), nullptr);
  EXPECT_EQ(directory.size(), 0U);
  Principal principal = directory.apply({.user = "Ann", .licenses = {"of the token"}});
  EXPECT_EQ(principal.user, "Ann") << "his name stays as the token spells it";
  EXPECT_EQ(principal.organization, "Acme");
  EXPECT_THAT(principal.licenses, ElementsAre("customer portal"));
  EXPECT_TRUE(principal.active);
  EXPECT_FALSE(directory.apply({.user = "bob"}).active);
  EXPECT_FALSE(directory.apply_folded({.user = "bob"}).active);
  principal = directory.apply({.user = "eve", .licenses = {"of the token"}});
  EXPECT_THAT(principal.licenses, ElementsAre("of the token")) << "the CRM says nothing of them";
}

TEST(Directory, WhoIsNotActiveIsSaidInTheFileToo) {
  const Directory directory = parsed("user,active\nann,no\nbob,yes\neve,\n");
  EXPECT_FALSE(directory.apply({.user = "ann"}).active);
  EXPECT_TRUE(directory.apply({.user = "bob"}).active);
  EXPECT_TRUE(directory.apply({.user = "eve"}).active);
  EXPECT_EQ(directory.crm_users(), nullptr);
  EXPECT_EQ(error_of("user,active\nann,maybe\n"), "line 2: active \"maybe\" is neither yes nor no");
}

}  // namespace
}  // namespace tollgate::identity
