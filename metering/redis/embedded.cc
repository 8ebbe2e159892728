#include "metering/redis/embedded.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <sstream>
#include <thread>
#include <utility>

#include "metering/base/ascii.h"
#include "metering/base/check.h"
#include "metering/redis/connection.h"
#include "metering/redis/resolver.h"

namespace tollgate::redis {
namespace {

constexpr std::string_view kConfiguration = R"(# Written by Tollgate at every start: changes are lost.
port 0
unixsocket redis.sock
unixsocketperm 700
dir .
pidfile redis.pid
logfile redis.log
daemonize no
databases 1
save ""
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
hash-max-listpack-value 2048
)";
constexpr Milliseconds kBackoffMin{100};
constexpr Milliseconds kBackoffMax{5'000};
constexpr Milliseconds kPollEvery{10};  // how often a starting server is asked whether it is ready

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  ~Descriptor() { reset(); }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    reset(std::exchange(other.fd_, -1));
    return *this;
  }
  int get() const { return fd_; }
  void reset(int fd = -1) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = fd;
  }

 private:
  int fd_;
};

std::string errno_text() {
  return std::strerror(errno);
}

std::string read_text(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string last_lines(const std::string& path, std::size_t count) {
  std::string text = read_text(path);
  while (text.ends_with('\n')) text.pop_back();
  std::size_t begin = text.size();
  while (count-- > 0 && begin != std::string::npos && begin != 0) begin = text.rfind('\n', begin - 1);
  return begin == std::string::npos ? text : text.substr(text[begin] == '\n' ? begin + 1 : begin);
}

// Is that process a redis-server that works in `directory`? The kernel's answer, not the process' own title.
bool is_our_server(pid_t pid, const std::string& directory) {
  std::error_code error;
  std::filesystem::path base = fmt::format("/proc/{}", pid);
  std::filesystem::path cwd = std::filesystem::read_symlink(base / "cwd", error);
  if (error || cwd != std::filesystem::path(directory)) return false;
  std::string name(trim(read_text(base / "comm")));
  while (name.ends_with('\n')) name.pop_back();
  return name.starts_with("redis-server") || name.starts_with("valkey-server");
}

// Ends a process that is not our child: SIGTERM, then SIGKILL; false when it still lives.
bool end_stranger(pid_t pid, const std::string& directory, Milliseconds patience) {
  for (int signal : {SIGTERM, SIGKILL}) {
    if (::kill(pid, signal) != 0) return errno == ESRCH;
    MonotonicTime deadline = Connection::now() + patience;
    while (Connection::now() < deadline) {
      if (!is_our_server(pid, directory)) return true;
      ::poll(nullptr, 0, static_cast<int>(kPollEvery.count()));
    }
  }
  return false;
}

enum class Ping { pong, loading, nobody };

// One PING over a fresh connection to the socket; blocking, but bounded by `patience`.
Ping ping(const std::string& path, Milliseconds patience) {
  auto address = unix_address(path);
  if (!address) return Ping::nobody;
  Descriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address->storage), address->length) != 0)
    return Ping::nobody;
  constexpr std::string_view kPing = "*1\r\n$4\r\nPING\r\n";
  if (::send(fd.get(), kPing.data(), kPing.size(), MSG_NOSIGNAL) < 0) return Ping::nobody;
  pollfd readable{.fd = fd.get(), .events = POLLIN, .revents = 0};
  if (::poll(&readable, 1, static_cast<int>(patience.count())) != 1) return Ping::nobody;
  char reply[64];
  ssize_t length = ::recv(fd.get(), reply, sizeof reply, 0);
  std::string_view text(reply, length > 0 ? static_cast<std::size_t>(length) : 0);
  if (text.starts_with("+PONG")) return Ping::pong;
  return text.starts_with("-LOADING") ? Ping::loading : Ping::nobody;
}

std::string describe_end(int status) {
  if (WIFSIGNALED(status)) return fmt::format("was killed by signal {}", WTERMSIG(status));
  return fmt::format("ended with exit code {}", WEXITSTATUS(status));
}

}  // namespace

class EmbeddedRedis::Impl {
 public:
  explicit Impl(EmbeddedOptions options) : options_(std::move(options)) {}
  ~Impl() { stop(); }

  Result<void> start();
  void stop();

  std::string socket_path_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // ---- guarded by mutex_
  pid_t pid_ = 0;
  std::uint64_t starts_ = 0;

 private:
  Result<void> prepare_directory();
  Result<void> lock_directory();
  Result<void> end_orphan();
  Result<void> wait_until_ready();
  Result<pid_t> spawn();
  [[noreturn]] void become_server(int report, pid_t parent);
  void watch();
  void notify(const std::string& event) {
    if (options_.on_event) options_.on_event(event);
  }
  std::string file(std::string_view name) const { return fmt::format("{}/{}", directory_, name); }

  EmbeddedOptions options_;
  std::string directory_;  // absolute, links resolved: what the kernel says of the child's working directory
  Descriptor lock_, directory_fd_;
  std::thread watcher_;
  // ---- guarded by mutex_
  bool stopping_ = false;
  std::string failure_;  // why the first start ended
};

