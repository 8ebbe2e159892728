// Configuration services of Creatio: {root}[/ssp]/rest/{Service}/{Method} and {root}/ServiceModel/{Service}.svc/{Method}.
// Each service has its own idea of where the object stands: in its name, the path, the query string or the body.
// What is not in the table is Kind::unknown: the operator decides (sources: CreatioDemoProject 8.1, creatio-api-py).
#include "metering/base/ascii.h"
#include "metering/catalogue/creatio.h"

namespace tollgate::catalogue::creatio {
namespace {

struct Service {
  Call& call;
  std::size_t first;        // segment of the first argument behind the method
  std::string_view method;  // lower case
  std::string_view argument(std::size_t i) const {
    return first + i < call.path.size() ? call.path.segment(first + i) : std::string_view();
  }
};
using Handler = bool (*)(Service& service);

bool on_object(Service& s, std::string_view object, Operation operation) {
  s.call.use(s.call.spell(object), operation, Via::service);
  return s.call.done(Kind::objects);
}

// Runs read(object) on the JSON body; false answers mean the call is already settled.
template <class Read>
bool with_body(Service& s, Read&& read) {
  if (!s.call.media.is_json())
    return s.call.reject_media("only JSON bodies of this service can be inspected");
  if (!s.call.body_ready()) return true;
  JsonDocument document;
  auto root = document.parse(s.call.request.body);
  auto object = root ? as_object(*root) : std::nullopt;
  if (!object) return s.call.reject("the body is not a JSON object");
  return read(*object);
}

bool case_portal(Service& s) {
  if (s.method == "cancelcase" || s.method == "closecase" || s.method == "reopencase")
    return on_object(s, "Case", Operation::edit);
  if (s.method == "iscasehasvisiblemessages") return on_object(s, "Case", Operation::read);
  return s.call.done(Kind::unknown);
}

// RateCase is a GET from an e-mail that changes the case.
bool case_rating(Service& s) {
  return on_object(s, "Case", Operation::edit);
}

bool grid_utilities(Service& s) {
  if (s.method != "deleterecords" && s.method != "deleterecordsasync") return s.call.done(Kind::unknown);
  return with_body(s, [&](JsonObject body) {
    Member schema = member(body, "rootSchema");
    auto name = schema.text();
    if (schema.repeated || !name || !is_identifier(*name))
      return s.call.reject("the body needs one rootSchema");
    return on_object(s, *name, Operation::remove);
  });
}

// First byte of "bytes a-b/total" (RFC 9110 section 14.4), or 0 when there is none or it cannot be read: such a
// chunk counts like a first one.
std::uint64_t content_range_begin(const Request& request) {
  HeaderMatch range = find_header(request.headers, "Content-Range");
  if (!range.present || range.conflict || !starts_with_ignore_case(range.value, "bytes ")) return 0;
  std::string_view value = trim(range.value.substr(6));
  std::size_t dash = value.find('-'), slash = value.find('/');
  if (dash == value.npos || slash == value.npos || slash < dash) return 0;
  auto begin = parse_decimal(value.substr(0, dash)),
       end = parse_decimal(value.substr(dash + 1, slash - dash - 1)),
       total = parse_decimal(value.substr(slash + 1));
  if (!begin || !end || !total || *begin > *end || *end >= *total) return 0;
  return *begin;
}

bool file_api(Service& s) {
  if (s.method != "uploadfile" && s.method != "upload") return s.call.done(Kind::unknown);
  auto schema = find_parameter(s.call.path.query, "entitySchemaName");
  if (schema.count != 1 || !is_identifier(schema.value))
    return s.call.reject("the upload needs one entitySchemaName");
  bool later_chunk = content_range_begin(s.call.request) > 0;
  s.call.result.counted = !later_chunk;
  return on_object(s, schema.value, later_chunk ? Operation::edit : Operation::create);
}

bool file(Service& s) {
  if (s.method == "download") {
    if (!is_identifier(s.argument(0))) return s.call.reject("the address names no object");
    return on_object(s, s.argument(0), Operation::read);
  }
  if (s.method == "getfile")
    if (auto object = s.call.schema.object_of_uid(s.argument(0)))
      return on_object(s, *object, Operation::read);
  return s.call.done(Kind::unknown);
}

// Attachments of case messages: the file is stored as an ActivityFile, the access is that of the case's message.
bool portal_file(Service& s) {
  if (s.method != "getactivityfile") return s.call.done(Kind::unknown);
  on_object(s, "ActivityFile", Operation::read);
  return on_object(s, "CaseMessageHistory", Operation::read);
}

bool portal_message_file(Service& s) {
  if (s.method.starts_with("get") || s.method.starts_with("download"))
    return on_object(s, "PortalMessageFile", Operation::read);
  if (s.method.starts_with("delete") || s.method.starts_with("remove"))
    return on_object(s, "PortalMessageFile", Operation::remove);
  if (s.method.starts_with("upload") || s.method.starts_with("add") || s.method.starts_with("save"))
    return on_object(s, "PortalMessageFile", Operation::create);
  return on_object(s, "PortalMessageFile", reads(s.call.method) ? Operation::read : Operation::edit);
}

bool message_publisher(Service& s) {
  if (s.method != "publish" && s.method != "publishmessage") return s.call.done(Kind::unknown);
  return with_body(s, [&](JsonObject body) {
    Member fields = member(body, "fieldsData");
    auto list = fields.array();
    if (fields.repeated || !list) return s.call.reject("the body needs one list fieldsData");
    std::optional<std::string> uid;
    for (JsonElement element : *list) {
      auto field = as_object(element);
      if (!field) return s.call.reject("fieldsData is not a list of objects");
      Member key = member(*field, "key"), value = member(*field, "value");
      if (key.repeated || value.repeated) return s.call.reject("fieldsData repeats a key");
      if (!key.text() || !same_key(*key.text(), "EntitySchemaUId")) continue;
      if (uid) return s.call.reject("fieldsData names two objects");
      uid = std::string(value.text().value_or(""));
    }
    auto object = uid ? s.call.schema.object_of_uid(*uid) : std::nullopt;
    if (!object) return s.call.done(Kind::unknown);
    return on_object(s, *object, Operation::edit);
  });
}

bool approval(Service& s) {
  return with_body(s, [&](JsonObject body) {
    Member wrapper = member(body, "request");
    auto inner = wrapper.object();
    if (wrapper.repeated || (wrapper && !inner)) return s.call.reject("the body needs one object `request`");
    Member schema = member(inner.value_or(body), "schemaName");
    auto name = schema.text();
    // Other methods of the service may name no record.
    if (!schema && s.method != "approve" && s.method != "reject") return s.call.done(Kind::unknown);
    if (schema.repeated || !name || !is_identifier(*name))
      return s.call.reject("the body needs one schemaName");
    return on_object(s, *name, Operation::edit);
  });
}

bool report(Service& s) {
  if (s.method != "getexporttoexcelkey") return s.call.done(Kind::unknown);
  return with_body(s, [&](JsonObject body) {
    Member query = member(body, "esqSerialized");
    auto text = query.text();
    if (query.repeated || !text) return s.call.reject("the body needs one esqSerialized");
    JsonDocument document;
    auto root = document.parse(*text);
    auto inner = root ? as_object(*root) : std::nullopt;
    if (!inner) return s.call.reject("esqSerialized is not a JSON object");
    Member schema = member(*inner, "rootSchemaName");
    auto name = schema.text();
    if (schema.repeated || !name || !is_identifier(*name))
      return s.call.reject("the query needs one rootSchemaName");
    std::string object(s.call.spell(*name));
    on_object(s, object, Operation::read);
    ObjectUse model{{}, Operation::read, Via::join, 0, false};
    report_joins(s.call.schema, object, *inner, model, s.call.result.uses);
    return true;
  });
}

bool global_search(Service& s) {
  if (s.method != "search") return s.call.done(Kind::unknown);
  return with_body(s, [&](JsonObject body) {
    Member section = member(body, "sectionEntityName");
    if (section.repeated) return s.call.reject("the body repeats sectionEntityName");
    auto name = section.text();
    if (!name || !is_identifier(*name)) return s.call.done(Kind::unknown);
    on_object(s, *name, Operation::read);
    // Knowledge base search is a basic function of every portal user (partner portal guide).
    return s.call.done(equals_ignore_case(*name, "KnowledgeBase") ? Kind::basic_function : Kind::objects);
  });
}

bool run_process(Call& call, std::string_view process) {
  const auto* effects = call.schema.process(process);
  if (!effects) {
    call.use("process:" + std::string(process), Operation::execute, Via::process);
    return call.done(Kind::unknown);
  }
  for (const auto& effect : *effects) call.use(call.spell(effect.object), effect.operation, Via::process);
  return call.done(Kind::objects);
}

bool process_engine(Service& s) {
  if (s.first < s.call.path.size() && s.call.path.segment_lower(s.first) == "execute")
    return run_process(s.call, s.call.path.segment(s.first - 1));
  if (s.method != "runprocess") return s.call.done(Kind::unknown);
  return with_body(s, [&](JsonObject body) {
    Member name = member(body, "schemaName"), uid = member(body, "schemaUId");
    if (name.repeated || uid.repeated) return s.call.reject("the body names two processes");
    std::string_view by_name = name.text().value_or(""), by_uid = uid.text().value_or("");
    if (by_name.empty() && by_uid.empty()) return s.call.reject("the body names no process");
    if (!by_name.empty() && !by_uid.empty()) {
      s.call.use("process:" + std::string(by_name), Operation::execute, Via::process);
      return s.call.done(Kind::unknown);
    }
    return run_process(s.call, by_name.empty() ? by_uid : by_name);
  });
}

bool file_import(Service& s) {
  if (s.method != "setimportobject") return s.call.done(Kind::unknown);
  return with_body(s, [&](JsonObject body) {
    Member wrapper = member(body, "request");
    auto inner = wrapper.object();
    Member import = member(inner.value_or(body), "importObject");
    auto object = import.object();
    if (wrapper.repeated || import.repeated || !object)
      return s.call.reject("the body needs one importObject");
    Member name = member(*object, "name");
    auto text = name.text();
    if (name.repeated || !text || !is_identifier(*text)) return s.call.reject("importObject needs one name");
    // The rows come with later calls of the same session; what they do cannot be told from here.
    s.call.use(s.call.spell(*text), Operation::create, Via::service);
    return s.call.done(Kind::unknown);
  });
}

bool image_api(Service& s) {
  if (s.method != "upload") return s.call.done(Kind::unknown);
  return on_object(s, "SysImage", Operation::create);
}

// Its methods take no further segments; what comes without a token must not reach further than log-in.
bool authentication(Service& s) {
  return s.call.done(s.first < s.call.path.size() ? Kind::unknown : Kind::authentication);
}

bool main_menu(Service& s) {
  return s.call.done(s.method == "logout" ? Kind::authentication : Kind::unknown);
}

Handler find_handler(std::string_view service) {
  struct Entry {
    std::string_view service;
    Handler handler;
  };
  static constexpr Entry kServices[] = {
      {"caseportalservice", case_portal},
      {"caseratingmanagementservice", case_rating},
      {"gridutilitiesservice", grid_utilities},
      {"fileapiservice", file_api},
      {"fileservice", file},
      {"portalfileservice", portal_file},
      {"portalmessagefileservice", portal_message_file},
      {"messagepublisherservice", message_publisher},
      {"approvalservice", approval},
      {"reportservice", report},
      {"globalsearchservice", global_search},
      {"processengineservice", process_engine},
      {"fileimportservice", file_import},
      {"imageapiservice", image_api},
      {"authservice", authentication},
      {"mainmenuservice", main_menu},
  };
  for (const Entry& entry : kServices)
    if (entry.service == service) return entry.handler;
  return nullptr;
}

}  // namespace

bool classify_service(Call& call, std::size_t first) {
  const NormalPath& path = call.path;
  if (first >= path.size()) return call.done(Kind::unknown);
  std::string_view name = path.segment_lower(first);
  if (name.ends_with(".svc")) name.remove_suffix(4);
  // A known service behind a second API root would be another server's reading of this address.
  if (!is_identifier(name) || is_api_word(name)) return call.reject("the address names no service");
  Handler handler = find_handler(name);
  std::string_view method = first + 1 < path.size() ? path.segment_lower(first + 1) : std::string_view();
  Service service{call, first + 2, method};
  if (handler == authentication) return handler(service);
  if (!handler || method.empty()) return call.done(Kind::unknown);
  if (!is_identifier(method)) return call.reject("the address names no method of the service");
  return handler(service);
}

}  // namespace tollgate::catalogue::creatio
