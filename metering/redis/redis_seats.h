// Seats in Redis, over the connections of a RedisStore: the messages of metering/seats/store.h as keys and arguments of the
// scripts seat_*.lua, and the scripts' replies as values. A pool lies in one slot, so every command goes to one server.
//
// To take, to invite and to list waits `timeout` of the store at most, to renew, to settle and to release its admin_timeout. With durability
// `wait` a seat is given only when the replicas have it.
//
// Threads: on the store's loop. Answers that would come after this object's end are dropped.
#pragma once
#include "metering/redis/redis_store.h"
#include "metering/seats/store.h"

namespace tollgate::redis {

ScriptCall seat_take_call(const seats::Pool& pool, const std::string& run, const std::string& member,
                          const std::string& client = "");
ScriptCall seat_renew_call(const seats::Pool& pool, const std::string& run,
                           const std::vector<seats::Renewal>& renewals);
ScriptCall seat_release_call(const seats::Pool& pool, const std::string& run, const std::string& member);
ScriptCall seat_leave_call(const seats::Pool& pool, const std::string& run, const std::string& member,
                           const std::vector<std::string>& clients);
ScriptCall seat_list_call(const seats::Pool& pool, const std::string& run, std::uint64_t offset,
                          std::uint64_t count, const std::string& member);

ScriptCall seat_invite_call(const seats::Pool& pool, const std::string& run, const std::string& id,
                            const std::vector<std::string>& members);
ScriptCall seat_settle_call(const seats::Pool& pool, const std::string& run, const std::string& id,
                            const std::vector<seats::Settlement>& settlements);

// An error reply of the server and a reply of another shape are errors, origin store.
Result<seats::TakeReply> parse_seat_take(const Reply& reply);
Result<seats::RenewReply> parse_seat_renew(const Reply& reply, std::size_t renewals);
Result<bool> parse_seat_release(const Reply& reply);  // of seat_leave too
Result<seats::Page> parse_seat_list(const Reply& reply);
Result<seats::InviteReply> parse_seat_invite(const Reply& reply);
Result<void> parse_seat_settle(const Reply& reply);

class RedisSeats final : public seats::SeatStore {
 public:
  explicit RedisSeats(RedisStore& store);  // outlives this
  ~RedisSeats() override;

  void take(const seats::Pool& pool, std::string member, std::string client,
            std::function<void(Result<seats::TakeReply>&&)> done) override;
  void leave(const seats::Pool& pool, std::string member, std::vector<std::string> clients,
             std::function<void(Result<bool>&&)> done) override;
  void renew(const seats::Pool& pool, std::vector<seats::Renewal> renewals,
             std::function<void(Result<seats::RenewReply>&&)> done) override;
  void invite(const seats::Pool& pool, std::string id, std::vector<std::string> members,
              std::function<void(Result<seats::InviteReply>&&)> done) override;
  void settle(const seats::Pool& pool, std::string id, std::vector<seats::Settlement> settlements,
              std::function<void(Result<void>&&)> done) override;
  void release(const seats::Pool& pool, std::string member,
               std::function<void(Result<bool>&&)> done) override;
  void list(const seats::Pool& pool, std::uint64_t offset, std::uint64_t count, std::string member,
            std::function<void(Result<seats::Page>&&)> done) override;

 private:
  // Runs a script and passes its reply on, read by `parse`.
  template <class Parse, class Done>
  void ask(const seats::Pool& pool, const Script& script,
           const std::function<ScriptCall(const std::string& run)>& call, Milliseconds timeout, bool durable,
           Parse parse, Done done);

  RedisStore& store_;
  std::shared_ptr<void> alive_;
};

}  // namespace tollgate::redis
