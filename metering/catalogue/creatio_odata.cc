// OData resource paths (OASIS OData 4.01 part 2 "URL Conventions", MS-ODATA 2.2.3), read for what they touch.
//
//   Case(1)/CaseFileCollectionByCase(2)/Data        hops: Case, CaseFile (nav)   target: property
//   Account(1)/Contact/$ref                         hops: Account                target: link
//
// A path is a chain of hops (objects) and ends at a target. The method and the target give the operation on the last
// hop; a write through a navigation also edits every hop before it, since the relation is theirs: the strict reading
// where the specifications leave room.
//
// A name that the schema does not know is a property of the object before it or a look-up of another object: a model
// would be needed to tell. The use of the object before says so (Beyond):
//
//   Relationship(1)/AccountA           GET, PUT, DELETE: property    PATCH, MERGE, POST: object
//   Relationship(1)/AccountA/Name      object: a property has no properties (Creatio has no complex ones)
//   Relationship(1)/AccountA/$value    nothing: the raw value of a property
//   Relationship(1)/AccountA/$ref      nothing: the link is the relationship's
//   City(1)/Name, CaseFile(1)/Data     nothing: columns of the base schemas
#include <algorithm>

#include "metering/base/ascii.h"
#include "metering/base/guid.h"
#include "metering/catalogue/creatio.h"

namespace tollgate::catalogue::creatio {
namespace {

enum class Target : std::uint8_t { collection, entity, property, media, link, count, bound, query };

struct Segment {
  std::string_view name, arguments;
  bool has_arguments = false;
};

// name or name(arguments); nullopt when parentheses or quotes do not close at the very end.
std::optional<Segment> split(std::string_view text) {
  std::size_t open = text.find('(');
  if (open == text.npos) {
    if (text.find(')') != text.npos) return std::nullopt;
    return Segment{text, {}, false};
  }
  const Segment whole{text.substr(0, open), text.substr(open + 1, text.size() - open - 2), true};
  // One key without a quote, as ids are sent, closes where its only ')' is.
  if (text.find(')', open) == text.size() - 1 && text.find('(', open + 1) == text.npos &&
      text.find('\'', open) == text.npos)
    return whole;
  int depth = 0;
  bool quoted = false;
  for (std::size_t i = open; i < text.size(); ++i) {
    char c = text[i];
    if (c == '\'') quoted = !quoted;
    if (quoted) continue;
    if (c == '(') ++depth;
    if (c == ')' && --depth == 0 && i + 1 != text.size()) return std::nullopt;
  }
  if (depth != 0 || quoted) return std::nullopt;
  return whole;
}

// Namespace.Name with at least one dot, all parts identifiers.
bool is_qualified(std::string_view name) {
  if (name.find('.') == name.npos) return false;
  while (true) {
    std::size_t dot = name.find('.');
    if (!is_identifier(name.substr(0, dot))) return false;
    if (dot == name.npos) return true;
    name.remove_prefix(dot + 1);
  }
}

// Columns of Creatio's base schemas (BaseEntity, BaseLookup, BaseCodeLookup, File) that are no look-ups: what a name of
// them is in every object.
bool is_base_property(std::string_view name) {
  static constexpr std::string_view kNames[] = {"Id",        "Name",       "Description", "Code",
                                                "CreatedOn", "ModifiedOn", "Data",        "Size"};
  for (std::string_view known : kNames)
    if (equals_ignore_case(known, name)) return true;
  return false;
}

class Reader {
 public:
  Reader(const Schema& schema, const Resource& resource, std::vector<ObjectUse>& uses)
      : schema_(schema), resource_(resource), uses_(uses), first_use_(uses.size()) {}

  ResourceReading read();

 private:
  const char* read_root(std::string_view text);
  const char* read_entity_by_id();
  const char* read_crossjoin(std::string_view list);
  const char* read_tail(std::size_t begin);
  const char* step(std::string_view text, std::size_t i);
  const char* step_system(std::string_view lower, std::size_t i);
  const char* step_below_collection(std::string_view text, const Segment& segment);
  const char* step_name(const Segment& segment);
  const char* finish();
  void write();
  Operation operation_on_last() const;
  void hop(std::string_view object, Via via, std::string_view key = {}) {
    object_ = object;
    uses_.push_back({std::string(object), Operation::read, via, resource_.part, resource_.in_batch});
    if (!trim(key).empty()) take_key(key);
  }
  // Of the last hop.
  void take_key(std::string_view key) {
    if (RecordNames names(schema_, uses_, uses_.size() - 1); names) [[unlikely]]
      names.read_key(key);
  }
  // Of the last hop; what it leads to is never less than was said before.
  void leads(Beyond beyond) { uses_.back().beyond = std::max(uses_.back().beyond, beyond); }
  std::size_t hops() const { return uses_.size() - first_use_; }
  std::string_view spell(std::string_view name) const { return schema_.canonical(name).value_or(name); }

