#include "metering/seats/recorder.h"

#include <algorithm>
#include <utility>

namespace tollgate::seats {

SeatRecorder::SeatRecorder(SeatStore& store, std::function<Milliseconds()> now, Write write)
    : store_(store), now_(std::move(now)), write_(std::move(write)) {}

bool SeatRecorder::write(const Pool& pool, const std::string& member, Milliseconds time, Milliseconds until,
                         std::uint64_t used, bool goes_on) {
  const auto name = parse_member(member);
  if (!name) return true;  // nobody's that a proxy wrote
  return write_({.time_ms = time.count(),
                 .pool = pool.id,
                 .named = pool.kind == Kind::named,
                 .tenant = name->tenant,
                 .user = name->user,
                 .until_ms = until == kNoEnd ? usage::SeatEntry::kNoEnd : until.count(),
                 .used = used,
                 .goes_on = goes_on});
}

void SeatRecorder::holds(const Pool& pool, const std::string& member, Milliseconds until, std::uint64_t used,
                         bool anew) {
  Holders& holders = pools_[seats_key(pool)];
  auto found = holders.find(member);
  if (found != holders.end() && !anew && now_() < found->second.written) {
    found->second.stored = until;
    return;
  }
  if (!write(pool, member, now_(), until, used)) return;
  // Whoever is forgotten here is written down once more.
  if (holders.size() >= kRemembered) holders.clear();
  holders.insert_or_assign(member, Held{.written = until, .stored = until});
}

void SeatRecorder::left(const Pool& pool, const std::string& member, Milliseconds when) {
  if (write(pool, member, when, when, 0)) pools_[seats_key(pool)].erase(member);
}

void SeatRecorder::extend(const Pool& pool) {
  if (pool.kind == Kind::named) return;
  const Milliseconds now = now_(), soon = now + pool.lease / 3;
  Holders& holders = pools_[seats_key(pool)];
  for (auto one = holders.begin(); one != holders.end();) {
    Held& held = one->second;
    if (held.written <= now) {  // if it is held all the same, the next answer says so
      one = holders.erase(one);
      continue;
    }
    if (held.written <= soon && held.stored > held.written &&
        write(pool, one->first, now, held.stored, 0, true))
      held.written = held.stored;
    ++one;
  }
}

void SeatRecorder::take(const Pool& pool, std::string member, std::string client,
                        std::function<void(Result<TakeReply>&&)> done) {
  const Milliseconds sent = now_();
  std::string asked = member;
  store_.take(
      pool, std::move(asked), std::move(client),
      [this, pool, member = std::move(member), sent, done = std::move(done)](Result<TakeReply>&& reply) {
        using Status = TakeReply::Status;
        if (reply && (reply->status == Status::taken || reply->status == Status::held))
          holds(pool, member, reply->left == kNoEnd ? kNoEnd : sent + reply->left, reply->used,
                reply->status == Status::taken);
        done(std::move(reply));
      });
}

void SeatRecorder::renew(const Pool& pool, std::vector<Renewal> renewals,
                         std::function<void(Result<RenewReply>&&)> done) {
  const Milliseconds sent = now_();
  std::vector<std::string> members;
  for (const Renewal& renewal : renewals) members.push_back(renewal.member);
  store_.renew(
      pool, std::move(renewals),
      [this, pool, members = std::move(members), sent, done = std::move(done)](Result<RenewReply>&& reply) {
        if (reply && reply->left.size() == members.size()) {
          for (std::size_t i = 0; i < members.size(); ++i) {
            const Milliseconds left = reply->left[i];
            if (left.count() > 0)
              holds(pool, members[i], left == kNoEnd ? kNoEnd : sent + left, reply->used, false);
            else  // whoever took it away has written that
              pools_[seats_key(pool)].erase(members[i]);
          }
          extend(pool);
        }
        done(std::move(reply));
      });
}

void SeatRecorder::invite(const Pool& pool, std::string id, std::vector<std::string> members,
                          std::function<void(Result<InviteReply>&&)> done) {
  store_.invite(pool, std::move(id), std::move(members), std::move(done));
}

void SeatRecorder::settle(const Pool& pool, std::string id, std::vector<Settlement> settlements,
                          std::function<void(Result<void>&&)> done) {
  const Milliseconds sent = now_();
  std::vector<Settlement> settled = settlements;
  store_.settle(
      pool, std::move(id), std::move(settlements),
      [this, pool, settled = std::move(settled), sent, done = std::move(done)](Result<void>&& reply) {
        using Outcome = Settlement::Outcome;
        if (reply) {
          for (const Settlement& one : settled) {
            if (one.outcome == Outcome::member) holds(pool, one.member, kNoEnd, 0, false);
            if (one.outcome == Outcome::removed) left(pool, one.member, sent);
          }
        }
        done(std::move(reply));
      });
}

void SeatRecorder::release(const Pool& pool, std::string member, std::function<void(Result<bool>&&)> done) {
  const Milliseconds sent = now_();
  std::string asked = member;
  store_.release(
      pool, std::move(asked),
      [this, pool, member = std::move(member), sent, done = std::move(done)](Result<bool>&& reply) {
        if (reply && *reply) left(pool, member, sent);
        done(std::move(reply));
      });
}

void SeatRecorder::leave(const Pool& pool, std::string member, std::vector<std::string> clients,
                         std::function<void(Result<bool>&&)> done) {
  const Milliseconds sent = now_();
  std::string asked = member;
  store_.leave(pool, std::move(asked), std::move(clients),
               [this, pool, member = std::move(member), sent, done = std::move(done)](Result<bool>&& reply) {
                 if (reply && *reply) left(pool, member, sent);
                 done(std::move(reply));
               });
}

void SeatRecorder::list(const Pool& pool, std::uint64_t offset, std::uint64_t count, std::string member,
                        std::function<void(Result<Page>&&)> done) {
  store_.list(pool, offset, count, std::move(member), std::move(done));
}

}  // namespace tollgate::seats
