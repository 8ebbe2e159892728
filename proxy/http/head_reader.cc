#include "proxy/http/head_reader.h"

#include <algorithm>

#include "proxy/http/syntax.h"

namespace tollgate::http {
namespace {

bool is_blank(char c) {
  return c == ' ' || c == '\t';
}

// Like trim(), inlined: one blank before and none after is what nearly every field has.
std::string_view value_after(std::string_view line, std::size_t begin) {
  std::size_t end = line.size();
  while (begin < end && is_blank(line[begin])) ++begin;
  while (begin < end && is_blank(line[end - 1])) --end;
  return line.substr(begin, end - begin);
}

}  // namespace

HeadReader::HeadReader(HeadLimits limits, Reasons reasons, std::size_t empty_lines_allowed)
    : limits_(limits), reasons_(reasons), empty_lines_allowed_(empty_lines_allowed) {}

void HeadReader::reset() {
  empty_lines_ = line_ = scanned_ = start_offset_ = start_size_ = field_count_ = 0;
  start_seen_ = false;
  failure_ = {};
}

HeadReader::Event HeadReader::fail(Reason reason, std::string_view detail) {
  failure_ = {reason, detail};
  return Event::failed;
}

// `stop`: no line end and no control byte before it. `examined`: bytes of the head that had to be looked at.
// Byte by byte, the limit at the lower position would be crossed first; so it is the one to be named.
HeadReader::Event HeadReader::check_limits(std::size_t stop, std::size_t examined) {
  const std::size_t start_line_end = line_ + limits_.request_line;
  if (!start_seen_ && stop > start_line_end && start_line_end <= limits_.head_bytes)
    return fail(reasons_.line_too_long, "the start line is longer than the limit");
  if (examined > limits_.head_bytes)
    return fail(reasons_.head_too_large, "the head is larger than the limit");
  return Event::need_more;
}

HeadReader::Event HeadReader::next(std::string_view bytes) {
  // Two bytes past the limit are enough to see that it is crossed, however much has been received.
  bytes = bytes.substr(0, std::max(limits_.head_bytes + 2, scanned_));
  const std::size_t stop = scanned_ = find_control(bytes, scanned_);
  // A whole field line within the limit, as nearly all are.
  if (start_seen_ && stop + 2 <= bytes.size() && stop + 2 <= limits_.head_bytes && bytes[stop] == '\r' &&
      bytes[stop + 1] == '\n') {
    const std::string_view line(bytes.data() + line_, stop - line_);
    line_ = scanned_ = stop + 2;
    return line.empty() ? Event::end : read_field(line);
  }
  const bool at_end = stop == bytes.size();
  const bool is_cr = !at_end && bytes[stop] == '\r';
  const bool has_next = stop + 1 < bytes.size();
  const std::size_t examined = at_end ? stop : stop + (is_cr && has_next ? 2 : 1);
  if (const Event event = check_limits(stop, examined); event == Event::failed) return event;
  if (at_end || (is_cr && !has_next)) return Event::need_more;
  if (!is_cr)
    return fail(reasons_.malformed,
                bytes[stop] == '\n' ? "a line ends in LF without CR" : "a control byte in the head");
  if (bytes[stop + 1] != '\n') return fail(reasons_.malformed, "a CR without LF in the head");

  const std::string_view line = bytes.substr(line_, stop - line_);
  const std::size_t line_offset = line_;
  line_ = scanned_ = stop + 2;
  if (start_seen_) return line.empty() ? Event::end : read_field(line);
  if (line.empty()) {
    if (++empty_lines_ > empty_lines_allowed_)
      return fail(reasons_.malformed, "empty lines where a message should begin");
    return next(bytes);  // at most empty_lines_allowed_ deep
  }
  start_seen_ = true;
  start_offset_ = line_offset;
  start_size_ = line.size();
  return Event::start_line;
}

HeadReader::Event HeadReader::read_field(std::string_view line) {
  if (++field_count_ > limits_.field_count)
    return fail(reasons_.head_too_large, "more fields than the limit");
  if (const std::string_view wrong = parse_field_line(line, field_); !wrong.empty())
    return fail(reasons_.malformed, wrong);
  return Event::field;
}

std::string_view parse_field_line(std::string_view line, Field& field) {
  const std::size_t colon = find_token_end(line);
  if (colon == line.size()) return "a field line without a colon";
  if (line[colon] != ':') {
    const bool space = is_blank(line[colon]);
    if (space && colon == 0) return "a folded field line";
    if (space) return "space in or after a field name";
    return "a field name with a byte that is not allowed there";
  }
  if (colon == 0) return "an empty field name";
  field.name = line.substr(0, colon);
  field.value = value_after(line, colon + 1);
  return {};
}

void rebase(Fields& fields, std::uintptr_t old_base, const char* new_base) {
  const auto moved = [&](std::string_view view) {
    return std::string_view(new_base + (reinterpret_cast<std::uintptr_t>(view.data()) - old_base),
                            view.size());
  };
  for (Field& field : fields) field = {moved(field.name), moved(field.value)};
}

}  // namespace tollgate::http
