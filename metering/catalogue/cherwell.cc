// Cherwell CSM REST API (Swagger of CSM 10): /CherwellAPI/api/V{n}/{operation}/{name}/{value}/{name}/{value}...
// The method says little: GETs link records and run One-Steps, POSTs read and delete. The operation's name decides.
// Objects are named by id (32 or 42 hex digits); an id that the schema does not know is reported as it was sent.
#include "metering/base/ascii.h"
#include "metering/catalogue/cherwell_reply.h"
#include "metering/catalogue/dialect.h"
#include "metering/catalogue/json_body.h"

namespace tollgate::catalogue {
namespace {

enum class Effect : std::uint8_t {
  read,
  edit,
  remove,
  edit_parent,
  read_parent,
  remove_related,  // the object is parentbusobid
  save,
  read_batch,
  save_batch,
  delete_batch,
  quick_search,
  one_step,
  metadata,
  authentication,
  unknown,
};

struct Entry {
  std::string_view name;
  Effect effect;
  bool prefix = false;  // any operation whose name begins so
};
constexpr Entry kOperations[] = {
    {"getbusinessobject", Effect::read},
    {"getbusinessobjectbatch", Effect::read_batch},
    {"getbusinessobjectattachment", Effect::read},
    {"getbusinessobjectattachments", Effect::read},
    {"getmobileformforbusob", Effect::read, true},
    {"getrelatedbusinessobject", Effect::read_parent, true},
    {"getquicksearchconfiguration", Effect::metadata, true},
    {"getquicksearch", Effect::quick_search, true},
    {"getsearchresults", Effect::read, true},
    {"storedsearches", Effect::read},
    {"savebusinessobject", Effect::save},
    {"savebusinessobjectbatch", Effect::save_batch},
    {"saverelatedbusinessobject", Effect::edit_parent, true},
    {"savebusinessobjectattachment", Effect::edit, true},
    {"uploadbusinessobjectattachment", Effect::edit, true},
    {"removebusinessobjectattachment", Effect::edit, true},
    {"linkrelatedbusinessobject", Effect::edit_parent, true},
    {"unlinkrelatedbusinessobject", Effect::edit_parent, true},
    {"additemtoqueue", Effect::edit},
    {"checkinqueueitem", Effect::edit},
    {"checkoutqueueitem", Effect::edit},
    {"removeitemfromqueue", Effect::edit},
    {"deletebusinessobject", Effect::remove},
    {"deletebusinessobjectbatch", Effect::delete_batch},
    {"deleterelatedbusinessobject", Effect::remove_related, true},
    {"runonestepaction", Effect::one_step, true},
    {"getbusinessobjecttemplate", Effect::metadata, true},
    {"getbusinessobjectschema", Effect::metadata, true},
    {"getbusinessobjectsummar", Effect::metadata, true},
    {"getonestepactions", Effect::metadata, true},
    {"getsearchitems", Effect::metadata, true},
    {"getqueues", Effect::metadata, true},
    {"getsecuritygroup", Effect::metadata, true},
    {"serviceinfo", Effect::metadata},
    {"logout", Effect::authentication},
    {"token", Effect::authentication},
};

Effect effect_of(std::string_view operation) {
  for (const Entry& entry : kOperations)
    if (entry.name == operation) return entry.effect;
  for (const Entry& entry : kOperations)
    if (entry.prefix && operation.starts_with(entry.name)) return entry.effect;
  return Effect::unknown;
}

bool is_object_id(std::string_view text) {
  if (text.size() < 32) return false;
  for (char c : text)
    if (hex_value(c) < 0 && c != '-') return false;
  return true;
}

class Reader {
 public:
  Reader(Call& call, std::size_t first) : call_(call), first_(first) {}
  bool read();

