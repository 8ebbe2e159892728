// How much of the traffic a worker that cannot keep up turns away (net/overload.h).
#pragma once
#include <cstdint>

namespace tollgate::flow {

enum class Shed : std::uint8_t {
  nothing,
  anonymous,  // requests without a valid token: unmetered routes, login, scripts and pictures
  everything,
};

}  // namespace tollgate::flow
