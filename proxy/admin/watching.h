// Following requests (flow::Trail) and looking at upstream servers: bodies in, JSON out. Pure.
#pragma once
#include <expected>
#include <string>
#include <string_view>

#include "proxy/admin/service.h"

namespace tollgate::admin {

// {"request_id": "...", "user": "...", "tenant": "...", "for": "60s", "lines": 1000}: an id, a user, or both.
std::expected<flow::TrailOrder, Reply> parse_trail(std::string_view body);
// {"following": false}, or what is followed and what is left of it.
std::string trail_json(const std::optional<Sources::Followed>& followed, Milliseconds now);
std::string upstreams_json(const std::vector<Sources::UpstreamServer>& servers);

}  // namespace tollgate::admin
