#include "metering/journal/segment_list.h"

#include <cstring>
#include <string_view>

namespace tollgate::journal {
namespace {

constexpr std::string_view kNumbersMagic = "TGOPNR01";
constexpr std::uint64_t kNumbersHeader = 16;

}  // namespace

void OpIndex::Range::add(std::uint64_t seq) {
  if (first == 0 || seq < first) first = seq;
  if (seq > last) last = seq;
}

// ---- SegmentList

void SegmentList::add(SegmentRecord record) {
  const std::lock_guard lock(mutex_);
  records_.push_back(std::move(record));
}

void SegmentList::close(std::uint64_t number, std::uint64_t last, std::uint64_t bytes, std::int64_t closed_ms,
                        std::shared_ptr<const OpIndex> ops) {
  const std::lock_guard lock(mutex_);
  for (SegmentRecord& record : records_)
    if (record.number == number) {
      record.last = last;
      record.bytes = bytes;
      record.closed_ms = closed_ms;
      if (ops) record.ops = std::move(ops);
      return;
    }
}

void SegmentList::set_ops(std::uint64_t number, std::shared_ptr<const OpIndex> ops) {
  const std::lock_guard lock(mutex_);
  for (SegmentRecord& record : records_)
    if (record.number == number) record.ops = ops;
}

void SegmentList::forget(std::uint64_t number) {
  const std::lock_guard lock(mutex_);
  std::erase_if(records_, [&](const SegmentRecord& record) { return record.number == number; });
}

std::vector<SegmentRecord> SegmentList::all() const {
  const std::lock_guard lock(mutex_);
  return records_;
}

std::uint64_t SegmentList::bytes() const {
  const std::lock_guard lock(mutex_);
  std::uint64_t sum = 0;
  for (const SegmentRecord& record : records_) sum += record.bytes;
  return sum;
}

// ---- OpNumbers

Result<OpNumbers> OpNumbers::open(const std::string& path, std::uint32_t incarnation,
                                  const DiskCalls& calls) {
  auto mapping = map_allocated(path, kNumbersHeader + quota::kPartitions * sizeof(std::uint64_t), calls);
  if (!mapping) return std::unexpected(mapping.error());
  OpNumbers numbers;
  char* at = mapping->data();
  std::uint32_t owner;
  std::memcpy(&owner, at + 8, sizeof owner);
  if (std::memcmp(at, kNumbersMagic.data(), kNumbersMagic.size()) != 0 || owner != incarnation) {
    std::memset(at, 0, mapping->size());
    std::memcpy(at, kNumbersMagic.data(), kNumbersMagic.size());
    std::memcpy(at + 8, &incarnation, sizeof incarnation);
  }
  numbers.mapping_ = std::move(*mapping);
  return numbers;
}

std::uint64_t OpNumbers::last(unsigned partition) const {
  return __atomic_load_n(reinterpret_cast<std::uint64_t*>(mapping_.data() + kNumbersHeader) + partition,
                         __ATOMIC_RELAXED);
}

void OpNumbers::set(unsigned partition, std::uint64_t seq) {
  __atomic_store_n(reinterpret_cast<std::uint64_t*>(mapping_.data() + kNumbersHeader) + partition, seq,
                   __ATOMIC_RELAXED);
}

}  // namespace tollgate::journal