Result<void> EmbeddedRedis::Impl::prepare_directory() {
  if (options_.directory.empty()) return fail(Origin::config, "embedded store: the directory is missing");
  if (::mkdir(options_.directory.c_str(), 0700) != 0 && errno != EEXIST)
    return fail(Origin::config,
                fmt::format("embedded store: {} cannot be made: {}", options_.directory, errno_text()));
  std::error_code error;
  directory_ = std::filesystem::canonical(options_.directory, error);
  if (error)
    return fail(Origin::config, fmt::format("embedded store: {}: {}", options_.directory, error.message()));
  directory_fd_.reset(::open(directory_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (directory_fd_.get() < 0 || ::access(directory_.c_str(), W_OK | X_OK) != 0)
    return fail(Origin::config, fmt::format("embedded store: {} is not a directory that can be written: {}",
                                            directory_, errno_text()));
  socket_path_ = file("redis.sock");
  if (socket_path_.size() >= sizeof(sockaddr_un::sun_path))
    socket_path_ = fmt::format("/proc/self/fd/{}/redis.sock", directory_fd_.get());
  return {};
}

Result<void> EmbeddedRedis::Impl::lock_directory() {
  std::string path = file("tollgate.lock");
  lock_.reset(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (lock_.get() < 0) return fail(Origin::config, fmt::format("embedded store: {}: {}", path, errno_text()));
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    std::string holder(trim(read_text(path)));
    while (holder.ends_with('\n')) holder.pop_back();
    return fail(Origin::config,
                fmt::format("embedded store: {} is in use by another Tollgate (process {}); give each its "
                            "own directory, or share one Redis by its URL",
                            directory_, holder.empty() ? "?" : holder));
  }
  std::string mine = fmt::format("{}\n", ::getpid());
  if (::ftruncate(lock_.get(), 0) != 0 || ::pwrite(lock_.get(), mine.data(), mine.size(), 0) < 0)
    return fail(Origin::config, fmt::format("embedded store: {} cannot be written: {}", path, errno_text()));
  return {};
}

Result<void> EmbeddedRedis::Impl::end_orphan() {
  std::string text = read_text(file("redis.pid"));
  while (text.ends_with('\n')) text.pop_back();
  auto pid = parse_decimal(text);
  if (pid && *pid > 1 && *pid < INT32_MAX && is_our_server(static_cast<pid_t>(*pid), directory_)) {
    if (!end_stranger(static_cast<pid_t>(*pid), directory_, options_.stop_timeout))
      return fail(
          Origin::config,
          fmt::format("embedded store: a redis-server of an earlier run (process {}) still works in {} "
                      "and cannot be ended; end it by hand",
                      *pid, directory_));
  }
  if (ping(socket_path_, Milliseconds(1'000)) != Ping::nobody)
    return fail(
        Origin::config,
        fmt::format("embedded store: an unknown server answers on {}; end it or choose another directory",
                    file("redis.sock")));
  return {};
}

Result<void> EmbeddedRedis::Impl::start() {
  if (auto done = prepare_directory(); !done) return done;
  if (auto done = lock_directory(); !done) return done;
  if (auto done = end_orphan(); !done) return done;
  std::string path = file("redis.conf");
  {
    std::ofstream out(path, std::ios::trunc);
    out << kConfiguration;
    if (!out.flush())
      return fail(Origin::config,
                  fmt::format("embedded store: {} cannot be written: {}", path, errno_text()));
  }
  ::unlink(file("redis.pid").c_str());
  ::unlink(file("redis.sock").c_str());
  // The death signal of a child follows the thread that made it, so the watcher makes it and lives as long.
  watcher_ = std::thread([this] { watch(); });
  auto ready = wait_until_ready();
  if (!ready) stop();
  return ready;
}

Result<void> EmbeddedRedis::Impl::wait_until_ready() {
  MonotonicTime deadline = Connection::now() + options_.start_timeout;
  Ping last = Ping::nobody;
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      if (!failure_.empty()) return fail(Origin::config, "embedded store: " + failure_);
      if (pid_ == 0) changed_.wait_for(lock, kPollEvery);
      if (pid_ == 0 && Connection::now() < deadline) continue;
    }
    last = ping(socket_path_, Milliseconds(1'000));
    if (last == Ping::pong) return {};
    if (Connection::now() >= deadline) break;
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kPollEvery);  // woken at once when the child ends
  }
  return fail(Origin::store,
              fmt::format("embedded store: redis-server {} after {} ms; its log is {}",
                          last == Ping::loading ? "still loads its data" : "does not answer",
                          options_.start_timeout.count(), file("redis.log")),
              true);
}

// In the child, between fork and exec: only what is safe there (signal-safety(7)).
void EmbeddedRedis::Impl::become_server(int report, pid_t parent) {
  auto give_up = [&] {
    int code = errno;
    (void)!::write(report, &code, sizeof code);
    ::_exit(127);
  };
  ::setpgid(0, 0);  // Ctrl-C is for the proxy, which still needs the store while it drains
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(127);  // the parent died before the line above
  sigset_t none;
  sigemptyset(&none);
  ::pthread_sigmask(SIG_SETMASK, &none, nullptr);
  for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGCHLD, SIGUSR1}) ::signal(signal, SIG_DFL);
  if (::fchdir(directory_fd_.get()) != 0) give_up();
  int log = ::open("redis.log", O_WRONLY | O_CREAT | O_APPEND, 0600);
  int null = ::open("/dev/null", O_RDONLY);
  if (log < 0 || null < 0) give_up();
  ::dup2(null, 0);
  ::dup2(log, 1);
  ::dup2(log, 2);
  ::execlp(options_.redis_server.c_str(), "redis-server", "redis.conf", static_cast<char*>(nullptr));
  give_up();
  ::_exit(127);
}

Result<pid_t> EmbeddedRedis::Impl::spawn() {
  int pipe_ends[2];
  if (::pipe2(pipe_ends, O_CLOEXEC) != 0) return fail(Origin::self, "pipe: " + errno_text(), true);
  Descriptor report_in(pipe_ends[0]), report_out(pipe_ends[1]);
  pid_t parent = ::getpid();
  pid_t pid = ::fork();
  if (pid < 0) return fail(Origin::self, "fork: " + errno_text(), true);
  if (pid == 0) become_server(report_out.get(), parent);
  report_out.reset();
  int code = 0;
  ssize_t got = 0;
  do got = ::read(report_in.get(), &code, sizeof code);
  while (got < 0 && errno == EINTR);
  if (got == 0) return pid;  // exec closed the pipe
  ::waitpid(pid, nullptr, 0);
  if (code == ENOENT)
    return fail(Origin::config,
                fmt::format("the program {} is missing: install it (apt install redis-server), or set "
                            "store.redis_server, or store.url to a Redis of yours",
                            options_.redis_server));
  return fail(Origin::config, fmt::format("the program {} cannot be started: {}", options_.redis_server,
                                          std::strerror(code)));
}

void EmbeddedRedis::Impl::watch() {
  sigset_t all;
  sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, nullptr);  // the proxy's signals are for its main thread
  Milliseconds backoff = kBackoffMin;
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    lock.unlock();
    Result<pid_t> child = spawn();
    lock.lock();
    if (child) {
      pid_ = *child;
      ++starts_;
      changed_.notify_all();
      std::string event = starts_ > 1 ? fmt::format("redis-server runs again as process {}", pid_) : "";
      if (stopping_) ::kill(pid_, SIGTERM);
      lock.unlock();
      if (!event.empty()) notify(event);
      MonotonicTime born = Connection::now();
      siginfo_t info{};
      while (::waitid(P_PID, static_cast<id_t>(*child), &info, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
      }
      lock.lock();
      // Reaped under the lock: whoever signals pid_ holds it too, and so never hits a stranger with the same
      // number.
      int status = 0;
      ::waitpid(*child, &status, 0);
      pid_ = 0;
      changed_.notify_all();
      if (stopping_) break;
      if (Connection::now() - born > kBackoffMax) backoff = kBackoffMin;
      failure_ = fmt::format("redis-server {}: {}", describe_end(status), last_lines(file("redis.log"), 3));
    } else {
      failure_ = child.error().message;
      changed_.notify_all();
    }
    std::string event = failure_;
    lock.unlock();
    notify(event);
    lock.lock();
    changed_.wait_for(lock, backoff, [&] { return stopping_; });
    backoff = std::min(backoff * 2, kBackoffMax);
  }
}

void EmbeddedRedis::Impl::stop() {
  if (!watcher_.joinable()) return;
  {
    std::unique_lock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
    if (pid_ > 0) ::kill(pid_, SIGTERM);
    if (!changed_.wait_for(lock, options_.stop_timeout, [&] { return pid_ == 0; })) ::kill(pid_, SIGKILL);
  }
  watcher_.join();
  ::unlink(file("redis.sock").c_str());
  ::unlink(file("redis.pid").c_str());
  lock_.reset();
}

EmbeddedRedis::EmbeddedRedis(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
EmbeddedRedis::~EmbeddedRedis() = default;

Result<std::unique_ptr<EmbeddedRedis>> EmbeddedRedis::start(EmbeddedOptions options) {
  auto impl = std::make_unique<Impl>(std::move(options));
  if (auto started = impl->start(); !started) return std::unexpected(started.error());
  return std::unique_ptr<EmbeddedRedis>(new EmbeddedRedis(std::move(impl)));
}

StoreUrl EmbeddedRedis::url() const {
  StoreUrl url;
  url.kind = StoreUrl::Kind::unix_socket;
  url.path = impl_->socket_path_;
  return url;
}
std::string EmbeddedRedis::socket_path() const {
  return impl_->socket_path_;
}
int EmbeddedRedis::pid() const {
  std::lock_guard lock(impl_->mutex_);
  return impl_->pid_;
}
std::uint64_t EmbeddedRedis::restarts() const {
  std::lock_guard lock(impl_->mutex_);
  return impl_->starts_ > 0 ? impl_->starts_ - 1 : 0;
}
void EmbeddedRedis::stop() {
  impl_->stop();
}

}  // namespace tollgate::redis
