#include "proxy/telemetry/access_log.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "metering/base/json_text.h"
#include "proxy/telemetry/output.h"

namespace tollgate::telemetry {
namespace {

constexpr Milliseconds kFlushInterval{200};
constexpr std::size_t kFlushBytes = 256 * 1024;
constexpr Milliseconds kLook{100};  // how soon a writer that is stuck notices that it shall end

// RFC 3339 in UTC with milliseconds. The second's part is written once a second and thread.
constexpr std::size_t kTimeBytes = 24;
void write_time(char* to, UnixTime time) {
  struct Written {
    std::int64_t second = INT64_MIN;
    std::array<char, kTimeBytes> text;
  };
  thread_local Written written;
  const std::int64_t second = unix_seconds(time);
  if (written.second != second) {
    written.second = second;
    fmt::format_to_n(written.text.data(), kTimeBytes, "{:%Y-%m-%dT%H:%M:%S}.000Z",
                     fmt::gmtime(static_cast<std::time_t>(second)));
  }
  std::memcpy(to, written.text.data(), kTimeBytes);
  const auto millis = static_cast<unsigned>(
      std::chrono::duration_cast<Milliseconds>(time.time_since_epoch() - Seconds(second)).count());
  to[20] = static_cast<char>('0' + millis / 100);
  to[21] = static_cast<char>('0' + millis / 10 % 10);
  to[22] = static_cast<char>('0' + millis % 10);
}

// "00" to "99"
constexpr auto kPairs = [] {
  std::array<std::array<char, 2>, 100> pairs{};
  for (std::size_t i = 0; i < 100; ++i)
    pairs[i] = {static_cast<char>('0' + i / 10), static_cast<char>('0' + i % 10)};
  return pairs;
}();

// Everything of a line but its texts, and of an operation but its.
constexpr std::size_t kLineBytes = 1024, kOperationBytes = 64;

// Writes JSON into room that is large enough: one line a request, so not a byte is looked at twice.
class LineWriter {
 public:
  explicit LineWriter(char* at) : at_(at) {}
  char* end() const { return at_; }

  template <std::size_t N>
  LineWriter& literal(const char (&text)[N]) {
    std::memcpy(at_, text, N - 1);
    at_ += N - 1;
    return *this;
  }
  void time(UnixTime time) {
    write_time(at_, time);
    at_ += kTimeBytes;
  }
  void text(std::string_view text) { at_ = write_json_string(at_, text); }
  void number(std::integral auto number) { at_ = std::to_chars(at_, at_ + 20, number).ptr; }
  // With as many decimals as it takes, microseconds at most: 0.0015.
  void seconds(Duration duration) {
    auto left = static_cast<std::uint64_t>(
        std::max<std::int64_t>(std::chrono::duration_cast<std::chrono::microseconds>(duration).count(), 0));
    if (left < 1'000'000)
      *at_++ = '0';
    else
      number(left / 1'000'000);
    auto decimals = static_cast<std::uint32_t>(left % 1'000'000);
    if (decimals == 0) return;
    *at_ = '.';
    for (std::size_t i = 7; i > 1; decimals /= 100)
      std::memcpy(at_ + (i -= 2), kPairs[decimals % 100].data(), 2);
    at_ += 7;
    while (at_[-1] == '0') --at_;
  }

 private:
  char* at_;
};

int open_log(const std::string& path) {
  if (path == "-") return open_output(STDOUT_FILENO);
  return ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC, 0640);
}

bool is_file(int fd) {
  struct stat what{};
  return ::fstat(fd, &what) == 0 && S_ISREG(what.st_mode);
}

}  // namespace

