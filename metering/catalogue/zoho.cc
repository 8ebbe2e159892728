// Zoho CRM REST API, v2 to v8 (github zoho/crm-oas, v8.0/*.json): /crm/v{N}/{module}/... and /crm/bulk/v{N}/...
// A module name that the schema does not know is still a module: never free by misspelling.
#include "metering/catalogue/zoho.h"

#include <algorithm>

#include "metering/base/ascii.h"
#include "metering/catalogue/dialect.h"
#include "metering/catalogue/json_body.h"

namespace tollgate::catalogue {
namespace zoho {
namespace {

bool is_version(std::string_view segment) {
  if (segment.size() < 2 || segment.front() != 'v') return false;
  for (std::size_t i = 1; i < segment.size(); ++i)
    if (!is_digit(segment[i]) && (segment[i] != '.' || i == 1 || i + 1 == segment.size())) return false;
  return true;
}

struct Root {
  std::size_t first = 0;
  bool bulk = false;
};
// /crm(/...)?/v{N}[.N]/, the vendor's own pattern for composite sub-requests.
std::optional<Root> find_root(const NormalPath& path) {
  for (std::size_t i = 0; i < path.size() && i < 3; ++i) {
    if (path.segment_lower(i) != "crm") continue;
    bool bulk = false;
    for (std::size_t j = i + 1; j < path.size() && j < i + 5; ++j) {
      if (is_version(path.segment_lower(j))) return Root{j + 1, bulk};
      bulk |= path.segment_lower(j) == "bulk";
    }
  }
  return std::nullopt;
}

// One request of this API: the call itself or a part of a composite.
class Reader {
 public:
  Reader(Call& call, const NormalPath& path, Method method, std::optional<JsonElement> body,
         std::uint32_t part, bool in_batch)
      : call_(call), path_(path), method_(method), body_(body), part_(part), in_batch_(in_batch) {}

  // False: `error` is set, or the call is settled otherwise (the body is missing).
  bool read(const Root& root);
  const char* error = nullptr;
  Kind kind = Kind::objects;
  std::uint32_t credits = 0;  // with Options::credits

 private:
  bool refuse(const char* why) {
    error = why;
    return false;
  }
  bool is(Kind k) {
    kind = k;
    return true;
  }
  bool use(std::string_view object, Operation operation, Via via = Via::primary) {
    call_.result.uses.push_back({std::string(call_.spell(object)), operation, via, part_, in_batch_});
    return true;
  }
  std::string_view word(std::size_t i) const {
    return first_ + i < path_.size() ? path_.segment_lower(first_ + i) : std::string_view();
  }
  std::size_t length() const { return path_.size() - first_; }
  bool reading() const { return catalogue::reads(method_); }

  bool need_body();
  bool count_records();
  std::size_t tagged_records() const;
  bool read_bulk();
  bool read_bulk_modules(JsonObject job);
  bool read_coql_body();
  bool read_composite();
  bool read_composite_item(JsonElement element, std::uint32_t part);
  bool read_settings();
  bool read_invite();
  bool read_invite_list();
  bool read_member(std::string_view id);
  bool change(PortalChange::Way way);
  bool read_module();
  bool read_record();
  bool read_action(std::string_view action);

