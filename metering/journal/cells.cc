#include "metering/journal/cells.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace tollgate::journal {
namespace {

constexpr std::uint64_t kHeaderBytes = 4096;

struct Header {
  char magic[8] = {'T', 'G', 'C', 'E', 'L', 'L', '0', '1'};
  std::uint32_t layout = 1;
  std::uint32_t incarnation = 0;
  std::uint64_t cells = 0;
  std::uint64_t cell_bytes = sizeof(quota::LeaseCell);
};

std::string path_of(const std::string& directory) {
  return directory + "/cells";
}

}  // namespace

Result<Cells> Cells::look(const std::string& directory) {
  const std::string path = path_of(directory);
  auto file = open_file(path, O_RDONLY);
  if (!file) return std::unexpected(file.error());
  auto size = file_size(*file, path);
  if (!size) return std::unexpected(size.error());
  const Header ours;
  Header header;
  if (*size < kHeaderBytes || ::pread(file->number(), &header, sizeof header, 0) != sizeof header ||
      std::memcmp(header.magic, ours.magic, sizeof ours.magic) != 0 || header.layout != ours.layout ||
      header.cell_bytes != ours.cell_bytes || header.cells > (*size - kHeaderBytes) / ours.cell_bytes)
    return fail(Origin::self, "journal: " + path + " does not hold accounts as this version keeps them");
  auto mapping = Mapping::map(*file, kHeaderBytes + header.cells * ours.cell_bytes, false, path);
  if (!mapping) return std::unexpected(mapping.error());
  Cells cells;
  cells.mapping_ = std::move(*mapping);
  return cells;
}

bool Cells::belongs(const std::string& directory, std::uint32_t incarnation) {
  const auto cells = look(directory);
  if (!cells) return false;
  Header header;
  std::memcpy(&header, cells->mapping_.data(), sizeof header);
  return header.incarnation == incarnation;
}

Result<Cells> Cells::open(const std::string& directory, std::uint32_t incarnation, std::size_t count,
                          bool anew, const DiskCalls& calls) {
  const std::string path = path_of(directory);
  if (anew && ::unlink(path.c_str()) != 0 && errno != ENOENT) return system_error("remove", path, errno);
  auto mapping = map_allocated(path, kHeaderBytes + count * sizeof(quota::LeaseCell), calls);
  if (!mapping) return std::unexpected(mapping.error());
  Header header;
  header.incarnation = incarnation;
  header.cells = (mapping->size() - kHeaderBytes) / sizeof(quota::LeaseCell);
  std::memcpy(mapping->data(), &header, sizeof header);
  Cells cells;
  cells.mapping_ = std::move(*mapping);
  return cells;
}

std::span<quota::LeaseCell> Cells::all() const {
  return {reinterpret_cast<quota::LeaseCell*>(mapping_.data() + kHeaderBytes),
          (mapping_.size() - kHeaderBytes) / sizeof(quota::LeaseCell)};
}

bool Cells::sync() {
  return ::msync(mapping_.data(), mapping_.size(), MS_SYNC) == 0;
}

}  // namespace tollgate::journal
