// Inside the catalogue room: the parts of the Creatio dialect (bpm'online 7.x, Creatio 8.x and its forks).
//
//   creatio.cc               which API an address belongs to (virtual directory, workspace number, ssp)
//   creatio_odata.cc         OData 3 and 4 resource paths; odata_query.cc: what query options read besides
//   creatio_record.cc        which single records a key or a filter names
//   creatio_batch.cc         $batch as JSON and as multipart/mixed
//   creatio_data_service.cc  /DataService/json/SyncReply/...
//   creatio_services.cc      /rest/... and /ServiceModel/....svc
#pragma once
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "metering/catalogue/dialect.h"
#include "metering/catalogue/json_body.h"

namespace tollgate::catalogue::creatio {

enum class Api : std::uint8_t {
  odata4,
  odata3,
  data_service,
  service,
  soap,
  asset,
  metadata,
  authentication,
  other
};

// Where an API's own segments begin in a path.
struct Root {
  Api api;
  std::size_t first;  // index of the first segment after the root
};
std::optional<Root> find_root(const NormalPath& path);
// odata, dataservice, servicemodel, rest, soap, in any case: never the name of an object or a service.
bool is_api_word(std::string_view word);

// What a Content-ID of an earlier batch part stands for: `$1` in POST $1/Details.
struct Reference {
  std::string object;
  bool ambiguous = false;  // the id was given to parts on different objects
};
using References = std::map<std::string, Reference, std::less<>>;

// One OData resource request: the whole call or one part of a batch.
struct Resource {
  const NormalPath& path;
  std::size_t first = 0;  // first segment after the service root
  Method method = Method::get;
  bool version3 = false;  // EntityDataService.svc: sets end in "Collection"
  std::uint32_t part = 0;
  bool in_batch = false;
  const References* references = nullptr;
  std::string_view query_body = {};  // of POST .../$query
};

struct ResourceReading {
  const char* error = nullptr;  // set: reject
  bool metadata = false;
  bool query_in_body = false;  // POST .../$query: the options stand in the body
  std::string object;          // what the path ends at, for references; "" at a property, or what may be one
};
// Appends the uses. Anything that is not understood is an error or a use of the primary object, never nothing.
ResourceReading read_resource(const Schema& schema, const Resource& resource, std::vector<ObjectUse>& uses);

// A batch part's URL (or $id): relative to the service root, root-relative or absolute. The path outlives the view.
struct ResolvedUrl {
  NormalPath path;
  std::string target;  // owns what path.query views
  std::size_t first = 0;
  bool version3 = false;
};
// version3: of the service the URL is relative to. The error is a sentence for the caller.
Result<std::unique_ptr<ResolvedUrl>> resolve_url(std::string_view url, bool version3);

// Appends what $expand, $select, $filter, $orderby, $apply ... of `query` read beside `object`. Error or nullptr.
const char* report_query(const Schema& schema, std::string_view object, std::string_view query,
                         const ObjectUse& model, std::vector<ObjectUse>& uses);
// {Child}CollectionBy{Column}, a declared relation or an object of that name; nullopt when it names none.
struct Navigation {
  std::string object;
  bool collection = false;
};
std::optional<Navigation> navigation(const Schema& schema, std::string_view object, std::string_view name);
// Appends a read of `object` for information, once a part; beyond 64 related objects a part nothing is appended, so
// that a hostile query costs no quadratic time.
void append_once(std::vector<ObjectUse>& uses, std::string_view object, Via via, const ObjectUse& model);

// Reads which single records are named of an object whose records have an owner that matters (Schema::add_owned), into
// ObjectUse::record (creatio_record.h): the first of them is that of uses[at], each further one gets a use of the same
// part. Whatever compares the key for equality with something else than an id names a record that cannot be told, and so
// does what is beyond kNamedMax. For names that cannot be told nothing passes, so reading too much is on the safe side.
class RecordNames {
 public:
  static constexpr std::size_t kNamedMax = 64;  // of a use

  RecordNames(const Schema& schema, std::vector<ObjectUse>& uses, std::size_t at);
  // False: whose its records are does not matter, and nothing else may be called.
  explicit operator bool() const { return column_ != nullptr; }

  // Of an address, without parentheses: 5f3e.., guid'5f3e..', '5f3e..', Id=5f3e..
  void read_key(std::string_view key);
  // $filter of query options: Id eq 5f3e.., Id in (5f3e..,7a01..); PartnerId eq 5f3e.. names the owner.
  void read_query(std::string_view query);
  // Of a DataService query: primaryColumnValue, and filters that are enabled.
  void read_filters(JsonObject query);

 private:
  void add(std::string record);
  void add_id(const std::optional<std::string>& id);
  void read_expression(std::string_view text);
  void read_filter(JsonObject filter);
  void read_comparison(JsonObject filter);
  bool is_owner_column(std::string_view path, char between) const;

  std::vector<ObjectUse>& uses_;
  const std::size_t at_;
  const std::string* const column_;
  std::size_t named_ = 0;
};

bool classify_odata(Call& call, const Root& root);
bool classify_batch(Call& call, bool version3);
bool classify_data_service(Call& call, std::size_t first);
bool classify_service(Call& call, std::size_t first);

// Appends the objects that a DataService query reads through column paths.
void report_joins(const Schema& schema, std::string_view object, JsonObject query, const ObjectUse& model,
                  std::vector<ObjectUse>& uses);

}  // namespace tollgate::catalogue::creatio
