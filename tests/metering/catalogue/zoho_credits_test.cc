// What Zoho counts a call as, by the numbers of its API guide.
#include <gtest/gtest.h>

#include "tests/metering/catalogue/catalogue_fixture.h"

namespace tollgate::catalogue {
namespace {

Classifier with_credits() {
  const CreditTable table{.call = 1,
                          .records_per_credit = 10,
                          .tagged_per_credit = 50,
                          .convert = 5,
                          .custom_view = 3,
                          .deleted = 2,
                          .bulk_read = 50,
                          .bulk_write = 500,
                          .composite = 2,
                          .coql = {{200, 1}, {1000, 2}, {2000, 3}}};
  return Classifier(Options{.dialects = {Dialect::zoho}, .credits = table}, small_schema());
}

std::uint32_t credits(const std::string& line, const std::string& body = "") {
  std::vector<HeaderField> fields;
  const Told told{line, body, kJson};
  return with_credits().classify(told.request(fields)).credits;
}
std::string records(int count) {
  std::string list;
  for (int i = 0; i < count; ++i) list += i == 0 ? "{}" : ",{}";
  return R"({"data":[)" + list + "]}";
}
std::uint32_t coql(const std::string& tail) {
  return credits("POST /crm/v8/coql", R"({"select_query":"select a from Leads )" + tail + "\"}");
}

TEST(ZohoCredits, EachKindOfCallHasItsPrice) {
  EXPECT_EQ(credits("GET /crm/v8/Leads"), 1U);
  EXPECT_EQ(credits("GET /crm/v8/Leads/1"), 1U);
  EXPECT_EQ(credits("GET /crm/v8/settings/modules"), 1U);
  EXPECT_EQ(credits("DELETE /crm/v8/Leads/1"), 1U);
  EXPECT_EQ(credits("PUT /crm/v8/Leads/1", records(1)), 1U);
  EXPECT_EQ(credits("GET /crm/v8/Leads?cvid=5"), 3U);
  EXPECT_EQ(credits("GET /crm/v8/Leads/deleted"), 2U);
  EXPECT_EQ(credits("POST /crm/v8/Leads/1/actions/convert", "{}"), 5U);
  EXPECT_EQ(credits("POST /crm/bulk/v8/read", R"({"query":{"module":"Leads"}})"), 50U);
  EXPECT_EQ(credits("GET /crm/bulk/v8/read/1/result"), 1U);
  EXPECT_EQ(credits("POST /crm/bulk/v8/write", R"({"operation":"insert","resource":[{"module":"Leads"}]})"),
            500U);
  EXPECT_EQ(credits("POST /crm/v8/__composite_requests",
                    R"({"__composite_requests":[{"method":"POST","uri":"/crm/v8/Leads","body":)" +
                        records(25) + "}]}"),
            2U);
  EXPECT_EQ(credits("GET /0/odata/Case"), 0U) << "no call of this API";
  EXPECT_EQ(credits("POST /oauth/v2/token"), 0U);
}

TEST(ZohoCredits, WrittenAndTaggedRecordsAreCounted) {
  for (const char* address : {"POST /crm/v8/Leads", "PUT /crm/v8/Leads", "POST /crm/v8/Leads/upsert"})
    for (auto [count, price] : {std::pair(0, 1U), {1, 1U}, {10, 1U}, {11, 2U}, {100, 10U}})
      EXPECT_EQ(credits(address, records(count)), price) << address << count;
  EXPECT_EQ(credits("POST /crm/v8/Leads", R"({"data":{}})"), 1U);
  std::string ids = "1";
  for (int i = 2; i <= 51; ++i) ids += "," + std::to_string(i);
  EXPECT_EQ(credits("POST /crm/v8/Leads/actions/add_tags?ids=" + ids), 2U);
  EXPECT_EQ(credits("POST /crm/v8/Leads/actions/remove_tags?ids=1,2"), 1U);
  EXPECT_EQ(credits("POST /crm/v8/Leads/9/actions/add_tags"), 1U);
}

TEST(ZohoCredits, QueriesCostByTheRowsTheyAskFor) {
  EXPECT_EQ(coql(""), 1U);
  EXPECT_EQ(coql("limit 200"), 1U);
  EXPECT_EQ(coql("limit 201"), 2U);
  EXPECT_EQ(coql("LIMIT 1000, 200"), 1U) << "offset, rows";
  EXPECT_EQ(coql("limit 0, 1000"), 2U);
  EXPECT_EQ(coql("limit 2000"), 3U);
  EXPECT_EQ(coql("limit 99999999999999999999"), 1U) << "no number: the CRM refuses it";
  EXPECT_EQ(coql("limit 5000"), 3U);
  EXPECT_EQ(coql("limit 1500 offset 100"), 3U);
  EXPECT_EQ(coql("where x in (select y from Deals limit 2000) limit 10"), 3U) << "the largest of several";
}

TEST(ZohoCredits, BodiesAreNeededForTheirRecordsOnlyWhereCreditsCount) {
  std::vector<HeaderField> fields;
  const Told told{"POST /crm/v8/Leads", "", kJson};
  EXPECT_EQ(with_credits().body_need(told.request(fields)), BodyNeed::whole);
  EXPECT_EQ(told.need(Dialect::zoho), BodyNeed::none);
  EXPECT_EQ(told.classify(Dialect::zoho).credits, 0U);
}

}  // namespace
}  // namespace tollgate::catalogue
