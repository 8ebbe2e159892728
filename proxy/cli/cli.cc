#include "proxy/cli/cli.h"

#include <fmt/format.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include <chrono>
#include <iostream>
#include <sstream>

#include "config/suggest.h"
#include "proxy/cli/check.h"
#include "proxy/cli/directory.h"
#include "proxy/cli/doctor.h"
#include "proxy/cli/explain.h"
#include "proxy/cli/export.h"
#include "proxy/cli/key.h"
#include "proxy/cli/license.h"
#include "proxy/cli/quota.h"
#include "proxy/cli/schema.h"
#include "proxy/cli/token.h"
#include "proxy/cli/trace.h"
#include "proxy/cli/usage.h"
#include "proxy/cli/version.h"

namespace tollgate::cli {
namespace {

constexpr std::string_view kOverview =
    "Tollgate: a reverse proxy that authenticates, licenses, meters and limits calls to a CRM's portal "
    "APIs.\n\n"
    "Examples:\n"
    "  tollgate check -c tollgate.yaml          every mistake of a configuration\n"
    "  tollgate serve -c tollgate.yaml          run the proxy\n"
    "  tollgate explain GET '/0/odata/Case'     what a request touches and costs\n";

// Holds the arguments that CLI11 fills, and the code of the command that was run.
class CommandLine {
 public:
  CommandLine(Console& console, const Serve& serve) : console_(console), serve_(serve) {
    app_.require_subcommand(1);
    app_.set_version_flag("--version", version_line());
    app_.get_formatter()->column_width(34);
    add_serve();
    add_check();
    add_schema();
    add_doctor();
    add_token();
    add_key();
    add_usage();
    add_quota();
    add_license();
    add_directory();
    add_trace();
    add_explain();
    add_export();
    add_version();
  }

  int run(std::vector<std::string> arguments) {
    if (std::string wrong = unknown_command(arguments); !wrong.empty()) {
      print_error(console_,
                  fmt::format("unknown command \"{}\"{}", wrong, config::did_you_mean(wrong, names())));
      console_.err << "Run `tollgate -h` for the list.\n";
      return kExitUsage;
    }
    if (arguments.empty()) {
      console_.err << app_.help();
      return kExitUsage;
    }
    std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back
    try {
      app_.parse(std::move(arguments));
    } catch (const CLI::Success& e) {  // -h, --version
      app_.exit(e, console_.out, console_.err);
      return kExitOk;
    } catch (const CLI::ParseError& e) {
      print_error(console_, std::string(e.what()) + hint(e));
      console_.err << fmt::format("Run `tollgate {}-h` for help.\n",
                                  chosen() == nullptr ? "" : chosen()->get_name() + " ");
      return kExitUsage;
    }
    return action_ ? action_() : kExitUsage;
  }

 private:
  CLI::App* command(const std::string& name, std::string_view about, std::string_view examples) {
    CLI::App* sub = app_.add_subcommand(name, fmt::format("{}\n\nExamples:\n{}", about, examples));
    return sub;
  }
  static void add_config(CLI::App* sub, std::string& file) {
    sub->add_option("-c,--config", file, "configuration file (- is standard input)")->capture_default_str();
  }
  static void add_format(CLI::App* sub, Format& format) {
    sub->add_option("-o,--output", format, "table or json")
        ->transform(CLI::CheckedTransformer(
            std::map<std::string, Format>{{"table", Format::table}, {"json", Format::json}}))
        ->type_name("table|json");
  }
  static void add_admin(CLI::App* sub, AdminArguments& admin) {
    add_config(sub, admin.config_file);
    sub->add_option("--admin", admin.url,
                    "admin port, http://127.0.0.1:9901 (default: from the configuration)");
    sub->add_option("--token-file", admin.token_file,
                    "file with the admin token (default: from the configuration)");
  }

