// A new version takes over while the old one runs (SIGUSR2): two processes, the pipe between them, the
// supervisor.
//
//   the old one (Successor)                          the new one (Predecessor)
//   starts the program named on its command line ──> reads the configuration, fetches keys
//                                    <── prepared ──
//   leaves what one process at a time may have
//                                    ── go ────────> journal, store, workers, admin port; accepts
//                                    <── ready ─────
//   ends its calls and itself
//
// The new one inherits the listening sockets themselves, so that whoever waits in their queues is served by
// whoever accepts next. It ends when the pipe closes before "go". It is told by the environment:
// TOLLGATE_LISTEN_FDS (net::to_text) and TOLLGATE_UPGRADE_FD.
//
// Threads: the control thread.
#pragma once
#include <sys/types.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "metering/base/error.h"
#include "metering/base/time.h"
#include "proxy/net/server.h"

namespace tollgate::cli {

enum class UpgradeWord : char { prepared = 'p', go = 'g', ready = 'r' };

class Successor {
 public:
  // Starts the program this process was started as, looked up anew, with the same arguments.
  static Result<Successor> start(const net::Sockets& sockets);
  Successor(Successor&& other) noexcept;
  Successor& operator=(Successor&&) = delete;
  ~Successor();  // closes the pipe

  enum class Heard : std::uint8_t { said, silent, ended, interrupted };
  // Waits for that word. silent: the time is over; ended: it is not there any more. `interrupt` is asked often.
  Heard hear(UpgradeWord word, Milliseconds limit, const std::function<bool()>& interrupt);
  void tell(UpgradeWord word);
  pid_t pid() const { return pid_; }
  void stop();        // as a supervisor would: SIGTERM
  std::string end();  // at once, if it has not ended by itself; says how it ended

 private:
  Successor(pid_t pid, int channel) : pid_(pid), channel_(channel) {}
  pid_t pid_;
  int channel_;
};

class Predecessor {
 public:
  // nullopt: this process was started by nobody who wants to be followed.
  static std::optional<Predecessor> of_environment();
  // False: it changed its mind or has ended, or `interrupt` said so.
  bool wait_for_go(const std::function<bool()>& interrupt);
  void ready();
  net::Sockets take_sockets() { return std::move(sockets_); }

 private:
  Predecessor(int channel, net::Sockets sockets) : channel_(channel), sockets_(std::move(sockets)) {}
  int channel_;
  net::Sockets sockets_;
};

// To systemd or whoever set NOTIFY_SOCKET (sd_notify(3)): "READY=1", "MAINPID=4711". Without one: nothing.
void notify_supervisor(const std::string& state);

}  // namespace tollgate::cli
