#include "config/load/rulebook.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <regex>
#include <set>

#include "config/load/yaml_reader.h"
#include "metering/base/ascii.h"
#include "metering/base/check.h"

namespace tollgate::config {
namespace {

constexpr std::size_t kCustomSectionsMax = 3;

bool is_uid(std::string_view text) {
  std::size_t digits = 0;
  for (char c : text) {
    if (c == '-') continue;
    if (hex_value(c) < 0) return false;
    ++digits;
  }
  return digits == 32;
}

// Fills a Rulebook from the nodes; keeps which object stands where, so that each stands in one place only.
class RulebookReader {
 public:
  Result<licence::Rulebook> read(const Node& root) {
    // Sections before products and objects before relations, whatever their order in the file.
    auto later = [](Node& slot) { return [&slot](const Node& node) { slot = node; }; };
    Node sections, products, known, uids, relations, main_products;
    yaml_.map(root, "the rulebook",
              {{"version", [&](const Node& n) { read_version(n); }, true},
               {"system", [&](const Node& n) { book_.system = yaml_.text(n, "system"); }, true},
               {"main_products", later(main_products)},
               {"sections", later(sections), true},
               {"products", later(products), true},
               {"known_objects", later(known)},
               {"uids", later(uids)},
               {"relations", later(relations)}});
    read_main_products(main_products);
    yaml_.entries(sections, "sections",
                  [&](const auto& id, const auto&, const auto& node) { read_section(id, node); });
    read_known_objects(known);
    yaml_.entries(products, "products",
                  [&](const auto& id, const auto&, const auto& node) { read_product(id, node); });
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
               {"feed", list(section.feed, "feed")}});
    // The UId may stand before the entity in the file.
    for (const auto& [uid_node, uid] : section_uids_) add_uid(uid, uid_node, section.entity);
    section_uids_.clear();
    book_.sections.push_back(std::move(section));
  }

  void add_uid(const std::string& uid, const Node& node, const std::string& object) {
    if (yaml_.error()) return;
    if (!is_uid(uid)) return yaml_.fail_at(node, fmt::format("\"{}\" is no UId: 32 hexadecimal digits", uid));
    if (!book_.uids.emplace(to_lower(uid), object).second)
      yaml_.fail_at(node, fmt::format("UId {} is listed twice", uid));
  }

  void read_known_objects(const Node& node) { book_.known_objects = claimed_list(node, "known_objects"); }

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
               {"available_with", [&](const Node& n) { read_available_with(n, product); }, true},
               {"rights", [&](const Node& n) { read_product_rights(n, product); }, true},
               {"custom_sections", [&](const Node& n) { read_custom_sections(n, product); }}});
    book_.products.push_back(std::move(product));
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

  void read_available_with(const Node& node, licence::Product& product) {
    product.available_with = yaml_.texts(node, "available_with");
    for (std::size_t i = 0; i < product.available_with.size(); ++i) {
      const std::string& id = product.available_with[i];
      bool known = id == "ALL" ||
                   std::ranges::any_of(book_.known_main_products, [&](const auto& p) { return p.id == id; });
      if (!known) yaml_.fail_at(node.items[i], fmt::format("\"{}\" is not in main_products", id));
    }
  }

  void read_product_rights(const Node& node, licence::Product& product) {
    yaml_.entries(node, "rights", [&](const auto& section, const auto& key, const auto& operations) {
      bool known = std::ranges::any_of(book_.sections, [&](const auto& s) { return s.id == section; });
      if (!known) return yaml_.fail_at(key, fmt::format("\"{}\" is not in sections", section));
      product.rights[section] = read_rights(operations, fmt::format("rights.{}", section));
    });
  }

  void read_custom_sections(const Node& node, licence::Product& product) {
    yaml_.map(node, "custom_sections",
              {{"max", [&](const Node& n) { product.custom_sections_max = yaml_.number(n, "max"); }, true},
               {"operations",
                [&](const Node& n) { product.custom_section_rights = read_rights(n, "operations"); }}});
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
  return listed(rulebook.known_objects);
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

Result<licence::Rulebook> load_rulebook(std::string_view yaml_text, const std::string& name_for_errors) {
  YamlTree tree = read_yaml(yaml_text, name_for_errors);
  for (const Diagnostic& diagnostic : tree.diagnostics)
    if (diagnostic.severity == Severity::error)
      return fail(Origin::config, fmt::format("{}:{}:{}: {}", diagnostic.file, diagnostic.line,
                                              diagnostic.column, diagnostic.message));
  return RulebookReader().read(tree.root);
}

Result<void> apply_settings(licence::Rulebook& rulebook, const Catalogue& catalogue,
                            const Licensing& licensing) {
  rulebook.main_products.clear();
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
    add(section.children);
    add(section.lookups);
    add(section.feed);
  }
  add(rulebook.known_objects);
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
