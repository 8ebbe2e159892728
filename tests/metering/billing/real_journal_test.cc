// The book against journals on disk: while they are written, after their writer was killed, and damaged.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "metering/billing/absorber.h"
#include "metering/billing/billing.h"
#include "metering/journal/journal.h"
#include "tests/metering/journal/support/begin_call.h"
#include "tests/metering/usage/support/call_mix.h"

namespace tollgate::billing {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using usage::CallMix;
using usage::Rollup;

class RealJournal : public testing::Test {
 protected:
  RealJournal() {
    std::string pattern = (fs::temp_directory_path() / "tollgate-billing-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  ~RealJournal() override { fs::remove_all(folder_); }

  std::string directory() const { return (folder_ / "journal").string(); }
  std::string book_file() const { return (folder_ / "usage.sqlite").string(); }
  journal::JournalOptions options(std::uint64_t seed) const {
    journal::JournalOptions options;
    options.directory = directory();
    options.workers = 2;
    options.segment_bytes = 64 << 10;
    options.reserve_bytes = 16 << 10;
    options.cells = 64;
    options.open_calls = 256;
    options.boot_id = "same";
    options.seed = seed;
    return options;
  }
  std::unique_ptr<journal::Journal> open(std::uint64_t seed = 1) const {
    auto journal = journal::Journal::open(options(seed));
    EXPECT_TRUE(journal) << journal.error().message;
    return std::move(*journal);
  }
  std::unique_ptr<Book> book() const {
    auto book = Book::open(book_file());
    EXPECT_TRUE(book) << book.error().message;
    return std::move(*book);
  }
  static Rollup rows(const Book& book) {
    auto rows = book.rows(0, 1'000'000);
    EXPECT_TRUE(rows);
    return *rows;
  }
  // One call from begin to end.
  static void call(CallMix& mix, journal::Stream& stream, Rollup& truth) {
    usage::CallBegin begin = mix.begin(0);
    auto open = journal::begin_call(stream, begin);
    ASSERT_TRUE(open);
    usage::CallEnd end = mix.end(begin);
    ASSERT_TRUE(stream.end_call(*open, end));
    CallMix::count(truth, begin, end);
  }

  fs::path folder_;
};

TEST_F(RealJournal, IsAbsorbedWhileItIsWritten) {
  auto journal = open();
  CallMix mix(1);
  Rollup truth;
  auto book = this->book();
  const journal::Reader reader(directory());
  for (int round = 0; round < 20; ++round) {
    for (int i = 0; i < 50; ++i) call(mix, journal->stream(static_cast<unsigned>(i % 2)), truth);
    auto read = book->absorb(reader, {}, [&] { return journal->commit(); });
    ASSERT_TRUE(read) << read.error().message;
    ASSERT_EQ(rows(*book), truth) << "round " << round;
  }
  journal.reset();
  ASSERT_TRUE(book->absorb(reader));
  EXPECT_EQ(rows(*book), truth);
  EXPECT_TRUE(book->missing()->empty());
}

TEST_F(RealJournal, EveryCallOfAWriterThatNeverWaitsIsInTheBook) {
  auto journal = open();
  const journal::Reader reader(directory());
  Absorber absorber({.book = book_file(),
                     .interval = Milliseconds(1),
                     .release = [&](const std::string& stream,
                                    std::uint64_t below) { journal->release_below(stream, below); },
                     .make_durable = [&] { return journal->commit(); }},
                    reader);
  absorber.start();
  std::vector<Rollup> truths(2);
  std::vector<std::thread> writers;
  for (unsigned worker = 0; worker < 2; ++worker)
    writers.emplace_back([&, worker] {
      CallMix mix(10 + worker);
      for (int i = 0; i < 3'000; ++i) {
        usage::CallBegin begin = mix.begin(0);
        std::optional<journal::OpenCall> open;
        while (!(open = journal::begin_call(journal->stream(worker), begin)))
          std::this_thread::yield();  // the next segment
        usage::CallEnd end = mix.end(begin);
        while (!journal->stream(worker).end_call(*open, end)) std::this_thread::yield();
        CallMix::count(truths[worker], begin, end);
      }
    });
  for (std::thread& writer : writers) writer.join();
  absorber.stop();
  EXPECT_EQ(absorber.status().trouble, "");
  Rollup truth = truths[0];
  for (const auto& [key, sums] : truths[1]) truth[key].merge(sums);
  EXPECT_EQ(rows(*book()), truth);
}

TEST_F(RealJournal, CallsCutOffByAKillAreBilledAsFarAsTheyHadCome) {
  Rollup truth;
  usage::CallBegin sent, charged, begun;
  for (bool absorb_before_recovery : {false, true}) {
    SCOPED_TRACE(absorb_before_recovery);
    fs::remove_all(directory());
    fs::remove(book_file());
    CallMix plan(20);
    sent = plan.begin(0), charged = plan.begin(0), begun = plan.begin(0);
    sent.operations = {{"Case", "read", "", "customer", 2}};
    const pid_t child = ::fork();
    if (child == 0) {
      auto opened = journal::Journal::open(options(2));
      if (!opened) ::_exit(1);
      journal::Stream& stream = (*opened)->stream(0);
      CallMix mix(20);
      usage::CallBegin one = mix.begin(0), two = mix.begin(0), three = mix.begin(0);
      one.operations = {{"Case", "read", "", "customer", 2}};
      auto first = journal::begin_call(stream, one), second = journal::begin_call(stream, two),
           third = journal::begin_call(stream, three);
      if (!first || !second || !third) ::_exit(1);
      stream.charged(*first);
      stream.sent(*first);
      stream.charged(*second);
      ::_exit(0);  // no destructor: as by kill -9
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_EQ(WEXITSTATUS(status), 0);

    auto book = this->book();
    const journal::Reader reader(directory());
    if (absorb_before_recovery) {
      ASSERT_TRUE(book->absorb(reader));
      EXPECT_TRUE(rows(*book).empty());
    }
    auto journal = open(3);
    EXPECT_EQ(journal->recovery().interrupted, 1u);
    ASSERT_TRUE(book->absorb(reader, {}, [&] { return journal->commit(); }));
    truth.clear();
    CallMix::count(truth, sent,
                   usage::CallEnd{.outcome = usage::CallOutcome::interrupted, .units = CallMix::count(sent)});
    CallMix::count(truth, charged, usage::CallEnd{.outcome = usage::CallOutcome::void_charged});
    CallMix::count(truth, begun, usage::CallEnd{.outcome = usage::CallOutcome::void_maybe});
    std::uint64_t calls = 0, interrupted = 0;
    for (const auto& [key, sums] : rows(*book)) calls += sums.calls, interrupted += sums.interrupted;
    EXPECT_EQ(calls, CallMix::count(sent));
    EXPECT_EQ(interrupted, CallMix::count(sent));
    EXPECT_EQ(rows(*book), truth);
    EXPECT_TRUE(book->missing()->empty());
  }
}

TEST_F(RealJournal, DamageNamesTheFileTheOffsetAndWhatIsLeftOut) {
  Rollup truth;
  {
    auto journal = open();
    CallMix mix(30);
    for (int i = 0; i < 40; ++i) call(mix, journal->stream(0), truth);
    Rollup ignored;
    for (int i = 0; i < 40; ++i) call(mix, journal->stream(1), truth);
  }
  const std::string segment = directory() + "/0-0000000001.log";
  {
    std::fstream file(segment, std::ios::in | std::ios::out | std::ios::binary);
    ASSERT_TRUE(file);
    file.seekp(3'000);
    file.put('\x5a').put('\x5a').put('\x5a');
  }
  auto book = this->book();
  auto read = book->absorb(journal::Reader(directory()));
  ASSERT_FALSE(read);
  EXPECT_THAT(read.error().message, HasSubstr(segment));
  EXPECT_THAT(read.error().message, HasSubstr(".log, byte "));
  EXPECT_THAT(read.error().message, HasSubstr("of stream 0 are left out"));
  ASSERT_FALSE(book->missing()->empty());
  EXPECT_EQ(book->missing()->front().stream, "0");
  EXPECT_EQ(book->missing()->front().last, 80u);
  const auto marks = book->watermarks();
  for (const Watermark& mark : *marks) {
    if (mark.stream != "1") continue;
    EXPECT_EQ(mark.entry, 80u);
  }

  // Once an operator has said so, it is read around; what was lost stays named.
  std::ofstream(segment + ".damaged").put('\n');
  auto around = book->absorb(journal::Reader(directory()));
  ASSERT_TRUE(around) << around.error().message;
  EXPECT_FALSE(book->missing()->empty());
  const auto marks_around = book->watermarks();
  for (const Watermark& mark : *marks_around) EXPECT_GE(mark.entry, mark.stream == "control" ? 1u : 80u);
}

}  // namespace
}  // namespace tollgate::billing
