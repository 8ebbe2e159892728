// Appending many small pieces to a string: a head, a journal entry. The memory that the string has beyond its end is
// written into directly; the string has its size again when the Appender is gone, and must not be touched before.
//
//   { Appender to(out); to.text("Host: ").text(host).text("\r\n"); }
#pragma once
#include <algorithm>
#include <charconv>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "metering/base/words.h"

namespace tollgate {

class Appender {
 public:
  explicit Appender(std::string& out) : out_(out) { open(out.size(), out.capacity()); }
  ~Appender() { out_.resize(size()); }
  Appender(const Appender&) = delete;
  Appender& operator=(const Appender&) = delete;

  // In line always: most texts are literals, of which nothing but a store or two is left then.
  [[gnu::always_inline]] Appender& text(std::string_view text) {
    at_ = put(room(text.size()), text);
    return *this;
  }
  // Copies to a place that has room; the end of the copy. Short texts, as most are, by words that may overlap.
  [[gnu::always_inline]] static char* put(char* at, std::string_view text) {
    const char* const from = text.data();
    const std::size_t size = text.size();
    if (size > 16)
      std::memcpy(at, from, size);
    else if (size >= 8)
      put_ends<std::uint64_t>(at, from, size);
    else if (size >= 4)
      put_ends<std::uint32_t>(at, from, size);
    else
      for (std::size_t i = 0; i < size; ++i) at[i] = from[i];
    return at + size;
  }
  Appender& decimal(std::integral auto number) {
    char* at = room(20);
    at_ = std::to_chars(at, at + 20, number).ptr;
    return *this;
  }
  // A place for `bytes` more; what was written there counts once advance_to() says where it ends.
  char* room(std::size_t bytes) {
    if (static_cast<std::size_t>(end_ - at_) < bytes) open(size(), std::max(2 * size(), size() + bytes));
    return at_;
  }
  void advance_to(char* end) { at_ = end; }
  std::size_t size() const { return static_cast<std::size_t>(at_ - out_.data()); }
  void cut(std::size_t size) { at_ = out_.data() + size; }  // to what it was before

 private:
  template <class Word>
  static void put_ends(char* at, const char* from, std::size_t size) {
    const Word first = load_word<Word>(from), last = load_word<Word>(from + size - sizeof last);
    store_word(at, first);
    store_word(at + size - sizeof last, last);
  }
  void open(std::size_t used, std::size_t size) {
    out_.resize_and_overwrite(size, [](char*, std::size_t all) { return all; });
    at_ = out_.data() + used;
    end_ = out_.data() + size;
  }

  std::string& out_;
  char* at_ = nullptr;
  char* end_ = nullptr;
};

}  // namespace tollgate
