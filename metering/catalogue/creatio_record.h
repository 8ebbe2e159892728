// How a use names one record of Creatio whose owner matters (Schema::add_owned), in ObjectUse::record:
//
//   Partnership/5f3e...-...   the record with this id
//   Partnership//             one record, but which cannot be told from the request
//   Partnership/@5f3e...      no single one: those that the account with this id owns
//
// Ids are as read_guid() spells them, so that one record has one name however it was addressed. A name without an id is
// never asked for: it stays unknown whose it is.
#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace tollgate::catalogue {

struct CreatioRecord {
  std::string_view object, id;  // id "": it cannot be told
  std::string_view owner;       // not "": of no single record, but of those that this account owns
};
// The parts of such a name; views of it.
CreatioRecord read_creatio_record(std::string_view record);

// The owner that a reply to GET {entity}(id)?$select={column} names, as read_guid() spells it; "": it has none.
// nullopt: the body is no such record.
std::optional<std::string> read_creatio_owner(std::string_view body, std::string_view column);

}  // namespace tollgate::catalogue
