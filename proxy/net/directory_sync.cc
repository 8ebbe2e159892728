#include "proxy/net/directory_sync.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "metering/base/ascii.h"
#include "metering/base/check.h"
#include "metering/base/json_text.h"
#include "metering/identity/creatio_login.h"
#include "proxy/net/event_loop.h"
#include "proxy/net/http_transfer.h"

namespace tollgate::net {
namespace {

using identity::CreatioUserReader;
using identity::SyncFailure;
using Kind = SyncFailure::Kind;

constexpr Milliseconds kTakeAgain{100};

std::unexpected<SyncFailure> failed(Kind kind, std::string text) {
  return std::unexpected(SyncFailure{kind, std::move(text)});
}

// The address of the application: workspaces have a number, the log-in has none.
std::string application_of(const std::string& url) {
  const std::size_t slash = url.rfind('/');
  return slash != url.npos && parse_decimal(std::string_view(url).substr(slash + 1)) ? url.substr(0, slash)
                                                                                     : url;
}

// One conversation with the CRM: who asks, and what is asked. Of one thread.
class Conversation {
 public:
  Conversation(const DirectorySource& source, const std::atomic<bool>& stopping)
      : source_(source), stopping_(stopping) {
    if (source.client.token_url.empty()) transfer_.keep_cookies();
  }

  // The session. A token stays until it ends or is refused.
  void forget() {
    if (source_.client.token_url.empty()) credential_.clear();
  }
  void begin(Milliseconds at_most) { deadline_ = EventLoop::now() + at_most; }

  // The body of a 200.
  std::expected<std::string, SyncFailure> get(const std::string& address) {
    for (int attempt = 0;; ++attempt) {
      if (auto entered = enter(); !entered) return std::unexpected(entered.error());
      auto reply = ask({.url = address, .fields = {credential_}});
      if (!reply) return std::unexpected(reply.error());
      const int status = reply->status;
      // What has ended: 401, or the way to the page where people log in.
      if ((status == 401 || status == 302) && source_.authorization.empty() && attempt == 0) {
        credential_.clear();
        continue;
      }
      if (status == 200) return std::move(reply->body);
      const std::string what = without_query(address);
      if (status == 401 || status == 302)
        return failed(Kind::log_in, fmt::format("{} answered {}: the account is not let in", what, status));
      return failed(Kind::status, fmt::format("{} answered {}", what, status));
    }
  }

 private:
  using Entered = std::expected<void, SyncFailure>;

  static std::string without_query(const std::string& address) {
    return address.substr(0, address.find('?'));
  }

  Entered enter() {
    if (!credential_.empty() && EventLoop::now() < credential_until_) return {};
    credential_until_ = MonotonicTime::max();
    if (!source_.client.token_url.empty()) return take_token();
    if (source_.authorization.empty()) return log_in();
    credential_ = "Authorization: " + source_.authorization;
    return {};
  }

  Entered log_in() {
    transfer_.forget_cookies();  // the session before
    std::string body;
    JsonWriter json(body);
    json.object([&] {
      json.field("UserName", source_.user);
      json.field("UserPassword", source_.password);
    });
    const std::string address = application_of(source_.url) + "/ServiceModel/AuthService.svc/Login";
    auto reply = ask({.url = address,
                      .fields = {"Content-Type: application/json", "ForceUseSession: true"},
                      .body = std::move(body)});
    if (!reply) return std::unexpected(reply.error());
    if (reply->status != 200)
      return failed(Kind::log_in, fmt::format("{} answered {}", address, reply->status));
    if (!identity::creatio_login_reply(reply->body))
      return failed(Kind::log_in, fmt::format("{} does not let the user \"{}\" in", address, source_.user));
    credential_ = "BPMCSRF: " + transfer_.cookie("BPMCSRF");
    return {};
  }

  Entered take_token() {
    credential_.clear();
    const MonotonicTime asked = EventLoop::now();
    const std::string& address = source_.client.token_url;
    auto reply = ask({.url = address, .body = identity::token_form(source_.client)});
    if (!reply) return std::unexpected(reply.error());
    auto token = identity::read_access_token(reply->status, reply->body);
    if (!token)
      return failed(Kind::log_in, fmt::format("{} {}: no token for the client \"{}\"", without_query(address),
                                              token.error(), source_.client.client_id));
    credential_ = "Authorization: Bearer " + token->text;
    const Milliseconds use = identity::use_of_token(token->lifetime);
    if (use != Milliseconds::max()) credential_until_ = asked + use;
    return {};
  }

  std::expected<HttpReply, SyncFailure> ask(HttpRequest request) {
    const std::string what = without_query(request.url);
    const auto left = std::chrono::ceil<Milliseconds>(deadline_ - EventLoop::now());
    request.fields.emplace_back("Accept: application/json");
    request.ca_file = source_.ca_file;
    request.timeout = std::min(left, source_.timeout);
    request.reply_max = DirectorySync::kReplyMax;
    request.compressed = true;
    request.stop = &stopping_;
    HttpOutcome outcome = transfer_.perform(std::move(request));
    if (outcome) return *std::move(outcome);
    const TransferFailure& failure = outcome.error();
    return failed(failure.too_large ? Kind::too_large : Kind::unreachable,
                  fmt::format("{}: {}", what, failure.text));
  }

  const DirectorySource& source_;
  const std::atomic<bool>& stopping_;
  HttpTransfer transfer_;
  std::string credential_;  // line that says who asks; "": nobody has logged in
  MonotonicTime credential_until_ = MonotonicTime::max();
  MonotonicTime deadline_{};
};

}  // namespace

struct DirectorySync::Impl {
  Impl(DirectorySource the_source, Take the_take, Log the_log)
      : source(std::move(the_source)), take(std::move(the_take)), log(std::move(the_log)) {}

