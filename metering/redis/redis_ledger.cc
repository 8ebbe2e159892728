#include "metering/redis/redis_ledger.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "metering/base/ascii.h"
#include "metering/base/check.h"
#include "metering/quota/keys.h"
#include "metering/quota/record.h"
#include "metering/redis/command.h"

namespace tollgate::redis {
namespace {

using quota::AccountCharge;
using quota::AccountKey;
using quota::AccountState;
using quota::ChargeOutcome;
using quota::Receipt;

constexpr std::string_view kNoLimit = "-";
constexpr std::size_t kStateWords = 6;  // values per account in a reply, see charge.lua

std::string override_key(const AccountKey& account) {
  return "o:" + quota::hash_tag(quota::partition_of(account.subject_key));
}
std::string override_field(const AccountKey& account) {
  return account.subject_key + " " + account.field;
}

// A limit as the scripts read it. Lua counts in doubles: what is beyond 2^53 can never be reached and is no
// limit.
std::string limit_text(std::uint64_t limit) {
  return limit > (1ULL << 53) ? std::string(kNoLimit) : std::to_string(limit);
}

// The keys of one script call: distinct subjects, then h:{p} and perhaps o:{p} of their distinct partitions.
class KeyTable {
 public:
  void add(std::string_view subject) {
    if (std::ranges::find(subjects_, subject) != subjects_.end()) return;
    subjects_.push_back(subject);
    unsigned partition = quota::partition_of(subject);
    if (std::ranges::find(partitions_, partition) == partitions_.end()) partitions_.push_back(partition);
  }
  std::size_t subjects() const { return subjects_.size(); }
  std::size_t partitions() const { return partitions_.size(); }
  std::size_t size(bool overrides) const {
    return subjects_.size() + partitions_.size() * (overrides ? 2 : 1);
  }
  // Positions in KEYS, from 1.
  std::int64_t index_of(std::string_view subject) const {
    return std::ranges::find(subjects_, subject) - subjects_.begin() + 1;
  }
  std::int64_t override_index_of(std::string_view subject) const {
    auto place = std::ranges::find(partitions_, quota::partition_of(subject)) - partitions_.begin();
    return static_cast<std::int64_t>(subjects_.size() + partitions_.size()) + place + 1;
  }
  void write(CommandWriter& command, bool overrides) const {
    command.number(static_cast<std::int64_t>(size(overrides)));
    for (std::string_view subject : subjects_) command.word(subject);
    for (unsigned partition : partitions_) command.word("h:" + quota::hash_tag(partition));
    if (overrides)
      for (unsigned partition : partitions_) command.word("o:" + quota::hash_tag(partition));
    command.number(static_cast<std::int64_t>(subjects_.size()));
    command.number(static_cast<std::int64_t>(partitions_.size()));
  }

