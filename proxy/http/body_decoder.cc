#include "proxy/http/body_decoder.h"

#include <algorithm>
#include <array>
#include <limits>

#include "metering/base/check.h"
#include "proxy/http/field_names.h"
#include "proxy/http/head_reader.h"
#include "proxy/http/syntax.h"

namespace tollgate::http {
namespace {

constexpr std::size_t kSizeDigitsMax = 16;
constexpr std::uint64_t kSizeMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());

bool is_blank(char c) {
  return c == ' ' || c == '\t';
}
// qdtext and the second byte of a quoted-pair (RFC 9110 section 5.6.4), quote and backslash apart.
bool is_text(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return c == '\t' || (byte >= 0x20 && byte != 0x7f);
}

}  // namespace

BodyDecoder::BodyDecoder(Framing framing, std::uint64_t content_length, BodyLimits limits, Reason malformed)
    : limits_(limits), malformed_(malformed), state_(State::done) {
  switch (framing) {
    case Framing::none:
      break;
    case Framing::length:
      left_ = content_length;
      if (left_ > 0) state_ = State::length;
      if (limits_.body_bytes > 0 && left_ > limits_.body_bytes)
        fail(0, Reason::body_too_large, "the body is larger than the limit");
      break;
    case Framing::chunked:
      state_ = State::size_first;
      break;
    case Framing::until_close:
      state_ = State::until_close;
      break;
  }
}

BodyDecoder BodyDecoder::of_request(const RequestHead& head, BodyLimits limits) {
  CHECK(head.framing != Framing::until_close, "a request body never ends with the connection");
  return {head.framing, head.content_length, limits, Reason::bad_request};
}

BodyDecoder BodyDecoder::of_response(const ResponseHead& head, BodyLimits limits) {
  return {head.framing, head.content_length, limits, Reason::upstream_invalid};
}

BodyDecoder::Step BodyDecoder::fail(std::size_t consumed, Reason reason, std::string_view detail) {
  state_ = State::failed;
  failure_ = {reason, detail};
  return {.consumed = consumed, .failed = true};
}

BodyDecoder::Step BodyDecoder::next(std::string_view bytes) {
  std::size_t at = 0;
  while (at < bytes.size()) {
    std::string_view wrong;
    switch (state_) {
      case State::done:
        return {.consumed = at, .done = true};
      case State::failed:
        return {.consumed = at, .failed = true};
      case State::length:
      case State::until_close:
      case State::payload:
        return take_payload(bytes, at);
      case State::payload_cr:
        if (bytes[at++] != '\r') wrong = "a chunk is not followed by CRLF";
        state_ = State::payload_lf;
        break;
      case State::payload_lf:
        if (bytes[at++] != '\n') wrong = "a chunk is not followed by CRLF";
        state_ = State::size_first;
        break;
      case State::trailer:
      case State::trailer_lf:
        at = read_trailers(bytes, at);
        if (state_ == State::failed) return {.consumed = at, .failed = true};
        break;
      default:
        if (++line_bytes_ > limits_.chunk_line_bytes)
          wrong = "a chunk size line is longer than the limit";
        else
          wrong = on_size_line(bytes[at++]);
        if (state_ == State::failed) return {.consumed = at, .failed = true};
        break;
    }
    if (!wrong.empty()) return fail(at, malformed_, wrong);
  }
  return {.consumed = at, .done = state_ == State::done, .failed = state_ == State::failed};
}

// `begin` bytes of framing stand before the payload in this call.
BodyDecoder::Step BodyDecoder::take_payload(std::string_view bytes, std::size_t begin) {
  std::string_view payload = bytes.substr(begin);
  if (state_ == State::until_close) {
    if (limits_.body_bytes > 0 && payload.size() > limits_.body_bytes - payload_bytes_)
      return fail(begin, Reason::body_too_large, "the body is larger than the limit");
  } else {
    payload = payload.substr(0, static_cast<std::size_t>(std::min<std::uint64_t>(left_, payload.size())));
    left_ -= payload.size();
    if (left_ == 0) state_ = state_ == State::length ? State::done : State::payload_cr;
  }
  payload_bytes_ += payload.size();
  return {.consumed = begin + payload.size(), .payload = payload, .done = state_ == State::done};
}

std::string_view BodyDecoder::on_size_digit(int digit) {
  if (++digits_ > kSizeDigitsMax) return "a chunk size with too many digits";
  left_ = left_ << 4 | static_cast<std::uint64_t>(digit);
  state_ = State::size;
  return {};
}

// One byte of: 1*HEXDIG *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted ) ] ) CRLF
std::string_view BodyDecoder::on_size_line(char c) {
  switch (state_) {
    case State::size_first:
      if (hex_value(c) < 0) return "a chunk size that does not begin with a hexadecimal digit";
      left_ = 0;
      digits_ = 0;
      line_bytes_ = 1;
      return on_size_digit(hex_value(c));
    case State::size:
      if (hex_value(c) >= 0) return on_size_digit(hex_value(c));
      if (c == ';')
        state_ = State::ext_name_start;
      else if (c == '\r')
        state_ = State::size_lf;
      else if (is_blank(c))
        state_ = State::ext_bws;
      else
        return "a chunk size with a byte that is no hexadecimal digit";
      return {};
    case State::size_lf:
      return c == '\n' ? on_size_line_end() : "a chunk size line that does not end in CRLF";
    default:
      return on_extension(c);
  }
}

