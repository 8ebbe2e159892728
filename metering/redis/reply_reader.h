// RESP2 bytes -> Reply values: hiredis' reader with our own object functions, so that a reply is built in
// place in one reused tree and costs no allocation once warm. Inside this room only.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

#include "metering/redis/reply.h"

struct redisReader;

namespace tollgate::redis {

class ReplyReader {
 public:
  explicit ReplyReader(std::size_t max_reply_bytes);
  ~ReplyReader();
  ReplyReader(const ReplyReader&) = delete;
  ReplyReader& operator=(const ReplyReader&) = delete;

  // False: the peer does not speak RESP2, or sent a reply beyond the maximum; error() says which. No use
  // after that.
  bool feed(std::string_view bytes);
  // The next whole reply, or nullptr when more bytes are needed or feed() failed. Valid until the next call.
  Reply* next();
  const std::string& error() const { return error_; }

 private:
  redisReader* reader_;
  std::size_t max_reply_bytes_;
  std::size_t unanswered_bytes_ = 0;  // fed since the last whole reply
  Reply root_;
  std::string error_;
};

}  // namespace tollgate::redis
