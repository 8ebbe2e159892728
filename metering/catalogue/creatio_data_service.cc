// DataService of Creatio: POST {root}/DataService[/ssp]/json/{SyncReply|reply}/{Method}. The operation is the URL's
// method, the object is rootSchemaName at the top level of the body; a rootSchemaName deeper inside belongs to a
// filter. Keys come in camelCase (browser) and PascalCase (C#).
#include "metering/base/ascii.h"
#include "metering/catalogue/creatio.h"
#include "metering/catalogue/multipart.h"

namespace tollgate::catalogue::creatio {
namespace {

enum class Verb : std::uint8_t { select, insert, update, remove, batch, upload, metadata };

std::optional<Verb> verb_of(std::string_view method) {
  struct Entry {
    std::string_view method;
    Verb verb;
  };
  static constexpr Entry kVerbs[] = {
      {"SelectQuery", Verb::select},
      {"ListSelectQuery", Verb::select},
      {"FilteredSelectQuery", Verb::select},
      {"LookupSelectQuery", Verb::select},
      {"SelectLocalizationQuery", Verb::select},
      {"InsertQuery", Verb::insert},
      {"UpdateQuery", Verb::update},
      {"UpdateLocalizationQuery", Verb::update},
      {"DeleteQuery", Verb::remove},
      {"BatchQuery", Verb::batch},
      {"UploadFile", Verb::upload},
      {"QuerySysSettings", Verb::metadata},
      {"QueryProfile", Verb::metadata},
      {"QueryProfileKeys", Verb::metadata},
      {"PostClientLog", Verb::metadata},
      {"Filters", Verb::metadata},
      {"RuntimeEntitySchemaRequest", Verb::metadata},
      {"EntitySchemaManagerRequest", Verb::metadata},
  };
  for (const Entry& entry : kVerbs)
    if (equals_ignore_case(entry.method, method)) return entry.verb;
  return std::nullopt;
}

// operationType of CrtNUI: the query kinds as numbers.
std::optional<Verb> verb_of_number(std::int64_t number) {
  static constexpr Verb kVerbs[] = {Verb::select, Verb::insert, Verb::update, Verb::remove, Verb::batch,
                                    Verb::select, Verb::select, Verb::select, Verb::update, Verb::select};
  if (number < 0 || number >= static_cast<std::int64_t>(std::size(kVerbs))) return std::nullopt;
  return kVerbs[number];
}

std::optional<Verb> operation_type(JsonObject query) {
  Member type = member(query, "operationType");
  std::int64_t number = 0;
  if (type && !type.repeated && type.value->get(number) == simdjson::SUCCESS) return verb_of_number(number);
  if (auto text = type.text())
    if (auto parsed = parse_decimal(*text))
      return verb_of_number(static_cast<std::int64_t>(std::min<std::uint64_t>(*parsed, 99)));
  return std::nullopt;
}

bool is_upsert(const Member& flag) {
  if (!flag || flag.value->is_null()) return false;
  bool value = true;
  if (flag.value->get(value) == simdjson::SUCCESS) return value;
  auto text = flag.text();
  return !text || !equals_ignore_case(*text, "false");
}

// Appends the uses of one query. Error or nullptr.
const char* read_query(Call& call, JsonObject query, Verb verb, std::uint32_t part, bool in_batch) {
  Member schema = member(query, "rootSchemaName"), upsert = member(query, "isUpsert");
  if (schema.repeated || upsert.repeated || member(query, "operationType").repeated)
    return "the query repeats a key";
  auto name = schema.text();
  if (!name || !is_identifier(*name)) return "the query needs one rootSchemaName";
  std::string object(call.spell(*name));
  auto add = [&](Operation operation) {
    call.result.uses.push_back({object, operation, Via::primary, part, in_batch});
  };
  bool both = is_upsert(upsert);
  const std::size_t first = call.result.uses.size();
  switch (verb) {
    case Verb::select:
      add(Operation::read);
      break;
    case Verb::insert:
      add(Operation::create);
      if (both) add(Operation::edit);
      break;
    case Verb::update:
      add(Operation::edit);
      if (both) add(Operation::create);
      break;
    case Verb::remove:
      add(Operation::remove);
      break;
    default:
      return "the query is of an unknown kind";
  }
  if (RecordNames names(call.schema, call.result.uses, first); names) [[unlikely]]
    names.read_filters(query);
  ObjectUse model{{}, Operation::read, Via::join, part, in_batch};
  report_joins(call.schema, object, query, model, call.result.uses);
  return nullptr;
}

// "Terrasoft.Nui.ServiceModel.DataContract.UpdateQuery": the last dotted part; forks use other namespaces. What
// follows a comma is an assembly name, what follows ":#" a namespace.
std::string_view type_name(std::string_view type) {
  type = trim(type.substr(0, type.find_first_of(",:")));
  return type.substr(type.rfind('.') + 1);
}

const char* read_batch(Call& call, JsonObject batch) {
  Member items = member(batch, "items");
  auto list = items.array();
  if (items.repeated || !list) return "the batch needs one list `items`";
  std::uint32_t part = 0;
  for (JsonElement element : *list) {
    auto query = as_object(element);
    if (!query) return "an item of the batch is not an object";
    if (part >= call.options.batch_parts_max) return "the batch has too many operations";
    Member type = member(*query, "__type");
    if (type.repeated || (type && !type.text())) return "an item of the batch has more than one __type";
    auto verb = type ? verb_of(type_name(*type.text())) : operation_type(*query);
    if (!verb || *verb == Verb::batch || *verb == Verb::upload)
      return "an item of the batch has an unknown __type";
    if (*verb != Verb::metadata)
      if (const char* error = read_query(call, *query, *verb, part, true)) return error;
    ++part;
  }
  return nullptr;
}

struct Form {
  const char* error = nullptr;
  std::string_view query, type;
};

Form read_form(std::string_view body, std::string_view boundary) {
  auto multipart = split_multipart(body, boundary);
  if (!multipart) return {"the form cannot be cut into fields in one way only", {}, {}};
  Form form;
  bool has_query = false, has_type = false;
  for (const Part& part : multipart->parts) {
    FieldMatch disposition = find_field(part.headers, "Content-Disposition");
    if (disposition.malformed || disposition.count != 1)
      return {"a field of the form has malformed headers", {}, {}};
    std::size_t semicolon = std::min(disposition.value.find(';'), disposition.value.size());
    ParameterCursor cursor(disposition.value.substr(semicolon));
    bool named = false;
    std::string name;
    while (cursor.next()) {
      if (starts_with_ignore_case(cursor.name(), "name*") ||
          (named && equals_ignore_case(cursor.name(), "name")))
        return {"a field of the form has two names", {}, {}};
      if (!equals_ignore_case(cursor.name(), "name")) continue;
      named = true;
      name = cursor.value();
    }
    // File names may be written in ways that are not ours to judge, but then `name` must have come first.
    if (!named) return {"a field of the form has no name", {}, {}};
    bool is_query = equals_ignore_case(name, "queryData"),
         is_type = equals_ignore_case(name, "operationType");
    if ((is_query && has_query) || (is_type && has_type)) return {"the form repeats a field", {}, {}};
    if (is_query) form.query = part.body;
    if (is_type) form.type = part.body;
    has_query |= is_query;
    has_type |= is_type;
  }
  if (!has_query) return {"the form has no queryData", {}, {}};
  return form;
}

const char* read_upload(Call& call) {
  Form form = read_form(call.request.body, call.media.boundary);
  if (form.error) return form.error;
  JsonDocument document;
  auto root = document.parse(form.query);
  auto query = root ? as_object(*root) : std::nullopt;
  if (!query) return "queryData is not a JSON object";
  std::optional<Verb> verb;
  if (form.type.empty())
    verb = operation_type(*query).value_or(Verb::insert);
  else if (auto number = parse_decimal(trim(form.type)))
    verb = verb_of_number(static_cast<std::int64_t>(std::min<std::uint64_t>(*number, 99)));
  if (verb != Verb::insert && verb != Verb::update) return "operationType of an upload is insert or update";
  return read_query(call, *query, *verb, 0, false);
}

class JoinReader {
 public:
  JoinReader(const Schema& schema, std::string_view object, const ObjectUse& model,
             std::vector<ObjectUse>& uses)
      : schema_(schema), object_(object), model_(model), uses_(uses) {}

