// A plain REST API: /api[/v1]/{collection}[/{id}[/{collection}[/{id}]...]]. The collection is the object; the deepest
// one takes the method's operation, those before it are edited by a write and read by a read.
//   DELETE /api/v1/accounts/7/cases/42   accounts edit, cases delete (nav)
#include "metering/base/ascii.h"
#include "metering/catalogue/dialect.h"

namespace tollgate::catalogue {
namespace {

bool is_version(std::string_view segment) {
  if (segment.size() < 2 || segment.front() != 'v') return false;
  for (char c : segment.substr(1))
    if (!is_digit(c) && c != '.') return false;
  return true;
}

// Index of the first collection behind "api": the first object of the schema, else what follows a version, else what
// follows "api".
std::optional<std::size_t> find_collection(const Call& call) {
  const NormalPath& path = call.path;
  std::size_t api = 0;
  while (api < path.size() && path.segment_lower(api) != "api") ++api;
  if (api == path.size()) return std::nullopt;
  std::size_t first = api + 1;
  for (std::size_t i = api + 1; i < path.size() && i <= api + 2; ++i)
    if (is_version(path.segment_lower(i))) {
      first = i + 1;
      break;
    }
  for (std::size_t i = first; i < path.size(); ++i)
    if (call.schema.canonical(path.segment(i))) return i;
  return first;
}

// Names of collections: letters, digits, '_' and '-'.
bool is_collection(std::string_view text) {
  for (char c : text)
    if (!is_alpha(c) && !is_digit(c) && c != '_' && c != '-') return false;
  return !text.empty() && text.size() <= 128;
}

Operation operation_of(Method method, bool with_id) {
  switch (method) {
    case Method::get:
    case Method::head:
    case Method::options:
      return Operation::read;
    case Method::post:
      return with_id ? Operation::edit : Operation::create;
    case Method::remove:
      return Operation::remove;
    case Method::put:
    case Method::patch:
    case Method::merge:
    case Method::other:
      return Operation::edit;
  }
  return Operation::edit;
}

}  // namespace

bool classify_rest(Call& call) {
  const NormalPath& path = call.path;
  auto first = find_collection(call);
  if (!first) return false;
  if (*first >= path.size()) return call.done(Kind::metadata);
  if (call.method == Method::other) return call.reject("the method is not known to this API");
  for (std::size_t i = *first; i < path.size(); i += 2) {
    if (!is_collection(path.segment(i))) return call.reject("the address names no collection");
    bool last = i + 2 >= path.size();
    Operation operation = operation_of(call.method, i + 1 < path.size());
    if (!last && operation != Operation::read) operation = Operation::edit;
    call.use(call.spell(path.segment(i)), operation, i == *first ? Via::primary : Via::nav);
  }
  return call.done(Kind::objects);
}

}  // namespace tollgate::catalogue
