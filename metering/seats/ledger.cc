#include "metering/seats/ledger.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <boost/unordered/unordered_flat_map.hpp>
#include <utility>

namespace tollgate::seats {
namespace {

constexpr std::size_t kBatch = 256;           // renewals of one command
constexpr Milliseconds kSameEnd{100};         // two moments of one session's end, as two calls compute it
constexpr Milliseconds kStoreAwayPause{200};  // after a renewal without answer
constexpr Milliseconds kNamedWithoutStore{1'000};  // a named seat is served on; asked for again after this

struct Name {
  std::string tenant, user;
};

struct NameHash {
  using is_transparent = void;
  std::uint64_t seed = 0;
  std::size_t operator()(const Holder& holder) const {
    const std::uint64_t tenant =
        holder.tenant.empty() ? seed : XXH3_64bits_withSeed(holder.tenant.data(), holder.tenant.size(), seed);
    return XXH3_64bits_withSeed(holder.user.data(), holder.user.size(), tenant);
  }
  std::size_t operator()(const Name& name) const { return (*this)(Holder{name.tenant, name.user}); }
};
struct NameEqual {
  using is_transparent = void;
  static Holder view(const Name& name) { return {name.tenant, name.user}; }
  static const Holder& view(const Holder& holder) { return holder; }
  bool operator()(const auto& a, const auto& b) const {
    return view(a).user == view(b).user && view(a).tenant == view(b).tenant;
  }
};

// Who waits for the answer about one holder.
struct Waiting {
  SeatLedger::TakeDone done;
  Milliseconds hold{0};
  ClientId client = kNoClient;
};

struct Entry {
  enum class State : std::uint8_t { unknown, held, refused } state = State::unknown;
  bool active = false;  // held: had a call since the last renewal
  bool asking = false;
  MonotonicTime until{};       // held, refused: for how long that is certain
  MonotonicTime wanted{};      // held: until then, by the last call; concurrent
  MonotonicTime stored{};      // held: until then in the store, by its last answer; concurrent
  MonotonicTime free_after{};  // refused: when the store's earliest seat may become free; zero: not known
  std::vector<Waiting> waiting;
  struct Client {
    ClientId id = kNoClient;
    MonotonicTime until{};  // as the store has noted
  };
  std::vector<Client> clients;  // held: of whom the store knows from here; a few

  // Has the store noted that the client holds the seat: until `enough`, or as long as it wants it at all?
  bool knows(ClientId client, MonotonicTime enough, MonotonicTime at_most) const {
    if (client == kNoClient) return true;
    for (const Client& one : clients)
      if (one.id == client) return one.until >= std::min(enough, at_most - kSameEnd);
    return false;
  }
  void note(ClientId client, MonotonicTime now, MonotonicTime until_then) {
    if (client == kNoClient) return;
    std::erase_if(clients, [&](const Client& one) { return one.id == client || one.until <= now; });
    if (clients.size() >= kClientsMax) clients.erase(clients.begin());
    clients.push_back({client, until_then});
  }
  void lose() {
    state = State::unknown;
    active = false;
    until = {};
    clients.clear();
  }
};

std::string client_text(ClientId client) {
  return client == kNoClient ? "" : fmt::format("{:016x}", client);
}

// The part of `left` that may be relied on, counted from before the command was sent: quartz clocks drift.
Duration certain(const Pool& pool, Milliseconds left) {
  const Duration lease = std::min(pool.lease, left);
  return lease - lease / 500;
}

Milliseconds renewal_interval(const Pool& pool) {
  return std::max(Milliseconds(1), pool.lease / 6);
}

// A session that was made longer wants its seat for longer too, and the store may give it away before the next renewal.
bool ends_before_renewal(const Pool& pool, const Entry& entry, MonotonicTime now, MonotonicTime wanted) {
  return pool.kind == Kind::concurrent && wanted > entry.stored &&
         entry.stored - now < 2 * renewal_interval(pool);
}

}  // namespace

struct SeatLedger::PoolSeats {
  PoolSeats(Pool the_pool, std::uint64_t seed) : pool(std::move(the_pool)), entries(16, NameHash{seed}) {}