  void visit_object(JsonObject object) {
    for (auto field : object) {
      auto text = as_text(field.value);
      if (text && same_key(field.key, "columnPath"))
        path(*text);
      else if (!text)
        visit(field.value);
    }
  }

 private:
  // The recursion is as deep as the JSON parser allows: 1024.
  void visit(JsonElement element) {
    JsonArray array;
    if (auto object = as_object(element)) {
      visit_object(*object);
    } else if (element.get(array) == simdjson::SUCCESS) {
      for (JsonElement item : array) visit(item);
    }
  }

  // "Account.Owner.Name", "[Case:Account:Id].Number", "=[Contact:Id].Name": the last part is a column.
  void path(std::string_view text) {
    std::string current(object_);
    while (true) {
      while (!text.empty() && std::string_view("=<>*").find(text.front()) != std::string_view::npos)
        text.remove_prefix(1);
      std::size_t dot = text.starts_with('[') ? text.find('.', text.find(']')) : text.find('.');
      std::string_view part = text.substr(0, dot);
      std::optional<std::string> next;
      if (part.starts_with('[')) {
        std::string_view name = part.substr(1, part.find_first_of(":]") - 1);
        if (is_identifier(name)) next = std::string(schema_.canonical(name).value_or(name));
      } else if (dot != text.npos) {
        if (auto target = schema_.relation(current, part)) next = std::string(*target);
      }
      if (next) append_once(uses_, *next, Via::join, model_);
      if (dot == text.npos) return;
      current = next.value_or("");
      text.remove_prefix(dot + 1);
    }
  }

