#include "config/load/rulebook.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <regex>
#include <set>

#include "config/load/yaml_reader.h"
#include "config/values.h"
#include "embedded_bpmonline.h"
#include "embedded_cherwell.h"
#include "embedded_creatio_partner.h"
#include "embedded_zoho.h"
#include "metering/base/ascii.h"
#include "metering/base/check.h"
#include "metering/base/guid.h"
#include "metering/identity/session.h"

namespace tollgate::config {
namespace {

constexpr std::size_t kCustomSectionsMax = 3;

// Fills a Rulebook from the nodes; keeps which object stands where, so that each stands in one place only.
class RulebookReader {
 public:
  // depth: of bases.
  Result<licence::Rulebook> read(const Node& root, unsigned depth) {
    // Sections before products and objects before relations, whatever their order in the file.
    auto later = [](Node& slot) { return [&slot](const Node& node) { slot = node; }; };
    Node sections, products, known, details, uids, relations, main_products, editions, user_types_with;
    yaml_.map(root, "the rulebook",
              {{"version", [&](const Node& n) { read_version(n); }, true},
               {"system", [&](const Node& n) { book_.system = yaml_.text(n, "system"); }, true},
               {"base", [&](const Node& n) { read_base(n, depth); }},
               {"main_products", later(main_products)},
               {"sections", later(sections)},
               {"products", later(products)},
               {"edition", [&](const Node& n) { book_.edition = yaml_.text(n, "edition"); }},
               {"editions", later(editions)},
               {"known_objects", later(known)},
               {"details", later(details)},
               {"unlisted", [&](const Node& n) { read_unlisted(n); }},
               {"user_types_with", later(user_types_with)},
               {"credits", [&](const Node& n) { read_credits(n); }},
               {"portal_seats", [&](const Node& n) { read_portal_seats(n); }},
               {"uids", later(uids)},
               {"relations", later(relations)},
               {"decisions", [&](const Node& n) { read_decisions(n); }}});
    read_main_products(main_products);
    yaml_.entries(sections, "sections",
                  [&](const auto& id, const auto&, const auto& node) { read_section(id, node); });
    book_.user_types_with = main_product_ids(user_types_with, "user_types_with");
    if (book_.sections.empty())
      yaml_.fail_at(root, "the rulebook needs sections, its own or those of a base");
    for (std::string& object : claimed_list(known, "known_objects"))
      book_.known_objects.push_back(std::move(object));
    for (std::string& object : claimed_list(details, "details")) book_.details.push_back(std::move(object));
    yaml_.entries(products, "products",
                  [&](const auto& id, const auto&, const auto& node) { read_product(id, node); });
    yaml_.entries(editions, "editions",
                  [&](const auto& id, const auto& key, const auto& node) { read_edition(id, key, node); });
    if (book_.products.empty() && book_.user_types_with.empty() && book_.decisions.empty())
      yaml_.fail_at(root, "the rulebook needs products");
    yaml_.entries(uids, "uids", [&](const auto& uid, const auto& key, const auto& node) {
      add_uid(uid, key, canonical(node, "an object of uids"));
    });
    yaml_.entries(relations, "relations", [&](const auto& column, const auto& key, const auto& node) {
      read_relation(column, key, node);
    });
    if (yaml_.error()) return std::unexpected(*yaml_.error());
    return std::move(book_);
  }

 private:
  void read_version(const Node& node) {
    if (yaml_.number(node, "version") != 1)
      yaml_.fail_at(node, "this program reads version 1 of the rulebook format");
  }

  // Everything but products, rights and editions: those are the rulebook's own.
  void read_base(const Node& node, unsigned depth) {
    const std::string name = yaml_.text(node, "base");
    std::optional<std::string_view> text = preset_text(name);
    if (!text || depth > 0) return yaml_.fail_at(node, fmt::format("\"{}\" is no preset to build on", name));
    RulebookReader reader;
    Result<licence::Rulebook> base = reader.read(read_yaml(*text, name + ".yaml").root, depth + 1);
    CHECK(base.has_value(), "presets are sound");
    base->system = std::move(book_.system);
    base->edition = std::move(book_.edition);
    base->products.clear();
    base->prices.clear();
    base->editions.clear();
    book_ = std::move(*base);
    objects_ = std::move(reader.objects_);
  }

