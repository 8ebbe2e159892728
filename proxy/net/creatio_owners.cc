#include "proxy/net/creatio_owners.h"

#include <fmt/format.h>

#include "metering/base/check.h"
#include "metering/catalogue/creatio_record.h"
#include "proxy/net/event_loop.h"

namespace tollgate::net {
namespace {

Milliseconds until(MonotonicTime deadline) {
  return std::chrono::ceil<Milliseconds>(deadline - EventLoop::now());
}

}  // namespace

CreatioOwners::CreatioOwners(CreatioAccess access, Columns columns,
                             std::shared_ptr<licence::OwnerTable> owners)
    : access_(std::move(access)),
      columns_(std::move(columns)),
      owners_(std::move(owners)),
      conversation_(access_, kReplyMax, stopping_) {}

OwnerSource::Answer<void> CreatioOwners::look_up(const std::string& upstream, const std::string& record,
                                                 MonotonicTime deadline) {
  const catalogue::CreatioRecord named = catalogue::read_creatio_record(record);
  const auto column = columns_.find(std::string(named.object));
  CHECK(column != columns_.end() && !named.id.empty(), "asked for is what has an owner and an id");
  conversation_.begin(until(deadline));
  const auto reply = conversation_.ask(
      fmt::format("{}/odata/{}({})?$select=Id,{}", access_.url, named.object, named.id, column->second));
  if (!reply) return std::unexpected(reply.error().text);
  const UnixTime now = EventLoop::calendar_now();
  if (reply->status == 404) {
    owners_->learn(upstream, record, "", now);
    return {};
  }
  if (reply->status != 200) return std::unexpected(fmt::format("answered {}", reply->status));
  const auto owner = catalogue::read_creatio_owner(reply->body, column->second);
  if (!owner) return std::unexpected("answered with something else than a record");
  owners_->learn(upstream, record, *owner, now);
  return {};
}

OwnerSource::Answer<std::string> CreatioOwners::examine(MonotonicTime deadline) {
  std::string read;
  conversation_.begin(until(deadline));
  for (const auto& [entity, column] : columns_) {
    const auto body =
        conversation_.get(fmt::format("{}/odata/{}?$select=Id,{}&$top=1", access_.url, entity, column));
    if (!body) return std::unexpected(body.error().text);
    read += fmt::format("{}{}.{}", read.empty() ? "" : ", ", entity, column);
  }
  return fmt::format("the account may read {}", read);
}

}  // namespace tollgate::net
