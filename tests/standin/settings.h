// How the stand-in misbehaves: set at run time by POST /_standin/settings (a JSON object with these names),
// or for one request by headers X-Standin-Latency-Ms and X-Standin-Fault.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace tollgate::standin {

// Values of `fault`:
//   close_before_reply   reads the request, closes without a byte
//   reset_before_reply   the same, with a TCP reset
//   close_mid_head       sends half a status line and header
//   close_mid_body       announces 1000 bytes, sends 100, closes
//   close_mid_chunk      chunked, closes inside a chunk
//   garbage              sends bytes that are not HTTP
//   two_lengths          a reply with two different Content-Length fields
//   length_and_chunked   a reply with Content-Length and Transfer-Encoding
//   bare_lf              a reply whose header lines end in LF alone
//   stall                reads the request, never answers
//   stall_mid_body       announces 1000 bytes, sends 100, then silence
struct Behaviour {
  std::uint32_t latency_ms = 0;   // before the reply
  std::uint32_t capacity = 0;     // requests served at the same time; 0: no bound
  std::uint32_t queue = 1'000;    // requests that may wait for capacity; beyond it 503
  std::string fault;              // "" or one of the above
  std::uint32_t fault_every = 1;  // every n-th request is hit
};

// Shared by all connections. Thread-safe.
class Control {
 public:
  Behaviour behaviour() const;
  bool set(std::string_view json);  // unknown names and wrong types: false, nothing changed

  // True for the requests that `fault_every` selects.
  bool fault_is_due();
  // Waits for a free place; false when the queue is full.
  bool enter();
  void leave();

  void count(std::string_view method, const std::vector<std::string>& touched, std::string_view target);
  void connection_opened();
  std::string counts_json() const;
  void reset_counts();

 private:
  mutable std::mutex mutex_;
  std::condition_variable freed_;
  Behaviour behaviour_;
  std::uint32_t running_ = 0, waiting_ = 0;
  std::uint64_t fault_turn_ = 0, requests_ = 0, connections_ = 0;
  std::uint32_t running_max_ = 0;
  std::map<std::string, std::uint64_t> operations_;  // "GET Case" -> times
  std::vector<std::string> targets_;                 // "GET /0/odata/Case", the first kTargetsKept
  static constexpr std::size_t kTargetsKept = 10'000;
};

}  // namespace tollgate::standin