 private:
  std::optional<std::string_view> pair(std::string_view name) const;
  bool pairs_fit() const;
  std::string object_of(std::string_view id) const {
    return std::string(call_.schema.object_of_uid(id).value_or(call_.spell(id)));
  }
  // record: what follows the object's id in cherwell_record(); "" when the request names none.
  bool settle(std::string_view id, Operation operation, std::string record = {}) {
    if (id.empty()) return call_.done(Kind::unknown);
    use(id, operation, Via::primary, std::move(record));
    return call_.done(Kind::objects);
  }
  void use(std::string_view id, Operation operation, Via via, std::string record) {
    call_.use(object_of(id), operation, via);
    call_.result.uses.back().record = std::move(record);
  }
  std::string record_in_path(std::string_view id, bool parent) const {
    const auto record = pair(parent ? "parentbusobrecid" : "busobrecid"),
               public_id = pair(parent ? "parentpublicid" : "publicid");
    return named(id, record.value_or(""), public_id.value_or(""));
  }
  static std::string named(std::string_view id, std::string_view record, std::string_view public_id) {
    return record.empty() && public_id.empty() ? std::string() : cherwell_record(id, record, public_id);
  }
  template <class Read>
  bool with_body(Read&& read);
  bool from_path_or_body(Operation operation, bool parent);
  void note_related(JsonObject body);
  bool save_item(JsonObject item, std::uint32_t part, bool in_batch);
  bool save();
  bool batch(std::string_view list_key, std::optional<Operation> operation);
  bool quick_search();
  bool one_step();
  bool run(std::string_view key, std::string_view object_id, std::string record);
  bool remove_related();
  bool records();
  bool dispatch(Effect effect);

