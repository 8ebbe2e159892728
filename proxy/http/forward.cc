#include "proxy/http/forward.h"

#include <algorithm>

#include "metering/base/append.h"
#include "metering/base/ascii.h"
#include "metering/base/check.h"
#include "proxy/http/address.h"
#include "proxy/http/field_names.h"
#include "proxy/http/framing.h"
#include "proxy/http/syntax.h"

namespace tollgate::http {
namespace {

constexpr std::string_view kMaxForwards = "max-forwards";

bool is_one_line(std::string_view text) {
  return find_control(text, 0) == text.size();
}
bool are_whole_lines(std::string_view text) {
  return text.empty() || text.ends_with("\r\n");
}

void append_field(Appender& out, std::string_view name, std::string_view value) {
  char* at = Appender::put(out.room(name.size() + value.size() + 4), name);
  at = Appender::put(Appender::put(at, ": "), value);
  out.advance_to(Appender::put(at, "\r\n"));
}

void append_framing(Appender& out, Framing framing, std::uint64_t content_length) {
  if (framing == Framing::chunked) out.text("Transfer-Encoding: chunked\r\n");
  if (framing == Framing::length) out.text("Content-Length: ").decimal(content_length).text("\r\n");
}

bool is_listed(std::span<const std::string_view> names, std::string_view name) {
  return std::ranges::any_of(names,
                             [&](std::string_view listed) { return equals_ignore_case(listed, name); });
}

// Whether Connection takes this field away. Asked only when Connection names anything unusual.
bool is_named_by_connection(const Fields& fields, std::string_view name) {
  if (is_protected_from_connection(name)) return false;
  for (const Field& field : fields) {
    if (!equals_ignore_case(field.name, "connection")) continue;
    const bool absent = for_each_element(
        field.value, [&](std::string_view option) { return !equals_ignore_case(option, name); });
    if (!absent) return true;
  }
  return false;
}

// Listed in any spelling: a gateway behind us may take the one for the other.
bool is_listed_as_variable(std::span<const std::string_view> names, std::string_view name) {
  return std::ranges::any_of(names, [&](std::string_view known) {
    return known.size() == name.size() && is_same_variable(known, name);
  });
}

// Another spelling of a field that may hold credentials.
bool is_disguised(std::span<const std::string_view> identity_fields, std::string_view name) {
  return is_listed_as_variable(identity_fields, name) && !is_listed(identity_fields, name);
}

// Cookie without the pairs of some names. Nothing is written when nothing is left.
void append_cookie_without(Appender& out, const Field& cookie, std::span<const std::string_view> dropped) {
  const std::size_t begin = out.size();
  out.text(cookie.name).text(": ");
  const std::size_t empty = out.size();
  std::string_view rest = cookie.value;
  while (!rest.empty()) {
    const std::size_t semicolon = std::min(rest.find(';'), rest.size());
    const std::string_view pair = trim(rest.substr(0, semicolon));
    rest.remove_prefix(std::min(semicolon + 1, rest.size()));
    if (pair.empty() || std::ranges::find(dropped, trim(pair.substr(0, pair.find('=')))) != dropped.end())
      continue;
    if (out.size() > empty) out.text("; ");
    out.text(pair);
  }
  if (out.size() == empty)
    out.cut(begin);
  else
    out.text("\r\n");
}

// The inbound list of a trusted peer, all lines joined; then one more element by `append`.
template <class Append>
void append_list(Appender& out, std::string_view name, const Fields& fields, bool keep, FieldRole role,
                 Append&& append) {
  out.text(name).text(": ");
  if (keep) {
    for (const Field& field : fields) {
      // Only the exact name: a spelling with '_' is never a list of ours.
      if (role_of(field.name) != role || field.name.find('_') != std::string_view::npos ||
          field.value.empty())
        continue;
      out.text(field.value).text(", ");
    }
  }
  append();
  out.text("\r\n");
}

void append_forwarded_element(Appender& out, const RequestForwarding& forwarding, std::string_view host) {
  const std::optional<IpAddress> peer = parse_address(forwarding.peer_address);
  if (!peer)
    out.text("for=unknown");
  else if (peer->is_v4())
    out.text("for=").text(peer->to_string());
  else
    out.text("for=\"[").text(peer->to_string()).text("]\"");
  if (!host.empty()) out.text(";host=\"").text(host).text("\"");
  out.text(forwarding.https ? ";proto=https" : ";proto=http");
}

void append_provenance(Appender& out, const RequestHead& head, const RequestForwarding& forwarding,
                       bool has_forwarded) {
  append_list(out, "X-Forwarded-For", head.fields, forwarding.trusted_peer, FieldRole::forwarded_for,
              [&] { out.text(forwarding.peer_address.empty() ? "unknown" : forwarding.peer_address); });
  append_field(out, "X-Forwarded-Proto", forwarding.https ? "https" : "http");
  const std::string_view host =
      forwarding.forwarded_host.empty() ? head.authority : forwarding.forwarded_host;
  if (!host.empty()) append_field(out, "X-Forwarded-Host", host);
  if (has_forwarded)
    append_list(out, "Forwarded", head.fields, true, FieldRole::forwarded,
                [&] { append_forwarded_element(out, forwarding, head.authority); });
}

void append_hop_fields(Appender& out, const RequestHead& head, bool upgrade, bool accepts_trailers) {
  if (!upgrade && !accepts_trailers) return;
  append_field(out, "Connection", upgrade && accepts_trailers ? "upgrade, TE" : upgrade ? "upgrade" : "TE");
  if (accepts_trailers) append_field(out, "TE", "trailers");
  if (!upgrade) return;
  for (const Field& field : head.fields)
    if (equals_ignore_case(field.name, "upgrade")) append_field(out, "Upgrade", field.value);
}

void append_target(Appender& out, const RequestHead& head, std::string_view path) {
  out.text(path.empty() ? head.path : path);
  if (head.has_query) out.text("?").text(head.query);
}

}  // namespace

void append_request_head(std::string& to, const RequestHead& head, const RequestForwarding& forwarding) {
  CHECK(forwarding.path.empty() || forwarding.path.starts_with('/'), "a path begins with a slash");
  CHECK(forwarding.framing != Framing::until_close, "a request body never ends with the connection");
  CHECK(is_one_line(forwarding.request_id) && is_one_line(forwarding.forwarded_host) &&
            is_one_line(forwarding.default_host) && is_one_line(forwarding.via) &&
            is_one_line(forwarding.peer_address),
        "a value with a line end");
  CHECK(are_whole_lines(forwarding.extra_fields), "extra fields must be whole lines");
  Appender out(to);
  out.text(head.method).text(" ");
  append_target(out, head, forwarding.path);
  out.text(" HTTP/1.1\r\n");
  append_field(out, "Host", head.authority.empty() ? forwarding.default_host : head.authority);

  const bool check_named = head.connection_names_fields;
  const std::optional<std::uint64_t> hops = max_forwards(head);
  bool has_forwarded = false, accepts_trailers = false;
  for (const Field& field : head.fields) {
    switch (role_of(field.name)) {
      case FieldRole::end_to_end:
      case FieldRole::date:
        break;
      case FieldRole::expect:
        if (!forwarding.forward_expect || !head.expect_continue) continue;
        break;
      case FieldRole::cookie:
        if (forwarding.drop_cookies.empty() || is_listed_as_variable(forwarding.drop_fields, field.name))
          break;
        append_cookie_without(out, field, forwarding.drop_cookies);
        continue;
      case FieldRole::forwarded_by:
        if (!forwarding.trusted_peer || !is_vouched_spelling(field.name)) continue;
        break;
      case FieldRole::forwarded:
        has_forwarded = forwarding.trusted_peer;
        continue;
      case FieldRole::hop:
        if (equals_ignore_case(field.name, "te"))
          accepts_trailers |= !for_each_element(
              field.value, [](std::string_view coding) { return !equals_ignore_case(coding, "trailers"); });
        continue;
      default:
        continue;
    }
    if (is_listed_as_variable(forwarding.drop_fields, field.name)) continue;
    if (!forwarding.identity_fields.empty() && is_disguised(forwarding.identity_fields, field.name)) continue;
    if (check_named && is_named_by_connection(head.fields, field.name)) continue;
    if (hops && equals_ignore_case(field.name, kMaxForwards)) {
      out.text(field.name).text(": ").decimal(*hops - std::min<std::uint64_t>(*hops, 1)).text("\r\n");
      continue;
    }
    append_field(out, field.name, field.value);
  }

  append_framing(out, forwarding.framing, forwarding.content_length);
  append_hop_fields(out, head, forwarding.upgrade && head.wants_upgrade, accepts_trailers);
  append_provenance(out, head, forwarding, has_forwarded);
  if (!forwarding.request_id.empty()) append_field(out, "X-Request-Id", forwarding.request_id);
  if (!forwarding.via.empty()) {
    out.text(head.minor_version == 1 ? "Via: 1.1 " : "Via: 1.0 ").text(forwarding.via).text("\r\n");
  }
  out.text(forwarding.extra_fields).text("\r\n");
}

bool connection_names(const RequestHead& head, std::span<const std::string_view> names) {
  if (!head.connection_names_fields) return false;
  for (const Field& field : head.fields) {
    if (!equals_ignore_case(field.name, "connection")) continue;
    if (!for_each_element(field.value, [&](std::string_view option) { return !is_listed(names, option); }))
      return true;
  }
  return false;
}

void append_request_trailers(std::string& to, const RequestHead& head,
                             const std::vector<TrailerField>& trailers,
                             std::span<const std::string_view> identity_fields,
                             std::span<const std::string_view> drop_fields) {
  Appender out(to);
  out.text("0\r\n");
  for (const TrailerField& field : trailers) {
    if (is_listed_as_variable(identity_fields, field.name) ||
        is_listed_as_variable(drop_fields, field.name) ||
        (head.connection_names_fields && is_named_by_connection(head.fields, field.name)))
      continue;
    append_field(out, field.name, field.value);
  }
  out.text("\r\n");
}

std::vector<std::string> names_in_connection(const ResponseHead& head) {
  std::vector<std::string> names;
  if (!head.connection_names_fields) return names;
  for (const Field& field : head.fields) {
    if (!equals_ignore_case(field.name, "connection")) continue;
    for_each_element(field.value, [&](std::string_view option) {
      names.emplace_back(option);
      return true;
    });
  }
  return names;
}

void append_response_trailers(std::string& to, const std::vector<TrailerField>& trailers,
                              std::span<const std::string> connection,
                              std::span<const std::string_view> drop_fields) {
  if (connection.empty() && drop_fields.empty()) return append_last_chunk(to, trailers);
  Appender out(to);
  out.text("0\r\n");
  for (const TrailerField& field : trailers) {
    const auto is_same = [&](std::string_view name) { return equals_ignore_case(name, field.name); };
    if (std::ranges::any_of(connection, is_same) || is_listed(drop_fields, field.name)) continue;
    append_field(out, field.name, field.value);
  }
  out.text("\r\n");
}

bool switches_as_offered(const RequestHead& request, const ResponseHead& reply) {
  bool some = false;
  const auto offered = [&](std::string_view protocol) {
    some = true;
    return std::ranges::any_of(request.fields, [&](const Field& field) {
      return equals_ignore_case(field.name, "upgrade") &&
             !for_each_element(field.value,
                               [&](std::string_view offer) { return !equals_ignore_case(offer, protocol); });
    });
  };
  for (const Field& field : reply.fields)
    if (equals_ignore_case(field.name, "upgrade") && !for_each_element(field.value, offered)) return false;
  return some;
}

std::optional<std::uint64_t> max_forwards(const RequestHead& head) {
  if (head.method != "OPTIONS") return std::nullopt;
  const Field* field = find(head.fields, kMaxForwards);
  return field == nullptr ? std::nullopt : parse_decimal(field->value);
}

Framing client_framing(const ResponseHead& head, std::uint8_t client_minor_version) {
  const bool old = client_minor_version == 0;
  if (head.framing == Framing::until_close && !old) return Framing::chunked;
  if (head.framing == Framing::chunked && old) return Framing::until_close;
  return head.framing;
}

void append_response_head(std::string& to, const ResponseHead& head, const ResponseForwarding& forwarding) {
  CHECK(is_one_line(forwarding.request_id) && is_one_line(forwarding.date), "a value with a line end");
  CHECK(are_whole_lines(forwarding.extra_fields), "extra fields must be whole lines");
  const bool interim = head.status < 200 && head.status != 101;
  Appender out(to);
  out.text("HTTP/1.1 ").decimal(static_cast<std::uint64_t>(head.status)).text(" ").text(head.reason_phrase);
  out.text("\r\n");

  const bool check_named = head.connection_names_fields;
  // The length a body would have had: of a reply to HEAD and of 304 (RFC 9110 section 8.6).
  const bool keeps_length = forwarding.framing == Framing::none && head.framing == Framing::none &&
                            head.status >= 200 && head.status != 204;
  bool has_date = false;
  for (const Field& field : head.fields) {
    switch (role_of(field.name)) {
      case FieldRole::connection:
      case FieldRole::request_id:
        continue;
      case FieldRole::hop:
        if (!forwarding.upgrade || !equals_ignore_case(field.name, "upgrade")) continue;
        append_field(out, "Upgrade", field.value);
        continue;
      case FieldRole::framing:
        if (keeps_length && equals_ignore_case(field.name, "content-length"))
          append_framing(out, Framing::length, head.content_length);
        continue;
      case FieldRole::date:
        has_date = true;
        break;
      default:
        break;
    }
    if (!forwarding.drop_fields.empty() && is_listed(forwarding.drop_fields, field.name)) continue;
    if (check_named && is_named_by_connection(head.fields, field.name)) continue;
    if (forwarding.paths != nullptr) {
      if (const auto mapped = mapped_field(field.name, field.value, *forwarding.paths)) {
        append_field(out, field.name, *mapped);
        continue;
      }
    }
    append_field(out, field.name, field.value);
  }
  if (interim) {
    out.text("\r\n");
    return;
  }
  const bool old = forwarding.client_minor_version == 0;
  const bool closes = forwarding.close || forwarding.framing == Framing::until_close ||
                      (forwarding.framing == Framing::chunked && old);
  if (!has_date && !forwarding.date.empty()) append_field(out, "Date", forwarding.date);
  if (!(forwarding.framing == Framing::chunked && old))
    append_framing(out, forwarding.framing, forwarding.content_length);
  if (forwarding.upgrade)
    out.text("Connection: upgrade\r\n");
  else if (closes)
    out.text("Connection: close\r\n");
  else if (old)
    out.text("Connection: keep-alive\r\n");
  if (!forwarding.request_id.empty()) append_field(out, "X-Request-Id", forwarding.request_id);
  out.text(forwarding.extra_fields).text("\r\n");
}

}  // namespace tollgate::http