  void add_serve() {
    CLI::App* sub =
        command("serve",
                "Run the proxy. Signals: TERM and INT drain and stop, HUP reloads, USR1 reopens logs, "
                "USR2 lets the installed version take over without losing a request.",
                "  tollgate serve -c /etc/tollgate/tollgate.yaml\n");
    add_config(sub, serve_arguments_.config_file);
    sub->callback([this] { action_ = [this] { return serve_(serve_arguments_); }; });
  }
  void add_check() {
    CLI::App* sub =
        command("check", "Show every mistake of a configuration at once. Exit code 0 or 78.",
                "  tollgate check -c tollgate.yaml\n"
                "  tollgate check -c tollgate.yaml --dump    every key, its value and where it comes from\n");
    add_config(sub, check_.config_file);
    sub->add_flag("--dump", check_.dump, "print the settings in force, secrets hidden");
    add_format(sub, check_.format);
    sub->callback([this] { action_ = [this] { return run_check(check_, console_); }; });
  }
  void add_schema() {
    CLI::App* sub =
        command("schema", "Print the JSON Schema of the configuration, for editors and pipelines.",
                "  tollgate schema > tollgate.schema.json\n");
    sub->add_flag("--markdown", schema_.markdown, "the manual of every key instead");
    sub->callback([this] { action_ = [this] { return run_schema(schema_, console_); }; });
  }
  void add_doctor() {
    CLI::App* sub = command(
        "doctor",
        "Examine versions, limits, files, ports, clock, store and the running proxy, and say what to do.",
        "  tollgate doctor -c tollgate.yaml\n");
    add_config(sub, doctor_.config_file);
    add_format(sub, doctor_.format);
    sub->callback([this] { action_ = [this] { return run_doctor(doctor_, console_); }; });
  }
  void add_token() {
    CLI::App* sub =
        command("token", "Mint a development token with the secret_file of the configuration.",
                "  tollgate token -c demo.yaml --user ann --type portal --license 'Customer portal cloud'\n"
                "  curl -H \"Authorization: Bearer $(tollgate token --user ann)\" http://127.0.0.1:8080/\n");
    add_config(sub, token_.config_file);
    sub->add_option("--user", token_.user, "name of the user")->required();
    sub->add_option("--tenant", token_.tenant, "tenant");
    sub->add_option("--org,--organization", token_.organization, "organization");
    sub->add_option("--type", token_.user_type, "portal or staff; left out when not given")
        ->check(CLI::IsMember({"portal", "staff"}));
    sub->add_option("--license", token_.licenses, "licence name as the CRM spells it; may be repeated")
        ->expected(1)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    sub->add_option("--expires", token_.expires, "lifetime from now")->capture_default_str();
    sub->add_flag("--expired", token_.expired, "a token that has expired already");
    sub->add_option("--issuer", token_.issuer,
                    "which issuer of identity.jwt (default: the first with a secret_file)");
    add_format(sub, token_.format);
    sub->callback([this] { action_ = [this] { return run_token(token_, console_); }; });
  }
  void add_key() {
    CLI::App* sub = command("key", "API keys: make one, or hash one that exists, for identity.api_keys.file.",
                            "  tollgate key create --user billing@acme.example --type portal --expires 90d\n"
                            "  tollgate key hash < key.txt\n");
    sub->require_subcommand(1);
    CLI::App* create = sub->add_subcommand(
        "create",
        "Print a new key, once, and under it the row for the file. The proxy knows it after a reload.\n\n"
        "Examples:\n"
        "  tollgate key create --user robot --license 'Customer portal cloud' -o json\n");
    add_config(create, key_.config_file);
    create->add_option("--user", key_.user, "name of the user")->required();
    create->add_option("--tenant", key_.tenant, "tenant");
    create->add_option("--org,--organization", key_.organization, "organization");
    create->add_option("--type", key_.user_type, "portal or staff; left out when not given")
        ->check(CLI::IsMember({"portal", "staff"}));
    create->add_option("--license", key_.licenses, "licence name as the CRM spells it; may be repeated")
        ->expected(1)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    create->add_option("--expires", key_.expires, "lifetime from now: 90d (default: none)");
    add_format(create, key_.format);
    create->callback([this] { action_ = [this] { return run_key_create(key_, console_); }; });
    CLI::App* hash = sub->add_subcommand("hash",
                                         "Print the hash of a key that is read from standard input.\n\n"
                                         "Examples:\n  tollgate key hash -c tollgate.yaml < key.txt\n");
    add_config(hash, key_.config_file);
    hash->callback([this] { action_ = [this] { return run_key_hash(key_, std::cin, console_); }; });
  }
  void add_usage() {
    CLI::App* sub = command(
        "usage", "What a user has called in the current windows. Asks the admin port of a running proxy.",
        "  tollgate usage ann\n  tollgate usage ann --tenant acme -o json\n");
    sub->add_option("user", usage_.user, "name of the user")->required();
    sub->add_option("--tenant", usage_.tenant, "tenant");
    sub->add_option("--org,--organization", usage_.organization, "organization, for rules per organization");
    add_admin(sub, usage_.admin);
    add_format(sub, usage_.format);
    sub->callback([this] { action_ = [this] { return run_usage(usage_, console_); }; });
  }
  // A command of a command.
  template <class Action>
  struct Verb {
    const char *name, *about, *example;
    Action action;
  };
  template <class Action>
  static CLI::App* add_verb(CLI::App* command, const Verb<Action>& verb) {
    return command->add_subcommand(verb.name, fmt::format("{}\n\nExamples:\n{}", verb.about, verb.example));
  }
  void add_quota() {
    CLI::App* sub =
        command("quota", "Look at a user's limits, override one, grant more calls for a while, or go back.",
                "  tollgate quota get ann\n"
                "  tollgate quota set ann --rule daily --limit 5000 --reason 'contract 7'\n"
                "  tollgate quota grant ann --rule daily --extra 200 --for 24h --reason 'month-end'\n"
                "  tollgate quota reset ann --rule daily               back to the configured limit\n"
                "  tollgate quota reset ann --rule daily --grants      without the temporary grants\n"
                "  tollgate quota reset ann --rule daily --counted     forget what was counted\n");
    sub->require_subcommand(1);
    using Action = QuotaArguments::Action;
    for (const Verb<Action>& kind :
         {Verb<Action>{
              "get", "Limits, grants and counts of a user.",
              "  tollgate quota get ann\n  tollgate quota get ann --tenant acme --rule daily -o json\n",
              Action::get},
          Verb{"set", "Override a limit from the next call on; grants stay.",
               "  tollgate quota set ann --rule daily --limit 5000 --reason 'contract 7'\n"
               "  tollgate quota set ann --rule daily --unlimited\n",
               Action::set},
          Verb{"grant", "Add calls to a limit until a moment; the limit stays.",
               "  tollgate quota grant ann --rule daily --extra 200 --for 24h --reason 'month-end'\n"
               "  tollgate quota grant ann --rule daily --extra 50 --until 2026-11-23T18:00:00Z --reason "
               "'ticket 4711'\n",
               Action::grant},
          Verb{"reset", "Go back to the configured limit; or take grants away; or forget what was counted.",
               "  tollgate quota reset ann --rule daily\n  tollgate quota reset ann --rule daily --counted\n",
               Action::reset}}) {
      CLI::App* verb = add_verb(sub, kind);
      add_quota_options(verb, kind.action);
      verb->callback([this, action = kind.action] {
        quota_.action = action;
        action_ = [this] { return run_quota(quota_, console_); };
      });
    }
  }
  void add_license() {
    CLI::App* sub = command("license", "Portal products and their seats: who holds them, free one, give one.",
                            "  tollgate license list\n"
                            "  tollgate license seats --pool self_service -o json\n"
                            "  tollgate license release ann --reason 'left the company'\n"
                            "  tollgate license assign bob --pool self_service\n"
                            "  tollgate license assign --file users.csv --reason 'here before Tollgate'\n");
    sub->require_subcommand(1);
    using Action = LicenseArguments::Action;
    for (const Verb<Action>& kind :
         {Verb<Action>{"list", "Products, whether they are available, their seats and how many are taken.",
                       "  tollgate license list\n", Action::list},
          Verb{"seats", "Who holds seats, since or until when.",
               "  tollgate license seats\n  tollgate license seats --pool concurrent -o json\n",
               Action::seats},
          Verb{"release", "Free the seat of a user for somebody else, at once.",
               "  tollgate license release ann --tenant acme --reason 'left the company'\n", Action::release},
          Verb{"assign", "Give a user, or each user of a file, a named seat ahead of the first call.",
               "  tollgate license assign bob --pool self_service\n"
               "  tollgate license assign --file users.csv      columns: user, and perhaps tenant and pool\n",
               Action::assign}}) {
      CLI::App* verb = add_verb(sub, kind);
      const bool changes = kind.action == Action::release || kind.action == Action::assign;
      if (changes) {
        CLI::Option* user = verb->add_option("user", license_.user, "name of the user");
        if (kind.action == Action::assign) {
          verb->add_option("--file", license_.file,
                           "CSV with the column user, perhaps tenant and pool (- is standard input)")
              ->excludes(user);
          verb->require_option(1, 0);
        } else {
          user->required();
        }
        verb->add_option("--tenant", license_.tenant, "tenant");
        verb->add_option("--reason", license_.reason, "why, for the audit");
      }
      if (kind.action != Action::list)
        verb->add_option("--pool", license_.pool, "name of the pool, as `license list` shows it");
      add_admin(verb, license_.admin);
      if (!changes) add_format(verb, license_.format);
      verb->callback([this, action = kind.action] {
        license_.action = action;
        action_ = [this] { return run_license(license_, console_); };
      });
    }
  }
  void add_directory() {
    CLI::App* sub =
        command("directory", "Who the users are: what the directory file and the CRM say of them.",
                "  tollgate directory show\n"
                "  tollgate directory show ann\n"
                "  tollgate directory sync --reason 'ticket 4711'\n");
    sub->require_subcommand(1);
    using Action = DirectoryArguments::Action;
    for (const Verb<Action>& kind :
         {Verb<Action>{
              "show",
              "How many users file and CRM list, and how the last sync went; or what each says of one.",
              "  tollgate directory show\n  tollgate directory show ann -o json\n", Action::show},
          Verb{"sync", "Ask the CRM now who its users are (identity.directory.sync).",
               "  tollgate directory sync --reason 'ticket 4711'\n", Action::sync}}) {
      CLI::App* verb = add_verb(sub, kind);
      if (kind.action == Action::show)
        verb->add_option("user", directory_.user, "name of the user");
      else
        verb->add_option("--reason", directory_.reason, "why, for the audit");
      add_admin(verb, directory_.admin);
      add_format(verb, directory_.format);
      verb->callback([this, action = kind.action] {
        directory_.action = action;
        action_ = [this] { return run_directory(directory_, console_); };
      });
    }
  }
  void add_quota_options(CLI::App* verb, QuotaArguments::Action action) {
    using Action = QuotaArguments::Action;
    verb->add_option("user", quota_.user, "name of the user")->required();
    verb->add_option("--rule", quota_.rule, "name of the quota rule")->required(action != Action::get);
    verb->add_option("--tenant", quota_.tenant, "tenant");
    verb->add_option("--org,--organization", quota_.organization, "organization, for rules per organization");
    if (action == Action::set) {
      CLI::Option* limit =
          verb->add_option("--limit", quota_.limit, "calls a window")->check(CLI::NonNegativeNumber);
      verb->add_flag("--unlimited", quota_.unlimited, "count, but never refuse")->excludes(limit);
    }
    if (action == Action::grant) {
      verb->add_option("--extra", quota_.extra, "calls more")->required()->check(CLI::PositiveNumber);
      CLI::Option* span = verb->add_option("--for", quota_.duration, "how long from now: 24h, 7d, 1h30m");
      verb->add_option("--until", quota_.until, "until when: 2026-11-23T18:00:00Z")->excludes(span);
    }
    if (action == Action::reset) {
      CLI::Option* counted =
          verb->add_flag("--counted", quota_.counted, "forget what was counted instead; limits stay");
      verb->add_flag("--grants", quota_.grants, "take the temporary grants away instead; the limit stays")
          ->excludes(counted);
    }
    if (action != Action::get)
      verb->add_option("--reason", quota_.reason, "why, for the audit")->required(action == Action::grant);
    add_admin(verb, quota_.admin);
    add_format(verb, quota_.format);
  }
  void add_trace() {
    CLI::App* sub = command(
        "trace",
        "Follow requests of a running proxy: each step of their life becomes a line in its log, for a while. "
        "Without "
        "an option: what is followed now. A new trace ends the one before.",
        "  tollgate trace --user ann                           for 60 s, 1000 lines at most\n"
        "  tollgate trace --request-id 4711-abc --for 10m      the id that the caller sends in X-Request-Id\n"
        "  tollgate trace --user ann --tenant acme --for 1h --lines 20000\n"
        "  tollgate trace --stop\n");
    sub->add_option("--request-id", trace_.request_id, "X-Request-Id of the request");
    sub->add_option("--user", trace_.user, "name of the user");
    sub->add_option("--tenant", trace_.tenant, "tenant of the user (default: any)");
    sub->add_option("--for", trace_.duration, "how long: 60s, 10m; at most 1h (default: 60s)");
    sub->add_option("--lines", trace_.lines, "lines at most (default: 1000)")->check(CLI::PositiveNumber);
    sub->add_flag("--stop", trace_.stop, "follow nothing more");
    add_admin(sub, trace_.admin);
    add_format(sub, trace_.format);
    sub->callback([this] { action_ = [this] { return run_trace(trace_, console_); }; });
  }
  void add_explain() {
    CLI::App* sub = command(
        "explain",
        "What would happen to a request, and every rule that says so: route, caller, objects, licence, "
        "seats, "
        "quotas. Needs no running proxy.",
        "  tollgate explain GET '/0/odata/Case(1)/Account' --license 'Customer portal cloud'\n"
        "  tollgate explain GET /0/odata/Case --user ann --json\n"
        "  tollgate explain POST /0/DataService/json/SyncReply/SelectQuery --body-file query.json -o json\n");
    sub->add_option("method", explain_.method, "HTTP method")->required();
    sub->add_option("path", explain_.target, "path and query, as sent")->required();
    add_config(sub, explain_.config_file);
    sub->add_option("-H,--header", explain_.headers, "'Name: value'; may be repeated")
        ->expected(1)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    CLI::Option* body = sub->add_option("--body", explain_.body, "body, or @FILE (@- is standard input)");
    sub->add_option("--body-file", explain_.body_file, "file with the body (- is standard input)")
        ->excludes(body);
    sub->add_option("--license", explain_.licenses, "licence name as the CRM spells it; may be repeated")
        ->expected(1)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    sub->add_option("--product", explain_.products, "portal product by id, such as customer; may be repeated")
        ->expected(1)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    sub->add_flag("--no-license", explain_.no_license,
                  "a user without any licence (default: with every one)");
    sub->add_option("--type", explain_.user_type, "portal or staff")
        ->check(CLI::IsMember({"portal", "staff"}))
        ->capture_default_str();
    sub->add_option("--user", explain_.user,
                    "name of the user: who he is, by licensing.directory_file and identity.directory.sync");
    sub->add_option("--tenant", explain_.tenant, "tenant, as a token names it");
    sub->add_option("--organization", explain_.organization, "organization, as a token names it");
    sub->add_option("--account", explain_.account, "Creatio: id of the user's account, as a token names it");
    sub->add_option("--owner", explain_.owner,
                    "Creatio: id of the account that the records belong to which the request names");
    add_format(sub, explain_.format);
    sub->add_flag_callback("--json", [this] { explain_.format = Format::json; }, "the same as -o json");
    sub->callback([this] { action_ = [this] { return run_explain(explain_, console_); }; });
  }
  void add_export() {
    CLI::App* sub = command(
        "export",
        "Write billing files from the journals of proxies, running or not; or verify that all counts agree.",
        "  tollgate export --period 2026-11 --to /var/lib/billing\n"
        "  tollgate export --period 2026-11-22 --format ndjson -o json\n"
        "  tollgate export --period 2026-11 --journal /mnt/a --journal /mnt/b --book /var/lib/usage.sqlite\n"
        "  tollgate export --verify                    journal = store = book, or the accounts that "
        "differ\n");
    auto repeated = [](CLI::Option* option) {
      option->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    };
    sub->add_option("--period", export_.period, "month 2026-11, day 2026-11-22 or hour 2026-11-22T08, UTC");
    sub->add_option("--format", export_.file_format, "csv or ndjson")
        ->transform(CLI::CheckedTransformer(std::map<std::string, billing::Book::Format>{
            {"csv", billing::Book::Format::csv}, {"ndjson", billing::Book::Format::ndjson}}))
        ->type_name("csv|ndjson");
    sub->add_option("--to", export_.to, "folder for the files")->capture_default_str();
    repeated(sub->add_option("--journal", export_.journals,
                             "journal directory; may be repeated (default: the configuration's)"));
    sub->add_option("--book", export_.book, "SQLite file of roll-ups (default: usage.sqlite in the journal)");
    sub->add_flag("--verify", export_.verify,
                  "compare journal, store and book; exit code 1 when they differ");
    sub->add_flag("--offline", export_.offline, "verify without store and proxies: journal and book only");
    repeated(sub->add_option(
        "--admin", export_.admins,
        "admin port of a proxy that settles first; may be repeated (default: the configuration's)"));
    sub->add_option("--token-file", export_.token_file,
                    "file with the admin token (default: from the configuration)");
    add_config(sub, export_.config_file);
    add_format(sub, export_.format);
    sub->callback([this] { action_ = [this] { return run_export(export_, console_); }; });
  }
  void add_version() {
    CLI::App* sub = command("version", "Print the version of this program and of its libraries.",
                            "  tollgate version -o json\n");
    add_format(sub, version_.format);
    sub->callback([this] { action_ = [this] { return run_version(version_, console_); }; });
  }