std::string_view BodyDecoder::on_extension(char c) {
  static constexpr std::string_view kWrong = "a malformed chunk extension";
  const bool token = is_char(c, kTokenChar), blank = is_blank(c);
  switch (state_) {
    case State::ext_bws:  // only before ';'
      if (c == ';') state_ = State::ext_name_start;
      return c == ';' || blank ? std::string_view() : kWrong;
    case State::ext_name_start:
      if (token) state_ = State::ext_name;
      return token || blank ? std::string_view() : kWrong;
    case State::ext_name:
      if (token) return {};
      if (c == '\r')
        state_ = State::size_lf;
      else if (c == ';')
        state_ = State::ext_name_start;
      else if (c == '=')
        state_ = State::ext_value_start;
      else if (blank)
        state_ = State::ext_name_bws;
      else
        return kWrong;
      return {};
    case State::ext_name_bws:
      if (c == ';')
        state_ = State::ext_name_start;
      else if (c == '=')
        state_ = State::ext_value_start;
      else if (!blank)
        return kWrong;
      return {};
    case State::ext_value_start:
      if (c == '"')
        state_ = State::ext_quoted;
      else if (token)
        state_ = State::ext_value;
      else if (!blank)
        return kWrong;
      return {};
    case State::ext_quoted:
      if (c == '"')
        state_ = State::ext_after;
      else if (c == '\\')
        state_ = State::ext_quoted_pair;
      else if (!is_text(c))
        return kWrong;
      return {};
    case State::ext_quoted_pair:
      state_ = State::ext_quoted;
      return is_text(c) ? std::string_view() : kWrong;
    case State::ext_value:
      if (token) return {};
      [[fallthrough]];
    case State::ext_after:
      if (c == '\r')
        state_ = State::size_lf;
      else if (c == ';')
        state_ = State::ext_name_start;
      else if (blank)
        state_ = State::ext_bws;
      else
        return kWrong;
      return {};
    default:
      CHECK(false, "not a state of a chunk extension");
  }
}

std::string_view BodyDecoder::on_size_line_end() {
  if (left_ > kSizeMax - payload_bytes_) return "a chunk size beyond 2^63";
  const std::uint64_t fair = 16 + 2 * std::min<std::uint64_t>(left_, limits_.chunk_overhead);
  overhead_ += line_bytes_;
  overhead_ -= std::min(overhead_, fair);
  line_bytes_ = 0;
  if (overhead_ > limits_.chunk_overhead) return "more chunk extensions than the limit";
  if (limits_.body_bytes > 0 && left_ > limits_.body_bytes - payload_bytes_) {
    fail(0, Reason::body_too_large, "the body is larger than the limit");
    return {};
  }
  state_ = left_ == 0 ? State::trailer : State::payload;
  return {};
}

std::size_t BodyDecoder::read_trailers(std::string_view bytes, std::size_t at) {
  const auto too_large = [&](std::string_view detail) {
    fail(0, malformed_ == Reason::bad_request ? Reason::header_too_large : malformed_, detail);
  };
  const std::size_t begin = at;
  if (state_ == State::trailer) {
    // One byte past the limit is enough to see that it is crossed.
    const std::size_t room = limits_.trailer_bytes - trailer_bytes_ + 1;
    const std::string_view window = bytes.substr(0, at + std::min(room, bytes.size() - at));
    const std::size_t stop = find_control(window, at);
    trailer_line_.append(window.substr(at, stop - at));
    at = stop;
    if (at < window.size()) {
      if (window[at++] != '\r')
        fail(0, malformed_, "a control byte in the trailers, or a line end without CR");
      else
        state_ = State::trailer_lf;
    }
  } else {
    state_ = State::trailer;
    if (bytes[at++] != '\n')
      fail(0, malformed_, "a CR without LF in the trailers");
    else if (const std::string_view wrong = on_trailer_line(); !wrong.empty())
      fail(0, malformed_, wrong);
  }
  trailer_bytes_ += at - begin;
  if (state_ != State::failed && state_ != State::done) {
    if (trailer_bytes_ > limits_.trailer_bytes) too_large("the trailers are larger than the limit");
    if (trailer_count_ > limits_.trailer_count) too_large("more trailer fields than the limit");
  }
  return at;
}

std::string_view BodyDecoder::on_trailer_line() {
  if (trailer_line_.empty()) {
    state_ = State::done;
    return {};
  }
  Field field;
  if (const std::string_view wrong = parse_field_line(trailer_line_, field); !wrong.empty()) return wrong;
  const FieldRole role = role_of(field.name);
  if (role == FieldRole::framing || role == FieldRole::host)
    return "a trailer field that frames or routes the message";
  ++trailer_count_;
  if (!is_forbidden_trailer(field.name) && trailer_count_ <= limits_.trailer_count)
    trailers_.push_back({std::string(field.name), std::string(field.value)});
  trailer_line_.clear();
  return {};
}

void append_chunk_start(std::string& out, std::uint64_t size) {
  CHECK(size > 0, "an empty chunk would end the body");
  std::array<char, kSizeDigitsMax> digits;
  std::size_t at = digits.size();
  for (; size > 0; size >>= 4) digits[--at] = "0123456789abcdef"[size & 15];
  out.append(digits.data() + at, digits.size() - at);
  out.append("\r\n");
}

void append_last_chunk(std::string& out, const std::vector<TrailerField>& trailers) {
  out.append("0\r\n");
  for (const TrailerField& field : trailers) {
    out.append(field.name).append(": ").append(field.value).append("\r\n");
  }
  out.append("\r\n");
}

}  // namespace tollgate::http
