#include <gtest/gtest.h>

#include "tests/metering/catalogue/catalogue_fixture.h"

namespace tollgate::catalogue {
namespace {

std::string json(const std::string& body, const std::string& type = "application/json") {
  return Told{"POST /0/odata/$batch", body, {{"Content-Type", type}}}.creatio();
}
std::string mime(const std::string& body, const std::string& type = "multipart/mixed; boundary=b") {
  return Told{"POST /0/odata/$batch", body, {{"Content-Type", type}}}.creatio();
}
std::string one(const std::string& url, const std::string& method = "GET") {
  return json(fmt::format(R"~({{"requests":[{{"id":"1","method":"{}","url":"{}"}}]}})~", method, url));
}
std::string part(const std::string& request, const std::string& newline = "\r\n",
                 const std::string& boundary = "b") {
  return "--" + boundary + newline + "Content-Type: application/http" + newline +
         "Content-Transfer-Encoding: binary" + newline + newline + request + newline + newline;
}

TEST(BatchJson, UrlsMayBeRelativeRootRelativeOrAbsolute) {
  for (const char* url : {"Case", "/Case", "./Case", "/0/odata/Case", "https://crm.example/0/odata/Case",
                          "HTTP://h:81/odata/Case/", "%43ase", "Case?$top=1"})
    EXPECT_EQ(one(url), "[0] Case read") << url;
  EXPECT_EQ(one("Case(1)/Account"), "[0] Case read; [0] Account read nav");
  EXPECT_EQ(one("Case?$expand=Account"), "[0] Case read; [0] Account read expand");
  EXPECT_EQ(one("/0/ServiceModel/EntityDataService.svc/CaseCollection"), "[0] Case read");
}

// What a part returned of which nobody knows the object cannot be named by a later one.
TEST(BatchJson, PartsThatEndAtAPropertyAreNoReferences) {
  const auto then = [](const std::string& first) {
    return json(R"({"requests":[{"id":"1","method":"GET","url":")" + first +
                R"("},{"id":"2","method":"PATCH","url":"$1","dependsOn":["1"]}]})");
  };
  EXPECT_EQ(then("City(1)"), "[0] City read; [1] City edit");
  EXPECT_EQ(then("City(1)/Account"), "[0] City read; [0] Account read nav; [1] Account edit");
  EXPECT_EQ(then("City(1)/Dealer"), "reject");
  EXPECT_EQ(one("City(1)/Dealer/Name"), "[0] City read (object?)");
  EXPECT_EQ(one("City(1)/Dealer", "PATCH"), "[0] City edit (object?)");
}

TEST(BatchJson, MethodsMayBeInAnyCase) {
  EXPECT_EQ(one("Case", "post"), "[0] Case create");
  EXPECT_EQ(one("Case(1)", "Delete"), "[0] Case delete");
  EXPECT_EQ(one("Case(1)", "MERGE"), "[0] Case edit");
  EXPECT_EQ(one("Case", "OPTIONS"), "reject");
  EXPECT_EQ(one("Case", "FETCH"), "reject");
}

TEST(BatchJson, PartsThatLeaveTheServiceAreRejected) {
  for (const char* url :
       {"/0/rest/GridUtilitiesService/DeleteRecords", "/0/DataService/json/SyncReply/DeleteQuery", "../Case",
        "../odata/Case", "odata/Case", "0/odata/Case", "https://crm.example/x/Case", "https://crm.example",
        "//crm.example/0/odata/Case", "ftp://h/0/odata/Case", "$batch", "/0/odata/$batch", "$5", "$5/Name",
        "", "Case#x", "Case%2f1", "Case;x"})
    EXPECT_EQ(one(url), "reject") << url;
}

TEST(BatchJson, RepeatedKeysInAnyCaseAreRejected) {
  EXPECT_EQ(json(R"~({"requests":[{"method":"GET","METHOD":"DELETE","url":"Case(1)"}]})~"), "reject");
  EXPECT_EQ(json(R"~({"requests":[{"method":"GET","url":"KnowledgeBase","Url":"Account"}]})~"), "reject");
  EXPECT_EQ(json(R"~({"requests":[{"method":"GET","url":"KnowledgeBase","\u0075rl":"Account"}]})~"),
            "reject");
  EXPECT_EQ(json(R"~({"requests":[],"Requests":[{"method":"DELETE","url":"Case(1)"}]})~"), "reject");
  EXPECT_EQ(
      json("{\"requests\":[],\"reque\xC5\xBFt\xC5\xBF\":[{\"method\":\"DELETE\",\"url\":\"Case(1)\"}]}"),
      "reject");
  EXPECT_EQ(
      json(
          R"~({"requests":[{"method":"POST","url":"Case(1)","headers":{"X-HTTP-Method":"GET","x-http-method":"DELETE"}}]})~"),
      "reject");
}

