// Bytes eight at a time: a word is loaded from and stored to any place, and bit tricks ask all of its bytes at once.
#pragma once
#include <bit>
#include <cstdint>
#include <cstring>

namespace tollgate {

static_assert(std::endian::native == std::endian::little,
              "what is stored in files and shared memory is little-endian");

template <class Word = std::uint64_t>
Word load_word(const char* at) {
  Word word;
  std::memcpy(&word, at, sizeof word);
  return word;
}
template <class Word>
void store_word(char* at, Word word) {
  std::memcpy(at, &word, sizeof word);
}

// A word of equal bytes: kEachByte * 'x'.
inline constexpr std::uint64_t kEachByte = 0x0101010101010101ULL;
inline constexpr std::uint64_t kHighBits = 0x8080808080808080ULL;

// High bits where a byte of `word` is zero, or below `bound` (at most 0x80). Perhaps with false ones above a true one,
// never without one where one is due (Hacker's Delight 6-1). Other bits mean nothing: mask with kHighBits.
constexpr std::uint64_t zero_bytes(std::uint64_t word) {
  return (word - kEachByte) & ~word;
}
constexpr std::uint64_t bytes_below(std::uint64_t word, unsigned char bound) {
  return (word - kEachByte * bound) & ~word;
}

}  // namespace tollgate