  std::vector<std::string_view> names() const {
    static const std::vector<std::string> texts = [this] {
      std::vector<std::string> all;
      for (const CLI::App* sub : app_.get_subcommands([](const CLI::App*) { return true; }))
        all.push_back(sub->get_name());
      return all;
    }();
    return {texts.begin(), texts.end()};
  }
  std::string unknown_command(const std::vector<std::string>& arguments) const {
    if (arguments.empty() || arguments[0].starts_with('-')) return "";
    auto known = names();
    return std::find(known.begin(), known.end(), arguments[0]) == known.end() ? arguments[0] : "";
  }
  const CLI::App* chosen() const {
    auto subs = app_.get_subcommands();
    return subs.empty() ? nullptr : subs.front();
  }
  // The option that was perhaps meant.
  std::string hint(const CLI::ParseError& error) const {
    if (error.get_exit_code() != static_cast<int>(CLI::ExitCodes::ExtrasError) || chosen() == nullptr)
      return "";
    std::vector<std::string> options;
    const CLI::App* sub = chosen();
    if (auto deeper = sub->get_subcommands(); !deeper.empty()) sub = deeper.front();
    for (const CLI::Option* option : sub->get_options())
      for (const std::string& name : option->get_lnames()) options.push_back("--" + name);
    std::vector<std::string_view> views(options.begin(), options.end());
    // The message lists what was not expected; CLI11 no longer holds it at this point.
    std::istringstream words(error.what());
    for (std::string word; words >> word;)
      if (auto best = config::nearest(std::string_view(word).substr(0, word.find('=')), views);
          word.starts_with("--") && !best.empty())
        return fmt::format("; did you mean \"{}\"?", best);
    return "";
  }