TEST(BatchJson, MalformedBodiesAreRejected) {
  for (const char* body :
       {"", "[]", "{}", "null", "{\"requests\":null}", "{\"requests\":{}}", "{\"requests\":[1]}",
        "{\"requests\":[{\"url\":\"Case\"}]}", "{\"requests\":[{\"method\":\"GET\"}]}",
        "{\"requests\":[{\"method\":1,\"url\":\"Case\"}]}", "{\"requests\":[]} x", "{\"requests\":[],}",
        "{requests:[]}", "{\"requests\":[/*c*/]}"})
    EXPECT_EQ(json(body), "reject") << body;
}

TEST(BatchJson, AnEmptyBatchTouchesNothing) {
  EXPECT_EQ(json(R"~({"requests":[]})~"), "objects");
  EXPECT_EQ(json("\xEF\xBB\xBF{\"REQUESTS\":[]}"), "objects");
}

TEST(BatchJson, OverrideHeadersInsideAPartHold) {
  EXPECT_EQ(
      json(R"~({"requests":[{"method":"POST","url":"Case(1)","headers":{"X-HTTP-Method":"DELETE"}}]})~"),
      "[0] Case delete");
  EXPECT_EQ(json(R"~({"requests":[{"method":"GET","url":"Case(1)","headers":{"X-HTTP-Method":"DELETE"}}]})~"),
            "reject");
}

TEST(BatchJson, AReferenceStandsForTheObjectOfItsPart) {
  EXPECT_EQ(
      json(
          R"~({"requests":[{"id":"a","method":"POST","url":"Case"},{"id":"b","method":"POST","url":"$a/CaseFileCollectionByCase"},
                    {"id":"c","method":"DELETE","url":"/$a"}]})~"),
      "[0] Case create; [1] Case edit; [1] CaseFile create nav; [2] Case delete");
  EXPECT_EQ(
      json(R"~({"requests":[{"id":"a","method":"POST","url":"Case"},{"id":"a","method":"POST","url":"Lead"},
                    {"id":"b","method":"DELETE","url":"$a"}]})~"),
      "reject");
  EXPECT_EQ(
      json(
          R"~({"requests":[{"id":"b","method":"DELETE","url":"$a"},{"id":"a","method":"POST","url":"Case"}]})~"),
      "reject");
}

TEST(BatchJson, EveryPartUpToTheBoundIsCounted) {
  auto batch = [](int n) {
    std::string body = "{\"requests\":[";
    for (int i = 0; i < n; ++i) body += std::string(i ? "," : "") + R"~({"method":"GET","url":"Case"})~";
    return Told{"POST /0/odata/$batch", body + "]}", kJson}.classify(Dialect::creatio);
  };
  EXPECT_EQ(batch(101).uses.size(), 101U);
  EXPECT_EQ(batch(101).uses.back().part, 100U);
  EXPECT_EQ(batch(1001).kind, Kind::reject);
}

TEST(Batch, OtherFormatsAndCodingsAreUnsupportedMedia) {
  EXPECT_EQ(json("{}", "application/xml"), "unsupported media");
  EXPECT_EQ((Told{"POST /0/odata/$batch", "{}", {}}.creatio()), "unsupported media");
  EXPECT_EQ(json("{}", "application/json; charset=utf-16"), "unsupported media");
  EXPECT_EQ(
      (Told{
          "POST /0/odata/$batch", "{}", {{"Content-Type", "application/json"}, {"Content-Encoding", "gzip"}}}
           .creatio()),
      "unsupported media");
  EXPECT_EQ((Told{"POST /0/odata/$batch",
                  R"~({"requests":[]})~",
                  {{"Content-Type", "application/json"}, {"Content-Encoding", "identity"}}}
                 .creatio()),
            "objects");
  EXPECT_EQ((Told{"POST /0/odata/$batch",
                  "{}",
                  {{"Content-Type", "application/json"}, {"Content-Type", "multipart/mixed;boundary=b"}}}
                 .creatio()),
            "reject");
  EXPECT_EQ(
      (Told{"POST /0/odata/$batch", "{}", {{"Content-Type", "application/json"}, {"X-HTTP-Method", "GET"}}}
           .creatio()),
      "reject");
}

TEST(BatchMultipart, QuotedBoundaryAndBothNewlinesAreRead) {
  for (const char* newline : {"\r\n", "\n"}) {
    std::string nl = newline;
    std::string body =
        part("GET Case HTTP/1.1", nl) + part("DELETE Lead(1) HTTP/1.1" + nl + "Host: h", nl) + "--b--" + nl;
    EXPECT_EQ(mime(body), "[0] Case read; [1] Lead delete");
    EXPECT_EQ(mime(body, "Multipart/Mixed; charset=utf-8; BOUNDARY=\"b\""), "[0] Case read; [1] Lead delete");
    EXPECT_EQ(mime("preamble" + nl + body + "epilogue" + nl), "[0] Case read; [1] Lead delete");
    EXPECT_EQ(mime(part("GET Case HTTP/1.1", nl) + "--b  " + nl + "Content-Type: application/http" + nl + nl +
                   "GET Order HTTP/1.1"),
              "[0] Case read; [1] Order read");
  }
}

