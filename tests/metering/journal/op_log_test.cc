// The log of ops: read back by number over segments, streams and lives.
#include "metering/journal/op_log.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "tests/metering/journal/support/journal_directory.h"

namespace tollgate::journal {
namespace {

quota::Op op_with(const Journal& journal, unsigned partition, std::uint64_t seq) {
  quota::Op op;
  op.incarnation = journal.incarnation();
  op.partition = partition;
  op.seq = seq;
  op.subject_key = "q:{p007}:acme:u:" + std::string(seq % 50, 'a');
  op.accounts.push_back({.field = "daily",
                         .window = Milliseconds(86'400'000),
                         .bucket = Milliseconds(60'000),
                         .limit = quota::kUnlimited,
                         .uses = {{29'916'666, static_cast<std::int64_t>(seq)}, {29'916'667, -1}},
                         .returned = seq,
                         .forget = seq % 2 == 0});
  return op;
}

std::vector<std::uint64_t> numbers(Journal& journal, unsigned worker, unsigned partition, std::uint64_t after,
                                   std::uint64_t up_to, std::uint64_t* first = nullptr) {
  std::vector<std::uint64_t> numbers;
  const std::uint64_t kept = journal.op_log(worker).read(partition, after, up_to, [&](const quota::Op& op) {
    numbers.push_back(op.seq);
    EXPECT_EQ(op, op_with(journal, partition, op.seq));
  });
  if (first != nullptr) *first = kept;
  return numbers;
}

std::vector<std::uint64_t> range(std::uint64_t first, std::uint64_t last) {
  std::vector<std::uint64_t> range;
  for (std::uint64_t seq = first; seq <= last; ++seq) range.push_back(seq);
  return range;
}

TEST(OpLog, ReadsWhatIsAskedForOverManySegments) {
  const TempDirectory temp;
  auto journal = must_open(small_journal(temp.journal()));
  for (std::uint64_t seq = 1; seq <= 3'000; ++seq)
    for (const unsigned partition : {7U, 8U})
      ASSERT_TRUE(journal->op_log(0).append(op_with(*journal, partition, seq)));
  EXPECT_GT(files_of(temp.journal(), "0").size(), 5u);
  EXPECT_EQ(journal->op_log(0).last_seq(7), 3'000u);
  EXPECT_EQ(journal->op_log(0).last_seq(9), 0u);
  std::uint64_t first = 0;
  EXPECT_EQ(numbers(*journal, 0, 7, 0, 3'000, &first), range(1, 3'000));
  EXPECT_EQ(first, 1u);
  EXPECT_EQ(numbers(*journal, 0, 8, 1'499, 1'520), range(1'500, 1'520));
  EXPECT_EQ(numbers(*journal, 0, 7, 2'999, 3'000), range(3'000, 3'000));
  EXPECT_TRUE(numbers(*journal, 0, 7, 3'000, 3'000).empty());
}

TEST(OpLog, PartitionThatMovedFromWorkerToWorkerIsReadInOneOrder) {
  const TempDirectory temp;
  std::uint64_t seq = 0;
  const auto write = [&](unsigned workers, unsigned worker) {
    auto options = small_journal(temp.journal());
    options.workers = workers;
    auto journal = must_open(options);
    EXPECT_EQ(journal->op_log(worker).last_seq(7), seq);
    for (int i = 0; i < 300; ++i) {
      ++seq;
      EXPECT_TRUE(journal->op_log(worker).append(op_with(*journal, 7, seq)));
    }
  };
  write(4, 3);
  write(2, 1);
  write(1, 0);
  write(3, 1);
  auto journal = must_open(small_journal(temp.journal()));
  EXPECT_EQ(numbers(*journal, 0, 7, 0, seq), range(1, seq));
  EXPECT_EQ(numbers(*journal, 0, 7, 250, 950), range(251, 950));
}

TEST(OpLog, AfterAKillTheLastNumberIsKnown) {
  const TempDirectory temp;
  ASSERT_TRUE(killed_after([&] {
    Journal* journal = must_open(small_journal(temp.journal())).release();
    for (std::uint64_t seq = 1; seq <= 10; ++seq) journal->op_log(0).append(op_with(*journal, 7, seq));
  }));
  auto journal = must_open(small_journal(temp.journal()));
  EXPECT_EQ(journal->op_log(0).last_seq(7), 10u);
  EXPECT_EQ(numbers(*journal, 0, 7, 0, 10), range(1, 10));
}

TEST(OpLog, LastNumberOutlivesTheSegmentItStoodIn) {
  const TempDirectory temp;
  {
    auto journal = must_open(small_journal(temp.journal()));
    for (std::uint64_t seq = 1; seq <= 10; ++seq)
      ASSERT_TRUE(journal->op_log(0).append(op_with(*journal, 7, seq)));
  }
  {
    must_open(small_journal(temp.journal()));
  }
  std::filesystem::remove(files_of(temp.journal(), "0").front());
  auto journal = must_open(small_journal(temp.journal()));
  EXPECT_EQ(journal->op_log(0).last_seq(7), 10u);
  std::uint64_t first = 0;
  EXPECT_TRUE(numbers(*journal, 0, 7, 0, 10, &first).empty());
  EXPECT_EQ(first, 11u);
  ASSERT_TRUE(journal->op_log(0).append(op_with(*journal, 7, 11)));
  EXPECT_EQ(numbers(*journal, 0, 7, 5, 11, &first), range(11, 11));
  EXPECT_EQ(first, 11u);
}

TEST(OpLog, OpsOfAnEarlierIncarnationAreNobodys) {
  const TempDirectory temp;
  {
    auto journal = must_open(small_journal(temp.journal()));
    ASSERT_TRUE(journal->op_log(0).append(op_with(*journal, 7, 1)));
  }
  auto options = small_journal(temp.journal());
  options.boot_id = "boot-2";
  auto journal = must_open(options);
  EXPECT_EQ(journal->op_log(0).last_seq(7), 0u);
  EXPECT_TRUE(numbers(*journal, 0, 7, 0, 5).empty());
}

}  // namespace
}  // namespace tollgate::journal
