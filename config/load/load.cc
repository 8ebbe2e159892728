#include "config/load/load.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <set>

#include "config/keys.h"
#include "config/load/contents.h"
#include "config/validate.h"

extern char** environ;  // NOLINT: POSIX

namespace tollgate::config {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kEmbedded = "embedded:";

// The content, or why there is none.
std::expected<std::string, std::string> read_file(const std::string& path, std::size_t bytes_max) {
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) {
    int reason = errno;
    if (reason == ENOENT) return std::unexpected("does not exist");
    return std::unexpected(fmt::format("cannot be read: {}", std::strerror(reason)));
  }
  if (S_ISDIR(info.st_mode)) return std::unexpected("is a folder, not a file");
  // Anything but a plain file could block for ever (a pipe) or never end (a device).
  if (!S_ISREG(info.st_mode)) return std::unexpected("is not a plain file");
  if (static_cast<std::uint64_t>(info.st_size) > bytes_max)
    return std::unexpected(fmt::format("has {} bytes; at most {} are read", info.st_size, bytes_max));
  std::ifstream in(path, std::ios::binary);
  if (!in) return std::unexpected(fmt::format("cannot be read: {}", std::strerror(errno)));
  std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  if (in.bad()) return std::unexpected("cannot be read: input/output error");
  return text;
}

// Makes paths absolute and reads what is only read.
class FileWalk {
 public:
  FileWalk(LoadedConfig& loaded, std::vector<Diagnostic>& diagnostics)
      : loaded_(loaded), diagnostics_(diagnostics) {}

  void walk(const Fields& fields, const std::string& prefix) {
    for (const Field& field : fields) {
      std::string path = prefix + std::string(field.name);
      if (const auto* text = std::get_if<Text>(&field.value)) visit(*text, path);
      if (const auto* group = std::get_if<Group>(&field.value)) walk(group->fields, path + ".");
      if (const auto* group = std::get_if<OptionalGroup>(&field.value); group != nullptr && group->present())
        walk(group->get(), path + ".");
      if (const auto* items = std::get_if<Items>(&field.value))
        for (std::size_t i = 0; i < items->count(); ++i)
          walk(items->at(i), items->named ? fmt::format("{}.{}.", path, items->name_of(i))
                                          : fmt::format("{}[{}].", path, i));
    }
  }

 private:
  std::string absolute(const std::string& path) const {
    return (fs::path(loaded_.settings.base_directory) / path).lexically_normal().string();
  }

  void visit(const Text& text, const std::string& path) {
    std::string& value = *text.target;
    if (text.format == Format::store_url && value.starts_with(kEmbedded))
      value = std::string(kEmbedded) + absolute(value.substr(kEmbedded.size()));
    if (value.empty()) return;
    if (text.format == Format::directory) value = absolute(value);
    if (text.format == Format::output_file && value != "-") value = absolute(value);
    if (text.format != Format::input_file) return;
    value = absolute(value);
    if (loaded_.file_texts.contains(value)) return;
    auto content = read_file(value, kReferencedFileBytesMax);
    if (content) {
      loaded_.file_texts.emplace(value, std::move(*content));
      return;
    }
    Position at = position_of(loaded_.positions, path);
    diagnostics_.push_back({at.file, at.line, at.column, Severity::error,
                            fmt::format("{}: {} {}", path, value, content.error())});
  }

  LoadedConfig& loaded_;
  std::vector<Diagnostic>& diagnostics_;
};

// Where the folders that are written to must lie: in something that exists.
void check_output_folders(const LoadedConfig& loaded, std::vector<Diagnostic>& diagnostics) {
  auto check = [&](const std::string& key, const fs::path& path) {
    std::error_code failure;
    for (fs::path at = path; !at.empty(); at = at.parent_path()) {
      if (!fs::exists(at, failure)) {
        if (at == at.parent_path()) return;
        continue;
      }
      if (fs::is_directory(at, failure)) return;
      Position place = position_of(loaded.positions, key);
      diagnostics.push_back(
          {place.file, place.line, place.column, Severity::error,
           fmt::format("{}: {} cannot be made: {} is a file", key, path.string(), at.string())});
      return;
    }
  };
  const Settings& settings = loaded.settings;
  check("journal.directory", settings.journal.directory);
  if (!settings.access_log.file.empty() && settings.access_log.file != "-")
    check("access_log.file", fs::path(settings.access_log.file).parent_path());
  if (settings.store.url.starts_with(kEmbedded))
    check("store.url", settings.store.url.substr(kEmbedded.size()));
}

}  // namespace

std::expected<LoadedConfig, std::vector<Diagnostic>> load_text(std::string_view yaml, const std::string& path,
                                                               const Environment& environment) {
  ParseOutcome outcome = parse(yaml, path, environment);
  LoadedConfig loaded;
  loaded.settings = std::move(outcome.settings);
  loaded.positions = std::move(outcome.positions);
  std::error_code failure;
  fs::path folder = path == "-" ? fs::current_path(failure) : fs::absolute(path, failure).parent_path();
  loaded.settings.base_directory = folder.lexically_normal().string();
  std::vector<Diagnostic> diagnostics = std::move(outcome.diagnostics);
  // Also after errors: whoever mends a file wants to hear of the missing key file in the same go.
  FileWalk(loaded, diagnostics).walk(describe(loaded.settings), "");
  check_output_folders(loaded, diagnostics);
  check_contents(loaded, diagnostics);
  std::stable_sort(diagnostics.begin(), diagnostics.end(), [](const Diagnostic& a, const Diagnostic& b) {
    return std::tie(a.line, a.column) < std::tie(b.line, b.column);
  });
  if (has_errors(diagnostics)) return std::unexpected(std::move(diagnostics));
  loaded.warnings = std::move(diagnostics);
  return loaded;
}

std::expected<LoadedConfig, std::vector<Diagnostic>> load(const std::string& path,
                                                          const Environment& environment) {
  try {
    if (path == "-") {
      std::string text{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
      return load_text(text, path, environment);
    }
    auto text = read_file(path, kFileBytesMax);
    if (!text)
      return std::unexpected(
          std::vector<Diagnostic>{{path, 0, 0, Severity::error, "the file " + text.error()}});
    return load_text(*text, path, environment);
  } catch (const std::exception& e) {
    return std::unexpected(std::vector<Diagnostic>{{path, 0, 0, Severity::error, e.what()}});
  }
}

Environment process_environment() {
  Environment environment;
  for (char** variable = environ; variable != nullptr && *variable != nullptr; ++variable) {
    std::string_view text(*variable);
    if (std::size_t equals = text.find('='); equals != std::string_view::npos)
      environment.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return environment;
}

std::string_view secret_of_file(std::string_view bytes) {
  while (!bytes.empty() && (bytes.back() == '\n' || bytes.back() == '\r')) bytes.remove_suffix(1);
  return bytes;
}

}  // namespace tollgate::config
