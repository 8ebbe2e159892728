#include "config/load/contents.h"

#include <fmt/format.h>

#include "config/keys.h"
#include "config/load/rulebook.h"
#include "config/suggest.h"
#include "config/validate.h"
#include "metering/identity/api_keys.h"
#include "metering/identity/directory.h"
#include "metering/identity/key_set.h"
#include "metering/identity/session.h"

namespace tollgate::config {
namespace {

class ContentCheck {
 public:
  ContentCheck(const LoadedConfig& loaded, std::vector<Diagnostic>& diagnostics)
      : loaded_(loaded), diagnostics_(diagnostics) {}

  void check_issuer(const JwtIssuer& jwt, const std::string& path) {
    if (const std::string* text = text_of(jwt.secret_file)) {
      auto keys = identity::KeySet::from_secret(*text, jwt.algorithms);
      if (!keys) error(path + ".secret_file", jwt.secret_file, keys.error().message);
    }
    if (const std::string* text = text_of(jwt.jwks_file)) {
      auto keys = identity::KeySet::from_text(*text);
      if (!keys)
        error(path + ".jwks_file", jwt.jwks_file, keys.error().message);
      else
        for (const std::string& note : keys->notes()) warn(path + ".jwks_file", jwt.jwks_file, note);
    }
  }

  void check_token(const std::string& path, const std::string& file) {
    const std::string* text = text_of(file);
    if (text == nullptr) return;
    std::string_view token = secret_of_file(*text);
    if (token.empty()) error(path, file, "is empty");
    if (token.find_first_of("\r\n") != std::string_view::npos) error(path, file, "holds more than one line");
  }

  void check_pass_secret(const IdentityPass& pass) {
    if (const std::string* text = text_of(pass.secret_file))
      if (auto keys = identity::KeySet::from_secret(*text); !keys)
        error("identity.pass.secret_file", pass.secret_file, keys.error().message);
  }

  void check_api_keys(const ApiKeys& settings) {
    const std::string* text = text_of(settings.file);
    if (text == nullptr) return;
    const std::string* secret = text_of(settings.secret_file);
    if (!settings.secret_file.empty() && secret == nullptr) return;  // the mistake is named elsewhere
    if (secret != nullptr)
      if (auto usable = identity::KeySet::from_secret(*secret); !usable)
        return error("identity.api_keys.secret_file", settings.secret_file, usable.error().message);
    if (auto keys = identity::ApiKeys::parse(*text, secret == nullptr ? "" : *secret, nullptr); !keys)
      error("identity.api_keys.file", settings.file, keys.error().message);
  }

  void check_session_secret(const Sessions& sessions) {
    if (sessions.kinds.empty()) return;
    if (const std::string* text = text_of(sessions.secret_file))
      if (auto secret = identity::SessionSecret::from_text(*text); !secret)
        error("identity.sessions.secret_file", sessions.secret_file, secret.error().message);
  }

  void check_directory(const std::string& file) {
    if (const std::string* text = text_of(file))
      if (auto directory = identity::Directory::parse(*text); !directory)
        error("licensing.directory_file", file, directory.error().message);
  }

  void check_rules(const Settings& settings) {
    if (settings.licensing.system == "none") return;
    const std::string& file = settings.licensing.rules_file;
    const std::string* text = text_of(file);
    if (!file.empty() && text == nullptr) return;
    if (!preset_text(settings.licensing.system)) return;  // the mistake is named elsewhere
    auto rulebook = text == nullptr ? load_rulebook(preset_text(settings.licensing.system).value_or(""),
                                                    "the built-in rules")
                                    : load_rulebook(*text, file);
    if (!rulebook) return add(Severity::error, "licensing.rules_file", rulebook.error().message);
    check_products(settings, *rulebook);
    // Together: what concerns products was said above.
    Licensing without_products = settings.licensing;
    without_products.main_products.clear();
    licence::Rulebook copy = *rulebook;
    if (has_errors(diagnostics_)) return;  // may be the same mistake once more
    if (auto applied = apply_settings(copy, settings.catalogue, without_products); !applied)
      add(Severity::error, applied.error().message.substr(0, applied.error().message.find(':')),
          applied.error().message);  // each begins with its key
  }

 private:
  // One by one, so that each unknown product is reported in its place.
  void check_products(const Settings& settings, const licence::Rulebook& rulebook) {
    for (std::size_t i = 0; i < settings.licensing.main_products.size(); ++i) {
      Licensing one;
      one.main_products = {settings.licensing.main_products[i]};
      licence::Rulebook copy = rulebook;
      if (apply_settings(copy, Catalogue{}, one)) continue;
      Names known;
      for (const auto& product : rulebook.known_main_products) known.push_back(product.id);
      add(Severity::error, fmt::format("licensing.main_products[{}]", i),
          fmt::format("licensing.main_products: \"{}\" is not known{}", one.main_products[0],
                      did_you_mean(one.main_products[0], known)));
    }
  }

  const std::string* text_of(const std::string& file) const {
    auto found = loaded_.file_texts.find(file);
    return found == loaded_.file_texts.end() ? nullptr : &found->second;
  }
  void add(Severity severity, const std::string& path, std::string message) {
    Position at = position_of(loaded_.positions, path);
    diagnostics_.push_back({at.file, at.line, at.column, severity, std::move(message)});
  }
  void error(const std::string& path, const std::string& file, std::string_view message) {
    add(Severity::error, path, fmt::format("{}: {}: {}", path, file, message));
  }
  void warn(const std::string& path, const std::string& file, std::string_view message) {
    add(Severity::warning, path, fmt::format("{}: {}: {}", path, file, message));
  }

  const LoadedConfig& loaded_;
  std::vector<Diagnostic>& diagnostics_;
};

}  // namespace

void check_contents(const LoadedConfig& loaded, std::vector<Diagnostic>& diagnostics) {
  const Settings& settings = loaded.settings;
  ContentCheck check(loaded, diagnostics);
  for (std::size_t i = 0; i < settings.identity.jwt.size(); ++i)
    check.check_issuer(settings.identity.jwt[i], fmt::format("identity.jwt[{}]", i));
  check.check_api_keys(settings.identity.api_keys);
  check.check_token("identity.introspection.client_secret_file",
                    settings.identity.introspection.client_secret_file);
  check.check_token("identity.sessions.lookup.authorization_file",
                    settings.identity.sessions.lookup.authorization_file);
  check.check_token("identity.directory.sync.password_file", settings.identity.directory_sync.password_file);
  check.check_token("identity.directory.sync.authorization_file",
                    settings.identity.directory_sync.authorization_file);
  check.check_token("identity.directory.sync.oauth.client_secret_file",
                    settings.identity.directory_sync.oauth.client_secret_file);
  const CreatioAccess& owners = settings.licensing.creatio.lookup;
  check.check_token("licensing.creatio.lookup.password_file", owners.password_file);
  check.check_token("licensing.creatio.lookup.authorization_file", owners.authorization_file);
  check.check_token("licensing.creatio.lookup.oauth.client_secret_file", owners.oauth.client_secret_file);
  check.check_pass_secret(settings.identity.pass);
  check.check_session_secret(settings.identity.sessions);
  check.check_token("admin.token_file", settings.admin.token_file);
  check.check_token("store.password_file", settings.store.password_file);
  check.check_directory(settings.licensing.directory_file);
  check.check_rules(settings);
}

}  // namespace tollgate::config