TEST(BatchMultipart, MissingClosingDelimiterEndsWithTheBody) {
  EXPECT_EQ(mime(part("GET Case HTTP/1.1")), "[0] Case read");
  EXPECT_EQ(mime("--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n" +
                 part("POST Case HTTP/1.1\r\nContent-ID: 1", "\r\n", "c") +
                 part("POST $1/CaseFileCollectionByCase HTTP/1.1", "\r\n", "c")),
            "[0] Case create; [1] Case edit; [1] CaseFile create nav");
}

TEST(BatchMultipart, TextThatOnlyLooksLikeADelimiterIsBody) {
  EXPECT_EQ(mime(part("POST Case HTTP/1.1\r\n\r\n{\"a\":\"--b\"}  --b") + "--b--"), "[0] Case create");
  EXPECT_EQ(mime(part("GET Case?$filter=Name eq 'x y' HTTP/1.1") + "--b--"), "[0] Case read");
}

TEST(BatchMultipart, WhatReadersCutDifferentlyIsRejected) {
  std::string good = part("GET Case HTTP/1.1");
  for (const std::string& body :
       {std::string(),
        std::string("x"),
        std::string("--c\r\n"),
        std::string("--b"),
        good + "\n--b\nContent-Type: application/http\n\nDELETE Case(1) "
               "HTTP/1.1\n\r\n--b--\r\n",  // mixed newlines
        good + "--bx\r\nContent-Type: application/http\r\n\r\nDELETE Case(1) "
               "HTTP/1.1\r\n\r\n--b--",                                      // longer delimiter
        good + "--b--\r\n" + good,                                           // behind the end
        part("POST Case HTTP/1.1\r\n\r\nx\r--b\rDELETE Case(1)") + "--b--",  // bare CR
        std::string("--b\r\n\r\nGET Case HTTP/1.1\r\n\r\n--b--"),            // no Content-Type
        std::string("--b\r\nContent-Type: text/plain\r\n\r\nGET Case HTTP/1.1\r\n\r\n--b--"),
        std::string("--b\r\nContent-Type: application/http\r\nContent-Type: "
                    "application/http\r\n\r\nGET Case HTTP/1.1\r\n\r\n--b--"),
        std::string("--b\r\nContent-Type : application/http\r\n\r\nGET Case HTTP/1.1\r\n\r\n--b--"),
        std::string("--b\r\nContent-Type: application/http\r\n folded\r\n\r\nGET Case "
                    "HTTP/1.1\r\n\r\n--b--"),
        std::string("--b\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: "
                    "base64\r\n\r\nR0VU\r\n--b--"),
        std::string("--b\r\nContent-Type: multipart/mixed; boundary=b2\r\n\r\n") +
            part("GET Case HTTP/1.1", "\r\n", "b2") + "--b--",
        part("GET Case") + "--b--",
        part("GET  HTTP/1.1") + "--b--",
        part("GET Ca se HTTP/1.1") + "--b--",
        part("GET Case HTTP/1.1x") + "--b--",
        part("FOO Case HTTP/1.1") + "--b--",
        part("") + "--b--",
        part("POST Case HTTP/1.1\r\nTransfer-Encoding: chunked") + "--b--",
        part("POST Case(1) HTTP/1.1\r\nX-HTTP-Method: GET\r\nX-HTTP-Method: DELETE") + "--b--",
        part("POST $batch HTTP/1.1") + "--b--",
        part("POST /0/rest/S/M HTTP/1.1") + "--b--"})
    EXPECT_EQ(mime(body), "reject") << body;
  for (const char* type : {"multipart/mixed", "multipart/mixed; boundary=", "multipart/mixed; boundary=\"b",
                           "multipart/mixed; boundary=b; boundary=c", "multipart/mixed; boundary*=b"})
    EXPECT_EQ(mime(good + "--b--", type), "reject") << type;
}

TEST(BatchMultipart, NestedChangeSetsAreRejectedAndEmptyOnesTouchNothing) {
  std::string inner = "--c\r\nContent-Type: multipart/mixed; boundary=d\r\n\r\n" +
                      part("DELETE Case(1) HTTP/1.1", "\r\n", "d") + "--d--\r\n--c--\r\n";
  EXPECT_EQ(mime("--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n" + inner + "--b--"), "reject");
  EXPECT_EQ(mime("--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c--\r\n--b--"), "objects");
  EXPECT_EQ(mime("--b--\r\n"), "objects");
}

}  // namespace
}  // namespace tollgate::catalogue
