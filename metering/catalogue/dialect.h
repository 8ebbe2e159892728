// Inside the catalogue room: what one dialect sees of one request, and what all dialects share.
//
// A dialect is one function, bool classify_X(Call&): false when the address is not its own, else call.result is
// filled. The same function answers body_need(): with call.head_only it runs until it asks for the body
// (body_ready() notes the need and says false) and returns. So the two answers can never disagree.
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "metering/catalogue/classification.h"
#include "metering/catalogue/classifier.h"
#include "metering/catalogue/media_type.h"
#include "metering/catalogue/schema.h"
#include "metering/catalogue/url.h"

namespace tollgate::catalogue {

// HTTP methods as the dialects tell them apart. Some servers compare methods without case, so we do, too.
enum class Method : std::uint8_t { get, head, post, put, patch, merge, remove, options, other };
Method parse_method(std::string_view token);
inline bool reads(Method m) {
  return m == Method::get || m == Method::head;
}

struct Call {
  const Request& request;
  const Schema& schema;
  const Options& options;
  const NormalPath& path;
  Method method;           // after X-HTTP-Method
  const MediaType& media;  // of the body
  bool head_only = false;
  BodyNeed need = BodyNeed::none;
  Classification result;

  // True: request.body may be read. False: leave at once; the need is noted, or the body cannot be inspected.
  bool body_ready();

  bool done(Kind kind) {
    result.kind = kind;
    return true;
  }
  // Fills result as a rejection; returns true so that a dialect can leave with it.
  bool reject(std::string_view detail);
  bool reject_media(std::string_view detail);
  void use(std::string_view object, Operation operation, Via via = Via::primary);
  // Canonical spelling, else as sent.
  std::string_view spell(std::string_view object) const { return schema.canonical(object).value_or(object); }
};

// [A-Za-z_][A-Za-z0-9_]*, at most 128 bytes: names of objects, services and methods at all vendors. Anything else
// in their place is refused, since a server may fold it to another name.
bool is_identifier(std::string_view text);

// The value of a header that may occur once. Equal repeats count as one; `conflict` when repeats differ.
struct HeaderMatch {
  bool present = false, conflict = false;
  std::string_view value;
};
HeaderMatch find_header(std::span<const HeaderField> headers, std::string_view name);

// The method that the server will act on: X-HTTP-Method, X-HTTP-Method-Override, X-Method-Override (MS-ODATA
// 2.2.5.8) replace POST by PUT, PATCH, MERGE or DELETE. nullopt: they contradict each other, are no method, would make
// a read of a POST, or stand on another method than POST and differ from it (servers disagree whether they apply).
std::optional<Method> effective_method(std::string_view method, std::span<const HeaderField> headers);

bool classify_creatio(Call& call);
bool classify_zoho(Call& call);
bool classify_cherwell(Call& call);
bool classify_rest(Call& call);

}  // namespace tollgate::catalogue
