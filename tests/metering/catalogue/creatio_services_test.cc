#include <gtest/gtest.h>

#include "tests/metering/catalogue/catalogue_fixture.h"

namespace tollgate::catalogue {
namespace {

std::string data(const std::string& method, const std::string& body,
                 const std::string& type = "application/json") {
  return Told{"POST /0/DataService/json/SyncReply/" + method, body, {{"Content-Type", type}}}.creatio();
}
std::string post(const std::string& path, const std::string& body) {
  return Told{"POST " + path, body, kJson}.creatio();
}

TEST(DataService, TheUrlSaysTheOperationAndTheTopLevelTheObject) {
  EXPECT_EQ(data("selectquery", R"({"ROOTSCHEMANAME":"case"})"), "Case read");
  EXPECT_EQ(data("LookupSelectQuery", R"({"rootSchemaName":"Case","operationType":3})"), "Case read");
  EXPECT_EQ(data("UpdateQuery", R"({"rootSchemaName":"Case","isUpsert":false})"), "Case edit");
  EXPECT_EQ(data("UpdateQuery", R"({"rootSchemaName":"Case","IsUpsert":true})"), "Case edit; Case create");
  EXPECT_EQ(
      data(
          "DeleteQuery",
          R"({"filters":{"rootSchemaName":"Account","items":{"x":{"rootSchemaName":"Lead"}}},"rootSchemaName":"Case"})"),
      "Case delete");
  for (const char* root : {"/DataService/json/reply/", "/DataService/ssp/json/Reply/",
                           "/0/ssp/DataService/json/syncreply/", "/dir/3/dataservice/JSON/SYNCREPLY/"})
    EXPECT_EQ(post(std::string(root) + "SelectQuery", R"({"rootSchemaName":"Case"})"), "Case read") << root;
}

TEST(DataService, ColumnPathsAreJoins) {
  EXPECT_EQ(
      data(
          "SelectQuery",
          R"({"rootSchemaName":"Case","columns":{"items":{"a":{"expression":{"columnPath":"Account.Owner.Name"}},
            "b":{"expression":{"ColumnPath":"[Order:Account:Id].Number"}},"c":{"expression":{"columnPath":"Status"}}}},
            "filters":[{"leftExpression":{"columnPath":"=[Lead:Case].Name"}}]})"),
      "Case read; Account read join; Contact read join; Order read join; Lead read join");
}

TEST(DataService, ManyDistinctJoinsCostLittle) {
  std::string body = R"({"rootSchemaName":"Case","columns":[)";
  for (int i = 0; i < 20000; ++i) body += fmt::format(R"({}{{"columnPath":"[X{}:Id].N"}})", i ? "," : "", i);
  EXPECT_LT(Told({"POST /0/DataService/json/SyncReply/SelectQuery", body + "]}", kJson})
                .classify(Dialect::creatio)
                .uses.size(),
            70U);
}

TEST(DataService, AmbiguousQueriesAreRejected) {
  EXPECT_EQ(data("SelectQuery", R"({"rootSchemaName":"Case","RootSchemaName":"Account"})"), "reject");
  EXPECT_EQ(data("SelectQuery", R"({"rootSchemaName":"Case","root\u0053chemaName":"Account"})"), "reject");
  EXPECT_EQ(data("UpdateQuery", R"({"rootSchemaName":"Case","isUpsert":false,"IsUpsert":true})"), "reject");
  EXPECT_EQ(data("SelectQuery", R"({"filters":{"rootSchemaName":"Case"}})"), "reject");
  EXPECT_EQ(data("SelectQuery", R"({"rootSchemaName":"Ca se"})"), "reject");
  EXPECT_EQ(data("SelectQuery", R"({"rootSchemaName":null})"), "reject");
  EXPECT_EQ(data("SelectQuery", R"([{"rootSchemaName":"Case"}])"), "reject");
  EXPECT_EQ(data("SelectQuery", ""), "reject");
  EXPECT_EQ(data("SelectQuery?rootSchemaName=Account", R"({"rootSchemaName":"Case"})"), "reject");
  EXPECT_EQ(Told{"GET /0/DataService/json/SyncReply/DeleteQuery?rootSchemaName=Case"}.creatio(), "reject");
  EXPECT_EQ(data("SelectQuery/x", R"({"rootSchemaName":"Case"})"), "reject");
  EXPECT_EQ(data("SelectQuery", std::string(5000, '[')), "reject");
}

