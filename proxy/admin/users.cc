#include "proxy/admin/users.h"

#include "metering/base/json_text.h"
#include "metering/base/moment.h"

namespace tollgate::admin {
namespace {

using identity::Directory;

void write_time(JsonWriter& json, std::string_view name, UnixTime time) {
  if (time != UnixTime{})
    json.field(name, format_moment(std::chrono::floor<Milliseconds>(time.time_since_epoch())));
}

void write_entry(JsonWriter& json, std::string_view name, const Directory::Entry* entry) {
  if (entry == nullptr) return;
  json.field_object(name, [&] {
    if (!entry->organization.empty()) json.field("organization", entry->organization);
    if (!entry->account.empty()) json.field("account", entry->account);
    if (entry->user_type != identity::UserType::unknown)
      json.field("user_type", entry->user_type == identity::UserType::staff ? "staff" : "portal");
    if (entry->active) json.field("active", *entry->active);
    if (entry->says_licenses)
      json.field_array("licenses", [&] {
        for (const std::string& license : entry->licenses) json.value(license);
      });
    if (!entry->customer.empty()) json.field("customer", entry->customer);
    if (entry->security_right) json.field("security_right", *entry->security_right);
    if (entry->consume_license) json.field("consume_license", *entry->consume_license);
  });
}

}  // namespace

std::string directory_json(const Directory* directory, const std::optional<Sources::UserSync>& sync) {
  std::string body;
  JsonWriter json(body);
  json.object([&] {
    if (directory != nullptr && directory->size() > 0)
      json.field_object("file", [&] { json.field("users", directory->size()); });
    if (!sync) return;
    json.field_object("crm", [&] {
      json.field("url", sync->url);
      json.field("users", directory == nullptr || directory->crm_users() == nullptr
                              ? 0
                              : directory->crm_users()->size());
      json.field("licenses", sync->licenses);
      json.field("left_out", sync->left_out);
      write_time(json, "last_success", sync->last_success);
      write_time(json, "last_failure", sync->last_failure);
      if (!sync->failure.empty()) json.field("failure", sync->failure);
    });
  });
  return body;
}

std::optional<std::string> directory_user_json(const Directory* directory, std::string_view user) {
  const Directory::Entry* counts = directory == nullptr ? nullptr : directory->find(user);
  if (counts == nullptr) return std::nullopt;
  const Directory::Entry* file = directory->in_file(user);
  const Directory::Entry* crm = directory->in_crm(user);
  std::string body;
  JsonWriter json(body);
  json.object([&] {
    json.field("user", user);
    write_entry(json, "file", file);
    write_entry(json, "crm", crm);
    write_entry(json, "counts", counts);
    json.field_object("from", [&] {
      const auto say = [&](std::string_view name, bool in_file, bool in_crm) {
        if (in_file || in_crm) json.field(name, in_file ? "file" : "crm");
      };
      say("organization", file != nullptr && !file->organization.empty(),
          crm != nullptr && !crm->organization.empty());
      say("account", file != nullptr && !file->account.empty(), crm != nullptr && !crm->account.empty());
      say("user_type", file != nullptr && file->user_type != identity::UserType::unknown,
          crm != nullptr && crm->user_type != identity::UserType::unknown);
      say("active", file != nullptr && file->active.has_value(), crm != nullptr);
      say("licenses", file != nullptr && (crm == nullptr || !file->licenses.empty()),
          crm != nullptr && crm->says_licenses);
    });
  });
  return body;
}

}  // namespace tollgate::admin
