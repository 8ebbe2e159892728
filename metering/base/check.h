// CHECK(condition, "text"): always on, for our own bugs only. Prints file, line, condition and text, then aborts.
#pragma once
#include <cstdio>
#include <cstdlib>

#define CHECK(condition, text)                                                                     \
  do {                                                                                             \
    if (!(condition)) [[unlikely]] {                                                               \
      std::fprintf(stderr, "%s:%d: CHECK failed: %s: %s\n", __FILE__, __LINE__, #condition, text); \
      std::abort();                                                                                \
    }                                                                                              \
  } while (false)
