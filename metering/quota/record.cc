#include "metering/quota/record.h"

#include <algorithm>
#include <limits>

#include "metering/base/check.h"

namespace tollgate::quota {
namespace {

constexpr std::size_t kHeaderBytes = 31;
constexpr std::size_t kLeaseBytes = 16;
constexpr std::uint8_t kVersion = 1;
constexpr std::uint64_t kBucketMsMax = std::numeric_limits<std::uint32_t>::max();

constexpr std::int64_t kTimeMax = 1LL << 48;  // ms: the year 10889

std::uint64_t saturating_add(std::uint64_t a, std::uint64_t b) {
  return a >= kCountMax || b >= kCountMax - a ? kCountMax : a + b;
}

void put_little_endian(std::string& out, std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>((value >> (8 * i)) & 0xFF));
}

void put_varint(std::string& out, std::uint64_t value) {
  while (value >= 0x80) {
    out.push_back(static_cast<char>((value & 0x7F) | 0x80));
    value >>= 7;
  }
  out.push_back(static_cast<char>(value));
}

// Reads forward; after a wrong byte everything is 0 and ok() is false.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}

  std::uint64_t little_endian(int count) {
    std::uint64_t value = 0;
    for (int i = 0; i < count; ++i) value |= static_cast<std::uint64_t>(byte()) << (8 * i);
    return ok_ ? value : 0;
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 49; shift += 7) {
      std::uint64_t b = byte();
      value |= (b & 0x7F) << shift;
      if ((b & 0x80) != 0) continue;
      if (b == 0 && shift > 0) ok_ = false;  // not the shortest form
      if (value > kCountMax) ok_ = false;
      return ok_ ? value : 0;
    }
    ok_ = false;
    return 0;
  }
  bool at_end() const { return bytes_.empty(); }
  bool ok() const { return ok_; }

 private:
  std::uint8_t byte() {
    if (bytes_.empty()) {
      ok_ = false;
      return 0;
    }
    auto b = static_cast<std::uint8_t>(bytes_.front());
    bytes_.remove_prefix(1);
    return b;
  }
  std::string_view bytes_;
  bool ok_ = true;
};

std::unexpected<Error> damaged(std::string what) {
  return fail(Origin::store, "a quota record in the store is damaged: " + std::move(what));
}

}  // namespace

