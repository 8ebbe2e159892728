#include "proxy/admin/licenses.h"

#include <algorithm>

#include "metering/base/json_text.h"
#include "proxy/admin/replies.h"

namespace tollgate::admin {
namespace {

void write_pool(JsonWriter& json, const seats::Pool& pool, const std::map<std::string, std::uint64_t>& used) {
  json.field("kind", seats::name(pool.kind));
  json.field("capacity", pool.capacity);
  if (auto found = used.find(pool.id); found != used.end()) json.field("used", found->second);
}

}  // namespace

const flow::SeatPool* find_pool(const flow::Snapshot& snapshot, std::string_view id) {
  for (const flow::SeatPool& pool : snapshot.seat_pools)
    if (pool.pool.id == id) return &pool;
  return nullptr;
}

std::string licenses_json(const flow::Snapshot& snapshot, const std::map<std::string, std::uint64_t>& used) {
  const licence::Rulebook& rulebook = snapshot.policy.rulebook();
  std::string body;
  JsonWriter json(body);
  json.array([&] {
    for (const licence::Product& product : rulebook.products)
      json.object([&] {
        json.field("id", product.id);
        json.field("title", product.title);
        json.field("available", is_available(rulebook, product));
        if (const flow::SeatPool* pool = find_pool(snapshot, product.id)) write_pool(json, pool->pool, used);
      });
    for (std::string_view id : {flow::kConcurrentPool, flow::kPortalPool})
      if (const flow::SeatPool* pool = find_pool(snapshot, id))
        json.object([&] {
          json.field("id", pool->pool.id);
          json.field("title", pool->title);
          json.field("available", true);
          write_pool(json, pool->pool, used);
          if (!pool->of_members) return;
          const std::uint64_t free = rulebook.portal_seats.free_allowance();
          json.field("free", free);
          if (auto found = used.find(pool->pool.id); found != used.end())
            json.field("billable", found->second > free ? found->second - free : 0);
        });
  });
  return body;
}

std::string seats_json(const seats::Pool& pool, const seats::Page& page) {
  std::string body;
  JsonWriter json(body);
  json.object([&] {
    json.field("pool", pool.id);
    json.field("kind", seats::name(pool.kind));
    json.field("capacity", pool.capacity);
    json.field("used", page.used);
    json.field_array("seats", [&] {
      for (const seats::Page::Seat& seat : page.seats) {
        const auto member = seats::parse_member(seat.member);
        if (!member) continue;  // not ours
        json.object([&] {
          if (!member->tenant.empty()) json.field("tenant", member->tenant);
          json.field("user", member->user);
          json.field(pool.kind == seats::Kind::named ? "since" : "until", format_moment(seat.at));
        });
      }
    });
  });
  return body;
}

}  // namespace tollgate::admin
