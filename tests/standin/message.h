// One request and one reply of the stand-in CRM, as plain values.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tollgate::standin {

using HeaderList = std::vector<std::pair<std::string, std::string>>;

struct Request {
  std::string method;
  std::string target;     // as received
  std::string path;       // percent-decoded, without the query
  std::string query;      // as received, without '?'
  unsigned version = 11;  // 10 or 11
  HeaderList headers;     // as received, in order
  HeaderList trailers;
  std::string body;  // the first kBodyKept bytes of it
  std::uint64_t body_length = 0;
  std::uint64_t chunks = 0;
  std::string body_sha256;  // hexadecimal

  const std::string* find(std::string_view name) const;  // first value, name without case
  // Value of a query parameter, decoded; nullopt when it is not there.
  std::optional<std::string> parameter(std::string_view name) const;
};
inline constexpr std::size_t kBodyKept = 16 * 1024 * 1024;

struct Reply {
  int status = 200;
  HeaderList headers;
  std::string body;
  std::uint64_t filler = 0;                         // bytes of a repeating pattern streamed after `body`
  bool chunked = false;                             // else Content-Length
  HeaderList trailers;                              // sent when chunked
  std::vector<std::pair<int, HeaderList>> interim;  // 1xx replies sent first
  std::vector<std::string> touched;  // "Case", "Account": what the request was about, for the counts
};

Reply json_reply(int status, std::string body);
Reply text_reply(int status, std::string body);
std::string percent_decode(std::string_view text);

}  // namespace tollgate::standin
