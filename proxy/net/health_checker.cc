#include "proxy/net/health_checker.h"

#include "proxy/net/upstream_pool.h"

namespace tollgate::net {

// The checks of one server, one after the other.
class HealthChecker::Check final : public UpstreamUser {
 public:
  Check(EventLoop& loop, UpstreamPool& pool, std::size_t server, std::shared_ptr<CheckedServer> result,
        Log log)
      : loop_(loop),
        pool_(pool),
        server_(server),
        result_(std::move(result)),
        log_(std::move(log)),
        count_(rules().unhealthy_threshold, rules().healthy_threshold) {
    waiting.check = true;
    timer_.bind(this, &Check::on_timer);
    const std::size_t servers = pool.settings().servers.size();
    // The first check of each at once: calls may come before the interval is over. Then spread.
    loop.set(timer_, Milliseconds(0));
    offset_ = Milliseconds(rules().interval.count() * static_cast<std::int64_t>(server) /
                           static_cast<std::int64_t>(servers));
  }
  ~Check() { stop(); }
  Check(const Check&) = delete;
  Check& operator=(const Check&) = delete;

  void upstream_ready(UpstreamConnection& connection) override {
    connection_ = &connection;
    const std::string& host = rules().host;
    connection.expect("GET", false);
    connection.write(
        fmt::format("GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: tollgate-health\r\nAccept: */*\r\n"
                    "Connection: close\r\n\r\n",
                    rules().path, host.empty() ? connection.authority() : std::string_view(host)));
    connection.set_reading(true);
    connection.flush();
  }
  void upstream_failed(flow::UpstreamFailure) override {
    asking_ = false;
    done(false, "no connection");
  }
  void upstream_event() override {
    connection_->flush();
    connection_->pump(*this);
  }
  void reply_head(const http::ResponseHead& head) override {
    if (head.status < 200) return;
    const bool passed = config::has_status(rules().statuses, head.status);
    stop();
    done(passed, passed ? "" : fmt::format("status {}", head.status));
  }
  void reply_body(std::string_view) override {}
  void reply_end(const std::vector<http::TrailerField>&, bool) override {}
  void reply_failed(flow::UpstreamFailure) override {
    stop();
    done(false, "no valid reply");
  }

 private:
  const config::HealthCheck& rules() const { return pool_.settings().health_check; }

  static void on_timer(void* self) {
    auto& check = *static_cast<Check*>(self);
    if (check.asking_) {
      check.stop();
      return check.done(false, "no reply in time");
    }
    check.asking_ = true;
    check.loop_.set(check.timer_, check.rules().timeout);
    check.pool_.open_check(check, check.server_);
  }

  void stop() {
    if (asking_) pool_.close_check(*this, connection_);
    asking_ = false;
    connection_ = nullptr;
  }

  void done(bool passed, std::string_view why) {
    loop_.set(timer_, rules().interval + std::exchange(offset_, Milliseconds(0)));
    (passed ? result_->passed_total : result_->failed_total).fetch_add(1, std::memory_order_relaxed);
    if (!count_.note(passed)) return;
    if (passed) result_->up_since.store(loop_.now().time_since_epoch().count(), std::memory_order_relaxed);
    result_->up.store(passed, std::memory_order_relaxed);
    const config::Upstream& upstream = pool_.settings();
    if (passed)
      log_("info", fmt::format("upstream {}: server {} passes its health checks again", upstream.name,
                               upstream.servers[server_]));
    else
      log_("warning", fmt::format("upstream {}: server {} is down: health check {}: {}", upstream.name,
                                  upstream.servers[server_], rules().path, why));
  }

  EventLoop& loop_;
  UpstreamPool& pool_;
  const std::size_t server_;
  const std::shared_ptr<CheckedServer> result_;
  const Log log_;
  CheckCount count_;
  LoopTimer timer_;
  Milliseconds offset_{0};
  UpstreamConnection* connection_ = nullptr;
  bool asking_ = false;
};

HealthChecker::HealthChecker(EventLoop& loop, UpstreamPool& pool,
                             const std::vector<std::shared_ptr<CheckedServer>>& checked, Log log) {
  for (std::size_t i = 0; i < checked.size(); ++i)
    checks_.push_back(std::make_unique<Check>(loop, pool, i, checked[i], log));
}

HealthChecker::~HealthChecker() = default;

}  // namespace tollgate::net