  const Schema& schema_;
  const Resource& resource_;
  std::vector<ObjectUse>& uses_;
  std::size_t first_use_;
  ResourceReading reading_;
  std::string object_;
  Target target_ = Target::collection;
  bool terminal_ = false;     // nothing may follow
  bool by_property_ = false;  // the target is reached through a property or navigation of an entity
  bool links_ = false;        // $links consumed the rest of the path
};

ResourceReading Reader::read() {
  const NormalPath& path = resource_.path;
  if (resource_.method == Method::other) {
    reading_.error = "the method is not known to OData";
  } else if (resource_.first >= path.size()) {
    reading_.metadata = true;
    if (!reads(resource_.method)) reading_.error = "the service document can only be read";
  } else {
    reading_.error = read_root(path.segment(resource_.first));
    if (!reading_.error && !reading_.metadata) reading_.error = read_tail(resource_.first + 1);
    if (!reading_.error && !reading_.metadata) reading_.error = finish();
  }
  if (target_ != Target::property) reading_.object = object_;
  return std::move(reading_);
}

const char* Reader::read_root(std::string_view text) {
  auto segment = split(text);
  if (!segment) return "the key of an entity does not close";
  if (text.front() == '$') {
    if (resource_.references) {
      auto it = resource_.references->find(segment->name.substr(1));
      if (it != resource_.references->end()) {
        if (it->second.ambiguous) return "a reference names more than one part";
        hop(it->second.object, Via::primary);
        target_ = Target::entity;
        return nullptr;
      }
    }
    std::string lower = to_lower(segment->name);
    if (lower == "$metadata") {
      reading_.metadata = true;
      if (!reads(resource_.method) || resource_.first + 1 != resource_.path.size() || segment->has_arguments)
        return "$metadata can only be read";
      return nullptr;
    }
    if (lower == "$entity") return read_entity_by_id();
    if (lower == "$crossjoin") return read_crossjoin(segment->arguments);
    if (lower == "$batch") return "a batch cannot stand here";
    return "the address is not a known OData resource";
  }
  std::string_view name = segment->name;
  if (resource_.version3 && name.size() > 10 &&
      equals_ignore_case(name.substr(name.size() - 10), "Collection"))
    name.remove_suffix(10);
  if (!is_identifier(name) || is_api_word(name)) return "the address names no entity set";
  hop(spell(name), Via::primary, segment->arguments);
  target_ = trim(segment->arguments).empty() ? Target::collection : Target::entity;
  return nullptr;
}

const char* Reader::read_entity_by_id() {
  auto id = find_parameter(resource_.path.query, "$id");
  if (id.count != 1) return "$entity needs one $id";
  auto url = resolve_url(id.value, resource_.version3);
  if (!url) return "$id is not an address of this service";
  const NormalPath& path = (*url)->path;
  if ((*url)->first >= path.size() || path.segment((*url)->first).starts_with('$'))
    return "$id is not the address of an entity";
  Resource inner{path,           (*url)->first,      Method::get, (*url)->version3,
                 resource_.part, resource_.in_batch, nullptr,     {}};
  ResourceReading reading = read_resource(schema_, inner, uses_);
  if (reading.error) return reading.error;
  for (std::size_t i = first_use_; i < uses_.size(); ++i)  // what $id names is an entity
    if (uses_[i].beyond == Beyond::property) uses_[i].beyond = Beyond::object;
  object_ = reading.object;
  target_ = Target::entity;
  return nullptr;
}

const char* Reader::read_crossjoin(std::string_view list) {
  if (!reads(resource_.method)) return "$crossjoin can only be read";
  while (true) {
    std::size_t comma = list.find(',');
    std::string_view name = trim(list.substr(0, comma));
    if (!is_identifier(name)) return "$crossjoin names no entity set";
    hop(spell(name), Via::primary);
    if (comma == list.npos) break;
    list.remove_prefix(comma + 1);
  }
  return nullptr;
}

const char* Reader::read_tail(std::size_t begin) {
  for (std::size_t i = begin; i < resource_.path.size(); ++i) {
    if (terminal_) return "nothing may follow the last OData segment";
    if (const char* error = step(resource_.path.segment(i), i)) return error;
    if (links_) break;
  }
  return nullptr;
}

const char* Reader::step(std::string_view text, std::size_t i) {
  if (text.front() == '$') return step_system(resource_.path.segment_lower(i), i);
  auto segment = split(text);
  if (!segment) return "the parentheses of a segment do not close";
  if (is_qualified(segment->name)) {
    auto type = segment->name.substr(segment->name.rfind('.') + 1);
    // A type cast keeps what is addressed: POST Case/Model.Case creates, DELETE Case(1)/Model.Case removes.
    bool cast = schema_.canonical(type).has_value() && !segment->has_arguments;
    if (target_ == Target::property) leads(Beyond::object);
    if (!cast || target_ == Target::property) target_ = Target::bound;
    return nullptr;
  }
  if (target_ == Target::collection) return step_below_collection(text, *segment);
  return step_name(*segment);
}

const char* Reader::step_system(std::string_view lower, std::size_t i) {
  terminal_ = true;
  if (Beyond& beyond = uses_.back().beyond; target_ == Target::property) {
    if (lower != "$value" && lower != "$ref")
      beyond = Beyond::object;
    else if (beyond == Beyond::property)
      beyond = Beyond::nothing;
  }
  if (lower == "$count") {
    target_ = Target::count;
  } else if (lower == "$value") {
    if (target_ == Target::entity || target_ == Target::collection) target_ = Target::media;
  } else if (lower == "$ref") {
    // The link belongs to the object before: its target is named, not read.
    if (hops() > 1 && target_ != Target::property && target_ != Target::bound) {
      uses_.pop_back();
      object_ = uses_.back().object;
    }
    target_ = Target::link;
  } else if (lower == "$query") {
    target_ = Target::query;
    reading_.query_in_body = true;
    if (resource_.method != Method::post) return "$query is called by POST";
  } else if (lower == "$links") {
    // $links/{navigation}[(key)][/$count] to the end of the path.
    if (i + 1 >= resource_.path.size()) return "$links names no relation";
    auto segment = split(resource_.path.segment(i + 1));
    if (!segment || !is_identifier(segment->name)) return "$links names no relation";
    bool count = i + 3 == resource_.path.size() && resource_.path.segment_lower(i + 2) == "$count";
    if (i + 2 != resource_.path.size() && !count) return "nothing may follow the last OData segment";
    target_ = Target::link;
    by_property_ = true;
    links_ = true;
  } else {
    return "the address has an unknown OData segment";
  }
  return nullptr;
}

// Behind a set without a key: a key as a segment, or a function. City/62f9bc01-... is the vendor's own example.
const char* Reader::step_below_collection(std::string_view text, const Segment& segment) {
  if (is_guid(text) || !is_identifier(segment.name)) {
    take_key(text);
    target_ = Target::entity;
    return nullptr;
  }
  if (segment.has_arguments) {
    target_ = Target::bound;
    return nullptr;
  }
  // Either a key that looks like a name or a navigation. Reading, both are reported; writing, they differ too much.
  if (!reads(resource_.method)) return "a property of a whole entity set cannot be changed";
  if (auto next = navigation(schema_, object_, segment.name)) {
    hop(next->object, Via::nav);
    by_property_ = true;
  }
  target_ = Target::entity;
  return nullptr;
}

const char* Reader::step_name(const Segment& segment) {
  if (!is_identifier(segment.name)) return "the address has a segment that is no property";
  by_property_ = true;
  if (target_ == Target::property) leads(Beyond::object);
  auto next = navigation(schema_, object_, segment.name);
  if (!next) {
    target_ = Target::property;
    if (segment.has_arguments)
      leads(Beyond::object);
    else if (!is_base_property(segment.name))
      leads(Beyond::property);
    return nullptr;
  }
  hop(next->object, Via::nav, segment.arguments);
  target_ = next->collection && trim(segment.arguments).empty() ? Target::collection : Target::entity;
  return nullptr;
}

Operation Reader::operation_on_last() const {
  bool removes = resource_.method == Method::remove;
  bool posts = resource_.method == Method::post;
  switch (target_) {
    case Target::collection:
      return removes ? Operation::remove : posts ? Operation::create : Operation::edit;
    case Target::entity:
    case Target::media:  // deleting the stream deletes its entity (OData 4.01 part 1, 11.4.7.3)
    case Target::bound:
    case Target::count:
      return removes ? Operation::remove : Operation::edit;
    case Target::link:
      return removes && !by_property_ ? Operation::remove : Operation::edit;
    case Target::property:
    case Target::query:
      return Operation::edit;
  }
  return Operation::edit;
}

void Reader::write() {
  // A property is replaced or removed; what is changed in part or added to is an object.
  const bool of_property = resource_.method == Method::put || resource_.method == Method::remove;
  if (uses_.back().beyond == Beyond::property && !of_property) leads(Beyond::object);
  for (std::size_t i = first_use_; i + 1 < uses_.size(); ++i) uses_[i].operation = Operation::edit;
  uses_.back().operation = operation_on_last();
  // PUT or PATCH of a whole set makes entities as well as it changes them (OData 4.01 part 1, 11.4.12), and a server
  // that ignores a method override sees a POST.
  if (target_ == Target::collection && uses_.back().operation == Operation::edit) {
    uses_.push_back(uses_.back());
    uses_.back().operation = Operation::create;
  }
}

const char* Reader::finish() {
  if (hops() == 0) return "the address names no entity set";
  ObjectUse model{{}, Operation::read, Via::expand, resource_.part, resource_.in_batch};
  const std::size_t last = uses_.size() - 1;
  if (!reads(resource_.method) && target_ != Target::query) {
    if (target_ == Target::count) return "$count can only be read";
    write();
  }
  if (RecordNames names(schema_, uses_, last); names) [[unlikely]] {
    names.read_query(resource_.path.query);
    if (target_ == Target::query) names.read_query(resource_.query_body);
  }
  if (const char* error = report_query(schema_, object_, resource_.path.query, model, uses_)) return error;
  if (target_ == Target::query) return report_query(schema_, object_, resource_.query_body, model, uses_);
  return nullptr;
}

}  // namespace

ResourceReading read_resource(const Schema& schema, const Resource& resource, std::vector<ObjectUse>& uses) {
  return Reader(schema, resource, uses).read();
}

Result<std::unique_ptr<ResolvedUrl>> resolve_url(std::string_view url, bool version3) {
  auto out = std::make_unique<ResolvedUrl>();
  url = trim(url);
  bool rooted = url.starts_with('/');
  bool absolute = false;
  if (std::size_t scheme = url.find("://"); scheme != url.npos && scheme < url.find_first_of("/?#('")) {
    std::string_view name = url.substr(0, scheme);
    if (!equals_ignore_case(name, "http") && !equals_ignore_case(name, "https"))
      return fail(Origin::client, "the address of a part is neither http nor https");
    std::size_t slash = url.find_first_of("/?#", scheme + 3);
    if (slash == url.npos || url[slash] != '/')
      return fail(Origin::client, "the address of a part has no path");
    url.remove_prefix(slash);
    rooted = absolute = true;
  } else if (url.starts_with("//")) {
    return fail(Origin::client, "the address of a part has no scheme");
  }
  out->target = rooted ? std::string(url) : "/" + std::string(url);
  auto path = normalise(out->target);
  if (!path) return std::unexpected(path.error());
  out->path = std::move(*path);
  out->version3 = version3;
  // /Contact means the service root to most clients, although RFC 3986 reads it from the host.
  auto root = rooted ? find_root(out->path) : std::nullopt;
  if (root && root->api != Api::odata4 && root->api != Api::odata3)
    return fail(Origin::client, "the address of a part is not an OData address");
  if (root) {
    out->first = root->first;
    out->version3 = root->api == Api::odata3;
  } else if (absolute) {
    return fail(Origin::client, "the address of a part is not an OData address");
  }
  return out;
}

bool classify_odata(Call& call, const Root& root) {
  bool version3 = root.api == Api::odata3;
  const NormalPath& path = call.path;
  if (root.first < path.size() && path.segment_lower(root.first) == "$batch") {
    if (root.first + 1 != path.size()) return call.reject("nothing may follow $batch");
    if (call.method != Method::post) return call.reject("$batch is called by POST");
    return classify_batch(call, version3);
  }
  Resource resource{path, root.first, call.method, version3, 0, false, nullptr, {}};
  bool query_in_body = path.size() > root.first && path.segment_lower(path.size() - 1) == "$query";
  if (query_in_body) {
    if (!call.body_ready()) return true;
    resource.query_body = call.request.body;
  }
  ResourceReading reading = read_resource(call.schema, resource, call.result.uses);
  if (reading.error) return call.reject(reading.error);
  return call.done(reading.metadata ? Kind::metadata : Kind::objects);
}

}  // namespace tollgate::catalogue::creatio
