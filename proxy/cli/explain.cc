#include "proxy/cli/explain.h"

#include <fmt/format.h>

#include <fstream>
#include <iostream>
#include <iterator>

#include "config/load/rulebook.h"
#include "config/suggest.h"
#include "metering/base/json_text.h"
#include "metering/catalogue/classifier.h"
#include "metering/licence/policy.h"
#include "proxy/cli/assembly.h"
#include "proxy/flow/rewrite.h"
#include "proxy/flow/snapshot.h"

namespace tollgate::cli {
namespace {

using catalogue::Classification;

struct Answer {
  std::string upstream_target;  // where a route rewrites the path; else ""
  Classification seen;
  bool body_needed = false;
  Reason reason = Reason::ok;
  std::string detail;
  licence::Decision decision;
  std::vector<licence::ResolvedUse> resolved;  // in the order of seen.uses
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

std::vector<catalogue::Dialect> dialects_of(const config::Settings& settings) {
  std::vector<catalogue::Dialect> dialects;
  for (const std::string& text : settings.catalogue.dialects) {
    if (text == "creatio") dialects.push_back(catalogue::Dialect::creatio);
    if (text == "zoho") dialects.push_back(catalogue::Dialect::zoho);
    if (text == "cherwell") dialects.push_back(catalogue::Dialect::cherwell);
    if (text == "rest") dialects.push_back(catalogue::Dialect::rest);
  }
  return dialects;
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
               identity::Principal& user) {
  user.user = "explain";
  user.user_type = arguments.user_type == "staff" ? identity::UserType::staff : identity::UserType::portal;
  user.licenses = arguments.licenses;
  bool everything = arguments.licenses.empty() && arguments.products.empty() && !arguments.no_license;
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

// What the upstream is asked for, where a route rewrites the path; "" where it is asked for what was sent, and for what
// no server would take (the classifier says why).
std::string upstream_target(const config::Settings& settings, const ExplainArguments& arguments,
                            std::span<const catalogue::HeaderField> headers) {
  const auto path = catalogue::normalise(arguments.target);
  if (!path) return "";
  std::string_view host;
  for (const catalogue::HeaderField& header : headers)
    if (equals_ignore_case(header.name, "host")) host = header.value;
  const config::Route* route = flow::find_route(settings, host, path->path);
  if (route == nullptr || !flow::rewrites(*route)) return "";
  const std::size_t query = std::min(arguments.target.find('?'), arguments.target.size());
  return flow::rewritten_path(*route, std::string_view(arguments.target).substr(0, query), *path) +
         arguments.target.substr(query);
}

// As flow::Gate decides, for a call whose token is in order.
Answer decide(const catalogue::Classifier& classifier, const licence::Policy& policy,
              const config::Settings& settings, const identity::Principal& user,
              const catalogue::Request& request) {
  Answer answer;
  answer.body_needed = classifier.body_need(request) == catalogue::BodyNeed::whole;
  answer.seen = classifier.classify(request);
  for (const catalogue::ObjectUse& use : answer.seen.uses) answer.resolved.push_back(policy.resolve(use));
  if (answer.seen.kind == catalogue::Kind::reject) {
    answer.reason = answer.seen.unsupported_media ? Reason::unsupported_media_type : Reason::bad_request;
    answer.detail = answer.seen.reject_detail;
    return answer;
  }
  if (answer.seen.kind == catalogue::Kind::unknown && !settings.catalogue.allow_unknown && !user.is_staff()) {
    answer.reason = Reason::section_not_licensed;
    answer.detail = "It cannot be told from this request what it touches (catalogue.allow_unknown is false)";
    return answer;
  }
  answer.decision = policy.decide(user, answer.seen);
  answer.reason = answer.decision.reason;
  answer.detail = answer.decision.detail;
  return answer;
}

std::string part_name(const catalogue::ObjectUse& use) {
  return use.in_batch ? fmt::format("batch[{}]", use.part) : "";
}

void print_json(const ExplainArguments& arguments, const Answer& answer, Console& console) {
  std::string out;
  JsonWriter json(out);
  json.object([&] {
    json.field("method", arguments.method);
    json.field("target", arguments.target);
    if (!answer.upstream_target.empty()) json.field("upstream_target", answer.upstream_target);
    json.field("user_type", arguments.user_type);
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
          if (use.in_batch) json.field("part", use.part);
        });
      }
    });
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
  });
  console.out << out << '\n';
}

void print_text(const ExplainArguments& arguments, const Answer& answer, Console& console) {
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
  const config::Settings& settings = loaded->settings;
  identity::Principal user;
  if (!read_user(arguments, console, *rulebook, user)) return kExitUsage;
  auto schema = config::make_schema(*rulebook, settings.catalogue.uids, settings.catalogue.processes);
  catalogue::Classifier classifier({.dialects = dialects_of(settings)}, std::move(schema));
  licence::Policy policy(std::make_shared<const licence::Rulebook>(std::move(*rulebook)));
  const std::string rewritten = upstream_target(settings, arguments, headers);
  Answer answer = decide(classifier, policy, settings, user,
                         {.method = arguments.method,
                          .target = rewritten.empty() ? arguments.target : rewritten,
                          .headers = headers,
                          .body = *body});
  answer.upstream_target = rewritten;
  if (arguments.format == Format::json)
    print_json(arguments, answer, console);
  else
    print_text(arguments, answer, console);
  return kExitOk;
}

}  // namespace tollgate::cli