  Console& console_;
  const Serve& serve_;
  CLI::App app_{std::string(kOverview), "tollgate"};
  std::function<int()> action_;
  ServeArguments serve_arguments_;
  CheckArguments check_;
  SchemaArguments schema_;
  DoctorArguments doctor_;
  TokenArguments token_;
  KeyArguments key_;
  UsageArguments usage_;
  QuotaArguments quota_;
  LicenseArguments license_;
  DirectoryArguments directory_;
  TraceArguments trace_;
  ExplainArguments explain_;
  ExportArguments export_;
  VersionArguments version_;
};

}  // namespace

int run(const std::vector<std::string>& arguments, Console& console, const Serve& serve) {
  try {
    return CommandLine(console, serve).run(arguments);
  } catch (const std::exception& e) {
    print_error(console, e.what());
    return kExitFailed;
  }
}

int run(int argc, char** argv, const Serve& serve) {
  Console console{.out = std::cout, .err = std::cerr};
  console.environment = config::process_environment();
  console.now =
      UnixTime(std::chrono::duration_cast<Duration>(std::chrono::system_clock::now().time_since_epoch()));
  auto no_color = console.environment.find("NO_COLOR");  // no-color.org: set and not empty
  console.color =
      ::isatty(STDERR_FILENO) == 1 && (no_color == console.environment.end() || no_color->second.empty());
  int code = run(std::vector<std::string>(argv + std::min(argc, 1), argv + argc), console, serve);
  std::cout.flush();
  return std::cout ? code : std::max(code, kExitFailed);  // a full disk behind the redirection
}

}  // namespace tollgate::cli
