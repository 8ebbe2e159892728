// Any request target: "METHOD target" or a target alone.
#include "metering/catalogue/url.h"
#include "tests/fuzz/catalogue_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace tollgate::catalogue;
  std::string_view text = as_text(bytes, size);
  if (auto once = normalise(text)) {
    std::string encoded = once->encoded();
    auto twice = normalise(encoded);
    CHECK(twice.has_value(), "what was accepted is accepted again");
    CHECK(twice->path == once->path && twice->size() == once->size() && twice->query == once->query,
          "normalising twice changes nothing");
    for (std::size_t i = 0; i < once->size(); ++i)
      CHECK(once->segment(i) != "." && once->segment(i) != ".." && !once->segment(i).empty(),
            "no dot segment is left");
  }
  std::size_t space = text.find(' ');
  bool has_method = space != text.npos && space < 8;
  check_request(Request{
      has_method ? text.substr(0, space) : "GET", has_method ? text.substr(space + 1) : text, {}, {}});
  return 0;
}
