// The parser of the configuration: what it reads, and that each mistake is reported in its place.
#include "config/parse.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/config/support/samples.h"

namespace tollgate::config {
namespace {

using testing::Contains;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

// "line:column: message" of every diagnostic.
std::vector<std::string> complaints(const ParseOutcome& outcome) {
  std::vector<std::string> out;
  for (const Diagnostic& d : outcome.diagnostics)
    out.push_back(fmt::format("{}:{}: {}", d.line, d.column, d.message));
  return out;
}
ParseOutcome parse_with(std::string_view addition, const Environment& environment = {}) {
  return parse(std::string(kSmallest) + std::string(addition), "t.yaml", environment);
}

TEST(Parse, SmallestFileNeedsUpstreamAndIdentityOnly) {
  ParseOutcome outcome = parse(kSmallest, "t.yaml", {});
  EXPECT_THAT(complaints(outcome), Each(HasSubstr("main_products is empty")));
  ASSERT_TRUE(outcome.ok());
  ASSERT_EQ(outcome.settings.listeners.size(), 1U);
  EXPECT_EQ(outcome.settings.listeners[0].address, "127.0.0.1:8080");
  ASSERT_EQ(outcome.settings.routes.size(), 1U);
  EXPECT_EQ(outcome.settings.routes[0].upstream, "crm");
  EXPECT_EQ(outcome.settings.routes[0].path_prefix, "/");
}

TEST(Parse, EveryKindOfValueIsRead) {
  ParseOutcome outcome = parse(R"(version: 1
workers: 3
listeners:
  - address: "[::1]:8443"
    tls: {certificate_file: a.crt, key_file: a.key, min_version: 1.3, certificates: [{certificate_file: b.crt, key_file: b.key}]}
  - {address: "localhost:80"}
upstreams:
  crm: {servers: ["http://a:1", "HTTPS://B/"], connect_timeout: 1m30s, max_retries: 0, tls: {verify: false}}
routes: [{path_prefix: /x, host: Portal.Example, upstream: crm, metered: false}]
store: {url: "rediss://h/3", on_outage: deny, timeout: 250ms}
identity:
  jwt: [{issuer: i, audience: [a, b], algorithms: [RS256, EdDSA], jwks_file: k, leeway: 0}]
  sources: [{cookie: portal}]
catalogue:
  custom_sections: [UsrA]
  custom_children: {UsrA: [UsrB, UsrC]}
  uids: {117d32f9-8275-4534-8411-1c66115ce9cd: Case}
  relations: {City.UsrDealer: Account, "*.UsrBuyer": Contact}
  processes: {P: [{object: Case, operation: edit}]}
  max_body: 64KiB
licensing: {system: none}
quotas: [{name: q, limit: 5, window: 90d, per: [organization, object], on: licensed, overrides: {"Big Customer": 9}}]
limits: {max_body: 1GiB}
journal: {retention: 90d}
)",
                               "t.yaml", {});
  EXPECT_THAT(complaints(outcome), ElementsAre(HasSubstr("certificates of this upstream are not checked")));
  const Settings& s = outcome.settings;
  EXPECT_EQ(s.workers, 3U);
  EXPECT_EQ(s.listeners[0].tls->min_version, "1.3");
  EXPECT_EQ(s.listeners[0].tls->certificates[0].key_file, "b.key");
  EXPECT_EQ(s.listeners[1].address, "127.0.0.1:80");
  EXPECT_THAT(s.upstreams[0].servers, testing::ElementsAre("http://a:1", "https://b:443"));
  EXPECT_EQ(s.upstreams[0].connect_timeout, Milliseconds(90'000));
  EXPECT_EQ(s.routes[0].host, "portal.example");
  EXPECT_FALSE(s.routes[0].metered);
  EXPECT_EQ(s.store.on_outage, OnOutage::deny);
  EXPECT_EQ(s.store.timeout, Milliseconds(250));
  EXPECT_EQ(s.identity.jwt[0].leeway, Milliseconds(0));
  EXPECT_EQ(s.identity.sources[0].cookie, "portal");
  EXPECT_THAT(s.catalogue.custom_children.at("UsrA"), testing::ElementsAre("UsrB", "UsrC"));
  EXPECT_EQ(s.catalogue.uids.at("117d32f9-8275-4534-8411-1c66115ce9cd"), "Case");
  EXPECT_EQ(s.catalogue.relations.at("City.UsrDealer"), "Account");
  EXPECT_EQ(s.catalogue.relations.at("*.UsrBuyer"), "Contact");
  EXPECT_EQ(s.catalogue.processes.at("P")[0], std::make_pair(std::string("Case"), std::string("edit")));
  EXPECT_EQ(s.catalogue.max_body, 65'536U);
  EXPECT_EQ(s.quotas[0].window, std::chrono::hours(24 * 90));
  EXPECT_EQ(s.quotas[0].overrides.at("Big Customer"), 9U);
  EXPECT_EQ(s.limits.max_body, 1ULL << 30);
}

TEST(Parse, FlowStyleAndJsonMeanTheSameAsBlockStyle) {
  ParseOutcome block = parse(kSmallest, "t.yaml", {});
  ParseOutcome flow = parse(
      R"({"version": 1, "upstreams": {"crm": {"servers": ["http://127.0.0.1:9000"]}}, "identity": {"jwt": [{"issuer": "https://idp.example", "algorithms": ["HS256"], "secret_file": "k"}]}})",
      "t.yaml", {});
  ASSERT_TRUE(flow.ok());
  EXPECT_EQ(flow.settings.upstreams[0].servers, block.settings.upstreams[0].servers);
  EXPECT_EQ(flow.settings.identity.jwt[0].algorithms, block.settings.identity.jwt[0].algorithms);
}

TEST(Parse, AllMistakesAreReportedAtOnceInTheOrderOfTheFile) {
  ParseOutcome outcome = parse(R"(version: 2
lisen: []
upstreams:
  crm: {servers: ["ftp://x"], max_retries: many}
routes: [{upstream: crn}]
quotas:
  - {name: Daily, limit: 010}
)",
                               "t.yaml", {});
  EXPECT_THAT(
      complaints(outcome),
      ElementsAre(HasSubstr("1:1: identity.jwt is missing"), HasSubstr("1:1: licensing.main_products"),
                  HasSubstr("1:10: version 2 is not known"),
                  HasSubstr("2:1: unknown key \"lisen\"; did you mean \"listeners\"?"),
                  HasSubstr("4:19: upstreams.crm.servers[0]: \"ftp://x\" must begin with"),
                  HasSubstr("4:44: upstreams.crm.max_retries: \"many\" is no whole number"),
                  HasSubstr("5:21: routes[0].upstream: there is no upstream \"crn\"; did you mean \"crm\"?"),
                  HasSubstr("7:12: quotas[0].name: \"Daily\" may hold a-z"),
                  HasSubstr("7:26: quotas[0].limit: \"010\" has a leading zero")))
      << testing::PrintToString(complaints(outcome));
}

TEST(Parse, DuplicateKeyNamesTheFirstLine) {
  ParseOutcome outcome = parse_with("workers: 1\nworkers: 2\n");
  EXPECT_THAT(complaints(outcome), Contains(HasSubstr("8:1: \"workers\" is there twice; first in line 7")));
}

TEST(Parse, KeyInTheWrongPlaceNamesTheRightOne) {
  EXPECT_THAT(complaints(parse_with("jwks_url: https://x\n")),
              Contains(HasSubstr("it belongs into identity.jwt[]")));
}

TEST(Parse, SecretWrittenIntoTheFileIsRefusedWithTheCure) {
  ParseOutcome outcome = parse_with("admin: {token: abc}\n");
  EXPECT_THAT(complaints(outcome),
              Contains(HasSubstr("unknown key \"token\" in admin; it is not written into the configuration: "
                                 "name a file with \"token_file\"")));
}

TEST(Parse, PasswordInTheStoreUrlWarnsUnlessItComesFromTheEnvironment) {
  EXPECT_THAT(complaints(parse_with("store: {url: \"redis://u:secret@h\"}\n")),
              Contains(HasSubstr("store.url holds a password")));
  ParseOutcome from_variable = parse_with("store: {url: \"redis://u:${PW}@h\"}\n", {{"PW", "secret"}});
  EXPECT_THAT(complaints(from_variable), Not(Contains(HasSubstr("password"))));
  EXPECT_EQ(from_variable.settings.store.url, "redis://u:secret@h");
}

TEST(Parse, BrokenStoreUrlIsNotRepeatedInTheMessage) {
  ParseOutcome outcome = parse_with("store: {url: \"postgres://u:hunter2@h\"}\n");
  EXPECT_FALSE(outcome.ok());
  EXPECT_THAT(complaints(outcome), Each(Not(HasSubstr("hunter2"))));
}

TEST(Parse, EmptyValueIsAMistakeButEmptyGroupIsNot) {
  EXPECT_THAT(complaints(parse_with("workers:\n")), Contains(HasSubstr("7:1: \"workers\" has no value")));
  EXPECT_TRUE(parse_with("limits:\ntimeouts:\nquotas:\n").ok());
}

TEST(Parse, MissingRequiredKeysAreNamed) {
  ParseOutcome outcome =
      parse("version: 1\nquotas: [{}]\nlisteners: [{}]\nidentity: {jwt: [{}]}\n", "t.yaml", {});
  EXPECT_THAT(complaints(outcome), Contains(HasSubstr("\"upstreams\" is missing")));
  EXPECT_THAT(complaints(outcome), Contains(HasSubstr("2:10: \"name\" is missing in quotas[0]")));
  EXPECT_THAT(complaints(outcome), Contains(HasSubstr("2:10: \"limit\" is missing in quotas[0]")));
  EXPECT_THAT(complaints(outcome), Contains(HasSubstr("3:13: \"address\" is missing in listeners[0]")));
  EXPECT_THAT(complaints(outcome), Contains(HasSubstr("\"algorithms\" is missing in identity.jwt[0]")));
  EXPECT_THAT(complaints(outcome), Contains(HasSubstr("needs one of secret_file, jwks_file, jwks_url")));
}

TEST(Parse, EmptyFileIsReportedNotRead) {
  EXPECT_FALSE(parse("", "t.yaml", {}).ok());
  EXPECT_FALSE(parse("# nothing\n", "t.yaml", {}).ok());
  EXPECT_FALSE(parse("- a\n- b\n", "t.yaml", {}).ok());
  EXPECT_FALSE(parse("hello", "t.yaml", {}).ok());
}

struct Mistake {
  std::string_view yaml;       // added to the smallest file
  std::string_view complaint;  // part of one message
};
class Mistakes : public testing::TestWithParam<Mistake> {};

TEST_P(Mistakes, IsReported) {
  ParseOutcome outcome = parse_with(GetParam().yaml);
  EXPECT_FALSE(outcome.ok());
  EXPECT_THAT(complaints(outcome), Contains(HasSubstr(std::string(GetParam().complaint))))
      << testing::PrintToString(complaints(outcome));
}

INSTANTIATE_TEST_SUITE_P(
    Parse, Mistakes,
    testing::Values(
        Mistake{"workers: 5000\n", "workers: 5000 is outside 0 .. 1024"},
        Mistake{"workers: 0x10\n", "is no whole number in decimal digits"},
        Mistake{"workers: -1\n", "must not be negative"}, Mistake{"workers: 1_000\n", "is no whole number"},
        Mistake{"workers: 99999999999999999999\n", "is too large"},
        Mistake{"workers: [1]\n", "workers must be a single value, not a list"},
        Mistake{"store: lease\n", "store must be a map of keys and values, not a single value"},
        Mistake{"store: {timeout: 50}\n", "store.timeout: \"50\" needs a unit: write 50ms or 50s"},
        Mistake{"store: {timeout: 1.5s}\n", "has a fraction"},
        Mistake{"store: {timeout: 5 s}\n", "has a unit other than"},
        Mistake{"store: {timeout: 1s1m}\n", "units in the wrong order"},
        Mistake{"store: {timeout: 10m}\n", "store.timeout: 10m is outside 1ms .. 1m"},
        Mistake{"store: {timeout: 999999999999999d}\n", "is too long"},
        Mistake{"store: {on_outage: open}\n", "\"open\" is not known"},
        Mistake{"store: {url: \"mysql://x\"}\n", "must begin with embedded:"},
        Mistake{"store: {url: \"redis://\"}\n", "names no host"},
        Mistake{"store: {url: \"redis://h:99999\"}\n", "port number"},
        Mistake{"store: {url: \"redis://h/x\"}\n", "database number"},
        Mistake{"store: {url: \"embedded:\"}\n", "names no folder"},
        Mistake{"store: {url: \"redis+unix://a/b\"}\n", "names no absolute path"},
        Mistake{"store: {url: \"redis+sentinel://h\"}\n", "does not name the primary"},
        Mistake{"store: {url: \"redis+sentinel://h,,i/m\"}\n", "names no host in one of its places"},
        Mistake{"store: {url: \"redis+sentinel://h:0/m\"}\n", "has no port number"},
        Mistake{"store: {url: \"redis+sentinel://h/m/x\"}\n", "does not end in a database number"},
        Mistake{"store: {url: \"redis+cluster://h/0\"}\n", "a cluster has no database number"},
        Mistake{"store: {url: \"redis+cluster://h?tls=true\"}\n", "the scheme begins with rediss+"},
        Mistake{"store: {durability: async}\n", "replay"},
        Mistake{"store: {durability: wait}\n", "an embedded store has no replicas"},
        Mistake{"store: {session: 2m}\n", "shorter than three times store.ping_interval (1m)"},
        Mistake{"store: {ping_interval: 6m}\n", "shorter than three times store.ping_interval (6m)"},
        Mistake{"store: {lease_max: 0}\n", "store.lease_max"},
        Mistake{"store: {fence_wait: 0}\n", "store.fence_wait"},
        Mistake{"journal: {segment_size: 512KiB}\n", "journal.segment_size"},
        Mistake{"journal: {segment_size: 1048577}\n", "not a multiple of 4KiB"},
        Mistake{"journal: {max_size: 200MiB}\n", "has no room for two segments of 64MiB"},
        Mistake{"workers: 7\njournal: {max_size: 1000MiB}\n", "at least 1GiB"},
        Mistake{"store: {session: 2h}\njournal: {retention: 1h}\n", "what is replayed after a failover"},
        Mistake{"journal: {accounts: 12}\n", "journal.accounts"},
        Mistake{"journal: {on_failure: ignore}\n", "journal.on_failure"},
        Mistake{"quotas: [{name: q, limit: 1, mode: dry}]\n", "quotas[0].mode"},
        Mistake{"quotas: [{name: q, limit: 1, window: 367d}]\n", "quotas[0].window"},
        Mistake{"store: {url: \"redis://:p@h\", password_file: f}\n", "contradict each other"},
        Mistake{"limits: {buffer: 64kb}\n", "write 64KiB"},
        Mistake{"limits: {buffer: 1}\n", "limits.buffer: 1 is outside 4KiB .. 64MiB"},
        Mistake{"limits: {max_header_bytes: 2KiB}\n", "is larger than limits.max_header_bytes"},
        Mistake{"usage_by_object: yes\n", "is neither true nor false: write true"},
        Mistake{"listeners: []\n", "listeners needs at least 1 entry"},
        Mistake{"listeners: {address: \"127.0.0.1:1\"}\n", "listeners must be a list"},
        Mistake{"listeners: [{address: \":8080\"}]\n", "write 0.0.0.0:8080"},
        Mistake{"listeners: [{address: 127.0.0.1}]\n", "is no address and port"},
        Mistake{"listeners: [{address: \"127.0.0.1:70000\"}]\n", "port number"},
        Mistake{"listeners: [{address: \"portal.example:80\"}]\n", "does not begin with an IP address"},
        Mistake{"listeners: [{address: \"127.0.0.1:1\"}, {address: \"127.0.0.1:1\"}]\n",
                "is there twice; first in line 7"},
        Mistake{"listeners: [{address: \"127.0.0.1:1\"}]\nadmin: {address: \"127.0.0.1:1\"}\n",
                "is a listener too"},
        Mistake{"listeners: [{address: \"127.0.0.1:1\", tls: {}}]\n", "needs certificate_file and key_file"},
        Mistake{"listeners: [{address: \"127.0.0.1:1\", tls: {certificate_file: a}}]\n",
                "key_file is missing"},
        Mistake{"listeners: [{address: \"127.0.0.1:1\", tls: {certificate_file: a, key_file: b, min_version: "
                "\"1.1\"}}]\n",
                "\"1.1\" is not known"},
        Mistake{"routes: [{upstream: crm}, {upstream: crm}]\n",
                "routes[1] has the host and path_prefix of routes[0]"},
        Mistake{"routes: [{upstream: crm, path_prefix: api}]\n", "must begin with /"},
        Mistake{"routes: [{upstream: crm, path_prefix: \"/a/../b\"}]\n", "dot segment"},
        Mistake{"routes: [{upstream: crm, host: \"a:80\"}]\n", "has a port: write a"},
        Mistake{"catalogue: {dialects: [creatoi]}\n", "did you mean \"creatio\"?"},
        Mistake{"catalogue: {dialects: [creatio, creatio]}\n", "is there twice"},
        Mistake{"catalogue: {custom_sections: [A, B, C, D]}\n", "at most 3 are allowed"},
        Mistake{"catalogue: {custom_sections: [\"a b\"]}\n", "is no entity name"},
        Mistake{"catalogue: {custom_sections: [UsrRealty], custom_children: {UsrRealti: [X]}}\n",
                "did you mean \"UsrRealty\"?"},
        Mistake{"catalogue: {uids: {123: Case}}\n", "is no UId"},
        Mistake{"catalogue: {relations: {Dealer: Account}}\n", "is no relation"},
        Mistake{"catalogue: {relations: {City.Dealer.Name: Account}}\n", "is no relation"},
        Mistake{"catalogue: {relations: {City.Dealer: \"an account\"}}\n", "is no entity name"},
        Mistake{"catalogue: {processes: {P: [{object: Case, operation: update}]}}\n",
                "\"update\" is not known"},
        Mistake{"catalogue: {processes: {P: [{object: Case}]}}\n", "\"operation\" is missing"},
        Mistake{"catalogue: {processes: {P: Case}}\n", "must be a list of {object: ..., operation: ...}"},
        Mistake{"licensing: {system: bpmonlin}\n", "did you mean \"bpmonline\"?"},
        Mistake{"licensing: {system: zoho}\n", "needs zoho in catalogue.dialects"},
        Mistake{"licensing: {user_types: {client: {modules: {Leads: [view]}}}}\n",
                "licensing.user_types belong to zoho"},
        Mistake{"quotas: [{name: q, limit: 1}, {name: q, limit: 2}]\n", "quota \"q\" is there twice"},
        Mistake{"quotas: [{name: q, limit: 1, per: [usr]}]\n", "did you mean \"user\"?"},
        Mistake{"quotas: [{name: q, limit: 1, per: [user, user]}]\n", "is there twice"},
        Mistake{"quotas: [{name: q, limit: 1, bucket: 2h, window: 1h}]\n",
                "bucket is longer than its window"},
        Mistake{"quotas: [{name: q, limit: 1, bucket: 1ms, window: 1h}]\n", "buckets, at most"},
        Mistake{"quotas: [{name: q, limit: 1, window: 24}]\n", "needs a unit"},
        Mistake{"quotas: [{name: q, limit: 1e3}]\n", "is no whole number"},
        Mistake{"quotas: [{name: q, limit: 1, per: [tenant], overrides: {a: 1}}]\n",
                "overrides needs user or organization"},
        Mistake{"quotas: [{name: q, limit: 1, overrides: {a: b}}]\n",
                "quotas[0].overrides.a: \"b\" is no whole number"},
        Mistake{"proxy: {trusted_proxies: [10.0.0.0/33]}\n", "prefix length between 0 and 32"},
        Mistake{"proxy: {trusted_proxies: [10.0.0.300]}\n", "is no network"},
        Mistake{"proxy: {trusted_proxies: [10.0.0.1/8]}\n", "has bits beyond its prefix: write 10.0.0.0/8"},
        Mistake{"proxy: {trusted_proxies: [\"fd00::1/8\"]}\n", "write fd00::/8"},
        Mistake{"proxy: {problem_base_url: example}\n", "must begin with https://"},
        Mistake{"proxy: {problem_base_url: \"\"}\n", "must not be empty"},
        Mistake{"journal: {directory: \"\"}\n", "journal.directory must not be empty"}));

TEST(Parse, WindowLongerThanTheJournalIsKeptIsAWarningUnlessItIsACandidate) {
  const std::string_view text =
      "quotas: [{name: q, limit: 1, window: 31d}, {name: s, mode: shadow, limit: 1, window: 31d}]\n";
  ParseOutcome outcome = parse_with(text);
  ASSERT_TRUE(outcome.ok());
  EXPECT_EQ(outcome.settings.quotas[0].mode, QuotaMode::enforce);
  EXPECT_EQ(outcome.settings.quotas[1].mode, QuotaMode::shadow);
  EXPECT_THAT(complaints(outcome),
              Contains(HasSubstr("quotas[0].window (31d) is longer than journal.retention (2d)")));
  EXPECT_THAT(complaints(outcome), testing::Not(Contains(HasSubstr("quotas[1].window"))));
  EXPECT_THAT(complaints(parse_with(std::string(text) + "journal: {retention: 31d}\n")),
              testing::Not(Contains(HasSubstr("journal.retention"))));
}

TEST(Parse, SettingsOfLeasesAndJournalAreRead) {
  ParseOutcome outcome = parse_with(
      "store: {url: 'redis+sentinel://a,b/m', durability: wait, min_replicas: 2, wait_timeout: 1s, strict: "
      "true, "
      "session: 3m, ping_interval: 20s, flush_interval: 1m, lease_max: 50, fence_wait: 2s}\n"
      "journal: {directory: j, segment_size: 1MiB, commit_interval: 50ms, retention: 72h, max_size: 1GiB, "
      "accounts: 2048, on_failure: continue}\n");
  ASSERT_TRUE(outcome.ok()) << testing::PrintToString(complaints(outcome));
  const Store& store = outcome.settings.store;
  EXPECT_EQ(store.durability, Durability::wait);
  EXPECT_EQ(store.min_replicas, 2U);
  EXPECT_EQ(store.wait_timeout, Milliseconds(1'000));
  EXPECT_TRUE(store.strict);
  EXPECT_EQ(store.session, Milliseconds(180'000));
  EXPECT_EQ(store.ping_interval, Milliseconds(20'000));
  EXPECT_EQ(store.flush_interval, Milliseconds(60'000));
  EXPECT_EQ(store.lease_max, 50U);
  EXPECT_EQ(store.fence_wait, Milliseconds(2'000));
  const Journal& journal = outcome.settings.journal;
  EXPECT_EQ(journal.segment_size, 1U << 20);
  EXPECT_EQ(journal.commit_interval, Milliseconds(50));
  EXPECT_EQ(journal.retention, std::chrono::hours(72));
  EXPECT_EQ(journal.max_size, 1U << 30);
  EXPECT_EQ(journal.accounts, 2'048U);
  EXPECT_EQ(journal.on_failure, OnJournalFailure::proceed);
  EXPECT_THAT(complaints(outcome), Contains(HasSubstr("never billed")));
}

struct IdentityMistake {
  std::string_view jwt, complaint;
};
class IdentityMistakes : public testing::TestWithParam<IdentityMistake> {};

TEST_P(IdentityMistakes, IsReported) {
  ParseOutcome outcome = parse(
      fmt::format(
          "version: 1\nupstreams: {{crm: {{servers: [\"http://a:1\"]}}}}\nidentity: {{jwt: [{{{}}}]}}\n",
          GetParam().jwt),
      "t.yaml", {});
  EXPECT_FALSE(outcome.ok());
  EXPECT_THAT(complaints(outcome), Contains(HasSubstr(std::string(GetParam().complaint))))
      << testing::PrintToString(complaints(outcome));
}

INSTANTIATE_TEST_SUITE_P(
    Parse, IdentityMistakes,
    testing::Values(
        IdentityMistake{"algorithms: [HS265], secret_file: k",
                        "\"HS265\" is not known; did you mean \"HS256\"?"},
        IdentityMistake{"algorithms: [none], secret_file: k", "\"none\" is not known"},
        IdentityMistake{"algorithms: [], secret_file: k", "algorithms needs at least 1 entry"},
        IdentityMistake{"algorithms: [HS256]", "needs one of secret_file, jwks_file, jwks_url"},
        IdentityMistake{"algorithms: [HS256], secret_file: k, jwks_url: \"https://x\"",
                        "secret_file and jwks_url contradict each other"},
        IdentityMistake{"algorithms: [RS256], secret_file: k", "RS256 needs a public key"},
        IdentityMistake{"algorithms: [RS256], jwks_url: \"file:///etc/passwd\"", "must begin with https://"},
        IdentityMistake{"algorithms: [RS256], jwks_url: \"https://u:p@h/\"",
                        "must not hold a user or password"},
        IdentityMistake{"algorithms: [HS256], secret_file: k, claims: {user: \"\"}",
                        "claims.user must not be empty"},
        IdentityMistake{"algorithms: [HS256], secret_file: k, leeway: 2h", "is outside 0 .. 1h"}));

// Of keys that are fetched: only to this machine itself may they come in the clear without a word.
TEST(Parse, OnlyThisMachineIsThisMachine) {
  const auto warned = [](std::string_view url) {
    const ParseOutcome outcome =
        parse(fmt::format("version: 1\nupstreams: {{crm: {{servers: [\"http://a:1\"]}}}}\n"
                          "identity: {{jwt: [{{algorithms: [RS256], jwks_url: \"{}\"}}]}}\n",
                          url),
              "t.yaml", {});
    return std::ranges::any_of(complaints(outcome), [](const std::string& text) {
      return text.find("whoever is between") != std::string::npos;
    });
  };
  for (const std::string_view own : {"http://localhost/k", "http://LOCALHOST:8080/k", "http://127.0.0.1:1",
                                     "http://127.8.9.1/k?a=b", "http://[::1]:80/k"})
    EXPECT_FALSE(warned(own)) << own;
  for (const std::string_view other :
       {"http://localhost.example/k", "http://127.example/k", "http://127.0.0.1.example:80/k",
        "http://example?@localhost/k", "http://[::1:2]/k", "http://localhostage/"})
    EXPECT_TRUE(warned(other)) << other;
}

TEST(ParseEnvironment, ReferenceIsReplacedAndMissingVariableIsNamed) {
  ParseOutcome set = parse_with("access_log: {file: \"${DIR}/a-${N:-1}.log\"}\n", {{"DIR", "/var"}});
  EXPECT_EQ(set.settings.access_log.file, "/var/a-1.log");
  ParseOutcome unset = parse_with("access_log: {file: \"${DIR}/a.log\"}\n");
  EXPECT_THAT(complaints(unset), Contains(HasSubstr("7:20: environment variable DIR is not set")));
}

TEST(ParseEnvironment, ReferenceRulesOfTheShell) {
  Environment environment{{"EMPTY", ""}, {"NESTED", "${EMPTY}"}};
  auto value = [&](std::string_view text) {
    return parse_with(fmt::format("access_log: {{file: '{}'}}\n", text), environment)
        .settings.access_log.file;
  };
  EXPECT_EQ(value("a${EMPTY}b"), "ab");
  EXPECT_EQ(value("${EMPTY:-x}"), "x");
  EXPECT_EQ(value("${NONE:-}"), "");
  EXPECT_EQ(value("$${NONE}"), "${NONE}");
  EXPECT_EQ(value("$NONE $"), "$NONE $");
  EXPECT_EQ(value("${NESTED}"), "${EMPTY}") << "what a variable holds is not looked at again";
  EXPECT_THAT(complaints(parse_with("access_log: {file: '${OPEN'}\n")), Contains(HasSubstr("without \"}\"")));
  EXPECT_THAT(complaints(parse_with("access_log: {file: '${a-b}'}\n")),
              Contains(HasSubstr("names no environment variable")));
}

TEST(ParseEnvironment, MissingVariableIsTheOnlyComplaintAboutItsValue) {
  ParseOutcome outcome = parse_with("workers: ${N}\n");
  EXPECT_EQ(std::count_if(outcome.diagnostics.begin(), outcome.diagnostics.end(),
                          [](const Diagnostic& d) { return d.severity == Severity::error; }),
            1);
}

TEST(ParseEnvironment, VariableWinsOverFileAndFileOverDefault) {
  ParseOutcome outcome = parse_with("store: {url: redis://file, timeout: 20ms}\n",
                                    {{"TOLLGATE_STORE__URL", "redis://env"}, {"TOLLGATE_WORKERS", "7"}});
  EXPECT_EQ(outcome.settings.store.url, "redis://env");
  EXPECT_EQ(outcome.settings.store.timeout, Milliseconds(20));
  EXPECT_EQ(outcome.settings.store.connect_timeout, Milliseconds(1'000));
  EXPECT_EQ(outcome.settings.workers, 7U);
  EXPECT_EQ(outcome.positions.at("store.url").file, "environment TOLLGATE_STORE__URL");
}

TEST(ParseEnvironment, ListsMapsAndNewEntriesCanBeSet) {
  ParseOutcome outcome = parse_with("", {{"TOLLGATE_UPSTREAMS__CRM__SERVERS", "http://a:1, http://b:2"},
                                         {"TOLLGATE_LISTENERS__0__ADDRESS", "127.0.0.1:1"},
                                         {"TOLLGATE_LISTENERS__1__ADDRESS", "127.0.0.1:2"},
                                         {"TOLLGATE_CATALOGUE__DIALECTS", "[rest, zoho]"},
                                         {"TOLLGATE_QUOTAS", "[{name: q, limit: 3}]"}});
  ASSERT_TRUE(outcome.ok()) << testing::PrintToString(complaints(outcome));
  EXPECT_THAT(outcome.settings.upstreams.at(0).servers, testing::ElementsAre("http://a:1", "http://b:2"));
  EXPECT_EQ(outcome.settings.listeners.at(1).address, "127.0.0.1:2");
  EXPECT_THAT(outcome.settings.catalogue.dialects, testing::ElementsAre("rest", "zoho"));
  EXPECT_EQ(outcome.settings.quotas.at(0).limit, 3U);
}

TEST(ParseEnvironment, MistakesNameTheVariable) {
  ParseOutcome outcome = parse_with(
      "",
      {{"TOLLGATE_STORE__URI", "x"}, {"TOLLGATE_STORE__TIMEOUT", "5"}, {"TOLLGATE_QUOTAS__7__NAME", "x"}});
  std::vector<std::string> texts;
  for (const Diagnostic& d : outcome.diagnostics) texts.push_back(to_string(d));
  EXPECT_THAT(
      texts,
      Contains(HasSubstr(
          "environment TOLLGATE_STORE__URI: error: unknown key \"uri\" in store; did you mean \"url\"?")));
  EXPECT_THAT(
      texts,
      Contains(HasSubstr("environment TOLLGATE_STORE__TIMEOUT: error: store.timeout: \"5\" needs a unit")));
  EXPECT_THAT(texts, Contains(HasSubstr("environment TOLLGATE_QUOTAS__7__NAME: error: leads to no key")));
}

TEST(ParseEnvironment, VariablesThatOthersSetAreIgnored) {
  Environment kubernetes{{"TOLLGATE_PORT", "tcp://10.0.0.1:80"},
                         {"TOLLGATE_SERVICE_HOST", "10.0.0.1"},
                         {"TOLLGATE_PORT_8080_TCP_ADDR", "10.0.0.1"},
                         {"TOLLGATE_VERSION", "0.1.0"},
                         {"HOME", "/"}};
  EXPECT_TRUE(parse_with("", kubernetes).ok());
}

}  // namespace
}  // namespace tollgate::config