  bool may_go(const Entry& entry, MonotonicTime now) const {
    return !entry.asking && !entry.active && entry.until <= now;
  }
  // What is certain no longer is forgotten, but for named holders: who remembers them gives them back to a store that has
  // lost everything.
  void sweep(MonotonicTime now, std::size_t most) {
    const bool keep_named = pool.kind == Kind::named && entries.size() <= most;
    boost::unordered::erase_if(entries, [&](const auto& one) {
      const Entry& entry = one.second;
      return may_go(entry, now) && !(keep_named && entry.state == Entry::State::held);
    });
  }
  void note(std::uint64_t used_now, std::uint64_t store_born) {
    used = used_now;
    known = true;
    if (born != 0 && born != store_born && pool.kind == Kind::named) {
      for (auto& [name, entry] : entries)
        if (entry.state == Entry::State::held) entry.active = true;
      due = {};
    }
    born = store_born;
  }

  // What the store said of a renewal sent at `sent`; nullopt: nothing.
  void renewed(const Name& name, MonotonicTime sent, std::optional<Milliseconds> left) {
    auto found = entries.find(name);
    if (found == entries.end() || found->second.state != Entry::State::held) return;
    Entry& entry = found->second;
    if (!left) {
      entry.active = true;
    } else if (left->count() > 0) {
      entry.until = std::max(entry.until, sent + certain(pool, *left));
      entry.stored = *left == kNoEnd ? MonotonicTime::max() : sent + *left;
    } else {
      entry.lose();
    }
  }

