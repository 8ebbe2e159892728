#include "tests/metering/redis/support/redis_fixture.h"

#include <event2/event.h>
#include <hiredis/hiredis.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "metering/base/check.h"
#include "metering/quota/keys.h"

namespace tollgate::redis::testing {

TemporaryDirectory::TemporaryDirectory() {
  std::string name = (std::filesystem::temp_directory_path() / "tollgate-redis-XXXXXX").string();
  CHECK(::mkdtemp(name.data()) != nullptr, "mkdtemp");
  path_ = name;
}
TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}
std::string TemporaryDirectory::path(std::string_view name) const {
  return name.empty() ? path_ : path_ + "/" + std::string(name);
}

namespace {
pid_t start_program(const std::vector<std::string>& words) {
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  pid_t pid = ::fork();
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::freopen("/dev/null", "w", stdout) == nullptr || ::freopen("/dev/null", "w", stderr) == nullptr)
      ::_exit(126);
    ::execvp(arguments[0], arguments.data());
    ::_exit(127);
  }
  CHECK(pid > 0, "fork");
  return pid;
}
}  // namespace

int run_program(const std::vector<std::string>& words) {
  pid_t pid = start_program(words);
  int status = 0;
  CHECK(::waitpid(pid, &status, 0) == pid, "waitpid");
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

std::uint16_t free_port() {
  int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0, "bind");
  socklen_t size = sizeof address;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  ::close(fd);
  return ntohs(address.sin_port);
}

namespace {
bool mentions(const std::vector<std::string>& lines, std::string_view word) {
  for (const std::string& line : lines)
    if (line.find(word) != std::string::npos) return true;
  return false;
}
std::string replaced(std::string line, std::string_view word, std::uint16_t number) {
  for (std::size_t at; (at = line.find(word)) != std::string::npos;)
    line.replace(at, word.size(), std::to_string(number));
  return line;
}
}  // namespace

Server::Server(std::vector<std::string> settings, const TemporaryDirectory* directory, bool sentinel)
    : directory_(directory != nullptr ? directory : &own_),
      settings_(std::move(settings)),
      sentinel_(sentinel) {
  for (int attempt = 0; attempt < 10; ++attempt) {
    if (mentions(settings_, "{port}")) port_ = free_port();
    if (mentions(settings_, "{bus}")) bus_ = free_port();
    write_configuration();
    if (try_spawn()) return;
    CHECK(port_ != 0, "redis-server did not start");
  }
  CHECK(false, "redis-server found no free port");
}

void Server::write_configuration() const {
  std::ofstream file(directory_->path("redis.conf"));
  // Settings given later win over earlier ones.
  file << "port 0\nunixsocket redis.sock\ndir " << directory_->path() << "\n";
  if (!sentinel_)
    file << "save \"\"\nappendonly no\nmaxmemory-policy noeviction\nhash-max-listpack-value 2048\n";
  for (const std::string& line : settings_)
    file << replaced(replaced(line, "{port}", port_), "{bus}", bus_) << "\n";
}

std::string Server::address() const {
  return "127.0.0.1:" + std::to_string(port_);
}

Server::~Server() {
  kill_now();
}

void Server::spawn() {
  CHECK(try_spawn(), "redis-server did not start");
}

// False when the program ended, as it does when its port is taken.
bool Server::try_spawn() {
  std::filesystem::remove(socket_path());
  std::vector<std::string> words{"redis-server", directory_->path("redis.conf")};
  if (sentinel_) words.push_back("--sentinel");
  pid_ = start_program(words);
  for (int attempt = 0; attempt < 2'000; ++attempt) {
    if (redisContext* context = redisConnectUnix(socket_path().c_str())) {
      bool up = false;
      if (context->err == 0) {
        auto* reply = static_cast<redisReply*>(redisCommand(context, "PING"));
        // Any answer but LOADING: servers with a password answer NOAUTH.
        up = reply != nullptr && !std::string_view(reply->str, reply->len).starts_with("LOADING");
        if (reply != nullptr) freeReplyObject(reply);
      }
      redisFree(context);
      if (up) return true;
    }
    if (::waitpid(pid_, nullptr, WNOHANG) == pid_) {
      pid_ = 0;
      return false;
    }
    ::poll(nullptr, 0, 10);
  }
  CHECK(false, "redis-server did not start");
  return false;
}