Milliseconds default_bucket(Milliseconds window) {
  return std::clamp(window / 1440, Milliseconds(100), Milliseconds(60'000));
}

RollingWindow::RollingWindow(Milliseconds bucket) : bucket_(bucket) {
  CHECK(bucket.count() > 0 && static_cast<std::uint64_t>(bucket.count()) <= kBucketMsMax,
        "bucket of 1 ms .. 49 days");
}

Result<RollingWindow> RollingWindow::decode(std::string_view bytes, Milliseconds bucket) {
  if (bytes.empty()) return RollingWindow(bucket);
  std::vector<RecordLease> leases;
  auto window = parse(bytes, leases);
  if (window && !leases.empty()) return damaged("it holds leases");
  if (window && window->bucket_ != bucket) window->rebucket(bucket);
  return window;
}

Result<RollingWindow> RollingWindow::parse(std::string_view bytes, std::vector<RecordLease>& leases) {
  Reader in(bytes);
  const std::uint64_t version = in.little_endian(1), lease_count = in.little_endian(1),
                      slots = in.little_endian(1);
  if (!in.ok() || version != kVersion) return damaged("unknown version");
  const std::uint64_t bucket_ms = in.little_endian(4), total = in.little_endian(6);
  const auto head = static_cast<std::int64_t>(in.little_endian(6)),
             last = static_cast<std::int64_t>(in.little_endian(6));
  const auto newest = static_cast<std::int64_t>(in.little_endian(6));
  if (!in.ok() || bucket_ms == 0 || slots < 1 || slots > kTailBuckets) return damaged("header");
  if (newest >= kTimeMax / static_cast<std::int64_t>(bucket_ms)) return damaged("time");

  for (std::uint64_t i = 0; i < lease_count; ++i) {
    const RecordLease lease{static_cast<Incarnation>(in.little_endian(4)), in.little_endian(6),
                            Milliseconds(static_cast<std::int64_t>(in.little_endian(6)))};
    if (!in.ok() || lease.outstanding == 0 ||
        lease.incarnation <= (leases.empty() ? 0 : leases.back().incarnation))
      return damaged("leases");
    leases.push_back(lease);
  }

  RollingWindow window{Milliseconds(static_cast<std::int64_t>(bucket_ms))};
  window.newest_ = newest;
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < slots; ++i) sum = saturating_add(sum, window.tail_[i] = in.varint());
  if (slots > 1 && window.tail_[slots - 1] == 0) return damaged("tail");
  if (static_cast<std::int64_t>(slots) - 1 > newest) return damaged("tail before time");
  std::int64_t number = head;
  while (in.ok() && !in.at_end()) {
    const auto gap = static_cast<std::int64_t>(in.varint());
    const std::uint64_t count = in.varint();
    if (!in.ok() || count == 0 || (gap == 0) != window.body_.empty() || window.body_.size() == kBodyMax)
      return damaged("body");
    number += gap;
    // Compared by subtraction: both are below 2^56, so nothing overflows.
    if (number > newest - static_cast<std::int64_t>(kTailBuckets)) return damaged("body overlaps tail");
    window.body_.push_back({number, count});
    sum = saturating_add(sum, count);
  }
  if (!in.ok()) return damaged("cut short");
  if (window.body_.empty() ? head != 0 || last != 0 : last != number) return damaged("ends of the body");
  if (sum != total) return damaged("sum");
  if (total == 0 && (leases.empty() || newest != 0 || slots != 1)) return damaged("nothing in it");
  window.total_ = total;
  return window;
}

std::string RollingWindow::encode() const {
  return encode_with({});
}

std::string RollingWindow::encode_with(const std::vector<RecordLease>& leases) const {
  std::string out;
  if (total_ == 0 && leases.empty()) return out;
  CHECK(leases.size() <= kLeasesMax, "one byte counts the leases");
  std::size_t slots = total_ == 0 ? 1 : kTailBuckets;
  while (slots > 1 && tail_[slots - 1] == 0) --slots;
  out.reserve(kHeaderBytes + kLeaseBytes * leases.size() + 2 * slots + 4 * body_.size());
  put_little_endian(out, kVersion, 1);
  put_little_endian(out, leases.size(), 1);
  put_little_endian(out, slots, 1);
  put_little_endian(out, static_cast<std::uint64_t>(bucket_.count()), 4);
  put_little_endian(out, total_, 6);
  put_little_endian(out, body_.empty() ? 0 : static_cast<std::uint64_t>(body_.front().number), 6);
  put_little_endian(out, body_.empty() ? 0 : static_cast<std::uint64_t>(body_.back().number), 6);
  put_little_endian(out, total_ == 0 ? 0 : static_cast<std::uint64_t>(newest_), 6);
  for (const RecordLease& lease : leases) {
    put_little_endian(out, lease.incarnation, 4);
    put_little_endian(out, lease.outstanding, 6);
    put_little_endian(out, static_cast<std::uint64_t>(lease.expiry.count()), 6);
  }
  for (std::size_t i = 0; i < slots; ++i) put_varint(out, tail_[i]);
  for (std::size_t i = 0; i < body_.size(); ++i) {
    put_varint(out, i == 0 ? 0 : static_cast<std::uint64_t>(body_[i].number - body_[i - 1].number));
    put_varint(out, body_[i].count);
  }
  return out;
}

void RollingWindow::prune(const WindowShape& shape, Milliseconds now) {
  CHECK(shape.bucket == bucket_, "a window is asked in its own bucket size");
  auto first_live = std::ranges::find_if(body_, [&](const Bucket& b) { return shape.live(b.number, now); });
  for (auto gone = body_.begin(); gone != first_live; ++gone) total_ -= std::min(total_, gone->count);
  body_.erase(body_.begin(), first_live);
  for (std::size_t i = kTailBuckets; i-- > 0;) {
    if (tail_[i] == 0) continue;
    if (shape.live(newest_ - static_cast<std::int64_t>(i), now)) break;
    total_ -= std::min(total_, tail_[i]);
    tail_[i] = 0;
  }
}

std::int64_t RollingWindow::add(std::int64_t number, std::uint64_t units) {
  CHECK(units > 0 && number >= 0 && static_cast<std::uint64_t>(number) <= kCountMax,
        "a charge has units and a time");
  if (total_ == 0)
    start_at(number);
  else if (number > newest_)
    shift_to(number);
  const std::uint64_t counted = std::min(units, kCountMax - total_);
  tail_[0] += counted;
  total_ += counted;
  return newest_;
}

std::uint64_t RollingWindow::count(const WindowShape& shape, Milliseconds now, std::int64_t number,
                                   std::uint64_t units) {
  CHECK(number >= 0 && number < kTimeMax / bucket_.count(), "a use has a time");
  const std::uint64_t counted = std::min(units, kCountMax - total_);
  if (counted == 0 || !shape.live(number, now)) return 0;
  if (total_ == 0)
    start_at(number);
  else if (number > newest_)
    shift_to(number);
  if (newest_ - number < static_cast<std::int64_t>(kTailBuckets))
    tail_[static_cast<std::size_t>(newest_ - number)] += counted;
  else
    count_in_body({number, counted});
  total_ += counted;
  return counted;
}

// Nothing is counted: no record exists, so there is no newest bucket to stay behind.
void RollingWindow::start_at(std::int64_t number) {
  *this = RollingWindow(bucket_);
  newest_ = number;
}

void RollingWindow::count_in_body(Bucket bucket) {
  auto place = std::ranges::lower_bound(body_, bucket.number, {}, &Bucket::number);
  if (place != body_.end() && place->number == bucket.number) {
    place->count += bucket.count;
    return;
  }
  body_.insert(place, bucket);
  if (body_.size() > kBodyMax) merge_cheapest_pair();
}

void RollingWindow::shift_to(std::int64_t number) {
  const std::int64_t steps = number - newest_;
  const std::size_t falling = static_cast<std::size_t>(std::min<std::int64_t>(steps, kTailBuckets));
  for (std::size_t i = kTailBuckets; i-- > kTailBuckets - falling;)
    if (tail_[i] != 0) append_body({newest_ - static_cast<std::int64_t>(i), tail_[i]});
  std::shift_right(tail_.begin(), tail_.end(), static_cast<std::ptrdiff_t>(falling));
  std::fill_n(tail_.begin(), falling, 0);
  newest_ = number;
}

void RollingWindow::append_body(Bucket bucket) {
  body_.push_back(bucket);
  if (body_.size() > kBodyMax) merge_cheapest_pair();
}

void RollingWindow::merge_cheapest_pair() {
  std::size_t cheapest = 0;
  double least = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i + 1 < body_.size(); ++i) {
    const double cost =
        static_cast<double>(body_[i].count) * static_cast<double>(body_[i + 1].number - body_[i].number);
    if (cost < least) {
      least = cost;
      cheapest = i;
    }
  }
  body_[cheapest + 1].count = saturating_add(body_[cheapest + 1].count, body_[cheapest].count);
  body_.erase(body_.begin() + static_cast<std::ptrdiff_t>(cheapest));
}

