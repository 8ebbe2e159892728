#include "metering/redis/script_messages.h"

#include <fmt/format.h>

#include <limits>

#include "metering/base/ascii.h"
#include "metering/base/check.h"
#include "metering/quota/keys.h"

namespace tollgate::redis {
namespace {

using quota::LeaseState;
using quota::LimitOverride;
using quota::OpReply;
using quota::OpStatus;
using quota::StoreModel;

constexpr std::string_view kNoLimit = "-";
constexpr std::string_view kRecallPrefix = "q:recall:";
constexpr std::size_t kHeadWords = 5;   // of a reply to an op or a replay
constexpr std::size_t kStateWords = 9;  // per account: append_state in account.lua

std::vector<std::string> keys_of(const std::string& subject_key) {
  const unsigned partition = quota::partition_of(subject_key);
  return {subject_key, partition_key(partition), override_key(partition)};
}

// Arguments one after the other, as text.
class Arguments {
 public:
  explicit Arguments(std::size_t about) { words_.reserve(about); }
  Arguments& text(std::string_view word) {
    words_.emplace_back(word);
    return *this;
  }
  template <class Integer>
  Arguments& number(Integer value) {
    words_.push_back(std::to_string(value));
    return *this;
  }
  Arguments& time(Milliseconds value) { return number(value.count()); }
  Arguments& flag(bool value) { return text(value ? "1" : "0"); }
  Arguments& limit(std::uint64_t value) {
    return value > LimitOverride::kLimitMax ? text(kNoLimit) : number(value);
  }
  Arguments& uses(const std::vector<quota::BucketUse>& uses) {
    number(uses.size());
    for (const quota::BucketUse& use : uses) number(use.bucket).number(use.units);
    return *this;
  }
  std::vector<std::string> take() { return std::move(words_); }

