#include "tests/sim/small_world.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <unordered_set>

#include "metering/quota/keys.h"
#include "metering/quota/store_model.h"

namespace tollgate::sim {
namespace {

constexpr Milliseconds kStart{1'000}, kWindow{3}, kBucket{1}, kSession{4};
constexpr std::size_t kProxies = 2;

std::int64_t g_now = 0;  // the clock that all copies of the store read

const std::string& subject() {
  static const std::string key = quota::subject_key({"t", std::nullopt, "u"});
  return key;
}
unsigned partition() {
  static const unsigned number = quota::partition_of(subject());
  return number;
}

// A proxy: what the engine, the cells and the journal of one incarnation hold, for one account.
struct SmallProxy {
  std::uint64_t tokens = 0, void_tokens = 0;  // usable; of a lapsed session, to be handed back
  std::int64_t expiry = 0, granted_at = 0;
  std::map<std::int64_t, std::int64_t> uses;  // bucket -> units, not in an op yet
  std::vector<quota::Op> journal;             // every op ever, numbers from base + 1
  std::uint64_t base = 0;                     // not 0 only where replays are left out
  std::uint64_t acknowledged = 0;
  bool forget = false;    // died: what was lent is void
  std::uint64_t run = 0;  // of the server it is connected to; 0: not connected
  enum class Way : std::uint8_t { none, request, reply, lost } way = Way::none;  // of the op under way
  std::optional<quota::OpReply> reply;
  bool ghost = false;  // a copy of the newest op is still somewhere in the network
};

struct State {
  explicit State() : store([] { return kStart + Milliseconds(g_now); }) {}
  quota::StoreModel store;
  std::optional<quota::StoreModel> before;  // without the last operation: what a failover finds
  std::int64_t now = 0;
  std::uint64_t run = 1;
  std::array<SmallProxy, kProxies> proxies;
  std::vector<std::int64_t> admitted;
  unsigned crashes = 0, losses = 0, failovers = 0;
};

void put(std::string& out, std::int64_t value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

// Two states that differ only in how many operations lie behind them are one: numbers count from each journal's end.
void put(std::string& out, const State& s, const quota::StoreModel& store) {
  out += store.record({subject(), "a"});
  out += '|';
  for (const auto& [name, value] : store.partition_fields(partition()))
    if (name != "t" && name != "1" && name != "2") out += name + "=" + value + ",";
  for (std::size_t i = 0; i < kProxies; ++i)
    put(out, static_cast<std::int64_t>(store.hwm(partition(), static_cast<quota::Incarnation>(i + 1))) -
                 static_cast<std::int64_t>(s.proxies[i].base + s.proxies[i].journal.size()));
}

void put(std::string& out, const State& s, const SmallProxy& p, quota::Incarnation incarnation) {
  put(out, -1);
  put(out, static_cast<std::int64_t>(p.tokens * 100 + p.void_tokens));
  put(out, std::max(p.expiry, s.now));
  put(out, p.granted_at);
  for (auto [bucket, units] : p.uses) put(out, bucket * 100 + units);
  const std::uint64_t last = p.base + p.journal.size();
  put(out, static_cast<std::int64_t>(last - p.acknowledged));
  put(out, (p.forget ? 1 : 0) + (p.ghost ? 2 : 0) + static_cast<int>(p.way) * 4 +
               static_cast<std::int64_t>(s.run - p.run) * 100);
  // Operations that no copy of the store can have forgotten play no part any more.
  std::uint64_t kept = std::min(p.acknowledged, s.store.hwm(partition(), incarnation));
  if (s.before) kept = std::min(kept, s.before->hwm(partition(), incarnation));
  for (std::uint64_t seq = std::max(kept, p.base) + 1; seq <= last; ++seq)
    for (const auto& account : p.journal[seq - 1 - p.base].accounts) {
      put(out, static_cast<std::int64_t>(account.returned * 4 + account.need * 2 + (account.forget ? 1 : 0)));
      for (const auto& use : account.uses) put(out, use.bucket * 100 + use.units);
    }
  if (!p.reply) return;
  put(out, p.reply->session_expiry.count());
  put(out, static_cast<std::int64_t>(p.reply->status) * 100 + (p.reply->fenced ? 1 : 0));
  for (const auto& state : p.reply->states)
    put(out, static_cast<std::int64_t>(state.outstanding * 100 + state.granted));
}

std::string contents(const State& s) {
  std::string out;
  out.reserve(512);
  put(out, s, s.store);
  out += s.before ? '+' : '-';
  if (s.before) put(out, s, *s.before);
  put(out, s.now);
  put(out, static_cast<std::int64_t>(s.crashes * 100 + s.losses * 10 + s.failovers));
  for (std::int64_t at : s.admitted) put(out, at);
  for (std::size_t i = 0; i < kProxies; ++i)
    put(out, s, s.proxies[i], static_cast<quota::Incarnation>(i + 1));
  return out;
}

using Fingerprint = std::pair<std::uint64_t, std::uint64_t>;
struct FingerprintHash {
  std::size_t operator()(const Fingerprint& f) const { return f.first; }
};
Fingerprint fingerprint(const State& s) {
  const std::string text = contents(s);
  std::uint64_t other = 0xcbf29ce484222325ULL;
  for (const char c : text) other = (other ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return {std::hash<std::string>()(text), other};
}

quota::SendContext context_of(const SmallWorld& world, const State& s, const SmallProxy& p) {
  return {.run = world.no_fence ? "r" : fmt::format("r{}", p.run),
          .clock = kStart + Milliseconds(s.now),
          .session_ttl = kSession,
          .fence_wait = Milliseconds(1'000),
          .lease_max = 1};
}

class Explorer {
 public:
  Explorer(const SmallWorld& world, std::size_t max_states) : world_(world), max_states_(max_states) {}

  SmallWorldResult run() {
    State first;
    first.store.set_listeners(kProxies);
    add(std::move(first), 0, "start");
    while (!frontier_.empty() && !result_.violation) {
      if (result_.states >= max_states_) return finish(false);
      const State s = std::move(frontier_.front());
      frontier_.pop_front();
      current_ = next_current_++;
      expand(s);
    }
    return finish(!result_.violation);
  }

 private:
  struct Trail {
    std::uint32_t parent;
    const char* what;
    std::uint8_t who;
  };

  SmallWorldResult finish(bool complete) {
    result_.complete = complete;
    return std::move(result_);
  }

  void add(State&& next, std::uint8_t who, const char* what) {
    ++result_.transitions;
    if (!seen_.insert(fingerprint(next)).second) return;
    ++result_.states;
    trail_.push_back({current_, what, who});
    frontier_.push_back(std::move(next));
  }

  void violate(const State& s, std::uint8_t who, const char* what) {
    result_.violation = fmt::format("{} units in {} ms at {}", in_window(s), kWindow.count(), s.now);
    result_.path = {fmt::format("proxy {}: {}", who, what)};
    for (std::uint32_t at = current_; at != 0; at = trail_[at].parent)
      result_.path.push_back(fmt::format("proxy {}: {}", trail_[at].who, trail_[at].what));
    std::reverse(result_.path.begin(), result_.path.end());
  }

  static std::size_t in_window(const State& s) {
    return static_cast<std::size_t>(std::count_if(
        s.admitted.begin(), s.admitted.end(), [&](std::int64_t at) { return at > s.now - kWindow.count(); }));
  }

  void expand(const State& s) {
    g_now = s.now;
    if (s.now < world_.ticks) {
      State next = s;
      ++next.now;
      std::erase_if(next.admitted, [&](std::int64_t at) { return at <= next.now - kWindow.count(); });
      add(std::move(next), 9, "tick");
    }
    if (s.failovers < world_.failovers && s.before) fail_over(s);
    for (std::uint8_t i = 0; i < kProxies && !result_.violation; ++i) {
      const SmallProxy& p = s.proxies[i];
      if (p.run != s.run) join(s, i);
      if (p.tokens > 0 && s.now < p.expiry) use(s, i);
      if (p.run != 0 && p.way == SmallProxy::Way::none) {
        send(s, i, p.tokens > 0 && s.now < p.expiry);
      }
      if (p.way == SmallProxy::Way::request || p.way == SmallProxy::Way::lost) deliver(s, i);
      if (p.way == SmallProxy::Way::reply) accept(s, i);
      if (p.ghost) deliver_ghost(s, i);
      if (s.losses < world_.losses && (p.way == SmallProxy::Way::request || p.way == SmallProxy::Way::reply))
        lose(s, i);
      if (s.crashes < world_.crashes && p.run != 0) crash(s, i);
    }
  }

  void lapse(const State& s, SmallProxy& p) const {
    if (s.now < p.expiry || world_.revive_tokens) return;
    p.void_tokens += p.tokens;
    p.tokens = 0;
  }

  void fail_over(const State& s) {
    State next = s;
    next.store = *s.before;
    next.before.reset();
    ++next.run;
    ++next.failovers;
    for (SmallProxy& p : next.proxies) {
      p.ghost = false;
      if (p.way != SmallProxy::Way::none) p.way = SmallProxy::Way::lost;
      p.reply.reset();
    }
    add(std::move(next), 9, "failover without the last operation");
  }

  // Connects: high-water mark, replay of what is missing, vote. One step, for the store is its only witness.
  void join(const State& s, std::uint8_t i) {
    State next = s;
    SmallProxy& p = next.proxies[i];
    lapse(next, p);
    p.run = next.run;
    if (p.way != SmallProxy::Way::none) p.way = SmallProxy::Way::lost;
    p.reply.reset();
    quota::Ping ping{.incarnation = i + 1U, .partition = partition(), .acked = p.acknowledged, .peers = {}};
    for (std::uint8_t other = 0; other < kProxies; ++other)
      if (other != i && s.proxies[other].expiry > s.now)
        ping.peers.push_back({other + 1U, kStart + Milliseconds(s.proxies[other].expiry)});
    quota::PingReply reply = next.store.ping(ping, context_of(world_, next, p));
    if (world_.no_replay) {
      // Goes on behind the mark as if nothing had happened.
      const bool pending = p.way != SmallProxy::Way::none;
      if (!pending) p.journal.clear();
      if (pending) p.journal.erase(p.journal.begin(), std::prev(p.journal.end()));
      p.base = p.acknowledged = ping.acked = reply.hwm;
      if (pending) p.journal.back().seq = p.base + 1;
      reply = next.store.ping(ping, context_of(world_, next, p));
    } else if (reply.hwm < p.acknowledged) {
      for (std::uint64_t seq = reply.hwm + 1; seq <= p.acknowledged; ++seq) {
        const quota::Op& op = p.journal[seq - 1 - p.base];
        std::uint64_t held = p.tokens + p.void_tokens;
        for (auto [bucket, units] : p.uses) held += static_cast<std::uint64_t>(units);
        if (p.way != SmallProxy::Way::
                         none)  // the op under way has not been acknowledged: what it reports is still held
          for (const auto& use : p.journal.back().accounts[0].uses)
            held += static_cast<std::uint64_t>(use.units);
        if (p.way != SmallProxy::Way::none) held += p.journal.back().accounts[0].returned;
        next.store.replay({op, {held}, kStart + Milliseconds(p.expiry), false}, context_of(world_, next, p));
      }
      reply = next.store.ping(ping, context_of(world_, next, p));
    }
    p.expiry = reply.session_expiry.count() - kStart.count();
    next.store.take_messages();
    add(std::move(next), i, "joins");
  }

  void use(const State& s, std::uint8_t i) {
    State next = s;
    SmallProxy& p = next.proxies[i];
    --p.tokens;
    ++p.uses[world_.charge_at_grant ? p.granted_at : next.now];
    next.admitted.push_back(next.now);
    if (in_window(next) > world_.limit) return violate(next, i, "uses a token");
    add(std::move(next), i, "uses a token");
  }

  void send(const State& s, std::uint8_t i, bool give_back) {
    State next = s;
    SmallProxy& p = next.proxies[i];
    lapse(next, p);
    quota::OpAccount account;
    account.field = "a";
    account.window = kWindow;
    account.bucket = kBucket;
    account.limit = world_.limit;
    for (auto [bucket, units] : p.uses) account.uses.push_back({kStart.count() + bucket, units});
    account.returned = p.void_tokens + (give_back ? p.tokens : 0);
    account.forget = p.forget;
    account.need = account.want = give_back ? 0 : 1;
    if (account.uses.empty() && account.returned == 0 && account.need == 0 && !account.forget) return;
    if (account.forget) account.returned = 0;
    p.journal.push_back({i + 1U, partition(), p.base + p.journal.size() + 1, subject(), {account}});
    p.uses.clear();
    p.void_tokens = 0;
    if (give_back) p.tokens = 0;
    p.forget = false;
    p.way = SmallProxy::Way::request;
    add(std::move(next), i, give_back ? "settles and hands back" : "settles and asks");
  }

  quota::OpReply apply(State& next, SmallProxy& p) const {
    quota::StoreModel saved = next.store;
    quota::OpReply reply = next.store.apply(p.journal.back(), context_of(world_, next, p));
    next.store.take_messages();
    if (world_.failovers > 0 && reply.status == quota::OpStatus::applied) next.before = std::move(saved);
    return reply;
  }

  void deliver(const State& s, std::uint8_t i) {
    if (s.proxies[i].run != s.run) return;  // after a reconnect only
    State next = s;
    SmallProxy& p = next.proxies[i];
    p.reply = apply(next, p);
    p.way = SmallProxy::Way::reply;
    add(std::move(next), i, "op arrives");
  }

  void deliver_ghost(const State& s, std::uint8_t i) {
    State next = s;
    SmallProxy& p = next.proxies[i];
    p.ghost = false;
    apply(next, p);
    add(std::move(next), i, "ghost arrives");
  }

  void accept(const State& s, std::uint8_t i) {
    State next = s;
    SmallProxy& p = next.proxies[i];
    const quota::OpReply reply = *p.reply;
    p.reply.reset();
    p.way = SmallProxy::Way::none;
    p.ghost = false;
    if (reply.status == quota::OpStatus::gap) return;  // joins anew first
    lapse(next, p);
    p.acknowledged = p.journal.back().seq;
    std::uint64_t held = p.tokens + p.void_tokens;
    for (auto [bucket, units] : p.uses) held += static_cast<std::uint64_t>(units);
    const std::uint64_t outstanding = reply.states[0].outstanding;
    // What an op of before the death was lent is void with the rest.
    if (outstanding > held && !p.forget) {
      p.tokens += outstanding - held;
      p.granted_at = world_.charge_at_grant ? next.now : 0;
    }
    p.expiry = reply.session_expiry.count() - kStart.count();
    add(std::move(next), i, "reply arrives");
  }

  void lose(const State& s, std::uint8_t i) {
    State next = s;
    SmallProxy& p = next.proxies[i];
    ++next.losses;
    p.ghost = p.way == SmallProxy::Way::request;
    p.way = SmallProxy::Way::lost;
    p.reply.reset();
    add(std::move(next), i, "connection is cut");
  }

  // kill -9: tokens are void, uses and journal are not. The op under way is in the journal and is sent again.
  void crash(const State& s, std::uint8_t i) {
    State next = s;
    SmallProxy& p = next.proxies[i];
    ++next.crashes;
    p.tokens = p.void_tokens = 0;
    p.forget = true;
    p.run = 0;
    if (p.way != SmallProxy::Way::none) p.way = SmallProxy::Way::lost;
    p.reply.reset();
    add(std::move(next), i, "dies and starts again");
  }

  const SmallWorld& world_;
  const std::size_t max_states_;
  std::deque<State> frontier_;
  std::vector<Trail> trail_;
  std::unordered_set<Fingerprint, FingerprintHash> seen_;
  std::uint32_t current_ = 0, next_current_ = 0;
  SmallWorldResult result_;
};

}  // namespace

SmallWorldResult explore(const SmallWorld& world, std::size_t max_states) {
  return Explorer(world, max_states).run();
}

}  // namespace tollgate::sim
