// A store of seats that writes down who holds one: what billing knows of seats
// (metering/usage/licence_row.h). It stands between whoever asks for seats and the store that gives them, so
// that calls, log-outs, invitations and administrators are all seen; a holder's call asks no store and is not
// seen.
//
//   ann's seat in the store    |==== 20 min ====|                       each renewal moves the end on
//                                  |==== 20 min ====|
//                                      |==== 20 min ====|
//   written                    A                B        A: until its end, B: until the end of then
//
// One entry a holder when the seat is taken, and one whenever the end that was written is about to pass and
// the store has a later one; a kill -9 leaves out the last such entry at most, so that a seat seems to end
// early by up to its idle time. Named seats have one entry, another after a start, and one when they are
// released. Taking is written with the moment of the answer, leaving with that of the question: what one
// clock writes never shows more holders than there were.
//
// A seat that a kill or a partition kept this proxy from renewing is not ended here: its end was written. An
// invitation counts when it is settled as a member (store.h). What cannot be written (a full disk) is tried
// again with the next answer.
// Memory: about 100 bytes a holder that this worker has asked for, at most kRemembered of each pool.
// Threads: one worker's.
#pragma once
#include <functional>
#include <string>
#include <unordered_map>

#include "metering/seats/store.h"
#include "metering/usage/journal_record.h"

namespace tollgate::seats {

class SeatRecorder final : public SeatStore {
 public:
  static constexpr std::size_t kRemembered = 65'536;
  // False: it could not be written.
  using Write = std::function<bool(const usage::SeatEntry&)>;
  // The store outlives the recorder; its answers come before the recorder's end or never. now: calendar
  // clock.
  SeatRecorder(SeatStore& store, std::function<Milliseconds()> now, Write write);

  void take(const Pool& pool, std::string member, std::string client,
            std::function<void(Result<TakeReply>&&)> done) override;
  void leave(const Pool& pool, std::string member, std::vector<std::string> clients,
             std::function<void(Result<bool>&&)> done) override;
  void renew(const Pool& pool, std::vector<Renewal> renewals,
             std::function<void(Result<RenewReply>&&)> done) override;
  void invite(const Pool& pool, std::string id, std::vector<std::string> members,
              std::function<void(Result<InviteReply>&&)> done) override;
  void settle(const Pool& pool, std::string id, std::vector<Settlement> settlements,
              std::function<void(Result<void>&&)> done) override;
  void release(const Pool& pool, std::string member, std::function<void(Result<bool>&&)> done) override;
  void list(const Pool& pool, std::uint64_t offset, std::uint64_t count, std::string member,
            std::function<void(Result<Page>&&)> done) override;

 private:
  struct Held {
    Milliseconds written{0};  // end that was written; kNoEnd: a named seat
    Milliseconds stored{0};   // end in the store, as it last said
  };
  using Holders = std::unordered_map<std::string, Held>;  // by member
  // The store says that the member's seat ends at `until`.
  // anew: it was free before.
  void holds(const Pool& pool, const std::string& member, Milliseconds until, std::uint64_t used, bool anew);
  void left(const Pool& pool, const std::string& member, Milliseconds when);
  void extend(const Pool& pool);
  bool write(const Pool& pool, const std::string& member, Milliseconds time, Milliseconds until,
             std::uint64_t used, bool goes_on = false);

  SeatStore& store_;
  const std::function<Milliseconds()> now_;
  const Write write_;
  std::unordered_map<std::string, Holders> pools_;  // by seats_key
};

}  // namespace tollgate::seats
