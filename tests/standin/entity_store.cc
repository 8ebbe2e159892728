#include "tests/standin/entity_store.h"

#include <fmt/format.h>

#include "metering/base/ascii.h"

namespace tollgate::standin {
namespace {

std::string_view id_of(const EntityStore::Record& record) {
  const auto* id = record.if_contains("Id");
  return id != nullptr && id->is_string() ? std::string_view(id->get_string()) : std::string_view();
}

}  // namespace

EntityStore::EntityStore() {
  for (const char* entity :
       {"Account", "Contact", "KnowledgeBase", "Order", "Opportunity", "Lead", "Document", "Contract"})
    for (int i = 1; i <= 5; ++i) create(entity, {{"Name", fmt::format("{} {}", entity, i)}});
  for (int i = 1; i <= 40; ++i)
    create("Case", {{"Number", fmt::format("SR{:08}", i)},
                    {"Subject", fmt::format("Printer {} is on fire", i)},
                    {"Priority", i % 3},
                    {"AccountId", all("Account").front().at("Id")}});
}

std::vector<EntityStore::Record> EntityStore::all(std::string_view entity) const {
  const std::lock_guard lock(mutex_);
  const Set* set = find(entity);
  return set == nullptr ? std::vector<Record>() : set->rows;
}

std::optional<EntityStore::Record> EntityStore::get(std::string_view entity, std::string_view id) const {
  const std::lock_guard lock(mutex_);
  if (const Set* set = find(entity))
    for (const Record& row : set->rows)
      if (equals_ignore_case(id_of(row), id)) return row;
  return std::nullopt;
}

EntityStore::Record EntityStore::create(std::string_view entity, const Record& fields) {
  const std::lock_guard lock(mutex_);
  Record row = fields;
  if (id_of(row).empty()) row["Id"] = next_id();
  set_of(entity).rows.push_back(row);
  return row;
}

bool EntityStore::update(std::string_view entity, std::string_view id, const Record& fields) {
  const std::lock_guard lock(mutex_);
  for (Record& row : set_of(entity).rows) {
    if (!equals_ignore_case(id_of(row), id)) continue;
    for (const auto& field : fields)
      if (field.key() != "Id") row[field.key()] = field.value();
    return true;
  }
  return false;
}

bool EntityStore::remove(std::string_view entity, std::string_view id) {
  const std::lock_guard lock(mutex_);
  return std::erase_if(set_of(entity).rows,
                       [&](const Record& row) { return equals_ignore_case(id_of(row), id); }) > 0;
}

std::vector<std::string> EntityStore::entity_names() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> names;
  for (const auto& [key, set] : sets_) names.push_back(set.name);
  return names;
}

EntityStore::Set& EntityStore::set_of(std::string_view entity) {
  Set& set = sets_[to_lower(entity)];
  if (set.name.empty()) set.name = std::string(entity);
  return set;
}

const EntityStore::Set* EntityStore::find(std::string_view entity) const {
  const auto it = sets_.find(to_lower(entity));
  return it == sets_.end() ? nullptr : &it->second;
}

std::string EntityStore::next_id() {
  ++made_;
  return fmt::format("{:08x}-57a0-4d1c-9c0d-{:012x}", made_, made_);
}

}  // namespace tollgate::standin
