#include "proxy/http/request_parser.h"

#include "proxy/http/framing.h"
#include "proxy/http/syntax.h"

namespace tollgate::http {
namespace {

constexpr HeadReader::Reasons kReasons = {Reason::bad_request, Reason::uri_too_long,
                                          Reason::header_too_large};

// Protocols whose frames carry requests that would never be looked at again, or that replace the connection's
// security: an Upgrade to one of them is not offered to the upstream.
bool is_opaque_protocol(std::string_view protocol) {
  return starts_with_ignore_case(protocol, "h2") || starts_with_ignore_case(protocol, "http") ||
         starts_with_ignore_case(protocol, "tls") || starts_with_ignore_case(protocol, "connect");
}

bool may_upgrade(const Fields& fields) {
  bool some = false;
  for (const Field& field : fields) {
    if (!equals_ignore_case(field.name, "upgrade")) continue;
    const bool good = for_each_element(field.value, [&](std::string_view protocol) {
      some = true;
      const std::size_t slash = protocol.find('/');
      const bool named = is_token(protocol.substr(0, slash)) &&
                         (slash == std::string_view::npos || is_token(protocol.substr(slash + 1)));
      return named && !is_opaque_protocol(protocol);
    });
    if (!good) return false;
  }
  return some;
}

// Empty: good. Every byte of a target but the space that ends it.
std::string_view check_target(std::string_view target) {
  if (target.empty()) return "no target in the request line";
  for (std::size_t i = 0; i < target.size(); ++i) {
    while (i < target.size() && is_char(target[i], kTargetChar)) ++i;
    if (i == target.size()) break;
    const char c = target[i];
    if (c == '#') return "a fragment in the target";
    if (c != '%') return "a byte in the target that must be percent-encoded";
    if (i + 2 >= target.size() || hex_value(target[i + 1]) < 0 || hex_value(target[i + 2]) < 0)
      return "a malformed percent-encoding in the target";
    if (target[i + 1] == '0' && target[i + 2] == '0') return "an encoded NUL in the target";
    i += 2;
  }
  return {};
}

// The same host and port, where an absent port is the scheme's.
bool same_authority(const Authority& a, const Authority& b, std::string_view default_port) {
  const auto port = [&](const Authority& x) { return x.port.empty() ? default_port : x.port; };
  return equals_ignore_case(a.host, b.host) && port(a) == port(b);
}

// As it is written on to the upstream: an empty port goes with its colon (RFC 3986 section 6.2.3).
std::string_view canonical(std::string_view text, const Authority& authority) {
  return authority.port.empty() ? authority.host : text;
}

// What the parser itself looks at. The singletons come first: bit 1 << i of singletons_.
enum Noted : std::uint8_t {
  kAuthorization,
  kContentType,
  kExpect,
  kHttpMethod,
  kHttpMethodOverride,
  kMethodOverride,
  kProxyAuthorization,
  kSingletons,
  kHost = kSingletons,
  kContentLength,
  kTransferEncoding,
  kConnection,
  kUpgrade,
  kNothing
};

// One look at size and initial letter rules out nearly every field.
Noted noted(std::string_view name) {
  const auto when = [&](std::string_view known, Noted which) {
    return ascii_lower(name.front()) == known.front() && equals_ignore_case(name, known) ? which : kNothing;
  };
  switch (name.size()) {
    case 4:
      return when("host", kHost);
    case 6:
      return when("expect", kExpect);
    case 7:
      return when("upgrade", kUpgrade);
    case 10:
      return when("connection", kConnection);
    case 12:
      return when("content-type", kContentType);
    case 13:
      if (ascii_lower(name.front()) == 'x') return when("x-http-method", kHttpMethod);
      return when("authorization", kAuthorization);
    case 14:
      return when("content-length", kContentLength);
    case 17:
      if (ascii_lower(name.front()) == 'x') return when("x-method-override", kMethodOverride);
      return when("transfer-encoding", kTransferEncoding);
    case 19:
      return when("proxy-authorization", kProxyAuthorization);
    case 22:
      return when("x-http-method-override", kHttpMethodOverride);
    default:
      return kNothing;
  }
}

}  // namespace

RequestParser::RequestParser(HeadLimits limits) : reader_(limits, kReasons, kEmptyLinesBefore) {}

void RequestParser::reset() {
  reader_.reset();
  Fields fields = std::move(head_.fields);
  fields.clear();
  head_ = RequestHead{};
  head_.fields = std::move(fields);
  failure_ = {};
  status_ = ParseStatus::incomplete;
  host_ = content_length_ = transfer_encoding_ = kAbsent;
  has_connection_ = has_upgrade_ = asks_head_ = false;
  singletons_ = 0;
  base_ = 0;
}

ParseStatus RequestParser::fail(Reason reason, std::string_view detail) {
  failure_ = {reason, detail};
  return status_ = ParseStatus::failed;
}

ParseStatus RequestParser::parse(std::string_view bytes) {
  if (status_ == ParseStatus::failed) return status_;
  const auto base = reinterpret_cast<std::uintptr_t>(bytes.data());
  if (base != base_) {
    if (reader_.started()) follow(bytes);
    base_ = base;
  }
  if (status_ == ParseStatus::complete || read(bytes) == ParseStatus::complete) return status_;
  asks_head_ = reader_.start_so_far(bytes).starts_with("HEAD ");
  return status_;
}

ParseStatus RequestParser::read(std::string_view bytes) {
  for (;;) {
    switch (reader_.next(bytes)) {
      case HeadReader::Event::need_more:
        return ParseStatus::incomplete;
      case HeadReader::Event::failed:
        return fail(reader_.failure().reason, reader_.failure().detail);
      case HeadReader::Event::start_line:
        if (!parse_request_line(reader_.start_line(bytes))) return status_;
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
void RequestParser::follow(std::string_view bytes) {
  rebase(head_.fields, base_, bytes.data());
  if (reader_.start_line(bytes).empty()) return;
  parse_request_line(reader_.start_line(bytes));  // the same bytes as before: it cannot fail now
  if (status_ == ParseStatus::complete) settle_host();
}

bool RequestParser::parse_request_line(std::string_view line) {
  const auto refuse = [&](std::string_view detail) {
    fail(Reason::bad_request, detail);
    return false;
  };
  std::size_t end = 0;
  while (end < line.size() && is_char(line[end], kTokenChar)) ++end;
  if (end == 0 || end == line.size() || line[end] != ' ')
    return refuse("the method is not a token and one space");
  head_.method = line.substr(0, end);
  const std::string_view rest = line.substr(end + 1);
  const std::size_t space = rest.find(' ');
  head_.target = rest.substr(0, space);
  if (const std::string_view wrong = check_target(head_.target); !wrong.empty()) return refuse(wrong);
  if (space == std::string_view::npos) return refuse("no protocol version in the request line");
  const std::string_view version = rest.substr(space + 1);
  if (version == "HTTP/1.1")
    head_.minor_version = 1;
  else if (version == "HTTP/1.0")
    head_.minor_version = 0;
  else if (version.starts_with("HTTP/2"))
    return refuse("HTTP/2 is not spoken here, only HTTP/1.1");
  else
    return refuse("the protocol version is not HTTP/1.0 or HTTP/1.1, one space after the target");
  if (head_.method == "CONNECT") {
    fail(Reason::not_implemented, "CONNECT is not offered");
    return false;
  }
  if (equals_ignore_case(head_.method, "TRACE") || equals_ignore_case(head_.method, "TRACK")) {
    fail(Reason::not_implemented, "methods that echo the request are not offered");
    return false;
  }
  return parse_target();
}

bool RequestParser::parse_target() {
  head_.authority = {};
  std::string_view rest = head_.target;
  if (rest == "*") {
    if (head_.method != "OPTIONS") {
      fail(Reason::bad_request, "the target * with another method than OPTIONS");
      return false;
    }
    head_.path = rest;
    return true;
  }
  if (rest.front() != '/') {
    if (!parse_absolute_form()) return false;
    rest.remove_prefix(absolute_prefix_);
  }
  const std::size_t question = rest.find('?');
  head_.path = rest.substr(0, question);
  head_.has_query = question != std::string_view::npos;
  head_.query = head_.has_query ? rest.substr(question + 1) : std::string_view();
  if (head_.path.find('\\') != std::string_view::npos) {
    // Some servers take it for '/', so the path that is metered and the one that is served could differ.
    fail(Reason::bad_request, "a backslash in the path");
    return false;
  }
  // RFC 9112 section 3.2.4: an absolute-form without path or query means the server itself for OPTIONS.
  if (head_.path.empty()) head_.path = head_.method == "OPTIONS" && !head_.has_query ? "*" : "/";
  return true;
}

bool RequestParser::parse_absolute_form() {
  const std::string_view target = head_.target;
  std::size_t begin = 0;
  if (starts_with_ignore_case(target, "http://")) begin = 7;
  if (starts_with_ignore_case(target, "https://")) begin = 8;
  if (begin == 0) {
    fail(Reason::bad_request, "the target is neither a path nor an http or https address");
    return false;
  }
  const std::size_t end = std::min(target.find_first_of("/?", begin), target.size());
  const std::string_view text = target.substr(begin, end - begin);
  const Authority authority = parse_authority(text);
  if (!authority.valid) {
    fail(Reason::bad_request, "the authority of the target is not a host with an optional port");
    return false;
  }
  head_.authority = canonical(text, authority);
  absolute_https_ = begin == 8;
  absolute_prefix_ = end;
  return true;
}

bool RequestParser::note_field(const Field& field) {
  const std::size_t index = head_.fields.size();
  head_.fields.push_back(field);
  const auto once = [&](std::size_t& place, std::string_view detail) {
    if (place != kAbsent) {
      fail(Reason::bad_request, detail);
      return false;
    }
    place = index;
    return true;
  };
  switch (const Noted which = noted(field.name)) {
    case kNothing:
      return true;
    case kHost:
      return once(host_, "more than one Host");
    case kContentLength:
      return once(content_length_, "more than one Content-Length");
    case kTransferEncoding:
      return once(transfer_encoding_, "more than one Transfer-Encoding");
    case kConnection:
      has_connection_ = true;
      return true;
    case kUpgrade:
      has_upgrade_ = true;
      return true;
    default: {
      const std::uint32_t bit = 1U << which;
      if ((singletons_ & bit) != 0) {
        fail(Reason::bad_request, "a field twice that may stand once");
        return false;
      }
      singletons_ |= bit;
      return true;
    }
  }
}

bool RequestParser::settle_host() {
  if (host_ == kAbsent) {
    if (head_.minor_version == 0) return true;
    fail(Reason::bad_request, "no Host");
    return false;
  }
  const std::string_view text = head_.fields[host_].value;
  const Authority host = parse_authority(text);
  if (!host.valid) {
    fail(Reason::bad_request, "Host is not a host with an optional port");
    return false;
  }
  if (head_.authority.empty()) {
    head_.authority = canonical(text, host);
    return true;
  }
  if (same_authority(parse_authority(head_.authority), host, absolute_https_ ? "443" : "80")) return true;
  fail(Reason::bad_request, "the target and Host name different hosts");
  return false;
}

bool RequestParser::settle_framing() {
  const auto refuse = [&](std::string_view detail, Reason reason = Reason::bad_request) {
    fail(reason, detail);
    return false;
  };
  if (transfer_encoding_ != kAbsent) {
    if (content_length_ != kAbsent) return refuse("Content-Length together with Transfer-Encoding");
    if (head_.minor_version == 0) return refuse("Transfer-Encoding in HTTP/1.0");
    switch (parse_transfer_encoding(head_.fields[transfer_encoding_].value)) {
      case TransferCoding::chunked:
        head_.framing = Framing::chunked;
        return true;
      case TransferCoding::unsupported:
        return refuse("a transfer coding other than chunked", Reason::not_implemented);
      case TransferCoding::invalid:
        return refuse("Transfer-Encoding is not `chunked`");
    }
  }
  if (content_length_ != kAbsent) {
    const std::optional<std::uint64_t> length = parse_content_length(head_.fields[content_length_].value);
    if (!length) return refuse("Content-Length is not one number in digits");
    head_.framing = Framing::length;
    head_.content_length = *length;
  }
  return true;
}

bool RequestParser::settle_connection() {
  const bool has_body =
      head_.framing == Framing::chunked || (head_.framing == Framing::length && head_.content_length > 0);
  if ((singletons_ & 1U << kExpect) != 0) {
    if (!equals_ignore_case(find(head_.fields, "expect")->value, "100-continue")) {
      fail(Reason::bad_request, "an expectation other than 100-continue");
      return false;
    }
    // RFC 9110 section 10.1.1: ignored in HTTP/1.0, meaningless without a body.
    head_.expect_continue = has_body && head_.minor_version == 1;
  }
  head_.keep_alive = head_.minor_version == 1;
  if (!has_connection_) return true;
  const ConnectionOptions options = read_connection(head_.fields);
  if (!options.malformed.empty() || options.names_protected) {
    fail(Reason::bad_request,
         options.malformed.empty() ? "Connection names a field that it may not remove" : options.malformed);
    return false;
  }
  head_.connection_names_fields = options.names_others;
  head_.keep_alive = !options.close && (head_.minor_version == 1 || options.keep_alive);
  head_.wants_upgrade =
      options.upgrade && has_upgrade_ && head_.minor_version == 1 && !has_body && may_upgrade(head_.fields);
  return true;
}

ParseStatus RequestParser::finish() {
  if (settle_host() && settle_framing() && settle_connection()) status_ = ParseStatus::complete;
  return status_;
}

}  // namespace tollgate::http
