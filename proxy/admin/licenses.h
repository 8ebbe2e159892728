// The bodies of /api/v1/licenses: products and their seats. Pure.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "metering/seats/store.h"
#include "proxy/flow/snapshot.h"

namespace tollgate::admin {

// The pool of that name; nullptr: there is none.
const flow::SeatPool* find_pool(const flow::Snapshot& snapshot, std::string_view id);

// Every product of the rulebook, then licensing.concurrent_seats, then portal users: of these also how many are free of charge
// and how many the next billing cycle charges. `used` by pool.
std::string licenses_json(const flow::Snapshot& snapshot, const std::map<std::string, std::uint64_t>& used);

std::string seats_json(const seats::Pool& pool, const seats::Page& page);

}  // namespace tollgate::admin
