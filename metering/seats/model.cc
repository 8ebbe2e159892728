#include "metering/seats/model.h"

#include <algorithm>

namespace tollgate::seats {

Milliseconds SeatModel::begin(const Pool& pool, Content& content) {
  if (content.born == 0) content.born = static_cast<std::uint64_t>(now_.count());
  if (pool.kind == Kind::named) return Milliseconds(0);
  std::erase_if(content.seats, [&](const auto& seat) { return seat.second <= now_; });
  if (content.run == run_) return Milliseconds(0);
  if (content.fence != run_ || content.fence_at > now_) {
    content.fence = run_;
    content.fence_at = now_;
  }
  const Milliseconds wait = std::max(Milliseconds(0), content.fence_at + pool.lease - now_);
  if (wait.count() == 0) {
    content.run = run_;
    content.fence.clear();
  }
  return wait;
}

TakeReply SeatModel::take(const Pool& pool, const std::string& member, const std::string& client) {
  using Status = TakeReply::Status;
  Content& content = pools_[seats_key(pool)];
  const Milliseconds fence = begin(pool, content);
  const bool named = pool.kind == Kind::named;
  TakeReply reply{.used = content.seats.size(), .born = content.born};
  if (auto seat = content.seats.find(member); seat != content.seats.end()) {
    reply.status = Status::held;
    if (!named) seat->second = std::max(seat->second, now_ + pool.idle);
    reply.left = named ? kNoEnd : seat->second - now_;
  } else if (fence.count() > 0) {
    reply.status = Status::fenced;
    reply.left = fence;
  } else if (reply.used >= pool.capacity) {
    reply.status = Status::full;
    reply.left = kNoEnd;
    if (!named)
      for (const auto& [other, until] : content.seats) reply.left = std::min(reply.left, until - now_);
  } else {
    reply.status = Status::taken;
    content.seats[member] = named ? now_ : now_ + pool.idle;
    content.gone.erase(member);
    reply.left = named ? kNoEnd : pool.idle;
    content.clients.erase(member);
    ++reply.used;
  }
  const bool has = reply.status == Status::taken || reply.status == Status::held;
  if (!named && has && !client.empty()) {
    auto& clients = content.clients[member];
    std::erase_if(clients, [&](const auto& one) { return one.first == client || one.second <= now_; });
    if (clients.size() >= kClientsMax) clients.erase(clients.begin());
    clients.emplace_back(client, now_ + pool.idle);
  }
  return reply;
}

bool SeatModel::leave(const Pool& pool, const std::string& member, const std::vector<std::string>& ended) {
  Content& content = pools_[seats_key(pool)];
  begin(pool, content);
  Milliseconds last{0};
  if (auto of_member = content.clients.find(member); of_member != content.clients.end()) {
    std::erase_if(of_member->second, [&](const auto& one) {
      return one.second <= now_ || std::ranges::find(ended, one.first) != ended.end();
    });
    for (const auto& [client, until] : of_member->second) last = std::max(last, until);
  }
  if (last.count() == 0) return release(pool, member);
  if (auto seat = content.seats.find(member); seat != content.seats.end())
    seat->second = std::min(seat->second, std::max(last, now_ + pool.lease));
  return false;
}

RenewReply SeatModel::renew(const Pool& pool, const std::vector<Renewal>& renewals) {
  Content& content = pools_[seats_key(pool)];
  RenewReply reply;
  reply.fence = begin(pool, content);
  reply.born = content.born;
  const bool named = pool.kind == Kind::named;
  for (const Renewal& renewal : renewals) {
    auto seat = content.seats.find(renewal.member);
    const bool forgotten = !content.gone.contains(renewal.member) && (named || reply.fence.count() > 0);
    if (seat == content.seats.end() && forgotten && (named || renewal.idle_left.count() > 0))
      seat = content.seats.emplace(renewal.member, named ? now_ : Milliseconds(0)).first;
    if (seat == content.seats.end()) {
      reply.left.push_back(Milliseconds(0));
      continue;
    }
    if (!named) seat->second = std::max(seat->second, now_ + renewal.idle_left);
    reply.left.push_back(named ? kNoEnd : seat->second - now_);
  }
  reply.used = content.seats.size();
  return reply;
}

InviteReply SeatModel::invite(const Pool& pool, const std::string& id,
                              const std::vector<std::string>& members) {
  Content& content = pools_[seats_key(pool)];
  begin(pool, content);
  InviteReply reply{.used = content.seats.size()};
  reply.taken = static_cast<std::uint64_t>(std::ranges::count_if(
      members, [&](const std::string& member) { return !content.seats.contains(member); }));
  reply.full = reply.taken > 0 && reply.used + reply.taken > pool.capacity;
  if (reply.full) {
    reply.taken = 0;
    return reply;
  }
  for (const std::string& member : members) {
    if (content.seats.emplace(member, now_).second) {
      content.invites[member] = {id};
      content.gone.erase(member);
    } else if (auto under_way = content.invites.find(member); under_way != content.invites.end()) {
      if (std::ranges::find(under_way->second, id) == under_way->second.end())
        under_way->second.push_back(id);
    }
  }
  reply.used += reply.taken;
  return reply;
}

void SeatModel::settle(const Pool& pool, const std::string& id, const std::vector<Settlement>& settlements) {
  using Outcome = Settlement::Outcome;
  Content& content = pools_[seats_key(pool)];
  begin(pool, content);
  for (const auto& [outcome, member] : settlements) {
    auto under_way = content.invites.find(member);
    if (outcome == Outcome::refused) {
      if (under_way == content.invites.end() || std::erase(under_way->second, id) == 0 ||
          !under_way->second.empty())
        continue;
      content.seats.erase(member);
    } else if (outcome == Outcome::removed) {
      content.seats.erase(member);
    } else {
      content.seats.emplace(member, now_);
      content.gone.erase(member);
    }
    content.invites.erase(member);
  }
}

bool SeatModel::release(const Pool& pool, const std::string& member) {
  Content& content = pools_[seats_key(pool)];
  begin(pool, content);
  std::erase_if(content.gone, [&](const auto& one) { return one.second <= now_ - kReleasedKept; });
  content.gone[member] = now_;
  content.invites.erase(member);
  content.clients.erase(member);
  return content.seats.erase(member) > 0;
}

Page SeatModel::list(const Pool& pool, std::uint64_t offset, std::uint64_t count, const std::string& member) {
  Content& content = pools_[seats_key(pool)];
  begin(pool, content);
  Page page{.now = now_, .used = content.seats.size(), .seats = {}, .own = {}};
  std::vector<std::pair<Milliseconds, std::string>> sorted;
  for (const auto& [name, at] : content.seats) sorted.emplace_back(at, name);
  std::ranges::sort(sorted);
  for (std::uint64_t i = offset; i < sorted.size() && i - offset < count; ++i)
    page.seats.push_back({.member = sorted[i].second, .at = sorted[i].first});
  if (auto own = content.seats.find(member); own != content.seats.end()) page.own = own->second;
  return page;
}

}  // namespace tollgate::seats
