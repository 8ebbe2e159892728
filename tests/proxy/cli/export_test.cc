// `tollgate export` as its user sees it, over real journals; the store is a list.
#include "proxy/cli/export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "metering/journal/journal.h"
#include "proxy/cli/verify.h"
#include "tests/metering/journal/support/begin_call.h"

namespace tollgate::cli {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr std::int64_t kHour = 490'000;  // 2025-11-24T16:00Z
constexpr std::int64_t kBucket = kHour * 60 + 5;
constexpr Milliseconds kWindow{86'400'000}, kBucketLength{60'000};
const usage::AccountName kAnn{"q:{p017}:acme:u:ann", "daily"};

// The store's side of a comparison.
class ListedCounts final : public usage::StoredCounts {
 public:
  explicit ListedCounts(usage::StoredState state) : state_(std::move(state)) {}
  Result<usage::StoredState> read() override { return state_; }

 private:
  usage::StoredState state_;
};

class ExportCommand : public testing::Test {
 protected:
  ExportCommand() {
    std::string pattern = (fs::temp_directory_path() / "tollgate-export-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
    fs::create_directories(folder_ / "out");
    arguments_.journals = {path("journal")};
    arguments_.to = path("out");
    arguments_.period = "2025-11-24";
    arguments_.offline = true;
  }
  ~ExportCommand() override { fs::remove_all(folder_); }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  // A journal with `calls` calls of ann, all told to the store.
  void write_journal(const std::string& name = "journal", std::uint64_t seed = 1, int calls = 3) {
    journal::JournalOptions options;
    options.directory = path(name);
    options.segment_bytes = 64 << 10;
    options.reserve_bytes = 16 << 10;
    options.cells = 64;
    options.open_calls = 64;
    options.boot_id = "same";
    options.seed = seed;
    auto journal = journal::Journal::open(options);
    ASSERT_TRUE(journal) << journal.error().message;
    journal::Stream& stream = (*journal)->stream(0);
    for (int i = 0; i < calls; ++i) {
      usage::CallBegin begin{.time_ms = kBucket * 60'000 + i, .user = "ann", .tenant = "acme"};
      begin.operations.push_back({"Case", "read", "", "customer", 1});
      begin.charged.push_back({kAnn.subject_key, kAnn.field, 1});
      auto open = journal::begin_call(stream, begin);
      ASSERT_TRUE(open);
      usage::CallEnd end{.reason = "ok", .status = 200, .units = 1, .bytes_out = 10};
      end.buckets = {kBucket};
      ASSERT_TRUE(stream.end_call(*open, end));
    }
    usage::OpEntry op{
        .incarnation = (*journal)->incarnation(), .partition = 17, .seq = 1, .subject_key = kAnn.subject_key};
    op.accounts.push_back({.field = kAnn.field,
                           .window_ms = 86'400'000,
                           .bucket_ms = 60'000,
                           .limit = 1'000,
                           .uses = {{kBucket, calls}}});
    ASSERT_TRUE(stream.append(op));
  }

  int run(std::int64_t now_hour = kHour + 100) {
    std::ostringstream out, err;
    Console console{.out = out, .err = err};
    console.now = UnixTime(std::chrono::hours(now_hour));
    const int code = run_export(arguments_, console);
    out_ = out.str();
    err_ = err.str();
    return code;
  }
  std::string read(const std::string& name) const {
    std::ifstream in(path(name), std::ios::binary);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
  }

  fs::path folder_;
  ExportArguments arguments_;
  std::string out_, err_;
};

TEST_F(ExportCommand, WritesFileAndManifestAndShowsWhatItWrote) {
  write_journal();
  EXPECT_EQ(run(), kExitOk) << err_;
  EXPECT_THAT(out_, HasSubstr("FILE"));
  EXPECT_THAT(out_, HasSubstr(path("out/2025-11-24.csv") + "  1     0            3      yes"));
  EXPECT_THAT(read("out/2025-11-24.csv"), HasSubstr("\"ann\",\"customer\",\"Case\",\"read\",3,0,0,0,"));
  EXPECT_THAT(read("out/2025-11-24.csv.manifest.json"), HasSubstr("\"final\":true"));
  EXPECT_TRUE(fs::exists(path("journal/usage.sqlite")));
}

TEST_F(ExportCommand, JsonGoesToStandardOutputAndNdjsonToTheFile) {
  write_journal();
  arguments_.format = Format::json;
  arguments_.file_format = billing::Book::Format::ndjson;
  EXPECT_EQ(run(), kExitOk) << err_;
  EXPECT_THAT(
      out_, HasSubstr("\"rows\":1,\"corrections\":0,\"calls\":3,\"final\":true,\"missing\":0,\"sha256\":\""));
  EXPECT_THAT(read("out/2025-11-24.ndjson"), HasSubstr("\"user\":\"ann\""));
}

TEST_F(ExportCommand, RunTwiceItWritesTheSameBytes) {
  write_journal();
  ASSERT_EQ(run(), kExitOk);
  const std::string first = read("out/2025-11-24.csv"), manifest = read("out/2025-11-24.csv.manifest.json");
  ASSERT_EQ(run(kHour + 500), kExitOk);
  EXPECT_EQ(read("out/2025-11-24.csv"), first);
  EXPECT_EQ(read("out/2025-11-24.csv.manifest.json"), manifest);
}

TEST_F(ExportCommand, PeriodThatIsNotOverIsAPreview) {
  write_journal();
  EXPECT_EQ(run(kHour + 1), kExitOk);
  EXPECT_THAT(err_, HasSubstr("the period is not over"));
}

TEST_F(ExportCommand, SeveralJournalsNeedABookAndAddUp) {
  write_journal("journal", 1, 3);
  write_journal("other", 2, 4);
  arguments_.journals = {path("journal"), path("other")};
  EXPECT_EQ(run(), kExitUsage);
  EXPECT_THAT(err_, HasSubstr("--book"));
  arguments_.book = path("all.sqlite");
  EXPECT_EQ(run(), kExitOk) << err_;
  EXPECT_THAT(read("out/2025-11-24.csv"), HasSubstr("\"ann\",\"customer\",\"Case\",\"read\",7,0,0,0,"));
}

TEST_F(ExportCommand, MistakesAreNamed) {
  EXPECT_EQ(run(), kExitFailed);
  EXPECT_THAT(err_, HasSubstr(path("journal") + ": no such directory"));
  fs::create_directories(path("journal"));
  EXPECT_EQ(run(), kExitFailed);
  EXPECT_THAT(err_, HasSubstr("is not a journal"));
  write_journal();
  arguments_.to = path("nowhere");
  EXPECT_EQ(run(), kExitFailed);
  EXPECT_THAT(err_, HasSubstr("nowhere: no such directory"));
  arguments_.to = path("out");
  arguments_.period = "2025-13";
  EXPECT_EQ(run(), kExitUsage);
  EXPECT_THAT(err_, HasSubstr("\"2025-13\" is no period"));
  arguments_.period = "2026-01";
  EXPECT_EQ(run(), kExitUsage);
  EXPECT_THAT(err_, HasSubstr("begins in the future"));
  arguments_.period = "";
  EXPECT_EQ(run(), kExitUsage);
  EXPECT_THAT(err_, HasSubstr("--period"));
}

TEST_F(ExportCommand, DamageIsNamedTheRestIsWrittenAndTheCodeSaysSo) {
  write_journal("journal", 1, 40);
  {
    std::fstream file(path("journal/0-0000000001.log"), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(3'000);
    file.put('\x5a').put('\x5a').put('\x5a');
  }
  EXPECT_EQ(run(), kExitFailed);
  EXPECT_THAT(err_, HasSubstr(path("journal/0-0000000001.log") + ", byte "));
  EXPECT_THAT(err_, HasSubstr("are left out"));
  EXPECT_THAT(err_, HasSubstr("entries are missing at"));
  EXPECT_TRUE(fs::exists(path("out/2025-11-24.csv")));
}

TEST_F(ExportCommand, OfflineVerificationComparesJournalAndBook) {
  write_journal();
  arguments_.verify = true;
  arguments_.period = "";
  EXPECT_EQ(run(), kExitOk) << err_;
  EXPECT_THAT(err_, HasSubstr("--offline"));
  EXPECT_THAT(err_, HasSubstr("equal: 1 accounts with 3 units, 1 rows, 0 differences"));
}

TEST_F(ExportCommand, AChangedExportFailsTheVerification) {
  write_journal();
  ASSERT_EQ(run(), kExitOk);
  std::ofstream(path("out/2025-11-24.csv"), std::ios::app) << "x";
  arguments_.verify = true;
  arguments_.period = "";
  EXPECT_EQ(run(), kExitFailed);
  EXPECT_THAT(err_, HasSubstr("is not the file that was exported"));
}

class Comparison : public ExportCommand {
 protected:
  Verification compare(std::uint64_t in_store) {
    auto book = billing::Book::open(path("book.sqlite"));
    EXPECT_TRUE(book);
    EXPECT_TRUE((*book)->absorb(journal::Reader(path("journal"))));
    usage::StoredState state{.now = Milliseconds((kHour + 1) * 3'600'000)};
    state.accounts.push_back({kAnn, kBucketLength, {{kBucket, in_store}}});
    ListedCounts stored(std::move(state));
    auto verification = verify({.book = **book, .journals = {path("journal")}, .stored = &stored});
    EXPECT_TRUE(verification) << verification.error().message;
    return *verification;
  }
  std::string shown(const Verification& verification, Format format) {
    std::ostringstream out, err;
    Console console{.out = out, .err = err};
    print_verification(verification, format, console);
    err_ = err.str();
    return out.str();
  }
};

TEST_F(Comparison, ThreeEqualCountsAreEqual) {
  write_journal();
  const Verification verification = compare(3);
  EXPECT_TRUE(verification.equal());
  EXPECT_FALSE(verification.serving);
  EXPECT_THAT(
      shown(verification, Format::json),
      HasSubstr(
          "{\"equal\":true,\"store\":\"compared\",\"serving\":false,\"accounts\":1,\"rows\":1,\"units\":3"));
}

TEST_F(Comparison, ADifferenceNamesAccountNumbersAndCalls) {
  write_journal();
  const Verification verification = compare(2);
  EXPECT_FALSE(verification.equal());
  const std::string table = shown(verification, Format::table);
  EXPECT_THAT(table, HasSubstr("q:{p017}:acme:u:ann daily"));
  EXPECT_THAT(table, HasSubstr("facts 3, ledger 3, ledger in the window 3, store 2"));
  EXPECT_THAT(table, HasSubstr("1 units are missing in the store"));
  EXPECT_THAT(table, HasSubstr("stream 0 calls 1-3"));
  EXPECT_THAT(err_, HasSubstr("NOT equal"));
  EXPECT_THAT(shown(verification, Format::json),
              HasSubstr("{\"name\":\"store\",\"units\":2,\"more\":0}],\"calls\":[{\"journal\":\""));
}

}  // namespace
}  // namespace tollgate::cli
