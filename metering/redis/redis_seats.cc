#include "metering/redis/redis_seats.h"

#include <algorithm>

namespace tollgate::redis {
namespace {

using seats::Kind;
using seats::kNoEnd;
using seats::Pool;

ScriptCall begin(const Pool& pool, const std::string& run) {
  const std::string key = seats::seats_key(pool);
  return {.keys = {key, key + ":gone", key + ":about"},
          .args = {pool.kind == Kind::concurrent ? "c" : "n", run, std::to_string(pool.lease.count())}};
}

std::unexpected<Error> strange(const Reply& reply) {
  if (reply.is_error()) return fail(Origin::store, "the store: " + reply.text, true);
  return fail(Origin::store, "the store gave a reply that is not the script's");
}

// An array of at least `least` elements whose first ones are that many integers.
bool has_integers(const Reply& reply, std::size_t least) {
  return reply.type == Reply::Type::array && reply.elements.size() >= least &&
         std::all_of(reply.elements.begin(), reply.elements.begin() + static_cast<std::ptrdiff_t>(least),
                     [](const Reply& one) { return one.type == Reply::Type::integer && one.integer >= -1; });
}

Milliseconds span_of(std::int64_t ms) {
  return ms < 0 ? kNoEnd : Milliseconds(ms);
}

}  // namespace

ScriptCall seat_take_call(const Pool& pool, const std::string& run, const std::string& member,
                          const std::string& client) {
  ScriptCall call = begin(pool, run);
  call.keys.push_back(seats::seats_key(pool) + ":clients");
  call.args.push_back(std::to_string(pool.capacity));
  call.args.push_back(std::to_string(pool.idle.count()));
  call.args.push_back(member);
  call.args.push_back(client);
  return call;
}

ScriptCall seat_renew_call(const Pool& pool, const std::string& run,
                           const std::vector<seats::Renewal>& renewals) {
  ScriptCall call = begin(pool, run);
  for (const seats::Renewal& renewal : renewals) {
    call.args.push_back(renewal.member);
    call.args.push_back(std::to_string(renewal.idle_left.count()));
  }
  return call;
}

ScriptCall seat_release_call(const Pool& pool, const std::string& run, const std::string& member) {
  ScriptCall call = begin(pool, run);
  call.keys.push_back(seats::seats_key(pool) + ":invites");
  call.keys.push_back(seats::seats_key(pool) + ":clients");
  call.args.push_back(member);
  return call;
}

ScriptCall seat_leave_call(const Pool& pool, const std::string& run, const std::string& member,
                           const std::vector<std::string>& clients) {
  ScriptCall call = seat_release_call(pool, run, member);
  call.args.insert(call.args.end(), clients.begin(), clients.end());
  return call;
}

ScriptCall seat_invite_call(const Pool& pool, const std::string& run, const std::string& id,
                            const std::vector<std::string>& members) {
  ScriptCall call = begin(pool, run);
  call.keys.push_back(seats::seats_key(pool) + ":invites");
  call.args.push_back(std::to_string(pool.capacity));
  call.args.push_back(id);
  call.args.insert(call.args.end(), members.begin(), members.end());
  return call;
}

ScriptCall seat_settle_call(const Pool& pool, const std::string& run, const std::string& id,
                            const std::vector<seats::Settlement>& settlements) {
  using Outcome = seats::Settlement::Outcome;
  ScriptCall call = begin(pool, run);
  call.keys.push_back(seats::seats_key(pool) + ":invites");
  call.args.push_back(id);
  for (const auto& [outcome, member] : settlements) {
    call.args.emplace_back(outcome == Outcome::member ? "m" : outcome == Outcome::refused ? "f" : "r");
    call.args.push_back(member);
  }
  return call;
}

ScriptCall seat_list_call(const Pool& pool, const std::string& run, std::uint64_t offset, std::uint64_t count,
                          const std::string& member) {
  ScriptCall call = begin(pool, run);
  call.args.push_back(std::to_string(offset));
  call.args.push_back(std::to_string(count));
  call.args.push_back(member);
  return call;
}

Result<seats::TakeReply> parse_seat_take(const Reply& reply) {
  using Status = seats::TakeReply::Status;
  if (!has_integers(reply, 4) || reply.elements[0].integer < 0 || reply.elements[0].integer > 3)
    return strange(reply);
  return seats::TakeReply{.status = static_cast<Status>(reply.elements[0].integer),
                          .left = span_of(reply.elements[1].integer),
                          .used = static_cast<std::uint64_t>(reply.elements[2].integer),
                          .born = static_cast<std::uint64_t>(reply.elements[3].integer)};
}

Result<seats::RenewReply> parse_seat_renew(const Reply& reply, std::size_t renewals) {
  if (!has_integers(reply, 3 + renewals) || reply.elements.size() != 3 + renewals) return strange(reply);
  seats::RenewReply out{.used = static_cast<std::uint64_t>(reply.elements[0].integer),
                        .born = static_cast<std::uint64_t>(reply.elements[1].integer),
                        .fence = Milliseconds(reply.elements[2].integer),
                        .left = {}};
  for (std::size_t i = 0; i < renewals; ++i) out.left.push_back(span_of(reply.elements[3 + i].integer));
  return out;
}

Result<bool> parse_seat_release(const Reply& reply) {
  if (!has_integers(reply, 1)) return strange(reply);
  return reply.elements[0].integer == 1;
}

Result<seats::Page> parse_seat_list(const Reply& reply) {
  if (!has_integers(reply, 3) || reply.elements.size() % 2 == 0) return strange(reply);
  seats::Page page{.now = Milliseconds(reply.elements[0].integer),
                   .used = static_cast<std::uint64_t>(reply.elements[1].integer),
                   .seats = {},
                   .own = {}};
  if (reply.elements[2].integer >= 0) page.own = Milliseconds(reply.elements[2].integer);
  for (std::size_t i = 3; i + 1 < reply.elements.size(); i += 2) {
    const Reply &member = reply.elements[i], &at = reply.elements[i + 1];
    if (member.type != Reply::Type::text || at.type != Reply::Type::integer) return strange(reply);
    page.seats.push_back({.member = member.text, .at = Milliseconds(at.integer)});
  }
  return page;
}

Result<seats::InviteReply> parse_seat_invite(const Reply& reply) {
  if (!has_integers(reply, 3)) return strange(reply);
  return seats::InviteReply{.full = reply.elements[0].integer == 1,
                            .taken = static_cast<std::uint64_t>(reply.elements[1].integer),
                            .used = static_cast<std::uint64_t>(reply.elements[2].integer)};
}

Result<void> parse_seat_settle(const Reply& reply) {
  if (!has_integers(reply, 1)) return strange(reply);
  return {};
}

RedisSeats::RedisSeats(RedisStore& store) : store_(store), alive_(std::make_shared<int>()) {}
RedisSeats::~RedisSeats() = default;

template <class Parse, class Done>
void RedisSeats::ask(const Pool& pool, const Script& script,
                     const std::function<ScriptCall(const std::string& run)>& call, Milliseconds timeout,
                     bool durable, Parse parse, Done done) {
  store_.run(seats::partition_of(pool), script, call, timeout, durable,
             [alive = std::weak_ptr(alive_), parse = std::move(parse),
              done = std::move(done)](Result<Reply*> reply) {
               if (alive.expired()) return;
               if (!reply) return done(std::unexpected(reply.error()));
               done(parse(**reply));
             });
}

void RedisSeats::take(const Pool& pool, std::string member, std::string client,
                      std::function<void(Result<seats::TakeReply>&&)> done) {
  ask(
      pool, store_.options().scripts.seat_take,
      [&](const std::string& run) { return seat_take_call(pool, run, member, client); },
      store_.options().timeout, true, parse_seat_take, std::move(done));
}

void RedisSeats::renew(const Pool& pool, std::vector<seats::Renewal> renewals,
                       std::function<void(Result<seats::RenewReply>&&)> done) {
  ask(
      pool, store_.options().scripts.seat_renew,
      [&](const std::string& run) { return seat_renew_call(pool, run, renewals); },
      store_.options().admin_timeout, true,
      [count = renewals.size()](const Reply& reply) { return parse_seat_renew(reply, count); },
      std::move(done));
}

void RedisSeats::invite(const Pool& pool, std::string id, std::vector<std::string> members,
                        std::function<void(Result<seats::InviteReply>&&)> done) {
  ask(
      pool, store_.options().scripts.seat_invite,
      [&](const std::string& run) { return seat_invite_call(pool, run, id, members); },
      store_.options().timeout, true, parse_seat_invite, std::move(done));
}

void RedisSeats::settle(const Pool& pool, std::string id, std::vector<seats::Settlement> settlements,
                        std::function<void(Result<void>&&)> done) {
  ask(
      pool, store_.options().scripts.seat_settle,
      [&](const std::string& run) { return seat_settle_call(pool, run, id, settlements); },
      store_.options().admin_timeout, true, parse_seat_settle, std::move(done));
}

void RedisSeats::release(const Pool& pool, std::string member, std::function<void(Result<bool>&&)> done) {
  ask(
      pool, store_.options().scripts.seat_release,
      [&](const std::string& run) { return seat_release_call(pool, run, member); },
      store_.options().admin_timeout, true, parse_seat_release, std::move(done));
}

void RedisSeats::leave(const Pool& pool, std::string member, std::vector<std::string> clients,
                       std::function<void(Result<bool>&&)> done) {
  ask(
      pool, store_.options().scripts.seat_leave,
      [&](const std::string& run) { return seat_leave_call(pool, run, member, clients); },
      store_.options().admin_timeout, true, parse_seat_release, std::move(done));
}

void RedisSeats::list(const Pool& pool, std::uint64_t offset, std::uint64_t count, std::string member,
                      std::function<void(Result<seats::Page>&&)> done) {
  ask(
      pool, store_.options().scripts.seat_list,
      [&](const std::string& run) { return seat_list_call(pool, run, offset, count, member); },
      store_.options().timeout, false, parse_seat_list, std::move(done));
}

}  // namespace tollgate::redis
