#include "proxy/flow/rewrite.h"

#include <algorithm>

#include "metering/base/ascii.h"
#include "metering/base/check.h"
#include "proxy/http/reply_paths.h"

namespace tollgate::flow {
namespace {

// Slash by slash the segments that were sent are those of the normal path. May be wrong about paths that have a
// segment beginning with a dot, which are then written anew without need.
bool shows_its_segments(std::string_view path) {
  for (std::size_t slash = path.find('/'); slash != path.npos; slash = path.find('/', slash + 1)) {
    const std::string_view segment = path.substr(slash + 1);
    if (segment.starts_with('/') || segment.starts_with('.') || starts_with_ignore_case(segment, "%2e"))
      return false;
  }
  return true;
}

}  // namespace

std::string rewritten_path(const config::Route& route, std::string_view sent,
                           const catalogue::NormalPath& normal) {
  const std::string_view prefix = http::without_end_slash(route.path_prefix);
  const auto segments = static_cast<std::size_t>(std::ranges::count(prefix, '/'));
  CHECK(segments <= normal.size(), "a route that matches has no more segments than the path");
  std::string out(http::without_end_slash(route.rewrite.replace_prefix));
  if (shows_its_segments(sent)) {
    std::size_t end = 0;
    for (std::size_t i = 0; i < segments; ++i) end = std::min(sent.find('/', end + 1), sent.size());
    out.append(sent.substr(end));
  } else {
    normal.append_encoded(out, segments);
    if (sent.ends_with('/') && !out.ends_with('/')) out.push_back('/');
  }
  if (out.empty()) out.push_back('/');
  return out;
}

}  // namespace tollgate::flow
