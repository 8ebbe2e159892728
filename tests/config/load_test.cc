// Loading from disk: the examples, one broken file per mistake, and the files that a configuration names.
#include "config/load/load.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/config/support/samples.h"

namespace tollgate::config {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::HasSubstr;

constexpr std::string_view kSecret = "0123456789abcdef0123456789abcdef\n";

class Load : public testing::Test {
 protected:
  Load() {
    std::string pattern = (fs::temp_directory_path() / "tollgate-load-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
    write("k", kSecret);
  }
  ~Load() override { fs::remove_all(folder_); }

  void write(const std::string& name, std::string_view text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }
  auto load_with(std::string_view addition) {
    write("t.yaml", std::string(kSmallest) + std::string(addition));
    return load((folder_ / "t.yaml").string(), {});
  }
  std::vector<std::string> complaints(std::string_view addition) {
    std::vector<std::string> out;
    auto loaded = load_with(addition);
    for (const Diagnostic& d : loaded ? loaded->warnings : loaded.error()) out.push_back(to_string(d));
    return out;
  }
  fs::path folder_;
};

TEST_F(Load, PathsBecomeAbsoluteAndContentsAreRead) {
  auto loaded = load_with(
      "journal: {directory: ./j}\naccess_log: {file: logs/a.log}\nstore: {url: \"embedded:r/../r2\"}\n");
  ASSERT_TRUE(loaded.has_value());
  EXPECT_EQ(loaded->settings.base_directory, folder_.string());
  EXPECT_EQ(loaded->settings.journal.directory, (folder_ / "j").string());
  EXPECT_EQ(loaded->settings.access_log.file, (folder_ / "logs/a.log").string());
  EXPECT_EQ(loaded->settings.store.url, "embedded:" + (folder_ / "r2").string());
  const std::string& secret = loaded->settings.identity.jwt[0].secret_file;
  EXPECT_EQ(secret, (folder_ / "k").string());
  EXPECT_EQ(loaded->file_texts.at(secret), kSecret);
  EXPECT_FALSE(fs::exists(folder_ / "j")) << "loading writes nothing";
}

TEST_F(Load, StandardOutputAndOffStayAsTheyAre) {
  EXPECT_EQ(load_with("access_log: {file: \"-\"}\n")->settings.access_log.file, "-");
  EXPECT_EQ(load_with("access_log: {file: \"\"}\n")->settings.access_log.file, "");
}

TEST_F(Load, MissingFileIsReportedInThePlaceOfItsKey) {
  EXPECT_THAT(complaints("admin: {token_file: nothing}\n"),
              Contains(HasSubstr("t.yaml:7:21: error: admin.token_file: " + (folder_ / "nothing").string() +
                                 " does not exist")));
}

TEST_F(Load, FolderAndPipeAreNoFiles) {
  fs::create_directory(folder_ / "d");
  EXPECT_THAT(complaints("admin: {token_file: d}\n"), Contains(HasSubstr("is a folder, not a file")));
  EXPECT_THAT(complaints("admin: {token_file: /dev/zero}\n"), Contains(HasSubstr("is not a plain file")));
}

TEST_F(Load, ShortSecretIsAnError) {
  write("k", "short\n");
  EXPECT_THAT(complaints(""), Contains(HasSubstr("t.yaml:6:73: error: identity.jwt[0].secret_file")));
}

TEST_F(Load, BrokenKeySetIsAnError) {
  write("jwks", "{\"keys\": []}");
  write("t.yaml",
        "version: 1\nupstreams: {crm: {servers: [\"http://a:1\"]}}\nidentity: {jwt: [{algorithms: [RS256], "
        "jwks_file: jwks}]}\n");
  auto loaded = load((folder_ / "t.yaml").string(), {});
  ASSERT_FALSE(loaded.has_value());
  EXPECT_EQ(loaded.error().size(), 2U);
  EXPECT_THAT(to_string(loaded.error()[1]), HasSubstr("t.yaml:3:51: error: identity.jwt[0].jwks_file"));
}

TEST_F(Load, BrokenDirectoryFileIsAnErrorWithItsLine) {
  write("users.csv", "user,organization,license,user_type\nann,,,boss\n");
  EXPECT_THAT(complaints("licensing: {directory_file: users.csv}\n"),
              Contains(HasSubstr("line 2: user_type")));
}

TEST_F(Load, EveryUnknownProductIsReportedWithTheNearest) {
  auto lines = complaints("licensing: {main_products: [service_entreprise, sales_enterprise, zebra]}\n");
  EXPECT_THAT(lines, Contains(HasSubstr("7:29: error: licensing.main_products: \"service_entreprise\" is not "
                                        "known; did you mean \"service_enterprise\"?")));
  EXPECT_THAT(lines, Contains(HasSubstr("\"zebra\" is not known; known are: ")));
}

TEST_F(Load, StockObjectIsNoCustomSection) {
  EXPECT_THAT(complaints("catalogue: {custom_sections: [Case]}\n"),
              Contains(HasSubstr("Case is an object of the CRM itself")));
}

TEST_F(Load, EmptyAdminTokenIsAnError) {
  write("token", "\n");
  EXPECT_THAT(complaints("admin: {token_file: token}\n"), Contains(HasSubstr("is empty")));
}

TEST_F(Load, JournalBelowAFileIsAnError) {
  EXPECT_THAT(complaints("journal: {directory: k/journal}\n"), Contains(HasSubstr("cannot be made")));
}

TEST_F(Load, MissingConfigurationFileSaysSo) {
  auto loaded = load((folder_ / "nothing.yaml").string(), {});
  ASSERT_FALSE(loaded.has_value());
  EXPECT_THAT(to_string(loaded.error()[0]), HasSubstr("nothing.yaml: error: the file does not exist"));
}

TEST_F(Load, MinimalExampleOfTheManualWorksAsItStands) {
  fs::copy(TOLLGATE_SOURCE_DIR "/config/examples/minimal.yaml", folder_ / "minimal.yaml");
  write("hs256.key", kSecret);
  write("admin.token", "token");
  auto loaded = load((folder_ / "minimal.yaml").string(), {});
  ASSERT_TRUE(loaded.has_value()) << to_string(loaded.error().front());
  EXPECT_THAT(loaded->warnings, testing::IsEmpty());
  EXPECT_EQ(loaded->settings.quotas[0].limit, 1'000U);
  EXPECT_EQ(loaded->settings.quotas[0].window, std::chrono::hours(24));
  EXPECT_EQ(loaded->settings.identity.jwt[0].audience[0], "crm-portal");
  EXPECT_EQ(secret_of_file(loaded->file_texts.at((folder_ / "admin.token").string())), "token");
}

TEST_F(Load, DemoExampleWorksAsItStands) {
  auto loaded = load(TOLLGATE_SOURCE_DIR "/config/examples/demo.yaml", {});
  ASSERT_TRUE(loaded.has_value()) << to_string(loaded.error().front());
  EXPECT_THAT(loaded->warnings, testing::IsEmpty());
  EXPECT_EQ(loaded->settings.quotas[0].overrides.at("mallory"), 5U);
}

TEST(LoadText, LineEndsAtTheEndOfATokenFileAreNotPartOfIt) {
  EXPECT_EQ(secret_of_file("a\r\n"), "a");
  EXPECT_EQ(secret_of_file("a b\n\n"), "a b");
  EXPECT_EQ(secret_of_file(""), "");
}

// tests/bad_config/NAME.yaml holds one mistake; NAME.expected what is said about it, in full.
class BadConfig : public testing::TestWithParam<std::string> {};

std::string read_all(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

TEST_P(BadConfig, IsRefusedWithTheExpectedWords) {
  fs::path folder = TOLLGATE_SOURCE_DIR "/tests/bad_config";
  fs::path file = folder / (GetParam() + ".yaml");
  auto loaded = load_text(read_all(file), file.string(), {});
  ASSERT_FALSE(loaded.has_value());
  std::string said;
  for (const Diagnostic& d : loaded.error()) said += to_string(d) + "\n";
  for (std::size_t at = said.find(folder.string() + "/"); at != std::string::npos;
       at = said.find(folder.string() + "/"))
    said.erase(at, folder.string().size() + 1);
  if (std::getenv("TOLLGATE_WRITE_EXPECTED") != nullptr)
    std::ofstream(folder / (GetParam() + ".expected")) << said;
  EXPECT_EQ(said, read_all(folder / (GetParam() + ".expected")));
}

std::vector<std::string> bad_files() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(TOLLGATE_SOURCE_DIR "/tests/bad_config"))
    if (entry.path().extension() == ".yaml") names.push_back(entry.path().stem().string());
  std::sort(names.begin(), names.end());
  return names;
}
INSTANTIATE_TEST_SUITE_P(Load, BadConfig, testing::ValuesIn(bad_files()),
                         [](const auto& each) { return each.param; });

}  // namespace
}  // namespace tollgate::config
