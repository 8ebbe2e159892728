#include "proxy/net/creatio_conversation.h"

#include <fmt/format.h>

#include <algorithm>

#include "metering/base/ascii.h"
#include "metering/base/json_text.h"
#include "metering/identity/creatio_login.h"
#include "proxy/net/event_loop.h"

namespace tollgate::net {
namespace {

using identity::SyncFailure;
using Kind = SyncFailure::Kind;

std::unexpected<SyncFailure> failed(Kind kind, std::string text) {
  return std::unexpected(SyncFailure{kind, std::move(text)});
}

// The address of the application: workspaces have a number, the log-in has none.
std::string application_of(const std::string& url) {
  const std::size_t slash = url.rfind('/');
  return slash != url.npos && parse_decimal(std::string_view(url).substr(slash + 1)) ? url.substr(0, slash)
                                                                                     : url;
}

std::string without_query(const std::string& address) {
  return address.substr(0, address.find('?'));
}

}  // namespace

CreatioConversation::CreatioConversation(const CreatioAccess& access, std::size_t reply_max,
                                         const std::atomic<bool>& stop)
    : access_(access), reply_max_(reply_max), stop_(stop) {
  transfer_.keep_cookies();
}

void CreatioConversation::begin(Milliseconds at_most) {
  deadline_ = EventLoop::now() + at_most;
}

CreatioConversation::Reply CreatioConversation::ask(const std::string& address) {
  for (int attempt = 0;; ++attempt) {
    if (access_.authorization.empty() && csrf_.empty())
      if (auto entered = log_in(); !entered) return std::unexpected(entered.error());
    auto reply = send(address, std::nullopt);
    if (!reply) return reply;
    // A session that has ended: 401, or the way to the page where people log in.
    if (reply->status != 401 && reply->status != 302) return reply;
    if (!access_.authorization.empty() || attempt > 0)
      return failed(Kind::log_in, fmt::format("{} answered {}: the account is not let in",
                                              without_query(address), reply->status));
    csrf_.clear();
  }
}

std::expected<std::string, SyncFailure> CreatioConversation::get(const std::string& address) {
  auto reply = ask(address);
  if (!reply) return std::unexpected(reply.error());
  if (reply->status != 200)
    return failed(Kind::status, fmt::format("{} answered {}", without_query(address), reply->status));
  return std::move(reply->body);
}

std::expected<void, SyncFailure> CreatioConversation::log_in() {
  transfer_.forget_cookies();  // the session before
  std::string body;
  JsonWriter json(body);
  json.object([&] {
    json.field("UserName", access_.user);
    json.field("UserPassword", access_.password);
  });
  const std::string address = application_of(access_.url) + "/ServiceModel/AuthService.svc/Login";
  auto reply = send(address, std::move(body));
  if (!reply) return std::unexpected(reply.error());
  if (reply->status != 200)
    return failed(Kind::log_in, fmt::format("{} answered {}", address, reply->status));
  if (!identity::creatio_login_reply(reply->body))
    return failed(Kind::log_in, fmt::format("{} does not let the user \"{}\" in", address, access_.user));
  csrf_ = "BPMCSRF: " + transfer_.cookie("BPMCSRF");
  return {};
}

// json: sent with POST; none: GET.
CreatioConversation::Reply CreatioConversation::send(const std::string& address,
                                                     std::optional<std::string> json) {
  const auto left = std::chrono::ceil<Milliseconds>(deadline_ - EventLoop::now());
  HttpRequest request{.url = address,
                      .fields = {"Accept: application/json"},
                      .body = std::move(json),
                      .ca_file = access_.ca_file,
                      .timeout = std::min(left, access_.timeout),
                      .reply_max = reply_max_,
                      .compressed = true,
                      .stop = &stop_};
  if (request.body) {
    request.fields.emplace_back("Content-Type: application/json");
    request.fields.emplace_back("ForceUseSession: true");
  } else if (!access_.authorization.empty()) {
    request.fields.push_back("Authorization: " + access_.authorization);
  } else {
    request.fields.push_back(csrf_);
  }
  HttpOutcome outcome = transfer_.perform(std::move(request));
  if (outcome) return *std::move(outcome);
  const TransferFailure& failure = outcome.error();
  return failed(failure.too_large ? Kind::too_large : Kind::unreachable,
                fmt::format("{}: {}", without_query(address), failure.text));
}

}  // namespace tollgate::net
