// What the journal's tests share: a directory that goes away, small journals, a process that is killed at a given point, and
// all entries of a directory as values.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "metering/journal/journal.h"

namespace tollgate::journal {

class TempDirectory {
 public:
  TempDirectory();
  ~TempDirectory();
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;
  const std::string& path() const { return path_; }
  std::string journal() const { return path_ + "/journal"; }  // not there yet

 private:
  std::string path_;
};

// 64 KiB segments, no thread that does anything by itself for an hour, a fixed boot.
JournalOptions small_journal(const std::string& directory);
std::unique_ptr<Journal> must_open(JournalOptions options);

// Runs `life` in a process of its own, which then dies by SIGKILL; true when it came so far.
bool killed_after(const std::function<void()>& life);

struct Entry {
  std::uint64_t number = 0;
  usage::EntryKind kind{};
  std::string body;
};
// All entries of a stream; a read error is in `error`.
std::vector<Entry> entries_of(const std::string& directory, const std::string& stream,
                              std::string* error = nullptr);
// Numbers rise by one, from the first.
bool without_gaps(const std::vector<Entry>& entries);

struct CallStory {
  std::vector<usage::CallBegin> begins;
  std::vector<usage::CallEnd> ends;
};
// By call number; ends that stand alone are under 0.
std::map<std::uint64_t, CallStory> calls_of(const std::string& directory, const std::string& stream);

usage::CallBegin call_of(const std::string& user, std::uint32_t units = 1);
usage::CallEnd done(std::uint32_t units = 1);

std::vector<std::string> files_of(const std::string& directory,
                                  const std::string& stream);  // its segments, oldest first
std::string bytes_of_file(const std::string& path);
void write_file(const std::string& path, std::string_view bytes);

}  // namespace tollgate::journal
