// What the gate asks about sessions of the CRM's own log-in when the snapshot's table
// (identity/session_table.h) does not know: the store that all proxies share. Implemented by the edge, one a
// worker.
//
// Threads: the worker's. An answer may come at once, from within the question; each question is answered
// once, within store.timeout, unless the worker ends.
#pragma once
#include <functional>
#include <memory>

#include "metering/identity/session_table.h"
#include "proxy/flow/snapshot.h"

namespace tollgate::flow {

struct SessionAnswer {
  std::shared_ptr<const identity::SessionRecord> record;  // nullptr: nobody's session
  bool unavailable = false;  // nothing is known here, and the store could not be asked
};

class SessionStore {
 public:
  virtual ~SessionStore() = default;
  // All of them bring the table of the snapshot up to date, which has one.
  using Found = std::function<void(SessionAnswer)>;
  using Written = std::function<void()>;  // the others can know, or cannot be told now and will be
  virtual void find(const std::shared_ptr<const Snapshot>& snapshot, const identity::SessionKey& key,
                    UnixTime now, Found done) = 0;
  virtual void bind(const std::shared_ptr<const Snapshot>& snapshot, const identity::SessionKey& key,
                    std::shared_ptr<const identity::SessionRecord> record, UnixTime now, Written done) = 0;
  virtual void end(const std::shared_ptr<const Snapshot>& snapshot, const identity::SessionKey& key,
                   UnixTime now, Written done) = 0;
  virtual void tick(UnixTime now) = 0;  // about once a second
};

}  // namespace tollgate::flow
