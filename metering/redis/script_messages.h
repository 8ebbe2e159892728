// The messages of metering/quota/lease_protocol.h as keys and arguments of the scripts, and the scripts' replies as
// values. Each script's own head (op.lua, replay.lua, ping.lua, states.lua, accounts.lua, set_override.lua, reset.lua)
// states its layout; this file is its other side.
//
//   ScriptCall call = op_call(op, context);   // EVALSHA scripts.op.sha1 call.keys.size() call.keys... call.args...
//   Result<quota::OpReply> reply = parse_op(answer, op);
//
// All keys of a call carry the one hash tag of its partition: a Cluster runs it on one node. Numbers travel as decimal
// text and come back as integers; Lua counts in doubles, so a limit beyond 2^53 is none: "-" there, -1 here.
//
// parse_*: an error reply of the server (nothing was applied) and a reply of another shape are errors, origin store.
// Pure; no state.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/error.h"
#include "metering/quota/lease_protocol.h"
#include "metering/quota/ledger.h"
#include "metering/quota/store_model.h"
#include "metering/redis/reply.h"

namespace tollgate::redis {

struct ScriptCall {
  std::vector<std::string> keys, args;
};

// h:{p017}: numbers, sessions, votes and fence of a partition.   o:{p017}: overrides.
std::string partition_key(unsigned partition);
std::string override_key(unsigned partition);
// Field of an override in o:{pNNN}: "<subject key> <field>". Reading one is a plain HGET.
std::string override_field(const quota::AccountKey& account);

ScriptCall op_call(const quota::Op& op, const quota::SendContext& context);              // Scripts::op
ScriptCall replay_call(const quota::Replay& replay, const quota::SendContext& context);  // Scripts::replay
ScriptCall ping_call(const quota::Ping& ping, const quota::SendContext& context);        // Scripts::ping
// All accounts of one subject, at least one. Scripts::states.
ScriptCall states_call(std::span<const quota::AccountCharge> accounts);
ScriptCall accounts_call(const std::string& subject_key, std::string_view prefix, Milliseconds window,
                         Milliseconds bucket);  // Scripts::accounts
// nullopt, or an override that says nothing, takes it away. Scripts::set_override.
ScriptCall set_override_call(const quota::AccountKey& account,
                             const std::optional<quota::LimitOverride>& value);
// Accounts of one subject, at least one field. Scripts::reset.
ScriptCall reset_call(const std::string& subject_key, std::span<const std::string> fields);

Result<quota::OpReply> parse_op(const Reply& reply, const quota::Op& op);
Result<quota::OpReply> parse_replay(const Reply& reply);  // states empty
Result<quota::PingReply> parse_ping(const Reply& reply);
Result<std::vector<quota::LeaseState>> parse_states(const Reply& reply, std::size_t accounts);
Result<std::vector<quota::Ledger::Listed>> parse_accounts(const Reply& reply);
Result<void> parse_change(const Reply& reply);  // set_override, reset
// The reply of HGET override_key(p) override_field(account).
Result<std::optional<quota::LimitOverride>> parse_override(const Reply& reply);

// ---- what the scripts publish
inline constexpr std::string_view kPolicyChannel = "q:policy";  // "<subject key> <field>"
inline constexpr std::string_view kRoomChannel = "q:room";      // "<subject key> <field>"
inline constexpr std::string_view kFenceChannel = "q:fence";    // "<partition>"
std::string recall_channel(
    quota::Incarnation incarnation);  // "q:recall:<incarnation>": "<subject key> <field>"
// nullopt for channels and bodies that no script of ours publishes. `partition` is set in all kinds.
std::optional<quota::StoreModel::Message> parse_message(std::string_view channel, std::string_view body);

}  // namespace tollgate::redis
