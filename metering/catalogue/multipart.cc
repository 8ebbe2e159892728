#include "metering/catalogue/multipart.h"

#include <string>

#include "metering/base/ascii.h"

namespace tollgate::catalogue {
namespace {

enum class Line : std::uint8_t { content, delimiter, closing, ambiguous };

// What a line (without its newline) is; `text` begins at the start of the line.
Line line_kind(std::string_view line, std::string_view delimiter) {
  if (!line.starts_with(delimiter)) return Line::content;
  std::string_view tail = line.substr(delimiter.size());
  bool closing = tail.starts_with("--");
  if (closing) tail.remove_prefix(2);
  if (!trim(tail).empty()) return Line::ambiguous;
  return closing ? Line::closing : Line::delimiter;
}

std::optional<Part> make_part(std::string_view text, std::string_view newline) {
  auto head = split_head(text, newline);
  if (!head) return std::nullopt;
  return Part{head->lines, head->rest};
}

}  // namespace

std::optional<Head> split_head(std::string_view text, std::string_view newline) {
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t feed = text.find('\n', begin);
    bool has_feed = feed != text.npos;
    std::size_t end = has_feed ? feed : text.size();
    std::string_view line = text.substr(begin, end - begin);
    bool crlf = has_feed && !line.empty() && line.back() == '\r';
    if (crlf) line.remove_suffix(1);
    if (has_feed && crlf != (newline.size() == 2)) return std::nullopt;
    if (line.find('\r') != line.npos || line.find('\0') != line.npos) return std::nullopt;
    if (line.empty())
      return Head{text.substr(0, begin), has_feed ? text.substr(end + 1) : std::string_view()};
    if (line.front() == ' ' || line.front() == '\t') return std::nullopt;
    begin = has_feed ? end + 1 : text.size();
  }
  return Head{text, {}};
}

std::optional<Multipart> split_multipart(std::string_view body, std::string_view boundary) {
  if (boundary.empty() || boundary.size() > 70 || boundary.back() == ' ') return std::nullopt;
  const std::string bare_delimiter = "\r--" + std::string(boundary);
  const std::string_view delimiter = std::string_view(bare_delimiter).substr(1);
  Multipart out;
  std::size_t content = body.npos;  // where the current part begins
  bool closed = false;
  for (std::size_t begin = 0; begin < body.size();) {
    std::size_t feed = body.find('\n', begin);
    std::size_t end = feed == body.npos ? body.size() : feed;
    std::string_view line = body.substr(begin, end - begin);
    bool crlf = feed != body.npos && !line.empty() && line.back() == '\r';
    if (crlf) line.remove_suffix(1);
    Line kind = line_kind(line, delimiter);
    // A bare CR before a delimiter starts a line to some readers.
    if (kind == Line::ambiguous || line.find(bare_delimiter) != line.npos) return std::nullopt;
    if (kind != Line::content) {
      if (closed) return std::nullopt;
      if (feed == body.npos && kind == Line::delimiter) return std::nullopt;
      std::string_view style = feed == body.npos ? out.newline : crlf ? "\r\n" : "\n";
      if (out.newline.empty()) out.newline = style;
      bool after_crlf = begin >= 2 && body[begin - 2] == '\r';
      if (style != out.newline || (begin > 0 && after_crlf != (out.newline == "\r\n"))) {
        // A closing delimiter alone in a body has no newline of its own.
        if (!(out.newline.empty() && content == body.npos)) return std::nullopt;
      }
      if (content != body.npos) {
        std::size_t stop = begin - std::min(begin, out.newline.size());
        auto part = make_part(body.substr(content, stop < content ? 0 : stop - content), out.newline);
        if (!part || out.parts.size() == kMultipartPartsMax) return std::nullopt;
        out.parts.push_back(*part);
      }
      content = kind == Line::closing ? body.npos : end + 1;
      closed = kind == Line::closing;
    }
    begin = end + 1;
  }
  if (closed) return out;
  if (content == body.npos) return std::nullopt;
  auto part = make_part(body.substr(std::min(content, body.size())), out.newline);
  if (!part) return std::nullopt;
  out.parts.push_back(*part);
  return out;
}

FieldMatch find_field(std::string_view lines, std::string_view name) {
  FieldMatch match;
  while (!lines.empty()) {
    std::size_t end = std::min(lines.find('\n'), lines.size());
    std::string_view line = lines.substr(0, end);
    lines.remove_prefix(std::min(end + 1, lines.size()));
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    std::size_t colon = line.find(':');
    if (colon == line.npos || colon == 0 || line[colon - 1] == ' ' || line[colon - 1] == '\t') {
      match.malformed = true;
      continue;
    }
    if (!equals_ignore_case(line.substr(0, colon), name)) continue;
    if (++match.count == 1) match.value = trim(line.substr(colon + 1));
  }
  return match;
}

}  // namespace tollgate::catalogue
