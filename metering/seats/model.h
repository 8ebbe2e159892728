// The rules of seats in the store, in memory: the twin of the scripts metering/redis/seat_*.lua, which tests hold against
// it, reply by reply.
//
// A concurrent seat is held until a moment by the store's clock; then it is free. Every renewal moves that moment on.
//
// Two ways in which a store forgets, and what is done about each:
//
//   named, everything    A renewal of somebody who has no seat and was not released gives the seat back, whatever the
//                        capacity. `born` tells proxies that the store is a new one: then they renew all they remember.
//   concurrent, the last moments or everything (failover, restart, flush)
//                        Every command carries the run id of the server that it goes to. The first one that reaches
//                        another server than before raises the fence: for one lease nothing is given to newcomers, while
//                        renewals of seats that this server does not know are believed (proxies renew only what is certain).
//                        Whatever is not renewed by then is not believed in by any proxy either (ledger.h), so that it
//                        may be given away.
//
//         seat of u lost  fence up                              fence open
//   ──────────┼──────────────┼───── lease ────────────────────────┼──> newcomers get what is free
//        last renewal of u   └─ u is renewed: u keeps the seat
//             └────── lease ──────> no proxy serves u without having renewed
//
//                        A pool that was never seen has been lost, for all the store knows: its first lease is a fence.
//
// The clock that counts is the server's. A step back lengthens seats. A step forward by less than idle - 7/6 lease, or a
// failover to a server so much ahead, is harmless: no proxy relies on the last part of a seat's time.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "metering/seats/store.h"

namespace tollgate::seats {

inline constexpr Milliseconds kReleasedKept{86'400'000};  // as in seat_release.lua

class SeatModel {
 public:
  void set_now(Milliseconds now) { now_ = now; }
  void set_run(std::string run) { run_ = std::move(run); }  // of the server
  void lose_everything() { pools_.clear(); }

  TakeReply take(const Pool& pool, const std::string& member, const std::string& client = "");
  bool leave(const Pool& pool, const std::string& member, const std::vector<std::string>& clients);
  RenewReply renew(const Pool& pool, const std::vector<Renewal>& renewals);
  InviteReply invite(const Pool& pool, const std::string& id, const std::vector<std::string>& members);
  void settle(const Pool& pool, const std::string& id, const std::vector<Settlement>& settlements);
  bool release(const Pool& pool, const std::string& member);
  Page list(const Pool& pool, std::uint64_t offset, std::uint64_t count, const std::string& member);

 private:
  struct Content {
    std::map<std::string, Milliseconds> seats, gone;
    std::map<std::string, std::vector<std::string>> invites;
    std::map<std::string, std::vector<std::pair<std::string, Milliseconds>>>
        clients;  // by member: until when
    std::uint64_t born = 0;
    std::string run, fence;
    Milliseconds fence_at{0};
  };
  // What every command does first; the fence still stands for so long.
  Milliseconds begin(const Pool& pool, Content& content);

  Milliseconds now_{0};
  std::string run_;
  std::map<std::string, Content> pools_;
};

}  // namespace tollgate::seats
