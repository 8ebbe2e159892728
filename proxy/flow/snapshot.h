// Everything a worker needs to decide about a request, immutable: built from the settings at start and at every
// reload, swapped as one pointer. An exchange holds the snapshot it began with until it ends, so a reload changes
// nothing in mid-call and drops no request.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/settings.h"
#include "metering/base/error.h"
#include "metering/catalogue/classifier.h"
#include "metering/identity/directory.h"
#include "metering/identity/token_verifier.h"
#include "metering/licence/policy.h"
#include "metering/quota/rules.h"
#include "proxy/http/address.h"

namespace tollgate::flow {

struct Snapshot {
  config::Settings settings;
  identity::TokenVerifier verifier;
  std::shared_ptr<const identity::Directory> directory;  // nullptr without licensing.directory_file
  catalogue::Classifier classifier;
  licence::Policy policy;
  quota::Rules rules;
  http::AddressSet trusted_proxies;
  std::string rate_limit_policy;  // value of RateLimit-Policy: the same for every caller
  std::uint64_t generation = 0;   // 1 at start, +1 a reload; token caches are emptied when it changes
};

// The route for a request, or nullptr. `path` is normalised (percent-decoded once, no dot segments).
const config::Route* find_route(const config::Settings& settings, std::string_view host, std::string_view path);

}  // namespace tollgate::flow
