// What the parts of the table of keys share (keys.cc, keys_identity.cc, keys_licensing.cc).
#pragma once
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/keys.h"

namespace tollgate::config {

using namespace std::chrono_literals;
inline constexpr std::uint64_t kKiB = 1024, kMiB = 1024 * kKiB, kGiB = 1024 * kMiB;
inline constexpr Milliseconds kDay = 24h;

template <class T>
Items items(std::vector<T>* list, Fields (*describe_item)(T&), std::size_t items_min = 0) {
  Items result;
  result.items_min = items_min;
  result.count = [list] { return list->size(); };
  result.at = [list, describe_item](std::size_t i) { return describe_item((*list)[i]); };
  result.add = [list, describe_item](const std::string&) { return describe_item(list->emplace_back()); };
  return result;
}

// A map from name to group; the name is the member `name`.
template <class T>
Items named_items(std::vector<T>* list, Fields (*describe_item)(T&), std::size_t items_min = 0) {
  Items result = items(list, describe_item, items_min);
  result.named = true;
  result.name_of = [list](std::size_t i) { return (*list)[i].name; };
  result.add = [list, describe_item](const std::string& name) {
    list->emplace_back().name = name;
    return describe_item(list->back());
  };
  return result;
}

// An enumeration whose values are 0, 1, ... in the order of the names.
template <class Enum>
Choice choice(Enum* target, Names names) {
  return {[target] { return static_cast<std::size_t>(*target); },
          [target](std::size_t i) { *target = static_cast<Enum>(i); }, std::move(names)};
}

// user, timeout: what is said of these keys; literals.
Fields describe_creatio_access(CreatioAccess& access, std::string_view user, std::string_view timeout);
Fields describe_identity(Identity& identity);
Fields describe_licensing(Licensing& licensing);

}  // namespace tollgate::config