TEST(DataService, OtherFormatsCannotBeInspected) {
  EXPECT_EQ(data("SelectQuery", "rootSchemaName=Case", "application/x-www-form-urlencoded"),
            "unsupported media");
  EXPECT_EQ(data("SelectQuery", "<q/>", "application/xml"), "unsupported media");
  EXPECT_EQ(post("/0/DataService/xml/SyncReply/SelectQuery", "{}"), "unsupported media");
  EXPECT_EQ(post("/0/DataService/jsv/SyncReply/SelectQuery", "{}"), "unsupported media");
}

TEST(DataService, AQueryUnderAnUnheardOfFormIsNotLetThroughUnread) {
  for (const char* path : {"html/reply/SelectQuery", "SelectQuery", "json/foo/DeleteQuery",
                           "msgpack/reply/BatchQuery", "json/SelectQuery"})
    EXPECT_EQ(
        (Told{std::string("POST /0/DataService/") + path, R"({"rootSchemaName":"Case"})", kJson}.creatio()),
        "unsupported media")
        << path;
  EXPECT_EQ((Told{"GET /0/DataService/types/metadata"}.creatio()), "unknown");
}

// RFC 8259 allows them and the CRM's parser takes them: a text cut inside an emoji, a number of any length.
TEST(DataService, OddButLegalJsonIsRead) {
  auto insert = [](const std::string& member) {
    return Told{"POST /0/DataService/json/SyncReply/InsertQuery",
                R"({"rootSchemaName":"Case",)" + member + "}", kJson}
        .creatio();
  };
  for (const char* member : {R"("a":"cut \ud83d")", R"("a":"\ude00 back")", R"("a":"\ud83d\ude00")",
                             R"("a":"\\ud83d","b":"\ud83d\n")", R"("a":123456789012345678901234567890)",
                             R"("a":[-123456789012345678901234567890,1.5e3])", R"("\udc00":"\"")"})
    EXPECT_EQ(insert(member), "Case create") << member;
  for (const char* member : {R"("a":"\ud83d","ROOTSCHEMANAME":"Lead")", R"("a":"\ud8")", R"("a":"\x")",
                             R"("a":01234567890123456789)", R"("a":123456789012345678901234567890x)",
                             R"("a":"\ud83d)", R"("a":1.2.345678901234567890)"})
    EXPECT_EQ(insert(member), "reject") << member;
}

TEST(DataService, TypeOfASingleQueryMustNotContradictTheAddress) {
  auto select = [](const std::string& type) {
    return Told{"POST /0/DataService/json/SyncReply/SelectQuery",
                R"({"rootSchemaName":"Case","__type":")" + type + R"("})", kJson}
        .creatio();
  };
  EXPECT_EQ(select("Terrasoft.Nui.ServiceModel.DataContract.SelectQuery"), "Case read");
  EXPECT_EQ(select("Terrasoft.Nui.ServiceModel.DataContract.Something"), "Case read");
  EXPECT_EQ(select("Terrasoft.Nui.ServiceModel.DataContract.DeleteQuery"), "reject");
  EXPECT_EQ((Told{"POST /0/DataService/json/SyncReply/UpdateQuery?isUpsert=true",
                  R"({"rootSchemaName":"Case"})", kJson}
                 .creatio()),
            "reject");
}

TEST(DataService, SettingsAreMetadataAndUnheardOfMethodsUnknown) {
  EXPECT_EQ((Told{"POST /0/DataService/json/SyncReply/QuerySysSettings", "", kJson}.creatio()), "metadata");
  EXPECT_EQ((Told{"POST /0/DataService/json/SyncReply/QuerySysSettings", "", kJson}.need(Dialect::creatio)),
            BodyNeed::none);
  EXPECT_EQ(data("NewQuery", "{}"), "unknown");
}

TEST(DataServiceBatch, EachItemIsAnOperation) {
  EXPECT_EQ(
      data(
          "BatchQuery",
          R"({"Items":[{"__type":"Terrasoft.Nui.ServiceModel.DataContract.InsertQuery, Terrasoft","RootSchemaName":"Case"},
            {"__type":"UpdateQuery:#Terrasoft.Nui","rootSchemaName":"Lead","isUpsert":true},
            {"operationType":3,"rootSchemaName":"Order"},{"__type":"X.QuerySysSettings"}]})"),
      "[0] Case create; [1] Lead edit; [1] Lead create; [2] Order delete");
  EXPECT_EQ(data("BatchQuery", R"({"items":[]})"), "objects");
  for (const char* body :
       {R"({"items":[],"Items":[]})", R"({"items":[{"rootSchemaName":"Case"}]})", R"({})", R"({"items":[1]})",
        R"({"items":[{"__type":"A.BatchQuery","items":[]}]})",
        R"({"items":[{"__type":"A.Nothing","rootSchemaName":"Case"}]})",
        R"({"items":[{"__type":"A.SelectQuery","__TYPE":"A.DeleteQuery","rootSchemaName":"Case"}]})",
        R"({"items":[{"__type":"A.SelectQuery","rootSchemaName":"Case","rootschemaname":"Lead"}]})"})
    EXPECT_EQ(data("BatchQuery", body), "reject") << body;
}

