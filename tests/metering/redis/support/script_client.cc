#include "tests/metering/redis/support/script_client.h"

#include <hiredis/hiredis.h>

#include "metering/base/check.h"

namespace tollgate::redis::testing {
namespace {

constexpr std::string_view kVirtualClock = "  return tonumber(redis.call('GET', 'clock'))";

redisContext* connect(const Server& server) {
  redisContext* context = redisConnectUnix(server.socket_path().c_str());
  CHECK(context != nullptr && context->err == 0, "connect to the test's redis-server");
  return context;
}

Reply convert(const redisReply& from) {
  Reply to;
  switch (from.type) {
    case REDIS_REPLY_INTEGER:
      to.type = Reply::Type::integer;
      break;
    case REDIS_REPLY_STRING:
      to.type = Reply::Type::text;
      break;
    case REDIS_REPLY_STATUS:
      to.type = Reply::Type::status;
      break;
    case REDIS_REPLY_ERROR:
      to.type = Reply::Type::error;
      break;
    case REDIS_REPLY_ARRAY:
      to.type = Reply::Type::array;
      break;
    default:
      break;
  }
  to.integer = from.integer;
  if (from.str != nullptr) to.text.assign(from.str, from.len);
  for (std::size_t i = 0; from.type == REDIS_REPLY_ARRAY && i < from.elements; ++i)
    to.elements.push_back(convert(*from.element[i]));
  return to;
}

Reply converted(void* raw) {
  auto* reply = static_cast<redisReply*>(raw);
  CHECK(reply != nullptr, "no reply from the test's redis-server");
  Reply out = convert(*reply);
  freeReplyObject(reply);
  return out;
}

template <class T>
T expect(Result<T> result) {
  if (!result) std::fprintf(stderr, "%s\n", result.error().message.c_str());
  CHECK(result.has_value(), "the script's reply");
  return std::move(*result);
}

}  // namespace

ScriptClient::ScriptClient(const Server& server, bool virtual_time)
    : scripts(virtual_time ? Scripts::with_clock(kVirtualClock) : Scripts::standard()),
      context_(connect(server)) {
  for (const Script* script :
       {&scripts.op, &scripts.replay, &scripts.ping, &scripts.states, &scripts.accounts,
        &scripts.set_override, &scripts.reset, &scripts.seat_take, &scripts.seat_renew, &scripts.seat_release,
        &scripts.seat_leave, &scripts.seat_list, &scripts.seat_invite, &scripts.seat_settle}) {
    const Reply loaded = command({"SCRIPT", "LOAD", script->text});
    if (loaded.is_error()) std::fprintf(stderr, "%s\n", loaded.text.c_str());
    CHECK(loaded.text == script->sha1, "a script is accepted, under its own name");
  }
}

ScriptClient::~ScriptClient() {
  redisFree(context_);
}

void ScriptClient::set_clock(Milliseconds now) {
  command({"SET", "clock", std::to_string(now.count())});
}

Reply ScriptClient::command(const std::vector<std::string>& words) {
  std::vector<const char*> texts;
  std::vector<std::size_t> sizes;
  for (const std::string& word : words) {
    texts.push_back(word.data());
    sizes.push_back(word.size());
  }
  return converted(redisCommandArgv(context_, static_cast<int>(words.size()), texts.data(), sizes.data()));
}

Reply ScriptClient::run(const Script& script, const ScriptCall& call) {
  std::vector<std::string> words{"EVALSHA", script.sha1, std::to_string(call.keys.size())};
  words.insert(words.end(), call.keys.begin(), call.keys.end());
  words.insert(words.end(), call.args.begin(), call.args.end());
  return command(words);
}

quota::OpReply ScriptClient::apply(const quota::Op& op, const quota::SendContext& context) {
  return expect(parse_op(run(scripts.op, op_call(op, context)), op));
}

quota::OpReply ScriptClient::replay(const quota::Replay& replay, const quota::SendContext& context) {
  return expect(parse_replay(run(scripts.replay, replay_call(replay, context))));
}

quota::PingReply ScriptClient::ping(const quota::Ping& ping, const quota::SendContext& context) {
  return expect(parse_ping(run(scripts.ping, ping_call(ping, context))));
}

std::vector<quota::LeaseState> ScriptClient::read(const std::vector<quota::AccountCharge>& accounts) {
  return expect(parse_states(run(scripts.states, states_call(accounts)), accounts.size()));
}

std::vector<quota::Ledger::Listed> ScriptClient::list(const std::string& subject_key,
                                                      const std::string& prefix, Milliseconds window,
                                                      Milliseconds bucket) {
  return expect(parse_accounts(run(scripts.accounts, accounts_call(subject_key, prefix, window, bucket))));
}

void ScriptClient::set_override(const quota::AccountKey& account,
                                const std::optional<quota::LimitOverride>& value) {
  CHECK(parse_change(run(scripts.set_override, set_override_call(account, value))).has_value(),
        "set_override");
}

void ScriptClient::reset(const quota::AccountKey& account) {
  const std::vector<std::string> fields{account.field};
  CHECK(parse_change(run(scripts.reset, reset_call(account.subject_key, fields))).has_value(), "reset");
}

std::string ScriptClient::record(const quota::AccountKey& account) {
  return command({"HGET", account.subject_key, account.field}).text;
}

std::map<std::string, std::string> ScriptClient::hash(const std::string& key) {
  const Reply reply = command({"HGETALL", key});
  std::map<std::string, std::string> out;
  for (std::size_t i = 0; i + 1 < reply.elements.size(); i += 2)
    out[reply.elements[i].text] = reply.elements[i + 1].text;
  return out;
}

Listener::Listener(const Server& server) : context_(connect(server)) {
  converted(redisCommand(context_, "PSUBSCRIBE q:*"));
}

Listener::~Listener() {
  redisFree(context_);
}

std::vector<quota::StoreModel::Message> Listener::take() {
  std::vector<quota::StoreModel::Message> messages;
  // What was published before is already on its way ahead of the answer to PING.
  Reply reply = converted(redisCommand(context_, "PING"));
  for (;;) {
    if (reply.type == Reply::Type::array && reply.elements[0].text == "pong") return messages;
    CHECK(reply.elements.size() == 4, "a message to a pattern");
    auto message = parse_message(reply.elements[2].text, reply.elements[3].text);
    CHECK(message.has_value(), "a message of the scripts");
    messages.push_back(std::move(*message));
    void* next = nullptr;
    CHECK(redisGetReply(context_, &next) == REDIS_OK, "the connection lives");
    reply = converted(next);
  }
}

}  // namespace tollgate::redis::testing
