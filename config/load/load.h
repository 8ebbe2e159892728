// EDGE: a configuration file from disk to settings, with every file it names.
//
//   auto loaded = load("/etc/tollgate/tollgate.yaml", process_environment());
//   if (!loaded) for (auto& d : loaded.error()) print(config::to_string(d));   // every mistake at once; exit
//   78 loaded->file_texts.at(loaded->settings.identity.jwt[0].secret_file)        // bytes of the secret
//
// Relative paths are relative to the folder of the file; in the settings that come out every path is absolute
// (store.url "embedded:DIR" too), except access_log.file "-" and "". Files that are only read (secrets, keys,
// certificates, key sets, directory, rules) must exist and be readable and are read here, once, so that a
// reload that fails leaves the running settings whole. Folders that are written (journal, embedded store) are
// not created.
//
// No state; call from any thread, not from a worker: it blocks on the disk.
#pragma once
#include <expected>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "config/parse.h"
#include "config/settings.h"

namespace tollgate::config {

inline constexpr std::size_t kReferencedFileBytesMax = 64 * 1024 * 1024;

struct LoadedConfig {
  Settings settings;  // paths absolute, base_directory set
  // Absolute path -> content, for every file the settings name and that is only read. Bytes as on disk.
  std::map<std::string, std::string> file_texts;
  std::vector<Diagnostic> warnings;
  Positions positions;  // where each value came from
};

// path "-" reads standard input (relative paths are then relative to the working directory).
std::expected<LoadedConfig, std::vector<Diagnostic>> load(const std::string& path,
                                                          const Environment& environment);
// The same for a text that is already in memory; `path` gives the folder and the name shown in messages.
std::expected<LoadedConfig, std::vector<Diagnostic>> load_text(std::string_view yaml, const std::string& path,
                                                               const Environment& environment);

// The variables of this process.
Environment process_environment();

// A password or bearer token as it is compared: the content of its file without the line end (LF, CRLF) that
// editors and `echo` add. Signing secrets have their own rule: identity::decode_secret.
std::string_view secret_of_file(std::string_view bytes);

}  // namespace tollgate::config
