// The house's own rules, read from the sources: which way an include may point, who may see which third-party
// library, where clocks and randomness may be read, and that every top-level folder explains itself.
// A failure names the file, the line and the cure.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

struct Room {
  std::string folder;  // longest match wins
  int layer;
  std::set<std::string> libraries;  // third-party headers it may include, by family
};

// Layer 0: base. 1: pure rules. 2: one request. 3: edges. 4: composition. 9: tests and benches, which see
// everything.
const std::vector<Room>& rooms() {
  static const std::vector<Room> kRooms = {
      {"metering/base", 0, {}},
      {"metering/identity", 1, {"openssl", "simdjson", "xxhash", "boost"}},
      {"metering/catalogue", 1, {"simdjson"}},
      {"metering/licence", 1, {}},
      {"metering/quota", 1, {"xxhash"}},
      {"metering/seats", 1, {"xxhash", "boost"}},
      {"metering/usage", 1, {}},
      {"metering/sizing", 1, {}},
      {"proxy/http", 1, {}},
      {"config", 1, {"yaml-cpp"}},
      {"proxy/flow", 2, {}},
      {"config/load", 3, {"yaml-cpp"}},
      {"metering/redis", 3, {"hiredis", "libevent", "openssl"}},
      {"metering/journal", 3, {}},
      {"metering/billing", 3, {"sqlite", "openssl"}},
      {"proxy/net", 3, {"libevent", "openssl", "curl"}},
      {"proxy/telemetry", 3, {"prometheus", "spdlog"}},
      {"proxy/admin", 3, {"simdjson"}},
      {"proxy/cli", 4, {"CLI11", "curl", "openssl", "libevent", "hiredis", "simdjson"}},
      {"proxy", 4, {"spdlog"}},
      {"tests", 9, {}},
      {"bench", 9, {}},
  };
  return kRooms;
}

const Room* room_of(const std::string& path) {
  const Room* best = nullptr;
  for (const Room& room : rooms())
    if (path.starts_with(room.folder + "/") && (best == nullptr || room.folder.size() > best->folder.size()))
      best = &room;
  return best;
}

// Family of a third-party header, or "" for the standard library and the system.
std::string family_of(const std::string& header) {
  static const std::vector<std::pair<std::string, std::string>> kFamilies = {
      {"openssl/", "openssl"},   {"event2/", "libevent"},    {"event.h", "libevent"},
      {"curl/", "curl"},         {"hiredis/", "hiredis"},    {"prometheus/", "prometheus"},
      {"yaml-cpp/", "yaml-cpp"}, {"simdjson", "simdjson"},   {"xxhash", "xxhash"},
      {"boost/", "boost"},       {"CLI/", "CLI11"},          {"spdlog/", "spdlog"},
      {"sqlite3", "sqlite"},     {"zstd", "zstd"},           {"nghttp2/", "nghttp2"},
      {"nlohmann/", "nlohmann"}, {"rapidjson/", "rapidjson"}};
  for (const auto& [prefix, family] : kFamilies)
    if (header.starts_with(prefix)) return family;
  return "";
}

struct SourceLine {
  std::string file;  // relative to the root
  int number;
  std::string text;
};

// Every line of every source of ours, without comments and the inside of string literals.
const std::vector<SourceLine>& lines() {
  static const std::vector<SourceLine> kLines = [] {
    std::vector<SourceLine> out;
    const fs::path root = TOLLGATE_SOURCE_DIR;
    for (const char* top : {"proxy", "metering", "config", "bench", "tests"}) {
      if (!fs::exists(root / top)) continue;
      for (const auto& entry : fs::recursive_directory_iterator(root / top)) {
        const std::string extension = entry.path().extension().string();
        if (!entry.is_regular_file() || (extension != ".h" && extension != ".cc")) continue;
        std::ifstream in(entry.path());
        std::string text;
        for (int number = 1; std::getline(in, text); ++number)
          out.push_back({fs::relative(entry.path(), root).string(), number, text});
      }
    }
    return out;
  }();
  return kLines;
}

struct Include {
  std::string header;
  bool quoted;
};

std::optional<Include> include_of(const std::string& line) {
  static const std::regex kInclude(R"re(^\s*#\s*include\s*([<"])([^>"]+)[>"])re");
  std::smatch match;
  if (!std::regex_search(line, match, kInclude)) return std::nullopt;
  return Include{match[2], match[1] == "\""};
}