  Call& call_;
  const NormalPath& path_;
  Method method_;
  std::optional<JsonElement> body_;
  std::uint32_t part_;
  bool in_batch_;
  std::size_t first_ = 0;
  std::string module_;
  PortalChange change_;
  JsonDocument document_;
  JsonDocument inner_document_;
};

bool Reader::need_body() {
  if (body_) {
    // The body of a sub-request may be JSON inside a string.
    if (auto text = as_text(*body_)) body_ = inner_document_.parse(*text);
  } else if (!in_batch_) {
    if (!call_.media.is_json()) {
      call_.reject_media("only JSON bodies of this address can be inspected");
      return false;
    }
    if (!call_.body_ready()) return false;
    body_ = document_.parse(call_.request.body);
  }
  if (!body_ || !as_object(*body_)) return refuse("the body is not a JSON object");
  return true;
}

// Inserts, updates and upserts cost by the records of their `data`.
bool Reader::count_records() {
  if (!call_.options.credits || in_batch_) return true;
  if (!need_body()) return false;
  const Member data = member(*as_object(*body_), "data");
  if (data.repeated) return refuse("the body repeats a key");
  const auto records = data.array();
  credits = CreditTable::of_records(records ? records->size() : 1, call_.options.credits->records_per_credit);
  return true;
}

bool Reader::read(const Root& root) {
  first_ = root.first;
  if (call_.options.credits) credits = call_.options.credits->call;
  if (method_ == Method::other) return refuse("the method is not known to this API");
  if (length() == 0) return is(Kind::metadata);
  if (root.bulk) return read_bulk();
  std::string_view module = word(0);
  if (module == "coql") return read_coql_body();
  if (module == "__composite_requests") return read_composite();
  if (module == "settings") return read_settings();
  for (std::string_view meta : {"users", "org", "features"})
    if (module == meta) return is(Kind::metadata);
  for (std::string_view other :
       {"upload", "files", "read", "write", "backup", "actions", "functions", "entity_scores__s"})
    if (module == other) return is(Kind::unknown);
  if (module.starts_with("__")) return is(reading() ? Kind::metadata : Kind::unknown);
  if (!is_identifier(path_.segment(first_))) return refuse("the address names no module");
  module_ = call_.spell(path_.segment(first_));
  return read_module();
}

// settings/portals/{portal}/user_type/{type}/users...: members of a portal take and free seats.
bool Reader::read_settings() {
  bool of_users = false;
  for (std::size_t i = 2; i < length(); ++i) of_users |= word(i) == "users";
  if (word(1) != "portals" || reading() || !of_users) return is(Kind::metadata);
  const std::string_view query = path_.query;
  const bool known = word(3) == "user_type" && word(5) == "users";
  if (known && length() == 6 && method_ == Method::remove) {
    const QueryMatch ids = find_parameter(query, "personality_ids");
    if (ids.count != 1) return refuse("the address needs one personality_ids");
    std::string_view rest = ids.value;
    while (true) {
      const std::size_t comma = rest.find(',');
      if (!read_member(trim(rest.substr(0, comma)))) return false;
      if (comma == std::string_view::npos) break;
      rest.remove_prefix(comma + 1);
    }
    return change(PortalChange::Way::remove);
  }
  if (known && length() == 9 && word(7) == "actions" && word(8) == "change_status") {
    const QueryMatch active = find_parameter(query, "active");
    const bool on = equals_ignore_case(active.value, "true");
    if (active.count != 1 || (!on && !equals_ignore_case(active.value, "false")))
      return refuse("the address needs one active=true or active=false");
    if (!read_member(word(6))) return false;
    if (on) change_.user_types.emplace_back(word(4));
    return change(on ? PortalChange::Way::add : PortalChange::Way::remove);
  }
  use("portal:seat", method_ == Method::remove ? Operation::remove : Operation::edit);
  return is(Kind::seat);  // a transfer to another user type, and what is not known
}

// {module}/{record}/actions/portal_invite, and of many at once {module}/actions/portal_invite.
bool Reader::read_invite() {
  if (reading()) {
    use("portal:seat", Operation::read);
    return is(Kind::seat);
  }
  if (method_ != Method::post) return refuse("portal_invite is called by POST");
  if (length() == 3) return read_invite_list();
  if (length() != 4) return refuse("the address names no action");
  if (!read_member(word(1))) return false;
  const QueryMatch type = find_parameter(path_.query, "user_type_id");
  if (type.count > 1) return refuse("the address repeats user_type_id");
  change_.user_types.push_back(type.value);
  return change(PortalChange::Way::add);
}

bool Reader::read_invite_list() {
  if (!need_body()) return false;
  const Member groups = member(*as_object(*body_), "portal_invite");
  const auto list = groups.array();
  if (groups.repeated || !list) return refuse("the body needs one list portal_invite");
  for (const JsonElement element : *list) {
    const auto group = as_object(element);
    const Member data = group ? member(*group, "data") : Member{};
    const auto records = data.array();
    if (data.repeated || !records) return refuse("an invitation needs one list data");
    for (const JsonElement item : *records) {
      const auto record = as_object(item);
      if (!record) return refuse("a record of an invitation is not an object");
      const Member id = member(*record, "id"), type = member(*record, "user_type_id");
      if (id.repeated || type.repeated) return refuse("an invitation repeats a key");
      if (!read_member(id.text().value_or(""))) return false;
      std::string user_type(type.text().value_or(""));
      if (std::ranges::find(change_.user_types, user_type) == change_.user_types.end())
        change_.user_types.push_back(std::move(user_type));
    }
  }
  if (change_.members.empty()) return refuse("the invitation names no record");
  return change(PortalChange::Way::add);
}

bool Reader::read_member(std::string_view id) {
  const bool digits = std::ranges::all_of(id, is_digit);
  if (id.empty() || id.size() > 32 || !digits || id.front() == '0')
    return refuse("a member of a portal is named by the id of its record");
  if (change_.members.size() >= call_.options.batch_parts_max)
    return refuse("the request names too many members");
  if (std::ranges::find(change_.members, id) == change_.members.end()) change_.members.emplace_back(id);
  return true;
}

bool Reader::change(PortalChange::Way way) {
  change_.way = way;
  use("portal:seat", way == PortalChange::Way::add ? Operation::create : Operation::remove);
  call_.result.portal = std::make_shared<const PortalChange>(std::move(change_));
  return is(Kind::seat);
}

bool Reader::read_bulk() {
  if (word(0) == "read" || word(0) == "write") {
    // A job's module is known only from the request that made it.
    if (length() > 1) return is(word(2) == "result" ? Kind::unknown : Kind::metadata);
    if (method_ == Method::post) {
      if (!need_body()) return false;
      if (const auto& table = call_.options.credits)
        credits = word(0) == "read" ? table->bulk_read : table->bulk_write;
      return read_bulk_modules(*as_object(*body_));
    }
  }
  return is(Kind::unknown);
}

bool Reader::read_bulk_modules(JsonObject job) {
  auto add = [&](JsonObject holder, std::initializer_list<Operation> operations) {
    Member module = member(holder, "module");
    if (module.repeated) return refuse("the job repeats a key");
    std::optional<std::string_view> name = module.text();
    if (auto object = module.object()) {
      Member api_name = member(*object, "api_name");
      if (api_name.repeated) return refuse("the job repeats a key");
      name = api_name.text();
    }
    if (!name || !is_identifier(*name)) return refuse("the job names no module");
    for (Operation operation : operations) use(*name, operation);
    return true;
  };
  if (word(0) == "read") {
    Member query = member(job, "query");
    auto holder = query.object();
    if (query.repeated || !holder) return refuse("the job needs one query");
    // A page token continues an earlier job.
    if (!member(*holder, "module") && member(*holder, "page_token")) return is(Kind::unknown);
    return add(*holder, {Operation::read});
  }
  Member operation = member(job, "operation"), resource = member(job, "resource");
  auto name = operation.text();
  auto list = resource.array();
  if (operation.repeated || resource.repeated || !name || !list)
    return refuse("the job needs operation and resource");
  for (JsonElement element : *list) {
    auto holder = as_object(element);
    if (!holder) return refuse("a resource of the job is not an object");
    bool fine = equals_ignore_case(*name, "insert")   ? add(*holder, {Operation::create})
                : equals_ignore_case(*name, "update") ? add(*holder, {Operation::edit})
                : equals_ignore_case(*name, "upsert") ? add(*holder, {Operation::create, Operation::edit})
                                                      : refuse("the job has an unknown operation");
    if (!fine) return false;
    if (call_.result.uses.size() > 2 * call_.options.batch_parts_max)
      return refuse("the job has too many resources");
  }
  if (call_.result.uses.empty()) return refuse("the job names no module");
  return true;
}

bool Reader::read_coql_body() {
  if (method_ != Method::post || length() != 1) return refuse("coql is called by POST");
  if (!need_body()) return false;
  Member query = member(*as_object(*body_), "select_query");
  auto text = query.text();
  if (query.repeated || !text) return refuse("the body needs one select_query");
  auto coql = read_coql(*text);
  if (!coql) return refuse("select_query cannot be read in one way only");
  if (call_.options.credits) credits = call_.options.credits->of_rows(coql->rows);
  for (const std::string& module : coql->modules) use(module, Operation::read);
  std::string from(call_.spell(coql->modules.front()));
  for (const auto& [lookup, column] : coql->lookup_paths) {
    auto target = call_.schema.relation(from, lookup);
    bool known = !target.has_value();
    for (const ObjectUse& earlier : call_.result.uses)
      known |= earlier.part == part_ && target && earlier.object == *target;
    if (!known) use(*target, Operation::read, Via::join);
  }
  return true;
}

bool Reader::read_composite() {
  if (in_batch_) return refuse("a composite cannot contain another");
  if (method_ != Method::post || length() != 1) return refuse("a composite is sent by POST");
  if (!need_body()) return false;
  if (call_.options.credits) credits = call_.options.credits->composite;
  Member requests = member(*as_object(*body_), "__composite_requests");
  auto list = requests.array();
  if (requests.repeated || !list) return refuse("the composite needs one list __composite_requests");
  std::uint32_t part = 0;
  for (JsonElement element : *list) {
    if (part >= call_.options.batch_parts_max) return refuse("the composite has too many operations");
    if (!read_composite_item(element, part++)) return false;
  }
  return true;
}

bool Reader::read_composite_item(JsonElement element, std::uint32_t part) {
  auto object = as_object(element);
  if (!object) return refuse("a sub-request is not an object");
  Member method = member(*object, "method"), uri = member(*object, "uri"), body = member(*object, "body"),
         headers = member(*object, "headers");
  if (method.repeated || uri.repeated || body.repeated || headers.repeated)
    return refuse("a sub-request repeats a key");
  auto method_text = method.text(), uri_text = uri.text();
  if (!method_text || !uri_text) return refuse("a sub-request lacks `method` or `uri`");
  std::vector<HeaderField> fields;
  if (auto header_object = headers.object())
    for (auto field : *header_object)
      if (auto value = as_text(field.value)) fields.push_back({field.key, *value});
  auto effective = effective_method(*method_text, fields);
  if (!effective) return refuse("the method override headers of a sub-request contradict it");
  auto path = normalise(*uri_text);
  auto root = path ? find_root(*path) : std::nullopt;
  if (!root) return refuse("a sub-request is not an address of this API");
  Reader inner(call_, *path, *effective, body.value, part, true);
  if (!inner.read(*root)) return refuse(inner.error ? inner.error : "a sub-request cannot be read");
  // One answer holds for the whole request, and these are decided by other rules than objects are.
  if (inner.kind == Kind::seat || inner.kind == Kind::unknown)
    return refuse("a sub-request of this kind cannot be part of a composite");
  return true;
}

bool Reader::read_module() {
  const bool writes = !reading() && method_ != Method::remove && method_ != Method::options;
  if (writes && (length() == 1 || (length() == 2 && word(1) == "upsert")) && !count_records()) return false;
  if (call_.options.credits && reading() && length() == 1 && find_parameter(path_.query, "cvid").count > 0)
    credits = call_.options.credits->custom_view;
  if (length() == 1) {
    switch (method_) {
      case Method::post:
        return use(module_, Operation::create);
      case Method::remove:
        return use(module_, Operation::remove);
      case Method::get:
      case Method::head:
        return use(module_, Operation::read);
      default:
        return use(module_, Operation::edit);
    }
  }
  std::string_view second = word(1);
  if (call_.options.credits && reading() && second == "deleted") credits = call_.options.credits->deleted;
  if (second == "search" || second == "deleted")
    return use(module_, reading() || method_ == Method::post ? Operation::read : Operation::edit);
  if (second == "upsert") {
    use(module_, Operation::create);
    return use(module_, Operation::edit);
  }
  if (second == "actions") return read_action(word(2));
  return read_record();
}

bool Reader::read_record() {
  if (length() == 2)
    return use(module_, reading()                   ? Operation::read
                        : method_ == Method::remove ? Operation::remove
                                                    : Operation::edit);
  std::string_view related = word(2);
  if (related == "actions") return read_action(word(3));
  bool own = related.starts_with("__") || related == "photo";
  use(module_, reading() ? Operation::read : Operation::edit);
  if (own) return true;
  if (!is_identifier(path_.segment(first_ + 2))) return refuse("the address names no related list");
  // Reading returns the related records; linking and unlinking edits the parent alone; POST makes a related record.
  if (reading()) return use(path_.segment(first_ + 2), Operation::read, Via::nav);
  if (method_ == Method::post && related != "attachments")
    return use(path_.segment(first_ + 2), Operation::create, Via::nav);
  return true;
}

// ?ids=1,2,3 of add_tags and remove_tags; in an address with a record it is that one.
std::size_t Reader::tagged_records() const {
  const QueryMatch ids = find_parameter(path_.query, "ids");
  return ids.count == 0 ? 1 : static_cast<std::size_t>(1 + std::ranges::count(ids.value, ','));
}

bool Reader::read_action(std::string_view action) {
  if (action.empty()) return refuse("the address names no action");
  if (action == "portal_invite") return read_invite();
  if (action == "count" || action == "fetch_full_data" || reading()) return use(module_, Operation::read);
  if (action == "clone") return use(module_, Operation::create);
  if (action == "mass_delete") return use(module_, Operation::remove);
  if (const auto& table = call_.options.credits; table && action == "convert") credits = table->convert;
  if (const auto& table = call_.options.credits; table && (action == "add_tags" || action == "remove_tags"))
    credits = CreditTable::of_records(tagged_records(), table->tagged_per_credit);
  if (action == "convert" || action == "mass_convert") {
    use(module_, Operation::edit);
    for (std::string_view created : {"Contacts", "Accounts", "Deals"}) use(created, Operation::create);
    return true;
  }
  use(module_, Operation::edit);
  if (action == "merge") use(module_, Operation::remove);
  return true;
}

}  // namespace
}  // namespace zoho

bool classify_zoho(Call& call) {
  const NormalPath& path = call.path;
  for (std::size_t i = 0; i + 1 < path.size() && i < 2; ++i)
    if ((path.segment_lower(i) == "oauth" || path.segment_lower(i) == "clientoauth") &&
        zoho::is_version(path.segment_lower(i + 1)))
      return call.done(Kind::authentication);
  auto root = zoho::find_root(path);
  if (!root) return false;
  zoho::Reader reader(call, path, call.method, std::nullopt, 0, false);
  if (!reader.read(*root)) return reader.error ? call.reject(reader.error) : true;
  call.result.credits = reader.credits;
  return call.done(reader.kind);
}

}  // namespace tollgate::catalogue