  std::expected<identity::CreatioUsers, SyncFailure> read(Conversation& conversation) const {
    conversation.begin(kSyncMax);
    CreatioUserReader reader(source.names, source.url, source.limits);
    while (!reader.next().empty()) {
      auto body = conversation.get(reader.next());
      if (!body) return std::unexpected(body.error());
      if (auto taken = reader.take(*body); !taken) return std::unexpected(taken.error());
    }
    return reader.finish();
  }

  // read: but for the users themselves, who are with the proxy.
  void note(std::size_t users, const identity::CreatioUsers& read) {
    Status before;
    {
      const std::lock_guard lock(mutex);
      before = status;
      status.users = users;
      status.licenses = read.licenses;
      status.left_out = read.left_out;
      status.last_success = EventLoop::calendar_now();
      ++status.successes;
      status.failure.clear();
    }
    const bool same = before.successes > 0 && before.failure.empty() && before.users == users &&
                      before.licenses == read.licenses && before.left_out == read.left_out;
    if (same) return;
    const std::string out =
        read.left_out == 0 ? "" : fmt::format("; {} rows left out, the first: {}", read.left_out, read.why);
    log(read.left_out == 0, fmt::format("identity.directory.sync: {}: {} users with {} licences{}",
                                        source.url, users, read.licenses, out));
  }

  void note(const SyncFailure& failure) {
    bool news = false;
    {
      const std::lock_guard lock(mutex);
      news = status.failure != failure.text;
      status.failure = failure.text;
      status.last_failure = EventLoop::calendar_now();
      ++status.failures[static_cast<std::size_t>(failure.kind)];
    }
    if (news)
      log(false, fmt::format("identity.directory.sync failed ({}): {}; what is known of users stays",
                             identity::name(failure.kind), failure.text));
  }

  // True: the users are taken.
  bool hand_over(const Users& users) {
    while (!take(users)) {
      std::unique_lock lock(mutex);
      if (wake.wait_for(lock, kTakeAgain, [&] { return stopping.load(); })) return false;
    }
    return true;
  }

  std::expected<void, SyncFailure> sync(Conversation& conversation) {
    auto got = read(conversation);
    if (stopping.load()) return failed(Kind::unreachable, "stopped");
    if (!got) {
      conversation.forget();
      note(got.error());
      return std::unexpected(got.error());
    }
    const auto users = std::make_shared<const identity::Directory::CrmUsers>(std::exchange(got->users, {}));
    if (!hand_over(users)) return failed(Kind::unreachable, "stopped");
    note(users->size(), *got);
    return {};
  }

  void run() {
    Conversation conversation(source, stopping);
    std::unique_lock lock(mutex);
    while (!stopping.load()) {
      std::vector<Done> waiting = std::exchange(asked, {});
      lock.unlock();
      const auto outcome = sync(conversation);
      for (const Done& done : waiting) done(outcome);
      lock.lock();
      tried = true;
      wake.notify_all();
      const Milliseconds pause = outcome ? source.interval : std::min(kRetry, source.interval);
      wake.wait_for(lock, pause, [&] { return stopping.load() || !asked.empty(); });
    }
    const std::vector<Done> rest = std::exchange(asked, {});
    lock.unlock();
    for (const Done& done : rest) done(failed(Kind::unreachable, "stopped"));
  }

  const DirectorySource source;
  const Take take;
  const Log log;
  mutable std::mutex mutex;
  std::condition_variable wake;
  Status status;            // guarded by mutex
  std::vector<Done> asked;  // guarded by mutex
  bool tried = false;       // guarded by mutex
  std::atomic<bool> stopping{false};
  std::thread thread;
};

DirectorySync::DirectorySync(DirectorySource source, Take take, Log log)
    : impl_(std::make_unique<Impl>(std::move(source), std::move(take), std::move(log))) {}

DirectorySync::~DirectorySync() {
  stop();
}

void DirectorySync::start(Milliseconds first_wait) {
  impl_->thread = std::thread([impl = impl_.get()] {
    block_signals();
    impl->run();
  });
  std::unique_lock lock(impl_->mutex);
  impl_->wake.wait_for(lock, first_wait, [&] { return impl_->tried; });
}

void DirectorySync::sync_now(Done done) {
  {
    const std::lock_guard lock(impl_->mutex);
    if (!impl_->stopping.load()) {
      impl_->asked.push_back(std::move(done));
      impl_->wake.notify_all();
      return;
    }
  }
  done(failed(Kind::unreachable, "stopped"));
}

DirectorySync::Status DirectorySync::status() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->status;
}

const DirectorySource& DirectorySync::source() const {
  return impl_->source;
}

void DirectorySync::stop() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->stopping = true;
    impl_->wake.notify_all();
  }
  if (impl_->thread.joinable()) impl_->thread.join();
}

std::expected<std::string, SyncFailure> try_directory(const DirectorySource& source) {
  const std::atomic<bool> stopping{false};
  Conversation conversation(source, stopping);
  conversation.begin(3 * source.timeout);
  CreatioUserReader reader(source.names, source.url, source.limits);
  std::string seen;
  for (const std::string* entity : {&source.names.users, &source.names.licenses}) {
    if (reader.next().empty()) break;
    auto body = conversation.get(reader.next());
    if (!body) return std::unexpected(body.error());
    if (auto taken = reader.take(*body); !taken) return std::unexpected(taken.error());
    seen += fmt::format("{}{} rows of {}", seen.empty() ? "" : ", ", reader.page_rows(), *entity);
    if (entity == &source.names.users) reader.go_to_licenses();
  }
  return seen;
}

}  // namespace tollgate::net
