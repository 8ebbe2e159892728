#include "metering/journal/disk.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>

namespace tollgate::journal {

File::~File() {
  if (number_ >= 0) ::close(number_);
}

Mapping::~Mapping() {
  if (at_ != nullptr) ::munmap(at_, size_);
}

Result<Mapping> Mapping::map(const File& file, std::uint64_t size, bool writable, const std::string& name) {
  void* at =
      ::mmap(nullptr, size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, file.number(), 0);
  if (at == MAP_FAILED) return system_error("map", name, errno);
  Mapping mapping;
  mapping.at_ = static_cast<char*>(at);
  mapping.size_ = size;
  return mapping;
}

void Mapping::prepare(std::uint64_t from, std::uint64_t to) const {
  static const auto kPage = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  from &= ~(kPage - 1);
  to = std::min(to, size_);
  if (from < to) ::madvise(at_ + from, to - from, MADV_POPULATE_WRITE);
}

void Mapping::no_read_ahead() const {
  ::madvise(at_, size_, MADV_RANDOM);
}

DiskCalls complete(DiskCalls calls) {
  if (!calls.sync) calls.sync = [](int file) { return ::fdatasync(file); };
  if (!calls.allocate)
    calls.allocate = [](int file, std::uint64_t bytes) {
      int failed;
      do failed = ::posix_fallocate(file, 0, static_cast<off_t>(bytes));
      while (failed == EINTR);
      return failed;
    };
  if (!calls.unix_ms)
    calls.unix_ms = [] {
      return static_cast<std::int64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                           std::chrono::system_clock::now().time_since_epoch())
                                           .count());
    };
  return calls;
}

std::unexpected<Error> system_error(std::string_view what, const std::string& name, int number) {
  char buffer[128];
  const bool room = number == ENOSPC || number == EDQUOT || number == EFBIG;
  return fail(Origin::self,
              fmt::format("journal: {} {}: {}", what, name, ::strerror_r(number, buffer, sizeof buffer)),
              room);
}

Result<File> open_file(const std::string& name, int flags) {
  File file(::open(name.c_str(), flags | O_CLOEXEC, 0600));
  if (!file) return system_error("open", name, errno);
  return file;
}

Result<std::uint64_t> file_size(const File& file, const std::string& name) {
  struct stat status{};
  if (::fstat(file.number(), &status) != 0) return system_error("size of", name, errno);
  return static_cast<std::uint64_t>(status.st_size);
}

Result<std::string> read_text(const std::string& name) {
  auto file = open_file(name, O_RDONLY);
  if (!file) return std::unexpected(file.error());
  std::string text(64 << 10, '\0');
  std::size_t size = 0;
  for (;;) {
    const ssize_t got = ::read(file->number(), text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return system_error("read", name, errno);
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  text.resize(size);
  return text;
}

Result<void> sync_directory(const std::string& directory) {
  auto file = open_file(directory, O_RDONLY | O_DIRECTORY);
  if (!file) return std::unexpected(file.error());
  if (::fsync(file->number()) != 0) return system_error("sync", directory, errno);
  return {};
}

Result<void> replace_text(const std::string& directory, const std::string& name, std::string_view text) {
  const std::string target = directory + "/" + name, fresh = target + ".new";
  {
    auto file = open_file(fresh, O_WRONLY | O_CREAT | O_TRUNC);
    if (!file) return std::unexpected(file.error());
    std::string_view left = text;
    while (!left.empty()) {
      const ssize_t put = ::write(file->number(), left.data(), left.size());
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) return system_error("write", fresh, errno);
      left.remove_prefix(static_cast<std::size_t>(put));
    }
    if (::fsync(file->number()) != 0) return system_error("sync", fresh, errno);
  }
  if (std::rename(fresh.c_str(), target.c_str()) != 0) return system_error("rename", fresh, errno);
  return sync_directory(directory);
}

Result<Mapping> map_allocated(const std::string& name, std::uint64_t size, const DiskCalls& calls) {
  auto file = open_file(name, O_RDWR | O_CREAT);
  if (!file) return std::unexpected(file.error());
  auto present = file_size(*file, name);
  if (!present) return std::unexpected(present.error());
  if (size < *present) size = *present;
  if (const int failed = calls.allocate(file->number(), size); failed != 0)
    return system_error(fmt::format("allocate {} bytes for", size), name, failed);
  return Mapping::map(*file, size, true, name);
}

}  // namespace tollgate::journal
