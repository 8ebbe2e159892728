#include "proxy/cli/user_directory.h"

#include <fmt/format.h>

#include <fstream>
#include <iterator>

#include "metering/journal/disk.h"

namespace tollgate::cli {
namespace {

constexpr std::string_view kFile = "crm-users.json";

std::string secret_in(const config::LoadedConfig& loaded, const std::string& file) {
  return file.empty() ? "" : std::string(config::secret_of_file(loaded.file_texts.at(file)));
}

}  // namespace

net::DirectorySource directory_source(const config::LoadedConfig& loaded) {
  const config::DirectorySync& wanted = loaded.settings.identity.directory_sync;
  net::DirectorySource source;
  source.url = wanted.url;
  while (source.url.ends_with('/')) source.url.pop_back();
  if (source.url.empty()) return source;
  source.ca_file = wanted.ca_file;
  source.user = wanted.user;
  source.password = secret_in(loaded, wanted.password_file);
  source.authorization = secret_in(loaded, wanted.authorization_file);
  source.client = {.token_url = wanted.oauth.token_url,
                   .client_id = wanted.oauth.client_id,
                   .client_secret = secret_in(loaded, wanted.oauth.client_secret_file),
                   .scope = wanted.oauth.scope};
  source.interval = wanted.interval;
  source.timeout = wanted.timeout;
  source.names = {.users = wanted.users.entity,
                  .user_filter = wanted.users.filter,
                  .user_id = wanted.users.id,
                  .user_name = wanted.users.name,
                  .user_active = wanted.users.active,
                  .user_type = wanted.users.type,
                  .user_organization = wanted.users.organization,
                  .licenses = wanted.licenses.entity,
                  .license_user = wanted.licenses.user,
                  .license_name = wanted.licenses.name,
                  .license_active = wanted.licenses.active};
  source.limits = {.page_rows = wanted.page_rows, .rows_max = wanted.max_rows};
  return source;
}

std::shared_ptr<const CrmUsers> kept_crm_users(const config::LoadedConfig& loaded) {
  const net::DirectorySource source = directory_source(loaded);
  if (source.url.empty()) return nullptr;
  std::ifstream in(fmt::format("{}/{}", loaded.settings.journal.directory, kFile), std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  auto users = identity::read_crm_users(text, source.url);
  return users ? std::make_shared<const CrmUsers>(*std::move(users)) : nullptr;
}

void UserDirectory::configure(const config::LoadedConfig& loaded, std::shared_ptr<const CrmUsers> users,
                              Milliseconds first_wait) {
  net::DirectorySource source = directory_source(loaded);
  if (sync_ != nullptr && sync_->source() == source) return;
  stop();
  if (source.url.empty()) return;
  if (users != nullptr)
    log_("info", fmt::format("identity.directory.sync: {} users of {} are known from before", users->size(),
                             source.url));
  auto kept = std::make_shared<Kept>();
  kept->file = fmt::format("{}/{}", loaded.settings.journal.directory, kFile);
  kept->url = source.url;
  const Milliseconds wait = users == nullptr ? first_wait : Milliseconds(0);
  kept->users = std::move(users);
  auto sync = std::make_shared<net::DirectorySync>(
      std::move(source),
      [this, kept](const std::shared_ptr<const CrmUsers>& fresh) { return take(*kept, fresh); },
      [this](bool good, const std::string& line) { log_(good ? "info" : "warning", line); });
  {
    const std::lock_guard lock(mutex_);
    sync_ = sync;
  }
  sync->start(wait);
}

void UserDirectory::stop() {
  std::shared_ptr<net::DirectorySync> old;
  {
    const std::lock_guard lock(mutex_);
    old = std::exchange(sync_, nullptr);
  }
  if (old != nullptr) old->stop();
}

bool UserDirectory::take(Kept& kept, const std::shared_ptr<const CrmUsers>& users) const {
  std::erase_if(kept.replaced, [](const auto& each) { return each.use_count() <= 1; });
  if (kept.users != nullptr && *kept.users == *users) return true;
  auto replaced = swap_(users);
  if (!replaced) return false;
  kept.replaced.push_back(*std::move(replaced));
  kept.users = users;
  keep(kept);
  return true;
}

void UserDirectory::keep(const Kept& kept) const {
  const std::size_t slash = kept.file.rfind('/');
  auto written = journal::replace_text(kept.file.substr(0, slash), kept.file.substr(slash + 1),
                                       identity::write_crm_users(*kept.users, kept.url));
  if (!written)
    log_("warning",
         fmt::format("identity.directory.sync: the copy for a start without the CRM cannot be written: {}",
                     written.error().message));
}

std::shared_ptr<net::DirectorySync> UserDirectory::current() const {
  const std::lock_guard lock(mutex_);
  return sync_;
}

std::optional<admin::Sources::UserSync> UserDirectory::status() const {
  const std::shared_ptr<net::DirectorySync> sync = current();
  if (sync == nullptr) return std::nullopt;
  const net::DirectorySync::Status now = sync->status();
  return admin::Sources::UserSync{.url = sync->source().url,
                                  .users = now.users,
                                  .licenses = now.licenses,
                                  .left_out = now.left_out,
                                  .last_success = now.last_success,
                                  .last_failure = now.last_failure,
                                  .failure = now.failure};
}

std::vector<telemetry::Family> UserDirectory::metrics() const {
  using Type = telemetry::Family::Type;
  const std::shared_ptr<net::DirectorySync> sync = current();
  std::vector<telemetry::Family> out;
  if (sync == nullptr) return out;
  const net::DirectorySync::Status now = sync->status();
  const auto add = [&](std::string name, std::string help, Type type, double value) {
    out.push_back({.name = std::move(name),
                   .help = std::move(help),
                   .type = type,
                   .samples = {{.labels = {}, .value = value}}});
  };
  add("tollgate_directory_sync_last_success_timestamp_seconds",
      "When the users of the CRM were last read, seconds since 1970; 0: not since the start.", Type::gauge,
      static_cast<double>(std::chrono::duration_cast<Seconds>(now.last_success.time_since_epoch()).count()));
  add("tollgate_directory_syncs_total", "Times the users of the CRM were read.", Type::counter,
      static_cast<double>(now.successes));
  telemetry::Family rows{
      .name = "tollgate_directory_sync_rows",
      .help = "Users and licences of the last good sync, and rows that were left out of it.",
      .type = Type::gauge,
      .samples = {}};
  for (const auto& [kind, value] : {std::pair{"users", now.users}, std::pair{"licenses", now.licenses},
                                    std::pair{"left_out", now.left_out}})
    rows.samples.push_back({.labels = {{"kind", kind}}, .value = static_cast<double>(value)});
  out.push_back(std::move(rows));
  telemetry::Family failures{.name = "tollgate_directory_sync_failures_total",
                             .help = "Syncs that came to nothing; what was known of users stays.",
                             .type = Type::counter,
                             .samples = {}};
  for (std::size_t i = 0; i < now.failures.size(); ++i)
    failures.samples.push_back(
        {.labels = {{"reason", std::string(identity::name(static_cast<identity::SyncFailure::Kind>(i)))}},
         .value = static_cast<double>(now.failures[i])});
  out.push_back(std::move(failures));
  return out;
}

void UserDirectory::connect(admin::Sources& sources) {
  sources.user_sync = [this] { return status(); };
  sources.sync_users = [this](admin::Sources::Changed done) {
    const std::shared_ptr<net::DirectorySync> sync = current();
    if (sync == nullptr)
      return done(
          fail(Origin::config, "identity.directory.sync has no url: the CRM is not asked for users."));
    sync->sync_now([done](std::expected<void, identity::SyncFailure> outcome) {
      if (outcome) return done({});
      done(fail(Origin::upstream,
                fmt::format("{}: {}", identity::name(outcome.error().kind), outcome.error().text), true));
    });
  };
}

}  // namespace tollgate::cli