  Call& call_;
  std::size_t first_;  // the operation's name
};

// Value behind a name in the path, or in the query string; nullopt when absent.
std::optional<std::string_view> Reader::pair(std::string_view name) const {
  for (std::size_t i = first_ + 1; i + 1 < call_.path.size(); i += 2)
    if (call_.path.segment_lower(i) == name) return call_.path.segment(i + 1);
  return std::nullopt;
}

// Names do not repeat: which of two would win is the server's secret.
bool Reader::pairs_fit() const {
  for (std::size_t i = first_ + 1; i < call_.path.size(); i += 2)
    for (std::size_t j = i + 2; j < call_.path.size(); j += 2)
      if (call_.path.segment_lower(i) == call_.path.segment_lower(j)) return false;
  return true;
}

template <class Read>
bool Reader::with_body(Read&& read) {
  if (!call_.media.is_json()) return call_.reject_media("only JSON bodies of this address can be inspected");
  if (!call_.body_ready()) return true;
  JsonDocument document;
  auto root = document.parse(call_.request.body);
  auto object = root ? as_object(*root) : std::nullopt;
  if (!object) return call_.reject("the body is not a JSON object");
  return read(*object);
}

bool Reader::from_path_or_body(Operation operation, bool parent) {
  static constexpr std::string_view kOwn[] = {"busobid", "busobname", "association"};
  static constexpr std::string_view kParent[] = {"parentbusobid", "parentbusobname"};
  std::span<const std::string_view> names = parent ? std::span<const std::string_view>(kParent) : kOwn;
  std::string_view found;
  for (std::string_view name : names)
    if (auto value = pair(name)) {
      if (!found.empty() && object_of(found) != object_of(*value))
        return call_.reject("the address names two objects");
      found = *value;
    }
  if (!found.empty()) return settle(found, operation, record_in_path(found, parent));
  if (reads(call_.method) || call_.method == Method::remove) return call_.done(Kind::unknown);
  return with_body([&](JsonObject body) {
    std::string id;
    for (std::string_view name : names) {
      Member value = member(body, name);
      if (value.repeated) return call_.reject("the body names two objects");
      auto text = value.text().value_or("");
      if (text.empty()) continue;
      if (!id.empty() && object_of(id) != object_of(text)) return call_.reject("the body names two objects");
      id = text;
    }
    const Member record = member(body, parent ? "parentBusObRecId" : "busObRecId"),
                 public_id = member(body, parent ? "parentBusObPublicId" : "busObPublicId");
    if (record.repeated || public_id.repeated) return call_.reject("the body names two records");
    if (parent) note_related(body);
    return settle(id, operation, named(id, record.text().value_or(""), public_id.text().value_or("")));
  });
}

// A detail that is made, not changed: neither of its own names is there.
void Reader::note_related(JsonObject body) {
  const Member object = member(body, "busObId"), record = member(body, "busObRecId"),
               public_id = member(body, "busObPublicId");
  const auto is_empty = [](const Member& m) {
    return !m.repeated && (!m || m.value->is_null() || m.text() == std::string_view());
  };
  if (object.repeated || !is_empty(record) || !is_empty(public_id)) return;
  call_.result.makes_related = object_of(object.text().value_or(""));
}

// False: call.result is a rejection.
bool Reader::save_item(JsonObject item, std::uint32_t part, bool in_batch) {
  Member object = member(item, "busObId"), record = member(item, "busObRecId"),
         public_id = member(item, "busObPublicId");
  auto id = object.text();
  if (object.repeated || record.repeated || public_id.repeated || !id || id->empty()) {
    call_.reject("a record needs one busObId");
    return false;
  }
  auto is_empty = [](const Member& m) { return !m || m.value->is_null() || m.text() == std::string_view(); };
  Operation operation = is_empty(record) && is_empty(public_id) ? Operation::create : Operation::edit;
  call_.result.uses.push_back(
      {object_of(*id), operation, Via::primary, part, in_batch,
       cherwell_record(*id, record.text().value_or(""), public_id.text().value_or(""))});
  return true;
}

bool Reader::save() {
  return with_body(
      [&](JsonObject body) { return save_item(body, 0, false) ? call_.done(Kind::objects) : true; });
}

// operation: none for a batch of saves, which each create or edit.
bool Reader::batch(std::string_view list_key, std::optional<Operation> operation) {
  return with_body([&](JsonObject body) {
    Member requests = member(body, list_key);
    auto list = requests.array();
    if (requests.repeated || !list) return call_.reject("the batch needs one list of requests");
    std::uint32_t part = 0;
    for (JsonElement element : *list) {
      auto item = as_object(element);
      if (!item) return call_.reject("a request of the batch is not an object");
      if (part >= call_.options.batch_parts_max) return call_.reject("the batch has too many operations");
      if (!save_item(*item, part, true)) return true;
      if (operation) call_.result.uses.back().operation = *operation;
      ++part;
    }
    return call_.done(Kind::objects);
  });
}

bool Reader::quick_search() {
  if (reads(call_.method)) return from_path_or_body(Operation::read, false);
  return with_body([&](JsonObject body) {
    Member many = member(body, "busObIds"), one = member(body, "busObId");
    if (many.repeated || one.repeated) return call_.reject("the body names objects twice");
    if (auto id = one.text(); id && !id->empty()) call_.use(object_of(*id), Operation::read);
    if (auto list = many.array())
      for (JsonElement element : *list) {
        auto id = as_text(element);
        if (!id || id->empty()) return call_.reject("busObIds is not a list of ids");
        if (call_.result.uses.size() >= call_.options.batch_parts_max)
          return call_.reject("busObIds is too long");
        call_.use(object_of(*id), Operation::read);
      }
    return call_.done(call_.result.uses.empty() ? Kind::unknown : Kind::objects);
  });
}

// key: "DefType:OneStepDef#Scope:Global#Id:944ab"; operators may declare the whole key or the part behind "Id:".
bool Reader::run(std::string_view key, std::string_view object_id, std::string record) {
  call_.result.process = key;
  std::size_t at = key.rfind("Id:");
  std::string_view id = at == key.npos ? key : key.substr(at + 3);
  id = id.substr(0, id.find('#'));
  const auto* effects = call_.schema.process(key);
  if (!effects) effects = call_.schema.process(id);
  if (effects) {
    for (const auto& effect : *effects) {
      std::string object =
          effect.object.empty() ? object_of(object_id) : std::string(call_.spell(effect.object));
      if (object.empty()) return call_.done(Kind::unknown);
      call_.use(object, effect.operation, Via::process);
      if (effect.object.empty()) call_.result.uses.back().record = record;
    }
    return call_.done(Kind::objects);
  }
  if (object_id.empty()) {
    call_.use("onestep:" + std::string(id), Operation::execute);
    return call_.done(Kind::unknown);
  }
  // Nothing is declared: a One-Step on a record may alter it.
  use(object_id, Operation::edit, Via::process, std::move(record));
  return call_.done(Kind::objects);
}

bool Reader::one_step() {
  if (auto key = pair("standinkey")) {
    const std::string_view id = pair("busobid").value_or("");
    return run(*key, id, record_in_path(id, false));
  }
  if (call_.method != Method::post) return call_.done(Kind::unknown);
  return with_body([&](JsonObject body) {
    Member key = member(body, "oneStepActionStandInKey"), object = member(body, "busObId"),
           record = member(body, "busObRecId");
    if (key.repeated || object.repeated || record.repeated) return call_.reject("the body repeats a key");
    std::string_view key_text = key.text().value_or("");
    if (key_text.empty()) return call_.reject("the body names no One-Step");
    const std::string_view id = object.text().value_or("");
    return run(key_text, id, named(id, record.text().value_or(""), ""));
  });
}

bool Reader::remove_related() {
  auto child = pair("busobid"), parent = pair("parentbusobid");
  if (!parent) return call_.done(Kind::unknown);
  if (!child) return settle(*parent, Operation::remove, record_in_path(*parent, true));
  use(*child, Operation::remove, Via::primary, record_in_path(*child, false));
  use(*parent, Operation::edit, Via::nav, record_in_path(*parent, true));
  return call_.done(Kind::objects);
}

// {busobid}/records/{id}/{status|stage|transitionOptions|transitions}
bool Reader::records() {
  const std::string_view id = call_.path.segment(first_);
  const std::string_view record =
      first_ + 2 < call_.path.size() ? call_.path.segment(first_ + 2) : std::string_view();
  return settle(id, reads(call_.method) ? Operation::read : Operation::edit, named(id, record, ""));
}

bool Reader::dispatch(Effect effect) {
  switch (effect) {
    case Effect::read:
      return from_path_or_body(Operation::read, false);
    case Effect::edit:
      return from_path_or_body(Operation::edit, false);
    case Effect::remove:
      return from_path_or_body(Operation::remove, false);
    case Effect::read_parent:
      return from_path_or_body(Operation::read, true);
    case Effect::edit_parent:
      return from_path_or_body(Operation::edit, true);
    case Effect::remove_related:
      return remove_related();
    case Effect::save:
      return save();
    case Effect::read_batch:
      return batch("readRequests", Operation::read);
    case Effect::save_batch:
      return batch("saveRequests", std::nullopt);
    case Effect::delete_batch:
      return batch("deleteRequests", Operation::remove);
    case Effect::quick_search:
      return quick_search();
    case Effect::one_step:
      return one_step();
    case Effect::metadata:
      return call_.done(Kind::metadata);
    case Effect::authentication:
      return call_.done(Kind::authentication);
    case Effect::unknown:
      return call_.done(Kind::unknown);
  }
  return call_.done(Kind::unknown);
}

bool Reader::read() {
  const NormalPath& path = call_.path;
  if (first_ >= path.size()) return call_.done(Kind::metadata);
  if (is_object_id(path.segment(first_)) && first_ + 1 < path.size() &&
      path.segment_lower(first_ + 1) == "records")
    return records();
  std::string_view operation = path.segment_lower(first_);
  // storedsearches/{scope}/{association}/{name}: by position.
  if (operation == "storedsearches")
    return settle(first_ + 2 < path.size() ? path.segment(first_ + 2) : "", Operation::read);
  Effect effect = effect_of(operation);
  if (effect != Effect::unknown && !pairs_fit()) return call_.reject("the address repeats a name");
  // Parts of an attachment: the first one is the counted one.
  if (operation.starts_with("uploadbusinessobjectattachment"))
    if (auto offset = pair("offset")) call_.result.counted = parse_decimal(*offset).value_or(0) == 0;
  return dispatch(effect);
}

// Browser portal: /CherwellPortal/{Site}/.../Command/Queries.GoToRecord?BusObID=..&RecID=..
bool classify_portal(Call& call) {
  auto object = find_parameter(call.path.query, "BusObID");
  if (object.count > 1) return call.reject("the address names two objects");
  if (object.count == 1 && object.value.empty()) return call.done(Kind::unknown);
  if (object.count == 1) {
    call.use(call.schema.object_of_uid(object.value).value_or(call.spell(object.value)),
             reads(call.method) ? Operation::read : Operation::edit);
    auto record = find_parameter(call.path.query, "RecID");
    if (record.count > 1) return call.reject("the address names two records");
    if (!record.value.empty())
      call.result.uses.back().record = cherwell_record(object.value, record.value, "");
    return call.done(Kind::objects);
  }
  return call.done(reads(call.method) ? Kind::asset : Kind::unknown);
}

}  // namespace

bool classify_cherwell(Call& call) {
  const NormalPath& path = call.path;
  for (std::size_t i = 0; i < path.size() && i < 2; ++i) {
    std::string_view word = path.segment_lower(i);
    if (word == "cherwellportal") return classify_portal(call);
    if (word != "cherwellapi" && word != "trebuchet.webapi") continue;
    std::string_view next = i + 1 < path.size() ? path.segment_lower(i + 1) : std::string_view();
    if (next == "token") return call.done(Kind::authentication);
    if (next != "api") return call.done(reads(call.method) ? Kind::asset : Kind::unknown);
    return Reader(call, i + 3).read();
  }
  return false;
}

}  // namespace tollgate::catalogue
