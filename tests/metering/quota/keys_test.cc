#include "metering/quota/keys.h"

#include <gtest/gtest.h>

#include <set>

#include "metering/base/random.h"

namespace tollgate::quota {
namespace {

TEST(Crc16, IsTheOneOfRedisCluster) {
  EXPECT_EQ(crc16("123456789"), 0x31C3);  // Redis Cluster specification, appendix A
  EXPECT_EQ(crc16(""), 0);
  EXPECT_EQ(crc16("foo") % 16384, 12182);  // CLUSTER KEYSLOT foo
}

TEST(SubjectKey, HasTheDocumentedForm) {
  EXPECT_EQ(subject_key({"acme", std::nullopt, "ann"}).substr(9), "acme:u:ann");
  EXPECT_EQ(subject_key({"acme", "org1", std::nullopt}).substr(9), "acme:o:org1");
  EXPECT_EQ(subject_key({"acme", "org1", "ann"}).substr(9), "acme:o:org1:u:ann");
  EXPECT_EQ(subject_key({"acme", std::nullopt, std::nullopt}).substr(9), "acme:t");
  EXPECT_EQ(subject_key({"", std::nullopt, "ann@example.com"}).substr(9), ":u:ann@example.com");
}

TEST(SubjectKey, NeverChangesForStoredAccounts) {
  EXPECT_EQ(subject_key({"acme", std::nullopt, "ann"}), "q:{p089}:acme:u:ann");
}

TEST(SubjectKey, HashTagIsThePartitionAndNothingInANameCanForgeOne) {
  const std::string key = subject_key({"a}{b", std::nullopt, "x:o:y|z%{}\n\x01 \xC3\xA4"});
  EXPECT_EQ(key.find('{'), 2U);
  EXPECT_EQ(key.find('{', 3), std::string::npos);
  EXPECT_EQ(key.substr(2, 6), hash_tag(partition_of(key)));
  EXPECT_EQ(key.substr(9), "a%7D%7Bb:u:x%3Ao%3Ay%7Cz%25%7B%7D%0A%01%20%C3%A4");
}

TEST(SubjectKey, DifferentSubjectsHaveDifferentKeysAndReadBack) {
  const std::string alphabet = "a:ou{}%|t \xff";
  std::set<std::string> keys;
  std::set<std::vector<std::string>> subjects;
  for (std::uint64_t seed = 1; seed <= 5'000; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    auto text = [&] {
      std::string out;
      for (std::uint64_t n = random.below(4); n > 0; --n)
        out.push_back(alphabet[random.below(alphabet.size())]);
      return out;
    };
    const std::string tenant = text(), organization = text(), user = text();
    const bool with_organization = random.one_in(2), with_user = random.one_in(2);
    Subject subject{tenant, std::nullopt, std::nullopt};
    if (with_organization) subject.organization = organization;
    if (with_user) subject.user = user;
    const std::string key = subject_key(subject);
    keys.insert(key);
    subjects.insert({tenant, with_organization ? "+" + organization : "", with_user ? "+" + user : ""});
    auto parsed = parse_subject_key(key);
    ASSERT_TRUE(parsed.has_value()) << key;
    EXPECT_EQ(parsed->tenant, tenant);
    EXPECT_EQ(parsed->organization, subject.organization);
    EXPECT_EQ(parsed->user, subject.user);
  }
  EXPECT_EQ(keys.size(), subjects.size());
}

TEST(SubjectKey, OtherTextsAreNoSubject) {
  EXPECT_FALSE(parse_subject_key(""));
  EXPECT_FALSE(parse_subject_key("q:{p000}:acme:u:ann")) << "wrong partition";
  EXPECT_FALSE(parse_subject_key("q:{p089}:acme:u:ann:x"));
  EXPECT_FALSE(parse_subject_key("h:{p089}:acme:u:ann"));
}

TEST(EscapeName, OneNameHasOneSpelling) {
  EXPECT_EQ(unescape_name("a%3Ab"), "a:b");
  EXPECT_FALSE(unescape_name("a%3ab"));
  EXPECT_FALSE(unescape_name("%61"));
  EXPECT_FALSE(unescape_name("a%3"));
  EXPECT_FALSE(unescape_name("a:b"));
}

TEST(Partition, SpreadsUsersOverAll256) {
  std::set<unsigned> seen;
  for (int i = 0; i < 20'000; ++i)
    seen.insert(partition_of(subject_key({"acme", std::nullopt, "user" + std::to_string(i)})));
  EXPECT_EQ(seen.size(), kPartitions);
}

}  // namespace
}  // namespace tollgate::quota
