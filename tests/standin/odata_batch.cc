// OData $batch of the stand-in CRM: JSON (OData JSON Format 4.01 section 19) and multipart/mixed with change
// sets (OData 4 Part 1 section 11.7). Each part is answered as if it had come alone.
#include <fmt/format.h>

#include "metering/base/ascii.h"
#include "tests/standin/crm.h"

namespace tollgate::standin {
namespace json = boost::json;
namespace {

void set_target(Request& request, std::string_view root, std::string_view url) {
  if (const std::size_t scheme = url.find("://"); scheme != std::string_view::npos) {
    const std::size_t path = url.find('/', scheme + 3);
    url = path == std::string_view::npos ? std::string_view("/") : url.substr(path);
  }
  request.target = url.starts_with('/') ? std::string(url) : fmt::format("/{}/{}", root, url);
  const std::string_view target = request.target;
  const std::size_t question = std::min(target.find('?'), target.size());
  request.path = percent_decode(target.substr(0, question));
  request.query = question < target.size() ? std::string(target.substr(question + 1)) : std::string();
}

// The text between two lines "--boundary"; the last delimiter may be missing (the vendor's own sample lacks
// it).
std::vector<std::string_view> split_parts(std::string_view body, std::string_view boundary) {
  const std::string delimiter = fmt::format("--{}", boundary);
  std::vector<std::string_view> parts;
  std::size_t at = body.find(delimiter);
  while (at != std::string_view::npos) {
    at += delimiter.size();
    if (body.substr(at).starts_with("--")) break;
    const std::size_t start = std::min(body.find('\n', at), body.size() - 1) + 1;
    const std::size_t next = body.find(delimiter, start);
    parts.push_back(body.substr(start, next == std::string_view::npos ? next : next - start));
    at = next;
  }
  return parts;
}

// Takes one line off the front, without its line end.
std::string_view take_line(std::string_view& text) {
  const std::size_t end = std::min(text.find('\n'), text.size());
  std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

HeaderList take_headers(std::string_view& text) {
  HeaderList headers;
  while (!text.empty()) {
    const std::string_view line = take_line(text);
    if (line.empty()) break;
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    headers.emplace_back(std::string(trim(line.substr(0, colon))), std::string(trim(line.substr(colon + 1))));
  }
  return headers;
}

std::string header(const HeaderList& headers, std::string_view name) {
  for (const auto& [key, value] : headers)
    if (equals_ignore_case(key, name)) return value;
  return {};
}

std::string boundary_of(const std::string& content_type) {
  const std::size_t at = to_lower(content_type).find("boundary=");
  if (at == std::string::npos) return {};
  std::string value = content_type.substr(at + 9);
  value = value.substr(0, value.find(';'));
  if (value.size() >= 2 && value.front() == '"' && value.back() == '"')
    value = value.substr(1, value.size() - 2);
  return value;
}

}  // namespace

Reply Crm::odata_batch(const Request& request, std::string_view service_root) {
  const std::string* content_type = request.find("Content-Type");
  const std::string type = content_type == nullptr ? std::string() : *content_type;
  const std::string_view root = service_root.empty() ? std::string_view("odata") : service_root;
  Reply reply = starts_with_ignore_case(type, "multipart/mixed") ? multipart_batch(request, root, type)
                                                                 : json_batch(request, root);
  reply.touched.insert(reply.touched.begin(), request.method + " $batch");
  return reply;
}

Reply Crm::json_batch(const Request& request, std::string_view root) {
  boost::system::error_code error;
  const json::value body = json::parse(request.body, error);
  const auto* object = error ? nullptr : body.if_object();
  const auto* list = object == nullptr ? nullptr : object->if_contains("requests");
  if (list == nullptr || !list->is_array())
    return json_reply(400, R"({"error":{"code":"","message":"not a batch"}})");
  const std::string* prefer = request.find("Prefer");
  const bool go_on = prefer != nullptr && prefer->find("continue-on-error") != std::string::npos;
  json::array responses;
  std::vector<std::string> touched;
  for (const json::value& item : list->get_array()) {
    const auto* fields = item.if_object();
    if (fields == nullptr)
      return json_reply(400, R"({"error":{"code":"","message":"a part is not an object"}})");
    const auto text = [&](const char* name) {
      const auto* found = fields->if_contains(name);
      return found != nullptr && found->is_string() ? std::string(found->get_string()) : std::string();
    };
    Request part;
    part.method = text("method");
    set_target(part, root, text("url"));
    if (const auto* inner = fields->if_contains("body")) part.body = json::serialize(*inner);
    const Reply answer = this->answer(part);
    touched.insert(touched.end(), answer.touched.begin(), answer.touched.end());
    json::object response{{"id", text("id")}, {"status", answer.status}};
    boost::system::error_code ignored;
    json::value inner = json::parse(answer.body, ignored);
    if (!ignored) response["body"] = std::move(inner);
    responses.push_back(std::move(response));
    if (answer.status >= 400 && !go_on) break;
  }
  Reply reply = json_reply(200, json::serialize(json::object{{"responses", responses}}));
  reply.touched = std::move(touched);
  return reply;
}

Reply Crm::multipart_batch(const Request& request, std::string_view root, const std::string& content_type) {
  const std::string boundary = boundary_of(content_type);
  if (boundary.empty()) return json_reply(400, R"({"error":{"code":"","message":"no boundary"}})");
  std::string out;
  std::vector<std::string> touched;
  const auto one = [&](std::string_view text, std::string_view delimiter, const std::string& content_id) {
    const std::string_view line = take_line(text);
    const std::size_t first = std::min(line.find(' '), line.size()), last = line.rfind(' ');
    Request part;
    part.method = std::string(line.substr(0, first));
    if (first < line.size() && last != std::string_view::npos && last > first)
      set_target(part, root, line.substr(first + 1, last - first - 1));
    part.headers = take_headers(text);
    while (text.ends_with('\n') || text.ends_with('\r')) text.remove_suffix(1);
    part.body = std::string(text);
    const Reply answer = this->answer(part);
    touched.insert(touched.end(), answer.touched.begin(), answer.touched.end());
    out += fmt::format(
        "--{}\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n{}\r\nHTTP/1.1 {} "
        "X\r\n",
        delimiter, content_id.empty() ? "" : "Content-ID: " + content_id + "\r\n", answer.status);
    if (!answer.body.empty())
      out += fmt::format("Content-Type: application/json\r\nContent-Length: {}\r\n", answer.body.size());
    out += "\r\n" + answer.body + "\r\n";
  };
  for (std::string_view text : split_parts(request.body, boundary)) {
    const HeaderList headers = take_headers(text);
    const std::string type = header(headers, "Content-Type");
    if (!starts_with_ignore_case(type, "multipart/mixed")) {
      one(text, "batchresponse_1", header(headers, "Content-ID"));
      continue;
    }
    out += "--batchresponse_1\r\nContent-Type: multipart/mixed; boundary=changesetresponse_1\r\n\r\n";
    for (std::string_view inner : split_parts(text, boundary_of(type))) {
      const HeaderList inner_headers = take_headers(inner);
      one(inner, "changesetresponse_1", header(inner_headers, "Content-ID"));
    }
    out += "--changesetresponse_1--\r\n";
  }
  out += "--batchresponse_1--\r\n";
  Reply reply;
  reply.headers.emplace_back("Content-Type", "multipart/mixed; boundary=batchresponse_1");
  reply.body = std::move(out);
  reply.touched = std::move(touched);
  return reply;
}

}  // namespace tollgate::standin
