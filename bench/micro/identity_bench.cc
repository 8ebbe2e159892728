// The token path: what a known token costs (a cache hit, on every call) and what a new one costs (a signature
// check).
#include <benchmark/benchmark.h>
#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "metering/identity/mint.h"
#include "metering/identity/token_cache.h"
#include "metering/identity/token_verifier.h"

namespace tollgate::identity {
namespace {

const UnixTime kNow = from_unix_seconds(1'800'000'000);

Mint mint_for(Algorithm algorithm, std::string key, int user) {
  Mint mint;
  mint.algorithm = algorithm;
  mint.key = std::move(key);
  mint.claims = {text_claim("iss", "https://idp.example"),
                 text_claim("aud", "crm-portal"),
                 text_claim("sub", fmt::format("user-{}@example.com", user)),
                 text_claim("org", "Acme"),
                 text_claim("user_type", "portal"),
                 texts_claim("licenses", {"customer portal", "self-service portal"}),
                 number_claim("iat", 1'799'999'000),
                 number_claim("exp", 1'800'001'000)};
  return mint;
}

std::string text_of(const std::function<int(BIO*)>& write) {
  std::unique_ptr<BIO, decltype(&BIO_free_all)> bio(BIO_new(BIO_s_mem()), BIO_free_all);
  write(bio.get());
  char* start = nullptr;
  long length = BIO_get_mem_data(bio.get(), &start);
  return std::string(start, static_cast<std::size_t>(length));
}

// arg 0: tokens in the cache.
void cache_of(TokenCache& cache, std::vector<std::string>& tokens, int count) {
  for (int i = 0; i < count; ++i) {
    tokens.push_back(*mint_token(mint_for(Algorithm::hs256, std::string(64, 's'), i)));
    auto verified = std::make_shared<VerifiedToken>();
    verified->not_before = UnixTime::min();
    verified->expires_at = UnixTime::max();
    cache.insert(tokens.back(), std::move(verified));
  }
}

void BM_TokenCacheHit(benchmark::State& state) {
  TokenCache cache(65'536, 1);
  std::vector<std::string> tokens;
  cache_of(cache, tokens, static_cast<int>(state.range(0)));
  std::size_t next = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(cache.find(tokens[next], kNow));
    next = (next + 7919) % tokens.size();
  }
}
BENCHMARK(BM_TokenCacheHit)->Arg(1)->Arg(1'000)->Arg(20'000);

void BM_TokenCacheMiss(benchmark::State& state) {
  TokenCache cache(65'536, 1);
  std::vector<std::string> tokens;
  cache_of(cache, tokens, 1'000);
  std::string stranger = tokens[0];
  stranger.back() = stranger.back() == 'A' ? 'B' : 'A';
  for (auto _ : state) benchmark::DoNotOptimize(cache.find(stranger, kNow));
}
BENCHMARK(BM_TokenCacheMiss);

void BM_TokenCacheInsertWhenFull(benchmark::State& state) {
  TokenCache cache(1'000, 1);
  std::vector<std::string> tokens;
  cache_of(cache, tokens, 4'000);
  auto verified = std::make_shared<VerifiedToken>();
  verified->expires_at = UnixTime::max();
  std::size_t next = 0;
  for (auto _ : state) {
    cache.insert(tokens[next], verified);
    next = next + 1 == tokens.size() ? 0 : next + 1;
  }
}
BENCHMARK(BM_TokenCacheInsertWhenFull);

void verify_with(benchmark::State& state, Algorithm algorithm, EVP_PKEY* pkey) {
  std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> pair(pkey, EVP_PKEY_free);
  std::string key(64, 's');
  auto set = KeySet::from_secret(key);
  if (pair) {
    key = text_of([&](BIO* bio) {
      return PEM_write_bio_PrivateKey(bio, pair.get(), nullptr, nullptr, 0, nullptr, nullptr);
    });
    set = KeySet::from_pem(text_of([&](BIO* bio) { return PEM_write_bio_PUBKEY(bio, pair.get()); }));
  }
  IssuerRules rules;
  rules.issuer = "https://idp.example";
  rules.audience = {"crm-portal"};
  rules.algorithms = {std::string(name(algorithm))};
  rules.keys = std::make_shared<KeyRing>(*std::move(set));
  TokenVerifier verifier({rules}, 8192);
  std::string token = *mint_token(mint_for(algorithm, key, 1));
  for (auto _ : state) {
    auto verified = verifier.verify(token, kNow);
    if (!verified) state.SkipWithError(verified.error().detail.c_str());
    benchmark::DoNotOptimize(verified);
  }
}
void BM_VerifyHs256(benchmark::State& state) {
  verify_with(state, Algorithm::hs256, nullptr);
}
void BM_VerifyRs256(benchmark::State& state) {
  verify_with(state, Algorithm::rs256, EVP_RSA_gen(2048));
}
void BM_VerifyPs256(benchmark::State& state) {
  verify_with(state, Algorithm::ps256, EVP_RSA_gen(2048));
}
void BM_VerifyEs256(benchmark::State& state) {
  verify_with(state, Algorithm::es256, EVP_EC_gen("P-256"));
}
void BM_VerifyEdDsa(benchmark::State& state) {
  verify_with(state, Algorithm::eddsa, EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
}
BENCHMARK(BM_VerifyHs256);
BENCHMARK(BM_VerifyRs256);
BENCHMARK(BM_VerifyPs256);
BENCHMARK(BM_VerifyEs256);
BENCHMARK(BM_VerifyEdDsa);

}  // namespace
}  // namespace tollgate::identity