  void read_decisions(const Node& node) {
    if (node.kind != Node::Kind::list) return yaml_.fail_at(node, "decisions is a list of rows");
    for (const Node& item : node.items) {
      licence::DecisionRow row;
      row.when.fill(licence::DecisionRow::kAny);
      yaml_.map(item, "a decision",
                {{"id", [&](const Node& n) { row.id = yaml_.text(n, "id"); }, true},
                 {"when", [&](const Node& n) { read_conditions(n, row); }},
                 {"outcome", [&](const Node& n) { read_outcome(n, row); }, true}});
      book_.decisions.push_back(std::move(row));
    }
  }

  void read_conditions(const Node& node, licence::DecisionRow& row) {
    yaml_.entries(node, "when", [&](const auto& name, const auto& key, const auto& value) {
      for (std::size_t i = 0; i < licence::kInputs; ++i) {
        const auto input = static_cast<licence::Input>(i);
        if (licence::name(input) != name) continue;
        const auto values = licence::values_of(input);
        const auto found = std::ranges::find(values, yaml_.text(value, name));
        if (found == values.end())
          return yaml_.fail_at(value, fmt::format("{} is one of {}", name, fmt::join(values, ", ")));
        row.when[i] = static_cast<std::uint8_t>(found - values.begin());
        return;
      }
      yaml_.fail_at(key, fmt::format("\"{}\" is nothing that a decision asks for", name));
    });
  }

  void read_outcome(const Node& node, licence::DecisionRow& row) {
    const auto outcome = licence::parse_outcome(yaml_.text(node, "outcome"));
    if (outcome)
      row.outcome = *outcome;
    else
      yaml_.fail_at(node, "an outcome is free, consumes, denied_rights or denied_cannot_edit");
  }

  void read_unlisted(const Node& node) {
    const std::string text = yaml_.text(node, "unlisted");
    if (text != "free" && text != "denied") yaml_.fail_at(node, "unlisted is free or denied");
    book_.unlisted_denied = text == "denied";
  }

  void read_edition(const std::string& id, const Node& key, const Node& node) {
    licence::Edition edition{id, {}};
    if (id == book_.edition)
      return yaml_.fail_at(key, fmt::format("\"{}\" is the edition of the products above", id));
    yaml_.entries(node, "an edition", [&](const auto& product, const auto& product_key, const auto& rights) {
      if (std::ranges::none_of(book_.products, [&](const auto& p) { return p.id == product; }))
        return yaml_.fail_at(product_key, fmt::format("\"{}\" is not in products", product));
      edition.rights[product] = read_rights_map(rights);
    });
    book_.editions.push_back(std::move(edition));
  }

  void read_main_products(const Node& node) {
    yaml_.entries(node, "main_products", [&](const auto& id, const auto&, const auto& names) {
      book_.known_main_products.push_back({id, yaml_.texts(names, fmt::format("main_products.{}", id))});
    });
  }

  // Claims an object's name for one place.
  void claim(const std::string& object, const Node& node) {
    if (object.empty() || yaml_.error()) return;
    if (!objects_.emplace(to_lower(object), object).second)
      yaml_.fail_at(node, fmt::format("object {} is listed twice; each belongs to one place", object));
  }
  std::vector<std::string> claimed_list(const Node& node, std::string_view what) {
    std::vector<std::string> objects = yaml_.texts(node, what);
    for (std::size_t i = 0; i < objects.size(); ++i) claim(objects[i], node.items[i]);
    return objects;
  }
  // The listed spelling of an object named elsewhere in the file.
  std::string canonical(const Node& node, std::string_view what) {
    std::string name = yaml_.text(node, what);
    auto found = objects_.find(to_lower(name));
    if (found != objects_.end()) return found->second;
    if (!name.empty())
      yaml_.fail_at(node, fmt::format("object {} is in no section and not in known_objects", name));
    return {};
  }

