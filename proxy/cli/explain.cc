#include "proxy/cli/explain.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <fstream>
#include <iostream>
#include <iterator>

#include "config/load/rulebook.h"
#include "config/suggest.h"
#include "metering/base/guid.h"
#include "metering/base/json_text.h"
#include "metering/catalogue/classifier.h"
#include "metering/identity/directory.h"
#include "metering/licence/policy.h"
#include "proxy/cli/assembly.h"
#include "proxy/cli/user_directory.h"
#include "proxy/flow/rewrite.h"
#include "proxy/flow/snapshot.h"

namespace tollgate::cli {
namespace {

using catalogue::Classification;

struct Answer {
  const config::Route* route = nullptr;  // nullptr: none leads anywhere
  std::string upstream_target;           // where the route rewrites the path; else ""
  identity::Principal user;
  const char* listed = "no_directory";  // in_directory | not_in_directory
  bool everything = false;              // the user is said to hold every product
  licence::Policy::Holding holding;
  Classification seen;
  bool body_needed = false;
  Reason reason = Reason::ok;
  std::string detail;
  licence::Decision decision;
  std::vector<licence::ResolvedUse> resolved;  // in the order of seen.uses
  std::vector<licence::Owner> owners;          // the same
  bool quotas_reached = false;                 // the rules of quotas were consulted
  std::vector<const flow::SeatPool*> seats;    // one of each is needed
  std::vector<quota::AccountCharge> charges;
  std::size_t units() const { return reason == Reason::ok && decision.metered ? decision.units.size() : 0; }
};

std::string_view name(licence::ResolvedUse::Role role) {
  using Role = licence::ResolvedUse::Role;
  switch (role) {
    case Role::none:
      return "";
    case Role::root:
      return "root";
    case Role::child:
      return "child";
    case Role::view:
      return "view";
    case Role::lookup:
      return "lookup";
    case Role::detail:
      return "detail of a record";
    case Role::feed:
      return "feed";
    case Role::custom:
      return "custom";
  }
  return "";
}

// A licence name that no other product's pattern finds, for users given by --product.
std::string name_for_product(std::string_view id) {
  return fmt::format("tollgate-explain<{}>", id);
}

// The text after "@" or the file, or the text itself; nothing after a message.
std::optional<std::string> read_body(const ExplainArguments& arguments, Console& console) {
  std::string file = arguments.body_file;
  if (file.empty() && arguments.body.starts_with('@')) file = arguments.body.substr(1);
  if (file.empty()) return arguments.body;
  if (file == "-")
    return std::string{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  std::ifstream in(file, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  if (!in) {
    print_error(console, fmt::format("{}: cannot be read", file));
    return std::nullopt;
  }
  return text;
}

bool read_headers(const ExplainArguments& arguments, Console& console,
                  std::vector<catalogue::HeaderField>& headers) {
  for (const std::string& line : arguments.headers) {
    std::size_t colon = line.find(':');
    if (colon == 0 || colon == std::string::npos) {
      print_error(console, fmt::format("--header \"{}\": write 'Name: value'", line));
      return false;
    }
    headers.push_back(
        {std::string_view(line).substr(0, colon), trim(std::string_view(line).substr(colon + 1))});
  }
  return true;
}

// Gives every product an extra pattern, so that a user can be said to hold it without knowing its licence
// names.
bool read_user(const ExplainArguments& arguments, Console& console, licence::Rulebook& rulebook,
               Answer& answer) {
  identity::Principal& user = answer.user;
  user.user = arguments.user.empty() ? "explain" : arguments.user;
  user.tenant = arguments.tenant;
  user.organization = arguments.organization;
  for (const auto& [option, text] :
       {std::pair{"--account", &arguments.account}, std::pair{"--owner", &arguments.owner}})
    if (!text->empty() && !is_guid(*text)) {
      print_error(console, fmt::format("{} \"{}\": the id of an account is a GUID", option, *text));
      return false;
    }
  user.account = read_guid(arguments.account).value_or("");
  user.user_type = arguments.user_type == "staff" ? identity::UserType::staff : identity::UserType::portal;
  user.licenses = arguments.licenses;
  bool& everything = answer.everything;
  everything = arguments.licenses.empty() && arguments.products.empty() && !arguments.no_license;
  std::vector<std::string_view> known;
  for (licence::Product& product : rulebook.products) {
    product.name_patterns.push_back(fmt::format("^{}$", name_for_product(product.id)));
    if (everything) user.licenses.push_back(name_for_product(product.id));
  }
  for (const licence::Product& product : rulebook.products) known.push_back(product.id);
  for (const std::string& product : arguments.products) {
    if (std::find(known.begin(), known.end(), product) == known.end()) {
      print_error(console, fmt::format("--product: \"{}\" is not known{}", product,
                                       config::did_you_mean(product, known)));
      return false;
    }
    user.licenses.push_back(name_for_product(product));
  }
  return true;
}

// Everything but the keys that tokens are verified with: no token is looked at.
Result<std::shared_ptr<const flow::Snapshot>> snapshot_of(const config::LoadedConfig& loaded,
                                                          licence::Rulebook rulebook) {
  config::Settings settings = loaded.settings;
  settings.identity.jwt.clear();
  auto directory = load_directory(loaded, kept_crm_users(loaded));
  if (!directory) return std::unexpected(directory.error());
  auto schema = config::make_schema(rulebook, settings.catalogue.uids, settings.catalogue.processes);
  return flow::make_snapshot({.settings = std::move(settings),
                              .rulebook = std::move(rulebook),
                              .schema = std::move(schema),
                              .directory = *std::move(directory),
                              .key_rings = {}});
}

// Which route it takes, and what the upstream is asked for where that rewrites the path. A path that no server would take
// has none (the classifier says why).
void find_way(const flow::Snapshot& snapshot, const ExplainArguments& arguments,
              std::span<const catalogue::HeaderField> headers, Answer& answer) {
  const auto path = catalogue::normalise(arguments.target);
  std::string_view host;
  for (const catalogue::HeaderField& header : headers)
    if (equals_ignore_case(header.name, "host")) host = header.value;
  answer.route = flow::find_route(snapshot.settings, host, path ? path->path : arguments.target);
  if (!path || answer.route == nullptr || !flow::rewrites(*answer.route)) return;
  const std::size_t query = std::min(arguments.target.find('?'), arguments.target.size());
  answer.upstream_target =
      flow::rewritten_path(*answer.route, std::string_view(arguments.target).substr(0, query), *path) +
      arguments.target.substr(query);
}

void apply_directory(const flow::Snapshot& snapshot, const ExplainArguments& arguments, Answer& answer) {
  if (snapshot.directory == nullptr || arguments.user.empty()) return;
  const bool listed = snapshot.directory->find(answer.user.user) != nullptr;
  answer.listed = listed ? "in_directory" : "not_in_directory";
  answer.everything = answer.everything && !listed;
  answer.user = snapshot.directory->apply(std::move(answer.user));
}

// As flow::Gate decides, for a call whose token is in order.
void decide(const flow::Snapshot& snapshot, const catalogue::Request& request,
            const std::optional<std::string>& owner, Answer& answer) {
  const licence::Policy& policy = snapshot.policy;
  const identity::Principal& user = answer.user;
  answer.body_needed = snapshot.classifier.body_need(request) == catalogue::BodyNeed::whole;
  answer.seen = snapshot.classifier.classify(request);
  answer.holding = policy.holding(user);
  for (const catalogue::ObjectUse& use : answer.seen.uses) answer.resolved.push_back(policy.resolve(use));
  if (answer.route == nullptr) {
    answer.reason = Reason::not_found;
    answer.detail = "No route leads from this host and path to a CRM";
    return;
  }
  if (!answer.route->metered) return;
  if (answer.seen.kind == catalogue::Kind::reject) {
    answer.reason = answer.seen.unsupported_media ? Reason::unsupported_media_type : Reason::bad_request;
    answer.detail = answer.seen.reject_detail;
    return;
  }
  if (answer.seen.kind == catalogue::Kind::unknown && !snapshot.settings.catalogue.allow_unknown &&
      !user.is_staff()) {
    answer.reason = Reason::section_not_licensed;
    answer.detail = "It cannot be told from this request what it touches (catalogue.allow_unknown is false)";
    return;
  }
  if (policy.rulebook().asks_owners)
    for (const catalogue::ObjectUse& use : answer.seen.uses)
      answer.owners.push_back(licence::owner_for(user, use, owner));
  answer.decision = policy.decide(user, answer.seen, {}, answer.owners);
  answer.reason = answer.decision.reason;
  answer.detail = answer.decision.detail;
  if (answer.reason != Reason::ok) return;
  std::uint64_t pools = answer.decision.metered && !user.is_staff() ? snapshot.concurrent_pool : 0;
  for (std::size_t i = 0; i < snapshot.pool_of_product.size(); ++i)
    if (answer.decision.metered && !user.is_staff() && (answer.decision.seat_products >> i & 1) != 0)
      pools |= snapshot.pool_of_product[i];
  for (std::size_t i = 0; i < snapshot.seat_pools.size(); ++i)
    if ((pools >> i & 1) != 0) answer.seats.push_back(&snapshot.seat_pools[i]);
  if (answer.seen.portal != nullptr && answer.seen.portal->way == catalogue::PortalChange::Way::add &&
      snapshot.portal_pool != nullptr)
    answer.seats.push_back(snapshot.portal_pool);
  std::vector<quota::CountedOperation> operations;
  for (const licence::Unit& unit : answer.decision.units)
    operations.push_back(
        {.object = unit.object, .operation = catalogue::name(unit.operation), .product = unit.product});
  answer.charges = snapshot.rules.charges({.tenant = user.tenant,
                                           .organization = user.organization,
                                           .user = user.user,
                                           .staff = user.is_staff(),
                                           .credits = answer.seen.credits},
                                          operations);
  answer.quotas_reached = true;
}

std::string_view type_of(const identity::Principal& user) {
  return user.is_staff() ? "staff" : "portal";
}

// Why a rule charges nothing.
std::string_view why_not(const quota::Rule& rule, const Answer& answer) {
  if (answer.user.is_staff() && !rule.applies_to_staff) return "does not bind staff";
  if (rule.on == quota::Scope::credits) return "costs no credits";
  return "no licensed operation";
}

template <class Each>
void each_charge(const Answer& answer, std::uint32_t rule, Each&& body) {
  for (const quota::AccountCharge& charge : answer.charges)
    if (charge.rule == rule) body(charge);
}

std::string_view scope_name(quota::Scope scope) {
  return scope == quota::Scope::all ? "all" : scope == quota::Scope::credits ? "credits" : "licensed";
}

// The products of a set, as ids.
std::vector<std::string_view> ids_of(const licence::Rulebook& rulebook, std::uint32_t products) {
  std::vector<std::string_view> ids;
  for (std::size_t i = 0; i < rulebook.products.size(); ++i)
    if ((products >> i & 1) != 0) ids.push_back(rulebook.products[i].id);
  return ids;
}

std::vector<std::string_view> names_of(licence::Rights rights) {
  using catalogue::Operation;
  std::vector<std::string_view> names;
  for (Operation operation : {Operation::read, Operation::create, Operation::edit, Operation::remove})
    if ((rights & licence::right(operation)) != 0) names.push_back(catalogue::name(operation));
  return names;
}

// The row of the licence's table that a use is judged by: each product that counts, and what it grants in the section.
template <class Each>
void each_grant(const licence::Policy& policy, const Answer& answer, std::string_view section, Each&& body) {
  const auto& products = policy.rulebook().products;
  for (std::size_t i = 0; i < products.size(); ++i)
    if ((answer.holding.available >> i & 1) != 0)
      body(products[i].id, names_of(policy.rights_in(products[i], section)));
}

std::string_view name(licence::Owner owner) {
  return owner == licence::Owner::own ? "own" : owner == licence::Owner::other ? "other" : "unknown";
}

// Column of the owner, of a section of one's own organization only; "" of others.
std::string_view owner_column(const licence::Rulebook& rulebook, std::string_view section) {
  const auto found = std::ranges::find(rulebook.sections, section, &licence::Section::id);
  return found == rulebook.sections.end() ? std::string_view() : found->own_organization;
}

std::string part_name(const catalogue::ObjectUse& use) {
  return use.in_batch ? fmt::format("batch[{}]", use.part) : "";
}

void write_list(JsonWriter& json, std::string_view key, const auto& values) {
  json.field_array(key, [&] {
    for (const auto& value : values) json.value(value);
  });
}

void write_identity(JsonWriter& json, const Answer& answer) {
  json.field_object("identity", [&] {
    json.field("user", answer.user.user);
    json.field("tenant", answer.user.tenant);
    json.field("organization", answer.user.organization);
    json.field("account", answer.user.account);
    json.field("user_type", type_of(answer.user));
    json.field("directory", answer.listed);
    json.field("every_product", answer.everything);
    if (!answer.everything) write_list(json, "licenses", answer.user.licenses);
  });
}

void write_licence(JsonWriter& json, const flow::Snapshot& snapshot, const Answer& answer) {
  const licence::Rulebook& rulebook = snapshot.policy.rulebook();
  json.field_object("licence", [&] {
    json.field("system", rulebook.system);
    json.field("edition", rulebook.edition);
    write_list(json, "products", ids_of(rulebook, answer.holding.named));
    write_list(json, "available", ids_of(rulebook, answer.holding.available));
    json.field_array("rows", [&] {
      for (const licence::ResolvedUse& use : answer.resolved) {
        if (use.section.empty()) continue;
        json.object([&] {
          json.field("section", use.section);
          json.field("operation", catalogue::name(use.section_operation));
          if (const std::string_view column = owner_column(rulebook, use.section); !column.empty())
            json.field_object("own_organization", [&] {
              json.field("column", column);
              json.field("enforced_by", rulebook.asks_owners ? "proxy" : "crm");
            });
          json.field_object("grants", [&] {
            each_grant(snapshot.policy, answer, use.section,
                       [&](const std::string& id, const auto& names) { write_list(json, id, names); });
          });
        });
      }
    });
  });
}

void write_quotas(JsonWriter& json, const flow::Snapshot& snapshot, const Answer& answer) {
  json.field_array("quotas", [&] {
    if (!answer.quotas_reached) return;
    const auto& rules = snapshot.rules.rules();
    for (std::uint32_t i = 0; i < rules.size(); ++i) {
      bool charged = false;
      each_charge(answer, i, [&](const quota::AccountCharge& charge) {
        charged = true;
        json.object([&] {
          json.field("rule", rules[i].name);
          json.field("on", scope_name(rules[i].on));
          json.field("mode", rules[i].shadow ? "shadow" : "enforce");
          json.field("account", charge.key.subject_key + " " + charge.key.field);
          json.field("units", charge.units);
          json.field("limit", charge.limit);
          json.field("window", std::chrono::duration_cast<Seconds>(charge.window).count());
        });
      });
      if (!charged)
        json.object([&] {
          json.field("rule", rules[i].name);
          json.field("units", 0);
          json.field("why", why_not(rules[i], answer));
        });
    }
  });
}

void print_json(const ExplainArguments& arguments, const flow::Snapshot& snapshot, const Answer& answer,
                Console& console) {
  std::string out;
  JsonWriter json(out);
  json.object([&] {
    json.field("method", arguments.method);
    json.field("target", arguments.target);
    if (!answer.upstream_target.empty()) json.field("upstream_target", answer.upstream_target);
    json.field("user_type", type_of(answer.user));
    if (answer.route != nullptr)
      json.field_object("route", [&] {
        json.field("host", answer.route->host);
        json.field("path_prefix", answer.route->path_prefix);
        json.field("upstream", answer.route->upstream);
        json.field("metered", answer.route->metered);
      });
    write_identity(json, answer);
    json.field("kind", catalogue::name(answer.seen.kind));
    json.field("body_needed", answer.body_needed);
    json.field_array("uses", [&] {
      for (std::size_t i = 0; i < answer.seen.uses.size(); ++i) {
        const catalogue::ObjectUse& use = answer.seen.uses[i];
        const licence::ResolvedUse& resolved = answer.resolved[i];
        json.object([&] {
          json.field("object", use.object);
          json.field("operation", catalogue::name(use.operation));
          json.field("via", catalogue::name(use.via));
          json.field("section", resolved.section);
          json.field("role", name(resolved.role));
          if (!resolved.section.empty())
            json.field("section_operation", catalogue::name(resolved.section_operation));
          if (!use.record.empty()) json.field("record", use.record);
          if (!use.record.empty() && !answer.owners.empty()) json.field("owner", name(answer.owners[i]));
          if (use.in_batch) json.field("part", use.part);
        });
      }
    });
    write_licence(json, snapshot, answer);
    json.field("decision", answer.reason == Reason::ok ? "allow" : "deny");
    json.field("reason", code(answer.reason));
    json.field("status", info(answer.reason).status);
    json.field("detail", answer.detail);
    json.field("counted", answer.seen.counted);
    json.field("units", answer.units());
    json.field_array("operations", [&] {
      for (const licence::Unit& unit : answer.decision.units)
        json.object([&] {
          json.field("object", unit.object);
          json.field("operation", catalogue::name(unit.operation));
          json.field("section", unit.section);
          json.field("product", unit.product);
        });
    });
    json.field_array("seats", [&] {
      for (const flow::SeatPool* pool : answer.seats)
        json.object([&] {
          json.field("pool", pool->pool.id);
          json.field("kind", seats::name(pool->pool.kind));
          json.field("capacity", pool->pool.capacity);
        });
    });
    write_quotas(json, snapshot, answer);
  });
  console.out << out << '\n';
}

std::string or_none(const auto& list) {
  return list.empty() ? "none" : fmt::format("{}", fmt::join(list, ", "));
}

std::string_view owner_text(licence::Owner owner, const identity::Principal& user) {
  if (owner == licence::Owner::own) return "the user's own organization's";
  if (user.account.empty()) return "not known to be the user's: his account is not known";
  return owner == licence::Owner::other ? "another organization's" : "not asked here whose it is (--owner)";
}

std::string caller_text(const Answer& answer) {
  const identity::Principal& user = answer.user;
  std::string text = fmt::format("{} ({})", user.user, type_of(user));
  if (!user.tenant.empty()) text += fmt::format(", tenant {}", user.tenant);
  if (!user.organization.empty()) text += fmt::format(", organization {}", user.organization);
  if (!user.account.empty()) text += fmt::format(", account {}", user.account);
  if (std::string_view(answer.listed) == "in_directory") text += ", as the directory says";
  if (std::string_view(answer.listed) == "not_in_directory") text += ", not in the directory";
  return text;
}

void print_licence(const flow::Snapshot& snapshot, const Answer& answer, Console& console) {
  const licence::Rulebook& rulebook = snapshot.policy.rulebook();
  std::string licences = answer.everything ? "every product" : or_none(answer.user.licenses);
  console.out << fmt::format("licence   {}{}{}: {}\n", rulebook.system, rulebook.edition.empty() ? "" : ", ",
                             rulebook.edition, licences);
  if (rulebook.system == "none" || answer.user.is_staff()) return;
  console.out << fmt::format("          products: {}; available with the main products: {}\n",
                             or_none(ids_of(rulebook, answer.holding.named)),
                             or_none(ids_of(rulebook, answer.holding.available)));
  for (const licence::ResolvedUse& use : answer.resolved) {
    if (use.section.empty()) continue;
    console.out << fmt::format("          {} on {}:", catalogue::name(use.section_operation), use.section);
    each_grant(snapshot.policy, answer, use.section, [&](const std::string& id, const auto& names) {
      console.out << fmt::format(" {} grants {};", id, or_none(names));
    });
    console.out << '\n';
    if (const std::string_view column = owner_column(rulebook, use.section); !column.empty())
      console.out << fmt::format(
          "          {}: records of the user's own organization only ({}), {}\n", use.section, column,
          rulebook.asks_owners ? "single ones by the proxy, lists by the CRM"
                               : "left to the CRM: licensing.creatio.lookup has no url");
  }
  for (std::size_t i = 0; i < answer.owners.size(); ++i)
    if (const std::string& record = answer.seen.uses[i].record; !record.empty())
      console.out << fmt::format("          {}: {}\n", record, owner_text(answer.owners[i], answer.user));
}

void print_quotas(const flow::Snapshot& snapshot, const Answer& answer, Console& console) {
  const auto& rules = snapshot.rules.rules();
  for (std::uint32_t i = 0; i < rules.size(); ++i) {
    bool charged = false;
    each_charge(answer, i, [&](const quota::AccountCharge& charge) {
      charged = true;
      console.out << fmt::format(
          "quota     {}: {} of {} in {} s, account {} {}{}\n", rules[i].name, charge.units, charge.limit,
          std::chrono::duration_cast<Seconds>(charge.window).count(), charge.key.subject_key,
          charge.key.field, rules[i].shadow ? " (shadow: refuses nothing)" : "");
    });
    if (!charged)
      console.out << fmt::format("quota     {}: nothing, {}\n", rules[i].name, why_not(rules[i], answer));
  }
}

// What the rules say one after the other, as far as they are asked.
void print_steps(const flow::Snapshot& snapshot, const Answer& answer, Console& console) {
  auto& out = console.out;
  if (answer.route == nullptr) {
    out << "route     none\n";
    return;
  }
  out << fmt::format("route     {}{} -> {}{}\n", answer.route->host, answer.route->path_prefix,
                     answer.route->upstream,
                     answer.route->metered ? "" : ", not metered: passed on as it is");
  if (!answer.route->metered) return;
  out << fmt::format("caller    {}\n", caller_text(answer));
  print_licence(snapshot, answer, console);
  if (!answer.quotas_reached) {
    out << "seats     not looked at\nquota     not looked at\n";
    return;
  }
  if (answer.seats.empty()) out << "seats     none needed\n";
  for (const flow::SeatPool* pool : answer.seats)
    out << fmt::format("seats     one of {} ({}, {})\n", pool->pool.capacity, pool->pool.id,
                       seats::name(pool->pool.kind));
  print_quotas(snapshot, answer, console);
}

void print_text(const ExplainArguments& arguments, const flow::Snapshot& snapshot, const Answer& answer,
                Console& console) {
  auto& out = console.out;
  out << fmt::format("{} {}\n", arguments.method, arguments.target);
  if (!answer.upstream_target.empty()) out << fmt::format("rewritten {}\n", answer.upstream_target);
  out << fmt::format("kind      {}{}\n", catalogue::name(answer.seen.kind),
                     answer.body_needed ? " (told from the body)" : "");
  if (answer.reason == Reason::ok)
    out << fmt::format("decision  allow, {} unit{}\n", answer.units(), answer.units() == 1 ? "" : "s");
  else
    out << fmt::format("decision  deny: {} ({})\n          {}\n", code(answer.reason),
                       info(answer.reason).status, answer.detail);
  print_steps(snapshot, answer, console);
  if (answer.seen.uses.empty()) return;
  out << '\n';
  std::vector<std::vector<std::string>> rows{{"OBJECT", "OPERATION", "VIA", "SECTION", "ROLE", "PART"}};
  for (std::size_t i = 0; i < answer.seen.uses.size(); ++i) {
    const catalogue::ObjectUse& use = answer.seen.uses[i];
    rows.push_back({use.object, std::string(catalogue::name(use.operation)),
                    std::string(catalogue::name(use.via)), answer.resolved[i].section,
                    std::string(name(answer.resolved[i].role)), part_name(use)});
  }
  print_table(out, rows);
}

}  // namespace

int run_explain(const ExplainArguments& arguments, Console& console) {
  std::vector<catalogue::HeaderField> headers;
  if (!read_headers(arguments, console, headers)) return kExitUsage;
  if (!arguments.target.starts_with('/')) {
    print_error(console, fmt::format("\"{}\": the path begins with /, host and scheme are left out",
                                     arguments.target));
    return kExitUsage;
  }
  auto body = read_body(arguments, console);
  if (!body) return kExitUsage;
  auto loaded = load_config(console, arguments.config_file);
  if (!loaded) return kExitConfig;
  auto rulebook = load_rulebook(*loaded);
  if (!rulebook) {
    print_error(console, rulebook.error().message);
    return kExitConfig;
  }
  Answer answer;
  if (!read_user(arguments, console, *rulebook, answer)) return kExitUsage;
  auto snapshot = snapshot_of(*loaded, std::move(*rulebook));
  if (!snapshot) {
    print_error(console, snapshot.error().message);
    return kExitConfig;
  }
  apply_directory(**snapshot, arguments, answer);
  find_way(**snapshot, arguments, headers, answer);
  decide(**snapshot,
         {.method = arguments.method,
          .target = answer.upstream_target.empty() ? arguments.target : answer.upstream_target,
          .headers = headers,
          .body = *body},
         read_guid(arguments.owner), answer);
  if (arguments.format == Format::json)
    print_json(arguments, **snapshot, answer, console);
  else
    print_text(arguments, **snapshot, answer, console);
  return kExitOk;
}

}  // namespace tollgate::cli
