#include "metering/journal/open_table.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace tollgate::journal {
namespace {

constexpr std::string_view kMagic = "TGOPEN01";
constexpr std::uint64_t kHeaderBytes = 16, kPlaceBytes = 16;

std::uint64_t* word(char* at) {
  return reinterpret_cast<std::uint64_t*>(at);
}

}  // namespace

Result<OpenTable> OpenTable::open(const std::string& path, std::uint32_t places, const DiskCalls& calls) {
  auto mapping = map_allocated(path, kHeaderBytes + places * kPlaceBytes, calls);
  if (!mapping) return std::unexpected(mapping.error());
  OpenTable table;
  char* data = mapping->data();
  if (*word(data) != 0 && std::memcmp(data, kMagic.data(), kMagic.size()) != 0)
    return fail(Origin::self, "journal: " + path +
                                  " is not a table of open calls; the calls in it are lost if it is removed");
  std::memcpy(data, kMagic.data(), kMagic.size());
  table.places_ = static_cast<std::uint32_t>((mapping->size() - kHeaderBytes) / kPlaceBytes);
  std::memcpy(data + 8, &table.places_, sizeof table.places_);
  table.mapping_ = std::move(*mapping);
  table.free_.reserve(table.places_);
  for (std::uint32_t place = table.places_; place-- > 0;)
    if (*word(table.at(place)) == 0) table.free_.push_back(place);
  return table;
}

char* OpenTable::at(std::uint32_t place) const {
  return mapping_.data() + kHeaderBytes + place * kPlaceBytes;
}

std::uint32_t OpenTable::begin(std::uint64_t call, std::uint32_t units) {
  if (free_.empty()) return UINT32_MAX;
  const std::uint32_t place = free_.back();
  free_.pop_back();
  std::memcpy(at(place) + 8, &units, sizeof units);
  set(place, call, CallState::begun);
  return place;
}

void OpenTable::set(std::uint32_t place, std::uint64_t call, CallState state) {
  __atomic_store_n(word(at(place)), call << 2 | std::to_underlying(state), __ATOMIC_RELEASE);
}

void OpenTable::release(std::uint32_t place) {
  __atomic_store_n(word(at(place)), 0, __ATOMIC_RELEASE);
  free_.push_back(place);
}

std::uint64_t OpenTable::call(std::uint32_t place) const {
  return place < places_ ? *word(at(place)) >> 2 : 0;
}

std::vector<OpenTable::Found> OpenTable::found() const {
  std::vector<Found> found;
  for (std::uint32_t place = 0; place < places_; ++place) {
    const std::uint64_t value = *word(at(place));
    if (value == 0) continue;
    std::uint32_t units;
    std::memcpy(&units, at(place) + 8, sizeof units);
    found.push_back({place, value >> 2, static_cast<CallState>(value & 3), units});
  }
  std::ranges::sort(found, {}, &Found::call);
  return found;
}

}  // namespace tollgate::journal