namespace {

// Most that the line can take.
std::size_t line_bytes(const usage::Fact& fact) {
  std::size_t text = fact.request_id.size() + fact.client_address.size() + fact.user.size() +
                     fact.tenant.size() + fact.organization.size() + fact.method.size() + fact.path.size() +
                     fact.kind.size() + fact.upstream_server.size() + code(fact.reason).size();
  for (const usage::CountedOperation& operation : fact.operations)
    text += kOperationBytes + operation.object.size() + operation.operation.size() +
            operation.section.size() + operation.product.size();
  for (std::string_view limit : fact.shadow_violated) text += 3 + limit.size();
  return kLineBytes + 6 * text;
}

char* write_line(char* to, const usage::Fact& fact) {
  LineWriter line(to);
  line.literal("{\"time\":\"").time(fact.time);
  line.literal("\",\"request_id\":").text(fact.request_id);
  line.literal(",\"client\":").text(fact.client_address);
  line.literal(",\"user\":").text(fact.user);
  if (!fact.tenant.empty()) line.literal(",\"tenant\":").text(fact.tenant);
  line.literal(",\"organization\":").text(fact.organization);
  if (fact.staff) line.literal(",\"staff\":true");
  line.literal(",\"method\":").text(fact.method);
  line.literal(",\"path\":").text(fact.path);
  line.literal(",\"kind\":").text(fact.kind);
  line.literal(",\"objects\":[");
  for (std::size_t i = 0; i < fact.operations.size(); ++i) {
    const usage::CountedOperation& operation = fact.operations[i];
    if (i > 0) line.literal(",");
    line.literal("{\"object\":").text(operation.object);
    line.literal(",\"operation\":").text(operation.operation);
    if (!operation.section.empty()) line.literal(",\"section\":").text(operation.section);
    if (!operation.product.empty()) line.literal(",\"product\":").text(operation.product);
    line.literal("}");
  }
  line.literal("],\"units\":").number(fact.units);
  line.literal(",\"reason\":").text(code(fact.reason));
  if (!fact.shadow_violated.empty()) {
    line.literal(",\"shadow_violated\":[");
    for (std::size_t i = 0; i < fact.shadow_violated.size(); ++i) {
      if (i > 0) line.literal(",");
      line.text(fact.shadow_violated[i]);
    }
    line.literal("]");
  }
  if (fact.degraded) line.literal(",\"degraded\":true");
  line.literal(",\"status\":").number(fact.status);
  line.literal(",\"bytes_in\":").number(fact.bytes_in);
  line.literal(",\"bytes_out\":").number(fact.bytes_out);
  line.literal(",\"seconds\":").seconds(fact.total);
  line.literal(",\"own_seconds\":").seconds(fact.total - fact.upstream);
  line.literal(",\"upstream_seconds\":").seconds(fact.upstream);
  line.literal(",\"store_seconds\":").seconds(fact.store);
  line.literal(",\"upstream\":").text(fact.upstream_server);
  if (fact.attempts > 1) line.literal(",\"attempts\":").number(fact.attempts);
  line.literal("}\n");
  return line.end();
}

}  // namespace

void append_access_line(std::string& out, const usage::Fact& fact) {
  const std::size_t from = out.size();
  out.resize_and_overwrite(from + line_bytes(fact), [&](char* all, std::size_t) {
    return static_cast<std::size_t>(write_line(all + from, fact) - all);
  });
}

struct AccessLog::Impl {
  struct Buffer {
    std::mutex mutex;  // held for an append or a swap: never across a write
    std::string lines;
    std::uint64_t dropped = 0;
  };

  using Clock = std::chrono::steady_clock;

  std::string path;
  Log log;
  std::mutex mutex;
  std::condition_variable wake, written;
  std::vector<std::shared_ptr<Buffer>> buffers;
  int fd = -1;
  bool stop = false;
  std::uint64_t flush_wanted = 0, flush_done = 0;
  std::atomic<std::uint64_t> write_errors{0}, given_up{0};
  std::atomic<Clock::time_point> end_by{Clock::time_point::max()};
  std::thread writer;

