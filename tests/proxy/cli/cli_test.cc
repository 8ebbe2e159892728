// The command line as its user sees it: output, messages and exit codes of whole commands.
#include "proxy/cli/cli.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <sys/socket.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "metering/base/base64.h"
#include "metering/identity/api_keys.h"
#include "proxy/cli/admin_client.h"
#include "proxy/cli/doctor.h"

namespace tollgate::cli {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

constexpr std::string_view kConfig = R"(version: 1
listeners: [{address: "127.0.0.1:0"}]
admin: {address: "127.0.0.1:0", token_file: admin.token}
upstreams: {crm: {servers: ["http://127.0.0.1:9000"]}}
store: {url: "embedded:redis"}
journal: {directory: journal}
access_log: {file: "-"}
identity:
  jwt:
    - {issuer: "https://idp.example", audience: portal, algorithms: [HS256], secret_file: hs256.key}
catalogue: {custom_sections: [UsrRealty]}
licensing: {main_products: [service_enterprise]}
quotas: [{name: daily, limit: 1000}]
)";

class CommandLine : public testing::Test {
 protected:
  CommandLine() {
    std::string pattern = (fs::temp_directory_path() / "tollgate-cli-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
    write("tollgate.yaml", kConfig);
    write("hs256.key", "0123456789abcdef0123456789abcdef\n");
    write("admin.token", "secret\n");
    fs::permissions(folder_ / "hs256.key", fs::perms::owner_read);
  }
  ~CommandLine() override { fs::remove_all(folder_); }

  void write(const std::string& name, std::string_view text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }
  std::string config() const { return (folder_ / "tollgate.yaml").string(); }

  int run(std::vector<std::string> arguments) {
    std::ostringstream out, err;
    Console console{.out = out, .err = err};
    console.environment = environment_;
    console.now = from_unix_seconds(1'800'000'000);
    int code = cli::run(arguments, console, [this](const ServeArguments& serve) {
      served_ = serve.config_file;
      return 7;
    });
    out_ = out.str();
    err_ = err.str();
    return code;
  }

  fs::path folder_;
  config::Environment environment_;
  std::string out_, err_, served_;
};

TEST_F(CommandLine, ServeGetsItsFileAndItsExitCodeIsTheProgramsOwn) {
  EXPECT_EQ(run({"serve", "-c", "x.yaml"}), 7);
  EXPECT_EQ(served_, "x.yaml");
}

TEST_F(CommandLine, NothingIsAUsageMistakeAndShowsTheHelp) {
  EXPECT_EQ(run({}), kExitUsage);
  EXPECT_THAT(err_, HasSubstr("explain"));
  EXPECT_EQ(out_, "");
}

TEST_F(CommandLine, HelpBeginsWithAnExampleOnEveryLevel) {
  for (const char* command :
       {"serve", "check", "schema", "doctor", "token", "usage", "quota", "trace", "explain", "version"}) {
    EXPECT_EQ(run({command, "-h"}), kExitOk) << command;
    EXPECT_THAT(out_, HasSubstr(fmt::format("Examples:\n  tollgate {}", command)));
    EXPECT_LT(out_.find("Examples:"), out_.find("Usage:")) << command;
  }
  EXPECT_EQ(run({"-h"}), kExitOk);
}

TEST_F(CommandLine, MistypedCommandAndOptionAreSuggested) {
  EXPECT_EQ(run({"chekc"}), kExitUsage);
  EXPECT_THAT(err_, HasSubstr("unknown command \"chekc\"; did you mean \"check\"?"));
  EXPECT_EQ(run({"token", "--usr", "ann", "--user", "bob"}), kExitUsage);
  EXPECT_THAT(err_, HasSubstr("did you mean \"--user\"?"));
  EXPECT_EQ(run({"check", "-o", "xml"}), kExitUsage);
  EXPECT_EQ(run({"token"}), kExitUsage) << "--user is required";
}

TEST_F(CommandLine, CheckAcceptsAGoodFile) {
  EXPECT_EQ(run({"check", "-c", config()}), kExitOk) << err_;
  EXPECT_EQ(out_, "");
  EXPECT_THAT(err_, HasSubstr("ok, 0 warnings"));
}

TEST_F(CommandLine, CheckReportsEveryMistakeAndExits78) {
  write("tollgate.yaml", std::string(kConfig) + "lisen: 1\nworkers: many\n");
  EXPECT_EQ(run({"check", "-c", config()}), kExitConfig);
  EXPECT_THAT(err_,
              HasSubstr("tollgate.yaml:14:1: error: unknown key \"lisen\"; did you mean \"listeners\"?"));
  EXPECT_THAT(err_, HasSubstr("tollgate.yaml:15:10: error: workers: \"many\""));
  EXPECT_THAT(err_, HasSubstr("2 errors"));
  EXPECT_EQ(run({"check", "-c", config(), "-o", "json"}), kExitConfig);
  EXPECT_THAT(out_, HasSubstr("{\"ok\":false,\"diagnostics\":[{\"file\":"));
  EXPECT_THAT(out_, HasSubstr("\"line\":14,\"column\":1,\"severity\":\"error\""));
}

TEST_F(CommandLine, CheckOfAMissingFileExits78) {
  EXPECT_EQ(run({"check", "-c", "/nowhere.yaml"}), kExitConfig);
  EXPECT_THAT(err_, HasSubstr("/nowhere.yaml: error: the file does not exist"));
}

TEST_F(CommandLine, CheckDumpShowsTheSettingsInForceWithoutSecrets) {
  write("tollgate.yaml", std::string(kConfig) + "limits: {max_body: \"${MAX}\"}\n");
  environment_ = {{"MAX", "1MiB"}, {"TOLLGATE_STORE__URL", "redis://u:hunter2@h:1/0"}};
  EXPECT_EQ(run({"check", "-c", config(), "--dump"}), kExitOk) << err_;
  EXPECT_THAT(out_, HasSubstr("max_body: \"1MiB\"  # " + config() + ":14"));
  EXPECT_THAT(out_, HasSubstr("url: \"redis://u:***@h:1/0\"  # environment TOLLGATE_STORE__URL"));
  EXPECT_THAT(out_, Not(HasSubstr("hunter2")));
}

TEST_F(CommandLine, CheckFindsKeysThatDoNotFitTheirCertificate) {
  write("a.crt", "no certificate");
  write("a.key", "no key");
  write("tollgate.yaml",
        std::string(kConfig).replace(
            11, 37,
            "listeners: [{address: \"127.0.0.1:0\", tls: {certificate_file: a.crt, key_file: a.key}}]"));
  EXPECT_EQ(run({"check", "-c", config()}), kExitConfig) << err_;
  EXPECT_THAT(err_, HasSubstr("holds no certificate in PEM"));
  EXPECT_THAT(err_, HasSubstr("holds no private key in PEM"));
}

TEST_F(CommandLine, SchemaAndManualArePrinted) {
  EXPECT_EQ(run({"schema"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr("\"https://json-schema.org/draft/2020-12/schema\""));
  EXPECT_EQ(run({"schema", "--markdown"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr("# Configuration"));
}

TEST_F(CommandLine, VersionNamesTheLibraries) {
  EXPECT_EQ(run({"version"}), kExitOk);
  EXPECT_THAT(out_, testing::ContainsRegex("tollgate [0-9]+\\.[0-9]+\\.[0-9]+ \\("));
  EXPECT_THAT(out_, HasSubstr("OpenSSL"));
  EXPECT_EQ(run({"version", "-o", "json"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr("\"libevent\":\""));
}

TEST_F(CommandLine, TokenCarriesTheClaimsThatTheConfigurationNames) {
  EXPECT_EQ(run({"token", "-c", config(), "--user", "ann", "--org", "Acme", "--type", "portal", "--license",
                 "A", "--license", "B", "--expires", "30m"}),
            kExitOk)
      << err_;
  std::size_t dot = out_.find('.');
  auto claims = base64url_decode(std::string_view(out_).substr(dot + 1, out_.find('.', dot + 1) - dot - 1));
  ASSERT_TRUE(claims.has_value()) << out_;
  EXPECT_EQ(
      *claims,
      R"({"iss":"https://idp.example","aud":"portal","sub":"ann","org":"Acme","user_type":"portal","licenses":["A","B"],"iat":1800000000,"exp":1800001800})");
  EXPECT_EQ(std::count(out_.begin(), out_.end(), '\n'), 1);
}

TEST_F(CommandLine, ExpiredTokenEndedBeforeTheLeeway) {
  EXPECT_EQ(run({"token", "-c", config(), "--user", "ann", "--expired", "-o", "json"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr("\"expires_at\":1799996370"));
}

TEST_F(CommandLine, TokenNeedsASecretAndAKnownIssuer) {
  EXPECT_EQ(run({"token", "-c", config(), "--user", "ann", "--issuer", "https://other"}), kExitConfig);
  EXPECT_THAT(err_, HasSubstr("known are: https://idp.example"));
  EXPECT_EQ(run({"token", "-c", config(), "--user", "ann", "--expires", "5"}), kExitUsage);
}

TEST_F(CommandLine, KeyIsPrintedOnceWithTheRowThatMakesItKnown) {
  EXPECT_EQ(run({"key", "create", "-c", config(), "--user", "ann"}), kExitConfig);
  EXPECT_THAT(err_, HasSubstr("identity.api_keys.file is missing"));
  write("tollgate.yaml",
        std::string(kConfig).replace(kConfig.find("identity:\n"), 10,
                                     "identity:\n  api_keys: {file: keys.csv, secret_file: hs256.key}\n"));
  write("keys.csv", std::string(identity::kApiKeyColumns) + "\n");
  ASSERT_EQ(run({"key", "create", "-c", config(), "--user", "ann", "--org", "Best, Ltd", "--license", "one",
                 "--license", "two", "--type", "portal", "--expires", "24h"}),
            kExitOk)
      << err_;
  const std::string key = out_.substr(0, out_.find('\n')), rows = out_.substr(key.size() + 1);
  EXPECT_THAT(key, testing::MatchesRegex("tgk_[A-Za-z0-9_-]+"));
  EXPECT_EQ(key.size(), 47U);
  auto keys = identity::ApiKeys::parse(std::string(identity::kApiKeyColumns) + "\n" + rows,
                                       "0123456789abcdef0123456789abcdef\n", nullptr);
  ASSERT_TRUE(keys) << keys.error().message << rows;
  auto ann = keys->find(key, UnixTime::min());
  ASSERT_TRUE(ann) << rows;
  EXPECT_EQ((*ann)->principal.organization, "Best, Ltd");
  EXPECT_THAT((*ann)->principal.licenses, testing::ElementsAre("one", "two"));
  EXPECT_LT((*ann)->expires_at, UnixTime::max());

  ASSERT_EQ(run({"key", "create", "-c", config(), "--user", "ann", "-o", "json"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr("\"key\":\"tgk_"));
  EXPECT_THAT(out_, Not(HasSubstr(key))) << "another one each time";
  EXPECT_EQ(run({"key", "create", "-c", config(), "--user", "ann", "--expires", "soon"}), kExitUsage);
  EXPECT_EQ(run({"key", "create", "-c", config()}), kExitUsage);
}

TEST_F(CommandLine, ExplainTellsObjectDecisionAndUnits) {
  EXPECT_EQ(run({"explain", "GET", "/0/odata/Case", "-c", config(), "--license", "Customer portal cloud",
                 "-o", "json"}),
            kExitOk)
      << err_;
  EXPECT_THAT(out_, HasSubstr("\"kind\":\"objects\""));
  EXPECT_THAT(out_,
              HasSubstr("{\"object\":\"Case\",\"operation\":\"read\",\"via\":\"\",\"section\":\"cases\""));
  EXPECT_THAT(out_, HasSubstr("\"decision\":\"allow\",\"reason\":\"ok\",\"status\":200"));
  EXPECT_THAT(out_, HasSubstr("\"units\":1"));
  EXPECT_THAT(out_, HasSubstr("\"product\":\"customer\""));
}

TEST_F(CommandLine, ExplainDeniesAsTheProxyWould) {
  EXPECT_EQ(run({"explain", "DELETE", "/0/odata/Case(1)", "-c", config(), "-o", "json"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr("\"decision\":\"deny\",\"reason\":\"operation_not_licensed\",\"status\":403"));
  EXPECT_THAT(out_, HasSubstr("\"units\":0"));
  EXPECT_EQ(run({"explain", "GET", "/0/odata/Case", "-c", config(), "--no-license", "-o", "json"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr("\"reason\":\"license_missing\""));
  EXPECT_EQ(run({"explain", "GET", "/0/odata/Lead", "-c", config(), "--product", "customer", "-o", "json"}),
            kExitOk);
  EXPECT_THAT(out_, HasSubstr("\"reason\":\"section_not_licensed\""));
}

TEST_F(CommandLine, ExplainJudgesThePathThatTheUpstreamWillSee) {
  write("tollgate.yaml",
        std::string(kConfig) +
            "routes:\n  - {path_prefix: /portal, upstream: crm, rewrite: {replace_prefix: /0/odata}}\n"
            "  - {host: b.example, path_prefix: /portal, upstream: crm}\n");
  EXPECT_EQ(run({"explain", "GET", "/portal/Case?$top=1", "-c", config(), "-o", "json"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr(R"("target":"/portal/Case?$top=1","upstream_target":"/0/odata/Case?$top=1")"));
  EXPECT_THAT(out_, HasSubstr(R"("units":1)"));
  EXPECT_EQ(run({"explain", "GET", "/portal/Case", "-c", config(), "-H", "Host: b.example"}), kExitOk);
  EXPECT_THAT(out_, Not(HasSubstr("rewritten")));
}

TEST_F(CommandLine, ExplainNamesEveryRuleThatIsConsulted) {
  write("users.csv",
        "user,organization,license,user_type\nann,Best,Creatio self-service portal cloud,portal\n"
        "boss,,,staff\n");
  write("tollgate.yaml",
        std::string(kConfig.substr(0, kConfig.find("licensing:"))) +
            "licensing: {main_products: [service_enterprise], main_product_users: 7, directory_file: "
            "users.csv,\n"
            "            concurrent_seats: {capacity: 40}}\n"
            "quotas:\n  - {name: daily, limit: 1000, per: [user], overrides: {ann: 5}}\n"
            "  - {name: cases, limit: 20, window: 1h, per: [organization, object], mode: shadow}\n"
            "  - {name: everything, limit: 9, per: [tenant], on: all}\n");
  EXPECT_EQ(
      run({"explain", "GET", "/0/odata/Case", "-c", config(), "--user", "ann", "--tenant", "acme", "--json"}),
      kExitOk)
      << err_;
  for (
      const char* part :
      {R"("route":{"host":"","path_prefix":"/","upstream":"crm","metered":true})",
       R"("identity":{"user":"ann","tenant":"acme","organization":"Best","account":"","user_type":"portal","directory":"in_directory")",
       R"("licenses":["Creatio self-service portal cloud"])",
       R"("products":["self_service"],"available":["self_service"])",
       R"("rows":[{"section":"cases","operation":"read","grants":{"self_service":["read","create","edit"]}}])",
       R"("seats":[{"pool":"self_service","kind":"named","capacity":700},{"pool":"concurrent","kind":"concurrent","capacity":40}])",
       R"({"rule":"daily","on":"licensed","mode":"enforce","account":"q:)",
       R"(:acme:u:ann daily","units":1,"limit":5,"window":86400})", R"("mode":"shadow","account":"q:)",
       R"(:acme:o:Best cases|case","units":1,"limit":20,"window":3600})",
       R"({"rule":"everything","on":"all")"})
    EXPECT_THAT(out_, HasSubstr(part));
  EXPECT_EQ(run({"explain", "GET", "/0/odata/Case", "-c", config(), "--user", "ann"}), kExitOk);
  for (const char* part :
       {"route     / -> crm\n", "caller    ann (portal), organization Best, as the directory says\n",
        "read on cases: self_service grants read, create, edit;\n",
        "seats     one of 700 (self_service, named)\n", "quota     daily: 1 of 5 in 86400 s, account q:"})
    EXPECT_THAT(out_, HasSubstr(part));
  EXPECT_EQ(run({"explain", "GET", "/0/odata/Lead", "-c", config(), "--user", "ann"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr("deny: section_not_licensed"));
  EXPECT_THAT(out_, HasSubstr("self_service grants none;"));
  EXPECT_THAT(out_, HasSubstr("quota     not looked at\n"));
  EXPECT_EQ(run({"explain", "DELETE", "/0/odata/Case(1)", "-c", config(), "--user", "boss", "--json"}),
            kExitOk);
  EXPECT_THAT(out_, HasSubstr(R"("user_type":"staff")"));
  EXPECT_THAT(out_, HasSubstr(R"({"rule":"daily","units":0,"why":"does not bind staff"})"));
  EXPECT_THAT(out_, HasSubstr(R"("seats":[])"));
  EXPECT_EQ(run({"explain", "GET", "/0/odata/Case", "-c", config(), "--user", "eve", "--json"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr(R"("directory":"not_in_directory","every_product":true)"));
}

TEST_F(CommandLine, ExplainOfAddressesThatNoRuleBindsSaysSo) {
  write("tollgate.yaml", std::string(kConfig) +
                             "routes:\n  - {path_prefix: /0, upstream: crm}\n"
                             "  - {path_prefix: /open, upstream: crm, metered: false}\n");
  EXPECT_EQ(run({"explain", "GET", "/elsewhere", "-c", config(), "--json"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr(R"("decision":"deny","reason":"not_found","status":404)"));
  EXPECT_EQ(run({"explain", "GET", "/open/0/odata/Lead", "-c", config(), "--no-license"}), kExitOk);
  EXPECT_THAT(out_, HasSubstr("decision  allow, 0 units"));
  EXPECT_THAT(out_, HasSubstr("not metered: passed on as it is"));
}

TEST_F(CommandLine, ExplainOfStaffIsAllowedAndFree) {
  EXPECT_EQ(run({"explain", "DELETE", "/0/odata/Lead(1)", "-c", config(), "--type", "staff", "-o", "json"}),
            kExitOk);
  EXPECT_THAT(out_, HasSubstr("\"decision\":\"allow\""));
}

TEST_F(CommandLine, ExplainReadsTheBodyFromTextAndFile) {
  std::string query = R"({"rootSchemaName":"Case","operationType":0,"columns":{"items":{}}})";
  write("q.json", query);
  for (auto body : {std::vector<std::string>{"--body", query},
                    {"--body", "@" + (folder_ / "q.json").string()},
                    {"--body-file", (folder_ / "q.json").string()}}) {
    std::vector<std::string> words{"explain", "POST",     "/0/DataService/json/SyncReply/SelectQuery",
                                   "-c",      config(),   "-o",
                                   "json",    "--header", "Content-Type: application/json"};
    words.insert(words.end(), body.begin(), body.end());
    EXPECT_EQ(run(words), kExitOk) << err_;
    EXPECT_THAT(out_, HasSubstr("\"object\":\"Case\",\"operation\":\"read\"")) << body[0];
  }
}

TEST_F(CommandLine, ExplainNamesWrongArguments) {
  EXPECT_EQ(run({"explain", "GET", "http://h/x", "-c", config()}), kExitUsage);
  EXPECT_EQ(run({"explain", "GET", "/x", "-c", config(), "--header", "nonsense"}), kExitUsage);
  EXPECT_EQ(run({"explain", "GET", "/x", "-c", config(), "--product", "custmer"}), kExitUsage);
  EXPECT_THAT(err_, HasSubstr("did you mean \"customer\"?"));
  EXPECT_EQ(run({"explain", "GET", "/x", "-c", config(), "--body-file", "/nowhere"}), kExitUsage);
}

TEST_F(CommandLine, ExplainAsTable) {
  EXPECT_EQ(run({"explain", "GET", "/0/odata/Case(1)/Account", "-c", config()}), kExitOk);
  EXPECT_THAT(out_, HasSubstr("OBJECT"));
  EXPECT_THAT(out_, HasSubstr("Case"));
}

TEST_F(CommandLine, UsageOfAProxyThatDoesNotRunIsUnavailable) {
  // A socket that is bound but does not listen refuses, whatever else runs on this machine.
  int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  socklen_t size = sizeof address;
  ASSERT_EQ(::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size), 0);
  std::string url = fmt::format("http://127.0.0.1:{}", ntohs(address.sin_port));
  EXPECT_EQ(run({"usage", "ann", "--admin", url, "-c", config()}), kExitUnavailable);
  EXPECT_THAT(err_, HasSubstr("is the proxy running"));
  ::close(socket);
}

TEST_F(CommandLine, QuotaSetNeedsRuleAndLimit) {
  EXPECT_EQ(run({"quota", "set", "ann", "--rule", "daily"}), kExitUsage);
  EXPECT_EQ(run({"quota", "set", "ann", "--limit", "5"}), kExitUsage);
  EXPECT_EQ(run({"quota", "set", "ann", "--rule", "daily", "--limit", "-5"}), kExitUsage);
  EXPECT_EQ(run({"quota"}), kExitUsage);
}

TEST_F(CommandLine, TokenOfTheConfigurationIsOnlySentToItsOwnAdminPort) {
  std::ostringstream out, err;
  Console console{.out = out, .err = err};
  auto own = find_endpoint({.config_file = config(), .url = "", .token_file = ""}, console);
  ASSERT_TRUE(own.has_value());
  EXPECT_EQ(own->token, "secret");
  auto stranger =
      find_endpoint({.config_file = config(), .url = "http://elsewhere:1/", .token_file = ""}, console);
  ASSERT_TRUE(stranger.has_value());
  EXPECT_EQ(stranger->url, "http://elsewhere:1");
  EXPECT_EQ(stranger->token, "");
}

TEST(UserPath, NamesArePercentEncodedAndTheEmptyTenantIsADash) {
  EXPECT_EQ(user_path("", "ann@example.com", "usage", ""), "/api/v1/users/-/ann%40example.com/usage");
  EXPECT_EQ(user_path("a/b", "..", "quotas", "A B"), "/api/v1/users/a%2Fb/../quotas?organization=A%20B");
}

TEST_F(CommandLine, DoctorSaysWhatToDoAboutAnOpenSecret) {
  auto loaded = config::load(config(), {});
  ASSERT_TRUE(loaded.has_value());
  fs::permissions(folder_ / "admin.token", fs::perms::owner_read);
  EXPECT_EQ(examine_secret_files(loaded->settings).front().level, Symptom::Level::ok);
  fs::permissions(folder_ / "hs256.key", fs::perms::owner_read | fs::perms::others_read);
  auto symptoms = examine_secret_files(loaded->settings);
  EXPECT_EQ(symptoms.front().level, Symptom::Level::warning);
  EXPECT_THAT(symptoms.front().advice, HasSubstr("chmod"));
}

TEST_F(CommandLine, DoctorComparesDescriptorsWithTheConnectionsConfigured) {
  config::Settings settings;
  settings.workers = 2;
  settings.limits.max_connections = 100;
  settings.upstreams.resize(1);
  settings.upstreams[0].max_connections = 50;
  EXPECT_EQ(examine_descriptors(settings, 2 * 166 + 64).front().level, Symptom::Level::ok);
  EXPECT_EQ(examine_descriptors(settings, 2 * 166 + 63).front().level, Symptom::Level::warning);
}

TEST_F(CommandLine, DoctorSeesAPortInUse) {
  int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(socket, 1), 0);
  socklen_t size = sizeof address;
  ASSERT_EQ(::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size), 0);
  config::Settings settings;
  settings.admin.address = "";
  settings.listeners.resize(2);
  settings.listeners[0].address = fmt::format("127.0.0.1:{}", ntohs(address.sin_port));
  settings.listeners[1].address = "127.0.0.1:0";
  auto symptoms = examine_ports(settings);
  ::close(socket);
  EXPECT_THAT(symptoms[0].text, HasSubstr("is in use"));
  EXPECT_EQ(symptoms[1].level, Symptom::Level::ok);
}

TEST(Doctor, ShowsWhatTheRunningProxyKnowsOfUpstreams) {
  const auto symptoms = examine_upstreams(
      R"([{"upstream":"crm","server":"http://a:80","healthy":true,"in_flight":2,"idle":3,"waiting":0,"requests":9},
          {"upstream":"crm","server":"http://b:80","healthy":true,"waiting":7},
          {"upstream":"crm","server":"http://c:80","healthy":false,"ejected":true,"failures":5}])");
  ASSERT_EQ(symptoms.size(), 3U);
  EXPECT_EQ(symptoms[0].level, Symptom::Level::ok);
  EXPECT_THAT(symptoms[0].text, HasSubstr("crm http://a:80: 2 calls at it, 3 idle connections, 9 requests"));
  EXPECT_EQ(symptoms[1].level, Symptom::Level::warning);
  EXPECT_THAT(symptoms[1].text, HasSubstr("7 requests wait for a connection"));
  EXPECT_EQ(symptoms[2].level, Symptom::Level::warning);
  EXPECT_THAT(symptoms[2].text, HasSubstr("left out for failing"));
  EXPECT_EQ(examine_upstreams("nonsense")[0].level, Symptom::Level::problem);
}

TEST_F(CommandLine, TraceSaysWhatIsWrongBeforeItAsksAnybody) {
  EXPECT_EQ(run({"trace", "--for", "60s"}), kExitUsage);
  EXPECT_THAT(err_, HasSubstr("--request-id or --user"));
  EXPECT_EQ(run({"trace", "--user", "ann", "--stop"}), kExitUsage);
  EXPECT_EQ(run({"trace", "--request-id", "x", "--tenant", "acme"}), kExitUsage);
  EXPECT_EQ(run({"trace", "--user", "ann", "--for", "60"}), kExitUsage);
}

TEST_F(CommandLine, DoctorReportsVersionsAndTheStore) {
  int code = run({"doctor", "-c", config()});
  EXPECT_TRUE(code == kExitOk || code == kExitFailed);
  EXPECT_THAT(out_, HasSubstr("OpenSSL"));
  EXPECT_THAT(out_, HasSubstr("edis"));
  write("tollgate.yaml", "version: 3\n");
  EXPECT_EQ(run({"doctor", "-c", config(), "-o", "json"}), kExitFailed);
  EXPECT_THAT(out_, HasSubstr("\"healthy\":false"));
}

}  // namespace
}  // namespace tollgate::cli
