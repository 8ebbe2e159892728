// EDGE: HTTP requests that the proxy makes itself, by libcurl: for key sets, look-ups, owners and users, and
// those of the commands to the admin port. One request after the other, on the caller's thread:
//
//   HttpTransfer transfer;
//   auto reply = transfer.perform({.url = "https://idp.example/jwks", .timeout = 2s, .reply_max = 1 << 20});
//   reply->status == 200
//
// or many at a time, on one thread that waits for all of them:
//
//   HttpTransfers transfers;
//   transfers.begin(transfer, {.url = ...}, [](HttpOutcome outcome) { ... });
//   for (;;) { transfers.step(); transfers.wait(1s); }
//
// Rules, whoever asks:
//   - http and https alone; TLS 1.2 or later, verified (ca_file or the system's store); no redirect is followed
//   - the path goes out as it is written, with its dots ("/a/../b")
//   - time and size of a reply are bounded; a reply beyond them is none
//   - texts of failures name hosts and ports at most: no path, field or body
//
// Threads: an object is used on one thread at a time. SIGPIPE must be blocked or ignored there, as libcurl leaves
// it to us: block_signals().
#pragma once
#include <array>
#include <atomic>
#include <cstddef>
#include <expected>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/time.h"

struct curl_slist;

namespace tollgate::net {

struct HttpRequest {
  std::string url = "";
  std::string method = "";                  // "": GET, with a body POST
  std::vector<std::string> fields = {};     // "Accept: application/json"
  std::optional<std::string> body = {};     // with one and no Content-Type it is a form
  std::string ca_file = "";                 // PEM bundle; "" is the system's store
  Milliseconds timeout{10'000};             // the whole exchange; at least 1 ms
  Milliseconds connect_timeout{0};          // 0: `timeout` alone
  std::size_t reply_max = 0;                // bytes of the body, decoded
  bool compressed = false;                  // the reply may come so
  bool proxies = false;                     // those of the environment (http_proxy), but for this machine
  const std::atomic<bool>* stop = nullptr;  // breaks off when it becomes true, within a second
};

struct HttpReply {
  int status = 0;
  std::string body;
};
struct TransferFailure {
  bool too_large = false;
  std::string text =
      "";  // "the reply is larger than 1048576 bytes", "Failed to connect to idp.example port 443..."
};
using HttpOutcome = std::expected<HttpReply, TransferFailure>;

// Connections, and cookies once they are kept, stay from one request to the next.
class HttpTransfer {
 public:
  HttpTransfer();
  ~HttpTransfer();  // breaks off what HttpTransfers has under way; its Ended is not called
  HttpTransfer(const HttpTransfer&) = delete;
  HttpTransfer& operator=(const HttpTransfer&) = delete;

  HttpOutcome perform(HttpRequest request);

  // Cookies of replies go with later requests, as RFC 6265 has it. In memory alone.
  void keep_cookies();
  void forget_cookies();
  std::string cookie(std::string_view name) const;  // "": none

 private:
  friend class HttpTransfers;
  static std::size_t take_body(char* data, std::size_t size, std::size_t count, void* self);
  void prepare(HttpRequest request);
  void set_request();
  void set_bounds();
  HttpOutcome outcome(int code);

  void* curl_;             // CURL*
  void* multi_ = nullptr;  // CURLM* while it is under way there
  HttpRequest request_;
  curl_slist* fields_ = nullptr;
  HttpReply reply_;
  bool too_large_ = false;
  std::array<char, 256> error_{};
  std::function<void(HttpOutcome)> ended_;
};

// Connections are shared, and stay.
class HttpTransfers {
 public:
  // Called from step(), once; may destroy the transfer, or begin another request.
  using Ended = std::function<void(HttpOutcome)>;

  // connections_max: open at a time, and kept; what does not get one waits, within its time-out. 0: as many as come.
  explicit HttpTransfers(long connections_max = 0);
  ~HttpTransfers();  // no transfer is under way
  HttpTransfers(const HttpTransfers&) = delete;
  HttpTransfers& operator=(const HttpTransfers&) = delete;

  void begin(HttpTransfer& transfer, HttpRequest request, Ended ended);
  void step();                      // moves all on without waiting, and ends what has ended
  void wait(Milliseconds longest);  // until one can move on, wake(), or so long; at most a minute
  void wake();                      // from any thread

 private:
  void* multi_;  // CURLM*
};

// For a thread of its own: signals are the main thread's business.
void block_signals();

}  // namespace tollgate::net
