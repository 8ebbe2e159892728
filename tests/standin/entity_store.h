// The records of the stand-in CRM, in memory: entity set -> record id -> fields. Any name is an entity set;
// the portal's own (Case, Account, Contact, KnowledgeBase, Order, ...) start with a few rows, so a demo shows
// something. Ids are made by counting, so two runs answer alike. Thread-safe.
#pragma once
#include <boost/json.hpp>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tollgate::standin {

class EntityStore {
 public:
  using Record = boost::json::object;

  EntityStore();

  // Entity names and ids compare without case, as in the real product. Rows come in order of creation.
  std::vector<Record> all(std::string_view entity) const;
  std::optional<Record> get(std::string_view entity, std::string_view id) const;
  Record create(std::string_view entity, const Record& fields);  // Id is made when the fields carry none
  bool update(std::string_view entity, std::string_view id, const Record& fields);
  bool remove(std::string_view entity, std::string_view id);
  std::vector<std::string> entity_names() const;

 private:
  struct Set {
    std::string name;
    std::vector<Record> rows;
  };
  Set& set_of(std::string_view entity);
  const Set* find(std::string_view entity) const;
  std::string next_id();

  mutable std::mutex mutex_;
  std::map<std::string, Set> sets_;  // by lower-case name
  std::uint64_t made_ = 0;
};

}  // namespace tollgate::standin
