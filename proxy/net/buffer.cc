#include "proxy/net/buffer.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "metering/base/check.h"

namespace tollgate::net {

namespace {

// Blocks of the smallest size come and go with every request: a thread keeps some of them.
class SpareBlocks {
 public:
  std::unique_ptr<char[]> take() {
    if (blocks_.empty()) return std::make_unique_for_overwrite<char[]>(Buffer::kBlock);
    std::unique_ptr<char[]> block = std::move(blocks_.back());
    blocks_.pop_back();
    return block;
  }
  void keep(std::unique_ptr<char[]> block) {
    if (blocks_.size() < kMost) blocks_.push_back(std::move(block));
  }

 private:
  static constexpr std::size_t kMost = 128;  // 1 MiB
  std::vector<std::unique_ptr<char[]>> blocks_;
};

thread_local SpareBlocks spare_blocks;

}  // namespace

void Buffer::append(std::string_view bytes) {
  if (bytes.empty()) return;
  if (room() < bytes.size()) reserve_room(bytes.size());
  std::memcpy(memory_.get() + end_, bytes.data(), bytes.size());
  end_ += bytes.size();
}

void Buffer::consume(std::size_t count) {
  CHECK(count <= size(), "consumes what is there");
  begin_ += count;
  if (begin_ == end_) clear();
}

char* Buffer::prepare(std::size_t least) {
  if (room() < least) reserve_room(least);
  return memory_.get() + end_;
}

void Buffer::release() {
  replace_memory(nullptr, 0);
  begin_ = end_ = 0;
}

void Buffer::replace_memory(std::unique_ptr<char[]> memory, std::size_t capacity) {
  if (capacity_ == kBlock) spare_blocks.keep(std::move(memory_));
  memory_ = std::move(memory);
  capacity_ = capacity;
}

void Buffer::reserve_room(std::size_t count) {
  const std::size_t content = size();
  // Moving the content to the front is only cheap while it is small against what has been consumed.
  if (capacity_ >= content + count && begin_ >= content) {
    std::memmove(memory_.get(), memory_.get() + begin_, content);
  } else {
    std::size_t wanted = std::max(kBlock, capacity_);
    while (wanted < content + count) wanted *= 2;
    auto bigger = wanted == kBlock ? spare_blocks.take() : std::make_unique_for_overwrite<char[]>(wanted);
    if (content > 0) std::memcpy(bigger.get(), memory_.get() + begin_, content);
    replace_memory(std::move(bigger), wanted);
  }
  begin_ = 0;
  end_ = content;
}

}  // namespace tollgate::net
