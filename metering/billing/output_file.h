// A file that appears whole or not at all: written beside its place, made durable, renamed. Hashes what passes through.
#pragma once
#include <memory>
#include <string>
#include <string_view>

#include "metering/base/error.h"

namespace tollgate::billing {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  void add(std::string_view bytes);
  std::string hex();  // once
 private:
  struct State;
  std::unique_ptr<State> state_;
};

class OutputFile {
 public:
  static Result<std::unique_ptr<OutputFile>> create(const std::string& path);
  ~OutputFile();  // not committed: leaves nothing
  // Errors show at commit().
  void write(std::string_view bytes);
  std::uint64_t bytes() const { return bytes_; }
  // fsync, rename, fsync of the directory.
  Result<void> commit();

 private:
  OutputFile(std::string path, std::string temporary, int descriptor)
      : path_(std::move(path)), temporary_(std::move(temporary)), descriptor_(descriptor) {}
  void flush();
  Error error(std::string_view what) const;
  std::string path_, temporary_, buffer_;
  int descriptor_;
  int failed_ = 0;  // errno
  std::uint64_t bytes_ = 0;
  bool committed_ = false;
};

}  // namespace tollgate::billing
