// Bytes on their way through a connection: appended at the end, consumed from the front, contiguous. Owns no
// memory while empty after release(), so that an idle connection costs none.
//
//   [ consumed | view() | room ]
//
// view() stays valid until the next append, prepare, consume-to-empty or release.
#pragma once
#include <cstddef>
#include <memory>
#include <string_view>
#include <utility>

namespace tollgate::net {

class Buffer {
 public:
  static constexpr std::size_t kBlock = 8 * 1024;  // smallest allocation

  Buffer() = default;
  ~Buffer() { release(); }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }

  std::string_view view() const { return {memory_.get() + begin_, end_ - begin_}; }
  std::size_t size() const { return end_ - begin_; }
  bool empty() const { return begin_ == end_; }
  std::size_t capacity() const { return capacity_; }

  void append(std::string_view bytes);
  void consume(std::size_t count);  // count <= size()
  // At least `least` bytes of room behind the content; commit() says how many were filled.
  char* prepare(std::size_t least);
  std::size_t room() const { return capacity_ - end_; }
  void commit(std::size_t count) { end_ += count; }
  void clear() { begin_ = end_ = 0; }
  void release();  // clear, and give the memory back
  void swap(Buffer& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(capacity_, other.capacity_);
    std::swap(begin_, other.begin_);
    std::swap(end_, other.end_);
  }

 private:
  void reserve_room(std::size_t count);
  void replace_memory(std::unique_ptr<char[]> memory, std::size_t capacity);

  std::unique_ptr<char[]> memory_;
  std::size_t capacity_ = 0, begin_ = 0, end_ = 0;
};

}  // namespace tollgate::net