TEST(DataServiceUpload, TheQueryIsAFormField) {
  auto form = [](const std::string& fields) {
    return Told{"POST /0/DataService/json/SyncReply/UploadFile",
                fields + "--x--\r\n",
                {{"Content-Type", "multipart/form-data; boundary=x"}}}
        .creatio();
  };
  auto field = [](const std::string& name, const std::string& value) {
    return "--x\r\nContent-Disposition: form-data; name=" + name + "\r\n\r\n" + value + "\r\n";
  };
  std::string query = field("\"queryData\"", R"({"rootSchemaName":"CaseFile"})");
  EXPECT_EQ(form(query + field("operationType", "1")), "CaseFile create");
  EXPECT_EQ(
      form(field("operationType", "2") + query + field("\"file\"; filename=\"a b.png\"", "\x01\n--y\n")),
      "CaseFile edit");
  EXPECT_EQ(form(query), "CaseFile create");
  EXPECT_EQ(form(query + query), "reject");
  EXPECT_EQ(form(query + field("QUERYDATA", R"({"rootSchemaName":"Account"})")), "reject");
  EXPECT_EQ(form(field("operationType", "1")), "reject");
  EXPECT_EQ(form(query + field("operationType", "3")), "reject");
  EXPECT_EQ(form(field("\"x\"; name=\"queryData\"", "{}")), "reject");
  EXPECT_EQ(data("UploadFile", "{}"), "unsupported media");
}

TEST(Services, ObjectsAreFoundWhereEachServiceKeepsThem) {
  EXPECT_EQ(post("/0/rest/CasePortalService/IsCaseHasVisibleMessages", "{}"), "Case read service");
  EXPECT_EQ(post("/rest/CASEPORTALSERVICE/reopencase", "{}"), "Case edit service");
  EXPECT_EQ(post("/0/ServiceModel/GridUtilitiesService.svc/DeleteRecords", R"({"RootSchema":"case"})"),
            "Case delete service");
  EXPECT_EQ(
      post("/0/rest/GridUtilitiesService/DeleteRecords", R"({"rootSchema":"City","RootSchema":"Case"})"),
      "reject");
  EXPECT_EQ(post("/0/rest/GridUtilitiesService/DeleteRecords", "{}"), "reject");
  EXPECT_EQ(post("/0/rest/FileApiService/UploadFile?entityschemaname=CaseFile", "x"),
            "CaseFile create service");
  EXPECT_EQ(post("/0/rest/FileApiService/UploadFile?entitySchemaName=City&entitySchemaName=CaseFile", "x"),
            "reject");
  EXPECT_EQ(post("/0/rest/FileApiService/UploadFile", "x"), "reject");
  EXPECT_EQ(Told{"GET /0/rest/FileService/GetFile/7B332DB9-3993-4136-ac32-09353333cc7a/1"}.creatio(),
            "DocumentFile read service");
  EXPECT_EQ(Told{"GET /0/rest/FileService/GetFile/00000000-3993-4136-ac32-09353333cc7a/1"}.creatio(),
            "unknown");
  EXPECT_EQ(Told{"GET /0/img/entity/hash/CaseFile/Data/1"}.creatio(), "CaseFile read service");
  EXPECT_EQ(Told{"POST /0/ImageAPIService/upload"}.creatio(), "SysImage create service");
  EXPECT_EQ(Told{"GET /0/ssp/rest/PortalFileService/GetActivityFile/1/2"}.creatio(),
            "ActivityFile read service; CaseMessageHistory read service");
  EXPECT_EQ(
      post(
          "/0/rest/MessagePublisherService/Publish",
          R"({"className":"x","fieldsData":[{"Key":"Message","Value":"m"},{"Key":"EntitySchemaUId","Value":"117d32f9-8275-4534-8411-1c66115ce9cd"}]})"),
      "Case edit service");
  EXPECT_EQ(
      post("/0/rest/MessagePublisherService/Publish",
           R"({"fieldsData":[{"Key":"EntitySchemaUId","Value":"a"},{"Key":"entityschemauid","Value":"b"}]})"),
      "reject");
  EXPECT_EQ(post("/0/rest/MessagePublisherService/Publish",
                 R"({"fieldsData":[{"Key":"EntitySchemaUId","Value":"a"}]})"),
            "unknown");
  EXPECT_EQ(post("/0/ssp/rest/ApprovalService/Reject",
                 R"({"request":{"SchemaName":"OrderVisa","schemaName":"City"}})"),
            "reject");
  EXPECT_EQ(
      post(
          "/0/rest/ReportService/GetExportToExcelKey",
          R"({"esqSerialized":"{\"rootSchemaName\":\"Order\",\"filters\":{\"columnPath\":\"Account.Name\"}}"})"),
      "Order read service; Account read join");
  EXPECT_EQ(post("/0/rest/ReportService/GetExportToExcelKey", R"({"esqSerialized":"x"})"), "reject");
  EXPECT_EQ(post("/0/rest/GlobalSearchService/Search", R"({"sectionEntityName":"Case"})"),
            "Case read service");
  EXPECT_EQ(post("/0/rest/GlobalSearchService/Search", R"({"sectionEntityName":""})"), "unknown");
}

