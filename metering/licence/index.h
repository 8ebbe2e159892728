// The rulebook arranged for look-ups: objects by name in any case, licence-name patterns compiled once, and what the
// owned main products make available. Immutable after construction. Private to this folder.
#pragma once
#include <cstdint>
#include <regex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "metering/base/ascii.h"
#include "metering/licence/policy.h"

namespace tollgate::licence {

// Bit i = Rulebook::products[i].
using ProductSet = std::uint32_t;
inline constexpr std::size_t kProductsMax = 32;

struct Policy::Index {
  explicit Index(const Rulebook& rulebook);

  using Role = ResolvedUse::Role;
  static constexpr std::size_t kNoSection = SIZE_MAX;

  // Where an object belongs.
  struct Place {
    Role role = Role::none;
    std::string canonical;             // spelling of the rulebook
    std::size_t section = kNoSection;  // into sections
    bool custom_root = false;          // role custom: the section's own root, not one of its details
  };
  // A section of the rulebook or a permitted custom one.
  struct Target {
    std::string id;                 // "cases", "custom:UsrRealty"
    std::string caption;            // for sentences
    std::size_t custom_number = 0;  // custom sections: place in the list, from 1; 0 for the rulebook's own
    std::vector<Rights> rights;     // of each product, in the order of Rulebook::products
    bool own_organization = false;  // single records of others are refused
  };

  const Place* find(std::string_view object) const;
  // An object that is not listed anywhere but has the prefix of the portal's own objects.
  bool has_custom_prefix(std::string_view object) const;
  // Products whose patterns match one of the names. Memoised per thread: patterns are slow.
  ProductSet products_of(const std::vector<std::string>& licenses) const;

  std::vector<Target> sections;
  ProductSet available = 0;          // with the owned main products
  ProductSet capped = 0;             // users of these need a seat
  bool everything_licensed = false;  // system "none"

 private:
  struct NameHash {
    using is_transparent = void;
    std::size_t operator()(
        std::string_view name) const {  // FNV-1a over lower case; keys are the rulebook's own
      std::uint64_t hash = 0xcbf29ce484222325ULL;
      for (char c : name) hash = (hash ^ static_cast<unsigned char>(ascii_lower(c))) * 0x100000001b3ULL;
      return static_cast<std::size_t>(hash);
    }
  };
  struct NameEqual {
    using is_transparent = void;
    bool operator()(std::string_view a, std::string_view b) const { return equals_ignore_case(a, b); }
  };

  void add(std::string_view object, Role role, std::size_t section = kNoSection, bool custom_root = false);
  void add_sections(const Rulebook& rulebook);
  void add_custom_sections(const Rulebook& rulebook);
  void add_products(const Rulebook& rulebook);
  ProductSet match(std::string_view license) const;

  std::unordered_map<std::string, Place, NameHash, NameEqual> places_;
  std::vector<std::string> custom_prefixes_;
  std::vector<std::vector<std::regex>> patterns_;  // by product
  std::uint64_t number_;  // of this index, never reused in the process: key of the memo
};

}  // namespace tollgate::licence
