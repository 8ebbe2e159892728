// The scripts of seats on a real Redis against SeatModel: the same random history gives the same replies. Virtual time; the
// seed and the step are printed with every failure.
#include <gtest/gtest.h>

#include <array>
#include <set>

#include "metering/base/random.h"
#include "metering/redis/redis_seats.h"
#include "metering/seats/model.h"
#include "tests/metering/redis/support/script_client.h"

namespace tollgate::redis {
namespace {

using seats::Kind;
using seats::Pool;
using seats::SeatModel;
using seats::TakeReply;
using testing::ScriptClient;
using testing::Server;
using namespace std::chrono_literals;

struct Seen {
  std::map<TakeReply::Status, int> takes;
  int lost = 0, given_back = 0, released = 0, invited = 0, invitations_full = 0, settled_free = 0, left = 0,
      stayed = 0;
};

class Differential {
 public:
  explicit Differential(std::uint64_t seed) : random_(seed) {
    pools_.push_back({.id = "self_service", .kind = Kind::named, .capacity = 5, .lease = 30s});
    pools_.push_back(
        {.id = "concurrent", .kind = Kind::concurrent, .capacity = 5, .idle = 60s, .lease = 30s});
    tell_clock();
    model_.set_run(run_);
  }

  void step() {
    now_ += Milliseconds(random_.below(random_.below(8) == 0 ? 40'000 : 2'000));
    tell_clock();
    const Pool& pool = pools_[random_.below(pools_.size())];
    const std::string member = ":user" + std::to_string(random_.below(9));
    const std::uint64_t dice = random_.below(100);
    if (dice < 15 && pool.kind == Kind::named)
      invite(pool);
    else if (dice < 30 && pool.kind == Kind::named)
      settle(pool);
    else if (dice < 50)
      take(pool, member);
    else if (dice < 75)
      renew(pool);
    else if (dice < 83 && pool.kind == Kind::concurrent)
      leave(pool, member);
    else if (dice < 85)
      release(pool, member);
    else if (dice < 95)
      list(pool, member);
    else if (dice < 98)
      model_.set_run(run_ = "run" + std::to_string(random_.below(4)));
    else if (dice < 99)
      lose_everything();
    else
      now_ =
          std::max(kStart, now_ - Milliseconds(random_.below(20'000)));  // the server's clock is stepped back
  }

  Seen seen;

 private:
  static constexpr Milliseconds kStart{1'763'820'000'000};

  void tell_clock() {
    client_.set_clock(now_);
    model_.set_now(now_);
  }
  void take(const Pool& pool, const std::string& member) {
    // Many clients at times: the store remembers the latest of a member.
    const std::string client = random_.below(3) == 0 ? "" : some_client();
    auto real =
        parse_seat_take(client_.run(client_.scripts.seat_take, seat_take_call(pool, run_, member, client)));
    ASSERT_TRUE(real) << real.error().message;
    const TakeReply twin = model_.take(pool, member, client);
    EXPECT_EQ(real->status, twin.status);
    EXPECT_EQ(real->left, twin.left);
    EXPECT_EQ(real->used, twin.used);
    EXPECT_EQ(real->born, twin.born);
    ++seen.takes[twin.status];
  }
  std::string some_invitation() { return "invitation" + std::to_string(random_.below(4)); }
  void invite(const Pool& pool) {
    std::vector<std::string> members;
    for (int user = 0; user < 9; ++user)
      if (random_.below(4) == 0) members.push_back(":user" + std::to_string(user));
    const std::string id = some_invitation();
    auto real = parse_seat_invite(
        client_.run(client_.scripts.seat_invite, seat_invite_call(pool, run_, id, members)));
    ASSERT_TRUE(real) << real.error().message;
    const seats::InviteReply twin = model_.invite(pool, id, members);
    EXPECT_EQ(real->full, twin.full);
    EXPECT_EQ(real->taken, twin.taken);
    EXPECT_EQ(real->used, twin.used);
    (twin.full ? seen.invitations_full : seen.invited) += 1;
  }
  void settle(const Pool& pool) {
    using Outcome = seats::Settlement::Outcome;
    std::vector<seats::Settlement> settlements;
    for (int user = 0; user < 9; ++user)
      if (random_.below(3) == 0)
        settlements.push_back({.outcome = std::array{Outcome::member, Outcome::refused, Outcome::refused,
                                                     Outcome::removed}[random_.below(4)],
                               .member = ":user" + std::to_string(user)});
    const std::uint64_t before = model_.list(pool, 0, 0, "").used;
    const std::string id = some_invitation();
    const auto real = parse_seat_settle(
        client_.run(client_.scripts.seat_settle, seat_settle_call(pool, run_, id, settlements)));
    ASSERT_TRUE(real) << real.error().message;
    model_.settle(pool, id, settlements);
    seen.settled_free += model_.list(pool, 0, 0, "").used < before ? 1 : 0;
    list(pool, ":user0");
  }
  void renew(const Pool& pool) {
    std::vector<seats::Renewal> renewals;
    for (int user = 0; user < 9; ++user)
      if (random_.below(3) == 0)
        renewals.push_back({.member = ":user" + std::to_string(user),
                            .idle_left = pool.kind == Kind::named ? Milliseconds(0)
                                                                  : Milliseconds(1 + random_.below(60'000))});
    const std::uint64_t before = model_.list(pool, 0, 0, "").used;
    auto real = parse_seat_renew(
        client_.run(client_.scripts.seat_renew, seat_renew_call(pool, run_, renewals)), renewals.size());
    ASSERT_TRUE(real) << real.error().message;
    const seats::RenewReply twin = model_.renew(pool, renewals);
    EXPECT_EQ(real->used, twin.used);
    EXPECT_EQ(real->born, twin.born);
    EXPECT_EQ(real->fence, twin.fence);
    EXPECT_EQ(real->left, twin.left);
    seen.lost += static_cast<int>(std::ranges::count(twin.left, 0ms));
    seen.given_back += twin.used > before ? 1 : 0;
  }
  void release(const Pool& pool, const std::string& member) {
    auto real =
        parse_seat_release(client_.run(client_.scripts.seat_release, seat_release_call(pool, run_, member)));
    ASSERT_TRUE(real) << real.error().message;
    const bool twin = model_.release(pool, member);
    EXPECT_EQ(*real, twin);
    seen.released += twin ? 1 : 0;
  }
  std::string some_client() { return fmt::format("{:x}", 0xc00 + random_.below(random_.one_in(2) ? 3 : 60)); }
  void leave(const Pool& pool, const std::string& member) {
    std::vector<std::string> clients;
    for (std::uint64_t left = random_.below(4); left > 0; --left) clients.push_back(some_client());
    auto real = parse_seat_release(
        client_.run(client_.scripts.seat_leave, seat_leave_call(pool, run_, member, clients)));
    ASSERT_TRUE(real) << real.error().message;
    const bool had = model_.list(pool, 0, 0, member).own.has_value();
    const bool twin = model_.leave(pool, member, clients);
    EXPECT_EQ(*real, twin);
    (twin ? seen.left : seen.stayed) += had ? 1 : 0;
    list(pool, member);
  }
  void list(const Pool& pool, const std::string& member) {
    const std::uint64_t offset = random_.below(4), count = random_.below(5);
    auto real = parse_seat_list(
        client_.run(client_.scripts.seat_list, seat_list_call(pool, run_, offset, count, member)));
    ASSERT_TRUE(real) << real.error().message;
    const seats::Page twin = model_.list(pool, offset, count, member);
    EXPECT_EQ(real->now, twin.now);
    EXPECT_EQ(real->used, twin.used);
    EXPECT_EQ(real->own, twin.own);
    ASSERT_EQ(real->seats.size(), twin.seats.size());
    for (std::size_t i = 0; i < twin.seats.size(); ++i) {
      EXPECT_EQ(real->seats[i].member, twin.seats[i].member);
      EXPECT_EQ(real->seats[i].at, twin.seats[i].at);
    }
  }
  void lose_everything() {
    client_.command({"FLUSHALL"});
    model_.lose_everything();
    tell_clock();
  }

  Random random_;
  Server server_;
  ScriptClient client_{server_};
  SeatModel model_;
  std::vector<Pool> pools_;
  Milliseconds now_ = kStart;
  std::string run_ = "run0";
};

TEST(SeatDifferential, ScriptsAndModelGiveTheSameReplies) {
  Seen all;
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    Differential history(seed);
    for (int step = 0; step < 2'000; ++step) {
      SCOPED_TRACE(::testing::Message() << "seed " << seed << " step " << step);
      history.step();
      if (::testing::Test::HasFailure()) return;
    }
    for (const auto& [status, count] : history.seen.takes) all.takes[status] += count;
    all.lost += history.seen.lost;
    all.given_back += history.seen.given_back;
    all.released += history.seen.released;
    all.left += history.seen.left;
    all.stayed += history.seen.stayed;
    all.invited += history.seen.invited;
    all.invitations_full += history.seen.invitations_full;
    all.settled_free += history.seen.settled_free;
  }
  for (auto status : {TakeReply::Status::taken, TakeReply::Status::held, TakeReply::Status::full,
                      TakeReply::Status::fenced})
    EXPECT_GT(all.takes[status], 100) << static_cast<int>(status);
  EXPECT_GT(all.lost, 100);
  EXPECT_GT(all.given_back, 100);
  EXPECT_GT(all.released, 100);
  EXPECT_GT(all.left, 50);
  EXPECT_GT(all.stayed, 50);
  EXPECT_GT(all.invited, 100);
  EXPECT_GT(all.invitations_full, 100);
  EXPECT_GT(all.settled_free, 100);
}

}  // namespace
}  // namespace tollgate::redis
