// What one finished call was: the single fact of which metrics, access log, journal and exports are views.
// Filled by proxy/flow at the end of an exchange, handed to every FactSink of the worker on the worker's thread.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "metering/base/reason.h"
#include "metering/base/time.h"

namespace tollgate::usage {

struct CountedOperation {
  std::string_view object{}, operation{}, section{}, product{};
};

// Views live only during the call of FactSink::record.
struct Fact {
  UnixTime time;  // arrival of the request head
  std::string_view request_id;
  std::string_view client_address;  // after trusted proxies
  std::string_view user, tenant, organization;
  std::string_view method, path;                      // path without query: queries may carry secrets
  std::string_view kind;                              // catalogue::name(Kind)
  std::span<const CountedOperation> operations;       // licensed operations of the call, also of a denied one
  std::uint32_t units = 0;                            // billable (0 when denied, given back or free)
  std::span<const std::string_view> shadow_violated;  // names of candidate limits that would have refused it
  bool staff = false;
  Reason reason = Reason::ok;
  bool degraded = false;                      // let through without a store decision (on_outage: allow)
  int status = 0;                             // sent to the client; 0 when nothing was sent
  std::uint64_t bytes_in = 0, bytes_out = 0;  // body bytes from and to the client
  Duration total{0};                          // head received .. last byte sent
  Duration upstream{0};  // request handed to upstream .. last byte of its reply (0: never forwarded)
  Duration store{0};     // waiting for the quota store
  std::string_view upstream_server;  // "" when never forwarded
  std::uint32_t attempts = 0;        // upstream connections tried
};

// A quota account that the call asked for, and where its units were counted.
struct ChargedAccount {
  std::string_view subject_key{}, field{};
  std::uint32_t units = 0;
  std::int64_t bucket = 0;  // by the store's clock; 0 until charged
};

// Names a call that CallJournal::begin has written down. 0: none.
struct CallHandle {
  std::uint64_t call = 0;
  std::uint32_t place = 0;
};

class FactSink {
 public:
  virtual ~FactSink() = default;
  virtual void record(const Fact& fact) = 0;
};

// The sink that must know of a metered call before it happens, so that no death of the process loses it.
//
//   begin ──> (charge) ──> charged ──> sent ──> record(handle, fact)        the common life
//                └──> refused: record          └──> given back: uncharged, record
class CallJournal {
 public:
  virtual ~CallJournal() = default;
  // False: nothing can be written now (disk full); `journal.on_failure` decides whether calls go on.
  virtual bool writable() const = 0;
  // `fact` as known so far. A handle with call 0 means that it could not be written.
  virtual CallHandle begin(const Fact& fact, std::span<const ChargedAccount> accounts) = 0;
  virtual void charged(CallHandle call) = 0;
  virtual void uncharged(CallHandle call) = 0;
  virtual void sent(CallHandle call) = 0;  // before the first byte is handed to an upstream connection
  // The end. With call 0 the entry stands alone (nothing was charged).
  virtual void record(CallHandle call, const Fact& fact, std::span<const ChargedAccount> accounts,
                      bool given_back) = 0;
};

// A sink made of a function.
class FunctionSink final : public FactSink {
 public:
  explicit FunctionSink(std::function<void(const Fact&)> function) : function_(std::move(function)) {}
  void record(const Fact& fact) override { function_(fact); }

 private:
  std::function<void(const Fact&)> function_;
};

}  // namespace tollgate::usage