  Pool pool;
  std::vector<Name> round;  // of renewals: who is still to be renewed
  boost::unordered_flat_map<Name, Entry, NameHash, NameEqual> entries;
  MonotonicTime due{};  // of the next renewal
  bool renewing = false;
  std::uint64_t used = 0, born = 0;
  bool known = false;
};

SeatLedger::SeatLedger(SeatStore& store, std::function<MonotonicTime()> now, SeatLedgerOptions options)
    : store_(store), now_(std::move(now)), options_(options), alive_(std::make_shared<int>()) {}
SeatLedger::~SeatLedger() {
  alive_.reset();
  for (const auto& seats : pools_)
    for (auto& [name, entry] : seats->entries)
      for (Waiting& one : std::exchange(entry.waiting, {})) one.done({});
  for (auto& [question, done] : std::exchange(unanswered_, {})) done({});
}

void SeatLedger::configure(std::vector<Pool> pools) {
  for (const Pool& pool : pools) seats_of(pool)->pool = pool;
  std::erase_if(pools_, [&](const auto& seats) {
    const bool waited_for =
        std::ranges::any_of(seats->entries, [](const auto& one) { return one.second.asking; });
    return !waited_for && std::ranges::none_of(pools, [&](const Pool& pool) {
      return pool.id == seats->pool.id && pool.kind == seats->pool.kind;
    });
  });
}

const std::shared_ptr<SeatLedger::PoolSeats>& SeatLedger::seats_of(const Pool& pool) {
  for (const auto& seats : pools_)
    if (seats->pool.id == pool.id && seats->pool.kind == pool.kind) return seats;
  return pools_.emplace_back(std::make_shared<PoolSeats>(pool, options_.hash_seed));
}

std::optional<Outcome> SeatLedger::take(const Pool& pool, const Holder& holder, TakeDone done,
                                        Milliseconds hold, ClientId client) {
  const MonotonicTime now = now_();
  if (hold.count() == 0) hold = pool.idle;
  const std::shared_ptr<PoolSeats>& owned = seats_of(pool);
  PoolSeats& seats = *owned;
  auto found = seats.entries.find(holder);
  if (found != seats.entries.end()) {
    Entry& known = found->second;
    if (known.state == Entry::State::held && now < known.until &&
        !ends_before_renewal(pool, known, now, now + hold) &&
        known.knows(client, now + 2 * renewal_interval(pool), now + hold)) [[likely]] {
      known.active = true;
      known.wanted = std::max(known.wanted, now + hold);
      return Outcome{.status = Outcome::Status::held};
    }
    if (known.state == Entry::State::refused && now < known.until)
      return Outcome{.status = Outcome::Status::full,
                     .retry_after = known.free_after == MonotonicTime{}
                                        ? Milliseconds(0)
                                        : std::chrono::ceil<Milliseconds>(known.free_after - now)};
  } else {
    if (seats.entries.size() >= options_.remembered) seats.sweep(now, 0);
    found = seats.entries.emplace(Name{std::string(holder.tenant), std::string(holder.user)}, Entry{}).first;
  }
  Entry& entry = found->second;
  entry.waiting.push_back({std::move(done), hold, client});
  if (entry.asking) return std::nullopt;
  entry.asking = true;
  auto answer = [this, alive = std::weak_ptr(alive_), weak = std::weak_ptr(owned), name = found->first, now,
                 hold, client](Result<TakeReply>&& reply) {
    auto still = weak.lock();
    if (alive.expired() || still == nullptr) return;
    took(*still, name.tenant, name.user, now, hold, client, std::move(reply));
  };
  Pool wanted = pool;
  wanted.idle = hold;
  store_.take(wanted, member_of(holder), client_text(client), std::move(answer));
  return std::nullopt;
}

void SeatLedger::took(PoolSeats& seats, const std::string& tenant, const std::string& user,
                      MonotonicTime sent, Milliseconds hold, ClientId client, Result<TakeReply>&& reply) {
  auto found = seats.entries.find(Holder{tenant, user});
  if (found == seats.entries.end()) return;
  Entry& entry = found->second;
  entry.asking = false;
  std::vector<Waiting> waiting = std::exchange(entry.waiting, {});
  Outcome outcome;
  if (!reply) {
    if (entry.state == Entry::State::held && seats.pool.kind == Kind::named) {
      outcome.status = Outcome::Status::held;
      entry.until = sent + kNamedWithoutStore;
    }
  } else {
    switch (reply->status) {
      case TakeReply::Status::taken:
      case TakeReply::Status::held:
        outcome.status = Outcome::Status::held;
        outcome.taken = reply->status == TakeReply::Status::taken;
        entry.state = Entry::State::held;
        entry.until = sent + certain(seats.pool, reply->left);
        entry.wanted = sent + hold;
        entry.stored = reply->left == kNoEnd ? MonotonicTime::max() : sent + reply->left;
        entry.active = false;  // this was a renewal
        entry.note(client, sent, sent + hold);
        break;
      case TakeReply::Status::full:
        outcome.status = Outcome::Status::full;
        entry.state = Entry::State::refused;
        entry.until = sent + std::min(reply->left, kRefusedMost);
        entry.free_after = reply->left == kNoEnd ? MonotonicTime{} : sent + reply->left;
        outcome.retry_after = reply->left == kNoEnd ? Milliseconds(0) : reply->left;
        break;
      case TakeReply::Status::fenced:
        outcome.retry_after = reply->left;
        break;
    }
    seats.note(reply->used, reply->born);
  }
  const bool useless = outcome.status == Outcome::Status::unavailable && entry.state != Entry::State::held;
  if (useless) seats.entries.erase(found);
  const bool held = outcome.status == Outcome::Status::held;
  const Pool pool = seats.pool;
  for (Waiting& one : waiting) {
    one.done(Outcome(outcome));
    outcome.taken = false;  // one call took it; the others found it taken
  }
  // Who waited with another client holds it too, of which the store does not know yet.
  for (const Waiting& one : waiting)
    if (held && one.client != client) take(pool, {tenant, user}, [](Outcome&&) {}, one.hold, one.client);
}

std::string SeatLedger::new_invitation() {
  const std::uint64_t number = ++invitations_;
  return fmt::format("{:016x}", XXH3_64bits_withSeed(&number, sizeof number, options_.hash_seed));
}

void SeatLedger::invite(const Pool& pool, const std::string& invitation, std::vector<std::string> members,
                        TakeDone done) {
  const std::uint64_t question = ++questions_;
  unanswered_.emplace(question, std::move(done));
  auto answer = [this, alive = std::weak_ptr(alive_), question](Result<InviteReply>&& reply) {
    if (alive.expired()) return;
    Outcome outcome;
    if (reply) {
      outcome.status = reply->full ? Outcome::Status::full : Outcome::Status::held;
      outcome.taken = reply->taken > 0;
    }
    unanswered_.extract(question).mapped()(std::move(outcome));
  };
  store_.invite(pool, invitation, std::move(members), std::move(answer));
}

void SeatLedger::settle(const Pool& pool, const std::string& invitation, std::vector<Settlement> settlements,
                        TakeDone done) {
  const std::uint64_t question = ++questions_;
  unanswered_.emplace(question, std::move(done));
  store_.settle(pool, invitation, std::move(settlements),
                [this, alive = std::weak_ptr(alive_), question](Result<void>&&) {
                  if (!alive.expired()) unanswered_.extract(question).mapped()({});
                });
}

void SeatLedger::forget(const Pool& pool, const Holder& holder) {
  PoolSeats& seats = *seats_of(pool);
  // A seat was freed: who was refused may ask.
  for (auto& [name, entry] : seats.entries)
    if (entry.state == Entry::State::refused) entry.until = {};
  auto found = seats.entries.find(holder);
  if (found == seats.entries.end()) return;
  found->second.lose();
}

void SeatLedger::leave(const Pool& pool, const Holder& holder, const std::vector<ClientId>& clients) {
  forget(pool, holder);
  std::vector<std::string> names;
  for (ClientId client : clients) names.push_back(client_text(client));
  store_.leave(pool, member_of(holder), std::move(names), [](Result<bool>&&) {});
}

void SeatLedger::look(const Pool& pool, const Holder& holder, std::function<void(Result<Page>&&)> done) {
  store_.list(pool, 0, 0, member_of(holder), std::move(done));
}

MonotonicTime SeatLedger::tick() {
  const MonotonicTime now = now_();
  MonotonicTime next = MonotonicTime::max();
  const std::vector<std::shared_ptr<PoolSeats>> pools = pools_;
  for (const auto& seats : pools) {
    if (!seats->renewing && seats->due <= now) renew(seats, now);
    next = std::min(next, seats->renewing ? now + kStoreAwayPause : std::max(seats->due, now));
  }
  return next;
}

// One batch; its answer sends the next one of the round.
void SeatLedger::renew(const std::shared_ptr<PoolSeats>& seats, MonotonicTime now) {
  const Pool pool = seats->pool;
  if (seats->round.empty()) {
    seats->sweep(now, options_.remembered);
    for (const auto& [name, entry] : seats->entries)
      if (entry.active && entry.state == Entry::State::held) seats->round.push_back(name);
  }
  std::vector<Renewal> renewals;
  auto names = std::make_shared<std::vector<Name>>();
  for (; !seats->round.empty() && renewals.size() < kBatch; seats->round.pop_back()) {
    auto found = seats->entries.find(seats->round.back());
    if (found == seats->entries.end() || !found->second.active) continue;
    Entry& entry = found->second;
    entry.active = false;
    const auto left = std::chrono::floor<Milliseconds>(entry.wanted - now);
    // A store that has forgotten seats believes who renews: only a seat that is certain may be renewed.
    if (pool.kind == Kind::concurrent && (left.count() <= 0 || entry.until <= now)) continue;
    renewals.push_back({.member = member_of({found->first.tenant, found->first.user}),
                        .idle_left = pool.kind == Kind::named ? Milliseconds(0) : left});
    names->push_back(found->first);
  }
  seats->renewing = true;
  auto answer = [this, alive = std::weak_ptr(alive_), weak = std::weak_ptr(seats), names, pool,
                 now](Result<RenewReply>&& reply) {
    auto still = weak.lock();
    if (alive.expired() || still == nullptr) return;
    still->renewing = false;
    const bool answered = reply && reply->left.size() == names->size();
    still->due = now + (answered ? renewal_interval(pool) : kStoreAwayPause);
    for (std::size_t i = 0; i < names->size(); ++i)
      still->renewed((*names)[i], now, answered ? std::optional(reply->left[i]) : std::nullopt);
    if (!answered) return still->round.clear();
    still->note(reply->used, reply->born);
    if (!still->round.empty()) renew(still, now_());
  };
  store_.renew(pool, std::move(renewals), std::move(answer));
}

std::vector<SeatLedger::Status> SeatLedger::status() const {
  std::vector<Status> all;
  for (const auto& seats : pools_)
    all.push_back({.pool = seats->pool,
                   .used = seats->used,
                   .known = seats->known,
                   .remembered = seats->entries.size()});
  return all;
}

}  // namespace tollgate::seats