 private:
  std::vector<std::string> words_;
};

std::unexpected<Error> strange() {
  return fail(Origin::store, "the store gave a reply that is not the script's");
}

// The integers of a flat reply.
Result<std::vector<std::int64_t>> integers(const Reply& reply) {
  if (reply.is_error()) return fail(Origin::store, "the store: " + reply.text, true);
  if (reply.type != Reply::Type::array) return strange();
  std::vector<std::int64_t> out;
  out.reserve(reply.elements.size());
  for (const Reply& element : reply.elements) {
    if (element.type != Reply::Type::integer || element.integer < -1) return strange();
    out.push_back(element.integer);
  }
  return out;
}

Result<OpReply> parse_head(std::span<const std::int64_t> words) {
  if (words.size() < kHeadWords || words[1] < 0 || words[1] > 3) return strange();
  OpReply reply;
  switch (words[0]) {
    case static_cast<int>(OpStatus::applied):
    case static_cast<int>(OpStatus::duplicate):
    case static_cast<int>(OpStatus::gap):
      reply.status = static_cast<OpStatus>(words[0]);
      break;
    default:
      return strange();
  }
  reply.fenced = (words[1] & 1) != 0;
  reply.clock_off = (words[1] & 2) != 0;
  reply.hwm = static_cast<std::uint64_t>(words[2]);
  reply.now = Milliseconds(words[3]);
  reply.session_expiry = Milliseconds(words[4]);
  return reply;
}

LeaseState parse_state(std::span<const std::int64_t> words) {
  auto count = [&](std::size_t i) { return static_cast<std::uint64_t>(words[i]); };
  LeaseState state;
  state.outstanding = count(0);
  state.granted = count(1);
  state.used = count(2);
  state.lent_to_others = count(3);
  state.limit = words[4] < 0 ? quota::kUnlimited : count(4);
  state.next_free_at = Milliseconds(words[5]);
  state.next_free_units = count(6);
  state.fits_at = words[7] < 0 ? Milliseconds::max() : Milliseconds(words[7]);
  state.over = words[8] != 0;
  return state;
}

std::optional<quota::AccountKey> parse_account(std::string_view body) {
  // No subject key holds a space: its names are escaped.
  const std::size_t space = body.find(' ');
  if (space == std::string_view::npos || !quota::parse_subject_key(body.substr(0, space)))
    return std::nullopt;
  return quota::AccountKey{std::string(body.substr(0, space)), std::string(body.substr(space + 1))};
}

}  // namespace

std::string partition_key(unsigned partition) {
  return "h:" + quota::hash_tag(partition);
}

std::string override_key(unsigned partition) {
  return "o:" + quota::hash_tag(partition);
}

std::string override_field(const quota::AccountKey& account) {
  return account.subject_key + " " + account.field;
}

std::string recall_channel(quota::Incarnation incarnation) {
  return std::string(kRecallPrefix) + std::to_string(incarnation);
}

ScriptCall op_call(const quota::Op& op, const quota::SendContext& context) {
  Arguments out(6 + 11 * op.accounts.size());
  out.text(context.run).time(context.clock).time(context.session_ttl).number(context.lease_max);
  out.number(op.incarnation).number(op.seq);
  for (const quota::OpAccount& account : op.accounts) {
    out.text(account.field).limit(account.limit).time(account.window).time(account.bucket);
    out.number(account.returned).flag(account.forget).number(account.need).number(account.want);
    out.uses(account.uses);
  }
  return {keys_of(op.subject_key), out.take()};
}

ScriptCall replay_call(const quota::Replay& replay, const quota::SendContext& context) {
  const quota::Op& op = replay.op;
  CHECK(replay.outstanding.size() == op.accounts.size(), "what is held of each account");
  Arguments out(7 + 7 * op.accounts.size());
  out.text(context.run).time(context.clock).time(context.session_ttl).time(replay.session_expiry);
  out.number(op.incarnation).number(op.seq).flag(replay.base);
  for (std::size_t i = 0; i < op.accounts.size(); ++i) {
    const quota::OpAccount& account = op.accounts[i];
    out.text(account.field).time(account.window).time(account.bucket).number(replay.outstanding[i]);
    out.uses(account.uses);
  }
  return {keys_of(op.subject_key), out.take()};
}

ScriptCall ping_call(const quota::Ping& ping, const quota::SendContext& context) {
  Arguments out(8 + 2 * ping.peers.size());
  out.text(context.run)
      .time(context.clock)
      .time(context.session_ttl)
      .time(context.fence_wait)
      .time(context.fence_settle);
  out.number(ping.incarnation).number(ping.partition).number(ping.acked);
  for (const quota::Ping::Peer& peer : ping.peers) out.number(peer.incarnation).time(peer.session_expiry);
  return {{partition_key(ping.partition)}, out.take()};
}

ScriptCall states_call(std::span<const quota::AccountCharge> accounts) {
  CHECK(!accounts.empty(), "the accounts of a subject");
  const std::string& subject_key = accounts.front().key.subject_key;
  Arguments out(4 * accounts.size());
  for (const quota::AccountCharge& account : accounts) {
    CHECK(account.key.subject_key == subject_key, "all accounts of one subject");
    out.text(account.key.field).limit(account.limit).time(account.window).time(account.bucket);
  }
  return {keys_of(subject_key), out.take()};
}

ScriptCall accounts_call(const std::string& subject_key, std::string_view prefix, Milliseconds window,
                         Milliseconds bucket) {
  return {keys_of(subject_key), Arguments(3).text(prefix).time(window).time(bucket).take()};
}

ScriptCall set_override_call(const quota::AccountKey& account,
                             const std::optional<quota::LimitOverride>& value) {
  return {keys_of(account.subject_key),
          Arguments(2).text(account.field).text(value ? value->format() : "").take()};
}

ScriptCall reset_call(const std::string& subject_key, std::span<const std::string> fields) {
  CHECK(!fields.empty(), "the accounts of a subject");
  return {keys_of(subject_key), {fields.begin(), fields.end()}};
}

Result<OpReply> parse_op(const Reply& reply, const quota::Op& op) {
  auto words = integers(reply);
  if (!words) return std::unexpected(words.error());
  auto parsed = parse_head(*words);
  if (!parsed) return parsed;
  const std::size_t states = parsed->status == OpStatus::gap ? 0 : op.accounts.size();
  if (words->size() != kHeadWords + kStateWords * states) return strange();
  for (std::size_t i = 0; i < states; ++i)
    parsed->states.push_back(
        parse_state(std::span(*words).subspan(kHeadWords + i * kStateWords, kStateWords)));
  return parsed;
}

Result<OpReply> parse_replay(const Reply& reply) {
  auto words = integers(reply);
  if (!words) return std::unexpected(words.error());
  if (words->size() != kHeadWords) return strange();
  return parse_head(*words);
}

Result<quota::PingReply> parse_ping(const Reply& reply) {
  auto words = integers(reply);
  if (!words) return std::unexpected(words.error());
  if (words->size() < 4 || words->size() % 2 != 0) return strange();
  quota::PingReply parsed;
  parsed.open = (*words)[0] == 1;
  parsed.hwm = static_cast<std::uint64_t>((*words)[1]);
  parsed.now = Milliseconds((*words)[2]);
  parsed.session_expiry = Milliseconds((*words)[3]);
  for (std::size_t i = 4; i < words->size(); i += 2) {
    const std::int64_t incarnation = (*words)[i];
    if (incarnation < 1 || incarnation > std::numeric_limits<quota::Incarnation>::max()) return strange();
    parsed.peers.push_back({static_cast<quota::Incarnation>(incarnation), Milliseconds((*words)[i + 1])});
  }
  return parsed;
}

Result<std::vector<LeaseState>> parse_states(const Reply& reply, std::size_t accounts) {
  auto words = integers(reply);
  if (!words) return std::unexpected(words.error());
  if (words->size() != kStateWords * accounts) return strange();
  std::vector<LeaseState> states;
  for (std::size_t i = 0; i < accounts; ++i)
    states.push_back(parse_state(std::span(*words).subspan(i * kStateWords, kStateWords)));
  return states;
}

Result<std::vector<quota::Ledger::Listed>> parse_accounts(const Reply& reply) {
  if (reply.is_error()) return fail(Origin::store, "the store: " + reply.text, true);
  if (reply.type != Reply::Type::array || reply.elements.size() % 3 != 0) return strange();
  std::vector<quota::Ledger::Listed> listed;
  for (std::size_t i = 0; i < reply.elements.size(); i += 3) {
    const Reply &field = reply.elements[i], &used = reply.elements[i + 1];
    if (field.type != Reply::Type::text || used.type != Reply::Type::integer || used.integer < 0)
      return strange();
    listed.push_back({.field = field.text, .used = static_cast<std::uint64_t>(used.integer)});
  }
  return listed;
}

Result<void> parse_change(const Reply& reply) {
  if (reply.is_error()) return fail(Origin::store, "the store: " + reply.text, true);
  if (reply.type != Reply::Type::integer || reply.integer != 1) return strange();
  return {};
}

Result<std::optional<LimitOverride>> parse_override(const Reply& reply) {
  if (reply.is_error()) return fail(Origin::store, "the store: " + reply.text, true);
  if (reply.type == Reply::Type::nil) return std::nullopt;
  if (reply.type != Reply::Type::text) return strange();
  auto parsed = LimitOverride::parse(reply.text);
  if (!parsed) return fail(Origin::store, "an override in the store cannot be read: " + reply.text);
  return parsed;
}

std::optional<StoreModel::Message> parse_message(std::string_view channel, std::string_view body) {
  using Kind = StoreModel::Message::Kind;
  StoreModel::Message message;
  if (channel == kFenceChannel) {
    const auto partition = parse_decimal(body);
    if (!partition || *partition >= quota::kPartitions) return std::nullopt;
    message.kind = Kind::fence;
    message.partition = static_cast<unsigned>(*partition);
    return message;
  }
  if (channel.starts_with(kRecallPrefix)) {
    const auto to = parse_decimal(channel.substr(kRecallPrefix.size()));
    if (!to || *to == 0 || *to > std::numeric_limits<quota::Incarnation>::max()) return std::nullopt;
    message.kind = Kind::recall;
    message.to = static_cast<quota::Incarnation>(*to);
  } else if (channel == kPolicyChannel) {
    message.kind = Kind::policy;
  } else if (channel == kRoomChannel) {
    message.kind = Kind::room;
  } else {
    return std::nullopt;
  }
  auto account = parse_account(body);
  if (!account) return std::nullopt;
  message.account = std::move(*account);
  message.partition = quota::partition_of(message.account.subject_key);
  return message;
}

}  // namespace tollgate::redis
