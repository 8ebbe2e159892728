// Whose records are: what the replies of the Cherwell REST API say of it.
//
//   {"busObId":"6dd5..","busObRecId":"945f..","busObPublicId":"10234","fields":[{"name":"CustomerRecID","fieldId":"BO:..,FI:..",
//    "value":"93db.."},...]}                               getbusinessobject; such things in a list: searches, batches
//   {"busObRecId":"945f..","busObPublicId":"10234",...}    savebusinessobject
//
// Source: the vendor's Swagger (ReadResponse, SearchResultsResponse, SaveResponse). Pure; bodies are bounded by the caller.
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tollgate::catalogue {

// Names a record by what a request names it by: its id, its public id, or both, of which neither alone is believed.
// "6dd5../945f../", "6dd5..//10234", "6dd5../945f../10234"; in lower case, without regard to which the CRM would prefer.
std::string cherwell_record(std::string_view object_id, std::string_view record_id,
                            std::string_view public_id);

struct CherwellOwner {
  std::vector<std::string> records;  // the names of one record, as cherwell_record() makes them
  std::string owner;                 // the value of the first owner field that it has; "": that is empty
};
// Of each record in the reply that has one of the fields, by name or id in any case; at most `most`. Nothing when the body is
// no JSON.
std::vector<CherwellOwner> read_cherwell_owners(std::string_view body,
                                                std::span<const std::string> owner_fields, std::size_t most);
// Is the body a JSON object, as every reply about a record is?
bool is_cherwell_reply(std::string_view body);
// The names of the record that a reply to savebusinessobject says was made; empty: none was.
std::vector<std::string> read_cherwell_created(std::string_view body, std::string_view object_id);
// The same of savebusinessobjectbatch, for each request in its order: object_ids are theirs. Empty when the
// reply does not answer all of them.
std::vector<std::vector<std::string>> read_cherwell_created(std::string_view body,
                                                            std::span<const std::string_view> object_ids);

}  // namespace tollgate::catalogue