 private:
  std::vector<std::string_view> subjects_;
  std::vector<unsigned> partitions_;
};

std::string encode_accounts(const Script& script, std::span<const AccountCharge> accounts) {
  KeyTable keys;
  for (const AccountCharge& account : accounts) keys.add(account.key.subject_key);
  std::string out;
  CommandWriter command(out, 3 + keys.size(true) + 2 + 7 * accounts.size());
  command.word("EVALSHA");
  command.word(script.sha1);
  keys.write(command, true);
  for (const AccountCharge& account : accounts) {
    command.number(keys.index_of(account.key.subject_key));
    command.number(keys.override_index_of(account.key.subject_key));
    command.word(account.key.field);
    command.word(limit_text(account.limit));
    command.number(account.window.count());
    command.number(account.bucket.count());
    command.number(account.units);
  }
  return out;
}

std::string encode_receipt(const Script& script, const Receipt& receipt) {
  KeyTable keys;
  for (const Receipt::Item& item : receipt.items) keys.add(item.key.subject_key);
  std::string out;
  CommandWriter command(out, 3 + keys.size(false) + 2 + 6 * receipt.items.size());
  command.word("EVALSHA");
  command.word(script.sha1);
  keys.write(command, false);
  for (const Receipt::Item& item : receipt.items) {
    command.number(keys.index_of(item.key.subject_key));
    command.word(item.key.field);
    command.number(item.window.count());
    command.number(item.bucket.count());
    command.number(item.bucket_number);
    command.number(item.units);
  }
  return out;
}

std::string encode_script_load(const Script& script) {
  std::string out;
  CommandWriter command(out, 3);
  command.word("SCRIPT");
  command.word("LOAD");
  command.word(script.text);
  return out;
}

// What a reply of charge.lua or read.lua says.
struct ScriptStates {
  bool admitted = false;
  std::vector<AccountState> states;
  std::vector<std::int64_t> bucket_numbers;
};

std::optional<std::uint64_t> parse_limit(std::string_view text) {
  return text == kNoLimit ? std::optional(quota::kUnlimited) : parse_decimal(text);
}

Result<ScriptStates> parse_states(const Reply& reply, std::span<const AccountCharge> accounts) {
  auto strange = [] { return fail(Origin::store, "the store gave a reply that is not the script's"); };
  if (reply.is_error()) return fail(Origin::store, "the store: " + reply.text, true);
  if (reply.type != Reply::Type::array || reply.elements.size() != 1 + kStateWords * accounts.size())
    return strange();
  ScriptStates parsed;
  parsed.admitted = reply.elements[0].integer == 1;
  for (std::size_t i = 0; i < accounts.size(); ++i) {
    std::span<const Reply> words(&reply.elements[1 + i * kStateWords], kStateWords);
    for (std::size_t w = 0; w < kStateWords; ++w)
      if (w != 1 && words[w].type != Reply::Type::integer) return strange();
    AccountState& state = parsed.states.emplace_back();
    state.used = static_cast<std::uint64_t>(words[0].integer);
    state.limit = accounts[i].limit;
    if (words[1].type != Reply::Type::nil) {
      auto limit = parse_limit(words[1].text);
      if (!limit) return strange();
      state.limit = *limit;
    }
    state.next_free_after = Milliseconds(words[2].integer);
    state.next_free_units = static_cast<std::uint64_t>(words[3].integer);
    state.admitted_after = words[4].integer < 0 ? Milliseconds::max() : Milliseconds(words[4].integer);
    parsed.bucket_numbers.push_back(words[5].integer);
  }
  return parsed;
}

ChargeOutcome unavailable(std::string why) {
  ChargeOutcome outcome;
  outcome.error = std::move(why);
  return outcome;
}

ChargeOutcome outcome_of(ScriptStates&& parsed, std::span<const AccountCharge> charges) {
  ChargeOutcome outcome;
  outcome.status = parsed.admitted ? ChargeOutcome::Status::admitted : ChargeOutcome::Status::exceeded;
  for (std::size_t i = 0; i < charges.size(); ++i) {
    if (parsed.admitted) {
      outcome.receipt.items.push_back({.key = charges[i].key,
                                       .bucket_number = parsed.bucket_numbers[i],
                                       .units = charges[i].units,
                                       .window = charges[i].window,
                                       .bucket = charges[i].bucket});
    } else if (parsed.states[i].admitted_after != Milliseconds::zero()) {
      outcome.violated.push_back(static_cast<std::uint32_t>(i));
    }
  }
  outcome.states = std::move(parsed.states);
  return outcome;
}

}  // namespace

class RedisLedger::Impl {
 public:
  Impl(event_base* base, RedisLedgerOptions options)
      : options_(std::move(options)), connection_(base, options_.connection) {}

  void start();
  void charge(std::vector<AccountCharge> charges, ChargeDone done);
  void give_back(Receipt receipt);
  void read(std::vector<AccountCharge> accounts, ReadDone done);
  void list(const std::string& subject_key, const std::string& prefix, const quota::WindowShape& shape,
            ListDone done);
  void admin(std::span<const std::string_view> words, std::function<void(Result<Reply*>)> done);

  RedisLedgerOptions options_;
  Connection connection_;
  Counters counters_;
  RoundTrip observe_round_trip_;
  std::function<void(bool)> observe_state_;

 private:
  // A script call on its way: what must be at hand to send it once more when the server has lost the script.
  struct Run {
    const Script* script = nullptr;
    std::function<std::string()> encode{};
    MonotonicTime deadline{}, sent{};
    Milliseconds timeout{0};
    bool patient = false;
    bool resent = false;
    Connection::Done done{};
    Connection::Late late{};
  };
  void run(Run call);
  void send(std::shared_ptr<Run> call);
  bool resend(const std::shared_ptr<Run>& call, const Reply& reply);
  void observe(const Run& call);
  void load(const Script& script);
  void settle_late(const std::vector<AccountCharge>& charges, const Reply& reply);

