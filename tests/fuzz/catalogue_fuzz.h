// What holds for every request whatever its bytes: no crash, the same answer twice, a rejection names its cause and
// touches nothing, and a request that needs no body is not changed by one.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/check.h"
#include "metering/base/guid.h"
#include "metering/catalogue/classifier.h"
#include "metering/catalogue/creatio_record.h"

namespace tollgate::catalogue {

inline const Classifier& fuzz_classifier() {
  static const Classifier kClassifier = [] {
    auto schema = std::make_shared<Schema>();
    for (const char* object :
         {"Case", "CaseFile", "CaseStatus", "Account", "Contact", "Leads", "Incident", "Partnership"})
      schema->add_object(object);
    schema->add_owned("Partnership", "PartnerId");
    schema->add_relation("*", "Owner", "Contact");
    schema->add_uid("6dd53665c0c24cab86870a21cf6434ae", "Incident");
    return Classifier(Options{{Dialect::creatio, Dialect::zoho, Dialect::cherwell, Dialect::rest}},
                      std::move(schema));
  }();
  return kClassifier;
}

inline bool same(const Classification& a, const Classification& b) {
  if (a.kind != b.kind || a.uses.size() != b.uses.size() || a.counted != b.counted) return false;
  for (std::size_t i = 0; i < a.uses.size(); ++i)
    if (a.uses[i].object != b.uses[i].object || a.uses[i].operation != b.uses[i].operation ||
        a.uses[i].part != b.uses[i].part || a.uses[i].record != b.uses[i].record)
      return false;
  return true;
}

// Of an object whose records' owners matter: "Partnership/{id}", "Partnership//" or "Partnership/@{id}".
inline bool is_record_name(const ObjectUse& use) {
  const CreatioRecord named = read_creatio_record(use.record);
  if (named.object != use.object) return false;
  const std::string_view id = named.owner.empty() ? named.id : named.owner;
  return id.empty() ? use.record.ends_with("//") : read_guid(id) == id;
}

inline Classification check_request(const Request& request) {
  const Classifier& classifier = fuzz_classifier();
  Classification answer = classifier.classify(request);
  CHECK(same(answer, classifier.classify(request)), "the same request is read the same twice");
  if (answer.kind == Kind::reject) {
    CHECK(!answer.reject_detail.empty(), "a rejection says why");
    CHECK(answer.uses.empty(), "a rejection touches nothing");
  }
  std::uint32_t part = 0;
  for (const ObjectUse& use : answer.uses) {
    CHECK(!use.object.empty(), "every use has an object");
    if (use.record.starts_with("Partnership/")) CHECK(is_record_name(use), "a record has one name");
    CHECK(use.part >= part && use.part < 1000, "parts are in order and bounded");
    part = use.part;
  }
  if (classifier.body_need(request) == BodyNeed::none) {
    Request without = request;
    without.body = {};
    CHECK(same(answer, classifier.classify(without)), "a body that is not needed changes nothing");
  }
  return answer;
}

inline std::string_view as_text(const std::uint8_t* bytes, std::size_t size) {
  return {reinterpret_cast<const char*>(bytes), size};
}

}  // namespace tollgate::catalogue
