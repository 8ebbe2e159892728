// A body as the proxy sends it on behind a head of its own, for the fuzzers of both directions.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "proxy/http/body_decoder.h"

namespace tollgate::fuzz {

inline void append_body(std::string& out, http::Framing framing, std::string_view payload,
                        const std::vector<http::TrailerField>& trailers) {
  if (framing != http::Framing::chunked) {
    out.append(payload);
    return;
  }
  if (!payload.empty()) {
    http::append_chunk_start(out, payload.size());
    out.append(payload).append(http::kChunkEnd);
  }
  http::append_last_chunk(out, trailers);
}

}  // namespace tollgate::fuzz