  void read_section(const std::string& id, const Node& node) {
    licence::Section section;
    section.id = section.caption = id;
    auto list = [&](std::vector<std::string>& into, std::string_view what) {
      return
          [this, &into, what, &id](const Node& n) { into = claimed_list(n, fmt::format("{}.{}", id, what)); };
    };
    yaml_.map(node, fmt::format("section {}", id),
              {{"caption", [&](const Node& n) { section.caption = yaml_.text(n, "caption"); }},
               {"entity", [&](const Node& n) { claim(section.entity = yaml_.text(n, "entity"), n); }, true},
               {"uid", [&](const Node& n) { section_uids_.emplace_back(n, yaml_.text(n, "uid")); }},
               {"views", list(section.views, "views")},
               {"children", list(section.children, "children")},
               {"lookups", list(section.lookups, "lookups")},
               {"feed", list(section.feed, "feed")},
               {"own_organization", [&](const Node& n) { read_owner_column(n, section); }}});
    // The UId may stand before the entity in the file.
    for (const auto& [uid_node, uid] : section_uids_) add_uid(uid, uid_node, section.entity);
    section_uids_.clear();
    book_.sections.push_back(std::move(section));
  }

  void read_owner_column(const Node& node, licence::Section& section) {
    section.own_organization = yaml_.text(node, "own_organization");
    if (auto column = check_format(section.own_organization, Format::object_name); !column)
      yaml_.fail_at(node, fmt::format("own_organization: \"{}\" is no column", section.own_organization));
  }

  void add_uid(const std::string& uid, const Node& node, const std::string& object) {
    if (yaml_.error()) return;
    if (!is_guid(uid))
      return yaml_.fail_at(node, fmt::format("\"{}\" is no UId: 32 hexadecimal digits", uid));
    if (!book_.uids.emplace(to_lower(uid), object).second)
      yaml_.fail_at(node, fmt::format("UId {} is listed twice", uid));
  }

  licence::Rights read_rights(const Node& node, std::string_view what) {
    licence::Rights rights = 0;
    std::vector<std::string> names = yaml_.texts(node, what);
    for (std::size_t i = 0; i < names.size(); ++i) {
      auto operation = parse_operation(names[i]);
      if (operation && *operation != catalogue::Operation::execute)
        rights |= licence::right(*operation);
      else
        yaml_.fail_at(node.items[i], fmt::format("\"{}\" is no right: read, create, edit, delete", names[i]));
    }
    return rights;
  }

  void read_product(const std::string& id, const Node& node) {
    licence::Product product;
    product.id = product.title = id;
    yaml_.map(node, fmt::format("product {}", id),
              {{"title", [&](const Node& n) { product.title = yaml_.text(n, "title"); }},
               {"license_names", [&](const Node& n) { read_patterns(n, product); }, true},
               {"available_with",
                [&](const Node& n) { product.available_with = main_product_ids(n, "available_with"); }, true},
               {"rights", [&](const Node& n) { product.rights = read_rights_map(n); }, true},
               {"custom_sections", [&](const Node& n) { read_custom_sections(n, product); }},
               {"seats", [&](const Node& n) { read_seats(n, product); }},
               {"price", [&](const Node& n) { read_price(n, id); }}});
    book_.products.push_back(std::move(product));
  }

