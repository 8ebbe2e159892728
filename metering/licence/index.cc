#include "metering/licence/index.h"

#include <fmt/format.h>

#include <atomic>

#include "metering/base/check.h"

namespace tollgate::licence {
namespace {

constexpr std::size_t kMemoMax = 4'096;  // licence names a thread remembers

std::atomic<std::uint64_t> next_number{1};

}  // namespace

Policy::Index::Index(const Rulebook& rulebook)
    : everything_licensed(rulebook.system == "none"), number_(next_number.fetch_add(1)) {
  CHECK(rulebook.products.size() <= kProductsMax, "a rulebook has at most 32 products");
  add_sections(rulebook);
  // Free objects before custom ones: an object named as free stays free whatever its prefix.
  for (const std::string& object : rulebook.known_objects) add(object, Role::none);
  for (const std::string& object : rulebook.unlicensed_objects) add(object, Role::none);
  for (const std::string& object : rulebook.details) add(object, Role::detail);
  add_custom_sections(rulebook);
  for (const std::string& prefix : rulebook.custom_prefixes)
    if (!prefix.empty()) custom_prefixes_.push_back(prefix);
  add_products(rulebook);
}

// The first place an object is given stays.
void Policy::Index::add(std::string_view object, Role role, std::size_t section, bool custom_root) {
  places_.try_emplace(std::string(object), Place{role, std::string(object), section, custom_root});
}

void Policy::Index::add_sections(const Rulebook& rulebook) {
  auto add_all = [&](const std::vector<std::string>& objects, Role role, std::size_t section) {
    for (const std::string& object : objects) add(object, role, section);
  };
  for (const Section& section : rulebook.sections) {
    Target target{section.id, section.caption, 0, {}, !section.own_organization.empty()};
    for (const Product& product : rulebook.products) {
      auto granted = product.rights.find(section.id);
      target.rights.push_back(granted == product.rights.end() ? Rights{0} : granted->second);
    }
    std::size_t number = sections.size();
    sections.push_back(std::move(target));
    add(section.entity, Role::root, number);
    add_all(section.views, Role::view, number);
    add_all(section.children, Role::child, number);
    add_all(section.lookups, Role::lookup, kNoSection);
    add_all(section.feed, Role::feed, kNoSection);
  }
}

void Policy::Index::add_custom_sections(const Rulebook& rulebook) {
  std::size_t custom_number = 0;
  for (const std::string& root : rulebook.custom_sections) {
    Target target{"custom:" + root, root, ++custom_number, {}, false};
    for (const Product& product : rulebook.products)
      target.rights.push_back(custom_number <= product.custom_sections_max ? product.custom_section_rights
                                                                           : Rights{0});
    std::size_t number = sections.size();
    sections.push_back(std::move(target));
    add(root, Role::custom, number, true);
    for (const auto& [parent, children] : rulebook.custom_children) {
      if (!equals_ignore_case(parent, root)) continue;
      for (const std::string& child : children) add(child, Role::custom, number);
    }
  }
  // The section wizard makes these beside every root (CreatioDemoProject 8.1: AccountFile, AccountInFolder, ...). After
  // all that is listed, so that a listed object keeps its place.
  for (const std::string& root : rulebook.custom_sections)
    for (std::string_view suffix : {"File", "InFolder", "Folder", "InTag", "Tag", "Visa"})
      if (const Place* place = find(root); place != nullptr && place->custom_root)
        add(root + std::string(suffix), Role::custom, place->section);
}

void Policy::Index::add_products(const Rulebook& rulebook) {
  for (std::size_t i = 0; i < rulebook.products.size(); ++i) {
    const Product& product = rulebook.products[i];
    std::vector<std::regex>& patterns = patterns_.emplace_back();
    for (const std::string& pattern : product.name_patterns) {
      try {
        patterns.emplace_back(pattern, std::regex::ECMAScript | std::regex::icase | std::regex::optimize);
      } catch (const std::regex_error&) {
        CHECK(false, "licence-name patterns are checked when the rulebook is read");
      }
    }
    if (product.seats) capped |= ProductSet{1} << i;
    if (is_available(rulebook, product)) available |= ProductSet{1} << i;
  }
}

const Policy::Index::Place* Policy::Index::find(std::string_view object) const {
  auto found = places_.find(object);
  return found == places_.end() ? nullptr : &found->second;
}

bool Policy::Index::has_custom_prefix(std::string_view object) const {
  return std::ranges::any_of(custom_prefixes_, [&](const std::string& prefix) {
    return object.size() > prefix.size() && starts_with_ignore_case(object, prefix);
  });
}

ProductSet Policy::Index::match(std::string_view license) const {
  ProductSet products = 0;
  if (license.size() > kLicenseNameMax) return products;
  for (std::size_t i = 0; i < patterns_.size(); ++i)
    for (const std::regex& pattern : patterns_[i]) try {
        if (std::regex_search(license.begin(), license.end(), pattern)) products |= ProductSet{1} << i;
      } catch (const std::regex_error&) {
        // Too complex a pattern for this name (an operator's own rulebook): no match, which grants nothing.
      }
  return products;
}

ProductSet Policy::Index::products_of(const std::vector<std::string>& licenses) const {
  struct Memo {
    std::uint64_t index_number = 0;
    std::unordered_map<std::string, ProductSet> products;
  };
  // Per thread, so that workers share no lock; emptied when the policy changes or too many names were seen.
  thread_local Memo memo;
  if (memo.index_number != number_ || memo.products.size() > kMemoMax) {
    memo.products.clear();
    memo.index_number = number_;
  }
  ProductSet products = 0;
  for (const std::string& license : licenses) {
    auto found = memo.products.find(license);
    if (found == memo.products.end()) found = memo.products.emplace(license, match(license)).first;
    products |= found->second;
  }
  return products;
}

}  // namespace tollgate::licence
