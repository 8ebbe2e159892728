#include "metering/usage/export_row.h"

#include <fmt/format.h>

#include <chrono>

#include "metering/base/json_text.h"

namespace tollgate::usage {
namespace {

constexpr std::string_view kFormulaStarts = "=+-@\t\r\n'";

void append_sums(JsonWriter& json, const RollupSums& sums) {
  json.field("calls", sums.calls);
  json.field("interrupted", sums.interrupted);
  json.field("degraded", sums.degraded);
  json.field("errors", sums.errors);
  json.field("free", sums.free);
  json.field("given_back", sums.given_back);
  json.field("void_charged", sums.void_charged);
  json.field("void_maybe", sums.void_maybe);
  json.field("denied", sums.denied_total());
  json.field_object("denied_by_reason", [&] {
    for (const auto& [reason, count] : sums.denied) json.field(reason, count);
  });
  json.field("bytes_in", sums.bytes_in);
  json.field("bytes_out", sums.bytes_out);
  json.key("backend_seconds");
  json.raw(seconds_text(sums.backend_us));
}

void append_latency(JsonWriter& json, const LatencySketch& latency) {
  json.field("latency_count", latency.count());
  const std::pair<const char*, double> kQuantiles[] = {
      {"latency_p50_seconds", 0.5}, {"latency_p90_seconds", 0.9}, {"latency_p99_seconds", 0.99}};
  for (const auto& [name, q] : kQuantiles) {
    json.key(name);
    json.raw(seconds_text(latency.quantile(q)));
  }
}

}  // namespace

void append_csv_text(std::string& out, std::string_view text) {
  out.push_back('"');
  if (!text.empty() && kFormulaStarts.find(text.front()) != std::string_view::npos) out.push_back('\'');
  for (char c : text) {
    if (c == '"') out.push_back('"');
    out.push_back(c);
  }
  out.push_back('"');
}

const std::vector<Column>& columns() {
  static const std::vector<Column> kColumns = {
      {"id", "32 hexadecimal digits; the same row has the same id in every file: a sink drops repeats by it"},
      {"kind", "`usage`, or `correction`: learned after the hour was closed, to be added to what was billed"},
      {"hour", "hour of arrival of the calls, its beginning, UTC"},
      {"filed_hour", "hour in whose file the row stands: `hour` itself, for a correction a later one"},
      {"tenant", "tenant of the user's token; empty when it names none"},
      {"organization", "organization of the user"},
      {"user", "name of the user"},
      {"product", "licence product that permitted the operation; empty for what needs no licence"},
      {"object", "object (entity) that was called; empty when none was recognised"},
      {"operation", "`read`, `create`, `update`, `delete`, ..."},
      {"calls", "billable units: operations that the upstream received"},
      {"interrupted",
       "of `calls`: cut off by the death of a proxy, or outlasting its upgrade, after the upstream may have "
       "received them"},
      {"degraded", "of `calls`: let through without a quota decision while the store was away"},
      {"errors", "of `calls`: answered 5xx or not at all by the upstream"},
      {"free", "forwarded and not billable: staff, objects without licence"},
      {"given_back", "charged and handed back, because the upstream never received them; not in `calls`"},
      {"void_charged", "charged and lost with a proxy before they were sent; not in `calls`"},
      {"void_maybe", "as `void_charged`, and it is not known whether they were charged; not in `calls`"},
      {"denied", "operations refused, all reasons"},
      {"denied_by_reason", "`quota_exceeded=3;operation_not_licensed=1`; an object in NDJSON"},
      {"bytes_in", "body bytes from clients"},
      {"bytes_out", "body bytes to clients"},
      {"backend_seconds",
       "time in the upstream, six decimals; a batch's is split evenly over its operations"},
      {"latency_count", "calls in the quantiles that follow; a batch is one in each row it touches"},
      {"latency_p50_seconds",
       "median of the upstream's time for whole calls; within 4 % between 100 us and 1000 s"},
      {"latency_p90_seconds", "the same, 90 %"},
      {"latency_p99_seconds", "the same, 99 %"},
  };
  return kColumns;
}

std::string identity(const RollupKey& key, std::int64_t filed_hour,
                     const std::vector<std::string>& journals) {
  // Every text with its length in front: no name can imitate a separator.
  std::string out = fmt::format("tollgate usage row 1\n{} {}\n", key.hour, filed_hour);
  for (std::string_view text :
       {std::string_view(key.tenant), std::string_view(key.organization), std::string_view(key.user),
        std::string_view(key.product), std::string_view(key.object), std::string_view(key.operation)})
    out += fmt::format("{}:{}\n", text.size(), text);
  for (const std::string& journal : journals) out += fmt::format("{}:{}\n", journal.size(), journal);
  return out;
}

std::string seconds_text(std::uint64_t us) {
  return fmt::format("{}.{:06}", us / 1'000'000, us % 1'000'000);
}

std::string time_text(std::int64_t time_ms) {
  const std::chrono::sys_time<Milliseconds> time{Milliseconds(time_ms)};
  const auto day = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss<Milliseconds> clock(time - day);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                     clock.hours().count(), clock.minutes().count(), clock.seconds().count(),
                     clock.subseconds().count());
}

