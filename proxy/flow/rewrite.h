// The path that a route's upstream is asked for, where the route replaces its prefix (config: routes[].rewrite).
//
//   path_prefix: /portal   replace_prefix: /crm          path_prefix: /portal   replace_prefix: /
//     /portal            -> /crm                           /portal            -> /
//     /portal/           -> /crm/                          /Portal/a%2Cb/?q   -> /a%2Cb/  (the query is another's)
//     /Portal/a%2Cb      -> /crm/a%2Cb                     /portal//a/./b     -> /a/b
//     /x/../portal//a/   -> /crm/a/
//
// Routes match the path as it was sent; everything behind that (what is touched, licence, quota, the upstream) goes by
// the result. What is left of the path keeps its percent-encoding, unless it has empty or dot segments: where in such a
// path the prefix ends is a matter of opinion, so it is written anew from its one reading.
//
// Promise: the result begins with '/', has no empty segment, no dot segment and no byte that a request target may not
// hold, and normalise(result) is replace_prefix followed by what `normal` has behind path_prefix.
// Pure; any thread.
#pragma once
#include <string>
#include <string_view>

#include "config/settings.h"
#include "metering/catalogue/url.h"

namespace tollgate::flow {

inline bool rewrites(const config::Route& route) {
  return !route.rewrite.replace_prefix.empty();
}

// sent: the path as it arrived, without its query. normal: normalise() of it, which the route was found by.
// Only for a route that rewrites().
std::string rewritten_path(const config::Route& route, std::string_view sent,
                           const catalogue::NormalPath& normal);

}  // namespace tollgate::flow
