// What it costs to say what a request touches. Goal: an OData read well under 1 us, a batch part about the same.
#include <benchmark/benchmark.h>

#include <string>

#include "metering/base/check.h"
#include "metering/catalogue/classifier.h"

namespace {

using namespace tollgate::catalogue;

const Classifier& classifier() {
  static const Classifier kClassifier = [] {
    auto schema = std::make_shared<Schema>();
    for (const char* object :
         {"Case", "CaseFile", "CaseStatus", "Account", "Contact", "Order", "Lead", "KnowledgeBase"})
      schema->add_object(object);
    schema->add_relation("*", "Owner", "Contact");
    return Classifier(Options{{Dialect::creatio}}, std::move(schema));
  }();
  return kClassifier;
}

void run(benchmark::State& state, const Request& request, std::size_t uses) {
  CHECK(classifier().classify(request).uses.size() == uses, "the request is read as expected");
  for (auto _ : state) benchmark::DoNotOptimize(classifier().classify(request));
}

void odata_read(benchmark::State& state) {
  const HeaderField headers[] = {
      {"Host", "crm.example"}, {"Authorization", "Bearer x"}, {"Accept", "application/json"}};
  run(state, {"GET", "/0/odata/Case?$select=Id,Number,Subject&$top=20", headers, {}}, 1);
}
BENCHMARK(odata_read);

void odata_read_with_expand_and_filter(benchmark::State& state) {
  run(state,
      {"GET",
       "/0/odata/Case?%24select=Id%2CNumber&%24expand=Status&%24filter=Account%2FName+eq+%27x%27",
       {},
       {}},
      3);
}
BENCHMARK(odata_read_with_expand_and_filter);

void odata_batch_of_37_as_json(benchmark::State& state) {
  std::string body = "{\"requests\":[";
  for (int i = 0; i < 37; ++i)
    body += std::string(i ? "," : "") +
            R"({"id":"1","method":"POST","url":"Case","body":{"Subject":"printer","Notes":"no paper"}})";
  body += "]}";
  const HeaderField headers[] = {{"Content-Type", "application/json"}};
  run(state, {"POST", "/0/odata/$batch", headers, body}, 37);
}
BENCHMARK(odata_batch_of_37_as_json);

void odata_batch_of_37_as_multipart(benchmark::State& state) {
  std::string body;
  for (int i = 0; i < 37; ++i)
    body +=
        "--b\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\nGET Case "
        "HTTP/1.1\r\n"
        "Accept: application/json\r\n\r\n\r\n";
  body += "--b--\r\n";
  const HeaderField headers[] = {{"Content-Type", "multipart/mixed; boundary=b"}};
  run(state, {"POST", "/0/odata/$batch", headers, body}, 37);
}
BENCHMARK(odata_batch_of_37_as_multipart);

void data_service_select(benchmark::State& state) {
  const std::string body =
      R"({"rootSchemaName":"Case","operationType":0,"columns":{"items":{"Number":{"expression":{"expressionType":0,"columnPath":"Number"}},)"
      R"("C":{"expression":{"expressionType":0,"columnPath":"Contact.Name"}}}},"filters":{"filterType":6,"items":{}}})";
  const HeaderField headers[] = {{"Content-Type", "application/json"}};
  run(state, {"POST", "/0/DataService/json/SyncReply/SelectQuery", headers, body}, 2);
}
BENCHMARK(data_service_select);

}  // namespace
