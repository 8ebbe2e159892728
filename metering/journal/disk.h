// The few things the journal asks of the operating system: files that close themselves, mapped memory, durable text
// files; and the calls that can fail in ways which a test must be able to provoke.
//
// Durability of mapped files: on Linux a store into a shared mapping marks the page dirty in the page cache, and
// fdatasync() of the file writes all its dirty pages back, however they were made dirty; msync(MS_SYNC) does the same for
// a range. So one fdatasync() a file is the commit; no msync() is needed. A kill -9 loses nothing of the page cache.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "metering/base/error.h"

namespace tollgate::journal {

// Empty members are the system's own calls. Tests put a failing disk or another date here.
struct DiskCalls {
  std::function<int(int file)> sync;                           // fdatasync: 0, or -1 with errno
  std::function<int(int file, std::uint64_t bytes)> allocate;  // posix_fallocate from 0: 0, or an errno value
  std::function<std::int64_t()> unix_ms;                       // calendar clock
  // Called by the thread that commits, once an interval, after the commit and the deletions that follow it (a round);
  // not when it woke up in between for space. For tests that count rounds.
  std::function<void()> round_ended;
};
DiskCalls complete(DiskCalls calls);  // what is empty becomes the system's own

class File {
 public:
  File() = default;
  explicit File(int number) : number_(number) {}
  File(File&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  File& operator=(File&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~File();
  int number() const { return number_; }
  explicit operator bool() const { return number_ >= 0; }

 private:
  int number_ = -1;
};

class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept
      : at_(std::exchange(other.at_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept {
    std::swap(at_, other.at_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Mapping();
  // Shared; `size` > 0 and not beyond the end of the file.
  static Result<Mapping> map(const File& file, std::uint64_t size, bool writable, const std::string& name);
  char* data() const { return at_; }
  std::uint64_t size() const { return size_; }
  std::string_view bytes() const { return {at_, size_}; }
  // Makes the pages of bytes `from` to `to` ready to be stored into, as far as they are mapped; nothing changes in them. The
  // kernel takes note of the first store into each page after it was written back, and that store may wait for the disk:
  // so it need not be the worker's. A kernel older than 5.14 does nothing.
  void prepare(std::uint64_t from, std::uint64_t to) const;
  // Pages are touched one by one: no read-ahead, which fills megabytes with zeros while the first of them is waited for.
  void no_read_ahead() const;
  explicit operator bool() const { return at_ != nullptr; }

 private:
  char* at_ = nullptr;
  std::uint64_t size_ = 0;
};

// "open /var/lib/tollgate/lock: Permission denied"; may_retry when time can help (no space).
std::unexpected<Error> system_error(std::string_view what, const std::string& name, int number);

Result<File> open_file(const std::string& name, int flags);  // created files have mode 0600; O_CLOEXEC always
Result<std::uint64_t> file_size(const File& file, const std::string& name);
Result<std::string> read_text(const std::string& name);  // at most 64 KiB
Result<void> sync_directory(const std::string& directory);
// All of it or none of it, durable on return: a new file that takes the place of the old.
Result<void> replace_text(const std::string& directory, const std::string& name, std::string_view text);
// A mapped file of at least `size` bytes, every byte with room on the disk, so that a full disk is an error here and not a
// SIGBUS at the first touch. New bytes are 0.
Result<Mapping> map_allocated(const std::string& name, std::uint64_t size, const DiskCalls& calls);

}  // namespace tollgate::journal
