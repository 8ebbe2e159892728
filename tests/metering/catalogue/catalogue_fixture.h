// A classifier over a small schema, and one line of text for what it says, so that a test reads as a table.
//   Told{"PATCH /0/odata/Case(1)"}.creatio()   ->  "Case edit"
//   a batch                                    ->  "[0] Case create; [1] Contact edit"
//   other kinds                                ->  "metadata", "reject", "unknown: process:X execute process", ...
#pragma once
#include <fmt/format.h>

#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "metering/catalogue/classifier.h"

namespace tollgate::catalogue {

inline std::shared_ptr<const Schema> small_schema() {
  auto schema = std::make_shared<Schema>();
  for (const char* object : {"Account",
                             "Contact",
                             "KnowledgeBase",
                             "Case",
                             "CaseFile",
                             "CaseStatus",
                             "CaseMessageHistory",
                             "Lead",
                             "FileLead",
                             "Opportunity",
                             "OpportunityContact",
                             "VwPortalOpportunity",
                             "Order",
                             "OrderVisa",
                             "OrderPaymentStatus",
                             "Document",
                             "Partnership",
                             "Contract",
                             "City",
                             "SysImage",
                             "SysSettings",
                             "PortalMessageFile",
                             "ActivityFile",
                             "UsrRealtyFreedomUI",
                             "Leads",
                             "Contacts",
                             "Vendors",
                             "Accounts",
                             "Deals",
                             "Products",
                             "Incident",
                             "Customer"})
    schema->add_object(object);
  schema->add_uid("117d32f9-8275-4534-8411-1c66115ce9cd", "Case");
  schema->add_uid("7b332db9-3993-4136-ac32-09353333cc7a", "DocumentFile");
  schema->add_uid("6dd53665c0c24cab86870a21cf6434ae", "Incident");
  schema->add_uid("93405caa107c376a2bd15c4c8885a900be316f3a72", "Customer");
  schema->add_relation("*", "Owner", "Contact");
  schema->add_relation("Leads", "Account_Name", "Accounts");
  schema->add_process("UsrCloseAll", {{"Case", Operation::edit}, {"Order", Operation::read}});
  schema->add_process("94quiet", {});
  return schema;
}

inline std::string describe(const Classification& c) {
  std::string uses;
  for (const ObjectUse& use : c.uses) {
    if (!uses.empty()) uses += "; ";
    if (use.in_batch) uses += fmt::format("[{}] ", use.part);
    uses += fmt::format("{} {}", use.object, name(use.operation));
    if (use.via != Via::primary) uses += fmt::format(" {}", name(use.via));
    if (use.beyond == Beyond::property) uses += " (property?)";
    if (use.beyond == Beyond::object) uses += " (object?)";
  }
  if (!c.counted) uses += " (free)";
  if (c.kind == Kind::objects) return uses.empty() ? "objects" : uses;
  if (c.kind == Kind::reject && c.unsupported_media) return "unsupported media";
  return uses.empty() ? std::string(name(c.kind)) : fmt::format("{}: {}", name(c.kind), uses);
}

struct Told {
  std::string line;  // "METHOD target"
  std::string body = {};
  std::vector<std::pair<std::string, std::string>> headers = {};

  Request request(std::vector<HeaderField>& fields) const {
    for (const auto& [key, value] : headers) fields.push_back({key, value});
    std::size_t space = line.find(' ');
    return Request{std::string_view(line).substr(0, space), std::string_view(line).substr(space + 1), fields,
                   body};
  }
  Classification classify(Dialect dialect, std::shared_ptr<const Schema> schema = small_schema()) const {
    std::vector<HeaderField> fields;
    Request asked = request(fields);
    return Classifier(Options{{dialect}}, std::move(schema)).classify(asked);
  }
  BodyNeed need(Dialect dialect) const {
    std::vector<HeaderField> fields;
    Request asked = request(fields);
    return Classifier(Options{{dialect}}, small_schema()).body_need(asked);
  }
  std::string creatio() const { return describe(classify(Dialect::creatio)); }
  std::string zoho() const { return describe(classify(Dialect::zoho)); }
  std::string cherwell() const { return describe(classify(Dialect::cherwell)); }
  std::string rest() const { return describe(classify(Dialect::rest)); }
};

inline const std::vector<std::pair<std::string, std::string>> kJson = {{"Content-Type", "application/json"}};
inline constexpr const char* kGuid = "405947d0-2ffb-4ded-8675-0475f19f5a81";

}  // namespace tollgate::catalogue
