#include "proxy/flow/gate.h"

#include <algorithm>
#include <bit>
#include <memory>

#include "metering/base/ascii.h"
#include "metering/base/check.h"
#include "metering/catalogue/url.h"
#include "proxy/flow/credentials.h"
#include "proxy/flow/gate_steps.h"
#include "proxy/flow/rewrite.h"

namespace tollgate::flow {
namespace {

constexpr std::string_view kOwnPrefix = "/.tollgate";
constexpr std::string_view kUsagePath = "/.tollgate/usage";

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

// What new members of these user types may fill of the portal's seats.
std::uint64_t capacity_for(const Snapshot& snapshot, const catalogue::PortalChange& change) {
  const std::vector<std::string>& client = snapshot.settings.licensing.portal_seats.client_user_types;
  const bool all_client = client.empty() || std::ranges::all_of(change.user_types, [&](const auto& type) {
                            return std::ranges::find(client, type) != client.end();
                          });
  const licence::PortalSeats& seats = snapshot.policy.rulebook().portal_seats;
  return all_client ? seats.capacity() : seats.capacity_of_others();
}

bool may_be_anonymous(catalogue::Kind kind) {
  return kind == catalogue::Kind::authentication || kind == catalogue::Kind::asset;
}

}  // namespace

Gate::Gate(std::size_t token_cache_entries, std::uint64_t hash_seed)
    : cache_(token_cache_entries, hash_seed) {}

void Gate::forget(Call& call) {
  constexpr std::size_t kKept = 8, kTextKept = 2048;  // one large batch must not make the worker large
  // The texts in them are written over by those of the next call.
  auto charges = std::move(call.charges.capacity() == 0 ? call.spare_charges : call.charges);
  if (charges.size() > kKept) charges = {};
  const auto emptied = [](auto& list) {
    auto memory = list.capacity() <= kKept ? std::move(list) : std::remove_reference_t<decltype(list)>{};
    memory.clear();
    return memory;
  };
  auto uses = emptied(call.classification.uses);
  auto units = emptied(call.decision.units);
  auto states = emptied(call.states);
  auto items = emptied(call.receipt.items);
  const auto emptied_text = [](std::string& text) {
    std::string memory = text.capacity() <= kTextKept ? std::move(text) : std::string();
    memory.clear();
    return memory;
  };
  std::string request_id = emptied_text(call.request_id), fields = emptied_text(call.response_fields),
              reply_fields = emptied_text(call.reply.fields), reply_body = emptied_text(call.reply.body);
  std::destroy_at(&call);  // half the work of assigning a new one
  std::construct_at(&call);
  call.spare_charges = std::move(charges);
  call.classification.uses = std::move(uses);
  call.decision.units = std::move(units);
  call.states = std::move(states);
  call.receipt.items = std::move(items);
  call.request_id = std::move(request_id);
  call.response_fields = std::move(fields);
  call.reply.fields = std::move(reply_fields);
  call.reply.body = std::move(reply_body);
}

void Gate::fail(Call& call, Reason reason, std::string_view detail) {
  call.reason = reason;
  call.reply = problem(call, reason, detail);
}

catalogue::Request Gate::request_of(const Call& call, const http::RequestHead& head, std::string_view body) {
  headers_.clear();
  for (const http::Field& field : head.fields) headers_.push_back({field.name, field.value});
  // What is forwarded is the origin-form, also of a target sent in absolute-form, with the path that the upstream gets.
  std::string_view target = head.target;
  if (!call.upstream_path.empty() || (!target.starts_with('/') && head.path != "*")) {
    target_.assign(call.upstream_path.empty() ? head.path : call.upstream_path);
    if (head.has_query) target_.append("?").append(head.query);
    target = target_;
  }
  return {.method = head.method, .target = target, .headers = headers_, .body = body};
}

Next Gate::on_head(Call& call, const http::RequestHead& head, UnixTime now) {
  CHECK(call.snapshot != nullptr, "an exchange has a snapshot");
  const Snapshot& snapshot = *call.snapshot;
  call.odata_reply = snapshot.settings.proxy.odata_errors && accepts_odata(head);
  call.upstream_path.clear();  // of the time before the store was asked for the session

  if (strips_token(snapshot.settings.identity, head))
    return refuse(call, Reason::bad_request, "Connection names a field that holds the caller's credentials.");
  catalogue::Request request = request_of(call, head, {});
  std::string_view path = "/";
  if (head.path != "*") {
    if (auto read = catalogue::normalise(request.target, path_); !read)
      return refuse(call, Reason::bad_request, read.error().message);
    request.path = &path_;
    path = path_.path;
  }
  const bool own =
      path.starts_with(kOwnPrefix) && (path.size() == kOwnPrefix.size() || path[kOwnPrefix.size()] == '/');
  if (own) {
    if (path != kUsagePath)
      return refuse(call, Reason::not_found, "There is no such page. Try /.tollgate/usage.");
    if (head.method != "GET" && head.method != "HEAD") {
      refuse(call, Reason::method_not_allowed, "/.tollgate/usage answers GET only.");
      call.reply.fields += "Allow: GET, HEAD\r\n";  // RFC 9110 section 15.5.6
      return Next::reply;
    }
    auto refusal = authenticate(call, head, now);
    if (const auto next = awaited(call)) return *next;
    if (refusal) return reply_with(call, std::move(*refusal));
    return begin_usage(call);
  }

  call.route = find_route(snapshot.settings, head.authority, path);
  if (call.route == nullptr)
    return refuse(call, Reason::not_found, "No route leads from this host and path to a CRM.");
  if (call.route->max_body != 0 && head.framing == http::Framing::length &&
      head.content_length > call.route->max_body)
    return refuse(call, Reason::body_too_large, "The request body is larger than this route accepts.");
  if (rewrites(*call.route) && request.path != nullptr) {
    call.upstream_path = rewritten_path(*call.route, head.path, path_);
    request = request_of(call, head, {});
    if (auto read = catalogue::normalise(request.target, path_); !read)
      return refuse(call, Reason::bad_request, read.error().message);
    request.path = &path_;
  }
  if (snapshot.sessions != nullptr) [[unlikely]]
    if (auto next = begin_login(call, head, request)) return *next;
  if (!call.route->metered || is_preflight(head)) return call.no_anonymous ? shed(call) : Next::forward;

  call.tell(&Life::enter, Phase::authenticate);
  std::optional<LocalReply> refusal = authenticate(call, head, now);
  if (const auto next = awaited(call)) return *next;
  if (call.session != nullptr && call.session->record != nullptr && request.path != nullptr) [[unlikely]]
    call.session->step = step_of(call.session->kind, head, request.path->lower);
  if (!refusal && call.session != nullptr && call.session->counted) [[unlikely]]
    refusal = check_site(call, head, request);
  if (!refusal) call.tell(&Life::authenticated, call);
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
  return decide(call, request, now);
}

Next Gate::on_session(Call& call, const http::RequestHead& head, SessionAnswer answer, UnixTime now) {
  call.session->answer = std::move(answer);
  call.session->asks = false;
  if (call.session->step == identity::SessionStep::log_in) return on_refresh(call, look_up(call, now));
  return on_head(call, head, now);
}

Next Gate::on_lookup(Call& call, const http::RequestHead& head,
                     std::shared_ptr<const identity::LookupVerdict> verdict, UnixTime now) {
  call.lookup->verdict = std::move(verdict);
  call.lookup->asks = false;
  return on_head(call, head, now);
}

Next Gate::on_body(Call& call, const http::RequestHead& head, std::string_view body, UnixTime now) {
  if (call.session != nullptr && call.session->step == identity::SessionStep::log_in) {
    const Next next = read_login(call, head, body);
    if (next != Next::find_session) return next;
    const SessionState state = look_up(call, now);
    return state == SessionState::asks ? next : on_refresh(call, state);
  }
  call.tell(&Life::enter, Phase::classify);
  return decide(call, request_of(call, head, body), now);
}

Next Gate::decide(Call& call, const catalogue::Request& request, UnixTime now) {
  const Snapshot& snapshot = *call.snapshot;
  const identity::Principal& principal = call.token->principal;
  call.classification = snapshot.classifier.classify(request, std::move(call.classification));
  const catalogue::Classification& seen = call.classification;
  call.tell(&Life::classified, call);
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
  if (snapshot.owners != nullptr) [[unlikely]]
    look_at_owners(call, request, now);
  call.decision = snapshot.policy.decide(principal, seen, std::move(call.decision), call.owners);
  if (snapshot.owner_lookup != nullptr && !call.owners_asked && hangs_on_owners(call)) [[unlikely]]
    return Next::find_owners;
  if (call.decision.reason != Reason::ok) return refuse(call, call.decision.reason, call.decision.detail);

  if (snapshot.policy.by_table()) [[unlikely]] {
    call.seats_needed = call.decision.consumes ? snapshot.concurrent_pool : 0;
    return call.seats_needed != 0 ? Next::seat : begin_charge(call);
  }
  if (!snapshot.seat_pools.empty() && call.decision.metered && !principal.is_staff()) {
    call.seats_needed = snapshot.concurrent_pool;
    for (std::size_t i = 0; i < snapshot.pool_of_product.size(); ++i)
      if ((call.decision.seat_products >> i & 1) != 0) call.seats_needed |= snapshot.pool_of_product[i];
    if (call.seats_needed != 0) return Next::seat;
  }
  if (seen.portal != nullptr && snapshot.portal_pool != nullptr) [[unlikely]] {
    call.portal = std::make_unique<CallPortal>();
    call.portal->pool = snapshot.portal_pool->pool;
    call.portal->pool.capacity = capacity_for(snapshot, *seen.portal);
    if (seen.portal->way == catalogue::PortalChange::Way::add) return Next::seat;
  }
  return begin_charge(call);
}

const seats::Pool& Gate::wanted_seat(const Call& call) {
  if (call.portal != nullptr) return call.portal->pool;
  CHECK(call.seats_needed != 0, "asked for after Next::seat");
  return call.snapshot->seat_pools[static_cast<std::size_t>(std::countr_zero(call.seats_needed))].pool;
}

Next Gate::on_seat(Call& call, const seats::Outcome& outcome) {
  const seats::Pool& pool = wanted_seat(call);
  switch (outcome.status) {
    case seats::Outcome::Status::held:
      if (outcome.taken) call.response_fields.append("License-Seat: ").append(pool.id).append(";taken\r\n");
      break;
    case seats::Outcome::Status::full:
      return reply_with(call, seat_refused(call, outcome));
    case seats::Outcome::Status::unavailable:
      call.degraded = true;
      if (call.snapshot->settings.store.on_outage != config::OnOutage::allow)
        return reply_with(call, seat_unavailable(call, outcome));
      break;
  }
  call.seats_needed &= call.seats_needed - 1;
  return call.seats_needed != 0 ? Next::seat : begin_charge(call);
}

Next Gate::begin_charge(Call& call) {
  const Snapshot& snapshot = *call.snapshot;
  operations_.clear();
  for (const licence::Unit& unit : call.decision.units)
    operations_.push_back(
        {.object = unit.object, .operation = catalogue::name(unit.operation), .product = unit.product});
  call.charges = std::move(call.spare_charges);
  quota::Caller caller = caller_of(call.token->principal);
  caller.credits = call.classification.credits;
  snapshot.rules.list_charges(caller, operations_, call.charges);
  call.tell(&Life::decided, call);
  return call.charges.empty() && !call.decision.metered ? Next::forward : Next::charge;
}

Next Gate::on_charge(Call& call, quota::ChargeOutcome&& outcome) {
  switch (outcome.status) {
    case quota::ChargeOutcome::Status::admitted:
      std::swap(call.states, outcome.states);
      std::swap(call.receipt, outcome.receipt);
      call.degraded |= outcome.degraded;
      if (call.response_fields.empty())
        call.response_fields = rate_limit_lines(call, {}, std::move(call.response_fields));
      else  // of a seat
        call.response_fields += rate_limit_lines(call);
      return Next::forward;
    case quota::ChargeOutcome::Status::exceeded:
      std::swap(call.states, outcome.states);
      reply_with(call, quota_exceeded(call, outcome.violated, std::move(call.reply)));
      call.reply.fields += call.response_fields;
      return Next::reply;
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
  call.tell(&Life::authenticated, call);
  call.usage_request = true;
  call.classification.kind = catalogue::Kind::basic_function;
  const quota::Caller caller = caller_of(call.token->principal);
  call.charges = call.snapshot->rules.accounts(caller);
  call.observation = call.snapshot->rules.observation(caller);
  return Next::read_usage;
}

Next Gate::on_usage(Call& call, Result<std::vector<quota::AccountState>>&& states,
                    Result<std::vector<quota::Ledger::Listed>>&& objects, const SeatLooks& seats) {
  if (!states || !objects)
    return refuse(call, Reason::store_unavailable, "The counts cannot be read at the moment; try again.");
  call.states = std::move(*states);
  return reply_with(call, usage(call, call.states, *objects, seats));
}

}  // namespace tollgate::flow
