// The access log: one JSON object a line, one line a request. Tokens, cookies and query strings never appear.
//
//   {"time":"2026-11-22T10:15:03.123Z","request_id":"..","client":"203.0.113.9","user":"ann","tenant":"acme",
//    "organization":"Best Ltd","method":"GET","path":"/0/odata/Case","objects":[{"object":"Case","operation":"read",
//    "section":"cases"}],"units":1,"reason":"ok","status":200,"bytes_in":0,"bytes_out":1024,"seconds":0.004,
//    "own_seconds":0.0002,"upstream_seconds":0.0038,"store_seconds":0.0001,"upstream":"http://127.0.0.1:9000"}
//
// Workers append to buffers of their own; one thread writes them out, every 200 ms or when a buffer has grown. A disk
// that cannot keep up never slows a call: beyond kBufferMax a worker's lines are dropped and counted. Nor does a reader
// that has stopped reading: nobody waits for longer than kPatience for what it does not take.
//
// Threads: open, reopen and destruction from the control thread; each sink on its worker's thread.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "metering/base/error.h"
#include "metering/usage/fact.h"

namespace tollgate::telemetry {

class AccessLog {
 public:
  static constexpr std::size_t kBufferMax = 16 * 1024 * 1024;  // a worker

  static constexpr Milliseconds kPatience{2'000};
  using Log = std::function<void(std::string_view level, std::string_view text)>;

  // path "-" is standard output. Appends to an existing file; a new one gets mode 0640. A named pipe that nobody reads
  // is an error.
  static Result<std::unique_ptr<AccessLog>> open(const std::string& path, Log log);
  // Writes what is left. What a pipe has not taken within kPatience is given up, and the log says how many lines.
  ~AccessLog();

  std::unique_ptr<usage::FactSink> worker_sink();
  // Opens the path anew (after a rotation renamed the file) and writes there from now on. On failure the old file stays.
  // What the old one has not taken within kPatience goes to the new one.
  Result<void> reopen();
  void flush();  // returns when everything recorded before has been written, or after kPatience
  std::uint64_t dropped_lines() const;
  std::uint64_t write_errors() const;

 private:
  struct Impl;
  explicit AccessLog(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// One line with its '\n', as described above; for tests and for `explain`.
void append_access_line(std::string& out, const usage::Fact& fact);

}  // namespace tollgate::telemetry