// The complaint about one include of ours by one file of ours, or "".
std::string wrong_arrow(const std::string& file, const std::string& header) {
  const Room* from = room_of(file);
  const Room* to = room_of(header);
  if (from == nullptr || to == nullptr || from == to) return "";
  if (from->layer == 9) return "";
  if (to->layer == 9)
    return "a test or bench is included by the product: move what is shared down into a room";
  if (to->layer > from->layer)
    return from->folder + " (layer " + std::to_string(from->layer) + ") includes " + to->folder + " (layer " +
           std::to_string(to->layer) +
           "): arrows point down only. Pass the value in as an argument, or declare an "
           "interface in " +
           from->folder + " that " + to->folder + " implements";
  if (to->layer == 3 && from->layer == 3 && !(from->folder == "config/load" && to->folder == "config"))
    return "edges do not include each other: let proxy/cli wire " + from->folder + " and " + to->folder +
           " together";
  return "";
}

std::string without_comment_and_text(const std::string& line) {
  std::string out;
  bool in_text = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (in_text) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        in_text = false;
      continue;
    }
    if (c == '"') {
      in_text = true;
      continue;
    }
    if (c == '/' && i + 1 < line.size() && line[i + 1] == '/') break;
    out.push_back(c);
  }
  return out;
}

}  // namespace

TEST(House, IncludesPointDownTheLayers) {
  int seen = 0;
  for (const SourceLine& line : lines()) {
    const auto include = include_of(line.text);
    if (!include || !include->quoted) continue;
    ++seen;
    const std::string complaint = wrong_arrow(line.file, include->header);
    EXPECT_EQ(complaint, "") << line.file << ":" << line.number << ": " << line.text;
  }
  EXPECT_GT(seen, 20) << "the sources were not found";
}

TEST(House, AWrongArrowIsNoticed) {
  EXPECT_NE(wrong_arrow("metering/quota/rules.cc", "proxy/flow/gate.h"), "");
  EXPECT_NE(wrong_arrow("metering/base/ascii.cc", "metering/quota/rules.h"), "");
  EXPECT_NE(wrong_arrow("config/parse.cc", "config/load/load.h"), "");
  EXPECT_NE(wrong_arrow("proxy/net/worker.cc", "metering/redis/connection.h"), "");
  EXPECT_NE(wrong_arrow("proxy/flow/gate.cc", "tests/standin/crm.h"), "");
  EXPECT_EQ(wrong_arrow("config/load/load.cc", "config/settings.h"), "");
  EXPECT_EQ(wrong_arrow("proxy/cli/serve.cc", "metering/redis/connection.h"), "");
}

TEST(House, ThirdPartyHeadersStayInTheirRooms) {
  for (const SourceLine& line : lines()) {
    const auto include = include_of(line.text);
    if (!include || include->quoted) continue;
    const Room* room = room_of(line.file);
    if (room == nullptr || room->layer == 9) continue;
    const std::string family = family_of(include->header);
    EXPECT_TRUE(family.empty() || room->libraries.contains(family))
        << line.file << ":" << line.number << ": " << include->header
        << " belongs to other rooms. Wrap it behind a class of the "
        << "room that owns " << family << ", or add the library to " << room->folder
        << " here and in CMakeLists.txt with a reason";
  }
}

TEST(House, OurHeadersAreIncludedFromTheRoot) {
  const fs::path root = TOLLGATE_SOURCE_DIR;
  for (const SourceLine& line : lines()) {
    const auto include = include_of(line.text);
    if (!include || !include->quoted) continue;
    const bool generated =
        include->header.starts_with("embedded_") || include->header == "tollgate_version.h";
    EXPECT_TRUE(generated || fs::exists(root / include->header))
        << line.file << ":" << line.number
        << ": write the path from the root, such as \"metering/base/error.h\"";
  }
}

