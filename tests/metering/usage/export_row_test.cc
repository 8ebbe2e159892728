#include "metering/usage/export_row.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "tests/metering/usage/support/csv.h"

namespace tollgate::usage {
namespace {

using testing::HasSubstr;

constexpr std::int64_t kHour = 490'000;

ExportRow row() {
  ExportRow row{.id = "00112233445566778899aabbccddeeff",
                .key = {kHour, "acme", "north", "ann", "customer", "Case", "read"},
                .filed_hour = kHour};
  row.sums.calls = 10;
  row.sums.interrupted = 1;
  row.sums.degraded = 2;
  row.sums.errors = 3;
  row.sums.free = 4;
  row.sums.given_back = 5;
  row.sums.void_charged = 6;
  row.sums.void_maybe = 7;
  row.sums.denied = {{"operation_not_licensed", 8}, {"quota_exceeded", 9}};
  row.sums.bytes_in = 100;
  row.sums.bytes_out = 200;
  row.sums.backend_us = 1'234'567;
  row.sums.latency.add(1'000'000, 10);
  return row;
}

TEST(ExportRow, EveryColumnStandsWhereItsNameSays) {
  std::string text = csv_header();
  append_csv(text, row());
  const auto records = parse_csv(text);
  ASSERT_EQ(records.size(), 2u);
  ASSERT_EQ(records[0].size(), columns().size());
  ASSERT_EQ(records[1].size(), columns().size());
  std::map<std::string, std::string> value;
  for (std::size_t i = 0; i < records[0].size(); ++i) {
    EXPECT_EQ(records[0][i], columns()[i].name);
    value[records[0][i]] = records[1][i];
  }
  const std::map<std::string, std::string> expected{
      {"id", "00112233445566778899aabbccddeeff"},
      {"kind", "usage"},
      {"hour", "2025-11-24T16:00:00Z"},
      {"filed_hour", "2025-11-24T16:00:00Z"},
      {"tenant", "acme"},
      {"organization", "north"},
      {"user", "ann"},
      {"product", "customer"},
      {"object", "Case"},
      {"operation", "read"},
      {"calls", "10"},
      {"interrupted", "1"},
      {"degraded", "2"},
      {"errors", "3"},
      {"free", "4"},
      {"given_back", "5"},
      {"void_charged", "6"},
      {"void_maybe", "7"},
      {"denied", "17"},
      {"denied_by_reason", "operation_not_licensed=8;quota_exceeded=9"},
      {"bytes_in", "100"},
      {"bytes_out", "200"},
      {"backend_seconds", "1.234567"},
      {"latency_count", "10"},
      {"latency_p50_seconds", value["latency_p50_seconds"]},
      {"latency_p90_seconds", value["latency_p50_seconds"]},
      {"latency_p99_seconds", value["latency_p50_seconds"]},
  };
  EXPECT_EQ(value, expected);
  EXPECT_NEAR(std::stod(value["latency_p50_seconds"]), 1.0, 0.04);
}

TEST(ExportRow, NdjsonHasTheSameColumnsInTheSameOrder) {
  std::string line;
  append_ndjson(line, row());
  EXPECT_EQ(
      line,
      "{\"id\":\"00112233445566778899aabbccddeeff\",\"kind\":\"usage\",\"hour\":\"2025-11-24T16:00:00Z\","
      "\"filed_hour\":\"2025-11-24T16:00:00Z\",\"tenant\":\"acme\",\"organization\":\"north\",\"user\":"
      "\"ann\","
      "\"product\":\"customer\",\"object\":\"Case\",\"operation\":\"read\",\"calls\":10,\"interrupted\":1,"
      "\"degraded\":2,\"errors\":3,\"free\":4,\"given_back\":5,\"void_charged\":6,\"void_maybe\":7,"
      "\"denied\":17,"
      "\"denied_by_reason\":{\"operation_not_licensed\":8,\"quota_exceeded\":9},\"bytes_in\":100,"
      "\"bytes_out\":200,\"backend_seconds\":1.234567,\"latency_count\":10,\"latency_p50_seconds\":" +
          seconds_text(row().sums.latency.quantile(0.5)) +
          ",\"latency_p90_seconds\":" + seconds_text(row().sums.latency.quantile(0.9)) +
          ",\"latency_p99_seconds\":" + seconds_text(row().sums.latency.quantile(0.99)) + "}\n");
  std::size_t at = 0;
  for (const Column& column : columns()) {
    at = line.find("\"" + std::string(column.name) + "\":", at);
    ASSERT_NE(at, std::string::npos) << column.name;
  }
}

TEST(ExportRow, NamesThatASpreadsheetWouldRunAreText) {
  for (std::string name :
       {"=HYPERLINK(\"http://x\")", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\nx", "'quoted"}) {
    ExportRow risky = row();
    risky.key.user = name;
    std::string text;
    append_csv(text, risky);
    const auto records = parse_csv(text);
    ASSERT_EQ(records.size(), 1u);
    EXPECT_EQ(records[0][6], "'" + name);  // one apostrophe off gives the name back
  }
}

TEST(ExportRow, NamesWithSeparatorsStayOneField) {
  for (std::string name : {"a,b", "a\"b", "a\r\nb", "", "zoë", " a "}) {
    ExportRow odd = row();
    odd.key.user = name;
    std::string text;
    append_csv(text, odd);
    const auto records = parse_csv(text);
    ASSERT_EQ(records.size(), 1u);
    ASSERT_EQ(records[0].size(), columns().size());
    EXPECT_EQ(records[0][6], name);
  }
}

TEST(ExportRow, IdCoversEveryPartOfTheKeyTheFiledHourAndTheJournals) {
  const RollupKey key = row().key;
  std::set<std::string> identities{identity(key, kHour, {"a"}), identity(key, kHour + 1, {"a"}),
                                   identity(key, kHour, {"b"}), identity(key, kHour, {"a", "b"})};
  for (std::string RollupKey::* part : {&RollupKey::tenant, &RollupKey::organization, &RollupKey::user,
                                        &RollupKey::product, &RollupKey::object, &RollupKey::operation}) {
    RollupKey other = key;
    other.*part += "x";
    identities.insert(identity(other, kHour, {"a"}));
  }
  RollupKey later = key;
  later.hour += 1;
  identities.insert(identity(later, kHour, {"a"}));
  // The same letters cut at another place are another row.
  RollupKey left = key, right = key;
  left.tenant = "ab", left.organization = "c";
  right.tenant = "a", right.organization = "bc";
  identities.insert(identity(left, kHour, {"a"}));
  identities.insert(identity(right, kHour, {"a"}));
  EXPECT_EQ(identities.size(), 13u);
}

TEST(ExportRow, ManifestSaysWhatTheFileIsMadeOf) {
  Manifest manifest{.period = "2025-11-24",
                    .first_hour = kHour - 16,
                    .end_hour = kHour + 8,
                    .format = "csv",
                    .file = "2025-11-24.csv",
                    .sha256 = "ab",
                    .bytes = 9,
                    .rows = 2,
                    .corrections = 1,
                    .sums = row().sums,
                    .final_period = true,
                    .closed_at_ms = 1'764'028'801'002,
                    .corrections_of = {kHour - 100},
                    .watermarks = {{"00c0ffee", "0", 7, 1}},
                    .missing = {{"00c0ffee", "1", 3, 4, "checksum"}},
                    .licences = {"2025-11-24.licences.csv", "cd", 5, 1}};
  EXPECT_EQ(
      manifest_json(manifest),
      "{\"manifest_version\":1,\"period\":\"2025-11-24\",\"first_hour\":\"2025-11-24T00:00:00Z\",\"end_"
      "hour\":"
      "\"2025-11-25T00:00:00Z\",\"final\":true,\"closed_at\":\"2025-11-25T00:00:01.002Z\",\"format\":\"csv\","
      "\"file\":\"2025-11-24.csv\",\"sha256\":\"ab\",\"bytes\":9,\"rows\":2,\"corrections\":1,"
      "\"corrections_of\":[\"2025-11-20T12:00:00Z\"],\"sums\":{\"calls\":10,\"interrupted\":1,\"degraded\":2,"
      "\"errors\":3,\"free\":4,\"given_back\":5,\"void_charged\":6,\"void_maybe\":7,\"denied\":17,"
      "\"denied_by_reason\":{\"operation_not_licensed\":8,\"quota_exceeded\":9},\"bytes_in\":100,"
      "\"bytes_out\":200,\"backend_seconds\":1.234567},\"watermarks\":[{\"journal\":\"00c0ffee\",\"stream\":"
      "\"0\",\"entry\":7,\"open_calls\":1}],\"missing\":[{\"journal\":\"00c0ffee\",\"stream\":\"1\","
      "\"first\":3,"
      "\"last\":4,\"why\":\"checksum\"}],\"licences\":{\"file\":\"2025-11-24.licences.csv\",\"sha256\":"
      "\"cd\","
      "\"bytes\":5,\"rows\":1}}\n");
  manifest.final_period = false;
  EXPECT_THAT(manifest_json(manifest), HasSubstr("\"final\":false,\"closed_at\":null"));
}

TEST(ExportRow, TheManualHasEveryColumn) {
  std::ifstream in(TOLLGATE_SOURCE_DIR "/docs/billing.md");
  std::stringstream text;
  text << in.rdbuf();
  for (const Column& column : columns())
    EXPECT_THAT(text.str(),
                HasSubstr("| `" + std::string(column.name) + "` | " + std::string(column.meaning)));
}

}  // namespace
}  // namespace tollgate::usage
