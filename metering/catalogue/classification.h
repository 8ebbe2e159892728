// What a request touches: the answer of the catalogue.
//
// A request is a list of parts (an OData batch or a DataService BatchQuery has many, any other request has one).
// A part touches one object, or several at once (an upsert needs `create` and `edit`; a $expand reads a second object).
// The catalogue knows requests and objects; which objects are licensed is the licence room's knowledge.
//
//   GET /0/odata/Case(1)/Account        parts=1  uses: Case read primary, Account read nav
//   POST /0/odata/$batch (37 requests)  parts=37 uses: one or more per part, `part` = index in the batch
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "metering/catalogue/portal_change.h"

namespace tollgate::catalogue {

enum class Operation : std::uint8_t { read, create, edit, remove /* "delete" on the outside */, execute };
inline constexpr std::size_t kOperationCount = 5;
// "read", "create", "edit", "delete", "execute": stable names in config, metrics, logs and replies.
std::string_view name(Operation operation);

// How the object is reached.
enum class Via : std::uint8_t {
  primary,  // named by the request itself
  nav,      // OData navigation: the reply IS this object, so it is bound by the licence like a primary one
  expand,   // $expand: reported, the CRM's own rights apply
  filter,   // $filter / $orderby over a related object: reported
  join,     // DataService column path over a related object: reported
  service,  // a configuration service that acts on the object
  process,  // a business process or One-Step whose effect is not visible in the request
};
std::string_view name(Via via);  // "", "nav", "expand", ...

// Where an OData path goes on from a record by a name that the schema does not know.
enum class Beyond : std::uint8_t {
  nothing,   // it does not
  property,  // it ends there: a property of the record, or a look-up of another object
  object,  // it goes further, or does there what is done to objects alone: another object, nobody knows which
};

struct ObjectUse {
  std::string object;  // canonical spelling where the object is known, else as sent
  Operation operation = Operation::read;
  Via via = Via::primary;
  std::uint32_t part = 0;  // which operation of the batch
  bool in_batch = false;   // the part is a batch item: shown as "batch[part]"
  // Which single record, "" when none is named: a list, of which the CRM shows what the user may see.
  // Cherwell: as cherwell_record() names it (cherwell_reply.h); of a create the object alone.
  // Creatio, of objects whose records have an owner that matters (Schema::add_owned): creatio_record.h.
  std::string record{};
  Beyond beyond = Beyond::nothing;
};

enum class Kind : std::uint8_t {
  objects,         // `uses` says what is touched; licensed or not is decided by the licence room
  metadata,        // $metadata, service documents, settings, schema requests
  asset,           // scripts, pages, images of the application, WebSocket of the user interface
  authentication,  // login, logout, token endpoints
  basic_function,  // a function that every portal user has (knowledge base search); `uses` is informative
  seat,            // takes or frees a portal seat
  unknown,         // a known API, but object or effect cannot be told from the request
  foreign,         // not an address of this CRM's APIs
  reject,          // contradictory or undecodable: answer 400, never forward
};
std::string_view name(Kind kind);

struct Classification {
  Kind kind = Kind::foreign;
  std::vector<ObjectUse> uses;
  bool counted = true;  // false: bound by the licence but free (later chunks of one file upload)
  std::string process;  // Cherwell: key of the One-Step that the request runs; "" when it runs none
  std::string
      makes_related;  // Cherwell: object of which it makes a record below that of `uses`; "": it makes none
  std::string reject_detail;  // for reject: what is wrong, for the caller
  // Of seats: which members, where the request names them; else nullptr.
  std::shared_ptr<const PortalChange> portal;
  // With Options::credits: what the vendor counts the call as; 0: it is no call of its API.
  std::uint32_t credits = 0;
  // Only with reject: the body is in a format or coding that cannot be inspected; answer 415 instead of 400.
  bool unsupported_media = false;

  void clear() {  // as new, but for the memory of `uses`; member by member, since each call does it
    kind = Kind::foreign;
    uses.clear();
    counted = true;
    process.clear();
    makes_related.clear();
    reject_detail.clear();
    portal.reset();
    credits = 0;
    unsupported_media = false;
  }
};

}  // namespace tollgate::catalogue
