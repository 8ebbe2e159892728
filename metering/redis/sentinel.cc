#include "metering/redis/sentinel.h"

#include <fmt/format.h>

#include <algorithm>

#include "metering/base/ascii.h"
#include "metering/base/check.h"

namespace tollgate::redis {

SentinelLocator::SentinelLocator(event_base* base, ConnectionOptions options)
    : base_(base), options_(std::move(options)) {
  CHECK(options_.url.kind == StoreUrl::Kind::sentinel && !options_.url.nodes.empty(), "no sentinels");
}

void SentinelLocator::locate(ConnectionOptions::Located done) {
  const StoreUrl& url = options_.url;
  std::size_t count = url.nodes.size();
  Inquiry::Question question;
  question.connection = {.url = {},
                         .ca_file = options_.ca_file,
                         .server_name = options_.server_name,
                         .verify = options_.verify,
                         .connect_timeout = options_.connect_timeout,
                         .seed = options_.seed,
                         .optional_password = true};
  for (std::size_t i = 0; i < count; ++i) {
    StoreUrl sentinel = url.server(url.nodes[(first_ + i) % count]);
    sentinel.database = 0;
    question.servers.push_back(std::move(sentinel));
  }
  question.command = {"SENTINEL", "get-master-addr-by-name", url.primary_name};
  // One share stays for the primary itself.
  question.each = std::max(options_.connect_timeout / static_cast<int>(count + 1), Milliseconds(10));
  first_ = (first_ + 1) % count;
  inquiry_ = std::make_unique<Inquiry>(
      base_, std::move(question),
      [this, done](Reply& reply, const StoreUrl& from) {
        // Nil: this sentinel does not know the name.
        if (reply.type != Reply::Type::array || reply.elements.size() != 2) return false;
        auto port = parse_decimal(reply.elements[1].text);
        if (!port || *port == 0 || *port > 65'535) return false;
        for (std::size_t i = 0; i < options_.url.nodes.size(); ++i)
          if (options_.url.nodes[i] == Endpoint{.host = from.host, .port = from.port})
            first_ = (i + 1) % options_.url.nodes.size();
        done(
            options_.url.server({.host = reply.elements[0].text, .port = static_cast<std::uint16_t>(*port)}));
        return true;
      },
      [this, done](const std::string& why) {
        done(fail(Origin::store,
                  fmt::format("no sentinel names the primary {}: {}", options_.url.primary_name, why), true));
      });
}

ConnectionOptions with_locator(event_base* base, ConnectionOptions options) {
  if (options.url.kind != StoreUrl::Kind::sentinel) return options;
  auto locator = std::make_shared<SentinelLocator>(base, options);
  options.locate = [locator](ConnectionOptions::Located done) { locator->locate(std::move(done)); };
  return options;
}

}  // namespace tollgate::redis
