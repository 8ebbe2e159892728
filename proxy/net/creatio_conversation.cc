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
  if (access.client.token_url.empty()) transfer_.keep_cookies();
}

void CreatioConversation::begin(Milliseconds at_most) {
  deadline_ = EventLoop::now() + at_most;
}

void CreatioConversation::forget() {
  if (access_.client.token_url.empty()) credential_.clear();
}

CreatioConversation::Reply CreatioConversation::ask(const std::string& address) {
  for (int attempt = 0;; ++attempt) {
    if (auto entered = enter(); !entered) return std::unexpected(entered.error());
    auto reply = send({.url = address, .fields = {credential_}});
    if (!reply) return reply;
    // What has ended: 401, or the way to the page where people log in.
    if (reply->status != 401 && reply->status != 302) return reply;
    if (!access_.authorization.empty() || attempt > 0)
      return failed(Kind::log_in, fmt::format("{} answered {}: the account is not let in",
                                              without_query(address), reply->status));
    credential_.clear();
  }
}

std::expected<std::string, SyncFailure> CreatioConversation::get(const std::string& address) {
  auto reply = ask(address);
  if (!reply) return std::unexpected(reply.error());
  if (reply->status != 200)
    return failed(Kind::status, fmt::format("{} answered {}", without_query(address), reply->status));
  return std::move(reply->body);
}

CreatioConversation::Entered CreatioConversation::enter() {
  if (!credential_.empty() && EventLoop::now() < credential_until_) return {};
  credential_until_ = MonotonicTime::max();
  if (!access_.client.token_url.empty()) return take_token();
  if (access_.authorization.empty()) return log_in();
  credential_ = "Authorization: " + access_.authorization;
  return {};
}

CreatioConversation::Entered CreatioConversation::log_in() {
  transfer_.forget_cookies();  // the session before
  std::string body;
  JsonWriter json(body);
  json.object([&] {
    json.field("UserName", access_.user);
    json.field("UserPassword", access_.password);
  });
  const std::string address = application_of(access_.url) + "/ServiceModel/AuthService.svc/Login";
  auto reply = send({.url = address,
                     .fields = {"Content-Type: application/json", "ForceUseSession: true"},
                     .body = std::move(body)});
  if (!reply) return std::unexpected(reply.error());
  if (reply->status != 200)
    return failed(Kind::log_in, fmt::format("{} answered {}", address, reply->status));
  if (!identity::creatio_login_reply(reply->body))
    return failed(Kind::log_in, fmt::format("{} does not let the user \"{}\" in", address, access_.user));
  credential_ = "BPMCSRF: " + transfer_.cookie("BPMCSRF");
  return {};
}

CreatioConversation::Entered CreatioConversation::take_token() {
  credential_.clear();
  const MonotonicTime asked = EventLoop::now();
  const std::string& address = access_.client.token_url;
  auto reply = send({.url = address, .body = identity::token_form(access_.client)});
  if (!reply) return std::unexpected(reply.error());
  auto token = identity::read_access_token(reply->status, reply->body);
  if (!token)
    return failed(Kind::log_in, fmt::format("{} {}: no token for the client \"{}\"", without_query(address),
                                            token.error(), access_.client.client_id));
  credential_ = "Authorization: Bearer " + token->text;
  const Milliseconds use = identity::use_of_token(token->lifetime);
  if (use != Milliseconds::max()) credential_until_ = asked + use;
  return {};
}

CreatioConversation::Reply CreatioConversation::send(HttpRequest request) {
  const std::string what = without_query(request.url);
  const auto left = std::chrono::ceil<Milliseconds>(deadline_ - EventLoop::now());
  request.fields.emplace_back("Accept: application/json");
  request.ca_file = access_.ca_file;
  request.timeout = std::min(left, access_.timeout);
  request.reply_max = reply_max_;
  request.compressed = true;
  request.stop = &stop_;
  HttpOutcome outcome = transfer_.perform(std::move(request));
  if (outcome) return *std::move(outcome);
  const TransferFailure& failure = outcome.error();
  return failed(failure.too_large ? Kind::too_large : Kind::unreachable,
                fmt::format("{}: {}", what, failure.text));
}

}  // namespace tollgate::net
