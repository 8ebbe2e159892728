#include "metering/usage/rollup.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>

namespace tollgate::usage {
namespace {

constexpr std::int64_t kHourMs = 3'600'000;
constexpr std::size_t kPerDecade = 32;
constexpr std::size_t kSpareMax = 64;                        // ended calls whose memory is kept
constexpr std::size_t kInner = LatencySketch::kBuckets - 2;  // 7 decades

// bounds()[i] is the first microsecond of bucket i + 1; the last one begins at 1 000 s.
const std::array<std::uint64_t, kInner + 1>& bounds() {
  static const std::array<std::uint64_t, kInner + 1> kBounds = [] {
    std::array<std::uint64_t, kInner + 1> out{};
    for (std::size_t i = 0; i < out.size(); ++i)
      out[i] = static_cast<std::uint64_t>(
          std::llround(100.0 * std::pow(10.0, static_cast<double>(i) / static_cast<double>(kPerDecade))));
    return out;
  }();
  return kBounds;
}

// The bucket is that of the largest bound not above. A power of two spans eleven bounds at most: the search begins at the
// first of its own.
std::uint16_t bucket_of(std::uint64_t us) {
  static const std::array<std::uint16_t, 66> kFirst = [] {
    std::array<std::uint16_t, 66> first{};
    for (std::size_t width = 0; width < first.size(); ++width) {
      const std::uint64_t least = width == 0 ? 0 : width > 64 ? UINT64_MAX : std::uint64_t{1} << (width - 1);
      first[width] = static_cast<std::uint16_t>(std::ranges::upper_bound(bounds(), least) - bounds().begin());
    }
    return first;
  }();
  const auto width = static_cast<std::size_t>(std::bit_width(us));
  const auto at = bounds().begin();
  return static_cast<std::uint16_t>(std::upper_bound(at + kFirst[width], at + kFirst[width + 1], us) - at);
}

void append_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

std::optional<std::uint64_t> take_varint(std::string_view& bytes) {
  std::uint64_t value = 0;
  for (unsigned shift = 0; shift < 64 && !bytes.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(bytes.front());
    bytes.remove_prefix(1);
    if (shift == 63 && byte > 1) return std::nullopt;
    value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
    if ((byte & 0x80) == 0) return value;
  }
  return std::nullopt;
}

// The operations of a call, those of one row together, in the order of their first appearance.
struct Part {
  std::string_view product, object, operation;
  std::uint64_t count = 0;
};

std::vector<Part> parts_of(const CallBegin& begin) {
  std::vector<Part> parts;
  for (const CallBegin::Operation& operation : begin.operations) {
    auto same = std::ranges::find_if(parts, [&](const Part& part) {
      return part.product == operation.product && part.object == operation.object &&
             part.operation == operation.operation;
    });
    if (same == parts.end())
      same = parts.insert(same, Part{operation.product, operation.object, operation.operation, 0});
    same->count += operation.count;
  }
  std::erase_if(parts, [](const Part& part) { return part.count == 0; });
  if (parts.empty()) parts.push_back({"", "", "", 1});
  return parts;
}

bool failed_upstream(const CallEnd& end) {
  return end.status >= 500 || end.reason.starts_with("upstream_");
}

}  // namespace

std::uint64_t& LatencySketch::count_of(std::uint16_t bucket) {
  const auto at = std::ranges::lower_bound(buckets_, bucket, {}, &Bucket::number);
  if (at != buckets_.end() && at->number == bucket) return at->count;
  return buckets_.insert(at, {bucket, 0})->count;
}

void LatencySketch::add(std::uint64_t us, std::uint64_t count) {
  if (count > 0) count_of(bucket_of(us)) += count;
}

void LatencySketch::merge(const LatencySketch& other) {
  for (const auto& [bucket, count] : other.buckets_) count_of(bucket) += count;
}

std::uint64_t LatencySketch::count() const {
  std::uint64_t sum = 0;
  for (const auto& [bucket, count] : buckets_) sum += count;
  return sum;
}

std::uint64_t LatencySketch::quantile(double q) const {
  const std::uint64_t total = count();
  if (total == 0) return 0;
  const auto rank = std::clamp<std::uint64_t>(
      static_cast<std::uint64_t>(std::ceil(q * static_cast<double>(total))), 1, total);
  std::uint64_t seen = 0;
  std::size_t bucket = 0;
  for (const auto& [number, count] : buckets_) {
    bucket = number;
    if ((seen += count) >= rank) break;
  }
  const auto& at = bounds();
  if (bucket == 0) return at.front() / 2;
  if (bucket > kInner) return at.back();
  // The geometric middle errs by the same factor on both sides: 10^(1/64) = 3.7 %.
  return static_cast<std::uint64_t>(
      std::llround(std::sqrt(static_cast<double>(at[bucket - 1]) * static_cast<double>(at[bucket]))));
}

std::string LatencySketch::encode() const {
  std::string out;
  std::uint64_t before = 0;
  for (const auto& [bucket, count] : buckets_) {
    append_varint(out, bucket - before);
    append_varint(out, count);
    before = bucket;
  }
  return out;
}

Result<LatencySketch> LatencySketch::decode(std::string_view bytes) {
  LatencySketch sketch;
  std::uint64_t bucket = 0;
  for (bool first = true; !bytes.empty(); first = false) {
    const auto gap = take_varint(bytes);
    const auto count = gap ? take_varint(bytes) : std::nullopt;
    if (!count || *count == 0 || *gap >= kBuckets || (*gap == 0 && !first) || bucket + *gap >= kBuckets)
      return fail(Origin::self, "these bytes are no latency sketch");
    bucket += *gap;
    sketch.buckets_.push_back({static_cast<std::uint16_t>(bucket), *count});
  }
  return sketch;
}

void RollupSums::merge(const RollupSums& other) {
  calls += other.calls;
  interrupted += other.interrupted;
  degraded += other.degraded;
  errors += other.errors;
  free += other.free;
  given_back += other.given_back;
  void_charged += other.void_charged;
  void_maybe += other.void_maybe;
  for (const auto& [reason, count] : other.denied) denied[reason] += count;
  bytes_in += other.bytes_in;
  bytes_out += other.bytes_out;
  backend_us += other.backend_us;
  latency.merge(other.latency);
}

bool RollupSums::empty() const {
  return *this == RollupSums{};
}

std::uint64_t RollupSums::denied_total() const {
  std::uint64_t sum = 0;
  for (const auto& [reason, count] : denied) sum += count;
  return sum;
}

std::string format_denied(const std::map<std::string, std::uint64_t>& denied) {
  std::string out;
  for (const auto& [reason, count] : denied)
    out += fmt::format("{}{}={}", out.empty() ? "" : ";", reason, count);
  return out;
}

std::map<std::string, std::uint64_t> parse_denied(std::string_view text) {
  std::map<std::string, std::uint64_t> denied;
  while (!text.empty()) {
    const std::string_view item = text.substr(0, text.find(';'));
    text.remove_prefix(std::min(text.size(), item.size() + 1));
    const std::size_t equals = item.rfind('=');
    std::uint64_t count = 0;
    if (equals == std::string_view::npos) continue;
    const char* end = item.data() + item.size();
    if (auto [stop, error] = std::from_chars(item.data() + equals + 1, end, count);
        error == std::errc{} && stop == end && count > 0)
      denied[std::string(item.substr(0, equals))] += count;
  }
  return denied;
}

std::int64_t hour_of(std::int64_t time_ms) {
  return time_ms >= 0 ? time_ms / kHourMs : (time_ms - kHourMs + 1) / kHourMs;
}

std::uint64_t billable_units(const CallBegin& begin, const CallEnd& end) {
  if (end.outcome == CallOutcome::void_charged || end.outcome == CallOutcome::void_maybe || end.given_back)
    return 0;
  if (begin.staff) return 0;
  if (end.units > 0 || end.outcome != CallOutcome::interrupted) return end.units;
  std::uint64_t operations = 0;
  for (const CallBegin::Operation& operation : begin.operations) operations += operation.count;
  return operations;
}

RollupSums& RowIndex::row(const CallBegin& begin, std::string_view product, std::string_view object,
                          std::string_view operation) {
  const std::int64_t hour = hour_of(begin.time_ms);
  std::uint64_t hash = static_cast<std::uint64_t>(hour);
  for (const std::string_view text : {std::string_view(begin.tenant), std::string_view(begin.organization),
                                      std::string_view(begin.user), product, object, operation})
    hash = (hash ^ std::hash<std::string_view>()(text)) * 0x9e3779b97f4a7c15ULL;
  const auto is_it = [&](const RollupKey& key) {
    return key.hour == hour && key.user == begin.user && key.object == object && key.operation == operation &&
           key.product == product && key.organization == begin.organization && key.tenant == begin.tenant;
  };
  if (auto found = rows_.find(hash); found != rows_.end() && is_it(found->second->first))
    return found->second->second;
  const auto row =
      rollup_
          .try_emplace(RollupKey{hour, begin.tenant, begin.organization, begin.user, std::string(product),
                                 std::string(object), std::string(operation)})
          .first;
  rows_.try_emplace(hash, &*row);
  return row->second;
}

namespace {

// Adds its part of a call to one row. `operations`: of the whole call; `first`: takes what does not divide.
void add_part(RollupSums& row, const CallEnd& end, std::uint64_t count, std::uint64_t operations,
              std::uint64_t units, bool first) {
  auto share = [&](std::uint64_t sum) {
    return operations == 1 ? sum : sum / operations * count + (first ? sum % operations : 0);
  };
  if (end.outcome == CallOutcome::void_charged) {
    row.void_charged += count;
  } else if (end.outcome == CallOutcome::void_maybe) {
    row.void_maybe += count;
  } else if (end.given_back) {
    row.given_back += count;
  } else if (units > 0) {
    const std::uint64_t calls = share(units);
    row.calls += calls;
    if (end.outcome == CallOutcome::interrupted) row.interrupted += calls;
    if (end.degraded) row.degraded += calls;
    if (failed_upstream(end)) row.errors += calls;
  } else if (end.reason == "ok" || end.outcome == CallOutcome::interrupted) {
    row.free += count;
  } else {
    row.denied[end.reason] += count;
  }
  row.bytes_in += share(end.bytes_in);
  row.bytes_out += share(end.bytes_out);
  row.backend_us += share(end.upstream_us);
  if (end.upstream_us > 0) row.latency.add(end.upstream_us);
}

}  // namespace

void add_call(RowIndex& rows, const CallBegin& begin, const CallEnd& end) {
  const std::uint64_t units = billable_units(begin, end);
  if (begin.operations.size() == 1 && begin.operations.front().count == 1) {
    const CallBegin::Operation& only = begin.operations.front();
    return add_part(rows.row(begin, only.product, only.object, only.operation), end, 1, 1, units, true);
  }
  const std::vector<Part> parts = parts_of(begin);
  std::uint64_t operations = 0;
  for (const Part& part : parts) operations += part.count;
  bool first = true;
  for (const Part& part : parts) {
    add_part(rows.row(begin, part.product, part.object, part.operation), end, part.count, operations, units,
             first);
    first = false;
  }
}

void add_call(Rollup& rollup, const CallBegin& begin, const CallEnd& end) {
  RowIndex rows(rollup);
  add_call(rows, begin, end);
}

Result<void> RollupBuilder::add_begin(std::string_view body) {
  if (spare_.empty()) spare_.push_back(OpenCalls{{0, Open{}}}.extract(0));
  OpenCalls::node_type node = std::move(spare_.back());
  spare_.pop_back();
  Result<void> decoded = decode(body, node.mapped().begin);
  if (!decoded) {
    spare_.push_back(std::move(node));
    return decoded;
  }
  node.key() = node.mapped().begin.call;
  node.mapped().entry = entry_;
  auto put = open_.insert(std::move(node));
  if (!put.inserted) {
    std::swap(put.position->second, put.node.mapped());
    spare_.push_back(std::move(put.node));
  }
  return {};
}

Result<void> RollupBuilder::add_end(std::string_view body) {
  if (auto decoded = decode(body, end_); !decoded) return decoded;
  if (end_.call == 0) {
    if (end_.alone)
      add_call(rows_, *end_.alone, end_);
    else
      orphans_.push_back({entry_, 0, end_.units});
    return {};
  }
  auto found = open_.find(end_.call);
  if (found == open_.end()) {
    orphans_.push_back({entry_, end_.call, end_.units});
    return {};
  }
  add_call(rows_, found->second.begin, end_);
  if (spare_.size() < kSpareMax)
    spare_.push_back(open_.extract(found));
  else
    open_.erase(found);
  return {};
}

Rollup RollupBuilder::take() {
  rows_.clear();
  return std::exchange(rollup_, {});
}

void RollupBuilder::restore(std::uint64_t entry, CallBegin begin) {
  const std::uint64_t call = begin.call;
  open_.insert_or_assign(call, Open{entry, std::move(begin)});
}

std::vector<RollupBuilder::Orphan> RollupBuilder::take_orphans() {
  return std::exchange(orphans_, {});
}

}  // namespace tollgate::usage