std::uint64_t RollingWindow::remove(const WindowShape& shape, Milliseconds now, std::int64_t number,
                                    std::uint64_t units) {
  if (total_ == 0 || number < 0 || number > newest_ || !shape.live(number, now)) return 0;
  std::uint64_t taken = 0;
  if (newest_ - number < static_cast<std::int64_t>(kTailBuckets)) {
    std::uint64_t& slot = tail_[static_cast<std::size_t>(newest_ - number)];
    taken = std::min(units, slot);
    slot -= taken;
  } else {
    auto entry = std::ranges::lower_bound(body_, number, {}, &Bucket::number);
    if (entry == body_.end()) return 0;
    taken = std::min(units, entry->count);
    entry->count -= taken;
    if (entry->count == 0) body_.erase(entry);
  }
  total_ -= taken;
  return taken;
}

RollingWindow::Bucket RollingWindow::oldest() const {
  if (!body_.empty()) return body_.front();
  for (std::size_t i = kTailBuckets; i-- > 0;)
    if (tail_[i] != 0) return {newest_ - static_cast<std::int64_t>(i), tail_[i]};
  return {};
}

std::vector<RollingWindow::Bucket> RollingWindow::buckets() const {
  std::vector<Bucket> out = body_;
  for (std::size_t i = kTailBuckets; i-- > 0;)
    if (tail_[i] != 0) out.push_back({newest_ - static_cast<std::int64_t>(i), tail_[i]});
  return out;
}

