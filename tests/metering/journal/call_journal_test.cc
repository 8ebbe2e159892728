#include "metering/journal/call_journal.h"

#include <gtest/gtest.h>

#include "tests/metering/journal/support/journal_directory.h"

namespace tollgate::journal {
namespace {

using usage::CountedOperation;

struct ACall {
  std::string path = "/0/odata/Case";
  std::vector<CountedOperation> operations{{"Case", "read", "cases", "portal"},
                                           {"Contact", "update", "contacts", "portal"},
                                           {"Case", "read", "cases", "portal"}};
  std::vector<usage::ChargedAccount> accounts{{"q:{p017}:acme:u:ann", "daily", 3, 29'916'666}};
  usage::Fact fact() {
    usage::Fact fact;
    fact.time = UnixTime(Milliseconds(1'795'000'000'123));
    fact.request_id = "r-1";
    fact.client_address = "10.0.0.9";
    fact.user = "ann";
    fact.tenant = "acme";
    fact.method = "POST";
    fact.path = path;
    fact.kind = "batch";
    fact.operations = operations;
    fact.units = 3;
    fact.status = 200;
    fact.bytes_out = 12;
    fact.total = Milliseconds(5);
    fact.upstream = Milliseconds(4);
    fact.upstream_server = "crm:80";
    fact.attempts = 1;
    return fact;
  }
};

TEST(CallJournal, CallIsOneBeginAndOneEndWithEverythingThatIsBilled) {
  const TempDirectory temp;
  {
    auto journal = must_open(small_journal(temp.journal()));
    StreamCallJournal calls(*journal, 0);
    ACall call;
    EXPECT_TRUE(calls.writable());
    const auto handle = calls.begin(call.fact(), call.accounts);
    ASSERT_EQ(handle.call, 1u);
    calls.charged(handle);
    calls.sent(handle);
    calls.record(handle, call.fact(), call.accounts, false);
    EXPECT_EQ(calls.unwritten(), 0u);
  }
  const auto stories = calls_of(temp.journal(), "0");
  ASSERT_EQ(stories.size(), 1u);
  const usage::CallBegin& begin = stories.at(1).begins.at(0);
  EXPECT_EQ(begin.time_ms, 1'795'000'000'123);
  EXPECT_EQ(begin.user, "ann");
  EXPECT_EQ(begin.tenant, "acme");
  ASSERT_EQ(begin.operations.size(), 2u);
  EXPECT_EQ(begin.operations[0], (usage::CallBegin::Operation{"Case", "read", "cases", "portal", 2}));
  EXPECT_EQ(begin.operations[1].count, 1u);
  ASSERT_EQ(begin.charged.size(), 1u);
  EXPECT_EQ(begin.charged[0], (usage::CallBegin::Charged{"q:{p017}:acme:u:ann", "daily", 3}));
  const usage::CallEnd& end = stories.at(1).ends.at(0);
  EXPECT_EQ(end.units, 3u);
  EXPECT_EQ(end.reason, "ok");
  EXPECT_EQ(end.status, 200u);
  EXPECT_EQ(end.total_us, 5'000u);
  EXPECT_EQ(end.upstream_us, 4'000u);
  EXPECT_EQ(end.buckets, std::vector<std::int64_t>{29'916'666});
  EXPECT_FALSE(end.alone);
}

TEST(CallJournal, CallThatChargedNothingStandsAlone) {
  const TempDirectory temp;
  auto journal = must_open(small_journal(temp.journal()));
  StreamCallJournal calls(*journal, 0);
  ACall call;
  auto fact = call.fact();
  fact.reason = Reason::quota_exceeded;
  fact.units = 0;
  calls.record({}, fact, call.accounts, false);
  const auto stories = calls_of(temp.journal(), "0");
  const usage::CallEnd& end = stories.at(0).ends.at(0);
  ASSERT_TRUE(end.alone);
  EXPECT_EQ(end.alone->user, "ann");
  EXPECT_EQ(end.reason, "quota_exceeded");
}

TEST(CallJournal, NothingOfACallIsLeftInTheNext) {
  const TempDirectory temp;
  auto journal = must_open(small_journal(temp.journal()));
  StreamCallJournal calls(*journal, 0);
  ACall call;
  calls.record(calls.begin(call.fact(), call.accounts), call.fact(), call.accounts, true);
  usage::Fact bare;
  calls.record(calls.begin(bare, {}), bare, {}, false);
  const CallStory story = calls_of(temp.journal(), "0").at(2);
  usage::CallBegin begin;
  begin.call = 2;
  EXPECT_EQ(story.begins.at(0), begin);
  usage::CallEnd end;
  end.call = 2;
  end.reason = "ok";
  EXPECT_EQ(story.ends.at(0), end);
}

TEST(CallJournal, LongPathIsCutAndNamesAreNot) {
  const TempDirectory temp;
  auto journal = must_open(small_journal(temp.journal()));
  StreamCallJournal calls(*journal, 0);
  ACall call;
  call.path = std::string(5'000, 'p');
  auto fact = call.fact();
  const std::string user(2'000, 'u');
  fact.user = user;
  calls.begin(fact, {});
  const auto begin = calls_of(temp.journal(), "0").at(1).begins.at(0);
  EXPECT_EQ(begin.path.size(), StreamCallJournal::kPathMax);
  EXPECT_EQ(begin.user, user);
}

}  // namespace
}  // namespace tollgate::journal
