#include "proxy/admin/quota_reply.h"

#include <fmt/format.h>

#include <algorithm>

#include "metering/base/json_text.h"
#include "proxy/admin/replies.h"

namespace tollgate::admin {
namespace {

void write_limit(JsonWriter& json, std::string_view name, std::uint64_t limit) {
  json.key(name);
  if (limit > quota::LimitOverride::kLimitMax)
    json.null();
  else
    json.value(limit);
}

}  // namespace

std::string account_subject(const quota::Rule& rule, const quota::Caller& caller) {
  auto per = [&](quota::Dimension dimension) {
    return std::ranges::find(rule.per, dimension) != rule.per.end();
  };
  std::string out(caller.tenant.empty() ? "-" : caller.tenant);
  if (per(quota::Dimension::organization)) out += fmt::format("/organization {}", caller.organization);
  if (per(quota::Dimension::user)) out += fmt::format("/{}", caller.user);
  return fmt::format("{} {}", out, rule.name);
}

std::string QuotaPage::json(const GrantReasons& reasons) const {
  std::string out;
  JsonWriter json(out);
  auto one = [&](std::size_t i) {
    const quota::Rule& rule = snapshot->rules.rules()[accounts[i].rule];
    const quota::LimitOverride override = overrides[i].value_or(quota::LimitOverride{});
    quota::AccountState state = states[i];
    json.object([&] {
      json.field("name", rule.name);
      if (rule.shadow) json.field("mode", "shadow");
      write_limit(json, "limit", state.limit);
      json.field("used", state.used);
      write_limit(json, "remaining",
                  state.limit > quota::LimitOverride::kLimitMax ? state.limit : state.remaining());
      write_limit(json, "configured_limit", accounts[i].limit);
      json.field("overridden", override.limit.has_value());
      if (override.limit) write_limit(json, "override", *override.limit);
      json.field_array("grants", [&] {
        for (const quota::LimitOverride::Grant& grant : override.grants) {
          if (grant.until <= now) continue;
          json.object([&] {
            json.field("extra", grant.extra);
            json.field("until", format_moment(grant.until));
            if (std::string reason = reasons.find(subjects[i], grant); !reason.empty())
              json.field("reason", reason);
          });
        }
      });
    });
  };
  if (single) {
    one(0);
  } else {
    json.array([&] {
      for (std::size_t i = 0; i < accounts.size(); ++i) one(i);
    });
  }
  return out;
}

void read_overrides(const std::function<void(quota::AccountKey, Sources::OverrideRead)>& get,
                    std::shared_ptr<QuotaPage> page, std::function<void(Result<void>)> done) {
  if (page->overrides.size() == page->accounts.size()) return done({});
  const quota::AccountKey& key = page->accounts[page->overrides.size()].key;
  get(key, [get, page, done = std::move(done)](Result<Sources::Override> read) mutable {
    if (!read) return done(std::unexpected(read.error()));
    page->overrides.push_back(std::move(*read));
    read_overrides(get, std::move(page), std::move(done));
  });
}

}  // namespace tollgate::admin