  void read_price(const Node& node, const std::string& product) {
    licence::Price price;
    price.product = product;
    auto choice = [&](auto& into, const char* what, const auto& names) {
      return [this, &into, what, &names](const Node& n) {
        const auto found = std::ranges::find(names, yaml_.text(n, what));
        if (found == std::end(names))
          return yaml_.fail_at(n, fmt::format("{} is one of {}", what, fmt::join(names, ", ")));
        into = static_cast<std::decay_t<decltype(into)>>(found - std::begin(names));
      };
    };
    yaml_.map(
        node, "price",
        {{"minor_units", [&](const Node& n) { price.minor_units = yaml_.number(n, "minor_units"); }, true},
         {"currency", [&](const Node& n) { price.currency = yaml_.text(n, "currency"); }, true},
         {"per", choice(price.per, "per", licence::kPerNames), true},
         {"every", choice(price.every, "every", licence::kEveryNames), true},
         {"source", [&](const Node& n) { price.source = yaml_.text(n, "source"); }, true},
         {"as_of", [&](const Node& n) { price.as_of = yaml_.text(n, "as_of"); }, true}});
    if (!yaml_.error() && !licence::is_currency(price.currency))
      yaml_.fail_at(node, fmt::format("\"{}\" is no currency of ISO 4217, like USD", price.currency));
    book_.prices.push_back(std::move(price));
  }

  void read_patterns(const Node& node, licence::Product& product) {
    product.name_patterns = yaml_.texts(node, "license_names");
    for (std::size_t i = 0; i < product.name_patterns.size(); ++i) {
      try {
        std::regex pattern(product.name_patterns[i], std::regex::ECMAScript | std::regex::icase);
      } catch (const std::regex_error& e) {
        yaml_.fail_at(node.items[i],
                      fmt::format("\"{}\" is no regular expression: {}", product.name_patterns[i], e.what()));
      }
    }
  }

  std::vector<std::string> main_product_ids(const Node& node, std::string_view what) {
    std::vector<std::string> ids = yaml_.texts(node, what);
    for (std::size_t i = 0; i < ids.size(); ++i) {
      bool known = ids[i] == "ALL" || std::ranges::any_of(book_.known_main_products,
                                                          [&](const auto& p) { return p.id == ids[i]; });
      if (!known) yaml_.fail_at(node.items[i], fmt::format("\"{}\" is not in main_products", ids[i]));
    }
    return ids;
  }

  std::map<std::string, licence::Rights> read_rights_map(const Node& node) {
    std::map<std::string, licence::Rights> rights;
    yaml_.entries(node, "rights", [&](const auto& section, const auto& key, const auto& operations) {
      bool known = std::ranges::any_of(book_.sections, [&](const auto& s) { return s.id == section; });
      if (!known) return yaml_.fail_at(key, fmt::format("\"{}\" is not in sections", section));
      rights[section] = read_rights(operations, fmt::format("rights.{}", section));
    });
    return rights;
  }

  void read_custom_sections(const Node& node, licence::Product& product) {
    yaml_.map(node, "custom_sections",
              {{"max", [&](const Node& n) { product.custom_sections_max = yaml_.number(n, "max"); }, true},
               {"operations",
                [&](const Node& n) { product.custom_section_rights = read_rights(n, "operations"); }}});
  }

  // Credits and shares of one are 1 or more.
  void read_credits(const Node& node) {
    catalogue::CreditTable& table = book_.credits.emplace();
    auto number = [&](std::uint32_t& into, const char* what) {
      return [this, &into, what](const Node& n) {
        into = yaml_.number(n, what);
        if (into == 0) yaml_.fail_at(n, fmt::format("{} is 1 or more", what));
      };
    };
    yaml_.map(node, "credits",
              {{"call", number(table.call, "call"), true},
               {"records_per_credit", number(table.records_per_credit, "records_per_credit"), true},
               {"tagged_per_credit", number(table.tagged_per_credit, "tagged_per_credit"), true},
               {"convert", number(table.convert, "convert"), true},
               {"custom_view", number(table.custom_view, "custom_view"), true},
               {"deleted", number(table.deleted, "deleted"), true},
               {"bulk_read", number(table.bulk_read, "bulk_read"), true},
               {"bulk_write", number(table.bulk_write, "bulk_write"), true},
               {"composite", number(table.composite, "composite"), true},
               {"coql",
                [&](const Node& n) {
                  yaml_.entries(n, "coql", [&](const std::string& rows, const Node& key, const Node& cost) {
                    const auto up_to = parse_decimal(rows);
                    if (!up_to || *up_to > UINT32_MAX)
                      return yaml_.fail_at(key, fmt::format("\"{}\" is no number of rows", rows));
                    table.coql.emplace_back(static_cast<std::uint32_t>(*up_to), yaml_.number(cost, "coql"));
                  });
                  std::ranges::sort(table.coql);
                },
                true}});
  }