void Server::kill_now() {
  if (pid_ == 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = 0;
}

void Server::kill_and_restart() {
  kill_now();
  spawn();
}

void Server::signal(int number) const {
  CHECK(::kill(pid_, number) == 0, "kill");
}

StoreUrl Server::url() const {
  StoreUrl url;
  url.kind = StoreUrl::Kind::unix_socket;
  url.path = socket_path();
  return url;
}

namespace {
Reply convert(const redisReply& from) {
  Reply to;
  switch (from.type) {
    case REDIS_REPLY_INTEGER:
      to.type = Reply::Type::integer;
      break;
    case REDIS_REPLY_STRING:
      to.type = Reply::Type::text;
      break;
    case REDIS_REPLY_STATUS:
      to.type = Reply::Type::status;
      break;
    case REDIS_REPLY_ERROR:
      to.type = Reply::Type::error;
      break;
    case REDIS_REPLY_ARRAY:
      to.type = Reply::Type::array;
      break;
    default:
      break;
  }
  to.integer = from.integer;
  if (from.str != nullptr) to.text.assign(from.str, from.len);
  for (std::size_t i = 0; from.type == REDIS_REPLY_ARRAY && i < from.elements; ++i)
    to.elements.push_back(convert(*from.element[i]));
  return to;
}
}  // namespace

Reply Server::command_as(const std::string& password, std::vector<std::string> words) const {
  redisContext* context = redisConnectUnix(socket_path().c_str());
  CHECK(context != nullptr && context->err == 0, "connect to the test's redis-server");
  if (!password.empty()) freeReplyObject(redisCommand(context, "AUTH %s", password.c_str()));
  std::vector<const char*> texts;
  std::vector<std::size_t> sizes;
  for (const std::string& word : words) {
    texts.push_back(word.data());
    sizes.push_back(word.size());
  }
  auto* reply = static_cast<redisReply*>(
      redisCommandArgv(context, static_cast<int>(words.size()), texts.data(), sizes.data()));
  CHECK(reply != nullptr, "no reply from the test's redis-server");
  Reply converted = convert(*reply);
  freeReplyObject(reply);
  redisFree(context);
  return converted;
}

Loop::Loop() : base_(event_base_new()) {
  CHECK(base_ != nullptr, "event_base_new");
}
Loop::~Loop() {
  event_base_free(base_);
}

bool Loop::run_until(const std::function<bool()>& condition, Milliseconds deadline) {
  MonotonicTime end = Connection::now() + deadline;
  // A tick makes the loop look at conditions that change outside of it.
  event* tick = event_new(base_, -1, EV_PERSIST, [](int, short, void*) {}, nullptr);
  timeval every{.tv_sec = 0, .tv_usec = 5'000};
  event_add(tick, &every);
  bool holds = condition();
  while (!holds && Connection::now() < end) {
    event_base_loop(base_, EVLOOP_ONCE);
    holds = condition();
  }
  event_free(tick);
  return holds;
}

quota::AccountCharge account(std::string_view user, std::string_view field, std::uint64_t limit,
                             std::uint32_t units, Milliseconds window, Milliseconds bucket) {
  return {.key = {.subject_key =
                      quota::subject_key({.tenant = "acme", .organization = std::nullopt, .user = user}),
                  .field = std::string(field)},
          .limit = limit,
          .window = window,
          .bucket = bucket,
          .units = units,
          .rule = 0};
}

}  // namespace tollgate::redis::testing