  std::vector<const Script*> loading_;  // SCRIPT LOAD sent, no reply yet
};

void RedisLedger::Impl::start() {
  connection_.start([this](bool up) {
    loading_.clear();
    if (up) {
      counters_.reconnects = connection_.connects() - 1;
      const Scripts& scripts = options_.scripts;
      for (const Script* script : {&scripts.charge, &scripts.give_back, &scripts.read, &scripts.list})
        load(*script);
    }
    if (auto observer = observe_state_) observer(up);
  });
}

void RedisLedger::Impl::load(const Script& script) {
  // Commands are answered in order: a call sent after the first SCRIPT LOAD needs no second one.
  if (std::ranges::find(loading_, &script) != loading_.end()) return;
  loading_.push_back(&script);
  connection_.send_encoded(
      encode_script_load(script), Connection::now() + options_.admin_timeout, options_.admin_timeout,
      [this, script = &script](Result<Reply*>) { std::erase(loading_, script); }, nullptr, true);
}

void RedisLedger::Impl::run(Run call) {
  call.sent = Connection::now();
  call.deadline = call.sent + call.timeout;
  send(std::make_shared<Run>(std::move(call)));
}

void RedisLedger::Impl::send(std::shared_ptr<Run> call) {
  std::string command = call->encode();
  MonotonicTime deadline = call->deadline;
  Milliseconds timeout = call->timeout;
  bool patient = call->patient;
  auto on_reply = [this, call](Result<Reply*> reply) {
    if (reply && resend(call, **reply)) return;
    if (reply) observe(*call);
    call->done(std::move(reply));
  };
  auto on_late = [this, call](Reply& reply) {
    observe(*call);
    if (call->late) call->late(reply);
  };
  connection_.send_encoded(command, deadline, timeout, std::move(on_reply), std::move(on_late), patient);
}

bool RedisLedger::Impl::resend(const std::shared_ptr<Run>& call, const Reply& reply) {
  if (call->resent || !reply.is_error("NOSCRIPT")) return false;
  call->resent = true;
  ++counters_.script_loads;
  load(*call->script);
  send(call);
  return true;
}

void RedisLedger::Impl::observe(const Run& call) {
  if (observe_round_trip_) observe_round_trip_(Connection::now() - call.sent);
}

void RedisLedger::Impl::charge(std::vector<AccountCharge> charges, ChargeDone done) {
  ++counters_.charges;
  if (charges.empty()) {
    ChargeOutcome nothing;
    nothing.status = ChargeOutcome::Status::admitted;
    return done(std::move(nothing));
  }
  // Without a connection nothing is built: outages are when there is least time to waste.
  if (connection_.state() == Connection::State::down) {
    ++counters_.unavailable;
    return done(unavailable("the store is down: " + connection_.last_error()));
  }
  auto held = std::make_shared<const std::vector<AccountCharge>>(std::move(charges));
  run({.script = &options_.scripts.charge,
       .encode = [this, held] { return encode_accounts(options_.scripts.charge, *held); },
       .timeout = options_.timeout,
       .done =
           [this, held, done = std::move(done),
            deadline = Connection::now() + options_.timeout](Result<Reply*> reply) {
             if (!reply) {
               ++counters_.unavailable;
               if (Connection::now() >= deadline) ++counters_.timeouts;
               return done(unavailable(reply.error().message));
             }
             auto parsed = parse_states(**reply, *held);
             if (!parsed) {
               ++counters_.unavailable;
               return done(unavailable(parsed.error().message));
             }
             done(outcome_of(std::move(*parsed), *held));
           },
       .late = [this, held](Reply& reply) { settle_late(*held, reply); }});
}

void RedisLedger::Impl::settle_late(const std::vector<AccountCharge>& charges, const Reply& reply) {
  ++counters_.late_replies;
  auto parsed = parse_states(reply, charges);
  if (!parsed || !parsed->admitted) return;
  ++counters_.late_given_back;
  give_back(outcome_of(std::move(*parsed), charges).receipt);
}

void RedisLedger::Impl::give_back(Receipt receipt) {
  if (receipt.items.empty()) return;
  ++counters_.give_backs;
  auto held = std::make_shared<const Receipt>(std::move(receipt));
  run({.script = &options_.scripts.give_back,
       .encode = [this, held] { return encode_receipt(options_.scripts.give_back, *held); },
       .timeout = options_.admin_timeout,
       .patient = true,
       .done =
           [this](Result<Reply*> reply) {
             if (!reply || (*reply)->is_error()) ++counters_.give_back_failures;
           }});
}

void RedisLedger::Impl::read(std::vector<AccountCharge> accounts, ReadDone done) {
  if (accounts.empty()) return done(std::vector<AccountState>{});
  auto held = std::make_shared<const std::vector<AccountCharge>>(std::move(accounts));
  run({.script = &options_.scripts.read,
       .encode = [this, held] { return encode_accounts(options_.scripts.read, *held); },
       .timeout = options_.timeout,
       .done =
           [held, done = std::move(done)](Result<Reply*> reply) {
             if (!reply) return done(std::unexpected(reply.error()));
             auto parsed = parse_states(**reply, *held);
             if (!parsed) return done(std::unexpected(parsed.error()));
             done(std::move(parsed->states));
           }});
}

void RedisLedger::Impl::list(const std::string& subject_key, const std::string& prefix,
                             const quota::WindowShape& shape, ListDone done) {
  auto encode = [this, subject_key, prefix, shape] {
    std::string out;
    CommandWriter command(out, 8);
    command.word("EVALSHA");
    command.word(options_.scripts.list.sha1);
    command.number(2);
    command.word(subject_key);
    command.word("h:" + quota::hash_tag(quota::partition_of(subject_key)));
    command.word(prefix);
    command.number(shape.window.count());
    command.number(shape.bucket.count());
    return out;
  };
  run({.script = &options_.scripts.list,
       .encode = std::move(encode),
       .timeout = options_.timeout,
       .done = [done = std::move(done)](Result<Reply*> reply) {
         if (!reply) return done(std::unexpected(reply.error()));
         if ((*reply)->is_error()) return done(fail(Origin::store, "the store: " + (*reply)->text, true));
         std::vector<Listed> listed;
         for (std::size_t i = 0; i + 1 < (*reply)->elements.size(); i += 2)
           listed.push_back({.field = std::move((*reply)->elements[i].text),
                             .used = static_cast<std::uint64_t>((*reply)->elements[i + 1].integer)});
         done(std::move(listed));
       }});
}

void RedisLedger::Impl::admin(std::span<const std::string_view> words,
                              std::function<void(Result<Reply*>)> done) {
  connection_.send(words, options_.admin_timeout, [done = std::move(done)](Result<Reply*> reply) {
    if (reply && (*reply)->is_error()) return done(fail(Origin::store, "the store: " + (*reply)->text, true));
    done(std::move(reply));
  });
}

RedisLedger::RedisLedger(event_base* base, RedisLedgerOptions options)
    : impl_(std::make_unique<Impl>(base, std::move(options))) {}
RedisLedger::~RedisLedger() = default;

void RedisLedger::start() {
  impl_->start();
}
void RedisLedger::charge(std::vector<AccountCharge> charges, ChargeDone done) {
  impl_->charge(std::move(charges), std::move(done));
}
void RedisLedger::give_back(Receipt receipt) {
  impl_->give_back(std::move(receipt));
}
void RedisLedger::read(std::vector<AccountCharge> accounts, ReadDone done) {
  impl_->read(std::move(accounts), std::move(done));
}

void RedisLedger::list(std::string subject_key, std::string prefix, Milliseconds window, Milliseconds bucket,
                       ListDone done) {
  impl_->list(subject_key, prefix, {.window = window, .bucket = bucket}, std::move(done));
}

void RedisLedger::set_override(const AccountKey& account, std::optional<std::uint64_t> limit, Changed done) {
  std::string key = override_key(account), field = override_field(account),
              value = limit ? limit_text(*limit) : "";
  std::vector<std::string_view> words{limit ? "HSET" : "HDEL", key, field};
  if (limit) words.push_back(value);
  impl_->admin(words, [done = std::move(done)](Result<Reply*> reply) {
    if (!reply) return done(std::unexpected(reply.error()));
    done({});
  });
}

void RedisLedger::get_override(const AccountKey& account, OverrideRead done) {
  std::string key = override_key(account), field = override_field(account);
  std::array<std::string_view, 3> words{"HGET", key, field};
  impl_->admin(words, [done = std::move(done)](Result<Reply*> reply) {
    if (!reply) return done(std::unexpected(reply.error()));
    if ((*reply)->type == Reply::Type::nil) return done(std::optional<std::uint64_t>());
    auto limit = parse_limit((*reply)->text);
    if (!limit)
      return done(fail(Origin::store, "the override in the store is not a number: " + (*reply)->text));
    done(limit);
  });
}

void RedisLedger::reset(std::vector<AccountKey> accounts, Changed done) {
  if (accounts.empty()) return done({});
  struct Progress {
    std::size_t left = 0;
    Result<void> result;
    Changed done;
  };
  auto progress = std::make_shared<Progress>(Progress{accounts.size(), {}, std::move(done)});
  // A callback of the last answer may destroy this ledger, and an answer may come at once.
  std::vector<AccountKey> held = std::move(accounts);
  for (const AccountKey& account : held) {
    std::array<std::string_view, 3> words{"HDEL", account.subject_key, account.field};
    impl_->admin(words, [progress](Result<Reply*> reply) {
      if (!reply && progress->result) progress->result = std::unexpected(reply.error());
      if (--progress->left == 0) progress->done(std::move(progress->result));
    });
  }
}

bool RedisLedger::store_up() const {
  return impl_->connection_.up() && !impl_->connection_.stalled();
}
const std::string& RedisLedger::last_error() const {
  return impl_->connection_.last_error();
}
const RedisLedger::Counters& RedisLedger::counters() const {
  return impl_->counters_;
}
void RedisLedger::observe_round_trips(RoundTrip observer) {
  impl_->observe_round_trip_ = std::move(observer);
}
void RedisLedger::observe_state(std::function<void(bool)> observer) {
  impl_->observe_state_ = std::move(observer);
}

}  // namespace tollgate::redis
