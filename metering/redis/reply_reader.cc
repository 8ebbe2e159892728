#include "metering/redis/reply_reader.h"

#include <hiredis/read.h>

#include "metering/base/check.h"

namespace tollgate::redis {
namespace {

// Where hiredis puts the value it is parsing: an element of the array above it, or the root (privdata).
Reply* place(const redisReadTask* task) {
  if (task->parent == nullptr) return static_cast<Reply*>(task->privdata);
  return &static_cast<Reply*>(task->parent->obj)->elements[static_cast<std::size_t>(task->idx)];
}

void* make_string(const redisReadTask* task, char* text, std::size_t length) {
  Reply* reply = place(task);
  reply->type = task->type == REDIS_REPLY_ERROR    ? Reply::Type::error
                : task->type == REDIS_REPLY_STATUS ? Reply::Type::status
                                                   : Reply::Type::text;
  reply->text.assign(text, length);
  return reply;
}
void* make_array(const redisReadTask* task, int count) {
  Reply* reply = place(task);
  reply->type = Reply::Type::array;
  reply->elements.resize(count < 0 ? 0 : static_cast<std::size_t>(count));
  return reply;
}
void* make_integer(const redisReadTask* task, long long value) {
  Reply* reply = place(task);
  reply->type = Reply::Type::integer;
  reply->integer = value;
  return reply;
}
void* make_nil(const redisReadTask* task) {
  Reply* reply = place(task);
  reply->type = Reply::Type::nil;
  return reply;
}
void free_nothing(void*) {}

redisReplyObjectFunctions kFunctions = {make_string, make_array, make_integer, make_nil, free_nothing};

}  // namespace

ReplyReader::ReplyReader(std::size_t max_reply_bytes)
    : reader_(redisReaderCreateWithFunctions(&kFunctions)), max_reply_bytes_(max_reply_bytes) {
  CHECK(reader_ != nullptr, "redisReaderCreateWithFunctions");
  reader_->privdata = &root_;
}

ReplyReader::~ReplyReader() {
  redisReaderFree(reader_);
}

bool ReplyReader::feed(std::string_view bytes) {
  if (!error_.empty()) return false;
  unanswered_bytes_ += bytes.size();
  if (unanswered_bytes_ > max_reply_bytes_ + 1024 * 1024) {  // one reply may follow others in the same bytes
    error_ = "a reply is larger than the maximum";
    return false;
  }
  if (redisReaderFeed(reader_, bytes.data(), bytes.size()) == REDIS_OK) return true;
  error_ = reader_->errstr;
  return false;
}

Reply* ReplyReader::next() {
  if (!error_.empty()) return nullptr;
  void* reply = nullptr;
  if (redisReaderGetReply(reader_, &reply) != REDIS_OK) {
    error_ = std::string("not a Redis reply: ") + reader_->errstr;
    return nullptr;
  }
  if (reply == nullptr) return nullptr;
  unanswered_bytes_ = 0;
  return &root_;
}

}  // namespace tollgate::redis
