#include "tests/fuzz/second_reader.h"

#include <llhttp.h>
#include <algorithm>
#include <array>
#include <cctype>

namespace tollgate::fuzz {
namespace {

struct State {
  Reading reading;
  bool head = false;
  bool in_value = true;  // the next piece of a name begins a field
};

State& state_of(llhttp_t* parser) {
  return *static_cast<State*>(parser->data);
}
Message& message_of(llhttp_t* parser) {
  return state_of(parser).reading.messages.back();
}

const llhttp_settings_t& callbacks() {
  static const llhttp_settings_t settings = [] {
    llhttp_settings_t made;
    llhttp_settings_init(&made);
    made.on_message_begin = [](llhttp_t* parser) {
      state_of(parser).reading.messages.emplace_back();
      state_of(parser).in_value = true;
      return 0;
    };
    made.on_url = [](llhttp_t* parser, const char* at, std::size_t size) {
      message_of(parser).target.append(at, size);
      return 0;
    };
    made.on_header_field = [](llhttp_t* parser, const char* at, std::size_t size) {
      auto& fields = message_of(parser).fields;
      if (state_of(parser).in_value) fields.emplace_back();
      state_of(parser).in_value = false;
      fields.back().first.append(at, size);
      return 0;
    };
    made.on_header_value = [](llhttp_t* parser, const char* at, std::size_t size) {
      state_of(parser).in_value = true;
      message_of(parser).fields.back().second.append(at, size);
      return 0;
    };
    made.on_headers_complete = [](llhttp_t* parser) {
      Message& message = message_of(parser);
      if (parser->type == HTTP_REQUEST)
        message.method = llhttp_method_name(static_cast<llhttp_method_t>(parser->method));
      else
        message.status = parser->status_code;
      return state_of(parser).head ? 1 : 0;
    };
    made.on_body = [](llhttp_t* parser, const char* at, std::size_t size) {
      message_of(parser).body.append(at, size);
      return 0;
    };
    made.on_message_complete = [](llhttp_t* parser) {
      message_of(parser).complete = true;
      message_of(parser).upgrade = parser->upgrade != 0;
      return 0;
    };
    return made;
  }();
  return settings;
}

Reading read(llhttp_type_t type, std::string_view bytes, bool head, bool closed) {
  State state;
  state.head = head;
  llhttp_t parser;
  llhttp_init(&parser, type, &callbacks());
  parser.data = &state;
  // Bytes behind a message that ends its connection are looked at too: they are what this is about.
  llhttp_set_lenient_keep_alive(&parser, 1);
  llhttp_errno_t error = llhttp_execute(&parser, bytes.data(), bytes.size());
  if (error == HPE_PAUSED_UPGRADE) return std::move(state.reading);
  if (error == HPE_OK && closed) error = llhttp_finish(&parser);
  if (error != HPE_OK) state.reading.error = llhttp_errno_name(error);
  return std::move(state.reading);
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

bool is_tchar(unsigned char c) {
  return std::isalnum(c) != 0 ||
         (c != 0 && std::string_view("!#$%&'*+-.^_`|~").find(static_cast<char>(c)) != std::string_view::npos);
}
bool is_all_tchar(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, is_tchar);
}

std::string take_line(std::string_view& text, bool& ended) {
  const std::size_t end = text.find("\r\n");
  ended = end != std::string_view::npos;
  const std::string line(text.substr(0, end));
  text.remove_prefix(ended ? end + 2 : text.size());
  return line;
}

}  // namespace

bool knows_method(std::string_view method) {
  static constexpr auto kKnown = std::to_array<std::string_view>(
      {"DELETE", "GET",        "HEAD",     "POST",      "PUT",      "OPTIONS",    "COPY",       "LOCK",
       "MKCOL",  "MOVE",       "PROPFIND", "SEARCH",    "UNLOCK",   "BIND",       "REBIND",     "UNBIND",
       "ACL",    "REPORT",     "CHECKOUT", "PROPPATCH", "MERGE",    "MKACTIVITY", "NOTIFY",     "PATCH",
       "PURGE",  "MKCALENDAR", "LINK",     "UNLINK",    "M-SEARCH", "SUBSCRIBE",  "UNSUBSCRIBE"});
  return std::ranges::find(kKnown, method) != kKnown.end();
}

Reading read_requests(std::string_view bytes) {
  return read(HTTP_REQUEST, bytes, false, false);
}
Reading read_responses(std::string_view bytes, bool head, bool closed) {
  return read(HTTP_RESPONSE, bytes, head, closed);
}

std::string not_canonical(std::string_view head) {
  bool ended = false;
  const std::string start = take_line(head, ended);
  const std::size_t first = start.find(' '), last = start.rfind(' ');
  if (!ended || first == std::string::npos || first == last) return "the request line has not three parts";
  if (!is_all_tchar(std::string_view(start).substr(0, first))) return "the method is no token";
  const std::string_view target = std::string_view(start).substr(first + 1, last - first - 1);
  if (!target.starts_with('/') && target != "*") return "the target is not in origin-form";
  if (!std::ranges::all_of(target, [](unsigned char c) { return c > 0x20 && c < 0x7f; }))
    return "a byte in the target";
  if (start.substr(last + 1) != "HTTP/1.1") return "the version";

  int hosts = 0, framings = 0;
  bool says_te = false, says_upgrade = false, has_te = false, has_upgrade = false;
  for (;;) {
    const std::string line = take_line(head, ended);
    if (!ended) return "a line without CRLF";
    if (line.empty()) break;
    const std::size_t colon = line.find(": ");
    if (colon == std::string::npos) return "a field line without colon and space";
    const std::string name = lower(line.substr(0, colon));
    const std::string_view value = std::string_view(line).substr(colon + 2);
    if (!is_all_tchar(name)) return "a field name that is no token";
    if (!std::ranges::all_of(value, [](unsigned char c) { return c == '\t' || (c >= 0x20 && c != 0x7f); }))
      return "a control byte in a value";
    if (!value.empty() && (std::string_view(" \t").find(value.front()) != std::string_view::npos ||
                           std::string_view(" \t").find(value.back()) != std::string_view::npos))
      return "a blank around a value";
    hosts += name == "host";
    if (name == "content-length") {
      ++framings;
      if (value.empty() || value.find_first_not_of("0123456789") != std::string_view::npos)
        return "Content-Length is no number";
    } else if (name == "transfer-encoding") {
      ++framings;
      if (value != "chunked") return "Transfer-Encoding is not chunked";
    } else if (name == "connection") {
      says_te = value == "TE" || value == "upgrade, TE";
      says_upgrade = value == "upgrade" || value == "upgrade, TE";
      if (!says_te && !says_upgrade) return "Connection says something else";
    } else if (name == "te") {
      has_te = true;
      if (value != "trailers") return "TE says something else";
    } else if (name == "upgrade") {
      has_upgrade = true;
    } else if (name == "keep-alive" || name.starts_with("proxy-") || name == "trailer" ||
               name == "http2-settings") {
      return "a field of one connection: " + name;
    }
    std::string dashed = name;
    std::ranges::replace(dashed, '_', '-');
    if (dashed != name)
      for (const std::string_view known :
           {"content-length", "transfer-encoding", "keep-alive", "x-forwarded-for", "x-real-ip",
            "x-request-id", "http2-settings", "content-type", "x-http-method-override"})
        if (dashed == known) return "a name that is a known one but for '_': " + name;
  }
  if (!head.empty()) return "bytes behind the head";
  if (hosts != 1) return "not exactly one Host";
  if (framings > 1) return "more than one framing";
  if (says_te != has_te || says_upgrade != has_upgrade)
    return "Connection and the fields that it names disagree";
  return {};
}

}  // namespace tollgate::fuzz
