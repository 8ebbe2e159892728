// The lines of a head, one at a time, shared by the request and the response parser: a start line, field
// lines, an empty line. Knows line ends, control bytes, names and limits; knows no meaning of any field.
//
//   bytes:  [CRLF]* start-line CRLF  name ":" OWS value OWS CRLF  ...  CRLF
//            skipped └ start_line ┘  └──────── field ────────┘         end
//
// It remembers how far it has looked, so a head that arrives byte by byte is scanned once. Positions are
// offsets; the buffer may move between calls. Which failure is reported does not depend on where reads were
// cut: a limit is checked before the line that crosses it is looked at.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "proxy/http/message.h"

namespace tollgate::http {

inline constexpr std::size_t kEmptyLinesBefore = 4;  // empty lines tolerated before a request line

class HeadReader {
 public:
  enum class Event : std::uint8_t { need_more, start_line, field, end, failed };
  struct Reasons {  // what kind of failure each trouble is
    Reason malformed, line_too_long, head_too_large;
  };

  HeadReader(HeadLimits limits, Reasons reasons, std::size_t empty_lines_allowed);

  // The next line of `bytes` (same meaning as RequestParser::parse). Call until need_more, end or failed.
  Event next(std::string_view bytes);

  std::string_view start_line(std::string_view bytes) const {  // after Event::start_line
    return bytes.substr(start_offset_, start_size_);
  }
  // What there is of the start line before it is whole, too.
  std::string_view start_so_far(std::string_view bytes) const {
    return start_seen_ ? start_line(bytes) : bytes.substr(line_);
  }
  const Field& field() const { return field_; }   // after Event::field; views into `bytes` of that call
  std::size_t consumed() const { return line_; }  // after end: size of the head
  bool started() const { return start_seen_ || scanned_ > line_; }
  const ParseFailure& failure() const { return failure_; }
  void reset();

 private:
  Event fail(Reason reason, std::string_view detail);
  Event check_limits(std::size_t stop, std::size_t line_end_size);
  Event read_field(std::string_view line);

  HeadLimits limits_;
  Reasons reasons_;
  std::size_t empty_lines_allowed_;
  std::size_t empty_lines_ = 0;
  std::size_t line_ = 0;     // offset of the line being read
  std::size_t scanned_ = 0;  // no line end and no control byte in [line_, scanned_)
  std::size_t start_offset_ = 0, start_size_ = 0;
  std::size_t field_count_ = 0;
  bool start_seen_ = false;
  Field field_;
  ParseFailure failure_;
};

// One field line without its CRLF, free of control bytes. Empty answer: good; else what is wrong with it.
std::string_view parse_field_line(std::string_view line, Field& field);

// Points views from a buffer that began at `old_base` to the same offsets of one that begins at `new_base`.
void rebase(Fields& fields, std::uintptr_t old_base, const char* new_base);

}  // namespace tollgate::http
