#include "proxy/flow/gate.h"

#include <algorithm>

#include "metering/base/ascii.h"
#include "metering/base/check.h"
#include "metering/catalogue/url.h"
#include "proxy/flow/credentials.h"
#include "proxy/flow/reply.h"

namespace tollgate::flow {
namespace {

constexpr std::string_view kOwnPrefix = "/.tollgate";
constexpr std::string_view kUsagePath = "/.tollgate/usage";

Next reply_with(Call& call, LocalReply reply) {
  call.reason = reply.reason;
  call.reply = std::move(reply);
  return Next::reply;
}

Next refuse(Call& call, Reason reason, std::string_view detail) {
  return reply_with(call, problem(call, reason, detail));
}

// A browser asks before a call from another site, and may send no token with it (Fetch standard, section 4.8).
// It does nothing by itself: the CRM says what it allows.
bool is_preflight(const http::RequestHead& head) {
  if (head.method != "OPTIONS" || head.framing != http::Framing::none) return false;
  bool origin = false, method = false;
  for (const http::Field& field : head.fields) {
    if (equals_ignore_case(field.name, "Origin")) origin = true;
    if (equals_ignore_case(field.name, "Access-Control-Request-Method")) method = true;
    if (starts_with_ignore_case(field.name, "X-HTTP-Method") ||
        starts_with_ignore_case(field.name, "X-Method-Override"))
      return false;  // some frameworks would take it for another method
  }
  return origin && method;
}

Next shed(Call& call) {
  call.shed = true;
  return refuse(call, Reason::overloaded,
                "This proxy is too busy for requests without a token at the moment.");
}

// Does the caller read OData errors? It says so by an OData version field or by an Accept with an OData parameter.
bool accepts_odata(const http::RequestHead& head) {
  for (const http::Field& field : head.fields) {
    if (equals_ignore_case(field.name, "OData-Version") ||
        equals_ignore_case(field.name, "OData-MaxVersion") ||
        equals_ignore_case(field.name, "DataServiceVersion") ||
        equals_ignore_case(field.name, "MaxDataServiceVersion"))
      return true;
    if (!equals_ignore_case(field.name, "Accept")) continue;
    if (field.value.size() < std::string_view("application/json;odata").size()) continue;
    const std::string accept = to_lower(field.value);
    if (accept.find("application/json") != std::string::npos && accept.find("odata") != std::string::npos)
      return true;
  }
  return false;
}

quota::Caller caller_of(const identity::Principal& principal) {
  return {.tenant = principal.tenant,
          .organization = principal.organization,
          .user = principal.user,
          .staff = principal.is_staff()};
}

bool may_be_anonymous(catalogue::Kind kind) {
  return kind == catalogue::Kind::authentication || kind == catalogue::Kind::asset;
}

}  // namespace

Gate::Gate(std::size_t token_cache_entries, std::uint64_t hash_seed)
    : cache_(token_cache_entries, hash_seed) {}

void Gate::forget(Call& call) {
  constexpr std::size_t kKept = 8;  // one large batch must not make the worker large
  if (call.charges.capacity() > 0 && call.charges.size() <= kKept) spare_charges_ = std::move(call.charges);
  call = Call{};
}

void Gate::fail(Call& call, Reason reason, std::string_view detail) {
  call.reason = reason;
  call.reply = problem(call, reason, detail);
}

catalogue::Request Gate::request_of(const http::RequestHead& head, std::string_view body) {
  headers_.clear();
  for (const http::Field& field : head.fields) headers_.push_back({field.name, field.value});
  // What is forwarded is the origin-form, also of a target sent in absolute-form.
  std::string_view target = head.target;
  if (!target.starts_with('/') && head.path != "*") {
    target_.assign(head.path);
    if (head.has_query) target_.append("?").append(head.query);
    target = target_;
  }
  return {.method = head.method, .target = target, .headers = headers_, .body = body};
}

Next Gate::on_head(Call& call, const http::RequestHead& head, UnixTime now) {
  CHECK(call.snapshot != nullptr, "an exchange has a snapshot");
  const Snapshot& snapshot = *call.snapshot;
  call.odata_reply = snapshot.settings.proxy.odata_errors && accepts_odata(head);

  if (strips_token(snapshot.settings.identity, head))
    return refuse(call, Reason::bad_request, "Connection names a field that holds the caller's credentials.");
  catalogue::Request request = request_of(head, {});
  std::string_view path = "/";
  std::optional<Result<catalogue::NormalPath>> normal;
  if (head.path != "*") {
    if (!normal.emplace(catalogue::normalise(request.target)))
      return refuse(call, Reason::bad_request, normal->error().message);
    request.path = &**normal;
    path = request.path->path;
  }
  const bool own =
      path.starts_with(kOwnPrefix) && (path.size() == kOwnPrefix.size() || path[kOwnPrefix.size()] == '/');
  if (own) {
    if (path != kUsagePath)
      return refuse(call, Reason::not_found, "There is no such page. Try /.tollgate/usage.");
    if (head.method != "GET" && head.method != "HEAD")
      return refuse(call, Reason::not_implemented, "/.tollgate/usage answers GET only.");
    if (auto refusal = authenticate(call, head, now)) return reply_with(call, std::move(*refusal));
    return begin_usage(call);
  }

  call.route = find_route(snapshot.settings, head.authority, path);
  if (call.route == nullptr)
    return refuse(call, Reason::not_found, "No route leads from this host and path to a CRM.");
  if (call.route->max_body != 0 && head.framing == http::Framing::length &&
      head.content_length > call.route->max_body)
    return refuse(call, Reason::body_too_large, "The request body is larger than this route accepts.");
  if (!call.route->metered || is_preflight(head)) return call.no_anonymous ? shed(call) : Next::forward;

  if (call.life != nullptr) [[unlikely]]
    call.life->enter(Phase::authenticate);
  std::optional<LocalReply> refusal = authenticate(call, head, now);
  if (call.life != nullptr && !refusal) [[unlikely]]
    call.life->authenticated(call);
  if (refusal) {
    // Who is about to log in has no token yet, and browsers send none for scripts and pictures.
    if (snapshot.classifier.body_need(request) == catalogue::BodyNeed::none) {
      catalogue::Classification seen = snapshot.classifier.classify(request);
      if (may_be_anonymous(seen.kind)) {
        if (call.no_anonymous) return shed(call);
        call.classification = std::move(seen);
        return Next::forward;
      }
    }
    return reply_with(call, std::move(*refusal));
  }
  if (head.framing != http::Framing::none &&
      snapshot.classifier.body_need(request) == catalogue::BodyNeed::whole) {
    if (head.framing == http::Framing::length && head.content_length > snapshot.settings.catalogue.max_body)
      return refuse(call, Reason::body_uninspectable,
                    "This kind of request must be inspected and is too large for that.");
    return Next::need_body;
  }
  return decide(call, request);
}

Next Gate::on_body(Call& call, const http::RequestHead& head, std::string_view body) {
  if (call.life != nullptr) [[unlikely]]
    call.life->enter(Phase::classify);
  return decide(call, request_of(head, body));
}

std::optional<LocalReply> Gate::authenticate(Call& call, const http::RequestHead& head, UnixTime now) {
  const Snapshot& snapshot = *call.snapshot;
  std::uint64_t keys = 0;
  for (const auto& ring : snapshot.key_rings) keys += ring->version();
  if (generation_ != snapshot.generation || keys_version_ != keys) {
    cache_.clear();  // rules or keys changed: every token has to prove itself again
    generation_ = snapshot.generation;
    keys_version_ = keys;
  }
  auto token = find_token(snapshot.settings.identity, head);
  if (!token) return unauthorized(call, token.error().reason, token.error().detail);
  call.token = cache_.find(*token, now);
  if (call.token != nullptr) return std::nullopt;
  auto verified = snapshot.verifier.verify(*token, now);
  if (!verified) return unauthorized(call, verified.error().reason, verified.error().detail);
  call.token = std::move(*verified);
  if (snapshot.directory != nullptr) {
    auto known = std::make_shared<identity::VerifiedToken>(*call.token);
    known->principal = snapshot.directory->apply(std::move(known->principal));
    call.token = std::move(known);
  }
  cache_.insert(*token, call.token);
  return std::nullopt;
}

Next Gate::decide(Call& call, const catalogue::Request& request) {
  const Snapshot& snapshot = *call.snapshot;
  const identity::Principal& principal = call.token->principal;
  call.classification = snapshot.classifier.classify(request);
  const catalogue::Classification& seen = call.classification;
  if (call.life != nullptr) [[unlikely]]
    call.life->classified(call);
  switch (seen.kind) {
    case catalogue::Kind::reject:
      return refuse(call, seen.unsupported_media ? Reason::unsupported_media_type : Reason::bad_request,
                    seen.reject_detail);
    case catalogue::Kind::unknown:
      if (!snapshot.settings.catalogue.allow_unknown && !principal.is_staff())
        return refuse(call, Reason::section_not_licensed,
                      "It cannot be told from this request what it touches, and such requests are not let "
                      "through here.");
      break;
    default:
      break;
  }
  call.decision = snapshot.policy.decide(principal, seen);
  if (call.decision.reason != Reason::ok) return refuse(call, call.decision.reason, call.decision.detail);

  operations_.clear();
  for (const licence::Unit& unit : call.decision.units)
    operations_.push_back(
        {.object = unit.object, .operation = catalogue::name(unit.operation), .product = unit.product});
  if (call.charges.capacity() == 0) call.charges = std::move(spare_charges_);
  snapshot.rules.list_charges(caller_of(principal), operations_, call.charges);
  if (call.life != nullptr) [[unlikely]]
    call.life->decided(call);
  return call.charges.empty() ? Next::forward : Next::charge;
}

Next Gate::on_charge(Call& call, quota::ChargeOutcome&& outcome) {
  switch (outcome.status) {
    case quota::ChargeOutcome::Status::admitted:
      call.states = std::move(outcome.states);
      call.receipt = std::move(outcome.receipt);
      call.degraded = outcome.degraded;
      call.response_fields = rate_limit_lines(call);
      return Next::forward;
    case quota::ChargeOutcome::Status::exceeded:
      call.states = std::move(outcome.states);
      return reply_with(call, quota_exceeded(call, outcome.violated));
    case quota::ChargeOutcome::Status::unavailable:
      break;
  }
  call.degraded = true;
  // The ledger itself lets calls through and counts them later; what it could not even note is let through all the same.
  if (call.snapshot->settings.store.on_outage == config::OnOutage::allow) return Next::forward;
  return refuse(
      call, Reason::store_unavailable,
      "Calls cannot be counted at the moment, so none are let through. Nothing was charged; try again.");
}

Next Gate::begin_usage(Call& call) {
  if (call.life != nullptr) [[unlikely]]
    call.life->authenticated(call);
  call.usage_request = true;
  call.classification.kind = catalogue::Kind::basic_function;
  const quota::Caller caller = caller_of(call.token->principal);
  call.charges = call.snapshot->rules.accounts(caller);
  call.observation = call.snapshot->rules.observation(caller);
  return Next::read_usage;
}

Next Gate::on_usage(Call& call, Result<std::vector<quota::AccountState>>&& states,
                    Result<std::vector<quota::Ledger::Listed>>&& objects) {
  if (!states || !objects)
    return refuse(call, Reason::store_unavailable, "The counts cannot be read at the moment; try again.");
  call.states = std::move(*states);
  return reply_with(call, usage(call, call.states, *objects));
}

}  // namespace tollgate::flow
