// Feeding the parsers of proxy/http in every way a network can cut bytes, and what came out as comparable
// text.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "proxy/http/body_decoder.h"
#include "proxy/http/message.h"

namespace tollgate::http::testing {

// Everything a caller can see of a parse, in lines of text.
std::string describe(const RequestHead& head);
std::string describe(const ResponseHead& head);

struct Parsed {
  ParseStatus status = ParseStatus::incomplete;
  ParseFailure failure;
  std::size_t head_size = 0;
  std::string head;  // describe() when complete

  bool operator==(const Parsed& other) const;
};
std::ostream& operator<<(std::ostream& out, const Parsed& parsed);

// Each call hands the parser a fresh heap copy of exactly the bytes received so far (the buffer moves, and a
// sanitizer sees any read beyond it). `cuts`: prefix sizes at which the parser is called before the whole.
Parsed parse_request(std::string_view bytes, const std::vector<std::size_t>& cuts = {},
                     HeadLimits limits = {});
struct Asking {
  std::string_view method = "GET";
  bool upgrade_offered = true;
};
Parsed parse_response(std::string_view bytes, Asking asking = {}, const std::vector<std::size_t>& cuts = {},
                      HeadLimits limits = {});

struct Decoded {
  std::string payload;
  std::string rest;                   // bytes after the body
  std::vector<std::string> trailers;  // "name: value"
  bool done = false, failed = false;
  ParseFailure failure;
};
// Gives the decoder `bytes` in pieces that end at `cuts` (ascending); of each, what it did not consume stays.
Decoded decode(BodyDecoder decoder, std::string_view bytes, const std::vector<std::size_t>& cuts = {});
Decoded decode_chunked(std::string_view bytes, const std::vector<std::size_t>& cuts = {},
                       BodyLimits limits = {});

std::vector<std::size_t> every_position(std::string_view bytes);  // byte by byte

// The outcome must be the same whole, split once at every position, and byte by byte. Returns the outcome.
Parsed request_however_cut(std::string_view bytes, HeadLimits limits = {});
Parsed response_however_cut(std::string_view bytes, Asking asking = {}, HeadLimits limits = {});
Decoded chunked_however_cut(std::string_view bytes, BodyLimits limits = {});

}  // namespace tollgate::http::testing