TEST(House, OnlyEdgesReadClocksAndDrawRandomness) {
  static const std::regex kWorld(
      R"re(_clock::now|\bgettimeofday\s*\(|\bclock_gettime\s*\(|\bstd::time\s*\(|[^_\w.>:]time\s*\(\s*(nullptr|NULL|0|&)|\bsrand\s*\(|\brand\s*\(\)|\brandom_device\b|\bgetrandom\s*\(|\bRAND_bytes\s*\()re");
  for (const SourceLine& line : lines()) {
    const Room* room = room_of(line.file);
    if (room == nullptr || room->layer >= 3) continue;
    EXPECT_FALSE(std::regex_search(without_comment_and_text(line.text), kWorld))
        << line.file << ":" << line.number << ": " << line.text
        << "\n  time and randomness are arguments below the edges: take a MonotonicTime, UnixTime or seed as "
           "a parameter";
  }
}

TEST(House, OnlyEdgesTouchSocketsFilesAndThreads) {
  // <arpa/inet.h> is not among them: inet_pton is arithmetic on text.
  static const std::set<std::string> kWorldly = {"sys/socket.h", "netdb.h",     "unistd.h",       "fcntl.h",
                                                 "poll.h",       "sys/epoll.h", "event2/event.h", "thread",
                                                 "fstream",      "filesystem"};
  for (const SourceLine& line : lines()) {
    const auto include = include_of(line.text);
    const Room* room = room_of(line.file);
    if (!include || include->quoted || room == nullptr || room->layer >= 3) continue;
    EXPECT_FALSE(kWorldly.contains(include->header))
        << line.file << ":" << line.number << ": <" << include->header
        << "> belongs to the edges. Let an edge do it and pass the result in";
  }
}

TEST(House, EveryTopLevelFolderExplainsItself) {
  const fs::path root = TOLLGATE_SOURCE_DIR;
  for (const char* top : {".", "proxy", "metering", "config", "bench", "tests", "helm"}) {
    const fs::path readme = root / top / "README.md";
    ASSERT_TRUE(fs::exists(readme))
        << readme << " is missing: one page on what lives here, what may not, what to read first";
    EXPECT_GT(fs::file_size(readme), 200u) << readme;
  }
}

TEST(House, OnlyKnownNamesStandAtTheRoot) {
  static const std::set<std::string> kNames = {"CMakeLists.txt", "CMakePresets.json",
                                               "Dockerfile",     "LICENSE",
                                               "README.md",      "bench",
                                               "config",         "dev",
                                               "docs",           "helm",
                                               "metering",       "proxy",
                                               "tests",          "build"};
  for (const auto& entry : fs::directory_iterator(TOLLGATE_SOURCE_DIR)) {
    const std::string name = entry.path().filename().string();
    EXPECT_TRUE(name.starts_with('.') || kNames.contains(name))
        << name << " does not belong at the root: put it into one of the rooms, or into docs/";
  }
}

TEST(House, EveryReasonHasItsPage) {
  const fs::path problems = fs::path(TOLLGATE_SOURCE_DIR) / "docs/problems";
  std::ifstream in(fs::path(TOLLGATE_SOURCE_DIR) / "metering/base/reason.cc");
  static const std::regex kRow(R"re(^\s*\{"([a-z_]+)", \d+, )re");
  std::string line;
  int rows = 0;
  while (std::getline(in, line)) {
    std::smatch match;
    if (!std::regex_search(line, match, kRow)) continue;
    ++rows;
    std::string code = match[1];
    if (code == "ok" || code == "client_closed") continue;
    std::replace(code.begin(), code.end(), '_', '-');
    const fs::path page = problems / (code + ".md");
    EXPECT_TRUE(fs::exists(page))
        << page << " is missing: replies link to it; say what it means and what caller and operator do";
  }
  EXPECT_GE(rows, 20);
}

TEST(House, NoHeaderIsWithoutItsGuardAndManual) {
  std::map<std::string, std::pair<bool, bool>> headers;  // file -> has #pragma once, opens with a comment
  for (const SourceLine& line : lines()) {
    if (!line.file.ends_with(".h")) continue;
    auto& [guard, manual] = headers[line.file];
    if (line.text.starts_with("#pragma once")) guard = true;
    if (line.number == 1 && line.text.starts_with("//")) manual = true;
  }
  for (const auto& [file, facts] : headers) {
    EXPECT_TRUE(facts.first) << file << ": add #pragma once";
    EXPECT_TRUE(facts.second) << file << ": open with what it is, why it exists, and its rules";
  }
}