std::string hour_text(std::int64_t hour) {
  std::string text = time_text(hour * 3'600'000);
  return text.substr(0, text.find('.')) + "Z";
}

std::string csv_header() {
  std::string out;
  for (const Column& column : columns()) out += fmt::format("{}{}", out.empty() ? "" : ",", column.name);
  return out + "\r\n";
}

void append_csv(std::string& out, const ExportRow& row) {
  const RollupSums& sums = row.sums;
  out += fmt::format("{},{},{},{}", row.id, row.correction() ? "correction" : "usage",
                     hour_text(row.key.hour), hour_text(row.filed_hour));
  for (const std::string* text : {&row.key.tenant, &row.key.organization, &row.key.user, &row.key.product,
                                  &row.key.object, &row.key.operation}) {
    out.push_back(',');
    append_csv_text(out, *text);
  }
  out += fmt::format(",{},{},{},{},{},{},{},{},{},", sums.calls, sums.interrupted, sums.degraded, sums.errors,
                     sums.free, sums.given_back, sums.void_charged, sums.void_maybe, sums.denied_total());
  append_csv_text(out, format_denied(sums.denied));
  out +=
      fmt::format(",{},{},{},{},{},{},{}\r\n", sums.bytes_in, sums.bytes_out, seconds_text(sums.backend_us),
                  sums.latency.count(), seconds_text(sums.latency.quantile(0.5)),
                  seconds_text(sums.latency.quantile(0.9)), seconds_text(sums.latency.quantile(0.99)));
}

void append_ndjson(std::string& out, const ExportRow& row) {
  JsonWriter json(out);
  json.object([&] {
    json.field("id", row.id);
    json.field("kind", row.correction() ? "correction" : "usage");
    json.field("hour", hour_text(row.key.hour));
    json.field("filed_hour", hour_text(row.filed_hour));
    json.field("tenant", row.key.tenant);
    json.field("organization", row.key.organization);
    json.field("user", row.key.user);
    json.field("product", row.key.product);
    json.field("object", row.key.object);
    json.field("operation", row.key.operation);
    append_sums(json, row.sums);
    append_latency(json, row.sums.latency);
  });
  out.push_back('\n');
}

std::string manifest_json(const Manifest& manifest) {
  std::string out;
  JsonWriter json(out);
  json.object([&] {
    json.field("manifest_version", 1);
    json.field("period", manifest.period);
    json.field("first_hour", hour_text(manifest.first_hour));
    json.field("end_hour", hour_text(manifest.end_hour));
    json.field("final", manifest.final_period);
    json.key("closed_at");
    if (manifest.final_period)
      json.value(time_text(manifest.closed_at_ms));
    else
      json.null();
    json.field("format", manifest.format);
    json.field("file", manifest.file);
    json.field("sha256", manifest.sha256);
    json.field("bytes", manifest.bytes);
    json.field("rows", manifest.rows);
    json.field("corrections", manifest.corrections);
    json.field_array("corrections_of", [&] {
      for (std::int64_t hour : manifest.corrections_of) json.value(hour_text(hour));
    });
    json.field_object("sums", [&] { append_sums(json, manifest.sums); });
    json.field_array("watermarks", [&] {
      for (const Manifest::Watermark& mark : manifest.watermarks)
        json.object([&] {
          json.field("journal", mark.journal);
          json.field("stream", mark.stream);
          json.field("entry", mark.entry);
          json.field("open_calls", mark.open_calls);
        });
    });
    json.field_array("missing", [&] {
      for (const Manifest::Missing& gap : manifest.missing)
        json.object([&] {
          json.field("journal", gap.journal);
          json.field("stream", gap.stream);
          json.field("first", gap.first);
          json.field("last", gap.last);
          json.field("why", gap.why);
        });
    });
    json.field_object("licences", [&] {
      json.field("file", manifest.licences.file);
      json.field("sha256", manifest.licences.sha256);
      json.field("bytes", manifest.licences.bytes);
      json.field("rows", manifest.licences.rows);
    });
  });
  out.push_back('\n');
  return out;
}

}  // namespace tollgate::usage
