#include "proxy/http/response_parser.h"

#include "proxy/http/framing.h"
#include "proxy/http/syntax.h"

namespace tollgate::http {
namespace {

constexpr HeadReader::Reasons kReasons = {Reason::upstream_invalid, Reason::upstream_invalid,
                                          Reason::upstream_invalid};

}  // namespace

ResponseParser::ResponseParser(HeadLimits limits) : reader_(limits, kReasons, 0) {}

void ResponseParser::expect(std::string_view request_method, bool upgrade_offered) {
  asked_ = request_method == "HEAD"      ? Asked::head
           : request_method == "CONNECT" ? Asked::connect
                                         : Asked::other;
  upgrade_offered_ = upgrade_offered;
}

void ResponseParser::reset() {
  reader_.reset();
  Fields fields = std::move(head_.fields);
  fields.clear();
  head_ = ResponseHead{};
  head_.fields = std::move(fields);
  failure_ = {};
  status_ = ParseStatus::incomplete;
  content_length_ = transfer_encoding_ = kAbsent;
  has_connection_ = false;
  base_ = 0;
}

ParseStatus ResponseParser::fail(std::string_view detail) {
  failure_ = {Reason::upstream_invalid, detail};
  return status_ = ParseStatus::failed;
}

ParseStatus ResponseParser::parse(std::string_view bytes) {
  if (status_ == ParseStatus::failed) return status_;
  const auto base = reinterpret_cast<std::uintptr_t>(bytes.data());
  if (base != base_) {
    if (reader_.started()) follow(bytes);
    base_ = base;
  }
  if (status_ == ParseStatus::complete) return status_;
  for (;;) {
    switch (reader_.next(bytes)) {
      case HeadReader::Event::need_more:
        return ParseStatus::incomplete;
      case HeadReader::Event::failed:
        return fail(reader_.failure().detail);
      case HeadReader::Event::start_line:
        if (!parse_status_line(reader_.start_line(bytes))) return status_;
        break;
      case HeadReader::Event::field:
        if (!note_field(reader_.field())) return status_;
        break;
      case HeadReader::Event::end:
        return finish();
    }
  }
}

// The buffer moved: point everything to the same bytes at their new place.
void ResponseParser::follow(std::string_view bytes) {
  rebase(head_.fields, base_, bytes.data());
  if (!reader_.start_line(bytes).empty()) parse_status_line(reader_.start_line(bytes));
}

// HTTP/1.x SP 3DIGIT [ SP phrase ]
bool ResponseParser::parse_status_line(std::string_view line) {
  const auto refuse = [&](std::string_view detail) {
    fail(detail);
    return false;
  };
  const bool is_11 = line.starts_with("HTTP/1.1 ");
  if (!is_11 && !line.starts_with("HTTP/1.0 "))
    return refuse("the status line does not begin with HTTP/1.0 or HTTP/1.1");
  if (line.size() < 12 || !is_digit(line[9]) || !is_digit(line[10]) || !is_digit(line[11]))
    return refuse("the status is not three digits");
  if (line.size() > 12 && line[12] != ' ') return refuse("the status is not followed by a space");
  head_.minor_version = is_11 ? 1 : 0;
  head_.status = (line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0');
  if (head_.status < 100 || head_.status > 599) return refuse("the status is outside 100..599");
  head_.reason_phrase = line.size() > 13 ? line.substr(13) : std::string_view();
  return true;
}

bool ResponseParser::note_field(const Field& field) {
  const std::size_t index = head_.fields.size();
  head_.fields.push_back(field);
  const auto once = [&](std::size_t& place, std::string_view detail) {
    if (place != kAbsent) {
      fail(detail);
      return false;
    }
    place = index;
    return true;
  };
  switch (field.name.size()) {
    case 10:
      if (equals_ignore_case(field.name, "connection")) has_connection_ = true;
      break;
    case 14:
      if (equals_ignore_case(field.name, "content-length"))
        return once(content_length_, "more than one Content-Length");
      break;
    case 17:
      if (equals_ignore_case(field.name, "transfer-encoding"))
        return once(transfer_encoding_, "more than one Transfer-Encoding");
      break;
    default:
      break;
  }
  return true;
}

// RFC 9112 section 6.3. keep_alive is cleared where the end of the body is the end of the connection.
bool ResponseParser::settle_framing() {
  const auto refuse = [&](std::string_view detail) {
    fail(detail);
    return false;
  };
  const bool coded = transfer_encoding_ != kAbsent, sized = content_length_ != kAbsent;
  if (coded) {
    if (sized) return refuse("Content-Length together with Transfer-Encoding");
    if (head_.minor_version == 0) return refuse("Transfer-Encoding in HTTP/1.0");
    if (parse_transfer_encoding(head_.fields[transfer_encoding_].value) != TransferCoding::chunked)
      return refuse("Transfer-Encoding is not `chunked`");
  }
  if (sized) {
    const std::optional<std::uint64_t> length = parse_content_length(head_.fields[content_length_].value);
    if (!length) return refuse("Content-Length is not one number in digits");
    head_.content_length = *length;
  }
  const bool announces = coded || head_.content_length > 0;
  if (head_.status < 200 || head_.status == 204) {
    if (head_.status < 200 && announces) return refuse("an interim response that announces a body");
    if (head_.status == 101 && !upgrade_offered_) return refuse("101 without an Upgrade to answer");
    // What a 204 announces may follow all the same: not a connection to use again.
    if (head_.status == 101 || announces) head_.keep_alive = false;
    head_.content_length = 0;
    return true;
  }
  if (asked_ == Asked::connect && head_.status < 300) {
    head_.keep_alive = false;
    return true;
  }
  if (asked_ == Asked::head || head_.status == 304) return true;
  if (coded) {
    head_.framing = Framing::chunked;
  } else if (sized) {
    head_.framing = Framing::length;
  } else {
    head_.framing = Framing::until_close;
    head_.keep_alive = false;
  }
  return true;
}

bool ResponseParser::settle_connection() {
  if (!has_connection_) {
    if (head_.minor_version == 0) head_.keep_alive = false;
    return true;
  }
  const ConnectionOptions options = read_connection(head_.fields);
  if (!options.malformed.empty()) {
    fail(options.malformed);
    return false;
  }
  head_.connection_names_fields = options.names_others;
  if (options.close || (head_.minor_version == 0 && !options.keep_alive)) head_.keep_alive = false;
  return true;
}

ParseStatus ResponseParser::finish() {
  if (settle_framing() && settle_connection()) status_ = ParseStatus::complete;
  return status_;
}

}  // namespace tollgate::http