TEST(ApprovalService, AMethodThatNamesNoRecordIsUnknownAndNoMistake) {
  auto post = [](const char* method, const char* body) {
    return Told{std::string("POST /0/rest/ApprovalService/") + method, body, kJson}.creatio();
  };
  EXPECT_EQ(post("GetSettings", "{}"), "unknown");
  EXPECT_EQ(post("Approve", "{}"), "reject");
}

TEST(Services, LaterChunksOfAFileAreFree) {
  auto chunk = [](const char* range) {
    return Told{
        "POST /0/rest/FileApiService/UploadFile?entitySchemaName=CaseFile", "x", {{"Content-Range", range}}}
        .creatio();
  };
  EXPECT_EQ(chunk("bytes 0-9/20"), "CaseFile create service");
  EXPECT_EQ(chunk("bytes 10-19/20"), "CaseFile edit service (free)");
  EXPECT_EQ(chunk("bytes */20"), "CaseFile create service");
  EXPECT_EQ(chunk("bytes -1-19/20"), "CaseFile create service");
}

TEST(Services, ProcessesAreWhatTheOperatorDeclared) {
  EXPECT_EQ(post("/0/ServiceModel/ProcessEngineService.svc/RunProcess", R"({"schemaName":"usrcloseall"})"),
            "Case edit process; Order read process");
  EXPECT_EQ(Told{"GET /0/ServiceModel/ProcessEngineService.svc/UsrCloseAll/Execute?P=1"}.creatio(),
            "Case edit process; Order read process");
  EXPECT_EQ(Told{"GET /0/ServiceModel/ProcessEngineService.svc/UsrOther/Execute"}.creatio(),
            "unknown: process:UsrOther execute process");
  EXPECT_EQ(post("/0/ServiceModel/ProcessEngineService.svc/RunProcess",
                 R"({"schemaName":"UsrCloseAll","SCHEMANAME":"b"})"),
            "reject");
  EXPECT_EQ(post("/0/ServiceModel/ProcessEngineService.svc/RunProcess", "{}"), "reject");
  EXPECT_EQ(post("/0/ServiceModel/ProcessEngineService.svc/ExecProcElByUId", "{}"), "unknown");
}

TEST(Services, WhatIsNotListedIsUnknown) {
  EXPECT_EQ(post("/0/rest/UsrMyService/DoIt", "{}"), "unknown");
  EXPECT_EQ(post("/0/rest/UsrMyService", "{}"), "unknown");
  EXPECT_EQ(post("/0/ServiceModel/LicenseManagerProxyService.svc/GetLicenses", "{}"), "unknown");
  EXPECT_EQ(post("/0/rest/CasePortalService/Other", "{}"), "unknown");
  EXPECT_EQ(post("/0/rest/CasePortal%20Service/CloseCase", "{}"), "reject");
  EXPECT_EQ(post("/0/rest/CasePortalService/Close%20Case", "{}"), "reject");
  EXPECT_EQ(post("/ServiceModel/AuthService.svc/Login", "{}"), "authentication");
}

TEST(FileApiService, OnlyAWellFormedLaterRangeIsFree) {
  auto upload = [](const char* range) {
    return Told{
        "POST /0/rest/FileApiService/UploadFile?entitySchemaName=CaseFile", "x", {{"Content-Range", range}}}
        .creatio();
  };
  EXPECT_EQ(upload("bytes 0-9/20"), "CaseFile create service");
  EXPECT_EQ(upload("bytes 10-19/20"), "CaseFile edit service (free)");
  for (const char* range : {"bytes 10", "bytes 10-19", "bytes 19-10/20", "bytes 10-20/20", "bytes 10-19/*",
                            "bytes x-19/20", "bytes */20", "10-19/20"})
    EXPECT_EQ(upload(range), "CaseFile create service") << range;
}

}  // namespace
}  // namespace tollgate::catalogue
