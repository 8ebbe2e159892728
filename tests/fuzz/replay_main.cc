// Runs a fuzz target without libFuzzer: every corpus file once, then a bounded number of mutations of them
// that depend on the seed only. Part of the ordinary test run, under sanitizers too.
//
//   fuzz_http_request DIRECTORY|FILE... [--mutations N] [--seed S]
//
// Prints what was run. On a crash it names the input and leaves it in fuzz-failure.bin.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/random.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size);

namespace {

namespace fs = std::filesystem;
using tollgate::Random;

std::string current_name;  // what a crash report says
std::string current_bytes;

void put(int file, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(file, text.data(), text.size());
    if (written <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

void report_crash(int signal) {
  put(STDERR_FILENO, "crashed on ");
  put(STDERR_FILENO, current_name);
  put(STDERR_FILENO, "; the input is in fuzz-failure.bin\n");
  const int file = ::open("fuzz-failure.bin", O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (file >= 0) put(file, current_bytes);
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

struct Input {
  std::string name, bytes;
};

void run(const Input& input) {
  current_name = input.name;
  current_bytes = input.bytes;
  // An exact heap copy, so that a sanitizer sees a read past the end.
  const std::vector<std::uint8_t> copy(input.bytes.begin(), input.bytes.end());
  LLVMFuzzerTestOneInput(copy.data(), copy.size());
}

void add_file(const fs::path& path, std::vector<Input>& corpus) {
  std::ifstream in(path, std::ios::binary);
  corpus.push_back({path.string(), std::string(std::istreambuf_iterator<char>(in), {})});
}

std::vector<Input> read_corpus(const std::vector<std::string>& places) {
  std::vector<Input> corpus;
  for (const std::string& place : places) {
    if (!fs::is_directory(place)) {
      add_file(place, corpus);
      continue;
    }
    for (const auto& entry : fs::recursive_directory_iterator(place))
      if (entry.is_regular_file()) add_file(entry.path(), corpus);
  }
  // The order of a directory is not the same everywhere; mutations pick by index.
  std::ranges::sort(corpus, {}, &Input::name);
  return corpus;
}

std::size_t pick(Random& random, std::size_t bound) {
  return static_cast<std::size_t>(random.below(bound));
}

void mutate_once(std::string& bytes, const std::vector<Input>& corpus, Random& random) {
  static constexpr std::string_view kPieces[] = {
      "\r\n", "\n",   "\r", "\r\n\r\n", " ", "\t", ":", ",",
      ";",    "0",    "f",  "\"",       "=", "\\", "%", std::string_view("\0", 1),
      "\x7f", "\xff", "{",  "}",        "[", "]",  "/", "'"};
  const std::size_t at = pick(random, bytes.size() + 1);
  const std::string& other = corpus[pick(random, corpus.size())].bytes;
  switch (random.below(7)) {
    case 0:
      if (at < bytes.size()) bytes[at] = static_cast<char>(random.below(256));
      break;
    case 1:
      if (at < bytes.size()) bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.below(8)));
      break;
    case 2:
      bytes.erase(at, 1 + pick(random, 8));
      break;
    case 3:
      bytes.insert(at, kPieces[pick(random, std::size(kPieces))]);
      break;
    case 4:  // a piece of another input
      if (!other.empty()) bytes.insert(at, other.substr(pick(random, other.size()), 1 + pick(random, 32)));
      break;
    case 5:  // the same piece twice
      bytes.insert(at, bytes.substr(at, 1 + pick(random, 24)));
      break;
    default:  // the head of this one, the tail of another
      if (!other.empty()) bytes = bytes.substr(0, at) + other.substr(pick(random, other.size()));
      break;
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> places;
  std::uint64_t mutations = 20'000, seed = 1;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--mutations" && i + 1 < argc)
      mutations = std::strtoull(argv[++i], nullptr, 10);
    else if (argument == "--seed" && i + 1 < argc)
      seed = std::strtoull(argv[++i], nullptr, 10);
    else
      places.push_back(argument);
  }
  const std::vector<Input> corpus = read_corpus(places);
  if (corpus.empty()) {
    std::fprintf(stderr, "no corpus: name a directory with at least one file\n");
    return 1;
  }
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) std::signal(signal, report_crash);
  for (const Input& input : corpus) run(input);
  Random random(seed);
  for (std::uint64_t i = 0; i < mutations; ++i) {
    Input input = corpus[pick(random, corpus.size())];
    for (std::uint64_t edits = 1 + random.below(4); edits > 0; --edits)
      mutate_once(input.bytes, corpus, random);
    input.name =
        "mutation " + std::to_string(i) + " of seed " + std::to_string(seed) + " (from " + input.name + ")";
    run(input);
  }
  std::printf("%zu corpus files, %llu mutations, seed %llu: none crashed\n", corpus.size(),
              static_cast<unsigned long long>(mutations), static_cast<unsigned long long>(seed));
  return 0;
}