  void read_portal_seats(const Node& node) {
    yaml_.map(node, "portal_seats",
              {{"free", [&](const Node& n) { book_.portal_seats.free = yaml_.number(n, "free"); }, true}});
  }

  void read_seats(const Node& node, licence::Product& product) {
    licence::SeatCap& seats = product.seats.emplace();
    yaml_.map(node, "seats",
              {{"max", [&](const Node& n) { seats.max = yaml_.number(n, "max"); }},
               {"per_main_product_user", [&](const Node& n) {
                  seats.per_main_product_user = yaml_.number(n, "per_main_product_user");
                }}});
    if (seats.max == 0 && seats.per_main_product_user == 0)
      yaml_.fail_at(node, "seats needs max or per_main_product_user, greater than 0");
  }

  void read_relation(const std::string& column, const Node& key, const Node& node) {
    std::string target = canonical(node, "a target of relations");
    if (yaml_.error()) return;
    std::size_t dot = column.find('.');
    std::string_view object = std::string_view(column).substr(0, dot);
    if (dot == std::string::npos || dot + 1 == column.size() ||
        column.find('.', dot + 1) != std::string::npos)
      return yaml_.fail_at(key,
                           fmt::format("\"{}\" is no relation: write Object.Column or *.Column", column));
    if (object != "*" && !objects_.contains(to_lower(object)))
      return yaml_.fail_at(key, fmt::format("object {} is in no section and not in known_objects", object));
    book_.relations.emplace(column, target);
  }

