// Which single records a request names, of an object whose records' owners matter.
#include "metering/catalogue/creatio_record.h"

#include <gtest/gtest.h>

#include "tests/metering/catalogue/catalogue_fixture.h"

namespace tollgate::catalogue {
namespace {

constexpr const char* kOther = "7a01b2c3-0000-4000-8000-00000000000a";

std::shared_ptr<const Schema> schema() {
  auto schema = std::make_shared<Schema>(*small_schema());
  schema->add_owned("Partnership", "PartnerId");
  return schema;
}

// Names of the records, one a use: "405947d0-...", "/" one that cannot be told, "@..." of an owner, "-" none.
std::string named(const Told& told) {
  std::string out;
  const Classification seen = told.classify(Dialect::creatio, schema());
  if (seen.kind != Kind::objects) return describe(seen);
  for (const ObjectUse& use : seen.uses) {
    if (use.object != "Partnership") {
      EXPECT_EQ(use.record, "") << use.object;
      continue;
    }
    if (!out.empty()) out += ' ';
    EXPECT_TRUE(use.record.empty() || use.record.starts_with("Partnership/")) << use.record;
    out += use.record.empty() ? "-" : use.record.substr(use.record.find('/') + 1);
  }
  return out;
}
std::string get(const std::string& rest) {
  return named({"GET /0/odata/" + rest});
}
std::string of(std::string_view pattern) {
  return fmt::format(fmt::runtime(pattern), kGuid);
}

TEST(CreatioRecord, AKeyNamesARecordHoweverItIsWritten) {
  for (const char* pattern : {"Partnership({})",
                              "partnership({})",
                              "Partnership(guid'{}')",
                              "Partnership(GUID'{}')",
                              "Partnership('{}')",
                              "Partnership(Id={})",
                              "Partnership(id = '{}')",
                              "Partnership( {} )",
                              "Partnership/{}",
                              "Partnership/guid'{}'",
                              "Partnership()/{}",
                              "Partnership({})/Name",
                              "Partnership({})/Partner/Name",
                              "Partnership({})/$value",
                              "Partnership({})/Partner/$ref",
                              "Partnership({})/$links/Partner",
                              "Partnership({})/CaseCollectionByPartnership",
                              "$entity?$id=Partnership({})",
                              "Partnership({})?$select=Id",
                              "%50artnership(%27{}%27)"})
    EXPECT_EQ(get(of(pattern)), kGuid) << pattern;
  EXPECT_EQ(get("Partnership(405947D0-2FFB-4DED-8675-0475F19F5A81)"), kGuid);
  EXPECT_EQ(get("Partnership(405947d02ffb4ded86750475f19f5a81)"), kGuid);
  EXPECT_EQ(get("Partnership/405947d02ffb4ded86750475f19f5a81"), kGuid);
  for (const char* method : {"GET", "PATCH", "DELETE", "MERGE"})
    EXPECT_EQ(named({method + of(" /0/ServiceModel/EntityDataService.svc/PartnershipCollection(guid'{}')")}),
              kGuid)
        << method;
}

TEST(CreatioRecord, AKeyThatCannotBeReadNamesOneThatCannotBeTold) {
  for (const char* key :
       {"1", "'x'", "Name='x'", "Id={0},Id={0}", "Id={},Name='x'", "@p", "%7B{}%7D", "guid'{}", "'{}", "{}x",
        "00000000-0000-0000-0000-000000000000", "'{}%00'", "Id={}&x", "a b"}) {
    const std::string answer = get(fmt::format("Partnership({})", fmt::format(fmt::runtime(key), kGuid)));
    EXPECT_TRUE(answer == "/" || answer == "reject") << key << ": " << answer;
  }
  EXPECT_EQ(get(of("Partnership/({})")), "/");
  EXPECT_EQ(get(of("Partnership({0})({0})")), "reject");
}

TEST(CreatioRecord, WhatNamesNoRecordIsAList) {
  for (const char* list : {"Partnership", "Partnership()", "Partnership/$count", "Partnership?$top=1",
                           "Partnership?$filter=Name eq 'x'", "Partnership?$filter=Id ne {}",
                           "Partnership?$filter=Name eq 'Id eq {}'", "Partnership?$orderby=Id",
                           "Account({})/PartnershipCollectionByPartner", "$crossjoin(Partnership,Case)",
                           "Partnership?$filter=Partner/Account/Id eq {}"})
    EXPECT_EQ(get(of(list)), "-") << list;
  EXPECT_EQ(named({"POST /0/odata/Partnership", "{}", kJson}), "-");
  EXPECT_EQ(get(of("Case({})?$expand=Partnership")), "-");
}

TEST(CreatioRecord, AnotherRecordsNavigationNamesOneByItsOwnKeyOnly) {
  EXPECT_EQ(get(fmt::format("Account({})/PartnershipCollectionByPartner({})", kOther, kGuid)), kGuid);
  EXPECT_EQ(get(fmt::format("Account({})/PartnershipCollectionByPartner/{}", kOther, kGuid)), kGuid);
}

TEST(CreatioRecord, AListThatAFilterNarrowsToIdsNamesThem) {
  for (const char* filter :
       {"Id eq {}", "id EQ {}", "Id eq guid'{}'", "Id eq '{}'", "{} eq Id", "(Id) eq ({})", "(Id eq {})",
        "$it/Id eq {}", "Name eq 'x' and Id eq {}", "Id%20eq%20{}", "Id+eq+{}", "Id in ({})",
        "Id eq {} or 1 eq 1", "Name eq 'eq' and Id eq {}", "Id eq {0} and Id eq {0}", "not (Id eq {})"}) {
    EXPECT_EQ(get("Partnership?$filter=" + of(filter)), kGuid) << filter;
    EXPECT_EQ(get("Partnership/$count?filter=" + of(filter)), kGuid) << filter;
  }
  const std::string both = fmt::format("{} {}", kGuid, kOther);
  EXPECT_EQ(get(fmt::format("Partnership?$filter=Id eq {} or Id eq {}", kGuid, kOther)), both);
  EXPECT_EQ(get(fmt::format("Partnership?$filter=Id in ({},'{}')", kGuid, kOther)), both);
  EXPECT_EQ(get(fmt::format("Partnership({})?$filter=Id eq {}", kGuid, kOther)), both);
  EXPECT_EQ(
      named({"POST /0/odata/Partnership/$query", of("$filter=Id eq {}"), {{"Content-Type", "text/plain"}}}),
      kGuid);
  for (const char* filter : {"Id eq @p", "Id eq 1", "Id eq PartnerId", "Id in ('x')", "Id eq '"})
    EXPECT_EQ(get(std::string("Partnership?$filter=") + filter), "/") << filter;
}

TEST(CreatioRecord, AFilterOnTheOwnersColumnNamesTheOwner) {
  for (const char* filter :
       {"PartnerId eq {}", "Partner/Id eq {}", "partnerid eq guid'{}'", "{} eq PartnerId"})
    EXPECT_EQ(get("Partnership?$filter=" + of(filter)), of("@{}")) << filter;
  EXPECT_EQ(get("Partnership?$filter=PartnerId eq null"), "-");
  EXPECT_EQ(get(of("Partnership?$filter=PartnerId ne {}")), "-");
}

TEST(CreatioRecord, SoManyAreNamedAndThenNoneCanBeTold) {
  std::string filter = "Id in (";
  for (int i = 1; i <= 1'000; ++i)
    filter += fmt::format("{}405947d0-2ffb-4ded-8675-{:012x}", i > 1 ? "," : "", i);
  const std::string answer = get("Partnership?$filter=" + filter + ")");
  EXPECT_EQ(std::count(answer.begin(), answer.end(), ' '), 63);
  EXPECT_TRUE(answer.ends_with(" /")) << answer;
}

TEST(CreatioRecord, EachPartOfABatchNamesItsOwn) {
  const std::string body =
      fmt::format(R"x({{"requests":[{{"id":"1","method":"GET","url":"Partnership({})"}},)x"
                  R"({{"id":"2","method":"GET","url":"Partnership"}},)"
                  R"({{"id":"3","method":"GET","url":"/0/odata/Partnership?$filter=Id eq {}"}}]}})",
                  kGuid, kOther);
  EXPECT_EQ(named({"POST /0/odata/$batch", body, kJson}), fmt::format("{} - {}", kGuid, kOther));
  const std::string part = fmt::format(
      "--b\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
      "GET Partnership({}) HTTP/1.1\r\n\r\n\r\n--b--\r\n",
      kGuid);
  EXPECT_EQ(named({"POST /0/odata/$batch", part, {{"Content-Type", "multipart/mixed;boundary=b"}}}), kGuid);
}

std::string select_with(const std::string& members) {
  return named({"POST /0/DataService/json/SyncReply/SelectQuery",
                fmt::format(R"({{"rootSchemaName":"Partnership",{}}})", members), kJson});
}
std::string comparison(const std::string& left, const std::string& value, const std::string& type = "3") {
  return fmt::format(
      R"({{"filterType":1,"comparisonType":{},"leftExpression":{},)"
      R"("rightExpression":{{"expressionType":2,"parameter":{{"dataValueType":0,"value":{}}}}}}})",
      type, left, value);
}
std::string filters(const std::string& one) {
  return fmt::format(R"("filters":{{"filterType":6,"logicalOperation":0,"items":{{"a":{}}}}})", one);
}
constexpr const char* kColumn = R"({"expressionType":0,"columnPath":"Id"})";
constexpr const char* kMacro = R"({"expressionType":1,"functionType":1,"macrosType":34})";
const std::string kId = fmt::format("\"{}\"", kGuid);

TEST(CreatioRecord, ADataServiceQueryNamesRecordsByItsFilters) {
  EXPECT_EQ(select_with(R"("columns":{"items":{}})"), "-");
  for (const char* left : {kColumn, kMacro, R"({"ColumnPath":"id"})", R"({"macrosType":"PrimaryColumn"})"})
    EXPECT_EQ(select_with(filters(comparison(left, kId))), kGuid) << left;
  EXPECT_EQ(select_with(filters(comparison(kColumn, "{\"value\":" + kId + ",\"displayValue\":\"x\"}"))),
            kGuid);
  for (const char* type : {"\"3\"", "\"Equal\""})
    EXPECT_EQ(select_with(filters(comparison(kColumn, kId, type))), kGuid) << type;
  for (const char* type : {"4", "1", "\"NOT_EQUAL\"", "null"})
    EXPECT_EQ(select_with(filters(comparison(kColumn, kId, type))), "-") << type;
  EXPECT_EQ(select_with(fmt::format(R"("primaryColumnValue":{})", kId)), kGuid);
  const std::string nested = fmt::format(R"({{"filterType":6,"items":{{"b":{}}}}})", comparison(kMacro, kId));
  EXPECT_EQ(select_with(filters(nested)), kGuid);
  const std::string list =
      fmt::format(R"({{"filterType":4,"comparisonType":3,"leftExpression":{},"rightExpressions":[)"
                  R"({{"parameter":{{"value":"{}"}}}},{{"parameter":{{"value":"{}"}}}}]}})",
                  kColumn, kGuid, kOther);
  EXPECT_EQ(select_with(filters(list)), fmt::format("{} {}", kGuid, kOther));
  EXPECT_EQ(select_with(filters(comparison(R"({"columnPath":"Partner"})", kId))), of("@{}"));
  EXPECT_EQ(select_with(filters(comparison(R"({"columnPath":"Partner.Id"})", kId))), of("@{}"));
  EXPECT_EQ(select_with(filters(comparison(R"({"columnPath":"PartnerLevel"})", kId))), "-");
}

TEST(CreatioRecord, ADisabledFilterNamesNothingAndASubqueryItsOwnRecords) {
  const std::string off = comparison(kColumn, kId).substr(1);
  EXPECT_EQ(select_with(filters(R"({"isEnabled":false,)" + off)), "-");
  EXPECT_EQ(select_with(filters(R"({"isEnabled":true,)" + off)), kGuid);
  EXPECT_EQ(select_with(filters(R"({"isEnabled":true,"IsEnabled":false,)" + off)), kGuid)
      << "two words: enabled";
  EXPECT_EQ(
      select_with(filters(fmt::format(
          R"({{"filterType":5,"comparisonType":15,"leftExpression":{{"columnPath":"[Case:Partnership].Id"}},)"
          R"("subFilters":{{"items":{{"b":{}}}}}}})",
          comparison(kColumn, kId)))),
      "-");
}

TEST(CreatioRecord, ADataServiceFilterThatCannotBeReadNamesOneThatCannotBeTold) {
  EXPECT_EQ(select_with(filters(comparison(kColumn, "\"x\""))), "/");
  EXPECT_EQ(select_with(filters(comparison(kColumn, "7"))), "/");
  EXPECT_EQ(select_with(filters(comparison(kColumn, "{}"))), "/");
  EXPECT_EQ(select_with(R"("primaryColumnValue":7)"), "/");
  EXPECT_EQ(select_with(filters(R"({"comparisonType":3,"leftExpression":{"columnPath":"Id"}})")), "/");
  const std::string twice = comparison(R"({"columnPath":"Name","ColumnPath":"Id"})", kId);
  EXPECT_EQ(select_with(filters(twice)).substr(0, 1), "/") << "which of two columns counts cannot be told";
  EXPECT_EQ(select_with(R"("filters":7)"), "-");
  EXPECT_EQ(select_with(R"("filters":{"items":[7]})"), "-");
}

TEST(CreatioRecord, ItemsOfABatchQueryNameTheirOwn) {
  const auto item = [](const std::string& type, const std::string& more) {
    return fmt::format(
        R"({{"__type":"Terrasoft.Nui.ServiceModel.DataContract.{}","rootSchemaName":"Partnership"{}}})", type,
        more);
  };
  const std::string body =
      fmt::format(R"({{"items":[{},{},{}]}})", item("SelectQuery", "," + filters(comparison(kMacro, kId))),
                  item("SelectQuery", ""), item("UpdateQuery", "," + filters(comparison(kMacro, kId))));
  EXPECT_EQ(named({"POST /0/DataService/json/SyncReply/BatchQuery", body, kJson}),
            fmt::format("{} - {}", kGuid, kGuid));
}

TEST(CreatioRecord, OfOtherObjectsNothingIsRead) {
  for (const char* line : {"GET /0/odata/Case({})", "GET /0/odata/Case?$filter=Id eq {}"})
    for (const ObjectUse& use : Told{of(line)}.classify(Dialect::creatio, schema()).uses)
      EXPECT_EQ(use.record, "");
  for (const ObjectUse& use : Told{of("GET /0/odata/Partnership({})")}.classify(Dialect::creatio).uses)
    EXPECT_EQ(use.record, "") << "whose it is does not matter in this schema";
}

TEST(CreatioRecord, NamesReadBack) {
  const std::string one = of("Partnership/{}"), owner = of("Partnership/@{}");
  EXPECT_EQ(read_creatio_record(one).object, "Partnership");
  EXPECT_EQ(read_creatio_record(one).id, kGuid);
  EXPECT_EQ(read_creatio_record(one).owner, "");
  EXPECT_EQ(read_creatio_record(owner).id, "");
  EXPECT_EQ(read_creatio_record(owner).owner, kGuid);
  EXPECT_EQ(read_creatio_record("Partnership//").id, "");
  EXPECT_EQ(read_creatio_record("").object, "");
}

TEST(CreatioRecord, TheOwnerStandsInTheReply) {
  EXPECT_EQ(read_creatio_owner(of(R"({{"@odata.context":"x","Id":"1","PartnerId":"{}"}})"), "PartnerId"),
            kGuid);
  EXPECT_EQ(read_creatio_owner(R"({"PartnerId":"00000000-0000-0000-0000-000000000000"})", "PartnerId"), "");
  EXPECT_EQ(read_creatio_owner(R"({"PartnerId":null})", "PartnerId"), "");
  for (const char* body : {"", "[]", "{}", R"({"PartnerId":7})", R"({"PartnerId":"x"})",
                           R"({"PartnerId":null,"partnerid":null})", "<html>"})
    EXPECT_EQ(read_creatio_owner(body, "PartnerId"), std::nullopt) << body;
}

}  // namespace
}  // namespace tollgate::catalogue
