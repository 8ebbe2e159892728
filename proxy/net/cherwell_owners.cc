#include "proxy/net/cherwell_owners.h"

#include <fmt/format.h>

#include "metering/base/check.h"
#include "metering/base/percent.h"
#include "metering/catalogue/cherwell_reply.h"
#include "metering/identity/cherwell_login.h"
#include "proxy/net/event_loop.h"

namespace tollgate::net {

CherwellOwners::CherwellOwners(CherwellAccess access, std::vector<std::string> owner_fields,
                               std::shared_ptr<licence::OwnerTable> owners)
    : access_(std::move(access)), owner_fields_(std::move(owner_fields)), owners_(std::move(owners)) {}

// form: sent with POST; none: GET.
OwnerSource::Answer<HttpReply> CherwellOwners::ask(std::string url, std::optional<std::string> form,
                                                   MonotonicTime deadline) {
  HttpRequest request{.url = std::move(url),
                      .fields = {"Accept: application/json"},
                      .body = std::move(form),
                      .ca_file = access_.ca_file,
                      .timeout = std::chrono::ceil<Milliseconds>(deadline - EventLoop::now()),
                      .reply_max = kReplyMax,
                      .stop = &stopping_};
  if (!request.body) request.fields.push_back("Authorization: Bearer " + token_);
  HttpOutcome outcome = transfer_.perform(std::move(request));
  if (!outcome) return std::unexpected(outcome.error().text);
  return *std::move(outcome);
}

OwnerSource::Answer<void> CherwellOwners::log_in(MonotonicTime deadline) {
  std::string form;
  append_form(form, "grant_type", "password");
  append_form(form, "client_id", access_.client_id);
  append_form(form, "username", access_.user);
  append_form(form, "password", access_.password);
  const auto reply =
      ask(fmt::format("{}/token?auth_mode={}", access_.url, percent_encoded(access_.auth_mode)),
          std::move(form), deadline);
  if (!reply) return std::unexpected(reply.error());
  const auto tokens = reply->status == 200 ? identity::read_cherwell_tokens(reply->body) : std::nullopt;
  token_ = tokens ? tokens->access_token : "";
  if (!tokens) return std::unexpected(fmt::format("no token: answered {}", reply->status));
  return {};
}

// With a token that is taken, if there is one to be had.
OwnerSource::Answer<HttpReply> CherwellOwners::get(const std::string& url, MonotonicTime deadline) {
  for (int attempt = 0;; ++attempt) {
    if (token_.empty())
      if (auto entered = log_in(deadline); !entered) return std::unexpected(entered.error());
    auto reply = ask(url, std::nullopt, deadline);
    if (!reply || reply->status != 401) return reply;
    token_.clear();  // it has expired
    if (attempt > 0) return reply;
  }
}

OwnerSource::Answer<void> CherwellOwners::look_up(const std::string& upstream, const std::string& record,
                                                  MonotonicTime deadline) {
  const std::string_view name = record;
  const std::size_t first = name.find('/'), second = name.find('/', first + 1);
  CHECK(second != name.npos, "a record is named object/id/public id");
  const std::string_view id = name.substr(first + 1, second - first - 1), public_id = name.substr(second + 1);
  const auto reply =
      get(fmt::format("{}/api/V1/getbusinessobject/busobid/{}/{}/{}", access_.url,
                      percent_encoded(name.substr(0, first)), id.empty() ? "publicid" : "busobrecid",
                      percent_encoded(id.empty() ? public_id : id)),
          deadline);
  if (!reply) return std::unexpected(reply.error());
  if (reply->status != 200 && reply->status != 404)
    return std::unexpected(fmt::format("answered {}", reply->status));
  if (reply->status == 200 && !catalogue::is_cherwell_reply(reply->body))
    return std::unexpected("answered with something else than a record");
  const UnixTime now = EventLoop::calendar_now();
  bool named = false;
  for (const auto& seen : catalogue::read_cherwell_owners(reply->body, owner_fields_, 1))
    for (const std::string& each : seen.records) {
      owners_->learn(upstream, each, seen.owner, now);
      named = named || each == record;
    }
  if (!named) owners_->learn(upstream, record, "", now);
  return {};
}

OwnerSource::Answer<std::string> CherwellOwners::examine(MonotonicTime deadline) {
  if (auto entered = log_in(deadline); !entered) return std::unexpected(entered.error());
  return "the account gets a token";
}

}  // namespace tollgate::net
