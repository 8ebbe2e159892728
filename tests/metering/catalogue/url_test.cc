#include "metering/catalogue/url.h"

#include <gtest/gtest.h>

#include "metering/base/random.h"

namespace tollgate::catalogue {
namespace {

std::string path_of(std::string_view target) {
  auto path = normalise(target);
  return path ? path->path : "reject";
}

TEST(Url, EmptyAndDotSegmentsVanish) {
  EXPECT_EQ(path_of("/0/odata/Case"), "/0/odata/Case");
  EXPECT_EQ(path_of("//0///odata/./Case//"), "/0/odata/Case");
  EXPECT_EQ(path_of("/0/odata/KnowledgeBase/../Account"), "/0/odata/Account");
  EXPECT_EQ(path_of("/0/odata/x/%2e%2E/Account"), "/0/odata/Account");
  EXPECT_EQ(path_of("/"), "/");
  EXPECT_EQ(path_of("/.//?x"), "/");
}

TEST(Url, PathIsDecodedOnce) {
  EXPECT_EQ(path_of("/0/odata/%43ase%28x%29"), "/0/odata/Case(x)");
  EXPECT_EQ(path_of("/a%20b/c%25"), "/a b/c%");
  EXPECT_EQ(normalise("/0/ODATA/Case")->lower, "/0/odata/case");
}

TEST(Url, TheLowerCasePathIsAsLongAsThePathWhateverTheMemoryBefore) {
  for (std::size_t size = 1; size < 200; ++size) {
    const std::string target = "/" + std::string(size, 'A');
    NormalPath fresh;
    ASSERT_TRUE(normalise(target, fresh));
    EXPECT_EQ(fresh.lower, "/" + std::string(size, 'a'));
  }
}

TEST(Url, WhatServersReadDifferentlyIsRefused) {
  for (const char* target : {"",
                             "x",
                             "http://h/x",
                             "/a%",
                             "/a%4",
                             "/a%4g",
                             "/%2565",
                             "/0/odata/%252e%252e/Case",
                             "/a%252fb",
                             "/%25u0043ase",
                             "/0%2fodata/Case",
                             "/0%2Fodata/Case",
                             "/0/odata/Case%5cx",
                             "/0/odata\\Case",
                             "/a%00b",
                             "/a%0d%0ab",
                             "/a\tb",
                             "/a%7f",
                             "/..",
                             "/a/../../b",
                             "/0/odata;x=1/Case",
                             "/0/odata/Case;jsessionid=1",
                             "/a/..;/b",
                             "/a/..%3b/b",
                             "/0/odata./Case",
                             "/0/odata%20/Case",
                             "/0/odata/Case%2e",
                             "/...",
                             "/a#b",
                             "/a?b#c",
                             "/%c0%af",
                             "/%ff",
                             "/%ed%a0%80",
                             "/0/odata/Case('x/../Account')",
                             "/0/odata/Case('x%2f..%2fAccount%2f')",
                             "/0/odata/Case('a/b')/../Account",
                             "/0/odata/Case('a/Account')/('/..",
                             "/0/odata/Case(1)/../Account",
                             "/0/a(/)/../b'c/d'e)",
                             "/0/odata/Case('a%2fb"})
    EXPECT_EQ(path_of(target), "reject") << target;
}

TEST(Url, SlashesInsideAQuotedKeyBelongToTheKey) {
  for (const char* target : {"/0/odata/Case('a/b')/Number", "/0/odata/Case('a%2Fb')/Number",
                             "/0/odata/Case(%27a%2fb%27)/Number"}) {
    auto path = normalise(target);
    ASSERT_TRUE(path.has_value()) << target;
    ASSERT_EQ(path->size(), 4U) << target;
    EXPECT_EQ(path->segment(2), "Case('a/b')");
    EXPECT_EQ(path->segment(3), "Number");
  }
}

TEST(Url, AnApostropheInAFileNameIsNoKey) {
  auto path = normalise("/up/Report%20(John's).pdf/busobid/1");
  ASSERT_TRUE(path.has_value());
  EXPECT_EQ(path->size(), 4U);
}

TEST(Url, SixtyFourSegmentsAreTheMost) {
  std::string target;
  for (int i = 0; i < 64; ++i) target += "/a";
  EXPECT_NE(path_of(target), "reject");
  EXPECT_EQ(path_of(target + "/a"), "reject");
}

TEST(Url, NormalisingTwiceChangesNothing) {
  constexpr std::uint64_t kSeed = 20261122;
  Random random(kSeed);
  static constexpr std::string_view kPieces[] = {
      "/",   "a",      "Case", "%2e",  ".", "..",  "%41",    "(",   ")", "'",   "%27", "%28", "%20",
      "%25", "%C3%A9", "%2F",  "?x=1", ";", "%3B", "$count", "%23", "+", "%3f", "('",  "')",  "/../"};
  int accepted = 0;
  for (int round = 0; round < 200000; ++round) {
    std::string target = "/";
    for (std::uint64_t n = random.below(12); n > 0; --n) target += kPieces[random.below(std::size(kPieces))];
    auto once = normalise(target);
    if (!once) continue;
    ++accepted;
    std::string encoded = once->encoded();
    auto twice = normalise(encoded);
    ASSERT_TRUE(twice.has_value()) << "seed " << kSeed << " " << target << " -> " << encoded;
    ASSERT_EQ(twice->path, once->path) << "seed " << kSeed << " " << target;
    ASSERT_EQ(twice->size(), once->size()) << target;
    ASSERT_EQ(twice->query, once->query) << target;
  }
  EXPECT_GT(accepted, 5000);
}

// A "." behind it vanishes, and makes it a path that is not its own reading.
TEST(Url, PlainPathsReadAsThoseThatAreNot) {
  constexpr std::string_view kPieces[] = {"a",  "B", "/",   "/",   "(", ")", "'", ".",
                                          "..", ";", "%41", "%2F", "=", "@", " "};
  Random random(17);
  unsigned accepted = 0;
  for (int i = 0; i < 200'000; ++i) {
    std::string target = "/";
    for (std::uint64_t pieces = random.below(9); pieces > 0; --pieces)
      target += kPieces[random.below(std::size(kPieces))];
    const auto one = normalise(target), other = normalise(target + "/.");
    ASSERT_EQ(one.has_value(), other.has_value()) << target;
    if (!one) continue;
    ++accepted;
    ASSERT_EQ(one->path, other->path) << target;
    ASSERT_EQ(one->lower, other->lower) << target;
    ASSERT_EQ(one->size(), other->size()) << target;
    for (std::size_t s = 0; s < one->size(); ++s) ASSERT_EQ(one->segment(s), other->segment(s)) << target;
  }
  EXPECT_GT(accepted, 20'000U);
}

TEST(QueryCursor, DecodesPlusAndPercentAndKeepsBrokenPercent) {
  QueryCursor cursor("%24top=1&&a+b=c%2Bd&x&100%=%zz");
  ASSERT_TRUE(cursor.next());
  EXPECT_EQ(cursor.name(), "$top");
  EXPECT_EQ(cursor.value(), "1");
  ASSERT_TRUE(cursor.next());
  EXPECT_EQ(cursor.name(), "a b");
  EXPECT_EQ(cursor.value(), "c+d");
  ASSERT_TRUE(cursor.next());
  EXPECT_EQ(cursor.name(), "x");
  EXPECT_EQ(cursor.value(), "");
  ASSERT_TRUE(cursor.next());
  EXPECT_EQ(cursor.name(), "100%");
  EXPECT_EQ(cursor.value(), "%zz");
  EXPECT_FALSE(cursor.next());
}

TEST(QueryCursor, RepeatsAreCountedInAnyCase) {
  auto match = find_parameter("a=1&ENTITYschemaName=Case&entity%53chemaname=Account", "entitySchemaName");
  EXPECT_EQ(match.count, 2U);
  EXPECT_EQ(match.value, "Case");
}

}  // namespace
}  // namespace tollgate::catalogue