  YamlReader yaml_;
  licence::Rulebook book_;
  std::map<std::string, std::string> objects_;  // lower case -> listed spelling
  std::vector<std::pair<Node, std::string>> section_uids_;
};

// Main product by id or by one of its names, in any case.
const licence::MainProduct* find_main_product(const licence::Rulebook& rulebook, std::string_view text) {
  for (const licence::MainProduct& product : rulebook.known_main_products) {
    if (equals_ignore_case(product.id, text)) return &product;
    for (const std::string& name : product.names)
      if (equals_ignore_case(name, text)) return &product;
  }
  return nullptr;
}

bool is_stock_object(const licence::Rulebook& rulebook, std::string_view object) {
  auto listed = [&](const std::vector<std::string>& names) {
    return std::ranges::any_of(names,
                               [&](const std::string& name) { return equals_ignore_case(name, object); });
  };
  for (const licence::Section& section : rulebook.sections)
    if (equals_ignore_case(section.entity, object) || listed(section.views) || listed(section.children) ||
        listed(section.lookups) || listed(section.feed))
      return true;
  return listed(rulebook.known_objects) || listed(rulebook.details);
}

// Zoho's words for rights: the permissions of a portal user type.
std::optional<licence::Rights> parse_permissions(const std::vector<std::string>& names) {
  using catalogue::Operation;
  licence::Rights rights = 0;
  for (const std::string& name : names) {
    if (equals_ignore_case(name, "view"))
      rights |= licence::right(Operation::read);
    else if (equals_ignore_case(name, "create"))
      rights |= licence::right(Operation::create);
    else if (equals_ignore_case(name, "edit"))
      rights |= licence::right(Operation::edit);
    else if (equals_ignore_case(name, "delete"))
      rights |= licence::right(Operation::remove);
    else
      return std::nullopt;
  }
  return rights;
}

std::string literal_pattern(std::string_view text) {
  std::string pattern = "^";
  for (char c : text) {
    if (std::string_view("\\^$.|?*+()[]{}").find(c) != std::string_view::npos) pattern += '\\';
    pattern += c;
  }
  return pattern + "$";
}

// A portal user type becomes a product; a module that no section has becomes one.
Result<void> add_user_type(licence::Rulebook& rulebook, const PortalUserType& type) {
  licence::Product product;
  product.id = type.name;
  product.title = fmt::format("the portal user type {}", type.name);
  if (type.license_names.empty()) product.name_patterns.push_back(literal_pattern(type.name));
  for (const std::string& name : type.license_names) product.name_patterns.push_back(literal_pattern(name));
  product.available_with = rulebook.user_types_with;
  for (const auto& [module, permissions] : type.modules) {
    const std::optional<licence::Rights> rights = parse_permissions(permissions);
    if (!rights)
      return fail(
          Origin::config,
          fmt::format(
              "licensing.user_types.{}.modules.{}: permissions are view, create, edit, delete; not {}",
              type.name, module, fmt::join(permissions, ", ")));
    auto section = std::ranges::find_if(
        rulebook.sections, [&](const licence::Section& s) { return equals_ignore_case(s.entity, module); });
    if (section == rulebook.sections.end()) {
      licence::Section added;
      added.id = to_lower(module);
      added.caption = added.entity = module;
      section = rulebook.sections.insert(rulebook.sections.end(), std::move(added));
    }
    product.rights[section->id] |= *rights;
  }
  rulebook.products.push_back(std::move(product));
  return {};
}

Result<void> apply_cherwell(licence::Rulebook& rulebook, const CherwellLicensing& settings) {
  for (const std::string& site : settings.always_use_sites) {
    auto folded = identity::session_user(site);
    if (!folded)
      return fail(Origin::config,
                  fmt::format("licensing.cherwell.always_use_sites: \"{}\" is no name", site));
    rulebook.always_use_sites.push_back(*std::move(folded));
  }
  rulebook.always_site_view_free = settings.always_site_view == "free";
  rulebook.security_right_default = settings.security_right;
  rulebook.consume_license_default = settings.consume_license;
  for (const std::string& object : settings.journal_objects)
    rulebook.journal_objects.push_back(to_lower(object));
  const auto kinds = licence::values_of(licence::Input::one_step_kind);
  for (const OneStep& step : settings.one_steps) {
    const auto kind = std::ranges::find(kinds, step.kind);
    CHECK(kind != kinds.end(), "the parser lets no other kind through");
    rulebook.one_steps[to_lower(step.name)] = {.alters_data = step.alters_data,
                                               .kind = static_cast<std::uint8_t>(kind - kinds.begin()),
                                               .rating_field = step.rating_field};
  }
  return {};
}

// The operator's prices in place of the rulebook's.
Result<void> apply_prices(licence::Rulebook& rulebook, const std::vector<LicensePrice>& prices) {
  using licence::Price;
  std::vector<std::string> known;
  for (const licence::Product& product : rulebook.products) known.push_back(product.id);
  known.emplace_back(licence::kConcurrentPool);
  if (rulebook.portal_seats.free > 0) known.emplace_back(licence::kPortalPool);
  for (const LicensePrice& set : prices) {
    const std::string where = "licensing.prices." + set.name;
    if (std::ranges::find(known, set.name) == known.end())
      return fail(Origin::config,
                  fmt::format("{}: no such product; known: {}", where, fmt::join(known, ", ")));
    if (!licence::is_currency(set.currency))
      return fail(Origin::config, fmt::format("{}.currency: \"{}\" is no currency of ISO 4217, like USD",
                                              where, set.currency));
    const auto per = std::ranges::find(licence::kPerNames, set.per);
    const auto every = std::ranges::find(licence::kEveryNames, set.every);
    CHECK(per != std::end(licence::kPerNames) && every != std::end(licence::kEveryNames),
          "the parser lets no other name through");
    Price price{.product = set.name,
                .minor_units = set.minor_units,
                .currency = set.currency,
                .per = static_cast<Price::Per>(per - std::begin(licence::kPerNames)),
                .every = static_cast<Price::Every>(every - std::begin(licence::kEveryNames)),
                .included = set.included,
                .source = set.source,
                .as_of = set.as_of};
    if (price.per == Price::Per::call) price.every = Price::Every::once;
    const bool pool_at_once = set.name == licence::kConcurrentPool;
    if (pool_at_once != (price.per == Price::Per::concurrent_seat))
      return fail(Origin::config,
                  fmt::format("{}.per: the pool {} is paid for by the concurrent_seat, and nothing else is",
                              where, licence::kConcurrentPool));
    if (set.name == licence::kPortalPool) {
      if (price.per != Price::Per::named_seat)
        return fail(Origin::config,
                    fmt::format("{}.per: portal users are paid for by the named_seat", where));
      if (price.included == 0) price.included = rulebook.portal_seats.free_allowance();
    }
    std::erase_if(rulebook.prices, [&](const Price& before) { return before.product == price.product; });
    rulebook.prices.push_back(std::move(price));
  }
  return {};
}

Result<void> choose_edition(licence::Rulebook& rulebook, const std::string& id) {
  if (id.empty() || id == rulebook.edition) return {};
  std::vector<std::string> known;
  if (!rulebook.edition.empty()) known.push_back(rulebook.edition);
  for (const licence::Edition& edition : rulebook.editions) {
    known.push_back(edition.id);
    if (edition.id != id) continue;
    for (const auto& [product, rights] : edition.rights)
      std::ranges::find(rulebook.products, product, &licence::Product::id)->rights = rights;
    rulebook.edition = id;
    return {};
  }
  return fail(Origin::config,
              fmt::format("licensing.edition: \"{}\" is not known; known: {}", id,
                          known.empty() ? "none" : fmt::format("{}", fmt::join(known, ", "))));
}

}  // namespace

std::optional<catalogue::Operation> parse_operation(std::string_view name) {
  using catalogue::Operation;
  if (name == "read") return Operation::read;
  if (name == "create") return Operation::create;
  if (name == "edit") return Operation::edit;
  if (name == "delete") return Operation::remove;
  if (name == "execute") return Operation::execute;
  return std::nullopt;
}

std::optional<std::string_view> preset_text(std::string_view system) {
  if (system == "bpmonline" || system == "none") return embedded::k_bpmonline;
  if (system == "creatio_partner") return embedded::k_creatio_partner;
  if (system == "zoho") return embedded::k_zoho;
  if (system == "cherwell") return embedded::k_cherwell;
  return std::nullopt;
}

Result<licence::Rulebook> load_rulebook(std::string_view yaml_text, const std::string& name_for_errors) {
  YamlTree tree = read_yaml(yaml_text, name_for_errors);
  for (const Diagnostic& diagnostic : tree.diagnostics)
    if (diagnostic.severity == Severity::error)
      return fail(Origin::config, fmt::format("{}:{}:{}: {}", diagnostic.file, diagnostic.line,
                                              diagnostic.column, diagnostic.message));
  return RulebookReader().read(tree.root, 0);
}

Result<void> apply_settings(licence::Rulebook& rulebook, const Catalogue& catalogue,
                            const Licensing& licensing) {
  if (auto chosen = choose_edition(rulebook, licensing.edition); !chosen) return chosen;
  for (const PortalUserType& type : licensing.user_types)
    if (auto added = add_user_type(rulebook, type); !added) return added;
  if (auto applied = apply_cherwell(rulebook, licensing.cherwell); !applied) return applied;
  rulebook.asks_owners =
      rulebook.decisions.empty() && rulebook.system != "none" && !licensing.creatio.lookup.url.empty() &&
      std::ranges::any_of(rulebook.sections, [](const auto& s) { return !s.own_organization.empty(); });
  rulebook.main_products.clear();
  rulebook.main_product_users = licensing.main_product_users;
  rulebook.portal_seats.client_users_at_release = licensing.portal_seats.client_users_at_release;
  rulebook.portal_seats.purchased = licensing.portal_seats.purchased;
  if (auto applied = apply_prices(rulebook, licensing.prices); !applied) return applied;
  for (const std::string& text : licensing.main_products) {
    if (const licence::MainProduct* product = find_main_product(rulebook, text)) {
      rulebook.main_products.push_back(product->id);
      continue;
    }
    if (rulebook.system == "none") continue;
    std::vector<std::string> known;
    for (const auto& product : rulebook.known_main_products) known.push_back(product.id);
    return fail(Origin::config, fmt::format("licensing.main_products: \"{}\" is not known; known: {}", text,
                                            fmt::join(known, ", ")));
  }
  if (catalogue.custom_sections.size() > kCustomSectionsMax)
    return fail(Origin::config, fmt::format("catalogue.custom_sections: {} listed, at most {} are licensed",
                                            catalogue.custom_sections.size(), kCustomSectionsMax));
  std::set<std::string> roots;
  for (const std::string& root : catalogue.custom_sections) {
    if (is_stock_object(rulebook, root))
      return fail(Origin::config,
                  fmt::format("catalogue.custom_sections: {} is an object of the CRM itself", root));
    if (!roots.insert(to_lower(root)).second)
      return fail(Origin::config, fmt::format("catalogue.custom_sections: {} is listed twice", root));
  }
  for (const auto& [root, children] : catalogue.custom_children)
    if (!roots.contains(to_lower(root)))
      return fail(Origin::config,
                  fmt::format("catalogue.custom_children: {} is not in catalogue.custom_sections", root));
  for (const auto& [process, effects] : catalogue.processes)
    for (const auto& [object, operation] : effects)
      if (!parse_operation(operation))
        return fail(Origin::config,
                    fmt::format("catalogue.processes.{}: \"{}\" is no operation: read, create, edit, delete",
                                process, operation));
  rulebook.custom_sections = catalogue.custom_sections;
  rulebook.custom_children = catalogue.custom_children;
  rulebook.custom_prefixes = catalogue.custom_prefixes;
  rulebook.unlicensed_objects = catalogue.unlicensed_objects;
  rulebook.unknown_denied = !catalogue.allow_unknown;
  for (const auto& [column, target] : catalogue.relations) {
    std::erase_if(rulebook.relations,
                  [&](const auto& listed) { return equals_ignore_case(listed.first, column); });
    rulebook.relations.emplace(column, target);
  }
  return {};
}

std::shared_ptr<const catalogue::Schema> make_schema(
    const licence::Rulebook& rulebook, const std::map<std::string, std::string>& uids,
    const std::map<std::string, std::vector<std::pair<std::string, std::string>>>& processes) {
  auto schema = std::make_shared<catalogue::Schema>();
  auto add = [&](const std::vector<std::string>& objects) {
    for (const std::string& object : objects) schema->add_object(object);
  };
  for (const licence::Section& section : rulebook.sections) {
    schema->add_object(section.entity);
    add(section.views);
    if (rulebook.asks_owners && !section.own_organization.empty()) {
      schema->add_owned(section.entity, section.own_organization);
      for (const std::string& view : section.views) schema->add_owned(view, section.own_organization);
    }
    add(section.children);
    add(section.lookups);
    add(section.feed);
  }
  add(rulebook.known_objects);
  add(rulebook.details);
  add(rulebook.custom_sections);
  for (const auto& [root, children] : rulebook.custom_children) add(children);
  add(rulebook.unlicensed_objects);
  for (const auto& [uid, object] : rulebook.uids) schema->add_uid(uid, object);
  for (const auto& [uid, object] : uids) schema->add_uid(uid, object);
  for (const auto& [column, target] : rulebook.relations) {
    std::size_t dot = column.find('.');
    CHECK(dot != std::string::npos, "a relation is Object.Column");
    schema->add_relation(std::string_view(column).substr(0, dot), std::string_view(column).substr(dot + 1),
                         target);
  }
  for (const auto& [process, effects] : processes) {
    std::vector<catalogue::Schema::Effect> out;
    for (const auto& [object, operation] : effects)
      out.push_back({object, parse_operation(operation).value_or(catalogue::Operation::remove)});
    schema->add_process(process, std::move(out));
  }
  return schema;
}

}  // namespace tollgate::config