  const Schema& schema_;
  std::string_view object_;
  const ObjectUse& model_;
  std::vector<ObjectUse>& uses_;
};

}  // namespace

void report_joins(const Schema& schema, std::string_view object, JsonObject query, const ObjectUse& model,
                  std::vector<ObjectUse>& uses) {
  JoinReader(schema, object, model, uses).visit_object(query);
}

namespace {

// An address of another form. A query under it must not pass unread; anything else may be a page of the service.
bool unknown_form(Call& call, std::size_t first) {
  for (std::size_t i = first; i < call.path.size(); ++i)
    if (auto verb = verb_of(call.path.segment(i)); verb && *verb != Verb::metadata)
      return call.reject_media("only the JSON form of DataService can be inspected");
  return call.done(Kind::unknown);
}

// The server may make the object that __type names, whatever the address says.
const char* read_single(Call& call, JsonObject query, Verb verb) {
  Member type = member(query, "__type");
  if (type.repeated || (type && !type.text())) return "the query has more than one __type";
  if (type) {
    auto named = verb_of(type_name(*type.text()));
    if (named && *named != verb) return "the __type of the query contradicts the address";
  }
  return verb == Verb::batch ? read_batch(call, query) : read_query(call, query, verb, 0, false);
}

}  // namespace

bool classify_data_service(Call& call, std::size_t first) {
  const NormalPath& path = call.path;
  std::size_t at = first;
  auto word = [&] { return at < path.size() ? path.segment_lower(at) : std::string_view(); };
  if (word() == "ssp") ++at;
  std::string_view format = word();
  if (format == "xml" || format == "jsv" || format == "csv" || format.starts_with("soap"))
    return call.reject_media("only the JSON form of DataService can be inspected");
  if (format != "json") return unknown_form(call, first);
  ++at;
  if (word() != "syncreply" && word() != "reply" && word() != "asynconeway" && word() != "oneway")
    return unknown_form(call, first);
  ++at;
  if (at + 1 != path.size()) return call.reject("the DataService address has no method or goes on behind it");
  auto verb = verb_of(word());
  if (!verb)
    return is_identifier(word()) ? call.done(Kind::unknown) : call.reject("the method name is malformed");
  if (*verb == Verb::metadata) return call.done(Kind::metadata);
  if (call.method != Method::post) return call.reject("DataService queries are sent by POST");
  // The service also maps query parameters to members of the query.
  for (std::string_view name : {"rootSchemaName", "items", "isUpsert", "__type"})
    if (find_parameter(path.query, name).count > 0)
      return call.reject("a DataService query stands in the body");
  if (*verb == Verb::upload) {
    if (call.media.essence != "multipart/form-data")
      return call.reject_media("UploadFile takes multipart/form-data");
    if (call.media.boundary.empty()) return call.reject("the form has no boundary");
  } else if (!call.media.is_json()) {
    return call.reject_media("only the JSON form of DataService can be inspected");
  }
  if (!call.body_ready()) return true;
  const char* error = nullptr;
  if (*verb == Verb::upload) {
    error = read_upload(call);
  } else {
    JsonDocument document;
    auto root = document.parse(call.request.body);
    auto query = root ? as_object(*root) : std::nullopt;
    if (!query)
      error = "the query is not a JSON object";
    else
      error = read_single(call, *query, *verb);
  }
  if (error) return call.reject(error);
  return call.done(Kind::objects);
}

}  // namespace tollgate::catalogue::creatio
