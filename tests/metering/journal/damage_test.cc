// Bytes that are not what was written: found and named, or harmless; never a crash, never a wrong entry.
#include <gtest/gtest.h>

#include <filesystem>

#include "metering/journal/recovery.h"
#include "metering/journal/segment.h"
#include "tests/metering/journal/support/journal_directory.h"

namespace tollgate::journal {
namespace {

constexpr std::uint64_t kEntries = 12;

// A journal of one small, cleanly closed segment; its file.
std::string make_segment(const TempDirectory& temp) {
  {
    auto journal = must_open(small_journal(temp.journal()));
    for (std::uint64_t i = 1; i <= kEntries; ++i) {
      auto end = done(static_cast<std::uint32_t>(i));
      EXPECT_TRUE(journal->stream(0).append(end));
    }
  }
  return files_of(temp.journal(), "0").at(0);
}

// What is read is a beginning of what was written.
bool is_prefix(const std::vector<Entry>& entries) {
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const auto end = usage::decode_call_end(entries[i].body);
    if (entries[i].number != i + 1 || !end || end->units != i + 1) return false;
  }
  return true;
}

TEST(Damage, EveryByteFlippedInAClosedSegmentIsFoundOrHarmless) {
  const TempDirectory temp;
  const std::string file = make_segment(temp), whole = bytes_of_file(file);
  std::size_t found = 0, harmless = 0;
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const int flip : {0x01, 0xff}) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ flip);
      write_file(file, damaged);
      std::string error;
      const auto entries = entries_of(temp.journal(), "0", &error);
      ASSERT_TRUE(is_prefix(entries)) << "byte " << at;
      if (error.empty()) {
        ASSERT_EQ(entries.size(), kEntries) << "byte " << at << " hides entries and nobody says so";
        ++harmless;
      } else {
        ASSERT_NE(error.find(file), std::string::npos) << error;
        ++found;
      }
      ASSERT_TRUE(Reader(temp.journal()).streams());
    }
  }
  EXPECT_GT(found, whole.size());
  EXPECT_LT(harmless, found);
}

TEST(Damage, EveryCutOfAClosedSegmentIsFound) {
  const TempDirectory temp;
  const std::string file = make_segment(temp), whole = bytes_of_file(file);
  for (std::size_t size = 1; size + 8 < whole.size(); ++size) {
    write_file(file, std::string_view(whole).substr(0, size));
    std::string error;
    const auto entries = entries_of(temp.journal(), "0", &error);
    ASSERT_FALSE(error.empty()) << "cut at " << size;
    ASSERT_TRUE(is_prefix(entries));
  }
}

TEST(Damage, SegmentThatIsGoneFromTheMiddleIsFound) {
  const TempDirectory temp;
  for (int life = 0; life < 3; ++life) make_segment(temp);
  const auto files = files_of(temp.journal(), "0");
  ASSERT_EQ(files.size(), 3u);
  std::filesystem::remove(files[1]);
  std::string error;
  EXPECT_EQ(entries_of(temp.journal(), "0", &error).size(), kEntries);
  EXPECT_NE(error.find("entries are missing"), std::string::npos) << error;
  // The operator says that it is known: reading goes on behind it.
  write_file(damage_mark(files[2]), "");
  const auto entries = entries_of(temp.journal(), "0");
  ASSERT_EQ(entries.size(), 2 * kEntries);
  EXPECT_EQ(entries[kEntries].number, 2 * kEntries + 1);
}

TEST(Damage, KnownDamageIsReadAround) {
  const TempDirectory temp;
  const std::string file = make_segment(temp);
  std::string bytes = bytes_of_file(file);
  bytes[kSegmentHeaderBytes + usage::kEntryHeaderBytes + 2] ^= 1;  // the first entry's body
  write_file(file, bytes);
  write_file(damage_mark(file), "");
  const auto entries = entries_of(temp.journal(), "0");
  ASSERT_EQ(entries.size(), kEntries - 1);
  EXPECT_EQ(entries.front().number, 2u);
  EXPECT_EQ(entries.back().number, kEntries);
}

// What a process that was killed left, with any byte of it flipped: the next start survives it, goes on behind it, and every
// entry it can still read is one that was written.
TEST(Damage, StartSurvivesEveryFlippedByteOfASegmentThatWasBeingWritten) {
  const TempDirectory original;
  ASSERT_TRUE(killed_after([&] {
    Journal* journal = must_open(small_journal(original.journal())).release();  // never closed
    for (std::uint64_t i = 1; i <= kEntries; ++i) {
      auto end = done(static_cast<std::uint32_t>(i));
      journal->stream(0).append(end);
    }
  }));
  const std::string whole = bytes_of_file(files_of(original.journal(), "0").at(0));
  const std::size_t used = kSegmentHeaderBytes + kEntries * 64;
  std::uint64_t reported = 0;
  for (std::size_t at = 0; at < used; at += 29) {
    const TempDirectory temp;
    std::filesystem::copy(original.journal(), temp.journal(), std::filesystem::copy_options::recursive);
    const std::string file = files_of(temp.journal(), "0").at(0);
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0xff);
    write_file(file, damaged);
    std::uint64_t fresh = 0;
    {
      auto journal = must_open(small_journal(temp.journal()));
      reported += journal->recovery().damaged_segments;
      auto end = done(1'000);
      ASSERT_TRUE(journal->stream(0).append(end));
      fresh = 1;
    }
    const auto entries = entries_of(temp.journal(), "0");
    std::uint64_t last = 0;
    for (const Entry& entry : entries) {
      EXPECT_GT(entry.number, last);
      last = entry.number;
      const auto end = usage::decode_call_end(entry.body);
      ASSERT_TRUE(end);
      if (end->units == 1'000)
        EXPECT_GT(entry.number, kEntries) << "a number used twice";
      else
        EXPECT_EQ(end->units, entry.number);
    }
    ASSERT_GE(entries.size(), fresh);
  }
  EXPECT_GT(reported, used / 29 / 2);
}

TEST(Damage, DamagedLiveSegmentCostsTheCellsTheirTrust) {
  const TempDirectory temp;
  std::uint32_t incarnation = 0;
  {
    incarnation = must_open(small_journal(temp.journal()))->incarnation();
  }
  ASSERT_TRUE(killed_after([&] {
    Journal* journal = must_open(small_journal(temp.journal())).release();  // never closed
    for (int i = 0; i < 3; ++i) {
      auto end = done();
      journal->stream(0).append(end);
    }
  }));
  const std::string file = files_of(temp.journal(), "0").back();
  std::string bytes = bytes_of_file(file);
  bytes[kSegmentHeaderBytes + 30] ^= 1;
  write_file(file, bytes);
  std::vector<std::string> errors;
  {
    auto options = small_journal(temp.journal());
    options.log = [&](std::string_view level, std::string_view text) {
      if (level == "error") errors.emplace_back(text);
    };
    auto journal = must_open(options);
    EXPECT_NE(journal->incarnation(), incarnation);
    EXPECT_EQ(journal->recovery().damaged_segments, 1u);
    ASSERT_EQ(errors.size(), 1u);
    EXPECT_NE(errors[0].find(file), std::string::npos) << errors[0];
  }
  EXPECT_TRUE(damage_is_known(file));
  EXPECT_EQ(must_open(small_journal(temp.journal()))->recovery().damaged_segments, 0u);  // said once
  EXPECT_EQ(entries_of(temp.journal(), "0").size(), 2u);
}

}  // namespace
}  // namespace tollgate::journal