Milliseconds RollingWindow::fits_after(const WindowShape& shape, Milliseconds now, std::uint64_t limit,
                                       std::uint64_t units) const {
  if (units > limit) return Milliseconds::max();
  const std::uint64_t most = limit - units;  // what may stay counted
  std::uint64_t left = total_;
  if (left <= most) return Milliseconds(0);
  auto leaves = [&](std::uint64_t count) {
    left -= std::min(left, count);
    return left <= most;
  };
  for (const Bucket& bucket : body_)
    if (leaves(bucket.count)) return std::max(shape.leaves_at(bucket.number) - now, Milliseconds(0));
  for (std::size_t i = kTailBuckets; i-- > 0;) {
    const std::int64_t number = newest_ - static_cast<std::int64_t>(i);
    if (tail_[i] != 0 && leaves(tail_[i])) return std::max(shape.leaves_at(number) - now, Milliseconds(0));
  }
  return Milliseconds::max();
}

void RollingWindow::rebucket(Milliseconds bucket) {
  const std::int64_t from = bucket_.count(), to = bucket.count();
  auto renumber = [&](std::int64_t number) { return ((number + 1) * from - 1) / to; };
  RollingWindow out(bucket);
  if (total_ > 0) {
    out.newest_ = renumber(newest_);
    for (const Bucket& old : buckets()) {
      const std::int64_t number = renumber(old.number);
      out.total_ = saturating_add(out.total_, old.count);
      const std::int64_t age = out.newest_ - number;
      if (age < static_cast<std::int64_t>(kTailBuckets)) {
        out.tail_[static_cast<std::size_t>(age)] += old.count;
      } else if (!out.body_.empty() && out.body_.back().number == number) {
        out.body_.back().count += old.count;
      } else {
        out.append_body({number, old.count});
      }
    }
  }
  *this = std::move(out);
}

Result<AccountRecord> AccountRecord::decode(std::string_view bytes, Milliseconds bucket) {
  if (bytes.empty()) return AccountRecord(bucket);
  auto record = decode(bytes);
  if (record && record->window.bucket() != bucket) record->window.rebucket(bucket);
  return record;
}

Result<AccountRecord> AccountRecord::decode(std::string_view bytes) {
  AccountRecord record(Milliseconds(1));
  auto window = RollingWindow::parse(bytes, record.leases_);
  if (!window) return std::unexpected(window.error());
  record.window = std::move(*window);
  return record;
}

std::string AccountRecord::encode() const {
  return window.encode_with(leases_);
}

std::uint64_t AccountRecord::lent() const {
  std::uint64_t sum = 0;
  for (const RecordLease& lease : leases_) sum += lease.outstanding;
  return sum;
}

std::uint64_t AccountRecord::lent_to(Incarnation incarnation) const {
  auto place = std::ranges::find(leases_, incarnation, &RecordLease::incarnation);
  return place == leases_.end() ? 0 : place->outstanding;
}

bool AccountRecord::set_lease(RecordLease lease) {
  CHECK(lease.incarnation > 0 && lease.outstanding <= kCountMax, "a lease has a holder and at most 48 bits");
  auto place = std::ranges::lower_bound(leases_, lease.incarnation, {}, &RecordLease::incarnation);
  const bool present = place != leases_.end() && place->incarnation == lease.incarnation;
  if (lease.outstanding == 0) {
    if (present) leases_.erase(place);
    return true;
  }
  if (present)
    *place = lease;
  else if (leases_.size() == kLeasesMax)
    return false;
  else
    leases_.insert(place, lease);
  return true;
}

}  // namespace tollgate::quota
