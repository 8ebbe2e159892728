#include "tests/metering/journal/support/journal_directory.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "metering/journal/segment.h"

namespace tollgate::journal {

TempDirectory::TempDirectory() {
  // Memory when there is some: what is tested is what was written, hundreds of starts long, not how long a disk takes.
  const char* wish = std::getenv("TMPDIR");
  const std::string base = wish != nullptr && *wish != '\0'  ? wish
                           : ::access("/dev/shm", W_OK) == 0 ? "/dev/shm"
                                                             : "/tmp";
  path_ = base + "/tollgate-journal-XXXXXX";
  if (::mkdtemp(path_.data()) == nullptr) std::abort();
}

TempDirectory::~TempDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

JournalOptions small_journal(const std::string& directory) {
  JournalOptions options;
  options.directory = directory;
  options.segment_bytes = 64 << 10;
  options.reserve_bytes = 8 << 10;
  options.cells = 64;
  options.open_calls = 64;
  options.commit_interval = Milliseconds(3'600'000);
  options.boot_id = "boot-1";
  options.version = "test";
  return options;
}

std::unique_ptr<Journal> must_open(JournalOptions options) {
  auto journal = Journal::open(std::move(options));
  if (!journal) {
    std::fprintf(stderr, "%s\n", journal.error().message.c_str());
    std::abort();
  }
  return std::move(*journal);
}

bool killed_after(const std::function<void()>& life) {
  const pid_t child = ::fork();
  if (child == 0) {
    life();
    ::kill(::getpid(), SIGKILL);
    ::_exit(1);
  }
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child) return false;
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

std::vector<Entry> entries_of(const std::string& directory, const std::string& stream, std::string* error) {
  std::vector<Entry> entries;
  const auto read =
      Reader(directory).read(stream, 0, [&](const Reader::Position& at, const usage::EntryView& entry) {
        entries.push_back({at.number, entry.kind, std::string(entry.body)});
        return true;
      });
  if (error != nullptr)
    *error = read ? "" : read.error().message;
  else
    EXPECT_TRUE(read) << read.error().message;
  return entries;
}

bool without_gaps(const std::vector<Entry>& entries) {
  for (std::size_t i = 1; i < entries.size(); ++i)
    if (entries[i].number != entries[i - 1].number + 1) return false;
  return true;
}

std::map<std::uint64_t, CallStory> calls_of(const std::string& directory, const std::string& stream) {
  std::map<std::uint64_t, CallStory> calls;
  for (const Entry& entry : entries_of(directory, stream)) {
    if (entry.kind == usage::EntryKind::call_begin) {
      auto begin = usage::decode_call_begin(entry.body);
      EXPECT_TRUE(begin);
      calls[begin->call].begins.push_back(*begin);
    } else if (entry.kind == usage::EntryKind::call_end) {
      auto end = usage::decode_call_end(entry.body);
      EXPECT_TRUE(end);
      calls[end->call].ends.push_back(*end);
    }
  }
  return calls;
}

usage::CallBegin call_of(const std::string& user, std::uint32_t units) {
  usage::CallBegin begin;
  begin.user = user;
  begin.operations = {{"Case", "read", "cases", "portal", units}};
  begin.charged = {{"q:{p001}:acme:u:" + user, "daily", units}};
  return begin;
}

usage::CallEnd done(std::uint32_t units) {
  usage::CallEnd end;
  end.reason = "ok";
  end.status = 200;
  end.units = units;
  return end;
}

std::vector<std::string> files_of(const std::string& directory, const std::string& stream) {
  std::vector<std::string> files;
  const auto segments = list_segments(directory);
  EXPECT_TRUE(segments);
  for (const SegmentName& segment : *segments)
    if (segment.stream == stream) files.push_back(segment.path);
  return files;
}

std::string bytes_of_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_file(const std::string& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

}  // namespace tollgate::journal