  void write_all(std::string_view text) {
    const bool file = is_file(fd);
    while (!text.empty()) {
      if (!file && Clock::now() >= end_by.load(std::memory_order_relaxed)) {
        given_up.fetch_add(static_cast<std::uint64_t>(std::count(text.begin(), text.end(), '\n')),
                           std::memory_order_relaxed);
        return;
      }
      const ssize_t n = file ? ::write(fd, text.data(), text.size()) : write_within(fd, text, kLook);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) {  // disk full or pipe closed: these lines are lost, calls go on
        write_errors.fetch_add(1, std::memory_order_relaxed);
        return;
      }
      text.remove_prefix(static_cast<std::size_t>(n));
    }
  }

  void run() {
    std::unique_lock lock(mutex);
    std::string batch;
    for (;;) {
      wake.wait_for(lock, kFlushInterval, [&] { return stop || flush_wanted != flush_done; });
      const bool last = stop;
      const std::uint64_t serving = flush_wanted;
      for (std::size_t i = 0; i < buffers.size();
           ++i) {  // by index: a new worker may be added while we write
        auto buffer = buffers[i];
        batch.clear();
        {
          std::lock_guard guard(buffer->mutex);
          std::swap(batch, buffer->lines);
        }
        lock.unlock();
        write_all(batch);
        lock.lock();
      }
      flush_done = serving;
      written.notify_all();
      if (last) return;
    }
  }
};

AccessLog::AccessLog(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {
  impl_->writer = std::thread([this] { impl_->run(); });
}

Result<std::unique_ptr<AccessLog>> AccessLog::open(const std::string& path, Log log) {
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  impl->log = std::move(log);
  impl->fd = open_log(path);
  if (impl->fd < 0)
    return fail(Origin::config,
                fmt::format("access_log.file: cannot open {} for writing: {}", path, std::strerror(errno)));
  return std::unique_ptr<AccessLog>(new AccessLog(std::move(impl)));
}

AccessLog::~AccessLog() {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->stop = true;
    impl_->end_by = Impl::Clock::now() + kPatience;
  }
  impl_->wake.notify_all();
  impl_->writer.join();
  ::close(impl_->fd);
  if (const std::uint64_t lines = impl_->given_up)
    impl_->log("warning", fmt::format("access log: the last {} line{} given up, nobody read {}", lines,
                                      lines == 1 ? " is" : "s are", lines == 1 ? "it" : "them"));
}

std::unique_ptr<usage::FactSink> AccessLog::worker_sink() {
  auto buffer = std::make_shared<Impl::Buffer>();
  {
    std::lock_guard lock(impl_->mutex);
    impl_->buffers.push_back(buffer);
  }
  return std::make_unique<usage::FunctionSink>([impl = impl_.get(), buffer](const usage::Fact& fact) {
    bool full;
    {
      std::lock_guard guard(buffer->mutex);
      if (buffer->lines.size() > kBufferMax) {
        ++buffer->dropped;
        return;
      }
      const bool was_below = buffer->lines.size() < kFlushBytes;
      append_access_line(buffer->lines, fact);
      full = was_below && buffer->lines.size() >= kFlushBytes;
    }
    if (full) {
      {
        std::lock_guard lock(impl->mutex);
        ++impl->flush_wanted;
      }
      impl->wake.notify_one();
    }
  });
}

Result<void> AccessLog::reopen() {
  int fresh = open_log(impl_->path);
  if (fresh < 0)
    return fail(Origin::config, fmt::format("cannot reopen {}: {}", impl_->path, std::strerror(errno)));
  flush();  // what was recorded before belongs into the old file
  std::lock_guard lock(impl_->mutex);
  // The writer may be in write() with the old number: give the number the new file instead of closing it.
  dup3(fresh, impl_->fd, O_CLOEXEC);
  ::close(fresh);
  return {};
}

void AccessLog::flush() {
  std::unique_lock lock(impl_->mutex);
  const std::uint64_t mine = ++impl_->flush_wanted;
  impl_->wake.notify_one();
  impl_->written.wait_for(lock, kPatience, [&] { return impl_->flush_done >= mine; });
}

std::uint64_t AccessLog::dropped_lines() const {
  std::lock_guard lock(impl_->mutex);
  std::uint64_t total = 0;
  for (const auto& buffer : impl_->buffers) {
    std::lock_guard guard(buffer->mutex);
    total += buffer->dropped;
  }
  return total;
}

std::uint64_t AccessLog::write_errors() const {
  return impl_->write_errors.load(std::memory_order_relaxed);
}

}  // namespace tollgate::telemetry
